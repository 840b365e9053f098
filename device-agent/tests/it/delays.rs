//! A CA that lets its clients wait.

use trustfleet_wire::v1::{Enroll, Event, Request, Task};

use crate::ca::{TestCa, Trick};
use crate::house::House;

#[tokio::test]
async fn w1_waiting_is_polled_as_the_ca_says_and_told_once() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    house.send(&house.ir(1, &ca)).await;
    let report = house.wait_for("waiting").await;
    let Event::Waiting { check_after_s, progress } = report.event else { panic!() };
    let progress = progress.unwrap();
    assert_eq!((check_after_s, progress.polls, progress.requesting, progress.trouble), (1, 1, false, None));
    let early = progress.next_at.duration_since(report.at);
    assert!(early.as_millis() > 500 && early.as_millis() <= 1_000, "{early}");
    let issued = house.issued().await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir", "pollReq", "pollReq", "pollReq"]);
    assert_eq!(issued.polls, 3);
    assert_eq!(house.kinds(), ["started", "waiting", "issued", "activated"]);
}

#[tokio::test]
async fn w6_polling_goes_on_after_a_restart_within_the_same_transaction() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("waiting").await;
    house.kill_agent().await;
    house.start_agent().await;
    house.wait_for("activated").await;
    assert_eq!(ca.issued(), 1);
    assert_eq!(ca.heard().iter().filter(|body| **body == "ir").count(), 1);
    assert_eq!(house.kinds(), ["started", "waiting", "issued", "activated"]);
}

#[tokio::test]
async fn a_ca_that_lets_wait_and_cannot_be_polled_ends_the_exchange_and_the_failure_says_what_to_do() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Wait);
    let enroll = Enroll { no_polling: true, ..house.enroll(1, Request::Ir, &ca) };
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    let failed = house.failed().await;
    assert_eq!(
        (failed.code.as_str(), failed.culprit.as_str(), failed.maybe_issued),
        ("waiting_without_polling", "peer_refusal", true)
    );
    assert!(failed.message.contains("no_polling"), "{}", failed.message);
    assert!(!ca.heard().contains(&"pollReq"), "{:?}", ca.heard());
    assert_eq!(house.kinds(), ["started", "failed"]);
}
