//! A part of a number of things: so many, or so many percent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A part of a number of things, written `25` or `5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Portion {
    /// So many.
    Count(u32),
    /// So many percent, 0 to 100.
    Percent(u8),
}

/// No portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number, such as 25, or a percentage from 0% to 100%, such as 5%")]
pub struct PortionError;

impl FromStr for Portion {
    type Err = PortionError;

    fn from_str(text: &str) -> Result<Self, PortionError> {
        // Only digits: no sign, as parsing alone would take.
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match text.strip_suffix('%') {
            Some(percent) if digits(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(PortionError),
            },
            None if digits(text) => text.parse().map(Self::Count).map_err(|_| PortionError),
            _ => Err(PortionError),
        }
    }
}

impl TryFrom<String> for Portion {
    type Error = PortionError;

    fn try_from(text: String) -> Result<Self, PortionError> {
        text.parse()
    }
}

impl From<Portion> for String {
    fn from(portion: Portion) -> Self {
        portion.to_string()
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Portion {
    /// Whether it is nothing of anything.
    pub const fn is_zero(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }

    /// At most so many of `total`; what is no whole number is rounded down.
    pub fn at_most(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => share(percent, total, 0),
        }
    }

    /// So many of `total`, at least one; what is no whole number is rounded up.
    fn of_wave(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.clamp(1, total.max(1)),
            Self::Percent(percent) => share(percent, total, 99).max(1),
        }
    }
}

fn share(percent: u8, total: u32, round: u64) -> u32 {
    u32::try_from((u64::from(total) * u64::from(percent) + round) / 100).unwrap_or(u32::MAX)
}

/// How many of `total` members there are up to the end of each wave; the last one takes what the others leave. Waves for
/// which nothing is left fall away; with no members there are no waves.
pub fn wave_ends(total: u32, waves: &[Portion]) -> Vec<u32> {
    let (mut ends, mut end) = (Vec::new(), 0_u32);
    for wave in waves {
        if end >= total {
            break;
        }
        end = end.saturating_add(wave.of_wave(total)).min(total);
        ends.push(end);
    }
    if end < total {
        ends.push(total);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_read_as_it_is_written_and_nothing_else_is_one() {
        for text in ["0", "25", "5%", "100%"] {
            assert_eq!(text.parse::<Portion>().unwrap().to_string(), text);
        }
        for text in ["", "%", "-1", "+1", "101%", "5.5%", "5 %", "4294967296"] {
            assert_eq!(text.parse::<Portion>(), Err(PortionError), "{text}");
        }
    }

    #[test]
    fn s51_waves_cover_every_member_once_and_the_last_takes_the_rest() {
        let waves = [Portion::Count(1), Portion::Percent(5), Portion::Percent(25)];
        assert_eq!(wave_ends(1_000, &waves), [1, 51, 301, 1_000]);
        assert_eq!(wave_ends(10, &waves), [1, 2, 5, 10], "a percentage is rounded up");
        assert_eq!(wave_ends(2, &waves), [1, 2], "waves without members fall away");
        assert_eq!(wave_ends(3, &[]), [3]);
        assert_eq!(wave_ends(3, &[Portion::Percent(100)]), [3]);
        assert_eq!(wave_ends(0, &waves), Vec::<u32>::new());
    }

    #[test]
    fn what_may_fail_is_rounded_down() {
        assert_eq!(Portion::Percent(5).at_most(19), 0);
        assert_eq!(Portion::Percent(5).at_most(20), 1);
        assert_eq!(Portion::Count(3).at_most(2), 2);
    }
}
