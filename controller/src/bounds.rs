//! How much one agent may cause: messages that a replica works on, each agent for itself.

use std::num::NonZeroU32;

use governor::{Quota, RateLimiter, clock::DefaultClock, state::keyed::HashMapStateStore};
use trustfleet_model::ids::AgentId;

use crate::config::AgentsConfig;

/// How many seconds' worth of messages an agent may send at once: a gateway reports for thousands of devices.
const AT_ONCE_S: u32 = 10;
/// Agents that are kept before those with their whole budget are forgotten. Only agents that the broker let in count.
const KEYS_MAX: usize = 20_000;

type Keyed = RateLimiter<AgentId, HashMapStateStore<AgentId>, DefaultClock>;

/// The bounds at one replica.
pub struct AgentBounds {
    messages: Keyed,
    overflows: Keyed,
}

impl std::fmt::Debug for AgentBounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentBounds")
    }
}

impl AgentBounds {
    /// As configured.
    pub fn new(config: &AgentsConfig) -> Self {
        let per_s = NonZeroU32::new(config.messages_per_s).unwrap_or(NonZeroU32::MIN);
        let at_once = per_s.saturating_mul(NonZeroU32::new(AT_ONCE_S).unwrap_or(NonZeroU32::MIN));
        Self {
            messages: RateLimiter::hashmap(Quota::per_second(per_s).allow_burst(at_once)),
            overflows: RateLimiter::hashmap(Quota::per_minute(NonZeroU32::MIN)),
        }
    }

    /// Whether a message of an agent is worked on.
    pub fn may_send(&self, agent: AgentId) -> bool {
        take(&self.messages, agent)
    }

    /// Whether it is worth a word that a message of an agent was not: to look up whose it is must not be what floods.
    pub fn may_tell(&self, agent: AgentId) -> bool {
        take(&self.overflows, agent)
    }
}

fn take(limiter: &Keyed, agent: AgentId) -> bool {
    if limiter.len() >= KEYS_MAX {
        limiter.retain_recent();
    }
    limiter.check_key(&agent).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_ten_seconds_worth_at_once_and_takes_nothing_from_others() {
        let bounds = AgentBounds::new(&AgentsConfig { messages_per_s: 1 });
        let [one, two] = [1, 2].map(|n| AgentId::from(uuid::Uuid::from_u128(n)));
        let taken = (0..20).filter(|_| bounds.may_send(one)).count();
        assert!((10..=11).contains(&taken), "{taken}");
        assert!(bounds.may_send(two));
        assert!(bounds.may_tell(one) && !bounds.may_tell(one));
    }
}
