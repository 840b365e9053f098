//! What time it is, on a device whose own clock may be wrong or may not run while it is switched off.
//!
//! Permits, leases and validity are moments of others. A session tells the controller's time, signed; from then on the agent
//! reckons with the difference. Until then it is at least as late as the newest of three: when this program was built, the
//! last moment that was known to be right (kept on the disk), and what a CA said in an answer that was verified, where the
//! policy of its trustpoint lets it (V13). The device's own clock is never set.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use trustfleet_model::clock::{Clock, SystemClock};

use crate::store::{self, Store, StoreError};

/// Differences up to this are network delay, not a wrong clock.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// A clock that jumps so near to where it should be was set right.
const SET_RIGHT: SignedDuration = SignedDuration::from_secs(60);
/// Between two notes on the disk of a moment that was right.
const NOTE_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The device's own clock: nobody has said otherwise.
    Device,
    /// The device's clock is behind the floor.
    Floor,
    /// A CA that the policy believes.
    Ca,
    /// The controller, by its signature.
    Controller,
}

/// A reckoning: what to add to the device's clock, as of a moment of it.
#[derive(Clone, Copy, Debug)]
struct Reckoning {
    offset: SignedDuration,
    source: Source,
    /// The device's clock, and one that only runs forward, when that was found.
    device: Timestamp,
    running: Duration,
}

impl Reckoning {
    /// The time. A device's clock that has jumped by about as much as it was off was set right meanwhile; any other jump is
    /// taken for time in which the device slept.
    fn now(&self, device: Timestamp, running: Duration) -> Timestamp {
        let ran = SignedDuration::try_from(running.saturating_sub(self.running)).unwrap_or_default();
        let jump = device.duration_since(self.device) - ran;
        let off = self.offset.abs() > TOLERANCE;
        if off && jump.abs() > TOLERANCE && (jump - self.offset).abs() <= SET_RIGHT {
            return device;
        }
        device.checked_add(self.offset).unwrap_or(device)
    }
}

/// At the start: the device's clock, or the floor where it is behind that.
fn begin(floor: Timestamp, device: Timestamp, running: Duration) -> Reckoning {
    let behind = floor.duration_since(device);
    if behind.is_positive() {
        Reckoning { offset: behind, source: Source::Floor, device, running }
    } else {
        Reckoning { offset: SignedDuration::ZERO, source: Source::Device, device, running }
    }
}

/// What lies on the disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    right_at: Timestamp,
}

/// The time.
#[derive(Debug)]
pub struct AgentClock {
    reckoning: Mutex<Reckoning>,
    started: Instant,
    noted_at: Mutex<Option<Timestamp>>,
}

impl Default for AgentClock {
    /// With the time of the build as its only floor.
    fn default() -> Self {
        Self::from_floor(built_at())
    }
}

impl AgentClock {
    /// With what is on the disk.
    pub fn load(store: &Store) -> Self {
        let noted: Result<Option<Noted>, StoreError> = store::load_json(&store.clock_file());
        let noted = noted.unwrap_or_else(|error| {
            tracing::warn!(%error, "when the clock was last right is forgotten");
            None
        });
        let clock = Self::from_floor(noted.map_or_else(built_at, |noted| noted.right_at.max(built_at())));
        let reckoning = *clock.reckoning();
        if reckoning.source == Source::Floor {
            let behind_s = reckoning.offset.as_secs();
            tracing::warn!(behind_s, "the device's clock is behind what is known of the time; reckoning from that");
        }
        clock
    }

    fn from_floor(floor: Timestamp) -> Self {
        let reckoning = Mutex::new(begin(floor, SystemClock.now(), Duration::ZERO));
        Self { reckoning, started: Instant::now(), noted_at: Mutex::new(None) }
    }

    /// Takes note of the controller's time, over all that was known before; says how far the device's clock is off, where
    /// that matters.
    pub fn learn(&self, controller: Timestamp) -> Option<SignedDuration> {
        let device = SystemClock.now();
        let offset = controller.duration_since(device);
        let offset = if offset.abs() <= TOLERANCE { SignedDuration::ZERO } else { offset };
        *self.reckoning() = Reckoning { offset, source: Source::Controller, device, running: self.started.elapsed() };
        (!offset.is_zero()).then_some(offset)
    }

    /// Takes note of a CA's time, in an answer that was verified; it moves the time forward only, and never what the
    /// controller has said. Whether it did.
    pub fn hear_ca(&self, ca: Timestamp) -> bool {
        let (device, now) = (SystemClock.now(), self.now());
        let mut reckoning = self.reckoning();
        if reckoning.source == Source::Controller || ca.duration_since(now) <= TOLERANCE {
            return false;
        }
        let offset = ca.duration_since(device);
        *reckoning = Reckoning { offset, source: Source::Ca, device, running: self.started.elapsed() };
        true
    }

    /// How far the device's clock is behind the controller's time at this moment, seconds; negative: ahead. None: it is right,
    /// or there was no controller yet.
    pub fn off_s(&self) -> Option<i64> {
        let now = self.now();
        let controller = self.reckoning().source == Source::Controller;
        let off = now.duration_since(SystemClock.now());
        (controller && off.abs() > TOLERANCE).then(|| off.as_secs())
    }

    /// Where the time comes from.
    pub fn source(&self) -> Source {
        self.reckoning().source
    }

    /// Notes on the disk that it was this late, once an hour, and only where the controller has said so.
    pub fn note(&self, store: &Store) {
        let now = self.now();
        let mut noted_at = self.noted_at.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = noted_at.is_some_and(|at| now.duration_since(at).abs() < NOTE_EVERY);
        if self.source() != Source::Controller || lately {
            return;
        }
        match store::save_json(&store.clock_file(), &Noted { right_at: now }) {
            Ok(()) => *noted_at = Some(now),
            Err(error) => tracing::warn!(%error, "the time is not noted on the disk"),
        }
    }

    fn reckoning(&self) -> MutexGuard<'_, Reckoning> {
        self.reckoning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for AgentClock {
    fn now(&self) -> Timestamp {
        self.reckoning().now(SystemClock.now(), self.started.elapsed())
    }
}

/// When this program was built, or what its build was told (`SOURCE_DATE_EPOCH`): no device that runs it lives earlier.
fn built_at() -> Timestamp {
    let seconds = env!("TRUSTFLEET_BUILT_AT").parse().unwrap_or(0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_device_that_wakes_up_in_1970_reckons_from_the_floor_and_then_with_the_controllers_time() {
        let woken = begin(at(0), Timestamp::UNIX_EPOCH, s(0));
        assert_eq!(woken.source, Source::Floor);
        let later = Timestamp::from_second(100).unwrap();
        assert_eq!(woken.now(later, s(100)), at(100), "it goes on from there");
        assert_eq!(begin(at(0), at(5), s(0)).source, Source::Device);

        let clock = AgentClock::default();
        let controller = SystemClock.now().checked_add(SignedDuration::from_hours(24 * 365)).unwrap();
        assert!(clock.learn(controller).is_some());
        assert!(clock.now().duration_since(controller).abs() < SignedDuration::from_secs(5));
        assert!(clock.off_s().is_some_and(|off| (off - 365 * 86_400).abs() < 5));
        assert!(clock.learn(SystemClock.now()).is_none() && clock.off_s().is_none());
    }

    #[test]
    fn a_clock_that_is_set_right_meanwhile_is_not_corrected_twice_and_sleep_is_no_correction() {
        let year = SignedDuration::from_hours(24 * 365);
        let behind = Reckoning { offset: year, source: Source::Controller, device: at(0), running: s(0) };
        assert_eq!(behind.now(at(100), s(100)), at(100) + year);
        let set = at(100) + year;
        assert_eq!(behind.now(set, s(100)), set, "somebody set it");
        // Asleep for an hour: the device's clock ran, ours did not.
        assert_eq!(behind.now(at(3_700), s(100)), at(3_700) + year);
        let right = Reckoning { offset: SignedDuration::ZERO, ..behind };
        assert_eq!(right.now(at(3_700), s(100)), at(3_700));
    }

    #[test]
    fn v13_a_cas_time_moves_the_time_forward_only_and_never_what_the_controller_said() {
        let hour = SignedDuration::from_hours(1);
        let clock = AgentClock::default();
        assert!(!clock.hear_ca(SystemClock.now() - hour), "not back");
        assert!(clock.hear_ca(SystemClock.now() + hour));
        assert_eq!(clock.source(), Source::Ca);
        assert!((clock.now().duration_since(SystemClock.now()) - hour).abs() < SignedDuration::from_secs(5));
        assert!(clock.off_s().is_none(), "only the controller's time tells that a clock is wrong");
        clock.learn(SystemClock.now());
        assert!(!clock.hear_ca(SystemClock.now() + hour));
        assert!(clock.now().duration_since(SystemClock.now()).abs() < SignedDuration::from_secs(5));
    }

    #[test]
    fn a_moment_that_was_right_is_noted_only_when_the_controller_said_so_and_is_the_next_starts_floor() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let clock = AgentClock::load(&store);
        clock.note(&store);
        assert!(!store.clock_file().exists());
        clock.learn(SystemClock.now() + SignedDuration::from_hours(1));
        clock.note(&store);
        // The same device, switched on again without a controller: not earlier than it was.
        let again = AgentClock::load(&store);
        assert_eq!(again.source(), Source::Floor);
        assert!(again.now() >= SystemClock.now() + SignedDuration::from_mins(59));
        assert!(built_at() > at(0) && built_at() <= SystemClock.now());
    }
}
