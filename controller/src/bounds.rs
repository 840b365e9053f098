//! How much one stranger may cause: buckets that fill with time, one for each address or agent.
//!
//! Nothing here reads a clock, and the memory of all buckets together is bounded whatever strangers do.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use trustfleet_model::ids::AgentId;

use crate::config::AgentsConfig;

/// Most buckets of one kind that are remembered; those that are full again are forgotten first.
const KEPT_MAX: usize = 20_000;
/// How many seconds' worth of messages an agent may send at once: a gateway reports for thousands of devices.
const MESSAGES_AT_ONCE_S: f64 = 10.0;

/// Buckets of one size; each begins full.
#[derive(Debug)]
pub struct Buckets<K> {
    size: f64,
    per_s: f64,
    kept: Mutex<HashMap<K, (f64, Timestamp)>>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets that hold `size`, and get `per_s` back in a second.
    pub fn new(size: f64, per_s: f64) -> Self {
        Self { size, per_s, kept: Mutex::new(HashMap::new()) }
    }

    /// Takes one out of the bucket of `key`; false: it is empty.
    pub fn take(&self, key: K, now: Timestamp) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
            kept.retain(|_, (left, at)| self.filled(*left, *at, now) < self.size);
            if kept.len() >= KEPT_MAX {
                return false;
            }
        }
        let (left, at) = kept.entry(key).or_insert((self.size, now));
        let filled = self.filled(*left, *at, now);
        let may = filled >= 1.0;
        (*left, *at) = (if may { filled - 1.0 } else { filled }, now.max(*at));
        may
    }

    /// Whether the bucket of `key` holds anything.
    pub fn holds(&self, key: &K, now: Timestamp) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).is_none_or(|(left, at)| self.filled(*left, *at, now) >= 1.0)
    }

    fn filled(&self, left: f64, at: Timestamp, now: Timestamp) -> f64 {
        let passed = now.duration_since(at).as_secs_f64().max(0.0);
        passed.mul_add(self.per_s, left).min(self.size)
    }
}

/// The bounds on what agents, and strangers who claim to be some, may cause at one replica.
#[derive(Debug)]
pub struct AgentBounds {
    refusals: Option<Buckets<IpAddr>>,
    messages: Buckets<AgentId>,
    overflows: Buckets<AgentId>,
}

impl AgentBounds {
    /// As configured.
    pub fn new(config: &AgentsConfig) -> Self {
        let (refusals, messages) = (f64::from(config.refusals_per_min), f64::from(config.messages_per_s));
        Self {
            refusals: (config.refusals_per_min > 0).then(|| Buckets::new(refusals, refusals / 60.0)),
            messages: Buckets::new(messages * MESSAGES_AT_ONCE_S, messages),
            overflows: Buckets::new(1.0, 1.0 / 60.0),
        }
    }

    /// Whether an address may knock at the doors: it was not refused too often.
    pub fn may_knock(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        self.refusals.as_ref().is_none_or(|refusals| refusals.holds(&neighbourhood(address), now))
    }

    /// An address was refused.
    pub fn refused(&self, address: Option<IpAddr>, now: Timestamp) {
        if let Some(refusals) = &self.refusals {
            refusals.take(neighbourhood(address), now);
        }
    }

    /// Whether a message of an agent is worked on.
    pub fn may_send(&self, agent: AgentId, now: Timestamp) -> bool {
        self.messages.take(agent, now)
    }

    /// Whether it is worth a word that a message of an agent was not: to look up whose it is must not be what floods.
    pub fn may_tell(&self, agent: AgentId, now: Timestamp) -> bool {
        self.overflows.take(agent, now)
    }
}

/// An IPv4 address, or the /64 of an IPv6 address, which one host can use all of.
fn neighbourhood(address: Option<IpAddr>) -> IpAddr {
    match address {
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
        Some(address) => address,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_bucket_is_empty_after_its_size_and_fills_with_time() {
        let buckets = Buckets::new(2.0, 1.0);
        assert!(buckets.take("a", START) && buckets.take("a", START));
        assert!(!buckets.take("a", START) && !buckets.holds(&"a", START));
        assert!(buckets.take("b", START), "another's is its own");
        let later = START + SignedDuration::from_secs(1);
        assert!(buckets.holds(&"a", later) && buckets.take("a", later) && !buckets.take("a", later));
        assert!(!buckets.take("a", START), "a clock that goes back fills nothing");
    }

    #[test]
    fn strangers_cannot_make_buckets_without_end_and_full_ones_make_room() {
        let buckets = Buckets::new(1.0, 1.0);
        for key in 0..KEPT_MAX {
            assert!(buckets.take(key, START));
        }
        assert!(!buckets.take(KEPT_MAX, START));
        assert!(buckets.take(KEPT_MAX, START + SignedDuration::from_secs(2)));
    }

    #[test]
    fn one_ipv6_host_has_one_bucket_however_many_addresses_it_takes() {
        let bounds = AgentBounds::new(&AgentsConfig { refusals_per_min: 1, messages_per_s: 1 });
        let address = |text: &str| Some(text.parse().unwrap());
        bounds.refused(address("2001:db8::1"), START);
        assert!(!bounds.may_knock(address("2001:db8::2"), START));
        assert!(bounds.may_knock(address("2001:db8:0:1::2"), START));
        bounds.refused(address("::ffff:192.0.2.1"), START);
        assert!(!bounds.may_knock(address("192.0.2.1"), START));
        let unbounded = AgentBounds::new(&AgentsConfig { refusals_per_min: 0, messages_per_s: 1 });
        unbounded.refused(None, START);
        assert!(unbounded.may_knock(None, START));
    }
}
