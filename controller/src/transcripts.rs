//! Removes transcripts that have been kept as long as their tenant wants, in small batches, whichever replica comes first.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::Clock;

use crate::{
    db::{DbError, Store},
    telemetry::chain,
};

/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Rows in one transaction.
const BATCH: i64 = 500;

/// Looks for them until `shutdown`.
pub async fn keep(store: Store, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = remove_old(&store, clock.as_ref(), &shutdown).await {
            tracing::warn!(error = %chain(&error), "old transcripts wait to be removed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Removes all whose time is over; returns how many.
///
/// # Errors
/// The database's own; what was removed stays so.
pub async fn remove_old(store: &Store, clock: &dyn Clock, shutdown: &CancellationToken) -> Result<u64, DbError> {
    let mut gone = 0;
    while !shutdown.is_cancelled() {
        let now = clock.now();
        let removed: u64 = store
            .system_tx("transcripts_remove_old", async move |tx| tx.transcripts_remove_old(BATCH, now).await)
            .await?;
        gone += removed;
        if removed == 0 {
            break;
        }
    }
    Ok(gone)
}
