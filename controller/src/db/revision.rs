//! SQL of table `revisions`: what entities, CA servers and policies were, by whom and why. And which trustpoints a change
//! would reach.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use trustfleet_model::{device::Device, ids::TrustpointId, trustpoint::Trustpoint};
use uuid::Uuid;

use super::{DbError, TenantTx, column::Columns, row, tx::Id};

/// One revision of an object.
#[derive(Clone, Debug)]
pub struct Revision {
    /// From 1.
    pub revision: u32,
    /// All of the object.
    pub spec: Value,
    /// Who made it, in the words of the audit log.
    pub author: String,
    /// Why, in the author's own words.
    pub reason: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

/// Which column of a trustpoint refers to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `entity_id`.
    Entity,
    /// `ca_server_id`.
    CaServer,
    /// `policy_id`.
    Policy,
}

impl Reference {
    const fn column(self) -> &'static str {
        match self {
            Self::Entity => "entity_id",
            Self::CaServer => "ca_server_id",
            Self::Policy => "policy_id",
        }
    }
}

impl TenantTx {
    /// Keeps a revision of the object; one that is kept already stays as it is.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revision_insert(&self, kind: &str, object: Uuid, revision: &Revision) -> Result<(), DbError> {
        let sql = "/* revision_insert */ INSERT INTO revisions
                 (tenant_id, object_kind, object_id, revision, spec, author, reason, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
        let Revision { revision, spec, author, reason, created_at } = revision;
        let revision = i32::try_from(*revision).unwrap_or(i32::MAX);
        self.execute(sql, &[&kind, &object, &revision, spec, author, reason, created_at]).await.map(drop)
    }

    /// At most `limit` revisions of an object, newest first, beginning before `before`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revision_list(
        &self,
        kind: &str,
        object: Uuid,
        before: Option<i32>,
        limit: i64,
    ) -> Result<Vec<Revision>, DbError> {
        let sql = "/* revision_list */ SELECT object_id, revision, spec, author, reason, created_at FROM revisions
             WHERE tenant_id = $1 AND object_kind = $2 AND object_id = $3 AND ($4::int IS NULL OR revision < $4)
             ORDER BY revision DESC LIMIT $5";
        self.query(sql, &[&kind, &object, &before, &limit]).await?.iter().map(read).collect()
    }

    /// Removes the revisions of an object that goes.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revisions_delete(&self, kind: &str, object: Uuid) -> Result<(), DbError> {
        let sql =
            "/* revisions_delete */ DELETE FROM revisions WHERE tenant_id = $1 AND object_kind = $2 AND object_id = $3";
        self.execute(sql, &[&kind, &object]).await.map(drop)
    }

    /// At most `limit` trustpoints that refer to an object, with their devices, after `after`.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn trustpoints_referring(
        &self,
        reference: Reference,
        object: Uuid,
        after: Option<TrustpointId>,
        limit: i64,
    ) -> Result<Vec<(Trustpoint, Device)>, DbError> {
        let column = reference.column();
        let sql = format!(
            "/* trustpoints_referring */ SELECT t.trustpoint_id, t.state, d.device_id, d.name, d.agent_id, d.serial, d.mac,
                    d.labels, d.pair, d.standby
             FROM trustpoints t JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
             WHERE t.tenant_id = $1 AND t.{column} = $2 AND ($3::uuid IS NULL OR t.trustpoint_id > $3)
             ORDER BY t.trustpoint_id LIMIT $4"
        );
        let rows = self.query(&sql, &[&object, &after.map(Id), &limit]).await?;
        rows.iter().map(|found| Ok((row::trustpoint(found)?, row::device(found, self.tenant_id())?))).collect()
    }
}

fn read(row: &Row) -> Result<Revision, DbError> {
    let columns = Columns::new(row, "revisions", "object_id");
    Ok(Revision {
        revision: columns.parse::<i32, _>("revision")?,
        spec: columns.read("spec")?,
        author: columns.read("author")?,
        reason: columns.read("reason")?,
        created_at: columns.read("created_at")?,
    })
}
