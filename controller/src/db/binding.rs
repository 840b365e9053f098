//! SQL of table `bindings`.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    binding::{BindingSpec, Leaving},
    field::ObjectName,
    ids::{BindingId, CaServerId, EntityId, PolicyId},
};

use super::{
    DbError, TenantTx,
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
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    pub revision: u32,
    /// Trustpoints that came by it and are there.
    pub trustpoints: u64,
    /// Of those, the ones that have yet to follow its last change.
    pub behind: u64,
    /// Of those, the ones with a certificate in use.
    pub active: u64,
}

const BINDING: &str = "b.binding_id, b.name, b.selector, b.trustpoint, b.entity_id, b.ca_server_id, b.policy_id, b.enroll, \
    b.services, b.leaving, b.created_at, coalesce(b.updated_at, b.created_at) AS updated_at, \
    b.revision, e.name AS entity, c.name AS ca_server, p.name AS policy, \
    (SELECT count(*) FROM trustpoints t WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id) AS trustpoints, \
    (SELECT count(*) FROM trustpoints t WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id \
        AND t.not_after IS NOT NULL) AS active, \
    CASE WHEN b.followed_revision = b.revision THEN 0 ELSE (SELECT count(*) FROM trustpoints t \
        WHERE t.tenant_id = b.tenant_id AND t.binding_id = b.binding_id AND t.binding_revision < b.revision) END AS behind \
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
                 ca_server_id, policy_id, enroll, created_at, updated_at, services)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)";
        let services = to_json("bindings", "services", id, &spec.services)?;
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let (entity, ca, policy) = (Id(spec.entity_id), Id(spec.ca_server_id), Id(spec.policy_id));
        let trustpoint = spec.trustpoint.as_str();
        self.execute(
            sql,
            &[&Id(id), &name.as_str(), &selector, &trustpoint, &entity, &ca, &policy, &spec.enroll, &now, &services],
        )
        .await?;
        self.bindings_look_again().await
    }

    /// Every device is held against the bindings anew.
    async fn bindings_look_again(&self) -> Result<(), DbError> {
        let sql = "/* bindings_look_again */ UPDATE tenants SET bindings_revision = bindings_revision + 1
             WHERE tenant_id = $1";
        DbError::one_row(self.execute(sql, &[]).await?, "tenant")
    }

    /// Changes a binding of this revision, but for its name and its trustpoint's; its trustpoints follow.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when it has another revision by now, or is being removed.
    pub async fn binding_update(
        &self,
        id: BindingId,
        revision: u32,
        spec: &BindingSpec,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql =
            "/* binding_update */ UPDATE bindings SET selector = $4, entity_id = $5, ca_server_id = $6, policy_id = $7,
                 enroll = $8, services = $9, updated_at = $10, revision = revision + 1
             WHERE tenant_id = $1 AND binding_id = $2 AND revision = $3 AND leaving IS NULL";
        let selector = to_json("bindings", "selector", id, &spec.selector)?;
        let services = to_json("bindings", "services", id, &spec.services)?;
        let (entity, ca, policy) = (Id(spec.entity_id), Id(spec.ca_server_id), Id(spec.policy_id));
        let revision = i32::try_from(revision).unwrap_or(i32::MAX);
        let count = self
            .execute(sql, &[&Id(id), &revision, &selector, &entity, &ca, &policy, &spec.enroll, &services, &now])
            .await?;
        DbError::one_row(count, "binding")?;
        self.bindings_look_again().await
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

    /// Name of an entity.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn entity_name(&self, id: EntityId) -> Result<ObjectName, DbError> {
        let sql = "/* entity_name */ SELECT name, entity_id FROM entities WHERE tenant_id = $1 AND entity_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "entity" })?;
        Columns::new(&row, "entities", "entity_id").parse::<String, _>("name")
    }

    /// Name of a CA server.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn ca_server_name(&self, id: CaServerId) -> Result<ObjectName, DbError> {
        let sql =
            "/* ca_server_name */ SELECT name, ca_server_id FROM ca_servers WHERE tenant_id = $1 AND ca_server_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "CA server" })?;
        Columns::new(&row, "ca_servers", "ca_server_id").parse::<String, _>("name")
    }

    /// Name of a policy.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn policy_name(&self, id: PolicyId) -> Result<ObjectName, DbError> {
        let sql = "/* policy_name */ SELECT name, policy_id FROM policies WHERE tenant_id = $1 AND policy_id = $2";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "policy" })?;
        Columns::new(&row, "policies", "policy_id").parse::<String, _>("name")
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

    /// Begins to remove a binding.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn binding_leave(&self, id: BindingId, leaving: Leaving) -> Result<(), DbError> {
        let sql = "/* binding_leave */ UPDATE bindings SET leaving = $3 WHERE tenant_id = $1 AND binding_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id), &leaving.as_str()]).await?, "binding")
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
        updated_at: columns.read("updated_at")?,
        revision: columns.parse::<i32, u32>("revision")?,
        behind: columns.read::<i64>("behind")?.unsigned_abs(),
        trustpoints: columns.read::<i64>("trustpoints")?.unsigned_abs(),
        active: columns.read::<i64>("active")?.unsigned_abs(),
    })
}

pub(super) fn spec(row: &Row) -> Result<BindingSpec, DbError> {
    let columns = Columns::new(row, "bindings", "binding_id");
    Ok(BindingSpec {
        selector: columns.json("selector")?,
        trustpoint: columns.parse::<String, _>("trustpoint")?,
        entity_id: columns.read::<Id<_>>("entity_id")?.0,
        ca_server_id: columns.read::<Id<_>>("ca_server_id")?.0,
        policy_id: columns.read::<Id<_>>("policy_id")?.0,
        services: columns.json("services")?,
        enroll: columns.read("enroll")?,
    })
}

pub(super) fn leaving(columns: &Columns<'_>) -> Result<Option<Leaving>, DbError> {
    let word: Option<&str> = columns.read("leaving")?;
    word.map(|word| Leaving::from_word(word).ok_or_else(|| columns.wrong("leaving", format!("{word:?} is unknown"))))
        .transpose()
}
