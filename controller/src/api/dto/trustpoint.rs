//! Trustpoints (S17) with what is under way on them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{BindingId, JobId, TrustpointId};
use trustfleet_model::secret::SecretText;
use trustfleet_model::trustpoint::{Progress, RequestState, TrustpointStatus};
use utoipa::ToSchema;

use super::certificate::CertificateFactsBody;
use super::job::FailureBody;
use super::recovery::RecoveryBody;
use super::service::InServiceBody;
use super::words;
use crate::db::ShownLease;
use crate::device::emergency_at;

words! {
    /// The state of a trustpoint in one word.
    TrustpointStatusBody mirrors TrustpointStatus {
        /// No certificate, and nothing under way.
        NotEnrolled = "not_enrolled",
        /// A request is under way.
        Requesting = "requesting",
        /// A certificate is issued and waits for its activation.
        Staged = "staged",
        /// A certificate is in use.
        Active = "active",
        /// The certificate in use is revoked, or about to be.
        Revoked = "revoked",
        /// The last request failed and there is no certificate in use.
        Failed = "failed",
    }
}

/// What makes a new trustpoint.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustpointCreate {
    /// Its name, unique on the device, at most 32 characters (S17).
    #[schema(min_length = 1, max_length = 32)]
    pub name: String,
    /// Name of the entity: subject and alternative names (S2).
    pub entity: String,
    /// Name of the CA server.
    pub ca_server: String,
    /// Name of the policy.
    pub policy: String,
    /// Reference and secret of the first request (S12, S13).
    #[serde(default)]
    pub mac: Option<MacCreate>,
    /// Services of the device, named as in its agent's configuration, that use the certificate: at most 8, each of them with
    /// no other trustpoint of the device (S40).
    #[serde(default)]
    #[schema(max_items = 8)]
    pub services: Vec<String>,
}

/// Reference and secret of a MAC-protected request.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MacCreate {
    /// Reference value, 1 to 256 characters, no `?` (S12).
    #[schema(min_length = 1, max_length = 256)]
    pub reference: String,
    /// Secret, 1 to 128 characters (S13). Never shown again.
    #[schema(value_type = String, min_length = 1, max_length = 128, write_only, format = Password)]
    pub secret: SecretText,
    /// Delete the secret when an enrolment by it (ir or cr) has succeeded; default false.
    #[serde(default)]
    pub one_time: bool,
}

/// Whether a trustpoint is renewed by itself.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoUpdateSet {
    /// On or off, over what the policy says; null: as the policy says (S41).
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    pub enabled: Option<bool>,
}

/// What became of one line of an import. Of the line nothing is repeated but its number, and the names of a trustpoint that
/// is there.
#[derive(Clone, Debug, Serialize)]
pub struct MacImportedBody {
    /// Number of the line, from 1.
    pub line: u64,
    /// Whether it was taken.
    pub taken: bool,
    /// The device, where it has such a trustpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The trustpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trustpoint: Option<String>,
    /// What is to be thought of, such as a secret of less than 128 bits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it was not taken: a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl MacImportedBody {
    /// A line that was taken.
    pub fn taken(line: u64, warnings: Vec<String>) -> Self {
        Self { line, taken: true, device: None, trustpoint: None, warnings, code: None, detail: None }
    }

    /// A line that was not.
    pub fn refused(line: u64, code: &str, detail: String) -> Self {
        let (code, detail) = (Some(code.to_owned()), Some(detail));
        Self { line, taken: false, device: None, trustpoint: None, warnings: Vec::new(), code, detail }
    }

    /// With the names of device and trustpoint.
    #[must_use]
    pub fn of(self, (device, trustpoint): (String, String)) -> Self {
        Self { device: Some(device), trustpoint: Some(trustpoint), ..self }
    }
}

/// MAC credentials as they are shown: without the secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Mac)]
pub struct MacBody {
    /// Reference value.
    pub reference: String,
    /// The secret is deleted when an enrolment by it has succeeded.
    pub one_time: bool,
    /// What should be better about the secret.
    pub warnings: Vec<String>,
}

/// What is under way on a trustpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RequestUnderWay)]
pub struct RequestBody {
    /// What it waits for.
    pub awaiting: AwaitingBody,
    /// The job.
    #[schema(value_type = Option<uuid::Uuid>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Since when it waits for the CA.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the agent told what follows; left out: it did not.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// How often it had polled by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polls: Option<u32>,
    /// When it asks the CA next, by the device's clock.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_poll_at: Option<Timestamp>,
    /// Why the CA gives no answer at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Awaiting)]
pub enum AwaitingBody {
    /// Nothing is under way.
    Nothing,
    /// The agent has not started yet.
    Agent,
    /// The CA has not answered yet.
    Ca,
    /// The CA said `waiting`; the agent polls.
    Poll,
}

impl From<RequestState> for RequestBody {
    fn from(state: RequestState) -> Self {
        let job_id = state.job_id();
        let (awaiting, since, progress) = match state {
            RequestState::Nothing => (AwaitingBody::Nothing, None, Progress::default()),
            RequestState::Agent { .. } => (AwaitingBody::Agent, None, Progress::default()),
            RequestState::Ca { since, progress, .. } => (AwaitingBody::Ca, Some(since), progress),
            RequestState::Poll { since, progress, .. } => (AwaitingBody::Poll, Some(since), progress),
        };
        Self {
            awaiting,
            job_id,
            since,
            told_at: progress.told_at,
            polls: progress.told_at.map(|_| progress.polls),
            next_poll_at: progress.next_at,
            last_error: progress.trouble,
        }
    }
}

/// An agent's leave to renew a trustpoint by itself while it is cut off from the controller.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseBody {
    /// Whether it holds.
    pub state: LeaseStateBody,
    /// Name of the agent that has it, or had it.
    pub agent: String,
    /// When it was last given.
    #[schema(value_type = String, format = DateTime)]
    pub given_at: Timestamp,
    /// Until when it holds, or would hold.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it was ended before that; null: it was not.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Why it was ended, or why the agent refused it.
    #[schema(required)]
    pub reason: Option<String>,
    /// When the agent answered to the last message about it; null: it has not.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub answered_at: Option<Timestamp>,
}

/// Whether a lease holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LeaseState)]
pub enum LeaseStateBody {
    /// The agent has said that it holds it.
    Held,
    /// It is given; the agent has not answered yet.
    Given,
    /// The agent has refused it.
    Refused,
    /// It was ended; the agent has not answered yet: until its end it may hold on there.
    Ending,
    /// It was ended.
    Ended,
    /// Its time is over.
    Expired,
}

impl From<ShownLease> for LeaseBody {
    fn from(lease: ShownLease) -> Self {
        let answer = lease.answer.as_ref().map(|(answer, _, _)| answer.as_str());
        let state = match (&lease.ended, answer) {
            _ if lease.expired => LeaseStateBody::Expired,
            // In quarantine it is told at its next session, and the queue is gone.
            (Some((_, reason)), None) if reason != "quarantine" => LeaseStateBody::Ending,
            (Some(_), _) => LeaseStateBody::Ended,
            (None, Some("refused")) => LeaseStateBody::Refused,
            (None, Some(_)) => LeaseStateBody::Held,
            (None, None) => LeaseStateBody::Given,
        };
        let refused = lease.answer.as_ref().and_then(|(_, _, reason)| reason.clone());
        Self {
            state,
            agent: lease.agent,
            given_at: lease.given_at,
            expires_at: lease.expires_at,
            ended_at: lease.ended.as_ref().map(|(at, _)| *at),
            reason: lease.ended.map(|(_, why)| why).or(refused),
            answered_at: lease.answer.map(|(_, at, _)| at),
        }
    }
}

/// A CA, an identity and the certificates enrolled with them.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Trustpoint)]
pub struct TrustpointBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TrustpointId,
    /// Its name.
    pub name: String,
    /// Name of its device.
    pub device: String,
    /// Name of its entity.
    pub entity: String,
    /// Name of its CA server.
    pub ca_server: String,
    /// Name of its policy.
    pub policy: String,
    /// MAC reference value; the secret is never shown.
    #[schema(required)]
    pub mac_reference: Option<String>,
    /// Whether a MAC secret is stored.
    pub mac_secret_stored: bool,
    /// The secret is deleted when an enrolment by it has succeeded.
    pub mac_one_time: bool,
    /// Services that use its certificate (S40).
    pub services: Vec<String>,
    /// What the agent last said of them.
    #[schema(required)]
    pub in_service: Option<InServiceBody>,
    /// Its state in one word.
    pub status: TrustpointStatusBody,
    /// What is under way.
    pub request: RequestBody,
    /// The certificate in use.
    #[schema(required)]
    pub active: Option<CertificateFactsBody>,
    /// The certificate issued but not in use yet.
    #[schema(required)]
    pub staged: Option<CertificateFactsBody>,
    /// The certificate in use before.
    #[schema(required)]
    pub previous: Option<CertificateFactsBody>,
    /// Why the last request failed; cleared by the next success.
    #[schema(required)]
    pub last_failure: Option<FailureBody>,
    /// Another trustpoint that has the same key, as DEVICE/TRUSTPOINT, found when the last exchange began (S4): a cloned
    /// image, or a key that was copied.
    #[schema(required)]
    pub key_conflict: Option<String>,
    /// Id of the binding that it came by; null: it was made by hand.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub binding_id: Option<BindingId>,
    /// Renewed by itself or not, over what the policy says; null: as the policy says (S41).
    #[schema(required)]
    pub auto_update: Option<bool>,
    /// When it is renewed, or an activation is tried again, without being asked; null: not, until something changes.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub next_action_at: Option<Timestamp>,
    /// From when on its agent renews it by itself if it is cut off from the controller and holds a lease; null: no certificate
    /// is in use.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub emergency_at: Option<Timestamp>,
    /// Its agent's leave to do that; null: none was ever given.
    #[schema(required)]
    pub lease: Option<LeaseBody>,
    /// What is armed for the day on which its certificate has ended; null: nothing.
    #[schema(required)]
    pub recovery: Option<RecoveryBody>,
    /// Revision of the policy by which the last certificate was asked for.
    #[schema(required)]
    pub policy_revision: Option<u32>,
    /// Failures since the last success.
    pub failures: u32,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// In the answer that makes it: what should be better.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl From<crate::db::ListedTrustpoint> for TrustpointBody {
    fn from(listed: crate::db::ListedTrustpoint) -> Self {
        let status = listed.trustpoint.status().into();
        let emergency_at = emergency_at(&listed.trustpoint, listed.auto_update.emergency());
        let trustpoint = listed.trustpoint;
        Self {
            id: trustpoint.id,
            name: trustpoint.name.into(),
            device: listed.device.into(),
            entity: listed.entity.into(),
            ca_server: listed.ca_server.into(),
            policy: listed.policy.into(),
            mac_reference: trustpoint.mac_reference,
            mac_secret_stored: trustpoint.mac_secret_id.is_some(),
            mac_one_time: trustpoint.mac_one_time,
            services: trustpoint.services.into_iter().map(Into::into).collect(),
            in_service: trustpoint.in_service.map(Into::into),
            warnings: Vec::new(),
            status,
            request: trustpoint.request.into(),
            active: trustpoint.active.map(Into::into),
            staged: trustpoint.staged.map(Into::into),
            previous: trustpoint.previous.map(Into::into),
            last_failure: trustpoint.last_failure.map(Into::into),
            key_conflict: trustpoint.key_conflict,
            binding_id: trustpoint.binding_id,
            auto_update: trustpoint.auto_update,
            next_action_at: listed.next_action_at,
            emergency_at,
            lease: listed.lease.map(Into::into),
            recovery: trustpoint.recovery.map(Into::into),
            policy_revision: trustpoint.policy_revision,
            failures: trustpoint.failures,
            updated_at: listed.updated_at,
        }
    }
}
