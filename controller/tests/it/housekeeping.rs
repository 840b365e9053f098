//! What is over goes when its time has come, and nothing else; a device goes with what is its own.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use trustfleet_controller::{
    app::Services,
    db::DbError,
    housekeeping::{Chore, Housekeeper},
};
use trustfleet_wire::{routing::agent_queue, v1::Event};

use crate::{
    api_access::objects,
    api_house::House,
    fixture::{Fixture, issued},
    reports::{failed, told},
    support::{manage, until, variable},
};

/// How many of a kind are removed at once, with this bound of the platform's.
pub async fn removed(services: &Services, chore: Chore, days_max: u16) -> u64 {
    let now = services.clock.now();
    let done: Result<u64, DbError> = services
        .store
        .system_tx("test", async move |tx| tx.housekeeping_remove(chore, 1_000, days_max, now).await)
        .await;
    done.unwrap()
}

#[actix::test]
async fn jobs_and_certificates_are_kept_as_long_as_their_tenant_wants_and_a_job_as_long_as_its_certificate() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    // Two that failed, and two that brought a certificate.
    for end in 0..4 {
        let job_id = fixture.enroll().await;
        let sequence = fixture.next_job(&mut queue).await.sequence;
        if end < 2 {
            told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("refused"))).await;
        } else {
            let (event, serial) = issued("ap-1");
            told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
            let active = Event::Activated { serial, file: "/x/c.pem".to_owned(), in_service: None };
            told(&fixture, &mut queue, &fixture.report(job_id, sequence, active)).await;
        }
    }
    let (services, admin) = (fixture.services(), &fixture.admin);
    let count = async |table: &str| fixture.value::<i64>(&format!("SELECT count(*) FROM {table}")).await;
    assert_eq!((count("jobs").await, count("certificates").await), (4, 2));
    let age = "UPDATE jobs SET finished_at = now() - interval '800 days'; \
               UPDATE certificates SET not_after = now() - interval '800 days', not_before = now() - interval '900 days'";
    admin.batch_execute(age).await.unwrap();

    // The younger certificate is in use, the older one is `previous`: both are of use still, and keep their jobs.
    assert_eq!(removed(services, Chore::Certificates, 3_653).await, 0);
    admin.batch_execute("UPDATE tenants SET state = 'suspended', job_days = 3000").await.unwrap();
    assert_eq!(removed(services, Chore::Jobs, 7).await, 0, "nothing changes in a suspended tenant");
    admin.batch_execute("UPDATE tenants SET state = 'active'").await.unwrap();
    assert_eq!(removed(services, Chore::Jobs, 3_653).await, 0, "3000 days are kept");
    assert_eq!(removed(services, Chore::Jobs, 790).await, 2, "and never longer than the platform's bound");
    assert_eq!(count("jobs").await, 2);

    admin.batch_execute("UPDATE certificates SET slot = 'retired' WHERE slot = 'previous'").await.unwrap();
    admin.batch_execute("UPDATE certificates SET revocation_due_at = now() + interval '1 hour'").await.unwrap();
    assert_eq!(removed(services, Chore::Certificates, 3_653).await, 0, "one is to be revoked");
    admin.batch_execute("UPDATE certificates SET revocation_due_at = NULL").await.unwrap();
    assert_eq!(removed(services, Chore::Certificates, 3_653).await, 1);
    assert_eq!(removed(services, Chore::Jobs, 790).await, 1, "the job goes after its certificate");
    assert_eq!((count("jobs").await, count("certificates").await), (1, 1));
    fixture.core.stop().await;
}

#[actix::test]
async fn join_tokens_rejected_applicants_and_leases_of_trustpoints_that_are_gone_are_removed_when_they_are_over() {
    let house = House::open().await;
    house.tenant("acme").await;
    objects(&house).await;
    let admin = house.place.admin().await;
    let services = house.services();
    let count = async |sql: &str| -> i64 { admin.query_one(sql, &[]).await.unwrap().get(0) };
    let (used, fresh) = (house.join_token("acme", json!({})).await, house.join_token("acme", json!({})).await);
    assert_ne!(used, fresh);
    let tokens = count("SELECT count(*) FROM join_tokens").await;
    let over = "UPDATE join_tokens SET uses_left = 0, created_at = now() - interval '91 days' WHERE token_id = \
                (SELECT token_id FROM join_tokens WHERE uses_left > 0 LIMIT 1); \
                UPDATE join_tokens SET expires_at = now() - interval '91 days' WHERE token_id = \
                (SELECT token_id FROM join_tokens WHERE uses_left > 0 LIMIT 1)";
    admin.batch_execute(over).await.unwrap();
    assert_eq!(removed(services, Chore::JoinTokens, 3_653).await, 2);
    assert_eq!(count("SELECT count(*) FROM join_tokens").await, tokens - 2);

    admin.batch_execute("UPDATE agent_applicants SET last_seen_at = now() - interval '91 days'").await.unwrap();
    assert_eq!(removed(services, Chore::Applicants, 3_653).await, 0, "one that waits is not over");
    admin.batch_execute("UPDATE agent_applicants SET state = 'rejected'").await.unwrap();
    assert_eq!(removed(services, Chore::Applicants, 3_653).await, 1);

    let leases = "INSERT INTO leases (tenant_id, trustpoint_id, lease_id, expires_at) \
                  SELECT tenant_id, t, gen_random_uuid(), now() - interval '91 days' FROM tenants, \
                  unnest(ARRAY[gen_random_uuid(), (SELECT trustpoint_id FROM trustpoints LIMIT 1)]) t \
                  ON CONFLICT (tenant_id, trustpoint_id) DO UPDATE SET expires_at = excluded.expires_at, due_at = NULL";
    admin.batch_execute(leases).await.unwrap();
    assert_eq!(removed(services, Chore::Leases, 3_653).await, 1, "that of a trustpoint that is there stays");
    house.close().await;
}

#[actix::test]
async fn housekeeping_goes_on_batch_by_batch_until_nothing_is_left_and_is_counted() {
    let house = House::open().await;
    house.tenant("acme").await;
    objects(&house).await;
    let admin = house.place.admin().await;
    let many = "INSERT INTO join_tokens (tenant_id, token_id, secret_hash, uses_left, created_at, expires_at, labels) \
                SELECT tenant_id, gen_random_uuid(), '', 1, now(), now() - interval '100 days', '{}' \
                FROM tenants, generate_series(1, 1200)";
    admin.batch_execute(many).await.unwrap();
    let housekeeper = Housekeeper {
        store: house.services().store.clone(),
        clock: Arc::clone(&house.services().clock),
        metrics: Arc::clone(&house.services().metrics),
        days_max: 3_653,
        done_at: Mutex::new(None),
    };
    let mut rounds = 0;
    while housekeeper.remove(house.services().clock.now()).await.unwrap() {
        rounds += 1;
    }
    assert!(rounds >= 3, "all went at once: {rounds}");
    let left: i64 =
        admin.query_one("SELECT count(*) FROM join_tokens WHERE expires_at < now()", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    let (text, _) = house.services().metrics.render().unwrap();
    assert!(text.contains("trustfleet_housekeeping_removed_total{kind=\"join_tokens\"} 1200"), "{text}");
    house.close().await;
}

#[actix::test]
async fn how_long_things_are_kept_is_a_setting_of_the_tenant_within_limits() {
    let house = House::open().await;
    house.tenant("acme").await;
    let shown = house.get("/v1/tenants/acme", &house.platform).await.expect(200).body;
    let days = ["job_days", "certificate_days", "join_days", "audit_days"].map(|field| shown[field].as_i64().unwrap());
    assert_eq!(days, [730, 730, 90, 0]);
    let put = async |days: Value| {
        let mut body = json!({"display_name": "acme", "allow_weak_algorithms": false, "four_eyes": false});
        body.as_object_mut().unwrap().extend(days.as_object().unwrap().clone());
        house.call("PUT", "/v1/tenants/acme", Some(&house.platform), Some(body)).await
    };
    let changed = put(json!({"job_days": 7, "audit_days": 2})).await.expect(200).body;
    assert_eq!((&changed["job_days"], &changed["audit_days"]), (&json!(7), &json!(2)));
    let again = put(json!({"audit_days": 0, "certificate_days": 3653})).await.expect(200).body;
    assert_eq!(
        (&again["job_days"], &again["audit_days"], &again["certificate_days"]),
        (&json!(7), &json!(0), &json!(3653))
    );
    let refused =
        put(json!({"job_days": 6, "certificate_days": 3654, "join_days": 0, "audit_days": 1})).await.expect(422);
    let wrong = ["job_days range", "certificate_days range", "join_days range", "audit_days range"];
    assert_eq!(refused.violations(), wrong);
    house.close().await;
}

/// Whether the broker has the queue.
async fn has_queue(house: &House, queue: &str) -> bool {
    let path = format!("api/queues/{}", house.place.vhost);
    let told = manage(&variable("TRUSTFLEET_AMQP_MANAGEMENT_URL"), "GET", &path, "").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    told.as_array().unwrap().iter().any(|found| found["name"] == queue)
}

#[actix::test]
async fn a_device_is_deleted_with_everything_that_is_its_own_and_its_agents_queue_with_the_last_one() {
    let house = House::open().await;
    let [_, operator, admin_token] = house.tenant("acme").await;
    let objects = objects(&house).await;
    let admin = house.place.admin().await;
    let count = async |sql: &str| -> i64 { admin.query_one(sql, &[]).await.unwrap().get(0) };
    let device = "/v1/tenants/acme/devices/ap-1";
    let delete = async |path: &str, token: &str| house.call("DELETE", path, Some(token), None).await;
    house.post("/v1/tenants/acme/devices", &operator, json!({"name": "ap-2", "agent": "site-1"})).await.expect(201);

    assert_eq!(delete(device, &operator).await.expect(409).str("/code"), "has_trustpoints");
    assert_eq!(
        delete(&format!("{device}?certificates=all"), &operator).await.expect(422).violations(),
        ["certificates choice"]
    );
    let keep = format!("{device}?certificates=keep");
    let busy = delete(&keep, &operator).await.expect(409);
    assert!(!busy.str("/code").is_empty(), "the job of the enrolment is under way");
    assert_eq!(count("SELECT count(*) FROM devices WHERE name = 'ap-1'").await, 1);
    house.post(&format!("/v1/tenants/acme/jobs/{}/stop", objects["job"]), &operator, Value::Null).await.expect(202);

    let agent = objects["agent"].clone();
    let id: uuid::Uuid =
        admin.query_one("SELECT agent_id FROM agents WHERE name = $1", &[&agent]).await.unwrap().get(0);
    let queue = agent_queue(id.into());
    house.services().broker.declare_agent_queue(id.into()).await.unwrap();
    delete(&keep, &operator).await.expect(204);
    for table in ["trustpoints", "jobs", "certificates", "secrets"] {
        assert_eq!(count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    house.get(device, &operator).await.expect(404);
    let noted = house.get("/v1/tenants/acme/audit?action=device_deleted", &admin_token).await.expect(200);
    assert_eq!(noted.body["items"][0]["detail"]["certificates"], "keep");
    until("the queue to be known", async || has_queue(&house, &queue).await.then_some(())).await;
    delete("/v1/tenants/acme/devices/ap-2", &operator).await.expect(204);
    until("the queue to be gone", async || (!has_queue(&house, &queue).await).then_some(())).await;

    // The agent itself goes when it is out, and cannot come in any more.
    let agent = format!("/v1/tenants/acme/agents/{agent}");
    assert_eq!(delete(&agent, &admin_token).await.expect(409).str("/code"), "not_in_quarantine");
    house.post(&format!("{agent}/quarantine"), &operator, json!({"reason": "scrapped"})).await.expect(200);
    assert_eq!(delete(&agent, &admin_token).await.expect(409).str("/code"), "token_not_ended");
    admin.batch_execute("UPDATE broker_cut_offs SET until = now() - interval '1 second'").await.unwrap();
    delete(&agent, &admin_token).await.expect(204);
    house.get(&agent, &operator).await.expect(404);
    house.close().await;
}

#[actix::test]
async fn a_device_whose_certificates_are_to_be_revoked_leaves_and_is_gone_when_they_are() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    let objects = objects(&house).await;
    let admin = house.place.admin().await;
    house.post(&format!("/v1/tenants/acme/jobs/{}/stop", objects["job"]), &operator, Value::Null).await.expect(202);
    admin.batch_execute("UPDATE certificates SET not_after = now() + interval '1 day'").await.unwrap();
    let device = "/v1/tenants/acme/devices/ap-1";
    let left = house.call("DELETE", &format!("{device}?certificates=revoke"), Some(&operator), None).await.expect(202);
    assert!(left.body["leaving_at"].is_string(), "{}", left.text);
    // The CA takes no requests: that is for a person, and the device stays.
    until("the revocation to have failed", async || {
        let sql = "SELECT count(*) FROM certificates WHERE revocation ->> 'state' = 'failed'";
        (admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    assert!(house.get(device, &operator).await.expect(200).body["leaving_at"].is_string());
    // Revoked at the CA by hand, and noted.
    let certificate = format!("/v1/tenants/acme/certificates/{}/revoke", objects["certificate"]);
    let noted = json!({"reason": "cessationOfOperation", "by_hand": true});
    house.post(&certificate, &operator, noted).await.expect(200);
    until("the device to be gone", async || (house.get(device, &operator).await.status == 404).then_some(())).await;
    let noted = house.get("/v1/tenants/acme/audit?action=device_deleted", &house.platform).await.expect(200);
    assert_eq!(noted.body["items"][0]["detail"]["certificates"], "revoke");
    house.close().await;
}
