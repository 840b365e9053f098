//! A transaction as it is kept over a restart: everything but the secret and the private keys.
//!
//! The record holds the last request's bytes, so that exactly these can be sent again (T5). In MAC mode they carry a
//! MAC, from which a weak secret could be found by trial: keep the record as private as a key.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use trustfleet_pki::certificate::Certificate;

use super::state::State;
use crate::{
    codec::header::CMP2000,
    info::Topic,
    outcome::{Exchanged, Warning},
    protection::MacPolicy,
    request::RequestKind,
};

/// The form of the record; another number is refused.
pub(super) const VERSION: u32 = 1;

/// A kept transaction, to be serialised by the caller; see [`super::Transaction::resume`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionRecord {
    pub(super) version: u32,
    pub(super) context: Context,
    pub(super) state: State,
}

impl TransactionRecord {
    /// The transactionID in hexadecimal.
    pub fn transaction_id(&self) -> String {
        hex::encode(&self.context.transaction_id.0)
    }

    /// What was asked for.
    pub const fn kind(&self) -> RequestKind {
        self.context.kind
    }

    /// The public key asked for (DER SubjectPublicKeyInfo), to find its private key by.
    pub fn public_key_der(&self) -> &[u8] {
        &self.context.public_key.0
    }

    /// What the transaction waits for, in words.
    pub const fn awaits(&self) -> &'static str {
        self.state.name()
    }
}

/// What stays the same over the states.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    pub(super) kind: RequestKind,
    pub(super) transaction_id: Bytes,
    /// DER Name.
    pub(super) sender: Bytes,
    /// DER Name.
    pub(super) recipient: Bytes,
    /// DER Name.
    pub(super) subject: Bytes,
    /// DER GeneralNames or empty.
    pub(super) sans: Bytes,
    /// DER SubjectPublicKeyInfo.
    pub(super) public_key: Bytes,
    pub(super) implicit_confirm: bool,
    /// Not in records of the first form, like all that has a default here; written only where it is not that default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cert_profile: Option<String>,
    /// Protocol version of our messages (H1, H2).
    #[serde(default = "first_pvno", skip_serializing_if = "is_first_pvno")]
    pub(super) pvno: u64,
    /// H2, E4: once is enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) begun_anew: bool,
    /// genm only: what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<Topic>,
    /// rr only: which certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revokes: Option<Revokes>,
    pub(super) protection: Protection,
    pub(super) started_at: Timestamp,
    /// Certificates of the answers (X4).
    #[serde(with = "certificates")]
    pub(super) peer_certificates: Vec<Certificate>,
    pub(super) warnings: Vec<Warning>,
    pub(super) transcript: Vec<Exchanged>,
}

const fn first_pvno() -> u64 {
    CMP2000
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_first_pvno(pvno: &u64) -> bool {
    *pvno == CMP2000
}

/// The certificate that an rr is about.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Revokes {
    /// DER Name.
    pub(super) issuer: Bytes,
    /// Content octets of the INTEGER.
    pub(super) serial: Bytes,
}

/// Which credentials belong to the transaction (P7), without anything secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub(super) enum Protection {
    Mac { reference: Bytes, policy: MacPolicy, salt: Bytes },
    Signature { certificate: Bytes },
}

/// Bytes, as base64 in text formats.
#[derive(Clone, Default, Eq, PartialEq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// Certificates as their DER; one that cannot be read helps nobody and is left out.
mod certificates {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use trustfleet_pki::certificate::Certificate;

    use super::Bytes;

    pub(super) fn serialize<S: Serializer>(certificates: &[Certificate], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(certificates.iter().map(|certificate| Bytes::from(certificate.as_der())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Certificate>, D::Error> {
        let list = Vec::<Bytes>::deserialize(deserializer)?;
        Ok(list.iter().filter_map(|der| Certificate::from_der(&der.0).ok()).collect())
    }
}
