//! How long to wait before the next try: exponential, bounded, spread so that a fleet does not come back in one wave.

use std::time::Duration;

/// A schedule of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait at its longest.
    pub first: Duration,
    /// No wait is longer.
    pub most: Duration,
}

impl Backoff {
    /// The wait after `failures` failures (from 1): between half and all of the doubled value, by `random`.
    pub fn wait(self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        let half = full / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(random % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

    #[test]
    fn waits_double_up_to_their_bound_and_keep_at_least_half() {
        for (failures, full) in [(1, 1), (2, 2), (3, 4), (6, 30), (4_000_000_000, 30)] {
            for random in [0, 1, 77, u64::MAX] {
                let wait = BACKOFF.wait(failures, random);
                assert!(
                    wait >= Duration::from_secs(full) / 2 && wait <= Duration::from_secs(full),
                    "{failures}: {wait:?}"
                );
            }
        }
    }

    #[test]
    fn two_agents_do_not_come_back_at_the_same_moment() {
        assert_ne!(BACKOFF.wait(5, 10), BACKOFF.wait(5, 5_000));
    }
}
