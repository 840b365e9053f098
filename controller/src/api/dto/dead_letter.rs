//! Messages of agents that could not be processed.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use trustfleet_model::ids::{AgentId, DeadLetterId};
use utoipa::ToSchema;

use crate::db::DeadLetter;

/// A message that could not be processed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: DeadLetterId,
    /// Why, as in `trustfleet_reports_refused_total`.
    #[schema(example = "unreadable")]
    pub reason: String,
    /// What was found, in words.
    pub detail: String,
    /// Tenant of the agent that wrote it; null: not known.
    #[schema(required)]
    pub tenant: Option<String>,
    /// Name of that agent; null: not known, or there no more.
    #[schema(required)]
    pub agent: Option<String>,
    /// Id of the agent whose routing key it came by; null: not known.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub agent_id: Option<AgentId>,
    /// The routing key; empty: not known.
    pub routing_key: String,
    /// Length of the message, bytes.
    pub size: i64,
    /// SHA-256 of the message, lower-case hex.
    pub sha256: String,
    /// How often it was laid aside: one that comes again is the same letter.
    pub times: i64,
    /// When it was laid aside first.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Timestamp,
    /// When it was last.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Timestamp,
}

/// A dead letter, with what may be shown of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetterShown {
    /// As in lists.
    #[serde(flatten)]
    pub letter: DeadLetterBody,
    /// The message as far as it is JSON, without what could be a secret; of a form that this program does not know the shape
    /// alone. Null: no JSON.
    #[schema(value_type = Object, nullable)]
    pub content: Value,
    /// It is there as a whole and its way back is known.
    pub can_be_retried: bool,
}

/// What became of dead letters.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLettersDropped {
    /// How many were dropped.
    pub dropped: u64,
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            reason: letter.reason,
            detail: letter.detail,
            tenant: letter.tenant.map(|name| name.to_string()),
            agent: letter.agent.map(|name| name.to_string()),
            agent_id: Some(letter.agent_id).filter(|agent| *agent != AgentId::nil()),
            routing_key: letter.routing_key,
            size: letter.size,
            sha256: hex::encode(letter.sha256),
            times: letter.times,
            first_at: letter.first_at,
            last_at: letter.last_at,
        }
    }
}
