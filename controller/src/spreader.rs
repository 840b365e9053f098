//! Spreads coming renewals (`trustfleet_model::spread`): by itself, when an hour at a CA holds more than its budget.
//!
//! That is looked at every ten minutes if nothing else is configured, by an advisory lock by one replica at a time. What is
//! moved stays inside the safe window of its certificate; what fits nowhere is told, and waits for the budget when its hour
//! comes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Mutex;
use trustfleet_model::{
    clock::Clock,
    ids::{TenantId, TrustpointId},
    spread::{Spread, bin, respread},
};

use crate::{
    admission::Budget,
    config::CaBudgetConfig,
    db::{CaEndpoint, DbError, ServerOf, Store, SystemTx, Unfit},
    steady::Steady,
};

/// The part of a budget that is planned with: requests by hand, retries and revocations need the rest.
const PLANNED_SHARE: f64 = 0.8;
/// Bounds what one look does for one endpoint: hours that are looked into.
const HOURS_MAX: usize = 2_000;
/// Renewals that are looked at and moved in one transaction: no device waits long for one that is being moved.
const BATCH: i64 = 10_000;
/// Bounds what one look does for one endpoint: a million renewals.
const BATCHES_MAX: usize = 100;
/// Renewals that fit nowhere and are told by name.
const TOLD_MAX: usize = 20;

/// Spreads coming renewals.
pub struct Spreader {
    /// The database.
    store: Store,
    /// The present moment.
    clock: Arc<dyn Clock>,
    /// Budget of CAs that have none of their own.
    ca_budget: Budget,
    /// Between two looks by itself.
    every: Duration,
    /// Renewals in one transaction.
    batch: i64,
    /// When it last looked by itself, or was made.
    looked: Mutex<Instant>,
}

impl std::fmt::Debug for Spreader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spreader")
    }
}

/// What became of the renewals at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spreading {
    /// Moved.
    pub moved: u64,
    /// Left in an hour that is too full.
    pub unfit: u64,
    /// The first of them, by time.
    pub unfit_examples: Vec<Unfit>,
}

/// Exchanges that a budget allows in an hour.
pub fn per_hour(budget: &Budget) -> u64 {
    share(budget, 1.0)
}

/// Renewals that are planned for an hour at most.
pub fn capacity(budget: &Budget) -> u64 {
    share(budget, PLANNED_SHARE).max(1)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some hundred millions")]
fn share(budget: &Budget, of: f64) -> u64 {
    (budget.rate_per_s * 3_600.0 * of).floor() as u64
}

impl Spreader {
    /// Looks by itself for the first time when `ca_budget.respread_s` has passed.
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: &CaBudgetConfig) -> Self {
        let every = Duration::from_secs(config.respread_s.into());
        Self { store, clock, ca_budget: config.budget(), every, batch: BATCH, looked: Mutex::new(Instant::now()) }
    }

    /// The same with other batches, for tests.
    #[must_use]
    pub fn in_batches_of(self, batch: i64) -> Self {
        Self { batch, ..self }
    }

    /// Looks at all endpoints once; nothing where another replica is at it.
    ///
    /// # Errors
    /// The database's own; what was done stays so.
    pub async fn look(&self) -> Result<Option<BTreeMap<String, Spreading>>, DbError> {
        let default = self.ca_budget;
        let found = self
            .store
            .system_tx("renewals_spread_endpoints", async move |tx| -> Result<_, DbError> {
                if !tx.spreading_is_ours().await? {
                    return Ok(None);
                }
                let budgets: BTreeMap<String, Budget> =
                    tx.ca_endpoint_list(default).await?.into_iter().map(own).collect();
                Ok(Some((tx.servers_by_endpoint().await?, budgets)))
            })
            .await?;
        let Some((endpoints, budgets)) = found else { return Ok(None) };
        let mut done = BTreeMap::new();
        for (endpoint, servers) in endpoints {
            let budget = budgets.get(&endpoint).copied().unwrap_or(default);
            let spreading = self.spread(servers.into(), capacity(&budget)).await?;
            if spreading != Spreading::default() {
                done.insert(endpoint, spreading);
            }
        }
        Ok(Some(done))
    }

    /// Spreads what comes at one endpoint, batch by batch. Another replica that does the same has its batches in between; each
    /// begins with what is there.
    async fn spread(&self, servers: Arc<[ServerOf]>, most: u64) -> Result<Spreading, DbError> {
        let (mut moved, mut unfit, mut after) = (0, Vec::new(), None);
        for _ in 0..BATCHES_MAX {
            let (now, at, of, limit) = (self.clock.now(), after, Arc::clone(&servers), self.batch);
            let batch = self
                .store
                .system_tx("renewals_spread", async move |tx| spread_batch(tx, &of, most, (at, limit), now).await)
                .await?;
            moved += batch.moved;
            unfit.extend(batch.unfit);
            after = batch.last;
            if after.is_none() {
                break;
            }
        }
        if unfit.is_empty() {
            return Ok(Spreading { moved, ..Spreading::default() });
        }
        // What found no room in its batch has it after all where later ones have left its hour.
        let now = self.clock.now();
        self.store
            .system_tx("renewals_unfit", async move |tx| -> Result<_, DbError> {
                let counts = tx.renewals_by_hour(&servers, now).await?;
                let too_full = |at: Timestamp| counts.get(&bin(at)).is_some_and(|count| *count > most);
                let mut unfit: Vec<_> = unfit.iter().filter(|(_, at)| too_full(*at)).copied().collect();
                unfit.sort_by_key(|(id, at)| (*at, *id));
                let first: Vec<_> = unfit.iter().take(TOLD_MAX).map(|(id, _)| *id).collect();
                let unfit_examples = if first.is_empty() { Vec::new() } else { tx.renewals_unfit(&first).await? };
                Ok(Spreading { moved, unfit: u64::try_from(unfit.len()).unwrap_or(u64::MAX), unfit_examples })
            })
            .await
    }
}

fn own(found: CaEndpoint) -> (String, Budget) {
    (found.name, found.endpoint.budget)
}

/// A trustpoint, and when its renewal is planned.
type Waiting = ((TenantId, TrustpointId), Timestamp);

/// What one transaction did.
#[derive(Default)]
struct Batch {
    moved: u64,
    unfit: Vec<Waiting>,
    /// The last one that was looked at, where there may be more.
    last: Option<TrustpointId>,
}

async fn spread_batch(
    tx: &SystemTx,
    servers: &[ServerOf],
    most: u64,
    (after, limit): (Option<TrustpointId>, i64),
    now: Timestamp,
) -> Result<Batch, DbError> {
    tx.spreading_turn().await?;
    let counts = tx.renewals_by_hour(servers, now).await?;
    let full: Vec<Timestamp> =
        counts.iter().filter(|(_, count)| **count > most).map(|(hour, _)| *hour).take(HOURS_MAX).collect();
    if full.is_empty() {
        return Ok(Batch::default());
    }
    let (rows, last) = tx.renewals_in(servers, &full, after, limit).await?;
    let (planned, known): (Vec<_>, BTreeMap<_, _>) =
        rows.into_iter().map(|(item, serial)| (item.clone(), (item.id, (item.at, serial)))).unzip();
    let found = respread(counts, planned, most, now);
    let moves: Vec<_> = found
        .moved
        .into_iter()
        .filter_map(|(id, at)| known.get(&id).map(|(_, serial)| (id, Spread { at, serial: serial.clone() })))
        .collect();
    let unfit = found.unfit.into_iter().filter_map(|id| known.get(&id).map(|(at, _)| (id, *at))).collect();
    Ok(Batch { moved: tx.renewals_move(&moves).await?, unfit, last })
}

impl Steady for Spreader {
    const WHAT: &'static str = "the spreading of renewals";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let mut looked = self.looked.lock().await;
        if looked.elapsed() < self.every {
            return Ok(false);
        }
        for (endpoint, Spreading { moved, unfit, unfit_examples }) in self.look().await?.unwrap_or_default() {
            if unfit == 0 {
                tracing::info!(endpoint, moved, "renewals are spread over their windows");
                continue;
            }
            let first = unfit_examples.first().map(|one| format!("{}: {}/{}", one.tenant, one.device, one.trustpoint));
            tracing::warn!(
                endpoint,
                moved,
                unfit,
                first,
                "more renewals come than the CA's budget allows, and some fit in no hour"
            );
        }
        *looked = Instant::now();
        Ok(false)
    }
}
