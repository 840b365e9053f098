//! Trustpoints: a CA, an identity and the certificates enrolled with them (S17).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::certificate::CertificateFacts;
use crate::field::{ObjectName, TrustpointName, Violations, check_text};
use crate::ids::{BindingId, CaServerId, CertificateId, EntityId, JobId, PolicyId, SecretId, TrustpointId};
use crate::job::Failure;
use crate::recovery::Recovery;
use crate::reissue::{Reached, ReissueFloor};
use crate::revocation::Revocation;
use crate::rollover::AnchorsHeld;
use crate::service::InService;
use crate::statistics::Statistics;

/// Longest MAC reference value, characters (S12: the longer of the two families).
pub const REFERENCE_MAX: usize = 256;
/// Longest MAC secret, characters (S13).
pub const SECRET_MAX: usize = 128;

/// A trustpoint with its certificates and the request under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trustpoint {
    /// Its id.
    pub id: TrustpointId,
    /// Its name, unique on the device (S17).
    pub name: TrustpointName,
    /// Subject and alternative names (S2).
    pub entity_id: EntityId,
    /// The CA.
    pub ca_server_id: CaServerId,
    /// The session's settings.
    pub policy_id: PolicyId,
    /// MAC reference value (S12).
    pub mac_reference: Option<String>,
    /// MAC secret, by reference (S13).
    pub mac_secret_id: Option<SecretId>,
    /// The secret is deleted when an enrolment by it has succeeded.
    #[serde(default)]
    pub mac_one_time: bool,
    /// Services of the device that use its certificate; no other trustpoint of the device has any of them (S40).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ObjectName>,
    /// What the agent last said of its services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_service: Option<InService>,
    /// What is under way (S50).
    pub request: RequestState,
    /// The certificate in use.
    pub active: Option<CertificateFacts>,
    /// The certificate issued but not in use yet (S33).
    pub staged: Option<CertificateFacts>,
    /// The certificate in use before.
    pub previous: Option<CertificateFacts>,
    /// Why the last request failed; cleared by the next success.
    pub last_failure: Option<Failure>,
    /// The last job and the client's idempotency key, so that a repeated request finds its job.
    pub last_request: Option<LastRequest>,
    /// Another trustpoint that has the same key, as DEVICE/TRUSTPOINT, found when the last exchange began (S4): a cloned
    /// image, or a key that was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_conflict: Option<String>,
    /// Serial number of the certificate in use of which an update may be unfinished at the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_update: Option<String>,
    /// The binding that it came by; none: it was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_id: Option<BindingId>,
    /// The revision of the binding that it has followed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub binding_revision: u32,
    /// Asks for its first certificate by itself, as soon as it has MAC credentials.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enrolls_by_itself: bool,
    /// Renewed by itself or not, over what the policy says (S41).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_update: Option<bool>,
    /// What is staged, or being asked for, takes effect by itself (S33, S34).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub activates_by_itself: bool,
    /// When the last certificate was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// When the last certificates were issued, as far as they may count for the floor under re-issue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issued_lately: Vec<Timestamp>,
    /// Revision of the policy by which the last certificate was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<u32>,
    /// Failures since the last success.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failed_at: Option<Timestamp>,
    /// What was armed for the day on which its certificate has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// What its agent was last told of trust anchors, and what it said (S57).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<AnchorsHeld>,
    /// What its sessions have done so far (S48).
    #[serde(default, skip_serializing_if = "Statistics::is_default")]
    pub statistics: Statistics,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is under way on a trustpoint, named for what it waits for (S50).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "awaiting", rename_all = "snake_case")]
pub enum RequestState {
    /// Nothing is under way.
    Nothing,
    /// A job waits for the agent to start; whether it is published already, the job tells.
    Agent {
        /// The job.
        job_id: JobId,
    },
    /// The agent waits for the CA.
    Ca {
        /// The job.
        job_id: JobId,
        /// When the agent started.
        since: Timestamp,
        /// What the agent has told since.
        #[serde(default, skip_serializing_if = "Progress::is_default")]
        progress: Progress,
    },
    /// The agent polls the CA.
    Poll {
        /// The job.
        job_id: JobId,
        /// When the CA first said `waiting`.
        since: Timestamp,
        /// What the agent has told since.
        #[serde(default, skip_serializing_if = "Progress::is_default")]
        progress: Progress,
    },
}

/// What an agent told of a request under way, as of a moment (S50).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When it told; none: an agent that is older does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// pollReq messages sent until then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub polls: u32,
    /// When the CA is asked next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// Why the CA gives no answer at the moment; none: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Progress {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl RequestState {
    /// The job under way.
    pub const fn job_id(&self) -> Option<JobId> {
        match self {
            Self::Nothing => None,
            Self::Agent { job_id } | Self::Ca { job_id, .. } | Self::Poll { job_id, .. } => Some(*job_id),
        }
    }
}

/// The job that was last asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRequest {
    /// The job.
    pub job_id: JobId,
    /// The client's idempotency key, where it gave one.
    pub request_key: Option<String>,
}

/// Fewest bits of entropy that a MAC secret should have.
pub const SECRET_BITS: u32 = 128;

/// The most bits of entropy that a secret of this length and these kinds of characters can have: its length times the
/// logarithm of the size of the alphabets that it draws from. A secret that a person has chosen has far fewer.
pub fn secret_bits_at_most(secret: &str) -> u32 {
    /// Which characters are of it, and how many there are.
    type Alphabet = (fn(char) -> bool, f64);
    const ALPHABETS: [Alphabet; 5] = [
        (|c| c.is_ascii_digit(), 10.0),
        (|c| c.is_ascii_lowercase(), 26.0),
        (|c| c.is_ascii_uppercase(), 26.0),
        (|c| c.is_ascii() && !c.is_ascii_alphanumeric(), 33.0),
        (|c| !c.is_ascii(), 1024.0),
    ];
    let alphabet: f64 = ALPHABETS.iter().filter(|(is_in, _)| secret.chars().any(is_in)).map(|(_, size)| size).sum();
    let length = f64::from(u32::try_from(secret.chars().count()).unwrap_or(u32::MAX));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most some thousands, never negative"
    )]
    let bits = (length * alphabet.max(1.0).log2()).floor() as u32;
    bits
}

/// What an operator should know of a secret that is too short to resist guessing; it is accepted nevertheless, because CAs
/// hand out such.
pub fn secret_warning(secret: &str) -> Option<String> {
    let bits = secret_bits_at_most(secret);
    (bits < SECRET_BITS).then(|| {
        format!(
            "the MAC secret has at most {bits} bits of entropy (its length, times the alphabets it draws from), less than \
             {SECRET_BITS}: whoever sees one request can try to guess it; use a longer random one"
        )
    })
}

/// The state of a trustpoint in one word, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustpointStatus {
    /// No certificate, and nothing under way.
    NotEnrolled,
    /// A request is under way.
    Requesting,
    /// A certificate is issued and waits for its activation.
    Staged,
    /// A certificate is in use.
    Active,
    /// The certificate in use is revoked, or about to be.
    Revoked,
    /// The last request failed and there is no certificate in use.
    Failed,
}

impl TrustpointStatus {
    /// The word in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::Requesting => "requesting",
            Self::Staged => "staged",
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Failed => "failed",
        }
    }
}

impl Trustpoint {
    /// A new one, without certificates and with nothing under way.
    pub fn new(
        id: TrustpointId,
        name: TrustpointName,
        entity_id: EntityId,
        ca_server_id: CaServerId,
        policy_id: PolicyId,
    ) -> Self {
        Self {
            id,
            name,
            entity_id,
            ca_server_id,
            policy_id,
            mac_reference: None,
            mac_secret_id: None,
            mac_one_time: false,
            services: Vec::new(),
            in_service: None,
            request: RequestState::Nothing,
            active: None,
            staged: None,
            previous: None,
            last_failure: None,
            last_request: None,
            key_conflict: None,
            unfinished_update: None,
            binding_id: None,
            binding_revision: 0,
            enrolls_by_itself: false,
            auto_update: None,
            activates_by_itself: false,
            issued_at: None,
            issued_lately: Vec::new(),
            policy_revision: None,
            failures: 0,
            last_failed_at: None,
            recovery: None,
            anchors: None,
            statistics: Statistics::default(),
        }
    }

    /// Takes note of a revocation, if the certificate of this id stands in one of its slots.
    pub fn note_revocation(&mut self, id: CertificateId, revocation: &Revocation) {
        let slots = [&mut self.active, &mut self.staged, &mut self.previous];
        for facts in slots.into_iter().flatten().filter(|facts| facts.id == id) {
            facts.revocation = Some(revocation.clone());
        }
    }

    /// The certificate of this id, if it stands in one of its slots.
    pub fn certificate(&self, id: CertificateId) -> Option<&CertificateFacts> {
        [&self.active, &self.staged, &self.previous].into_iter().flatten().find(|facts| facts.id == id)
    }

    /// Whether it has had as many certificates of late as its policy allows.
    pub fn reissue_reached(&self, floor: &ReissueFloor, now: Timestamp) -> Option<Reached> {
        let latest = self.staged.as_ref().or(self.active.as_ref());
        let life = latest.map(|facts| facts.not_after.duration_since(facts.not_before));
        floor.reached(&self.issued_lately, life, now)
    }

    /// Takes note of a failure.
    pub fn fail(&mut self, failure: Failure, at: Timestamp) {
        self.last_failure = Some(failure);
        self.failures = self.failures.saturating_add(1);
        self.last_failed_at = Some(at);
    }

    /// Takes note of a success: what failed before is over.
    pub fn succeed(&mut self) {
        self.last_failure = None;
        self.failures = 0;
        self.last_failed_at = None;
    }

    /// The state in one word: what is under way goes before what is there.
    pub fn status(&self) -> TrustpointStatus {
        if self.request.job_id().is_some() {
            TrustpointStatus::Requesting
        } else if self.staged.is_some() {
            TrustpointStatus::Staged
        } else if let Some(active) = &self.active {
            if active.is_given_up() { TrustpointStatus::Revoked } else { TrustpointStatus::Active }
        } else if self.last_failure.is_some() {
            TrustpointStatus::Failed
        } else {
            TrustpointStatus::NotEnrolled
        }
    }
}

/// Checks a MAC reference value: 1 to 256 characters, no `?` (S12).
pub fn check_reference(field: &str, text: &str, violations: &mut Violations) {
    violations.check(field, "S12", check_text(text, REFERENCE_MAX));
    if text.contains('?') {
        violations.add(field, "S12", "contains '?', which devices cannot take in a reference value");
    }
}

/// Checks a MAC secret: 1 to 128 characters (S13). The message never shows the secret.
pub fn check_secret(field: &str, text: &str, violations: &mut Violations) {
    let length = text.chars().count();
    if !(1..=SECRET_MAX).contains(&length) {
        violations.add(field, "S13", format!("has {length} characters; 1 to {SECRET_MAX} are allowed"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn trustpoint() -> Trustpoint {
        let id = uuid::Uuid::from_u128;
        Trustpoint::new(id(1).into(), "dot1x".parse().unwrap(), id(2).into(), id(3).into(), id(4).into())
    }

    #[test]
    fn a_secret_is_judged_by_its_length_and_the_alphabets_it_draws_from() {
        assert_eq!(secret_bits_at_most(""), 0);
        assert_eq!(secret_bits_at_most("12345678"), 26);
        assert_eq!(secret_bits_at_most(&"a1".repeat(16)), 165);
        assert!(secret_warning(&"0123456789".repeat(4)).is_none());
        let told = secret_warning("melon-8841").unwrap();
        assert!(told.contains("at most 61 bits") && !told.contains("melon"), "{told}");
    }

    #[test]
    fn s12_a_reference_value_has_1_to_256_characters_and_no_question_mark() {
        for (text, good) in [("dev-1", true), ("", false), ("a?b", false)] {
            let mut violations = Violations::new();
            check_reference("mac.reference", text, &mut violations);
            assert_eq!(violations.is_empty(), good, "{text:?}: {violations}");
        }
        let mut violations = Violations::new();
        check_reference("mac.reference", &"9".repeat(257), &mut violations);
        assert_eq!(violations.as_slice()[0].rule, "S12");
    }

    #[test]
    fn s13_a_refused_secret_is_not_repeated_in_the_message() {
        let mut violations = Violations::new();
        check_secret("mac.secret", &"geheim".repeat(30), &mut violations);
        assert!(!violations.to_string().contains("geheim"));
        assert_eq!(violations.as_slice().len(), 1);
    }
}
