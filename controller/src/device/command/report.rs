//! What agents say of jobs.

use jiff::Timestamp;
use trustfleet_model::{
    certificate::CertificateFacts,
    dry_run::DryRun,
    ids::{AgentId, DeviceId, JobId, MessageId, TrustpointId},
    job::Failure,
    service::InService,
    transcript::Transcript,
    trustpoint::Progress,
};

use super::super::JobKind;
use crate::audit::Requester;

/// What an agent says of a job.
#[derive(Clone, Debug)]
pub struct Report {
    /// The report; the same id comes again until it is answered.
    pub report_id: MessageId,
    /// The agent that signed it.
    pub agent_id: AgentId,
    /// The device that it names.
    pub device_id: DeviceId,
    /// The trustpoint that it names.
    pub trustpoint_id: TrustpointId,
    /// The job that it names.
    pub job_id: JobId,
    /// That job as it is stored; none: there is no such job in the agent's tenant.
    pub job: Option<JobFacts>,
    /// The job waits in the outbox, or was published again after the message that this answers.
    pub offered_again: bool,
    /// Another trustpoint that has the key of an exchange that begins, as DEVICE/TRUSTPOINT (S4).
    pub key_held_by: Option<String>,
    /// Who says so.
    pub requested_by: Requester,
    /// What went to and fro, at the end of an exchange of which the agent tells.
    pub transcript: Option<Transcript>,
    /// What happened.
    pub event: ReportEvent,
}

/// What never changes of a stored job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// The agent it is for.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// What it asks.
    pub kind: JobKind,
}

/// What happened, parsed.
#[derive(Clone, Debug)]
pub enum ReportEvent {
    /// The exchange begins, with this public-key fingerprint.
    Started {
        /// SHA-256 of the subjectPublicKeyInfo, lower-case hex.
        public_key_sha256: String,
    },
    /// The exchange waits for the CA.
    Waiting {
        /// The CA has not said `waiting`: the request is tried again.
        requesting: bool,
        /// What the agent tells of it; none: an agent that is older.
        progress: Option<Progress>,
    },
    /// The permit had run out; nothing was started.
    PermitExpired,
    /// Issued and stored on the device.
    Issued(Box<IssuedCertificate>),
    /// In use.
    Activated {
        /// Serial number, upper-case hex.
        serial: String,
        /// File on the device.
        file: String,
        /// What became of its services, where the agent tells; the serial is that of the certificate.
        in_service: Option<Box<InService>>,
    },
    /// The CA has revoked the certificate.
    Revoked {
        /// transactionID of the exchange, hex.
        transaction_id: String,
        /// Warnings of the agent, as sentences.
        warnings: Vec<String>,
    },
    /// Everything that an enrolment needs was tried.
    DryRun(Box<DryRun>),
    /// The anchors are on the device; each service that relies on them, with what was seen of its having loaded them.
    Anchors {
        /// The services.
        in_service: Box<InService>,
    },
    /// Ended without what was asked for.
    Failed {
        /// Why.
        failure: Failure,
        /// transactionID, hex, where an exchange began.
        transaction_id: Option<String>,
        /// What became of services, where they are what failed; its serial is not known here.
        in_service: Option<Box<InService>>,
        /// Serial number and file of the certificate that is in use nevertheless.
        in_use: Option<(String, String)>,
    },
}

/// An issued certificate with its bytes.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// What can be read in it; its id is to be used.
    pub facts: CertificateFacts,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// CA certificates that came with it, DER.
    pub chain: Vec<Vec<u8>>,
    /// transactionID of the exchange, hex.
    pub transaction_id: String,
    /// Warnings of the agent, as sentences.
    pub warnings: Vec<String>,
    /// When the controller learned of it.
    pub received_at: Timestamp,
}
