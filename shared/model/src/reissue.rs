//! The floor under re-issue: how many certificates a trustpoint may get in a time, whoever asks for them.
//!
//! It stands between a loop (a script, a binding that is changed to and fro, a service that is never content) and the CA.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::field::Violations;
use crate::renewal::plus;

/// Most certificates of which the moment is remembered; no floor counts more.
pub const REMEMBERED_MAX: usize = 32;
/// Longest time that a floor looks back, seconds.
pub const WITHIN_MOST_S: u32 = 30 * 86_400;

/// How many certificates a trustpoint may get in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReissueFloor {
    /// How many, up to [`REMEMBERED_MAX`]; 0: any number.
    pub most: u32,
    /// In what time, seconds; in the life of its certificate where that is shorter.
    pub within_s: u32,
}

impl Default for ReissueFloor {
    fn default() -> Self {
        Self { most: 10, within_s: 3_600 }
    }
}

/// The floor is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Certificates that were issued in that time.
    pub issued: u32,
    /// The time that counts, seconds.
    pub within_s: i64,
    /// When the next one is possible.
    pub again_at: Timestamp,
}

impl ReissueFloor {
    /// Whether it is as if nothing was said: not stored then, for older replicas.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the limits.
    pub fn check(&self, violations: &mut Violations) {
        if usize::try_from(self.most).map_or(true, |most| most > REMEMBERED_MAX) {
            let message = format!("is {}; allowed are 0 (no floor) to {REMEMBERED_MAX}", self.most);
            violations.add("reissue.most", "reissue", message);
        }
        if !(1..=WITHIN_MOST_S).contains(&self.within_s) {
            let message = format!("is {}; allowed are 1 to {WITHIN_MOST_S} seconds", self.within_s);
            violations.add("reissue.within_s", "reissue", message);
        }
    }

    /// Whether the floor is reached by certificates that were issued at these moments, in any order; `life`: how long they
    /// are valid, where that is known.
    pub fn reached(&self, issued: &[Timestamp], life: Option<SignedDuration>, now: Timestamp) -> Option<Reached> {
        let most = usize::try_from(self.most).ok().filter(|most| *most > 0)?;
        let within = SignedDuration::from_secs(self.within_s.into());
        let within = life.filter(|life| *life > SignedDuration::ZERO).map_or(within, |life| life.min(within));
        // A clock that was set back must not hold a trustpoint up for longer than the time that counts.
        let mut ends: Vec<Timestamp> =
            issued.iter().map(|at| plus((*at).min(now), within)).filter(|end| *end > now).collect();
        if ends.len() < most {
            return None;
        }
        ends.sort_unstable();
        let again_at = ends[ends.len() - most];
        Some(Reached { issued: u32::try_from(ends.len()).unwrap_or(u32::MAX), within_s: within.as_secs(), again_at })
    }
}

/// Takes note of a certificate that was issued; what no floor can count any more is forgotten.
pub fn note_issued(issued: &mut Vec<Timestamp>, at: Timestamp) {
    let within = SignedDuration::from_secs(WITHIN_MOST_S.into());
    issued.retain(|before| plus(*before, within) > at);
    issued.push(at);
    let first = issued.len().saturating_sub(REMEMBERED_MAX);
    issued.drain(..first);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn issued(seconds: &[i64]) -> Vec<Timestamp> {
        seconds.iter().map(|second| at(*second)).collect()
    }

    const THREE: ReissueFloor = ReissueFloor { most: 3, within_s: 3_600 };

    #[test]
    fn the_next_certificate_is_possible_when_one_of_those_that_count_is_old_enough() {
        assert_eq!(THREE.reached(&issued(&[0, 100]), None, at(200)), None);
        let reached = THREE.reached(&issued(&[0, 100, 200]), None, at(300)).unwrap();
        assert_eq!((reached.issued, reached.again_at), (3, at(3_600)));
        assert_eq!(THREE.reached(&issued(&[0, 100, 200]), None, at(3_600)), None);
        // More than there may be, because the floor was gone round: as many must be old enough.
        let more = THREE.reached(&issued(&[300, 0, 200, 100]), None, at(400)).unwrap();
        assert_eq!((more.issued, more.again_at), (4, at(3_700)));
        let off = ReissueFloor { most: 0, ..THREE };
        assert_eq!(off.reached(&issued(&[0; 32]), None, at(1)), None);
    }

    #[test]
    fn certificates_that_live_shortly_are_counted_over_their_life() {
        let life = Some(SignedDuration::from_secs(60));
        assert!(THREE.reached(&issued(&[0, 20, 40]), life, at(50)).is_some());
        assert_eq!(THREE.reached(&issued(&[0, 20, 40]), life, at(60)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up_for_longer_than_the_floor() {
        let reached = THREE.reached(&issued(&[90_000, 90_001, 90_002]), None, at(0)).unwrap();
        assert_eq!(reached.again_at, at(3_600));
    }

    #[test]
    fn no_more_are_remembered_than_a_floor_can_count() {
        let mut moments = Vec::new();
        (0..100).for_each(|second| note_issued(&mut moments, at(second)));
        assert_eq!((moments.len(), moments[0]), (REMEMBERED_MAX, at(68)));
        note_issued(&mut moments, at(i64::from(WITHIN_MOST_S) + 100));
        assert_eq!(moments.len(), 1, "a trustpoint that is renewed now and then remembers one");
        let mut violations = Violations::new();
        ReissueFloor { most: 33, within_s: 0 }.check(&mut violations);
        assert_eq!(violations.as_slice().len(), 2);
    }
}
