//! Agents as operators see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::AgentId;
use utoipa::ToSchema;

/// A device agent that has joined.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentBody {
    /// Its id; names its queue on the broker.
    #[schema(value_type = uuid::Uuid)]
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Whether it works, or is in quarantine.
    pub state: AgentState,
    /// Version of its software at the last hello.
    pub software: String,
    /// Labels from the token that it joined with.
    pub labels: BTreeMap<String, String>,
    /// Serial number that its factory identity vouched for or an operator approved; null: it joined by a token.
    #[schema(required)]
    pub serial: Option<String>,
    /// How it first joined: `token`, `factory` or `approval`.
    pub joined_by: &'static str,
    /// When it joined with its present keys.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// Last session, hello or report.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
    /// Id of its signing key: the first 16 bytes of the SHA-256 of the Ed25519 public key, hex.
    pub key_id: String,
    /// Its quarantine; null: it is in none.
    #[schema(required)]
    pub quarantine: Option<QuarantineBody>,
    /// When two processes with its keys were last found alive at once; null: never. A copy of its state folder runs
    /// somewhere.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub live_twice_at: Option<Timestamp>,
    /// How far its device's clock was behind the controller's at its last hello, seconds; negative: ahead; null: it is right,
    /// or the agent is older. The agent reckons with the controller's time; other programs of the device may not.
    #[schema(required)]
    pub clock_off_s: Option<i64>,
}

/// Whether an agent works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It does.
    Active,
    /// Nothing is sent to it, and nothing that it says counts.
    Quarantined,
}

/// The quarantine of an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Quarantine)]
pub struct QuarantineBody {
    /// Why, in the words of who decided it.
    pub reason: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When its connections to the broker were closed and its queue was deleted; null: not yet.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub cut_off_at: Option<Timestamp>,
}

/// What puts an agent into quarantine.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineCreate {
    /// Why, 1 to 200 characters; it appears in the audit log.
    #[schema(min_length = 1, max_length = 200)]
    pub reason: String,
}

/// What lets an agent join again.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejoinCreate {
    /// How long the token is good, seconds, 60 to 2,592,000 (30 days); default one hour.
    #[serde(default = "one_hour")]
    #[schema(minimum = 60, maximum = 2_592_000)]
    pub valid_for_s: u32,
}

const fn one_hour() -> u32 {
    3600
}

impl From<crate::db::Agent> for AgentBody {
    fn from(agent: crate::db::Agent) -> Self {
        let cut_off_at = agent.cut_off_at;
        Self {
            id: agent.id,
            name: agent.name.into(),
            state: if agent.quarantine.is_some() { AgentState::Quarantined } else { AgentState::Active },
            software: agent.software,
            labels: agent.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            serial: agent.serial.map(Into::into),
            joined_by: agent.joined_by.as_str(),
            joined_at: agent.joined_at,
            last_seen_at: agent.last_seen_at,
            key_id: trustfleet_wire::sign::key_id(&agent.sign_key),
            quarantine: agent.quarantine.map(|quarantine| QuarantineBody {
                reason: quarantine.reason,
                since: quarantine.since,
                cut_off_at,
            }),
            live_twice_at: agent.live_twice_at,
            clock_off_s: agent.clock_off_s,
        }
    }
}
