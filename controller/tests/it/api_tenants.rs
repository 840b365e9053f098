//! A tenant's life: suspended, resumed, deleted, restored, purged; and how much it may have.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trustfleet_controller::purge::purge_due;
use trustfleet_wire::{seal::OpeningKey, sign::SigningKey};

use crate::api_agents::{challenge, session};
use crate::api_house::House;
use crate::support::until;

async fn verb(house: &House, tenant: &str, verb: &str, body: Option<Value>) -> Value {
    let path = format!("/v1/tenants/{tenant}/{verb}");
    house.call("POST", &path, Some(&house.platform), body).await.expect(200).body
}

async fn suspend(house: &House, tenant: &str) -> Value {
    verb(house, tenant, "suspend", Some(json!({"reason": "unpaid bill 17"}))).await
}

#[actix::test]
async fn a_suspended_tenant_can_be_read_and_nothing_of_it_changed_or_published_until_it_goes_on() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let agent = house.furnish("acme", "s").await;
    let (spare, _) = house.token("acme", "viewer").await;
    let database = house.place.admin().await;
    let state = suspend(&house, "acme").await;
    assert_eq!((&state["state"], &state["state_reason"]), (&json!("suspended"), &json!("unpaid bill 17")));

    house.get("/v1/tenants/acme/devices/ap-1", &admin).await.expect(200);
    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    for token in [&admin, &house.platform] {
        let refused = house.post(enroll, token, json!({"request": "ir"})).await.expect(409);
        assert_eq!(refused.str("/code"), "tenant_suspended");
        assert!(refused.str("/detail").contains("unpaid bill 17"));
    }
    // Whoever must not get in any more is kept out all the same.
    house.call("DELETE", &format!("/v1/tenants/acme/tokens/{spare}"), Some(&admin), None).await.expect(204);

    // A job from before is not published meanwhile.
    verb(&house, "acme", "resume", None).await;
    let broker = &house.services().broker;
    broker.declare_agent_queue(agent.answer.agent_id).await.unwrap();
    // It is accepted at a replica that has not heard of the suspension yet.
    house.get("/v1/tenants/acme/devices/ap-1", &admin).await.expect(200);
    database.batch_execute("UPDATE tenants SET state = 'suspended'").await.unwrap();
    let job = house.post(enroll, &admin, json!({"request": "ir"})).await.expect(202).str("/id").to_owned();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let shown = house.get(&format!("/v1/tenants/acme/jobs/{job}"), &admin).await.expect(200);
    assert_eq!(shown.str("/state"), "awaiting_publish", "published although the tenant is suspended");
    verb(&house, "acme", "resume", None).await;
    until("the job to be published", async || {
        let shown = house.get(&format!("/v1/tenants/acme/jobs/{job}"), &admin).await;
        (shown.body["state"] == "awaiting_agent").then_some(())
    })
    .await;
    house.close().await;
}

#[actix::test]
async fn a_deleted_tenant_is_shut_at_once_restored_within_its_grace_time_and_purged_after_it() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    let [_, _, neighbour] = house.tenant("other").await;
    house.furnish("acme", "s").await;
    house.furnish("other", "s").await;
    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    house.post(enroll, &admin, json!({"request": "ir"})).await.expect(202);
    house.call("DELETE", "/v1/tenants/acme", Some(&admin), None).await.expect(403);
    let deleted = house.call("DELETE", "/v1/tenants/acme", Some(&house.platform), None).await.expect(200);
    assert_eq!(deleted.str("/state"), "deleted");
    house.get("/v1/tenants/acme", &viewer).await.expect(401);
    house.get("/v1/tenants/acme/devices", &house.platform).await.expect(200);
    let refused = house.post("/v1/tenants/acme/devices", &house.platform, json!({"name": "x"})).await.expect(409);
    assert_eq!(refused.str("/code"), "tenant_deleted");
    house.post("/v1/tenants", &house.platform, json!({"name": "acme"})).await.expect(409);
    house.call("DELETE", "/v1/tenants/acme", Some(&house.platform), None).await.expect(409);
    house.call("POST", "/v1/tenants/acme/resume", Some(&house.platform), None).await.expect(409);

    let restored = verb(&house, "acme", "restore", None).await;
    assert_eq!((&restored["state"], &restored["purge_at"]), (&json!("suspended"), &Value::Null));
    house.get("/v1/tenants/acme/devices/ap-1", &viewer).await.expect(200);
    house.call("POST", "/v1/tenants/acme/restore", Some(&house.platform), None).await.expect(409);

    // Nothing is purged within the grace time, and everything after it.
    house.call("DELETE", "/v1/tenants/acme", Some(&house.platform), None).await.expect(200);
    let services = house.services();
    let purge = async || {
        purge_due(&services.store, services.clock.clone(), CancellationToken::new()).await.expect("purging works")
    };
    assert_eq!(purge().await, 0);
    let database = house.place.admin().await;
    database.batch_execute("UPDATE tenants SET purge_at = now() WHERE name = 'acme'").await.unwrap();
    assert_eq!((purge().await, purge().await), (1, 0));
    house.get("/v1/tenants/other/devices/ap-1", &neighbour).await.expect(200);
    let tables =
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
                  WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace";
    let other: uuid::Uuid =
        database.query_one("SELECT tenant_id FROM tenants WHERE name = 'other'", &[]).await.unwrap().get(0);
    for row in database.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id <> $1 AND tenant_id <> $2");
        let left: i64 = database.query_one(&sql, &[&other, &uuid::Uuid::nil()]).await.unwrap().get(0);
        // The log is kept; its chain follows when it has been made.
        let is_kept = table.starts_with("audit");
        assert!(if table == "audit" { left > 0 } else { left == 0 || is_kept }, "{left} rows of {table} are left");
    }
    house.post("/v1/tenants", &house.platform, json!({"name": "acme"})).await.expect(201);
    house.close().await;
}

#[actix::test]
async fn the_purge_touches_no_tenant_that_is_not_deleted_or_still_in_its_grace_time() {
    let house = House::open().await;
    house.tenant("acme").await;
    let database = house.place.admin().await;
    let system = crate::support::connect(&house.place.system_url).await;
    let purged = async || -> i64 {
        let sql = "SELECT purge_tenant(tenant_id, 1000) FROM tenants WHERE name = 'acme'";
        system.query_one(sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(purged().await, 0);
    house.call("DELETE", "/v1/tenants/acme", Some(&house.platform), None).await.expect(200);
    assert_eq!(purged().await, 0);
    // Neither role may remove such rows by itself, and the API's may not even ask for it.
    assert!(system.batch_execute("DELETE FROM tenants").await.is_err());
    assert!(system.batch_execute("DELETE FROM devices").await.is_err());
    let api = crate::support::connect(&house.place.api_url).await;
    assert!(api.batch_execute("SELECT purge_tenant(gen_random_uuid(), 1)").await.is_err());
    database.batch_execute("UPDATE tenants SET purge_at = now() WHERE name = 'acme'").await.unwrap();
    assert!(purged().await > 0);
    house.close().await;
}

#[actix::test]
async fn a_tenant_has_no_more_than_its_quota_and_is_told_what_and_how_much() {
    let house = House::open().await;
    let [_, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let quota = "/v1/tenants/acme/quota";
    let set = async |body: Value| house.call("PUT", quota, Some(&house.platform), Some(body)).await.expect(200);
    house.call("PUT", quota, Some(&admin), Some(json!({}))).await.expect(403);
    let shown = set(json!({"devices": 2, "trustpoints": 1})).await;
    assert_eq!(shown.body["used"], json!({"devices": 1, "trustpoints": 1, "jobs_per_hour": 0, "jobs_in_flight": 0}));
    house.post("/v1/tenants/acme/devices", &operator, json!({"name": "ap-2"})).await.expect(201);
    let over = house.post("/v1/tenants/acme/devices", &operator, json!({"name": "ap-3"})).await.expect(409);
    assert_eq!(over.str("/code"), "quota_exceeded");
    assert!(over.str("/detail").contains("2 devices"), "{}", over.text);
    let trustpoint = json!({"name": "web", "entity": "default", "ca_server": "default", "policy": "default"});
    let over = house.post("/v1/tenants/acme/devices/ap-1/trustpoints", &operator, trustpoint).await.expect(409);
    assert!(over.str("/detail").contains("1 trustpoints"), "{}", over.text);

    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    let ask = async |key: &str| {
        let body = json!({"request": "ir"}).to_string().into_bytes();
        house.raw("POST", enroll, Some(&operator), &[("idempotency-key", key)], Some(body)).await
    };
    set(json!({"jobs_in_flight": 1})).await;
    ask("one").await.expect(202);
    // The same request again is not another job.
    ask("one").await.expect(202);
    let over = ask("two").await.expect(429);
    assert!(over.str("/detail").contains("1 jobs under way") && over.headers.contains_key("retry-after"));
    set(json!({"jobs_per_hour": 1})).await;
    assert!(ask("three").await.expect(429).str("/detail").contains("1 jobs in an hour"));
    set(json!({"jobs_per_hour": 2})).await;
    ask("four").await.expect(202);
    let shown = house.get(quota, &operator).await.expect(200);
    assert_eq!((&shown.body["devices"], &shown.body["used"]["devices"]), (&Value::Null, &json!(2)));
    house.close().await;
}

#[actix::test]
async fn no_agent_joins_a_suspended_tenant_and_none_of_a_deleted_tenant_gets_a_session() {
    let house = House::open().await;
    house.tenant("acme").await;
    let agent = house.agent("acme", "site-1").await;
    let token = house.join_token("acme", json!({})).await;
    let ask = async || {
        let made = challenge(&house, &agent).await;
        session(&house, &agent, &agent.sign, &made.challenge.0).await.status
    };
    suspend(&house, "acme").await;
    // What it has under way is still reported.
    assert_eq!(ask().await, 200);
    let (sign, open) = (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap());
    let join = async || house.join(&House::join_request(&token, "site-2", &sign, &open)).await.status;
    assert_eq!(join().await, 401);
    verb(&house, "acme", "resume", None).await;
    house.call("DELETE", "/v1/tenants/acme", Some(&house.platform), None).await.expect(200);
    assert_eq!((ask().await, join().await), (401, 401));
    verb(&house, "acme", "restore", None).await;
    verb(&house, "acme", "resume", None).await;
    assert_eq!((ask().await, join().await), (200, 200));
    house.close().await;
}
