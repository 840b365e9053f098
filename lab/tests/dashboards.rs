//! Dashboards, alerts and runbooks say what is there: held against docs/metrics.md, promtool and the programs.
//!
//! Whether the queries give data is proven by prometheus.rs, with a real Prometheus; this file needs no stack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/boards.rs"]
mod boards;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use boards::{
    ANY_VALUES, BUILT_IN, TARGET_LABELS, alerts, dashboards, documented, family, filled, groupings, list,
    panel_queries, parsed, read, root, rule_files, rule_test_files, selectors, text, variables, yaml,
};
use serde_json::{Value, json};
use trustfleet_lab::testkit::command;

/// Links, bookmarks and the chart's users go by these: they never change.
const UIDS: [(&str, &str); 2] =
    [("dashboards/controller.json", "trustfleet-controller"), ("dashboards/fleet.json", "trustfleet-fleet")];

/// Metrics that neither a panel nor an alert goes by, each with the reason.
const UNUSED: [(&str, &str); 0] = [];

#[test]
fn each_dashboard_keeps_its_uid_and_needs_no_more_than_grafana_10() {
    let found: Vec<_> = dashboards().iter().map(|found| (found.file.clone(), found.uid().to_owned())).collect();
    assert_eq!(found, UIDS.map(|(file, uid)| (file.to_owned(), uid.to_owned())));
    for dashboard in dashboards() {
        let json = &dashboard.json;
        assert_eq!(
            json["schemaVersion"], 39,
            "{}: the schema of Grafana 10.4, which 11 and later read",
            dashboard.file
        );
        assert!(json["__inputs"].is_null() && json["id"].is_null(), "{}: made by an export", dashboard.file);
        assert_eq!(json["tags"], json!(["trustfleet"]), "{}", dashboard.file);
        assert!(text(&json["title"]).starts_with("Trustfleet / ") && text(&json["description"]).len() > 40);
        for link in list(&json["links"]) {
            let target = text(&link["url"]).strip_prefix("/d/").unwrap_or_default();
            assert!(UIDS.iter().any(|(_, uid)| *uid == target), "{}: link to {link}", dashboard.file);
        }
        assert!(!list(&json["links"]).is_empty(), "{} leads nowhere", dashboard.file);
    }
}

#[test]
fn dashboards_are_written_in_one_way_so_that_changes_are_small() {
    for dashboard in dashboards() {
        let sorted: BTreeMap<String, Value> = serde_json::from_value(dashboard.json.clone()).unwrap();
        let sorted =
            serde_json::to_string_pretty(&sorted.into_iter().map(|(k, v)| (k, ordered(v))).collect::<BTreeMap<_, _>>());
        assert!(
            read(&dashboard.file) == sorted.unwrap() + "\n",
            "{}: write it with sorted keys and two spaces (`jq -S . FILE`)",
            dashboard.file
        );
    }
}

/// Keys in order, also where serde_json was built to keep the order of the file.
fn ordered(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, ordered(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(ordered).collect()),
        other => other,
    }
}

#[test]
fn each_panel_says_what_it_shows_what_is_normal_and_in_which_unit() {
    for dashboard in dashboards() {
        let (mut titles, mut ids) = (BTreeSet::new(), BTreeSet::new());
        assert!(dashboard.panels().len() > 15);
        for panel in dashboard.panels() {
            let (title, place) = (text(&panel["title"]), format!("{}: {}", dashboard.file, panel["title"]));
            assert!(!title.is_empty() && titles.insert(title), "{place}: the title is missing or there twice");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: the id is there twice");
            let description = text(&panel["description"]);
            assert!(description.len() > 60, "{place}: no description");
            let tells = ["Normal", "Empty: all is well", "Nothing to do"].iter().any(|word| description.contains(word));
            assert!(tells, "{place}: the description does not say what is normal");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(&defaults["unit"]).is_empty(), "{place}: no unit");
            assert!(!list(&defaults["thresholds"]["steps"]).is_empty(), "{place}: no thresholds");
            assert!(!list(&panel["targets"]).is_empty(), "{place}: no query");
            let mut refs = BTreeSet::new();
            for target in list(&panel["targets"]) {
                assert!(target["datasource"].is_object(), "{place}: no data source");
                assert!(refs.insert(text(&target["refId"])), "{place}: two queries with the same refId");
            }
        }
    }
}

#[test]
fn everything_goes_by_the_data_source_that_was_chosen() {
    for dashboard in dashboards() {
        let mut sources = Vec::new();
        data_sources(&dashboard.json, &mut sources);
        assert!(sources.len() > 40, "{}: only {} were found", dashboard.file, sources.len());
        for source in sources {
            let chosen = *source == json!({"type": "prometheus", "uid": "${datasource}"});
            // Grafana's own annotations, which every dashboard has.
            assert!(chosen || source["uid"] == "-- Grafana --", "{}: {source}", dashboard.file);
        }
    }
}

fn data_sources<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| data_sources(item, found)),
        Value::Object(map) => {
            found.extend(map.get("datasource"));
            map.values().for_each(|value| data_sources(value, found));
        }
        _ => {}
    }
}

#[test]
fn no_panel_lies_upon_another() {
    for dashboard in dashboards() {
        let mut taken = BTreeMap::new();
        for panel in list(&dashboard.json["panels"]) {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}: {} leaves the screen", dashboard.file, panel["title"]);
            for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                let other = taken.insert((x, y), text(&panel["title"]));
                assert!(other.is_none(), "{}: {} lies upon {other:?}", dashboard.file, panel["title"]);
            }
        }
    }
}

#[test]
fn data_source_namespace_installation_and_tenant_or_instance_can_be_chosen() {
    for dashboard in dashboards() {
        let chosen = list(&dashboard.json["templating"]["list"]);
        let names: Vec<_> = chosen.iter().map(|variable| text(&variable["name"])).collect();
        let last = if dashboard.uid() == "trustfleet-fleet" { "tenant" } else { "instance" };
        assert_eq!(names, ["datasource", "namespace", "job", last], "{}", dashboard.file);
        assert_eq!((&chosen[0]["type"], &chosen[0]["query"]), (&json!("datasource"), &json!("prometheus")));
        // A scrape outside of Kubernetes has no such label, and must match "all".
        let namespace = &chosen[1];
        assert!(namespace["includeAll"] == true && namespace["allValue"] == ".*", "{namespace}");
        assert_eq!(namespace["current"]["value"], "$__all", "{namespace}");
        let many = &chosen[3];
        assert!(many["multi"] == true && many["includeAll"] == true && many["allValue"] == ".*", "{many}");
        // One that is not used at all would only seem to choose.
        for name in &names[1..] {
            let used =
                dashboard.panels().iter().any(|panel| panel["targets"].to_string().contains(&format!("${name}")));
            assert!(used, "{}: no panel goes by ${name}", dashboard.file);
        }
    }
}

#[test]
fn every_query_asks_for_documented_metrics_by_labels_that_they_have() {
    let documented = documented();
    let mut asked = 0;
    let panels = panel_queries().into_iter().map(|query| (query.place, filled(&query.expr, &ANY_VALUES)));
    let rules = alerts().into_iter().map(|alert| (format!("{}: {}", alert.file, alert.name), alert.expr().to_owned()));
    let books = runbooks();
    let books =
        books.iter().flat_map(|(file, book)| boards::blocks(book, "promql").into_iter().map(|e| (file.clone(), e)));
    for (place, expr) in panels.chain(rules).chain(books) {
        let tree = parsed(&place, &expr);
        for selector in selectors(&tree) {
            let known = labels(&documented, &selector.name);
            let known = known.unwrap_or_else(|| panic!("{place}: docs/metrics.md has no `{}`\n{expr}", selector.name));
            for label in &selector.matchers {
                assert!(known.contains(label.as_str()), "{place}: `{}` has no label {label}\n{expr}", selector.name);
            }
            asked += 1;
        }
        for (by, names) in groupings(&tree).0 {
            let known: BTreeSet<_> = names.iter().filter_map(|name| labels(&documented, name)).flatten().collect();
            for label in by {
                assert!(known.contains(label.as_str()), "{place}: none of {names:?} has a label {label}\n{expr}");
            }
        }
    }
    assert!(asked > 100, "only {asked} selectors were found");
    for variable in variables() {
        let expr = filled(&variable.selector, &ANY_VALUES);
        for selector in selectors(&parsed(&variable.place, &expr)) {
            let known = labels(&documented, &selector.name).unwrap_or_default();
            assert!(known.contains(variable.label.as_str()), "{}: {expr} has no {}", variable.place, variable.label);
        }
    }
}

#[test]
fn every_panel_asks_for_the_chosen_installation_in_the_chosen_namespace_only() {
    let variables = variables().into_iter().filter(|variable| !["namespace", "job"].contains(&variable.label.as_str()));
    let asked = variables.map(|variable| (variable.place, variable.selector));
    for (place, expr) in panel_queries().into_iter().map(|query| (query.place, query.expr)).chain(asked) {
        for selector in selectors(&parsed(&place, &filled(&expr, &ANY_VALUES))) {
            for label in ["namespace", "job"] {
                assert!(selector.matchers.iter().any(|matcher| matcher == label), "{place}: any {label}\n{expr}");
            }
        }
        let (namespaces, jobs) = (expr.matches("namespace=~\"$namespace").count(), expr.matches("\"$job").count());
        assert!(namespaces == jobs && jobs > 0, "{place}: another namespace or installation\n{expr}");
    }
}

/// What a replica told when it last counted the fleet, it tells for as long as it runs.
#[test]
fn gauges_about_the_fleet_are_taken_from_replicas_that_counted_lately() {
    let (count, begins) =
        ("trustfleet_fleet_counted_timestamp_seconds", " and on (namespace, job, instance) (time() - ");
    let gauges = [
        "active_certificates",
        "agents",
        "certificate_nearest",
        "certificates",
        "jobs",
        "outbox",
        "revocations",
        "audit_oldest",
        "campaigns",
        "dead_letters",
        "rollover_trustpoints",
    ];
    let panels = panel_queries().into_iter().map(|query| (query.place, filled(&query.expr, &ANY_VALUES)));
    let rules = alerts().into_iter().filter(|alert| alert.name != "TrustfleetMetricMissing");
    let rules = rules.map(|alert| (format!("{}: {}", alert.file, alert.name), alert.expr().to_owned()));
    let filtered = format!("{begins}{count}");
    let mut held = 0;
    for (place, expr) in panels.chain(rules) {
        let counters = ["_total", "_bucket", "_count", "_sum"];
        let of_the_fleet = selectors(&parsed(&place, &expr)).into_iter().filter(|selector| {
            let name = selector.name.strip_prefix("trustfleet_").unwrap_or_default();
            gauges.iter().any(|gauge| name.starts_with(gauge)) && !counters.iter().any(|end| name.ends_with(end))
        });
        let one_line = expr.split_whitespace().collect::<Vec<_>>().join(" ");
        let fresh = one_line
            .split(&filtered)
            .skip(1)
            .filter(|rest| rest.split_once(')').is_some_and(|(inside, _)| inside.ends_with(" < 900")));
        let (gauges, fresh) = (of_the_fleet.count(), fresh.count());
        assert_eq!(gauges, fresh, "{place}: replicas that are stuck count, too\n{expr}");
        held += gauges;
    }
    assert!(held > 40, "only {held} gauges were found");
}

/// The labels that a series can have; nothing for one that no document names.
fn labels<'a>(documented: &'a BTreeMap<String, boards::Documented>, series: &str) -> Option<BTreeSet<&'a str>> {
    let own: Vec<&str> = match BUILT_IN.iter().find(|(name, _)| *name == series) {
        Some((_, labels)) => labels.to_vec(),
        None => family(documented, series)?.1.labels.iter().map(String::as_str).collect(),
    };
    Some(own.into_iter().chain(TARGET_LABELS).collect())
}

#[test]
fn panels_show_counters_as_rates_over_a_window_that_fits_the_scrape() {
    let documented = documented();
    for query in panel_queries() {
        for window in query.expr.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
            let fits = ["$__rate_interval", "$__range"].contains(&window);
            assert!(fits, "{}: a fixed window [{window}] shows gaps or hides peaks", query.place);
        }
        for selector in selectors(&parsed(&query.place, &filled(&query.expr, &ANY_VALUES))) {
            let counts = family(&documented, &selector.name).is_some_and(|(_, found)| found.kind != "gauge");
            assert!(selector.over_time || !counts, "{}: `{}` only ever grows", query.place, selector.name);
        }
    }
}

#[test]
fn every_documented_metric_is_used_by_a_panel_or_an_alert() {
    let documented = documented();
    let exprs = panel_queries().into_iter().map(|query| filled(&query.expr, &ANY_VALUES));
    let exprs = exprs.chain(alerts().into_iter().map(|alert| alert.expr().to_owned()));
    let used: BTreeSet<_> = exprs
        .flat_map(|expr| selectors(&parsed("a query", &expr)))
        .filter_map(|selector| family(&documented, &selector.name).map(|(name, _)| name.to_owned()))
        .collect();
    for name in documented.keys() {
        let excused = UNUSED.iter().any(|(unused, reason)| unused == name && !reason.is_empty());
        assert!(used.contains(name) != excused, "{name}: used {}, excused {excused}", used.contains(name));
    }
    for (name, _) in UNUSED {
        assert!(documented.contains_key(name), "{name} is excused, but docs/metrics.md does not have it");
    }
}

#[test]
fn every_alert_has_a_severity_a_runbook_a_dashboard_and_a_first_thing_to_do() {
    let uids: Vec<_> = UIDS.iter().map(|(_, uid)| *uid).collect();
    assert!(alerts().len() > 15);
    for alert in alerts() {
        let place = format!("{}: {}", alert.file, alert.name);
        let severity = text(&alert.rule["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{place}: severity {severity}");
        assert!(!alert.annotation("summary").is_empty(), "{place}: no summary");
        assert!(alert.annotation("description").len() > 120, "{place}: no description");
        assert!(uids.contains(&alert.annotation("dashboard")), "{place}: no dashboard");
        let (file, anchor) = alert.annotation("runbook_url").split_once('#').expect(&place);
        assert!(file.starts_with("docs/runbooks/"), "{place}: {file}");
        assert_eq!(anchor, alert.name.to_lowercase(), "{place}: the heading is the alert's name");
        let heading = format!("## {}", alert.name);
        assert!(read(file).lines().any(|line| line == heading), "{place}: {file} has no heading `{heading}`");
    }
}

#[test]
fn every_runbook_belongs_to_an_alert_and_panels_name_none_that_is_not_there() {
    let names: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    for (file, book) in runbooks() {
        for heading in book.lines().filter_map(|line| line.strip_prefix("## Trustfleet")) {
            assert!(names.contains(&format!("Trustfleet{heading}")), "{file}: no alert Trustfleet{heading}");
        }
    }
    for dashboard in dashboards() {
        for panel in dashboard.panels() {
            for word in text(&panel["description"]).split(|c: char| !c.is_alphanumeric()) {
                let is_name = word.len() > "Trustfleet".len() && word.starts_with("Trustfleet");
                assert!(!is_name || names.contains(word), "{}: {} names {word}", dashboard.file, panel["title"]);
            }
        }
    }
}

#[test]
fn without_a_metric_no_alert_is_blind_unnoticed() {
    let missed: BTreeSet<_> = alerts()
        .iter()
        .filter(|alert| alert.name == "TrustfleetMetricMissing")
        .map(|alert| {
            let metric = text(&alert.rule["labels"]["metric"]).to_owned();
            assert!(alert.expr().trim_end().ends_with(&metric), "{}", alert.expr());
            metric
        })
        .collect();
    for alert in alerts().iter().filter(|alert| alert.name != "TrustfleetMetricMissing") {
        for selector in selectors(&parsed(&alert.name, alert.expr())) {
            let known = ["trustfleet_build_info", "up"].contains(&selector.name.as_str());
            assert!(known || missed.contains(&selector.name), "{}: nobody misses {}", alert.name, selector.name);
        }
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_must_not() {
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for file in rule_test_files() {
        let cases = yaml(&file);
        for case in list(&cases["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])) {
            let name = text(&case["alertname"]).to_owned();
            if list(&case["exp_alerts"]).is_empty() {
                silent.insert(name)
            } else {
                fires.insert(name)
            };
        }
    }
    for alert in alerts() {
        assert!(fires.contains(&alert.name), "{}: no case in which it fires", alert.name);
        assert!(silent.contains(&alert.name), "{}: no case in which it must not fire", alert.name);
    }
}

#[test]
fn promtool_finds_no_fault_in_the_rules_and_every_case_holds() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rule_files());
    promtool(&["test", "rules"], &rule_test_files());
}

fn promtool(args: &[&str], files: &[String]) {
    let output = Command::new("promtool").args(args).args(files).current_dir(root()).output();
    let output = output.expect("promtool is in Debian's package prometheus, which scripts/setup.sh installs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn the_chart_holds_the_same_dashboards_and_rules() {
    let output = Command::new("sh").arg("scripts/interop/dashboards.sh").current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Of each `trustfleet NOUN VERB --flag` in the runbooks, the dashboards and the alerts.
#[test]
fn every_command_that_is_recommended_exists_with_its_options() {
    let mut commands = BTreeSet::new();
    for (_, book) in runbooks() {
        commands.extend(book.lines().filter_map(|line| line.trim().strip_prefix("trustfleet ")).map(str::to_owned));
        commands.extend(quoted_commands(&book));
    }
    for alert in alerts() {
        commands.extend(quoted_commands(alert.annotation("description")));
    }
    for panel in dashboards().iter().flat_map(boards::Dashboard::panels) {
        commands.extend(quoted_commands(text(&panel["description"])));
    }
    assert!(commands.len() > 10, "only {commands:?}");
    for said in commands {
        let words: Vec<_> = said.split(['|', '>', '#']).next().unwrap().split_whitespace().collect();
        let verb: Vec<_> = words.iter().copied().take_while(|word| is_of_a_verb(word)).take(2).collect();
        let output = command("trustfleet").unwrap().args(&verb).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "there is no `trustfleet {}`: {said}", verb.join(" "));
        for flag in words.iter().filter(|word| word.starts_with('-')) {
            let known = help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == *flag);
            assert!(known, "`trustfleet {}` has no {flag}: {said}", verb.join(" "));
        }
    }
}

/// Statements begin with a comment that names them, and that is not the transaction's name.
#[test]
fn statements_that_a_runbook_looks_for_bear_that_name_in_the_program() {
    let program = read("controller/src/db/stats.rs");
    let mut looked_for = 0;
    for (file, book) in runbooks() {
        for statement in boards::blocks(&book, "sql") {
            for pattern in statement.split("query LIKE '").skip(1).filter_map(|rest| rest.split('\'').next()) {
                let begin = pattern.strip_suffix('%').expect(&file).replace("\\_", "_");
                assert!(program.contains(&format!("\"{begin}")), "{file}: no statement begins with {begin}");
                looked_for += 1;
            }
        }
    }
    assert!(looked_for > 0, "no runbook looks for the count of the fleet");
}

fn is_of_a_verb(word: &str) -> bool {
    !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

fn quoted_commands(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("trustfleet ")).map(str::to_owned)
}

fn runbooks() -> Vec<(String, String)> {
    let files: BTreeSet<_> = alerts()
        .iter()
        .map(|alert| alert.annotation("runbook_url").split('#').next().unwrap_or_default().to_owned())
        .collect();
    files.into_iter().map(|file| (file.clone(), read(&file))).collect()
}
