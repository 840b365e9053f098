//! SQL of table `changes`: what waits for another administrator.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::ChangeId;

use super::column::Columns;
use super::tx::Id;
use super::{DbError, TenantTx};

/// A change that takes effect when another administrator approves it.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its id.
    pub id: ChangeId,
    /// The operation of the API that was asked for.
    pub operation: String,
    /// Kind of the object.
    pub object_kind: String,
    /// Name of the object.
    pub object_name: ObjectName,
    /// Revision of the object that the proposer saw; none: it is to be made.
    pub object_revision: Option<u32>,
    /// What the object is to be; none: gone.
    pub proposal: Option<Value>,
    /// What was decided.
    pub state: ChangeState,
    /// Who proposed it, in the words of the audit log.
    pub proposed_by: String,
    /// Whom that credential acts for.
    pub proposer: String,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When it can be approved no more.
    pub expires_at: Timestamp,
    /// Who decided, in the words of the audit log.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Why it was rejected.
    pub reason: Option<String>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeState {
    /// Nothing yet.
    Pending,
    /// It took effect.
    Approved,
    /// It did not, and will not.
    Rejected,
}

impl ChangeState {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

const COLUMNS: &str = "change_id, operation, object_kind, object_name, object_revision, proposal, state, proposed_by, \
                       proposer, proposed_at, expires_at, decided_by, decided_at, reason";

impl TenantTx {
    /// Keeps a pending change.
    ///
    /// # Errors
    /// The database's own.
    pub async fn change_insert(&self, change: &Change) -> Result<(), DbError> {
        let sql = "/* change_insert */ INSERT INTO changes (tenant_id, change_id, operation, object_kind, object_name, \
                   object_revision, proposal, state, proposed_by, proposer, proposed_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', $8, $9, $10, $11)";
        let revision = change.object_revision.map(|revision| i32::try_from(revision).unwrap_or(i32::MAX));
        let count = self
            .execute(
                sql,
                &[
                    &Id(change.id),
                    &change.operation,
                    &change.object_kind,
                    &change.object_name.as_str(),
                    &revision,
                    &change.proposal,
                    &change.proposed_by,
                    &change.proposer,
                    &change.proposed_at,
                    &change.expires_at,
                ],
            )
            .await?;
        DbError::one_row(count, "change")
    }

    /// The change of this id.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn change_fetch(&self, id: ChangeId) -> Result<Change, DbError> {
        let sql = format!("/* change_fetch */ SELECT {COLUMNS} FROM changes WHERE tenant_id = $1 AND change_id = $2");
        let row = self.query_opt(&sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "change" })?;
        read(&row)
    }

    /// At most `limit` changes, newest first, beginning after the id `after`; `state`: only those in it at `now`, also
    /// `expired`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn change_list(
        &self,
        state: Option<&str>,
        after: Option<ChangeId>,
        limit: i64,
        now: Timestamp,
    ) -> Result<Vec<Change>, DbError> {
        let sql = format!(
            "/* change_list */ SELECT {COLUMNS} FROM changes WHERE tenant_id = $1 AND ($2::uuid IS NULL OR change_id < $2)
             AND ($3::text IS NULL
                  OR CASE WHEN state = 'pending' AND expires_at <= $4 THEN 'expired' ELSE state END = $3)
             ORDER BY change_id DESC LIMIT $5"
        );
        self.query(&sql, &[&after.map(Id), &state, &now, &limit]).await?.iter().map(read).collect()
    }

    /// Decides a pending change.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when none of this id is pending.
    pub async fn change_decide(
        &self,
        id: ChangeId,
        state: ChangeState,
        decided_by: &str,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "/* change_decide */ UPDATE changes SET state = $3, decided_by = $4, reason = $5, decided_at = $6 \
                   WHERE tenant_id = $1 AND change_id = $2 AND state = 'pending'";
        let count = self.execute(sql, &[&Id(id), &state.as_str(), &decided_by, &reason, &now]).await?;
        DbError::one_row(count, "change")
    }
}

fn read(row: &Row) -> Result<Change, DbError> {
    let columns = Columns::new(row, "changes", "change_id");
    let state = match columns.read::<&str>("state")? {
        "pending" => ChangeState::Pending,
        "approved" => ChangeState::Approved,
        "rejected" => ChangeState::Rejected,
        other => return Err(columns.wrong("state", format!("{other:?} is unknown"))),
    };
    Ok(Change {
        id: columns.read::<Id<ChangeId>>("change_id")?.0,
        operation: columns.read("operation")?,
        object_kind: columns.read("object_kind")?,
        object_name: columns.parse::<String, _>("object_name")?,
        object_revision: columns.parse_opt::<i32, _>("object_revision")?,
        proposal: columns.read("proposal")?,
        state,
        proposed_by: columns.read("proposed_by")?,
        proposer: columns.read("proposer")?,
        proposed_at: columns.read("proposed_at")?,
        expires_at: columns.read("expires_at")?,
        decided_by: columns.read("decided_by")?,
        decided_at: columns.read("decided_at")?,
        reason: columns.read("reason")?,
    })
}
