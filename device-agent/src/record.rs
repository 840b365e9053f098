//! What the agent remembers of a job: one file each, replaced atomically at every step.
//!
//! A record holds the job message as it came, signature included, so that after a restart it is verified again and a
//! sealed secret is opened again: the secret itself is never written. As a CMP message under a MAC lies in it (from
//! which a weak secret could be found by trial), a record is as private as a key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_cmp::transaction::TransactionRecord;
use trustfleet_model::ids::{JobId, MessageId};
use trustfleet_model::transcript::Transcript;
use trustfleet_wire::Envelope;
use trustfleet_wire::v1::Blob;

/// The only version of the record's form.
pub const VERSION: u16 = 1;

/// What the agent remembers of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRecord {
    /// Form of the record.
    pub version: u16,
    /// The job.
    pub job_id: JobId,
    /// The job message that is worked on, as it came.
    pub envelope: Envelope,
    /// Greatest sequence seen for the job; smaller ones are stale.
    pub sequence: u64,
    /// When it came.
    pub received_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Reports without a receipt yet, in their order.
    pub reports: Vec<Outgoing>,
    /// The last report made: the answer to a repeated job message.
    pub last_report: Option<Outgoing>,
    /// An operator wants it to end (S37).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// A report, signed and ready: repeated with the same id and the same bytes until a receipt comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outgoing {
    /// Its id.
    pub report_id: MessageId,
    /// Routing key, as the job said.
    pub routing_key: String,
    /// What it tells, in one word, for logs and `status`.
    pub kind: String,
    /// The message.
    pub envelope: Envelope,
}

/// Where a job stands, named for what it waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "awaiting", rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// Its trustpoint to be free, and a place among the exchanges; nothing has left the device.
    Start,
    /// The CA's next answer, or the time to ask again.
    Ca {
        /// The exchange.
        exchange: Box<Exchange>,
    },
    /// The issued and confirmed certificate to be laid into its slot.
    Storage {
        /// The certificate.
        issued: Box<IssuedCertificate>,
    },
    /// The staged certificate to be put into use.
    Activation {
        /// Its serial number, upper-case hex.
        serial: String,
    },
    /// Nothing.
    Nothing {
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Its permit had run out: returned, to be given again.
    PermitExpired,
    /// Done.
    Succeeded,
    /// Not done.
    Failed {
        /// Stable code.
        code: String,
        /// What was wrong and what to check next.
        message: String,
    },
}

/// An exchange with the CA that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// When it began.
    pub started_at: Timestamp,
    /// The server that got the first byte: all further messages go there (T7).
    pub url: Option<String>,
    /// pollReq messages sent.
    pub polls: u32,
    /// Earliest moment of the next poll, while the CA lets us wait.
    pub poll_at: Option<Timestamp>,
    /// Everything of the transaction but its secrets.
    pub transaction: TransactionRecord,
    /// What went to and fro.
    #[serde(default, skip_serializing_if = "Transcript::is_empty")]
    pub transcript: Transcript,
    /// What the controller was told last of the waiting (S50).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// What the controller was told of an exchange that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// Whether that the CA gives no answer was in it.
    pub trouble: bool,
}

/// A certificate that the CA issued and that is confirmed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedCertificate {
    /// DER.
    pub certificate: Blob,
    /// CA certificates that came with it, DER, the issuer first.
    pub chain: Vec<Blob>,
    /// The server that it came from; none in records of an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// transactionID, lower-case hex.
    pub transaction_id: String,
    /// `accepted` or `granted_with_mods`.
    pub status: String,
    /// Without certConf.
    pub implicitly_confirmed: bool,
    /// Length of the whole exchange, milliseconds.
    pub duration_ms: u64,
    /// pollReq messages sent.
    pub polls: u32,
    /// As sentences.
    pub warnings: Vec<String>,
    /// What went to and fro.
    #[serde(default, skip_serializing_if = "Transcript::is_empty")]
    pub transcript: Transcript,
}

impl State {
    /// Whether nothing more will happen to the job by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Nothing { .. })
    }

    /// What it waits for, in words (S50).
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Start => "waiting to start",
            Self::Ca { .. } => "exchange with the CA",
            Self::Storage { .. } => "storing the certificate",
            Self::Activation { .. } => "activating the certificate",
            Self::Nothing { outcome: Outcome::PermitExpired } => "returned: permit expired",
            Self::Nothing { outcome: Outcome::Succeeded } => "succeeded",
            Self::Nothing { outcome: Outcome::Failed { .. } } => "failed",
        }
    }
}
