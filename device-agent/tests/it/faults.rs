//! The bad ends: each says who is to blame, leaves nothing behind that looks like a certificate, and is reported.

use std::fs;

use trustfleet_agent::controller_link::Verdict;
use trustfleet_cmp::codec::FailureBit;
use trustfleet_wire::seal::{SealContext, seal};
use trustfleet_wire::v1::{Request, Task};

use crate::ca::{TestCa, Trick};
use crate::house::{House, job_id};

fn versions(house: &House) -> usize {
    fs::read_dir(house.trustpoint().join("versions")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_wrong_secret_is_told_with_the_cas_reason_and_leaves_nothing_on_the_disk() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    let keys = trustfleet_agent::keys::IdentityKeys::load_or_make(
        &trustfleet_agent::store::Store::open(&house.state()).unwrap(),
    );
    let context =
        SealContext { agent_id: house.agent_id, job_id: job_id(1), trustpoint_id: uuid::Uuid::from_u128(0x71).into() };
    let wrong = seal(b"wrong", &keys.unwrap().open.public_key(), &context).unwrap();
    enroll.mac.as_mut().unwrap().secret = wrong;
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    let failed = house.failed().await;
    assert_eq!(failed.culprit, "peer_refusal", "{failed:?}");
    assert_eq!(failed.fail_info, ["badMessageCheck"]);
    assert_eq!(failed.pki_status.as_deref(), Some("rejection"));
    assert!(!failed.maybe_issued && failed.transaction_id.is_some());
    assert_eq!(versions(&house), 0);
    assert!(!house.trustpoint().join("staged").exists() && !house.trustpoint().join("current").exists());
}

#[tokio::test]
async fn e3_every_failure_bit_and_the_cas_words_reach_the_report() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let bits = vec![FailureBit::BadPop, FailureBit::BadCertTemplate, FailureBit::DuplicateCertReq];
    ca.trick(Trick::Refuse(bits, "no\u{1b}[31m such %s%n template\r\nforged line".to_owned()));
    house.send(&house.ir(1, &ca)).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("peer_refusal", "refused"));
    assert_eq!(failed.fail_info, ["badPOP", "badCertTemplate", "duplicateCertReq"]);
    let words = failed.status_string.unwrap();
    assert!(words.contains("template") && !words.contains('\u{1b}') && !words.contains('\n'), "{words:?}");
    assert_eq!(house.kinds(), ["started", "failed"]);
}

#[tokio::test]
async fn c7_a_certificate_for_another_key_is_rejected_and_never_used() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    ca.trick(Trick::OtherKey);
    house.send(&house.ir(1, &ca)).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("peer_message", "certificate_unfit"));
    assert!(!failed.maybe_issued, "the CA has confirmed the rejection");
    assert_eq!(ca.heard(), ["ir", "certConf"]);
    assert!(!house.trustpoint().join("staged").exists() && !house.trustpoint().join("current").exists());
}

#[tokio::test]
async fn an_unfit_certificate_that_may_be_valid_at_the_ca_is_said_to_be() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.trick(Trick::OtherKey);
    house.send(&house.ir(1, &ca)).await;
    let failed = house.failed().await;
    assert!(failed.maybe_issued && failed.code == "certificate_unfit");
    let orphan = house.trustpoint().join("versions").join(job_id(1).to_string()).join("orphan.pem");
    assert!(orphan.exists(), "kept for whoever revokes it");
}

#[tokio::test]
async fn an_unfit_certificate_is_kept_before_the_ca_is_told() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let gate = std::sync::Arc::new(crate::ca::Gate::default());
    ca.trick(Trick::OtherKey);
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    crate::house::eventually("the ca is told", || gate.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    let orphan = house.trustpoint().join("versions").join(job_id(1).to_string()).join("orphan.pem");
    assert!(orphan.exists(), "whoever dies now gets it no more");
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(house.failed().await.code, "certificate_unfit");
    assert_eq!(ca.heard(), ["ir", "error"]);
}

#[tokio::test]
async fn s32_a_kur_without_a_certificate_sends_nothing_and_says_what_to_do() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let kur = house.enroll(1, Request::Kur, &ca);
    house.send(&house.job(1, Task::Enroll(Box::new(kur)))).await;
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("configuration", "no_certificate_to_update"));
    assert!(failed.message.contains("enrol with ir first"));
    assert_eq!(house.kinds(), ["failed"], "nothing was started");
    assert!(ca.heard().is_empty());
}

#[tokio::test]
async fn s1_a_job_with_a_path_for_a_name_is_refused_and_writes_nowhere() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut job = house.ir(1, &ca);
    job.device = "../../../escape".to_owned();
    house.send(&job).await;
    let failed = house.failed().await;
    assert_eq!(failed.code, "order_invalid");
    assert!(failed.message.contains("device: contains '.'"), "{}", failed.message);
    assert!(ca.heard().is_empty() && !house.dir.path().join("escape").exists());
    assert_eq!(fs::read_dir(house.state().join("devices")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_secret_sealed_for_another_job_does_not_open() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let enroll = house.enroll(7, Request::Ir, &ca);
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    assert_eq!(house.failed().await.code, "secret_unreadable");
    assert!(ca.heard().is_empty());
}

#[tokio::test]
async fn a_disk_that_takes_no_record_fails_the_job_before_anything_is_sent() {
    let (ca, house) = (TestCa::start(), House::start().await);
    fs::remove_dir_all(house.state().join("jobs")).unwrap();
    fs::write(house.state().join("jobs"), b"in the way").unwrap();
    assert_eq!(house.send(&house.ir(1, &ca)).await, Verdict::Ack, "acked once the broker has the failure");
    let failed = house.failed().await;
    assert_eq!((failed.culprit.as_str(), failed.code.as_str()), ("device", "disk_error"));
    assert!(ca.heard().is_empty());
}

#[tokio::test]
async fn a_disk_that_takes_no_key_fails_the_job_before_anything_is_sent() {
    let (ca, house) = (TestCa::start(), House::start().await);
    fs::write(house.state().join("devices/ap-1"), b"in the way").unwrap();
    house.send(&house.ir(1, &ca)).await;
    let failed = house.failed().await;
    assert_eq!(failed.culprit, "device");
    assert!(ca.heard().is_empty() && !failed.maybe_issued);
    assert_eq!(house.kinds(), ["failed"]);
}

#[tokio::test]
async fn e1_a_disk_that_fails_in_the_middle_ends_the_transaction_and_the_ca_is_told() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    let gate = std::sync::Arc::new(crate::ca::Gate::default());
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    let seen = gate.clone();
    crate::house::eventually("the ca has the request", || seen.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    fs::remove_dir_all(house.state().join("jobs")).unwrap();
    fs::write(house.state().join("jobs"), b"in the way").unwrap();
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = house.failed().await;
    assert_eq!(failed.culprit, "device");
    assert!(failed.maybe_issued, "it was issued, and never confirmed");
    assert_eq!(ca.heard(), ["ir", "error"], "no certConf for what is not on the disk");
}

#[tokio::test]
async fn an_issued_certificate_waits_for_the_disk_and_is_not_lost() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let gate = std::sync::Arc::new(crate::ca::Gate::default());
    ca.trick(Trick::Gate(gate.clone()));
    house.send(&house.ir(1, &ca)).await;
    let seen = gate.clone();
    crate::house::eventually("the ca has the request", || seen.reached.load(std::sync::atomic::Ordering::SeqCst)).await;
    // A folder where the link must go: the certificate cannot be staged.
    let staged = house.trustpoint().join("staged");
    fs::create_dir_all(staged.join("in the way")).unwrap();
    gate.open.store(true, std::sync::atomic::Ordering::SeqCst);
    let version = house.trustpoint().join("versions").join(job_id(1).to_string()).join("certificate.pem");
    crate::house::eventually("the certificate is written", || version.exists()).await;
    assert_eq!(house.kinds(), ["started"]);
    fs::remove_dir_all(&staged).unwrap();
    house.wait_for("activated").await;
    assert_eq!(house.kinds(), ["started", "issued", "activated"]);
}
