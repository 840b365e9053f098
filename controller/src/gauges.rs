//! Keeps the gauges about the fleet: counted in the database, as often as that takes little of its time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::Clock;

use crate::{
    actors::Registry,
    admission::Budget,
    db::{DbError, Store},
    metrics::Metrics,
    telemetry::chain,
};

/// How often they are refreshed, at most.
const EVERY: Duration = Duration::from_secs(2);
/// They may take this share of the time, not more: with a very large fleet they are refreshed less often.
const SHARE: u32 = 20;

/// Keeps the gauges about the fleet.
pub struct Gauges {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Tenants that have series of their own.
    pub tenants_max: usize,
    /// Budget of CAs that have none of their own.
    pub budget: Budget,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Gauges {
    /// Keeps them until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let start = Instant::now();
            let (now, tenants_max, budget) = (self.clock.now(), self.tenants_max, self.budget);
            let counted: Result<_, DbError> = self
                .store
                .system_tx("stats_fetch", async move |tx| tx.stats_fetch(now, tenants_max, budget).await)
                .await;
            match counted {
                Ok(stats) => self.metrics.set_stats(&stats),
                Err(error) => tracing::warn!(error = %chain(&error), "gauges not refreshed"),
            }
            self.registry.sweep();
            self.metrics.set_actors(self.registry.len());
            pause = EVERY.max(start.elapsed() * SHARE);
        }
    }
}
