//! All jobs the agent knows, in memory as on the disk: a change counts only when its record is saved.
//!
//! A job that has ended and is answered for rests: its record stays on the disk for as long as a message about it can come,
//! and memory keeps no more of it than when it may be forgotten. So an agent in front of thousands of devices pays for
//! those that something happens to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use trustfleet_model::ids::JobId;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Job, ToAgent};

use crate::lifecycle::{self, Resting};
use crate::record::{JobRecord, VERSION};
use crate::store::{self, Store, StoreError};

/// All jobs of the agent.
#[derive(Debug)]
pub struct JobBook {
    store: Store,
    controller_key: Vec<u8>,
    jobs: Mutex<BTreeMap<JobId, Known>>,
}

#[derive(Debug)]
enum Known {
    /// Something is still to be done or reported.
    Awake(Arc<Entry>),
    /// Nothing is; all of it is on the disk.
    Resting(Resting),
}

/// One job; changes wait for each other.
#[derive(Debug)]
pub struct Entry {
    store: Store,
    live: tokio::sync::Mutex<Live>,
    /// The disk refused the last change: only memory knows of it.
    unsaved: AtomicBool,
}

/// A record with its own message, verified.
#[derive(Clone, Debug)]
pub struct Live {
    /// What is remembered.
    pub record: JobRecord,
    /// The message in it.
    pub job: Job,
}

impl JobBook {
    /// Reads all records back; the message in each is verified again with the controller's key. What cannot be read
    /// stays where it is, untouched, and is complained about: the controller offers an unfinished job again.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(store: &Store, controller_key: &[u8]) -> Result<Self, StoreError> {
        let mut jobs = BTreeMap::new();
        for id in store.job_ids()? {
            match read(store, id, controller_key) {
                Ok(live) => {
                    let known = Resting::of(&live.record, &live.job);
                    jobs.insert(id, known.map_or_else(|| Known::Awake(Entry::new(store, live)), Known::Resting));
                }
                Err(error) => tracing::error!(job.id = %id, %error, "a job record is left aside"),
            }
        }
        Ok(Self { store: store.clone(), controller_key: controller_key.to_vec(), jobs: Mutex::new(jobs) })
    }

    /// A job by its id; one that rests is read back and is awake from now on.
    ///
    /// # Errors
    /// The record of a job that rests cannot be read.
    pub fn find(&self, id: JobId) -> Result<Option<Arc<Entry>>, StoreError> {
        let mut jobs = self.jobs();
        match jobs.get(&id) {
            None => Ok(None),
            Some(Known::Awake(entry)) => Ok(Some(Arc::clone(entry))),
            Some(Known::Resting(_)) => {
                let live = read(&self.store, id, &self.controller_key)?;
                let entry = Entry::new(&self.store, live);
                jobs.insert(id, Known::Awake(Arc::clone(&entry)));
                Ok(Some(entry))
            }
        }
    }

    /// All jobs that do not rest, oldest first.
    pub fn awake(&self) -> Vec<(JobId, Arc<Entry>)> {
        let jobs = self.jobs();
        let awake = jobs.iter().filter_map(|(id, known)| match known {
            Known::Awake(entry) => Some((*id, Arc::clone(entry))),
            Known::Resting(_) => None,
        });
        awake.collect()
    }

    /// Takes up a new job: afterwards its record is on the disk.
    ///
    /// # Errors
    /// The disk's; the job is not taken up then.
    pub async fn insert(&self, record: JobRecord, job: Job) -> Result<Arc<Entry>, StoreError> {
        save(&self.store, record.clone()).await?;
        let id = record.job_id;
        let entry = Entry::new(&self.store, Live { record, job });
        self.jobs().insert(id, Known::Awake(Arc::clone(&entry)));
        Ok(entry)
    }

    /// Lets a job rest if nothing is left to do for it and the disk knows all of it.
    pub async fn rest(&self, id: JobId, entry: &Entry) {
        let live = entry.live.lock().await;
        let resting = Resting::of(&live.record, &live.job);
        if let Some(resting) = resting.filter(|_| !entry.unsaved.load(Ordering::Relaxed)) {
            self.jobs().insert(id, Known::Resting(resting));
        }
    }

    /// Forgets jobs that ended long ago.
    pub fn forget_old(&self, now: Timestamp) {
        self.jobs().retain(|id, known| {
            let Known::Resting(resting) = known else { return true };
            if !lifecycle::forgettable(resting, now) {
                return true;
            }
            let removed = store::remove(&self.store.job_file(*id));
            if let Err(error) = &removed {
                tracing::warn!(job.id = %id, %error, "an old job record cannot be removed");
            }
            removed.is_err()
        });
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Known>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(store: &Store, live: Live) -> Arc<Self> {
        Arc::new(Self { store: store.clone(), live: live.into(), unsaved: AtomicBool::new(false) })
    }

    /// The job as it stands.
    pub async fn snapshot(&self) -> Live {
        self.live.lock().await.clone()
    }

    /// Whether something may still happen to it: one that changes at this moment is not finished.
    pub fn is_unfinished(&self) -> bool {
        self.live.try_lock().map_or(true, |live| !live.record.state.is_final())
    }

    /// Changes the job; saved first, then in memory.
    ///
    /// # Errors
    /// The disk's; nothing has changed then.
    pub async fn change(&self, change: impl FnOnce(&mut Live)) -> Result<(), StoreError> {
        let mut live = self.live.lock().await;
        let mut next = live.clone();
        change(&mut next);
        save(&self.store, next.record.clone()).await?;
        *live = next;
        self.unsaved.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Changes the job in memory whether it can be saved or not: for an end that has to be reported even when the disk
    /// is full.
    ///
    /// # Errors
    /// The disk's; the change counts for this process all the same.
    pub async fn settle(&self, change: impl FnOnce(&mut Live)) -> Result<(), StoreError> {
        let mut live = self.live.lock().await;
        change(&mut live);
        let saved = save(&self.store, live.record.clone()).await;
        self.unsaved.store(saved.is_err(), Ordering::Relaxed);
        saved
    }
}

async fn save(store: &Store, record: JobRecord) -> Result<(), StoreError> {
    let path = store.job_file(record.job_id);
    let saved = tokio::task::spawn_blocking(move || store::save_json(&path, &record)).await;
    saved.unwrap_or_else(|_| {
        let detail = "the agent is stopping".to_owned();
        Err(StoreError::Corrupt { path: store.jobs(), detail })
    })
}

fn read(store: &Store, id: JobId, controller_key: &[u8]) -> Result<Live, StoreError> {
    let path = store.job_file(id);
    let corrupt = |detail: String| StoreError::Corrupt { path: path.clone(), detail };
    let record: JobRecord = store::load_json(&path)?.ok_or_else(|| corrupt("it is gone".to_owned()))?;
    if record.version != VERSION {
        return Err(corrupt(format!("it has version {}; this release reads version {VERSION}", record.version)));
    }
    match record.envelope.open(Purpose::ToAgent, controller_key) {
        Ok(ToAgent::Job(job)) if job.job_id == id && record.job_id == id => Ok(Live { record, job: *job }),
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
    use crate::record::{Outcome, State};

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
        let entry = book.insert(record, job.clone()).await.unwrap();
        let succeeded = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        entry.change(succeeded).await.unwrap();
        let again = JobBook::load(&store, &key.public_key()).unwrap();
        let live = again.find(job.job_id).unwrap().unwrap().snapshot().await;
        assert!(live.record.state.is_final());
        assert_eq!(live.job, job);
    }

    #[tokio::test]
    async fn a_job_that_has_ended_and_is_answered_for_rests_until_it_is_spoken_of_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        let entry = book.insert(record, job.clone()).await.unwrap();
        book.rest(job.job_id, &entry).await;
        assert_eq!(book.awake().len(), 1, "it has not ended");
        entry.settle(|live| live.record.state = State::Nothing { outcome: Outcome::Succeeded }).await.unwrap();
        book.rest(job.job_id, &entry).await;
        assert!(book.awake().is_empty());
        assert!(JobBook::load(&store, &key.public_key()).unwrap().awake().is_empty(), "nor after a restart");
        let live = book.find(job.job_id).unwrap().unwrap().snapshot().await;
        assert_eq!((live.job, live.record.state.is_final(), book.awake().len()), (job, true, 1));
    }

    #[tokio::test]
    async fn what_only_memory_knows_does_not_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        let entry = book.insert(record, job.clone()).await.unwrap();
        fs::remove_dir_all(store.jobs()).unwrap();
        fs::write(store.jobs(), b"in the way").unwrap();
        let end = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        assert!(entry.settle(end).await.is_err());
        book.rest(job.job_id, &entry).await;
        assert_eq!(book.awake().len(), 1);
    }

    #[tokio::test]
    async fn old_jobs_are_forgotten_on_the_disk_and_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        let entry = book.insert(record, job.clone()).await.unwrap();
        let much_later = job.expires_at + jiff::SignedDuration::from_hours(48);
        book.forget_old(much_later);
        assert!(store.job_file(job.job_id).exists(), "it has not ended");
        entry.settle(|live| live.record.state = State::Nothing { outcome: Outcome::Succeeded }).await.unwrap();
        book.rest(job.job_id, &entry).await;
        book.forget_old(job.issued_at);
        assert!(store.job_file(job.job_id).exists(), "its message may still come again");
        book.forget_old(much_later);
        assert!(!store.job_file(job.job_id).exists() && book.find(job.job_id).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_saved_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let key = SigningKey::generate().unwrap();
        let (record, job) = message(&key);
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        let entry = book.insert(record, job.clone()).await.unwrap();
        fs::remove_dir_all(store.jobs()).unwrap();
        fs::write(store.jobs(), b"in the way").unwrap();
        let end = |live: &mut Live| live.record.state = State::Nothing { outcome: Outcome::Succeeded };
        assert!(entry.change(end).await.is_err());
        assert!(!entry.snapshot().await.record.state.is_final());
        assert!(entry.settle(end).await.is_err());
        assert!(entry.snapshot().await.record.state.is_final(), "an end counts even when the disk is full");
    }

    #[tokio::test]
    async fn a_record_that_was_tampered_with_is_not_acted_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (record, job) = message(&other);
        store::save_json(&store.job_file(job.job_id), &record).unwrap();
        let book = JobBook::load(&store, &key.public_key()).unwrap();
        assert!(book.find(job.job_id).unwrap().is_none());
        assert!(store.job_file(job.job_id).exists(), "left for a person to look at");
    }
}
