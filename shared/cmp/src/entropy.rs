//! Randomness as an argument: transactionIDs, nonces and salts come from here, so that a run can be repeated.

use aws_lc_rs::rand;

use crate::error::LocalError;

/// A source of random bytes.
pub trait Entropy {
    /// Fills the buffer.
    ///
    /// # Errors
    /// When no randomness is to be had.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed>;
}

/// No randomness is to be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct EntropyFailed;

/// The random number generator of aws-lc-rs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        rand::fill(buffer).map_err(|_| EntropyFailed)
    }
}

/// 128 fresh bits: the size of a transactionID (H10), a nonce (H11) and a salt.
pub(crate) fn fresh(entropy: &mut dyn Entropy, purpose: &'static str) -> Result<Vec<u8>, LocalError> {
    let mut bytes = vec![0_u8; 16];
    entropy.fill(&mut bytes).map_err(|_| LocalError::Entropy { purpose })?;
    Ok(bytes)
}
