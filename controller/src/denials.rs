//! What the broker denies to agents, read from its own log: who asks for another's queue is known by that.
//!
//! RabbitMQ refuses by the scopes of a token and closes the channel; it tells nobody but its log, which it can publish to an
//! exchange (`log.exchange`). The replicas share one queue of it.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use trustfleet_model::{clock::Clock, ids::AgentId};

use crate::{
    audit::{Attempt, Refusals, Requester},
    broker::BrokerHandle,
    db::{Agent, DbError, Store},
    metrics::{Denial, Metrics},
    telemetry::chain,
};

const PAUSE: Duration = Duration::from_secs(5);
const PREFETCH: u16 = 16;
/// Longest name of an operation or a resource that is kept, characters.
const WORD_MAX: usize = 128;

/// Reads the broker's log.
#[derive(Clone)]
pub struct Denials {
    /// A connection to where the log is.
    pub broker: BrokerHandle,
    /// The queue that it is read from.
    pub queue: String,
    /// The virtual host that agents work on: the log tells of all.
    pub vhost: String,
    /// The database.
    pub store: Store,
    /// Takes note of what was denied, for the audit log.
    pub refusals: Refusals,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Denials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Denials")
    }
}

/// A line of the broker's log that tells of a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Denied {
    /// Something that an agent's token does not allow.
    Operation { agent: AgentId, vhost: String, what: String },
    /// To come in; RabbitMQ does not say to whom.
    Login,
}

impl Denials {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.broker.ready() => {}
            }
            match self.broker.subscribe(self.queue.clone(), PREFETCH).await {
                Ok(mut subscription) => loop {
                    let delivery = tokio::select! {
                        () = shutdown.cancelled() => return,
                        delivery = subscription.next() => delivery,
                    };
                    let Some(delivery) = delivery else { break };
                    if let Some(denied) = read(&String::from_utf8_lossy(delivery.body())) {
                        self.note(denied).await;
                    }
                    delivery.ack().await;
                },
                Err(error) => tracing::warn!(error = %chain(&error), "the broker's log cannot be read yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn note(&self, denied: Denied) {
        let (agent, what) = match denied {
            Denied::Login => {
                tracing::warn!("the broker has refused a login");
                return self.metrics.broker_denied(Denial::Login);
            }
            Denied::Operation { vhost, .. } if vhost != self.vhost => return,
            Denied::Operation { agent, what, .. } => (agent, what),
        };
        let found: Result<Agent, DbError> =
            self.store.system_tx("denials_agent", async move |tx| tx.agent_by_id(agent).await).await;
        match found {
            Ok(agent) => {
                self.metrics.broker_denied(Denial::Operation);
                tracing::warn!(agent.id = %agent.id, what, "the broker has denied something to an agent");
                self.refusals.note(Attempt {
                    tenant: agent.tenant_id,
                    at: self.clock.now(),
                    requester: Requester::new(format!("agent:{}", agent.id), "agent"),
                    action: "broker_denied",
                    object_kind: "agent",
                    object_id: agent.id.as_uuid(),
                    detail: serde_json::json!({ "code": Denial::Operation.as_str(), "what": what }),
                });
            }
            // Of another installation on the same broker.
            Err(DbError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "what the broker denied is not noted"),
        }
    }
}

/// What a line tells; none: it is about something else.
fn read(line: &str) -> Option<Denied> {
    if line.contains(" login refused: ") {
        return Some(Denied::Login);
    }
    if !line.contains("access_refused") {
        return None;
    }
    let agent = between(line, "refused for user '")?.split_once('.')?.0.parse().ok()?;
    let vhost = between(line, "in vhost '")?.to_owned();
    let operation = line.split("operation ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let on = line.split("access to ").nth(1).and_then(|rest| rest.split(" in vhost").next()).unwrap_or_default();
    let what = format!("{operation} on {on}");
    let what = what.chars().filter(|character| !character.is_control()).take(WORD_MAX).collect();
    Some(Denied::Operation { agent, vhost, what })
}

fn between<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.split(begin).nth(1)?.split('\'').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = "018f0000-0000-7000-8000-0000000000a1";

    #[test]
    fn denials_in_the_log_of_rabbitmq_3_10_are_understood_and_other_lines_passed_over() {
        let line = format!(
            "Channel error on connection <0.1.0> (127.0.0.1:1 -> 127.0.0.1:2, vhost: 'v', user: '{AGENT}.ab'), channel 2:\n \
             operation basic.consume caused a channel exception access_refused: access to queue 'agent.x' in vhost 'v' \
             refused for user '{AGENT}.ab'"
        );
        let (agent, vhost) = (AGENT.parse().unwrap(), "v".to_owned());
        let what = "basic.consume on queue 'agent.x'".to_owned();
        assert_eq!(read(&line), Some(Denied::Operation { agent, vhost, what }));
        let line = "Error on AMQP connection <0.1.0> (127.0.0.1:1 -> 127.0.0.1:2, state: starting):\n\
                    PLAIN login refused: Authentication using an OAuth 2/JWT token failed: provided token is invalid";
        assert_eq!(read(line), Some(Denied::Login));
        for other in ["", "access_refused", "login", "refused for user '", "access_refused refused for user 'guest'"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
