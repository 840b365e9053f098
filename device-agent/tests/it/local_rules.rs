//! What the device itself has a word in: which servers and anchors a job may name, and where connections come from.

use std::fs;
use std::net::IpAddr;

use trustfleet_agent::controller_link::Verdict;
use trustfleet_cmp::key::{KeyType, SoftwareKey};
use trustfleet_pki::Certificate;
use trustfleet_pki::digest::sha256;
use trustfleet_wire::v1::{Blob, Enroll, Failed, Request, Source, Task};

use crate::authority::{Authority, Leaf};
use crate::ca::{TestCa, Trick};
use crate::house::House;

fn fingerprint(certificate: &Certificate) -> String {
    hex::encode(sha256(certificate.as_der()))
}

async fn order(house: &House, enroll: Enroll) {
    assert_eq!(house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await, Verdict::Ack);
}

/// It failed before a key was made or a byte was sent.
async fn refused(house: &House, ca: &TestCa, code: &str) -> Box<Failed> {
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("configuration", code), "{failed:?}");
    assert!(!failed.maybe_issued && failed.message.contains("nothing was sent"), "{}", failed.message);
    assert_eq!(house.kinds(), ["failed"]);
    assert!(ca.peers().is_empty(), "somebody called the CA");
    assert!(!house.trustpoint().join("versions").exists(), "a key was made");
    failed
}

#[tokio::test]
async fn a_job_inside_of_what_the_device_accepts_runs() {
    let ca = TestCa::start();
    let anchor = fingerprint(&ca.authority.certificate);
    let server = ca.url.split('?').next().unwrap();
    let house =
        House::configured(&format!("[accept]\nca_urls = [\"{server}\"]\nanchor_fingerprints = [\"{anchor}\"]")).await;
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
}

#[tokio::test]
async fn a_job_with_an_anchor_that_the_device_does_not_accept_sends_nothing_and_names_the_key() {
    let (ca, other) = (TestCa::start(), Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256));
    let listed = tempfile::NamedTempFile::new().unwrap();
    fs::write(listed.path(), other.certificate.to_pem()).unwrap();
    let house = House::configured(&format!("[accept]\nanchor_files = [{:?}]", listed.path())).await;
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.trust_anchors.insert(0, Blob(other.certificate.as_der().to_vec()));
    order(&house, enroll).await;
    let failed = refused(&house, &ca, "not_accepted_here").await;
    assert!(
        failed.message.contains("trust_anchors[1]") && failed.message.contains("accept.anchor_files"),
        "{}",
        failed.message
    );
    assert!(failed.message.contains(&fingerprint(&ca.authority.certificate)), "{}", failed.message);
    assert!(!failed.message.contains("trust_anchors[0]"), "{}", failed.message);
}

#[tokio::test]
async fn a_pinned_signer_must_be_listed_or_be_a_listed_anchors_own() {
    let (ca, stranger) = (TestCa::start(), Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256));
    let anchor = fingerprint(&ca.authority.certificate);
    let house = House::configured(&format!("[accept]\nanchor_fingerprints = [\"{anchor}\"]")).await;
    let signer = |by: &Authority| {
        let key = SoftwareKey::generate(KeyType::P256).unwrap();
        Blob(by.issue(&Leaf::new("/O=Lab/CN=RA", &key)).as_der().to_vec())
    };
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.verification_certificates = vec![signer(&ca.authority), signer(&stranger)];
    order(&house, enroll).await;
    let failed = refused(&house, &ca, "not_accepted_here").await;
    assert!(failed.message.contains("verification_certificates[1]"), "{}", failed.message);
    assert!(!failed.message.contains("verification_certificates[0]"), "{}", failed.message);
}

#[tokio::test]
async fn a_job_with_a_server_that_the_device_does_not_accept_sends_nothing_not_even_to_the_other_one() {
    let (ca, elsewhere) = (TestCa::start(), TestCa::start());
    let server = ca.url.split('?').next().unwrap();
    let house = House::configured(&format!("[accept]\nca_urls = [\"{server}\"]")).await;
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.urls = vec![ca.url.clone(), elsewhere.url.clone()];
    order(&house, enroll).await;
    let failed = refused(&house, &ca, "not_accepted_here").await;
    assert!(failed.message.contains("urls[1]") && failed.message.contains("accept.ca_urls"), "{}", failed.message);
    assert!(elsewhere.peers().is_empty());
}

#[tokio::test]
async fn an_exchange_that_began_before_the_device_said_no_ends_and_may_be_issued() {
    let ca = TestCa::start();
    let mut house = House::start().await;
    ca.trick(Trick::Wait);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("waiting").await;
    house.kill_agent().await;
    let heard = ca.heard().len();
    house.config = "[accept]\nca_urls = [\"https://ca.example/\"]".to_owned();
    house.start_agent().await;
    let failed = house.failed().await;
    assert!(failed.code == "not_accepted_here" && failed.maybe_issued, "{failed:?}");
    assert_eq!(ca.heard().len(), heard, "not asked any more");
}

#[tokio::test]
async fn s7_the_ca_sees_the_address_that_the_policy_names() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.source = Some(Source { address: Some("127.0.0.9".to_owned()), interface: None });
    order(&house, enroll).await;
    house.wait_for("activated").await;
    assert_eq!(ca.peers(), [IpAddr::from([127, 0, 0, 9]); 2], "request and confirmation");
}

#[tokio::test]
async fn s7_where_no_order_says_so_the_ca_sees_the_agents_own_source() {
    for (ordered, seen) in [(None, [127, 0, 0, 8]), (Some("127.0.0.9"), [127, 0, 0, 9])] {
        let (ca, house) = (TestCa::start(), House::configured("source.address = \"127.0.0.8\"").await);
        let mut enroll = house.enroll(1, Request::Ir, &ca);
        enroll.source = ordered.map(|address| Source { address: Some(address.to_owned()), interface: None });
        order(&house, enroll).await;
        house.wait_for("activated").await;
        let peers = ca.peers();
        assert!(!peers.is_empty() && peers.iter().all(|peer| *peer == IpAddr::from(seen)), "{ordered:?}: {peers:?}");
    }
}

#[tokio::test]
async fn s7_connections_go_through_the_interface_that_the_policy_names() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.source = Some(Source { address: Some("127.0.0.1".to_owned()), interface: Some("lo".to_owned()) });
    order(&house, enroll).await;
    house.wait_for("activated").await;
}

#[tokio::test]
async fn s7_a_source_that_the_device_does_not_have_fails_the_job_before_a_key_is_made() {
    for (address, interface, said) in [
        (None, Some("no-such-one"), "there is no network interface"),
        (Some("192.0.2.1"), None, "no address of this device"),
        (Some("192.0.2.1"), Some("lo"), "no address of lo; there are 127.0.0.1"),
    ] {
        let (ca, house) = (TestCa::start(), House::start().await);
        let mut enroll = house.enroll(1, Request::Ir, &ca);
        enroll.source = Some(Source { address: address.map(str::to_owned), interface: interface.map(str::to_owned) });
        order(&house, enroll).await;
        let failed = refused(&house, &ca, "source_unusable").await;
        assert!(failed.message.contains(said), "{}", failed.message);
    }
}
