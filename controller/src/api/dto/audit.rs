//! The audit log. Its rows and heads have the form in which they are exported and verified, so they are described here and
//! written by [`crate::audit`].

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::Record;

/// A row of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditRow)]
pub struct AuditRowBody {
    /// Its id, in the order of insertion.
    pub id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: `token:<id> (<description>)`, `agent:<id>`, `join_token:<id>`, `controller` and the like.
    pub actor: String,
    /// What the actor might do.
    pub role: String,
    /// Address of the connection's other end; null for what came over the broker or from the controller itself.
    #[schema(required)]
    pub source: Option<String>,
    /// `X-Request-Id` of the answer; for a report of an agent the report's id.
    #[schema(required)]
    pub request_id: Option<Uuid>,
    /// Trace of the request.
    #[schema(required)]
    pub trace_id: Option<String>,
    /// What, such as `device_created`.
    pub action: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// Kind of the object.
    pub object_kind: String,
    /// Id of the object.
    pub object_id: Uuid,
    /// What changed of it, as it was; without secrets, certificates by their fingerprint.
    #[schema(required, value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    /// What changed of it, as it is.
    #[schema(required, value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
    /// What else matters.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

impl From<Record> for AuditRowBody {
    fn from(row: Record) -> Self {
        Self {
            id: row.id,
            at: row.at,
            actor: row.actor,
            role: row.role,
            source: row.source.map(|address| address.to_string()),
            request_id: row.request_id,
            trace_id: row.trace_id,
            action: row.action,
            outcome: row.outcome,
            object_kind: row.object_kind,
            object_id: row.object_id,
            before: row.before,
            after: row.after,
            detail: row.detail,
        }
    }
}

/// Signed heads of logs; what [`crate::audit::Heads`] writes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditHeads)]
pub struct AuditHeadsBody {
    /// The controller's Ed25519 public key, hex.
    pub public_key: String,
    /// The latest signed link of each log.
    pub heads: Vec<AuditHeadBody>,
}

/// The latest signed link of a log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditHead)]
pub struct AuditHeadBody {
    /// Id of the tenant; the nil UUID for the installation's own log.
    pub tenant_id: Uuid,
    /// Name of the tenant.
    #[schema(required)]
    pub tenant: Option<String>,
    /// Place of the link in the chain, from 1.
    pub seq: i64,
    /// Its hash, hex.
    pub hash: String,
    /// When it was signed.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Id of the key that signed it.
    pub key_id: String,
    /// Ed25519 signature, hex.
    pub signature: String,
}
