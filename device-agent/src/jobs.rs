//! All jobs the agent knows. A change counts only when its record is saved.
//!
//! A gateway has a job for each of ten thousand devices, and nearly all of them rest: they wait for their turn, or have
//! ended and are remembered in case they come again. Of these only a line is in memory; the record is read back, and
//! verified again, when somebody wants it. In memory as on the disk is what is worked on or has reports to send.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use trustfleet_model::ids::{JobId, LeaseId, MessageId, TrustpointId};
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Job, ToAgent};

use crate::lifecycle::{self, Rest};
use crate::record::{JobRecord, VERSION};
use crate::store::{self, Store, StoreError};

/// All jobs of the agent.
#[derive(Debug)]
pub struct JobBook {
    store: Store,
    controller_key: Arc<[u8]>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    active: BTreeMap<JobId, Arc<Entry>>,
    resting: BTreeMap<JobId, Rest>,
}

/// One job in memory; changes wait for each other.
#[derive(Debug)]
pub struct Entry {
    store: Store,
    held: tokio::sync::Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    live: Live,
    /// Whether the disk has all of it.
    saved: bool,
}

/// A record with its own message, verified.
#[derive(Clone, Debug)]
pub struct Live {
    /// What is remembered.
    pub record: JobRecord,
    /// The message in it.
    pub job: Job,
    /// The lease by which the agent began it by itself; none: the controller asked for it.
    pub lease_id: Option<LeaseId>,
}

impl JobBook {
    /// Reads all records, one after the other; the message in each is verified again with the controller's key. What
    /// cannot be read stays where it is, untouched, and is complained about: the controller offers an unfinished job again.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(store: &Store, controller_key: &[u8]) -> Result<Self, StoreError> {
        let mut jobs = Jobs::default();
        for id in store.job_ids()? {
            match read(store, id, controller_key) {
                Ok(live) => match lifecycle::rest(&live.record, &live.job) {
                    Some(rest) => {
                        jobs.resting.insert(id, rest);
                    }
                    None => {
                        jobs.active.insert(id, Arc::new(Entry::saved(store, live)));
                    }
                },
                Err(error) => tracing::error!(job.id = %id, %error, "a job record is left aside"),
            }
        }
        Ok(Self { store: store.clone(), controller_key: controller_key.into(), jobs: Mutex::new(jobs) })
    }

    /// A job by its id; one at rest is read from the disk.
    ///
    /// # Errors
    /// It is known, and cannot be read any more.
    pub async fn get(&self, id: JobId) -> Result<Option<Arc<Entry>>, StoreError> {
        {
            let jobs = self.jobs();
            if let Some(entry) = jobs.active.get(&id) {
                return Ok(Some(Arc::clone(entry)));
            }
            if !jobs.resting.contains_key(&id) {
                return Ok(None);
            }
        }
        let (store, key) = (self.store.clone(), Arc::clone(&self.controller_key));
        let live = tokio::task::spawn_blocking(move || read(&store, id, &key)).await;
        let live = live.unwrap_or_else(|_| Err(stopping(&self.store)))?;
        let mut jobs = self.jobs();
        jobs.resting.remove(&id);
        // Whoever read it at the same time and was faster may have changed it since.
        let entry = jobs.active.entry(id).or_insert_with(|| Arc::new(Entry::saved(&self.store, live)));
        Ok(Some(Arc::clone(entry)))
    }

    /// The jobs in memory, oldest first: those that are worked on or have reports without a receipt.
    pub fn active(&self) -> Vec<(JobId, Arc<Entry>)> {
        self.jobs().active.iter().map(|(id, entry)| (*id, Arc::clone(entry))).collect()
    }

    /// The jobs that rest, oldest first.
    pub fn resting(&self) -> Vec<(JobId, Rest)> {
        self.jobs().resting.iter().map(|(id, rest)| (*id, *rest)).collect()
    }

    /// Jobs that have not ended, oldest first.
    pub fn unfinished(&self) -> Vec<JobId> {
        let jobs = self.jobs();
        // A job that changes at this moment is not finished.
        let ended = |entry: &Entry| entry.held.try_lock().is_ok_and(|held| held.live.record.state.is_final());
        let active = jobs.active.iter().filter(|(_, entry)| !ended(entry)).map(|(id, _)| *id);
        let waiting = jobs.resting.iter().filter(|(_, rest)| matches!(rest, Rest::Waits { .. })).map(|(id, _)| *id);
        active.chain(waiting).collect()
    }

    /// Whether a job for a trustpoint has not ended.
    pub fn has_open(&self, trustpoint: TrustpointId) -> bool {
        let jobs = self.jobs();
        // One that changes at this moment may be the one.
        let open = |entry: &Entry| {
            entry
                .held
                .try_lock()
                .map_or(true, |held| held.live.job.trustpoint_id == trustpoint && !held.live.record.state.is_final())
        };
        let waits = |rest: &Rest| matches!(rest, Rest::Waits { trustpoint_id, .. } if *trustpoint_id == trustpoint);
        jobs.active.values().any(|entry| open(entry)) || jobs.resting.values().any(waits)
    }

    /// Takes up a new job: afterwards its record is on the disk, and it rests.
    ///
    /// # Errors
    /// The disk's; the job is not taken up then.
    pub async fn insert(&self, live: Live) -> Result<(), StoreError> {
        save(&self.store, live.record.clone()).await?;
        let id = live.record.job_id;
        let rest = lifecycle::rest(&live.record, &live.job);
        let mut jobs = self.jobs();
        match rest {
            Some(rest) => {
                jobs.resting.insert(id, rest);
            }
            None => {
                jobs.active.insert(id, Arc::new(Entry::saved(&self.store, live)));
            }
        }
        Ok(())
    }

    /// Lets a job rest if it can: nobody works with it, and the disk has all of it.
    pub fn rest(&self, id: JobId) {
        let mut jobs = self.jobs();
        let rest = jobs.active.get(&id).filter(|entry| Arc::strong_count(entry) == 1).and_then(|entry| {
            let held = entry.held.try_lock().ok()?;
            lifecycle::rest(&held.live.record, &held.live.job).filter(|_| held.saved)
        });
        if let Some(rest) = rest {
            jobs.active.remove(&id);
            jobs.resting.insert(id, rest);
        }
    }

    /// Forgets jobs that ended long ago; saves ends that could not be saved at their time.
    pub async fn forget_old(&self, now: Timestamp) {
        for (id, entry) in self.active() {
            if let Err(error) = entry.save_again().await {
                tracing::warn!(job.id = %id, %error, "the end of a job is still not saved");
            }
            drop(entry);
            self.rest(id);
        }
        for (id, rest) in self.resting() {
            if rest.is_forgotten(now) {
                match store::remove(&self.store.job_file(id)) {
                    Ok(()) => {
                        self.jobs().resting.remove(&id);
                    }
                    Err(error) => tracing::warn!(job.id = %id, %error, "an old job record cannot be removed"),
                }
            }
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn saved(store: &Store, live: Live) -> Self {
        Self { store: store.clone(), held: Held { live, saved: true }.into() }
    }

    /// The job as it stands.
    pub async fn snapshot(&self) -> Live {
        self.held.lock().await.live.clone()
    }

    /// Changes the job; saved first, then in memory.
    ///
    /// # Errors
    /// The disk's; nothing has changed then.
    pub async fn change(&self, change: impl FnOnce(&mut Live)) -> Result<(), StoreError> {
        let mut held = self.held.lock().await;
        let mut next = held.live.clone();
        change(&mut next);
        save(&self.store, next.record.clone()).await?;
        *held = Held { live: next, saved: true };
        Ok(())
    }

    /// Changes the job in memory whether it can be saved or not: for an end that has to be reported even when the disk
    /// is full.
    ///
    /// # Errors
    /// The disk's; the change counts for this process all the same.
    pub async fn settle(&self, change: impl FnOnce(&mut Live)) -> Result<(), StoreError> {
        let mut held = self.held.lock().await;
        change(&mut held.live);
        held.saved = false;
        save(&self.store, held.live.record.clone()).await?;
        held.saved = true;
        Ok(())
    }

    /// Notes a receipt. To the disk it comes with the job's next step, or at once where the job can rest then: a report that is told
    /// again after a restart in between does no harm, and a device's flash is not written for it.
    ///
    /// # Errors
    /// The disk's; the receipt counts for this process all the same.
    pub async fn answered(&self, report: MessageId) -> Result<(), StoreError> {
        let mut held = self.held.lock().await;
        held.live.record.reports.retain(|told| told.report_id != report);
        if lifecycle::rest(&held.live.record, &held.live.job).is_some() {
            held.saved = false;
            save(&self.store, held.live.record.clone()).await?;
            held.saved = true;
        }
        Ok(())
    }

    async fn save_again(&self) -> Result<(), StoreError> {
        if self.held.lock().await.saved { Ok(()) } else { self.settle(|_| {}).await }
    }
}

async fn save(store: &Store, record: JobRecord) -> Result<(), StoreError> {
    let path = store.job_file(record.job_id);
    let saved = tokio::task::spawn_blocking(move || store::save_json(&path, &record)).await;
    saved.unwrap_or_else(|_| Err(stopping(store)))
}

fn stopping(store: &Store) -> StoreError {
    StoreError::Corrupt { path: store.jobs(), detail: "the agent is stopping".to_owned() }
}

fn read(store: &Store, id: JobId, controller_key: &[u8]) -> Result<Live, StoreError> {
    let path = store.job_file(id);
    let corrupt = |detail: String| StoreError::Corrupt { path: path.clone(), detail };
    let record: JobRecord = store::load_json(&path)?.ok_or_else(|| corrupt("it is gone".to_owned()))?;
    if record.version != VERSION {
        return Err(corrupt(format!("it has version {}; this release reads version {VERSION}", record.version)));
    }
    match record.envelope.open(Purpose::ToAgent, controller_key) {
        Ok(ToAgent::Job(job)) if job.job_id == id && record.job_id == id => {
            Ok(Live { record, job: *job, lease_id: None })
        }
        Ok(ToAgent::Lease(lease)) if record.job_id == id => {
            Ok(Live { record, job: lease.job(id), lease_id: Some(lease.lease_id) })
        }
        Ok(_) => Err(corrupt("it holds another message than its name says".to_owned())),
        Err(error) => Err(corrupt(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use trustfleet_wire::Envelope;
    use trustfleet_wire::sign::SigningKey;

    use super::*;
    use crate::record::{Outcome, Outgoing, State};

    const JOB: &str = include_str!("../../shared/wire/tests/golden/v1/to_agent_job_activate.json");

    fn message(key: &SigningKey) -> (JobRecord, Job) {
        let message: ToAgent = serde_json::from_str(JOB).unwrap();
        let envelope = Envelope::seal(&message, Purpose::ToAgent, key).unwrap();
        let ToAgent::Job(job) = message else { panic!("not a job") };
        let record = JobRecord {
            version: VERSION,
            job_id: job.job_id,
            envelope,
            sequence: job.sequence,
            received_at: job.issued_at,
            state: State::Start,
            reports: Vec::new(),
            last_report: None,
            stop: false,
        };
        (record, *job)
    }

    #[tokio::test]
    async fn a_job_is_there_after_a_restart_exactly_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        let entry = book.get(job.job_id).await.unwrap().unwrap();
        let succeeded = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        entry.change(succeeded).await.unwrap();
        let again = JobBook::load(&store, &key.public_key()).unwrap();
        let live = again.get(job.job_id).await.unwrap().unwrap().snapshot().await;
        assert!(live.record.state.is_final());
        assert_eq!(live.job, job);
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_saved_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        let entry = book.get(job.job_id).await.unwrap().unwrap();
        fs::remove_dir_all(store.jobs()).unwrap();
        fs::write(store.jobs(), b"in the way").unwrap();
        let end = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        assert!(entry.change(end).await.is_err());
        assert!(!entry.snapshot().await.record.state.is_final());
        assert!(entry.settle(end).await.is_err());
        assert!(entry.snapshot().await.record.state.is_final(), "an end counts even when the disk is full");
    }

    #[tokio::test]
    async fn a_receipt_is_written_with_the_next_step_and_the_last_one_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (mut record, job) = message(&key);
        let report = |n: u128| Outgoing {
            report_id: uuid::Uuid::from_u128(n).into(),
            routing_key: "agent.x.r1".to_owned(),
            kind: "started".to_owned(),
            envelope: record.envelope.clone(),
        };
        (record.state, record.reports) =
            (State::Activation { serial: "1".to_owned() }, vec![report(1), report(2), report(3)]);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        let entry = book.get(job.job_id).await.unwrap().unwrap();
        let written = || {
            let record: JobRecord = store::load_json(&store.job_file(job.job_id)).unwrap().unwrap();
            record.reports.iter().map(|report| report.report_id.as_uuid().as_u128()).collect::<Vec<_>>()
        };
        let id = |n: u128| MessageId::from(uuid::Uuid::from_u128(n));
        entry.answered(id(1)).await.unwrap();
        assert_eq!(written(), [1, 2, 3]);
        entry.change(|live| live.record.state = State::Nothing { outcome: Outcome::Succeeded }).await.unwrap();
        assert_eq!(written(), [2, 3], "with the next step");
        entry.answered(id(2)).await.unwrap();
        assert_eq!(written(), [2, 3]);
        entry.answered(id(3)).await.unwrap();
        assert!(written().is_empty(), "nothing else will come");
        drop(entry);
        book.rest(job.job_id);
        assert!(book.active().is_empty(), "all of it is on the disk");
    }

    #[tokio::test]
    async fn a_record_that_was_tampered_with_is_not_acted_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (record, job) = message(&other);
        store::save_json(&store.job_file(job.job_id), &record).unwrap();
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        assert!(book.get(job.job_id).await.unwrap().is_none());
        assert!(store.job_file(job.job_id).exists(), "left for a person to look at");
    }

    #[tokio::test]
    async fn a_job_is_in_memory_only_while_somebody_works_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let id = job.job_id;
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        assert!(book.active().is_empty() && book.unfinished() == [id], "it waits for its turn on the disk");
        let entry = book.get(id).await.unwrap().unwrap();
        book.rest(id);
        assert_eq!(book.active().len(), 1, "somebody has it");
        entry.change(|live| live.record.state = State::Activation { serial: "1".to_owned() }).await.unwrap();
        drop(entry);
        book.rest(id);
        assert_eq!(book.active().len(), 1, "it is in the middle of something");
        let entry = book.get(id).await.unwrap().unwrap();
        entry.change(|live| live.record.state = State::Nothing { outcome: Outcome::Succeeded }).await.unwrap();
        drop(entry);
        book.rest(id);
        assert!(book.active().is_empty() && book.unfinished().is_empty());
        let live = book.get(id).await.unwrap().unwrap().snapshot().await;
        assert!(live.record.state.is_final() && live.job == job, "it is read back as it was");
    }

    #[tokio::test]
    async fn a_known_job_whose_record_is_gone_is_not_taken_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        fs::remove_file(store.job_file(job.job_id)).unwrap();
        assert!(book.get(job.job_id).await.is_err());
    }

    #[tokio::test]
    async fn an_end_that_could_not_be_saved_stays_in_memory_until_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let id = job.job_id;
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        book.insert(Live { record, job: job.clone(), lease_id: None }).await.unwrap();
        let away = dir.path().join("away");
        fs::rename(store.jobs(), &away).unwrap();
        let entry = book.get(id).await;
        assert!(entry.is_err(), "without its folder nothing is read");
        fs::rename(&away, store.jobs()).unwrap();
        let entry = book.get(id).await.unwrap().unwrap();
        fs::rename(store.jobs(), &away).unwrap();
        let end = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        assert!(entry.settle(end).await.is_err());
        drop(entry);
        book.rest(id);
        assert_eq!(book.active().len(), 1);
        fs::rename(&away, store.jobs()).unwrap();
        book.forget_old(job.issued_at).await;
        assert!(book.active().is_empty());
        assert!(JobBook::load(&store, &key.public_key()).unwrap().unfinished().is_empty(), "the end is on the disk");
    }
}
