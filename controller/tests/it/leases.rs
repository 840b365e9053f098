//! Leases: given, refreshed, ended; and what agents tell of renewals that they began by one.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use trustfleet_controller::broker::Subscription;
use trustfleet_model::ids::{JobId, MessageId};
use trustfleet_model::job::RequestKind;
use trustfleet_wire::v1::{Event, FromAgent, Lease, LeaseEnd, Receipt, Report, Request, ToAgent};

use crate::{
    fixture::{Fixture, add_agent, issued},
    renewal::{enrolled, set_policy},
    reports::told,
    support::until,
};

const LIMIT: Duration = Duration::from_secs(20);

async fn next_lease(fixture: &Fixture, queue: &mut Subscription) -> Lease {
    loop {
        match fixture.next(queue, LIMIT).await.expect("a lease comes") {
            ToAgent::Lease(lease) => return *lease,
            ToAgent::LeaseEnd(end) => panic!("an end: {end:?}"),
            _ => {}
        }
    }
}

async fn next_end(fixture: &Fixture, queue: &mut Subscription) -> LeaseEnd {
    loop {
        match fixture.next(queue, LIMIT).await.expect("an end comes") {
            ToAgent::LeaseEnd(end) => return *end,
            ToAgent::Lease(lease) => panic!("a lease: {lease:?}"),
            _ => {}
        }
    }
}

/// Answers as an agent that has it on its disk.
async fn answer(fixture: &Fixture, lease: &Lease, state: &str) {
    let now = fixture.services().clock.now();
    let id = fixture.services().fresh(MessageId::fresh).unwrap();
    let answer = FromAgent::Lease(Box::new(lease.answer(id, now, state, None)));
    fixture.send(&fixture.agent, &answer).await;
    until("the answer is noted", async || {
        let sql = "SELECT answered_sequence = sequence AND answer = 'held' FROM leases";
        fixture.value::<bool>(sql).await.then_some(())
    })
    .await;
}

/// A trustpoint with a certificate in use whose agent holds a lease.
async fn leased() -> (Fixture, Subscription, Lease) {
    let fixture = Fixture::new().await;
    fixture.takes_leases.store(true, Ordering::Relaxed);
    let mut queue = enrolled(&fixture).await;
    fixture.hello().await;
    set_policy(&fixture, json!({ "enabled": true })).await;
    let lease = next_lease(&fixture, &mut queue).await;
    answer(&fixture, &lease, "held").await;
    (fixture, queue, lease)
}

fn by_lease(fixture: &Fixture, lease: &Lease, job_id: JobId, event: Event) -> Report {
    Report { lease_id: Some(lease.lease_id), ..fixture.report(job_id, lease.sequence, event) }
}

/// The answer to a report.
async fn receipt(fixture: &Fixture, queue: &mut Subscription, report: &Report) -> Receipt {
    fixture.send_report(report).await;
    loop {
        match fixture.next(queue, LIMIT).await.expect("a receipt comes") {
            ToAgent::Receipt(receipt) if receipt.report_id == report.report_id => return receipt,
            _ => {}
        }
    }
}

#[actix::test]
async fn an_agent_that_takes_leases_gets_one_without_secrets_and_a_new_one_when_its_ca_is_changed() {
    let (fixture, mut queue, lease) = leased().await;
    assert_eq!((lease.sequence, lease.emergency_percent, lease.trustpoint.as_str()), (1, 90, "mgmt"));
    assert!(lease.enroll.mac.is_none() && lease.enroll.request == Request::Kur && lease.enroll.activate);
    let life = lease.expires_at.duration_since(lease.issued_at).as_secs();
    assert_eq!(life, 30 * 86_400);

    // As an operator's change of the CA server does.
    let sql = "UPDATE ca_servers SET spec = jsonb_set(spec, '{primary_url}', '\"http://other.example/pkix/\"'), \
               revision = revision + 1";
    fixture.admin.execute(sql, &[]).await.unwrap();
    let again = next_lease(&fixture, &mut queue).await;
    assert_eq!((again.lease_id, again.sequence), (lease.lease_id, 2), "the same lease, with what counts now");
    assert_eq!(again.enroll.urls, ["http://other.example/pkix/"]);

    // What is not answered is offered again in the next session, and not before.
    assert!(fixture.next(&mut queue, Duration::from_secs(3)).await.is_none());
    fixture.hello().await;
    assert_eq!(next_lease(&fixture, &mut queue).await.sequence, 3);
    fixture.core.stop().await;
}

#[actix::test]
async fn a_lease_ends_with_automatic_update_with_its_trustpoint_and_in_quarantine_and_can_be_given_anew() {
    let (fixture, mut queue, lease) = leased().await;
    set_policy(&fixture, json!({ "enabled": false })).await;
    let end = next_end(&fixture, &mut queue).await;
    assert_eq!((end.lease_id, end.sequence, end.reason.as_str()), (lease.lease_id, 2, "auto_update_off"));
    assert!(end.expires_at >= lease.expires_at, "remembered until no lease of before could hold");
    set_policy(&fixture, json!({ "enabled": true })).await;
    assert_eq!(next_lease(&fixture, &mut queue).await.sequence, 3);

    // As the quarantine of its agent does, and then its release.
    let (tenant, agent, now) = (fixture.tenant, fixture.agent.id, fixture.services().clock.now());
    let ended: Result<u64, trustfleet_controller::db::DbError> = fixture
        .services()
        .store
        .tenant_tx(tenant, "test", async move |tx| {
            tx.agent_quarantine(agent, "stolen", now).await?;
            tx.leases_of_quarantined(agent, now).await
        })
        .await;
    assert_eq!(ended.unwrap(), 1);
    fixture.admin.execute("UPDATE trustpoints SET planned_revision = 0", &[]).await.unwrap();
    assert!(
        fixture.next(&mut queue, Duration::from_secs(3)).await.is_none(),
        "nothing is said to it, and nothing given"
    );
    fixture.admin.execute("UPDATE agents SET quarantined_at = NULL, quarantine_reason = NULL", &[]).await.unwrap();
    fixture.hello().await;
    let given = next_lease(&fixture, &mut queue).await;
    assert!(given.sequence > 3);
    answer(&fixture, &given, "held").await;

    fixture
        .ask(
            fixture.device,
            trustfleet_controller::device::Command::RemoveTrustpoint(trustfleet_controller::device::RemoveTrustpoint {
                trustpoint: fixture.trustpoint_name.clone(),
                requested_by: trustfleet_controller::device::Requester::new("test", "operator"),
            }),
        )
        .await
        .unwrap();
    assert_eq!(next_end(&fixture, &mut queue).await.reason, "trustpoint_removed");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_renewal_that_an_agent_began_by_its_lease_is_recorded_as_a_job_of_its_own_and_once() {
    let (fixture, mut queue, lease) = leased().await;
    let job_id = fixture.services().fresh(JobId::fresh).unwrap();
    let started = by_lease(&fixture, &lease, job_id, Event::Started { public_key_sha256: "ab".repeat(32) });
    let (event, serial) = issued("ap-1");
    let issued = by_lease(&fixture, &lease, job_id, event);
    let file = "/current".to_owned();
    let in_use = Event::Activated { serial: serial.clone(), file, in_service: None };
    let activated = by_lease(&fixture, &lease, job_id, in_use);
    for report in [&started, &started, &issued, &activated, &issued] {
        told(&fixture, &mut queue, report).await;
    }
    let job =
        "SELECT kind || ' ' || state || ' ' || (requested_by = 'agent:' || agent_id) || ' ' || (lease_id IS NOT NULL)
               FROM jobs ORDER BY created_at DESC LIMIT 1";
    assert_eq!(fixture.value::<String>(job).await, "kur succeeded true true");
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs").await, 2);
    assert_eq!(fixture.stored_trustpoint().await["active"]["serial"], serial.as_str());
    let actions = "SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit WHERE object_id = $1";
    let actions: String = fixture.admin.query_one(actions, &[&job_id.as_uuid()]).await.unwrap().get(0);
    assert_eq!(actions, "autonomous_renewal_begun job_started certificate_issued certificate_activated");
    let (text, _) = fixture.services().metrics.render().unwrap();
    assert!(text.contains("trustfleet_autonomous_renewals_total{result=\"issued\"} 1"), "{text}");
    fixture.core.stop().await;
}

#[actix::test]
async fn a_report_of_a_renewal_without_a_lease_or_by_anothers_is_refused_and_makes_no_job() {
    let (fixture, mut queue, lease) = leased().await;
    let started = || Event::Started { public_key_sha256: "ab".repeat(32) };
    let job_id = || fixture.services().fresh(JobId::fresh).unwrap();
    let invented = Lease { lease_id: uuid::Uuid::from_u128(5).into(), ..lease.clone() };
    let forged = by_lease(&fixture, &invented, job_id(), started());
    assert_eq!(receipt(&fixture, &mut queue, &forged).await.refused.as_deref(), Some("unknown_lease"));
    let elsewhere = fixture.add_device("ap-2").await;
    let moved = Report { device_id: elsewhere, ..by_lease(&fixture, &lease, job_id(), started()) };
    assert_eq!(receipt(&fixture, &mut queue, &moved).await.refused.as_deref(), Some("foreign_job"));
    let thief = add_agent(fixture.services(), &fixture.admin, fixture.tenant, "site-2").await;
    let stolen = Report { agent_id: thief.id, ..by_lease(&fixture, &lease, job_id(), started()) };
    fixture.send(&thief, &FromAgent::Report(Box::new(stolen))).await;
    until("it is counted", async || {
        let (text, _) = fixture.services().metrics.render().unwrap();
        text.contains("trustfleet_reports_refused_total{reason=\"foreign_job\"} 2").then_some(())
    })
    .await;
    assert_eq!(fixture.value::<i64>("SELECT count(*) FROM jobs WHERE lease_id IS NOT NULL").await, 0);
    fixture.core.stop().await;
}

#[actix::test]
async fn an_autonomous_job_is_never_sent_to_its_agent_and_one_that_is_lost_is_ended_by_it() {
    let (fixture, mut queue, lease) = leased().await;
    let job_id = fixture.services().fresh(JobId::fresh).unwrap();
    let started = by_lease(&fixture, &lease, job_id, Event::Started { public_key_sha256: "ab".repeat(32) });
    told(&fixture, &mut queue, &started).await;
    fixture.hello().await;
    let quiet = fixture.next(&mut queue, Duration::from_secs(3)).await;
    assert!(quiet.is_none(), "{quiet:?}");
    let late =
        "UPDATE jobs SET task = jsonb_set(task, '{ends_by}', '\"2020-01-01T00:00:00Z\"') WHERE lease_id IS NOT NULL";
    fixture.admin.execute(late, &[]).await.unwrap();
    fixture.hello().await;
    match fixture.next(&mut queue, LIMIT).await {
        Some(ToAgent::Stop(stop)) => assert_eq!(stop.job_id, job_id),
        other => panic!("{other:?}"),
    }
    fixture.core.stop().await;
}

#[actix::test]
async fn after_an_agent_renewed_by_itself_less_of_its_cas_budget_is_left_for_jobs() {
    let (fixture, mut queue, lease) = leased().await;
    let budget = "UPDATE ca_endpoints SET rate_per_s = 0.001, burst = 2, concurrency = 100, tokens = 2, tokens_at = clock_timestamp()
                  WHERE endpoint = 'ca.example:80'";
    assert_eq!(fixture.admin.execute(budget, &[]).await.unwrap(), 1);
    let job: JobId = fixture.services().fresh(JobId::fresh).unwrap();
    let begun = Event::Started { public_key_sha256: "ab".repeat(32) };
    receipt(&fixture, &mut queue, &by_lease(&fixture, &lease, job, begun)).await;
    let exempt = "SELECT exempt FROM ca_endpoints WHERE endpoint = 'ca.example:80'";
    until("it is counted", async || (fixture.value::<i64>(exempt).await == 1).then_some(())).await;
    for name in ["d-1", "d-2"] {
        let device = fixture.add_device(name).await;
        fixture.add_trustpoint(device, "mgmt").await.unwrap();
        let command = fixture.enroll_command(device, RequestKind::Ir, None).await;
        fixture.ask(device, command).await.unwrap();
    }
    fixture.next_job(&mut queue).await;
    loop {
        match fixture.next(&mut queue, Duration::from_millis(700)).await {
            Some(ToAgent::Job(job)) => panic!("a burst of two went to the CA beside what its agent began: {job:?}"),
            Some(_) => {}
            None => break,
        }
    }
    fixture.core.stop().await;
}
