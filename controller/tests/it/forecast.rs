//! Coming renewals beside a CA's budget, as PostgreSQL and the API see them.

use serde_json::{Value, json};
use trustfleet_controller::device::Reply;
use trustfleet_model::job::RequestKind;
use trustfleet_wire::v1::{Event, Report};

use crate::api_house::House;
use crate::fixture::{Fixture, issued};
use crate::support::until;

const DEVICES: i64 = 9;

/// Nine trustpoints with certificates in use and automatic update, all planned for one hour in the middle of their windows.
async fn crowded(fixture: &Fixture) {
    let sql = "UPDATE policies SET revision = revision + 1,
               spec = '{\"key\":{\"algorithm\":\"ecdsa-p256\"},\"auto_update\":{\"enabled\":true}}'";
    fixture.admin.batch_execute(sql).await.unwrap();
    let mut queue = fixture.open_queue().await;
    for n in 0..DEVICES {
        let device = fixture.add_device(&format!("d-{n}")).await;
        let trustpoint_id = fixture.add_trustpoint(device, "mgmt").await.unwrap();
        let command = fixture.enroll_command(device, RequestKind::Ir, None).await;
        let Reply::Job { job_id } = fixture.ask(device, command).await.unwrap() else { panic!() };
        let sequence = fixture.next_job(&mut queue).await.sequence;
        let (event, serial) = issued(&format!("d-{n}"));
        let activated = Event::Activated { serial, file: "/current".to_owned(), in_service: None };
        for event in [event, activated] {
            let report = Report { device_id: device, trustpoint_id, ..fixture.report(job_id, sequence, event) };
            fixture.send_report(&report).await;
        }
    }
    let planned = "SELECT count(*) FROM trustpoints WHERE next_action_at IS NOT NULL AND status = 'active'
                   AND planned_revision > 0";
    until("all are planned", async || (fixture.value::<i64>(planned).await == DEVICES).then_some(())).await;
    let crowd = "UPDATE trustpoints t SET next_action_at =
                     date_bin('1 hour', c.not_before + (c.not_after - c.not_before) * 0.65, 'epoch') + interval '7 minutes'
                 FROM certificates c WHERE c.trustpoint_id = t.trustpoint_id AND c.slot = 'active'";
    fixture.admin.batch_execute(crowd).await.unwrap();
}

const FULLEST: &str = "SELECT max(n) FROM (SELECT count(*) AS n FROM trustpoints WHERE next_action_at IS NOT NULL
                       GROUP BY date_bin('1 hour', next_action_at, 'epoch')) hours";

#[actix::test]
async fn renewals_that_come_together_are_told_and_spread_and_stay_where_they_were_put() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    // Two an hour are planned.
    let budget = "INSERT INTO ca_endpoints (endpoint, rate_per_s, burst, concurrency) VALUES ('ca.example:80', 0.0007, 100, 100)";
    fixture.admin.batch_execute(budget).await.unwrap();
    crowded(&fixture).await;
    assert_eq!(fixture.value::<i64>(FULLEST).await, DEVICES);
    let path = "/v1/tenants/acme/ca-servers/default/forecast";
    let before = house.get(path, &house.platform).await.expect(200);
    assert_eq!((&before.body["renewals"], &before.body["planned_per_hour_max"]), (&json!(DEVICES), &json!(2)));
    assert_eq!(before.body["hours_too_full"], 1, "{}", before.body);
    let marks: u64 =
        before.body["days"].as_array().unwrap().iter().map(|day| day["emergencies"].as_u64().unwrap()).sum();
    assert_eq!(marks, DEVICES.unsigned_abs(), "every certificate has its emergency mark");

    let done = house.call("POST", "/v1/ca-endpoints/respread", Some(&house.platform), None).await.expect(200);
    assert_eq!(done.body["items"], json!([{ "endpoint": "ca.example:80", "moved": 7, "unfit": 0 }]));
    assert_eq!(fixture.value::<i64>(FULLEST).await, 2);
    assert_eq!(house.get(path, &house.platform).await.body["hours_too_full"], 0);

    let lock = fixture.place.admin().await;
    let held = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('trustfleet spreading'))";
    lock.batch_execute(held).await.unwrap();
    let refused = house.call("POST", "/v1/ca-endpoints/respread", Some(&house.platform), None).await.expect(409);
    assert_eq!(refused.body["code"], "spreading_elsewhere", "{}", refused.text);
    lock.batch_execute("ROLLBACK").await.unwrap();

    // Planned anew, each keeps the moment that was found for it.
    let moments =
        "SELECT string_agg(next_action_at::text, ' ' ORDER BY trustpoint_id) FROM trustpoints WHERE spread IS NOT NULL";
    let found: String = fixture.value(moments).await;
    fixture.admin.batch_execute("UPDATE trustpoints SET planned_revision = 0").await.unwrap();
    let planned = "SELECT count(*) FROM trustpoints WHERE planned_revision > 0 AND spread IS NOT NULL";
    until("all are planned again", async || (fixture.value::<i64>(planned).await == 7).then_some(())).await;
    assert_eq!(fixture.value::<String>(moments).await, found);
    let audit: Value = fixture.value("SELECT detail FROM audit WHERE action = 'renewals_spread'").await;
    assert_eq!(audit["items"][0]["moved"], 7);
    fixture.core.stop().await;
}
