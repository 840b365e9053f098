//! The leases that this agent holds: by one it may renew a trustpoint by itself while the controller is out of reach.
//!
//! One file each, with the message as it came, verified again whenever it is read. In memory is only what decides. Of a
//! lease that has ended the greatest sequence is remembered until no lease of before could hold any more, so that a broker
//! that repeats an old message gives nothing back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::autonomy::Terms;
use trustfleet_model::ids::{AgentId, LeaseId, TrustpointId};
use trustfleet_wire::Envelope;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Lease, LeaseEnd, ToAgent};

use crate::order::Place;
use crate::store::{self, Store, StoreError};

/// The only version of the record's form.
const VERSION: u16 = 1;

/// What lies on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseRecord {
    version: u16,
    trustpoint_id: TrustpointId,
    /// Greatest sequence seen.
    sequence: u64,
    /// No lease with a smaller sequence holds longer.
    remember_until: Timestamp,
    /// The lease's message; none: it has ended.
    lease: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Tries::is_none")]
    tries: Tries,
}

/// What became of renewals by a lease so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tries {
    /// When the last one succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
    /// Failures since then.
    #[serde(default)]
    pub failures: u32,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

impl Tries {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is in memory of a lease that holds, or held.
#[derive(Clone, Debug)]
pub struct Known {
    /// What decides.
    pub terms: Terms,
    /// The lease.
    pub lease_id: LeaseId,
    /// Its trustpoint.
    pub place: Place,
    /// What became of renewals by it.
    pub tries: Tries,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    remember_until: Timestamp,
    known: Option<Known>,
}

/// All leases of the agent.
#[derive(Debug)]
pub struct LeaseBook {
    store: Store,
    controller_key: Arc<[u8]>,
    entries: Mutex<BTreeMap<TrustpointId, Entry>>,
}

/// What becomes of a message about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It counts from now on.
    Take,
    /// The same came before: it is answered again.
    Again,
    /// For another agent, out of its time, or older than what was seen: nothing.
    Drop,
}

/// Decides on an authentic message about a lease; `seen`: the greatest sequence so far.
pub fn intake(
    seen: Option<u64>,
    (agent, sequence, expires_at): (AgentId, u64, Timestamp),
    me: AgentId,
    now: Timestamp,
) -> Intake {
    match seen {
        _ if agent != me || expires_at <= now => Intake::Drop,
        Some(seen) if sequence < seen => Intake::Drop,
        Some(seen) if sequence == seen => Intake::Again,
        _ => Intake::Take,
    }
}

impl LeaseBook {
    /// Reads all leases. What cannot be read, or is not signed by the controller, is left aside: it gives no leave.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(store: &Store, controller_key: &[u8]) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        for id in store.lease_ids()? {
            match read(store, id, controller_key) {
                Ok(entry) => {
                    entries.insert(id, entry);
                }
                Err(error) => tracing::error!(trustpoint.id = %id, %error, "a lease is left aside"),
            }
        }
        Ok(Self { store: store.clone(), controller_key: controller_key.into(), entries: Mutex::new(entries) })
    }

    /// The greatest sequence seen for a trustpoint.
    pub fn sequence(&self, trustpoint: TrustpointId) -> Option<u64> {
        self.entries().get(&trustpoint).map(|entry| entry.sequence)
    }

    /// The leases that have not been ended.
    pub fn held(&self) -> Vec<Known> {
        self.entries().values().filter_map(|entry| entry.known.clone()).collect()
    }

    /// Takes a lease; afterwards it is on the disk. What became of renewals before goes with the trustpoint.
    ///
    /// # Errors
    /// The disk's; the former lease holds on then.
    pub async fn take(&self, lease: &Lease, place: Place, envelope: Envelope) -> Result<(), StoreError> {
        let id = lease.trustpoint_id;
        let before = self.entries().get(&id).cloned();
        let tries = before.as_ref().and_then(|entry| entry.known.as_ref()).map(|known| known.tries).unwrap_or_default();
        let remember_until = before.map_or(lease.expires_at, |before| before.remember_until.max(lease.expires_at));
        let known = Known { terms: terms(lease), lease_id: lease.lease_id, place, tries };
        let entry = Entry { sequence: lease.sequence, remember_until, known: Some(known) };
        self.save(id, &entry, Some(envelope)).await?;
        self.entries().insert(id, entry);
        Ok(())
    }

    /// Ends a trustpoint's lease. It counts at once, whether it can be saved or not.
    ///
    /// # Errors
    /// The disk's: after a restart the lease would hold again.
    pub async fn end(&self, end: &LeaseEnd) -> Result<(), StoreError> {
        let id = end.trustpoint_id;
        let before = self.entries().get(&id).map(|entry| entry.remember_until);
        let remember_until = before.map_or(end.expires_at, |before| before.max(end.expires_at));
        let entry = Entry { sequence: end.sequence, remember_until, known: None };
        self.entries().insert(id, entry.clone());
        self.save(id, &entry, None).await
    }

    /// Ends all leases: the controller lets the agent in no more. Says how many there were.
    pub async fn end_all(&self) -> usize {
        let all: Vec<_> = {
            let mut entries = self.entries();
            let held = entries.iter_mut().filter(|(_, entry)| entry.known.is_some());
            held.map(|(id, entry)| {
                entry.known = None;
                (*id, entry.clone())
            })
            .collect()
        };
        for (id, entry) in &all {
            if let Err(error) = self.save(*id, entry, None).await {
                tracing::error!(trustpoint.id = %id, %error, "the end of a lease cannot be saved");
            }
        }
        all.len()
    }

    /// Takes note of what became of a renewal.
    ///
    /// # Errors
    /// The disk's; it counts for this process all the same.
    pub async fn note(&self, trustpoint: TrustpointId, succeeded: bool, now: Timestamp) -> Result<(), StoreError> {
        let entry = {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(&trustpoint) else { return Ok(()) };
            let Some(known) = &mut entry.known else { return Ok(()) };
            known.tries = if succeeded {
                Tries { renewed_at: Some(now), ..Tries::default() }
            } else {
                let failures = known.tries.failures.saturating_add(1);
                Tries { failures, failed_at: Some(now), ..known.tries }
            };
            entry.clone()
        };
        let (_, envelope) = self.read(trustpoint).await?;
        self.save(trustpoint, &entry, Some(envelope)).await
    }

    /// The whole lease of a trustpoint with its message, read from the disk and verified.
    ///
    /// # Errors
    /// It is not there, or cannot be read any more.
    pub async fn read(&self, trustpoint: TrustpointId) -> Result<(Lease, Envelope), StoreError> {
        let (store, key) = (self.store.clone(), Arc::clone(&self.controller_key));
        let path = store.lease_file(trustpoint);
        let read = tokio::task::spawn_blocking(move || open(&store, trustpoint, &key)).await;
        let corrupt = |detail: &str| StoreError::Corrupt { path, detail: detail.to_owned() };
        match read {
            Ok(read) => read?.1.ok_or_else(|| corrupt("it has ended")),
            Err(_) => Err(corrupt("the agent is stopping")),
        }
    }

    /// Forgets what has ended, where no message of before could give it back.
    pub fn forget_old(&self, now: Timestamp) {
        let mut entries = self.entries();
        entries.retain(|id, entry| {
            let old = entry.remember_until <= now;
            if !old {
                return true;
            }
            match store::remove(&self.store.lease_file(*id)) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(trustpoint.id = %id, %error, "an old lease cannot be removed");
                    true
                }
            }
        });
    }

    async fn save(&self, id: TrustpointId, entry: &Entry, lease: Option<Envelope>) -> Result<(), StoreError> {
        let record = LeaseRecord {
            version: VERSION,
            trustpoint_id: id,
            sequence: entry.sequence,
            remember_until: entry.remember_until,
            lease,
            tries: entry.known.as_ref().map(|known| known.tries).unwrap_or_default(),
        };
        let path = self.store.lease_file(id);
        let stopping = StoreError::Corrupt { path: path.clone(), detail: "the agent is stopping".to_owned() };
        let saved = tokio::task::spawn_blocking(move || store::save_json(&path, &record)).await;
        saved.unwrap_or(Err(stopping))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<TrustpointId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn terms(lease: &Lease) -> Terms {
    Terms {
        trustpoint_id: lease.trustpoint_id,
        emergency_percent: lease.emergency_percent,
        expires_at: lease.expires_at,
    }
}

fn read(store: &Store, id: TrustpointId, controller_key: &[u8]) -> Result<Entry, StoreError> {
    let (record, lease) = open(store, id, controller_key)?;
    let known = match lease {
        None => None,
        Some((lease, _)) => {
            let corrupt = |detail: String| StoreError::Corrupt { path: store.lease_file(id), detail };
            let place = Place::named(&lease.device, &lease.trustpoint).map_err(|error| corrupt(error.to_string()))?;
            Some(Known { terms: terms(&lease), lease_id: lease.lease_id, place, tries: record.tries })
        }
    };
    Ok(Entry { sequence: record.sequence, remember_until: record.remember_until, known })
}

type Opened = (LeaseRecord, Option<(Lease, Envelope)>);

fn open(store: &Store, id: TrustpointId, controller_key: &[u8]) -> Result<Opened, StoreError> {
    let path = store.lease_file(id);
    let corrupt = |detail: String| StoreError::Corrupt { path: path.clone(), detail };
    let mut record: LeaseRecord = store::load_json(&path)?.ok_or_else(|| corrupt("it is gone".to_owned()))?;
    if record.version != VERSION {
        return Err(corrupt(format!("it has version {}; this release reads version {VERSION}", record.version)));
    }
    let Some(envelope) = record.lease.take() else { return Ok((record, None)) };
    match envelope.open(Purpose::ToAgent, controller_key) {
        Ok(ToAgent::Lease(lease)) if lease.trustpoint_id == id && lease.sequence == record.sequence => {
            Ok((record, Some((*lease, envelope))))
        }
        Ok(_) => Err(corrupt("it holds another message than its name says".to_owned())),
        Err(error) => Err(corrupt(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use trustfleet_wire::sign::SigningKey;

    use super::*;

    const LEASE: &str = include_str!("../../shared/wire/tests/golden/v1/to_agent_lease.json");
    const END: &str = include_str!("../../shared/wire/tests/golden/v1/to_agent_lease_end.json");

    fn message(key: &SigningKey) -> (Lease, Envelope) {
        let message: ToAgent = serde_json::from_str(LEASE).unwrap();
        let envelope = Envelope::seal(&message, Purpose::ToAgent, key).unwrap();
        let ToAgent::Lease(lease) = message else { panic!("no lease") };
        (*lease, envelope)
    }

    fn place() -> Place {
        Place::named("ap-1", "dot1x").unwrap()
    }

    #[tokio::test]
    async fn a_lease_is_there_after_a_restart_with_what_became_of_it_and_one_that_was_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (lease, envelope) = message(&key);
        let now = lease.issued_at;
        let book = LeaseBook::load(&store, &key.public_key()).unwrap();
        book.take(&lease, place(), envelope).await.unwrap();
        book.note(lease.trustpoint_id, false, now).await.unwrap();
        let again = LeaseBook::load(&store, &key.public_key()).unwrap();
        let held = again.held();
        assert_eq!((held.len(), held[0].tries.failures, held[0].tries.failed_at), (1, 1, Some(now)));
        assert_eq!(again.read(lease.trustpoint_id).await.unwrap().0, lease);

        let ToAgent::LeaseEnd(end) = serde_json::from_str(END).unwrap() else { panic!("no end") };
        again.end(&end).await.unwrap();
        let after = LeaseBook::load(&store, &key.public_key()).unwrap();
        assert!(after.held().is_empty() && after.read(lease.trustpoint_id).await.is_err());
        assert_eq!(after.sequence(lease.trustpoint_id), Some(end.sequence), "an old message gives nothing back");
        after.forget_old(end.expires_at);
        assert!(after.sequence(lease.trustpoint_id).is_none() && store.lease_ids().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_lease_of_another_signer_gives_no_leave() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (lease, envelope) = message(&other);
        LeaseBook::load(&store, &other.public_key()).unwrap().take(&lease, place(), envelope).await.unwrap();
        assert!(LeaseBook::load(&store, &key.public_key()).unwrap().held().is_empty());
    }

    #[tokio::test]
    async fn all_leases_end_when_the_agent_is_let_in_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (lease, envelope) = message(&key);
        let book = LeaseBook::load(&store, &key.public_key()).unwrap();
        book.take(&lease, place(), envelope).await.unwrap();
        assert_eq!((book.end_all().await, book.end_all().await), (1, 0));
        assert!(LeaseBook::load(&store, &key.public_key()).unwrap().held().is_empty());
        assert_eq!(book.sequence(lease.trustpoint_id), Some(lease.sequence));
    }

    #[test]
    fn of_two_messages_about_a_lease_the_newer_counts_whatever_their_order() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (me, other): (AgentId, AgentId) = (uuid::Uuid::from_u128(7).into(), uuid::Uuid::from_u128(8).into());
        let of = |seen, sequence| intake(seen, (me, sequence, at(100)), me, at(1));
        assert_eq!((of(None, 1), of(Some(1), 2)), (Intake::Take, Intake::Take));
        assert_eq!((of(Some(2), 2), of(Some(3), 2)), (Intake::Again, Intake::Drop));
        assert_eq!(intake(None, (other, 1, at(100)), me, at(1)), Intake::Drop, "for another agent");
        assert_eq!(intake(None, (me, 1, at(100)), me, at(100)), Intake::Drop, "it has ended");
    }
}
