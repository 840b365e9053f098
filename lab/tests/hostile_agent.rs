//! Whoever has an agent's genuine keys, and whoever rules the broker, against everybody else: refused, or bounded, and seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/hostile.rs"]
mod hostile;
mod support;

use std::{fs, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::RSA_PKCS1_SHA256,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::StreamExt as _;
use hostile::{channel, connect, id_of, is_refused, key_of, publish, session_of, try_connect, try_session};
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::house::Fleet;
use trustfleet_model::ids::{AgentId, TenantId};
use trustfleet_wire::{
    Envelope,
    routing::{JOBS_EXCHANGE, REPORTS_EXCHANGE, agent_queue, device_reply_key, report_queue},
    sign::{Purpose, SigningKey},
    v1::{Event, FromAgent, Hello, Job, Report, ToAgent},
};

const LIMIT: Duration = Duration::from_secs(90);

/// Waits until an audit log has a row of this action whose detail has this code; the address that it names.
async fn noted(lab: &Lab, action: &str, code: &str) -> Option<String> {
    let url = lab.db.as_ref().unwrap().admin_url();
    let (client, connection) = tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT count(*), max(host(source)) FROM audit WHERE action = $1 AND detail ->> 'code' = $2";
    for _ in 0..300 {
        let row = client.query_one(sql, &[&action, &code]).await.unwrap();
        if row.get::<_, i64>(0) > 0 {
            return row.get(1);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the audit log has no {action} with {code}");
}

async fn refused_as(lab: &Lab, reason: &str, at_least: f64) {
    let sample = format!("trustfleet_reports_refused_total{{reason=\"{reason}\"}}");
    lab.eventually(&format!("{sample} grows"), || lab.metric(&sample).filter(|found| *found >= at_least)).await;
    noted(lab, "message_refused", reason).await;
}

/// The broker's administrator: what a stolen broker account can do.
async fn rule_broker(lab: &Lab) -> Connection {
    Connection::connect(lab.env.amqp_url.as_str(), ConnectionProperties::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_token_opens_nothing_but_its_own_queue_and_keys() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let (mut one, files) = fleet.start_agent("one").await.unwrap();
    let (_two, other_files) = fleet.start_agent("two").await.unwrap();
    one.kill().await;
    let (session, other) = (session_of(&fleet, "one", &files), session_of(&fleet, "two", &other_files));
    let connection = connect(&session).await;
    let nothing = FieldTable::default;

    for queue in [&other.queue, &report_queue(0), "trustfleet.dead-letters"] {
        let queue: &str = queue;
        let on = channel(&connection).await;
        let options = BasicConsumeOptions::default();
        is_refused(on.basic_consume(queue.into(), "x".into(), options, nothing()).await, "reading a foreign queue");
        let on = channel(&connection).await;
        is_refused(on.basic_get(queue.into(), BasicGetOptions::default()).await, "getting from a foreign queue");
        let on = channel(&connection).await;
        is_refused(on.queue_purge(queue.into(), QueuePurgeOptions::default()).await, "emptying a foreign queue");
        let on = channel(&connection).await;
        is_refused(on.queue_delete(queue.into(), QueueDeleteOptions::default()).await, "deleting a foreign queue");
        is_refused(publish(&connection, "", queue, b"{}").await, "the default exchange");
    }
    is_refused(publish(&connection, REPORTS_EXCHANGE, &other.hello_key, b"{}").await, "writing for another agent");
    is_refused(publish(&connection, JOBS_EXCHANGE, &other.queue, b"{}").await, "sending jobs to another");
    is_refused(publish(&connection, JOBS_EXCHANGE, &session.queue, b"{}").await, "sending jobs to itself");
    is_refused(publish(&connection, "amq.topic", "x", b"{}").await, "an exchange of the broker's own");

    let own = session.queue.as_str();
    let on = channel(&connection).await;
    is_refused(on.queue_delete(own.into(), QueueDeleteOptions::default()).await, "deleting its own queue");
    let on = channel(&connection).await;
    is_refused(on.queue_declare("mine".into(), QueueDeclareOptions::default(), nothing()).await, "declaring a queue");
    let on = channel(&connection).await;
    let declared =
        on.exchange_declare("mine".into(), ExchangeKind::Fanout, ExchangeDeclareOptions::default(), nothing());
    is_refused(declared.await, "declaring an exchange");
    let on = channel(&connection).await;
    let deleted = on.exchange_delete(REPORTS_EXCHANGE.into(), ExchangeDeleteOptions::default());
    is_refused(deleted.await, "deleting an exchange");
    for exchange in [REPORTS_EXCHANGE, JOBS_EXCHANGE] {
        let on = channel(&connection).await;
        let options = QueueBindOptions::default();
        let bound = on.queue_bind(own.into(), exchange.into(), "#".into(), options, nothing());
        is_refused(bound.await, "binding its queue to what is for others");
    }
    // The broker's own log tells, and the controller reads it.
    let sample = "trustfleet_broker_denials_total{kind=\"operation\"}";
    lab.eventually("what was denied is counted", || lab.metric(sample).filter(|count| *count >= 20.0)).await;
    noted(&lab, "broker_denied", "operation").await;
    // After all of this it still may do what it may.
    let on = channel(&connection).await;
    on.basic_consume(own.into(), "own".into(), BasicConsumeOptions::default(), nothing()).await.unwrap();
}

/// A broker token as the controller makes them, but for what is changed.
fn token(lab: &Lab, key: Option<&KeyPair>, change: impl FnOnce(&mut Value), genuine: &str) -> String {
    let part = |n: usize| URL_SAFE_NO_PAD.decode(genuine.split('.').nth(n).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&part(1)).unwrap();
    change(&mut claims);
    let signed = format!("{}.{}", genuine.split('.').next().unwrap(), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let pem = fs::read_to_string(&lab.env.keys.broker_token_key).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let own = KeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let key = key.unwrap_or(&own);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_foreign_broker_tokens_open_nothing() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let (mut one, files) = fleet.start_agent("one").await.unwrap();
    one.kill().await;
    let session = session_of(&fleet, "one", &files);
    let genuine = session.amqp_token.as_str();
    try_connect(&session, &token(&lab, None, |_| (), genuine)).await.expect("the forger's tool works");
    let stranger = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), genuine.split('.').nth(1).unwrap());
    for (what, token) in [
        ("expired", token(&lab, None, |claims| claims["exp"] = json!(1_700_000_000), genuine)),
        ("for another system", token(&lab, None, |claims| claims["aud"] = json!(["other"]), genuine)),
        ("signed by a stranger", token(&lab, Some(&stranger), |_| (), genuine)),
        ("not signed", unsigned),
        ("none at all", String::new()),
    ] {
        assert!(try_connect(&session, &token).await.is_err(), "a token that is {what} opened the broker");
    }
    let sample = "trustfleet_broker_denials_total{kind=\"login\"}";
    lab.eventually("the attempts are counted", || lab.metric(sample).filter(|count| *count >= 1.0)).await;
    // RabbitMQ does not say whose they were; where from, it does.
    assert_eq!(noted(&lab, "broker_login_refused", "login").await.as_deref(), Some("127.0.0.1"));
}

fn hello(tenant_id: TenantId, agent_id: AgentId) -> FromAgent {
    let (message_id, at) = (uuid::Uuid::from_u128(7).into(), jiff::Timestamp::UNIX_EPOCH);
    FromAgent::Hello(Hello {
        leases: false,
        clock_off_s: None,
        nodes: Vec::new(),
        roots: Vec::new(),
        tenant_id,
        agent_id,
        message_id,
        at,
        software: "x".into(),
        repeated: true,
        instance: None,
    })
}

fn sealed(message: &FromAgent, key: &SigningKey) -> Vec<u8> {
    Envelope::seal(message, Purpose::FromAgent, key).unwrap().to_bytes().unwrap()
}

/// The next job in an agent's queue, read with its own token.
async fn next_job(connection: &Connection, queue: &str) -> Job {
    let on = connection.create_channel().await.unwrap();
    on.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer = on.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
    loop {
        let delivery = tokio::time::timeout(LIMIT, consumer.next()).await.expect("a job").unwrap().unwrap();
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        if let ToAgent::Job(job) = Envelope::from_bytes(&delivery.data).unwrap().peek().unwrap() {
            return *job;
        }
    }
}

fn report(job: &Job, event: Event) -> Report {
    Report {
        report_id: uuid::Uuid::from_u128(u128::from(job.sequence) + 1_000).into(),
        tenant_id: job.tenant_id,
        agent_id: job.agent_id,
        device_id: job.device_id,
        trustpoint_id: job.trustpoint_id,
        job_id: job.job_id,
        sequence: job.sequence,
        lease_id: None,
        server: None,
        at: job.issued_at,
        traceparent: None,
        event,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_reports_change_nothing_and_are_counted_and_noted_and_repeated_ones_count_once() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1", "ap-2"], &policy()).await;
    let (mut one, files) = fleet.start_agent("one").await.unwrap();
    let (mut two, other_files) = fleet.start_agent("two").await.unwrap();
    fleet.add_device("ap-1", "one").unwrap();
    fleet.add_device("ap-2", "two").unwrap();
    one.kill().await;
    two.kill().await;
    let (session, other) = (session_of(&fleet, "one", &files), session_of(&fleet, "two", &other_files));
    let (key, stranger) = (key_of(&files.state), SigningKey::generate().unwrap());
    let connection = connect(&session).await;
    let (own, foreign) = (fleet.enroll("ap-1", "ir").unwrap(), fleet.enroll("ap-2", "ir").unwrap());
    let job = next_job(&connection, &session.queue).await;
    let foreign_job = next_job(&connect(&other).await, &other.queue).await;
    let state = |job: &Value| fleet.get(&format!("jobs/{}", job["id"].as_str().unwrap())).unwrap()["state"].clone();
    let send = async |message: &FromAgent, key: &SigningKey| {
        let routing_key = device_reply_key(session.agent_id, job.device_id);
        publish(&connection, REPORTS_EXCHANGE, &routing_key, &sealed(message, key)).await.unwrap();
    };
    let started = || Event::Started { public_key_sha256: "ab".repeat(32) };
    let as_message = |report: Report| FromAgent::Report(Box::new(report));

    // Signed by another key than the agent's.
    send(&as_message(report(&job, started())), &stranger).await;
    refused_as(&lab, "not_authentic", 1.0).await;
    // In the name of another agent, about its job; and about that job in its own name.
    send(&as_message(report(&foreign_job, started())), &key).await;
    refused_as(&lab, "foreign_sender", 1.0).await;
    send(&as_message(Report { agent_id: job.agent_id, ..report(&foreign_job, started()) }), &key).await;
    refused_as(&lab, "foreign_job", 1.0).await;
    // About a job that was never given, and of another tenant's.
    send(&as_message(Report { job_id: uuid::Uuid::from_u128(1).into(), ..report(&job, started()) }), &key).await;
    refused_as(&lab, "unknown_job", 1.0).await;
    send(&as_message(Report { tenant_id: uuid::Uuid::from_u128(1).into(), ..report(&job, started()) }), &key).await;
    refused_as(&lab, "unknown_agent", 1.0).await;
    publish(&connection, REPORTS_EXCHANGE, &session.hello_key, b"\xff{").await.unwrap();
    // Of many in a minute the audit log has the first five; the metric has all.
    lab.metric_becomes("trustfleet_reports_refused_total{reason=\"unreadable\"}", 1.0).await;
    // As if it had begun one by itself, by a lease that nobody gave.
    let (job_id, lease_id) = (uuid::Uuid::from_u128(2).into(), Some(uuid::Uuid::from_u128(3).into()));
    send(&as_message(Report { job_id, lease_id, ..report(&job, started()) }), &key).await;
    lab.metric_becomes("trustfleet_reports_refused_total{reason=\"unknown_lease\"}", 1.0).await;
    assert_eq!((state(&own), state(&foreign)), (json!("awaiting_agent"), json!("awaiting_agent")));

    // A genuine one, again and again: also after another has followed.
    let genuine = as_message(report(&job, started()));
    for _ in 0..3 {
        send(&genuine, &key).await;
    }
    lab.eventually("it counts", || (state(&own) == "awaiting_ca").then_some(())).await;
    let waiting = Report {
        report_id: uuid::Uuid::from_u128(5).into(),
        ..report(&job, Event::Waiting { check_after_s: 60, progress: None })
    };
    send(&as_message(waiting), &key).await;
    lab.eventually("the next counts", || (state(&own) == "awaiting_poll").then_some(())).await;
    send(&genuine, &key).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&own), "awaiting_poll", "a replayed report took the job back");
    assert_eq!(state(&foreign), "awaiting_agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_floods_is_bounded_and_the_others_are_served() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-2"], &policy()).await;
    let (mut one, files) = fleet.start_agent("one").await.unwrap();
    let (_two, _) = fleet.start_agent("two").await.unwrap();
    fleet.add_device("ap-2", "two").unwrap();
    one.kill().await;
    let session = session_of(&fleet, "one", &files);
    let key = key_of(&files.state);
    let connection = connect(&session).await;

    // Longer than the broker takes: the channel is closed, nothing arrives.
    let huge = publish(&connection, REPORTS_EXCHANGE, &session.hello_key, &vec![b'x'; 3 * 1024 * 1024]).await;
    let error = huge.expect_err("a message of 3 MiB was taken").to_string();
    assert!(error.contains("PRECONDITION"), "{error}");

    let body = sealed(&hello(id_of_tenant(&fleet), session.agent_id), &key);
    let on = connection.create_channel().await.unwrap();
    for _ in 0..10_000 {
        let options = lapin::options::BasicPublishOptions::default();
        let key = session.hello_key.as_str().into();
        let sent = on.basic_publish(REPORTS_EXCHANGE.into(), key, options, &body, lapin::BasicProperties::default());
        sent.await.unwrap();
    }
    let job = fleet.enroll("ap-2", "ir").unwrap();
    fleet.enrolled("ap-2", &job, LIMIT).await.unwrap();
    refused_as(&lab, "too_many", 1.0).await;
    let vhost = lab.vhost.as_ref().unwrap();
    let letters = vhost.management("GET", &format!("/api/queues/{}/trustfleet.dead-letters", vhost.name()), None).await;
    let letters = letters.unwrap();
    assert_eq!(letters["arguments"]["x-max-length"], 10_000, "{letters}");
}

fn id_of_tenant(fleet: &Fleet) -> TenantId {
    fleet.rest.get("/v1/tenants/lab").unwrap()["id"].as_str().unwrap().parse().unwrap()
}

/// Whoever rules the broker can delay and drop, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_a_resigned_and_a_misdirected_job_are_done_by_no_agent() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1", "ap-2"], &policy()).await;
    let (mut one, _) = fleet.start_agent("one").await.unwrap();
    let (mut two, _) = fleet.start_agent("two").await.unwrap();
    fleet.add_device("ap-1", "one").unwrap();
    fleet.add_device("ap-2", "two").unwrap();
    two.line_with("connected to the broker", LIMIT).await.unwrap();
    one.kill().await;
    let broker = rule_broker(&lab).await;
    let (queue_one, queue_two): (String, String) =
        (agent_queue(id_of(&fleet, "agents", "one")), agent_queue(id_of(&fleet, "agents", "two")));
    let on = channel(&broker).await;
    for queue in [&queue_one, &queue_two] {
        let copy = format!("copy.{queue}");
        on.queue_declare(copy.as_str().into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
        let options = QueueBindOptions::default();
        let bound = on.queue_bind(
            copy.as_str().into(),
            JOBS_EXCHANGE.into(),
            queue.as_str().into(),
            options,
            FieldTable::default(),
        );
        bound.await.unwrap();
    }
    let taken = async |queue: &str| loop {
        let copy = format!("copy.{queue}");
        let got = on.basic_get(copy.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
        if let Some(got) = got
            && let Ok(ToAgent::Job(job)) = Envelope::from_bytes(&got.data).unwrap().peek()
        {
            return (got.data.clone(), job);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };

    let job = fleet.enroll("ap-2", "ir").unwrap();
    fleet.enrolled("ap-2", &job, LIMIT).await.unwrap();
    let (genuine, order) = taken(&queue_two).await;
    fleet.enroll("ap-1", "ir").unwrap();
    let (of_another, _) = taken(&queue_one).await;

    let stranger = SigningKey::generate().unwrap();
    let fresh = Job { job_id: uuid::Uuid::from_u128(9).into(), ..*order };
    let resigned =
        Envelope::seal(&ToAgent::Job(Box::new(fresh)), Purpose::ToAgent, &stranger).unwrap().to_bytes().unwrap();
    for body in [&genuine, &resigned, &of_another] {
        publish(&broker, JOBS_EXCHANGE, &queue_two, body).await.unwrap();
    }
    two.line_with("is not signed by our controller", LIMIT).await.unwrap();
    two.line_with("a job message is dropped", LIMIT).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1, "a job was done twice, or for another: {}", two.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_closes_the_running_connection_and_its_token_opens_no_other() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    agent.line_with("connected to the broker", LIMIT).await.unwrap();
    let session = session_of(&fleet, "ap-1", &files);
    let stolen = connect(&session).await;

    fleet.post("agents/ap-1/quarantine", &json!({ "reason": "stolen" })).unwrap();
    lab.eventually("the thief's connection is closed", || (!stolen.status().connected()).then_some(())).await;
    agent.line_with("in quarantine", LIMIT).await.unwrap();
    assert_eq!(try_session(&fleet, "ap-1", &files).0, 403);
    lab.eventually("that is told", || fleet.get("agents/ap-1").unwrap()["quarantine"]["cut_off_at"].as_str().map(drop))
        .await;
    // The token is good for a quarter of an hour: who comes back by it is thrown out again.
    if let Ok(again) = connect_again(&session).await {
        lab.eventually("who comes back is thrown out", || (!again.status().connected()).then_some(())).await;
    }
    assert!(lab.metric("trustfleet_agent_cut_offs_total{outcome=\"closed\"}").unwrap() >= 1.0);
    noted(&lab, "session_refused", "quarantined").await;

    let job = fleet.enroll("ap-1", "ir").unwrap();
    lab.eventually("the job is held back", || {
        lab.metric("trustfleet_jobs_published_total{outcome=\"quarantined\"}").filter(|count| *count >= 1.0)
    })
    .await;
    fleet.post("agents/ap-1/release", &Value::Null).unwrap();
    fleet.enrolled("ap-1", &job, Duration::from_secs(180)).await.unwrap();
}

async fn connect_again(session: &trustfleet_wire::join::SessionAnswer) -> Result<Connection, lapin::Error> {
    try_connect(session, &session.amqp_token).await
}
