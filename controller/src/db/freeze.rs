//! SQL of freeze windows, and of what they hold.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    device::Labels,
    field::ObjectName,
    ids::{FreezeId, TenantId},
};

use super::{
    DbError, SystemTx, TenantTx,
    column::{Columns, to_json},
    tx::Id,
};
use crate::freeze::{FreezeSpec, Windows};

/// Most freezes of a tenant.
pub const FREEZES_MAX: i64 = 100;

/// Whether the row `o` of the outbox is held: a window of its tenant is open for its device. What revokes a certificate, tries
/// something, or tells an agent to stop is not held, and nothing is whose certificate has less than a day left. A scalar, which
/// the planner cannot make a join over all jobs of: it is found for one row after the other, and where nothing is frozen at once.
pub(super) const HELD: &str = "coalesce((
    SELECT true FROM freezes f
    JOIN jobs fj ON fj.tenant_id = o.tenant_id AND fj.job_id = o.job_id
    JOIN devices fd ON fd.tenant_id = fj.tenant_id AND fd.device_id = fj.device_id
    WHERE f.tenant_id = o.tenant_id AND f.active_until > clock_timestamp() AND fd.labels @> f.labels
      AND fj.kind NOT IN ('revoke', 'dry_run') AND NOT fj.stop_pending AND fj.finished_at IS NULL
      AND (o.deadline IS NULL OR o.deadline > clock_timestamp() + interval '1 day')
    LIMIT 1), false)";

/// A freeze.
#[derive(Clone, Debug)]
pub struct Freeze {
    /// Its id.
    pub id: FreezeId,
    /// Its name.
    pub name: ObjectName,
    /// When it is.
    pub spec: FreezeSpec,
    /// Labels of the devices that it holds; empty: all.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

const FREEZE: &str = "tenant_id, freeze_id, name, spec, labels, created_at";

fn read(row: &Row) -> Result<Freeze, DbError> {
    let columns = Columns::new(row, "freezes", "freeze_id");
    Ok(Freeze {
        id: columns.read::<Id<FreezeId>>("freeze_id")?.0,
        name: columns.parse::<String, _>("name")?,
        spec: columns.json("spec")?,
        labels: columns.json("labels")?,
        created_at: columns.read("created_at")?,
    })
}

impl TenantTx {
    /// Makes a freeze, with its windows as they are now.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn freeze_insert(&self, freeze: &Freeze, windows: Windows) -> Result<(), DbError> {
        let sql = "/* freeze_insert */ INSERT INTO freezes (tenant_id, freeze_id, name, spec, labels, created_at, active_until,
                 next_from, looked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $6)";
        let spec = to_json("freezes", "spec", freeze.id, &freeze.spec)?;
        let labels = to_json("freezes", "labels", freeze.id, &freeze.labels)?;
        let Windows { active_until, next_from } = windows;
        let (id, name) = (Id(freeze.id), freeze.name.as_str());
        self.execute(sql, &[&id, &name, &spec, &labels, &freeze.created_at, &active_until, &next_from]).await.map(drop)
    }

    /// How many freezes there are.
    ///
    /// # Errors
    /// The database's own.
    pub async fn freeze_count(&self) -> Result<i64, DbError> {
        let sql = "/* freeze_count */ SELECT count(*) FROM freezes WHERE tenant_id = $1";
        let row = self.query_opt(sql, &[]).await?.ok_or(DbError::NotFound { kind: "freeze" })?;
        Ok(row.try_get(0)?)
    }

    /// The freeze of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn freeze_fetch(&self, name: &ObjectName) -> Result<Freeze, DbError> {
        let sql = format!("/* freeze_fetch */ SELECT {FREEZE} FROM freezes WHERE tenant_id = $1 AND name = $2");
        let row = self.query_opt(&sql, &[&name.as_str()]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "freeze" })?)
    }

    /// At most `limit` freezes by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn freeze_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Freeze>, DbError> {
        let sql = format!(
            "/* freeze_list */ SELECT {FREEZE} FROM freezes WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2)
             ORDER BY name LIMIT $3"
        );
        self.query(&sql, &[&after, &limit]).await?.iter().map(read).collect()
    }

    /// Removes a freeze; what it held goes on, unless another one holds it.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn freeze_delete(&self, id: FreezeId) -> Result<(), DbError> {
        let sql = "/* freeze_let_go */ UPDATE outbox SET held_until = clock_timestamp()
             WHERE tenant_id = $1 AND held_until > clock_timestamp()";
        self.execute(sql, &[]).await?;
        let sql = "/* freeze_delete */ DELETE FROM freezes WHERE tenant_id = $1 AND freeze_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id)]).await?, "freeze")
    }
}

/// A freeze whose windows are to be looked at.
#[derive(Clone, Debug)]
pub struct DueFreeze {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The freeze.
    pub freeze: Freeze,
}

impl SystemTx {
    /// Freezes whose window has ended, has begun, or was never looked at.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn freezes_due(&self, now: Timestamp) -> Result<Vec<DueFreeze>, DbError> {
        let sql = format!(
            "/* freezes_due */ SELECT {FREEZE} FROM freezes
             WHERE looked_at IS NULL OR active_until <= $1 OR next_from <= $1 LIMIT 1000"
        );
        let due =
            |row: &Row| Ok(DueFreeze { tenant_id: row.try_get::<_, Id<TenantId>>("tenant_id")?.0, freeze: read(row)? });
        self.query(&sql, &[&now]).await?.iter().map(due).collect()
    }

    /// Writes the windows of a freeze.
    ///
    /// # Errors
    /// The database's own.
    pub async fn freeze_look(
        &self,
        tenant: TenantId,
        id: FreezeId,
        windows: Windows,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "/* freeze_look */ UPDATE freezes SET active_until = $3, next_from = $4, looked_at = $5
             WHERE tenant_id = $1 AND freeze_id = $2";
        let Windows { active_until, next_from } = windows;
        self.execute(sql, &[&Id(tenant), &Id(id), &active_until, &next_from, &now]).await.map(drop)
    }

    /// Lets go what is held no longer, and sets aside up to `limit` of what is held, so that nobody looks at it again and
    /// again. How much was let go.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_hold(&self, limit: i64) -> Result<u64, DbError> {
        // Also where its certificate has come close to its end.
        let free = "/* outbox_let_go */ UPDATE outbox SET held_until = NULL WHERE held_until IS NOT NULL
             AND (held_until <= clock_timestamp() OR deadline <= clock_timestamp() + interval '1 day')";
        let freed = self.execute(free, &[]).await?;
        let hold = format!(
            "/* outbox_hold */ WITH h AS (
                 SELECT o.tenant_id, o.outbox_id FROM outbox o
                 WHERE o.held_until IS NULL AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
                   AND o.tenant_id IN (SELECT f.tenant_id FROM freezes f WHERE f.active_until > clock_timestamp())
                   AND {HELD} LIMIT $1 FOR UPDATE OF o SKIP LOCKED
             )
             UPDATE outbox o SET held_until = (
                 SELECT max(f.active_until) FROM freezes f
                 JOIN jobs j ON j.tenant_id = f.tenant_id AND j.job_id = o.job_id
                 JOIN devices d ON d.tenant_id = j.tenant_id AND d.device_id = j.device_id
                 WHERE f.tenant_id = o.tenant_id AND f.active_until > clock_timestamp() AND d.labels @> f.labels)
             FROM h WHERE o.tenant_id = h.tenant_id AND o.outbox_id = h.outbox_id"
        );
        self.execute(&hold, &[&limit]).await?;
        Ok(freed)
    }
}
