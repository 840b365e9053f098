//! Schema: migrations run by the owner of the tables, and the check that a controller fits the schema it finds.

use refinery::embed_migrations;

use super::{DbError, SystemTx, connect};
use crate::{config::SecretUrl, tls::ClientTls};

embed_migrations!("../migrations");

/// The schema cannot be brought up to date, or does not fit this program.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No connection as the owner.
    #[error("the database's owner cannot be connected: check database.owner_url")]
    Connect(#[source] tokio_postgres::Error),
    /// A migration failed, or an applied one was changed.
    #[error("the migration failed; what was applied before stays")]
    Migrate(#[source] Box<refinery::Error>),
    /// No answer from the database.
    #[error("the database cannot be reached: check database.system_url")]
    Away(#[source] DbError),
    /// No migration was ever run, or the table is not readable.
    #[error("the database has no schema yet: run `trustfleet migrate` first")]
    Missing(#[source] DbError),
    /// Older than this program.
    #[error("the database has schema version {found}, this program needs {needed}: run `trustfleet migrate` first")]
    Old {
        /// Version of the database.
        found: i32,
        /// Version of this program.
        needed: i32,
    },
    /// Newer than this program.
    #[error("the database has schema version {found}, this program knows only {needed}: update this program")]
    Unknown {
        /// Version of the database.
        found: i32,
        /// Version of this program.
        needed: i32,
    },
}

/// The schema version that this program works with.
pub fn schema_version() -> i32 {
    migrations::runner().get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0)
}

/// Advisory lock of whoever migrates: any number that nothing else in this database uses.
const MIGRATION_LOCK: i64 = 0x7472_7573_7466;

/// Applies what is missing; returns the names of the migrations that were applied. Of several at a time the others wait
/// for the first, and find nothing to do. With `tls` the connection is encrypted, and the server verified by it.
///
/// # Errors
/// No connection, or a migration that failed.
pub async fn migrate(owner: &SecretUrl, tls: Option<&ClientTls>) -> Result<Vec<String>, SchemaError> {
    let config = connect::driver_config(owner, tls.is_some()).map_err(SchemaError::Connect)?;
    let (mut client, connection) = connect::open(&config, tls).await.map_err(SchemaError::Connect)?;
    let driver = tokio::spawn(connection);
    // Held until the connection ends, however it ends.
    let lock = "/* migrate */ SELECT pg_advisory_lock($1)";
    client.execute(lock, &[&MIGRATION_LOCK]).await.map_err(SchemaError::Connect)?;
    let report =
        migrations::runner().run_async(&mut client).await.map_err(|error| SchemaError::Migrate(Box::new(error)));
    driver.abort();
    Ok(report?.applied_migrations().iter().map(ToString::to_string).collect())
}

impl SystemTx {
    /// Refuses a schema that this program was not made for.
    ///
    /// # Errors
    /// [`SchemaError::Missing`], [`SchemaError::Old`] or [`SchemaError::Unknown`].
    pub async fn schema_check(&self) -> Result<(), SchemaError> {
        let sql = "/* schema_check */ SELECT coalesce(max(version), 0) FROM refinery_schema_history";
        let row = self.query_opt(sql, &[]).await?;
        let found: i32 = match row {
            Some(row) => row.try_get(0).map_err(|error| SchemaError::from(DbError::from(error)))?,
            None => 0,
        };
        let needed = schema_version();
        match found.cmp(&needed) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(SchemaError::Old { found, needed }),
            std::cmp::Ordering::Greater => Err(SchemaError::Unknown { found, needed }),
        }
    }
}

impl From<DbError> for SchemaError {
    fn from(error: DbError) -> Self {
        if matches!(error, DbError::Unavailable { .. }) { Self::Away(error) } else { Self::Missing(error) }
    }
}
