//! How often an agent is heard of, and which certificates will end before it is heard of again in time.
//!
//! Pure: two numbers for each agent are carried on from gap to gap, and the moments follow from them alone.

use jiff::{SignedDuration, Timestamp};

use crate::renewal::plus;

/// What was longer ago than this weighs less than what was since.
const MEMORY: SignedDuration = SignedDuration::from_hours(60 * 24);
/// Who was heard of within this time is there: agents say hello every few minutes.
pub const THERE: SignedDuration = SignedDuration::from_mins(15);
/// Usual absence of an agent of which nothing is known yet.
const UNKNOWN: SignedDuration = SignedDuration::from_hours(24);
/// Certificates that end later are not looked at.
pub const HORIZON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates that ended longer ago are given up.
pub const GONE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How long an agent is away, as far as its gaps tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rhythm {
    /// Mean length of the gap that a random moment falls into, seconds.
    pub mean_s: f64,
    /// Longest gap of late, seconds: it fades when it does not come again.
    pub most_s: f64,
}

impl Rhythm {
    /// After a further gap. Long gaps weigh by their length: a weekend without a word is not lost among minutes.
    #[must_use]
    pub fn after(self, gap: SignedDuration) -> Self {
        let gap_s = gap.as_secs_f64().max(0.0);
        let kept = (-gap_s / MEMORY.as_secs_f64()).exp();
        Self { mean_s: self.mean_s * kept + gap_s * (1.0 - kept), most_s: (self.most_s * kept).max(gap_s) }
    }

    /// How long it is to be expected to be away: the longest gap of late, or twice the mean where that is more.
    pub fn usual_absence(self) -> SignedDuration {
        let seconds = self.most_s.max(2.0 * self.mean_s);
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(HORIZON).max(THERE)
    }
}

/// What is known of a certificate in use and of the agent that has to renew it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Situation {
    /// The certificate's end.
    pub not_after: Timestamp,
    /// When it is to be renewed by itself; none: nobody has planned that.
    pub renew_at: Option<Timestamp>,
    /// When the agent was last heard of; none: there is no agent.
    pub last_seen_at: Option<Timestamp>,
    /// The agent is in quarantine.
    pub quarantined: bool,
    /// Its gaps; none: nothing is known of them.
    pub rhythm: Option<Rhythm>,
    /// How long jobs wait for the CA at present.
    pub queue: SignedDuration,
}

/// Why a certificate is at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// It has ended: a key update is impossible, recovery must be armed.
    Expired,
    /// No agent is in front of its device.
    NoAgent,
    /// Its agent is in quarantine.
    Quarantined,
    /// Its agent is away for longer than it usually is.
    Absent,
    /// Its agent comes too seldom: the next time is to be expected too late.
    Seldom,
    /// It would be in time, but for the jobs that wait for the CA.
    Queue,
}

impl Risk {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::NoAgent, Self::Quarantined, Self::Absent, Self::Seldom, Self::Queue];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoAgent => "no_agent",
            Self::Quarantined => "quarantined",
            Self::Absent => "absent",
            Self::Seldom => "seldom",
            Self::Queue => "queue",
        }
    }
}

/// A certificate that will not be renewed in time, as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Why.
    pub risk: Risk,
    /// When its successor is to be expected; none: nobody can say.
    pub renewed_at: Option<Timestamp>,
}

/// Whether a certificate will end before it can be renewed; none: it is in time.
///
/// Whoever is away no longer than usual is expected back by then; whoever is away longer is expected to stay away as long again.
pub fn predict(situation: &Situation, now: Timestamp) -> Option<Prediction> {
    let without = |risk| Some(Prediction { risk, renewed_at: None });
    if situation.not_after <= now {
        return without(Risk::Expired);
    }
    let Some(last_seen_at) = situation.last_seen_at else { return without(Risk::NoAgent) };
    if situation.quarantined {
        return without(Risk::Quarantined);
    }
    let usual = situation.rhythm.map_or(UNKNOWN, Rhythm::usual_absence);
    let away = now.duration_since(last_seen_at).max(SignedDuration::ZERO);
    let is_absent = away > usual.max(THERE);
    let contact = if away <= THERE {
        now
    } else if is_absent {
        plus(now, away)
    } else {
        plus(last_seen_at, usual).max(now)
    };
    let needed = situation.renew_at.unwrap_or(now).max(now);
    let contact = if needed > contact { plus(needed, usual) } else { contact };
    let renewed_at = plus(contact, situation.queue);
    if renewed_at < situation.not_after {
        return None;
    }
    let risk = match (contact < situation.not_after, is_absent) {
        (true, _) => Risk::Queue,
        (false, true) => Risk::Absent,
        (false, false) => Risk::Seldom,
    };
    Some(Prediction { risk, renewed_at: Some(renewed_at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3_600).unwrap()
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    /// A hello every five minutes on weekdays, and nothing on the two and a half days of a weekend.
    fn weekdays(weeks: u32) -> Rhythm {
        let mut rhythm = Rhythm::default();
        for _ in 0..weeks {
            for _ in 0..(108 * 12) {
                rhythm = rhythm.after(SignedDuration::from_mins(5));
            }
            rhythm = rhythm.after(hours(60));
        }
        rhythm
    }

    fn fine() -> Situation {
        Situation {
            not_after: at(100),
            renew_at: Some(at(50)),
            last_seen_at: Some(at(0)),
            quarantined: false,
            rhythm: Some(Rhythm::default().after(SignedDuration::from_mins(5))),
            queue: SignedDuration::ZERO,
        }
    }

    fn risk(situation: Situation, now: i64) -> Option<Risk> {
        predict(&situation, at(now)).map(|prediction| prediction.risk)
    }

    #[test]
    fn a_rhythm_remembers_the_absences_that_come_again_and_forgets_the_one_that_does_not() {
        let always = (0..5_000).fold(Rhythm::default(), |rhythm, _| rhythm.after(SignedDuration::from_mins(5)));
        assert_eq!(always.usual_absence(), THERE);
        let usual = weekdays(8).usual_absence();
        assert!((hours(60)..=hours(70)).contains(&usual), "{usual:?}");
        // Ten days away once, then months at work.
        let mut once = always.after(hours(240));
        assert_eq!(once.usual_absence(), hours(240));
        for _ in 0..(180 * 24 * 12) {
            once = once.after(SignedDuration::from_mins(5));
        }
        assert!(once.usual_absence() < hours(24), "{once:?}");
        let monthly = Rhythm::default().after(hours(720)).after(hours(720));
        assert!(monthly.usual_absence() >= hours(720));
        assert_eq!(Rhythm::default().after(hours(-5)), Rhythm::default(), "a clock that was set back");
    }

    #[test]
    fn whoever_is_there_or_comes_back_in_time_is_at_no_risk() {
        assert_eq!(risk(fine(), 0), None);
        let weekend = Situation { rhythm: Some(weekdays(8)), renew_at: Some(at(1)), ..fine() };
        assert_eq!(risk(weekend, 30), None, "away for 30 hours of 60, and 40 are left after");
        let unknown = Situation { rhythm: None, ..fine() };
        assert_eq!(risk(unknown, 1), None);
    }

    #[test]
    fn a_device_is_told_of_before_it_misses_its_window_and_after() {
        let away = Situation { renew_at: Some(at(1)), ..fine() };
        assert_eq!(risk(away, 30), None, "away for 30 hours, expected back at 60");
        assert_eq!(risk(away, 50), Some(Risk::Absent), "expected back when the certificate has ended");
        assert_eq!(predict(&away, at(60)).unwrap().renewed_at, Some(at(120)));
        assert_eq!(risk(away, 100), Some(Risk::Expired));
        let seldom = Situation { rhythm: Some(Rhythm::default().after(hours(90))), renew_at: Some(at(20)), ..fine() };
        assert_eq!(risk(seldom, 0), Some(Risk::Seldom), "there now, and next when it has ended");
        let monthly = Situation { rhythm: Some(weekdays(8)), renew_at: Some(at(60)), ..fine() };
        assert_eq!(risk(monthly, 0), Some(Risk::Seldom), "its window may fall into a weekend");
        let busy = Situation { queue: hours(60), ..fine() };
        assert_eq!(risk(busy, 0), Some(Risk::Queue));
        assert_eq!(risk(Situation { last_seen_at: None, ..fine() }, 0), Some(Risk::NoAgent));
        assert_eq!(risk(Situation { quarantined: true, ..fine() }, 0), Some(Risk::Quarantined));
    }

    #[test]
    fn the_risk_never_goes_away_by_waiting_alone() {
        let away = Situation { renew_at: Some(at(1)), ..fine() };
        let told: Vec<bool> = (0..140).map(|hour| risk(away, hour).is_some()).collect();
        let first = told.iter().position(|is_told| *is_told).unwrap();
        assert!(first < 100 && told[first..].iter().all(|is_told| *is_told), "{first}");
        assert!(away.not_after.duration_since(at(i64::try_from(first).unwrap())) > 24 * HOUR, "a day before at least");
    }
}
