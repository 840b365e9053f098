//! Messages that cannot be processed: laid aside with their reason, bounded, retried and dropped.

use serde_json::{Value, json};
use trustfleet_controller::{broker::Outgoing, dead_letters};
use trustfleet_model::ids::{AgentId, MessageId};
use trustfleet_wire::{
    Envelope,
    routing::{DEAD_LETTER_QUEUE, REPORTS_EXCHANGE, hello_key},
    sign::Purpose,
    v1::{FromAgent, Hello},
};

use crate::{
    api_house::{House, JoinedAgent},
    support::until,
};

const LETTERS: &str = "/v1/dead-letters";

/// A message as an agent publishes it, taken in vain so many times before.
async fn publish(house: &House, agent: AgentId, body: Vec<u8>, deliveries: u32) {
    let message = Outgoing { exchange: REPORTS_EXCHANGE, routing_key: hello_key(agent), body, deliveries };
    house.services().broker.publish(message).await.unwrap();
}

fn hello(house: &House, agent: &JoinedAgent, software: &str) -> Vec<u8> {
    let message = FromAgent::Hello(Hello {
        leases: false,
        clock_off_s: None,
        nodes: Vec::new(),
        roots: Vec::new(),
        repeated: false,
        tenant_id: agent.answer.tenant_id,
        agent_id: agent.answer.agent_id,
        message_id: house.services().fresh(MessageId::fresh).unwrap(),
        at: house.services().clock.now(),
        software: software.to_owned(),
        instance: None,
    });
    Envelope::seal(&message, Purpose::FromAgent, &agent.sign).unwrap().to_bytes().unwrap()
}

/// The letters of this query, when there are so many.
async fn letters(house: &House, query: &str, wanted: usize) -> Vec<Value> {
    until(&format!("{wanted} letters of {query:?}"), async || {
        let answer = house.get(&format!("{LETTERS}{query}"), &house.platform).await.expect(200);
        let items = answer.body["items"].as_array().unwrap().clone();
        (items.len() == wanted).then_some(items)
    })
    .await
}

async fn metric(house: &House, line: &str) {
    until(line, async || {
        let (text, _) = house.services().metrics.render().unwrap();
        text.lines().any(|told| told == line).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_message_that_cannot_be_read_is_laid_aside_once_however_often_it_comes_and_none_of_its_words_is_shown() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await.answer.agent_id;
    for _ in 0..3 {
        publish(&house, agent, br#"{"v":1,"password":"melon-harbour","x":["melon"]}"#.to_vec(), 0).await;
    }
    metric(&house, "trustfleet_reports_refused_total{reason=\"unreadable\"} 3").await;
    let found = letters(&house, "?reason=unreadable&agent=site-1&tenant=acme", 1).await;
    assert_eq!(found[0]["times"], 3);
    assert_eq!((&found[0]["agent"], &found[0]["tenant"]), (&json!("site-1"), &json!("acme")));
    assert_eq!((&found[0]["size"], &found[0]["routing_key"]), (&json!(48), &json!(hello_key(agent))));
    assert!(letters(&house, "?reason=not_authentic", 0).await.is_empty());
    let path = format!("{LETTERS}/{}", found[0]["id"].as_str().unwrap());
    let shown = house.get(&path, &house.platform).await.expect(200);
    assert_eq!(shown.body["content"]["shape"]["password"], "(left out)");
    assert!(!shown.text.contains("melon"), "{}", shown.text);
    metric(&house, "trustfleet_dead_letters{reason=\"unreadable\"} 1").await;

    // Retried it fails again, and is there again.
    house.post(&format!("{path}/retry"), &house.platform, Value::Null).await.expect(204);
    metric(&house, "trustfleet_reports_refused_total{reason=\"unreadable\"} 4").await;
    let again = letters(&house, "", 1).await;
    let path = format!("{LETTERS}/{}", again[0]["id"].as_str().unwrap());
    house.call("DELETE", &path, Some(&house.platform), None).await.expect(204);
    house.call("DELETE", &path, Some(&house.platform), None).await.expect(404);
    metric(&house, "trustfleet_dead_letters{reason=\"unreadable\"} 0").await;
    let actions = house.get("/v1/audit?object_kind=dead_letter", &house.platform).await.expect(200);
    let actions: Vec<&str> =
        actions.body["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["dead_letter_dropped", "dead_letter_retried"]);
    house.close().await;
}

#[actix::test]
async fn a_message_that_fails_for_the_moment_each_time_is_given_up_and_is_processed_when_it_is_retried() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let id = agent.answer.agent_id;
    let admin = house.place.admin().await;
    // The database answers, and has no room for this one thing.
    admin
        .batch_execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER no_room BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION no_room()",
        )
        .await
        .unwrap();
    publish(&house, id, hello(&house, &agent, "after the retry"), 8).await;
    let found = letters(&house, "?reason=gave_up", 1).await;
    assert_eq!(found[0]["times"], 1);
    let path = format!("{LETTERS}/{}", found[0]["id"].as_str().unwrap());
    let shown = house.get(&path, &house.platform).await.expect(200);
    assert_eq!((&shown.body["content"]["form"], &shown.body["can_be_retried"]), (&json!("v1"), &json!(true)));
    assert!(shown.text.contains("after the retry"), "{}", shown.text);

    admin.batch_execute("DROP TRIGGER no_room ON agents").await.unwrap();
    house.post(&format!("{path}/retry"), &house.platform, Value::Null).await.expect(204);
    until("the hello to be taken", async || {
        let told: String = admin.query_one("SELECT software FROM agents", &[]).await.unwrap().get(0);
        (told == "after the retry").then_some(())
    })
    .await;
    letters(&house, "", 0).await;
    house.close().await;
}

#[actix::test]
async fn a_hello_that_meets_a_fault_of_ours_does_not_go_round_for_ever() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let admin = house.place.admin().await;
    admin
        .batch_execute(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a fault'; END $$;
             CREATE TRIGGER broken BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION broken()",
        )
        .await
        .unwrap();
    publish(&house, agent.answer.agent_id, hello(&house, &agent, "x"), 0).await;
    letters(&house, "?reason=failed", 1).await;
    metric(&house, "trustfleet_reports_refused_total{reason=\"failed\"} 1").await;
    let management = &crate::support::variable("TRUSTFLEET_AMQP_MANAGEMENT_URL");
    let queues = format!("api/queues/{}", house.place.vhost);
    until("no message to be in any queue", async || {
        let told = crate::support::manage(management, "GET", &queues, "").await;
        let told: Value = serde_json::from_str(&told).unwrap();
        let waiting = |queue: &Value| queue["messages"].as_i64();
        told.as_array().unwrap().iter().all(|queue| waiting(queue) == Some(0)).then_some(())
    })
    .await;
    house.close().await;
}

#[actix::test]
async fn of_an_agent_that_sends_nothing_but_poison_the_newest_letters_are_kept_and_others_lose_none() {
    let house = House::open_with(|config| config.agents.messages_per_s = 1_000).await;
    house.tenant("acme").await;
    let one = house.agent("acme", "one").await.answer.agent_id;
    let two = house.agent("acme", "two").await.answer.agent_id;
    publish(&house, two, b"mine".to_vec(), 0).await;
    letters(&house, "?agent=two", 1).await;
    let kept = usize::try_from(dead_letters::OF_AGENT_MAX).unwrap();
    for number in 0..kept + 25 {
        publish(&house, one, format!("poison {number}").into_bytes(), 0).await;
    }
    metric(&house, "trustfleet_dead_letters_dropped_total{cause=\"agent_limit\"} 25").await;
    letters(&house, "?agent=one&limit=1000", kept).await;
    letters(&house, "?agent=two", 1).await;

    // All together are bounded, too, and by time.
    let admin = house.place.admin().await;
    let many = "INSERT INTO dead_letters SELECT tenant_id, gen_random_uuid(), gen_random_uuid(), '', 'unreadable', '', '', 0, \
                n::text::bytea, 1, now() - interval '1 hour', now() - interval '1 hour' FROM generate_series(1, $1::bigint) n, tenants";
    admin.execute(many, &[&dead_letters::ALL_MAX]).await.unwrap();
    admin
        .execute("UPDATE dead_letters SET last_at = now() - interval '31 days' WHERE agent_id = $1 ", &[&two.as_uuid()])
        .await
        .unwrap();
    until("no more than are kept", async || {
        let count: i64 = admin.query_one("SELECT count(*) FROM dead_letters", &[]).await.unwrap().get(0);
        (count <= dead_letters::ALL_MAX).then_some(())
    })
    .await;
    letters(&house, "?agent=two", 0).await;
    letters(&house, "?agent=one&limit=1000", kept).await;
    metric(&house, "trustfleet_dead_letters_dropped_total{cause=\"age\"} 1").await;
    let dropped = house.call("DELETE", &format!("{LETTERS}?reason=unreadable"), Some(&house.platform), None).await;
    assert_eq!(dropped.expect(200).body["dropped"], dead_letters::ALL_MAX);
    house.call("DELETE", LETTERS, Some(&house.platform), None).await.expect(422);
    house.close().await;
}

#[actix::test]
async fn letters_that_lie_in_the_brokers_queue_are_moved_and_one_without_a_key_can_only_be_dropped() {
    let house = House::open().await;
    let letter = Outgoing {
        exchange: "",
        routing_key: DEAD_LETTER_QUEUE.to_owned(),
        body: b"from a former controller".to_vec(),
        deliveries: 0,
    };
    house.services().broker.publish(letter).await.unwrap();
    let found = letters(&house, "?reason=gave_up", 1).await;
    assert_eq!((&found[0]["agent_id"], &found[0]["tenant"]), (&Value::Null, &Value::Null));
    let path = format!("{LETTERS}/{}", found[0]["id"].as_str().unwrap());
    assert_eq!(house.get(&path, &house.platform).await.expect(200).body["can_be_retried"], false);
    let refused = house.post(&format!("{path}/retry"), &house.platform, Value::Null).await.expect(409);
    assert_eq!(refused.str("/code"), "no_way_back");
    house.close().await;
}
