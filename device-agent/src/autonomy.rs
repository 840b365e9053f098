//! Renewal by itself while the controller is out of reach.
//!
//! [`trustfleet_model::autonomy`] decides; here the leases, the certificates on the disk and the clock are laid before it,
//! and what is due becomes a job with a record of its own, that goes the way of every other job. Nothing is begun here
//! while there is a link: the controller decides then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use trustfleet_cmp::request::RequestKind;
use trustfleet_model::autonomy::{Autonomy, Held, Standing, decide};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::{JobId, MessageId, TrustpointId};
use trustfleet_wire::Envelope;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{FromAgent, Lease, LeaseAnswer, LeaseEnd};

use crate::controller_link::{Publication, Verdict};
use crate::core::Core;
use crate::exchange::blocking;
use crate::jobs::Live;
use crate::leases::{Intake, Known, intake};
use crate::order::{Order, Place};
use crate::record::{JobRecord, Outcome, State, VERSION};
use crate::slots::{Slot, Slots};
use crate::store::StoreError;

/// Between two looks at a lease by which nothing is to be done as things are.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Shortest and longest time between two looks.
const LOOK_LEAST: Duration = Duration::from_secs(1);
const LOOK_MOST: Duration = Duration::from_secs(60);
/// How long the broker may take to confirm an answer; without it the controller offers the lease again.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What is known of the link, and when to look at which lease.
#[derive(Debug)]
pub struct Watch {
    cut_off_since: Option<Instant>,
    look_at: Instant,
    next: BTreeMap<TrustpointId, Timestamp>,
}

/// A job that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// The job.
    pub job_id: JobId,
    /// Its place in the line.
    pub sequence: u64,
    /// The end of the lease.
    pub start_before: Timestamp,
}

impl Default for Watch {
    /// Before the first link: cut off since now.
    fn default() -> Self {
        let now = Instant::now();
        Self { cut_off_since: Some(now), look_at: now + LOOK_LEAST, next: BTreeMap::new() }
    }
}

impl Watch {
    /// There is a link: the controller decides.
    pub fn linked(&mut self) {
        self.cut_off_since = None;
    }

    /// There is none, from now on or longer already.
    pub fn cut_off(&mut self) {
        if self.cut_off_since.is_none() {
            *self = Self::default();
        }
    }

    /// When to look; none: not while there is a link.
    pub fn due(&self) -> Option<Instant> {
        self.cut_off_since.map(|_| self.look_at)
    }

    /// Looks at the leases whose time has come, and begins what is due.
    pub async fn look(&mut self, core: &Arc<Core>) -> Vec<Begun> {
        let now = core.identity.clock.now();
        let cut_off_for = self.cut_off_since.and_then(|since| SignedDuration::try_from(since.elapsed()).ok());
        let held = core.leases.held();
        self.next.retain(|id, _| held.iter().any(|known| known.terms.trustpoint_id == *id));
        let mut begun = Vec::new();
        for known in held {
            let id = known.terms.trustpoint_id;
            if self.next.get(&id).is_some_and(|at| *at > now) {
                continue;
            }
            let next = match judge(core, &known, cut_off_for, now).await {
                Ok(Autonomy::Renew) => {
                    match begin(core, &known, now).await {
                        Ok(job) => begun.push(job),
                        Err(error) => {
                            tracing::error!(trustpoint.id = %id, %error, "a certificate in an emergency cannot be renewed yet");
                        }
                    }
                    plus(now, LOOK_AGAIN)
                }
                Ok(Autonomy::At(moment)) => moment,
                Ok(Autonomy::No(why)) => {
                    tracing::debug!(trustpoint.id = %id, why = why.as_str(), "nothing is renewed by the agent itself");
                    plus(now, LOOK_AGAIN)
                }
                Err(error) => {
                    tracing::warn!(trustpoint.id = %id, %error, "the certificate in use cannot be read");
                    plus(now, LOOK_AGAIN)
                }
            };
            self.next.insert(id, next);
        }
        let first = self.next.values().min().map_or(LOOK_MOST, |at| {
            Duration::try_from(at.duration_since(now)).unwrap_or_default().clamp(LOOK_LEAST, LOOK_MOST)
        });
        self.look_at = Instant::now() + first;
        begun
    }
}

async fn judge(
    core: &Arc<Core>,
    known: &Known,
    cut_off_for: Option<SignedDuration>,
    now: Timestamp,
) -> Result<Autonomy, StoreError> {
    let slots = core.slots(&known.place);
    let found = blocking(move || in_use(&slots)).await;
    let Ok(found) = found else { return Ok(Autonomy::At(plus(now, LOOK_AGAIN))) };
    let (held, staged) = found?;
    let standing = Standing {
        cut_off_for,
        job_open: core.book.has_open(known.terms.trustpoint_id),
        staged,
        standby: core.identity.nodes.stands_by(&known.place.device),
        held: held.as_ref().map(|(not_before, not_after, sha256)| Held {
            not_before: *not_before,
            not_after: *not_after,
            sha256,
        }),
        renewed_at: known.tries.renewed_at,
        failed: known.tries.failed_at.map(|at| (known.tries.failures, at)),
    };
    Ok(decide(known.terms, standing, now))
}

type InUse = Option<(Timestamp, Timestamp, String)>;

/// The certificate in use, and whether another one is staged.
fn in_use(slots: &Slots) -> Result<(InUse, bool), StoreError> {
    let current = slots.certificate(Slot::Current)?.map(|(certificate, _)| {
        (certificate.not_before(), certificate.not_after(), hex::encode(certificate.sha256_fingerprint()))
    });
    Ok((current, slots.certificate(Slot::Staged)?.is_some()))
}

/// Makes a job of a lease: afterwards its record is on the disk.
async fn begin(core: &Arc<Core>, known: &Known, now: Timestamp) -> Result<Begun, StoreError> {
    let (lease, envelope) = core.leases.read(known.terms.trustpoint_id).await?;
    let job_id = JobId::fresh(now, core.identity.random_id());
    let record = JobRecord {
        version: VERSION,
        job_id,
        envelope,
        sequence: lease.sequence,
        received_at: now,
        state: State::Start,
        reports: Vec::new(),
        last_report: None,
        stop: false,
    };
    let job = lease.job(job_id);
    core.book.insert(Live { record, job, lease_id: Some(lease.lease_id) }).await?;
    tracing::warn!(
        job.id = %job_id,
        device = %lease.device,
        trustpoint = %lease.trustpoint,
        lease.id = %lease.lease_id,
        "the controller is out of reach and the certificate past its emergency mark: the agent renews it by itself"
    );
    Ok(Begun { job_id, sequence: lease.sequence, start_before: lease.expires_at })
}

/// Takes note of how a job ended, where the agent had begun it by itself.
pub async fn ended(core: &Core, live: &Live) {
    let succeeded = match &live.record.state {
        _ if live.lease_id.is_none() => return,
        State::Nothing { outcome: Outcome::Succeeded } => true,
        State::Nothing { outcome: Outcome::Failed { .. } } => false,
        _ => return,
    };
    let id = live.job.trustpoint_id;
    if let Err(error) = core.leases.note(id, succeeded, core.identity.clock.now()).await {
        tracing::warn!(trustpoint.id = %id, %error, "what became of a renewal is not noted on the disk");
    }
}

/// A lease came.
pub async fn on_lease(core: &Arc<Core>, envelope: Envelope, lease: &Lease) -> (Verdict, Option<LeaseAnswer>) {
    let (now, me) = (core.identity.clock.now(), core.identity.membership.agent_id);
    let seen = core.leases.sequence(lease.trustpoint_id);
    let intake = intake(seen, (lease.agent_id, lease.sequence, lease.expires_at), me, now);
    tracing::info!(lease.id = %lease.lease_id, device = %lease.device, trustpoint = %lease.trustpoint, ?intake, "lease");
    let answer = |state: &str, reason| lease.answer(fresh(core, now), now, state, reason);
    match intake {
        Intake::Drop => (Verdict::Ack, None),
        Intake::Again => (Verdict::Ack, Some(answer("held", None))),
        Intake::Take => match usable(core, lease) {
            Err(reason) => {
                tracing::warn!(lease.id = %lease.lease_id, reason, "a lease is refused");
                (Verdict::Ack, Some(answer("refused", Some(reason))))
            }
            Ok(place) => match core.leases.take(lease, place, envelope).await {
                Ok(()) => {
                    core.upkeep.leased(lease).await;
                    (Verdict::Ack, Some(answer("held", None)))
                }
                Err(error) => {
                    tracing::error!(lease.id = %lease.lease_id, %error, "a lease cannot be saved");
                    (Verdict::Ack, Some(answer("refused", Some(error.to_string()))))
                }
            },
        },
    }
}

/// A lease is to end.
pub async fn on_end(core: &Arc<Core>, end: &LeaseEnd) -> (Verdict, Option<LeaseAnswer>) {
    let (now, me) = (core.identity.clock.now(), core.identity.membership.agent_id);
    let seen = core.leases.sequence(end.trustpoint_id);
    let intake = intake(seen, (end.agent_id, end.sequence, end.expires_at), me, now);
    tracing::info!(lease.id = %end.lease_id, trustpoint.id = %end.trustpoint_id, reason = %end.reason, ?intake, "a lease ends");
    match intake {
        Intake::Drop => (Verdict::Ack, None),
        Intake::Again => (Verdict::Ack, Some(end.answer(fresh(core, now), now, "ended"))),
        Intake::Take => {
            if let Err(error) = core.leases.end(end).await {
                tracing::error!(lease.id = %end.lease_id, %error, "the end of a lease cannot be saved yet");
                // It has ended for this process; not acknowledged, the message comes again after the next connect.
                return (Verdict::Later, None);
            }
            if end.reason == "trustpoint_removed" {
                core.upkeep.forget(end.trustpoint_id).await;
            }
            (Verdict::Ack, Some(end.answer(fresh(core, now), now, "ended")))
        }
    }
}

fn fresh(core: &Core, now: Timestamp) -> MessageId {
    MessageId::fresh(now, core.identity.random_id())
}

/// Why a lease is of no use here.
fn usable(core: &Core, lease: &Lease) -> Result<Place, String> {
    if !core.identity.config.autonomy {
        return Err("the agent's own configuration wants no leases: autonomy = false".to_owned());
    }
    let place = Place::named(&lease.device, &lease.trustpoint).map_err(|error| error.to_string())?;
    let order = Order::of(&lease.enroll).map_err(|error| error.to_string())?;
    if order.kind != RequestKind::Kur || order.mac.is_some() || !(1..=99).contains(&lease.emergency_percent) {
        return Err("it holds no key update with an emergency mark from 1 to 99 percent".to_owned());
    }
    core.accept
        .check(&order.talk)
        .map_err(|error| format!("the agent's own configuration does not allow it: {error}"))?;
    Ok(place)
}

/// An answer with its routing key, to be sent once.
pub fn send(core: &Arc<Core>, link: &mpsc::Sender<Publication>, routing_key: String, answer: LeaseAnswer) {
    let message = FromAgent::Lease(Box::new(answer));
    let sealed = Envelope::seal(&message, Purpose::FromAgent, &core.identity.keys.sign);
    let Ok(bytes) = sealed.and_then(|envelope| envelope.to_bytes()) else { return };
    let link = link.clone();
    tokio::spawn(async move {
        let (confirmed, told) = oneshot::channel();
        let publication = Publication { routing_key, bytes, confirmed };
        let sent = timeout(ANSWER_MAX, async { link.send(publication).await.is_ok() && told.await.unwrap_or(false) });
        if !sent.await.unwrap_or(false) {
            tracing::debug!("an answer to a lease is lost; the controller will offer it again");
        }
    });
}

fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
    moment.checked_add(more).unwrap_or(Timestamp::MAX)
}
