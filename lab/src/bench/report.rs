//! What is shown and kept: the table, and `bench.json`. Pure.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{
    figure::Figure,
    machine::Machine,
    spec::{Better, Of, Spec},
};

/// Everything that one call of `bench` found out: the whole of `bench.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where it was measured.
    pub(crate) machine: Machine,
    /// One entry for each benchmark that was measured.
    pub(crate) results: Vec<Figure>,
}

impl Report {
    /// The file's text.
    ///
    /// # Errors
    /// A number that JSON does not know, which a bench must not give.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// For people: one line a benchmark, what it is beside, and which targets are missed.
    pub(crate) fn table(&self, chosen: &[&Spec]) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["ID", "VALUE", "BASELINE", "RATIO", "TARGET", "MET", "RUNS", "SPREAD", "BESIDE"]);
        let mut missed = Vec::new();
        for spec in chosen {
            let Some(figure) = self.results.iter().find(|figure| figure.id == spec.id) else {
                table.add_row([spec.id, "-", "-", "-", &limit(spec), "not measured", "0", "-", spec.beside]);
                continue;
            };
            if !figure.met {
                missed.push(spec.id);
            }
            table.add_row([
                spec.id.to_owned(),
                amount(figure.value, spec.unit),
                figure.baseline.map_or_else(|| "-".to_owned(), |baseline| amount(baseline, spec.unit)),
                figure.ratio.map_or_else(|| "-".to_owned(), digits),
                limit(spec),
                if figure.met { "yes" } else { "NO" }.to_owned(),
                figure.runs.to_string(),
                format!("{:.0} %", figure.spread * 100.0),
                spec.beside.to_owned(),
            ]);
        }
        let mut text = String::new();
        for line in table.to_string().lines() {
            let _ = writeln!(text, "{}", line.strip_prefix(' ').unwrap_or(line).trim_end());
        }
        let _ = writeln!(text, "({})", self.machine);
        if !missed.is_empty() {
            let _ = writeln!(text, "TARGET MISSED: {}", missed.join(", "));
        }
        text
    }
}

/// All benchmarks with what they measure.
pub(crate) fn list<'a>(specs: impl Iterator<Item = &'a Spec>) -> String {
    let mut text = String::new();
    for spec in specs {
        let _ =
            writeln!(text, "{:<16} {}\n{:<16} beside: {}; target {}", spec.id, spec.what, "", spec.beside, limit(spec));
    }
    text
}

fn limit(spec: &Spec) -> String {
    let one = |limit: &super::spec::Limit| {
        let number = match limit.of {
            Of::Ratio => digits(limit.target),
            Of::Value => amount(limit.target, spec.unit),
        };
        format!("{} {number}", Better::sign(limit.better))
    };
    spec.limits.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A number with its unit.
pub(crate) fn amount(number: f64, unit: &str) -> String {
    format!("{} {unit}", digits(number))
}

/// Three digits that count.
fn digits(number: f64) -> String {
    let places = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size == 0.0 || size >= 1.0 => 2,
        _ => 3,
    };
    format!("{number:.places$}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{
        figure::{Pair, Runs},
        spec::{Limit, Pace},
    };
    use super::*;

    static SPECS: [Spec; 3] = [
        Spec {
            id: "cmp.wall",
            what: "a process",
            beside: "openssl cmp",
            unit: "ms",
            limits: &[Limit::ratio_at_most(0.6)],
            pace: Pace::Seconds,
        },
        Spec {
            id: "agent.rss",
            what: "an agent",
            beside: "absolute",
            unit: "MB",
            limits: &[Limit::at_most(6.0)],
            pace: Pace::Minutes,
        },
        Spec {
            id: "agent.none",
            what: "",
            beside: "absolute",
            unit: "MB",
            limits: &[Limit::at_most(6.0)],
            pace: Pace::Look,
        },
    ];

    fn report() -> Report {
        let pair = Pair { value: 4.0, baseline: 8.0 };
        let results = vec![
            Figure::of(&SPECS[0], &Runs::Pairs(vec![pair; 5])).unwrap(),
            Figure::of(&SPECS[1], &Runs::Alone(vec![7.25, 7.5, 7.0])).unwrap(),
        ];
        Report { machine: Machine::sample(), results }
    }

    #[test]
    fn the_json_has_the_machine_and_an_entry_for_each_id_with_all_its_fields() {
        let value: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(
            value["results"],
            json!([
                { "id": "cmp.wall", "value": 4.0, "unit": "ms", "baseline": 8.0, "ratio": 0.5, "target": 0.6,
                  "better": "lower", "met": true, "runs": 5, "spread": 0.0 },
                { "id": "agent.rss", "value": 7.25, "unit": "MB", "baseline": null, "ratio": null, "target": 6.0,
                  "better": "lower", "met": false, "runs": 3, "spread": 0.5 / 7.25 },
            ])
        );
        assert!(value["machine"]["cpu"].is_string() && value["machine"]["cores"].is_number());
    }

    #[test]
    fn the_table_marks_a_missed_target_and_what_was_not_measured() {
        let text = report().table(&SPECS.iter().collect::<Vec<_>>());
        let line = |id: &str| {
            let line = text.lines().find(|line| line.starts_with(id)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("cmp.wall"), "cmp.wall 4.00 ms 8.00 ms 0.500 ≤ 0.600 yes 5 0 % openssl cmp");
        assert_eq!(line("agent.rss"), "agent.rss 7.25 MB - - ≤ 6.00 MB NO 3 7 % absolute");
        assert_eq!(line("agent.none"), "agent.none - - - ≤ 6.00 MB not measured 0 - absolute");
        assert_eq!(text.lines().last().unwrap(), "TARGET MISSED: agent.rss");
    }

    #[test]
    fn without_a_missed_target_none_is_spoken_of() {
        let mut report = report();
        report.results.truncate(1);
        assert!(!report.table(&[&SPECS[0]]).contains("MISSED"));
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.4321, 1.0, 4.256, 42.56, 4256.7].map(digits);
        assert_eq!(shown, ["0.00", "0.432", "1.00", "4.26", "42.6", "4257"]);
    }
}
