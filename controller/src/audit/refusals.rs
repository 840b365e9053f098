//! Records refused attempts, a moment after they were answered: no answer waits for the log, and nobody can tell by the
//! time of an answer whether a credential is known.
//!
//! What was refused within the last second of a controller that is killed is lost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, sync::Arc};

use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::Clock;

use super::limit::Limit;
use super::{Attempt, Bounds, Outcome};
use crate::db::{DbError, Note, Store};
use crate::telemetry::chain;

const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Rows that may wait for a database that is away; more are dropped, and counted.
const WAITING_MAX: usize = 10_000;
/// Rows in one transaction.
const BATCH: usize = 500;

/// Where refused attempts are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Refusals(Arc<Mutex<Book>>);

struct Book {
    limit: Limit,
    waiting: Vec<Attempt>,
    dropped: u64,
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusals({} waiting)", self.book().waiting.len())
    }
}

impl Refusals {
    /// Nothing was refused yet.
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Book { limit: Limit::new(bounds), waiting: Vec::new(), dropped: 0 })))
    }

    /// Takes note of a refused attempt.
    pub fn note(&self, attempt: Attempt) {
        let mut book = self.book();
        if let Some(attempt) = book.limit.take(attempt) {
            book.wait(attempt);
        }
    }

    /// Writes what was noted, once a second until `shutdown`, and then the rest.
    pub async fn keep(self, store: Store, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        loop {
            let ends = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(WRITE_EVERY) => false,
            };
            {
                let mut book = self.book();
                for summary in book.limit.close(clock.now(), ends) {
                    book.wait(summary);
                }
            }
            self.write(&store).await;
            if ends {
                return;
            }
        }
    }

    async fn write(&self, store: &Store) {
        loop {
            let batch: Vec<Attempt> = self.book().waiting.iter().take(BATCH).cloned().collect();
            let count = batch.len();
            if count == 0 {
                return;
            }
            let written: Result<(), DbError> = store
                .system_tx("audit_refusals", async move |tx| {
                    for attempt in &batch {
                        tx.audit_note(attempt.tenant, &note(attempt)).await?;
                    }
                    Ok(())
                })
                .await;
            match written {
                Ok(()) => drop(self.book().waiting.drain(..count)),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "refused attempts wait to be recorded");
                    return;
                }
            }
            let dropped = std::mem::take(&mut self.book().dropped);
            if dropped > 0 {
                tracing::error!(dropped, "refused attempts were not recorded: the database was away for too long");
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn wait(&mut self, attempt: Attempt) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(attempt);
        } else {
            self.dropped += 1;
        }
    }
}

fn note(attempt: &Attempt) -> Note<'_> {
    Note {
        outcome: Outcome::Refused,
        ..Note::new(
            attempt.at,
            &attempt.requester,
            attempt.action,
            attempt.object_kind,
            attempt.object_id,
            attempt.detail.clone(),
        )
    }
}
