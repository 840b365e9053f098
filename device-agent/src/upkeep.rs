//! CA certificates and CRLs of trustpoints, kept fresh beside their certificates.
//!
//! The policy says what and how often; what is needed for it lies in a file for each trustpoint, as its last order or lease had
//! it. CA certificates are asked for by genm, CRLs by the distribution points of the certificate in use and by genm where
//! these give none. Nothing counts that does not lead to a configured anchor; what changed is written beside the slots, and
//! the trustpoint's services are given their copies anew. No anchor is ever added or replaced: a root that follows one is
//! told to the controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::request::Credentials;
use trustfleet_cmp::transaction::{Input, Step, Transaction};
use trustfleet_cmp::{Conclusion, Crl, CrlOf, InfoRequest, Information, Question, Request};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::field::Violations;
use trustfleet_model::ids::{JobId, TrustpointId};
use trustfleet_pki::Certificate;
use trustfleet_pki::chain::verify_signer;
use trustfleet_wire::v1::{Blob, Enroll, Job, Lease, RootOffered, Task};

use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::order::{Order, Place, Talk};
use crate::services::{Given, Giving};
use crate::slots::{Slot, Slots};
use crate::store::{self, Store, StoreError};

/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// First and longest wait after a failure.
const AGAIN_FIRST: SignedDuration = SignedDuration::from_mins(1);
const AGAIN_MOST: SignedDuration = SignedDuration::from_hours(6);
/// A CRL is replaced when this part of its life is left, or an hour where that is more.
const LEFT_PART: i32 = 10;
const BEFORE_END: SignedDuration = SignedDuration::from_hours(1);
/// Longest wait for a CA that answers `waiting` to a question.
const WAIT_MOST_S: u64 = 60;
/// Most distribution points that are asked.
const POINTS_MAX: usize = 4;
/// The only version of the file's form.
const VERSION: u16 = 1;

/// What is kept of a trustpoint's upkeep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u16,
    device: String,
    trustpoint: String,
    services: Vec<String>,
    /// The last order, without secrets.
    enroll: Enroll,
    #[serde(default)]
    done: Done,
    /// Roots that follow anchors, as the CA told.
    #[serde(default)]
    offered: Vec<RootOffered>,
    /// Files were changed, and services have not got their copies yet.
    #[serde(default)]
    to_give: bool,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    /// When it last succeeded.
    at: Option<Timestamp>,
    /// thisUpdate and nextUpdate of the CRL at hand.
    crl: Option<(Timestamp, Timestamp)>,
    /// Failures since then, and when the last one was.
    failures: u32,
    failed_at: Option<Timestamp>,
}

impl Record {
    /// Roots that its orders do not have as anchors yet.
    fn untrusted(&self) -> Vec<RootOffered> {
        let wanted = self.enroll.upkeep.as_ref().is_some_and(|upkeep| upkeep.roots);
        let trusted = |offered: &&RootOffered| self.enroll.trust_anchors.contains(&offered.root);
        self.offered.iter().filter(|_| wanted).filter(|offered| !trusted(offered)).cloned().collect()
    }
}

/// When to look after a trustpoint next; `every_s`: what the policy says. Two agents that began together come apart by a
/// tenth, by the trustpoint's id.
fn due_at(done: &Done, every_s: u32, trustpoint: TrustpointId, now: Timestamp) -> Timestamp {
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
    store: Store,
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
            let before: Option<Record> = store::load_json(&path).unwrap_or_default();
            let (done, offered, to_give) =
                before.map(|before| (before.done, before.offered, before.to_give)).unwrap_or_default();
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

    fn due(&self) -> MutexGuard<'_, BTreeMap<TrustpointId, Timestamp>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after all trustpoints until the agent stops, one after the other.
pub async fn keep(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = core.stopping() => return,
        }
        let now = core.identity.clock.now();
        let due: Vec<TrustpointId> =
            core.upkeep.due().iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            match look(&core, id).await {
                Ok(Some(next)) => {
                    core.upkeep.due().insert(id, next);
                }
                Ok(None) => {
                    core.upkeep.due().remove(&id);
                }
                Err(Halt::Stopping | Halt::Ordered) => return,
                Err(Halt::Failed(failed)) => {
                    tracing::warn!(trustpoint.id = %id, "not looked after: {}", failed.message)
                }
            }
        }
    }
}

/// Looks after one trustpoint, if that is due; says when to look again. None: there is nothing to look after any more.
async fn look(core: &Arc<Core>, id: TrustpointId) -> Result<Option<Timestamp>, Halt> {
    let path = core.upkeep.store.upkeep_file(id);
    let file = path.clone();
    let record = blocking(move || store::load_json::<Record>(&file)).await?;
    let mut record = match record {
        Ok(Some(record)) if record.version == VERSION => record,
        Ok(None) => {
            core.identity.roots.set(id, Vec::new());
            return Ok(None);
        }
        Ok(Some(_)) | Err(_) => {
            tracing::error!(trustpoint.id = %id, "what to look after cannot be read; it waits for the next order");
            return Ok(None);
        }
    };
    let Some(settings) = record.enroll.upkeep.clone() else { return Ok(None) };
    core.identity.roots.set(id, record.untrusted());
    let now = core.identity.clock.now();
    let due = due_at(&record.done, settings.every_s, id, now);
    if due > now && !record.to_give {
        return Ok(Some(due));
    }
    let outcome = if due > now { Ok(()) } else { refresh(core, id, &mut record, now).await? };
    match outcome {
        Ok(()) => {}
        Err(reason) => {
            record.done.failures = record.done.failures.saturating_add(1);
            record.done.failed_at = Some(now);
            tracing::warn!(device = %record.device, trustpoint = %record.trustpoint, reason, "CA certificates or CRLs are not fresh");
        }
    }
    core.identity.roots.set(id, record.untrusted());
    // Before the services: what is cut off from here on is given after the restart.
    save(&path, &record).await?;
    if record.to_give && give(core, &record).await? {
        record.to_give = false;
        save(&path, &record).await?;
    }
    let next = due_at(&record.done, settings.every_s, id, now);
    Ok(Some(next.max(plus(now, SignedDuration::from_secs(10)))))
}

async fn save(path: &std::path::Path, record: &Record) -> Result<(), Halt> {
    let (path, record) = (path.to_owned(), record.clone());
    if let Err(error) = blocking(move || store::save_json(&path, &record)).await? {
        tracing::warn!(%error, "what was looked after is not noted on the disk");
    }
    Ok(())
}

/// Asks for everything that the policy wants; what changed is on the disk then.
async fn refresh(
    core: &Arc<Core>,
    id: TrustpointId,
    record: &mut Record,
    now: Timestamp,
) -> Result<Result<(), String>, Halt> {
    let Some(settings) = record.enroll.upkeep.clone() else { return Ok(Ok(())) };
    let asking = match Asking::of(core, record) {
        Ok(Some(asking)) => asking,
        Ok(None) => return Ok(Err("there is no certificate in use to ask with".to_owned())),
        Err(reason) => return Ok(Err(reason)),
    };
    let Ok(place) = Place::named(&record.device, &record.trustpoint) else { return Ok(Ok(())) };
    let slots = core.slots(&place);
    let (mut troubles, mut changed) = (Vec::new(), false);
    if settings.ca_certs {
        match asking.ca_certificates(now).await? {
            Ok(found) => changed |= write(&slots, &slots.ca_file(), bundle(&found)).await?,
            Err(reason) => troubles.push(format!("CA certificates: {reason}")),
        }
    }
    if settings.crls {
        let held = record.done.crl.map(|(this_update, _)| this_update);
        match asking.crl(&slots, held, now).await? {
            Ok(Some((crl, dates))) => {
                record.done.crl = Some(dates);
                changed |= write(&slots, &slots.crl_file(), crl.as_der().to_vec()).await?;
            }
            // There is none that is newer.
            Ok(None) => {}
            Err(reason) => troubles.push(format!("CRL: {reason}")),
        }
    }
    if settings.roots {
        match asking.following(id).await? {
            Ok(found) => record.offered = found,
            Err(reason) => troubles.push(format!("roots: {reason}")),
        }
    }
    record.to_give |= changed && !record.services.is_empty();
    if changed {
        tracing::info!(device = %record.device, trustpoint = %record.trustpoint, "CA certificates or CRL renewed");
    }
    if troubles.is_empty() {
        record.done = Done { at: Some(now), failures: 0, failed_at: None, ..record.done };
        Ok(Ok(()))
    } else {
        Ok(Err(troubles.join("; ")))
    }
}

fn bundle(certificates: &[Certificate]) -> Vec<u8> {
    certificates.iter().map(Certificate::to_pem).collect::<String>().into_bytes()
}

/// Writes a file that differs; says whether it did.
async fn write(slots: &Slots, path: &std::path::Path, bytes: Vec<u8>) -> Result<bool, Halt> {
    let (slots, path) = (slots.clone(), path.to_owned());
    let written = blocking(move || {
        if store::load(&path)?.as_deref() == Some(bytes.as_slice()) {
            return Ok(false);
        }
        slots.make_root()?;
        store::save(&path, &bytes, 0o644).map(|()| true)
    });
    Ok(written.await?.unwrap_or_else(|error: StoreError| {
        tracing::warn!(%error, "what is fresh cannot be written");
        false
    }))
}

/// Gives the trustpoint's services their copies anew; whether that is done with, well or badly.
async fn give(core: &Arc<Core>, record: &Record) -> Result<bool, Halt> {
    let Ok(place) = Place::named(&record.device, &record.trustpoint) else { return Ok(true) };
    // A job of the trustpoint has the turn, and gives them what is fresh by itself.
    let Ok(_turn) = core.lock_of(&place).try_lock_owned() else { return Ok(false) };
    let slots = core.slots(&place);
    let Ok(Some((certificate, _))) = slots.certificate(Slot::Current) else { return Ok(true) };
    let giving = Giving {
        core,
        job_id: JobId::fresh(core.identity.clock.now(), core.identity.random_id()),
        place: &place,
        serial: certificate.serial_hex(),
        services: record.services.clone(),
        replaced_is_revoked: false,
    };
    let given = giving.give().await;
    giving.told().await;
    match given {
        Ok(Given::InUse { .. }) => {
            tracing::info!(device = %record.device, trustpoint = %record.trustpoint, "services have what is fresh");
            Ok(true)
        }
        Ok(Given::Failed(failed)) | Err(Halt::Failed(failed)) => {
            tracing::error!(device = %record.device, trustpoint = %record.trustpoint, "services did not take what is fresh: {}", failed.message);
            Ok(true)
        }
        Err(halt) => Err(halt),
    }
}

/// How a CA is asked for one trustpoint.
struct Asking {
    core: Arc<Core>,
    talk: Talk,
    credentials: Credentials,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

impl Asking {
    fn of(core: &Arc<Core>, record: &Record) -> Result<Option<Self>, String> {
        let words = |violations: Violations| violations.to_string();
        let place = Place::named(&record.device, &record.trustpoint).map_err(words)?;
        let talk = Order::of(&record.enroll).map_err(words)?.talk;
        core.accept.check(&talk).map_err(words)?;
        let slots = core.slots(&place);
        let current = slots.certificate(Slot::Current).map_err(|error| error.to_string())?;
        let (Some((certificate, _)), Some(folder)) = (current, slots.folder(Slot::Current)) else { return Ok(None) };
        let signer = core.keys.load(&folder).map_err(|error| error.to_string())?;
        let chain = slots.chain(Slot::Current);
        let credentials = Credentials::Signature { signer, certificate: certificate.clone(), chain: chain.clone() };
        Ok(Some(Self { core: Arc::clone(core), talk, credentials, certificate, chain }))
    }

    fn anchors(&self) -> &[Certificate] {
        &self.talk.acceptance.anchors
    }

    /// The CA certificates that it names, as far as they lead to an anchor.
    async fn ca_certificates(&self, now: Timestamp) -> Result<Result<Vec<Certificate>, String>, Halt> {
        Ok(self.ask(Question::CaCerts).await?.map(|information| match information {
            Information::CaCerts(found) => leading(&found, self.anchors(), now),
            _ => Vec::new(),
        }))
    }

    /// Roots that follow the anchors, verified by them (V12).
    async fn following(&self, trustpoint_id: TrustpointId) -> Result<Result<Vec<RootOffered>, String>, Halt> {
        let mut found = Vec::new();
        for old in self.anchors().iter().filter(|anchor| anchor.is_self_issued()) {
            match self.ask(Question::RootCaUpdate { old: old.clone() }).await? {
                Ok(Information::RootCaUpdate(Some(update))) => found.push(RootOffered {
                    trustpoint_id,
                    root: Blob(update.new_root.as_der().to_vec()),
                    with_old: Blob(update.new_with_old.as_der().to_vec()),
                }),
                Ok(_) => {}
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(found))
    }

    /// A CRL that is newer than the one at hand, of the CA that issued the certificate in use, verified.
    async fn crl(
        &self,
        slots: &Slots,
        held: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Result<Option<(Crl, (Timestamp, Timestamp))>, String>, Halt> {
        let held = held.filter(|_| slots.crl_file().exists());
        let known: Vec<Certificate> = self.chain.iter().chain(self.anchors()).cloned().collect();
        let issuers: Vec<Certificate> = leading(&known, self.anchors(), now);
        let judge = |crl: Crl| judge(crl, &self.certificate, &issuers, held, now);
        let mut troubles = Vec::new();
        for url in self.certificate.crl_urls().into_iter().take(POINTS_MAX) {
            match self.fetch(url.clone()).await?.and_then(|der| Crl::from_der(&der)).and_then(&judge) {
                Ok(found) => return Ok(Ok(found)),
                Err(reason) => troubles.push(format!("{url}: {reason}")),
            }
        }
        let question = Question::CrlUpdate { source: CrlOf::Issuer(self.certificate.issuer()), this_update: held };
        let asked = match self.ask(question).await? {
            Ok(information) => Ok(information),
            // Older servers know the older question only.
            Err(_) => self.ask(Question::CurrentCrl).await?,
        };
        let found = asked.and_then(|information| match information {
            Information::Crls(crls) => match crls.into_iter().find(|crl| *crl.issuer() == self.certificate.issuer()) {
                Some(crl) => judge(crl),
                None if held.is_some() => Ok(None),
                None => Err("the CA has no CRL to give".to_owned()),
            },
            _ => Err("the CA answered something else".to_owned()),
        });
        Ok(found.map_err(|reason| {
            troubles.push(reason);
            troubles.join("; ")
        }))
    }

    async fn fetch(&self, url: String) -> Result<Result<Vec<u8>, String>, Halt> {
        if !self.core.accept.covers(&url) {
            return Ok(Err("accept.ca_urls of the agent's configuration does not list it".to_owned()));
        }
        let (http, timeout) = (self.core.http.coming_from(&self.talk.source), self.talk.message_timeout);
        Ok(blocking(move || http.get(&url, timeout)).await?.map_err(|error| error.to_string()))
    }

    /// One question and its verified answer.
    async fn ask(&self, question: Question) -> Result<Result<Information, String>, Halt> {
        let request =
            InfoRequest { question, recipient: self.talk.recipient.clone(), sender: None, extra_certs: Vec::new() };
        let (core, acceptance) = (Arc::clone(&self.core), self.talk.acceptance.clone());
        let (http, credentials) = (core.http.coming_from(&self.talk.source), self.credentials.clone());
        let (urls, timeout) = (self.talk.urls.clone(), self.talk.message_timeout);
        blocking(move || {
            let now = || core.identity.clock.now();
            let begun = Transaction::begin(
                Request::Info(Box::new(request)),
                credentials,
                acceptance,
                &mut SystemEntropy,
                now(),
            );
            let (transaction, message) = begun.map_err(|error| error.to_string())?;
            let mut step = Step::Send { transaction: Box::new(transaction), message };
            loop {
                step = match step {
                    Step::Send { transaction, message } => {
                        let mut last = Err("no server is configured".to_owned());
                        for url in &urls {
                            last = http.post(url, &message, timeout).map_err(|error| error.to_string());
                            if last.is_ok() {
                                break;
                            }
                        }
                        transaction.handle(Input::Response(&last?), &mut SystemEntropy, now())
                    }
                    Step::Wait { transaction, seconds } if seconds <= WAIT_MOST_S => {
                        std::thread::sleep(Duration::from_secs(seconds));
                        transaction.handle(Input::TimerFired, &mut SystemEntropy, now())
                    }
                    Step::Wait { .. } => return Err("the CA lets us wait for an answer".to_owned()),
                    Step::Concluded(conclusion) => match *conclusion {
                        Conclusion::Informed(informed) => return Ok(informed.information),
                        Conclusion::Revoked(_) => return Err("the CA answered something else".to_owned()),
                    },
                    Step::Done(_) => return Err("the CA answered something else".to_owned()),
                    Step::Failed { error, .. } => return Err(error.to_string()),
                };
            }
        })
        .await
    }
}

/// The CA certificates that lead to an anchor at this moment, each once.
fn leading(found: &[Certificate], anchors: &[Certificate], now: Timestamp) -> Vec<Certificate> {
    let mut leading: Vec<Certificate> = Vec::new();
    for ca in found.iter().filter(|ca| ca.is_ca()) {
        if !leading.contains(ca) && verify_signer(ca, found, anchors, now).is_ok() {
            leading.push(ca.clone());
        }
    }
    leading
}

type Fresh = Option<(Crl, (Timestamp, Timestamp))>;

/// Whether a CRL counts; none: it is no newer than the one at hand.
fn judge(
    crl: Crl,
    certificate: &Certificate,
    issuers: &[Certificate],
    held: Option<Timestamp>,
    now: Timestamp,
) -> Result<Fresh, String> {
    let issuer = certificate.issuer();
    if *crl.issuer() != issuer {
        return Err(format!("the CRL is of {}, the certificate of {issuer}", crl.issuer()));
    }
    let signed = issuers.iter().any(|ca| ca.subject() == issuer && crl.verify_signed_by(ca).is_ok());
    if !signed {
        return Err("the CRL is not signed by the certificate's CA".to_owned());
    }
    let (Some(this_update), Some(next_update)) = (crl.this_update(), crl.next_update()) else {
        return Err("the CRL does not say until when it counts".to_owned());
    };
    if next_update <= now {
        return Err(format!("the CRL counted until {next_update}"));
    }
    Ok(held.is_none_or(|held| this_update > held).then_some((crl, (this_update, next_update))))
}

fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
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
}
