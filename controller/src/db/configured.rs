//! What entities, CA servers and policies have in common: a name, a spec as JSON, a revision, users among trustpoints.

use jiff::Timestamp;
use trustfleet_model::field::{ObjectName, TrustpointName};

/// An object that operators configure.
#[derive(Clone, Debug)]
pub struct Configured<Id, Spec> {
    /// Its id.
    pub id: Id,
    /// Its name, unique in the tenant.
    pub name: ObjectName,
    /// What is configured.
    pub spec: Spec,
    /// Grows with every change, from 1.
    pub revision: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A trustpoint that uses an object, so that it cannot be deleted.
#[derive(Clone, Debug)]
pub struct UsedBy {
    /// Name of the device.
    pub device: ObjectName,
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
}

/// Writes the methods of one table of configured objects onto `TenantTx`.
macro_rules! configured_table {
    (
        $table:literal, $kind:literal, $key:literal, $id:ty, $spec:ty,
        $insert:ident, $fetch:ident, $list:ident, $update:ident, $used_by:ident, $delete:ident
    ) => {
        impl crate::db::TenantTx {
            #[doc = concat!("Makes a new ", $kind, ", revision 1.")]
            ///
            /// # Errors
            /// [`DbError::Conflict`] when the name is taken.
            pub async fn $insert(&self, id: $id, name: &ObjectName, spec: &$spec, now: Timestamp) -> Result<(), DbError> {
                let sql = concat!(
                    "/* ", stringify!($insert), " */ INSERT INTO ", $table, " (tenant_id, ", $key,
                    ", name, spec, revision, created_at, updated_at, updated_by) VALUES ($1, $2, $3, $4, 1, $5, $5, $6)"
                );
                let json = to_json($table, "spec", id, spec)?;
                let count = self.execute(sql, &[&Id(id), &name.as_str(), &json, &now, &self.name()]).await?;
                DbError::one_row(count, $kind)
            }

            #[doc = concat!("The ", $kind, " of this name.")]
            ///
            /// # Errors
            /// [`DbError::NotFound`].
            pub async fn $fetch(&self, name: &ObjectName) -> Result<Configured<$id, $spec>, DbError> {
                let sql = concat!(
                    "/* ", stringify!($fetch), " */ SELECT ", $key, ", name, spec, revision, created_at, updated_at FROM ",
                    $table, " WHERE tenant_id = $1 AND name = $2"
                );
                let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: $kind })?;
                read(&row)
            }

            #[doc = concat!("At most `limit` by name, beginning after `after`.")]
            ///
            /// # Errors
            /// The database's own.
            pub async fn $list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Configured<$id, $spec>>, DbError> {
                let sql = concat!(
                    "/* ", stringify!($list), " */ SELECT ", $key, ", name, spec, revision, created_at, updated_at FROM ",
                    $table, " WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2) ORDER BY name LIMIT $3"
                );
                self.query(sql, &[&after, &limit]).await?.iter().map(read).collect()
            }

            #[doc = concat!("Replaces the spec of the ", $kind, " that has revision `revision`, which grows by one.")]
            ///
            /// # Errors
            /// [`DbError::NotFound`] when there is none of this revision.
            pub async fn $update(&self, id: $id, revision: u32, spec: &$spec, now: Timestamp) -> Result<(), DbError> {
                let sql = concat!(
                    "/* ", stringify!($update), " */ UPDATE ", $table,
                    " SET spec = $3, revision = revision + 1, updated_at = $4, updated_by = $5 WHERE tenant_id = $1 AND ",
                    $key, " = $2 AND revision = $6"
                );
                let json = to_json($table, "spec", id, spec)?;
                let revision = i32::try_from(revision).unwrap_or(i32::MAX);
                let count = self.execute(sql, &[&Id(id), &json, &now, &self.name(), &revision]).await?;
                DbError::one_row(count, $kind)
            }

            #[doc = concat!("One of the trustpoints that use the ", $kind, ".")]
            ///
            /// # Errors
            /// The database's own.
            pub async fn $used_by(&self, id: $id) -> Result<Option<UsedBy>, DbError> {
                let sql = concat!(
                    "/* ", stringify!($used_by), " */ SELECT t.trustpoint_id, t.name AS trustpoint, d.name AS device ",
                    "FROM trustpoints t JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id ",
                    "WHERE t.tenant_id = $1 AND t.", $key, " = $2 ORDER BY t.trustpoint_id LIMIT 1"
                );
                let Some(row) = self.query_opt(sql, &[&Id(id)]).await? else { return Ok(None) };
                let columns = Columns::new(&row, "trustpoints", "trustpoint_id");
                Ok(Some(UsedBy {
                    device: columns.parse::<String, _>("device")?,
                    trustpoint: columns.parse::<String, _>("trustpoint")?,
                }))
            }

            #[doc = concat!("Deletes the ", $kind, ".")]
            ///
            /// # Errors
            /// [`DbError::NotFound`], or [`DbError::Conflict`] when a trustpoint uses it.
            pub async fn $delete(&self, id: $id) -> Result<(), DbError> {
                let sql = concat!(
                    "/* ", stringify!($delete), " */ DELETE FROM ", $table, " WHERE tenant_id = $1 AND ", $key, " = $2"
                );
                DbError::one_row(self.execute(sql, &[&Id(id)]).await?, $kind)
            }
        }

        fn read(row: &tokio_postgres::Row) -> Result<Configured<$id, $spec>, DbError> {
            let columns = Columns::new(row, $table, $key);
            Ok(Configured {
                id: columns.read::<Id<$id>>($key)?.0,
                name: columns.parse::<String, _>("name")?,
                spec: columns.json("spec")?,
                revision: columns.parse::<i32, _>("revision")?,
                created_at: columns.read("created_at")?,
                updated_at: columns.read("updated_at")?,
            })
        }
    };
}

pub(super) use configured_table;
