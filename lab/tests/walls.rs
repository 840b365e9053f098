//! What an agent may not do on the broker, and where a secret must not appear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, process::Command, time::Duration};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::json;
use support::{Lab, policy};
use trustfleet_lab::house::{AgentFiles, Fleet};
use trustfleet_wire::{
    Envelope,
    join::{Challenge, ChallengeRequest, SessionAnswer, SessionRequest},
    routing::{JOBS_EXCHANGE, REPORTS_EXCHANGE},
    sign::{Purpose, SigningKey},
    v1::Blob,
};

/// Opens a session with the keys of an agent that has joined, as that agent would.
fn session_of(fleet: &Fleet, name: &str, files: &AgentFiles) -> SessionAnswer {
    let agent_id = fleet.get(&format!("agents/{name}")).unwrap()["id"].as_str().unwrap().parse().unwrap();
    let key = SigningKey::from_pkcs8(&fs::read(files.state.join("keys/sign.pk8")).unwrap()).unwrap();
    let body = serde_json::to_value(ChallengeRequest { agent_id: Some(agent_id) }).unwrap();
    let challenge: Challenge = serde_json::from_value(fleet.rest.post("/agent/v1/challenge", &body).unwrap()).unwrap();
    let proof = key.sign(Purpose::SessionProof, &SessionRequest::proof_input(agent_id, &challenge.challenge.0, None));
    let body = SessionRequest { agent_id, challenge: challenge.challenge, instance: None, proof: Blob(proof) };
    let answer = fleet.rest.post("/agent/v1/session", &serde_json::to_value(body).unwrap()).unwrap();
    let envelope: Envelope = serde_json::from_value(answer).unwrap();
    envelope.peek().unwrap()
}

async fn connect(session: &SessionAnswer) -> Connection {
    let mut url: url::Url = session.amqp_url.parse().unwrap();
    url.set_username(&session.amqp_user).unwrap();
    url.set_password(Some(&session.amqp_token)).unwrap();
    url.query_pairs_mut().append_pair("frame_max", "131072");
    Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap()
}

/// A fresh channel for each attempt: a refusal closes the channel.
async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

/// Publishes and waits for the confirm; the broker's refusal closes the channel instead.
async fn publish(connection: &Connection, exchange: &str, key: &str) -> Result<(), lapin::Error> {
    let channel = channel(connection).await;
    let options = BasicPublishOptions { mandatory: false, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, b"{}", BasicProperties::default()).await?.await?;
    Ok(())
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, lapin::Error>, what: &str) {
    let error = result.expect_err(what).to_string();
    assert!(error.contains("ACCESS") || error.contains("403"), "{what}: refused for another reason: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reads_its_own_queue_and_writes_its_own_keys_and_nothing_else() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let (mut one, files) = fleet.start_agent("one").await.unwrap();
    let (_two, other_files) = fleet.start_agent("two").await.unwrap();
    one.kill().await;
    let (session, other) = (session_of(&fleet, "one", &files), session_of(&fleet, "two", &other_files));
    let connection = connect(&session).await;

    let own = channel(&connection).await;
    let consume = BasicConsumeOptions::default();
    own.basic_consume(session.queue.as_str().into(), "own".into(), consume, FieldTable::default()).await.unwrap();
    publish(&connection, REPORTS_EXCHANGE, &session.hello_key).await.unwrap();

    let foreign = channel(&connection).await;
    let result = foreign.basic_consume(other.queue.as_str().into(), "x".into(), consume, FieldTable::default()).await;
    is_refused(result, "reading another agent's queue");
    is_refused(publish(&connection, REPORTS_EXCHANGE, &other.hello_key).await, "writing for another agent");
    is_refused(publish(&connection, JOBS_EXCHANGE, &other.queue).await, "sending jobs");
    is_refused(publish(&connection, "", &other.queue).await, "the default exchange");
    let declare = channel(&connection).await;
    let options = QueueDeclareOptions::default();
    is_refused(declare.queue_declare("mine".into(), options, FieldTable::default()).await, "declaring a queue");
    let bind = channel(&connection).await;
    let result = bind
        .queue_bind(
            session.queue.as_str().into(),
            REPORTS_EXCHANGE.into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await;
    is_refused(result, "binding its queue to everybody's reports");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_mac_secret_is_in_no_dump_no_queue_no_log_no_metric_and_no_answer() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    agent.kill().await;
    let secret = "secret-ap-1";
    let job = fleet.enroll("ap-1", "ir").unwrap();
    let below = format!("jobs/{}", job["id"].as_str().unwrap());
    lab.eventually("the job is published", || (fleet.get(&below).ok()?["state"] == "awaiting_agent").then_some(()))
        .await;

    let vhost = lab.vhost.as_ref().unwrap();
    let queue = format!("agent.{}", fleet.get("agents/ap-1").unwrap()["id"].as_str().unwrap());
    let get = json!({ "count": 10, "ackmode": "ack_requeue_true", "encoding": "auto" });
    let messages = vhost
        .management("POST", &format!("/api/queues/{}/{queue}/get", vhost.name()), Some(get))
        .await
        .unwrap()
        .to_string();
    assert!(messages.contains("payload"), "the queue is empty: {messages}");
    // The payload is base64 in the envelope: look into it as well.
    let envelope: serde_json::Value =
        serde_json::from_str::<serde_json::Value>(&messages).unwrap()[0]["payload"].clone();
    let envelope = Envelope::from_bytes(envelope.as_str().unwrap().as_bytes()).unwrap();
    let payload = String::from_utf8(envelope.payload.0.clone()).unwrap();
    assert!(payload.contains("ciphertext"), "no sealed secret in the job: {payload}");

    let agent = trustfleet_lab::house::start_agent_process(&files).unwrap();
    fleet.enrolled("ap-1", &job, Duration::from_secs(60)).await.unwrap();
    let dump = Command::new("pg_dump").arg(lab.db.as_ref().unwrap().admin_url().as_str()).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let answers: Vec<String> = ["trustpoints", "jobs", "certificates", "devices", "policies"]
        .iter()
        .map(|list| fleet.get(list).unwrap().to_string())
        .collect();
    let places = [
        ("queue", messages),
        ("job", payload),
        ("dump", String::from_utf8_lossy(&dump.stdout).into_owned()),
        ("answers", answers.join("\n")),
        ("metrics", lab.house.platform.get("/metrics").unwrap().to_string()),
        ("controller's log", lab.house.controller.log()),
        ("agent's log", agent.log()),
        ("agent's files", agent_files(&files)),
    ];
    for (place, text) in places {
        assert!(!text.is_empty(), "{place} is empty: nothing was looked at");
        assert!(!text.contains(secret), "the secret is in the {place}");
    }
}

fn agent_files(files: &AgentFiles) -> String {
    support::files_below(&files.state)
        .filter_map(|path| fs::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_please_promtool_and_exist_at_zero_from_the_start() {
    let lab = Lab::start().await;
    lab.house.platform.post("/v1/tenants", &json!({ "name": "acme" })).unwrap();
    lab.metric_becomes("trustfleet_jobs{state=\"awaiting_publish\",tenant=\"acme\"}", 0.0).await;
    lab.metric_becomes("trustfleet_exchanges_total{kind=\"kur\",result=\"peer_refusal\",tenant=\"acme\"}", 0.0).await;
    let text = lab.house.platform.get("/metrics").unwrap();
    let file = lab.dir.path().join("metrics.txt");
    fs::write(&file, text.as_str().unwrap()).unwrap();
    let output =
        Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_needs_only_the_process_and_readiness_names_what_is_missing() {
    let stack_options = trustfleet_lab::stack::StackOptions::default();
    let mut stack = trustfleet_lab::stack::Stack::start(stack_options).await.unwrap();
    let lab = Lab::start_on(stack.env().clone()).await;
    let status = |path: &str| lab.house.platform.send("GET", path, &[], None).unwrap();
    assert_eq!(status("/healthz").status, 200);
    lab.eventually("database and broker are there", || (status("/readyz").status == 200).then_some(())).await;
    stack.rabbit.stop().await;
    let body = lab
        .eventually("readiness is withdrawn", || {
            let answer = status("/readyz");
            (answer.status == 503).then_some(answer.body.to_string())
        })
        .await;
    assert!(body.contains("broker"), "{body}");
    assert_eq!(status("/healthz").status, 200);
    stack.rabbit.start().await.unwrap();
    lab.eventually("readiness comes back", || (status("/readyz").status == 200).then_some(())).await;
    stack.stop().await;
}
