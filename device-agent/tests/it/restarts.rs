//! Killed and stopped at every point: never two certificates, never one without its key, never a lost report.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trustfleet_agent::controller_link::Verdict;
use trustfleet_wire::v1::Event;

use crate::ca::{Gate, TestCa, Trick};
use crate::house::{House, eventually, job_id};

#[tokio::test]
async fn an_agent_killed_while_the_ca_works_resumes_the_same_transaction_with_the_same_key() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the request", || gate.reached.load(Ordering::SeqCst)).await;
    let Event::Started { public_key_sha256 } = house.wait_for("started").await.event else { panic!() };
    house.kill_agent().await;
    gate.open.store(true, Ordering::SeqCst);
    house.start_agent().await;
    house.wait_for("activated").await;
    let raw = ca.raw();
    assert_eq!(raw.len(), 2);
    assert_eq!(raw[0], raw[1], "the same bytes to the same server");
    assert_eq!(ca.issued(), 1);
    let issued = house.issued().await;
    let certificate = trustfleet_pki::Certificate::from_der(&issued.certificate.0).unwrap();
    let fingerprint = hex::encode(trustfleet_pki::digest::sha256(&certificate.spki_der()));
    assert_eq!(fingerprint, public_key_sha256);
}

#[tokio::test]
async fn an_agent_killed_before_pkiconf_confirms_again() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    let (request, confirmation) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    request.open.store(true, Ordering::SeqCst);
    ca.trick(Trick::Gate(request));
    ca.trick(Trick::Gate(Arc::clone(&confirmation)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has certConf", || confirmation.reached.load(Ordering::SeqCst)).await;
    house.kill_agent().await;
    confirmation.open.store(true, Ordering::SeqCst);
    house.start_agent().await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir", "certConf", "certConf"]);
    assert_eq!(ca.issued(), 1);
}

#[tokio::test]
async fn an_agent_told_to_stop_finishes_its_step_and_goes_on_later() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    house.send(&house.ir(1, &ca)).await;
    eventually("the ca has the request", || gate.reached.load(Ordering::SeqCst)).await;
    let opener = Arc::clone(&gate);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        opener.open.store(true, Ordering::SeqCst);
    });
    house.stop_agent().await;
    house.start_agent().await;
    house.wait_for("activated").await;
    assert_eq!(ca.heard(), ["ir"], "the answer that was on its way was taken");
}

#[tokio::test]
async fn a_report_without_a_receipt_is_sent_again_after_a_restart_unchanged() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    *house.answer_reports.lock().unwrap() = false;
    house.send(&house.ir(1, &ca)).await;
    let started = house.wait_for("started").await;
    eventually("the certificate is in use", || house.trustpoint().join("current/certificate.pem").exists()).await;
    house.kill_agent().await;
    *house.answer_reports.lock().unwrap() = true;
    house.start_agent().await;
    house.wait_for("activated").await;
    assert!(house.repetitions() >= 1);
    assert_eq!(house.reports()[0], started);
    let record = house.state().join(format!("jobs/{}.json", job_id(1)));
    eventually("all receipts are noted", || fs::read_to_string(&record).unwrap().contains("\"reports\":[]")).await;
}

#[tokio::test]
async fn a_job_that_comes_again_after_a_restart_runs_no_second_time() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    let job = house.ir(1, &ca);
    house.send(&job).await;
    house.wait_for("activated").await;
    house.kill_agent().await;
    house.start_agent().await;
    assert_eq!(house.send(&job).await, Verdict::Ack);
    eventually("the last report came again", || house.repetitions() >= 1).await;
    assert_eq!(ca.issued(), 1);
    assert_eq!(house.kinds(), ["started", "issued", "activated"]);
}

#[tokio::test]
async fn a_key_made_before_the_power_went_is_the_one_that_is_certified() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    house.kill_agent().await;
    let version = house.trustpoint().join("versions").join(job_id(1).to_string());
    trustfleet_agent::store::make_folder(&version).unwrap();
    let key = trustfleet_agent::keys::KeyStore::make(
        &trustfleet_agent::keys::FileKeyStore,
        &version,
        trustfleet_cmp::key::KeyType::P256,
    );
    house.start_agent().await;
    house.send(&house.ir(1, &ca)).await;
    let issued = house.issued().await;
    let certificate = trustfleet_pki::Certificate::from_der(&issued.certificate.0).unwrap();
    assert_eq!(certificate.spki_der(), key.unwrap().public_key_der());
}

#[tokio::test]
async fn the_ca_is_asked_only_after_the_broker_has_the_started_report_also_after_a_restart() {
    let (ca, mut house) = (TestCa::start(), House::start().await);
    house.broker_confirms.store(false, Ordering::SeqCst);
    house.send(&house.ir(1, &ca)).await;
    eventually("the broker is offered the report", || house.offered.load(Ordering::SeqCst) == 1).await;
    house.kill_agent().await;
    house.start_agent().await;
    eventually("the broker is offered it again", || house.offered.load(Ordering::SeqCst) == 2).await;
    // Long enough for an agent that does not wait to be at the CA.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((ca.heard(), house.kinds()), (vec![], vec![]), "no one was asked before the broker confirmed");
    house.broker_confirms.store(true, Ordering::SeqCst);
    house.wait_for("activated").await;
    assert_eq!((ca.heard(), ca.issued()), (vec!["ir"], 1));
    assert_eq!(house.kinds(), ["started", "issued", "activated"]);
}

#[tokio::test]
async fn only_a_request_that_was_on_its_way_may_have_brought_a_certificate() {
    for (on_its_way, url) in [(true, None), (false, Some(serde_json::Value::Null))] {
        let (ca, mut house) = (TestCa::start(), House::start().await);
        let gate = Arc::new(Gate::default());
        ca.trick(Trick::Gate(Arc::clone(&gate)));
        house.send(&house.ir(1, &ca)).await;
        eventually("the ca has the request", || gate.reached.load(Ordering::SeqCst)).await;
        house.kill_agent().await;
        gate.open.store(true, Ordering::SeqCst);
        let file = house.state().join(format!("jobs/{}.json", job_id(1)));
        if let Some(url) = url {
            // As it was before a server was chosen.
            let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            record["state"]["exchange"]["url"] = url;
            fs::write(&file, record.to_string()).unwrap();
        }
        fs::remove_file(house.trustpoint().join("versions").join(job_id(1).to_string()).join("key.pem")).unwrap();
        house.start_agent().await;
        let failed = house.failed().await;
        assert_eq!((failed.code.as_str(), failed.maybe_issued), ("key_missing", on_its_way), "{failed:?}");
    }
}
