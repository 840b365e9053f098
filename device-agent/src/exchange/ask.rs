//! Sends messages to the CA's servers, again where nothing answers, and tells the controller of what lasts.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use trustfleet_cmp::codec::{BodyKind, PkiMessage};
use trustfleet_model::clock::Clock as _;
use trustfleet_wire::v1::{Event, Progress};

use super::{Halt, Running, blocking};
use crate::cmp_http::{CmpHttp, HttpError};
use crate::lifecycle::{self, CA_BACKOFF, Patience, TROUBLE_LASTS};
use crate::record::{Exchange, Told};
use crate::{outcome, recorder};

/// How long an answer that is on its way is waited for when the agent stops.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

impl Running<'_> {
    /// Sends a message until an answer comes or patience ends; saved before every send.
    pub(super) async fn ask(
        &self,
        exchange: &mut Exchange,
        seat: &mut Option<OwnedSemaphorePermit>,
        message: Vec<u8>,
        ends_at: Timestamp,
        repeated: &mut bool,
    ) -> Result<Vec<u8>, Halt> {
        let patience = match kind(&message) {
            Some(BodyKind::PollReq) => Patience::Poll,
            Some(BodyKind::CertConf) => Patience::Confirm,
            _ => Patience::Request,
        };
        // A certificate that waits for its confirmation is issued: that is brought to its end.
        let stoppable = patience != Patience::Confirm;
        if seat.is_none() {
            *seat = Some(if stoppable { self.seat().await? } else { self.any_seat().await? });
        }
        if patience == Patience::Poll {
            exchange.polls = exchange.polls.saturating_add(1);
        }
        if !exchange.transcript.awaits_answer() {
            recorder::sent(&mut exchange.transcript, &message, self.core.identity.clock.now());
        }
        let message = Arc::new(message);
        // Whether the CA may hold the request: certainly once it has answered, perhaps after a restart.
        let mut arrived = exchange.url.is_some();
        let mut failures = 0_u32;
        let asked_since = self.core.identity.clock.now();
        loop {
            if stoppable && self.entry.snapshot().await.record.stop {
                return Err(Halt::Ordered);
            }
            let last = match self.ask_once(exchange, &message, arrived, stoppable).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            arrived |= last.request_may_have_arrived();
            *repeated |= arrived && patience == Patience::Request;
            recorder::no_answer(&mut exchange.transcript, &message, &last, self.core.identity.clock.now());
            failures = failures.saturating_add(1);
            let goes_on = patience.goes_on(failures, self.core.identity.clock.now(), ends_at);
            if !goes_on || !last.is_worth_a_repeat() {
                let mut failed = outcome::of_http(&last, arrived, self.errand.kind());
                self.complete(&mut failed, exchange);
                return Err(failed.into());
            }
            let wait = CA_BACKOFF.wait(failures, self.core.identity.random_u64());
            tracing::warn!(job.id = %self.job.job_id, error = %last, wait_s = wait.as_secs(), "the ca gave no answer");
            let now = self.core.identity.clock.now();
            if now.duration_since(asked_since) >= TROUBLE_LASTS {
                let trouble = last.to_string();
                let events = self.waiting(exchange, wait, Some(&trouble), patience != Patience::Poll, now).await;
                if !events.is_empty() {
                    self.save(exchange, events, arrived).await?;
                }
            }
            self.pause(wait, stoppable).await?;
        }
    }

    /// Tries the servers in their order; the first that may have got a byte stays the only one (T5, T7).
    async fn ask_once(
        &self,
        exchange: &mut Exchange,
        message: &Arc<Vec<u8>>,
        arrived: bool,
        stoppable: bool,
    ) -> Result<Result<Vec<u8>, HttpError>, Halt> {
        let chosen = exchange.url.clone();
        let urls = chosen.clone().map_or_else(|| self.errand.talk().urls.clone(), |url| vec![url]);
        let mut last = HttpError::NotConnected { url: String::new(), detail: "no server is configured".to_owned() };
        let mut urls_left = urls.len();
        for url in urls {
            urls_left -= 1;
            exchange.url = Some(url.clone());
            self.save(exchange, Vec::new(), arrived).await?;
            let (http, bytes, timeout) = (self.http(), Arc::clone(message), self.errand.talk().message_timeout);
            let post = blocking(move || http.post(&url, &bytes, timeout));
            let given_up = async {
                let why = tokio::select! {
                    () = self.core.stopping() => Halt::Stopping,
                    () = self.ordered(stoppable) => Halt::Ordered,
                };
                sleep(ANSWER_GRACE).await; // an answer on its way may still come
                why
            };
            let result = tokio::select! {
                result = post => result?,
                why = given_up => return Err(why),
            };
            match result {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error @ HttpError::NotConnected { .. }) => {
                    exchange.url.clone_from(&chosen);
                    if urls_left > 0 {
                        recorder::no_answer(&mut exchange.transcript, message, &error, self.core.identity.clock.now());
                    }
                    last = error;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(last))
    }

    /// The way to the CA, from where the policy says (S7).
    pub(super) fn http(&self) -> CmpHttp {
        self.core.http.coming_from(&self.errand.talk().source)
    }

    /// What the controller is told of an exchange that waits, if that is worth telling now (S50).
    pub(super) async fn waiting(
        &self,
        exchange: &mut Exchange,
        wait: Duration,
        trouble: Option<&str>,
        requesting: bool,
        now: Timestamp,
    ) -> Vec<Event> {
        let outstanding = self.entry.snapshot().await.record.reports.iter().any(|report| report.kind == "waiting");
        let begun = exchange.started_at;
        if !lifecycle::worth_telling(exchange.told, outstanding, trouble.is_some(), begun, now) {
            return Vec::new();
        }
        exchange.told = Some(Told { at: now, trouble: trouble.is_some() });
        let next_at = SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(now);
        let (polls, trouble) = (exchange.polls, trouble.map(str::to_owned));
        let progress = Some(Box::new(Progress { requesting, polls, next_at, trouble }));
        vec![Event::Waiting { check_after_s: wait.as_secs(), progress }]
    }
}

/// The kind of a message's body.
pub(super) fn kind(message: &[u8]) -> Option<BodyKind> {
    PkiMessage::from_der(message).ok().map(|message| message.body.kind())
}
