//! Revocation: why a certificate is to be revoked, who asks the CA for it, and how far that is (RFC 9483 sections 4.2
//! and 5.3.2).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::field::{ObjectName, TrustpointName, Violations};
use crate::ids::JobId;
use crate::job::{Culprit, Failure};

/// First wait before the CA is asked again; it doubles with each further failure.
const RETRY_FIRST: SignedDuration = SignedDuration::from_mins(5);
/// Longest wait.
const RETRY_MOST: SignedDuration = SignedDuration::from_hours(6);

/// Why a certificate is revoked, in the words of RFC 5280 section 5.3.1. The reasons that are a CA's own business cannot
/// be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// No reason is given.
    Unspecified,
    /// The private key may be known to others.
    KeyCompromise,
    /// The subject's name or other data changed.
    AffiliationChanged,
    /// Replaced by another certificate.
    Superseded,
    /// Not needed any more.
    CessationOfOperation,
    /// Suspended; only its CA can release it.
    CertificateHold,
    /// A right in the certificate was withdrawn.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
    ];

    /// The RFC's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    /// The reason of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Who asks a CA to revoke.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum RevocationRoute {
    /// The device itself, with an rr that the certificate signs (RFC 9483 section 4.2). Whose agent is in quarantine or
    /// gone cannot.
    #[default]
    Device,
    /// A registration authority: the certificate in use of another trustpoint of the tenant, which the CA lets ask for
    /// others (RFC 9483 section 5.3.2). Also for devices that are lost.
    RegistrationAuthority(Signer),
    /// Nobody: the CA takes no rr. Certificates are revoked there by hand, which is then noted here.
    Hand,
}

/// The trustpoint of a registration authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// Name of its device.
    pub device: String,
    /// Name of the trustpoint there.
    pub trustpoint: String,
}

impl RevocationRoute {
    /// Checks the names.
    pub fn check(&self, violations: &mut Violations) {
        if let Self::RegistrationAuthority(signer) = self {
            violations.check("revocation.device", "S1", signer.device.parse::<ObjectName>());
            violations.check("revocation.trustpoint", "S17", signer.trustpoint.parse::<TrustpointName>());
        }
    }

    /// The registration authority, where one asks.
    pub const fn signer(&self) -> Option<&Signer> {
        match self {
            Self::RegistrationAuthority(signer) => Some(signer),
            Self::Device | Self::Hand => None,
        }
    }

    /// Whether it is the default: not stored then, for older replicas.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a revocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationState {
    /// To be asked for, at once or again.
    Wanted,
    /// A job asks for it.
    Requested,
    /// The CA has revoked the certificate, or somebody says that it was done by hand.
    Revoked,
    /// The CA refused, or it cannot be asked: the certificate is as valid as before.
    Failed,
}

impl RevocationState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Wanted, Self::Requested, Self::Revoked, Self::Failed];

    /// The word in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Requested => "requested",
            Self::Revoked => "revoked",
            Self::Failed => "failed",
        }
    }
}

/// The revocation of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// How far it is.
    pub state: RevocationState,
    /// Why.
    pub reason: RevocationReason,
    /// Who wanted it, in the words of the audit log.
    pub wanted_by: String,
    /// When.
    pub wanted_at: Timestamp,
    /// The job that asks, or asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// It was done at the CA without us.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// When it was revoked, or failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Failures so far.
    #[serde(default)]
    pub failures: u32,
}

impl Revocation {
    /// Wanted now.
    pub const fn wanted(reason: RevocationReason, wanted_by: String, now: Timestamp) -> Self {
        Self {
            state: RevocationState::Wanted,
            reason,
            wanted_by,
            wanted_at: now,
            job_id: None,
            by_hand: false,
            ended_at: None,
            failure: None,
            failures: 0,
        }
    }

    /// Whether the certificate is revoked, or about to be: nothing more is built on it.
    pub const fn is_under_way_or_done(&self) -> bool {
        !matches!(self.state, RevocationState::Failed)
    }

    /// A job asks.
    #[must_use]
    pub fn requested(self, job_id: JobId) -> Self {
        Self { state: RevocationState::Requested, job_id: Some(job_id), ..self }
    }

    /// Done.
    #[must_use]
    pub fn revoked(self, now: Timestamp) -> Self {
        Self { state: RevocationState::Revoked, ended_at: Some(now), failure: None, ..self }
    }

    /// It did not work at `now`; and when it is to be tried again, where that can help: the CA could not be reached. What
    /// a CA refuses, and what an operator stops, stays so until somebody wants it again. A certificate that ends before
    /// that (`not_after`) needs no revocation.
    #[must_use]
    pub fn failed(self, failure: Failure, not_after: Timestamp, now: Timestamp) -> (Self, Option<Timestamp>) {
        let failures = self.failures.saturating_add(1);
        let wait = RETRY_FIRST.saturating_mul(1 << (failures - 1).min(12)).min(RETRY_MOST);
        let again = now.checked_add(wait).ok().filter(|again| *again < not_after);
        let again = again.filter(|_| failure.culprit == Culprit::Transport);
        let (state, ended_at) = match again {
            Some(_) => (RevocationState::Wanted, None),
            None => (RevocationState::Failed, Some(now)),
        };
        (Self { state, ended_at, failure: Some(failure), failures, ..self }, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(culprit: Culprit) -> Failure {
        Failure {
            culprit,
            code: "x".to_owned(),
            message: String::new(),
            pki_status: None,
            fail_info: Vec::new(),
            status_string: None,
            maybe_issued: false,
        }
    }

    #[test]
    fn a_revocation_is_tried_again_ever_later_while_the_ca_cannot_be_reached() {
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let end = now + SignedDuration::from_hours(24 * 30);
        let mut revocation = Revocation::wanted(RevocationReason::KeyCompromise, "token:x".to_owned(), now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let (next, again) = revocation.failed(failure(Culprit::Transport), end, now);
            assert_eq!(next.state, RevocationState::Wanted);
            waits.push(again.unwrap().duration_since(now).as_mins());
            revocation = next;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 360, 360, 360]);
    }

    #[test]
    fn what_a_ca_refuses_and_what_ends_before_the_next_try_is_given_up() {
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let wanted = Revocation::wanted(RevocationReason::Superseded, "token:x".to_owned(), now);
        let end = now + SignedDuration::from_hours(1);
        let (refused, again) = wanted.clone().failed(failure(Culprit::PeerRefusal), end, now);
        assert_eq!((refused.state, again), (RevocationState::Failed, None));
        assert_eq!(refused.ended_at, Some(now));
        let soon = now + SignedDuration::from_mins(2);
        let (late, again) = wanted.failed(failure(Culprit::Transport), soon, now);
        assert_eq!((late.state, again), (RevocationState::Failed, None));
    }

    #[test]
    fn every_reason_has_the_word_of_the_rfc() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::from_word(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(RevocationReason::from_word("cACompromise"), None);
    }
}
