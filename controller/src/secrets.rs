//! Secrets at rest: AES-256-GCM under a key-encryption key, bound to the row they are stored in (S13).
//!
//! A ciphertext moved to another row, or to another tenant's, does not open. Nothing here is ever logged.

use std::{fmt, sync::Arc};

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
    #[error(
        "the secret is encrypted under a key-encryption key that this controller has not: start it with that key, too"
    )]
    OtherKey,
    /// Changed, or moved from another row.
    #[error("the stored secret does not belong to this row, or was changed")]
    Open,
}

/// A key-encryption key. The one below is held in memory; one that a key-management service holds implements the same.
pub trait KeyEncryptionKey: fmt::Debug + Send + Sync {
    /// Its id, for column `secrets.kek_id`.
    fn id(&self) -> &str;

    /// Encrypts `plain`; `row` must be given again to decrypt.
    ///
    /// # Errors
    /// [`AtRestError::Seal`].
    fn encrypt(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, AtRestError>;

    /// Decrypts what [`KeyEncryptionKey::encrypt`] made.
    ///
    /// # Errors
    /// [`AtRestError::Open`].
    fn decrypt(&self, row: &[u8], stored: &[u8]) -> Result<SecretBytes, AtRestError>;
}

/// A key-encryption key in memory, AES-256-GCM; never printed.
pub struct AtRestKey {
    key: RandomizedNonceKey,
    id: String,
}

impl fmt::Debug for AtRestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
}

impl KeyEncryptionKey for AtRestKey {
    fn id(&self) -> &str {
        &self.id
    }

    /// Nonce (12 bytes), ciphertext, tag (16 bytes).
    fn encrypt(&self, row: &[u8], plain: &[u8]) -> Result<Vec<u8>, AtRestError> {
        // Room for the tag, so that no half-grown copy of the plain text stays behind in memory.
        let mut in_out = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        in_out.extend_from_slice(plain);
        let nonce = self.key.seal_in_place_append_tag(Aad::from(row), &mut *in_out).map_err(|_| AtRestError::Seal)?;
        Ok([nonce.as_ref().as_slice(), &in_out].concat())
    }

    fn decrypt(&self, row: &[u8], stored: &[u8]) -> Result<SecretBytes, AtRestError> {
        let (nonce, ciphertext) = stored.split_first_chunk::<NONCE_LEN>().ok_or(AtRestError::Open)?;
        let mut in_out = Zeroizing::new(ciphertext.to_vec());
        let plain =
            self.key.open_in_place(Nonce::from(nonce), Aad::from(row), &mut in_out).map_err(|_| AtRestError::Open)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }
}

/// The key-encryption keys of an installation: one encrypts, all decrypt, so that secrets can move from one to the next
/// while controllers run.
#[derive(Debug)]
pub struct KeyRing {
    first: Arc<dyn KeyEncryptionKey>,
    further: Vec<Arc<dyn KeyEncryptionKey>>,
}

impl KeyRing {
    /// `first` encrypts what is new.
    pub fn new(first: Arc<dyn KeyEncryptionKey>, further: Vec<Arc<dyn KeyEncryptionKey>>) -> Self {
        Self { first, further }
    }

    /// Id of the key that encrypts, for column `secrets.kek_id`.
    pub fn id(&self) -> &str {
        self.first.id()
    }

    /// Ids of all keys, the one that encrypts first.
    pub fn ids(&self) -> Vec<&str> {
        std::iter::once(&self.first).chain(&self.further).map(|key| key.id()).collect()
    }

    /// Encrypts a secret for its row, by the first key.
    ///
    /// # Errors
    /// [`AtRestError::Seal`].
    pub fn seal(&self, tenant: TenantId, secret: SecretId, plain: &[u8]) -> Result<Vec<u8>, AtRestError> {
        self.first.encrypt(&row(tenant, secret), plain)
    }

    /// Decrypts what [`KeyRing::seal`] made for the same row, by the key with that id.
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
        let mut keys = std::iter::once(&self.first).chain(&self.further);
        let key = keys.find(|key| key.id() == kek_id).ok_or(AtRestError::OtherKey)?;
        key.decrypt(&row(tenant, secret), stored)
    }
}

fn row(tenant: TenantId, secret: SecretId) -> Vec<u8> {
    [b"trustfleet v1 secret".as_slice(), tenant.as_uuid().as_bytes(), secret.as_uuid().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// A ring of keys that consist of one byte each.
    fn ring(bytes: &[u8]) -> KeyRing {
        let mut keys = bytes
            .iter()
            .map(|byte| -> Arc<dyn KeyEncryptionKey> { Arc::new(AtRestKey::new(&[*byte; KEY_LEN]).unwrap()) });
        KeyRing::new(keys.next().unwrap(), keys.collect())
    }

    #[test]
    fn a_ring_reads_under_all_of_its_keys_and_writes_under_the_first() {
        let (tenant, secret) = (TenantId::from(Uuid::from_u128(1)), SecretId::from(Uuid::from_u128(3)));
        let (old, both) = (ring(&[7]), ring(&[8, 7]));
        let stored = old.seal(tenant, secret, b"geheim").unwrap();
        assert_eq!(both.open(tenant, secret, old.id(), &stored).unwrap().expose().as_slice(), b"geheim");
        let moved = both.seal(tenant, secret, b"geheim").unwrap();
        assert_eq!(both.ids(), [ring(&[8]).id(), old.id()]);
        assert_eq!(ring(&[8]).open(tenant, secret, both.id(), &moved).unwrap().expose().as_slice(), b"geheim");
        assert_eq!(old.open(tenant, secret, both.id(), &moved).unwrap_err(), AtRestError::OtherKey);
    }

    #[test]
    fn s13_a_ciphertext_opens_only_in_its_own_row_and_under_its_own_key() {
        let (tenant, other_tenant) = (TenantId::from(Uuid::from_u128(1)), TenantId::from(Uuid::from_u128(2)));
        let (secret, other_secret) = (SecretId::from(Uuid::from_u128(3)), SecretId::from(Uuid::from_u128(4)));
        let key = ring(&[7]);
        let stored = key.seal(tenant, secret, b"geheim").unwrap();
        assert!(!stored.windows(6).any(|window| window == b"geheim"));
        assert_eq!(key.open(tenant, secret, key.id(), &stored).unwrap().expose().as_slice(), b"geheim");

        assert_eq!(key.open(other_tenant, secret, key.id(), &stored).unwrap_err(), AtRestError::Open);
        assert_eq!(key.open(tenant, other_secret, key.id(), &stored).unwrap_err(), AtRestError::Open);
        assert_eq!(key.open(tenant, secret, key.id(), &stored[..11]).unwrap_err(), AtRestError::Open);
        let other = ring(&[8]);
        assert_eq!(other.open(tenant, secret, key.id(), &stored).unwrap_err(), AtRestError::OtherKey);
        assert_eq!(other.open(tenant, secret, other.id(), &stored).unwrap_err(), AtRestError::Open);
    }

    #[test]
    fn the_same_secret_is_never_stored_the_same_way_twice() {
        let (tenant, secret) = (TenantId::from(Uuid::from_u128(1)), SecretId::from(Uuid::from_u128(3)));
        let key = ring(&[7]);
        assert_ne!(key.seal(tenant, secret, b"x").unwrap(), key.seal(tenant, secret, b"x").unwrap());
        assert_eq!(AtRestKey::new(&[7; 31]).unwrap_err(), AtRestError::BadKey);
    }
}
