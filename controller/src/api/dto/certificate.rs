//! Certificates issued to devices.

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::certificate::{CertificateFacts, Slot};
use trustfleet_model::ids::{CertificateId, JobId};
use trustfleet_pki::certificate::Certificate;
use utoipa::ToSchema;

use super::revocation::RevocationBody;
use super::words;
use crate::error::AppError;

words! {
    /// Where a certificate stands on its trustpoint.
    SlotBody mirrors Slot {
        /// In use.
        Active = "active",
        /// Issued and stored, not in use yet (S33).
        Staged = "staged",
        /// Was in use before the active one.
        Previous = "previous",
        /// No longer kept on the device.
        Retired = "retired",
    }
}

/// A certificate as its trustpoint shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CertificateFacts)]
pub struct CertificateFactsBody {
    /// Its id in the controller.
    #[schema(value_type = uuid::Uuid)]
    pub id: CertificateId,
    /// Serial number, upper-case hex, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// First moment of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// Last moment of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, hex.
    pub sha256: String,
    /// SHA-256 of the subjectPublicKeyInfo, hex.
    pub public_key_sha256: String,
    /// File on the device.
    #[schema(required)]
    pub file: Option<String>,
    /// Its revocation; null: nobody wanted it.
    #[schema(required)]
    pub revocation: Option<RevocationBody>,
}

impl From<CertificateFacts> for CertificateFactsBody {
    fn from(facts: CertificateFacts) -> Self {
        Self {
            id: facts.id,
            serial: facts.serial,
            subject: facts.subject,
            issuer: facts.issuer,
            not_before: facts.not_before,
            not_after: facts.not_after,
            sha256: facts.sha256,
            public_key_sha256: facts.public_key_sha256,
            file: facts.file,
            revocation: facts.revocation.map(Into::into),
        }
    }
}

/// An issued certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub struct CertificateBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: CertificateId,
    /// Name of its device.
    pub device: String,
    /// Name of its trustpoint; null when that is gone by now.
    #[schema(required)]
    pub trustpoint: Option<String>,
    /// The job that brought it.
    #[schema(value_type = uuid::Uuid)]
    pub job_id: JobId,
    /// Where it stands.
    pub slot: SlotBody,
    /// Serial number, upper-case hex.
    pub serial: String,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// First moment of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// Last moment of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// SHA-256 of the certificate, hex.
    pub sha256: String,
    /// SHA-256 of the subjectPublicKeyInfo, hex.
    pub public_key_sha256: String,
    /// Kind and size of its key, as policies spell them; null: not looked at yet.
    #[schema(required, example = "ecdsa-p256")]
    pub key: Option<String>,
    /// File on the device.
    #[schema(required)]
    pub file: Option<String>,
    /// When the controller learned of it.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// Its revocation; null: nobody wanted it.
    #[schema(required)]
    pub revocation: Option<RevocationBody>,
}

impl From<crate::db::ListedCertificate> for CertificateBody {
    fn from(certificate: crate::db::ListedCertificate) -> Self {
        let facts = certificate.facts;
        Self {
            id: facts.id,
            device: certificate.device.into(),
            trustpoint: certificate.trustpoint.map(Into::into),
            job_id: certificate.job_id,
            slot: certificate.slot.into(),
            serial: facts.serial,
            subject: facts.subject,
            issuer: facts.issuer,
            not_before: facts.not_before,
            not_after: facts.not_after,
            sha256: facts.sha256,
            public_key_sha256: facts.public_key_sha256,
            key: certificate.key_type,
            file: facts.file,
            issued_at: certificate.issued_at,
            revocation: facts.revocation.map(Into::into),
        }
    }
}

/// An issued certificate with its bytes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CertificateWithPem)]
pub struct CertificateWithPemBody {
    /// What can be read in it.
    #[serde(flatten)]
    pub certificate: CertificateBody,
    /// The certificate, PEM.
    pub pem: String,
    /// CA certificates that came with it, PEM, one after the other.
    pub chain_pem: String,
}

impl CertificateWithPemBody {
    /// Writes the stored bytes as PEM.
    ///
    /// # Errors
    /// Stored bytes that are no certificate: an internal error.
    pub fn new(certificate: crate::db::CertificateWithBytes) -> Result<Self, AppError> {
        let pem = |der: &[u8]| {
            let read = Certificate::from_der(der).map_err(|error| AppError::Internal { source: Box::new(error) })?;
            Ok::<_, AppError>(read.to_pem())
        };
        let chain = certificate.chain.iter().map(|der| pem(der)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pem: pem(&certificate.der)?, chain_pem: chain.concat(), certificate: certificate.listed.into() })
    }
}
