//! SQL of table `tenants`. Tenants are made and looked up before anybody is bound to one: by the system role.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::TenantId;

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx};

/// Who shares this installation without seeing each other.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in URLs.
    pub name: ObjectName,
    /// Its name for people.
    pub display_name: String,
    /// HMAC-SHA1 and the like may be configured (S8).
    pub allow_weak_algorithms: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl SystemTx {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn tenant_insert(&self, tenant: &Tenant) -> Result<(), DbError> {
        let sql = "/* tenant_insert */ INSERT INTO tenants \
                   (tenant_id, name, display_name, allow_weak_algorithms, created_at, updated_at, updated_by) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let count = self
            .execute(
                sql,
                &[
                    &Id(tenant.id),
                    &tenant.name.as_str(),
                    &tenant.display_name,
                    &tenant.allow_weak_algorithms,
                    &tenant.created_at,
                    &tenant.updated_at,
                    &self.name(),
                ],
            )
            .await?;
        DbError::one_row(count, "tenant")
    }

    /// The tenant of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn tenant_by_name(&self, name: &ObjectName) -> Result<Tenant, DbError> {
        let sql = "/* tenant_by_name */ SELECT tenant_id, name, display_name, allow_weak_algorithms, created_at, updated_at \
                   FROM tenants WHERE name = $1";
        let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "tenant" })?;
        read(&row)
    }

    /// At most `limit` tenants by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn tenant_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Tenant>, DbError> {
        let sql = "/* tenant_list */ SELECT tenant_id, name, display_name, allow_weak_algorithms, created_at, updated_at \
                   FROM tenants WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2";
        self.query(sql, &[&after, &limit]).await?.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<Tenant, DbError> {
    let columns = Columns::new(row, "tenants", "tenant_id");
    Ok(Tenant {
        id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        name: columns.parse::<String, _>("name")?,
        display_name: columns.read("display_name")?,
        allow_weak_algorithms: columns.read("allow_weak_algorithms")?,
        created_at: columns.read("created_at")?,
        updated_at: columns.read("updated_at")?,
    })
}
