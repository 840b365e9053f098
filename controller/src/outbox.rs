//! From the outbox to the broker: claim, resolve and seal, publish with confirm, mark.
//!
//! What says nothing to a CA goes at once, oldest first; an exchange is admitted when its CA's budget allows
//! ([`crate::admission`]). Runs when something was committed here and once a second for what other replicas left behind. A job may be published
//! twice (a crash before it is marked); agents answer the second from their record. A message that no queue takes is
//! not kept here: the agent's next hello brings its jobs back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use trustfleet_model::{clock::Clock, job::Failure};
use trustfleet_telemetry::{continue_from, record_error, trace_span};
use trustfleet_wire::routing::{JOBS_EXCHANGE, agent_queue};

use crate::{
    actors::Registry,
    broker::{BrokerHandle, Outgoing, Published},
    config::{CaBudgetConfig, OutboxConfig},
    db::{ClaimedJob, DbError, Store},
    device::{Command, Undeliverable},
    error::AppError,
    keys::Keys,
    metrics::{Metrics, PublishOutcome},
    telemetry::chain,
};

pub(crate) mod message;

/// Rows claimed at a time.
const BATCH: u16 = 128;
/// Messages on their way to the broker at a time.
const IN_FLIGHT: usize = 32;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While something waits for a CA's budget.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Publishes what is in the outbox.
#[derive(Clone)]
pub struct Outbox {
    /// The database.
    pub store: Store,
    /// For jobs that cannot be sent.
    pub registry: Registry,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// Signs the messages, opens the secrets.
    pub keys: Arc<Keys>,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Claim and permit times.
    pub config: OutboxConfig,
    /// Budget of CAs that have none of their own.
    pub ca_budget: CaBudgetConfig,
    /// Notified after each commit that put jobs into the outbox.
    pub new_jobs: Arc<Notify>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}

/// What becomes of a claimed row.
enum Fate {
    Published,
    Remove,
    Release,
}

impl Outbox {
    /// Works until `shutdown`; a batch that was begun is brought to its end.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut look_again = LOOK_EVERY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.new_jobs.notified() => {}
                () = tokio::time::sleep(look_again) => {}
            }
            look_again = LOOK_EVERY;
            while !shutdown.is_cancelled() && self.broker.is_ready() {
                match self.publish_batch().await {
                    Ok((0, waiting)) => {
                        look_again = if waiting { LOOK_AGAIN } else { LOOK_EVERY };
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "outbox waits");
                        break;
                    }
                }
            }
        }
    }

    /// Publishes one batch; returns how many rows left the outbox, and whether something waits for a CA's budget.
    async fn publish_batch(&self) -> Result<(usize, bool), DbError> {
        let (claim_s, budget) = (self.config.claim_s, self.ca_budget.budget());
        let (claimed, waiting): (Vec<ClaimedJob>, bool) = self
            .store
            .system_tx("outbox_claim", async move |tx| -> Result<_, DbError> {
                let mut claimed = tx.outbox_claim(BATCH, claim_s).await?;
                let admitted = tx.outbox_admit(BATCH, claim_s, budget).await?;
                claimed.extend(admitted.jobs);
                Ok((claimed, admitted.waiting))
            })
            .await?;
        if claimed.is_empty() {
            return Ok((0, waiting));
        }
        let mut fates = Vec::with_capacity(claimed.len());
        let claimed_at = Instant::now();
        let mut at_work = JoinSet::new();
        for job in claimed {
            if at_work.len() >= IN_FLIGHT {
                fates.extend(at_work.join_next().await.and_then(Result::ok));
            }
            let outbox = self.clone();
            let of_job = (job.claim, (!job.stop).then_some(job.job_id));
            at_work.spawn(async move { (of_job, outbox.publish(job, claimed_at).await) });
        }
        while let Some(fate) = at_work.join_next().await {
            // A panic leaves its row claimed, until the claim runs out.
            fates.extend(fate);
        }

        let (mut published, mut remove, mut release) = (Vec::new(), Vec::new(), Vec::new());
        let mut jobs_published = Vec::new();
        for ((claim, job), fate) in fates {
            match fate {
                Fate::Published => {
                    published.push(claim);
                    jobs_published.extend(job.map(|job| (claim.tenant_id, job)));
                }
                Fate::Remove => remove.push(claim),
                Fate::Release => release.push(claim),
            }
        }
        let now = self.clock.now();
        let gone = published.len() + remove.len();
        self.store
            .system_tx("outbox_mark", async move |tx| -> Result<(), DbError> {
                tx.outbox_mark_published(&published, now).await?;
                tx.outbox_offer_stops(&jobs_published, now).await?;
                tx.outbox_remove(&remove).await?;
                tx.outbox_release(&release).await?;
                Ok(())
            })
            .await?;
        Ok((gone, waiting))
    }

    async fn publish(&self, job: ClaimedJob, claimed_at: Instant) -> Fate {
        if claimed_at.elapsed() >= Duration::from_secs(self.config.claim_s.into()) {
            // This replica was held up for so long that another one has the job: a late message would go beyond the budget.
            return Fate::Release;
        }
        if job.finished && !job.stop {
            return Fate::Remove;
        }
        if job.agent_quarantined {
            // The hello after its release brings it back.
            tracing::info!(job.id = %job.job_id, agent.id = %job.agent_id, "job waits for its agent to leave quarantine");
            self.metrics.published(PublishOutcome::Quarantined);
            return Fate::Remove;
        }
        if job.has_budget && job.agent_silent && !job.stop {
            // Its hello brings it back: until then it would take what others can use.
            tracing::info!(job.id = %job.job_id, agent.id = %job.agent_id, "job waits for its agent, which is not there");
            self.metrics.published(PublishOutcome::Returned);
            return Fate::Remove;
        }
        let span = span(&job);
        self.publish_in(&span, job).instrument(span.clone()).await
    }

    async fn publish_in(&self, traced: &Span, job: ClaimedJob) -> Fate {
        let span = tracing::debug_span!("publish", job.id = %job.job_id, agent.id = %job.agent_id);
        let permit_s = self.config.permit_s;
        let permit_s = if job.has_budget { permit_s.min(self.ca_budget.permit_s) } else { permit_s };
        let body = match span.in_scope(|| message::signed(&job, &self.keys, self.clock.now(), permit_s)) {
            Ok(body) => body,
            Err(failure) if failure.code == message::KEY_MISSING => {
                tracing::error!(job.id = %job.job_id, "job waits: its secret is under a key that this controller has not");
                record_error(traced, &failure.code, true);
                return Fate::Release;
            }
            Err(failure) => {
                record_error(traced, &failure.code, true);
                return self.undeliverable(&job, *failure).await;
            }
        };
        let outgoing =
            Outgoing { exchange: JOBS_EXCHANGE, routing_key: agent_queue(job.agent_id), body, deliveries: 0 };
        match self.broker.publish(outgoing).await {
            Ok(Published::Confirmed) => {
                tracing::info!(job.id = %job.job_id, agent.id = %job.agent_id, sequence = job.claim.outbox_id, "job published");
                self.metrics.published(PublishOutcome::Confirmed);
                Fate::Published
            }
            Ok(Published::Returned) => {
                tracing::info!(job.id = %job.job_id, agent.id = %job.agent_id, "job waits for its agent's first session");
                self.metrics.published(PublishOutcome::Returned);
                record_error(traced, "returned", false);
                Fate::Remove
            }
            Err(error) => {
                tracing::warn!(job.id = %job.job_id, error = %chain(&error), "job not published, it stays in the outbox");
                self.metrics.published(PublishOutcome::Failed);
                record_error(traced, "unconfirmed", true);
                Fate::Release
            }
        }
    }

    async fn undeliverable(&self, job: &ClaimedJob, failure: Failure) -> Fate {
        tracing::warn!(job.id = %job.job_id, code = failure.code, "job cannot be sent");
        self.metrics.published(PublishOutcome::Undeliverable);
        let command = Command::Undeliverable(Undeliverable { job_id: job.job_id, failure });
        match self.registry.ask(job.claim.tenant_id, job.device_id, command).await {
            Ok(_) => Fate::Remove,
            Err(AppError::NotFound { .. } | AppError::Rejected(_)) => Fate::Remove,
            Err(error) => {
                tracing::warn!(job.id = %job.job_id, error = %chain(&error), "job could not be ended");
                Fate::Release
            }
        }
    }
}

/// The span of a publication, which goes on with the trace of the request that asked for the job, however long ago.
fn span(job: &ClaimedJob) -> Span {
    let span = trace_span!(
        "producer",
        "publish trustfleet.jobs",
        messaging.system = "rabbitmq",
        messaging.operation.type = "send",
        messaging.operation.name = "publish",
        messaging.destination.name = JOBS_EXCHANGE,
        messaging.rabbitmq.destination.routing_key = agent_queue(job.agent_id),
        trustfleet.tenant.id = %job.claim.tenant_id,
        trustfleet.device.id = %job.device_id,
        trustfleet.job.id = %job.job_id,
    );
    continue_from(&span, job.traceparent.as_deref());
    span
}
