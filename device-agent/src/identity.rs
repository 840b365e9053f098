//! Who this agent is: its configuration, membership and keys, its clock and its randomness.

use std::sync::atomic::{AtomicU64, Ordering};

use trustfleet_cmp::entropy::{Entropy as _, SystemEntropy};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::ids::InstanceId;

use crate::clock::AgentClock;
use crate::config::Config;
use crate::keys::IdentityKeys;
use crate::nodes::Nodes;
use crate::roots::FollowingRoots;
use crate::session::Membership;

/// What every part of the running agent shares.
#[derive(Debug)]
pub struct Identity {
    /// The agent's own configuration.
    pub config: Config,
    /// What the controller said when it joined.
    pub membership: Membership,
    /// Its two keys.
    pub keys: IdentityKeys,
    /// The time.
    pub clock: AgentClock,
    /// Which nodes of pairs are active.
    pub nodes: Nodes,
    /// Roots that follow anchors of its orders.
    pub roots: FollowingRoots,
    /// This process: a copy of the agent's state that runs elsewhere has another.
    pub instance: InstanceId,
}

/// A name for this process, which no other has.
pub fn fresh_instance() -> InstanceId {
    InstanceId::fresh(SystemClock.now(), random())
}

impl Identity {
    /// Random bits for waits; no secret depends on them.
    pub fn random_u64(&self) -> u64 {
        u64::from_be_bytes(random())
    }

    /// Random bytes for ids.
    pub fn random_id(&self) -> [u8; 10] {
        random()
    }
}

/// When the system's random source fails, a counter keeps ids and waits apart, so that no receipt answers for another
/// report; keys and nonces fail by themselves then.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemEntropy.fill(&mut bytes).is_err() {
        bytes = counted();
    }
    bytes
}

/// Bytes that no two calls of this process share; `N` is 8 or more.
fn counted<const N: usize>() -> [u8; N] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; N];
    let count = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    for (byte, digit) in bytes.iter_mut().rev().zip(count.iter().rev()) {
        *byte = *digit;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_also_when_the_random_source_fails() {
        let ids: [[u8; 10]; 3] = [counted(), counted(), counted()];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    }
}
