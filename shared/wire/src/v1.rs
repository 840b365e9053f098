//! Version 1 of the payloads. Frozen once shipped: a change of meaning is a version 2, new optional fields are allowed.
//!
//! These structs are their own family: they are made from domain types and read into them, and never stored as such.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, DeviceId, InstanceId, JobId, MessageId, TenantId, TrustpointId};

pub use crate::lease::{Lease, LeaseAnswer, LeaseEnd};
pub use crate::report::{
    Check, DryRun, Event, Failed, InService, InUse, Issued, Progress, Report, Revoked, ServiceOutcome, ServiceStep,
};
use crate::seal::SealedSecret;
pub use crate::transcript::Exchanged;

/// Binary data as base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// From the controller to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// Do this.
    Job(Box<Job>),
    /// A report is committed: stop repeating it.
    Receipt(Receipt),
    /// End a job (S37); an agent that is older lays the message aside and goes on.
    Stop(Box<Stop>),
    /// Renew a trustpoint by itself from now on, when the controller is out of reach; only to agents that say in their hello
    /// that they can.
    Lease(Box<Lease>),
    /// And from now on no more.
    LeaseEnd(Box<LeaseEnd>),
}

/// From an agent to the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// A session begins: offer all unfinished jobs again. Or it goes on: only those that no queue has taken.
    Hello(Hello),
    /// Something happened to a job.
    Report(Box<Report>),
    /// What became of a lease.
    Lease(Box<LeaseAnswer>),
}

/// An order to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The job; a second message with the same id is answered from the agent's record.
    pub job_id: JobId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent it is for; any other must refuse it.
    pub agent_id: AgentId,
    /// The device it is for.
    pub device_id: DeviceId,
    /// Name of the device, for folders and messages.
    pub device: String,
    /// The trustpoint it is for.
    pub trustpoint_id: TrustpointId,
    /// Name of the trustpoint, for folders and messages.
    pub trustpoint: String,
    /// Grows with every publication; of two messages for one job the greater counts.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When the signature ends: an agent ignores it from then on.
    pub expires_at: Timestamp,
    /// The permit: to be started before this moment, or returned.
    pub start_before: Timestamp,
    /// Revision of the policy it was made from.
    pub policy_revision: u32,
    /// Routing key of the reports about it.
    pub reply_to: String,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Services of the agent's own configuration that are to take the certificate when it is put into use; an agent that is
    /// older puts it into use without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The CA revokes the certificate that is replaced: a new one stays in use also when its services do not take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced_is_revoked: bool,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    /// Get a certificate.
    Enroll(Box<Enroll>),
    /// Put the staged certificate into use. The one in use already is given to its services once more.
    Activate {
        /// Serial number of the certificate, upper-case hex.
        serial: String,
    },
    /// Ask the CA to revoke a certificate; an agent that is older cannot.
    Revoke(Box<Revoke>),
    /// Try everything that this enrolment needs, and say nothing to the CA; an agent that is older cannot.
    DryRun(Box<Enroll>),
    /// Trust these anchors from now on, give them to the services, and say whether these have loaded them; no CA is asked. An
    /// agent that is older cannot.
    Anchors(Box<Anchors>),
}

/// Trust anchors of a trustpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    /// All that are trusted from now on, DER.
    pub trusted: Vec<Blob>,
    /// Those that are trusted no more, DER.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Blob>,
}

/// One revocation request (RFC 9483 sections 4.2 and 5.3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// The certificate, DER.
    pub certificate: Blob,
    /// CRLReason in the words of RFC 5280.
    pub reason: String,
    /// The trustpoint of this agent whose certificate in use signs, as a registration authority; none: the certificate
    /// itself signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
    /// Recipient DN as text: the CA's name.
    pub recipient: String,
    /// CMP URLs in the order to try them.
    pub urls: Vec<String>,
    /// Where connections to them come from on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Accept HMAC-SHA1 in answers.
    pub accept_sha1_answers: bool,
    /// Trust anchors, DER.
    pub trust_anchors: Vec<Blob>,
    /// Certificates that verify signed answers, DER.
    pub verification_certificates: Vec<Blob>,
    /// Longest time for one request and its answer, seconds.
    pub message_timeout_s: u32,
    /// Longest time for the whole transaction, seconds.
    pub total_timeout_s: u32,
    /// The CA does not know polling: waiting ends the exchange; an agent that is older polls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_polling: bool,
    /// The CA wants the signer's root among extraCerts; an agent that is older leaves it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_in_extra_certs: bool,
}

/// A trustpoint of the agent that a job is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Name of its device.
    pub device: String,
    /// Name of the trustpoint.
    pub trustpoint: String,
}

/// One CMP enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// `ir`, `cr` or `kur`.
    pub request: Request,
    /// Subject DN as text, order as in the text's own spelling.
    pub subject: String,
    /// Alternative names.
    pub sans: Vec<San>,
    /// Recipient DN as text: the CA's name.
    pub recipient: String,
    /// CMP URLs in the order to try them.
    pub urls: Vec<String>,
    /// Where connections to them come from on the device; an agent that is older does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// `rsa-2048`, `rsa-3072`, `rsa-4096`, `ecdsa-p256`, `ecdsa-p384` or `ed25519`.
    pub key_algorithm: String,
    /// Make a new key for an update.
    pub regenerate_key: bool,
    /// Reference and sealed secret, where the request is MAC-protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// PKI domain of the device whose identity signs an `ir` or `cr`; an agent that is older does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_domain: Option<String>,
    /// Sender DN of MAC-protected requests; without it the reference value becomes a common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Serial number of the certificate that is to be replaced, upper-case hex: where another one is in use by now nothing
    /// is asked for. An agent that is older replaces whichever there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Believe the time in verified answers, where the device knows no better; an agent that is older never does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ca_time: bool,
    /// What of the CA is kept fresh beside the certificate; an agent that is older keeps nothing so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upkeep: Option<Upkeep>,
    /// Accept HMAC-SHA1 in answers.
    pub accept_sha1_answers: bool,
    /// Ask for implicit confirmation.
    pub implicit_confirm: bool,
    /// Trust anchors, DER.
    pub trust_anchors: Vec<Blob>,
    /// Certificates that verify signed answers, DER.
    pub verification_certificates: Vec<Blob>,
    /// Put the certificate into use at once.
    pub activate: bool,
    /// `pem` or `der`.
    pub file_format: String,
    /// Longest time for one request and its answer, seconds.
    pub message_timeout_s: u32,
    /// Longest time for the whole transaction, seconds.
    pub total_timeout_s: u32,
    /// The CA does not know polling: waiting ends the exchange; an agent that is older polls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_polling: bool,
    /// The CA wants the signer's root among extraCerts; an agent that is older leaves it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_in_extra_certs: bool,
}

/// What of a CA is kept fresh, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// CA certificates, by genm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ca_certs: bool,
    /// The CRL, by distribution points and genm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crls: bool,
    /// Roots that follow the trust anchors, by genm: told in the hello, and not trusted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roots: bool,
    /// Seconds between two times, at most; a CRL is asked for earlier where it ends before.
    pub every_s: u32,
}

/// The local side of connections (S7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Kind of the CMP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Initialization request.
    Ir,
    /// Certification request.
    Cr,
    /// Key update request.
    Kur,
}

/// An alternative name: `ip`, `dn`, `email`, `uri`, `upn` or `dns`, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct San {
    /// Kind of the name.
    pub kind: String,
    /// The name.
    pub value: String,
}

/// Credentials and algorithm of a MAC-protected request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac {
    /// Reference value (S12).
    pub reference: String,
    /// The secret, sealed to the agent's current key (S13).
    pub secret: SealedSecret,
    /// `hmac-sha256`, `hmac-sha384`, `hmac-sha512`, `pbmac1-sha256`, `pbmac1-sha384`, `pbmac1-sha512` or `hmac-sha1`.
    pub algorithm: String,
    /// Iterations of the one-way function.
    pub iterations: u32,
}

/// The controller has committed a report, or will never do so: it need not be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The agent it is for.
    pub agent_id: AgentId,
    /// The report.
    pub report_id: MessageId,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Why the report will never be committed, however often it is repeated; an agent that is older lets it rest as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An operator wants a job to end. It is answered by the report that ends the job: `failed` with the code `stopped`, or
/// whatever came before. Whatever is on its way to an issued certificate is brought to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The job.
    pub job_id: JobId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent it is for.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Grows with every publication, as that of the job's own message.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When the signature ends: an agent ignores it from then on.
    pub expires_at: Timestamp,
    /// Routing key of the report about it.
    pub reply_to: String,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An agent's greeting at the start of a session, and again every few minutes: it still works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent.
    pub agent_id: AgentId,
    /// This message.
    pub message_id: MessageId,
    /// When it was signed, by the agent's clock.
    pub at: Timestamp,
    /// Version of the agent's software.
    pub software: String,
    /// Said again in a session that goes on: the agent has what was sent to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// The process that speaks; an agent that is older does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// It takes leases; an agent that is older does not, and one whose configuration says so neither.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leases: bool,
    /// How far the device's own clock is behind the controller's, seconds; negative: ahead. Left out: it is right, or the
    /// agent is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_off_s: Option<i64>,
    /// Which of its devices are active nodes of hot-standby pairs and which stand by, where its configuration says how that
    /// is seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeSeen>,
    /// Roots that follow anchors of its orders, as CAs told; until the orders have them as anchors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootOffered>,
}

/// A root that follows a trust anchor, as its CA told (rootCaKeyUpdate).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootOffered {
    /// A trustpoint whose orders have the anchor; there may be more of them.
    pub trustpoint_id: TrustpointId,
    /// The new root, DER: newWithNew.
    pub root: Blob,
    /// Its key, certified by the anchor, DER: newWithOld.
    pub with_old: Blob,
}

/// What a device is in its hot-standby pair, as its agent sees it (S47).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSeen {
    /// Name of the device.
    pub device: String,
    /// It is the active node.
    pub active: bool,
    /// Since when, by the agent's clock: the same until it changes, also over restarts of the agent.
    pub since: Timestamp,
}
