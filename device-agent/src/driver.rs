//! The one loop: messages from the controller in, workers started, receipts noted; and the way out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::Span;
use trustfleet_model::clock::Clock as _;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Event, Failed, Job, Receipt, ToAgent};
use trustfleet_wire::{Envelope, WireError};

use crate::controller_link::{Incoming, Publication, Verdict};
use crate::core::Core;
use crate::jobs::{Entry, Live};
use crate::lifecycle::{self, Intake};
use crate::outcome;
use crate::record::{JobRecord, State, VERSION};
use crate::worker;

/// Between two looks for jobs to forget.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// How long workers may take to finish their step when the agent stops.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long the broker may take to confirm the report of a job that could not be saved.
const UNSAVED_MAX: Duration = Duration::from_secs(30);

/// Runs the agent until it is told to stop or its link ends for good. Unfinished jobs are taken up where they stopped.
pub async fn run(core: Arc<Core>, mut incoming: mpsc::Receiver<Incoming>, link: mpsc::Sender<Publication>) {
    let reporter = tokio::spawn(Arc::clone(&core.reports).run(Arc::clone(&core.identity), link));
    let mut driver = Driver { core: Arc::clone(&core), workers: JoinSet::new() };
    driver.take_up_again().await;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = core.stopping() => break,
            message = incoming.recv() => match message {
                Some(Incoming::Up) => core.reports.set_linked(true),
                Some(Incoming::Down) => core.reports.set_linked(false),
                Some(Incoming::Message { bytes, verdict }) => driver.on_message(&bytes, verdict).await,
                None => break,
            },
            Some(ended) = driver.workers.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a worker died; its job goes on after a restart of the agent");
                }
            }
            _ = housekeeping.tick() => core.book.forget_old(core.identity.clock.now()),
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
    workers: JoinSet<()>,
}

impl Driver {
    /// After a start: reports without a receipt are sent again, unfinished jobs go on; those that have begun come first.
    async fn take_up_again(&mut self) {
        let mut unfinished = Vec::new();
        for (id, entry) in self.core.book.awake() {
            let live = entry.snapshot().await;
            for report in live.record.reports {
                self.core.reports.add(id, report, Span::none());
            }
            if !live.record.state.is_final() {
                unfinished.push((matches!(live.record.state, State::Start), live.record.sequence, entry));
            }
        }
        unfinished.sort_by_key(|(waits, sequence, _)| (*waits, *sequence));
        for (_, _, entry) in unfinished {
            self.start(entry);
        }
    }

    fn start(&mut self, entry: Arc<Entry>) {
        self.workers.spawn(worker::run(Arc::clone(&self.core), entry));
    }

    async fn on_message(&mut self, bytes: &[u8], verdict: oneshot::Sender<Verdict>) {
        let opened = Envelope::from_bytes(bytes).and_then(|envelope| {
            let message = envelope.open(Purpose::ToAgent, &self.core.identity.membership.controller_key.0)?;
            Ok((envelope, message))
        });
        match opened {
            Ok((envelope, ToAgent::Job(job))) => self.on_job(envelope, *job, verdict).await,
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
        let known = match self.core.book.find(job.job_id) {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(job.id = %job.job_id, %error, "a known job cannot be read back; its message shall come again");
                let _ = verdict.send(Verdict::Later);
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
            (Intake::Drop(why), known) => {
                tracing::warn!(job.id = %job_id, "a job message is dropped: {}", why.as_str());
                if let Some(entry) = known {
                    self.core.book.rest(job_id, &entry).await;
                }
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
                };
                match self.core.book.insert(record, job.clone()).await {
                    Ok(entry) => {
                        self.start(entry);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            (Intake::TakeAgain | Intake::Renew, Some(entry)) => {
                let renewed = |live: &mut Live| {
                    live.record.sequence = job.sequence;
                    live.record.envelope = envelope;
                    live.record.state = State::Start;
                    live.job = job.clone();
                };
                let saved = entry.change(renewed).await;
                if saved.is_ok() && intake == Intake::TakeAgain {
                    self.start(entry);
                }
                saved
            }
            (Intake::Repeat, Some(entry)) => {
                self.repeat(&entry, &job).await;
                Ok(())
            }
        };
        match saved {
            Ok(()) => {
                let _ = verdict.send(Verdict::Ack);
            }
            Err(error) => {
                tracing::error!(job.id = %job_id, %error, "a job cannot be saved: it fails before anything is sent");
                self.refuse_unsaved(&job, outcome::of_store(&error, false), verdict);
            }
        }
    }

    /// A known job came again: the last report is the answer.
    async fn repeat(&self, entry: &Entry, job: &Job) {
        let newer = entry.settle(|live| {
            live.record.sequence = live.record.sequence.max(job.sequence);
            let last = live.record.last_report.clone();
            if let Some(last) = last.filter(|_| live.record.reports.is_empty()) {
                live.record.reports.push(last);
            }
        });
        if let Err(error) = newer.await {
            tracing::warn!(job.id = %job.job_id, %error, "a repeated job message is not noted on the disk");
        }
        for report in entry.snapshot().await.record.reports {
            self.core.reports.add(job.job_id, report, Span::none());
        }
    }

    /// The disk took no record: the failure is reported from memory, and the message acked once the broker has that.
    fn refuse_unsaved(&self, job: &Job, failed: Box<Failed>, verdict: oneshot::Sender<Verdict>) {
        let Ok((report, span)) = self.core.report(job, job.sequence, Event::Failed(failed)) else {
            let _ = verdict.send(Verdict::Later);
            return;
        };
        let (reports, job_id, report_id) = (Arc::clone(&self.core.reports), job.job_id, report.report_id);
        reports.add(job_id, report, span);
        tokio::spawn(async move {
            let answered = reports.reached_broker(job_id, report_id, UNSAVED_MAX).await;
            let _ = verdict.send(if answered { Verdict::Ack } else { Verdict::Later });
        });
    }

    async fn on_receipt(&self, receipt: &Receipt) {
        if receipt.agent_id != self.core.identity.membership.agent_id {
            return;
        }
        let Some(job_id) = self.core.reports.receipt(receipt.report_id) else { return };
        tracing::debug!(job.id = %job_id, report.id = %receipt.report_id, "receipt");
        // A job with a report that waits for its receipt is awake, so it is not read back for this.
        let Ok(Some(entry)) = self.core.book.find(job_id) else { return };
        let answered = |live: &mut Live| live.record.reports.retain(|report| report.report_id != receipt.report_id);
        match entry.settle(answered).await {
            Ok(()) => self.core.book.rest(job_id, &entry).await,
            Err(error) => {
                tracing::warn!(job.id = %job_id, %error, "a receipt is not noted on the disk; the report may be sent again");
            }
        }
    }
}
