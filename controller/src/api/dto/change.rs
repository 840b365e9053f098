//! Changes that wait for another administrator.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::ChangeId;
use utoipa::ToSchema;

use crate::db::{Change, ChangeState};

/// A change that takes effect when another administrator approves it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct ChangeBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: ChangeId,
    /// `pending`, `approved`, `rejected`, or `expired`: nobody decided in time.
    pub state: &'static str,
    /// The operation that was asked for, such as `ca_server_update`.
    pub operation: String,
    /// Kind of the object.
    pub object_kind: String,
    /// Name of the object.
    pub object_name: String,
    /// Revision of the object that the proposer saw: only that one is changed; null: it is to be made.
    #[schema(required)]
    pub object_revision: Option<u32>,
    /// What the object is to be, exactly; null: gone.
    #[schema(value_type = Option<serde_json::Value>, required)]
    pub proposal: Option<serde_json::Value>,
    /// Who proposed it.
    pub proposed_by: String,
    /// When it was proposed.
    #[schema(value_type = String, format = DateTime)]
    pub proposed_at: Timestamp,
    /// When it can be approved no more.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Who decided.
    #[schema(required)]
    pub decided_by: Option<String>,
    /// When it was decided.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub decided_at: Option<Timestamp>,
    /// Why it was rejected.
    #[schema(required)]
    pub reason: Option<String>,
}

impl ChangeBody {
    /// The change as it is at `now`.
    pub fn new(change: Change, now: Timestamp) -> Self {
        let is_expired = change.state == ChangeState::Pending && change.expires_at <= now;
        Self {
            id: change.id,
            state: if is_expired { "expired" } else { change.state.as_str() },
            operation: change.operation,
            object_kind: change.object_kind,
            object_name: change.object_name.into(),
            object_revision: change.object_revision,
            proposal: change.proposal,
            proposed_by: change.proposed_by,
            proposed_at: change.proposed_at,
            expires_at: change.expires_at,
            decided_by: change.decided_by,
            decided_at: change.decided_at,
            reason: change.reason,
        }
    }
}

/// Why a change is rejected.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeReject {
    /// The reason, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub reason: String,
}
