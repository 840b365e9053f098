//! HTTP as it really is: servers that are down, silent, lying or somewhere else.

use std::net::TcpListener;

use trustfleet_cmp::codec::FailureBit;
use trustfleet_wire::v1::{Request, Task};

use crate::ca::{TestCa, Trick};
use crate::house::House;

/// A URL where nobody listens.
fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/pkix/", listener.local_addr().unwrap())
}

async fn enroll_at(house: &House, ca: &TestCa, urls: Vec<String>) {
    let mut enroll = house.enroll(1, Request::Ir, ca);
    enroll.urls = urls;
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
}

#[tokio::test]
async fn s16_the_secondary_is_asked_when_the_primary_cannot_be_connected_to() {
    let (ca, house) = (TestCa::start(), House::start().await);
    enroll_at(&house, &ca, vec![dead_url(), ca.url.clone()]).await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir"]);
}

#[tokio::test]
async fn t5_a_primary_that_may_have_the_request_gets_the_same_bytes_again_and_the_secondary_nothing() {
    let (primary, secondary, house) = (TestCa::start(), TestCa::start(), House::start().await);
    primary.trick(Trick::NoAnswer);
    enroll_at(&house, &primary, vec![primary.url.clone(), secondary.url.clone()]).await;
    house.wait_for("activated").await;
    let raw = primary.raw();
    assert_eq!(raw.len(), 2);
    assert_eq!(raw[0], raw[1], "the identical bytes");
    assert!(secondary.heard().is_empty());
}

#[tokio::test]
async fn s37_a_lost_answer_costs_no_second_certificate() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::LoseAnswer);
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
    assert_eq!((ca.heard().as_slice(), ca.issued()), (["ir", "ir"].as_slice(), 1));
}

#[tokio::test]
async fn e4_a_refusal_of_repeated_bytes_says_nothing_of_the_first_time() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::NoAnswer);
    ca.trick(Trick::Refuse(vec![FailureBit::TransactionIdInUse], "in use".to_owned()));
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    let failed = house.failed().await;
    assert_eq!(failed.fail_info, ["transactionIdInUse"]);
    assert!(failed.maybe_issued, "the first one may have been granted");
}

#[tokio::test]
async fn a_ca_that_nobody_can_reach_fails_the_job_as_transport_and_says_that_nothing_was_issued() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.urls = vec![dead_url()];
    enroll.total_timeout_s = 2;
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("transport", "ca_unreachable"));
    assert!(!failed.maybe_issued && failed.message.contains("nothing was issued"), "{}", failed.message);
}

#[tokio::test]
async fn a_ca_that_swallows_requests_fails_the_job_as_maybe_issued() {
    let (ca, house) = (TestCa::start(), House::start().await);
    for _ in 0..10 {
        ca.trick(Trick::NoAnswer);
    }
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.total_timeout_s = 2;
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("transport", "ca_no_answer"));
    assert!(failed.maybe_issued && failed.message.contains("may have issued"), "{}", failed.message);
}

#[tokio::test]
async fn t2_a_cmp_message_under_an_http_error_is_read_all_the_same() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Under500);
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
}

#[tokio::test]
async fn an_answer_in_plain_text_is_a_clear_error_and_its_words_are_harmless() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let body = b"no such \x1b[31mservlet\r\n%s%n".to_vec();
    ca.trick(Trick::Http { status: 404, content_type: "text/plain", body });
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("transport", "ca_not_cmp"));
    assert!(failed.message.contains("404") && failed.message.contains("servlet"), "{}", failed.message);
    assert!(!failed.message.contains('\u{1b}') && !failed.message.contains('\n'));
    assert!(!failed.maybe_issued);
}

#[tokio::test]
async fn rubbish_under_200_is_the_peers_fault() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Http { status: 200, content_type: "application/pkixcmp", body: b"\x30\x03abc".to_vec() });
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("peer_message", "message_malformed"));
}

#[tokio::test]
async fn t9_an_answer_without_end_is_cut_off() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::Http { status: 200, content_type: "application/pkixcmp", body: vec![0x30; 3 * 1024 * 1024] });
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    assert_eq!(house.failed().await.code, "ca_answer_too_long");
}

#[tokio::test]
async fn t3_a_redirect_is_not_followed() {
    let (ca, elsewhere, house) = (TestCa::start(), TestCa::start(), House::start().await);
    ca.trick(Trick::Redirect(elsewhere.url.clone()));
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    let failed = house.failed().await;
    assert_eq!(failed.code, "ca_redirects");
    assert!(elsewhere.heard().is_empty());
}
