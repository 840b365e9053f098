//! Jobs: what was asked of an agent, where it stands, how it ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::dry_run::{Check, CheckResult, DryRun};
use trustfleet_model::ids::JobId;
use trustfleet_model::job::{Culprit, Failure, JobState, RequestKind};
use utoipa::ToSchema;

use super::service::InServiceBody;
use super::words;

words! {
    /// Kind of a CMP request (S27 to S30).
    RequestKindBody mirrors RequestKind {
        /// Initialization request.
        Ir = "ir",
        /// Certification request: a further certificate for an entity that the PKI knows.
        Cr = "cr",
        /// Key update request, signed with the certificate that it replaces.
        Kur = "kur",
    }
}

words! {
    /// Where a job stands, named for what it waits for.
    JobStateBody mirrors JobState {
        /// Accepted; waits to be published.
        AwaitingPublish = "awaiting_publish",
        /// Published; waits for the agent to start.
        AwaitingAgent = "awaiting_agent",
        /// Started; waits for the CA's answer.
        AwaitingCa = "awaiting_ca",
        /// The CA answered `waiting`; the agent polls.
        AwaitingPoll = "awaiting_poll",
        /// Done.
        Succeeded = "succeeded",
        /// Ended without success.
        Failed = "failed",
    }
}

words! {
    /// Who is to blame for a failure.
    CulpritBody mirrors Culprit {
        /// Our own configuration.
        Configuration = "configuration",
        /// The CA's message was malformed, not authentic or not what was asked for.
        PeerMessage = "peer_message",
        /// The CA refused.
        PeerRefusal = "peer_refusal",
        /// The CA could not be reached or did not answer in time.
        Transport = "transport",
        /// The device: its disk, its keys, its clock.
        Device = "device",
    }
}

/// What is asked of a trustpoint.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// Kind of the request.
    pub request: RequestKindBody,
    /// Do not wait for the time after a failure. An enrolment by hand never does; here it goes before `confirm_floor`.
    /// Default false.
    #[serde(default)]
    pub force: bool,
    /// With `force`: although the trustpoint has had as many certificates of late as its policy allows (409 `reissue_floor`).
    /// Kept in the audit log; default false.
    #[serde(default)]
    pub confirm_floor: bool,
}

/// Why a job ended without success.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
pub struct FailureBody {
    /// Who is to blame.
    pub culprit: CulpritBody,
    /// Stable snake_case code.
    pub code: String,
    /// What was wrong and what to check next.
    pub message: String,
    /// PKIStatus of the CA's answer, in the RFC's words.
    #[schema(required)]
    pub pki_status: Option<String>,
    /// PKIFailureInfo bits, in the RFC's words.
    pub fail_info: Vec<String>,
    /// The CA's own words: untrusted text.
    #[schema(required)]
    pub status_string: Option<String>,
    /// Whether the CA may have issued a certificate that nobody received.
    pub maybe_issued: bool,
}

impl From<Failure> for FailureBody {
    fn from(failure: Failure) -> Self {
        Self {
            culprit: failure.culprit.into(),
            code: failure.code,
            message: failure.message,
            pki_status: failure.pki_status,
            fail_info: failure.fail_info,
            status_string: failure.status_string,
            maybe_issued: failure.maybe_issued,
        }
    }
}

words! {
    /// How a check of a dry run ended.
    CheckResultBody mirrors CheckResult {
        /// As it should be.
        Ok = "ok",
        /// Some CA servers refuse it, or it is weaker than it should be.
        Warning = "warning",
        /// The enrolment would fail.
        Failed = "failed",
    }
}

/// One thing that a dry run tried.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DryRunCheck)]
pub struct CheckBody {
    /// What: `order`, `accept`, `storage`, `services`, `source`, `server`, `credentials` or `request`.
    #[schema(example = "server")]
    pub name: String,
    /// How it ended.
    pub result: CheckResultBody,
    /// The rule that it is about: of settings (S...), or of requests by RFC 9483 (H..., P..., R..., X...).
    #[schema(required)]
    pub rule: Option<String>,
    /// What was found: text of the agent.
    pub message: String,
}

/// What a dry run found on the device.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = JobDryRun)]
pub struct DryRunBody {
    /// Nothing failed. What the CA says of the request nobody has asked.
    pub ready: bool,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What was tried, in its order.
    pub checks: Vec<CheckBody>,
}

impl From<DryRun> for DryRunBody {
    fn from(found: DryRun) -> Self {
        let ready = found.is_ready();
        let check = |check: Check| CheckBody {
            name: check.name,
            result: check.result.into(),
            rule: check.rule,
            message: check.message,
        };
        Self { ready, duration_ms: found.duration_ms, checks: found.checks.into_iter().map(check).collect() }
    }
}

/// A job for an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: JobId,
    /// Name of its device.
    pub device: String,
    /// Name of its trustpoint; null when that is gone by now.
    #[schema(required)]
    pub trustpoint: Option<String>,
    /// Name of the agent it is for.
    pub agent: String,
    /// `ir`, `cr`, `kur`, `activate`, `revoke` or `dry_run`.
    #[schema(example = "ir")]
    pub kind: String,
    /// Where it stands.
    pub state: JobStateBody,
    /// Who asked for it.
    pub requested_by: String,
    /// Its agent began it by itself, by a lease, while it was cut off.
    pub autonomous: bool,
    /// Why it failed.
    #[schema(required)]
    pub failure: Option<FailureBody>,
    /// Public-key fingerprint, reported before the CA was asked.
    #[schema(required)]
    pub public_key_sha256: Option<String>,
    /// transactionID of the CMP exchange, hex.
    #[schema(required)]
    pub transaction_id: Option<String>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When an operator wanted it to end; null: never.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub stop_requested_at: Option<Timestamp>,
    /// End of the freeze window that holds it; null: none does.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub held_until: Option<Timestamp>,
    /// When it was last published.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub published_at: Option<Timestamp>,
    /// When the agent started.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub finished_at: Option<Timestamp>,
    /// What the agent said of the services that were to take the certificate.
    #[schema(required)]
    pub in_service: Option<InServiceBody>,
    /// What a dry run found.
    #[schema(required)]
    pub dry_run: Option<DryRunBody>,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<crate::db::ListedJob> for JobBody {
    fn from(job: crate::db::ListedJob) -> Self {
        Self {
            id: job.id,
            device: job.device.into(),
            trustpoint: job.trustpoint.map(Into::into),
            agent: job.agent.into(),
            kind: job.kind.as_str().to_owned(),
            state: job.state.into(),
            requested_by: job.requested_by,
            autonomous: job.autonomous,
            failure: job.failure.map(Into::into),
            public_key_sha256: job.public_key_sha256,
            transaction_id: job.transaction_id,
            created_at: job.created_at,
            stop_requested_at: job.stop_requested_at,
            held_until: job.held_until,
            published_at: job.published_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            in_service: job.in_service.map(Into::into),
            dry_run: job.dry_run.map(Into::into),
            updated_at: job.updated_at,
        }
    }
}
