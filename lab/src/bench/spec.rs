//! What a benchmark promises: its id, what stands beside it, and how good it must be. Pure.

/// One benchmark.
#[derive(Debug)]
pub(crate) struct Spec {
    /// `group.name`.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) what: &'static str,
    /// What it is measured beside, or `absolute`.
    pub(crate) beside: &'static str,
    /// Unit of its value and of its baseline's.
    pub(crate) unit: &'static str,
    /// How good it must be. The first is the one that is shown; all must be met.
    pub(crate) limits: &'static [Limit],
    /// How long one run takes.
    pub(crate) pace: Pace,
}

/// A bound of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Which number is bounded.
    pub(crate) of: Of,
    /// On which side is good.
    pub(crate) better: Better,
    /// The last good number.
    pub(crate) target: f64,
}

/// Which number of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Of {
    /// Value divided by baseline.
    Ratio,
    /// The value, in the unit of the benchmark.
    Value,
}

/// Where good is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Better {
    /// Below.
    Lower,
    /// Above.
    Higher,
}

/// How long one run takes; so many runs are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Seconds: five runs.
    Seconds,
    /// Minutes: three runs.
    Minutes,
    /// It is looked at, not measured: one run.
    Look,
}

impl Limit {
    /// The ratio may not be greater.
    pub(crate) const fn ratio_at_most(target: f64) -> Self {
        Self { of: Of::Ratio, better: Better::Lower, target }
    }

    /// The value may not be greater.
    pub(crate) const fn at_most(target: f64) -> Self {
        Self { of: Of::Value, better: Better::Lower, target }
    }

    /// The ratio may not be less.
    pub(crate) const fn ratio_at_least(target: f64) -> Self {
        Self { of: Of::Ratio, better: Better::Higher, target }
    }

    /// Whether a number keeps to it. A number that is none does not.
    pub(crate) fn is_kept_by(self, number: f64) -> bool {
        match self.better {
            Better::Lower => number <= self.target,
            Better::Higher => number >= self.target,
        }
    }
}

impl Better {
    /// For JSON.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }

    /// For the table.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::Lower => "≤",
            Self::Higher => "≥",
        }
    }
}

impl Pace {
    /// How often it is measured. `quick`: only whether it works, and about how good it is.
    pub(crate) const fn runs(self, quick: bool) -> usize {
        match (self, quick) {
            (Self::Seconds, false) => 5,
            (Self::Minutes, false) | (Self::Seconds, true) => 3,
            (Self::Minutes, true) | (Self::Look, _) => 1,
        }
    }
}

/// The benchmarks whose id begins with one of the prefixes, all of them without a prefix.
///
/// # Errors
/// The first prefix that fits none.
pub(crate) fn select(
    all: impl Iterator<Item = &'static Spec>,
    prefixes: &[String],
) -> Result<Vec<&'static Spec>, String> {
    let all: Vec<_> = all.collect();
    let fits = |prefix: &String| all.iter().any(|spec| spec.id.starts_with(prefix.as_str()));
    if let Some(stranger) = prefixes.iter().find(|prefix| !fits(prefix)) {
        return Err(stranger.clone());
    }
    let chosen =
        |spec: &&Spec| prefixes.is_empty() || prefixes.iter().any(|prefix| spec.id.starts_with(prefix.as_str()));
    Ok(all.iter().copied().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spec(id: &'static str) -> Spec {
        const ONE: &[Limit] = &[Limit::at_most(1.0)];
        Spec { id, what: "", beside: "", unit: "ms", limits: ONE, pace: Pace::Seconds }
    }

    static ALL: [Spec; 3] = [spec("cmp.wall"), spec("cmp.rss"), spec("agent.rss")];

    fn chosen(prefixes: &[&str]) -> Result<Vec<&'static str>, String> {
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        Ok(select(ALL.iter(), &prefixes)?.iter().map(|spec| spec.id).collect())
    }

    #[test]
    fn prefixes_choose_groups_and_single_benchmarks_in_the_order_of_the_list() {
        assert_eq!(chosen(&[]).unwrap(), ["cmp.wall", "cmp.rss", "agent.rss"]);
        assert_eq!(chosen(&["agent", "cmp.r"]).unwrap(), ["cmp.rss", "agent.rss"]);
        assert_eq!(chosen(&["cmp", "cmp.rss"]).unwrap(), ["cmp.wall", "cmp.rss"], "none twice");
    }

    #[test]
    fn a_prefix_that_fits_nothing_is_named_instead_of_running_nothing() {
        assert_eq!(chosen(&["cmp", "agnet"]).unwrap_err(), "agnet");
    }

    #[test]
    fn a_limit_is_kept_on_its_side_and_on_the_line() {
        let most = Limit::at_most(0.6);
        let least = Limit { better: Better::Higher, ..most };
        assert!(most.is_kept_by(0.6) && most.is_kept_by(0.1) && !most.is_kept_by(0.61));
        assert!(least.is_kept_by(0.6) && !least.is_kept_by(0.1) && least.is_kept_by(0.61));
        assert!(!most.is_kept_by(f64::NAN) && !least.is_kept_by(f64::NAN));
    }

    #[test]
    fn a_quick_pass_measures_less_often() {
        assert_eq!([Pace::Seconds, Pace::Minutes, Pace::Look].map(|pace| pace.runs(false)), [5, 3, 1]);
        assert_eq!([Pace::Seconds, Pace::Minutes, Pace::Look].map(|pace| pace.runs(true)), [3, 1, 1]);
    }
}
