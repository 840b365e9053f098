//! All jobs the agent knows, in memory as on the disk: a change counts only when its record is saved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use trustfleet_model::ids::JobId;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Job, ToAgent};

use crate::lifecycle;
use crate::record::{JobRecord, VERSION};
use crate::store::{self, Store, StoreError};

/// All jobs of the agent.
#[derive(Debug)]
pub struct JobBook {
    store: Store,
    entries: Mutex<BTreeMap<JobId, Arc<Entry>>>,
}

/// One job; changes wait for each other.
#[derive(Debug)]
pub struct Entry {
    store: Store,
    live: tokio::sync::Mutex<Live>,
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
        let mut entries = BTreeMap::new();
        for id in store.job_ids()? {
            match read(store, id, controller_key) {
                Ok(live) => {
                    entries.insert(id, Arc::new(Entry { store: store.clone(), live: live.into() }));
                }
                Err(error) => tracing::error!(job.id = %id, %error, "a job record is left aside"),
            }
        }
        Ok(Self { store: store.clone(), entries: Mutex::new(entries) })
    }

    /// A job by its id.
    pub fn get(&self, id: JobId) -> Option<Arc<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All jobs, oldest first.
    pub fn all(&self) -> Vec<(JobId, Arc<Entry>)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(id, entry)| (*id, Arc::clone(entry))).collect()
    }

    /// Takes up a new job: afterwards its record is on the disk.
    ///
    /// # Errors
    /// The disk's; the job is not taken up then.
    pub async fn insert(&self, record: JobRecord, job: Job) -> Result<Arc<Entry>, StoreError> {
        save(&self.store, record.clone()).await?;
        let id = record.job_id;
        let entry = Arc::new(Entry { store: self.store.clone(), live: Live { record, job }.into() });
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Forgets jobs that ended long ago.
    pub async fn forget_old(&self, now: Timestamp) {
        for (id, entry) in self.all() {
            let live = entry.live.lock().await;
            if lifecycle::forgettable(&live.record, &live.job, now) {
                match store::remove(&self.store.job_file(id)) {
                    Ok(()) => {
                        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    }
                    Err(error) => tracing::warn!(job.id = %id, %error, "an old job record cannot be removed"),
                }
            }
        }
    }
}

impl Entry {
    /// The job as it stands.
    pub async fn snapshot(&self) -> Live {
        self.live.lock().await.clone()
    }

    /// The job as it stands, unless it is changing at this moment.
    pub fn try_snapshot(&self) -> Option<Live> {
        self.live.try_lock().ok().map(|live| live.clone())
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
        save(&self.store, live.record.clone()).await
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
        let live = again.get(job.job_id).unwrap().snapshot().await;
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
        assert!(book.get(job.job_id).is_none());
        assert!(store.job_file(job.job_id).exists(), "left for a person to look at");
    }
}
