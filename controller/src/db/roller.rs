//! SQL of the roller: roll-overs with trustpoints that are to be told of anchors.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    ids::{DeviceId, RolloverId, TenantId, TrustpointId},
    rollover::{Phase, Step},
};

use super::{
    DbError, SystemTx,
    column::Columns,
    rollover::{COLUMNS, Rollover, read},
    tx::Id,
};

/// A roll-over that is looked at.
#[derive(Clone, Debug)]
pub struct DueRollover {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The roll-over.
    pub rollover: Rollover,
}

impl SystemTx {
    /// Claims up to `limit` roll-overs of active tenants that are due, until `again_at`.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn rollovers_due(
        &self,
        now: Timestamp,
        again_at: Timestamp,
        limit: i64,
    ) -> Result<Vec<DueRollover>, DbError> {
        let sql = format!(
            "/* rollovers_due */ UPDATE rollovers r SET due_at = $2
             FROM (SELECT r.tenant_id, r.rollover_id AS id FROM rollovers r JOIN tenants o ON o.tenant_id = r.tenant_id
                   WHERE r.due_at <= $1 AND o.state = 'active' ORDER BY r.due_at LIMIT $3 FOR UPDATE OF r SKIP LOCKED) due
             WHERE r.tenant_id = due.tenant_id AND r.rollover_id = due.id RETURNING r.tenant_id, {COLUMNS}"
        );
        let one = |row: &Row| -> Result<DueRollover, DbError> {
            let Id(tenant_id): Id<TenantId> = row.try_get("tenant_id")?;
            Ok(DueRollover { tenant_id, rollover: read(row)? })
        };
        self.query(&sql, &[&now, &again_at, &limit]).await?.iter().map(one).collect()
    }

    /// Up to `limit` trustpoints that are to be told of the step that a roll-over is in, in any order: one that cannot be told
    /// holds up no other. What is taken away again by a cancelled one is told to those alone that were told of it.
    ///
    /// # Errors
    /// The database's own.
    pub async fn rollover_to_tell(
        &self,
        due: &DueRollover,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(DeviceId, TrustpointId)>, DbError> {
        let sql = "/* rollover_to_tell */ SELECT t.trustpoint_id, t.device_id FROM trustpoints t
             JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             CROSS JOIN LATERAL (SELECT t.state #> '{trustpoint,anchors}' AS told) a
             WHERE t.tenant_id = $1 AND t.ca_server_id = $2 AND t.not_after > $5 AND d.agent_id IS NOT NULL
                 AND (NOT $6 OR coalesce(a.told ->> 'rollover_id' = $3::text, false))
                 AND (a.told IS NULL OR a.told ->> 'state' <> 'sent' AND (a.told ->> 'rollover_id' <> $3::text
                     OR a.told ->> 'step' <> $4 OR a.told ->> 'state' = 'failed' AND (a.told ->> 'at')::timestamptz
                        + least(interval '6 hours', interval '30 seconds'
                                * power(2, least(coalesce((a.told ->> 'failures')::int, 1), 16) - 1)) <= $5))
             ORDER BY random() LIMIT $7";
        let Rollover { id, ca_server_id, phase, .. } = &due.rollover;
        let (id, step, cancelled) = (id.to_string(), phase.step().as_str(), *phase == Phase::Cancelled);
        let rows =
            self.query(sql, &[&Id(due.tenant_id), &Id(*ca_server_id), &id, &step, &now, &cancelled, &limit]).await?;
        let one = |row: &Row| -> Result<_, DbError> {
            let columns = Columns::new(row, "trustpoints", "trustpoint_id");
            let device = columns.read::<Id<DeviceId>>("device_id")?.0;
            Ok((device, columns.read::<Id<TrustpointId>>("trustpoint_id")?.0))
        };
        rows.iter().map(one).collect()
    }

    /// Looks at a roll-over again at `at`; one that has ended is looked at no more when none of its trustpoints has yet to take
    /// the last step.
    ///
    /// # Errors
    /// The database's own.
    pub async fn rollover_rest(&self, tenant: TenantId, id: RolloverId, at: Timestamp) -> Result<(), DbError> {
        let sql = "/* rollover_rest */ UPDATE rollovers r SET due_at = CASE WHEN r.phase IN ('distributing', 'switched') OR EXISTS (
                 SELECT FROM trustpoints t WHERE t.tenant_id = r.tenant_id AND t.ca_server_id = r.ca_server_id
                     AND t.not_after > $3 AND t.state #>> '{trustpoint,anchors,rollover_id}' = $4
                     AND (t.state #>> '{trustpoint,anchors,step}' <> $5
                          OR t.state #>> '{trustpoint,anchors,state}' = 'failed')) THEN $3 END
             WHERE r.tenant_id = $1 AND r.rollover_id = $2";
        let text = id.to_string();
        self.execute(sql, &[&Id(tenant), &Id(id), &at, &text, &Step::Remove.as_str()]).await.map(drop)
    }
}
