//! Removes deleted tenants whose grace time is over, in small batches, whichever replica comes first.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trustfleet_model::{clock::Clock, ids::TenantId};

use crate::{
    audit::{PLATFORM, Requester},
    db::{DbError, Note, Store},
    telemetry::chain,
};

/// How often deleted tenants are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Rows removed in one transaction.
const BATCH: i64 = 1_000;

/// Looks for them until `shutdown`.
pub async fn keep(store: Store, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = purge_due(&store, Arc::clone(&clock), shutdown.clone()).await {
            tracing::warn!(error = %chain(&error), "deleted tenants wait to be purged");
        }
    }
}

/// Removes all that are due; returns how many tenants are gone.
///
/// # Errors
/// The database's own; what was removed stays so.
pub async fn purge_due(store: &Store, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Result<usize, DbError> {
    let due: Vec<(TenantId, String)> =
        store.system_tx("tenants_to_purge", async move |tx| tx.tenants_to_purge().await).await?;
    let mut gone = 0;
    for (tenant, name) in due {
        let mut rows = 0;
        loop {
            if shutdown.is_cancelled() {
                return Ok(gone);
            }
            let removed: i64 =
                store.system_tx("tenant_purge", async move |tx| tx.tenant_purge(tenant, BATCH).await).await?;
            rows += removed;
            if removed == 0 {
                break;
            }
        }
        // Of two replicas only one removed anything.
        if rows == 0 {
            continue;
        }
        gone += 1;
        let now = clock.now();
        let noted: Result<(), DbError> = store
            .system_tx("tenant_purged", async move |tx| {
                let requester = Requester::controller();
                let detail = json!({"name": name, "rows": rows});
                let note = Note::new(now, &requester, "tenant_purged", "tenant", tenant.as_uuid(), detail);
                tx.audit_note(PLATFORM, &note).await
            })
            .await;
        noted?;
        tracing::info!(tenant.id = %tenant, rows, "a deleted tenant is purged");
    }
    Ok(gone)
}
