//! The dashboards, the rules and what docs/metrics.md says of the metrics, as the tests read them.
#![allow(dead_code)] // each test file uses its part

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

use promql_parser::{
    parser::{self, AggregateExpr, BinaryExpr, Expr},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;

/// Labels that Prometheus itself gives to what it scrapes, and `le`, which every histogram's buckets have.
pub(crate) const TARGET_LABELS: [&str; 4] = ["namespace", "job", "instance", "le"];

/// What Prometheus makes itself, with its labels.
pub(crate) const BUILT_IN: [(&str, &[&str]); 2] =
    [("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "tenant"])];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == extension));
    let mut names: Vec<_> = names.map(|path| format!("{folder}/{}", path.file_name().unwrap().display())).collect();
    names.sort();
    assert!(!names.is_empty(), "{folder} is empty");
    names
}

pub(crate) fn rule_files() -> Vec<String> {
    files("dashboards/rules", "yaml")
}

pub(crate) fn rule_test_files() -> Vec<String> {
    files("dashboards/rules/tests", "yaml")
}

pub(crate) fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A dashboard's file.
pub(crate) struct Dashboard {
    pub(crate) file: String,
    pub(crate) json: Value,
}

impl Dashboard {
    pub(crate) fn uid(&self) -> &str {
        text(&self.json["uid"])
    }

    /// All panels but the rows, those in collapsed rows too.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        let top = list(&self.json["panels"]);
        let all =
            top.iter().flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()));
        all.filter(|panel| panel["type"] != "row").collect()
    }
}

pub(crate) fn dashboards() -> Vec<Dashboard> {
    let read = |file: String| {
        let json = serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        Dashboard { file, json }
    };
    files("dashboards", "json").into_iter().map(read).collect()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What Grafana or Prometheus asks, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expr: String,
    /// Over a range of time, not at one moment.
    pub(crate) range: bool,
}

/// The queries of every panel and of the annotations.
pub(crate) fn panel_queries() -> Vec<Query> {
    let mut found = Vec::new();
    for dashboard in dashboards() {
        for panel in dashboard.panels() {
            for target in list(&panel["targets"]) {
                let place = format!("{}: {} ({})", dashboard.file, text(&panel["title"]), text(&target["refId"]));
                let range = !target["instant"].as_bool().unwrap_or_default();
                found.push(Query { place, expr: text(&target["expr"]).to_owned(), range });
            }
        }
        for annotation in list(&dashboard.json["annotations"]["list"]) {
            if let Some(expr) = annotation["expr"].as_str() {
                let place = format!("{}: annotation {}", dashboard.file, text(&annotation["name"]));
                found.push(Query { place, expr: expr.to_owned(), range: true });
            }
        }
    }
    found
}

/// A dashboard's variable that is filled by `label_values(SELECTOR, LABEL)`.
pub(crate) struct Variable {
    pub(crate) place: String,
    pub(crate) selector: String,
    pub(crate) label: String,
}

pub(crate) fn variables() -> Vec<Variable> {
    let mut found = Vec::new();
    for dashboard in dashboards() {
        for variable in list(&dashboard.json["templating"]["list"]) {
            let place = format!("{}: variable {}", dashboard.file, text(&variable["name"]));
            if variable["type"] == "query" {
                let query = text(&variable["query"]["query"]);
                assert_eq!(query, text(&variable["definition"]), "{place}: two definitions");
                let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect(&place);
                found.push(Variable { place, selector: selector.to_owned(), label: label.to_owned() });
            }
        }
    }
    found
}

/// An alert of the rule files.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) rule: Value,
}

impl Alert {
    pub(crate) fn expr(&self) -> &str {
        text(&self.rule["expr"])
    }

    pub(crate) fn annotation(&self, name: &str) -> &str {
        text(&self.rule["annotations"][name])
    }
}

pub(crate) fn alerts() -> Vec<Alert> {
    let mut found = Vec::new();
    for file in rule_files() {
        let rules = yaml(&file);
        for rule in list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])) {
            let name = text(&rule["alert"]).to_owned();
            assert!(!name.is_empty(), "{file} holds a rule that is no alert; the tests must learn of it");
            found.push(Alert { file: file.clone(), name, rule: rule.clone() });
        }
    }
    found
}

/// Puts in what Grafana would; `(name, value)`, longer names first.
pub(crate) fn filled(expr: &str, values: &[(&str, &str)]) -> String {
    let filled = values.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!filled.contains('$'), "a variable that Grafana does not know: {filled}");
    filled
}

/// Any values, for reading only.
pub(crate) const ANY_VALUES: [(&str, &str); 7] = [
    ("$__rate_interval", "5m"),
    ("$__range", "6h"),
    ("$__interval", "1m"),
    ("$tenant", ".*"),
    ("$instance", ".*"),
    ("$namespace", ".*"),
    ("$job", "trustfleet"),
];

/// What the document says of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Documented {
    pub(crate) kind: String,
    pub(crate) labels: BTreeSet<String>,
}

/// The tables of docs/metrics.md, whose rows begin with a metric's name between backticks.
pub(crate) fn documented() -> BTreeMap<String, Documented> {
    let document = read("docs/metrics.md");
    let mut found = BTreeMap::new();
    let mut columns = Vec::new();
    for line in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0].eq_ignore_ascii_case("metric") {
            columns = cells.iter().map(|cell| cell.to_lowercase()).collect();
        } else if let Some(name) = cells[0].strip_prefix('`').and_then(|name| name.strip_suffix('`')) {
            let cell = |wanted: &str| columns.iter().position(|c| c == wanted).and_then(|at| cells.get(at)).copied();
            let (Some(kind), Some(labels)) = (cell("type"), cell("labels")) else { continue };
            let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            found.insert(name.to_owned(), Documented { kind: kind.to_owned(), labels });
        }
    }
    assert!(found.len() > 20, "only {} metrics were found in docs/metrics.md", found.len());
    found
}

/// The family's name and description for a series' name, such as that of a histogram's buckets.
pub(crate) fn family<'a>(
    documented: &'a BTreeMap<String, Documented>,
    series: &str,
) -> Option<(&'a str, &'a Documented)> {
    let exact = documented.get_key_value(series).filter(|(_, found)| found.kind != "histogram");
    let part = || {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix))?;
        documented.get_key_value(name).filter(|(_, found)| found.kind == "histogram")
    };
    exact.or_else(part).map(|(name, found)| (name.as_str(), found))
}

/// One place of an expression where series are chosen.
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<String>,
    pub(crate) over_time: bool,
}

pub(crate) fn parsed(place: &str, expr: &str) -> Expr {
    parser::parse(expr).unwrap_or_else(|error| panic!("{place} is no PromQL: {error}\n{expr}"))
}

struct Selectors(Vec<Selector>);

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let (selector, over_time) = match expr {
            Expr::VectorSelector(selector) => (selector, false),
            Expr::MatrixSelector(matrix) => (&matrix.vs, true),
            _ => return Ok(true),
        };
        self.0.push(Selector {
            name: selector.name.clone().unwrap_or_default(),
            matchers: selector.matchers.matchers.iter().map(|matcher| matcher.name.clone()).collect(),
            over_time,
        });
        Ok(true)
    }
}

pub(crate) fn selectors(expr: &Expr) -> Vec<Selector> {
    let mut found = Selectors(Vec::new());
    let Ok(_) = walk_expr(&mut found, expr);
    found.0
}

/// The fenced blocks of a document in one language, each without its fence.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(begun) => {
                inside = !inside && begun == language;
                if inside {
                    found.push(String::new());
                }
            }
            None if inside => found.iter_mut().last().into_iter().for_each(|block| {
                block.push_str(line);
                block.push('\n');
            }),
            None => {}
        }
    }
    found
}

/// Labels by which something is grouped or matched, each with the names of the series below.
pub(crate) struct Groupings(pub(crate) Vec<(Vec<String>, Vec<String>)>);

impl ExprVisitor for Groupings {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let (modifier, below) = match expr {
            Expr::Aggregate(AggregateExpr { modifier, expr, .. }) => (modifier.as_ref(), selectors(expr)),
            Expr::Binary(BinaryExpr { modifier, lhs, rhs, .. }) => {
                let below = selectors(lhs).into_iter().chain(selectors(rhs)).collect();
                (modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()), below)
            }
            _ => return Ok(true),
        };
        let labels = modifier.map(|modifier| modifier.labels().labels.clone()).unwrap_or_default();
        self.0.push((labels, below.into_iter().map(|selector| selector.name).collect()));
        Ok(true)
    }
}

pub(crate) fn groupings(expr: &Expr) -> Groupings {
    let mut found = Groupings(Vec::new());
    let Ok(_) = walk_expr(&mut found, expr);
    found
}
