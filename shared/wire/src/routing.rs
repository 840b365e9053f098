//! Names on the broker. Agents compute none of these: they are told.
//!
//! ```text
//! trustfleet.jobs     direct exchange:  agent.<agent id>             -> queue agent.<agent id>
//! trustfleet.reports  topic exchange:   agent.<agent id>.r<shard>    -> queue trustfleet.reports.<shard>
//! ```
//! An agent may read its own queue and write its own routing keys, nothing else.

use trustfleet_model::ids::{AgentId, DeviceId};

/// Direct exchange from the controller to agents.
pub const JOBS_EXCHANGE: &str = "trustfleet.jobs";
/// Topic exchange from agents to the controller.
pub const REPORTS_EXCHANGE: &str = "trustfleet.reports";
/// How many queues share the reports: any replica takes from all of them.
pub const REPORT_SHARDS: u8 = 4;
/// Where messages go that no version of the controller can read.
pub const DEAD_LETTER_QUEUE: &str = "trustfleet.dead-letters";
/// What the agents' tokens and the broker call this system.
pub const RESOURCE_SERVER: &str = "trustfleet";

/// Queue of one agent, and its routing key on [`JOBS_EXCHANGE`].
pub fn agent_queue(agent: AgentId) -> String {
    format!("agent.{agent}")
}

/// Name of an agent's connections on the broker: with the id of its key ([`crate::sign::key_id`]), so that those of the
/// keys from before it joined again can be told from its present ones.
pub fn agent_user(agent: AgentId, key_id: &str) -> String {
    format!("{agent}.{key_id}")
}

/// The agent that a routing key of the reports belongs to: agents can write no key but their own.
pub fn sender_of(routing_key: &str) -> Option<AgentId> {
    let (agent, _) = routing_key.strip_prefix("agent.")?.split_once('.')?;
    agent.parse().ok()
}

/// Queue of one shard of the reports.
pub fn report_queue(shard: u8) -> String {
    format!("trustfleet.reports.{shard}")
}

/// What binds [`report_queue`] to [`REPORTS_EXCHANGE`].
pub fn report_binding(shard: u8) -> String {
    format!("agent.*.r{shard}")
}

/// The key that an agent answers to for a device.
pub fn device_reply_key(agent: AgentId, device: DeviceId) -> String {
    let shard = device.as_uuid().as_bytes()[15] % REPORT_SHARDS;
    format!("agent.{agent}.r{shard}")
}

/// The key that an agent greets on.
pub fn hello_key(agent: AgentId) -> String {
    let shard = agent.as_uuid().as_bytes()[15] % REPORT_SHARDS;
    format!("agent.{agent}.r{shard}")
}

/// OAuth 2 scopes of an agent on one virtual host of RabbitMQ.
pub fn agent_scopes(vhost: &str, agent: AgentId) -> [String; 2] {
    let vhost = percent_encode(vhost);
    [
        format!("{RESOURCE_SERVER}.read:{vhost}/{}", agent_queue(agent)),
        format!("{RESOURCE_SERVER}.write:{vhost}/{REPORTS_EXCHANGE}/agent.{agent}.*"),
    ]
}

/// RabbitMQ reads each part of a scope percent-decoded; `*` would be a wildcard.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentId {
        "018f0000-0000-7000-8000-0000000000a1".parse().unwrap()
    }

    #[test]
    fn an_agents_scopes_name_only_its_own_queue_and_keys() {
        let id = "018f0000-0000-7000-8000-0000000000a1";
        assert_eq!(
            agent_scopes("/", agent()),
            [
                format!("trustfleet.read:%2F/agent.{id}"),
                format!("trustfleet.write:%2F/trustfleet.reports/agent.{id}.*"),
            ]
        );
    }

    #[test]
    fn a_routing_key_tells_whose_it_is() {
        assert_eq!(sender_of(&hello_key(agent())), Some(agent()));
        for bad in ["", "agent.", "agent.x.r1", "trustfleet.reports", "agent.018f0000-0000-7000-8000-0000000000a1"] {
            assert_eq!(sender_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_reply_key_is_bound_to_exactly_one_report_queue() {
        for last in 0..=255_u8 {
            let device = DeviceId::from(uuid::Uuid::from_u128(u128::from(last)));
            let key = device_reply_key(agent(), device);
            let bound = (0..REPORT_SHARDS)
                .filter(|shard| report_binding(*shard).replace('*', &agent().to_string()) == key)
                .count();
            assert_eq!(bound, 1, "{key}");
        }
    }
}
