//! Subjects of identity providers that are let in no more.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::BlockId;
use utoipa::ToSchema;

use crate::db::BlockedSubject;

/// Blocks a subject of an identity provider.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockedSubjectCreate {
    /// The provider: `iss` of its tokens, character by character.
    #[schema(min_length = 1, max_length = 512)]
    pub issuer: String,
    /// Whom it names: `sub` of its tokens.
    #[schema(min_length = 1, max_length = 255)]
    pub subject: String,
    /// Why, in your own words; kept with the block and in the audit log.
    #[schema(min_length = 1, max_length = 200)]
    pub reason: String,
}

/// A subject that is let in no more.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = BlockedSubject)]
pub struct BlockedSubjectBody {
    /// Id of the block.
    #[schema(value_type = uuid::Uuid)]
    pub id: BlockId,
    /// The provider.
    pub issuer: String,
    /// Whom it names.
    pub subject: String,
    /// Why it is blocked.
    pub reason: String,
    /// Who blocked it, in the words of the audit log.
    pub blocked_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub blocked_at: Timestamp,
}

impl From<BlockedSubject> for BlockedSubjectBody {
    fn from(blocked: BlockedSubject) -> Self {
        let BlockedSubject { id, issuer, subject, reason, blocked_by, blocked_at } = blocked;
        Self { id, issuer, subject, reason, blocked_by, blocked_at }
    }
}
