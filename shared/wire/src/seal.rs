//! Secrets on their way to an agent: HPKE (RFC 9180), base mode, X25519-HKDF-SHA256, HKDF-SHA256, AES-256-GCM.
//!
//! A sealed secret is bound to the job and trustpoint it is for: put into another job it does not open.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, JobId, TrustpointId};
use trustfleet_model::secret::SecretBytes;

use crate::v1::Blob;

const INFO: &[u8] = b"trustfleet v1 sealed-secret";

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

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
    /// The library refused to seal.
    #[error("the secret could not be sealed")]
    Seal,
    /// Sealed for another agent, job or trustpoint, or changed on the way.
    #[error("the sealed secret is not for this agent and job, or was changed on the way")]
    Open,
}

/// The agent's X25519 private key; never printed.
pub struct OpeningKey(PrivateKey);

impl std::fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpeningKey(redacted)")
    }
}

impl OpeningKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self(X25519HkdfSha256::gen_keypair().0)
    }

    /// Reads the 32 bytes of a key.
    ///
    /// # Errors
    /// [`SealError::BadKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        PrivateKey::from_bytes(bytes).map(Self).map_err(|_| SealError::BadKey)
    }

    /// The 32 bytes, for a file that only its owner can read.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.to_bytes().to_vec())
    }

    /// The public key, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().to_vec()
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// [`SealError::Open`].
    pub fn open(&self, sealed: &SealedSecret, context: &SealContext) -> Result<SecretBytes, SealError> {
        let enc = EncappedKey::from_bytes(&sealed.enc.0).map_err(|_| SealError::Open)?;
        single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &enc,
            INFO,
            &sealed.ciphertext.0,
            &context.associated_data(),
        )
        .map(SecretBytes::new)
        .map_err(|_| SealError::Open)
    }
}

/// Seals a secret to an agent's public key.
///
/// # Errors
/// The key is not one, or the library refused.
pub fn seal(secret: &[u8], public_key: &[u8], context: &SealContext) -> Result<SealedSecret, SealError> {
    let public_key = PublicKey::from_bytes(public_key).map_err(|_| SealError::BadKey)?;
    let (enc, ciphertext) = single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public_key,
        INFO,
        secret,
        &context.associated_data(),
    )
    .map_err(|_| SealError::Seal)?;
    Ok(SealedSecret { enc: Blob(enc.to_bytes().to_vec()), ciphertext: Blob(ciphertext) })
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
        let (key, other) = (OpeningKey::generate(), OpeningKey::generate());
        let sealed = seal(b"geheim", &key.public_key(), &context(2)).unwrap();
        assert_eq!(key.open(&sealed, &context(2)).unwrap().expose(), b"geheim");
        assert_eq!(other.open(&sealed, &context(2)).unwrap_err(), SealError::Open);
        assert_eq!(key.open(&sealed, &context(4)).unwrap_err(), SealError::Open);
        assert!(!serde_json::to_string(&sealed).unwrap().contains("geheim"));
    }

    #[test]
    fn an_opening_key_survives_its_file() {
        let key = OpeningKey::generate();
        let read = OpeningKey::from_bytes(key.to_bytes().expose()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(OpeningKey::from_bytes(&[1; 31]).unwrap_err(), SealError::BadKey);
    }
}
