//! Runs what was chosen and collects the figures; a benchmark that fails does not hold up the others.

use std::{fmt, time::Instant};

use super::{
    BenchError,
    figure::{Figure, Pair, Runs},
    report::amount,
    spec::Spec,
};

/// What a group's `run` works with.
#[derive(Debug)]
pub(crate) struct Harness {
    chosen: Vec<&'static Spec>,
    quick: bool,
    begin: Instant,
    figures: Vec<Figure>,
    failures: Vec<Failure>,
}

/// A benchmark that could not be measured.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) id: &'static str,
    pub(crate) why: String,
}

impl Harness {
    /// For these benchmarks; `quick`: smaller sizes and fewer runs.
    pub(crate) fn new(chosen: Vec<&'static Spec>, quick: bool) -> Self {
        Self { chosen, quick, begin: Instant::now(), figures: Vec::new(), failures: Vec::new() }
    }

    /// Whether a benchmark was chosen.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.chosen.iter().any(|spec| spec.id == id)
    }

    /// How much is done in one run.
    pub(crate) const fn size<T: Copy>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// One line of progress on stderr.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        eprintln!("{:6.1} s  {what}", self.begin.elapsed().as_secs_f32());
    }

    /// Measures beside a baseline, as often as the benchmark's pace says. One call of `run` is one run: it measures the
    /// subject and the baseline in turn, so that both see the same machine.
    pub(crate) async fn pairs(&mut self, id: &'static str, mut run: impl AsyncFnMut() -> Result<Pair, BenchError>) {
        let Some(spec) = self.begin(id) else { return };
        let (runs, mut pairs) = (spec.pace.runs(self.quick), Vec::new());
        while pairs.len() < runs {
            match run().await {
                Ok(pair) => {
                    pairs.push(pair);
                    let (value, baseline) = (amount(pair.value, spec.unit), amount(pair.baseline, spec.unit));
                    self.say(format_args!("{id}: run {} of {runs}: {value} beside {baseline}", pairs.len()));
                }
                Err(error) => return self.fail(id, &error),
            }
        }
        self.note(spec, &Runs::Pairs(pairs));
    }

    /// Measures an absolute figure, as often as the benchmark's pace says.
    pub(crate) async fn values(&mut self, id: &'static str, mut run: impl AsyncFnMut() -> Result<f64, BenchError>) {
        let Some(spec) = self.begin(id) else { return };
        let (runs, mut values) = (spec.pace.runs(self.quick), Vec::new());
        while values.len() < runs {
            match run().await {
                Ok(value) => {
                    values.push(value);
                    self.say(format_args!("{id}: run {} of {runs}: {}", values.len(), amount(value, spec.unit)));
                }
                Err(error) => return self.fail(id, &error),
            }
        }
        self.note(spec, &Runs::Alone(values));
    }

    /// What a group could not set up fails all its chosen benchmarks that have no figure yet.
    pub(crate) fn fail_rest(&mut self, specs: &'static [Spec], error: &BenchError) {
        for spec in specs {
            let known = self.figures.iter().any(|figure| figure.id == spec.id)
                || self.failures.iter().any(|failure| failure.id == spec.id);
            if self.wants(spec.id) && !known {
                self.fail(spec.id, error);
            }
        }
    }

    /// What a group could not set up for one benchmark that has no figure yet.
    pub(crate) fn fail_one(&mut self, id: &'static str, error: &BenchError) {
        let known =
            self.figures.iter().any(|figure| figure.id == id) || self.failures.iter().any(|failure| failure.id == id);
        if !known {
            self.fail(id, error);
        }
    }

    /// Figures in the order of the list, and what could not be measured.
    pub(crate) fn finish(mut self) -> (Vec<&'static Spec>, Vec<Figure>, Vec<Failure>) {
        let place = |figure: &Figure| self.chosen.iter().position(|spec| spec.id == figure.id);
        self.figures.sort_by_key(place);
        (self.chosen, self.figures, self.failures)
    }

    fn begin(&self, id: &str) -> Option<&'static Spec> {
        let spec = self.chosen.iter().copied().find(|spec| spec.id == id)?;
        self.say(format_args!("{id}: {}, beside: {}", spec.what, spec.beside));
        Some(spec)
    }

    fn note(&mut self, spec: &'static Spec, runs: &Runs) {
        match Figure::of(spec, runs) {
            Some(figure) => self.figures.push(figure),
            None => self.fail(spec.id, &BenchError::Odd("no runs of the kind that its target needs".to_owned())),
        }
    }

    fn fail(&mut self, id: &'static str, error: &BenchError) {
        let why = error.chain();
        self.say(format_args!("{id}: not measured: {why}"));
        self.failures.push(Failure { id, why });
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Limit, Pace};
    use super::*;

    const RATIO: &[Limit] = &[Limit::ratio_at_most(1.0)];
    const VALUE: &[Limit] = &[Limit::at_most(1.0)];

    const fn spec(id: &'static str, limits: &'static [Limit]) -> Spec {
        Spec { id, what: "", beside: "", unit: "ms", limits, pace: Pace::Seconds }
    }

    static SPECS: [Spec; 3] = [spec("t.ratio", RATIO), spec("t.value", VALUE), spec("t.other", VALUE)];

    fn harness(chosen: usize) -> Harness {
        Harness::new(SPECS.iter().take(chosen).collect(), false)
    }

    #[tokio::test]
    async fn subject_and_baseline_are_measured_in_turn_as_often_as_the_pace_says() {
        let mut harness = harness(1);
        let mut calls = 0.0;
        harness
            .pairs("t.ratio", async || {
                calls += 1.0;
                Ok(Pair { value: calls, baseline: 2.0 * calls })
            })
            .await;
        let (_, figures, failures) = harness.finish();
        assert_eq!((calls, figures[0].runs, figures[0].value, figures[0].ratio), (5.0, 5, 3.0, Some(0.5)));
        assert!(failures.is_empty());
    }

    #[tokio::test]
    async fn what_was_not_chosen_is_not_run() {
        let mut harness = harness(1);
        harness.values("t.value", async || unreachable!("not chosen")).await;
        assert!(!harness.wants("t.value") && harness.finish().1.is_empty());
    }

    #[tokio::test]
    async fn a_failure_costs_its_own_benchmark_and_no_other() {
        let mut harness = harness(3);
        harness.pairs("t.ratio", async || Err(BenchError::Odd("no answer".to_owned()))).await;
        harness.values("t.value", async || Ok(1.0)).await;
        harness.fail_rest(&SPECS, &BenchError::Odd("no broker".to_owned()));
        let (_, figures, failures) = harness.finish();
        assert_eq!(figures.iter().map(|figure| figure.id).collect::<Vec<_>>(), ["t.value"]);
        let told: Vec<_> = failures.iter().map(|failure| (failure.id, failure.why.as_str())).collect();
        assert_eq!(told, [("t.ratio", "no answer"), ("t.other", "no broker")]);
    }

    #[tokio::test]
    async fn figures_come_in_the_order_of_the_list() {
        let mut harness = harness(3);
        harness.values("t.other", async || Ok(1.0)).await;
        harness.values("t.value", async || Ok(1.0)).await;
        let ids: Vec<_> = harness.finish().1.iter().map(|figure| figure.id).collect();
        assert_eq!(ids, ["t.value", "t.other"]);
    }
}
