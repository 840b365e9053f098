//! SQL of table `bindings`, and of what they have to do with devices and trustpoints.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    binding::{BindingSpec, Leaving},
    device::Labels,
    field::{ObjectName, TrustpointName},
    ids::{BindingId, DeviceId, TenantId},
};

use crate::telemetry::chain;

use super::{
    DbError, SystemTx, TenantTx,
    column::{Columns, to_json},
    tx::Id,
};

/// A binding with the names of what it refers to, and how far it has come.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Its id.
    pub id: BindingId,
    /// Its name.
    pub name: ObjectName,
    /// What it says.
    pub spec: BindingSpec,
    /// Name of its entity.
    pub entity: ObjectName,
    /// Name of its CA server.
    pub ca_server: ObjectName,
    /// Name of its policy.
    pub policy: ObjectName,
    /// It is being removed: what becomes of its trustpoints.
    pub leaving: Option<Leaving>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Trustpoints that came by it and are there.
    pub trustpoints: u64,
    /// Of those, the ones with a certificate in use.
    pub active: u64,
}

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
    /// What it says.
    pub spec: BindingSpec,
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

const BINDING: &str = "b.binding_id, b.name, b.selector, b.trustpoint, b.entity_id, b.ca_server_id, b.policy_id, b.enroll, \
    b.leaving, b.created_at, e.name AS entity, c.name AS ca_server, p.name AS policy, \
    (SELECT count(*) FROM trustpoints t WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id) AS trustpoints, \
    (SELECT count(*) FROM trustpoints t WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id \
        AND t.not_after IS NOT NULL) AS active \
    FROM bindings b \
    JOIN entities e ON e.tenant_id = b.tenant_id AND e.entity_id = b.entity_id \
    JOIN ca_servers c ON c.tenant_id = b.tenant_id AND c.ca_server_id = b.ca_server_id \
    JOIN policies p ON p.tenant_id = b.tenant_id AND p.policy_id = b.policy_id";

impl TenantTx {
    /// Makes a binding; every device of the tenant is held against it from then on.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn binding_insert(
        &self,
        id: BindingId,
        name: &ObjectName,
        spec: &BindingSpec,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql =
            "/* binding_insert */ INSERT INTO bindings (tenant_id, binding_id, name, selector, trustpoint, entity_id,
                 ca_server_id, policy_id, enroll, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let (entity, ca, policy) = (Id(spec.entity_id), Id(spec.ca_server_id), Id(spec.policy_id));
        let trustpoint = spec.trustpoint.as_str();
        self.execute(
            sql,
            &[&Id(id), &name.as_str(), &selector, &trustpoint, &entity, &ca, &policy, &spec.enroll, &now],
        )
        .await?;
        let sql = "/* binding_insert: revision */ UPDATE tenants SET bindings_revision = bindings_revision + 1
             WHERE tenant_id = $1";
        DbError::one_row(self.execute(sql, &[]).await?, "tenant")
    }

    /// The binding of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn binding_fetch(&self, name: &ObjectName) -> Result<Binding, DbError> {
        let sql = format!("/* binding_fetch */ SELECT {BINDING} WHERE b.tenant_id = $1 AND b.name = $2");
        let row = self.query_opt(&sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "binding" })?;
        read(&row)
    }

    /// At most `limit` bindings by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Binding>, DbError> {
        let sql = format!(
            "/* binding_list */ SELECT {BINDING} WHERE b.tenant_id = $1 AND ($2::text IS NULL OR b.name > $2)
             ORDER BY b.name LIMIT $3"
        );
        self.query(&sql, &[&after, &limit]).await?.iter().map(read).collect()
    }

    /// How many bindings there are.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_count(&self) -> Result<i64, DbError> {
        let sql = "/* binding_count */ SELECT count(*) FROM bindings WHERE tenant_id = $1";
        let row = self.query_opt(sql, &[]).await?.ok_or(DbError::NotFound { kind: "binding" })?;
        Ok(row.try_get(0)?)
    }

    /// How many devices have labels that the selector asks for, and how many of them have a trustpoint of that name that
    /// did not come by this binding.
    ///
    /// # Errors
    /// The database's own.
    pub async fn binding_reach(&self, id: BindingId, spec: &BindingSpec) -> Result<(i64, i64), DbError> {
        let sql = "/* binding_reach */ SELECT count(*), count(t.trustpoint_id) FROM devices d
             LEFT JOIN trustpoints t ON t.tenant_id = d.tenant_id AND t.device_id = d.device_id AND t.name = $3
                  AND t.binding_id IS DISTINCT FROM $4
             WHERE d.tenant_id = $1 AND d.labels @> $2";
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let row = self.query_opt(sql, &[&selector, &spec.trustpoint.as_str(), &Id(id)]).await?;
        let row = row.ok_or(DbError::NotFound { kind: "binding" })?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Begins to remove a binding.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn binding_leave(&self, id: BindingId, leaving: Leaving) -> Result<(), DbError> {
        let sql = "/* binding_leave */ UPDATE bindings SET leaving = $3 WHERE tenant_id = $1 AND binding_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id), &leaving.as_str()]).await?, "binding")
    }
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
        let sql = "/* bindings_in_force */ SELECT binding_id, selector, trustpoint, entity_id, ca_server_id, policy_id, enroll
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

    /// Bindings of active tenants that are being removed, each with up to `limit` of its trustpoints.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn bindings_leaving(&self, limit: i64) -> Result<Vec<LeavingBinding>, DbError> {
        let sql = "/* bindings_leaving */ SELECT b.tenant_id, b.binding_id, b.leaving FROM bindings b
             JOIN tenants o ON o.tenant_id = b.tenant_id WHERE b.leaving IS NOT NULL AND o.state = 'active' LIMIT 20";
        let of = "/* bindings_leaving: trustpoints */ SELECT trustpoint_id, device_id, name FROM trustpoints
             WHERE tenant_id = $1 AND binding_id = $2 LIMIT $3";
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

fn read(row: &Row) -> Result<Binding, DbError> {
    let columns = Columns::new(row, "bindings", "binding_id");
    Ok(Binding {
        id: columns.read::<Id<BindingId>>("binding_id")?.0,
        name: columns.parse::<String, _>("name")?,
        spec: spec(row)?,
        entity: columns.parse::<String, _>("entity")?,
        ca_server: columns.parse::<String, _>("ca_server")?,
        policy: columns.parse::<String, _>("policy")?,
        leaving: leaving(&columns)?,
        created_at: columns.read("created_at")?,
        trustpoints: columns.read::<i64>("trustpoints")?.unsigned_abs(),
        active: columns.read::<i64>("active")?.unsigned_abs(),
    })
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
    Ok(InForce { id: id.0, spec: spec(row)? })
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

fn spec(row: &Row) -> Result<BindingSpec, DbError> {
    let columns = Columns::new(row, "bindings", "binding_id");
    Ok(BindingSpec {
        selector: columns.json("selector")?,
        trustpoint: columns.parse::<String, _>("trustpoint")?,
        entity_id: columns.read::<Id<_>>("entity_id")?.0,
        ca_server_id: columns.read::<Id<_>>("ca_server_id")?.0,
        policy_id: columns.read::<Id<_>>("policy_id")?.0,
        enroll: columns.read("enroll")?,
    })
}

fn leaving(columns: &Columns<'_>) -> Result<Option<Leaving>, DbError> {
    let word: Option<&str> = columns.read("leaving")?;
    word.map(|word| Leaving::from_word(word).ok_or_else(|| columns.wrong("leaving", format!("{word:?} is unknown"))))
        .transpose()
}
