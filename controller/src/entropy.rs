//! The controller's random source, for ids and tokens; everything that decides gets its randomness from here by argument.

use aws_lc_rs::rand;

use crate::error::AppError;

/// `N` random bytes from the system's source.
///
/// # Errors
/// [`AppError::Internal`] when the system's random source fails.
pub fn random<const N: usize>() -> Result<[u8; N], AppError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| AppError::internal("the system's random source failed"))?;
    Ok(bytes)
}
