//! SQL of what operators register about devices. Every change moves the row's version on, so that an actor with an
//! older copy reads it again before it decides; trustpoints are the actors' business alone.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use trustfleet_model::device::{Device, Word};
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, DeviceId, TenantId};

use super::column::{Columns, to_json};
use super::tx::Id;
use super::{DbError, TenantTx};

/// A device with what a list of devices tells about it.
#[derive(Clone, Debug)]
pub struct RegisteredDevice {
    /// What is registered.
    pub device: Device,
    /// Name of its agent.
    pub agent: Option<ObjectName>,
    /// How many trustpoints it has.
    pub trustpoints: u32,
    /// Whether it is the active node of its pair, as its agent sees it, and since when.
    pub node: Option<(bool, Timestamp)>,
    /// Since when it leaves: its certificates are being revoked, then it is deleted.
    pub leaving_at: Option<Timestamp>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is read of a device.
pub(super) const COLUMNS: &str = "d.device_id, d.name, d.agent_id, d.serial, d.mac, d.labels, d.pair, d.standby, \
    d.node_active, d.node_since, d.leaving_at, d.created_at, d.updated_at, a.name AS agent, \
    (SELECT count(*) FROM trustpoints t WHERE t.tenant_id = d.tenant_id AND t.device_id = d.device_id) AS trustpoints";
/// Its agent's name.
pub(super) const AGENT: &str = "LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id";
/// Where it is read from.
pub(super) const FROM: &str =
    "FROM devices d LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id";

impl TenantTx {
    /// Registers a device.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken or the agent is gone.
    pub async fn registered_device_insert(&self, device: &Device, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* registered_device_insert */ INSERT INTO devices (tenant_id, device_id, name, agent_id, serial, mac, \
                   labels, pair, standby, shard, version, created_at, updated_at, updated_by) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $11, $12, $8, 1, $9, $9, $10)";
        let (agent, labels, serial, mac) = columns(device)?;
        let shard = i16::from(Device::shard(device.id));
        let name = device.name.as_str();
        let count = self
            .execute(
                sql,
                &[
                    &Id(device.id),
                    &name,
                    &agent,
                    &serial,
                    &mac,
                    &labels,
                    &shard,
                    &now,
                    &self.name(),
                    &pair(device),
                    &device.standby,
                ],
            )
            .await?;
        DbError::one_row(count, "device")
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn registered_device_fetch(&self, name: &ObjectName) -> Result<RegisteredDevice, DbError> {
        let sql =
            format!("/* registered_device_fetch */ SELECT {COLUMNS} {FROM} WHERE d.tenant_id = $1 AND d.name = $2");
        let row = self.query_opt(&sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "device" })?;
        read(&row, self.tenant_id())
    }

    /// Changes what is registered, and moves the version on.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] when the agent is gone.
    pub async fn registered_device_update(&self, device: &Device, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* registered_device_update */ UPDATE devices SET agent_id = $3, serial = $4, mac = $5, labels = $6, \
                   pair = $9, standby = $10, bindings_revision = 0, \
                   node_active = CASE WHEN agent_id = $3 AND pair = $9 THEN node_active END, \
                   node_since = CASE WHEN agent_id = $3 AND pair = $9 THEN node_since END, version = version + 1, updated_at = $7, \
                   updated_by = $8 WHERE tenant_id = $1 AND device_id = $2";
        let (agent, labels, serial, mac) = columns(device)?;
        let count = self
            .execute(
                sql,
                &[&Id(device.id), &agent, &serial, &mac, &labels, &now, &self.name(), &pair(device), &device.standby],
            )
            .await?;
        DbError::one_row(count, "device")?;
        self.replan(device.id).await
    }

    /// When its trustpoints are renewed is to be found anew.
    async fn replan(&self, id: DeviceId) -> Result<(), DbError> {
        let sql = "/* registered_device_replan */ UPDATE trustpoints SET planned_revision = 0 \
                   WHERE tenant_id = $1 AND device_id = $2";
        self.execute(sql, &[&Id(id)]).await.map(drop)
    }

    /// The active node of a pair, other than this device.
    ///
    /// # Errors
    /// The database's own.
    pub async fn pair_active(&self, pair: &Word, but: DeviceId) -> Result<Option<String>, DbError> {
        let sql = "/* pair_active */ SELECT name FROM devices \
                   WHERE tenant_id = $1 AND pair = $2 AND NOT standby AND device_id <> $3 LIMIT 1";
        let row = self.query_opt(sql, &[&pair.as_ref(), &Id(but)]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Makes a device the active node of its pair, and all others of it stand by; how many others there are.
    ///
    /// # Errors
    /// The database's own.
    pub async fn pair_switch(&self, pair: &Word, active: DeviceId, now: Timestamp) -> Result<u64, DbError> {
        // One after the other: the index that allows one active node looks at every row at once.
        let sql = "/* pair_switch: standby */ UPDATE devices SET standby = true, version = version + 1, updated_at = $3, \
                   updated_by = $4 WHERE tenant_id = $1 AND pair = $2";
        let nodes = self.execute(sql, &[&pair.as_ref(), &now, &self.name()]).await?;
        let sql =
            "/* pair_switch: active */ UPDATE devices SET standby = false WHERE tenant_id = $1 AND device_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(active)]).await?, "device")?;
        let sql = "/* pair_switch: plans */ UPDATE trustpoints t SET planned_revision = 0 FROM devices d \
                   WHERE t.tenant_id = $1 AND d.tenant_id = t.tenant_id AND d.device_id = t.device_id AND d.pair = $2";
        self.execute(sql, &[&pair.as_ref()]).await?;
        Ok(nodes.saturating_sub(1))
    }

    /// How many jobs of the device have not ended, and how many there ever were.
    ///
    /// # Errors
    /// The database's own.
    pub async fn registered_device_jobs(&self, id: DeviceId) -> Result<(i64, i64), DbError> {
        let sql = "/* registered_device_jobs */ SELECT $2::uuid AS device_id, count(*) FILTER (WHERE finished_at IS NULL) \
                   AS open, count(*) AS total FROM jobs WHERE tenant_id = $1 AND device_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "device" })?;
        let columns = Columns::new(&row, "jobs", "device_id");
        Ok((columns.read("open")?, columns.read("total")?))
    }
}

fn pair(device: &Device) -> Option<&str> {
    device.pair.as_ref().map(AsRef::as_ref)
}

type Written<'a> = (Option<Id<AgentId>>, Value, Option<&'a str>, Option<&'a str>);

fn columns(device: &Device) -> Result<Written<'_>, DbError> {
    let labels = to_json("devices", "labels", device.id, &device.labels)?;
    let serial = device.serial.as_ref().map(AsRef::as_ref);
    let mac = device.mac.as_ref().map(AsRef::as_ref);
    Ok((device.agent_id.map(Id), labels, serial, mac))
}

pub(super) fn read(row: &Row, tenant: TenantId) -> Result<RegisteredDevice, DbError> {
    let columns = Columns::new(row, "devices", "device_id");
    let node: (Option<bool>, Option<Timestamp>) = (columns.read("node_active")?, columns.read("node_since")?);
    Ok(RegisteredDevice {
        device: super::row::device(row, tenant)?,
        agent: columns.parse_opt::<String, _>("agent")?,
        trustpoints: columns.parse::<i64, _>("trustpoints")?,
        node: node.0.zip(node.1),
        leaving_at: columns.read("leaving_at")?,
        created_at: columns.read("created_at")?,
        updated_at: columns.read("updated_at")?,
    })
}
