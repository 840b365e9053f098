//! What the agent takes from the broker, and what it does not.

use jiff::{SignedDuration, Timestamp};
use trustfleet_agent::controller_link::Verdict;
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_wire::Envelope;
use trustfleet_wire::sign::{Purpose, SigningKey};
use trustfleet_wire::v1::ToAgent;

use crate::ca::{Gate, TestCa, Trick};
use crate::house::{House, eventually, job_id};

fn seconds_ago(seconds: i64) -> Timestamp {
    SystemClock.now().checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

#[tokio::test]
async fn a_job_that_another_key_has_signed_goes_to_the_dead_letters() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let message = ToAgent::Job(Box::new(house.ir(1, &ca)));
    let forger = SigningKey::generate().unwrap();
    let envelope = Envelope::seal(&message, Purpose::ToAgent, &forger).unwrap();
    assert_eq!(house.deliver(envelope.to_bytes().unwrap()).await, Verdict::Reject);
    let reflected = Envelope::seal(&message, Purpose::FromAgent, &house.controller_key).unwrap();
    assert_eq!(house.deliver(reflected.to_bytes().unwrap()).await, Verdict::Reject, "signed for another purpose");
    assert!(ca.heard().is_empty() && house.reports().is_empty());
}

#[tokio::test]
async fn rubbish_and_later_versions_go_to_the_dead_letters_and_the_agent_lives_on() {
    let (ca, house) = (TestCa::start(), House::start().await);
    for bytes in [b"".to_vec(), b"\xff\x00".to_vec(), br#"{"v":2}"#.to_vec(), vec![b'['; 100_000], vec![0; 600_000]] {
        assert_eq!(house.deliver(bytes).await, Verdict::Reject);
    }
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
}

#[tokio::test]
async fn a_job_for_another_agent_or_past_its_expiry_does_nothing() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut foreign = house.ir(1, &ca);
    foreign.agent_id = uuid::Uuid::from_u128(0xbad).into();
    assert_eq!(house.send(&foreign).await, Verdict::Ack);
    let mut late = house.ir(2, &ca);
    late.expires_at = seconds_ago(1);
    assert_eq!(house.send(&late).await, Verdict::Ack);
    assert!(ca.heard().is_empty() && house.reports().is_empty());
}

#[tokio::test]
async fn a_job_past_its_permit_is_returned_and_runs_with_the_next_one() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut job = house.ir(1, &ca);
    job.start_before = seconds_ago(1);
    house.send(&job).await;
    house.wait_for("permit_expired").await;
    assert!(ca.heard().is_empty());
    assert_eq!(house.send(&job).await, Verdict::Ack, "the same message again changes nothing");
    let mut admitted = house.ir(1, &ca);
    admitted.sequence = job.sequence + 1;
    house.send(&admitted).await;
    let issued = house.wait_for("issued").await;
    assert_eq!(issued.sequence, admitted.sequence);
    house.wait_for("activated").await;
    assert_eq!(house.send(&job).await, Verdict::Ack, "an older message is stale");
    assert_eq!(house.kinds(), ["permit_expired", "started", "issued", "activated"]);
    assert_eq!(ca.issued(), 1);
}

#[tokio::test]
async fn a_trustpoint_has_one_exchange_at_a_time() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let gate = std::sync::Arc::new(Gate::default());
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    let reached = gate.clone();
    eventually("the ca has the first request", || reached.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    house.send(&house.ir(2, &ca)).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(house.kinds(), ["started"], "the second waits");
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    house.wait_for_nth("activated", 2).await;
    assert_eq!(ca.issued(), 2);
}

#[tokio::test]
async fn a_job_whose_turn_does_not_come_in_time_is_returned() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let gate = std::sync::Arc::new(Gate::default());
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the first request", || gate.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    let mut second = house.ir(2, &ca);
    second.start_before = SystemClock.now().checked_add(SignedDuration::from_millis(300)).unwrap();
    house.send(&second).await;
    let returned = house.wait_for("permit_expired").await;
    assert_eq!(returned.job_id, job_id(2));
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    house.wait_for("activated").await;
    assert_eq!(ca.issued(), 1);
}

#[tokio::test]
async fn several_trustpoints_are_enrolled_at_once() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let gate = std::sync::Arc::new(Gate::default());
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the first request", || gate.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    let mut other = house.ir(2, &ca);
    other.device = "ap-2".to_owned();
    house.send(&other).await;
    let activated = house.wait_for("activated").await;
    assert_eq!(activated.job_id, job_id(2), "the second device does not wait for the first");
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    house.wait_for_nth("activated", 2).await;
}

#[tokio::test]
async fn the_trace_goes_through_to_every_report() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let job = house.ir(1, &ca);
    house.send(&job).await;
    house.wait_for("activated").await;
    assert!(house.reports().iter().all(|report| report.traceparent == job.traceparent));
}

#[tokio::test]
async fn a_gateway_enrols_all_its_devices_however_many_jobs_come_at_once() {
    const DEVICES: usize = 60;
    let (ca, house) = (TestCa::start(), House::start().await);
    for number in 1..=DEVICES {
        let mut job = house.ir(u128::try_from(number).unwrap(), &ca);
        job.device = format!("cam-{number}");
        assert_eq!(house.send(&job).await, Verdict::Ack);
    }
    house.wait_for_nth("activated", DEVICES).await;
    assert_eq!(ca.issued(), u32::try_from(DEVICES).unwrap());
    assert_eq!(house.kinds().len(), 3 * DEVICES, "each started, issued, activated once");
}
