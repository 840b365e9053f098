//! Coming renewals beside a CA's budget, as PostgreSQL and the API see them.

use std::time::Duration;

use serde_json::{Value, json};
use trustfleet_controller::config::CaBudgetConfig;
use trustfleet_controller::device::Reply;
use trustfleet_controller::spreader::Spreader;
use trustfleet_controller::steady::Steady;
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
    // 65 % of 30 days are whole hours: no hour ends while these are issued.
    let left = 3_600 - fixture.services().clock.now().as_second().rem_euclid(3_600);
    if left < 30 {
        tokio::time::sleep(Duration::from_secs(left.unsigned_abs())).await;
    }
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
    crowd(fixture).await;
}

/// Those of the usual policy come together, seven minutes into the hour.
async fn crowd(fixture: &Fixture) {
    let sql = "UPDATE trustpoints t SET next_action_at =
                   date_bin('1 hour', c.not_before + (c.not_after - c.not_before) * 0.65, 'epoch') + interval '7 minutes'
               FROM certificates c, policies p WHERE c.trustpoint_id = t.trustpoint_id AND c.slot = 'active'
                   AND p.policy_id = t.policy_id AND p.name = 'default'";
    fixture.admin.batch_execute(sql).await.unwrap();
}

/// By 0.0007 a second two are planned for an hour, by 0.0004 one.
async fn budget_of(fixture: &Fixture, rate_per_s: f64) {
    let sql =
        "INSERT INTO ca_endpoints (endpoint, rate_per_s, burst, concurrency) VALUES ('ca.example:80', $1, 100, 100)";
    fixture.admin.execute(sql, &[&rate_per_s]).await.unwrap();
}

const FULLEST: &str = "SELECT max(n) FROM (SELECT count(*) AS n FROM trustpoints WHERE next_action_at IS NOT NULL
                       GROUP BY date_bin('1 hour', next_action_at, 'epoch')) hours";

#[actix::test]
async fn renewals_that_come_together_are_told_and_spread_and_stay_where_they_were_put() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    budget_of(&fixture, 0.0007).await;
    crowded(&fixture).await;
    assert_eq!(fixture.value::<i64>(FULLEST).await, DEVICES);
    let path = "/v1/tenants/acme/ca-servers/default/forecast";
    let before = house.get(path, &house.platform).await.expect(200);
    assert_eq!((&before.body["renewals"], &before.body["planned_per_hour_max"]), (&json!(DEVICES), &json!(2)));
    assert_eq!((&before.body["hours_too_full"], &before.body["budget_per_hour"]), (&json!(1), &json!(2)));
    let hours = |body: &Value| {
        body["hours"].as_array().unwrap().iter().map(|hour| hour["renewals"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((hours(&before.body).len(), hours(&before.body).iter().sum::<i64>()), (48, 0), "it is not soon");
    let all = house.get(&format!("{path}?hours=2160"), &house.platform).await.expect(200);
    assert_eq!((hours(&all.body).len(), hours(&all.body).into_iter().max()), (2_160, Some(DEVICES)));
    house.get(&format!("{path}?hours=2161"), &house.platform).await.expect(422);
    let marks: u64 =
        before.body["days"].as_array().unwrap().iter().map(|day| day["emergencies"].as_u64().unwrap()).sum();
    assert_eq!(marks, DEVICES.unsigned_abs(), "every certificate has its emergency mark");

    let done = house.call("POST", "/v1/ca-endpoints/respread", Some(&house.platform), None).await.expect(200);
    let expected = json!([{ "endpoint": "ca.example:80", "moved": 7, "unfit": 0, "unfit_examples": [] }]);
    assert_eq!(done.body["items"], expected);
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

#[actix::test]
async fn an_hour_that_overflows_is_spread_by_itself_when_it_is_time_to_look() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    budget_of(&fixture, 0.0007).await;
    crowded(&fixture).await;
    let spreader = |respread_s| {
        let services = fixture.services();
        let config = CaBudgetConfig { respread_s, ..services.config.ca_budget.clone() };
        Spreader::new(services.store.clone(), services.clock.clone(), &config)
    };
    let (seldom, often) = (spreader(86_400), spreader(1));
    seldom.step().await.unwrap();
    assert_eq!(fixture.value::<i64>(FULLEST).await, DEVICES, "its time has not come");
    until("the hours hold what the budget allows", async || {
        often.step().await.unwrap();
        (fixture.value::<i64>(FULLEST).await == 2).then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn renewals_that_fit_into_no_hour_are_told_by_name_and_stay() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    budget_of(&fixture, 0.0004).await;
    crowded(&fixture).await;
    let at_one_moment = "UPDATE policies SET revision = revision + 1, spec = jsonb_set(spec, '{auto_update}',
                             '{\"enabled\":true,\"elapsed_percent\":65,\"latest_percent\":65}')";
    fixture.admin.batch_execute(at_one_moment).await.unwrap();
    let planned = "SELECT count(*) FROM trustpoints t JOIN policies p USING (policy_id) WHERE t.status = 'active' AND t.planned_revision = p.revision";
    until("all are planned anew", async || (fixture.value::<i64>(planned).await == DEVICES).then_some(())).await;
    let done = house.call("POST", "/v1/ca-endpoints/respread", Some(&house.platform), None).await.expect(200);
    let item = &done.body["items"][0];
    assert_eq!((&item["moved"], &item["unfit"]), (&json!(0), &json!(DEVICES)), "{item}");
    let first = &item["unfit_examples"][0];
    assert_eq!((&first["tenant"], &first["trustpoint"]), (&json!("acme"), &json!("mgmt")), "{item}");
    assert!(first["device"].as_str().unwrap().starts_with("d-") && first["at"].is_string(), "{item}");
    fixture.core.stop().await;
}

#[actix::test]
async fn batches_follow_one_another_to_the_end_and_what_fits_nowhere_is_told_after_the_last() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    budget_of(&fixture, 0.0007).await;
    crowded(&fixture).await;
    // The first three by their ids have no other moment; those that come after them leave the hour to them but for one.
    let narrow = "INSERT INTO policies SELECT tenant_id, gen_random_uuid(), 'narrow', jsonb_set(spec, '{auto_update}',
                      '{\"enabled\":true,\"elapsed_percent\":65,\"latest_percent\":65}'), 1, now(), now(), 'test' FROM policies;
                  WITH first AS (SELECT trustpoint_id FROM trustpoints WHERE status = 'active' ORDER BY trustpoint_id LIMIT 3)
                  UPDATE trustpoints t SET policy_id = (SELECT policy_id FROM policies WHERE name = 'narrow'),
                      next_action_at = c.not_before + (c.not_after - c.not_before) * 0.65
                  FROM first, certificates c
                  WHERE t.trustpoint_id = first.trustpoint_id AND c.trustpoint_id = t.trustpoint_id AND c.slot = 'active'";
    fixture.admin.batch_execute(narrow).await.unwrap();
    let services = fixture.services();
    let config = &services.config.ca_budget;
    let spreader = Spreader::new(services.store.clone(), services.clock.clone(), config).in_batches_of(2);
    let done = spreader.look().await.unwrap().expect("nobody else is at it");
    let done = &done["ca.example:80"];
    assert_eq!((done.moved, done.unfit), (6, 3), "{done:?}");
    let told: Vec<_> = done.unfit_examples.iter().map(|one| one.device.as_str()).collect();
    assert_eq!(told, ["d-0", "d-1", "d-2"]);

    // With room for three they fit: the same three were looked at first, and nothing is told of them in the end.
    crowd(&fixture).await;
    fixture.admin.batch_execute("UPDATE ca_endpoints SET rate_per_s = 0.0011").await.unwrap();
    let done = spreader.look().await.unwrap().expect("nobody else is at it");
    let done = &done["ca.example:80"];
    assert_eq!((done.moved, done.unfit, done.unfit_examples.len()), (6, 0, 0), "{done:?}");
    fixture.core.stop().await;
}
