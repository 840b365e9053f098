//! SQL of table `offered_roots`: roots that follow trust anchors of CA servers.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::ids::{AgentId, CaServerId, TrustpointId};

use super::column::Columns;
use super::{DbError, TenantTx, tx::Id};

/// Most roots that are kept for a CA server.
const KEPT_MAX: i64 = 16;

/// A root that follows a trust anchor of a CA server.
#[derive(Clone, Debug)]
pub struct OfferedRoot {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// The root, PEM.
    pub certificate: String,
    /// SHA-256 of the anchor that it follows, lower-case hex.
    pub follows: String,
    /// The agent that told of it first.
    pub agent_id: AgentId,
    /// When it first did.
    pub offered_at: Timestamp,
    /// When an agent last told of it, to the hour.
    pub told_at: Timestamp,
}

/// The CA server that an agent speaks of, by a trustpoint of its.
#[derive(Clone, Debug)]
pub struct SpokenOf {
    /// The CA server.
    pub id: CaServerId,
    /// Its name.
    pub name: String,
    /// Its anchors and all else.
    pub spec: CaServerSpec,
    /// When an agent last told of the same root; none: it is news.
    pub told_at: Option<Timestamp>,
}

const COLUMNS: &str = "ca_server_id, sha256, certificate, follows, agent_id, offered_at, told_at";

impl TenantTx {
    /// The CA server of a trustpoint of the agent, and whether this root is known there; none: the agent has no such
    /// trustpoint.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn offered_root_of(
        &self,
        agent: AgentId,
        trustpoint: TrustpointId,
        sha256: &str,
    ) -> Result<Option<SpokenOf>, DbError> {
        let sql = "/* offered_root_of */ SELECT c.ca_server_id, c.name, c.spec, o.told_at FROM trustpoints t \
                   JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id \
                   JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id \
                   LEFT JOIN offered_roots o ON o.tenant_id = c.tenant_id AND o.ca_server_id = c.ca_server_id \
                   AND o.sha256 = $4 WHERE t.tenant_id = $1 AND t.trustpoint_id = $3 AND d.agent_id = $2";
        let Some(row) = self.query_opt(sql, &[&Id(agent), &Id(trustpoint), &sha256]).await? else { return Ok(None) };
        let columns = Columns::new(&row, "ca_servers", "ca_server_id");
        Ok(Some(SpokenOf {
            id: columns.read::<Id<CaServerId>>("ca_server_id")?.0,
            name: columns.read("name")?,
            spec: columns.json("spec")?,
            told_at: columns.read("told_at")?,
        }))
    }

    /// Keeps a root. Returns whether it is news; beyond the most that are kept nothing is.
    ///
    /// # Errors
    /// The database's own.
    pub async fn offered_root_note(&self, ca_server: CaServerId, root: &OfferedRoot) -> Result<bool, DbError> {
        let again = "/* offered_root_note: again */ UPDATE offered_roots SET told_at = $4 \
                     WHERE tenant_id = $1 AND ca_server_id = $2 AND sha256 = $3";
        if self.execute(again, &[&Id(ca_server), &root.sha256, &root.told_at]).await? > 0 {
            return Ok(false);
        }
        let sql = "/* offered_root_note */ INSERT INTO offered_roots \
                   (tenant_id, ca_server_id, sha256, certificate, follows, agent_id, offered_at, told_at) \
                   SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE \
                   (SELECT count(*) FROM offered_roots WHERE tenant_id = $1 AND ca_server_id = $2) < $9 \
                   ON CONFLICT DO NOTHING";
        let OfferedRoot { sha256, certificate, follows, agent_id, offered_at, told_at } = root;
        let made = self
            .execute(
                sql,
                &[&Id(ca_server), sha256, certificate, follows, &Id(*agent_id), offered_at, told_at, &KEPT_MAX],
            )
            .await?;
        Ok(made > 0)
    }

    /// Roots of a CA server, by fingerprint.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn offered_root_list(
        &self,
        ca_server: CaServerId,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<OfferedRoot>, DbError> {
        let sql = format!(
            "/* offered_root_list */ SELECT {COLUMNS} FROM offered_roots WHERE tenant_id = $1 AND ca_server_id = $2 \
             AND ($3::text IS NULL OR sha256 > $3) ORDER BY sha256 LIMIT $4"
        );
        self.query(&sql, &[&Id(ca_server), &after, &limit]).await?.iter().map(read).collect()
    }

    /// One root of a CA server.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; the database's own.
    pub async fn offered_root_fetch(&self, ca_server: CaServerId, sha256: &str) -> Result<OfferedRoot, DbError> {
        let sql = format!(
            "/* offered_root_fetch */ SELECT {COLUMNS} FROM offered_roots \
             WHERE tenant_id = $1 AND ca_server_id = $2 AND sha256 = $3"
        );
        let row = self.query_opt(&sql, &[&Id(ca_server), &sha256]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "offered root" })?)
    }
}

fn read(row: &Row) -> Result<OfferedRoot, DbError> {
    let columns = Columns::new(row, "offered_roots", "ca_server_id");
    Ok(OfferedRoot {
        sha256: columns.read("sha256")?,
        certificate: columns.read("certificate")?,
        follows: columns.read("follows")?,
        agent_id: columns.read::<Id<AgentId>>("agent_id")?.0,
        offered_at: columns.read("offered_at")?,
        told_at: columns.read("told_at")?,
    })
}
