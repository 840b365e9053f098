//! From runs to one figure: medians, ratios of pairs, spread, and whether the target is met. Pure.

use serde::Serialize;

use super::spec::{Of, Spec};

/// One run: the subject, and right after it its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    /// Of the subject.
    pub(crate) value: f64,
    /// Of what stands beside it.
    pub(crate) baseline: f64,
}

/// All runs of a benchmark.
#[derive(Clone, Debug)]
pub(crate) enum Runs {
    /// Beside a baseline.
    Pairs(Vec<Pair>),
    /// Absolute.
    Alone(Vec<f64>),
}

/// What came out, as it stands in `bench.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The benchmark.
    pub(crate) id: &'static str,
    /// Median of the runs.
    pub(crate) value: f64,
    /// Unit of value and baseline.
    pub(crate) unit: &'static str,
    /// Median of the baseline's runs.
    pub(crate) baseline: Option<f64>,
    /// Median of the runs' ratios: not the ratio of the medians, because the two of a run saw the same machine.
    pub(crate) ratio: Option<f64>,
    /// What ratio (where there is one) or value must be.
    pub(crate) target: f64,
    /// `lower` or `higher`.
    pub(crate) better: &'static str,
    /// Whether all limits are kept.
    pub(crate) met: bool,
    /// How many runs.
    pub(crate) runs: usize,
    /// Greatest less smallest run, divided by the median: of the ratios where there is a baseline, else of the values.
    pub(crate) spread: f64,
}

/// The middle one, or the mean of the middle two; NaN of nothing.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(middle), 1) => *middle,
        (Some(upper), _) => f64::midpoint(sorted[half - 1], *upper),
    }
}

/// Greatest less smallest, divided by the median; 0 where that is 0.
fn spread(numbers: &[f64]) -> f64 {
    let (least, most) = numbers
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), number| (least.min(*number), most.max(*number)));
    let middle = median(numbers);
    if middle == 0.0 { 0.0 } else { (most - least) / middle.abs() }
}

impl Figure {
    /// The figure of a benchmark; `None` without a run, or where the runs are of another kind than its limits.
    pub(crate) fn of(spec: &Spec, runs: &Runs) -> Option<Self> {
        let (values, ratios, baseline) = match runs {
            Runs::Alone(values) => (values.clone(), Vec::new(), None),
            Runs::Pairs(pairs) => {
                let values = pairs.iter().map(|pair| pair.value).collect();
                let ratios = pairs.iter().map(|pair| pair.value / pair.baseline).collect();
                let baselines: Vec<_> = pairs.iter().map(|pair| pair.baseline).collect();
                (values, ratios, Some(median(&baselines)))
            }
        };
        let first = spec.limits.first().filter(|_| !values.is_empty())?;
        let value = median(&values);
        let ratio = baseline.map(|_| median(&ratios));
        let number = |of| match of {
            Of::Ratio => ratio,
            Of::Value => Some(value),
        };
        let kept: Option<Vec<bool>> =
            spec.limits.iter().map(|limit| number(limit.of).map(|number| limit.is_kept_by(number))).collect();
        Some(Self {
            id: spec.id,
            value,
            unit: spec.unit,
            baseline,
            ratio,
            target: first.target,
            better: first.better.word(),
            met: kept?.into_iter().all(|kept| kept),
            runs: values.len(),
            spread: spread(if ratios.is_empty() { &values } else { &ratios }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Better, Limit, Pace};
    use super::*;

    const RATIO: Spec = Spec {
        id: "cmp.wall",
        what: "",
        beside: "",
        unit: "ms",
        limits: &[Limit::ratio_at_most(0.6)],
        pace: Pace::Seconds,
    };

    fn pairs(pairs: &[(f64, f64)]) -> Runs {
        Runs::Pairs(pairs.iter().map(|(value, baseline)| Pair { value: *value, baseline: *baseline }).collect())
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 100.0]), 3.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_ratio_is_that_of_runs_that_saw_the_same_machine() {
        // Three runs on a quiet machine, two on one that is three times as busy: each pair says one half.
        let figure = Figure::of(&RATIO, &pairs(&[(1.0, 2.0), (3.0, 6.0), (1.0, 2.0), (3.0, 6.0), (1.2, 2.0)])).unwrap();
        assert_eq!((figure.value, figure.baseline, figure.ratio), (1.2, Some(2.0), Some(0.5)));
        assert!(figure.met && figure.runs == 5);
        assert!((figure.spread - 0.2).abs() < 1e-9, "of the ratios, not of the times: {}", figure.spread);
    }

    #[test]
    fn a_target_that_is_missed_is_not_met() {
        assert!(!Figure::of(&RATIO, &pairs(&[(1.3, 2.0)])).unwrap().met);
        assert!(Figure::of(&RATIO, &pairs(&[(1.2, 2.0)])).unwrap().met);
        assert!(!Figure::of(&RATIO, &pairs(&[(0.0, 0.0)])).unwrap().met, "nothing beside nothing is no success");
    }

    #[test]
    fn of_several_limits_all_must_be_kept() {
        const BOTH: &[Limit] = &[Limit::ratio_at_most(1.5), Limit::at_most(20.0)];
        let spec = Spec { limits: BOTH, ..RATIO };
        assert!(Figure::of(&spec, &pairs(&[(19.0, 18.0)])).unwrap().met);
        assert!(!Figure::of(&spec, &pairs(&[(21.0, 20.0)])).unwrap().met);
        assert!(!Figure::of(&spec, &pairs(&[(19.0, 10.0)])).unwrap().met);
    }

    #[test]
    fn an_absolute_figure_has_no_baseline_and_its_spread_is_that_of_its_values() {
        const FIVE: &[Limit] = &[Limit { of: Of::Value, better: Better::Higher, target: 5.0 }];
        let spec = Spec { limits: FIVE, ..RATIO };
        let figure = Figure::of(&spec, &Runs::Alone(vec![4.0, 6.0, 5.0])).unwrap();
        assert_eq!((figure.value, figure.baseline, figure.ratio, figure.spread), (5.0, None, None, 0.4));
        assert!(figure.met && figure.better == "higher");
        assert_eq!(Figure::of(&spec, &Runs::Alone(vec![0.0])).unwrap().spread, 0.0);
    }

    #[test]
    fn no_runs_and_runs_without_the_baseline_that_the_target_needs_make_no_figure() {
        assert!(Figure::of(&RATIO, &pairs(&[])).is_none());
        assert!(Figure::of(&RATIO, &Runs::Alone(vec![1.0])).is_none());
    }
}
