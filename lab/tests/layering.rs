//! The walls of the house, checked from the sources: which crate, module or technology may be named where.
//!
//! Standard library only, so that `make lint` compiles and runs this file alone in a second (`make layers`). It reads
//! the paths in `use` declarations and in code; comments and texts do not count. A rule that is broken is reported
//! with file, line, path and the reason of the wall. Change a wall only together with docs/decisions.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/rust_paths.rs"]
mod rust_paths;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rust_paths::{module_of, paths};

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
