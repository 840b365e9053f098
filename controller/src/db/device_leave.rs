//! SQL of devices and agents that go: with everything that is their own, in one transaction.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::{AgentId, DeviceId, TenantId};
use trustfleet_model::revocation::Revocation;

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};

/// A device that is being removed.
#[derive(Clone, Debug)]
pub struct LeavingDevice {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The device.
    pub id: DeviceId,
    /// Its name.
    pub name: ObjectName,
    /// Its agent.
    pub agent_id: Option<AgentId>,
    /// Who wanted it to leave, in the words of the audit log.
    pub by: String,
    /// Its trustpoints.
    pub trustpoints: Vec<TrustpointName>,
}

/// What went with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Jobs, also of its past.
    pub jobs: u64,
    /// Certificates, as this side knew them.
    pub certificates: u64,
}

/// What stands in the way of a device's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// Jobs under way.
    pub jobs: i64,
    /// Valid certificates that are to be revoked, and are not yet.
    pub to_revoke: i64,
    /// Valid certificates whose revocation has failed.
    pub failed: i64,
}

const IN_THE_WAY: &str = "(SELECT count(*) FROM jobs j WHERE j.tenant_id = $1 AND j.device_id = $2 \
           AND j.finished_at IS NULL) AS jobs, \
    (SELECT count(*) FROM certificates c WHERE c.tenant_id = $1 AND c.device_id = $2 AND c.not_after > $3 \
           AND c.revocation ->> 'state' IN ('wanted', 'requested')) AS to_revoke, \
    (SELECT count(*) FROM certificates c WHERE c.tenant_id = $1 AND c.device_id = $2 AND c.not_after > $3 \
           AND c.revocation ->> 'state' = 'failed') AS failed";

impl TenantTx {
    /// Notes that a device leaves; one that does already is left as it is.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn device_leave(&self, id: DeviceId, by: &str, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* device_leave */ UPDATE devices SET leaving_at = coalesce(leaving_at, $3), \
                   leaving_by = coalesce(leaving_by, $4), version = version + 1, updated_at = $3, updated_by = $5 \
                   WHERE tenant_id = $1 AND device_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id), &now, &by, &self.name()]).await?, "device")
    }

    /// Deletes a device; whether its agent has no other one.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] while trustpoints, jobs or certificates refer to it.
    pub async fn device_delete(&self, id: DeviceId) -> Result<bool, DbError> {
        let sql = "/* device_delete */ DELETE FROM devices WHERE tenant_id = $1 AND device_id = $2 RETURNING agent_id";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "device" })?;
        let Some(agent) = row.try_get::<_, Option<Id<AgentId>>>(0)? else { return Ok(false) };
        let sql = "/* device_delete: others */ SELECT FROM devices WHERE tenant_id = $1 AND agent_id = $2 LIMIT 1";
        Ok(self.query_opt(sql, &[&agent]).await?.is_none())
    }

    /// Deletes an agent that no device has, with its orders to be cut off, its tokens to join again and its leases.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] while a device has it.
    pub async fn agent_delete(&self, id: AgentId) -> Result<(), DbError> {
        for sql in [
            "/* agent_delete: cut offs */ DELETE FROM broker_cut_offs WHERE tenant_id = $1 AND agent_id = $2",
            "/* agent_delete: tokens */ DELETE FROM join_tokens WHERE tenant_id = $1 AND rejoin_agent_id = $2",
            "/* agent_delete: leases */ DELETE FROM leases WHERE tenant_id = $1 AND agent_id = $2",
        ] {
            self.execute(sql, &[&Id(id)]).await?;
        }
        let sql = "/* agent_delete */ DELETE FROM agents WHERE tenant_id = $1 AND agent_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id)]).await?, "agent")
    }

    /// Until when an agent in quarantine may have a token for the broker, as far as it is known here; none: it has none.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_cut_off_until(&self, id: AgentId) -> Result<Option<Timestamp>, DbError> {
        let sql =
            "/* agent_cut_off_until */ SELECT max(until) FROM broker_cut_offs WHERE tenant_id = $1 AND agent_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?;
        row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
    }
}

impl SystemTx {
    /// Devices of active tenants that leave, in any order: one that gets no further holds up nobody.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn devices_leaving(&self, limit: i64) -> Result<Vec<LeavingDevice>, DbError> {
        let sql = "/* devices_leaving */ SELECT d.tenant_id, d.device_id, d.name, d.agent_id, d.leaving_by FROM devices d \
                   JOIN tenants o ON o.tenant_id = d.tenant_id WHERE d.leaving_at IS NOT NULL AND o.state = 'active' \
                   ORDER BY random() LIMIT $1";
        let rows = self.query(sql, &[&limit]).await?;
        let mut found = rows.iter().map(read).collect::<Result<Vec<_>, DbError>>()?;
        for device in &mut found {
            device.trustpoints = self.device_trustpoints(device.tenant_id, device.id).await?;
        }
        Ok(found)
    }

    /// Names of a device's trustpoints.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn device_trustpoints(&self, tenant: TenantId, id: DeviceId) -> Result<Vec<TrustpointName>, DbError> {
        let sql = "/* device_trustpoints */ SELECT trustpoint_id, name FROM trustpoints \
                   WHERE tenant_id = $1 AND device_id = $2 ORDER BY name";
        let rows = self.query(sql, &[&Id(tenant), &Id(id)]).await?;
        let name = |row| Columns::new(row, "trustpoints", "trustpoint_id").parse::<String, TrustpointName>("name");
        rows.iter().map(name).collect()
    }

    /// Marks certificates of a leaving device as to be revoked that came since it was to leave.
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_condemn_late(
        &self,
        device: &LeavingDevice,
        revocation: &Revocation,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let stored = serde_json::to_value(revocation)
            .map_err(|error| DbError::inconsistent("certificates", "revocation", device.id, error))?;
        let sql = "/* device_condemn_late */ UPDATE certificates c SET revocation = $3, revocation_due_at = $4 \
                   WHERE c.tenant_id = $1 AND c.device_id = $2 AND c.not_after > $4 AND c.revocation IS NULL";
        self.execute(sql, &[&Id(device.tenant_id), &Id(device.id), &stored, &now]).await
    }

    /// What stands in the way of a device's end at `now`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_in_the_way(&self, tenant: TenantId, id: DeviceId, now: Timestamp) -> Result<InTheWay, DbError> {
        let sql = format!("/* device_in_the_way */ SELECT {IN_THE_WAY}");
        let row = self.query_opt(&sql, &[&Id(tenant), &Id(id), &now]).await?;
        let row = row.ok_or(DbError::NotFound { kind: "device" })?;
        Ok(InTheWay {
            jobs: row.try_get("jobs")?,
            to_revoke: row.try_get("to_revoke")?,
            failed: row.try_get("failed")?,
        })
    }

    /// Removes the past of a device: its jobs that have ended, and its certificates.
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_forget(&self, device: &LeavingDevice) -> Result<Gone, DbError> {
        let (tenant, id) = (Id(device.tenant_id), Id(device.id));
        let sql = "/* device_forget: outbox */ DELETE FROM outbox o USING jobs j WHERE j.tenant_id = $1 AND j.device_id = $2 \
                   AND j.finished_at IS NOT NULL AND o.tenant_id = j.tenant_id AND o.job_id = j.job_id";
        self.execute(sql, &[&tenant, &id]).await?;
        let sql = "/* device_forget: certificates */ DELETE FROM certificates WHERE tenant_id = $1 AND device_id = $2";
        let certificates = self.execute(sql, &[&tenant, &id]).await?;
        let sql = "/* device_forget: jobs */ DELETE FROM jobs WHERE tenant_id = $1 AND device_id = $2 \
                   AND finished_at IS NOT NULL";
        let jobs = self.execute(sql, &[&tenant, &id]).await?;
        Ok(Gone { jobs, certificates })
    }
}

fn read(row: &Row) -> Result<LeavingDevice, DbError> {
    let columns = Columns::new(row, "devices", "device_id");
    Ok(LeavingDevice {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        id: columns.read::<Id<DeviceId>>("device_id")?.0,
        name: columns.parse::<String, _>("name")?,
        agent_id: columns.read::<Option<Id<AgentId>>>("agent_id")?.map(|Id(agent)| agent),
        by: columns.read::<Option<String>>("leaving_by")?.unwrap_or_default(),
        trustpoints: Vec::new(),
    })
}
