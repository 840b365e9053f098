//! Audit lines of changes that do not go through a device's decision; those are written by the group commit.

use jiff::Timestamp;
use serde_json::Value;
use trustfleet_model::ids::TenantId;
use uuid::Uuid;

use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// When.
    pub at: Timestamp,
    /// Who: a token, an agent or the controller itself.
    pub actor: &'a str,
    /// What: a snake_case word.
    pub action: &'static str,
    /// Kind of the object.
    pub object_kind: &'static str,
    /// Id of the object.
    pub object_id: Uuid,
    /// What else matters; never a secret.
    pub detail: Value,
}

impl TenantTx {
    /// Appends a line to the tenant's audit log.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_note(&self, note: &Note<'_>) -> Result<(), DbError> {
        let sql = "/* audit_note */ INSERT INTO audit (tenant_id, at, actor, action, object_kind, object_id, detail) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let Note { at, actor, action, object_kind, object_id, detail } = note;
        let count = self.execute(sql, &[at, actor, action, object_kind, object_id, detail]).await?;
        DbError::one_row(count, "audit line")
    }
}

impl SystemTx {
    /// Appends a line to the audit log of `tenant`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_note(&self, tenant: TenantId, note: &Note<'_>) -> Result<(), DbError> {
        let sql = "/* audit_note */ INSERT INTO audit (tenant_id, at, actor, action, object_kind, object_id, detail) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let Note { at, actor, action, object_kind, object_id, detail } = note;
        let count = self.execute(sql, &[&Id(tenant), at, actor, action, object_kind, object_id, detail]).await?;
        DbError::one_row(count, "audit line")
    }
}
