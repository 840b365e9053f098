//! Signatures: which are accepted, and verifying that of a message with a given certificate.

use trustfleet_pki::{certificate::Certificate, signature::SignatureAlgorithm};

use crate::{codec::PkiMessage, error::MessageError, text::shown};

/// Which signature algorithms are accepted for the protection of a peer's messages, set apart from what is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptedSignatures {
    /// The accepted ones.
    pub algorithms: Vec<SignatureAlgorithm>,
}

impl Default for AcceptedSignatures {
    /// All that this build knows: SHA-256 and stronger.
    fn default() -> Self {
        Self { algorithms: SignatureAlgorithm::ALL.into_iter().filter(|known| known.is_available()).collect() }
    }
}

impl AcceptedSignatures {
    /// Is the message signed by an algorithm that is accepted, with parameters that are allowed (P6)?
    pub(crate) fn check(&self, message: &PkiMessage) -> Result<(), MessageError> {
        let algorithm = message.header.protection_alg.as_ref().ok_or(MessageError::ProtectionIncomplete)?;
        let refused = |detail: String| MessageError::Algorithm { detail };
        let known = SignatureAlgorithm::of(algorithm).map_err(|error| refused(error.to_string()))?;
        if self.algorithms.contains(&known) {
            return Ok(());
        }
        Err(refused(format!("{known} is not among those configured")))
    }
}

/// Verifies the signature of a message over the bytes received (P1).
///
/// # Errors
/// [`MessageError::SignatureInvalid`], with the reason.
pub(crate) fn verify(message: &PkiMessage, certificate: &Certificate) -> Result<(), MessageError> {
    let (Some(algorithm), Some(protection)) = (&message.header.protection_alg, &message.protection) else {
        return Err(MessageError::ProtectionIncomplete);
    };
    let invalid = |detail: String| MessageError::SignatureInvalid { signer: shown(&certificate.subject()), detail };
    let covered = message.protected_part().map_err(|error| invalid(error.to_string()))?;
    certificate.public_key().verify(algorithm, &covered, protection).map_err(|error| invalid(error.to_string()))
}
