//! What the broker denies to agents, read from its own log: who asks for another's queue is known by that.
//!
//! RabbitMQ refuses by the scopes of a token and closes the channel; it tells nobody but its log, which it can publish to an
//! exchange (`log.exchange`). The replicas share one queue of it. Of a login that is refused it does not say whose it was, and
//! of none which virtual host it was for: then the address is all that is known.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use trustfleet_model::{clock::Clock, ids::AgentId};
use uuid::Uuid;

use crate::{
    audit::{Attempt, PLATFORM, Refusals, Requester},
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
    Operation { agent: AgentId, vhost: String, what: String, source: Option<IpAddr> },
    /// To come in; RabbitMQ does not say to whom, but where from.
    Login { source: Option<IpAddr> },
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
        let (agent, what, source) = match denied {
            Denied::Login { source } => return self.note_login(source),
            Denied::Operation { vhost, .. } if vhost != self.vhost => return,
            Denied::Operation { agent, what, source, .. } => (agent, what, source),
        };
        let found: Result<Agent, DbError> =
            self.store.system_tx("denials_agent", async move |tx| tx.agent_by_id(agent).await).await;
        match found {
            Ok(agent) => {
                self.metrics.broker_denied(Denial::Operation);
                tracing::warn!(agent.id = %agent.id, what, ?source, "the broker has denied something to an agent");
                self.refusals.note(Attempt {
                    tenant: agent.tenant_id,
                    at: self.clock.now(),
                    requester: Requester { source, ..Requester::new(format!("agent:{}", agent.id), "agent") },
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

    /// A refused login: in the installation's own log, by its address.
    fn note_login(&self, source: Option<IpAddr>) {
        self.metrics.broker_denied(Denial::Login);
        tracing::warn!(?source, "the broker has refused a login");
        self.refusals.note(Attempt {
            tenant: PLATFORM,
            at: self.clock.now(),
            requester: Requester { source, ..Requester::new("unknown", "none") },
            action: "broker_login_refused",
            object_kind: "address",
            object_id: address_id(source),
            detail: serde_json::json!({ "code": Denial::Login.as_str() }),
        });
    }
}

/// What refused logins of one address are counted together by: an IPv6 address has the size of an id, and an IPv4 one is
/// written as one.
fn address_id(source: Option<IpAddr>) -> Uuid {
    let bits = match source {
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped().to_bits(),
        Some(IpAddr::V6(address)) => address.to_bits(),
        None => 0,
    };
    Uuid::from_u128(bits)
}

/// The other end of the connection that a line is about: `(127.0.0.1:1 -> 127.0.0.1:2, …`.
fn source(line: &str) -> Option<IpAddr> {
    let (peer, _) = line.split_once(" -> ")?;
    let peer = peer.rsplit('(').next()?;
    let (address, port) = peer.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    address.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// What a line tells; none: it is about something else.
fn read(line: &str) -> Option<Denied> {
    if line.contains(" login refused: ") {
        return Some(Denied::Login { source: source(line) });
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
    Some(Denied::Operation { agent, vhost, what, source: source(line) })
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
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(read(&line), Some(Denied::Operation { agent, vhost, what, source: local }));
        let line = "Error on AMQP connection <0.1.0> (127.0.0.1:1 -> 127.0.0.1:2, state: starting):\n\
                    PLAIN login refused: Authentication using an OAuth 2/JWT token failed: provided token is invalid";
        assert_eq!(read(line), Some(Denied::Login { source: local }));
        let line =
            "Error on AMQP connection <0.1.0> ([2001:db8::7]:1 -> [::1]:2, state: starting):\nPLAIN login refused: x";
        assert_eq!(read(line), Some(Denied::Login { source: Some("2001:db8::7".parse().unwrap()) }));
        let line = "Error on AMQP connection <0.1.0> (2001:db8::7:41234 -> ::1:5672, state: starting):\nPLAIN login refused: x";
        assert_eq!(read(line), Some(Denied::Login { source: Some("2001:db8::7".parse().unwrap()) }));
        for nowhere in
            ["PLAIN login refused: -> x", "(a:b -> c) PLAIN login refused: x", "(1.2.3.4 -> c) PLAIN login refused: "]
        {
            assert_eq!(read(nowhere), Some(Denied::Login { source: None }), "{nowhere}");
        }
        for other in ["", "access_refused", "login", "refused for user '", "access_refused refused for user 'guest'"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
