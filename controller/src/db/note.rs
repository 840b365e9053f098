//! Audit lines of changes that do not go through a device's decision; those are written by the group commit.

use jiff::Timestamp;
use serde_json::Value;
use trustfleet_model::ids::TenantId;
use uuid::Uuid;

use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};
use crate::audit::{Content, Outcome, Requester};

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Note<'a> {
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub requester: &'a Requester,
    /// What: a snake_case word.
    pub action: &'static str,
    /// Kind of the object.
    pub object_kind: &'static str,
    /// Id of the object.
    pub object_id: Uuid,
    /// The object, or what changes of it, as it was: made by [`crate::audit::shown`].
    pub before: Option<Value>,
    /// The same as it is now.
    pub after: Option<Value>,
    /// What else matters; never a secret.
    pub detail: Value,
    /// How it ended.
    pub outcome: Outcome,
}

impl<'a> Note<'a> {
    /// A line about something that was done, without the object before and after.
    pub const fn new(
        at: Timestamp,
        requester: &'a Requester,
        action: &'static str,
        object_kind: &'static str,
        object_id: Uuid,
        detail: Value,
    ) -> Self {
        let outcome = Outcome::Done;
        Self { at, requester, action, object_kind, object_id, before: None, after: None, detail, outcome }
    }

    /// With the object, or what changes of it, before and after.
    #[must_use]
    pub fn change(self, before: Option<Value>, after: Option<Value>) -> Self {
        // JSON's null and no object are the same, and stored as one.
        let some = |value: Option<Value>| value.filter(|value| !value.is_null());
        Self { before: some(before), after: some(after), ..self }
    }

    /// What is sealed and chained of it.
    const fn content(&self, tenant: TenantId) -> Content<'_> {
        Content {
            tenant,
            at: self.at,
            requester: self.requester,
            action: self.action,
            outcome: self.outcome.as_str(),
            object_kind: self.object_kind,
            object_id: self.object_id,
            before: self.before.as_ref(),
            after: self.after.as_ref(),
            detail: &self.detail,
        }
    }
}

const SQL: &str = "/* audit_note */ INSERT INTO audit (tenant_id, at, actor, role, source, request_id, trace_id, action, \
                   object_kind, object_id, before, after, detail, outcome, seal) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

macro_rules! audit_note {
    ($tx:expr, $tenant:expr, [$($first:expr)?], $note:expr) => {{
        let seal = $tx.sealer().seal(&$note.content($tenant).encode());
        let Note { at, requester, action, object_kind, object_id, before, after, detail, outcome } = $note;
        let Requester { actor, role, source, request_id, trace_id } = requester;
        let outcome = outcome.as_str();
        let count = $tx
            .execute(
                SQL,
                &[$($first,)? at, actor, role, source, request_id, trace_id, action, object_kind, object_id, before, after,
                  detail, &outcome, &seal],
            )
            .await?;
        DbError::one_row(count, "audit line")
    }};
}

impl TenantTx {
    /// Appends a line to the tenant's audit log.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_note(&self, note: &Note<'_>) -> Result<(), DbError> {
        audit_note!(self, self.tenant_id(), [], note)
    }
}

impl SystemTx {
    /// Appends a line to the audit log of `tenant`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_note(&self, tenant: TenantId, note: &Note<'_>) -> Result<(), DbError> {
        audit_note!(self, tenant, [&Id(tenant)], note)
    }
}
