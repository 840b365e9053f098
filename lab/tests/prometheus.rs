//! Every query of every panel and alert, asked of a real Prometheus that scrapes two real controllers.
//!
//! A query that gives nothing is a fault, unless [`SILENT`] says why it must; one that gives something although it is
//! excused there is a fault, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/boards.rs"]
mod boards;
mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use boards::{Query, alerts, filled, list, panel_queries, read, root, rule_files, text, variables};
use serde_json::{Value, json};
use support::{Lab, policy};
use tempfile::TempDir;
use trustfleet_lab::{
    house::ControllerFiles,
    testkit::{Child, PortReservation, command, eventually},
};
use url::Url;

const LIMIT: Duration = Duration::from_secs(60);

/// Panels' queries that give nothing in this test, each with the reason: part of the place, and why.
const SILENT: [(&str, &str); 0] = [];

/// A Prometheus of the test's own, with the rules of `dashboards/rules`.
struct Prometheus {
    process: Child,
    url: Url,
    _dir: TempDir,
    _port: PortReservation,
}

impl Prometheus {
    /// Scrapes `targets` each second as the job `trustfleet`.
    async fn start(targets: &[String]) -> Self {
        let dir = tempfile::Builder::new().prefix("trustfleet-prometheus-").tempdir().unwrap();
        let rules: Vec<_> = rule_files().iter().map(|file| root().join(file)).collect();
        // JSON is YAML.
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": rules,
            "scrape_configs": [{ "job_name": "trustfleet", "static_configs": [{ "targets": targets }] }],
        });
        fs::write(dir.path().join("prometheus.yml"), config.to_string()).unwrap();
        let mut port = PortReservation::any().unwrap();
        port.open();
        let process = Child::start("prometheus", prometheus(dir.path(), port.port()));
        let process = process.expect("prometheus is in Debian's package of that name, which scripts/setup.sh installs");
        let url = format!("http://127.0.0.1:{}/", port.port()).parse().unwrap();
        let mut started = Self { process, url, _dir: dir, _port: port };
        let ready = eventually(LIMIT, "Prometheus is ready", async || {
            assert!(started.process.is_running(), "{}", started.process.log());
            ureq::get(started.url.join("-/ready").unwrap().as_str()).call().ok()
        });
        ready.await.unwrap();
        started
    }

    /// One request to its API; the part `data` of the answer.
    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut url = self.url.join(path).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let body = agent.get(url.as_str()).call().unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{url}: {error}: {body}"));
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// The samples of an expression now.
    fn now(&self, expr: &str) -> Vec<Value> {
        list(&self.ask("api/v1/query", &[("query", expr)])["result"]).to_vec()
    }

    /// The series of an expression since `begin`, second by second.
    fn since(&self, begin: Instant, expr: &str) -> Vec<Value> {
        let end = self.time();
        // A whole number of steps, so that the last one is now.
        let start = (end - begin.elapsed().as_secs_f64().ceil()).to_string();
        let query = [("query", expr), ("start", &start), ("end", &end.to_string()), ("step", "1")];
        list(&self.ask("api/v1/query_range", &query)["result"]).to_vec()
    }

    fn time(&self) -> f64 {
        let data = self.ask("api/v1/query", &[("query", "time()")]);
        data["result"][1].as_str().unwrap().parse().unwrap()
    }

    /// Waits until an expression gives something.
    async fn comes(&self, expr: &str) {
        let what = format!("Prometheus sees {expr}");
        eventually(LIMIT, &what, async || (!self.now(expr).is_empty()).then_some(())).await.unwrap();
    }

    /// Names of the alerts in one state, `pending` or `firing`.
    fn alerts_in(&self, state: &str) -> BTreeSet<String> {
        let data = self.ask("api/v1/alerts", &[]);
        let found = list(&data["alerts"]).iter().filter(|alert| alert["state"] == state);
        found.map(|alert| text(&alert["labels"]["alertname"]).to_owned()).collect()
    }
}

/// Killed with this process, however that ends.
fn prometheus(dir: &Path, port: u16) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "prometheus", "--log.level=warn"]);
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.current_dir(dir);
    command
}

/// A second replica on the same database and broker.
async fn second_controller(lab: &Lab) -> (Child, String) {
    let dir = lab.dir.path().join("second");
    fs::create_dir(&dir).unwrap();
    let files = ControllerFiles::write(&dir, &lab.env, 0).unwrap();
    let mut serve = command("trustfleet").unwrap();
    serve.arg("serve").arg("--config").arg(&files.config);
    let mut child = Child::start("second trustfleet serve", serve).unwrap();
    let line = child.line_with("\"listening\"", LIMIT).await.unwrap();
    let url: Value = serde_json::from_str(&line).unwrap();
    (child, target(&text(&url["listening"]).parse().unwrap()))
}

fn target(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_panels_and_alerts_gives_what_it_should_in_a_real_prometheus() {
    let begin = Instant::now();
    let mut lab = Lab::start().await;
    let (mut second, second_target) = second_controller(&lab).await;
    let fleet = lab.fleet(&["ap-1", "ap-2", "ap-3"], &policy()).await;
    // With one tenant alone a query that mixes tenants would not show.
    lab.house.platform.post("/v1/tenants", &json!({ "name": "other", "allow_weak_algorithms": false })).unwrap();
    let prometheus = Prometheus::start(&[target(lab.house.platform.base()), second_target]).await;

    // A counter counts from its first scrape on.
    for tenant in ["lab", "other"] {
        let scrapes = format!("trustfleet_refusals_total{{tenant=\"{tenant}\", fail_info=\"none\"}}[1m]");
        prometheus.comes(&format!("count(count_over_time({scrapes}) > 1) == 2")).await;
    }
    prometheus.comes("count(trustfleet_build_info) == 2").await;

    // One certificate; one refusal; one job that waits for an agent that has gone.
    let (_agent, _) = fleet.start_agent("here").await.unwrap();
    fleet.add_device("ap-1", "here").unwrap();
    fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    fleet.add_device_with_secret("ap-2", "here", "not-the-secret").unwrap();
    let refused = fleet.job_ended(&fleet.enroll("ap-2", "ir").unwrap(), LIMIT).await.unwrap();
    assert_eq!(refused["state"], "failed");
    let (mut gone, _) = fleet.start_agent("gone").await.unwrap();
    fleet.add_device("ap-3", "gone").unwrap();
    gone.kill().await;
    fleet.enroll("ap-3", "ir").unwrap();
    prometheus.comes("max(trustfleet_jobs{state=~\"awaiting_publish|awaiting_agent\"}) == 1").await;
    prometheus.comes("max(trustfleet_certificates{slot=\"active\"}) == 1").await;
    prometheus.comes("sum(increase(trustfleet_exchanges_total{result=\"peer_refusal\"}[1m])) > 0").await;

    // So far all is well.
    for alert in alerts() {
        let found = prometheus.now(alert.expr());
        assert!(found.is_empty(), "{}: {} at a healthy house: {found:?}", alert.file, alert.name);
    }
    let rules = prometheus.ask("api/v1/rules", &[]);
    let rules: Vec<_> = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])).collect();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!((&rule["health"], &rule["state"]), (&json!("ok"), &json!("inactive")), "{rule}");
    }

    // Somebody sends nonsense: a real alert fires, and the panels have one to show.
    strangers_message(&lab).await;
    prometheus.comes("max(trustfleet_dead_letters) == 1").await;
    prometheus.comes("ALERTS{alertname=\"TrustfleetReportsRefused\", alertstate=\"firing\"}").await;
    assert_eq!(prometheus.alerts_in("firing"), BTreeSet::from(["TrustfleetReportsRefused".to_owned()]));

    choices_of_the_variables(&prometheus);
    let faults: Vec<_> = panel_queries().iter().filter_map(|query| fault(&prometheus, query, begin)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (excused, _) in SILENT {
        assert!(panel_queries().iter().any(|query| query.place.contains(excused)), "no query {excused} to excuse");
    }
    runbooks_queries(&prometheus, &lab).await;

    // One replica less, then none.
    second.terminate(LIMIT).await.unwrap();
    prometheus.comes("ALERTS{alertname=\"TrustfleetReplicaDown\", alertstate=\"pending\"}").await;
    assert!(!prometheus.alerts_in("pending").contains("TrustfleetControllerAbsent"));
    lab.house.controller.terminate(LIMIT).await.unwrap();
    prometheus.comes("ALERTS{alertname=\"TrustfleetControllerAbsent\", alertstate=\"pending\"}").await;
}

/// A message that no agent has signed, by the broker's administrator.
async fn strangers_message(lab: &Lab) {
    let vhost = lab.vhost.as_ref().unwrap();
    let agents = lab.house.platform.get("/v1/tenants/lab/agents").unwrap();
    let key = format!("agent.{}.r0", text(&agents["items"][0]["id"]));
    let body = json!({ "properties": {}, "routing_key": key, "payload": "nonsense", "payload_encoding": "string" });
    let path = format!("/api/exchanges/{}/trustfleet.reports/publish", vhost.name());
    let answer = vhost.management("POST", &path, Some(body)).await.unwrap();
    assert_eq!(answer["routed"], true, "{answer}");
}

fn choices_of_the_variables(prometheus: &Prometheus) {
    for variable in variables() {
        let selector = filled(&variable.selector, &[("$namespace", ".*"), ("$job", "trustfleet")]);
        let path = format!("api/v1/label/{}/values", variable.label);
        let data = prometheus.ask(&path, &[("match[]", &selector)]);
        let choices: Vec<_> = list(&data).iter().map(text).collect();
        match variable.label.as_str() {
            // There is none outside of Kubernetes, and "all" must match that.
            "namespace" => assert!(choices.is_empty(), "{}: {choices:?}", variable.place),
            "job" => assert_eq!(choices, ["trustfleet"], "{}", variable.place),
            "tenant" => assert_eq!(choices, ["lab", "other"], "{}", variable.place),
            "instance" => assert_eq!(choices.len(), 2, "{}: {choices:?}", variable.place),
            other => panic!("{}: this test knows nothing of {other}", variable.place),
        }
    }
}

/// What is wrong with a panel's query, asked as Grafana does for two tenants and all replicas.
fn fault(prometheus: &Prometheus, query: &Query, begin: Instant) -> Option<String> {
    let Query { place, expr, range } = query;
    let excused = SILENT.iter().any(|(excused, _)| place.contains(excused));
    let values = [
        ("$__rate_interval", "20s"),
        ("$__range", "5m"),
        ("$__interval", "1s"),
        ("$tenant", "(lab|other)"),
        ("$instance", ".*"),
        ("$namespace", ".*"),
        ("$job", "trustfleet"),
    ];
    let expr = filled(expr, &values);
    let found = if *range { prometheus.since(begin, &expr) } else { prometheus.now(&expr) };
    let tells = found.iter().any(|series| {
        let samples = series["values"].as_array().map_or_else(|| std::slice::from_ref(&series["value"]), Vec::as_slice);
        samples.iter().any(|sample| sample[1].as_str().is_some_and(|value| value != "NaN"))
    });
    match (tells, excused) {
        (false, false) => Some(format!("{place} gives nothing: {expr}")),
        (true, true) => Some(format!("{place} is excused, but gives something: {expr}")),
        _ => None,
    }
}

/// PromQL and SQL of the runbooks are taken by Prometheus and by PostgreSQL, the latter as the role that they name.
async fn runbooks_queries(prometheus: &Prometheus, lab: &Lab) {
    let (client, connection) =
        tokio_postgres::connect(lab.env.db_system_url.as_str(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let (mut promql, mut sql) = (0, 0);
    for file in ["certificates", "jobs-and-agents", "controller"].map(|name| format!("docs/runbooks/{name}.md")) {
        let book = read(&file);
        for expr in boards::blocks(&book, "promql") {
            prometheus.now(&expr);
            promql += 1;
        }
        for statement in boards::blocks(&book, "sql") {
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{file}: {error}: {statement}"));
            sql += 1;
        }
    }
    assert!(promql > 8 && sql > 3, "only {promql} and {sql} were found");
    connection.abort();
}
