//! HTTP as it really is: servers that are down, silent, lying or somewhere else.

use std::net::TcpListener;
use std::time::Duration;

use trustfleet_cmp::codec::{FailureBit, PkiMessage};
use trustfleet_wire::v1::{Request, Task};
use url::Url;

use crate::ca::{TestCa, Trick};
use crate::cmp_cli_tls::tls_in_front_of;
use crate::cmp_shell::Desk;
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
async fn s31a_no_key_is_made_for_a_first_request_while_no_server_can_be_connected_to() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    (enroll.urls, enroll.total_timeout_s) = (vec![dead_url(), dead_url()], 2);
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    house.failed().await;
    assert_eq!(house.kinds(), ["failed"], "not even begun");
    assert!(!house.trustpoint().join("versions").exists(), "a key was made");
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
    ca.trick(Trick::Under(500, "application/pkixcmp"));
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
}

#[tokio::test]
async fn t1_every_message_is_posted_as_the_whole_content_with_its_content_type() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    ca.trick(Trick::Wait);
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir", "pollReq", "pollReq", "pollReq", "certConf"]);
    for (head, content) in ca.heads().iter().zip(ca.raw()) {
        let message = PkiMessage::from_der(&content).unwrap();
        assert_eq!(message.to_der().unwrap(), content, "one PKIMessage and nothing else");
        assert!(head.starts_with("POST /pkix/?profile=ap HTTP/1.1\r\n"), "{head}");
        let fields: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let of = |name| fields.iter().filter(|(field, _)| *field == name).map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(of("content-type"), ["application/pkixcmp"]);
        assert_eq!(of("content-length"), [content.len().to_string()]);
        assert!(of("content-encoding").is_empty() && of("transfer-encoding").is_empty(), "{head}");
    }
}

#[tokio::test]
async fn t4_no_status_of_http_changes_a_transaction() {
    for status in [201, 202, 206, 400, 401, 403, 404, 409, 410, 429, 500, 502, 503] {
        let (ca, house) = (TestCa::start(), House::start().await);
        ca.never_confirm_implicitly();
        for _ in 0..2 {
            ca.trick(Trick::Under(status, "application/pkixcmp"));
        }
        enroll_at(&house, &ca, vec![ca.url.clone()]).await;
        house.wait_for("activated").await;
        assert_eq!((ca.heard().as_slice(), ca.issued()), (["ir", "certConf"].as_slice(), 1), "{status}");
    }
}

#[tokio::test]
async fn t4_a_good_status_without_a_message_confirms_nothing_and_a_bad_one_ends_nothing() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    ca.trick(Trick::Under(200, "application/pkixcmp"));
    ca.trick(Trick::Http { status: 503, content_type: "text/plain", body: b"come back later".to_vec() });
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
    let ids: Vec<_> = ca.raw().iter().map(|raw| PkiMessage::from_der(raw).unwrap().header.transaction_id).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "503 was no end: {ids:?}");

    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    ca.trick(Trick::Under(200, "application/pkixcmp"));
    ca.trick(Trick::Http { status: 200, content_type: "application/pkixcmp", body: Vec::new() });
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    let failed = house.failed().await;
    assert_eq!(failed.code, "ca_not_cmp");
    assert!(failed.maybe_issued, "no pkiConf came, whatever 200 says");
    assert!(!house.trustpoint().join("current").exists());
}

#[tokio::test]
async fn t7_the_whole_transaction_goes_to_one_uri_over_lost_answers_and_a_restart() {
    let (primary, secondary, mut house) = (TestCa::start(), TestCa::start(), House::start().await);
    primary.never_confirm_implicitly();
    primary.trick(Trick::Wait);
    primary.trick(Trick::NoAnswer);
    enroll_at(&house, &primary, vec![primary.url.clone(), secondary.url.clone()]).await;
    house.wait_for("waiting").await;
    house.kill_agent().await;
    house.start_agent().await;
    house.wait_for("activated").await;
    let lines: Vec<_> = primary.heads().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    assert!(lines.len() >= 5 && lines.iter().all(|line| line == "POST /pkix/?profile=ap HTTP/1.1"), "{lines:?}");
    assert_eq!(primary.heard().last(), Some(&"certConf"));
    assert!(secondary.heard().is_empty(), "{:?}", secondary.heard());
}

#[tokio::test]
async fn t8_application_pkixcmp_poll_is_taken_as_application_pkixcmp() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    for _ in 0..2 {
        ca.trick(Trick::Under(200, "application/pkixcmp-poll"));
    }
    enroll_at(&house, &ca, vec![ca.url.clone()]).await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir", "certConf"]);
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

#[tokio::test]
async fn an_https_ca_sees_the_configured_certificate_and_one_that_replaced_it_counts_at_once() {
    let (ca, desk) = (TestCa::start(), Desk::new());
    let plain = Url::parse(&ca.url).unwrap().socket_addrs(|| None).unwrap()[0];
    let port = tls_in_front_of(&desk, plain, true).port();
    let shown = |certificate: &str, key: &str| {
        desk.write("shown.crt", &desk.read(certificate));
        desk.write("shown.key", &desk.read(key));
    };
    shown("tls.crt", "tls.key");
    let folder = desk.folder.path().display();
    let config = format!(
        "tls_ca_file = \"{folder}/tls.crt\"\n[ca_tls]\ncert_file = \"{folder}/shown.crt\"\nkey_file = \"{folder}/shown.key\"\n"
    );
    let house = House::configured(&config).await;
    enroll_at(&house, &ca, vec![format!("https://localhost:{port}/pkix/")]).await;
    house.wait_for("started").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ca.heard().is_empty(), "a stranger's certificate opens nothing");
    shown("factory.crt", "factory.key");
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir"]);
}
