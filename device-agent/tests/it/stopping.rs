//! Jobs that an operator stops (S37): cleanly towards the CA, honestly towards the operator, also over a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use trustfleet_agent::controller_link::Verdict;

use crate::ca::{Gate, TestCa, Trick};
use crate::house::{House, eventually, job_id};

fn keys_of(house: &House, number: u128) -> bool {
    house.trustpoint().join("versions").join(job_id(number).to_string()).exists()
}

#[tokio::test]
async fn s37_a_job_that_polls_is_stopped_the_ca_is_told_and_a_certificate_may_exist() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("waiting").await;
    assert_eq!(house.send_stop(1).await, Verdict::Ack);
    let failed = house.failed().await;
    assert_eq!((failed.code.as_str(), failed.culprit.as_str()), ("stopped", "configuration"));
    assert!(failed.maybe_issued, "the CA has the request and said that it works on it");
    assert_eq!(ca.heard().last(), Some(&"error"), "{:?}", ca.heard());
    let last = failed.transcript.last().unwrap();
    assert_eq!((last.what.as_str(), last.kind.as_deref()), ("sent", Some("error")), "and it is in the transcript");
    assert_eq!(ca.issued(), 0);
}

#[tokio::test]
async fn s37_a_job_that_has_not_begun_is_stopped_without_a_word_to_the_ca() {
    let house = House::configured("parallel_exchanges = 1\n").await;
    let ca = TestCa::start();
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the first request", || gate.reached.load(Ordering::SeqCst)).await;
    house.send(&house.ir(2, &ca)).await;
    house.send_stop(2).await;
    let failed = house.failed().await;
    assert!(failed.code == "stopped" && !failed.maybe_issued && failed.transcript.is_empty(), "{failed:?}");
    assert!(!keys_of(&house, 2), "no key was made for it");
    gate.open.store(true, Ordering::SeqCst);
    house.wait_for("activated").await;
    assert_eq!(ca.issued(), 1, "the other job went on");
}

#[tokio::test]
async fn s37_an_order_to_stop_survives_the_death_of_the_agent() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the request", || gate.reached.load(Ordering::SeqCst)).await;
    assert_eq!(house.send_stop(1).await, Verdict::Ack);
    house.kill_agent().await;
    house.start_agent().await;
    let failed = house.failed().await;
    assert!(failed.code == "stopped" && failed.maybe_issued, "{failed:?}");
    gate.open.store(true, Ordering::SeqCst);
    eventually("the ca goes on", || ca.heard().contains(&"ir")).await;
    assert_eq!(ca.heard().iter().filter(|body| **body == "ir").count(), 1, "nothing was asked for again");
}

#[tokio::test]
async fn s37_a_certificate_that_is_issued_is_brought_to_its_end_whatever_was_ordered() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    let (request, confirmation) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    request.open.store(true, Ordering::SeqCst);
    ca.trick(Trick::Gate(request));
    ca.trick(Trick::Gate(Arc::clone(&confirmation)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has certConf", || confirmation.reached.load(Ordering::SeqCst)).await;
    house.send_stop(1).await;
    confirmation.open.store(true, Ordering::SeqCst);
    house.wait_for("activated").await;
    assert_eq!(ca.issued(), 1);
    assert!(!house.kinds().contains(&"failed"), "{:?}", house.kinds());
    // And once more, when it is over: the last report is the answer.
    house.send_stop(1).await;
    eventually("the last report came again", || house.repetitions() > 0).await;
}

#[tokio::test]
async fn s37_a_job_that_nobody_knows_is_answered_as_stopped_and_leaves_nothing_behind() {
    let house = House::start().await;
    assert_eq!(house.send_stop(7).await, Verdict::Ack);
    let failed = house.failed().await;
    assert!(failed.code == "stopped" && !failed.maybe_issued && failed.transaction_id.is_none(), "{failed:?}");
}

#[tokio::test]
async fn s37_a_job_that_was_returned_ends_when_it_is_stopped_and_is_not_taken_up_again() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut late = house.ir(1, &ca);
    late.start_before = late.issued_at;
    house.send(&late).await;
    house.wait_for("permit_expired").await;
    house.send_stop(1).await;
    assert_eq!(house.failed().await.code, "stopped");
    let again = trustfleet_wire::v1::Job { sequence: late.sequence + 5, ..house.ir(1, &ca) };
    house.send(&again).await;
    eventually("its end is told again", || house.repetitions() > 0).await;
    assert_eq!(ca.heard().len(), 0);
}
