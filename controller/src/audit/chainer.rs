//! Chains the rows of all logs, signs checkpoints and drops what retention lets go. Any replica does it, one at a time.
//!
//! Rows are inserted plainly, so that no change waits for another one's link; a second later they are linked here.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use trustfleet_model::{clock::Clock, ids::TenantId};

use super::{Checkpoint, DROPPED, Hash, PLATFORM, Requester};
use crate::{
    config::AuditConfig,
    db::{AuditHead, ChainedLink, DbError, Note, Store, SystemTx},
    keys::Keys,
    telemetry::chain,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows linked in one transaction.
const BATCH: u16 = 1_000;
/// Links after which a checkpoint is signed, however young they are.
const UNSIGNED_MAX: i64 = 1_000;
/// How often old segments are looked for.
const RETENTION_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Most rows dropped in one transaction.
const DROP_MAX: i64 = 20_000;

/// Keeps the chains.
#[derive(Clone)]
pub struct Chainer {
    /// The database.
    pub store: Store,
    /// Signs checkpoints.
    pub keys: Arc<Keys>,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// How often to sign, how long to keep.
    pub config: AuditConfig,
}

impl std::fmt::Debug for Chainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chainer")
    }
}

impl Chainer {
    /// Works until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut looked_for_old: Option<Timestamp> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            while !shutdown.is_cancelled() {
                match self.round().await {
                    Ok(chained) if chained == usize::from(BATCH) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "audit log not chained for the moment");
                        break;
                    }
                }
            }
            let now = self.clock.now();
            if looked_for_old.is_none_or(|last| now.duration_since(last).abs() >= RETENTION_EVERY) {
                looked_for_old = Some(now);
                if let Err(error) = self.drop_old(now).await {
                    tracing::warn!(error = %chain(&error), "old rows of the audit log not dropped for the moment");
                }
            }
        }
    }

    /// Links one batch, and signs what is due; returns how many rows were linked.
    ///
    /// # Errors
    /// The database's own.
    pub async fn round(&self) -> Result<usize, DbError> {
        let now = self.clock.now();
        let signed_before = now.checked_sub(SignedDuration::from_secs(self.config.checkpoint_s.into())).unwrap_or(now);
        let this = self.clone();
        self.store
            .system_tx("audit_chain", async move |tx| {
                if !tx.audit_chain_lock().await? {
                    return Ok(0);
                }
                let chained = this.link(tx, now).await?;
                let due = tx.audit_heads_unsigned(signed_before, UNSIGNED_MAX).await?;
                let signing = &this.keys.signing;
                let checkpoints: Vec<(TenantId, Checkpoint)> = due
                    .into_iter()
                    .map(|head| (head.tenant, Checkpoint::sign(head.tenant, head.seq, head.hash, now, signing)))
                    .collect();
                tx.audit_checkpoints_insert(&checkpoints).await?;
                Ok(chained)
            })
            .await
    }

    async fn link(&self, tx: &SystemTx, now: Timestamp) -> Result<usize, DbError> {
        let rows = tx.audit_unchained(BATCH).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let tenants: Vec<TenantId> = rows.iter().map(|row| row.tenant).collect();
        let mut heads = tx.audit_heads_fetch(&tenants).await?;
        let mut links = Vec::with_capacity(rows.len());
        for row in &rows {
            let head = heads.entry(row.tenant).or_insert_with(|| AuditHead {
                tenant: row.tenant,
                seq: 0,
                hash: Hash::beginning(row.tenant),
            });
            let content = row.record.content(row.tenant);
            let sealed = self.store.sealer().is_good(&content, &row.seal);
            if !sealed {
                tracing::error!(
                    tenant.id = %row.tenant,
                    row.id = row.record.id,
                    "a row of the audit log was not written by a controller: somebody has written to the database"
                );
            }
            head.seq += 1;
            head.hash = head.hash.next(row.tenant, head.seq, row.record.id, sealed, &content);
            let (seq, hash) = (head.seq, head.hash);
            links.push(ChainedLink { tenant: row.tenant, seq, row_id: row.record.id, hash, sealed });
        }
        tx.audit_links_insert(&links, now).await?;
        tx.audit_cursor_move(&rows).await?;
        Ok(rows.len())
    }

    /// Drops segments that are older than the configuration keeps, or than their tenant wants where that is shorter, each
    /// with a row that says so.
    ///
    /// # Errors
    /// The database's own.
    pub async fn drop_old(&self, now: Timestamp) -> Result<(), DbError> {
        let days = self.config.retention_days;
        loop {
            let dropped: Result<i64, DbError> = self
                .store
                .system_tx("audit_retention", async move |tx| {
                    if !tx.audit_chain_lock().await? {
                        return Ok(0);
                    }
                    let segments = tx.audit_segments_old(now, days, DROP_MAX).await?;
                    let requester = Requester::controller();
                    let mut dropped = 0;
                    for (tenant, checkpoint) in &segments {
                        let rows = tx.audit_segments_drop(*tenant, checkpoint.seq).await?;
                        let detail = serde_json::json!({
                            "up_to": checkpoint.seq, "hash": checkpoint.hash, "signed_at": checkpoint.at, "rows": rows,
                        });
                        let note = Note::new(now, &requester, DROPPED, "audit", PLATFORM.as_uuid(), detail);
                        tx.audit_note(*tenant, &note).await?;
                        tracing::info!(tenant.id = %tenant, up_to = checkpoint.seq, rows, "old audit rows dropped");
                        dropped += rows;
                    }
                    Ok(dropped)
                })
                .await;
            if dropped? == 0 {
                return Ok(());
            }
        }
    }
}
