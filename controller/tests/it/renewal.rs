//! Renewal by itself, as PostgreSQL and two replicas see it.

use serde_json::json;
use trustfleet_wire::v1::{Event, Request, Task};

use crate::{
    api_house::House,
    fixture::{Fixture, issued},
    reports::{failed, told},
    support::until,
};

/// A trustpoint with a certificate in use, and the agent's queue.
pub async fn enrolled(fixture: &Fixture) -> trustfleet_controller::broker::Subscription {
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let (event, serial) = issued("ap-1");
    told(fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    let file = "/current".to_owned();
    told(fixture, &mut queue, &fixture.report(job_id, sequence, Event::Activated { serial, file, in_service: None }))
        .await;
    queue
}

/// What an operator's change of the policy does.
pub async fn set_policy(fixture: &Fixture, auto_update: serde_json::Value) {
    let spec = json!({ "key": { "algorithm": "ecdsa-p256" }, "auto_update": auto_update });
    let sql = "UPDATE policies SET spec = $1, revision = revision + 1";
    fixture.admin.execute(sql, &[&spec]).await.unwrap();
}

/// As if the certificate had been in use for nearly all of its life.
async fn age(fixture: &Fixture) {
    let sql = "UPDATE trustpoints SET planned_revision = 0, state = jsonb_set(jsonb_set(state,
        '{trustpoint,active,not_before}', to_jsonb(to_char(now() AT TIME ZONE 'UTC' - interval '99 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))),
        '{trustpoint,active,not_after}', to_jsonb(to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))
        #- '{trustpoint,issued_at}'; UPDATE devices SET version = version + 1";
    fixture.admin.batch_execute(sql).await.unwrap();
}

const PLANNED: &str = "SELECT planned_revision = (SELECT revision FROM policies) FROM trustpoints";

#[actix::test]
async fn s43_a_change_of_the_policy_moves_the_renewals_of_all_that_use_it() {
    let fixture = Fixture::new().await;
    let _queue = enrolled(&fixture).await;
    until("it is planned", async || fixture.value::<bool>(PLANNED).await.then_some(())).await;
    assert!(fixture.value::<bool>("SELECT next_action_at IS NULL FROM trustpoints").await, "switched off");

    for (percent, bounds) in [(50, "0.49 AND 0.51"), (70, "0.69 AND 0.71")] {
        set_policy(&fixture, json!({ "enabled": true, "elapsed_percent": percent, "latest_percent": percent })).await;
        until("it is planned anew", async || fixture.value::<bool>(PLANNED).await.then_some(())).await;
        let part = format!(
            "SELECT extract(epoch FROM t.next_action_at - c.not_before) / extract(epoch FROM c.not_after - c.not_before)
                 BETWEEN {bounds} FROM trustpoints t JOIN certificates c USING (tenant_id, trustpoint_id)"
        );
        assert!(fixture.value::<bool>(&part).await, "not at {percent} %");
    }
    set_policy(&fixture, json!({ "enabled": false })).await;
    until("nothing is planned", async || {
        fixture.value::<bool>("SELECT next_action_at IS NULL FROM trustpoints").await.then_some(())
    })
    .await;
}

#[actix::test]
async fn s31_what_is_due_is_asked_for_once_by_two_replicas_and_tried_again_after_a_failure_but_not_at_once() {
    let fixture = Fixture::new().await;
    let _second = fixture.place.core().await;
    let mut queue = enrolled(&fixture).await;
    age(&fixture).await;
    set_policy(&fixture, json!({ "enabled": true })).await;

    let job = fixture.next_job(&mut queue).await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE kind = 'kur'").await, 1);
    assert_eq!(fixture.value::<String>("SELECT requested_by FROM jobs WHERE kind = 'kur'").await, "controller");

    told(&fixture, &mut queue, &fixture.report(job.job_id, job.sequence, failed("refused"))).await;
    until("the next try is planned", async || {
        fixture
            .value::<bool>(&format!("SELECT next_action_at IS NOT NULL AND ({PLANNED}) FROM trustpoints"))
            .await
            .then_some(())
    })
    .await;
    let wait = "SELECT extract(epoch FROM next_action_at - now())::float8 FROM trustpoints";
    let wait = fixture.value::<f64>(wait).await;
    assert!((250.0..=400.0).contains(&wait), "tried again after {wait} s");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE kind = 'kur'").await, 1);
    assert_eq!(fixture.stored_trustpoint().await["failures"], 1);

    // The moment has come: the next one.
    fixture
        .admin
        .batch_execute(
            "UPDATE trustpoints SET next_action_at = now(), state = jsonb_set(state, '{trustpoint,last_failed_at}', '\"2020-01-01T00:00:00Z\"');
             UPDATE devices SET version = version + 1",
        )
        .await
        .unwrap();
    let again = fixture.next_job(&mut queue).await;
    assert_ne!(again.job_id, job.job_id);
}

#[actix::test]
async fn s30_a_renewal_with_another_subject_is_a_cr_that_the_certificate_in_use_signs() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    let mut queue = enrolled(&fixture).await;
    let entity = json!({ "subject": "/O=Other/CN={device.name}" });
    house.call("PUT", "/v1/tenants/acme/entities/default", Some(&house.platform), Some(entity)).await.expect(200);
    age(&fixture).await;
    let spec = json!({
        "key": { "algorithm": "ecdsa-p256" }, "origin_authentication": "signature", "auto_update": { "enabled": true },
    });
    fixture.admin.execute("UPDATE policies SET spec = $1, revision = revision + 1", &[&spec]).await.unwrap();

    let job = fixture.next_job(&mut queue).await;
    let Task::Enroll(order) = &job.task else { panic!("{:?}", job.task) };
    assert_eq!((order.request, order.subject.as_str()), (Request::Cr, "/O=Other/CN=ap-1"));
    // Neither the secret of the first request nor an identity from elsewhere.
    assert!(order.mac.is_none() && order.identity_domain.is_none(), "{order:?}");
    assert!(order.replaces.is_some(), "this certificate and no other");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_trustpoint_that_cannot_be_read_holds_up_no_renewal_but_its_own() {
    let fixture = Fixture::new().await;
    let _queue = enrolled(&fixture).await;
    let other = fixture.add_device("ap-2").await;
    let broken = fixture.add_trustpoint(other, "mgmt").await.unwrap();
    until("both are planned", async || {
        fixture.value::<bool>("SELECT bool_and(planned_revision > 0) FROM trustpoints").await.then_some(())
    })
    .await;
    let sql = "UPDATE trustpoints SET state = '{\"v\": 99}' WHERE trustpoint_id = $1";
    fixture.admin.execute(sql, &[&broken.as_uuid()]).await.unwrap();
    set_policy(&fixture, json!({ "enabled": true })).await;
    until("the readable one is planned", async || {
        let sql = "SELECT count(*) FROM trustpoints WHERE next_action_at IS NOT NULL";
        (fixture.value::<i64>(sql).await == 1).then_some(())
    })
    .await;
    until("the other one waits until it is written again", async || {
        let sql = "SELECT count(*) FROM trustpoints t JOIN policies p USING (policy_id) WHERE t.planned_revision < p.revision";
        (fixture.value::<i64>(sql).await == 0).then_some(())
    })
    .await;
}

#[actix::test]
async fn force_goes_below_the_floor_under_re_issue_only_when_that_is_confirmed() {
    let house = House::open().await;
    let fixture = Fixture::on(house.place.clone(), house.place.core().await).await;
    let floor = "UPDATE policies SET revision = revision + 1,
                 spec = '{\"key\":{\"algorithm\":\"ecdsa-p256\"},\"reissue\":{\"most\":1}}'";
    fixture.admin.batch_execute(floor).await.unwrap();
    let _queue = enrolled(&fixture).await;
    let operator = house.token("acme", "operator").await.1;
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    let ask = async |force: bool, confirm_floor: bool| {
        house.post(path, &operator, json!({ "request": "kur", "force": force, "confirm_floor": confirm_floor })).await
    };
    for force in [false, true] {
        let refused = ask(force, false).await.expect(409);
        assert_eq!(refused.body["code"], "reissue_floor", "force {force}: {}", refused.text);
    }
    let refused = ask(false, true).await.expect(422);
    assert!(refused.text.contains("does not go without force"), "{}", refused.text);
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 1, "nothing was asked for");
    ask(true, true).await.expect(202);
    let passed = "SELECT count(*) FROM audit WHERE action = 'reissue_floor_passed'";
    assert_eq!(fixture.value::<i64>(passed).await, 1);
    fixture.core.stop().await;
}
