//! The controller's time on a device whose own clock may be wrong.
//!
//! Permits and expiry are moments of the controller. A session tells the controller's time, signed; from then on the
//! agent reckons with the difference. The device's own clock is never set.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::clock::{Clock, SystemClock};

/// Differences up to this are network delay, not a wrong clock.
const TOLERANCE_US: i64 = 2_000_000;

/// The machine's clock plus what is known of its error.
#[derive(Debug, Default)]
pub struct AgentClock {
    offset_us: AtomicI64,
}

impl AgentClock {
    /// Takes note of the controller's time; says how far the device's clock is off, where that matters.
    pub fn learn(&self, controller: Timestamp) -> Option<SignedDuration> {
        let offset = controller.as_microsecond().saturating_sub(SystemClock.now().as_microsecond());
        let offset = if offset.abs() <= TOLERANCE_US { 0 } else { offset };
        self.offset_us.store(offset, Ordering::Relaxed);
        (offset != 0).then(|| SignedDuration::from_micros(offset))
    }
}

impl Clock for AgentClock {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        let offset = SignedDuration::from_micros(self.offset_us.load(Ordering::Relaxed));
        now.checked_add(offset).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_wakes_up_in_1970_reckons_with_the_controllers_time() {
        let clock = AgentClock::default();
        let controller = SystemClock.now().checked_add(SignedDuration::from_hours(24 * 365)).unwrap();
        assert!(clock.learn(controller).is_some());
        assert!(clock.now().duration_since(controller).abs() < SignedDuration::from_secs(5));
        assert!(clock.learn(SystemClock.now()).is_none());
        assert!(clock.now().duration_since(SystemClock.now()).abs() < SignedDuration::from_secs(5));
    }
}
