//! Another tenant's object costs the same work as one that never was: the very same statements go to PostgreSQL, as its own
//! log tells. By their rows nothing can differ: each of them is held to the asking tenant, by its condition and by row level
//! security.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use trustfleet_controller::api::ROUTES;

use crate::{
    api_access::{IDS, fill, objects},
    api_house::House,
    support::Place,
};

/// How often two requests are compared: what the controller does by itself meanwhile stands in the same log.
const TRIES: usize = 5;

/// The log of the server, from here on.
struct Log {
    path: PathBuf,
    database: String,
    /// Names of statements that run by themselves.
    background: BTreeSet<String>,
}

impl Log {
    /// Has the server log every statement of the controller's roles.
    async fn of(place: &Place) -> Self {
        let admin = place.admin().await;
        for role in ["trustfleet_api", "trustfleet_system"] {
            let sql = format!("ALTER ROLE {role} IN DATABASE {} SET log_statement = 'all'", place.name);
            admin.batch_execute(&sql).await.unwrap();
        }
        let data: String = admin.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
        let path = PathBuf::from(data).parent().unwrap().join("log");
        assert!(path.is_file(), "the server's log is not at {}", path.display());
        Self { path, database: place.name.clone(), background: BTreeSet::new() }
    }

    fn end(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    /// Statements since, without their parameters, in their order; those that run by themselves left out.
    fn since(&self, from: u64) -> Vec<String> {
        let mut file = std::fs::File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        // A statement's further lines are indented.
        let mut entries: Vec<String> = Vec::new();
        for line in text.lines() {
            match (line.starts_with('\t'), entries.last_mut()) {
                (true, Some(entry)) => *entry += line.trim(),
                _ => entries.push(line.to_owned()),
            }
        }
        let ours = format!("@{} LOG:  ", self.database);
        let statement = |entry: &String| {
            let (_, said) = entry.split_once(&ours)?;
            let sql = match said.strip_prefix("execute ") {
                Some(named) => named.split_once(": ")?.1,
                None => said.strip_prefix("statement: ")?,
            };
            Some(sql.to_owned())
        };
        let wanted = |sql: &String| !self.background.contains(&name(sql));
        entries.iter().filter_map(statement).filter(wanted).collect()
    }

    /// Learns which statements run although nobody asks.
    async fn learn(&mut self) {
        let from = self.end();
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.background = self.since(from).iter().map(|sql| name(sql)).filter(|name| name.starts_with("/*")).collect();
        assert!(!self.background.is_empty(), "nothing is logged");
    }
}

/// The comment by which a statement says where it comes from; without one, itself.
fn name(sql: &str) -> String {
    match sql.split_once("*/") {
        Some((comment, _)) if comment.starts_with("/*") => format!("{comment}*/"),
        _ => sql.to_owned(),
    }
}

/// Without what frames transactions that run by themselves.
fn told(statements: Vec<String>) -> Vec<String> {
    statements.into_iter().filter(|sql| !["BEGIN", "COMMIT", "ROLLBACK"].contains(&sql.as_str())).collect()
}

#[actix::test]
async fn another_tenants_object_is_looked_for_by_the_same_statements_as_an_unknown_one_on_every_route() {
    let house = House::open().await;
    house.tenant("acme").await;
    let [_, _, foreign] = house.tenant("other").await;
    let objects = objects(&house).await;
    let mut log = Log::of(&house.place).await;
    // Its connections are made from here on, and log.
    let replica = house.second().await;
    replica.get("/v1/tenants/other", &foreign).await.expect(200);
    log.learn().await;

    let mut own = objects.clone();
    own.insert("tenant", "other".to_owned());
    let unknown = |tenant: &str| -> BTreeMap<&str, String> {
        let name = |kind: &&'static str| match (*kind, IDS.contains(kind)) {
            ("tenant", _) => (*kind, tenant.to_owned()),
            (_, true) => (*kind, uuid::Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0001).to_string()),
            _ => (*kind, "unknown".to_owned()),
        };
        objects.keys().map(name).collect()
    };
    let mut compared = 0;
    let mut looked = BTreeSet::new();
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/v1/tenants/{tenant}")) {
        let body = || ["POST", "PUT"].contains(&route.method).then(|| json!({}));
        let ask = async |values: &BTreeMap<&str, String>| {
            let from = log.end();
            let path = fill(route.path, values);
            let answer = replica.call(route.method, &path, Some(&foreign), body()).await;
            assert_eq!(answer.status, 404, "{} {path}: {}", route.method, answer.text);
            told(log.since(from))
        };
        let pairs = [(&objects, unknown("unknown")), (&own, unknown("other"))];
        let pairs = pairs.iter().filter(|(there, _)| there["tenant"] == "acme" || route.path.matches('{').count() > 1);
        for (there, never) in pairs {
            let mut both = (Vec::new(), Vec::new());
            for _ in 0..TRIES {
                both = (ask(there).await, ask(never).await);
                if both.0 == both.1 {
                    break;
                }
            }
            assert_eq!(both.0, both.1, "{} {} in {}", route.method, route.path, there["tenant"]);
            compared += 1;
            looked.extend(both.0.iter().any(|sql| sql.starts_with("/*")).then_some(route.operation));
        }
    }
    assert!(compared > 80, "only {compared} pairs were compared");
    assert!(looked.len() > 50, "only these looked for anything: {looked:?}");
    replica.close().await;
    house.close().await;
}
