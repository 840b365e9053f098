//! A CA that lets its clients wait.

use trustfleet_wire::v1::Event;

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
