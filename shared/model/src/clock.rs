//! The only place where the time of day is read; everything that decides takes `now` as an argument.

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

/// A source of the present moment for the shells around the pure core.
pub trait Clock: Send + Sync {
    /// The present moment (UTC, microseconds as PostgreSQL keeps them).
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one door to the machine's clock
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // PostgreSQL keeps microseconds: what is compared after a round trip must not differ by nanoseconds.
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// A clock moved by hand, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }

    /// Moves the clock forward (or back, with a negative duration).
    pub fn advance(&self, by: SignedDuration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.checked_add(by).unwrap_or(*now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
