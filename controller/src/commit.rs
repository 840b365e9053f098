//! Group commit: decisions of many devices in one statement, each guarded by its own row version.
//!
//! While one statement is on its way the next batch gathers, so batches grow with the load and a lone decision waits for
//! nobody. A stale version falls alone. When the server refuses the statement, every decision is tried by itself; when
//! the connection is lost meanwhile, nobody can say what was kept, and everybody is told so.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use deadpool_postgres::Object;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty};
use trustfleet_model::ids::{DeviceId, TenantId};
use trustfleet_telemetry::{in_trace, record_error, trace_span};

use crate::{
    db::{DbError, Store},
    device::Changes,
    metrics::{Metrics, TxOutcome},
    quota::Limit,
};

mod quota;
mod statement;

/// Most decisions in one statement.
const BATCH_MAX: usize = 256;
/// Decisions that may wait for the next statement; actors wait behind them.
const QUEUE_MAX: usize = 4096;

/// Why a decision was not written, or not certainly.
#[derive(Debug)]
pub enum CommitError {
    /// The row has another version by now: reload and decide again.
    VersionConflict,
    /// A quota of the tenant is used up.
    QuotaExceeded(Limit),
    /// Certainly not written.
    NotDone(DbError),
    /// Written or not.
    OutcomeUnknown(DbError),
}

impl From<DbError> for CommitError {
    fn from(error: DbError) -> Self {
        if error.outcome_known() { Self::NotDone(error) } else { Self::OutcomeUnknown(error) }
    }
}

/// A decision on its way.
struct Entry {
    tenant: TenantId,
    device: DeviceId,
    changes: Box<Changes>,
    /// Quotas that it is held to, where it makes what they count.
    limits: Vec<Limit>,
    done: oneshot::Sender<Result<(), CommitError>>,
    /// From the decision's arrival here to its answer.
    span: Span,
}

/// Where actors hand in their decisions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CommitHandle {
    entries: mpsc::Sender<Entry>,
}

impl CommitHandle {
    /// Starts the committer; it ends when `shutdown` is cancelled and nothing is left. `new_jobs` is notified after
    /// each commit that put jobs into the outbox.
    pub fn start(
        backend: &Handle,
        store: Store,
        metrics: Arc<Metrics>,
        new_jobs: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (entries, received) = mpsc::channel(QUEUE_MAX);
        let task = backend.spawn(Committer { store, metrics, new_jobs }.run(received, shutdown));
        (Self { entries }, task)
    }

    /// Writes a decision, if what it makes is within these quotas; returns after the commit.
    ///
    /// # Errors
    /// The version is stale, a quota is used up, or the database refused or went away.
    pub async fn commit(
        &self,
        tenant: TenantId,
        device: DeviceId,
        changes: Box<Changes>,
        limits: Vec<Limit>,
    ) -> Result<(), CommitError> {
        let span = span();
        let (done, result) = oneshot::channel();
        let entry = Entry { tenant, device, changes, limits, done, span: span.clone() };
        let committed = self.hand_in(entry, result).instrument(span.clone()).await;
        match &committed {
            Ok(()) => {}
            // Another replica was faster: the decision is made anew.
            Err(CommitError::VersionConflict) => record_error(&span, "version_conflict", false),
            Err(CommitError::QuotaExceeded(_)) => record_error(&span, crate::quota::EXCEEDED, false),
            Err(CommitError::NotDone(_)) => record_error(&span, "not_done", true),
            Err(CommitError::OutcomeUnknown(_)) => record_error(&span, "outcome_unknown", true),
        }
        committed
    }

    async fn hand_in(
        &self,
        entry: Entry,
        result: oneshot::Receiver<Result<(), CommitError>>,
    ) -> Result<(), CommitError> {
        let stopped = || CommitError::NotDone(DbError::Unavailable { source: "the controller is stopping".into() });
        self.entries.send(entry).await.map_err(|_| stopped())?;
        // Dropped without an answer: the committer died in the middle of it.
        result.await.unwrap_or_else(|_| {
            Err(CommitError::OutcomeUnknown(DbError::Unavailable { source: "the committer died".into() }))
        })
    }
}

struct Committer {
    store: Store,
    metrics: Arc<Metrics>,
    new_jobs: Arc<Notify>,
}

impl Committer {
    async fn run(self, mut received: mpsc::Receiver<Entry>, shutdown: CancellationToken) {
        let mut postponed = Vec::new();
        loop {
            let mut waiting = std::mem::take(&mut postponed);
            if waiting.is_empty() {
                let next = tokio::select! {
                    entry = received.recv() => entry,
                    () = shutdown.cancelled() => {
                        // What was handed in is still written; new ones are refused from here on.
                        received.close();
                        received.recv().await
                    }
                };
                match next {
                    Some(entry) => waiting.push(entry),
                    None => return,
                }
            }
            while waiting.len() < BATCH_MAX
                && let Ok(entry) = received.try_recv()
            {
                waiting.push(entry);
            }
            let (batch, later) = one_for_each_device(waiting);
            postponed = later;
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Entry>) {
        self.metrics.commit_batch(batch.len());
        for entry in &batch {
            entry.span.record("db.operation.batch.size", i64::try_from(batch.len()).unwrap_or(i64::MAX));
        }
        match self.write_together(&batch).await {
            Ok(kept) => {
                let mut jobs = false;
                for (n, entry) in batch.into_iter().enumerate() {
                    let result = kept.get(&n).map_or(Err(CommitError::VersionConflict), |verdict| match verdict {
                        None => Ok(()),
                        Some(limit) => Err(CommitError::QuotaExceeded(*limit)),
                    });
                    jobs |= result.is_ok() && !entry.changes.outbox.is_empty();
                    // An actor that died meanwhile needs no answer: the row is the truth.
                    let _ = entry.done.send(result);
                }
                if jobs {
                    self.new_jobs.notify_one();
                }
            }
            Err(error) if batch.len() == 1 || error.is_away() => {
                self.tell_everybody(batch, &error);
            }
            Err(error) => {
                tracing::warn!(error = %crate::telemetry::chain(&error), decisions = batch.len(), "group commit refused, trying each alone");
                for entry in batch {
                    Box::pin(self.write(vec![entry])).await;
                }
            }
        }
    }

    fn tell_everybody(&self, batch: Vec<Entry>, error: &DbError) {
        tracing::warn!(error = %crate::telemetry::chain(error), decisions = batch.len(), "group commit failed");
        for entry in batch {
            let _ = entry.done.send(Err(error.again().into()));
        }
    }

    /// The places of the decisions that were written, and of those that a quota refuses.
    async fn write_together(&self, batch: &[Entry]) -> Result<HashMap<usize, Option<Limit>>, DbError> {
        let timer = self.metrics.tx_timer("group_commit");
        let result = self.execute(batch).await;
        timer.finish(match &result {
            Ok(_) => TxOutcome::Committed,
            Err(error) if error.is_away() => TxOutcome::GaveUp,
            Err(_) => TxOutcome::RolledBack,
        });
        result
    }

    async fn execute(&self, batch: &[Entry]) -> Result<HashMap<usize, Option<Limit>>, DbError> {
        let client = self.store.system_client().await?;
        let counted = quota::is_counted(batch);
        let result = if counted {
            self.execute_counted(&client, batch).await
        } else {
            self.execute_wanted(&client, batch, |_| true).await
        };
        if result.is_err() && (counted || result.as_ref().is_err_and(DbError::is_away)) {
            // The next batch must not find this connection in the pool: it is gone, or inside of a transaction.
            drop(Object::take(client));
        }
        result
    }

    /// The statement for the decisions at the places that are `wanted`.
    async fn execute_wanted(
        &self,
        client: &Object,
        batch: &[Entry],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<HashMap<usize, Option<Limit>>, DbError> {
        let parameters = statement::Parameters::of(batch, wanted, self.store.sealer())?;
        let written = statement::execute(client, &parameters).await?;
        Ok(written.into_iter().map(|n| (n, None)).collect())
    }

    /// The statement in a transaction of its own: tenants with quotas are locked and counted before.
    async fn execute_counted(
        &self,
        client: &Object,
        batch: &[Entry],
    ) -> Result<HashMap<usize, Option<Limit>>, DbError> {
        client.batch_execute("BEGIN").await?;
        let verdicts = quota::verdicts(client, batch).await?;
        let mut kept = self.execute_wanted(client, batch, |n| verdicts[n] == quota::Verdict::Fits).await?;
        client.batch_execute("COMMIT").await.map_err(DbError::of_lone_statement)?;
        kept.extend(verdicts.iter().enumerate().filter_map(|(n, verdict)| match verdict {
            quota::Verdict::Exceeded(limit) => Some((n, Some(*limit))),
            quota::Verdict::Fits | quota::Verdict::Later => None,
        }));
        Ok(kept)
    }
}

/// The span of one decision's commit. The statement belongs to as many traces as it has decisions, so each has its own.
fn span() -> Span {
    if !in_trace() {
        return Span::none();
    }
    trace_span!("client", "group_commit", db.system.name = "postgresql", db.operation.batch.size = Empty)
}

/// A batch with one decision for each device, and those that have to wait for the next one.
fn one_for_each_device(waiting: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
    let mut devices = HashSet::new();
    waiting.into_iter().partition(|entry| devices.insert((entry.tenant, entry.device)))
}
