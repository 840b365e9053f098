//! Jobs that an operator stops (S37): told to the agent until it answers, and nothing is lost that was faster.

use std::time::Duration;

use serde_json::{Value, json};
use trustfleet_controller::broker::Subscription;
use trustfleet_controller::device::{Command, Requester, Stop};
use trustfleet_controller::error::AppError;
use trustfleet_model::ids::JobId;
use trustfleet_wire::v1::{Event, Failed, Stop as StopMessage, ToAgent};

use crate::api_access::objects;
use crate::api_house::House;
use crate::fixture::{Fixture, issued};
use crate::reports::told;
use crate::support::until;

async fn stop(fixture: &Fixture, job_id: JobId) -> Result<(), AppError> {
    let command = Command::Stop(Stop { job_id, requested_by: Requester::new("ann", "operator") });
    fixture.ask(fixture.device, command).await?;
    Ok(())
}

/// The next order to stop.
async fn ordered(fixture: &Fixture, queue: &mut Subscription) -> StopMessage {
    loop {
        if let ToAgent::Stop(stop) = fixture.next(queue, Duration::from_secs(20)).await.expect("an order to stop comes")
        {
            return *stop;
        }
    }
}

fn stopped(maybe_issued: bool, transaction_id: Option<&str>) -> Event {
    Event::Failed(Box::new(Failed {
        culprit: "configuration".to_owned(),
        code: "stopped".to_owned(),
        message: "stopped by hand".to_owned(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        transaction_id: transaction_id.map(str::to_owned),
        maybe_issued,
        duration_ms: 5,
        transcript: Vec::new(),
        in_service: None,
        in_use: None,
    }))
}

async fn failure(fixture: &Fixture) -> Value {
    fixture.value::<Value>("SELECT failure FROM jobs ORDER BY job_id LIMIT 1").await
}

#[actix::test]
async fn s37_a_job_under_way_is_stopped_by_its_agent_which_is_told_again_at_every_hello_until_it_answers() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let started = Event::Started { public_key_sha256: "ab".repeat(32) };
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, started)).await;

    stop(&fixture, job_id).await.unwrap();
    let order = ordered(&fixture, &mut queue).await;
    assert_eq!((order.job_id, order.device_id), (job_id, fixture.device));
    assert!(order.sequence > sequence);
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_ca", "it has not ended yet");
    stop(&fixture, job_id).await.unwrap();
    fixture.hello().await;
    assert_eq!(ordered(&fixture, &mut queue).await.job_id, job_id, "the hello brings it again");

    told(&fixture, &mut queue, &fixture.report(job_id, order.sequence, stopped(true, Some("00ff")))).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "failed");
    assert_eq!(failure(&fixture).await["maybe_issued"], true, "told honestly");
    assert!(!fixture.value::<bool>("SELECT stop_pending FROM jobs").await);
    assert!(fixture.value::<bool>("SELECT stop_requested_at IS NOT NULL FROM jobs").await);
    let audit = "SELECT count(*) FROM audit WHERE action = 'job_stop_requested' AND actor = 'ann'";
    assert_eq!(fixture.value::<i64>(audit).await, 1, "once, although it was said twice");
    assert_eq!(stop(&fixture, job_id).await.unwrap_err().code(), "job_ended");
    fixture.core.stop().await;
}

#[actix::test]
async fn s37_a_job_that_its_agent_has_not_begun_ends_at_once_and_the_agent_is_told_all_the_same() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    fixture.next_job(&mut queue).await;
    stop(&fixture, job_id).await.unwrap();
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "failed");
    let ended = failure(&fixture).await;
    assert_eq!((&ended["code"], &ended["maybe_issued"]), (&json!("stopped"), &json!(false)));
    let order = ordered(&fixture, &mut queue).await;
    assert_ne!(fixture.enroll().await, job_id, "the next request need not wait for the answer");

    // The agent had begun a moment before: that corrects what was thought here.
    told(&fixture, &mut queue, &fixture.report(job_id, order.sequence, stopped(true, Some("00ff")))).await;
    assert_eq!(failure(&fixture).await["maybe_issued"], true);
    assert!(!fixture.value::<bool>("SELECT bool_or(stop_pending) FROM jobs").await);
    assert_eq!(fixture.stored_trustpoint().await["request"]["awaiting"], "agent", "the next request goes on");
    fixture.core.stop().await;
}

#[actix::test]
async fn s37_a_certificate_that_was_faster_than_the_order_to_stop_is_not_lost() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    stop(&fixture, job_id).await.unwrap();
    let (event, serial) = issued("ap-1");
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "succeeded");
    assert!(fixture.value::<bool>("SELECT failure IS NULL FROM jobs").await);
    assert_eq!(fixture.stored_trustpoint().await["staged"]["serial"], serial.as_str());
    fixture.core.stop().await;
}

#[actix::test]
async fn s37_a_certificate_of_a_stopped_job_beside_the_next_request_is_kept_and_not_used() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    stop(&fixture, job_id).await.unwrap();
    let next = fixture.enroll().await;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, issued("ap-1").0)).await;
    assert_eq!(fixture.value::<String>("SELECT slot FROM certificates").await, "retired");
    let request = &fixture.stored_trustpoint().await["request"];
    assert_eq!(request["job_id"], next.to_string(), "{request}");
    fixture.core.stop().await;
}

#[actix::test]
async fn s37_a_job_that_never_reached_its_agent_is_not_published_after_it_was_stopped() {
    let fixture = Fixture::new().await;
    // The agent has no queue: its message comes back, and waits for the hello.
    let job_id = fixture.enroll().await;
    let gone = async || (fixture.value::<i64>("SELECT count(*) FROM outbox").await == 0).then_some(());
    until("the job's message to come back", gone).await;
    stop(&fixture, job_id).await.unwrap();
    until("the order to come back as well", gone).await;
    let mut queue = fixture.open_queue().await;
    fixture.hello().await;
    match fixture.next(&mut queue, Duration::from_secs(20)).await.expect("something comes") {
        ToAgent::Stop(stop) => assert_eq!(stop.job_id, job_id),
        other => panic!("{other:?}"),
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn s37_stopping_is_an_operators_verb_and_refused_for_what_has_ended() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    let objects = objects(&house).await;
    let path = format!("/v1/tenants/acme/jobs/{}/stop", objects["job"]);
    let answer = house.call("POST", &path, Some(&operator), None).await.expect(202).body;
    assert_eq!((&answer["state"], &answer["failure"]["code"]), (&json!("failed"), &json!("stopped")));
    assert!(answer["stop_requested_at"].is_string());
    house.call("POST", &path, Some(&operator), None).await.expect(202);
    let admin = house.place.admin().await;
    admin.batch_execute("UPDATE jobs SET state = 'succeeded', failure = NULL").await.unwrap();
    let refused = house.call("POST", &path, Some(&operator), None).await.expect(409);
    assert_eq!(refused.str("/code"), "job_ended");
    house.close().await;
}
