//! From the broker to the actors: agents' messages, any replica takes any.
//!
//! A message is verified with its sender's registered key before a word of it counts; it is acknowledged to the broker
//! only after its commit. What can never be used (unreadable, not authentic, not for its sender) is counted and laid
//! aside with the reason, as a dead letter in the database; what cannot be used just now goes back to its queue, so many
//! times.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use trustfleet_model::{
    clock::Clock,
    ids::{AgentId, CertificateId, MessageId},
};
use trustfleet_telemetry::{continue_from, record_error, trace_span};
use trustfleet_wire::{
    Envelope, WireError,
    routing::{JOBS_EXCHANGE, REPORT_SHARDS, REPORTS_EXCHANGE, agent_queue, report_queue, sender_of},
    sign::Purpose,
    v1::{FromAgent, Hello, Receipt, Report, ToAgent},
};

use crate::{
    actors::Registry,
    admission::{Breaker, BreakerState, Budget},
    audit::Refusals,
    bounds::AgentBounds,
    broker::{BrokerError, BrokerHandle, Delivery, Outgoing},
    db::{Claimed, DbError, Sender, Store},
    device::{Command, JobKind, Rejection, Reply},
    entropy,
    error::AppError,
    gather::{Answers, Gather},
    keys::Keys,
    metrics::{Metrics, Refusal},
    telemetry::chain,
};

mod aside;
mod ending;
mod leases;
mod nodes;
mod parse;
mod roots;
mod servers;

/// Unanswered deliveries of one queue at a time.
const PREFETCH: u16 = 64;
const PAUSE: Duration = Duration::from_millis(500);
/// Statements that look for senders at a time.
const SENDERS_AT_ONCE: usize = 2;
/// How often a message that came too early, or finds its device busy, is tried before it goes back to its queue.
const TRIES: u32 = 5;
/// Longest message of an agent, bytes: a certificate with its chain is a hundredth of it.
const MESSAGE_MAX: usize = 1024 * 1024;
/// An agent's `last_seen_at` is written at most this often, seconds.
const SEEN_EVERY_S: i64 = 60;

/// Takes agents' messages.
#[derive(Clone)]
pub struct Inbox {
    /// The database.
    pub store: Store,
    /// Looks up who messages are from.
    pub senders: Senders,
    /// Device actors.
    pub registry: Registry,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// Signs the receipts.
    pub keys: Arc<Keys>,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Takes note of refused messages, for the audit log.
    pub refusals: Refusals,
    /// How much one agent may send.
    pub bounds: Arc<AgentBounds>,
    /// To be notified when a hello put jobs into the outbox.
    pub new_jobs: Arc<Notify>,
    /// Budget of CAs that have none of their own.
    pub ca_budget: Budget,
}

/// Who messages are from, those that come at the same time together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Senders(Gather<Claimed, Option<Sender>>);

impl Senders {
    /// Starts to answer; ends with the last handle.
    pub fn start(backend: &Handle, store: Store) -> Self {
        Self(Gather::start(backend, SENDERS_AT_ONCE, move |claims| found(store.clone(), claims)))
    }

    async fn ask(&self, claimed: Claimed) -> Result<Option<Sender>, DbError> {
        self.0.ask(claimed).await
    }
}

async fn found(store: Store, claims: Vec<Claimed>) -> Answers<Option<Sender>> {
    store.system_read("inbox_senders", async move |tx| tx.senders_fetch(&claims).await).await
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

/// What becomes of a delivery.
#[derive(Debug)]
enum Fate {
    /// Committed or known: the broker may forget it.
    Done,
    /// Not now: database or broker away, device busy, or another message must come first.
    Later(AppError),
    /// Never.
    Refused(Refusal, String),
}

impl Inbox {
    /// Works until `shutdown`; deliveries that were taken are brought to their end.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut queues = JoinSet::new();
        for shard in 0..REPORT_SHARDS {
            queues.spawn(self.clone().consume(report_queue(shard), shutdown.clone()));
        }
        queues.spawn(self.clone().move_letters(shutdown.clone()));
        while queues.join_next().await.is_some() {}
    }

    async fn consume(self, queue: String, shutdown: CancellationToken) {
        let mut at_work = JoinSet::new();
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.broker.ready() => {}
            }
            let mut subscription = match self.broker.subscribe(queue.clone(), PREFETCH).await {
                Ok(subscription) => subscription,
                Err(error) => {
                    tracing::warn!(queue, error = %chain(&error), "queue cannot be consumed yet");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    Some(_) = at_work.join_next(), if !at_work.is_empty() => {}
                    delivery = subscription.next() => match delivery {
                        Some(delivery) => {
                            let inbox = self.clone();
                            at_work.spawn(async move { inbox.take(delivery).await });
                        }
                        None => break,
                    },
                }
            }
            if !shutdown.is_cancelled() {
                tokio::time::sleep(PAUSE).await;
            } else {
                // Their deliveries' channel must live until they are acknowledged.
                while at_work.join_next().await.is_some() {}
            }
        }
        while at_work.join_next().await.is_some() {}
    }

    /// Brings one delivery to its end.
    async fn take(&self, delivery: Delivery) {
        // The broker lets an agent write its own keys alone: this is who sent it, whatever it says inside.
        let writer = sender_of(delivery.routing_key());
        if let Some(agent) = writer
            && !self.bounds.may_send(agent)
        {
            self.metrics.report_refused(Refusal::TooMany);
            if self.bounds.may_tell(agent) {
                tracing::warn!(agent.id = %agent, "an agent sends more than it may; what is beyond is dropped");
                if let Ok(Some(tenant)) = self.tenant_of(writer).await {
                    self.note(tenant, agent, Refusal::TooMany);
                }
            }
            // Without a receipt it comes again, when there is time for it.
            return delivery.ack().await;
        }
        for attempt in 1..=TRIES {
            match self.handle(delivery.body(), writer).await {
                Fate::Done => return delivery.ack().await,
                Fate::Refused(refusal, detail) => return self.lay_aside(delivery, writer, refusal, &detail).await,
                Fate::Later(error) if attempt == TRIES => return self.failed(delivery, writer, error).await,
                Fate::Later(_) => tokio::time::sleep(Duration::from_millis(100) * attempt).await,
            }
        }
    }

    async fn handle(&self, body: &[u8], writer: Option<AgentId>) -> Fate {
        if body.len() > MESSAGE_MAX {
            let detail = format!("{} bytes; at most {MESSAGE_MAX} are read", body.len());
            return Fate::Refused(Refusal::TooLong, detail);
        }
        let opened = Envelope::from_bytes(body).and_then(|envelope| Ok((envelope.peek::<FromAgent>()?, envelope)));
        let (claimed, envelope) = match opened {
            Ok(opened) => opened,
            Err(error @ WireError::UnknownVersion(_)) => return Fate::Refused(Refusal::UnknownVersion, chain(&error)),
            Err(error) => return Fate::Refused(Refusal::Unreadable, chain(&error)),
        };
        let claimed = parse::claimed(&claimed);
        let agent = claimed.agent;
        if writer.is_some_and(|writer| writer != agent) {
            return Fate::Refused(Refusal::ForeignSender, format!("in the name of agent {agent}"));
        }
        let sender = match self.senders.ask(claimed.clone()).await {
            Ok(Some(sender)) => sender,
            Ok(None) => return Fate::Refused(Refusal::UnknownAgent, format!("agent {agent}")),
            Err(error) => return Fate::Later(error.into()),
        };
        let message = match envelope.open::<FromAgent>(Purpose::FromAgent, &sender.sign_key) {
            Ok(message) => message,
            Err(error) => return Fate::Refused(Refusal::NotAuthentic, format!("agent {agent}: {}", chain(&error))),
        };
        if sender.quarantined {
            return Fate::Refused(Refusal::Quarantined, format!("agent {agent}"));
        }
        match message {
            FromAgent::Hello(hello) => self.hello(hello, &sender).await,
            FromAgent::Lease(answer) => self.lease_answered(*answer).await,
            FromAgent::Report(report) => {
                let (span, report_id) = (span(&report), report.report_id);
                let mut fate = self.report(*report, claimed, sender).instrument(span.clone()).await;
                // It is its agent's own, and will never be taken: without an answer it would be repeated for ever.
                if let Fate::Refused(refusal, _) = &fate
                    && let Err(error) = self.answer(agent, report_id, Some(*refusal)).await
                {
                    fate = Fate::Later(error);
                }
                match &fate {
                    Fate::Done => {}
                    Fate::Later(error) => record_error(&span, error.code(), true),
                    Fate::Refused(refusal, _) => record_error(&span, refusal.as_str(), true),
                }
                fate
            }
        }
    }

    /// A session begins: everything unfinished is offered again. In one that goes on, only what no queue has taken: the
    /// agent has the rest, and a fleet that says hello every few minutes must cost next to nothing.
    async fn hello(&self, hello: Hello, sender: &Sender) -> Fate {
        let (tenant, agent, now, repeated) = (hello.tenant_id, hello.agent_id, self.clock.now(), hello.repeated);
        let software = parse::bounded(&hello.software, parse::SOFTWARE_MAX);
        let told = software.clone();
        // A clock that is ahead must not hide who speaks later.
        let (instance, said_at, leases) = (hello.instance, hello.at.min(now), hello.leases);
        let (clock_off_s, rhythm) = (hello.clock_off_s, sender.rhythm_at(now));
        let offered: Result<(u64, bool), AppError> = self
            .store
            .system_tx("inbox_hello", async move |tx| {
                let news = tx.sender_seen(tenant, agent, Some(&told), Some(leases), rhythm, now).await?;
                tx.sender_clock(tenant, agent, clock_off_s).await?;
                if !repeated || news {
                    tx.leases_of_session(tenant, agent, news, now).await?;
                }
                let twice = match instance {
                    Some(instance) => tx.agent_heard(tenant, agent, instance, said_at).await?,
                    None => false,
                };
                if repeated {
                    return Ok((tx.outbox_offer_returned(tenant, agent, now).await?, twice));
                }
                Ok((tx.outbox_offer_again(tenant, agent, now).await?, twice))
            })
            .await;
        match offered {
            Ok((jobs, twice)) => {
                if twice {
                    self.metrics.agent_lives_twice();
                    tracing::warn!(agent.id = %agent, tenant.id = %tenant, "two processes have the keys of one agent");
                }
                if repeated {
                    tracing::debug!(agent.id = %agent, software, jobs, "agent says hello again");
                } else {
                    tracing::info!(agent.id = %agent, software, jobs, "agent says hello");
                }
                if jobs > 0 {
                    self.new_jobs.notify_one();
                }
                // After the rest: what is said of nodes is said again with the next hello.
                if !hello.nodes.is_empty()
                    && let Err(error) = self.nodes(tenant, agent, (hello.nodes, said_at)).await
                {
                    tracing::warn!(agent.id = %agent, error = %chain(&error), "what an agent saw of nodes is put off");
                }
                if !hello.roots.is_empty()
                    && let Err(error) = self.roots(tenant, agent, hello.roots).await
                {
                    tracing::warn!(agent.id = %agent, error = %chain(&error), "roots that an agent offers are put off");
                }
                Fate::Done
            }
            Err(error) => Fate::Later(error),
        }
    }

    async fn report(&self, report: Report, claimed: Claimed, mut sender: Sender) -> Fate {
        // Before any actor is woken: a report may name whatever device it likes.
        if let (None, Some(lease)) = (sender.job, report.lease_id) {
            match self.adopt(&report, lease, &sender).await {
                leases::Adopted::Job => {}
                leases::Adopted::Fate(fate) => return fate,
                leases::Adopted::Nothing => {
                    return match self.answer(report.agent_id, report.report_id, None).await {
                        Ok(()) => Fate::Done,
                        Err(error) => Fate::Later(error),
                    };
                }
            }
            match self.senders.ask(Claimed { lease: None, ..claimed }).await {
                Ok(Some(known)) => sender = known,
                Ok(None) => return Fate::Refused(Refusal::UnknownAgent, format!("agent {}", report.agent_id)),
                Err(error) => return Fate::Later(error.into()),
            }
        }
        match sender.job {
            None => return Fate::Refused(Refusal::UnknownJob, Rejection::UnknownJob.to_string()),
            Some(job) if job.agent_id != report.agent_id || job.device_id != report.device_id => {
                let detail = format!("agent {}: {}", report.agent_id, Rejection::ForeignJob);
                return Fate::Refused(Refusal::ForeignJob, detail);
            }
            Some(_) => {}
        }
        let now = self.clock.now();
        if now.duration_since(sender.last_seen_at).as_secs() >= SEEN_EVERY_S {
            let (tenant, agent, rhythm) = (report.tenant_id, report.agent_id, sender.rhythm_at(now));
            let seen: Result<bool, AppError> = self
                .store
                .system_tx("inbox_seen", async move |tx| {
                    Ok(tx.sender_seen(tenant, agent, None, None, rhythm, now).await?)
                })
                .await;
            if let Err(error) = seen {
                return Fate::Later(error);
            }
        }
        let (tenant, device, report_id, agent) =
            (report.tenant_id, report.device_id, report.report_id, report.agent_id);
        let certificate_id = match entropy::random() {
            Ok(random) => CertificateId::fresh(now, random),
            Err(error) => return Fate::Later(error),
        };
        // After its end a job can still tell of a failed activation: that is no exchange.
        let kind = sender.job.filter(|_| !sender.finished).map(|job| (job.kind, sender.autonomous));
        let (report_job, server) = (report.job_id, report.server.clone());
        let mut command = parse::report(report, &sender, certificate_id, now);
        // Of a revocation it is the key of whoever signs.
        if kind.is_none_or(|(kind, _)| kind != JobKind::Revoke)
            && let Some(holder) = sender.key_held_by.take()
        {
            tracing::warn!(tenant.id = %tenant, trustpoint.id = %command.trustpoint_id, holder, "a key has two trustpoints");
            command.key_held_by = Some(holder);
        }
        let server = self.server_used(tenant, report_job, server, &sender).await;
        let conflict = command.key_held_by.is_some();
        let answered = ending::answered(&command);
        let ending = ending::Ending::of(&command);
        let services = ending::services(&command);
        match self.registry.ask(tenant, device, Command::Report(Box::new(command))).await {
            Ok(Reply::Taken) => {
                if let (Some(_), Some(answered), Some((endpoint, is_ill))) = (kind, answered, &sender.endpoint) {
                    // Whoever answered in its place says nothing good of it.
                    let endpoint = server.as_ref().unwrap_or(endpoint);
                    if !answered || *is_ill || server.is_some() {
                        self.breaker(endpoint, answered).await;
                    }
                }
                if let (Some(kind), Some(ending)) = (kind, ending) {
                    self.count(tenant, kind, &ending, now).await;
                }
                for result in services {
                    self.metrics.service(result);
                }
                if conflict {
                    self.metrics.key_conflict();
                }
            }
            Ok(_) => {}
            Err(AppError::Rejected(rejection)) => match rejection {
                Rejection::TooEarly => return Fate::Later(rejection.into()),
                Rejection::UnknownJob => return Fate::Refused(Refusal::UnknownJob, rejection.to_string()),
                Rejection::WrongKind => return Fate::Refused(Refusal::WrongKind, rejection.to_string()),
                _ => return Fate::Refused(Refusal::ForeignJob, format!("agent {agent}: {rejection}")),
            },
            Err(AppError::NotFound { .. }) => {
                return Fate::Refused(Refusal::UnknownJob, "the report names a device that does not exist".to_owned());
            }
            Err(error) => return Fate::Later(error),
        }
        match self.answer(agent, report_id, None).await {
            Ok(()) => Fate::Done,
            Err(error) => Fate::Later(error),
        }
    }

    /// Tells an endpoint's breaker how an exchange there ended.
    async fn breaker(&self, endpoint: &str, answered: bool) {
        let name = endpoint.to_owned();
        let told: Result<_, DbError> = self
            .store
            .system_tx("ca_endpoint_told", async move |tx| match answered {
                true => tx.ca_endpoint_answered(&name).await.map(|()| Breaker::default()),
                false => tx.ca_endpoint_failed(&name).await,
            })
            .await;
        match told {
            Ok(breaker) if breaker.state() == BreakerState::Open => {
                let open_for_s = breaker.open_for_s;
                tracing::warn!(
                    endpoint,
                    failures = breaker.failures,
                    open_for_s,
                    "a CA does not answer: it is left alone"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(endpoint, error = %chain(&error), "a CA's breaker was not told"),
        }
    }

    /// Tells an agent that a report need not be repeated: it is committed, or will never be.
    async fn answer(&self, agent: AgentId, report_id: MessageId, refused: Option<Refusal>) -> Result<(), AppError> {
        let refused = refused.map(|refusal| refusal.as_str().to_owned());
        let receipt = ToAgent::Receipt(Receipt { agent_id: agent, report_id, issued_at: self.clock.now(), refused });
        // Returned: the agent's queue is gone, and with it whoever waits for the receipt.
        self.send(agent, &receipt).await
    }

    async fn send(&self, agent: AgentId, message: &ToAgent) -> Result<(), AppError> {
        let body = Envelope::seal(message, Purpose::ToAgent, &self.keys.signing)
            .and_then(|envelope| envelope.to_bytes())
            .map_err(|error| AppError::Internal { source: Box::new(error) })?;
        let outgoing = Outgoing { exchange: JOBS_EXCHANGE, routing_key: agent_queue(agent), body, deliveries: 0 };
        match self.broker.publish(outgoing).await {
            Ok(_) => Ok(()),
            Err(error) => Err(away(error)),
        }
    }
}

/// The span of a report, which goes on with the trace that its agent names: its signature is verified by now.
fn span(report: &Report) -> Span {
    let span = trace_span!(
        "consumer",
        "process trustfleet.reports",
        messaging.system = "rabbitmq",
        messaging.operation.type = "process",
        messaging.operation.name = "process",
        messaging.destination.name = REPORTS_EXCHANGE,
        messaging.message.id = %report.report_id,
        trustfleet.tenant.id = %report.tenant_id,
        trustfleet.device.id = %report.device_id,
        trustfleet.job.id = %report.job_id,
    );
    continue_from(&span, report.traceparent.as_deref());
    span
}

fn away(error: BrokerError) -> AppError {
    AppError::Unavailable { what: "the broker", source: Some(Box::new(error)) }
}
