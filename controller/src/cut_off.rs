//! Closes the connections of agents in quarantine, and of keys from before an agent joined again.
//!
//! The order stands in the database, so that it is carried out whichever replica lives. It is carried out again and
//! again until the last token that may be around has ended: who holds one could connect anew. Every replica does so;
//! closing what is closed already costs a question.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::Clock;

use crate::{
    broker::{BrokerError, BrokerHandle, Management},
    db::{CutOff, DbError, Store},
    metrics::{CutOffOutcome, Metrics},
    telemetry::chain,
};

/// Between two looks while there is something to do: so long can whoever connects anew stay.
const AT_WORK: Duration = Duration::from_secs(1);
/// Between two looks for orders that another replica took.
const IDLE: Duration = Duration::from_secs(5);
/// What the broker tells the client.
const REASON: &str = "the controller has withdrawn this agent's access";

/// Carries out the orders.
#[derive(Clone)]
pub struct Cutter {
    /// The database.
    pub store: Store,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// RabbitMQ's management API, where it is configured.
    pub management: Option<Management>,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Notified when an order was given here.
    pub orders: Arc<Notify>,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cutter")
    }
}

impl Cutter {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.orders.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.pass().await {
                Ok(0) => IDLE,
                Ok(_) => AT_WORK,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "orders to cut agents off cannot be read");
                    IDLE
                }
            };
        }
    }

    /// Carries out all orders once; returns how many there are.
    async fn pass(&self) -> Result<usize, DbError> {
        let now = self.clock.now();
        let orders = self.store.system_tx("cut_off_due", async move |tx| tx.cut_off_due(now).await).await?;
        for order in &orders {
            match self.carry_out(order).await {
                Ok(Some(closed)) => self.note(order, closed).await?,
                // Not before the last token has ended.
                Ok(None) => {}
                Err(error) => {
                    self.metrics.cut_off(CutOffOutcome::Failed);
                    let agent = order.agent_id;
                    tracing::warn!(agent.id = %agent, error = %chain(&error), "an agent is not cut off from the broker yet");
                }
            }
        }
        Ok(orders.len())
    }

    /// How many connections were closed; none: that cannot be said yet.
    async fn carry_out(&self, order: &CutOff) -> Result<Option<usize>, BrokerError> {
        let token_ended = order.until <= self.clock.now();
        // Without its queue nobody reads from it: a connection that cannot be closed is of no more use for that.
        if order.with_queue || (self.management.is_none() && token_ended) {
            self.broker.delete_agent_queue(order.agent_id).await?;
        }
        let Some(management) = self.management.clone() else { return Ok(token_ended.then_some(0)) };
        let user = order.broker_user.clone();
        let close = tokio::task::spawn_blocking(move || management.close_connections(&user, REASON));
        close.await.unwrap_or(Err(BrokerError::Away)).map(Some)
    }

    async fn note(&self, order: &CutOff, closed: usize) -> Result<(), DbError> {
        let (now, done) = (self.clock.now(), order.clone());
        let first = self.store.system_tx("cut_off_done", async move |tx| tx.cut_off_done(&done, now).await).await?;
        if closed > 0 {
            self.metrics.cut_off(CutOffOutcome::Closed);
            tracing::info!(agent.id = %order.agent_id, connections = closed, "connections of an agent to the broker are closed");
        } else if first {
            self.metrics.cut_off(CutOffOutcome::NothingOpen);
        }
        Ok(())
    }
}
