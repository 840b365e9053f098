//! One transaction over HTTP: what the engine says is sent, waited for and handed back; a signal ends it cleanly.
//!
//! A request is posted once. Later messages are posted again with the same bytes where no answer came (T5), within the
//! total time.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use trustfleet_cmp::codec::PkiMessage;
use trustfleet_cmp::transaction::{Input, Step, Transaction};
use trustfleet_cmp::{CmpError, Conclusion, Enrolled, SystemEntropy, show};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::certificate::Certificate;

use super::exit::Exit;
use super::fault::Fault;
use super::state;
use crate::cmp_http::{CmpHttp, HttpError};

/// Longest time for telling the CA that we give up.
const TELL_MAX: Duration = Duration::from_secs(5);
/// Waits before a message that is no request is posted again.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// One message of the transaction, without its content.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Spoken {
    /// sent or received.
    direction: &'static str,
    /// Body, in the RFC's words; `unreadable`.
    kind: &'static str,
    bytes: usize,
    /// Of an answer: milliseconds since its message was posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after_ms: Option<u128>,
}

/// It ended well.
pub(super) enum Good {
    /// A certificate.
    Enrolled(Box<Enrolled>),
    /// A revocation, or an answer.
    Concluded(Box<Conclusion>),
}

/// It did not.
pub(super) struct Bad {
    /// Why.
    pub(super) fault: Fault,
    /// A certificate that may be valid at the CA.
    pub(super) orphan: Option<Certificate>,
}

/// SIGINT and SIGTERM.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How to talk.
pub(super) struct Manner<'a> {
    /// Of one message.
    pub(super) message_timeout: Duration,
    /// Of all.
    pub(super) total_timeout: Duration,
    /// Show messages on stderr.
    pub(super) show: bool,
    /// Say on stderr what is waited for.
    pub(super) progress: bool,
    /// Where the transaction is kept.
    pub(super) state: Option<&'a Path>,
    /// A refusal that nobody has signed counts as one.
    pub(super) believe: bool,
}

/// A conversation with one server.
pub(super) struct Talk<'a> {
    http: Arc<CmpHttp>,
    url: String,
    manner: Manner<'a>,
    deadline: Instant,
    stops: Stops,
    /// The server has answered at least once.
    answered: bool,
    /// The server may have a message of ours.
    arrived: bool,
    /// What was said.
    pub(super) log: Vec<Spoken>,
    /// How long the server let us wait.
    pub(super) waited: Duration,
}

enum Heard {
    Answer(Vec<u8>),
    Nothing(HttpError),
    Late,
    Stop,
}

impl<'a> Talk<'a> {
    /// Within a runtime; takes over SIGINT and SIGTERM.
    ///
    /// # Errors
    /// The signals cannot be taken over.
    pub(super) fn new(http: CmpHttp, url: &str, manner: Manner<'a>) -> Result<Self, Fault> {
        let taken = |error: std::io::Error| Fault::new(Exit::Local, "signals", format!("signals: {error}"));
        let stops = Stops {
            interrupt: signal(SignalKind::interrupt()).map_err(taken)?,
            terminate: signal(SignalKind::terminate()).map_err(taken)?,
        };
        let deadline = Instant::now() + manner.total_timeout;
        Ok(Self {
            http: Arc::new(http),
            url: url.to_owned(),
            manner,
            deadline,
            stops,
            answered: false,
            arrived: false,
            log: Vec::new(),
            waited: Duration::ZERO,
        })
    }

    /// Goes on until the end. Messages of an earlier run may have arrived when it is `resumed`.
    ///
    /// # Errors
    /// By culprit, with what is left at the CA.
    pub(super) async fn run(&mut self, step: Step, resumed: bool) -> Result<Good, Box<Bad>> {
        (self.answered, self.arrived) = (false, resumed);
        let mut step = step;
        loop {
            step = match step {
                Step::Send { transaction, message } => {
                    self.keep(&transaction)?;
                    self.said("sent", &message, None);
                    let begun = Instant::now();
                    match self.ask(message, resumed).await {
                        Heard::Answer(answer) => {
                            self.said("received", &answer, Some(begun.elapsed().as_millis()));
                            self.answered = true;
                            transaction.handle(Input::Response(&answer), &mut SystemEntropy, SystemClock.now())
                        }
                        Heard::Stop => return Err(self.stopped(*transaction).await),
                        Heard::Late => return Err(self.late(*transaction).await),
                        Heard::Nothing(error) => return Err(self.unheard(*transaction, &error)),
                    }
                }
                Step::Wait { transaction, seconds } => {
                    self.keep(&transaction)?;
                    if self.manner.progress {
                        say(&format!("the CA is not ready; asking again in {seconds} s (Ctrl-C stops)\n"));
                    }
                    let begun = Instant::now();
                    let stopped = tokio::select! {
                        () = sleep(Duration::from_secs(seconds)) => false,
                        () = self.stops.wait() => true,
                    };
                    self.waited += begun.elapsed();
                    if stopped {
                        return Err(self.stopped(*transaction).await);
                    }
                    transaction.handle(Input::TimerFired, &mut SystemEntropy, SystemClock.now())
                }
                Step::Done(enrolled) => return self.end(Good::Enrolled(enrolled)),
                Step::Concluded(conclusion) => return self.end(Good::Concluded(conclusion)),
                Step::Failed { error, tell_peer, orphan, .. } => {
                    let mut fault = Fault::of_cmp(&error, self.manner.believe);
                    if fault.exit != Exit::TimedOut || self.manner.state.is_none() {
                        self.tell(tell_peer).await;
                        let _ = self.forget();
                    }
                    let unclear = matches!(error, CmpError::Message(_) | CmpError::Ended(_) | CmpError::Local(_));
                    fault.maybe_issued = match &error {
                        CmpError::Certificate(unfit) => !unfit.rejection_confirmed,
                        _ => orphan.is_some() || unclear && (self.answered || self.arrived),
                    };
                    return Err(Box::new(Bad { fault, orphan }));
                }
            };
        }
    }

    /// A transaction of its own before the one that is kept.
    ///
    /// # Errors
    /// As [`Talk::run`].
    pub(super) async fn aside(&mut self, step: Step) -> Result<Good, Box<Bad>> {
        let state = self.manner.state.take();
        let result = self.run(step, false).await;
        self.manner.state = state;
        result
    }

    fn end(&mut self, good: Good) -> Result<Good, Box<Bad>> {
        // What is left of the state file harms nobody: the transaction in it is over.
        let _ = self.forget();
        Ok(good)
    }

    async fn ask(&mut self, message: Vec<u8>, resumed: bool) -> Heard {
        let message = Arc::new(message);
        let mut tries = AGAIN.iter();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Late;
            }
            let timeout = left.min(self.manner.message_timeout);
            let (http, url, bytes) = (Arc::clone(&self.http), self.url.clone(), Arc::clone(&message));
            let posting = tokio::task::spawn_blocking(move || http.post(&url, &bytes, timeout));
            let begun = Instant::now();
            let posted = tokio::select! {
                posted = posting => posted,
                () = self.stops.wait() => return Heard::Stop,
            };
            let error = match posted {
                Ok(Ok(answer)) => return Heard::Answer(answer),
                Ok(Err(error)) => error,
                Err(_) => return Heard::Stop,
            };
            self.arrived |= error.request_may_have_arrived();
            if matches!(error, HttpError::NoAnswer { .. }) && begun.elapsed() >= timeout {
                return Heard::Late;
            }
            let again = (self.answered || resumed) && error.is_worth_a_repeat();
            let Some(wait) = tries.next().filter(|_| again) else { return Heard::Nothing(error) };
            if self.manner.progress {
                say(&format!("{error}; the same bytes go out again in {} s\n", wait.as_secs()));
            }
            tokio::select! {
                () = sleep((*wait).min(left)) => {}
                () = self.stops.wait() => return Heard::Stop,
            }
        }
    }

    /// A signal. What is kept can be gone on with; otherwise the CA is told (E1).
    async fn stopped(&mut self, transaction: Transaction) -> Box<Bad> {
        let fault = Fault::new(Exit::Stopped, "stopped", "stopped by a signal");
        match self.manner.state {
            Some(path) => {
                let next =
                    format!("the transaction is kept in {}: repeat the command to go on with it", path.display());
                self.given_up(transaction, fault.and(next)).0
            }
            None => self.given_up_and_told(transaction, fault).await,
        }
    }

    async fn late(&mut self, transaction: Transaction) -> Box<Bad> {
        let (code, option) = if self.deadline <= Instant::now() {
            ("total_time_exceeded", "--total-timeout")
        } else {
            ("ca_no_answer", "--msg-timeout")
        };
        self.arrived = true;
        let text = format!("no answer from {} in the time of {option}", self.url);
        let fault = Fault::new(Exit::TimedOut, code, text).and("look at the server's log: it may have the request");
        match self.manner.state {
            Some(path) => {
                let kept = format!("repeat the command with more time: {} holds the transaction", path.display());
                self.given_up(transaction, fault.and(kept)).0
            }
            None => self.given_up_and_told(transaction, fault).await,
        }
    }

    fn unheard(&mut self, transaction: Transaction, error: &HttpError) -> Box<Bad> {
        let mut fault = Fault::of_http(error);
        match self.manner.state {
            Some(path) if self.answered || self.arrived => {
                let kept = format!("repeat the command: {} holds the transaction", path.display());
                fault = fault.and(kept);
            }
            _ => {
                let _ = self.forget();
            }
        }
        self.given_up(transaction, fault).0
    }

    /// Ends the transaction on our side: with what is left at the CA, and what the CA should be told.
    fn given_up(&self, transaction: Transaction, mut fault: Fault) -> (Box<Bad>, Option<Vec<u8>>) {
        let step = transaction.handle(Input::Stop, &mut SystemEntropy, SystemClock.now());
        let (orphan, tell_peer) = match step {
            Step::Failed { orphan, tell_peer, .. } => (orphan, tell_peer),
            _ => (None, None),
        };
        fault.maybe_issued = orphan.is_some() || self.answered || self.arrived;
        (Box::new(Bad { fault, orphan }), tell_peer)
    }

    async fn given_up_and_told(&mut self, transaction: Transaction, fault: Fault) -> Box<Bad> {
        let (mut bad, tell_peer) = self.given_up(transaction, fault);
        // The message under way may have got there when it was cut off.
        bad.fault.maybe_issued |= self.log.last().is_some_and(|last| last.direction == "sent");
        self.tell(tell_peer).await;
        let _ = self.forget();
        bad
    }

    /// Best effort; a second signal ends it.
    async fn tell(&mut self, message: Option<Vec<u8>>) {
        let Some(message) = message else { return };
        self.said("sent", &message, None);
        let (http, url) = (Arc::clone(&self.http), self.url.clone());
        let told = tokio::task::spawn_blocking(move || http.tell(&url, &message, TELL_MAX));
        tokio::select! {
            _ = told => {}
            () = self.stops.wait() => {}
        }
    }

    fn keep(&self, transaction: &Transaction) -> Result<(), Box<Bad>> {
        let Some(path) = self.manner.state else { return Ok(()) };
        state::save(path, &self.url, transaction.record()).map_err(|fault| Box::new(Bad { fault, orphan: None }))
    }

    fn forget(&self) -> Result<(), Fault> {
        self.manner.state.map_or(Ok(()), state::remove)
    }

    fn said(&mut self, direction: &'static str, bytes: &[u8], after_ms: Option<u128>) {
        let message = PkiMessage::from_der(bytes);
        let kind = message.as_ref().map_or("unreadable", |message| message.body.kind().name());
        self.log.push(Spoken { direction, kind, bytes: bytes.len(), after_ms });
        if self.manner.show {
            let mut text = format!("{direction} {kind}, {} bytes\n", bytes.len());
            match &message {
                Ok(message) => text.extend(show::lines(message).iter().map(|line| format!("    {line}\n"))),
                Err(error) => text.push_str(&format!("    {error}\n")),
            }
            say(&text);
        }
    }
}

/// To stderr; a reader that has gone away is no failure.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
