//! SQL of the binder: devices that lack what bindings give, and trustpoints that follow or leave their binding.

use tokio_postgres::Row;
use trustfleet_model::{
    binding::{BindingSpec, Leaving},
    device::Labels,
    field::TrustpointName,
    ids::{BindingId, DeviceId, TenantId},
};

use crate::telemetry::chain;

use super::{
    DbError, SystemTx,
    binding::{leaving, spec},
    column::{Columns, to_json},
    tx::Id,
};

/// A device that is to be held against its tenant's bindings.
#[derive(Clone, Debug)]
pub struct Unbound {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The device.
    pub device_id: DeviceId,
    /// Its labels, as they were read.
    pub labels: Labels,
    /// State of the bindings that it is held against.
    pub revision: i32,
    /// Most trustpoints of its tenant; none: any number.
    pub max_trustpoints: Option<u32>,
}

/// A binding in force, as the binder needs it.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Its id.
    pub id: BindingId,
    /// Its revision.
    pub revision: u32,
    /// What it says.
    pub spec: BindingSpec,
}

/// A binding that was changed, with some of the trustpoints that have yet to follow.
#[derive(Clone, Debug)]
pub struct ChangedBinding {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The binding.
    pub binding: InForce,
    /// Trustpoints; none: all have followed.
    pub trustpoints: Vec<(DeviceId, TrustpointName)>,
}

/// A binding that is being removed.
#[derive(Clone, Debug)]
pub struct LeavingBinding {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its id.
    pub id: BindingId,
    /// What becomes of its trustpoints.
    pub leaving: Leaving,
    /// The next of them.
    pub trustpoints: Vec<(DeviceId, TrustpointName)>,
}

impl SystemTx {
    /// Up to `limit` devices of active tenants that were not held against the present bindings of their tenant; of several
    /// tenants in any order, so that one that gets no further holds up nobody. One that cannot be read is left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn devices_to_bind(&self, limit: i64) -> Result<Vec<Unbound>, DbError> {
        let sql =
            "/* devices_to_bind */ SELECT d.tenant_id, d.device_id, d.labels, o.bindings_revision, o.max_trustpoints
             FROM tenants o CROSS JOIN LATERAL (
                 SELECT * FROM devices d WHERE d.tenant_id = o.tenant_id AND d.bindings_revision < o.bindings_revision
                 ORDER BY d.bindings_revision LIMIT $1) d
             WHERE o.state = 'active' ORDER BY random() LIMIT $1";
        let readable = |row| {
            read_unbound(row)
                .inspect_err(
                    |error| tracing::error!(error = %chain(error), "a device cannot be read, nothing is bound to it"),
                )
                .ok()
        };
        Ok(self.query(sql, &[&limit]).await?.iter().filter_map(readable).collect())
    }

    /// The bindings of a tenant that are in force.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn bindings_in_force(&self, tenant: TenantId) -> Result<Vec<InForce>, DbError> {
        let sql = "/* bindings_in_force */ SELECT binding_id, revision, selector, trustpoint, entity_id, ca_server_id, policy_id, enroll,
                 services
             FROM bindings WHERE tenant_id = $1 AND leaving IS NULL ORDER BY binding_id";
        self.query(sql, &[&Id(tenant)]).await?.iter().map(read_in_force).collect()
    }

    /// Notes against which bindings a device was held, if its labels are still those that were read.
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_bound(&self, unbound: &Unbound) -> Result<(), DbError> {
        let sql = "/* device_bound */ UPDATE devices SET bindings_revision = $4
             WHERE tenant_id = $1 AND device_id = $2 AND labels = $3";
        let labels = to_json("devices", "labels", unbound.device_id, &unbound.labels)?;
        self.execute(sql, &[&Id(unbound.tenant_id), &Id(unbound.device_id), &labels, &unbound.revision]).await.map(drop)
    }

    /// Bindings of active tenants that were changed and not followed by all, each with up to `limit` of the trustpoints that
    /// have yet to follow, in any order: one that cannot follow now holds up no other.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn bindings_changed(&self, limit: i64) -> Result<Vec<ChangedBinding>, DbError> {
        let sql = "/* bindings_changed */ SELECT b.tenant_id, b.binding_id, b.revision, b.selector, b.trustpoint, b.entity_id,
                 b.ca_server_id, b.policy_id, b.enroll, b.services
             FROM bindings b JOIN tenants o ON o.tenant_id = b.tenant_id
             WHERE b.leaving IS NULL AND b.followed_revision < b.revision AND o.state = 'active' ORDER BY random() LIMIT 20";
        let of = "/* bindings_changed: trustpoints */ SELECT trustpoint_id, device_id, name FROM trustpoints
             WHERE tenant_id = $1 AND binding_id = $2 AND binding_revision < $3 ORDER BY random() LIMIT $4";
        let mut found = Vec::new();
        for row in self.query(sql, &[]).await? {
            let tenant: Id<TenantId> = row.try_get("tenant_id")?;
            let binding = read_in_force(&row)?;
            let revision = i32::try_from(binding.revision).unwrap_or(i32::MAX);
            let rows = self.query(of, &[&tenant, &Id(binding.id), &revision, &limit]).await?;
            let trustpoints = rows.iter().map(read_bound).collect::<Result<_, DbError>>()?;
            found.push(ChangedBinding { tenant_id: tenant.0, binding, trustpoints });
        }
        Ok(found)
    }

    /// Notes that all trustpoints of a binding have followed this revision.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_followed(&self, tenant: TenantId, id: BindingId, revision: u32) -> Result<(), DbError> {
        let sql = "/* binding_followed */ UPDATE bindings SET followed_revision = $3
             WHERE tenant_id = $1 AND binding_id = $2 AND followed_revision < $3";
        let revision = i32::try_from(revision).unwrap_or(i32::MAX);
        self.execute(sql, &[&Id(tenant), &Id(id), &revision]).await.map(drop)
    }

    /// Bindings of active tenants that are being removed, each with up to `limit` of its trustpoints, in any order.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn bindings_leaving(&self, limit: i64) -> Result<Vec<LeavingBinding>, DbError> {
        let sql = "/* bindings_leaving */ SELECT b.tenant_id, b.binding_id, b.leaving FROM bindings b
             JOIN tenants o ON o.tenant_id = b.tenant_id WHERE b.leaving IS NOT NULL AND o.state = 'active' ORDER BY random() LIMIT 20";
        let of = "/* bindings_leaving: trustpoints */ SELECT trustpoint_id, device_id, name FROM trustpoints
             WHERE tenant_id = $1 AND binding_id = $2 ORDER BY random() LIMIT $3";
        let rows = self.query(sql, &[]).await?;
        let mut found = rows.iter().map(read_leaving).collect::<Result<Vec<_>, DbError>>()?;
        for binding in &mut found {
            let rows = self.query(of, &[&Id(binding.tenant_id), &Id(binding.id), &limit]).await?;
            binding.trustpoints = rows.iter().map(read_bound).collect::<Result<_, DbError>>()?;
        }
        Ok(found)
    }

    /// Removes a binding that no trustpoint came by any more; whether it is gone.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_delete(&self, tenant: TenantId, id: BindingId) -> Result<bool, DbError> {
        let sql = "/* binding_delete */ DELETE FROM bindings b WHERE tenant_id = $1 AND binding_id = $2 AND leaving IS NOT NULL
             AND NOT EXISTS (SELECT FROM trustpoints t WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id)";
        Ok(self.execute(sql, &[&Id(tenant), &Id(id)]).await? > 0)
    }
}

fn read_unbound(row: &Row) -> Result<Unbound, DbError> {
    let columns = Columns::new(row, "devices", "device_id");
    Ok(Unbound {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        device_id: columns.read::<Id<DeviceId>>("device_id")?.0,
        labels: columns.json("labels")?,
        revision: columns.read("bindings_revision")?,
        max_trustpoints: columns.parse_opt::<i32, u32>("max_trustpoints")?,
    })
}

fn read_in_force(row: &Row) -> Result<InForce, DbError> {
    let id: Id<BindingId> = row.try_get("binding_id")?;
    let revision = Columns::new(row, "bindings", "binding_id").parse::<i32, u32>("revision")?;
    Ok(InForce { id: id.0, revision, spec: spec(row)? })
}

fn read_leaving(row: &Row) -> Result<LeavingBinding, DbError> {
    let columns = Columns::new(row, "bindings", "binding_id");
    Ok(LeavingBinding {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        id: columns.read::<Id<BindingId>>("binding_id")?.0,
        leaving: leaving(&columns)?.ok_or_else(|| columns.wrong("leaving", "null"))?,
        trustpoints: Vec::new(),
    })
}

fn read_bound(row: &Row) -> Result<(DeviceId, TrustpointName), DbError> {
    let columns = Columns::new(row, "trustpoints", "trustpoint_id");
    Ok((columns.read::<Id<DeviceId>>("device_id")?.0, columns.parse::<String, _>("name")?))
}
