//! Keeps the state of freeze windows: which are open, until when, and what waits for their end. Every replica does it; they
//! come to the same.

use std::sync::Arc;

use tokio::sync::Notify;
use trustfleet_model::clock::Clock;

use crate::{
    db::{DbError, DueFreeze, Store},
    freeze::Windows,
    steady::Steady,
};

/// Rows of the outbox that are set aside at a time.
const BATCH: i64 = 5_000;

/// Keeps the state of freeze windows.
#[derive(Clone)]
pub struct Freezer {
    /// The database.
    pub store: Store,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Notified when something may be published again.
    pub new_jobs: Arc<Notify>,
}

impl std::fmt::Debug for Freezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Freezer")
    }
}

impl Steady for Freezer {
    const WHAT: &'static str = "the freeze windows";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let now = self.clock.now();
        let freed = self
            .store
            .system_tx("freezes_look", async move |tx| -> Result<u64, DbError> {
                for DueFreeze { tenant_id, freeze } in tx.freezes_due(now).await? {
                    let windows = freeze.spec.windows(now).unwrap_or_else(|error| {
                        tracing::error!(freeze.id = %freeze.id, error, "a freeze window cannot be read, and holds nothing");
                        Windows::default()
                    });
                    tx.freeze_look(tenant_id, freeze.id, windows, now).await?;
                }
                tx.outbox_hold(BATCH).await
            })
            .await?;
        if freed > 0 {
            self.new_jobs.notify_one();
        }
        Ok(false)
    }
}
