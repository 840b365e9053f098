//! SQL of table `agents`. Joining and sessions come before a tenant is known: they go through the system role.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, TenantId};

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};

/// A device agent that has joined.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its id; names its queue on the broker.
    pub id: AgentId,
    /// Its name.
    pub name: ObjectName,
    /// Ed25519 public key: proves possession, verifies reports.
    pub sign_key: Vec<u8>,
    /// X25519 public key: secrets are sealed to it.
    pub seal_key: Vec<u8>,
    /// Version of its software at the last hello.
    pub software: String,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Last session, hello or report.
    pub last_seen_at: Timestamp,
}

impl TenantTx {
    /// The agent of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn agent_fetch(&self, name: &ObjectName) -> Result<Agent, DbError> {
        let sql = "/* agent_fetch */ SELECT tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at \
                   FROM agents WHERE tenant_id = $1 AND name = $2";
        let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "agent" })?;
        read(&row)
    }

    /// At most `limit` agents by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Agent>, DbError> {
        let sql = "/* agent_list */ SELECT tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at \
                   FROM agents WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2) ORDER BY name LIMIT $3";
        self.query(sql, &[&after, &limit]).await?.iter().map(read).collect()
    }
}

impl SystemTx {
    /// Takes an agent in.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when its name is taken in its tenant.
    pub async fn agent_insert(&self, agent: &Agent) -> Result<(), DbError> {
        let sql = "/* agent_insert */ INSERT INTO agents \
                   (tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let Agent { tenant_id, id, name, sign_key, seal_key, software, joined_at, last_seen_at } = agent;
        let count = self
            .execute(
                sql,
                &[&Id(*tenant_id), &Id(*id), &name.as_str(), sign_key, seal_key, software, joined_at, last_seen_at],
            )
            .await?;
        DbError::one_row(count, "agent")
    }

    /// The agent of this id, of whatever tenant: it says who it is before its tenant is known.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn agent_by_id(&self, id: AgentId) -> Result<Agent, DbError> {
        let sql = "/* agent_by_id */ SELECT tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at \
                   FROM agents WHERE agent_id = $1";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "agent" })?;
        read(&row)
    }

    /// The agent of this name in `tenant`, if there is one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_by_name(&self, tenant: TenantId, name: &ObjectName) -> Result<Option<Agent>, DbError> {
        let sql = "/* agent_by_name */ SELECT tenant_id, agent_id, name, sign_key, seal_key, software, joined_at, last_seen_at \
                   FROM agents WHERE tenant_id = $1 AND name = $2";
        self.query_opt(sql, &[&Id(tenant), &name.as_str()]).await?.as_ref().map(read).transpose()
    }

    /// Notes that an agent was heard of.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn agent_seen(&self, tenant: TenantId, id: AgentId, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* agent_seen */ UPDATE agents SET last_seen_at = greatest(last_seen_at, $3) \
                   WHERE tenant_id = $1 AND agent_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(tenant), &Id(id), &now]).await?, "agent")
    }
}

fn read(row: &Row) -> Result<Agent, DbError> {
    let columns = Columns::new(row, "agents", "agent_id");
    Ok(Agent {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        id: columns.read::<Id<AgentId>>("agent_id")?.0,
        name: columns.parse::<String, _>("name")?,
        sign_key: columns.read("sign_key")?,
        seal_key: columns.read("seal_key")?,
        software: columns.read("software")?,
        joined_at: columns.read("joined_at")?,
        last_seen_at: columns.read("last_seen_at")?,
    })
}
