//! Who this agent is: its configuration, membership and keys, its clock and its randomness.

use trustfleet_cmp::entropy::{Entropy as _, SystemEntropy};

use crate::clock::AgentClock;
use crate::config::Config;
use crate::keys::IdentityKeys;
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

/// Without randomness the ids and waits are poorer, and nothing worse: keys and nonces fail by themselves then.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = SystemEntropy.fill(&mut bytes);
    bytes
}
