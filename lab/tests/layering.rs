//! The walls of the house, checked from the sources: which crate, module or technology may be named where.
//!
//! Standard library only, so that `make lint` compiles and runs this file alone in a second (`make layers`). It reads
//! the paths in `use` declarations and in code; comments and texts do not count. A rule that is broken is reported
//! with file, line, path and the reason of the wall. Change a wall only together with docs/decisions.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

// ---- the walls ------------------------------------------------------------------------------------------------------

/// Within the files below `inside`, except those below `except`, no path may begin with one of `forbidden`.
struct Wall {
    inside: &'static [&'static str],
    except: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        inside: &["controller/src/", "device-agent/src/", "shared/"],
        except: &["controller/src/db/", "controller/src/commit.rs", "controller/src/commit/"],
        forbidden: &["tokio_postgres", "deadpool_postgres", "postgres_types", "refinery"],
        why: "PostgreSQL has one door: controller/src/db and commit.rs",
    },
    Wall {
        inside: &["controller/src/", "shared/"],
        except: &["controller/src/broker/amqp.rs"],
        forbidden: &["lapin"],
        why: "the broker has one door: controller/src/broker/amqp.rs",
    },
    Wall {
        inside: &["controller/src/", "device-agent/src/", "shared/"],
        except: &["controller/src/actors/", "controller/src/api/", "controller/src/app.rs"],
        forbidden: &["actix", "actix_web", "actix_rt", "actix_http"],
        why: "actix lives in controller/src/actors, api and app.rs",
    },
    Wall {
        inside: &["controller/src/", "device-agent/src/", "shared/model/", "shared/wire/", "lab/src/"],
        except: &["lab/src/ca/"],
        forbidden: &["x509_cert", "der", "spki", "cmpv2", "crmf", "cms"],
        why: "ASN.1 belongs to shared/pki and shared/cmp (and the lab's CA)",
    },
    Wall {
        inside: &["controller/src/", "device-agent/src/"],
        except: &["controller/src/metrics/", "device-agent/src/metrics.rs"],
        forbidden: &["prometheus"],
        why: "every metric is named in controller/src/metrics/families.rs",
    },
    Wall {
        inside: &["controller/", "device-agent/", "shared/"],
        except: &["shared/telemetry/src/"],
        forbidden: &[
            "opentelemetry",
            "opentelemetry_http",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "tracing_opentelemetry",
        ],
        why: "traces have one door: shared/telemetry",
    },
    Wall {
        inside: &["controller/src/device/", "controller/src/device.rs"],
        except: &[],
        forbidden: &[
            "tokio",
            "actix",
            "actix_web",
            "std::fs",
            "std::net",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "crate::actors",
            "crate::api",
            "crate::app",
            "crate::broker",
            "crate::cli",
            "crate::commit",
            "crate::config",
            "crate::db",
            "crate::inbox",
            "crate::outbox",
            "crate::scheduler",
        ],
        why: "the device aggregate is pure: time, randomness and state are arguments, effects are data",
    },
    Wall {
        inside: &["controller/src/db/", "controller/src/broker/", "controller/src/commit.rs", "controller/src/commit/"],
        except: &[],
        forbidden: &["crate::actors", "crate::api", "crate::app", "crate::cli"],
        why: "db, broker and commit know device and the shared types, never those who call them",
    },
    Wall {
        inside: &["controller/src/actors/"],
        except: &[],
        forbidden: &["crate::api", "crate::app", "crate::cli"],
        why: "the direction is api -> actors -> device; only app.rs knows everyone",
    },
    Wall {
        inside: &["controller/src/cli/"],
        except: &["controller/src/cli/serve.rs", "controller/src/cli/migrate.rs", "controller/src/cli/mod.rs"],
        forbidden: &["crate::actors", "crate::broker", "crate::commit", "crate::db"],
        why: "the operator's verbs work over the public API only",
    },
    Wall {
        inside: &["device-agent/src/lifecycle.rs"],
        except: &[],
        forbidden: &[
            "tokio",
            "lapin",
            "ureq",
            "std::fs",
            "std::net",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        why: "what the agent does next is decided without a runtime",
    },
    Wall {
        inside: &["shared/model/src/", "shared/wire/src/", "shared/pki/src/", "shared/cmp/src/"],
        except: &[],
        forbidden: &[
            "tokio",
            "futures_util",
            "lapin",
            "ureq",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::fs",
        ],
        why: "the shared crates know no runtime, no socket and no file (telemetry alone, which decides nothing, sends spans)",
    },
    Wall {
        inside: &["controller/", "shared/"],
        except: &[],
        forbidden: &["trustfleet_agent", "trustfleet_lab"],
        why: "the controller and the agent never see each other, and nothing sees the lab",
    },
    Wall {
        inside: &["device-agent/"],
        except: &[],
        forbidden: &["trustfleet_controller", "trustfleet_lab"],
        why: "the controller and the agent never see each other, and nothing sees the lab",
    },
    Wall {
        inside: &["controller/", "device-agent/", "shared/", "lab/"],
        except: &[],
        forbidden: &["trustfleet_fuzz", "libfuzzer_sys"],
        why: "nothing sees the fuzzers",
    },
    Wall {
        inside: &["fuzz/src/"],
        except: &["fuzz/src/seeds.rs"],
        forbidden: &[
            "trustfleet_agent",
            "trustfleet_controller",
            "trustfleet_lab",
            "std::fs",
            "std::net",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
        why: "a fuzzer's input is one run for ever: no clock, no file but the seeds, no program",
    },
];

/// Crates of this workspace with those of it that they may depend on, also for tests.
const EDGES: &[(&str, &[&str])] = &[
    ("shared/model", &[]),
    ("shared/wire", &["trustfleet-model"]),
    ("shared/pki", &["trustfleet-model"]),
    ("shared/cmp", &["trustfleet-model", "trustfleet-pki"]),
    ("shared/telemetry", &[]),
    (
        "controller",
        &["trustfleet-model", "trustfleet-wire", "trustfleet-pki", "trustfleet-cmp", "trustfleet-telemetry"],
    ),
    ("fuzz", &["trustfleet-model", "trustfleet-wire", "trustfleet-pki", "trustfleet-cmp"]),
    (
        "device-agent",
        &["trustfleet-model", "trustfleet-wire", "trustfleet-pki", "trustfleet-cmp", "trustfleet-telemetry"],
    ),
];

/// What no crate under shared/ may depend on, except for its tests.
const NOT_FOR_SHARED: &[&str] =
    &["tokio", "tokio-postgres", "actix", "actix-web", "lapin", "ureq", "reqwest", "hyper", "futures-util"];

/// The one exception: traces leave by the HTTP client that both programs have anyway.
const SENDS_TRACES: (&str, &str) = ("shared/telemetry", "ureq");

/// The agent's door to the broker is one file, whichever it is.
const AMQP_FILES_OF_THE_AGENT: usize = 1;

// ---- the house as it is ---------------------------------------------------------------------------------------------

#[test]
fn every_path_in_the_house_keeps_to_its_side_of_the_walls() {
    let root = root();
    let mut sources = 0;
    let mut report = String::new();
    for file in rust_files(&root) {
        sources += 1;
        let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        for breach in breaches(&name, &fs::read_to_string(&file).unwrap()) {
            let _ = writeln!(report, "{breach}");
        }
    }
    assert!(sources > 20, "only {sources} source files below {}", root.display());
    assert!(report.is_empty(), "walls broken:\n{report}");
}

#[test]
fn the_agent_speaks_amqp_in_one_file() {
    let root = root();
    let files: Vec<_> = rust_files(&root)
        .into_iter()
        .filter(|file| file.starts_with(root.join("device-agent/src")))
        .filter(|file| {
            let module = module_of(&file.strip_prefix(&root).unwrap().to_string_lossy());
            paths(&fs::read_to_string(file).unwrap(), &module).iter().any(|(_, path)| begins(path, "lapin"))
        })
        .collect();
    assert!(files.len() <= AMQP_FILES_OF_THE_AGENT, "lapin is named in {files:?}");
}

#[test]
fn the_crates_depend_only_downwards() {
    let root = root();
    for (folder, allowed) in EDGES {
        let manifest = fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let complaints = edge_complaints(folder, &manifest, allowed);
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn a_migration_that_is_on_the_main_branch_of_origin_never_changes() {
    let root = root();
    let git = |arguments: &[&str]| Command::new("git").arg("-C").arg(&root).args(arguments).output().ok();
    let branch = "refs/remotes/origin/main";
    // Without git, without history or without an origin there is nothing to compare with.
    let Some(known) = git(&["rev-parse", "--verify", "--quiet", branch]).filter(|output| output.status.success())
    else {
        return;
    };
    drop(known);
    let listing = git(&["ls-tree", "-r", "--name-only", branch, "--", "migrations"]).unwrap();
    for name in String::from_utf8(listing.stdout).unwrap().lines() {
        let merged = git(&["show", &format!("{branch}:{name}")]).unwrap().stdout;
        let present = fs::read(root.join(name)).unwrap_or_default();
        assert!(present == merged, "{name} is merged and must not change or go: write a new migration");
    }
}

// ---- the walls hold -------------------------------------------------------------------------------------------------

#[test]
fn each_wall_reports_what_breaks_it() {
    for (file, source) in [
        ("controller/src/api/devices.rs", "use tokio_postgres::Client;"),
        ("controller/src/outbox.rs", "fn f(c: &deadpool_postgres::Pool) {}"),
        ("controller/src/inbox.rs", "use lapin::{Channel, options::*};"),
        ("controller/src/broker/mod.rs", "fn f() -> lapin::Result<()> { Ok(()) }"),
        ("controller/src/db/tenant.rs", "use actix_web::HttpResponse;"),
        ("controller/src/scheduler.rs", "use {std::fmt, actix::Addr};"),
        ("device-agent/src/keys/file.rs", "use x509_cert::Certificate;"),
        ("lab/src/demo.rs", "fn f() { ::der::Decode::from_der(b\"\"); }"),
        ("controller/src/api/health.rs", "use prometheus::register_int_counter;"),
        ("controller/src/inbox.rs", "use opentelemetry::Context;"),
        ("device-agent/src/worker.rs", "use tracing_opentelemetry::OpenTelemetrySpanExt as _;"),
        ("controller/src/device/decide.rs", "use crate::db::Store;"),
        ("controller/src/device/decide.rs", "use super::super::actors::Registry;"),
        ("controller/src/device/mod.rs", "use super::{db, metrics};"),
        ("controller/src/device/decide.rs", "fn f() { tokio::spawn(async {}); }"),
        ("controller/src/device/state.rs", "let now = std::time::SystemTime::now();"),
        ("controller/src/db/mod.rs", "use crate::{actors::{self, Registry}, device};"),
        ("controller/src/broker/amqp.rs", "pub(crate) use crate::api;"),
        ("controller/src/actors/device.rs", "use crate::api::problem::Problem;"),
        ("controller/src/cli/devices.rs", "use crate::db::Store;"),
        ("controller/tests/it/main.rs", "use trustfleet_lab::testkit;"),
        ("controller/src/app.rs", "use trustfleet_agent::store;"),
        ("device-agent/src/driver.rs", "use trustfleet_controller as controller;"),
        ("device-agent/src/lifecycle.rs", "use std::{fs, path::Path};"),
        ("shared/cmp/src/transaction.rs", "use std::net::TcpStream;"),
        ("lab/src/ca/issue.rs", "use trustfleet_fuzz::play;"),
        ("fuzz/src/world.rs", "let now = std::time::SystemTime::now();"),
    ] {
        assert_eq!(breaches(file, source).len(), 1, "{file}: {source}: {:?}", breaches(file, source));
    }
}

#[test]
fn a_breach_says_where_what_and_why() {
    let breach =
        breaches("controller/src/api/devices.rs", "//! devices\n\nuse tokio_postgres::{Client, Row};").remove(0);
    assert_eq!(
        breach,
        "controller/src/api/devices.rs:3: tokio_postgres::Client: PostgreSQL has one door: controller/src/db and commit.rs"
    );
}

#[test]
fn doors_and_harmless_words_are_let_through() {
    for (file, source) in [
        ("controller/src/db/mod.rs", "use tokio_postgres::Client; use crate::device::State;"),
        ("controller/src/commit.rs", "use tokio_postgres::types::ToSql;"),
        ("controller/src/broker/amqp.rs", "use lapin::Channel;"),
        ("controller/src/app.rs", "use actix::System; use crate::{actors, api, broker, db};"),
        ("lab/src/ca/issue.rs", "use x509_cert::Certificate;"),
        ("controller/src/outbox.rs", "let der = certificate.der(); crate::codec::der::read(der); x.der::<u8>();"),
        (
            "controller/src/device/decide.rs",
            "// tokio::spawn would be wrong\n/* crate::db /* too */ */ let s = \"crate::api\";",
        ),
        ("controller/src/device/decide.rs", "let s = r#\"use \"lapin::x\" \"#; let c = '\"'; fn f<'a>(x: &'a str) {}"),
        ("controller/src/device/decide.rs", "use super::state::State; use self::db_like::X;"),
        ("device-agent/src/controller_link.rs", "use lapin::Channel;"),
    ] {
        assert_eq!(breaches(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn an_upward_edge_or_a_runtime_under_shared_is_reported() {
    let manifest = "[package]\nname = \"trustfleet-wire\"\n[dependencies]\ntrustfleet-lab.workspace = true\n\
        trustfleet-wire = { path = \".\" }\ntokio = \"1\"\n[dev-dependencies]\ntrustfleet-controller = { path = \"x\" }\ntokio.workspace = true\n";
    let complaints = edge_complaints("shared/wire", manifest, &["trustfleet-model"]);
    assert_eq!(
        complaints,
        [
            "shared/wire must not depend on trustfleet-lab",
            "shared/wire must not depend on tokio",
            "shared/wire must not depend on trustfleet-controller"
        ]
    );
}

// ---- how it is read -------------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> =
        ["controller", "device-agent", "shared", "lab", "fuzz"].iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn breaches(file: &str, source: &str) -> Vec<String> {
    let walls: Vec<_> = WALLS
        .iter()
        .filter(|wall| wall.inside.iter().any(|prefix| file.starts_with(prefix)))
        .filter(|wall| !wall.except.iter().any(|prefix| file.starts_with(prefix)))
        .collect();
    if walls.is_empty() {
        return Vec::new();
    }
    let mut found = BTreeSet::new();
    for (line, path) in paths(source, &module_of(file)) {
        for wall in &walls {
            if wall.forbidden.iter().any(|forbidden| begins(&path, forbidden)) {
                // One report for each line and wall, naming the first path.
                if !found.iter().any(|(at, why, _): &(usize, &str, String)| *at == line && *why == wall.why) {
                    found.insert((line, wall.why, path.join("::")));
                }
            }
        }
    }
    found.into_iter().map(|(line, why, path)| format!("{file}:{line}: {path}: {why}")).collect()
}

fn begins(path: &[String], prefix: &str) -> bool {
    let mut path = path.iter();
    prefix.split("::").all(|part| path.next().is_some_and(|segment| segment == part))
}

/// `controller/src/db/tx.rs` is `crate::db::tx`; a `mod.rs` is its folder.
fn module_of(file: &str) -> Vec<String> {
    let below = file.split_once("/src/").map_or("lib.rs", |(_, below)| below);
    let below = below.strip_suffix(".rs").unwrap_or(below);
    let parts = below.split('/').filter(|part| !matches!(*part, "lib" | "main" | "mod"));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

/// All paths with their lines, `self` and `super` resolved against the file's module.
fn paths(source: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if is_word(&tokens[at].text) {
            let begin = at;
            let mut path = vec![tokens[at].text.clone()];
            while at + 2 < tokens.len() && tokens[at + 1].text == "::" && is_word(&tokens[at + 2].text) {
                path.push(tokens[at + 2].text.clone());
                at += 2;
            }
            let before = begin.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
            // `x.der::<T>()` is a method, `Vec::<T>::new` goes on after its arguments.
            let goes_on = before == "::"
                && begin.checked_sub(2).is_some_and(|i| is_word(&tokens[i].text) || tokens[i].text == ">");
            let continued = path.len() > 1 || tokens.get(at + 1).is_some_and(|next| next.text == "::");
            if continued && before != "." && !goes_on {
                found.push((tokens[begin].line, path));
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found.into_iter().map(|(line, path)| (line, resolve(path, module))).collect()
}

/// Reads one tree of a `use` declaration from `at` on; returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, found);
                    if tokens.get(at).is_some_and(|token| token.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "*" => {
                path.push("*".to_owned());
                at += 1;
            }
            word if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    // `a::{self}` is `a`.
    if path.len() > prefix.len().max(1) && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    found.push((line, path));
    // A path that consumed nothing must still move on.
    if path_is_empty(found) { at + 1 } else { at }
}

fn path_is_empty(found: &[(usize, Vec<String>)]) -> bool {
    found.last().is_none_or(|(_, path)| path.is_empty())
}

fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = match path.first().map(String::as_str) {
        Some("self" | "super") => module.to_vec(),
        _ => return path,
    };
    let mut rest = path.into_iter().peekable();
    while let Some(word) = rest.next_if(|word| word == "self" || word == "super") {
        if word == "super" && base.len() > 1 {
            base.pop();
        }
    }
    base.extend(rest);
    base
}

struct Token {
    text: String,
    line: usize,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Words, `::` and single signs; comments, texts, characters and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r' | 'b' | 'c', ..] if raw_text(rest).is_some() => raw_text(rest).unwrap_or(1),
            ['b' | 'c', '"', ..] => 1 + text(&rest[1..]),
            ['"', ..] => text(rest),
            ['\'', ..] => character_or_lifetime(rest),
            [':', ':', ..] => {
                tokens.push(Token { text: "::".to_owned(), line });
                2
            }
            [first, ..] if first.is_alphabetic() || *first == '_' => {
                let length = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                tokens.push(Token { text: rest[..length].iter().collect(), line });
                length
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    tokens.push(Token { text: first.to_string(), line });
                }
                1
            }
            [] => 1,
        };
        line += rest[..length.min(rest.len())].iter().filter(|c| **c == '\n').count();
        at += length;
    }
    tokens
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` at the beginning of `rest`.
fn raw_text(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().position(|c| *c == 'r').filter(|position| *position < 2)? + 1;
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    (rest.get(prefix + hashes) == Some(&'"')).then_some(())?;
    let mut at = prefix + hashes + 1;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(rest.len())
}

fn text(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn character_or_lifetime(rest: &[char]) -> usize {
    match rest {
        [_, '\\', ..] => rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |end| end + 4),
        [_, _, '\'', ..] => 3,
        _ => 1 + rest[1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count(),
    }
}

/// What a crate's Cargo.toml names that it must not.
fn edge_complaints(folder: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let own = manifest
        .lines()
        .find_map(|line| line.strip_prefix("name = ").map(|name| name.trim_matches('"').to_owned()))
        .unwrap_or_default();
    let mut section = "";
    let mut complaints = Vec::new();
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            continue;
        }
        if !section.ends_with("dependencies") {
            continue;
        }
        let name: String = line.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let upward = name.starts_with("trustfleet-") && name != own && !allowed.contains(&name.as_str());
        let runtime = folder.starts_with("shared/")
            && section == "dependencies"
            && NOT_FOR_SHARED.contains(&name.as_str())
            && (folder, name.as_str()) != SENDS_TRACES;
        if upward || runtime {
            complaints.push(format!("{folder} must not depend on {name}"));
        }
    }
    complaints
}
