//! Loading devices for their actors: those that are wanted at the same time together, in one transaction.
//!
//! While some are on their way the next ones gather, as in the group commit: a lone device waits for nobody, and when
//! thousands wake up at once the database answers three statements for hundreds of them. What is read is a snapshot, so that
//! a device's version fits its trustpoints and jobs; it may be old by the time it arrives, and the version tells.

use std::{collections::HashSet, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
};
use tracing::Instrument as _;
use trustfleet_model::ids::{DeviceId, TenantId};
use trustfleet_telemetry::{in_trace, record_error, trace_span};

use crate::{
    db::{DbError, DeviceKey, DeviceStates, Store},
    device::DeviceState,
};

/// Most devices in one transaction.
const BATCH_MAX: usize = 256;
/// Devices that may wait; actors wait behind them.
const QUEUE_MAX: usize = 4096;
/// Transactions at a time: a slow one must not hold up a device that is wanted now.
const AT_ONCE: usize = 4;

type Answer = oneshot::Sender<Result<DeviceState, DbError>>;

/// A device that an actor waits for.
struct Wanted {
    key: DeviceKey,
    answer: Answer,
}

/// Where actors ask for their devices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadHandle {
    wanted: mpsc::Sender<Wanted>,
}

impl LoadHandle {
    /// Starts the loader; it ends with the last handle.
    pub fn start(backend: &Handle, store: Store) -> Self {
        let (wanted, received) = mpsc::channel(QUEUE_MAX);
        backend.spawn(run(store, received));
        Self { wanted }
    }

    /// A device with its trustpoints and open jobs, as of one snapshot taken after this was called.
    ///
    /// # Errors
    /// No such device in this tenant; rows that cannot be read; the database's own.
    pub async fn load(&self, tenant: TenantId, device: DeviceId) -> Result<DeviceState, DbError> {
        let span = if in_trace() {
            trace_span!("client", "device_load", db.system.name = "postgresql")
        } else {
            tracing::Span::none()
        };
        let loaded = self.ask((tenant, device)).instrument(span.clone()).await;
        if loaded.is_err() {
            record_error(&span, "not_loaded", !matches!(loaded, Err(DbError::NotFound { .. })));
        }
        loaded
    }

    async fn ask(&self, key: DeviceKey) -> Result<DeviceState, DbError> {
        let gone = || DbError::Unavailable { source: "the loader of devices has ended".into() };
        let (answer, loaded) = oneshot::channel();
        self.wanted.send(Wanted { key, answer }).await.map_err(|_| gone())?;
        loaded.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn run(store: Store, mut received: mpsc::Receiver<Wanted>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut postponed = Vec::new();
    loop {
        // Only who has a place takes a batch: until then it may grow.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let mut batch = std::mem::take(&mut postponed);
        if batch.is_empty() {
            match received.recv().await {
                Some(wanted) => batch.push(wanted),
                None => return,
            }
        }
        while batch.len() < BATCH_MAX
            && let Ok(wanted) = received.try_recv()
        {
            batch.push(wanted);
        }
        let (batch, later) = each_once(batch);
        postponed = later;
        let store = store.clone();
        tokio::spawn(async move {
            load(store, batch).await;
            drop(place);
        });
    }
}

/// A batch with each device once, and those that have to wait for the next one.
fn each_once(batch: Vec<Wanted>) -> (Vec<Wanted>, Vec<Wanted>) {
    let mut seen = HashSet::new();
    batch.into_iter().partition(|wanted| seen.insert(wanted.key))
}

async fn load(store: Store, batch: Vec<Wanted>) {
    let keys: Vec<DeviceKey> = batch.iter().map(|wanted| wanted.key).collect();
    let loaded = store
        .snapshot_tx("device_load", async move |tx| -> Result<DeviceStates, DbError> {
            tx.device_states_fetch(&keys).await
        })
        .await;
    match loaded {
        Ok(mut states) => {
            for Wanted { key, answer } in batch {
                let state = states.remove(&key).unwrap_or(Err(DbError::NotFound { kind: "device" }));
                // An actor that died meanwhile needs no answer.
                let _ = answer.send(state);
            }
        }
        Err(error) => {
            for Wanted { answer, .. } in batch {
                let _ = answer.send(Err(error.again()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_wanted_twice_is_loaded_again_in_the_next_batch() {
        let wanted = |tenant: u128, device: u128| Wanted {
            key: (uuid::Uuid::from_u128(tenant).into(), uuid::Uuid::from_u128(device).into()),
            answer: oneshot::channel().0,
        };
        let (batch, later) = each_once(vec![wanted(1, 1), wanted(2, 1), wanted(1, 1), wanted(1, 2)]);
        assert_eq!((batch.len(), later.len()), (3, 1), "another tenant's device is another device");
        assert_eq!(later[0].key, batch[0].key);
    }
}
