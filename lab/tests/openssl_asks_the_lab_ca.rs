//! The lab CA's other requests against a foreign client: `openssl cmp` with p10cr, rr and genm; polling, approval, and
//! faults that this client does not fall for either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/openssl_lab.rs"]
mod openssl_lab;

use std::time::Duration;

use openssl_lab::{Lab, MAC, certificate};
use trustfleet_lab::ca::Fault;

const SIGNED: &str = "-trusted ca/root.pem -untrusted ca/issuing.pem -cert one.pem -key one.key";

async fn enrolled(lab: &Lab) {
    lab.key("one.key", false).await;
    lab.enrols(&format!("-cmd ir {MAC} -newkey one.key -subject /O=x/CN=dev1 -certout one.pem")).await;
}

fn get(lab: &Lab, path: &str) -> Vec<u8> {
    let url = lab.ca.url.replace("/pkix/", path);
    ureq::get(url).call().unwrap().body_mut().read_to_vec().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_p10cr_issues_for_the_key_of_a_csr_and_is_confirmed() {
    let lab = Lab::new().await;
    lab.key("dev.key", false).await;
    lab.openssl("req -new -key dev.key -subj /C=DE/CN=dev1 -addext subjectAltName=DNS:dev1.example.org -out dev.csr")
        .await;
    lab.enrols(&format!("-cmd p10cr {MAC} -csr dev.csr -certout dev.pem")).await;
    let issued = lab.verifies("dev.pem").await;
    assert_eq!(issued.subject().to_slash(), "/C=DE/CN=dev1");
    assert_eq!(issued.subject_alt_names(), ["dns:dev1.example.org"]);
    let [entry] = lab.ca.issued().try_into().unwrap();
    assert_eq!((entry.kind, entry.confirmed), ("p10cr", true));
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_rr_revokes_the_certificate_that_signs_and_the_crl_says_so() {
    let lab = Lab::new().await;
    enrolled(&lab).await;
    lab.enrols(&format!("-cmd rr {SIGNED} -oldcert one.pem -revreason 1")).await;
    let serial = certificate(&lab.path("one.pem")).serial_hex();
    std::fs::write(lab.path("ca.crl"), get(&lab, "/lab/crl")).unwrap();
    let crl = lab.openssl("crl -in ca.crl -inform der -noout -text").await;
    assert!(crl.contains(&serial) && crl.contains("Key Compromise"), "{crl}");
    let said = lab.openssl("crl -in ca.crl -inform der -noout -CAfile ca/issuing.pem -verify").await;
    assert!(said.is_empty(), "{said}");
    let said = lab.is_refused(&format!("-cmd rr {SIGNED} -oldcert one.pem -revreason 1")).await;
    assert!(said.contains("certRevoked"), "{said}");
    assert_eq!(lab.ca.stats().revoked, 1);
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_an_rr_by_mac_is_refused() {
    let lab = Lab::new().await;
    enrolled(&lab).await;
    let said = lab.is_refused(&format!("-cmd rr {MAC} -oldcert one.pem -revreason 1")).await;
    assert!(said.contains("wrongIntegrity"), "{said}");
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_genm_is_answered() {
    let lab = Lab::new().await;
    for kind in ["signKeyPairTypes", "suppLangTags", "currentCRL"] {
        lab.enrols(&format!("-cmd genm {MAC} -infotype {kind}")).await;
    }
    assert_eq!(lab.ca.stats().requests["genm"], 3);
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_openssl_polls_for_ir_and_p10cr() {
    let lab = Lab::with(|config| config.poll_count = 2).await;
    lab.key("dev.key", false).await;
    lab.openssl("req -new -key dev.key -subj /CN=dev1 -out dev.csr").await;
    lab.enrols(&format!("-cmd ir {MAC} -newkey dev.key -subject /CN=dev1 -certout dev.pem")).await;
    lab.verifies("dev.pem").await;
    lab.enrols(&format!("-cmd p10cr {MAC} -csr dev.csr -certout p10.pem")).await;
    lab.verifies("p10.pem").await;
    assert_eq!(lab.ca.stats().requests["pollReq"], 4);
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_its_certificate_once_somebody_approves() {
    let lab = Lab::with(|config| config.approval = true).await;
    lab.key("dev.key", false).await;
    let url = lab.ca.url.replace("/pkix/", "/lab/approve");
    let approver = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let approve = || agent.post(&url).send_json(serde_json::json!({})).unwrap().status().as_u16();
        let mut tries = 0;
        while approve() == 404 && tries < 600 {
            std::thread::sleep(Duration::from_millis(100));
            tries += 1;
        }
    });
    lab.enrols(&format!("-cmd ir {MAC} -newkey dev.key -subject /CN=dev1 -certout dev.pem")).await;
    lab.verifies("dev.pem").await;
    approver.await.unwrap();
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_refuses_what_our_client_refuses() {
    let line = format!("-cmd ir {MAC} -newkey dev.key -subject /CN=dev1 -certout dev.pem -msg_timeout 5");
    let faultless = Lab::with(|config| config.faults = vec![Fault::MissingOptionals]).await;
    faultless.key("dev.key", false).await;
    faultless.enrols(&line).await;
    faultless.ca.stop().await;
    for fault in [
        Fault::WrongNonce,
        Fault::WrongTransactionId,
        Fault::BadProtection,
        Fault::Unprotected,
        Fault::OtherKey,
        Fault::ExtraResponse,
        Fault::HostileText,
        Fault::TruncatedDer,
        Fault::Http500,
        Fault::CutBody,
        Fault::WrongContentType,
    ] {
        let lab = Lab::with(|config| config.faults = vec![fault]).await;
        lab.key("dev.key", false).await;
        lab.is_refused(&line).await;
        assert!(!lab.path("dev.pem").exists(), "{fault:?}");
        lab.ca.stop().await;
    }
}
