//! The history of a trustpoint.

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::ids::{CertificateId, JobId};
use trustfleet_model::job::RequestKind;
use utoipa::ToSchema;

use crate::db::{AskedBy, PastCertificate};
use crate::device::JobKind;

/// One certificate of a trustpoint: how it came about, and what became of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub struct HistoryBody {
    /// The certificate.
    #[schema(value_type = uuid::Uuid)]
    pub certificate_id: CertificateId,
    /// Its serial number, upper-case hex.
    pub serial: String,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// Where it stands: `active`, `staged`, `previous` or `retired`.
    pub slot: &'static str,
    /// The job that brought it.
    #[schema(value_type = uuid::Uuid)]
    pub job_id: JobId,
    /// `ir`, `cr` or `kur`.
    pub request: &'static str,
    /// What asked for it: `operator`, `automatic_renewal` or `binding`.
    pub how: &'static str,
    /// Who asked for it, in the words of the audit log.
    pub requested_by: String,
    /// The binding, where it was asked for by one that still holds.
    #[schema(required)]
    pub binding: Option<String>,
    /// Revision of the policy by which it was asked for.
    #[schema(required)]
    pub policy_revision: Option<u32>,
    /// When the controller learned of it.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// When the controller learned that it is in use; null: never.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub activated_at: Option<Timestamp>,
    /// The certificate that took its place; null: none.
    #[schema(required)]
    pub replaced: Option<ReplacedBody>,
}

/// The certificate that took the place of another.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Replaced)]
pub struct ReplacedBody {
    /// It.
    #[schema(value_type = uuid::Uuid)]
    pub by: CertificateId,
    /// Its serial number, upper-case hex.
    pub serial: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why: `renewed_automatically`, `renewed_by_hand` or `enrolled_anew`.
    pub because: &'static str,
}

impl From<PastCertificate> for HistoryBody {
    fn from(past: PastCertificate) -> Self {
        let how = how(&past.asked);
        Self {
            certificate_id: past.id,
            serial: past.serial,
            not_after: past.not_after,
            slot: past.slot.as_str(),
            job_id: past.job_id,
            request: past.asked.kind.as_str(),
            how,
            requested_by: past.asked.requested_by,
            binding: past.binding.filter(|_| how == BINDING),
            policy_revision: past.policy_revision,
            issued_at: past.issued_at,
            activated_at: past.activated_at,
            replaced: past.replaced.map(|(by, serial, at, asked)| ReplacedBody {
                by,
                serial,
                at,
                because: because(&asked),
            }),
        }
    }
}

const BINDING: &str = "binding";

/// By itself only two things are asked for: renewals, by update or by cr, and the first certificate of what came by a binding.
const fn how(asked: &AskedBy) -> &'static str {
    match (asked.automatic, asked.kind) {
        (false, _) => "operator",
        (true, JobKind::Enroll(RequestKind::Kur | RequestKind::Cr)) => "automatic_renewal",
        (true, _) => BINDING,
    }
}

const fn because(asked: &AskedBy) -> &'static str {
    match (asked.automatic, asked.kind) {
        (true, JobKind::Enroll(RequestKind::Kur | RequestKind::Cr)) => "renewed_automatically",
        (false, JobKind::Enroll(RequestKind::Kur)) => "renewed_by_hand",
        _ => "enrolled_anew",
    }
}
