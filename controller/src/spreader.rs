//! Spreads coming renewals (`trustfleet_model::spread`): by itself, when an hour at a CA holds more than its budget.
//!
//! One replica at a time looks every ten minutes, by an advisory lock. What it moves stays inside the safe window of its
//! certificate; what fits nowhere is told in the log, and waits for the budget when its hour comes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Mutex;
use trustfleet_model::{
    clock::Clock,
    spread::{Spread, respread},
};

use crate::{
    admission::Budget,
    db::{CaEndpoint, DbError, ServerOf, Store, SystemTx},
    steady::Steady,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);
/// The part of a budget that is planned with: requests by hand, retries and revocations need the rest.
const PLANNED_SHARE: f64 = 0.8;
/// Bounds what one look does for one endpoint: hours that are looked into.
const HOURS_MAX: usize = 2_000;

/// Spreads coming renewals.
pub struct Spreader {
    /// The database.
    store: Store,
    /// The present moment.
    clock: Arc<dyn Clock>,
    /// Budget of CAs that have none of their own.
    ca_budget: Budget,
    /// When it last looked by itself, or was made.
    looked: Mutex<Instant>,
}

impl std::fmt::Debug for Spreader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spreader")
    }
}

/// What became of the renewals at one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spreading {
    /// Moved.
    pub moved: u64,
    /// Left in an hour that is too full.
    pub unfit: u64,
}

/// Renewals that are planned for an hour at most.
pub fn capacity(budget: &Budget) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some hundred millions")]
    let hourly = (budget.rate_per_s * 3_600.0 * PLANNED_SHARE).floor() as u64;
    hourly.max(1)
}

impl Spreader {
    /// Looks by itself for the first time ten minutes from now.
    pub fn new(store: Store, clock: Arc<dyn Clock>, ca_budget: Budget) -> Self {
        Self { store, clock, ca_budget, looked: Mutex::new(Instant::now()) }
    }

    /// Looks at all endpoints once; nothing while another replica does.
    ///
    /// # Errors
    /// The database's own; what was done stays so.
    pub async fn look(&self) -> Result<Option<BTreeMap<String, Spreading>>, DbError> {
        let (now, default) = (self.clock.now(), self.ca_budget);
        self.store
            .system_tx("renewals_spread", async move |tx| -> Result<_, DbError> {
                let mut done = BTreeMap::new();
                if !tx.spreading_is_ours().await? {
                    return Ok(None);
                }
                let servers = tx.servers_by_endpoint().await?;
                let budgets: BTreeMap<String, Budget> =
                    tx.ca_endpoint_list(default).await?.into_iter().map(own).collect();
                for (endpoint, servers) in servers {
                    let budget = budgets.get(&endpoint).copied().unwrap_or(default);
                    let spreading = spread_one(tx, &servers, &budget, now).await?;
                    if spreading != Spreading::default() {
                        done.insert(endpoint, spreading);
                    }
                }
                Ok(Some(done))
            })
            .await
    }
}

fn own(found: CaEndpoint) -> (String, Budget) {
    (found.name, found.endpoint.budget)
}

async fn spread_one(
    tx: &SystemTx,
    servers: &[ServerOf],
    budget: &Budget,
    now: Timestamp,
) -> Result<Spreading, DbError> {
    let (counts, most) = (tx.renewals_by_hour(servers, now).await?, capacity(budget));
    let full: Vec<Timestamp> =
        counts.iter().filter(|(_, count)| **count > most).map(|(hour, _)| *hour).take(HOURS_MAX).collect();
    if full.is_empty() {
        return Ok(Spreading::default());
    }
    let (planned, serials): (Vec<_>, BTreeMap<_, _>) = tx
        .renewals_in(servers, &full)
        .await?
        .into_iter()
        .map(|(item, serial)| (item.clone(), (item.id, serial)))
        .unzip();
    let found = respread(counts, planned, most, now);
    let moves: Vec<_> = found
        .moved
        .into_iter()
        .filter_map(|(id, at)| serials.get(&id).map(|serial| (id, Spread { at, serial: serial.clone() })))
        .collect();
    let moved = tx.renewals_move(&moves).await?;
    Ok(Spreading { moved, unfit: u64::try_from(found.unfit.len()).unwrap_or(u64::MAX) })
}

impl Steady for Spreader {
    const WHAT: &'static str = "the spreading of renewals";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let mut looked = self.looked.lock().await;
        if looked.elapsed() < EVERY {
            return Ok(false);
        }
        for (endpoint, Spreading { moved, unfit }) in self.look().await?.unwrap_or_default() {
            if unfit > 0 {
                tracing::warn!(
                    endpoint,
                    moved,
                    unfit,
                    "more renewals come than the CA's budget allows, and some fit in no hour"
                );
            } else {
                tracing::info!(endpoint, moved, "renewals are spread over their windows");
            }
        }
        *looked = Instant::now();
        Ok(false)
    }
}
