//! One enrolment is one trace: a foreign OTLP receiver gets the spans of real controller and agent processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use mock_collector::{MockServer, Protocol, ServerHandle};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{AgentFiles, Fleet, start_agent_process},
    testkit::Child,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for a program to end with spans that nobody takes.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const ENROLL: &str = "POST /v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/enroll";

// Numbers of OTLP's SpanKind.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_enrolment_is_one_connected_trace_through_both_programs_and_tells_no_secret() {
    let receiver = receiver().await;
    let mut lab = traced_lab(&endpoint(&receiver)).await;
    let fleet = lab.fleet(&["ap-1", "ap-2"], &policy()).await;
    let (mut agent, files) = traced_agent(&fleet, "gw", &endpoint(&receiver)).await;
    fleet.add_device("ap-1", "gw").unwrap();
    fleet.add_device("ap-2", "gw").unwrap();

    let job = enroll(&fleet, "ap-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    let unrecorded = enroll(&fleet, "ap-2", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    fleet.enrolled("ap-2", &unrecorded, LIMIT).await.unwrap();
    // Everything that was said is sent when the programs end.
    assert!(agent.terminate(LIMIT).await.unwrap().success());
    assert!(lab.house.controller.terminate(LIMIT).await.unwrap().success());

    let all = spans(&receiver).await;
    let of_trace = |id: &str| all.iter().filter(|span| span.trace == id).cloned().collect::<Vec<_>>();
    assert_eq!(of_trace("0af7651916cd43dd8448eb211c80319c"), [], "a trace that its caller does not record");
    let trace = of_trace("4bf92f3577b34da6a3ce929d0e0e4736");
    let tree = Tree::of(&trace);
    let shown = tree.shown();

    // Whatever was done for the job is in this trace and nowhere else.
    let job_id = job["id"].as_str().unwrap();
    let elsewhere = all.iter().filter(|span| span.trace != trace[0].trace);
    let mentions = |span: &&Span| span.attributes.values().any(|value| value == job_id);
    assert_eq!(elsewhere.filter(mentions).count(), 0);
    assert!(trace.iter().filter(mentions).count() >= 5, "{shown}");

    // One root, which is the caller's child; every other parent is in the trace.
    let orphans: Vec<_> = trace.iter().filter(|span| !tree.by_id.contains_key(span.parent.as_str())).collect();
    assert_eq!(orphans.len(), 1, "{shown}");
    assert_eq!((orphans[0].name.as_str(), orphans[0].parent.as_str()), (ENROLL, "00f067aa0ba902b7"), "{shown}");
    let services: BTreeSet<_> = trace.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from(["trustfleet-agent", "trustfleet-controller"]));

    // The way: controller, agent, CA, agent, controller.
    let (controller, agent) = ("trustfleet-controller", "trustfleet-agent");
    for (name, kind, service, parent) in [
        (ENROLL, SERVER, controller, ""),
        ("enrollment_context", CLIENT, controller, ENROLL),
        ("device enroll", INTERNAL, controller, ENROLL),
        ("group_commit", CLIENT, controller, "device enroll"),
        ("publish trustfleet.jobs", PRODUCER, controller, ENROLL),
        ("job", CONSUMER, agent, "publish trustfleet.jobs"),
        ("key", INTERNAL, agent, "job"),
        ("cmp ir", INTERNAL, agent, "job"),
        ("POST ir", CLIENT, agent, "cmp ir"),
        ("POST certConf", CLIENT, agent, "cmp ir"),
        ("store certificate", INTERNAL, agent, "job"),
        ("activate certificate", INTERNAL, agent, "job"),
        ("publish trustfleet.reports", PRODUCER, agent, "job"),
        ("publish trustfleet.reports", PRODUCER, agent, "store certificate"),
        ("process trustfleet.reports", CONSUMER, controller, "publish trustfleet.reports"),
        ("device report", INTERNAL, controller, "process trustfleet.reports"),
        ("group_commit", CLIENT, controller, "device report"),
    ] {
        let found = trace.iter().any(|span| {
            let of = tree.by_id.get(span.parent.as_str()).map_or("", |parent| parent.name.as_str());
            (span.name.as_str(), span.kind, span.service.as_str(), of) == (name, kind, service, parent)
        });
        assert!(found, "no {name} of {service} below {parent:?}:\n{shown}");
    }

    let named = |name: &str| trace.iter().find(|span| span.name == name).unwrap();
    let expect = |name: &str, pairs: &[(&str, &str)]| {
        for (key, value) in pairs {
            assert_eq!(named(name).attributes.get(*key).map(String::as_str), Some(*value), "{key} of {name}");
        }
    };
    expect(ENROLL, &[("http.request.method", "POST"), ("http.response.status_code", "202")]);
    expect("group_commit", &[("db.system.name", "postgresql")]);
    expect("job", &[("messaging.system", "rabbitmq"), ("messaging.operation.type", "process")]);
    expect("publish trustfleet.jobs", &[("messaging.operation.type", "send"), ("trustfleet.job.id", job_id)]);
    expect("POST ir", &[("server.address", "127.0.0.1"), ("http.response.status_code", "200")]);
    expect("POST ir", &[("trustfleet.cmp.request", "ir"), ("trustfleet.cmp.response", "ip")]);
    assert!(trace.iter().all(|span| !span.failed), "{shown}");

    // Nothing secret in any span, also of other requests.
    let token = fs::read_to_string(&lab.house.files.first_token).unwrap();
    let join_token = fs::read_to_string(lab.dir.path().join("gw.join-token")).unwrap();
    for secret in ["secret-ap-1", "secret-ap-2", token.trim(), join_token.trim()] {
        let text = format!("{all:?}");
        assert!(!text.contains(secret), "a secret is in a span");
    }
    assert!(all.iter().all(|span| span.attributes.keys().all(|key| !key.contains("authorization"))));
    drop(files);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_restarts_in_the_middle_of_an_exchange_goes_on_with_the_same_trace() {
    let receiver = receiver().await;
    let mut lab = traced_lab(&endpoint(&receiver)).await;
    let fleet = Fleet::create_at(&lab.house, &["ap-1"], &policy(), &["--hold-seconds", "7"]).await.unwrap();
    let (mut agent, files) = traced_agent(&fleet, "ap-1", &endpoint(&receiver)).await;
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = enroll(&fleet, "ap-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let path = format!("jobs/{}", job["id"].as_str().unwrap());
    let waits = || fleet.get(&path).ok().filter(|job| job["state"] == "awaiting_ca");
    lab.eventually("the CA thinks", waits).await;
    // It ends before the CA has done thinking.
    assert!(agent.terminate(LIMIT).await.unwrap().success());
    let mut agent = start_agent_process(&files).unwrap();
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert!(agent.terminate(LIMIT).await.unwrap().success());
    assert!(lab.house.controller.terminate(LIMIT).await.unwrap().success());

    let trace = spans(&receiver).await;
    let trace: Vec<_> = trace.into_iter().filter(|span| span.trace == "4bf92f3577b34da6a3ce929d0e0e4736").collect();
    let tree = Tree::of(&trace);
    let jobs: Vec<_> = trace.iter().filter(|span| span.name == "job").collect();
    assert_eq!(jobs.len(), 2, "{}", tree.shown());
    for job in jobs {
        let parent = tree.by_id.get(job.parent.as_str()).map(|parent| parent.name.as_str());
        assert_eq!(parent, Some("publish trustfleet.jobs"), "it goes on from the message in the record");
    }
    let exchanges: BTreeSet<_> = trace
        .iter()
        .filter(|span| span.name == "cmp ir")
        .map(|span| {
            (span.attributes["trustfleet.cmp.resumed"].clone(), &span.attributes["trustfleet.cmp.transaction_id"])
        })
        .collect();
    let resumed: Vec<_> = exchanges.iter().map(|(resumed, _)| resumed.as_str()).collect();
    assert_eq!(resumed, ["false", "true"], "{}", tree.shown());
    let transactions: BTreeSet<_> = exchanges.iter().map(|(_, id)| id).collect();
    assert_eq!(transactions.len(), 1, "one transaction, whatever happened to the agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_or_never_answers_delays_nothing_and_is_complained_about_once() {
    // Takes connections and says nothing, for ever.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lab = traced_lab(&format!("http://{}", silent.local_addr().unwrap())).await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (mut agent, _files) = traced_agent(&fleet, "ap-1", "http://127.0.0.1:1").await;
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = enroll(&fleet, "ap-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    agent.line_with("spans were lost", LIMIT).await.unwrap();

    let begun = Instant::now();
    assert!(agent.terminate(STOP_LIMIT).await.unwrap().success());
    assert!(lab.house.controller.terminate(STOP_LIMIT).await.unwrap().success());
    assert!(begun.elapsed() < STOP_LIMIT, "{:?}", begun.elapsed());
    assert_eq!(agent.log().matches("spans were lost").count(), 1, "{}", agent.log());
    assert!(lab.house.controller.log().matches("spans were lost").count() <= 1, "{}", lab.house.controller.log());
}

async fn receiver() -> ServerHandle {
    MockServer::builder().protocol(Protocol::HttpBinary).start().await.unwrap()
}

fn endpoint(receiver: &ServerHandle) -> String {
    format!("http://{}", receiver.addr())
}

/// A house whose controller sends its spans to `endpoint`.
async fn traced_lab(endpoint: &str) -> Lab {
    let mut lab = Lab::start().await;
    assert!(lab.house.controller.terminate(LIMIT).await.unwrap().success());
    add_traces(&lab.house.files.config, endpoint);
    lab.house.start_again().await.unwrap();
    lab
}

/// An agent that has joined and sends its spans to `endpoint`.
async fn traced_agent(fleet: &Fleet, name: &str, endpoint: &str) -> (Child, AgentFiles) {
    let (mut agent, files) = fleet.start_agent(name).await.unwrap();
    assert!(agent.terminate(LIMIT).await.unwrap().success());
    add_traces(&files.config, endpoint);
    (start_agent_process(&files).unwrap(), files)
}

fn add_traces(config: &Path, endpoint: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(config).unwrap();
    writeln!(file, "\n[traces]\nendpoint = {endpoint:?}").unwrap();
}

fn enroll(fleet: &Fleet, device: &str, traceparent: &str) -> Value {
    let path = fleet.path(&format!("devices/{device}/trustpoints/default/enroll"));
    let body = json!({ "request": "ir" });
    let answer = fleet.rest.send("POST", &path, &[("traceparent", traceparent)], Some(&body)).unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body
}

/// A span as the receiver got it.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: i32,
    service: String,
    attributes: BTreeMap<String, String>,
    failed: bool,
}

async fn spans(receiver: &ServerHandle) -> Vec<Span> {
    receiver.with_collector(|collector| collector.spans().iter().map(read).collect()).await
}

/// Ids in hex, attributes as text.
fn read(found: &mock_collector::TestSpan) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pairs = |list: &[_]| -> BTreeMap<String, String> {
        let list = serde_json::to_value(list).unwrap();
        let text = |value: &Value| {
            let one = value.as_object().and_then(|one| one.values().next()).cloned().unwrap_or_default();
            one.as_str().map_or_else(|| one.to_string(), str::to_owned)
        };
        let pair = |pair: &Value| (pair["key"].as_str().unwrap().to_owned(), text(&pair["value"]));
        list.as_array().unwrap().iter().map(pair).collect()
    };
    let span = found.span();
    let resource = pairs(found.resource_attrs());
    for key in ["service.version", "service.instance.id"] {
        assert!(resource.get(key).is_some_and(|value| !value.is_empty()), "{key} is missing: {resource:?}");
    }
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind,
        service: resource["service.name"].clone(),
        attributes: pairs(&span.attributes),
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
    }
}

/// The spans of one trace by their parents.
struct Tree<'a> {
    by_id: BTreeMap<&'a str, &'a Span>,
}

impl<'a> Tree<'a> {
    fn of(spans: &'a [Span]) -> Self {
        Self { by_id: spans.iter().map(|span| (span.id.as_str(), span)).collect() }
    }

    /// For the eyes of whoever reads a failure.
    fn shown(&self) -> String {
        let mut text = String::new();
        for span in self.by_id.values().filter(|span| !self.by_id.contains_key(span.parent.as_str())) {
            self.show(span, 0, &mut text);
        }
        text
    }

    fn show(&self, span: &Span, depth: usize, text: &mut String) {
        text.push_str(&format!("{}{} ({}) {:?}\n", "  ".repeat(depth), span.name, span.service, span.attributes));
        for below in self.by_id.values().filter(|below| below.parent == span.id) {
            self.show(below, depth + 1, text);
        }
    }
}
