//! Revocation of certificates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::JobId;
use trustfleet_model::revocation::{Revocation, RevocationReason, RevocationState};
use utoipa::ToSchema;

use super::job::FailureBody;
use super::words;

words! {
    /// Why a certificate is revoked, in the words of RFC 5280 section 5.3.1.
    RevocationReasonBody mirrors RevocationReason {
        /// No reason is given.
        Unspecified = "unspecified",
        /// The private key may be known to others.
        KeyCompromise = "keyCompromise",
        /// The subject's name or other data changed.
        AffiliationChanged = "affiliationChanged",
        /// Replaced by another certificate.
        Superseded = "superseded",
        /// Not needed any more.
        CessationOfOperation = "cessationOfOperation",
        /// Suspended; only its CA can release it.
        CertificateHold = "certificateHold",
        /// A right in the certificate was withdrawn.
        PrivilegeWithdrawn = "privilegeWithdrawn",
    }
}

words! {
    /// How far a revocation is.
    RevocationStateBody mirrors RevocationState {
        /// To be asked for, at once or again.
        Wanted = "wanted",
        /// A job asks for it.
        Requested = "requested",
        /// The CA has revoked the certificate, or somebody says that it was done by hand.
        Revoked = "revoked",
        /// The CA refused, or it cannot be asked: the certificate is as valid as before.
        Failed = "failed",
    }
}

/// What revokes one certificate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Why.
    pub reason: RevocationReasonBody,
    /// It was revoked at the CA by hand: nothing is asked, that is noted; default false.
    #[serde(default)]
    pub by_hand: bool,
}

/// What revokes many certificates.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeManyRequest {
    /// Why.
    pub reason: RevocationReasonBody,
}

/// How many certificates are to be revoked now.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = RevokedMany)]
pub struct RevokedManyBody {
    /// Valid certificates that were neither revoked nor about to be.
    pub certificates: u64,
}

/// The revocation of a certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Revocation)]
pub struct RevocationBody {
    /// How far it is.
    pub state: RevocationStateBody,
    /// Why.
    pub reason: RevocationReasonBody,
    /// Who wanted it.
    pub wanted_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub wanted_at: Timestamp,
    /// The job that asks, or asked last.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    pub job_id: Option<JobId>,
    /// It was done at the CA without us.
    pub by_hand: bool,
    /// When it was revoked, or failed for good.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub ended_at: Option<Timestamp>,
    /// Why it failed last.
    #[schema(required)]
    pub failure: Option<FailureBody>,
    /// Failures so far.
    pub failures: u32,
}

impl From<Revocation> for RevocationBody {
    fn from(revocation: Revocation) -> Self {
        Self {
            state: revocation.state.into(),
            reason: revocation.reason.into(),
            wanted_by: revocation.wanted_by,
            wanted_at: revocation.wanted_at,
            job_id: revocation.job_id,
            by_hand: revocation.by_hand,
            ended_at: revocation.ended_at,
            failure: revocation.failure.map(Into::into),
            failures: revocation.failures,
        }
    }
}
