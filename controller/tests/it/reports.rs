//! Reports: verified, taken once, answered always.

use std::time::Duration;

use serde_json::json;
use trustfleet_model::job::RequestKind;
use trustfleet_wire::{
    Envelope,
    routing::device_reply_key,
    sign::{Purpose, SigningKey},
    v1::{Event, Failed, FromAgent, NodeSeen, ToAgent},
};

use crate::{
    fixture::{Fixture, add_agent, issued},
    support::until,
};

/// The event of an exchange that the CA refused.
pub fn failed(code: &str) -> Event {
    Event::Failed(Box::new(Failed {
        culprit: "peer_refusal".to_owned(),
        code: code.to_owned(),
        message: "the CA refused: check the MAC secret".to_owned(),
        pki_status: Some("rejection".to_owned()),
        fail_info: vec!["badMessageCheck".to_owned()],
        status_string: Some("no\u{1b}[2Jsuch user".to_owned()),
        transaction_id: Some("00ff".to_owned()),
        maybe_issued: false,
        duration_ms: 5,
        transcript: Vec::new(),
        in_service: None,
        in_use: None,
    }))
}

/// Sends a report and waits for its receipt.
pub async fn told(
    fixture: &Fixture,
    queue: &mut trustfleet_controller::broker::Subscription,
    report: &trustfleet_wire::v1::Report,
) {
    fixture.send_report(report).await;
    loop {
        match fixture.next(queue, Duration::from_secs(20)).await.expect("a receipt comes") {
            ToAgent::Receipt(receipt) if receipt.report_id == report.report_id => return,
            _ => {}
        }
    }
}

#[actix::test]
async fn an_enrolment_goes_its_way_and_every_step_is_in_the_audit() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;

    let fingerprint = "ab".repeat(32);
    let started = Event::Started { public_key_sha256: fingerprint.clone() };
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, started)).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_ca");
    assert_eq!(fixture.value::<String>("SELECT public_key_sha256 FROM jobs").await, fingerprint);
    assert_eq!(fixture.stored_trustpoint().await["request"]["awaiting"], "ca");

    told(&fixture, &mut queue, &fixture.report(job_id, sequence, Event::Waiting { check_after_s: 30, progress: None }))
        .await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "awaiting_poll");

    let (event, serial) = issued("ap-1");
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, event)).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "succeeded");
    assert_eq!(fixture.value::<String>("SELECT slot FROM certificates").await, "staged");
    assert_eq!(fixture.stored_trustpoint().await["staged"]["serial"], serial.as_str());

    let file = "/var/lib/agent/current/certificate.pem".to_owned();
    told(
        &fixture,
        &mut queue,
        &fixture.report(job_id, sequence, Event::Activated { serial, file: file.clone(), in_service: None }),
    )
    .await;
    assert_eq!(fixture.value::<String>("SELECT slot FROM certificates").await, "active");
    assert_eq!(fixture.value::<String>("SELECT file FROM certificates").await, file);
    assert_eq!(fixture.value::<String>("SELECT status FROM trustpoints").await, "active");
    assert!(fixture.value::<bool>("SELECT not_after IS NOT NULL FROM trustpoints").await);

    let rows = fixture.admin.query("SELECT actor, action FROM audit ORDER BY audit_id", &[]).await.unwrap();
    let lines: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let agent = format!("agent:{}", fixture.agent.id);
    let expected = [
        ("test", "trustpoint_created"),
        ("test", "job_created"),
        (agent.as_str(), "job_started"),
        (agent.as_str(), "job_waiting"),
        (agent.as_str(), "certificate_issued"),
        (agent.as_str(), "certificate_activated"),
    ];
    assert_eq!(lines, expected.map(|(actor, action)| (actor.to_owned(), action.to_owned())));
    assert!(!format!("{lines:?}").contains(crate::fixture::SECRET));

    until("the gauges to follow", async || {
        let (text, _) = fixture.services().metrics.render().unwrap();
        let wanted = [
            "trustfleet_jobs{state=\"succeeded\",tenant=\"acme\"} 1",
            "trustfleet_certificates{slot=\"active\",tenant=\"acme\"} 1",
            "trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"acme\"} 1",
        ];
        wanted.iter().all(|line| text.contains(line)).then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_that_comes_again_changes_nothing_and_is_answered() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let (event, _) = issued("ap-1");
    let report = fixture.report(job_id, sequence, event);
    told(&fixture, &mut queue, &report).await;
    let before: i64 = fixture.value("SELECT version FROM devices").await;
    told(&fixture, &mut queue, &report).await;
    // Late: the exchange has long ended.
    let late = Event::Started { public_key_sha256: "cd".repeat(32) };
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, late)).await;
    assert_eq!(fixture.value::<i64>("SELECT version FROM devices").await, before);
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM certificates").await, 1);
    let (text, _) = fixture.services().metrics.render().unwrap();
    assert!(
        text.contains("trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"acme\"} 1"),
        "counted twice"
    );
    fixture.core.stop().await;
}

#[actix::test]
async fn a_failure_is_told_at_the_job_and_at_the_trustpoint_and_nothing_is_stored_as_a_certificate() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("refused"))).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "failed");
    let trustpoint = fixture.stored_trustpoint().await;
    assert_eq!(trustpoint["last_failure"]["fail_info"], json!(["badMessageCheck"]));
    assert_eq!(trustpoint["last_failure"]["status_string"], "no[2Jsuch user");
    assert_eq!(fixture.value::<String>("SELECT status FROM trustpoints").await, "failed");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM certificates").await, 0);
    assert_ne!(fixture.enroll().await, job_id, "a failed job does not stand in the way of the next");
    fixture.core.stop().await;
}

#[actix::test]
async fn s53_a_clock_that_is_wrong_is_known_and_counted_until_it_is_right() {
    let fixture = Fixture::new().await;
    let gauge = async |wanted: &str| {
        until("the gauge to follow", async || {
            let (text, _) = fixture.services().metrics.render().unwrap();
            text.contains(&format!("trustfleet_agents_wrong_clock{{tenant=\"acme\"}} {wanted}\n")).then_some(())
        })
        .await;
    };
    *fixture.clock_off_s.lock().unwrap() = Some(-86_400);
    fixture.hello().await;
    gauge("1").await;
    assert_eq!(fixture.value::<i64>("SELECT clock_off_s FROM agents").await, -86_400);
    *fixture.clock_off_s.lock().unwrap() = None;
    fixture.hello_again().await;
    gauge("0").await;
    fixture.core.stop().await;
}

#[actix::test]
async fn s47_two_nodes_that_both_call_themselves_active_move_their_pair_once() {
    let fixture = Fixture::new().await;
    let other = fixture.add_device("ap-2").await;
    let pair = "UPDATE devices SET pair = 'p', standby = (device_id = $1)";
    fixture.admin.execute(pair, &[&other.as_uuid()]).await.unwrap();
    let since = fixture.services().clock.now();
    let says = |device: &str| NodeSeen { device: device.to_owned(), active: true, since };
    let active = "SELECT name FROM devices WHERE NOT standby";
    *fixture.nodes.lock().unwrap() = vec![says("ap-1"), says("ap-2"), says("ap-3")];
    fixture.hello().await;
    until("the one that stood by takes over", async || (fixture.value::<String>(active).await == "ap-2").then_some(()))
        .await;
    for _ in 0..3 {
        fixture.hello_again().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.value::<String>(active).await, "ap-2");
    let noted = "SELECT count(*) FROM audit WHERE action = 'device_switched_over' AND actor LIKE 'agent:%'";
    assert_eq!(fixture.value::<i64>(noted).await, 1);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_failed_activation_is_no_failed_exchange() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, issued("ap-1").0)).await;
    told(&fixture, &mut queue, &fixture.report(job_id, sequence, failed("reload_failed"))).await;
    assert_eq!(fixture.stored_trustpoint().await["last_failure"]["code"], "reload_failed");
    let (text, _) = fixture.services().metrics.render().unwrap();
    assert!(text.contains("trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"acme\"} 1"), "{text}");
    assert!(
        text.contains("trustfleet_exchanges_total{kind=\"ir\",result=\"peer_refusal\",tenant=\"acme\"} 0"),
        "{text}"
    );
    fixture.core.stop().await;
}

#[actix::test]
async fn an_activation_that_overtakes_the_issue_is_not_lost() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let (event, serial) = issued("ap-1");
    let activated = Event::Activated { serial, file: "/x/current/certificate.pem".to_owned(), in_service: None };
    fixture.send_report(&fixture.report(job_id, sequence, activated)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    fixture.send_report(&fixture.report(job_id, sequence, event)).await;
    until("the certificate to be active", async || {
        let rows = fixture.admin.query("SELECT slot FROM certificates", &[]).await.unwrap();
        (rows.first()?.get::<_, String>(0) == "active").then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_about_another_agents_job_is_refused_and_laid_aside() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let thief = add_agent(fixture.services(), &fixture.admin, fixture.tenant, "site-2").await;
    let mut report = fixture.report(job_id, sequence, issued("ap-1").0);
    report.agent_id = thief.id;
    fixture.send(&thief, &FromAgent::Report(Box::new(report))).await;
    refused(&fixture, "foreign_job").await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM certificates").await, 0);
    // The agent may have the job before it is marked as published.
    until("the job to wait for its agent still", async || {
        (fixture.value::<String>("SELECT state FROM jobs").await == "awaiting_agent").then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_with_a_foreign_signature_is_refused_and_laid_aside() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let message = FromAgent::Report(Box::new(fixture.report(job_id, sequence, failed("refused"))));
    let forged = Envelope::seal(&message, Purpose::FromAgent, &SigningKey::generate().unwrap()).unwrap();
    let key = device_reply_key(fixture.agent.id, fixture.device);
    fixture.send_bytes(key.clone(), forged.to_bytes().unwrap()).await;
    refused(&fixture, "not_authentic").await;

    fixture.send_bytes(key.clone(), b"not a message".to_vec()).await;
    refused(&fixture, "unreadable").await;
    fixture.send_bytes(key, br#"{"v":7}"#.to_vec()).await;
    refused(&fixture, "unknown_version").await;
    let reasons = "SELECT string_agg(reason, ' ' ORDER BY reason) FROM dead_letters";
    assert_eq!(fixture.value::<String>(reasons).await, "not_authentic unknown_version unreadable");
    // The agent may have the job before it is marked as published.
    until("the job to wait for its agent still", async || {
        (fixture.value::<String>("SELECT state FROM jobs").await == "awaiting_agent").then_some(())
    })
    .await;
    fixture.core.stop().await;
}

#[actix::test]
async fn an_update_needs_a_certificate_in_use_and_the_error_names_everything_that_is_missing() {
    let fixture = Fixture::new().await;
    fixture.admin.batch_execute("UPDATE devices SET agent_id = NULL, version = version + 1").await.unwrap();
    let error = fixture.enroll_as(RequestKind::Kur, None).await.unwrap_err();
    let fields: Vec<&str> = error.violations().unwrap().as_slice().iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["device.agent", "trustpoint.active"]);
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 0);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_that_cannot_be_worked_on_leaves_its_queue_and_is_taken_when_it_comes_again() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    // A row that this program cannot read, and an actor that has to read it.
    let spoil = "UPDATE trustpoints SET state = jsonb_set(state, '{v}', '7'); UPDATE devices SET version = version + 1";
    fixture.admin.batch_execute(spoil).await.unwrap();
    let report = fixture.report(job_id, sequence, failed("refused"));
    for _ in 0..3 {
        fixture.send_report(&report).await;
    }
    // Longer than all tries.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let mend = "UPDATE trustpoints SET state = jsonb_set(state, '{v}', '1'); UPDATE devices SET version = version + 1";
    fixture.admin.batch_execute(mend).await.unwrap();
    assert!(fixture.next(&mut queue, Duration::from_secs(2)).await.is_none(), "it went round and round");
    let letter = "SELECT reason || ' ' || times FROM dead_letters";
    assert_eq!(fixture.value::<String>(letter).await, "failed 3", "the same message is one letter");
    told(&fixture, &mut queue, &report).await;
    assert_eq!(fixture.value::<String>("SELECT state FROM jobs").await, "failed");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_about_a_device_of_somebody_else_wakes_no_actor() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let job_id = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    let actors = fixture.services().registry.len();
    let mut report = fixture.report(job_id, sequence, failed("refused"));
    report.device_id = fixture.services().fresh(trustfleet_model::ids::DeviceId::fresh).unwrap();
    fixture.send_report(&report).await;
    refused(&fixture, "foreign_job").await;
    assert_eq!(fixture.services().registry.len(), actors);
    fixture.core.stop().await;
}

/// Waits until the metric counts a refusal for this reason.
async fn refused(fixture: &Fixture, reason: &str) {
    let line = format!("trustfleet_reports_refused_total{{reason=\"{reason}\"}} 1");
    until(&line, async || {
        let (text, _) = fixture.services().metrics.render().unwrap();
        text.contains(&line).then_some(())
    })
    .await;
}

#[actix::test]
async fn s4_a_key_that_another_trustpoint_has_is_named_when_the_exchange_begins() {
    let fixture = Fixture::new().await;
    let mut queue = fixture.open_queue().await;
    let fingerprint = "ab".repeat(32);
    let started = || Event::Started { public_key_sha256: fingerprint.clone() };
    let first = fixture.enroll().await;
    let sequence = fixture.next_job(&mut queue).await.sequence;
    told(&fixture, &mut queue, &fixture.report(first, sequence, started())).await;
    assert!(fixture.stored_trustpoint().await["key_conflict"].is_null(), "its own key is no conflict");

    // A device that was cloned from it.
    let clone = fixture.add_device("ap-2").await;
    let trustpoint = fixture.add_trustpoint(clone, "mgmt").await.unwrap();
    let command = fixture.enroll_command(clone, RequestKind::Ir, None).await;
    fixture.ask(clone, command).await.unwrap();
    let job = fixture.next_job(&mut queue).await;
    let mut report = fixture.report(job.job_id, job.sequence, started());
    (report.device_id, report.trustpoint_id) = (clone, trustpoint);
    told(&fixture, &mut queue, &report).await;
    let conflict = "SELECT state -> 'trustpoint' ->> 'key_conflict' FROM trustpoints t JOIN devices d USING (device_id)
                    WHERE d.name = 'ap-2'";
    assert_eq!(fixture.value::<Option<String>>(conflict).await.as_deref(), Some("ap-1/mgmt"));
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM audit WHERE action = 'key_conflict'").await, 1);
}
