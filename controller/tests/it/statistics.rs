//! Statistics of CMP sessions (S48): counted once for each exchange, summed over devices, policies and the tenant, reset.

use serde_json::{Value, json};
use trustfleet_controller::db::{DbError, StatisticsOf};
use trustfleet_controller::device::{Command, Requester, ResetStatistics};
use trustfleet_model::statistics::Statistics;
use trustfleet_wire::v1::{Event, Exchanged};

use crate::api_access::objects;
use crate::api_house::House;
use crate::fixture::{Fixture, issued};
use crate::reports::{failed, told};

/// An `ir` that the CA let wait, with one try that brought no answer.
fn polled() -> Vec<Exchanged> {
    let at = "2026-11-21T12:00:00Z";
    serde_json::from_value(json!([
        {"what": "sent", "at": at, "kind": "ir", "bytes": 812},
        {"what": "received", "at": at, "kind": "ip", "bytes": 90, "status": "waiting"},
        {"what": "folded", "at": at, "until": at, "requests": {"pollReq": 312}, "responses": {"pollRep": 312}},
        {"what": "sent", "at": at, "kind": "pollReq", "bytes": 90},
        {"what": "no_answer", "at": at, "kind": "pollReq", "code": "ca_timeout", "detail": "no answer"},
        {"what": "received", "at": at, "kind": "ip", "bytes": 1900, "status": "accepted"},
    ]))
    .unwrap()
}

async fn sums(fixture: &Fixture, of: StatisticsOf) -> (u64, Statistics) {
    fixture
        .services()
        .store
        .tenant_tx(fixture.tenant, "test", async |tx| -> Result<_, DbError> { tx.statistics_sum(of).await })
        .await
        .unwrap()
}

#[actix::test]
async fn s48_an_exchange_counts_once_at_its_trustpoint_and_in_every_sum_also_when_its_report_comes_again() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let mut event = issued("ap-1").0;
    if let Event::Issued(issued) = &mut event {
        issued.transcript = polled();
    }
    let report = fixture.report(job_id, sequence, event);
    told(&fixture, &mut queue, &report).await;
    told(&fixture, &mut queue, &report).await;

    let stored = &fixture.stored_trustpoint().await["statistics"];
    assert_eq!(stored["requests"], json!({"ir": 1, "pollReq": 313}), "{stored}");
    assert_eq!(stored["responses"], json!({"ip": 2, "pollRep": 312}));
    assert_eq!((&stored["polls"], &stored["successes"], &stored["timeouts"]), (&json!(313), &json!(1), &json!(1)));
    let flat: Value = fixture.value("SELECT statistics FROM trustpoints").await;
    assert_eq!(flat["requests.pollReq"], 313);

    // Another device of the same tenant and policy, whose agent is too old to tell.
    let other = fixture.add_device("ap-2").await;
    fixture.add_trustpoint(other, "mgmt").await.unwrap();
    let of_device = sums(&fixture, StatisticsOf { device: Some(fixture.device), policy: None }).await;
    let of_other = sums(&fixture, StatisticsOf { device: Some(other), policy: None }).await;
    let of_tenant = sums(&fixture, StatisticsOf::default()).await;
    assert_eq!((of_device.0, of_device.1.polls), (1, 313));
    assert_eq!((of_other.0, of_other.1), (1, Statistics::default()));
    assert_eq!((of_tenant.0, of_tenant.1.requests["ir"], of_tenant.1.successes), (2, 1, 1));
    fixture.core.stop().await;
}

#[actix::test]
async fn s48_an_agent_that_sends_no_transcript_counts_by_the_kind_of_its_job() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    for event in [failed("refused"), issued("ap-1").0] {
        let job_id = fixture.enroll().await;
        let sequence = fixture.next_job(&mut queue).await.sequence;
        told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    }
    let (_, counts) = sums(&fixture, StatisticsOf::default()).await;
    assert_eq!((counts.requests["ir"], counts.successes, counts.failures), (2, 1, 1), "{counts:?}");
    fixture.core.stop().await;
}

#[actix::test]
async fn s48_a_reset_sets_one_trustpoint_or_a_whole_device_to_nothing_and_is_in_the_audit_log() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("refused"))).await;
    fixture.add_trustpoint(fixture.device, "radius").await.unwrap();
    let reset = async |trustpoint: Option<&str>| {
        let trustpoint = trustpoint.map(|name| name.parse().unwrap());
        let requested_by = Requester::new("ann", "operator");
        fixture.ask(fixture.device, Command::ResetStatistics(ResetStatistics { trustpoint, requested_by })).await
    };
    reset(Some("radius")).await.unwrap();
    assert_eq!(sums(&fixture, StatisticsOf::default()).await.1.failures, 1, "another trustpoint's stay");
    assert_eq!(reset(Some("unknown")).await.unwrap_err().code(), "not_found");
    reset(None).await.unwrap();
    assert_eq!(sums(&fixture, StatisticsOf::default()).await.1, Statistics::default());
    assert!(fixture.stored_trustpoint().await["statistics"]["since"].is_string());
    let before = "SELECT before FROM audit WHERE action = 'statistics_reset' AND actor = 'ann' AND before <> '{}'";
    assert_eq!(fixture.value::<Value>(before).await["failures"], 1, "what was counted until then is in the log");
    fixture.core.stop().await;
}

#[actix::test]
async fn s48_statistics_are_shown_of_a_trustpoint_a_device_a_policy_and_a_tenant() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    objects(&house).await;
    let counted = "UPDATE trustpoints SET statistics = '{\"polls\": 7, \"requests.ir\": 3}',
                   state = jsonb_set(state, '{trustpoint,statistics}', '{\"polls\": 7, \"requests\": {\"ir\": 3}}')";
    house.place.admin().await.batch_execute(counted).await.unwrap();
    for path in [
        "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/statistics",
        "/v1/tenants/acme/devices/ap-1/statistics",
        "/v1/tenants/acme/policies/default/statistics",
        "/v1/tenants/acme/statistics",
    ] {
        let body = house.get(path, &viewer).await.expect(200).body;
        assert_eq!((&body["polls"], &body["requests"]), (&json!(7), &json!({"ir": 3})), "{path}: {body}");
        assert_eq!(body["trustpoints"], 1, "{path}");
    }
    let reset = "/v1/tenants/acme/devices/ap-1/statistics/reset";
    house.call("POST", reset, Some(&viewer), None).await.expect(403);
    house.call("POST", reset, Some(&operator), None).await.expect(200);
    let one = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/statistics/reset";
    let body = house.call("POST", one, Some(&operator), None).await.expect(200).body;
    assert!(body["since"].is_string(), "{body}");
    house.close().await;
}
