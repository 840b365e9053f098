//! Loading devices for their actors: those that are wanted at the same time together, in one transaction.
//!
//! When thousands wake up at once the database answers three statements for hundreds of them. What is read is a snapshot, so
//! that a device's version fits its trustpoints and jobs; it may be old by the time it arrives, and the version tells.

use std::collections::HashMap;

use tokio::runtime::Handle;
use tracing::Instrument as _;
use trustfleet_model::ids::{DeviceId, TenantId};
use trustfleet_telemetry::{in_trace, record_error, trace_span};

use crate::{
    db::{DbError, DeviceKey, DeviceStates, Store},
    device::DeviceState,
    gather::{Answers, Gather},
};

/// Transactions at a time: a slow one must not hold up a device that is wanted now.
const AT_ONCE: usize = 4;

/// Where actors ask for their devices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadHandle {
    wanted: Gather<DeviceKey, DeviceState>,
}

impl LoadHandle {
    /// Starts the loader; it ends with the last handle.
    pub fn start(backend: &Handle, store: Store) -> Self {
        Self { wanted: Gather::start(backend, AT_ONCE, move |keys| load(store.clone(), keys)) }
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
        let loaded = self.wanted.ask((tenant, device)).instrument(span.clone()).await;
        if loaded.is_err() {
            record_error(&span, "not_loaded", !matches!(loaded, Err(DbError::NotFound { .. })));
        }
        loaded
    }
}

async fn load(store: Store, keys: Vec<DeviceKey>) -> Answers<DeviceState> {
    let wanted = keys.clone();
    let states = store
        .snapshot_tx("device_load", async move |tx| -> Result<DeviceStates, DbError> {
            tx.device_states_fetch(&wanted).await
        })
        .await?;
    Ok(for_each(&keys, states))
}

/// The state for each key; a device may be wanted twice, by an actor that has died and its successor.
fn for_each(keys: &[DeviceKey], mut states: DeviceStates) -> Vec<Result<DeviceState, DbError>> {
    let last: HashMap<DeviceKey, usize> = keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
    let state = |(place, key): (usize, &DeviceKey)| match last.get(key) {
        Some(last) if *last > place => states.get(key).map(|state| state.as_ref().cloned().map_err(DbError::again)),
        _ => states.remove(key),
    };
    let found: Vec<_> = keys.iter().enumerate().map(state).collect();
    found.into_iter().map(|state| state.unwrap_or(Err(DbError::NotFound { kind: "device" }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_wanted_twice_is_answered_twice_and_another_tenants_device_is_another_one() {
        let key =
            |tenant: u128, device: u128| (uuid::Uuid::from_u128(tenant).into(), uuid::Uuid::from_u128(device).into());
        let unreadable = || Err(DbError::NotFound { kind: "row" });
        let states = DeviceStates::from([(key(1, 1), unreadable()), (key(2, 1), unreadable())]);
        let answers = for_each(&[key(1, 1), key(2, 1), key(1, 2), key(1, 1)], states);
        let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap_err().to_string()).collect();
        assert_eq!(kinds.iter().filter(|kind| kind.contains("row")).count(), 3, "{kinds:?}");
        assert!(kinds[2].contains("device"), "{kinds:?}");
    }
}
