//! Agents put out and let in again: quarantine, new keys for the same agent, two processes with the same keys.

use std::time::Duration;

use serde_json::{Value, json};
use trustfleet_controller::db::DbError;
use trustfleet_model::ids::InstanceId;
use trustfleet_wire::{
    Envelope,
    join::{Challenge, JoinAnswer, SessionRequest},
    routing::{REPORTS_EXCHANGE, agent_queue, hello_key},
    seal::OpeningKey,
    sign::{Purpose, SigningKey, key_id},
    v1::{Blob, FromAgent, Hello},
};

use crate::{
    api_house::{Answer, House, JoinedAgent},
    support::until,
};

fn keys() -> (SigningKey, OpeningKey) {
    (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap())
}

async fn challenge(house: &House, agent: &JoinedAgent) -> Vec<u8> {
    let body = json!({"agent_id": agent.answer.agent_id});
    let answer = house.call("POST", "/agent/v1/challenge", None, Some(body)).await.expect(200);
    serde_json::from_value::<Challenge>(answer.body).unwrap().challenge.0
}

async fn session_with(house: &House, agent: &JoinedAgent, challenge: &[u8], instance: Option<InstanceId>) -> Answer {
    let input = SessionRequest::proof_input(agent.answer.agent_id, challenge, instance);
    let request = SessionRequest {
        agent_id: agent.answer.agent_id,
        challenge: Blob(challenge.to_vec()),
        instance,
        proof: Blob(agent.sign.sign(Purpose::SessionProof, &input)),
    };
    house.call("POST", "/agent/v1/session", None, Some(serde_json::to_value(&request).unwrap())).await
}

async fn session(house: &House, agent: &JoinedAgent) -> Answer {
    session_with(house, agent, &challenge(house, agent).await, None).await
}

async fn audit(house: &House, action: &str) -> Vec<Value> {
    let admin = house.place.admin().await;
    let sql = "SELECT detail FROM audit WHERE action = $1 ORDER BY audit_id";
    admin.query(sql, &[&action]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn metric(house: &House, sample: &str) -> f64 {
    let text = house.get("/metrics", &house.platform).await.expect(200).text;
    let line = text.lines().find_map(|line| line.strip_prefix(sample).map(str::to_owned));
    line.unwrap_or_else(|| panic!("{sample} is missing")).trim().parse().unwrap()
}

#[actix::test]
async fn an_agent_in_quarantine_opens_no_session_and_gets_no_job_until_it_is_released() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    let agent = house.furnish("acme", "s").await;
    session(&house, &agent).await.expect(200);
    let queue = agent_queue(agent.answer.agent_id);
    let at = "/v1/tenants/acme/agents/site-1";
    house.post(&format!("{at}/quarantine"), &viewer, json!({"reason": "x"})).await.expect(403);
    let answer = house.post(&format!("{at}/quarantine"), &operator, json!({"reason": ""})).await.expect(422);
    assert_eq!(answer.violations(), ["reason text"]);

    let put = house.post(&format!("{at}/quarantine"), &operator, json!({"reason": "stolen from the van"})).await;
    assert_eq!(put.expect(200).str("/quarantine/reason"), "stolen from the van");
    let again = house.post(&format!("{at}/quarantine"), &operator, json!({"reason": "another"})).await.expect(200);
    assert_eq!((again.str("/state"), again.str("/quarantine/reason")), ("quarantined", "stolen from the van"));
    let refused = session(&house, &agent).await.expect(403);
    assert_eq!(refused.str("/code"), "agent_quarantined");
    // Who does not prove to be that agent does not learn it.
    let stranger = JoinedAgent { sign: keys().0, answer: agent.answer.clone() };
    assert_eq!(session(&house, &stranger).await.expect(401).str("/code"), "session_refused");
    until("its queue is gone", async || house.services().broker.subscribe(queue.clone(), 1).await.err()).await;

    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    let job = house.post(enroll, &operator, json!({"request": "ir"})).await.expect(202);
    until("the job is put back", async || {
        (metric(&house, "trustfleet_jobs_published_total{outcome=\"quarantined\"}").await > 0.0).then_some(())
    })
    .await;
    let job_at = format!("/v1/tenants/acme/jobs/{}", job.str("/id"));
    assert_eq!(house.get(&job_at, &viewer).await.str("/state"), "awaiting_publish");
    let hello = |sign: &SigningKey| {
        let hello = FromAgent::Hello(Hello {
            leases: false,
            clock_off_s: None,
            nodes: Vec::new(),
            roots: Vec::new(),
            tenant_id: agent.answer.tenant_id,
            agent_id: agent.answer.agent_id,
            message_id: uuid::Uuid::from_u128(1).into(),
            at: house.services().clock.now(),
            software: "test 1".to_owned(),
            repeated: false,
            instance: None,
        });
        let body = Envelope::seal(&hello, Purpose::FromAgent, sign).unwrap().to_bytes().unwrap();
        let routing_key = hello_key(agent.answer.agent_id);
        trustfleet_controller::broker::Outgoing { exchange: REPORTS_EXCHANGE, routing_key, body, deliveries: 0 }
    };
    house.services().broker.publish(hello(&agent.sign)).await.unwrap();
    until("its word does not count", async || {
        (metric(&house, "trustfleet_reports_refused_total{reason=\"quarantined\"}").await > 0.0).then_some(())
    })
    .await;
    until("that stands in the audit log", async || {
        let notes = audit(&house, "message_refused").await;
        notes.iter().any(|note| note["code"] == "quarantined").then_some(())
    })
    .await;

    house.post(&format!("{at}/release"), &operator, Value::Null).await.expect(403);
    let released = house.call("POST", &format!("{at}/release"), Some(&admin), None).await.expect(200);
    assert_eq!((released.str("/state"), &released.body["quarantine"]), ("active", &Value::Null));
    session(&house, &agent).await.expect(200);
    house.services().broker.publish(hello(&agent.sign)).await.unwrap();
    until("the job is published after all", async || {
        (house.get(&job_at, &viewer).await.str("/state") == "awaiting_agent").then_some(())
    })
    .await;
    assert_eq!(audit(&house, "agent_quarantined").await.len(), 1);
    assert_eq!(audit(&house, "agent_released").await.len(), 1);
    house.close().await;
}

#[actix::test]
async fn an_agent_that_joins_again_keeps_its_name_and_devices_and_its_former_keys_are_dead() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let before = house.furnish("acme", "s").await;
    session(&house, &before).await.expect(200);
    let at = "/v1/tenants/acme/agents/site-1";
    house.post(&format!("{at}/quarantine"), &admin, json!({"reason": "stolen"})).await.expect(200);
    let made = house.post(&format!("{at}/rejoin"), &admin, json!({})).await.expect(201);
    let token = made.str("/token").to_owned();

    let (sign, open) = keys();
    let refused = house.join(&House::join_request(&token, "site-2", &sign, &open)).await.expect(422);
    assert_eq!(refused.violations(), ["name token_name"]);
    let request = House::join_request(&token, "site-1", &sign, &open);
    let answer = house.join(&request).await.expect(200);
    house.join(&request).await.expect(200);
    let key = house.services().keys.signing.public_key();
    let read = |answer: &Answer| -> JoinAnswer {
        Envelope::from_bytes(answer.text.as_bytes()).unwrap().open(Purpose::JoinAnswer, &key).unwrap()
    };
    let after = JoinedAgent { answer: read(&answer), sign };
    assert_eq!(after.answer.agent_id, before.answer.agent_id);
    // The token is used up, for whoever has it and for the former keys.
    let (other, open) = keys();
    house.join(&House::join_request(&token, "site-1", &other, &open)).await.expect(401);
    house.join(&House::join_request(&token, "site-1", &before.sign, &open)).await.expect(401);

    session(&house, &before).await.expect(401);
    let opened = session(&house, &after).await.expect(200);
    let envelope = Envelope::from_bytes(opened.text.as_bytes()).unwrap();
    let opened: trustfleet_wire::join::SessionAnswer = envelope.peek().unwrap();
    assert!(opened.amqp_user.ends_with(&key_id(&after.sign.public_key())), "{}", opened.amqp_user);
    let shown = house.get(at, &admin).await.expect(200);
    assert_eq!(shown.str("/state"), "active", "the quarantine was about the former keys");
    let device = house.get("/v1/tenants/acme/devices/ap-1", &admin).await.expect(200);
    assert_eq!(device.str("/agent"), "site-1");
    let noted = audit(&house, "agent_rejoined").await;
    assert_eq!(noted[0]["former_key_id"], key_id(&before.sign.public_key()));
    // Connections of the former keys are looked for, and the queue of the new ones stays.
    until("the former keys are cut off", async || {
        let admin = house.place.admin().await;
        let sql = "SELECT count(*) FROM broker_cut_offs WHERE NOT with_queue";
        let rows: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
        (rows == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    house.services().broker.subscribe(opened.queue, 1).await.unwrap();
    house.close().await;
}

#[actix::test]
async fn a_copied_state_folder_does_not_become_a_second_agent() {
    let house = House::open().await;
    house.tenant("acme").await;
    let token = house.join_token("acme", json!({"uses": 3, "labels": {"site": "berlin"}})).await;
    let (sign, open) = keys();
    house.join(&House::join_request(&token, "site-1", &sign, &open)).await.expect(200);
    let refused = house.join(&House::join_request(&token, "site-2", &sign, &open)).await.expect(409);
    assert_eq!(refused.str("/code"), "key_taken");
    let shown = house.get("/v1/tenants/acme/agents/site-1", &house.platform).await.expect(200);
    assert_eq!(shown.body["labels"], json!({"site": "berlin"}));
    let bad = json!({"labels": {"site": "a,CN=root"}});
    let refused = house.post("/v1/tenants/acme/join-tokens", &house.platform, bad).await.expect(422);
    assert_eq!(refused.violations(), ["labels.site label_value"]);
    house.close().await;
}

#[actix::test]
async fn a_challenge_opens_one_session_and_a_replay_is_counted_and_noted() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let (early, late) = (challenge(&house, &agent).await, challenge(&house, &agent).await);
    session_with(&house, &agent, &late, None).await.expect(200);
    session_with(&house, &agent, &late, None).await.expect(401);
    session_with(&house, &agent, &early, None).await.expect(401);
    assert!(metric(&house, "trustfleet_agent_door_refusals_total{reason=\"replayed\"}").await >= 2.0);
    until("both stand in the audit log", async || {
        let noted = audit(&house, "session_refused").await;
        (noted == [json!({"code": "replayed"}), json!({"code": "replayed"})]).then_some(())
    })
    .await;
    session(&house, &agent).await.expect(200);
    house.close().await;
}

#[actix::test]
async fn two_processes_with_the_keys_of_one_agent_are_found_when_the_first_speaks_again() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let [one, two] = [1, 2].map(|n| Some(InstanceId::from(uuid::Uuid::from_u128(n))));
    let open = async |instance| {
        session_with(&house, &agent, &challenge(&house, &agent).await, instance).await.expect(200);
    };
    let found = async || {
        let shown = house.get("/v1/tenants/acme/agents/site-1", &house.platform).await.expect(200);
        !shown.body["live_twice_at"].is_null()
    };
    open(one).await;
    open(one).await;
    open(two).await;
    assert!(!found().await, "a restart is no second life");
    // What the first said before the second took over may come late.
    let (tenant, id) = (agent.answer.tenant_id, agent.answer.agent_id);
    let heard = async |instance: Option<InstanceId>, at| {
        let store = &house.services().store;
        let work = async move |tx: &trustfleet_controller::db::SystemTx| {
            tx.agent_heard(tenant, id, instance.unwrap(), at).await
        };
        store.system_tx("test", work).await.map_err(|error: DbError| error).unwrap()
    };
    let now = house.services().clock.now();
    assert!(!heard(one, now).await && !found().await);
    let later = now + jiff::SignedDuration::from_secs(60);
    assert!(heard(one, later).await && found().await);
    assert!(heard(two, later + jiff::SignedDuration::from_secs(60)).await);
    let noted = audit(&house, "agent_live_twice").await;
    assert_eq!(noted.len(), 1, "once in an hour: {noted:?}");
    house.close().await;
}
