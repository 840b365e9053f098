//! Secrets at rest: AES-256-GCM under the key-encryption key, bound to the row they are stored in (S13).
//!
//! A ciphertext moved to another row, or to another tenant's, does not open. Nothing here is ever logged.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use trustfleet_model::{
    ids::{SecretId, TenantId},
    secret::SecretBytes,
};
use zeroize::Zeroizing;

/// Bytes of a key-encryption key.
pub const KEY_LEN: usize = 32;

/// A secret could not be encrypted or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AtRestError {
    /// Not 32 bytes.
    #[error("the key-encryption key is not {KEY_LEN} bytes long")]
    BadKey,
    /// The library refused to encrypt.
    #[error("the secret could not be encrypted")]
    Seal,
    /// Encrypted under another key.
    #[error("the secret is encrypted under another key-encryption key: start the controller with that key")]
    OtherKey,
    /// Changed, or moved from another row.
    #[error("the stored secret does not belong to this row, or was changed")]
    Open,
}

/// The key-encryption key; never printed.
pub struct AtRestKey {
    key: RandomizedNonceKey,
    id: String,
}

impl std::fmt::Debug for AtRestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AtRestKey({})", self.id)
    }
}

impl AtRestKey {
    /// Takes the 32 bytes of a key.
    ///
    /// # Errors
    /// [`AtRestError::BadKey`].
    pub fn new(bytes: &[u8]) -> Result<Self, AtRestError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| AtRestError::BadKey)?;
        let id = hex::encode(&digest(&SHA256, &[b"trustfleet kek id".as_slice(), bytes].concat()).as_ref()[..8]);
        Ok(Self { key, id })
    }

    /// Id of the key, for column `secrets.kek_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts a secret for its row: nonce (12 bytes), ciphertext, tag (16 bytes).
    ///
    /// # Errors
    /// [`AtRestError::Seal`].
    pub fn seal(&self, tenant: TenantId, secret: SecretId, plain: &[u8]) -> Result<Vec<u8>, AtRestError> {
        // Room for the tag, so that no half-grown copy of the plain text stays behind in memory.
        let mut in_out = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        in_out.extend_from_slice(plain);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(row(tenant, secret)), &mut *in_out)
            .map_err(|_| AtRestError::Seal)?;
        Ok([nonce.as_ref().as_slice(), &in_out].concat())
    }

    /// Decrypts what [`AtRestKey::seal`] made for the same row.
    ///
    /// # Errors
    /// [`AtRestError::OtherKey`] or [`AtRestError::Open`].
    pub fn open(
        &self,
        tenant: TenantId,
        secret: SecretId,
        kek_id: &str,
        stored: &[u8],
    ) -> Result<SecretBytes, AtRestError> {
        if kek_id != self.id {
            return Err(AtRestError::OtherKey);
        }
        let (nonce, ciphertext) = stored.split_first_chunk::<NONCE_LEN>().ok_or(AtRestError::Open)?;
        let mut in_out = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::from(nonce), Aad::from(row(tenant, secret)), &mut in_out)
            .map_err(|_| AtRestError::Open)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }
}

fn row(tenant: TenantId, secret: SecretId) -> Vec<u8> {
    [b"trustfleet v1 secret".as_slice(), tenant.as_uuid().as_bytes(), secret.as_uuid().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn s13_a_ciphertext_opens_only_in_its_own_row_and_under_its_own_key() {
        let (tenant, other_tenant) = (TenantId::from(Uuid::from_u128(1)), TenantId::from(Uuid::from_u128(2)));
        let (secret, other_secret) = (SecretId::from(Uuid::from_u128(3)), SecretId::from(Uuid::from_u128(4)));
        let key = AtRestKey::new(&[7; 32]).unwrap();
        let stored = key.seal(tenant, secret, b"geheim").unwrap();
        assert!(!stored.windows(6).any(|window| window == b"geheim"));
        assert_eq!(key.open(tenant, secret, key.id(), &stored).unwrap().expose().as_slice(), b"geheim");

        assert_eq!(key.open(other_tenant, secret, key.id(), &stored).unwrap_err(), AtRestError::Open);
        assert_eq!(key.open(tenant, other_secret, key.id(), &stored).unwrap_err(), AtRestError::Open);
        assert_eq!(key.open(tenant, secret, key.id(), &stored[..11]).unwrap_err(), AtRestError::Open);
        let other = AtRestKey::new(&[8; 32]).unwrap();
        assert_eq!(other.open(tenant, secret, key.id(), &stored).unwrap_err(), AtRestError::OtherKey);
        assert_eq!(other.open(tenant, secret, other.id(), &stored).unwrap_err(), AtRestError::Open);
    }

    #[test]
    fn the_same_secret_is_never_stored_the_same_way_twice() {
        let (tenant, secret) = (TenantId::from(Uuid::from_u128(1)), SecretId::from(Uuid::from_u128(3)));
        let key = AtRestKey::new(&[7; 32]).unwrap();
        assert_ne!(key.seal(tenant, secret, b"x").unwrap(), key.seal(tenant, secret, b"x").unwrap());
        assert_eq!(AtRestKey::new(&[7; 31]).unwrap_err(), AtRestError::BadKey);
    }
}
