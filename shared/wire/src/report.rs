//! Reports: what an agent tells of its jobs, in payloads of version 1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, DeviceId, JobId, LeaseId, MessageId, TenantId, TrustpointId};

use crate::transcript::Exchanged;
use crate::v1::Blob;

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// This report; repeated with the same id until a receipt comes.
    pub report_id: MessageId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent.
    pub agent_id: AgentId,
    /// The device.
    pub device_id: DeviceId,
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The job.
    pub job_id: JobId,
    /// Sequence of the job message that it answers.
    pub sequence: u64,
    /// The lease by which the agent began the job by itself; the controller learns of such a job by its first report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<LeaseId>,
    /// `host:port` of the CMP server that the exchange goes to, as soon as one has the request; an agent that is older does not
    /// tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When it happened, by the agent's clock.
    pub at: Timestamp,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The exchange begins.
    Started {
        /// SHA-256 of the subjectPublicKeyInfo, lower-case hex.
        public_key_sha256: String,
    },
    /// The CA said `waiting`; the agent polls. Told again, at most once a minute, when something worth knowing has changed.
    Waiting {
        /// Seconds until the next poll, or the next try.
        check_after_s: u64,
        /// More of it (S50); an agent that is older does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<Box<Progress>>,
    },
    /// Not started: the permit had run out.
    PermitExpired,
    /// The certificate is issued, confirmed and stored on the device.
    Issued(Box<Issued>),
    /// The certificate is in use.
    Activated {
        /// Serial number, upper-case hex.
        serial: String,
        /// File on the device.
        file: String,
        /// What became of its services; an agent that is older, or a job without services, does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        in_service: Option<Box<InService>>,
    },
    /// The CA has revoked the certificate.
    Revoked(Box<Revoked>),
    /// Everything that an enrolment needs was tried.
    DryRun(Box<DryRun>),
    /// The anchors are on the device; each service that relies on them is told with what was seen of its having loaded them.
    Anchors {
        /// The services.
        in_service: Box<InService>,
    },
    /// Ended without what was asked for.
    Failed(Box<Failed>),
}

/// How far an exchange is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The CA has not said `waiting` yet: the request, or the confirmation, is tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requesting: bool,
    /// pollReq messages sent so far.
    pub polls: u32,
    /// When the CA is asked next, by the agent's clock.
    pub next_at: Timestamp,
    /// Why the CA gives no answer at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// An issued certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The certificate, DER.
    pub certificate: Blob,
    /// CA certificates that came with it, DER.
    pub chain: Vec<Blob>,
    /// transactionID of the exchange, lower-case hex.
    pub transaction_id: String,
    /// `accepted` or `granted_with_mods`.
    pub status: String,
    /// Confirmed implicitly, without certConf.
    pub implicitly_confirmed: bool,
    /// Time of the whole exchange, milliseconds.
    pub duration_ms: u64,
    /// pollReq messages sent.
    pub polls: u32,
    /// File on the device.
    pub file: String,
    /// Warnings, as sentences.
    pub warnings: Vec<String>,
    /// What went to and fro; an agent that is older does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<Exchanged>,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Serial number of the certificate, upper-case hex.
    pub serial: String,
    /// transactionID of the exchange, lower-case hex.
    pub transaction_id: String,
    /// Time of the whole exchange, milliseconds.
    pub duration_ms: u64,
    /// Warnings, as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What went to and fro.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<Exchanged>,
}

/// What a dry run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What was tried, in its order.
    pub checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: `order`, `accept`, `storage`, `services`, `source`, `server`, `credentials` or `request`.
    pub name: String,
    /// `ok`, `warning` or `failed`.
    pub result: String,
    /// The rule of the settings or of docs/cmp.md that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What was found, as a sentence; no secret, MAC or nonce is in it.
    pub message: String,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// `configuration`, `peer_message`, `peer_refusal`, `transport` or `device`.
    pub culprit: String,
    /// Stable snake_case code.
    pub code: String,
    /// What was wrong and what to check next.
    pub message: String,
    /// PKIStatus in the RFC's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki_status: Option<String>,
    /// PKIFailureInfo bits in the RFC's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_info: Vec<String>,
    /// The CA's own words: untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_string: Option<String>,
    /// transactionID of the exchange, lower-case hex, where it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// The CA may have issued a certificate that was not received.
    pub maybe_issued: bool,
    /// Time of the exchange, milliseconds.
    pub duration_ms: u64,
    /// What went to and fro; an agent that is older does not tell, and there is nothing to tell where none began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<Exchanged>,
    /// What became of services, where they are what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_service: Option<Box<InService>>,
    /// The certificate that is in use nevertheless, because the one that it replaced is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<InUse>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// Serial number, upper-case hex.
    pub serial: String,
    /// File on the device.
    pub file: String,
}

/// What became of the services that were to take a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InService {
    /// Each service with what was seen; empty: it was not come so far.
    pub services: Vec<ServiceOutcome>,
    /// What was done, in its order.
    pub steps: Vec<ServiceStep>,
    /// What the operator should know, as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A service and whether it is seen to use the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOutcome {
    /// Name of the service.
    pub service: String,
    /// `verified`, `unverifiable` or `failed`.
    pub result: String,
}

/// One step of an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStep {
    /// Name of the service.
    pub service: String,
    /// `export`, `reload`, `probe`, and after a failure `restore` and `reload_former`.
    pub step: String,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What a program printed or what was seen: untrusted.
    pub detail: String,
}
