//! The documents promise nothing that is not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use trustfleet_cmp::FailureBit;

/// Other things that begin like a metric: database roles, crates.
const NOT_METRICS: [&str; 3] = ["trustfleet_owner", "trustfleet_api", "trustfleet_system"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let names = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()));
    std::iter::once("README.md".to_owned()).chain(names.filter(|name| name.ends_with(".md"))).collect()
}

fn sources(dir: &Path, found: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of the tests of the code: functions below an attribute that makes them one.
fn tests_of(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in code.lines().map(str::trim_start) {
        let signature = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(signature) = signature.filter(|_| is_test) {
            found.extend(signature.split('(').next());
            is_test = false;
        }
    }
    found
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_checklist_names_exists() {
    let mut code = String::new();
    for member in ["shared", "controller", "device-agent", "lab"] {
        sources(&root().join(member), &mut code);
    }
    let checklist = read("docs/checklist.md");
    let mut named = 0;
    for row in checklist.lines().filter(|line| line.starts_with("| S")) {
        let tests = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        let tests: Vec<_> = quoted(tests).collect();
        assert!(!tests.is_empty(), "no test proves this row: {row}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "there is no test {test}: {row}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests were found in the table");
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let mut code = String::new();
    for member in ["shared", "controller", "device-agent", "lab"] {
        sources(&root().join(member), &mut code);
    }
    let document = read("SECURITY.md");
    let is_test = |word: &&str| {
        word.matches('_').count() > 4 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<_> = quoted(&document).filter(is_test).filter(|word| !is_metric(word)).collect();
    assert!(named.len() > 20, "only {named:?}");
    for test in named {
        assert!(code.contains(&format!("fn {test}(")), "there is no test {test}");
    }
}

/// One of them begins with the rule's id, unless the row says why it does not apply.
#[test]
fn every_rule_of_the_cmp_client_has_a_row_with_a_test_of_its_own_and_its_tests_exist() {
    let mut code = String::new();
    for member in ["shared", "device-agent", "lab", "controller"] {
        sources(&root().join(member), &mut code);
    }
    let existing = tests_of(&code);
    let document = read("docs/cmp.md");
    let mut rows = BTreeSet::new();
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, tests] = cells.as_slice() else { continue };
        let number = id.get(1..).unwrap_or_default();
        if !"HPXRVCWET".contains(&id[..1]) || number.is_empty() || !number.chars().all(|c| c.is_ascii_digit()) {
            continue;
        }
        assert!(rows.insert((*id).to_owned()), "two rows for {id}");
        if tests.strip_prefix("does not apply: ").is_some_and(|reason| reason.len() > 20) {
            continue;
        }
        let tests: Vec<_> = quoted(tests).collect();
        let own = format!("{}_", id.to_lowercase());
        assert!(tests.iter().any(|test| test.starts_with(&own)), "no test whose name begins with {own}: {row}");
        for test in tests {
            assert!(existing.contains(test), "there is no test {test}: {row}");
        }
    }
    let rules = [("H", 15), ("P", 12), ("X", 4), ("R", 10), ("V", 13), ("C", 9), ("W", 6), ("E", 6), ("T", 9)];
    for (letter, count) in rules {
        for number in 1..=count {
            assert!(rows.contains(&format!("{letter}{number}")), "docs/cmp.md has no row for {letter}{number}");
        }
    }
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    for document in documents() {
        let folder = Path::new(&document).parent().unwrap().to_owned();
        for target in read(&document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                assert!(root().join(&folder).join(file).exists(), "{document} links to {target}");
            }
        }
    }
}

#[test]
fn the_operator_guide_names_every_key_of_both_configurations() {
    let guide = read("docs/operator-guide.md");
    let keys: BTreeSet<_> = quoted(&guide).collect();
    for source in [
        "controller/src/config.rs",
        "controller/src/config/identity.rs",
        "device-agent/src/config.rs",
        "shared/telemetry/src/config.rs",
    ] {
        let mut section = None;
        for line in read(source).lines() {
            if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
                section = name.strip_suffix("Config").map(str::to_lowercase);
            } else if line == "}" {
                section = None;
            } else if let (Some(section), Some(field)) = (&section, line.strip_prefix("    pub ")) {
                let (name, kind) = field.split_once(": ").unwrap_or(("", ""));
                // The top level's fields are sections, apart from plain values.
                let is_section = section.is_empty() && kind.trim_end_matches(',').ends_with("Config");
                let key = match section.as_str() {
                    "" => name.to_owned(),
                    section => format!("{section}.{name}"),
                };
                assert!(name.is_empty() || is_section || keys.contains(key.as_str()), "the guide lacks {key}");
            }
        }
    }
}

#[test]
fn the_table_of_metrics_names_every_metric_of_the_code_and_none_that_is_not_there() {
    let mut code = String::new();
    sources(&root().join("controller/src"), &mut code);
    let named: BTreeSet<_> = code.split('"').filter(|word| is_metric(word)).collect();
    let families = read("controller/src/metrics/families.rs");
    let registered: BTreeSet<_> = families.split('"').filter(|word| is_metric(word)).collect();
    let documents = read("docs/metrics.md");
    let rows = documents.lines().filter_map(|line| line.strip_prefix("| `"));
    let table: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).filter(|word| is_metric(word)).collect();
    assert!(table.len() > 20, "only {table:?} were found in the table");
    assert_eq!(table, registered);
    let elsewhere: Vec<_> = named.difference(&registered).collect();
    assert!(elsewhere.is_empty(), "metrics are named in families.rs only: {elsewhere:?}");
}

#[test]
fn no_document_speaks_of_a_metric_that_is_not_in_the_table() {
    let table = read("docs/metrics.md");
    let known: BTreeSet<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for document in documents() {
        let text = read(&document);
        let told = quoted(&text).map(|text| text.split('{').next().unwrap()).filter(|word| is_metric(word));
        let unknown: Vec<_> = told.filter(|word| !known.contains(word) && !NOT_METRICS.contains(word)).collect();
        assert!(unknown.is_empty(), "{document} speaks of {unknown:?}");
    }
}

/// A refusal's reason is told in the words of the RFC, as the CMP engine has them.
#[test]
fn the_reasons_of_refusals_in_the_metrics_are_the_bits_of_pki_failure_info() {
    let text = read("controller/src/metrics/labels.rs");
    let list = text.split(" FailInfo {").nth(1).unwrap().split("impl FailInfo").next().unwrap();
    let words: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    let bits = FailureBit::ALL.into_iter().map(FailureBit::name);
    assert_eq!(words, bits.chain(["other", "none"]).collect::<Vec<_>>());
}

fn is_metric(word: &str) -> bool {
    word.starts_with("trustfleet_") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}
