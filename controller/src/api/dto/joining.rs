//! How agents come in without a token: factory CAs, expected serial numbers, applicants.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::device::Labels;
use trustfleet_model::ids::{ApplicantId, ExpectedId, FactoryCaId};
use utoipa::ToSchema;

use crate::db::{Applicant, ApplicantState, ExpectedAgent, FactoryCa};
use crate::factory::SerialFrom;

/// Where certificates of a factory CA hold the serial number of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SerialFrom)]
pub enum SerialFromWord {
    /// The attribute serialNumber of the subject.
    SubjectSerialNumber,
    /// hwSerialNum of the hardwareModuleName among the alternative names; octets that are no plain text in hexadecimal.
    HardwareModuleName,
}

impl From<SerialFromWord> for SerialFrom {
    fn from(word: SerialFromWord) -> Self {
        match word {
            SerialFromWord::SubjectSerialNumber => Self::SubjectSerialNumber,
            SerialFromWord::HardwareModuleName => Self::HardwareModuleName,
        }
    }
}

impl From<SerialFrom> for SerialFromWord {
    fn from(place: SerialFrom) -> Self {
        match place {
            SerialFrom::SubjectSerialNumber => Self::SubjectSerialNumber,
            SerialFrom::HardwareModuleName => Self::HardwareModuleName,
        }
    }
}

/// What registers a factory CA.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FactoryCaCreate {
    /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Trust anchors, 1 to 16 CA certificates, each in PEM.
    #[schema(min_items = 1, max_items = 16)]
    pub anchors: Vec<String>,
    /// Where its certificates hold the serial number.
    pub serial_from: SerialFromWord,
    /// Let in only serial numbers that are expected; default true.
    #[serde(default = "yes")]
    pub expected_only: bool,
    /// Labels that its agents get, at most 32 pairs of words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

const fn yes() -> bool {
    true
}

/// A CA whose factory identities (IDevID) let agents in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = FactoryCa)]
pub struct FactoryCaBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: FactoryCaId,
    /// Its name.
    pub name: String,
    /// Trust anchors, PEM.
    pub anchors: Vec<String>,
    /// Where its certificates hold the serial number.
    pub serial_from: SerialFromWord,
    /// Whether only expected serial numbers come in.
    pub expected_only: bool,
    /// Labels that its agents get.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<FactoryCa> for FactoryCaBody {
    fn from(ca: FactoryCa) -> Self {
        Self {
            id: ca.id,
            name: ca.name.into(),
            anchors: ca.anchors,
            serial_from: ca.serial_from.into(),
            expected_only: ca.expected_only,
            labels: pairs(&ca.labels),
            created_at: ca.created_at,
        }
    }
}

/// What makes a serial number expected.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedAgentCreate {
    /// The serial number: 1 to 63 letters, digits, `.`, `_`, `:`, `-`.
    #[schema(min_length = 1, max_length = 63)]
    pub serial: String,
    /// Name that the agent gets; default: the one that it asks for.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub agent_name: Option<String>,
    /// Labels that the agent gets, at most 32 pairs of words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A serial number whose agent may announce itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ExpectedAgent)]
pub struct ExpectedAgentBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: ExpectedId,
    /// The serial number.
    pub serial: String,
    /// Name that the agent gets; null: the one that it asks for.
    #[schema(required)]
    pub agent_name: Option<String>,
    /// Labels that the agent gets.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<ExpectedAgent> for ExpectedAgentBody {
    fn from(expected: ExpectedAgent) -> Self {
        Self {
            id: expected.id,
            serial: expected.serial.into(),
            agent_name: expected.agent_name.map(Into::into),
            labels: pairs(&expected.labels),
            created_at: expected.created_at,
        }
    }
}

/// What was decided about an applicant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ApplicantState)]
pub enum ApplicantStateWord {
    /// Nothing yet.
    Pending,
    /// It comes in when it asks again.
    Approved,
    /// It is refused.
    Rejected,
}

/// An agent that announced an expected serial number and waits for an operator.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Applicant)]
pub struct ApplicantBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: ApplicantId,
    /// The serial number that it claims.
    pub serial: String,
    /// Name that it will get.
    pub name: String,
    /// Id of its signing key, as the agent shows it in its log: compare them before you approve.
    pub key_id: String,
    /// Version of its software, as it says.
    pub software: String,
    /// Where it last came from.
    #[schema(required)]
    pub address: Option<String>,
    /// What was decided.
    pub state: ApplicantStateWord,
    /// When it first announced itself.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen_at: Timestamp,
    /// When it last did.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
}

impl From<Applicant> for ApplicantBody {
    fn from(applicant: Applicant) -> Self {
        Self {
            id: applicant.id,
            serial: applicant.serial.into(),
            name: applicant.name.into(),
            key_id: trustfleet_wire::sign::key_id(&applicant.sign_key),
            software: applicant.software,
            address: applicant.address,
            state: match applicant.state {
                ApplicantState::Pending => ApplicantStateWord::Pending,
                ApplicantState::Approved => ApplicantStateWord::Approved,
                ApplicantState::Rejected => ApplicantStateWord::Rejected,
            },
            first_seen_at: applicant.first_seen_at,
            last_seen_at: applicant.last_seen_at,
        }
    }
}

fn pairs(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
