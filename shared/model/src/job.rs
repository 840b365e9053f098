//! Enrolment jobs: what is asked of an agent, and how it ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ca_server::CaServerSpec;
use crate::entity::ResolvedEntity;
use crate::field::ObjectName;
use crate::ids::{CertificateId, LeaseId, SecretId};
use crate::policy::PolicySpec;
use crate::revocation::{RevocationReason, Signer};

/// Code of the failure of a job that was to replace a certificate which is not the one in use.
pub const REPLACED_ALREADY: &str = "replaced_already";

/// Kind of the CMP request (S27 to S30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Initialization request.
    Ir,
    /// Certification request: a further certificate for an entity that the PKI knows.
    Cr,
    /// Key update request, signed with the certificate that it replaces.
    Kur,
}

impl RequestKind {
    /// All kinds, for counters that must exist at zero.
    pub const ALL: [Self; 3] = [Self::Ir, Self::Cr, Self::Kur];

    /// The kind's word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ir => "ir",
            Self::Cr => "cr",
            Self::Kur => "kur",
        }
    }
}

/// Where a job stands, named for what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Committed; waits in the outbox to be published.
    AwaitingPublish,
    /// Published; waits for the agent to start.
    AwaitingAgent,
    /// Started; waits for the CA's answer.
    AwaitingCa,
    /// The CA answered `waiting`; the agent polls.
    AwaitingPoll,
    /// The certificate is issued and stored on the device.
    Succeeded,
    /// Ended without a certificate.
    Failed,
}

impl JobState {
    /// All states, for gauges that must exist at zero.
    pub const ALL: [Self; 6] = [
        Self::AwaitingPublish,
        Self::AwaitingAgent,
        Self::AwaitingCa,
        Self::AwaitingPoll,
        Self::Succeeded,
        Self::Failed,
    ];

    /// The state's word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingPublish => "awaiting_publish",
            Self::AwaitingAgent => "awaiting_agent",
            Self::AwaitingCa => "awaiting_ca",
            Self::AwaitingPoll => "awaiting_poll",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen to the job.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What a job asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum JobTask {
    /// Get a certificate.
    Enroll(Box<EnrollmentOrder>),
    /// Put the staged certificate into use.
    Activate {
        /// Serial number of the staged certificate, upper-case hex; or of the one in use, for services that have yet to
        /// take it.
        serial: String,
        /// Services that are to take it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<ObjectName>,
        /// The CA has revoked the certificate that it replaces.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replaced_is_revoked: bool,
    },
    /// Ask the CA to revoke a certificate.
    Revoke(Box<RevocationOrder>),
    /// Try everything that this enrolment needs, and say nothing to the CA.
    DryRun(Box<EnrollmentOrder>),
    /// Trust these anchors from now on, and give them to the services (S57).
    Anchors(Box<AnchorsOrder>),
    /// A key update that the agent began by itself, while it was cut off: never sent to it.
    Autonomous {
        /// The lease that it began it by.
        lease_id: LeaseId,
        /// Revision of the policy when it became known.
        policy_revision: u32,
        /// Nobody has asked for it by hand.
        automatic: bool,
        /// Its exchange has ended by then: an agent that does not tell has lost it.
        ends_by: Timestamp,
    },
}

impl JobTask {
    /// The kind's word in the API and in SQL: `ir`, `cr`, `kur`, `activate`, `revoke`, `dry_run` or `anchors`.
    pub const fn kind_str(&self) -> &'static str {
        match self {
            Self::Autonomous { .. } => RequestKind::Kur.as_str(),
            Self::Enroll(order) => order.kind.as_str(),
            Self::Activate { .. } => "activate",
            Self::Revoke(_) => "revoke",
            Self::DryRun(_) => "dry_run",
            Self::Anchors(_) => "anchors",
        }
    }
}

/// Everything an agent needs to trust other anchors, fixed when the job is made. No CA is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorsOrder {
    /// All anchors that are trusted from now on, PEM, one certificate each.
    pub trusted: Vec<String>,
    /// Those that are trusted no more, PEM, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<String>,
    /// Services that are to load them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ObjectName>,
}

/// Everything an agent needs to ask for one revocation, fixed when the job is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationOrder {
    /// The certificate's id in the controller.
    pub certificate_id: CertificateId,
    /// The certificate, PEM: its issuer and serial number go into the request byte for byte.
    pub certificate: String,
    /// Why.
    pub reason: RevocationReason,
    /// The CA server as it was configured.
    pub ca_server: CaServerSpec,
    /// The policy of the trustpoint that signs: times and the source of connections.
    pub policy: PolicySpec,
    /// That policy's revision.
    pub policy_revision: u32,
    /// Device and trustpoint whose certificate in use signs, as a registration authority; none: the certificate itself
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
}

/// Everything an agent needs for one enrolment, fixed when the job is accepted; the secret only by reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollmentOrder {
    /// Kind of the request.
    pub kind: RequestKind,
    /// Subject and alternative names, placeholders filled.
    pub entity: ResolvedEntity,
    /// The CA server as it was configured.
    pub ca_server: CaServerSpec,
    /// The policy as it was configured.
    pub policy: PolicySpec,
    /// The policy's revision.
    pub policy_revision: u32,
    /// Reference and secret, where the request is protected by MAC.
    pub mac: Option<MacCredentials>,
    /// A cr that renews: the certificate in use signs it, whatever the policy says of first requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed_by_current: bool,
    /// Sender DN of a MAC-protected request, placeholders filled (S19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Recipient DN, where it is not the CA's name, placeholders filled (S20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Services that are to take the certificate when it is put into use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ObjectName>,
    /// Nobody has asked for it by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// Serial number of the certificate that it is to replace and no other, upper-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// It is for the agent with this registered signing key and no other: SHA-256, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key_sha256: Option<String>,
}

/// Reference value and secret of a MAC-protected request (S12, S13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacCredentials {
    /// Reference value, 1 to 256 characters (S12).
    pub reference: String,
    /// Where the secret is kept, encrypted.
    pub secret_id: SecretId,
}

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Culprit {
    /// Our own configuration.
    Configuration,
    /// The CA's message was malformed, not authentic or not what was asked for.
    PeerMessage,
    /// The CA refused.
    PeerRefusal,
    /// The CA could not be reached or did not answer in time.
    Transport,
    /// The device: its disk, its keys, its clock.
    Device,
}

impl Culprit {
    /// All culprits, for counters that must exist at zero.
    pub const ALL: [Self; 5] =
        [Self::Configuration, Self::PeerMessage, Self::PeerRefusal, Self::Transport, Self::Device];

    /// The word in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::PeerMessage => "peer_message",
            Self::PeerRefusal => "peer_refusal",
            Self::Transport => "transport",
            Self::Device => "device",
        }
    }
}

/// Why a job ended without a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who is to blame.
    pub culprit: Culprit,
    /// Stable snake_case code.
    pub code: String,
    /// What was wrong and what to check next, as a sentence of ours.
    pub message: String,
    /// PKIStatus of the CA's answer, in the RFC's words, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki_status: Option<String>,
    /// PKIFailureInfo bits, in the RFC's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_info: Vec<String>,
    /// The CA's own words: untrusted, cleaned of control characters, bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_string: Option<String>,
    /// Whether the CA may have issued a certificate that nobody received.
    #[serde(default)]
    pub maybe_issued: bool,
}
