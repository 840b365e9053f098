//! Freeze windows: when devices are not to be changed. Pure; [`crate::freezer`] keeps their present state.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use serde::{Deserialize, Serialize};
use trustfleet_model::field::Violations;

/// Longest window, seconds: 31 days.
pub const DURATION_MAX_S: u32 = 31 * 86_400;
/// Shortest window, seconds: a minute.
pub const DURATION_MIN_S: u32 = 60;
/// Longest cron expression, characters.
const CRON_MAX: usize = 100;
/// Most windows that are followed one upon the other to find the end of all.
const CHAIN_MAX: usize = 1_000;

/// When a window opens, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeSpec {
    /// When it opens: minute, hour, day of the month, month, day of the week, as cron has them.
    pub cron: String,
    /// How long it is open, seconds.
    pub duration_s: u32,
    /// The time zone of `cron`, by its IANA name.
    pub time_zone: String,
}

/// The windows of a freeze as of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// End of the present window; none: there is none. Windows that meet are one.
    pub active_until: Option<Timestamp>,
    /// Begin of the next one.
    pub next_from: Option<Timestamp>,
}

fn cron(text: &str) -> Result<Cron, String> {
    if text.chars().count() > CRON_MAX {
        return Err(format!("is longer than {CRON_MAX} characters"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| {
        format!(
            "cannot be read as minute, hour, day of the month, month and day of the week, such as `0 18 * * FRI`: {error}"
        )
    })
}

fn zone(name: &str) -> Result<TimeZone, &'static str> {
    const WRONG: &str = "must be the IANA name of a time zone, such as Europe/Berlin or UTC";
    // What comes from the environment of one replica is none that all have.
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    if plain { TimeZone::get(name).map_err(|_| WRONG) } else { Err(WRONG) }
}

impl FreezeSpec {
    /// Notes what is wrong with it.
    pub fn check(&self, violations: &mut Violations) {
        let read = violations.check("cron", "cron", cron(&self.cron));
        let found = violations.check("time_zone", "time_zone", zone(&self.time_zone));
        if !(DURATION_MIN_S..=DURATION_MAX_S).contains(&self.duration_s) {
            let message = format!("is {}; allowed are {DURATION_MIN_S} to {DURATION_MAX_S} seconds", self.duration_s);
            violations.add("duration_s", "range", message);
        }
        // A pattern that never comes, such as the 31st of February, would hold nothing, and nobody would notice.
        if let (Some(cron), Some(zone)) = (read, found)
            && cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(zone), true).is_err()
        {
            violations.add("cron", "cron", "never comes: no such day is in any calendar");
        }
    }

    /// The windows at `now`.
    ///
    /// # Errors
    /// A sentence, when it cannot be read; what was checked once can.
    pub fn windows(&self, now: Timestamp) -> Result<Windows, String> {
        let (cron, zone) = (cron(&self.cron)?, zone(&self.time_zone)?);
        let length = SignedDuration::from_secs(self.duration_s.into());
        let here = now.to_zoned(zone);
        let next = |from: &Zoned| cron.find_next_occurrence(from, false).ok();
        let mut active_until = cron
            .find_previous_occurrence(&here, true)
            .ok()
            .map(|begun| begun.timestamp() + length)
            .filter(|end| *end > now);
        let mut next_from = next(&here);
        for _ in 0..CHAIN_MAX {
            match (active_until, &next_from) {
                (Some(end), Some(from)) if from.timestamp() <= end => {
                    active_until = Some(from.timestamp() + length);
                    next_from = next(from);
                }
                _ => break,
            }
        }
        Ok(Windows { active_until, next_from: next_from.map(|from| from.timestamp()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cron: &str, hours: u32, time_zone: &str) -> FreezeSpec {
        FreezeSpec { cron: cron.to_owned(), duration_s: hours * 3_600, time_zone: time_zone.to_owned() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn windows(spec: &FreezeSpec, now: &str) -> (Option<Timestamp>, Option<Timestamp>) {
        let windows = spec.windows(at(now)).unwrap();
        (windows.active_until, windows.next_from)
    }

    #[test]
    fn a_weekend_is_frozen_from_friday_evening_on_in_its_own_time_zone() {
        let weekend = spec("0 18 * * FRI", 62, "Europe/Berlin");
        let opens = at("2026-11-27T17:00:00Z");
        assert_eq!(windows(&weekend, "2026-11-27T16:59:59Z"), (None, Some(opens)));
        let (ends, next) = (at("2026-11-30T07:00:00Z"), at("2026-12-04T17:00:00Z"));
        assert_eq!(windows(&weekend, "2026-11-27T17:00:00Z"), (Some(ends), Some(next)));
        assert_eq!(windows(&weekend, "2026-11-30T06:59:59Z"), (Some(ends), Some(next)));
        assert_eq!(windows(&weekend, "2026-11-30T07:00:00Z"), (None, Some(next)));
    }

    #[test]
    fn an_hour_that_summer_time_moves_begins_when_the_clock_on_the_wall_says_so() {
        let early = spec("0 6 * * *", 1, "Europe/Berlin");
        assert_eq!(windows(&early, "2026-10-24T12:00:00Z").1, Some(at("2026-10-25T05:00:00Z")));
        assert_eq!(windows(&early, "2026-10-23T12:00:00Z").1, Some(at("2026-10-24T04:00:00Z")));
    }

    #[test]
    fn windows_that_meet_are_one() {
        let chained = spec("0 0,6 * * *", 8, "UTC");
        assert_eq!(
            windows(&chained, "2026-11-30T01:00:00Z"),
            (Some(at("2026-11-30T14:00:00Z")), Some(at("2026-12-01T00:00:00Z")))
        );
        let (until, _) = windows(&spec("* * * * *", 1, "UTC"), "2026-11-30T01:00:00Z");
        assert!(until.unwrap() > at("2026-11-30T02:00:00Z"), "always");
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let mut violations = Violations::new();
        spec("0 18 * * FRI", 1_000, "Europe/Atlantis").check(&mut violations);
        FreezeSpec { duration_s: 59, ..spec("* * * * * *", 1, "/etc/localtime") }.check(&mut violations);
        spec("0 0 31 2 *", 1, "UTC").check(&mut violations);
        spec("0 0 24 12 *", 500, "UTC").check(&mut violations);
        let fields: Vec<_> = violations.as_slice().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["time_zone", "duration_s", "cron", "time_zone", "duration_s", "cron"]);
    }
}
