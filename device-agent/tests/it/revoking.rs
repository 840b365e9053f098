//! Jobs that have a certificate revoked (R8; RFC 9483 sections 4.2 and 5.3.2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use trustfleet_cmp::codec::{FailureBit, PkiMessage};
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{Blob, Event, Job, Request, Revoke, Revoked, Signer, Task};

use crate::ca::{Gate, TestCa, Trick};
use crate::house::{House, eventually};

fn revoke(house: &House, number: u128, certificate: &Blob, ca: &TestCa) -> Job {
    let like = house.enroll(number, Request::Ir, ca);
    let revoke = Revoke {
        certificate: certificate.clone(),
        reason: "keyCompromise".to_owned(),
        signer: None,
        recipient: like.recipient,
        urls: like.urls,
        source: None,
        accept_sha1_answers: false,
        trust_anchors: like.trust_anchors,
        verification_certificates: Vec::new(),
        message_timeout_s: 5,
        total_timeout_s: 60,
        no_polling: false,
        root_in_extra_certs: false,
    };
    house.job(number, Task::Revoke(Box::new(revoke)))
}

/// The certificate of job 1, in use.
async fn enrolled(house: &House, ca: &TestCa) -> Blob {
    house.send(&house.ir(1, ca)).await;
    let issued = house.issued().await;
    house.wait_for("activated").await;
    issued.certificate
}

async fn revoked(house: &House) -> Box<Revoked> {
    let Event::Revoked(revoked) = house.wait_for("revoked").await.event else { panic!() };
    revoked
}

fn serial(certificate: &Blob) -> Vec<u8> {
    Certificate::from_der(&certificate.0).unwrap().serial_der_bytes().to_vec()
}

fn rrs(ca: &TestCa) -> usize {
    ca.heard().iter().filter(|body| **body == "rr").count()
}

#[tokio::test]
async fn r8_a_certificate_is_revoked_by_an_rr_that_it_signs_itself() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let certificate = enrolled(&house, &ca).await;
    house.send(&revoke(&house, 2, &certificate, &ca)).await;
    let told = revoked(&house).await;
    let meant = Certificate::from_der(&certificate.0).unwrap();
    assert_eq!(told.serial, meant.serial_hex());
    assert_eq!(ca.revoked(), [serial(&certificate)]);
    let kinds: Vec<_> = told.transcript.iter().map(|entry| entry.kind.clone().unwrap_or_default()).collect();
    assert_eq!(kinds, ["rr", "rp"]);
    let Event::Started { public_key_sha256 } = house.wait_for_nth("started", 2).await.event else { panic!() };
    assert_eq!(public_key_sha256, hex::encode(meant.public_key().fingerprint()), "the signer's");
    assert_eq!(ca.issued(), 1, "and nothing else was asked for");
}

#[tokio::test]
async fn a_registration_authority_has_the_certificate_of_another_device_revoked_and_signs_with_its_own() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let lost = enrolled(&house, &ca).await;
    house.send(&house.ir(2, &ca)).await;
    let Event::Issued(authority) = house.wait_for_nth("issued", 2).await.event else { panic!() };
    house.wait_for_nth("activated", 2).await;

    let mut job = revoke(&house, 3, &lost, &ca);
    (job.device, job.trustpoint) = ("lost".to_owned(), "mgmt".to_owned());
    let Task::Revoke(order) = &mut job.task else { panic!() };
    order.signer = Some(Signer { device: "ap-1".to_owned(), trustpoint: "dot1x".to_owned() });
    house.send(&job).await;
    revoked(&house).await;
    assert_eq!(ca.revoked(), [serial(&lost)]);
    let last = ca.raw().pop().unwrap();
    let message = PkiMessage::from_der(&last).unwrap();
    let signer = message.extra_certs;
    assert_eq!(signer[0].to_tlv().unwrap(), authority.certificate.0, "X1: the authority's own certificate");
}

#[tokio::test]
async fn a_certificate_whose_key_is_gone_and_an_authority_that_is_not_here_send_nothing() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let retired = enrolled(&house, &ca).await;
    for number in [2, 3] {
        house.send(&house.ir(number, &ca)).await;
        house.wait_for_nth("activated", usize::try_from(number).unwrap()).await;
    }
    house.send(&revoke(&house, 4, &retired, &ca)).await;
    let failed = house.failed().await;
    assert_eq!((failed.code.as_str(), failed.maybe_issued), ("certificate_not_kept", false), "{failed:?}");
    assert!(failed.message.contains("registration authority"), "{}", failed.message);

    let mut job = revoke(&house, 5, &retired, &ca);
    let Task::Revoke(order) = &mut job.task else { panic!() };
    order.signer = Some(Signer { device: "ra-1".to_owned(), trustpoint: "ra".to_owned() });
    house.send(&job).await;
    let Event::Failed(failed) = house.wait_for_nth("failed", 2).await.event else { panic!() };
    assert_eq!(failed.code, "no_registration_authority", "{failed:?}");
    assert_eq!(rrs(&ca), 0);
}

#[tokio::test]
async fn w6_a_revocation_survives_the_death_of_the_agent_and_is_asked_for_with_the_same_bytes() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    let certificate = enrolled(&house, &ca).await;
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&revoke(&house, 2, &certificate, &ca)).await;
    eventually("the ca has the request", || gate.reached.load(Ordering::SeqCst)).await;
    house.kill_agent().await;
    gate.open.store(true, Ordering::SeqCst);
    house.start_agent().await;
    revoked(&house).await;
    assert_eq!(ca.revoked().len(), 1);
    let sent = ca.raw();
    assert_eq!(sent[sent.len() - 1], sent[sent.len() - 2], "t5: no second transaction");
}

#[tokio::test]
async fn a_ca_that_says_that_the_certificate_is_revoked_has_done_what_was_asked() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let certificate = enrolled(&house, &ca).await;
    ca.trick(Trick::Refuse(vec![FailureBit::CertRevoked], "long ago".to_owned()));
    house.send(&revoke(&house, 2, &certificate, &ca)).await;
    let told = revoked(&house).await;
    assert!(told.warnings[0].contains("revoked before"), "{:?}", told.warnings);
}

#[tokio::test]
async fn a_revocation_that_the_ca_refuses_or_does_not_hear_says_that_the_certificate_is_not_revoked() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let certificate = enrolled(&house, &ca).await;
    ca.trick(Trick::Refuse(vec![FailureBit::NotAuthorized], "not you".to_owned()));
    house.send(&revoke(&house, 2, &certificate, &ca)).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.maybe_issued), ("peer_refusal", false), "{failed:?}");
    assert_eq!(failed.fail_info, ["notAuthorized"]);
    assert!(failed.transaction_id.is_some() && ca.revoked().is_empty());
}
