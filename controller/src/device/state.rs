//! A device with its trustpoints and open jobs, as one version of its row.

use std::collections::BTreeMap;

use jiff::Timestamp;
use trustfleet_model::{
    device::Device,
    field::TrustpointName,
    ids::{AgentId, CertificateId, JobId, TrustpointId},
    job::RequestKind,
    revocation::Revocation,
    trustpoint::Trustpoint,
};

/// A device as of one version of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// What is registered.
    pub device: Device,
    /// Version of the row: a change is written only while it is still this one.
    pub version: i64,
    /// Its trustpoints.
    pub trustpoints: BTreeMap<TrustpointId, Trustpoint>,
    /// Its jobs that have not ended.
    pub open_jobs: BTreeMap<JobId, OpenJob>,
    /// Its jobs that were ended here by an operator, and whose agent has not said yet how they ended there (S37).
    pub stopped_jobs: BTreeMap<JobId, OpenJob>,
}

/// A job that has not ended. Whether it is published already is the outbox's business and not told here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenJob {
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The agent it is for.
    pub agent_id: AgentId,
    /// What it asks.
    pub kind: JobKind,
    /// Fingerprint of the key that the agent started with.
    pub public_key_sha256: Option<String>,
    /// The agent has said that it began.
    pub started: bool,
    /// Its agent was told to stop it.
    pub stop_requested: bool,
    /// The certificate that it asks to revoke.
    pub condemned: Option<Condemned>,
}

/// A certificate that is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Its id.
    pub id: CertificateId,
    /// Its end: then it needs no revocation any more.
    pub not_after: Timestamp,
    /// How far that is.
    pub revocation: Revocation,
}

/// What a job asks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Get a certificate.
    Enroll(RequestKind),
    /// Put the staged certificate into use.
    Activate,
    /// Have a certificate revoked.
    Revoke,
    /// Try what an enrolment needs.
    DryRun,
    /// Trust other anchors, and give them to the services.
    Anchors,
}

impl JobKind {
    /// All kinds, for counters that must exist at zero.
    pub const ALL: [Self; 7] = [
        Self::Enroll(RequestKind::Ir),
        Self::Enroll(RequestKind::Cr),
        Self::Enroll(RequestKind::Kur),
        Self::Activate,
        Self::Revoke,
        Self::DryRun,
        Self::Anchors,
    ];

    /// The word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enroll(request) => request.as_str(),
            Self::Activate => "activate",
            Self::Revoke => "revoke",
            Self::DryRun => "dry_run",
            Self::Anchors => "anchors",
        }
    }

    /// Whether it stands beside whatever is asked for on its trustpoint, and neither waits for that nor holds it up.
    pub const fn is_beside(self) -> bool {
        matches!(self, Self::Revoke | Self::DryRun | Self::Anchors)
    }

    /// The kind of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl DeviceState {
    /// A device with one trustpoint and nothing under way, to be looked at.
    pub fn alone(device: Device, trustpoint: Trustpoint) -> Self {
        Self {
            device,
            version: 0,
            trustpoints: BTreeMap::from([(trustpoint.id, trustpoint)]),
            open_jobs: BTreeMap::new(),
            stopped_jobs: BTreeMap::new(),
        }
    }

    /// The trustpoint of a name.
    pub fn trustpoint(&self, name: &TrustpointName) -> Option<&Trustpoint> {
        self.trustpoints.values().find(|trustpoint| &trustpoint.name == name)
    }

    /// A job of this kind under way beside a trustpoint's request.
    pub fn beside(&self, trustpoint: TrustpointId, kind: JobKind) -> Option<JobId> {
        let is_one = |job: &OpenJob| job.kind == kind && job.trustpoint_id == trustpoint;
        self.open_jobs.iter().find(|(_, job)| is_one(job)).map(|(id, _)| *id)
    }

    /// The job under way on a trustpoint.
    pub fn job_under_way(&self, trustpoint: &Trustpoint) -> Option<(JobId, JobKind)> {
        let job_id = trustpoint.request.job_id()?;
        self.open_jobs.get(&job_id).map(|job| (job_id, job.kind))
    }
}
