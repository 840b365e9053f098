//! Gives, refreshes and ends leases: an agent's leave to renew a trustpoint by itself while the controller is out of reach.
//!
//! Looking follows every change of what a lease depends on, by a column with an index, in batches, by any replica. What is
//! given is written before the agent learns of it, so that nothing that is done by a lease is ever unknown here.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use trustfleet_model::{
    clock::Clock,
    ids::{DeviceId, LeaseId, TrustpointId},
    job::{EnrollmentOrder, Failure},
    trustpoint::Trustpoint,
};
use trustfleet_pki::digest::sha256;
use trustfleet_wire::{
    routing::{JOBS_EXCHANGE, agent_queue, device_reply_key},
    v1::{Lease, LeaseEnd, ToAgent},
};

use crate::{
    broker::{BrokerHandle, Outgoing, Published},
    db::{DbError, DueLease, LeaseGiven, LeaseNext, LeasedTrustpoint, Store},
    device::{DeviceState, Give, Given, LeaseStep, NoLease, Subject, lease_step},
    entropy,
    keys::Keys,
    metrics::{LeaseOutcome, Metrics},
    outbox::message,
    telemetry::chain,
};

/// Rows in one transaction.
const BATCH: i64 = 256;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a lease that was claimed is left alone when nothing came of it.
const CLAIM: SignedDuration = SignedDuration::from_secs(60);
/// How long the end of a lease can be told at least.
const END_VALID: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Keeps leases as they should be.
#[derive(Clone)]
pub struct Leaser {
    /// The database.
    pub store: Store,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// Signs the messages.
    pub keys: Arc<Keys>,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Leaser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaser")
    }
}

/// Why nothing was done about a lease.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the database")]
    Db(#[from] DbError),
    #[error("the lease cannot be written: {}", .0.message)]
    Unwritable(Box<Failure>),
    #[error("no id can be made: {0}")]
    Random(#[from] crate::error::AppError),
}

impl Leaser {
    /// Works until `shutdown`; waits while the broker is away.
    pub async fn keep(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            while !shutdown.is_cancelled() && self.broker.is_ready() {
                match self.step().await {
                    Ok(false) => break,
                    Ok(true) => {}
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "leases wait");
                        break;
                    }
                }
            }
        }
    }

    /// Looks at one batch; whether there may be more.
    ///
    /// # Errors
    /// The database's own; what was done stays so.
    pub async fn step(&self) -> Result<bool, DbError> {
        let now = self.clock.now();
        let again_at = plus(now, CLAIM);
        let due = self
            .store
            .system_tx("leases_due", async move |tx| -> Result<Vec<DueLease>, DbError> {
                tx.leases_outdated(now, BATCH).await?;
                tx.leases_due(now, again_at, BATCH).await
            })
            .await?;
        let full = i64::try_from(due.len()).is_ok_and(|rows| rows >= BATCH);
        let (mut all, mut nexts) = (Vec::new(), Vec::new());
        for lease in &due {
            match self.act(lease, now).await {
                Ok(Act::Give(prepared)) => all.push(*prepared),
                Ok(Act::Next(next)) => nexts.extend(next),
                Err(error) => self.put_off(lease.trustpoint_id, &error),
            }
        }
        nexts.extend(self.give_all(all, now).await?);
        if !nexts.is_empty() {
            self.store.system_tx("leases_look_at", async move |tx| tx.leases_look_at(&nexts).await).await?;
        }
        Ok(full)
    }

    fn put_off(&self, trustpoint: TrustpointId, error: &LeaseError) {
        self.metrics.lease(LeaseOutcome::Failed);
        tracing::warn!(trustpoint.id = %trustpoint, error = %chain(error), "a lease is put off");
    }

    async fn act(&self, due: &DueLease, now: Timestamp) -> Result<Act, LeaseError> {
        let subject = due.trustpoint.as_ref().and_then(|leased| {
            Some(Subject {
                tenant_active: due.tenant_active,
                device: &leased.device,
                trustpoint: leased.device.trustpoints.get(&due.trustpoint_id)?,
                context: &leased.context,
                keeper: leased.keeper,
            })
        });
        match lease_step(subject.as_ref(), due.given.as_ref(), content, now) {
            LeaseStep::Nothing { look_at } => Ok(Act::Next(Some(next(due, look_at, false)))),
            LeaseStep::Close { why } => {
                self.ended(due, why, now).await?;
                Ok(Act::Next(Some(next(due, None, false))))
            }
            LeaseStep::End { why, again } => {
                let Some((given, device)) = due.given.as_ref().zip(due.given_device) else {
                    return Ok(Act::Next(None));
                };
                self.end(due, given, device, (why, again), now).await.map(Act::Next)
            }
            LeaseStep::Give(give) => {
                let leased = due.trustpoint.as_ref();
                let prepared = leased.map(|leased| prepare(due, leased, &give, now)).transpose()?.flatten();
                Ok(prepared.map_or(Act::Next(None), |prepared| Act::Give(Box::new(prepared))))
            }
        }
    }

    /// Writes leases, then tells their agents, all at once; when to look at them next.
    async fn give_all(&self, all: Vec<Prepared>, now: Timestamp) -> Result<Vec<LeaseNext>, DbError> {
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let given: Vec<LeaseGiven> = all.iter().map(|prepared| prepared.given.clone()).collect();
        let sequences =
            self.store.system_tx("leases_given", async move |tx| tx.leases_given(&given, now).await).await?;
        let told = all.into_iter().filter_map(|prepared| {
            let sequence = *sequences.get(&prepared.given.of)?;
            Some(self.tell(prepared, sequence))
        });
        Ok(join_all(told).await.into_iter().flatten().collect())
    }

    async fn tell(&self, prepared: Prepared, sequence: u64) -> Option<LeaseNext> {
        let Prepared { given, mut lease, next } = prepared;
        lease.sequence = sequence;
        let device = lease.device.clone();
        match self.send(given.agent_id, &ToAgent::Lease(lease)).await {
            Ok(sent) => {
                self.metrics.lease(if sent { LeaseOutcome::Given } else { LeaseOutcome::Returned });
                tracing::info!(lease.id = %given.lease_id, agent.id = %given.agent_id, device, sent, "lease given");
                Some(LeaseNext { offer_again: !sent, ..next })
            }
            Err(error) => {
                self.put_off(given.of.1, &error);
                None
            }
        }
    }

    async fn end(
        &self,
        due: &DueLease,
        given: &Given,
        device: DeviceId,
        (why, again): (NoLease, bool),
        now: Timestamp,
    ) -> Result<Option<LeaseNext>, LeaseError> {
        let Some(sequence) = self.ended(due, why, now).await? else { return Ok(None) };
        let message = ToAgent::LeaseEnd(Box::new(LeaseEnd {
            lease_id: given.lease_id,
            tenant_id: due.tenant_id,
            agent_id: given.agent_id,
            device_id: device,
            trustpoint_id: due.trustpoint_id,
            sequence,
            issued_at: now,
            expires_at: given.expires_at.max(plus(now, END_VALID)),
            reply_to: device_reply_key(given.agent_id, device),
            reason: why.as_str().to_owned(),
        }));
        let sent = self.send(given.agent_id, &message).await?;
        self.metrics.lease(if sent { LeaseOutcome::Ended } else { LeaseOutcome::Returned });
        tracing::info!(lease.id = %given.lease_id, agent.id = %given.agent_id, why = why.as_str(), sent, "lease ended");
        // Whoever gets it next gets a lease of its own: the former agent can be told no more then.
        Ok(Some(next(due, again.then_some(now), !sent && !again)))
    }

    async fn ended(&self, due: &DueLease, why: NoLease, now: Timestamp) -> Result<Option<u64>, LeaseError> {
        let (of, claim) = ((due.tenant_id, due.trustpoint_id), due.claimed_until);
        let ended: Result<Option<u64>, DbError> = self
            .store
            .system_tx("lease_ended", async move |tx| tx.lease_ended(of, claim, why.as_str(), now).await)
            .await;
        Ok(ended?)
    }

    /// Whether the message is in the agent's queue; where it has none, its next session brings it.
    async fn send(&self, agent: trustfleet_model::ids::AgentId, message: &ToAgent) -> Result<bool, LeaseError> {
        let body = message::sealed(message, &self.keys).map_err(LeaseError::Unwritable)?;
        let outgoing = Outgoing { exchange: JOBS_EXCHANGE, routing_key: agent_queue(agent), body, deliveries: 0 };
        Ok(matches!(self.broker.publish(outgoing).await, Ok(Published::Confirmed)))
    }
}

/// What is to be done about a lease together with others.
enum Act {
    /// To give it.
    Give(Box<Prepared>),
    /// To look at it again; none: it stays claimed, and is found again after that.
    Next(Option<LeaseNext>),
}

/// A lease that is to be given, with its message.
struct Prepared {
    given: LeaseGiven,
    /// Its message, but for the sequence.
    lease: Box<Lease>,
    next: LeaseNext,
}

const fn next(due: &DueLease, look_at: Option<Timestamp>, offer_again: bool) -> LeaseNext {
    LeaseNext { of: (due.tenant_id, due.trustpoint_id), claimed_until: due.claimed_until, look_at, offer_again }
}

fn prepare(
    due: &DueLease,
    leased: &LeasedTrustpoint,
    give: &Give,
    now: Timestamp,
) -> Result<Option<Prepared>, LeaseError> {
    let Some(trustpoint) = leased.device.trustpoints.get(&due.trustpoint_id) else { return Ok(None) };
    let device = &leased.device.device;
    let lease_id = match give.lease_id {
        Some(id) => id,
        None => LeaseId::fresh(now, entropy::random()?),
    };
    let lease_s = leased.context.policy.auto_update.lease_s;
    let given = LeaseGiven {
        claimed_until: due.claimed_until,
        of: (due.tenant_id, due.trustpoint_id),
        lease_id,
        agent_id: give.agent_id,
        device_id: device.id,
        content: content(&give.order, give.emergency_percent, lease_s, &leased.device, trustpoint),
        entity: leased.entity,
        ca_server: leased.ca_server,
        expires_at: give.expires_at,
    };
    let lease = Box::new(Lease {
        lease_id,
        tenant_id: due.tenant_id,
        agent_id: give.agent_id,
        device_id: device.id,
        device: device.name.to_string(),
        trustpoint_id: due.trustpoint_id,
        trustpoint: trustpoint.name.to_string(),
        sequence: 0,
        issued_at: now,
        expires_at: give.expires_at,
        emergency_percent: give.emergency_percent,
        policy_revision: give.order.policy_revision,
        reply_to: device_reply_key(give.agent_id, device.id),
        services: give.order.services.iter().map(ToString::to_string).collect(),
        replaced_is_revoked: give.order.ca_server.quirks.revokes_on_issue,
        enroll: Box::new(message::enroll(&give.order, None).map_err(LeaseError::Unwritable)?),
    });
    Ok(Some(Prepared { given, lease, next: next(due, Some(give.look_at), false) }))
}

/// What an agent is given, as a fingerprint of everything that counts.
fn content(
    order: &EnrollmentOrder,
    emergency_percent: u8,
    lease_s: u32,
    device: &DeviceState,
    trustpoint: &Trustpoint,
) -> String {
    let (device, trustpoint) = (&device.device.name, &trustpoint.name);
    let all = serde_json::json!([order, emergency_percent, lease_s, device, trustpoint]);
    hex::encode(sha256(all.to_string().as_bytes()))
}

fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
    moment.checked_add(more).unwrap_or(Timestamp::MAX)
}
