//! What becomes of a message that was not taken: back to its queue with a higher count, or laid aside for a person.
//!
//! Nothing goes round for ever, and nothing is lost: a message is acknowledged to the broker only when it lies in the
//! database, stands at the end of its queue again, or comes again from its agent by itself. While the database is away
//! nothing is counted, for then every message fails alike.

use tokio_util::sync::CancellationToken;
use trustfleet_model::ids::{AgentId, DeadLetterId, TenantId};
use trustfleet_pki::digest::sha256;
use trustfleet_wire::routing::{DEAD_LETTER_QUEUE, REPORTS_EXCHANGE};

use super::{Inbox, PAUSE, PREFETCH, parse};
use crate::{
    audit::{Attempt, PLATFORM, Requester},
    broker::{Delivery, Outgoing},
    db::{Agent, DbError, DeadLetter},
    dead_letters::{ALL_BYTES, ALL_MAX, OF_AGENT_BYTES, OF_AGENT_MAX},
    device::Rejection,
    entropy,
    error::AppError,
    metrics::{LetterLoss, Refusal},
    telemetry::chain,
};

/// How often a message is taken from its queue in vain while everything that it needs is there.
pub(super) const DELIVERIES_MAX: u32 = 10;
/// So much of a longer message is laid aside, bytes.
const KEPT_OF_LONGER: usize = 4 * 1024;
/// Longest detail, characters.
const DETAIL_MAX: usize = 500;

/// What is done with a message that failed although it was tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is dropped: its agent sends it again in its own time.
    AgentRepeats,
    /// It goes to the end of its queue, and its deliveries are counted.
    PutBack,
    /// It goes back uncounted: nothing can be processed just now.
    Requeue,
    /// It is laid aside.
    Aside(Refusal),
}

/// What is done with a message whose last try ended with `error`, and which was taken in vain `deliveries` times before.
/// `database_answers`: whether another message would have a chance.
pub(super) fn next(error: &AppError, deliveries: u32, database_answers: bool) -> Next {
    match error {
        AppError::Rejected(Rejection::TooEarly) => Next::AgentRepeats,
        error if !error.is_transient() => Next::Aside(Refusal::Failed),
        _ if !database_answers => Next::Requeue,
        _ if deliveries.saturating_add(1) >= DELIVERIES_MAX => Next::Aside(Refusal::GaveUp),
        _ => Next::PutBack,
    }
}

impl Inbox {
    /// Brings a delivery to its end that failed at each try.
    pub(super) async fn failed(&self, delivery: Delivery, writer: Option<AgentId>, error: AppError) {
        let database_answers = error.is_transient() && self.store.is_ready().await;
        match next(&error, delivery.deliveries(), database_answers) {
            Next::AgentRepeats => {
                tracing::info!("report came too early, its agent will repeat it");
                delivery.ack().await;
            }
            Next::Aside(refusal) => {
                tracing::error!(error = %chain(&error), "message cannot be worked on");
                // Without a receipt: what its agent repeats has another chance.
                self.lay_aside(delivery, writer, refusal, &chain(&error)).await;
            }
            Next::Requeue => {
                tracing::warn!(error = %chain(&error), "message goes back to its queue");
                delivery.requeue().await;
            }
            Next::PutBack => {
                tracing::warn!(error = %chain(&error), "message goes to the end of its queue");
                self.put_back(delivery).await;
            }
        }
    }

    /// To the end of its queue, by the key that it came by.
    async fn put_back(&self, delivery: Delivery) {
        let again = Outgoing {
            exchange: REPORTS_EXCHANGE,
            routing_key: delivery.routing_key().to_owned(),
            body: delivery.body().to_vec(),
            deliveries: delivery.deliveries().saturating_add(1),
        };
        match self.broker.publish(again).await {
            Ok(crate::broker::Published::Confirmed) => delivery.ack().await,
            Ok(crate::broker::Published::Returned) | Err(_) => delivery.requeue().await,
        }
    }

    /// Into the database, for a person to look at.
    pub(super) async fn lay_aside(&self, delivery: Delivery, writer: Option<AgentId>, refusal: Refusal, detail: &str) {
        tracing::warn!(
            reason = refusal.as_str(),
            detail,
            agent.id = writer.map(tracing::field::display),
            "message refused"
        );
        let tenant = match self.tenant_of(writer).await {
            Ok(tenant) => tenant,
            Err(error) => return self.not_now(delivery, &error).await,
        };
        let body = delivery.body();
        let kept = if refusal == Refusal::TooLong { body.len().min(KEPT_OF_LONGER) } else { body.len() };
        let key = delivery.routing_key();
        if let Err(error) = self.store_letter((tenant, writer), key, refusal.as_str(), detail, (body, kept)).await {
            return self.not_now(delivery, &error).await;
        }
        self.metrics.report_refused(refusal);
        if let (Some(agent), Some(tenant)) = (writer, tenant) {
            self.note(tenant, agent, refusal);
        }
        delivery.ack().await;
    }

    async fn not_now(&self, delivery: Delivery, error: &AppError) {
        tracing::warn!(error = %chain(error), "a refused message goes back to its queue: it cannot be laid aside now");
        // It would come again at once.
        tokio::time::sleep(PAUSE).await;
        delivery.requeue().await;
    }

    async fn store_letter(
        &self,
        (tenant, writer): (Option<TenantId>, Option<AgentId>),
        routing_key: &str,
        reason: &str,
        detail: &str,
        (body, kept): (&[u8], usize),
    ) -> Result<(), AppError> {
        let now = self.clock.now();
        let letter = DeadLetter {
            id: DeadLetterId::fresh(now, entropy::random()?),
            tenant_id: tenant.unwrap_or(PLATFORM),
            tenant: None,
            agent_id: writer.unwrap_or(AgentId::nil()),
            agent: None,
            routing_key: routing_key.to_owned(),
            reason: reason.to_owned(),
            detail: parse::bounded(detail, DETAIL_MAX),
            body: body.get(..kept).unwrap_or(body).to_vec(),
            size: i64::try_from(body.len()).unwrap_or(i64::MAX),
            sha256: sha256(body).to_vec(),
            times: 1,
            first_at: now,
            last_at: now,
        };
        let (most, bytes) = if writer.is_some() { (OF_AGENT_MAX, OF_AGENT_BYTES) } else { (ALL_MAX, ALL_BYTES) };
        let stored: Result<u64, DbError> = self
            .store
            .system_tx("dead_letter_insert", async move |tx| tx.dead_letter_insert(&letter, most, bytes).await)
            .await;
        self.metrics.letters_lost(LetterLoss::AgentLimit, stored?);
        Ok(())
    }

    /// The tenant of a message's writer; none: nobody is registered as that.
    pub(super) async fn tenant_of(&self, writer: Option<AgentId>) -> Result<Option<TenantId>, AppError> {
        let Some(agent) = writer else { return Ok(None) };
        let found: Result<Agent, DbError> =
            self.store.system_tx("inbox_refused", async move |tx| tx.agent_by_id(agent).await).await;
        match found {
            Ok(agent) => Ok(Some(agent.tenant_id)),
            Err(DbError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A refused message in the audit log of its writer's tenant.
    pub(super) fn note(&self, tenant: TenantId, agent: AgentId, refusal: Refusal) {
        self.refusals.note(Attempt {
            tenant,
            at: self.clock.now(),
            requester: Requester::new(format!("agent:{agent}"), "agent"),
            action: "message_refused",
            object_kind: "agent",
            object_id: agent.as_uuid(),
            detail: serde_json::json!({ "code": refusal.as_str() }),
        });
    }

    /// Takes letters from the queue where controllers before this one put them, and what the broker's own rules put there.
    pub(super) async fn move_letters(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.broker.ready() => {}
            }
            if let Ok(mut letters) = self.broker.subscribe(DEAD_LETTER_QUEUE.to_owned(), PREFETCH).await {
                loop {
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        letter = letters.next() => match letter {
                            Some(letter) => self.move_letter(letter).await,
                            None => break,
                        },
                    }
                }
            }
            if !shutdown.is_cancelled() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn move_letter(&self, letter: Delivery) {
        let reason = letter.reason();
        let known = Refusal::ALL.iter().find(|known| reason.as_deref() == Some(known.as_str()));
        let reason = known.copied().unwrap_or(Refusal::GaveUp);
        let body = letter.body();
        let detail = "it lay in the queue trustfleet.dead-letters, which does not tell by which key it had come";
        match self.store_letter((None, None), "", reason.as_str(), detail, (body, body.len())).await {
            Ok(()) => letter.ack().await,
            Err(error) => self.not_now(letter, &error).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_counted_only_while_others_have_a_chance_and_given_up_at_the_limit() {
        let busy = || AppError::Busy;
        let broken = || AppError::internal("a row that cannot be read");
        assert_eq!(next(&AppError::Rejected(Rejection::TooEarly), 99, true), Next::AgentRepeats);
        assert_eq!(next(&broken(), 0, true), Next::Aside(Refusal::Failed));
        assert_eq!(next(&busy(), 0, true), Next::PutBack);
        assert_eq!(next(&busy(), DELIVERIES_MAX - 2, true), Next::PutBack);
        assert_eq!(next(&busy(), DELIVERIES_MAX - 1, true), Next::Aside(Refusal::GaveUp));
        assert_eq!(next(&busy(), u32::MAX, true), Next::Aside(Refusal::GaveUp));
        assert_eq!(next(&busy(), u32::MAX, false), Next::Requeue, "the database is away for everybody");
    }
}
