//! The audit log: what every row carries, and which refused attempts are in it.

use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use crate::{
    api_house::House,
    fixture::Fixture,
    support::{connect, until},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Rows of the log with this action, oldest first.
async fn rows(admin: &Client, action: &str) -> Vec<Row> {
    let sql = "SELECT actor, role, host(source) AS source, request_id, trace_id, object_kind, before, after, detail, \
               outcome, tenant_id FROM audit WHERE action = $1 ORDER BY audit_id";
    admin.query(sql, &[&action]).await.unwrap()
}

/// The rows of an action, once there are as many.
async fn rows_when(admin: &Client, action: &str, count: usize) -> Vec<Row> {
    until(&format!("{count} rows {action}"), async || {
        let found = rows(admin, action).await;
        (found.len() >= count).then_some(found)
    })
    .await
}

#[actix::test]
async fn a_change_is_logged_with_actor_role_source_request_trace_and_what_was_before_and_after() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let database = house.place.admin().await;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("traceparent", traceparent.as_str())];
    let send = async |method: &str, path: &str, body: Value| {
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        house.raw(method, path, Some(&admin), &headers, body).await
    };
    let path = "/v1/tenants/acme/entities";
    send("POST", path, json!({"name": "e1", "subject": "CN=one"})).await.expect(201);
    let changed = send("PUT", &format!("{path}/e1"), json!({"subject": "CN=two"})).await.expect(200);
    send("DELETE", &format!("{path}/e1"), Value::Null).await.expect(204);

    let row = &rows(&database, "entity_updated").await[0];
    let actor: &str = row.get("actor");
    assert!(actor.starts_with("token:") && actor.ends_with("(admin of acme)"), "{actor}");
    assert_eq!((row.get("role"), row.get("source"), row.get("outcome")), ("admin", "127.0.0.1", "done"));
    let request: uuid::Uuid = row.get("request_id");
    assert_eq!(request.to_string(), changed.headers.get("x-request-id").unwrap().to_str().unwrap());
    assert_eq!(row.get::<_, &str>("trace_id"), TRACE);
    assert_eq!(row.get::<_, Value>("before"), json!({"subject": "CN=one", "revision": 1}));
    assert_eq!(row.get::<_, Value>("after"), json!({"subject": "CN=two", "revision": 2}));

    let made = &rows(&database, "entity_created").await[0];
    assert_eq!(made.get::<_, Option<Value>>("before"), None);
    assert_eq!(made.get::<_, Value>("after")["subject"], "CN=one");
    let gone = &rows(&database, "entity_deleted").await[0];
    assert_eq!(gone.get::<_, Value>("before")["subject"], "CN=two");
    assert_eq!(gone.get::<_, Option<Value>>("after"), None);
    house.close().await;
}

#[actix::test]
async fn what_a_devices_actor_decides_is_logged_for_whoever_asked_and_never_with_the_secret() {
    let house = House::open().await;
    house.tenant("acme").await;
    house.furnish("acme", "melon-harbour-8841").await;
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    let asked = house.post(path, &house.platform, json!({"request": "ir"})).await.expect(202);
    let database = house.place.admin().await;
    let made = &rows(&database, "trustpoint_created").await[0];
    assert_eq!(made.get::<_, Value>("after")["mac_reference"], "ref-1");
    let row = &rows(&database, "job_created").await[0];
    assert_eq!((row.get("role"), row.get("source")), ("platform_admin", "127.0.0.1"));
    let request: uuid::Uuid = row.get("request_id");
    assert_eq!(request.to_string(), asked.headers.get("x-request-id").unwrap().to_str().unwrap());
    let traceparent: String = database.query_one("SELECT traceparent FROM jobs", &[]).await.unwrap().get(0);
    assert!(traceparent.contains(row.get::<_, &str>("trace_id")), "{traceparent}");
    let leaked: i64 = database
        .query_one("SELECT count(*) FROM audit WHERE audit::text LIKE '%melon-harbour%'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(leaked, 0);
    let anchors = &rows(&database, "ca_server_created").await[0].get::<_, Value>("after")["trust_anchors"][0];
    assert!(anchors.as_str().unwrap().starts_with("PEM of "), "{anchors}");
    house.close().await;
}

#[actix::test]
async fn who_is_refused_with_a_known_credential_is_in_the_log_of_his_own_tenant() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    house.tenant("other").await;
    let (id, ended) = house.token("acme", "operator").await;
    house.call("DELETE", &format!("/v1/tenants/acme/tokens/{id}"), Some(&admin), None).await.expect(204);

    house.post("/v1/tenants/acme/devices", &viewer, json!({"name": "ap-1"})).await.expect(403);
    house.get("/v1/tenants/other/devices", &viewer).await.expect(404);
    house.get("/v1/tenants/acme", &ended).await.expect(401);
    let never = format!("tft1_{}", "A".repeat(43));
    house.get("/v1/tenants/acme", &never).await.expect(401);
    house.call("GET", "/v1/tenants/acme", None, None).await.expect(401);

    let database = house.place.admin().await;
    let found = rows_when(&database, "access_refused", 3).await;
    let told: Vec<_> = found
        .iter()
        .map(|row| {
            let detail: Value = row.get("detail");
            assert_eq!((row.get("outcome"), row.get("object_kind")), ("refused", "token"));
            assert_eq!(row.get::<_, &str>("source"), "127.0.0.1");
            let text = |key: &str| detail[key].as_str().unwrap_or("-").to_owned();
            (row.get::<_, String>("role"), text("operation"), text("tenant"), text("code"))
        })
        .collect();
    let row = |role: &str, operation: &str, tenant: &str, code: &str| {
        (role.to_owned(), operation.to_owned(), tenant.to_owned(), code.to_owned())
    };
    assert_eq!(
        told,
        [
            row("viewer", "device_create", "acme", "forbidden"),
            row("viewer", "device_list", "other", "not_found"),
            row("operator", "tenant_show", "acme", "unauthenticated"),
        ]
    );
    let tenants: i64 = database
        .query_one(
            "SELECT count(*) FROM audit a JOIN tenants t USING (tenant_id) WHERE action = 'access_refused' AND t.name = 'acme'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(tenants, 3, "another tenant's log tells of them");
    house.close().await;
}

#[actix::test]
async fn a_flood_of_refused_attempts_leaves_a_handful_of_rows_and_their_number() {
    let house = House::open().await;
    let [viewer, _, _] = house.tenant("acme").await;
    for _ in 0..40 {
        house.post("/v1/tenants/acme/devices", &viewer, json!({})).await.expect(403);
    }
    let database = house.place.admin().await;
    // The minute ends with the controller, at the latest.
    house.close().await;
    assert_eq!(rows(&database, "access_refused").await.len(), 5);
    let summary = &rows(&database, "refusals_left_out").await[0];
    assert_eq!(summary.get::<_, Value>("detail")["left_out"], 35);
}

#[actix::test]
async fn a_join_token_that_is_used_up_is_refused_and_logged_by_its_id() {
    let house = House::open().await;
    house.tenant("acme").await;
    let token = house.join_token("acme", json!({})).await;
    let keys = || {
        (trustfleet_wire::sign::SigningKey::generate().unwrap(), trustfleet_wire::seal::OpeningKey::generate().unwrap())
    };
    let (sign, open) = keys();
    house.join(&House::join_request(&token, "one", &sign, &open)).await.expect(200);
    let (sign, open) = keys();
    house.join(&House::join_request(&token, "two", &sign, &open)).await.expect(401);
    let found = rows_when(&house.place.admin().await, "join_refused", 1).await;
    let id = token.split('.').nth(1).unwrap();
    assert_eq!(found[0].get::<_, String>("actor"), format!("join_token:{id}"));
    assert_eq!(found[0].get::<_, Value>("detail"), json!({"code": "used_up"}));
    house.close().await;
}

#[actix::test]
async fn a_report_is_logged_for_its_agent_by_the_reports_id() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job = fixture.enroll().await;
    fixture.next_job(&mut queue).await;
    let started = trustfleet_wire::v1::Event::Started { public_key_sha256: "ab".repeat(32) };
    let mut report = fixture.report(job, 1, started);
    report.traceparent = Some(format!("00-{TRACE}-00f067aa0ba902b7-01"));
    fixture.send_report(&report).await;
    let admin = connect(&fixture.place.admin_url).await;
    let row = &rows_when(&admin, "job_started", 1).await[0];
    assert_eq!(row.get::<_, String>("actor"), format!("agent:{}", fixture.agent.id));
    assert_eq!((row.get("role"), row.get::<_, Option<&str>>("source")), ("agent", None));
    assert_eq!(row.get::<_, uuid::Uuid>("request_id"), report.report_id.as_uuid());
    assert_eq!(row.get::<_, &str>("trace_id"), TRACE);
    fixture.core.stop().await;
}
