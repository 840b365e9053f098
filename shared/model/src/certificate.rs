//! What the controller knows of an issued certificate, apart from its bytes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::CertificateId;
use crate::revocation::Revocation;

/// Where a certificate stands on its trustpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// In use.
    Active,
    /// Issued and stored, not in use yet (S33).
    Staged,
    /// Was in use before the active one.
    Previous,
    /// No longer kept on the device.
    Retired,
}

impl Slot {
    /// All slots, for counters that must exist at zero.
    pub const ALL: [Self; 4] = [Self::Active, Self::Staged, Self::Previous, Self::Retired];

    /// The slot's word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Staged => "staged",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }
}

/// The readable part of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// Id in the controller.
    pub id: CertificateId,
    /// Serial number, upper-case hex without separators, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// SHA-256 of the subjectPublicKeyInfo, lower-case hex: the public-key fingerprint.
    pub public_key_sha256: String,
    /// File on the device, once the agent said where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its revocation, once somebody wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

impl CertificateFacts {
    /// Whether it is revoked, or about to be: nothing is signed with it and nothing is put into use any more.
    pub fn is_given_up(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::is_under_way_or_done)
    }
}
