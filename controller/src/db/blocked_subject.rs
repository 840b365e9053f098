//! SQL of table `blocked_subjects`. Who presents a token has no tenant yet: by the system role alone.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{BlockId, TenantId};

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx};
use crate::audit::PLATFORM;

/// A subject of an identity provider that is let in no more, in a tenant or anywhere.
#[derive(Clone, Debug)]
pub struct BlockedSubject {
    /// Id of the block.
    pub id: BlockId,
    /// The provider.
    pub issuer: String,
    /// Whom it names.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// Who decided it, in the words of the audit log.
    pub blocked_by: String,
    /// When.
    pub blocked_at: Timestamp,
}

/// Where a subject is let in no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Nowhere at all.
    pub everywhere: bool,
    /// Not in these tenants.
    pub tenants: Vec<ObjectName>,
}

const COLUMNS: &str = "block_id, issuer, subject, reason, blocked_by, blocked_at";

impl SystemTx {
    /// Where this subject is let in no more.
    ///
    /// # Errors
    /// The database's own.
    pub async fn blocks_of(&self, issuer: &str, subject: &str) -> Result<Blocks, DbError> {
        let sql = "/* blocks_of */ SELECT b.tenant_id, t.name FROM blocked_subjects b \
                   LEFT JOIN tenants t ON t.tenant_id = b.tenant_id WHERE b.issuer = $1 AND b.subject = $2";
        let mut blocks = Blocks::default();
        for row in self.query(sql, &[&issuer, &subject]).await? {
            let columns = Columns::new(&row, "blocked_subjects", "tenant_id");
            if columns.read::<Id<TenantId>>("tenant_id")?.0 == PLATFORM {
                blocks.everywhere = true;
            }
            blocks.tenants.extend(columns.parse_opt::<String, ObjectName>("name")?);
        }
        Ok(blocks)
    }

    /// Blocks a subject in a tenant, or under [`PLATFORM`] everywhere.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it is blocked there already.
    pub async fn blocked_subject_insert(&self, tenant: TenantId, blocked: &BlockedSubject) -> Result<(), DbError> {
        let sql = "/* blocked_subject_insert */ INSERT INTO blocked_subjects \
                   (tenant_id, block_id, issuer, subject, reason, blocked_by, blocked_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let BlockedSubject { id, issuer, subject, reason, blocked_by, blocked_at } = blocked;
        let count =
            self.execute(sql, &[&Id(tenant), &Id(*id), issuer, subject, reason, blocked_by, blocked_at]).await?;
        DbError::one_row(count, "blocked subject")
    }

    /// At most `limit` blocks, oldest first, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn blocked_subject_list(
        &self,
        tenant: TenantId,
        after: Option<BlockId>,
        limit: i64,
    ) -> Result<Vec<BlockedSubject>, DbError> {
        let sql = format!(
            "/* blocked_subject_list */ SELECT {COLUMNS} FROM blocked_subjects \
             WHERE tenant_id = $1 AND ($2::uuid IS NULL OR block_id > $2) ORDER BY block_id LIMIT $3"
        );
        self.query(&sql, &[&Id(tenant), &after.map(Id), &limit]).await?.iter().map(read).collect()
    }

    /// Lifts a block; it as it was.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn blocked_subject_delete(&self, tenant: TenantId, id: BlockId) -> Result<BlockedSubject, DbError> {
        let sql = format!(
            "/* blocked_subject_delete */ DELETE FROM blocked_subjects WHERE tenant_id = $1 AND block_id = $2 \
             RETURNING {COLUMNS}"
        );
        let row = self.query_opt(&sql, &[&Id(tenant), &Id(id)]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "blocked subject" })?)
    }
}

fn read(row: &Row) -> Result<BlockedSubject, DbError> {
    let columns = Columns::new(row, "blocked_subjects", "block_id");
    Ok(BlockedSubject {
        id: columns.read::<Id<BlockId>>("block_id")?.0,
        issuer: columns.read("issuer")?,
        subject: columns.read("subject")?,
        reason: columns.read("reason")?,
        blocked_by: columns.read("blocked_by")?,
        blocked_at: columns.read("blocked_at")?,
    })
}
