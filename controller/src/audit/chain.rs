//! The chain of a log: each link's hash covers its row and the link before; now and then the controller signs one.
//!
//! Links are counted from 1 in each log, in the order in which they were chained. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::TenantId;
use trustfleet_wire::sign::{Purpose, SigningKey, key_id, verify};

use super::record::sha256;

/// A link's hash.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first link of a log refers to.
    pub fn beginning(tenant: TenantId) -> Self {
        Self(sha256(&[b"trustfleet v1 audit chain\0", tenant.as_uuid().as_bytes()]))
    }

    /// The next link's hash. `content`: [`super::Record::content`]; `sealed`: whether the row's seal was good when it was
    /// chained.
    #[must_use]
    pub fn next(self, tenant: TenantId, seq: i64, audit_id: i64, sealed: bool, content: &[u8]) -> Self {
        Self(sha256(&[
            b"trustfleet v1 audit link\0",
            tenant.as_uuid().as_bytes(),
            &seq.to_be_bytes(),
            &self.0,
            &audit_id.to_be_bytes(),
            &[u8::from(sealed)],
            content,
        ]))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl TryFrom<String> for Hash {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A link that the controller has signed: with it everything before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The link.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
    /// When it was signed; whole microseconds.
    pub at: Timestamp,
    /// Which key signed it: [`key_id`] of the controller's public key.
    pub key_id: String,
    /// Ed25519 signature, hex.
    #[serde(with = "super::hex_text")]
    pub signature: Vec<u8>,
}

impl Checkpoint {
    /// Signs a link.
    pub fn sign(tenant: TenantId, seq: i64, hash: Hash, at: Timestamp, key: &SigningKey) -> Self {
        let signature = key.sign(Purpose::AuditCheckpoint, &message(tenant, seq, hash, at));
        Self { seq, hash, at, key_id: key_id(&key.public_key()), signature }
    }

    /// Whether this key has signed it for this log.
    pub fn is_signed_by(&self, tenant: TenantId, public_key: &[u8]) -> bool {
        let message = message(tenant, self.seq, self.hash, self.at);
        verify(public_key, Purpose::AuditCheckpoint, &message, &self.signature).is_ok()
    }
}

fn message(tenant: TenantId, seq: i64, hash: Hash, at: Timestamp) -> Vec<u8> {
    let mut bytes = tenant.as_uuid().as_bytes().to_vec();
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(&at.as_microsecond().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_signature_holds_for_its_log_and_link_alone() {
        let key = SigningKey::generate().unwrap();
        let (one, two) = (TenantId::from(Uuid::from_u128(1)), TenantId::from(Uuid::from_u128(2)));
        let at = Timestamp::from_second(1_000).unwrap();
        let signed = Checkpoint::sign(one, 7, Hash::beginning(one), at, &key);
        assert!(signed.is_signed_by(one, &key.public_key()));
        assert!(!signed.is_signed_by(two, &key.public_key()));
        assert!(!Checkpoint { seq: 8, ..signed.clone() }.is_signed_by(one, &key.public_key()));
        assert!(!Checkpoint { hash: Hash::beginning(two), ..signed.clone() }.is_signed_by(one, &key.public_key()));
        let later = Timestamp::from_second(1_001).unwrap();
        assert!(!Checkpoint { at: later, ..signed.clone() }.is_signed_by(one, &key.public_key()));
        assert!(!signed.is_signed_by(one, &SigningKey::generate().unwrap().public_key()));
        let text = serde_json::to_string(&signed).unwrap();
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), signed);
    }
}
