//! Verifying the signature of a message with a given certificate.

use trustfleet_pki::certificate::Certificate;

use crate::{codec::PkiMessage, error::MessageError};

/// Verifies the signature of a message over the bytes received (P1).
///
/// # Errors
/// [`MessageError::SignatureInvalid`], with the reason.
pub(crate) fn verify(message: &PkiMessage, certificate: &Certificate) -> Result<(), MessageError> {
    let (Some(algorithm), Some(protection)) = (&message.header.protection_alg, &message.protection) else {
        return Err(MessageError::ProtectionIncomplete);
    };
    let invalid = |detail: String| MessageError::SignatureInvalid { signer: certificate.subject().to_string(), detail };
    let covered = message.protected_part().map_err(|error| invalid(error.to_string()))?;
    certificate.public_key().verify(algorithm, &covered, protection).map_err(|error| invalid(error.to_string()))
}
