//! SQL of renewal by itself: which trustpoints are to be planned, which are due.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    device::Duty,
    ids::{DeviceId, TenantId, TrustpointId},
    policy::PolicySpec,
    spread::Spread,
    trustpoint::Trustpoint,
};

use super::{DbError, SystemTx, column::Columns, row, tx::Id};
use crate::{device::EnrollContext, telemetry::chain};

/// A trustpoint with its policy's say on renewal.
#[derive(Clone, Debug)]
pub struct PlannedTrustpoint {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its device.
    pub device_id: DeviceId,
    /// The trustpoint.
    pub trustpoint: Trustpoint,
    /// Its policy.
    pub policy: PolicySpec,
    /// What its device has to do.
    pub duty: Duty,
    /// Another moment than the policy's.
    pub spread: Option<Spread>,
    /// The policy's revision.
    pub revision: i32,
}

/// A trustpoint that is due, with everything that its request needs to know.
#[derive(Clone, Debug)]
pub struct DueTrustpoint {
    /// The trustpoint.
    pub planned: PlannedTrustpoint,
    /// Its configuration.
    pub context: EnrollContext,
}

/// A moment that was found.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// When something is to be done; none: nothing.
    pub next_action_at: Option<Timestamp>,
    /// Revision of the policy by which it was found.
    pub revision: i32,
}

impl SystemTx {
    /// Up to `limit` trustpoints that were written, or whose policy was changed, since they were planned. They are locked
    /// until the end of the transaction; those that somebody else holds are left out. For one that cannot be read nothing
    /// is planned until it is written again: it must not hold up the others.
    ///
    /// # Errors
    /// The database's own.
    pub async fn trustpoints_to_plan(&self, limit: i64) -> Result<Vec<Result<PlannedTrustpoint, Plan>>, DbError> {
        let sql =
            "/* trustpoints_to_plan */ SELECT t.tenant_id, t.device_id, t.trustpoint_id, t.state, t.spread, p.policy_id, p.spec,
                   p.revision, d.pair, d.standby
             FROM policies p CROSS JOIN LATERAL (
                 SELECT * FROM trustpoints t WHERE t.tenant_id = p.tenant_id AND t.policy_id = p.policy_id
                     AND t.planned_revision < p.revision
                 ORDER BY t.planned_revision LIMIT $1 FOR UPDATE SKIP LOCKED) t
             JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             LIMIT $1";
        self.query(sql, &[&limit]).await?.iter().map(to_plan).collect()
    }

    /// Writes the moments that were found.
    ///
    /// # Errors
    /// The database's own.
    pub async fn trustpoints_planned(&self, plans: &[Plan]) -> Result<(), DbError> {
        let tenants: Vec<_> = plans.iter().map(|plan| plan.tenant_id.as_uuid()).collect();
        let trustpoints: Vec<_> = plans.iter().map(|plan| plan.trustpoint_id.as_uuid()).collect();
        let moments: Vec<_> = plans.iter().map(|plan| plan.next_action_at).collect();
        let revisions: Vec<_> = plans.iter().map(|plan| plan.revision).collect();
        let sql = "/* trustpoints_planned */ UPDATE trustpoints t SET next_action_at = p.at, planned_revision = p.revision
             FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::int[]) AS p(tenant_id, trustpoint_id, at, revision)
             WHERE t.tenant_id = p.tenant_id AND t.trustpoint_id = p.trustpoint_id";
        self.execute(sql, &[&tenants, &trustpoints, &moments, &revisions]).await.map(drop)
    }

    /// Claims up to `limit` trustpoints of active tenants that are due at `now`, those that wait longest first: no other
    /// replica finds them before `again_at`. One that cannot be read is logged and left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn trustpoints_due(
        &self,
        now: Timestamp,
        again_at: Timestamp,
        limit: i64,
    ) -> Result<Vec<DueTrustpoint>, DbError> {
        let sql = "/* trustpoints_due */ WITH due AS (
                 SELECT t.tenant_id, t.trustpoint_id FROM trustpoints t JOIN tenants o ON o.tenant_id = t.tenant_id
                 WHERE t.next_action_at <= $1 AND o.state = 'active'
                   AND NOT EXISTS (SELECT FROM devices l WHERE l.tenant_id = t.tenant_id AND l.device_id = t.device_id
                                   AND l.leaving_at IS NOT NULL)
                 ORDER BY t.next_action_at LIMIT $3 FOR UPDATE OF t SKIP LOCKED
             )
             UPDATE trustpoints t SET next_action_at = $2 FROM due, policies p, devices d, entities e, ca_servers c
             WHERE t.tenant_id = due.tenant_id AND t.trustpoint_id = due.trustpoint_id
               AND p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
               AND d.tenant_id = t.tenant_id AND d.device_id = t.device_id
               AND e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id
               AND c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id
             RETURNING t.tenant_id, t.device_id, t.trustpoint_id, t.state, t.spread, p.policy_id, p.spec, p.revision, d.pair,
                       d.standby, e.entity_id, e.spec AS entity, c.ca_server_id, c.spec AS ca_server,
                       (SELECT encode(sha256(a.sign_key), 'hex') FROM agents a
                        WHERE a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id) AS agent_key";
        Ok(self.query(sql, &[&now, &again_at, &limit]).await?.iter().filter_map(due).collect())
    }
}

fn to_plan(row: &Row) -> Result<Result<PlannedTrustpoint, Plan>, DbError> {
    if let Some(planned) = readable(row) {
        return Ok(Ok(planned));
    }
    let (Id(tenant_id), Id(trustpoint_id)) = (row.try_get("tenant_id")?, row.try_get("trustpoint_id")?);
    Ok(Err(Plan { tenant_id, trustpoint_id, next_action_at: None, revision: row.try_get("revision")? }))
}

fn due(row: &Row) -> Option<DueTrustpoint> {
    let read = |planned: PlannedTrustpoint| -> Result<DueTrustpoint, DbError> {
        let policy_revision = u32::try_from(planned.revision)
            .map_err(|error| DbError::inconsistent("policies", "revision", planned.trustpoint.id, error))?;
        let context = EnrollContext {
            trustpoint_id: planned.trustpoint.id,
            entity: Columns::new(row, "entities", "entity_id").json("entity")?,
            ca_server: Columns::new(row, "ca_servers", "ca_server_id").json("ca_server")?,
            policy: planned.policy.clone(),
            policy_revision,
            known_job: None,
            agent_key_sha256: row.try_get("agent_key")?,
        };
        Ok(DueTrustpoint { planned, context })
    };
    let told = |error: &DbError| tracing::error!(error = %chain(error), "what a trustpoint refers to cannot be read, it is not renewed");
    readable(row).and_then(|planned| read(planned).inspect_err(told).ok())
}

fn readable(row: &Row) -> Option<PlannedTrustpoint> {
    planned(row)
        .inspect_err(
            |error| tracing::error!(error = %chain(error), "a trustpoint cannot be read, nothing is renewed on it"),
        )
        .ok()
}

pub(super) fn planned(row: &Row) -> Result<PlannedTrustpoint, DbError> {
    let Id(tenant_id) = row.try_get("tenant_id")?;
    let Id(device_id) = row.try_get("device_id")?;
    let pair: Option<&str> = row.try_get("pair")?;
    let duty = match (pair, row.try_get("standby")?) {
        (None, _) => Duty::Alone,
        (Some(_), false) => Duty::Active,
        (Some(_), true) => Duty::Standby,
    };
    Ok(PlannedTrustpoint {
        tenant_id,
        device_id,
        trustpoint: row::trustpoint(row)?,
        policy: Columns::new(row, "policies", "policy_id").json("spec")?,
        duty,
        spread: Columns::new(row, "trustpoints", "trustpoint_id").json_opt("spread")?,
        revision: row.try_get("revision")?,
    })
}
