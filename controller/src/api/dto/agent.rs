//! Agents as operators see them.

use jiff::Timestamp;
use serde::Serialize;
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
    /// Version of its software at the last hello.
    pub software: String,
    /// When it joined.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// Last session, hello or report.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
    /// Id of its signing key: the first 16 bytes of the SHA-256 of the Ed25519 public key, hex.
    pub key_id: String,
}

impl From<crate::db::Agent> for AgentBody {
    fn from(agent: crate::db::Agent) -> Self {
        Self {
            id: agent.id,
            name: agent.name.into(),
            software: agent.software,
            joined_at: agent.joined_at,
            last_seen_at: agent.last_seen_at,
            key_id: trustfleet_wire::sign::key_id(&agent.sign_key),
        }
    }
}
