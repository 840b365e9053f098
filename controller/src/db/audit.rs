//! SQL of the audit log: read by operators in [`TenantTx`], chained and dropped by the system role.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::ids::TenantId;
use uuid::Uuid;

use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};
use crate::audit::{Checkpoint, Hash, Head, Link, Record, RowLine};

/// Advisory lock of whoever chains: any number that nothing else in this database uses.
const CHAIN_LOCK: i64 = 0x7472_7573_7468;

const RECORD: &str = "a.audit_id, a.at, a.actor, a.role, a.source, a.request_id, a.trace_id, a.action, a.outcome, \
                      a.object_kind, a.object_id, a.before, a.after, a.detail";

/// Which rows are wanted; none: all.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter<'a> {
    /// Of this actor, as it is written in the row.
    pub actor: Option<&'a str>,
    /// With this action.
    pub action: Option<&'a str>,
    /// About objects of this kind.
    pub object_kind: Option<&'a str>,
    /// About this object.
    pub object_id: Option<Uuid>,
    /// By this request.
    pub request_id: Option<Uuid>,
    /// In this trace.
    pub trace_id: Option<&'a str>,
    /// With this outcome.
    pub outcome: Option<&'a str>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Before this row: lists begin with the newest.
    pub before: Option<i64>,
}

/// A row that is to be chained.
#[derive(Clone, Debug)]
pub struct UnchainedRow {
    /// Its log.
    pub tenant: TenantId,
    /// The row.
    pub record: Record,
    /// Its seal.
    pub seal: Vec<u8>,
    /// Where it moves the cursor to; none for rows that came from another cluster by a restore.
    place: Option<i64>,
}

/// A new link.
#[derive(Clone, Debug)]
pub struct ChainedLink {
    /// Its log.
    pub tenant: TenantId,
    /// Its place.
    pub seq: i64,
    /// The row.
    pub row_id: i64,
    /// Its hash.
    pub hash: Hash,
    /// Whether the row's seal was good.
    pub sealed: bool,
}

/// Where a chain goes on.
#[derive(Clone, Copy, Debug)]
pub struct AuditHead {
    /// Its log.
    pub tenant: TenantId,
    /// The last link.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

impl TenantTx {
    /// At most `limit` rows of the log, newest first.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_list(&self, filter: &AuditFilter<'_>, limit: i64) -> Result<Vec<Record>, DbError> {
        let sql = format!(
            "/* audit_list */ SELECT {RECORD} FROM audit a WHERE a.tenant_id = $1 \
             AND ($2::text IS NULL OR a.actor = $2) AND ($3::text IS NULL OR a.action = $3) \
             AND ($4::text IS NULL OR a.object_kind = $4) AND ($5::uuid IS NULL OR a.object_id = $5) \
             AND ($6::uuid IS NULL OR a.request_id = $6) AND ($7::text IS NULL OR a.trace_id = $7) \
             AND ($8::text IS NULL OR a.outcome = $8) AND ($9::timestamptz IS NULL OR a.at >= $9) \
             AND ($10::timestamptz IS NULL OR a.at < $10) AND ($11::bigint IS NULL OR a.audit_id < $11) \
             ORDER BY a.audit_id DESC LIMIT $12"
        );
        let f = filter;
        let rows = self
            .query(
                &sql,
                &[
                    &f.actor,
                    &f.action,
                    &f.object_kind,
                    &f.object_id,
                    &f.request_id,
                    &f.trace_id,
                    &f.outcome,
                    &f.since,
                    &f.until,
                    &f.before,
                    &limit,
                ],
            )
            .await?;
        rows.iter().map(record).collect()
    }

    /// At most `limit` links with their rows, in the chain's order, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_chained(&self, after: i64, limit: i64) -> Result<Vec<RowLine>, DbError> {
        let sql = format!(
            "/* audit_chained */ SELECT l.seq, l.hash, l.audit_id AS row_id, l.sealed, {RECORD} FROM audit_links l \
             LEFT JOIN audit a ON a.tenant_id = l.tenant_id AND a.audit_id = l.audit_id \
             WHERE l.tenant_id = $1 AND l.seq > $2 ORDER BY l.seq LIMIT $3"
        );
        let rows = self.query(&sql, &[&after, &limit]).await?;
        rows.iter()
            .map(|row| {
                let row_id: i64 = row.try_get("row_id")?;
                let link = Link {
                    seq: row.try_get("seq")?,
                    hash: hash("audit_links", row_id, row.try_get("hash")?)?,
                    row_id,
                    sealed: row.try_get("sealed")?,
                };
                let is_there = row.try_get::<_, Option<i64>>("audit_id")?.is_some();
                let record = if is_there { Some(record(row)?) } else { None };
                Ok(RowLine { link: Some(link), row: record })
            })
            .collect()
    }

    /// The checkpoints from link `from` to link `to`, both included.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_checkpoints(&self, from: i64, to: i64) -> Result<Vec<Checkpoint>, DbError> {
        let sql = "/* audit_checkpoints */ SELECT seq, hash, at, key_id, signature FROM audit_checkpoints \
                   WHERE tenant_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq";
        self.query(sql, &[&from, &to]).await?.iter().map(checkpoint).collect()
    }

    /// The log's latest checkpoint.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_checkpoint_latest(&self) -> Result<Option<Checkpoint>, DbError> {
        let sql = "/* audit_checkpoint_latest */ SELECT seq, hash, at, key_id, signature FROM audit_checkpoints \
                   WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 1";
        self.query_opt(sql, &[]).await?.as_ref().map(checkpoint).transpose()
    }

    /// At most `limit` rows that are not chained yet.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_not_chained(&self, limit: i64) -> Result<Vec<Record>, DbError> {
        let sql = format!(
            "/* audit_not_chained */ SELECT {RECORD} FROM audit_cursor c JOIN audit a \
             ON (a.tx_id, a.audit_id) > (c.tx_id, c.audit_id) WHERE a.tenant_id = $1 AND NOT EXISTS \
             (SELECT FROM audit_links l WHERE l.tenant_id = a.tenant_id AND l.audit_id = a.audit_id) \
             ORDER BY a.audit_id LIMIT $2"
        );
        self.query(&sql, &[&limit]).await?.iter().map(record).collect()
    }
}

impl SystemTx {
    /// Takes the chainer's lock until the transaction ends; false: another replica has it.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_chain_lock(&self) -> Result<bool, DbError> {
        let sql = "/* audit_chain_lock */ SELECT pg_try_advisory_xact_lock($1)";
        let row = self.query_opt(sql, &[&CHAIN_LOCK]).await?;
        row.map_or(Ok(false), |row| Ok(row.try_get(0)?))
    }

    /// At most `limit` rows that are not chained yet, of all logs, in the order in which they are to be chained. Rows of a
    /// transaction are given only when no older transaction runs any more: nothing can come before them then.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_unchained(&self, limit: u16) -> Result<Vec<UnchainedRow>, DbError> {
        let not_linked =
            "NOT EXISTS (SELECT FROM audit_links l WHERE l.tenant_id = a.tenant_id AND l.audit_id = a.audit_id)";
        // Transactions of a new cluster, to which a dump was restored, are counted anew: then the cursor begins anew, too.
        let cursor = "/* audit_unchained */ SELECT CASE WHEN restored THEN 0 ELSE tx_id END AS tx_id, \
                      CASE WHEN restored THEN 0 ELSE audit_id END AS audit_id FROM (SELECT *, \
                      tx_id > pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS restored FROM audit_cursor) c";
        let cursor = self.query_opt(cursor, &[]).await?.ok_or(DbError::NotFound { kind: "audit cursor" })?;
        let (tx_id, audit_id): (i64, i64) = (cursor.try_get("tx_id")?, cursor.try_get("audit_id")?);
        let sql = format!(
            "/* audit_unchained */ SELECT a.tenant_id, a.tx_id, a.seal, {RECORD} FROM audit a \
             WHERE (a.tx_id, a.audit_id) > ($2, $3) \
             AND a.tx_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AND {not_linked} \
             ORDER BY a.tx_id, a.audit_id LIMIT $1"
        );
        let rows = self.query(&sql, &[&i64::from(limit), &tx_id, &audit_id]).await?;
        let mut found =
            rows.iter().map(|row| unchained(row, Some(row.try_get("tx_id")?))).collect::<Result<Vec<_>, DbError>>()?;
        if found.is_empty() {
            // Restored rows of transactions that this cluster has not reached yet.
            let sql = format!(
                "/* audit_unchained */ SELECT a.tenant_id, a.tx_id, a.seal, {RECORD} FROM audit a \
                 WHERE a.tx_id >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint AND {not_linked} \
                 ORDER BY a.tx_id, a.audit_id LIMIT $1"
            );
            let rows = self.query(&sql, &[&i64::from(limit)]).await?;
            found = rows.iter().map(|row| unchained(row, None)).collect::<Result<_, DbError>>()?;
        }
        Ok(found)
    }

    /// Where the chains of these logs go on; a log without a row is not among them.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_heads_fetch(&self, tenants: &[TenantId]) -> Result<HashMap<TenantId, AuditHead>, DbError> {
        let sql = "/* audit_heads_fetch */ SELECT tenant_id, seq, hash FROM audit_heads WHERE tenant_id = ANY($1)";
        let tenants: Vec<Uuid> = tenants.iter().map(|tenant| tenant.as_uuid()).collect();
        self.query(sql, &[&tenants]).await?.iter().map(|row| head(row).map(|head| (head.tenant, head))).collect()
    }

    /// Appends links, in their order, and moves the heads on.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_links_insert(&self, links: &[ChainedLink], now: Timestamp) -> Result<(), DbError> {
        let tenants: Vec<Uuid> = links.iter().map(|link| link.tenant.as_uuid()).collect();
        let seqs: Vec<i64> = links.iter().map(|link| link.seq).collect();
        let ids: Vec<i64> = links.iter().map(|link| link.row_id).collect();
        let hashes: Vec<&[u8]> = links.iter().map(|link| link.hash.as_bytes().as_slice()).collect();
        let sealed: Vec<bool> = links.iter().map(|link| link.sealed).collect();
        let sql = "/* audit_links_insert */ WITH n AS (
                       SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::boolean[])
                           AS n(tenant_id, seq, audit_id, hash, sealed)
                   ), linked AS (
                       INSERT INTO audit_links (tenant_id, seq, audit_id, hash, sealed)
                       SELECT tenant_id, seq, audit_id, hash, sealed FROM n
                   )
                   INSERT INTO audit_heads (tenant_id, seq, hash, unsigned_since)
                   SELECT DISTINCT ON (tenant_id) tenant_id, seq, hash, $6::timestamptz FROM n ORDER BY tenant_id, seq DESC
                   ON CONFLICT (tenant_id) DO UPDATE SET seq = EXCLUDED.seq, hash = EXCLUDED.hash,
                       unsigned_since = coalesce(audit_heads.unsigned_since, EXCLUDED.unsigned_since)";
        self.execute(sql, &[&tenants, &seqs, &ids, &hashes, &sealed, &now]).await.map(drop)
    }

    /// Moves the cursor behind these rows.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_cursor_move(&self, rows: &[UnchainedRow]) -> Result<(), DbError> {
        let Some((tx_id, audit_id)) = rows.iter().rev().find_map(|row| row.place.map(|tx| (tx, row.record.id))) else {
            return Ok(());
        };
        let sql = "/* audit_cursor_move */ UPDATE audit_cursor SET tx_id = $1, audit_id = $2";
        DbError::one_row(self.execute(sql, &[&tx_id, &audit_id]).await?, "audit cursor")
    }

    /// Logs with links that have waited for a signature since `before`, or that are at least `most`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_heads_unsigned(&self, before: Timestamp, most: i64) -> Result<Vec<AuditHead>, DbError> {
        let sql = "/* audit_heads_unsigned */ SELECT tenant_id, seq, hash FROM audit_heads \
                   WHERE unsigned_since IS NOT NULL AND (unsigned_since <= $1 OR seq - signed_seq >= $2) LIMIT 1000";
        self.query(sql, &[&before, &most]).await?.iter().map(head).collect()
    }

    /// Stores signed links.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_checkpoints_insert(&self, checkpoints: &[(TenantId, Checkpoint)]) -> Result<(), DbError> {
        for (tenant, checkpoint) in checkpoints {
            let sql = "/* audit_checkpoints_insert */ WITH signed AS (
                           UPDATE audit_heads SET signed_seq = $2, unsigned_since = NULL WHERE tenant_id = $1 AND seq = $2
                           RETURNING tenant_id
                       )
                       INSERT INTO audit_checkpoints (tenant_id, seq, hash, at, key_id, signature)
                       SELECT tenant_id, $2, $3, $4, $5, $6 FROM signed";
            let Checkpoint { seq, hash, at, key_id, signature } = checkpoint;
            let hash = hash.as_bytes().as_slice();
            let count = self.execute(sql, &[&Id(*tenant), seq, &hash, at, key_id, signature]).await?;
            DbError::one_row(count, "audit head")?;
        }
        Ok(())
    }

    /// For each log that has segments signed longer ago than they are kept, `days` or what its tenant wants where that is
    /// shorter (0: for ever): the checkpoint that ends the last one of them that is within `most` links.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_segments_old(
        &self,
        now: Timestamp,
        days: u32,
        most: i64,
    ) -> Result<Vec<(TenantId, Checkpoint)>, DbError> {
        let sql = "/* audit_segments_old */ SELECT h.tenant_id, c.seq, c.hash, c.at, c.key_id, c.signature
                   FROM audit_heads h LEFT JOIN tenants t ON t.tenant_id = h.tenant_id
                   CROSS JOIN LATERAL (SELECT $1::timestamptz - make_interval(days =>
                       LEAST(NULLIF(t.audit_days, 0), NULLIF($3::int, 0))) AS before) k
                   CROSS JOIN LATERAL (SELECT seq FROM audit_links WHERE tenant_id = h.tenant_id ORDER BY seq LIMIT 1) f
                   CROSS JOIN LATERAL (
                       SELECT * FROM audit_checkpoints WHERE tenant_id = h.tenant_id AND seq >= f.seq AND at < k.before
                           AND (seq < f.seq + $2 OR seq = (SELECT min(n.seq) FROM audit_checkpoints n
                                                           WHERE n.tenant_id = h.tenant_id AND n.seq >= f.seq))
                       ORDER BY seq DESC LIMIT 1
                   ) c
                   WHERE k.before IS NOT NULL ORDER BY h.tenant_id LIMIT 10";
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let rows = self.query(sql, &[&now, &most, &days]).await?;
        rows.iter()
            .map(|row| {
                let Id(tenant) = row.try_get("tenant_id")?;
                Ok((tenant, checkpoint(row)?))
            })
            .collect()
    }

    /// Drops everything of a log up to this checkpoint, which stays; returns how many rows.
    ///
    /// # Errors
    /// The database's own: also when there is no such checkpoint, or it is younger than a day.
    pub async fn audit_segments_drop(&self, tenant: TenantId, up_to: i64) -> Result<i64, DbError> {
        let sql = "/* audit_segments_drop */ SELECT audit_segments_drop($1, $2)";
        let row = self.query_opt(sql, &[&Id(tenant), &up_to]).await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// The latest checkpoint of every log, by its id; at most `limit`, beginning after the log `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn audit_heads_list(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<Head>, DbError> {
        let sql = "/* audit_heads_list */ SELECT h.tenant_id, t.name, c.seq, c.hash, c.at, c.key_id, c.signature
                   FROM audit_heads h LEFT JOIN tenants t ON t.tenant_id = h.tenant_id
                   CROSS JOIN LATERAL (SELECT * FROM audit_checkpoints WHERE tenant_id = h.tenant_id
                                       ORDER BY seq DESC LIMIT 1) c
                   WHERE $1::uuid IS NULL OR h.tenant_id > $1 ORDER BY h.tenant_id LIMIT $2";
        let rows = self.query(sql, &[&after.map(Id), &limit]).await?;
        rows.iter()
            .map(|row| {
                let Id(tenant_id) = row.try_get("tenant_id")?;
                Ok(Head { tenant_id, tenant: row.try_get("name")?, checkpoint: checkpoint(row)? })
            })
            .collect()
    }
}

fn record(row: &Row) -> Result<Record, DbError> {
    let source: Option<IpAddr> = row.try_get("source")?;
    Ok(Record {
        id: row.try_get("audit_id")?,
        at: row.try_get("at")?,
        actor: row.try_get("actor")?,
        role: row.try_get("role")?,
        source,
        request_id: row.try_get("request_id")?,
        trace_id: row.try_get("trace_id")?,
        action: row.try_get("action")?,
        outcome: row.try_get("outcome")?,
        object_kind: row.try_get("object_kind")?,
        object_id: row.try_get("object_id")?,
        before: row.try_get("before")?,
        after: row.try_get("after")?,
        detail: row.try_get("detail")?,
    })
}

fn unchained(row: &Row, place: Option<i64>) -> Result<UnchainedRow, DbError> {
    let Id(tenant) = row.try_get("tenant_id")?;
    Ok(UnchainedRow { tenant, record: record(row)?, seal: row.try_get("seal")?, place })
}

fn head(row: &Row) -> Result<AuditHead, DbError> {
    let Id(tenant): Id<TenantId> = row.try_get("tenant_id")?;
    Ok(AuditHead { tenant, seq: row.try_get("seq")?, hash: hash("audit_heads", tenant, row.try_get("hash")?)? })
}

fn checkpoint(row: &Row) -> Result<Checkpoint, DbError> {
    let seq: i64 = row.try_get("seq")?;
    Ok(Checkpoint {
        seq,
        hash: hash("audit_checkpoints", seq, row.try_get("hash")?)?,
        at: row.try_get("at")?,
        key_id: row.try_get("key_id")?,
        signature: row.try_get("signature")?,
    })
}

fn hash(table: &'static str, id: impl ToString, bytes: &[u8]) -> Result<Hash, DbError> {
    Hash::try_from(bytes).map_err(|error| DbError::inconsistent(table, "hash", id, error))
}
