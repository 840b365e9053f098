//! What is looked after, on the disk and in memory, and when it is due.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::TrustpointId;
use trustfleet_wire::v1::{Enroll, Job, Lease, RootOffered, Task};

use crate::exchange::blocking;
use crate::store::{self, Store, StoreError};

/// First and longest wait after a failure.
const AGAIN_FIRST: SignedDuration = SignedDuration::from_mins(1);
const AGAIN_MOST: SignedDuration = SignedDuration::from_hours(6);
/// A CRL is replaced when this part of its life is left, or an hour where that is more.
const LEFT_PART: i32 = 10;
const BEFORE_END: SignedDuration = SignedDuration::from_hours(1);
/// The only version of the file's form.
pub(super) const VERSION: u16 = 1;

/// What is kept of a trustpoint's upkeep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u16,
    pub(super) device: String,
    pub(super) trustpoint: String,
    pub(super) services: Vec<String>,
    /// The last order, without secrets.
    pub(super) enroll: Enroll,
    #[serde(default)]
    pub(super) done: Done,
    /// Roots that follow anchors, as the CA told.
    #[serde(default)]
    pub(super) offered: Vec<RootOffered>,
    /// Files were changed, and services have not got their copies yet.
    #[serde(default)]
    pub(super) to_give: bool,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// When it last succeeded.
    pub(super) at: Option<Timestamp>,
    /// thisUpdate and nextUpdate of the CRL at hand.
    pub(super) crl: Option<(Timestamp, Timestamp)>,
    /// Failures since then, and when the last one was.
    pub(super) failures: u32,
    pub(super) failed_at: Option<Timestamp>,
}

impl Record {
    /// Roots that its orders do not have as anchors yet.
    pub(super) fn untrusted(&self) -> Vec<RootOffered> {
        let wanted = self.enroll.upkeep.as_ref().is_some_and(|upkeep| upkeep.roots);
        let trusted = |offered: &&RootOffered| self.enroll.trust_anchors.contains(&offered.root);
        self.offered.iter().filter(|_| wanted).filter(|offered| !trusted(offered)).cloned().collect()
    }
}

/// When to look after a trustpoint next; `every_s`: what the policy says. Two agents that began together come apart by a
/// tenth, by the trustpoint's id.
pub(super) fn due_at(done: &Done, every_s: u32, trustpoint: TrustpointId, now: Timestamp) -> Timestamp {
    let every = SignedDuration::from_secs(every_s.into());
    let share = f64::from(trustpoint.as_uuid().as_bytes()[15]) / 256.0;
    let mut due = done.at.map_or(now, |at| plus(at, every - every.mul_f64(share / 10.0)));
    if let Some((this_update, next_update)) = done.crl {
        let life = next_update.duration_since(this_update).max(SignedDuration::ZERO);
        let margin = (life / LEFT_PART).max(BEFORE_END.min(life / 2));
        let before_end = next_update.checked_sub(margin).unwrap_or(now);
        // A CA that has no newer one yet is not asked without a break.
        let rest = done.at.map_or(before_end, |at| plus(at, (life / 20).max(SignedDuration::from_secs(10))));
        due = due.min(before_end.max(rest));
    }
    match done.failed_at {
        None => due,
        Some(failed_at) => {
            let doublings = done.failures.saturating_sub(1).min(16);
            due.max(plus(failed_at, AGAIN_FIRST.saturating_mul(1 << doublings).min(AGAIN_MOST).min(every)))
        }
    }
}

/// All trustpoints that are looked after.
#[derive(Debug)]
pub struct Upkeep {
    pub(super) store: Store,
    due: Mutex<BTreeMap<TrustpointId, Timestamp>>,
}

impl Upkeep {
    /// Finds what is looked after.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let due = store.upkeep_ids()?.into_iter().map(|id| (id, Timestamp::MIN)).collect();
        Ok(Self { store: store.clone(), due: Mutex::new(due) })
    }

    /// A certificate was laid into its slot: its order says what is to be looked after from now on.
    pub async fn ordered(&self, job: &Job) {
        if let Task::Enroll(enroll) = &job.task {
            self.set(job.trustpoint_id, (&job.device, &job.trustpoint), &job.services, enroll).await;
        }
    }

    /// A lease was taken: it is newer than the last order.
    pub async fn leased(&self, lease: &Lease) {
        self.set(lease.trustpoint_id, (&lease.device, &lease.trustpoint), &lease.services, &lease.enroll).await;
    }

    async fn set(&self, id: TrustpointId, (device, trustpoint): (&str, &str), services: &[String], enroll: &Enroll) {
        let path = self.store.upkeep_file(id);
        let wanted = enroll.upkeep.is_some();
        let record = Record {
            version: VERSION,
            device: device.to_owned(),
            trustpoint: trustpoint.to_owned(),
            services: services.to_vec(),
            enroll: Enroll { mac: None, ..enroll.clone() },
            done: Done::default(),
            offered: Vec::new(),
            to_give: false,
        };
        let saved = blocking(move || {
            if !wanted {
                return store::remove(&path);
            }
            let kept = match store::load_json::<Record>(&path) {
                Ok(before) => before.map(|before| (before.done, before.offered, before.to_give)).unwrap_or_default(),
                Err(error) => {
                    tracing::warn!(%error, "what was looked after cannot be read; it is written anew");
                    // Whether services are owed their copies was lost with it: twice is better than never.
                    (Done::default(), Vec::new(), !record.services.is_empty())
                }
            };
            let (done, offered, to_give) = kept;
            store::save_json(&path, &Record { done, offered, to_give, ..record })
        });
        match saved.await {
            // Looking finds out what is no more to be looked after.
            Ok(Ok(())) => {
                self.due().insert(id, Timestamp::MIN);
            }
            Ok(Err(error)) => {
                tracing::warn!(trustpoint.id = %id, %error, "what to look after is not noted on the disk")
            }
            Err(_) => {}
        }
    }

    /// There is no such trustpoint any more.
    pub async fn forget(&self, id: TrustpointId) {
        let path = self.store.upkeep_file(id);
        if let Ok(Err(error)) = blocking(move || store::remove(&path)).await {
            tracing::warn!(trustpoint.id = %id, %error, "a removed trustpoint is still looked after");
        }
        self.due().insert(id, Timestamp::MIN);
    }

    pub(super) fn due(&self) -> MutexGuard<'_, BTreeMap<TrustpointId, Timestamp>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
    moment.checked_add(more).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn id(last: u8) -> TrustpointId {
        uuid::Uuid::from_u128(last.into()).into()
    }

    const DAY: u32 = 86_400;

    #[test]
    fn what_is_to_be_fresh_is_asked_for_as_often_as_the_policy_says_and_before_the_crl_ends() {
        assert_eq!(due_at(&Done::default(), DAY, id(0), at(5)), at(5), "at once");
        let done = Done { at: Some(at(0)), ..Done::default() };
        assert_eq!(due_at(&done, DAY, id(0), at(5)), at(86_400));
        let later = due_at(&done, DAY, id(255), at(5));
        assert!(later < at(86_400) && later >= at(77_760), "a fleet comes apart: {later}");
        // A CRL of ten hours: an hour before its end.
        let short = Done { crl: Some((at(0), at(36_000))), ..done };
        assert_eq!(due_at(&short, DAY, id(0), at(5)), at(32_400));
        // The CA had no newer one by then: after a twentieth of its life.
        let none_yet = Done { at: Some(at(32_400)), ..short };
        assert_eq!(due_at(&none_yet, DAY, id(0), at(32_401)), at(34_200));
        // One of a week: a tenth of it.
        let week = Done { crl: Some((at(0), at(7 * 86_400))), ..done };
        assert_eq!(due_at(&week, 30 * DAY, id(0), at(5)), at(7 * 86_400 - 60_480));
    }

    #[test]
    fn what_failed_is_asked_again_later_each_time() {
        let failed = |failures| Done { failures, failed_at: Some(at(0)), ..Done::default() };
        let wait = |failures| due_at(&failed(failures), DAY, id(0), at(0)).duration_since(at(0)).as_secs();
        assert_eq!([1, 2, 4, 40].map(wait), [60, 120, 480, 21_600]);
    }

    const LEASE: &str = include_str!("../../../shared/wire/tests/golden/v1/to_agent_lease.json");

    /// What stands on the disk after a lease was taken over whatever lay there.
    async fn taken_over(before: &str, services: &[&str]) -> serde_json::Value {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let trustfleet_wire::v1::ToAgent::Lease(mut lease) = serde_json::from_str(LEASE).unwrap() else {
            panic!("no lease")
        };
        lease.services = services.iter().map(|name| (*name).to_owned()).collect();
        lease.enroll.upkeep.get_or_insert_with(|| serde_json::from_str(r#"{"every_s": 60}"#).unwrap());
        let path = store.upkeep_file(lease.trustpoint_id);
        store::save(&path, before.as_bytes(), 0o600).unwrap();
        Upkeep::load(&store).unwrap().leased(&lease).await;
        store::load_json(&path).unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_written_anew_and_the_services_get_their_copies() {
        for damaged in ["", "{\"version\":1,", "{\"version\":1,\"to_give\":true}"] {
            assert_eq!(taken_over(damaged, &["radius"]).await["to_give"], true, "{damaged:?}");
            assert_eq!(taken_over(damaged, &[]).await["to_give"], false, "{damaged:?}: nobody is owed anything");
        }
    }

    #[tokio::test]
    async fn a_record_that_can_be_read_keeps_what_was_done_and_what_is_owed() {
        let mut whole = taken_over("", &["radius"]).await;
        whole["to_give"] = false.into();
        whole["done"]["failures"] = 3.into();
        let after = taken_over(&whole.to_string(), &["radius"]).await;
        assert_eq!((&after["to_give"], &after["done"]["failures"]), (&false.into(), &3.into()));
        whole["to_give"] = true.into();
        assert_eq!(taken_over(&whole.to_string(), &["radius"]).await["to_give"], true);
    }
}
