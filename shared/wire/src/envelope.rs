//! The outer shape of every message on the broker and of signed HTTP answers.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sign::{Purpose, SignError, SigningKey, key_id, verify};
use crate::v1::Blob;

/// The only version there is.
pub const VERSION: u16 = 1;
/// Longest message accepted, bytes.
pub const MESSAGE_MAX: usize = 512 * 1024;

/// A signed message: the signature covers the payload's bytes exactly as they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Version of the payload.
    pub v: u16,
    /// Id of the signing key ([`key_id`]).
    pub key: String,
    /// JSON of the payload.
    pub payload: Blob,
    /// Ed25519 signature.
    pub signature: Blob,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MESSAGE_MAX`].
    #[error("the message has {0} bytes; at most {MESSAGE_MAX} are read")]
    TooLong(usize),
    /// Not an envelope.
    #[error("the message is not an envelope")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// A version that this program does not know.
    #[error("the message has version {0}; this program reads version {VERSION}: update it")]
    UnknownVersion(u16),
    /// The signature does not fit.
    #[error("the message is not authentic")]
    NotAuthentic(#[source] SignError),
    /// The payload is not what it should be.
    #[error("the message's payload cannot be read")]
    BadPayload(#[source] serde_json::Error),
    /// The payload cannot be written.
    #[error("the message's payload cannot be written")]
    Unwritable(#[source] serde_json::Error),
}

impl Envelope {
    /// Signs a payload.
    ///
    /// # Errors
    /// [`WireError::Unwritable`].
    pub fn seal<T: Serialize>(payload: &T, purpose: Purpose, key: &SigningKey) -> Result<Self, WireError> {
        let payload = serde_json::to_vec(payload).map_err(WireError::Unwritable)?;
        let signature = Blob(key.sign(purpose, &payload));
        Ok(Self { v: VERSION, key: key_id(&key.public_key()), payload: Blob(payload), signature })
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// [`WireError::Unwritable`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        serde_json::to_vec(self).map_err(WireError::Unwritable)
    }

    /// Reads the outer shape; nothing of it is authentic yet.
    ///
    /// # Errors
    /// Too long, not an envelope, or of an unknown version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        /// Only the version, so that a later version may change everything else.
        #[derive(Deserialize)]
        struct Version {
            v: u16,
        }
        if bytes.len() > MESSAGE_MAX {
            return Err(WireError::TooLong(bytes.len()));
        }
        let version: Version = serde_json::from_slice(bytes).map_err(WireError::NotAnEnvelope)?;
        if version.v != VERSION {
            return Err(WireError::UnknownVersion(version.v));
        }
        serde_json::from_slice(bytes).map_err(WireError::NotAnEnvelope)
    }

    /// Verifies the signature, then reads the payload.
    ///
    /// # Errors
    /// Not authentic, or a payload of another type.
    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, public_key: &[u8]) -> Result<T, WireError> {
        verify(public_key, purpose, &self.payload.0, &self.signature.0).map_err(WireError::NotAuthentic)?;
        serde_json::from_slice(&self.payload.0).map_err(WireError::BadPayload)
    }

    /// Reads the payload WITHOUT verifying it: only to find out whose key must verify it.
    ///
    /// # Errors
    /// A payload of another type.
    pub fn peek<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.payload.0).map_err(WireError::BadPayload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_payload_is_not_authentic() {
        let key = SigningKey::generate().unwrap();
        let mut envelope = Envelope::seal(&"job", Purpose::ToAgent, &key).unwrap();
        assert_eq!(envelope.open::<String>(Purpose::ToAgent, &key.public_key()).unwrap(), "job");
        envelope.payload = Blob(b"\"jab\"".to_vec());
        let error = envelope.open::<String>(Purpose::ToAgent, &key.public_key()).unwrap_err();
        assert!(matches!(error, WireError::NotAuthentic(_)));
    }

    #[test]
    fn an_unknown_version_is_told_apart_from_rubbish() {
        let later = br#"{"v":9,"shape":"unknown"}"#;
        assert!(matches!(Envelope::from_bytes(later), Err(WireError::UnknownVersion(9))));
        assert!(matches!(Envelope::from_bytes(b"\x00rubbish"), Err(WireError::NotAnEnvelope(_))));
        assert!(matches!(Envelope::from_bytes(&vec![b' '; MESSAGE_MAX + 1]), Err(WireError::TooLong(_))));
    }
}
