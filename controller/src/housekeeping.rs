//! Removes what is over and was kept as long as its tenant wants: transcripts, certificates, jobs, join tokens, rejected
//! applicants, leases. In small batches, whichever replica comes first; the audit log has a retention of its own, by signed
//! segments.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::clock::Clock;

pub use crate::db::Chore;
use crate::{
    db::{DbError, Store},
    metrics::Metrics,
    steady::Steady,
};

/// How often it is looked for what is over.
const LOOK_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Rows in one transaction.
const BATCH: i64 = 500;
/// Between two batches: others are to have the database for most of the time.
const BREATH: Duration = Duration::from_millis(100);

/// Removes what is over.
pub struct Housekeeper {
    /// The database.
    pub store: Store,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Counts what was removed.
    pub metrics: Arc<Metrics>,
    /// Most days that anything is kept, whatever its tenant wants.
    pub days_max: u16,
    /// When it was last found that there is nothing more to do.
    pub done_at: Mutex<Option<Timestamp>>,
}

impl std::fmt::Debug for Housekeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Housekeeper")
    }
}

impl Steady for Housekeeper {
    const WHAT: &'static str = "housekeeping";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let now = self.clock.now();
        let done_at = *self.done_at.lock().unwrap_or_else(PoisonError::into_inner);
        if done_at.is_some_and(|done| now.duration_since(done).abs() < LOOK_EVERY) {
            return Ok(false);
        }
        let more = self.remove(now).await?;
        if more {
            tokio::time::sleep(BREATH).await;
        } else {
            *self.done_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        Ok(more)
    }
}

impl Housekeeper {
    /// One batch of everything; whether there may be more.
    ///
    /// # Errors
    /// The database's own; what was removed stays so.
    pub async fn remove(&self, now: Timestamp) -> Result<bool, DbError> {
        let filled: Result<u64, DbError> =
            self.store.system_tx("key_types_fill", async move |tx| tx.key_types_fill(BATCH).await).await;
        let mut more = filled? > 0;
        for chore in Chore::ALL {
            let days = self.days_max;
            let removed: Result<u64, DbError> = self
                .store
                .system_tx("housekeeping", async move |tx| tx.housekeeping_remove(chore, BATCH, days, now).await)
                .await;
            let removed = removed?;
            self.metrics.removed(chore, removed);
            more |= removed > 0;
        }
        Ok(more)
    }
}
