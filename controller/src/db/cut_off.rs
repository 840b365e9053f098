//! SQL of table `broker_cut_offs`: whose connections to the broker are to be closed, and until when.

use jiff::Timestamp;
use trustfleet_model::ids::{AgentId, TenantId};

use super::{DbError, SystemTx, TenantTx, tx::Id};

/// An order to close the connections of one agent with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// The agent's tenant.
    pub tenant_id: TenantId,
    /// The agent.
    pub agent_id: AgentId,
    /// Name of its connections.
    pub broker_user: String,
    /// Whether its queue goes as well.
    pub with_queue: bool,
    /// Until when they are closed again and again.
    pub until: Timestamp,
}

const INSERT: &str = "/* cut_off_insert */ INSERT INTO broker_cut_offs \
                      (tenant_id, agent_id, broker_user, with_queue, wanted_at, until) VALUES ($1, $2, $3, $4, $5, $6) \
                      ON CONFLICT (tenant_id, agent_id, broker_user) DO UPDATE SET with_queue = excluded.with_queue, \
                      wanted_at = excluded.wanted_at, until = excluded.until, done_at = NULL";

impl TenantTx {
    /// Orders connections to be closed.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_insert(&self, order: &CutOff, now: Timestamp) -> Result<(), DbError> {
        let CutOff { agent_id, broker_user, with_queue, until, .. } = order;
        let count = self.execute(INSERT, &[&Id(*agent_id), broker_user, with_queue, &now, until]).await?;
        DbError::one_row(count, "cut-off")
    }

    /// Takes the order back that an agent's quarantine gave.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_take_back(&self, agent: AgentId) -> Result<(), DbError> {
        let sql =
            "/* cut_off_take_back */ DELETE FROM broker_cut_offs WHERE tenant_id = $1 AND agent_id = $2 AND with_queue";
        self.execute(sql, &[&Id(agent)]).await.map(drop)
    }
}

impl SystemTx {
    /// Orders connections to be closed.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_insert(&self, order: &CutOff, now: Timestamp) -> Result<(), DbError> {
        let CutOff { tenant_id, agent_id, broker_user, with_queue, until } = order;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&Id(*tenant_id), &Id(*agent_id), broker_user, with_queue, &now, until];
        DbError::one_row(self.execute(INSERT, &params).await?, "cut-off")
    }

    /// Takes the order back that an agent's quarantine gave: with new keys it has a queue again.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_keep_queue(&self, tenant: TenantId, agent: AgentId) -> Result<(), DbError> {
        let sql = "/* cut_off_keep_queue */ UPDATE broker_cut_offs SET with_queue = false \
                   WHERE tenant_id = $1 AND agent_id = $2 AND with_queue";
        self.execute(sql, &[&Id(tenant), &Id(agent)]).await.map(drop)
    }

    /// Orders that hold at `now` or were never carried out, oldest first, at most 1000.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_due(&self, now: Timestamp) -> Result<Vec<CutOff>, DbError> {
        let sql = "/* cut_off_due */ SELECT tenant_id, agent_id, broker_user, with_queue, until FROM broker_cut_offs \
                   WHERE until > $1 OR done_at IS NULL ORDER BY wanted_at LIMIT 1000";
        let rows = self.query(sql, &[&now]).await?;
        rows.iter()
            .map(|row| {
                let (Id(tenant_id), Id(agent_id)) = (row.try_get("tenant_id")?, row.try_get("agent_id")?);
                Ok(CutOff {
                    tenant_id,
                    agent_id,
                    broker_user: row.try_get("broker_user")?,
                    with_queue: row.try_get("with_queue")?,
                    until: row.try_get("until")?,
                })
            })
            .collect()
    }

    /// Notes that an order was carried out. Returns whether for the first time.
    ///
    /// # Errors
    /// The database's own.
    pub async fn cut_off_done(&self, order: &CutOff, now: Timestamp) -> Result<bool, DbError> {
        let sql = "/* cut_off_done */ UPDATE broker_cut_offs SET done_at = $4 \
                   WHERE tenant_id = $1 AND agent_id = $2 AND broker_user = $3 AND done_at IS NULL";
        let CutOff { tenant_id, agent_id, broker_user, .. } = order;
        Ok(self.execute(sql, &[&Id(*tenant_id), &Id(*agent_id), broker_user, &now]).await? == 1)
    }
}
