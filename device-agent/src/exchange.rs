//! One exchange with a CA: key, request, answers, confirmation; saved before every message that leaves.
//!
//! The CMP engine decides what is said; this shell says it, waits, and keeps what a restart needs. It must never send a
//! byte that is not in the record first, and never send a request to a second server once the first may have it (T5).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::Span;
use trustfleet_cmp::CmpError;
use trustfleet_cmp::codec::{BodyKind, FailureBit, PkiMessage};
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::outcome::Conclusion;
use trustfleet_cmp::request::RequestKind;
use trustfleet_cmp::transaction::{Input, Step, Transaction};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::MessageId;
use trustfleet_model::job::Culprit;
use trustfleet_pki::digest::sha256;
use trustfleet_telemetry::trace_span;
use trustfleet_wire::v1::{Event, Failed, Job, Revoked};

use crate::core::Core;
use crate::jobs::Entry;
use crate::lifecycle::CA_BACKOFF;
use crate::order::{Errand, Place};
use crate::outcome;
use crate::prepare::Prepare;
use crate::record::{Exchange, Outcome, State};
use crate::recorder;
use crate::store::StoreError;

mod aside;
mod ask;
mod reach;

pub use self::aside::{blocking, spanned};
use self::ask::kind;

/// How long to wait for the broker to take the `started` report before the CA is asked; without a link the exchange
/// goes on all the same, as its permit allows.
const REPORT_FIRST: Duration = Duration::from_secs(5);
/// Longest time for a best-effort error message to the CA.
const TELL_MAX: Duration = Duration::from_secs(5);
/// Tries to save a step after the CA was asked: giving up then would lose what the CA may have issued.
const SAVE_TRIES: u32 = 4;

/// Why work on a job stopped.
#[derive(Debug)]
pub enum Halt {
    /// The agent stops; the record says where to go on.
    Stopping,
    /// An operator wants the job to end (S37).
    Ordered,
    /// The job has failed.
    Failed(Box<Failed>),
}

impl From<Box<Failed>> for Halt {
    fn from(failed: Box<Failed>) -> Self {
        Self::Failed(failed)
    }
}

/// An exchange being worked on.
#[derive(Debug)]
pub struct Running<'a> {
    /// The agent.
    pub core: &'a Arc<Core>,
    /// The job's record.
    pub entry: &'a Entry,
    /// The job's message.
    pub job: &'a Job,
    /// The job's trustpoint.
    pub place: &'a Place,
    /// What the job has it say.
    pub errand: &'a Errand,
}

impl Running<'_> {
    /// Begins an exchange and brings it to its end. `seat`: its place among the exchanges, if it has one: who has none
    /// makes no key and says nothing yet.
    ///
    /// # Errors
    /// The agent stops, or the job has failed.
    pub async fn begin(&self, seat: Option<OwnedSemaphorePermit>) -> Result<(), Halt> {
        let seat = match seat {
            Some(seat) => seat,
            None => self.seat().await?,
        };
        let transcript = self.reach().await?;
        let started_at = self.core.identity.clock.now();
        let prepare = Prepare::of(self.core, self.job, self.place, self.errand);
        let making = async { Ok::<_, Halt>(blocking(move || prepare.start(started_at)).await??) };
        let (transaction, message, spki) = spanned(trace_span!("internal", "key"), making).await?;
        let transaction_record = transaction.record();
        let exchange = Exchange {
            started_at,
            url: None,
            polls: 0,
            poll_at: None,
            transaction: transaction_record,
            transcript,
            told: None,
        };
        let started = Event::Started { public_key_sha256: hex::encode(sha256(&spki)) };
        let state = State::Ca { exchange: Box::new(exchange.clone()) };
        let saved = self.core.commit(self.entry, state, vec![started]).await;
        let reports = saved.map_err(|error| outcome::of_store(&error, false))?;
        self.report_first(reports).await;
        let span = self.span(&exchange, false);
        let step = Step::Send { transaction: Box::new(transaction), message };
        spanned(span, self.go_on(exchange, step, false, Some(seat))).await
    }

    /// Waits until the broker knows which key will be certified, before the CA knows it.
    async fn report_first(&self, reports: Vec<MessageId>) {
        for report in reports {
            if !self.core.reports.reached_broker(self.job.trustpoint_id, report, REPORT_FIRST).await {
                tracing::warn!(job.id = %self.job.job_id, "the ca is asked before the broker has the started report");
            }
        }
    }

    /// Goes on with an exchange after a restart, where it stopped (W6).
    ///
    /// # Errors
    /// The agent stops, or the job has failed.
    pub async fn resume(&self, mut exchange: Exchange) -> Result<(), Halt> {
        let now = self.core.identity.clock.now();
        recorder::resumed(&mut exchange.transcript, now);
        let prepare = Prepare::of(self.core, self.job, self.place, self.errand);
        let record = exchange.transaction.clone();
        tracing::info!(
            job.id = %self.job.job_id,
            transaction.id = %record.transaction_id(),
            state = record.awaits(),
            "going on with an exchange"
        );
        let transaction_id = record.transaction_id();
        let repeated = exchange.url.is_some();
        let resumed = blocking(move || prepare.resume(record, now)).await?;
        let step = resumed.map_err(|mut failed| {
            // If the request was on its way when the agent stopped, what became of it nobody can say.
            failed.maybe_issued = repeated;
            failed.transaction_id = Some(transaction_id);
            failed.transcript = outcome::told(&exchange.transcript);
            Halt::from(failed)
        })?;
        if !repeated {
            let reports = self.entry.snapshot().await.record.reports;
            self.report_first(reports.iter().map(|report| report.report_id).collect()).await;
        }
        let span = self.span(&exchange, true);
        spanned(span, self.go_on(exchange, step, repeated, None)).await
    }

    /// The span of the exchange, one for each run of the agent that works on it.
    fn span(&self, exchange: &Exchange, resumed: bool) -> Span {
        trace_span!(
            "internal",
            format_args!("cmp {}", self.errand.kind().request()),
            trustfleet.cmp.transaction_id = exchange.transaction.transaction_id(),
            trustfleet.cmp.resumed = resumed,
        )
    }

    /// `repeated`: the request may have reached the CA before, so that a refusal now says nothing of the first time.
    /// `seat`: a place among the exchanges, held only while the CA is asked, not while it lets us wait.
    async fn go_on(
        &self,
        mut exchange: Exchange,
        mut step: Step,
        mut repeated: bool,
        mut seat: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Halt> {
        let total = i64::try_from(self.errand.talk().acceptance.total_seconds).unwrap_or(i64::MAX);
        let ends_at = exchange.started_at.checked_add(SignedDuration::from_secs(total)).unwrap_or(Timestamp::MAX);
        let mut gave_up_waiting = false;
        loop {
            match step {
                Step::Send { transaction, message } if self.errand.talk().no_polling && is_poll(&message) => {
                    step = self.end(*transaction).await?;
                    gave_up_waiting = true;
                }
                Step::Send { transaction, message } => {
                    exchange.transaction = transaction.record();
                    exchange.poll_at = None;
                    let answer = match self.ask(&mut exchange, &mut seat, message, ends_at, &mut repeated).await {
                        Ok(answer) => answer,
                        Err(Halt::Ordered) => {
                            step = self.end(*transaction).await?;
                            continue;
                        }
                        Err(halt) => {
                            self.give_up(&halt, *transaction, &exchange).await;
                            return Err(halt);
                        }
                    };
                    recorder::received(&mut exchange.transcript, &answer, self.core.identity.clock.now());
                    let believed = matches!(&self.errand, Errand::Enroll(order) if order.ca_time);
                    let said = believed.then(|| message_time(&answer)).flatten();
                    step = self.handle(*transaction, Some(answer)).await?;
                    if let Some(said) = said.filter(|_| !matches!(step, Step::Failed { .. }))
                        && self.core.identity.clock.hear_ca(said)
                    {
                        tracing::warn!(ca.time = %said, "the device's clock is behind the CA's, which the policy believes");
                    }
                }
                Step::Wait { transaction, seconds } => {
                    seat = None;
                    let wait = Duration::from_secs(seconds);
                    let now = self.core.identity.clock.now();
                    exchange.transaction = transaction.record();
                    exchange.poll_at = Some(
                        SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(now),
                    );
                    let events = self.waiting(&mut exchange, wait, None, false, now).await;
                    self.save(&exchange, events, true).await?;
                    step = match self.pause(wait, true).await {
                        Ok(()) => self.handle(*transaction, None).await?,
                        Err(Halt::Ordered) => self.end(*transaction).await?,
                        Err(halt) => return Err(halt),
                    };
                }
                Step::Done(enrolled) => {
                    let now = self.core.identity.clock.now();
                    let anchors = &self.errand.talk().acceptance.anchors;
                    let (url, said) = (exchange.url, (exchange.polls, exchange.transcript));
                    let mut issued = outcome::of_enrolled(&enrolled, anchors, exchange.started_at, now, said);
                    issued.url = url;
                    let state = State::Storage { issued: Box::new(issued) };
                    return self.save_state(state, Vec::new(), true).await;
                }
                Step::Concluded(conclusion) => {
                    let Conclusion::Revoked(revoked) = *conclusion else {
                        // genm ends so, and no job asks for that
                        let message = "the exchange ended without a certificate";
                        return Err(outcome::of_configuration("not_an_enrolment", message).into());
                    };
                    return self.revoked(&exchange, revoked.warnings.iter().map(ToString::to_string).collect()).await;
                }
                Step::Failed { error, .. } if self.errand.kind() == RequestKind::Rr && is_revoked_already(&error) => {
                    let warning = "the CA says that the certificate was revoked before".to_owned();
                    return self.revoked(&exchange, vec![warning]).await;
                }
                Step::Failed { error, tell_peer, orphan, .. } => {
                    // First of all: once the CA is told, it hands the certificate out no more.
                    if let Some(orphan) = &orphan {
                        self.keep_orphan(&orphan.to_pem()).await;
                    }
                    if let (Some(message), Some(url)) = (tell_peer, exchange.url.clone()) {
                        recorder::sent(&mut exchange.transcript, &message, self.core.identity.clock.now());
                        let http = self.http();
                        blocking(move || http.tell(&url, &message, TELL_MAX)).await?;
                    }
                    let mut failed = match gave_up_waiting {
                        true => outcome::of_waiting(),
                        false => outcome::of_cmp(&error, exchange.url.is_some(), orphan.as_ref()),
                    };
                    outcome::advise(&mut failed, self.errand.is_by_mac());
                    failed.maybe_issued |= repeated;
                    self.complete(&mut failed, &exchange);
                    return Err(failed.into());
                }
            }
        }
    }

    /// Tells the CA, with best effort, that a device whose disk refuses to go on ends the transaction (E1).
    async fn give_up(&self, halt: &Halt, transaction: Transaction, exchange: &Exchange) {
        let Halt::Failed(failed) = halt else { return };
        let Some(url) = exchange.url.clone().filter(|_| failed.maybe_issued) else { return };
        if failed.culprit != Culprit::Device.as_str() {
            return;
        }
        let (http, now) = (self.http(), self.core.identity.clock.now());
        let told = blocking(move || {
            if let Step::Failed { tell_peer: Some(message), .. } =
                transaction.handle(Input::Stop, &mut SystemEntropy, now)
            {
                http.tell(&url, &message, TELL_MAX);
            }
        });
        // Stopping in the middle of a courtesy is no loss.
        let _ = told.await;
    }

    async fn handle(&self, transaction: Transaction, answer: Option<Vec<u8>>) -> Result<Step, Halt> {
        let now = self.core.identity.clock.now();
        blocking(move || {
            let input = answer.as_deref().map_or(Input::TimerFired, Input::Response);
            transaction.handle(input, &mut SystemEntropy, now)
        })
        .await
    }

    async fn save(&self, exchange: &Exchange, events: Vec<Event>, asked: bool) -> Result<(), Halt> {
        self.save_state(State::Ca { exchange: Box::new(exchange.clone()) }, events, asked).await
    }

    /// Saves a step. Before the CA was asked one failure is enough to end the job; afterwards it is tried again.
    async fn save_state(&self, state: State, events: Vec<Event>, asked: bool) -> Result<(), Halt> {
        let mut failures = 0;
        loop {
            let error: StoreError = match self.core.commit(self.entry, state.clone(), events.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            failures += 1;
            if !asked || failures >= SAVE_TRIES {
                return Err(outcome::of_store(&error, asked).into());
            }
            tracing::error!(job.id = %self.job.job_id, %error, "a step is not saved yet");
            self.pause(CA_BACKOFF.wait(failures, self.core.identity.random_u64()), false).await?;
        }
    }

    /// A place among the exchanges, when one is free.
    async fn seat(&self) -> Result<OwnedSemaphorePermit, Halt> {
        tokio::select! {
            seat = self.any_seat() => seat,
            () = self.ordered(true) => Err(Halt::Ordered),
        }
    }

    /// As [`Running::seat`], also for a job that is to be stopped.
    async fn any_seat(&self) -> Result<OwnedSemaphorePermit, Halt> {
        tokio::select! {
            seat = Arc::clone(&self.core.exchanges).acquire_owned() => seat.map_err(|_| Halt::Stopping),
            () = self.core.stopping() => Err(Halt::Stopping),
        }
    }

    /// Ends when an operator wants the job to end, where that is still possible.
    async fn ordered(&self, stoppable: bool) {
        if !stoppable {
            std::future::pending::<()>().await;
        }
        self.core.stop_ordered(self.entry).await;
    }

    /// Ends the transaction as an operator wants it: the CA is told by the step that follows (E1).
    async fn end(&self, transaction: Transaction) -> Result<Step, Halt> {
        let now = self.core.identity.clock.now();
        blocking(move || transaction.handle(Input::Stop, &mut SystemEntropy, now)).await
    }

    async fn pause(&self, wait: Duration, stoppable: bool) -> Result<(), Halt> {
        tokio::select! {
            () = sleep(wait) => Ok(()),
            () = self.core.stopping() => Err(Halt::Stopping),
            () = self.ordered(stoppable) => Err(Halt::Ordered),
        }
    }

    /// The certificate is revoked: the end of a job, which counts also when it cannot be saved.
    async fn revoked(&self, exchange: &Exchange, warnings: Vec<String>) -> Result<(), Halt> {
        let Errand::Revoke(order) = self.errand else { return Ok(()) };
        let serial = order.certificate.serial_hex();
        tracing::info!(job.id = %self.job.job_id, certificate.serial = %serial, "certificate revoked");
        let event = Event::Revoked(Box::new(Revoked {
            serial,
            transaction_id: exchange.transaction.transaction_id(),
            duration_ms: outcome::millis_between(exchange.started_at, self.core.identity.clock.now()),
            warnings,
            transcript: outcome::told(&exchange.transcript),
        }));
        self.core.settle(self.entry, State::Nothing { outcome: Outcome::Succeeded }, vec![event]).await;
        Ok(())
    }

    fn complete(&self, failed: &mut Failed, exchange: &Exchange) {
        failed.maybe_issued &= self.errand.kind() != RequestKind::Rr;
        failed.transaction_id = Some(exchange.transaction.transaction_id());
        failed.duration_ms = outcome::millis_between(exchange.started_at, self.core.identity.clock.now());
        failed.transcript = outcome::told(&exchange.transcript);
    }

    /// A certificate that may be valid at the CA and is not used: kept beside its key, for whoever revokes it (C7).
    async fn keep_orphan(&self, pem: &str) {
        let path = self.core.slots(self.place).orphan_file(self.job.job_id);
        let pem = pem.to_owned();
        if let Ok(Err(error)) = blocking(move || crate::store::save(&path, pem.as_bytes(), 0o600)).await {
            tracing::error!(job.id = %self.job.job_id, %error, "an orphaned certificate is not saved");
        }
    }
}

fn is_poll(message: &[u8]) -> bool {
    kind(message) == Some(BodyKind::PollReq)
}

/// The answer to a request whose first answer was lost, or to one for a certificate that somebody else has revoked. Only
/// an authentic one counts.
fn is_revoked_already(error: &CmpError) -> bool {
    let CmpError::Refused(refusal) = error else { return false };
    refusal.unauthenticated.is_none() && refusal.failure.contains(&FailureBit::CertRevoked)
}

/// What time it is according to a message: informative, unless the policy believes its CA (V13).
fn message_time(message: &[u8]) -> Option<Timestamp> {
    PkiMessage::from_der(message).ok()?.header.message_time?.timestamp()
}
