//! What a decision changes. Written by [`crate::commit`] in one statement, or not at all.

use jiff::Timestamp;
use trustfleet_model::{
    certificate::Slot,
    dry_run::DryRun,
    ids::{AgentId, CertificateId, JobId, LeaseId, SecretId, TrustpointId},
    job::{Failure, JobState, JobTask},
    revocation::Revocation,
    service::InService,
    transcript::Transcript,
    trustpoint::Trustpoint,
};

use super::{DeviceState, IssuedCertificate, JobKind, Reply, Requester};

/// The outcome of a command that was not refused.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What changes; none: everything is as asked already.
    pub changes: Option<Box<Changes>>,
    /// The answer, given after the commit.
    pub reply: Reply,
}

/// Everything that one decision writes.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The new state, with the version that the row will have.
    pub state: DeviceState,
    /// When it was decided.
    pub at: Timestamp,
    /// Trustpoints written or removed.
    pub trustpoints: Vec<TrustpointChange>,
    /// New jobs.
    pub jobs: Vec<JobInsert>,
    /// Changes of jobs that were there before.
    pub job_updates: Vec<JobUpdate>,
    /// What is told of jobs that have ended already: their services took longer than they.
    pub jobs_told: Vec<JobTold>,
    /// New certificates.
    pub certificates: Vec<CertificateInsert>,
    /// Certificates that change their place.
    pub slots: Vec<SlotChange>,
    /// Revocations that go on.
    pub revocations: Vec<RevocationChange>,
    /// Jobs to be published.
    pub outbox: Vec<JobId>,
    /// Secrets that nobody needs any more.
    pub secrets_gone: Vec<SecretId>,
    /// Lines of the audit log.
    pub audit: Vec<AuditEntry>,
}

impl Changes {
    /// No change yet; the state is the next version of `before`.
    pub(super) fn next(before: &DeviceState, at: Timestamp) -> Self {
        let mut state = before.clone();
        state.version += 1;
        Self {
            state,
            at,
            trustpoints: Vec::new(),
            jobs: Vec::new(),
            job_updates: Vec::new(),
            jobs_told: Vec::new(),
            certificates: Vec::new(),
            slots: Vec::new(),
            revocations: Vec::new(),
            outbox: Vec::new(),
            secrets_gone: Vec::new(),
            audit: Vec::new(),
        }
    }

    /// The version that the row must still have.
    pub const fn expected_version(&self) -> i64 {
        self.state.version - 1
    }
}

/// A trustpoint written or removed.
#[derive(Clone, Debug)]
pub enum TrustpointChange {
    /// Made, or changed.
    Write(Box<Trustpoint>),
    /// Its request has begun or goes on, and nothing else has changed: nothing is due by itself until that has ended.
    Step(Box<Trustpoint>),
    /// Removed.
    Remove(TrustpointId),
}

impl TrustpointChange {
    /// The trustpoint as it is written, if it is.
    pub fn written(&self) -> Option<&Trustpoint> {
        match self {
            Self::Write(trustpoint) | Self::Step(trustpoint) => Some(trustpoint),
            Self::Remove(_) => None,
        }
    }
}

/// A new job, waiting to be published.
#[derive(Clone, Debug)]
pub struct JobInsert {
    /// Its id.
    pub job_id: JobId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The agent it is for.
    pub agent_id: AgentId,
    /// What it asks.
    pub kind: JobKind,
    /// The client's idempotency key.
    pub request_key: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// The order itself.
    pub task: JobTask,
    /// The lease by which its agent has begun it already.
    pub lease_id: Option<LeaseId>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The certificate that it asks to revoke.
    pub certificate_id: Option<CertificateId>,
    /// The CA endpoint that its exchange counts for; none: it has none.
    pub endpoint: Option<String>,
    /// When it is too late: the end of the certificate that it replaces. What is urgent goes first.
    pub deadline: Option<Timestamp>,
}

/// A change of a job; `None` leaves a column as it is.
#[derive(Clone, Debug)]
pub struct JobUpdate {
    /// The job.
    pub job_id: JobId,
    /// Its new state.
    pub state: JobState,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Public-key fingerprint.
    pub public_key_sha256: Option<String>,
    /// transactionID, hex.
    pub transaction_id: Option<String>,
    /// When the agent started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What went to and fro in its exchange.
    pub transcript: Option<Transcript>,
    /// What the agent said of the services.
    pub in_service: Option<InService>,
    /// What a dry run found.
    pub dry_run: Option<DryRun>,
    /// What became of an order to stop it.
    pub stop: Option<StopNote>,
}

/// What becomes of an order to stop a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopNote {
    /// It is given: the agent is to be told until it answers.
    Requested,
    /// The agent need not be told any more.
    Answered,
}

/// A further word about a job that has ended.
#[derive(Clone, Debug)]
pub struct JobTold {
    /// The job.
    pub job_id: JobId,
    /// What the agent said of the services.
    pub in_service: InService,
}

/// A new certificate.
#[derive(Clone, Debug)]
pub struct CertificateInsert {
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The job that brought it.
    pub job_id: JobId,
    /// Where it stands.
    pub slot: Slot,
    /// The certificate.
    pub issued: IssuedCertificate,
}

/// A certificate changes its place.
#[derive(Clone, Debug)]
pub struct SlotChange {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Its new place.
    pub slot: Slot,
    /// Its file on the device; none where nobody has said where it is now.
    pub file: Option<String>,
    /// The certificate that takes its place.
    pub replaced_by: Option<CertificateId>,
}

/// The revocation of a certificate goes on.
#[derive(Clone, Debug)]
pub struct RevocationChange {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// How far it is.
    pub revocation: Revocation,
    /// When it is asked for again; none: not by itself.
    pub again_at: Option<Timestamp>,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who asked.
    pub requester: Requester,
    /// What: a snake_case word.
    pub action: &'static str,
    /// Kind of the object.
    pub object_kind: &'static str,
    /// Id of the object.
    pub object_id: uuid::Uuid,
    /// What of it was changed or is gone, as it was.
    pub before: Option<serde_json::Value>,
    /// What of it was changed or made, as it is.
    pub after: Option<serde_json::Value>,
    /// What else matters; never a secret.
    pub detail: serde_json::Value,
}
