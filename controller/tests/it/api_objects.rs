//! The life of objects over the API: made, read in pages, changed by revision, enrolled once, deleted when unused.

use serde_json::{Value, json};

use crate::api_house::House;

const MGMT: &str = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt";

#[actix::test]
async fn a_change_is_made_only_to_the_revision_that_was_read() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let made =
        house.post("/v1/tenants/acme/entities", &admin, json!({"name": "e", "subject": "CN=one"})).await.expect(201);
    assert_eq!(made.headers["location"], "/v1/tenants/acme/entities/e");
    assert_eq!((made.str("/name"), &made.body["revision"], &made.body["sans"]), ("e", &json!(1), &json!([])));
    house.post("/v1/tenants/acme/entities", &admin, json!({"name": "e", "subject": "CN=x"})).await.expect(409);

    let path = "/v1/tenants/acme/entities/e";
    let put = async |subject: &str, tag: &str| {
        let body = json!({"subject": subject}).to_string().into_bytes();
        house.raw("PUT", path, Some(&admin), &[("if-match", tag)], Some(body)).await
    };
    assert_eq!(put("CN=two", "\"1\"").await.expect(200).headers["etag"], "\"2\"");
    let late = put("CN=three", "\"1\"").await.expect(412);
    assert_eq!(late.str("/code"), "precondition_failed");
    assert_eq!(put("CN=three", "one").await.expect(422).violations(), ["If-Match revision"]);
    assert_eq!(house.get(path, &admin).await.expect(200).str("/subject"), "CN=two");
    house.call("DELETE", path, Some(&admin), None).await.expect(204);
    house.get(path, &admin).await.expect(404);
    house.close().await;
}

#[actix::test]
async fn what_a_trustpoint_uses_cannot_be_deleted_and_the_user_is_named() {
    let house = House::open().await;
    let [_, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    for path in ["entities/default", "ca-servers/default", "policies/default"] {
        let path = format!("/v1/tenants/acme/{path}");
        let refused = house.call("DELETE", &path, Some(&admin), None).await.expect(409);
        assert_eq!(refused.str("/code"), "in_use");
        assert!(refused.str("/detail").contains("trustpoint mgmt of device ap-1"), "{}", refused.text);
    }
    let device = "/v1/tenants/acme/devices/ap-1";
    assert_eq!(house.call("DELETE", device, Some(&operator), None).await.expect(409).str("/code"), "has_trustpoints");
    house.call("DELETE", MGMT, Some(&operator), None).await.expect(204);
    house.get(MGMT, &operator).await.expect(404);
    house.call("DELETE", "/v1/tenants/acme/entities/default", Some(&admin), None).await.expect(204);
    house.call("DELETE", device, Some(&operator), None).await.expect(204);
    let secrets: i64 = house.place.admin().await.query_one("SELECT count(*) FROM secrets", &[]).await.unwrap().get(0);
    assert_eq!(secrets, 0, "the trustpoint's secret goes with it");
    house.close().await;
}

#[actix::test]
async fn the_same_enrol_request_twice_is_one_job() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let enroll = format!("{MGMT}/enroll");
    let ask = async |kind: &str, key: &str| {
        let body = json!({"request": kind}).to_string().into_bytes();
        let headers =
            [("idempotency-key", key), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
        house.raw("POST", &enroll, Some(&operator), &headers, Some(body)).await
    };
    let first = ask("ir", "key-1").await.expect(202);
    assert_eq!(first.body["state"], "awaiting_publish");
    assert_eq!((first.str("/device"), first.str("/trustpoint"), first.str("/agent")), ("ap-1", "mgmt", "site-1"));
    assert!(first.str("/requested_by").contains("operator of acme"), "{}", first.text);
    assert_eq!(ask("ir", "key-1").await.expect(202).str("/id"), first.str("/id"));
    assert_eq!(ask("ir", "key-2").await.expect(202).str("/id"), first.str("/id"), "one of the same kind is under way");
    assert_eq!(ask("cr", "key-3").await.expect(409).str("/code"), "request_under_way");
    assert_eq!(ask("ir", "a b").await.expect(422).violations(), ["Idempotency-Key idempotency_key"]);

    let jobs = house.get("/v1/tenants/acme/jobs?device=ap-1&trustpoint=mgmt", &operator).await.expect(200);
    assert_eq!(jobs.body["items"].as_array().unwrap().len(), 1);
    let trustpoint = house.get(MGMT, &operator).await.expect(200);
    assert_eq!(trustpoint.str("/status"), "requesting");
    assert_eq!(trustpoint.body["request"], json!({"awaiting": "agent", "job_id": first.str("/id")}));
    house.call("DELETE", MGMT, Some(&operator), None).await.expect(409);
    house.post(&format!("{MGMT}/activate"), &operator, Value::Null).await.expect(409);
    let trace: String = house.place.admin().await.query_one("SELECT traceparent FROM jobs", &[]).await.unwrap().get(0);
    assert_eq!(trace, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    house.close().await;
}

#[actix::test]
async fn s32_every_missing_condition_is_named_and_nothing_is_sent() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    house.post("/v1/tenants/acme/devices", &operator, json!({"name": "bare"})).await.expect(201);
    let trustpoint = json!({"name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default"});
    house.post("/v1/tenants/acme/devices/bare/trustpoints", &operator, trustpoint).await.expect(201);
    let path = "/v1/tenants/acme/devices/bare/trustpoints/mgmt/enroll";
    let answer = house.post(path, &operator, json!({"request": "ir"})).await.expect(422);
    assert_eq!(answer.content_type, "application/problem+json");
    assert!(answer.violations().len() >= 2, "no agent and no MAC credentials: {}", answer.text);
    let outbox: i64 = house.place.admin().await.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get(0);
    assert_eq!(outbox, 0);
    house.close().await;
}

#[actix::test]
async fn a_secret_is_in_no_answer_and_not_readable_in_the_database() {
    const SECRET: &str = "melon-harbour-8841";
    let house = House::open().await;
    let [_, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", SECRET).await;
    house.post(&format!("{MGMT}/enroll"), &operator, json!({"request": "ir"})).await.expect(202);
    for path in ["trustpoints", "jobs", "devices", "devices/ap-1/trustpoints", "devices/ap-1/trustpoints/mgmt"] {
        house.get(&format!("/v1/tenants/acme/{path}"), &admin).await.expect(200);
    }
    // Also not where it was given in a wrong place or a wrong shape.
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints";
    for mac in [json!({"reference": "r", "secret": [SECRET]}), json!(SECRET), json!({"secret": SECRET, "reference": 1})]
    {
        let body = json!({"name": "t2", "entity": "default", "ca_server": "default", "policy": "default", "mac": mac});
        house.post(path, &operator, body).await.expect(422);
    }
    assert_eq!(house.get(MGMT, &admin).await.str("/mac_reference"), "ref-1");
    assert!(!house.everything_answered().contains(SECRET));

    let database = house.place.admin().await;
    let tables = database
        .query("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", &[])
        .await
        .unwrap();
    for table in tables {
        let table: String = table.get(0);
        let sql = format!("SELECT count(*) FROM \"{table}\" t WHERE t::text LIKE $1 OR t::text LIKE $2");
        let hex = format!("%{}%", hex::encode(SECRET));
        let found: i64 = database.query_one(&sql, &[&format!("%{SECRET}%"), &hex]).await.unwrap().get(0);
        assert_eq!(found, 0, "{table}");
    }
    house.close().await;
}

#[actix::test]
async fn a_refused_trustpoint_leaves_no_secret_behind() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let body = json!({
        "name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default",
        "mac": {"reference": "r", "secret": "another"}
    });
    let refused = house.post("/v1/tenants/acme/devices/ap-1/trustpoints", &operator, body).await.expect(409);
    assert_eq!(refused.str("/code"), "name_taken");
    let secrets: i64 = house.place.admin().await.query_one("SELECT count(*) FROM secrets", &[]).await.unwrap().get(0);
    assert_eq!(secrets, 1);
    house.close().await;
}

#[actix::test]
async fn lists_are_read_page_by_page() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    for name in ["ap-3", "ap-1", "ap-2"] {
        house.post("/v1/tenants/acme/devices", &operator, json!({"name": name})).await.expect(201);
    }
    let mut names = Vec::new();
    let mut path = "/v1/tenants/acme/devices?limit=2".to_owned();
    loop {
        let page = house.get(&path, &viewer).await.expect(200);
        names.extend(page.body["items"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned()));
        match page.body["next"].as_str() {
            Some(next) => path = format!("/v1/tenants/acme/devices?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["ap-1", "ap-2", "ap-3"]);
    house.close().await;
}

#[actix::test]
async fn a_device_is_changed_as_a_whole_and_its_actor_sees_it() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let device = "/v1/tenants/acme/devices/ap-1";
    let before = house.get(device, &operator).await.expect(200);
    assert_eq!(
        (before.str("/agent"), before.str("/serial"), &before.body["trustpoints"]),
        ("site-1", "SN-1", &json!(1))
    );
    // The actor is awake with the registration as it was.
    let entity = json!({"name": "by-serial", "subject": "/O=Acme/serialNumber={device.serial}"});
    house.post("/v1/tenants/acme/entities", &house.platform, entity).await.expect(201);
    let trustpoint = json!({
        "name": "t2", "entity": "by-serial", "ca_server": "default", "policy": "default",
        "mac": {"reference": "r", "secret": "s"}
    });
    house.post(&format!("{device}/trustpoints"), &operator, trustpoint).await.expect(201);
    let body = json!({"agent": "site-1", "serial": "SN-2"});
    let after = house.call("PUT", device, Some(&operator), Some(body)).await.expect(200);
    assert_eq!((after.str("/serial"), &after.body["labels"]), ("SN-2", &json!({})));
    house.post(&format!("{device}/trustpoints/t2/enroll"), &operator, json!({"request": "ir"})).await.expect(202);
    let task: Value = house.place.admin().await.query_one("SELECT task FROM jobs", &[]).await.unwrap().get(0);
    assert!(task.to_string().contains("SN-2"), "{task}");
    // The agent cannot be taken away from under a job.
    let body = json!({"serial": "SN-2"});
    let refused = house.call("PUT", device, Some(&operator), Some(body)).await.expect(409);
    assert_eq!(refused.str("/code"), "job_under_way");
    house.close().await;
}

#[actix::test]
async fn every_change_is_in_the_audit_log_with_who_made_it() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    house.post(&format!("{MGMT}/enroll"), &operator, json!({"request": "ir"})).await.expect(202);
    let database = house.place.admin().await;
    let rows = database.query("SELECT action, actor FROM audit ORDER BY audit_id", &[]).await.unwrap();
    let actions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for action in [
        "tenant_created",
        "token_created",
        "join_token_created",
        "agent_joined",
        "entity_created",
        "ca_server_created",
        "policy_created",
        "device_created",
    ] {
        assert!(actions.iter().any(|found| found == action), "{action} not in {actions:?}");
    }
    let last: String = rows.last().unwrap().get(1);
    assert!(last.starts_with("token:") && last.ends_with("(operator of acme)"), "{last}");
    house.close().await;
}

#[actix::test]
async fn the_document_the_page_and_the_health_doors_are_open_to_all() {
    let house = House::open().await;
    let document = house.call("GET", "/openapi.json", None, None).await.expect(200);
    assert!(document.str("/openapi").starts_with("3.1"));
    let page = house.call("GET", "/docs/", None, None).await.expect(200);
    assert!(page.content_type.starts_with("text/html"), "{}", page.content_type);
    assert!(!page.text.contains("https://") || !page.text.contains("cdn"), "{}", page.text);
    let script = house.call("GET", "/docs/swagger-initializer.js", None, None).await.expect(200);
    assert!(script.text.contains("/openapi.json"), "{}", script.text);
    house.call("GET", "/healthz", None, None).await.expect(200);
    house.call("GET", "/readyz", None, None).await.expect(200);
    let metrics = house.call("GET", "/metrics", None, None).await.expect(200);
    assert!(metrics.content_type.starts_with("text/plain"), "{}", metrics.content_type);
    assert!(metrics.text.contains("trustfleet_"), "{}", metrics.text);
    house.close().await;
}

#[actix::test]
async fn s24_every_revision_is_kept_with_its_author_and_reason_and_a_dry_run_changes_nothing() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let path = "/v1/tenants/acme/policies/default";
    let body = json!({"key": {"algorithm": "ecdsa-p384"}, "auto_update": {"enabled": true}});

    let said = house.post(&format!("{path}/dry-run"), &operator, body.clone()).await.expect(200);
    assert_eq!((&said.body["trustpoints"], &said.body["revision"]), (&json!(1), &json!(1)), "{}", said.text);
    assert_eq!(said.body["after"]["key"]["algorithm"], "ecdsa-p384");
    assert_eq!(said.body["renewals"], json!({"before": 0, "after": 0, "sooner": 0, "later": 0, "due_at_once": 0}));
    let wrong = json!({"key": {"algorithm": "ecdsa-p384"}, "auto_update": {"latest_percent": 100}});
    let refused = house.post(&format!("{path}/dry-run"), &operator, wrong).await.expect(422);
    assert_eq!(refused.violations(), ["auto_update.latest_percent S43"]);
    house.post(&format!("{path}/dry-run"), &viewer, body.clone()).await.expect(403);
    assert_eq!(house.get(path, &viewer).await.expect(200).body["revision"], 1, "nothing was changed");

    // A placeholder that the device has no value for is told before it fails a request.
    let entity = json!({"subject": "CN={device.name}/serialNumber={label.floor}"});
    let said = house.post("/v1/tenants/acme/entities/default/dry-run", &operator, entity).await.expect(200);
    assert_eq!((&said.body["unready"], said.str("/unready_examples/0/device")), (&json!(1), "ap-1"), "{}", said.text);
    assert!(said.text.contains("{label.floor}"), "{}", said.text);

    let put = format!("{path}?reason=after+the+audit");
    house.call("PUT", &put, Some(&admin), Some(body)).await.expect(200);
    let long = format!("{path}?reason={}", "x".repeat(201));
    let plain = json!({"key": {"algorithm": "rsa-2048"}});
    assert_eq!(house.call("PUT", &long, Some(&admin), Some(plain)).await.expect(422).violations(), ["reason text"]);
    let kept = house.get(&format!("{path}/revisions"), &viewer).await.expect(200);
    let revisions = kept.body["items"].as_array().unwrap();
    assert_eq!(revisions.len(), 2, "{}", kept.text);
    assert_eq!((&revisions[0]["revision"], &revisions[0]["reason"]), (&json!(2), &json!("after the audit")));
    assert_eq!(revisions[0]["spec"]["key"]["algorithm"], "ecdsa-p384");
    assert_eq!(revisions[1]["reason"], serde_json::Value::Null);
    assert!(revisions[0]["author"].as_str().unwrap().starts_with("token:"), "{}", kept.text);
    let audit = house.get("/v1/tenants/acme/audit", &viewer).await.expect(200);
    assert!(audit.text.contains("after the audit"), "{}", audit.text);
    house.close().await;
}
