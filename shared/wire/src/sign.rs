//! Ed25519 signatures of controller and agents over payload bytes, by aws-lc-rs.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_LEN: usize = 32;

/// What a signature is for: a signature made for one purpose is worthless for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Broker messages from controller to agent.
    ToAgent,
    /// Broker messages from agent to controller.
    FromAgent,
    /// Answer of the join door.
    JoinAnswer,
    /// Answer of the session door.
    SessionAnswer,
    /// An agent's proof when it joins.
    JoinProof,
    /// An agent's proof when it opens a session.
    SessionProof,
    /// The controller's own challenge.
    Challenge,
    /// An agent's proof when it announces itself.
    AnnounceProof,
    /// Answer to that.
    AnnounceAnswer,
    /// A link of the controller's audit log.
    AuditCheckpoint,
}

impl Purpose {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::ToAgent => b"trustfleet v1 to-agent\0",
            Self::FromAgent => b"trustfleet v1 from-agent\0",
            Self::JoinAnswer => b"trustfleet v1 join-answer\0",
            Self::SessionAnswer => b"trustfleet v1 session-answer\0",
            Self::JoinProof => b"trustfleet v1 join-proof\0",
            Self::SessionProof => b"trustfleet v1 session-proof\0",
            Self::Challenge => b"trustfleet v1 challenge\0",
            Self::AnnounceProof => b"trustfleet v1 announce-proof\0",
            Self::AnnounceAnswer => b"trustfleet v1 announce-answer\0",
            Self::AuditCheckpoint => b"trustfleet v1 audit-checkpoint\0",
        }
    }
}

/// A key could not be made or read, or a signature does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The system's random source failed.
    #[error("no Ed25519 key could be made: the system's random source failed")]
    Generate,
    /// Not the PKCS#8 of an Ed25519 key.
    #[error("the signing key is not a PKCS#8 Ed25519 private key")]
    BadKey,
    /// Wrong signature, wrong key or changed bytes.
    #[error("the signature does not fit the message and the key")]
    BadSignature,
}

/// An Ed25519 private key; never printed.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", key_id(&self.public_key()))
    }
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`SignError::Generate`].
    pub fn generate() -> Result<Self, SignError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| SignError::Generate)
    }

    /// Reads a key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`SignError::BadKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self).map_err(|_| SignError::BadKey)
    }

    /// The key as PKCS#8 DER, for a file that only its owner can read.
    ///
    /// # Errors
    /// [`SignError::BadKey`] when the library cannot encode it.
    pub fn to_pkcs8(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, SignError> {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = self.0.as_der().map_err(|_| SignError::BadKey)?;
        Ok(zeroize::Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The public key, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// A symmetric key for one purpose that follows from this key (HKDF-SHA256): whoever shares the one has the other.
    ///
    /// # Errors
    /// [`SignError::BadKey`] when the library refuses.
    pub fn derive(&self, purpose: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, SignError> {
        let seed = self.to_pkcs8()?;
        let mut key = zeroize::Zeroizing::new(vec![0; 32]);
        Salt::new(HKDF_SHA256, b"trustfleet v1")
            .extract(&seed)
            .expand(&[purpose], HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .map_err(|_| SignError::BadKey)?;
        Ok(key)
    }

    /// Signs `message` for one purpose.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Vec<u8> {
        self.0.sign(&input(purpose, message)).as_ref().to_vec()
    }
}

/// Verifies a signature made by [`SigningKey::sign`].
///
/// # Errors
/// [`SignError::BadSignature`].
pub fn verify(public_key: &[u8], purpose: Purpose, message: &[u8], signature: &[u8]) -> Result<(), SignError> {
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(&input(purpose, message), signature)
        .map_err(|_| SignError::BadSignature)
}

/// Id of a public key: the first 16 bytes of its SHA-256, lower-case hex.
pub fn key_id(public_key: &[u8]) -> String {
    digest(&SHA256, public_key).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn input(purpose: Purpose, message: &[u8]) -> Vec<u8> {
    [purpose.prefix(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_only_for_its_purpose_its_bytes_and_its_key() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = key.sign(Purpose::ToAgent, b"job");
        assert_eq!(verify(&key.public_key(), Purpose::ToAgent, b"job", &signature), Ok(()));
        for (public, purpose, message) in [
            (key.public_key(), Purpose::FromAgent, b"job"),
            (key.public_key(), Purpose::ToAgent, b"jab"),
            (other.public_key(), Purpose::ToAgent, b"job"),
        ] {
            assert_eq!(verify(&public, purpose, message, &signature), Err(SignError::BadSignature));
        }
    }

    #[test]
    fn a_key_survives_its_file_and_never_shows_in_debug_output() {
        let key = SigningKey::generate().unwrap();
        let der = key.to_pkcs8().unwrap();
        let read = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key_id(&key.public_key())));
    }
}
