//! The one loop: messages from the controller in, workers started, receipts noted; and the way out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::Span;
use trustfleet_cmp::text::sanitise;
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::JobId;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Event, Failed, Job, LeaseAnswer, Receipt, Stop, ToAgent};
use trustfleet_wire::{Envelope, WireError};

use crate::autonomy::{self, Watch};
use crate::controller_link::{Incoming, Publication, Verdict};
use crate::core::{About, Core};
use crate::jobs::{Entry, Live};
use crate::lifecycle::{self, Halting, Intake, Rest};
use crate::outcome;
use crate::queue::Queue;
use crate::record::{JobRecord, State, VERSION};
use crate::services;
use crate::worker;

/// Between two looks for jobs to forget.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// Shortest wait before the queue is searched for permits that have run out.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long workers may take to finish their step when the agent stops.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long the broker may take to confirm the report of a job that could not be saved.
const UNSAVED_MAX: Duration = Duration::from_secs(30);

/// Runs the agent until it is told to stop or its link ends for good. Unfinished jobs are taken up where they stopped.
pub async fn run(core: Arc<Core>, mut incoming: mpsc::Receiver<Incoming>, link: mpsc::Sender<Publication>) {
    let reporter = tokio::spawn(Arc::clone(&core.reports).run(Arc::clone(&core.identity), link.clone()));
    let mut driver = Driver {
        core: Arc::clone(&core),
        workers: JoinSet::new(),
        queue: Queue::default(),
        watch: Watch::default(),
        link,
        quarantined: false,
    };
    driver.take_up_again().await;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Kept from one turn of the loop to the next: who asks anew stands at the end of the line again.
    let mut next_place = Box::pin(Arc::clone(&core.exchanges).acquire_owned());
    loop {
        let late = driver.queue.first_end().map(|end| driver.until(end));
        let look = driver.watch.due();
        tokio::select! {
            () = core.stopping() => break,
            message = incoming.recv() => match message {
                Some(Incoming::Up) => {
                    driver.quarantined = false;
                    driver.watch.linked();
                    core.identity.clock.note(&core.store);
                    core.reports.set_linked(true);
                }
                Some(Incoming::Quarantined) => driver.on_quarantine().await,
                Some(Incoming::Down) => {
                    driver.watch.cut_off();
                    core.reports.set_linked(false);
                }
                Some(Incoming::Message { bytes, verdict }) => driver.on_message(&bytes, verdict).await,
                None => break,
            },
            place = &mut next_place, if !driver.quarantined && !driver.queue.is_empty() => {
                next_place = Box::pin(Arc::clone(&core.exchanges).acquire_owned());
                if let (Ok(place), Some(job)) = (place, driver.queue.take_first()) {
                    driver.start(job, Some(place)).await;
                }
            }
            () = sleep(late.unwrap_or_default()), if late.is_some() => {
                for job in driver.queue.ended(core.identity.clock.now()) {
                    driver.start(job, None).await;
                }
            }
            () = sleep_until(look.unwrap_or_else(tokio::time::Instant::now)), if look.is_some() && !driver.quarantined => {
                for begun in driver.watch.look(&core).await {
                    driver.queue.add(begun.job_id, begun.sequence, begun.start_before);
                }
            }
            Some(ended) = driver.workers.join_next() => match ended {
                Ok(job) => driver.on_rest(job).await,
                Err(error) => tracing::error!(%error, "a worker died; its job goes on after a restart of the agent"),
            },
            _ = housekeeping.tick() => {
                let now = core.identity.clock.now();
                core.book.forget_old(now).await;
                core.leases.forget_old(now);
                core.identity.clock.note(&core.store);
            }
        }
    }
    let finish = async { while driver.workers.join_next().await.is_some() {} };
    if timeout(STOP_MAX, finish).await.is_err() {
        tracing::warn!("some exchanges did not come to a stop in time; they go on after the next start");
    }
    reporter.abort();
}

struct Driver {
    core: Arc<Core>,
    workers: JoinSet<JobId>,
    queue: Queue,
    /// Whether there is a link, and what is to be renewed without one.
    watch: Watch,
    link: mpsc::Sender<Publication>,
    /// What was ordered before waits, and is returned when its permit has run out.
    quarantined: bool,
}

impl Driver {
    /// After a start: reports without a receipt are sent again, jobs that have begun go on, others get into line.
    async fn take_up_again(&mut self) {
        let mut begun = Vec::new();
        for (id, entry) in self.core.book.active() {
            let live = entry.snapshot().await;
            worker::tidy(&self.core, &live).await;
            for report in live.record.reports {
                self.core.reports.add(live.job.trustpoint_id, id, report, Span::none());
            }
            match live.record.state {
                State::Nothing { .. } => services::forget(&self.core, &live.job).await,
                State::Start => self.queue.add(id, live.record.sequence, live.job.start_before),
                State::Ca { .. } | State::Storage { .. } | State::Activation { .. } => {
                    begun.push((live.record.sequence, id));
                }
            }
        }
        for (id, rest) in self.core.book.resting() {
            if let Rest::Waits { sequence, start_before, .. } = rest {
                self.queue.add(id, sequence, start_before);
            }
        }
        begun.sort_unstable();
        for (_, id) in begun {
            self.start(id, None).await;
        }
    }

    /// Starts work on a job; `place`: its place among the exchanges.
    async fn start(&mut self, job: JobId, place: Option<OwnedSemaphorePermit>) {
        match self.core.book.get(job).await {
            Ok(Some(entry)) => {
                self.workers.spawn(worker::run(Arc::clone(&self.core), entry, place));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(job.id = %job, %error, "a job cannot be begun"),
        }
    }

    /// Work on a job has come to its end, or to where the agent stops.
    async fn on_rest(&self, job: JobId) {
        if let Ok(Some(entry)) = self.core.book.get(job).await {
            autonomy::ended(&self.core, &entry.snapshot().await).await;
        }
        self.core.book.rest(job);
    }

    /// The controller lets the agent in no more: what it may do by itself ends at once.
    async fn on_quarantine(&mut self) {
        self.quarantined = true;
        let ended = self.core.leases.end_all().await;
        if ended > 0 {
            tracing::warn!(leases = ended, "the agent is in quarantine: its leases have ended");
        }
    }

    /// From now until then, at least a moment.
    fn until(&self, then: Timestamp) -> Duration {
        let left = then.duration_since(self.core.identity.clock.now());
        Duration::try_from(left).unwrap_or_default().max(LOOK_AGAIN)
    }

    async fn on_message(&mut self, bytes: &[u8], verdict: oneshot::Sender<Verdict>) {
        let opened = Envelope::from_bytes(bytes).and_then(|envelope| {
            let message = envelope.open(Purpose::ToAgent, &self.core.identity.membership.controller_key.0)?;
            Ok((envelope, message))
        });
        match opened {
            Ok((envelope, ToAgent::Job(job))) => self.on_job(envelope, *job, verdict).await,
            Ok((_, ToAgent::Stop(stop))) => self.on_stop(&stop, verdict).await,
            Ok((envelope, ToAgent::Lease(lease))) => {
                let (told, answer) = autonomy::on_lease(&self.core, envelope, &lease).await;
                self.answer(lease.reply_to, answer);
                let _ = verdict.send(told);
            }
            Ok((_, ToAgent::LeaseEnd(end))) => {
                let (told, answer) = autonomy::on_end(&self.core, &end).await;
                self.answer(end.reply_to, answer);
                let _ = verdict.send(told);
            }
            Ok((_, ToAgent::Receipt(receipt))) => {
                self.on_receipt(&receipt).await;
                let _ = verdict.send(Verdict::Ack);
            }
            Err(error) => {
                match &error {
                    WireError::NotAuthentic(_) => {
                        tracing::error!(%error, "a message is not signed by our controller; it is thrown away");
                    }
                    _ => tracing::error!(%error, "a message cannot be read; it goes to the dead letters"),
                }
                let _ = verdict.send(Verdict::Reject);
            }
        }
    }

    async fn on_job(&mut self, envelope: Envelope, job: Job, verdict: oneshot::Sender<Verdict>) {
        let known = match self.core.book.get(job.job_id).await {
            Ok(known) => known,
            Err(error) => {
                // It may have run: never again on a guess.
                tracing::error!(job.id = %job.job_id, %error, "a known job came again and its record cannot be read; nothing is done");
                let _ = verdict.send(Verdict::Ack);
                return;
            }
        };
        let live = match &known {
            Some(entry) => Some(entry.snapshot().await),
            None => None,
        };
        let now = self.core.identity.clock.now();
        let record = live.as_ref().map(|live| &live.record);
        let intake = lifecycle::intake(record, &job, self.core.identity.membership.agent_id, now);
        tracing::info!(job.id = %job.job_id, device = %job.device, trustpoint = %job.trustpoint, sequence = job.sequence, ?intake, "job message");
        let job_id = job.job_id;
        let saved = match (intake, known) {
            (Intake::Drop(why), _) => {
                tracing::warn!(job.id = %job_id, "a job message is dropped: {}", why.as_str());
                Ok(())
            }
            (Intake::Take, _) | (_, None) => {
                let record = JobRecord {
                    version: VERSION,
                    job_id,
                    envelope,
                    sequence: job.sequence,
                    received_at: now,
                    state: State::Start,
                    reports: Vec::new(),
                    last_report: None,
                    stop: false,
                };
                let saved = self.core.book.insert(Live { record, job: job.clone(), lease_id: None }).await;
                if saved.is_ok() {
                    self.queue.add(job_id, job.sequence, job.start_before);
                }
                saved
            }
            (Intake::TakeAgain | Intake::Renew, Some(entry)) => {
                let renewed = |live: &mut Live| {
                    live.record.sequence = job.sequence;
                    live.record.envelope = envelope;
                    live.record.state = State::Start;
                    live.job = job.clone();
                };
                let saved = entry.change(renewed).await;
                // A renewed one is not in line any more if its turn has come.
                if saved.is_ok() && (intake == Intake::TakeAgain || self.queue.has(job_id)) {
                    self.queue.add(job_id, job.sequence, job.start_before);
                }
                saved
            }
            (Intake::Repeat, Some(entry)) => {
                self.repeat(&entry, job_id, job.sequence).await;
                Ok(())
            }
        };
        self.core.book.rest(job_id);
        match saved {
            Ok(()) => {
                let _ = verdict.send(Verdict::Ack);
            }
            Err(error) => {
                tracing::error!(job.id = %job_id, %error, "a job cannot be saved: it fails before anything is sent");
                self.tell_unsaved(&About::from(&job), job.sequence, outcome::of_store(&error, false), verdict);
            }
        }
    }

    fn answer(&self, reply_to: String, answer: Option<LeaseAnswer>) {
        if let Some(answer) = answer {
            autonomy::send(&self.core, &self.link, reply_to, answer);
        }
    }

    /// An operator wants a job to end (S37). Acknowledged when the record says so, or when the broker has the answer.
    async fn on_stop(&mut self, stop: &Stop, verdict: oneshot::Sender<Verdict>) {
        let job_id = stop.job_id;
        let known = match self.core.book.get(job_id).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(job.id = %job_id, %error, "a job is to be stopped and its record cannot be read; nothing is done");
                let _ = verdict.send(Verdict::Ack);
                return;
            }
        };
        let live = match &known {
            Some(entry) => Some(entry.snapshot().await),
            None => None,
        };
        let (now, agent) = (self.core.identity.clock.now(), self.core.identity.membership.agent_id);
        let halting = lifecycle::halting(live.as_ref().map(|live| &live.record), stop, agent, now);
        tracing::info!(job.id = %job_id, sequence = stop.sequence, ?halting, "a job is to be stopped");
        match (halting, known) {
            (Halting::Drop | Halting::TooLate, _) => {}
            (Halting::Unknown, _) | (_, None) => {
                return self.tell_unsaved(&About::from(stop), stop.sequence, outcome::stopped(), verdict);
            }
            (Halting::End, Some(entry)) => worker::fail(&self.core, &entry, outcome::stopped()).await,
            (Halting::Repeat, Some(entry)) => self.repeat(&entry, job_id, stop.sequence).await,
            (Halting::Order, Some(entry)) => {
                let order = |live: &mut Live| {
                    live.record.stop = true;
                    live.record.sequence = live.record.sequence.max(stop.sequence);
                };
                if let Err(error) = entry.change(order).await {
                    tracing::error!(job.id = %job_id, %error, "the order to stop a job cannot be saved yet");
                    let _ = verdict.send(Verdict::Later);
                    return;
                }
                drop(entry);
                self.core.order_stop();
                if self.queue.has(job_id) {
                    // Nobody works on it yet: it needs no place to end.
                    self.queue.remove(job_id);
                    self.start(job_id, None).await;
                }
            }
        }
        self.core.book.rest(job_id);
        let _ = verdict.send(Verdict::Ack);
    }

    /// A known job came again: the last report is the answer.
    async fn repeat(&self, entry: &Entry, job_id: JobId, sequence: u64) {
        let newer = entry.settle(|live| {
            live.record.sequence = live.record.sequence.max(sequence);
            let last = live.record.last_report.clone();
            if let Some(last) = last.filter(|_| live.record.reports.is_empty()) {
                live.record.reports.push(last);
            }
        });
        if let Err(error) = newer.await {
            tracing::warn!(job.id = %job_id, %error, "a repeated job message is not noted on the disk");
        }
        let live = entry.snapshot().await;
        for report in live.record.reports {
            self.core.reports.add(live.job.trustpoint_id, job_id, report, Span::none());
        }
    }

    /// There is no record: the failure is reported from memory, and the message acked once the broker has that.
    fn tell_unsaved(&self, job: &About, sequence: u64, failed: Box<Failed>, verdict: oneshot::Sender<Verdict>) {
        let Ok((report, span)) = self.core.report(job, sequence, Event::Failed(failed)) else {
            let _ = verdict.send(Verdict::Later);
            return;
        };
        let (reports, trustpoint, report_id) = (Arc::clone(&self.core.reports), job.trustpoint_id, report.report_id);
        reports.add(trustpoint, job.job_id, report, span);
        tokio::spawn(async move {
            let answered = reports.reached_broker(trustpoint, report_id, UNSAVED_MAX).await;
            let _ = verdict.send(if answered { Verdict::Ack } else { Verdict::Later });
        });
    }

    async fn on_receipt(&self, receipt: &Receipt) {
        if receipt.agent_id != self.core.identity.membership.agent_id {
            return;
        }
        if let Some(reason) = receipt.refused.as_deref().map(sanitise) {
            tracing::error!(report.id = %receipt.report_id, reason, "the controller will never take a report; it is repeated no more");
        }
        let Some(job_id) = self.core.reports.receipt(receipt.report_id) else { return };
        tracing::debug!(job.id = %job_id, report.id = %receipt.report_id, "receipt");
        let entry = match self.core.book.get(job_id).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(job.id = %job_id, %error, "a receipt is not noted on the disk");
                return;
            }
        };
        if let Err(error) = entry.answered(receipt.report_id).await {
            tracing::warn!(job.id = %job_id, %error, "a receipt is not noted on the disk; the report may be sent again");
        }
        drop(entry);
        self.core.book.rest(job_id);
    }
}
