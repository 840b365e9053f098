//! Secrets on their way to an agent: HPKE (RFC 9180), base mode, X25519-HKDF-SHA256, HKDF-SHA256, AES-256-GCM.
//!
//! A sealed secret is bound to the job and trustpoint it is for: put into another job it does not open.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, JobId, TrustpointId};
use trustfleet_model::secret::SecretBytes;

use crate::v1::Blob;

const INFO: &[u8] = b"trustfleet v1 sealed-secret";
/// Length of an X25519 key, either half, bytes.
const KEY_LEN: usize = 32;

/// A secret that only one agent can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Encapsulated key, 32 bytes.
    pub enc: Blob,
    /// Ciphertext with its tag.
    pub ciphertext: Blob,
}

/// What a sealed secret is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealContext {
    /// The agent that may open it.
    pub agent_id: AgentId,
    /// The job that it is for.
    pub job_id: JobId,
    /// The trustpoint that it is for.
    pub trustpoint_id: TrustpointId,
}

impl SealContext {
    fn associated_data(&self) -> Vec<u8> {
        let ids = [self.agent_id.as_uuid(), self.job_id.as_uuid(), self.trustpoint_id.as_uuid()];
        ids.iter().flat_map(|id| *id.as_bytes()).collect()
    }
}

/// A secret could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not an X25519 key.
    #[error("the key is not an X25519 key of 32 bytes")]
    BadKey,
    /// The library made no key.
    #[error("no X25519 key could be made")]
    Generate,
    /// The library refused to seal.
    #[error("the secret could not be sealed")]
    Seal,
    /// Sealed for another agent, job or trustpoint, or changed on the way.
    #[error("the sealed secret is not for this agent and job, or was changed on the way")]
    Open,
}

/// The agent's X25519 private key; never printed.
pub struct OpeningKey {
    private: HpkePrivateKey,
    public: Vec<u8>,
}

impl std::fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpeningKey(redacted)")
    }
}

impl OpeningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`SealError::Generate`].
    pub fn generate() -> Result<Self, SealError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| SealError::Generate)?;
        Ok(Self { private, public: public.0 })
    }

    /// Reads the 32 bytes of a key.
    ///
    /// # Errors
    /// [`SealError::BadKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let key = PrivateKey::from_private_key(&X25519, bytes).map_err(|_| SealError::BadKey)?;
        let public = key.compute_public_key().map_err(|_| SealError::BadKey)?.as_ref().to_vec();
        Ok(Self { private: HpkePrivateKey::from(bytes.to_vec()), public })
    }

    /// The 32 bytes, for a file that only its owner can read.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.private.secret_bytes().to_vec())
    }

    /// The public key, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.public.clone()
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// [`SealError::Open`].
    pub fn open(&self, sealed: &SealedSecret, context: &SealContext) -> Result<SecretBytes, SealError> {
        let enc = EncapsulatedSecret(sealed.enc.0.clone());
        SUITE
            .open(&enc, INFO, &context.associated_data(), &sealed.ciphertext.0, &self.private)
            .map(SecretBytes::new)
            .map_err(|_| SealError::Open)
    }
}

/// Seals a secret to an agent's public key.
///
/// # Errors
/// The key is not one, or the library refused.
pub fn seal(secret: &[u8], public_key: &[u8], context: &SealContext) -> Result<SealedSecret, SealError> {
    if public_key.len() != KEY_LEN {
        return Err(SealError::BadKey);
    }
    let public_key = HpkePublicKey(public_key.to_vec());
    let (enc, ciphertext) =
        SUITE.seal(INFO, &context.associated_data(), secret, &public_key).map_err(|_| SealError::Seal)?;
    Ok(SealedSecret { enc: Blob(enc.0), ciphertext: Blob(ciphertext) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(job: u128) -> SealContext {
        SealContext {
            agent_id: uuid::Uuid::from_u128(1).into(),
            job_id: uuid::Uuid::from_u128(job).into(),
            trustpoint_id: uuid::Uuid::from_u128(3).into(),
        }
    }

    #[test]
    fn s13_a_sealed_secret_opens_only_for_its_agent_and_job() {
        let (key, other) = (OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let sealed = seal(b"geheim", &key.public_key(), &context(2)).unwrap();
        assert_eq!(key.open(&sealed, &context(2)).unwrap().expose(), b"geheim");
        assert_eq!(other.open(&sealed, &context(2)).unwrap_err(), SealError::Open);
        assert_eq!(key.open(&sealed, &context(4)).unwrap_err(), SealError::Open);
        assert!(!serde_json::to_string(&sealed).unwrap().contains("geheim"));
    }

    #[test]
    fn an_opening_key_survives_its_file() {
        let key = OpeningKey::generate().unwrap();
        let read = OpeningKey::from_bytes(key.to_bytes().expose()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(OpeningKey::from_bytes(&[1; 31]).unwrap_err(), SealError::BadKey);
        assert_eq!(seal(b"geheim", &[1; 31], &context(2)).unwrap_err(), SealError::BadKey);
    }

    #[test]
    fn what_another_implementation_sealed_opens_here() {
        // Made by the crate hpke 0.15, which sealed in earlier releases.
        let sealed: SealedSecret = serde_json::from_str(
            r#"{"enc":"ocgSJiVctsll9LxNwpycvOT+qQTlVL16dD61d1wwWjw=","ciphertext":"xezFYZ90DKu5cOsgylkVT1Q7APYC1g=="}"#,
        )
        .unwrap();
        let key = OpeningKey::from_bytes(&[7; 32]).unwrap();
        assert_eq!(key.public_key()[..4], [19, 190, 79, 234]);
        assert_eq!(key.open(&sealed, &context(2)).unwrap().expose(), b"geheim");
    }
}
