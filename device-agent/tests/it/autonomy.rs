//! Renewal by the agent itself, while its controller is out of reach.

use std::time::Duration;

use jiff::SignedDuration;
use trustfleet_agent::controller_link::{Incoming, Verdict};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{Enroll, Event, Lease, LeaseEnd, Request, ToAgent};

use crate::ca::TestCa;
use crate::house::{House, eventually};

/// Certificates are valid for so long here: their mark passes after a fifth of a second, at the latest after five.
const VALID_S: i64 = 20;

fn lease(house: &House, ca: &TestCa, sequence: u64, holds_s: i64) -> Lease {
    let now = SystemClock.now();
    let job = house.ir(1, ca);
    Lease {
        lease_id: uuid::Uuid::from_u128(0xc1).into(),
        tenant_id: job.tenant_id,
        agent_id: job.agent_id,
        device_id: job.device_id,
        device: job.device,
        trustpoint_id: job.trustpoint_id,
        trustpoint: job.trustpoint,
        sequence,
        issued_at: now,
        expires_at: now + SignedDuration::from_secs(holds_s),
        emergency_percent: 1,
        policy_revision: 1,
        reply_to: job.reply_to,
        services: Vec::new(),
        replaced_is_revoked: false,
        enroll: Box::new(Enroll { mac: None, ..house.enroll(1, Request::Kur, ca) }),
    }
}

fn end(lease: &Lease, sequence: u64) -> ToAgent {
    ToAgent::LeaseEnd(Box::new(LeaseEnd {
        lease_id: lease.lease_id,
        tenant_id: lease.tenant_id,
        agent_id: lease.agent_id,
        device_id: lease.device_id,
        trustpoint_id: lease.trustpoint_id,
        sequence,
        issued_at: lease.issued_at,
        expires_at: lease.expires_at,
        reply_to: lease.reply_to.clone(),
        reason: "auto_update_off".to_owned(),
    }))
}

/// A device with a certificate in use and a lease that holds for so many seconds.
async fn enrolled(config: &str, holds_s: i64) -> (TestCa, House, Lease) {
    let (ca, house) = (TestCa::start(), House::configured(config).await);
    ca.short_lived(VALID_S);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let lease = lease(&house, &ca, 1, holds_s);
    assert_eq!(house.tell(&ToAgent::Lease(Box::new(lease.clone()))).await, Verdict::Ack);
    eventually("the lease is answered", || !house.lease_answers().is_empty()).await;
    (ca, house, lease)
}

fn updates(ca: &TestCa) -> usize {
    ca.heard().iter().filter(|kind| **kind == "kur").count()
}

#[tokio::test]
async fn an_agent_that_is_cut_off_renews_a_certificate_past_its_mark_and_tells_of_it_after_a_restart() {
    let (ca, mut house, lease) = enrolled("", 3_600).await;
    assert_eq!(house.lease_answers(), [("held".to_owned(), None)]);
    let first = house.issued().await.certificate;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(updates(&ca), 0, "nothing happens while there is a link");

    house.link(Incoming::Down).await;
    eventually("the agent renews by itself", || updates(&ca) == 1).await;
    let file = house.trustpoint().join("current/certificate.pem");
    let in_use = || Certificate::from_pem(&std::fs::read_to_string(&file).unwrap()).unwrap();
    eventually("the new certificate is in use", || in_use().as_der() != first.0).await;
    assert!(house.reports().iter().all(|report| report.lease_id.is_none()), "told before there was a link");

    house.kill_agent().await;
    house.start_agent().await;
    house.wait_for_nth("activated", 2).await;
    let told: Vec<_> = house.reports().into_iter().filter(|report| report.lease_id == Some(lease.lease_id)).collect();
    let kinds: Vec<_> = told.iter().map(|report| crate::house::kind(&report.event)).collect();
    assert_eq!(kinds, ["started", "issued", "activated"]);
    assert!(told.iter().all(|report| report.job_id == told[0].job_id && report.sequence == lease.sequence));
    let Event::Issued(issued) = &told[1].event else { panic!("not issued") };
    assert_eq!(issued.certificate.0, in_use().as_der());
    assert_eq!(updates(&ca), 1, "and not a second time");
}

#[tokio::test]
async fn without_a_lease_that_holds_an_agent_that_is_cut_off_does_nothing() {
    let (short, ended, quarantined, unwilling) =
        tokio::join!(enrolled("", 1), enrolled("", 3_600), enrolled("", 3_600), enrolled("autonomy = false\n", 3_600));
    let [(state, reason)] = &unwilling.1.lease_answers()[..] else { panic!("one answer") };
    assert!(state == "refused" && reason.as_ref().is_some_and(|reason| reason.contains("autonomy")), "{reason:?}");

    let (_, house, lease) = &ended;
    assert_eq!(house.tell(&end(lease, 2)).await, Verdict::Ack);
    // The broker repeats what it had before.
    assert_eq!(house.tell(&ToAgent::Lease(Box::new(lease.clone()))).await, Verdict::Ack);
    eventually("the end is answered", || house.lease_answers().last().is_some_and(|(state, _)| state == "ended")).await;

    let cases = [("its time is over", &short), ("it was ended", &ended), ("quarantine", &quarantined)];
    for (_, (_, house, _)) in cases.into_iter().chain([("unwilling", &unwilling)]) {
        house.link(Incoming::Down).await;
    }
    quarantined.1.link(Incoming::Quarantined).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    for (why, (ca, _, _)) in cases.into_iter().chain([("unwilling", &unwilling)]) {
        assert_eq!(updates(ca), 0, "{why}");
    }
}

#[tokio::test]
async fn s47_a_node_that_is_seen_to_stand_by_renews_nothing_by_itself() {
    let standby = "[pairs.ap-1]\ncommand = [\"/bin/sh\", \"-c\", \"exit 1\"]\nsettle_s = 0\n";
    let (ca, house, _) = enrolled(standby, 3_600).await;
    eventually("it is seen to stand by", || house.state().join("nodes.json").exists()).await;
    house.link(Incoming::Down).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(updates(&ca), 0);
}

#[tokio::test]
async fn a_lease_that_orders_anything_but_an_update_without_secrets_is_refused() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let with_secret = house.enroll(1, Request::Kur, &ca);
    let first = Enroll { mac: None, ..house.enroll(1, Request::Ir, &ca) };
    for (n, enroll) in [(1, with_secret), (2, first)] {
        let lease = Lease { enroll: Box::new(enroll), ..lease(&house, &ca, n, 60) };
        house.tell(&ToAgent::Lease(Box::new(lease))).await;
    }
    eventually("both are answered", || house.lease_answers().len() == 2).await;
    assert!(house.lease_answers().iter().all(|(state, _)| state == "refused"), "{:?}", house.lease_answers());
}

#[tokio::test]
async fn an_order_to_replace_a_certificate_that_is_replaced_already_sends_nothing() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let replaces = Some("0BAD".to_owned());
    let enroll = Enroll { mac: None, replaces, ..house.enroll(2, Request::Kur, &ca) };
    house.send(&house.job(2, trustfleet_wire::v1::Task::Enroll(Box::new(enroll)))).await;
    let failed = house.failed().await;
    assert_eq!((failed.code.as_str(), failed.maybe_issued), ("replaced_already", false), "{failed:?}");
    assert_eq!(updates(&ca), 0);
}
