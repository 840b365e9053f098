//! `trustfleet-agent cmp` at the lab CA: what openssl's mock server cannot answer, and what the lab CA does wrong by switch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/openssl_lab.rs"]
mod openssl_lab;

use std::{
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use openssl_lab::{Lab, certificate, said};
use trustfleet_lab::{
    ca::Fault,
    testkit::{binary, eventually},
};
use trustfleet_pki::Name;

const MAC: &str = "--ref dev1 --secret file:secret --trusted ca/root.pem --untrusted ca/issuing.pem";
const SIGNED: &str = "--cert one.pem --key one.key --trusted ca/root.pem --untrusted ca/issuing.pem";
const SECRET: &str = "s3cr3t-of-dev1";

/// Runs `trustfleet-agent cmp` with words between spaces (`~` is a space), in the lab's folder.
async fn agent(lab: &Lab, line: &str) -> Output {
    fs::write(lab.path("secret"), SECRET).unwrap();
    let mut command = tokio::process::Command::new(binary("trustfleet-agent").unwrap());
    let words = line.split_whitespace().map(|word| word.replace('~', " "));
    command.arg("cmp").args(words).args(["--server", &lab.ca.url]).current_dir(lab.folder.path());
    let output = command.output().await.unwrap();
    assert!(!said(&output).contains(SECRET), "the secret is in the output");
    output
}

async fn ends(lab: &Lab, line: &str, code: i32) -> String {
    let output = agent(lab, line).await;
    assert_eq!(output.status.code(), Some(code), "{line}\n{}", said(&output));
    said(&output)
}

/// A certificate `one.pem` with its key `one.key`.
async fn enrolled(lab: &Lab, kind: &str) {
    let key = format!("--newkey-type {kind} --newkeyout one.key --certout one.pem --chainout chain.pem");
    ends(lab, &format!("ir {MAC} --subject /O=Trustfleet~Lab/CN=dev1 {key}"), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_enrols_and_renews_by_hand() {
    let lab = Lab::new().await;
    for (kind, options, shown) in [
        ("rsa:2048", "--pss --digest sha384", "protectionAlg: rsa-pss-sha384"),
        ("rsa:3072", "--digest sha512", "protectionAlg: rsa-sha512"),
        ("p256", "", "protectionAlg: ecdsa-sha256"),
        ("p384", "--digest sha384", "protectionAlg: ecdsa-sha384"),
        ("ed25519", "", "protectionAlg: ed25519"),
    ] {
        enrolled(&lab, kind).await;
        lab.verifies("one.pem").await;
        let key = format!("--newkey-type {kind} --newkeyout two.key --certout two.pem");
        let said = ends(&lab, &format!("kur {SIGNED} {options} {key} --show-messages"), 0).await;
        assert!(said.contains(shown), "{kind}: {said}");
        let (one, two) = (certificate(&lab.path("one.pem")), lab.verifies("two.pem").await);
        assert_eq!(one.subject(), two.subject());
        assert_ne!(one.spki_der(), two.spki_der());
        for file in ["one.key", "two.key"] {
            fs::remove_file(lab.path(file)).unwrap();
        }
    }
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_answers_to_questions_become_files_that_openssl_reads() {
    let lab = Lab::with(|config| (config.root_update, config.template) = (true, true)).await;
    ends(&lab, &format!("genm {MAC} --infotype caCerts --cacertsout cas.pem"), 0).await;
    assert_eq!(certificate(&lab.path("cas.pem")), certificate(&lab.path("ca/issuing.pem")));
    let files = "--newwithnew new.pem --newwithold newold.pem --oldwithnew oldnew.pem";
    let said = ends(&lab, &format!("genm {MAC} --infotype rootCaCert --oldwithold ca/root.pem {files}"), 0).await;
    assert!(said.contains("new root"), "{said}");
    lab.openssl("verify -CAfile new.pem new.pem").await;
    lab.openssl("verify -partial_chain -CAfile ca/root.pem newold.pem").await;
    lab.openssl("verify -partial_chain -CAfile new.pem oldnew.pem").await;
    let said = ends(&lab, &format!("genm {MAC} --infotype certReqTemplate"), 0).await;
    for line in ["subject: O=Trustfleet Lab", "subject: CN is to be filled in", "P-256", "RSA of 3072 bits"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said =
        ends(&lab, &format!("genm {MAC} --infotype crlStatusList --crlcert ca/cmp-signer.pem --crlout ca.crl"), 0)
            .await;
    assert!(said.contains("signature good"), "{said}");
    lab.openssl("crl -in ca.crl -inform der -noout -CAfile ca/issuing.pem -verify").await;
    let said = ends(&lab, &format!("genm {MAC} --infotype crlStatusList --oldcrl ca.crl --crlout none.crl"), 0).await;
    assert!(said.contains("no newer CRL") && !lab.path("none.crl").exists(), "{said}");
    let said = ends(&lab, &format!("genm {MAC} --infotype signKeyPairTypes"), 0).await;
    assert!(said.contains("ed25519"), "{said}");
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r9_a_request_is_made_to_fit_the_template_or_says_what_does_not() {
    let lab = Lab::with(|config| config.template = true).await;
    let key = "--newkey-type p256 --newkeyout one.key --certout one.pem";
    ends(&lab, &format!("ir {MAC} --ask-template --subject /CN=dev1 {key}"), 0).await;
    assert_eq!(lab.verifies("one.pem").await.subject().to_slash(), "/O=Trustfleet Lab/CN=dev1");
    for (words, shown) in [
        ("--subject /O=Other/CN=dev1 --newkey one.key", "O=Other"),
        ("--subject /O=Trustfleet~Lab --newkey one.key", "CN"),
        ("--subject /CN=dev1 --newkey-type p384 --newkeyout other.key", "does not certify"),
    ] {
        let said = ends(&lab, &format!("ir {MAC} --ask-template {words}"), 1).await;
        assert!(said.contains(shown), "{said}");
    }
    assert!(!lab.path("other.key").exists(), "a key that the CA does not want is not even written");
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r8_a_certificate_is_revoked_by_itself_or_by_an_ra_and_the_crl_comes_along() {
    let lab = Lab::with(|config| config.ra = Some(Name::parse("/O=Trustfleet Lab/CN=RA").unwrap())).await;
    enrolled(&lab, "p256").await;
    let serial = certificate(&lab.path("one.pem")).serial_hex();
    ends(&lab, &format!("rr {SIGNED} --revreason keyCompromise --crlout ca.crl"), 0).await;
    let crl = lab.openssl("crl -in ca.crl -inform der -noout -text").await;
    assert!(crl.contains(&serial) && crl.contains("Key Compromise"), "{crl}");
    assert!(ends(&lab, &format!("rr {SIGNED}"), 2).await.contains("certRevoked"));
    let key = "--newkey-type p256 --newkeyout ra.key --certout ra.pem";
    ends(&lab, &format!("ir {MAC} --subject /O=Trustfleet~Lab/CN=RA {key}"), 0).await;
    ends(&lab, &format!("ir {MAC} --subject /CN=lost --newkey one.key --certout lost.pem"), 0).await;
    let ra = SIGNED.replace("one.", "ra.");
    ends(&lab, &format!("rr {ra} --oldcert lost.pem --revreason superseded"), 0).await;
    assert_eq!(lab.ca.stats().revoked, 2);
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w2_every_request_is_polled_for_and_its_confirmation_too() {
    let lab = Lab::with(|config| (config.poll_count, config.poll_certconf) = (1, true)).await;
    enrolled(&lab, "p256").await;
    let said = ends(&lab, &format!("genm {MAC} --infotype caCerts --output json"), 0).await;
    assert!(said.contains("pollReq"), "{said}");
    ends(&lab, &format!("rr {SIGNED}"), 0).await;
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w6_a_command_that_was_killed_goes_on_with_the_same_transaction_once_somebody_approves() {
    let lab = Lab::with(|config| config.approval = true).await;
    let line = format!(
        "ir {MAC} --subject /CN=dev1 --newkey-type p256 --newkeyout one.key --certout one.pem --state tx.json --server {}",
        lab.ca.url
    );
    fs::write(lab.path("secret"), SECRET).unwrap();
    let mut command = tokio::process::Command::new(binary("trustfleet-agent").unwrap());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = command.arg("cmp").args(line.split_whitespace()).current_dir(lab.folder.path()).spawn().unwrap();
    let kept = lab.path("tx.json");
    let waits = async || fs::read_to_string(&kept).is_ok_and(|text| text.contains("poll_time")).then_some(());
    eventually(Duration::from_secs(20), "it waits", waits).await.unwrap();
    first.kill().await.unwrap(); // SIGKILL: it had no time for anything
    let key = fs::read(lab.path("one.key")).unwrap();
    let approve = lab.ca.url.replace("/pkix/", "/lab/approve");
    tokio::task::spawn_blocking(move || ureq::post(&approve).send_json(serde_json::json!({})).unwrap()).await.unwrap();
    let line = line.split(" --server").next().unwrap().to_owned();
    ends(&lab, &line, 0).await;
    assert_eq!(fs::read(lab.path("one.key")).unwrap(), key, "the key of the first run");
    let [entry] = lab.ca.issued().try_into().unwrap();
    assert!(entry.confirmed && !kept.exists());
    lab.verifies("one.pem").await;
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_ca_ends_with_the_code_of_its_culprit() {
    for (fault, code) in [
        (Fault::MissingOptionals, 0),
        (Fault::WrongContentType, 0),
        (Fault::HostileText, 2),
        (Fault::BadProtection, 3),
        (Fault::Unprotected, 3),
        (Fault::SiblingSigner, 3),
        (Fault::Http500, 4),
        (Fault::Redirect, 4),
        (Fault::CutBody, 4),
        (Fault::WaitingForEver, 5),
        (Fault::AbsurdCheckAfter, 5),
        (Fault::OtherKey, 7),
        (Fault::WrongNonce, 8),
        (Fault::WrongTransactionId, 8),
        (Fault::ExtraResponse, 8),
        (Fault::TruncatedDer, 8),
    ] {
        let lab = Lab::with(|config| config.faults = vec![fault]).await;
        let line = format!("ir {MAC} --subject /CN=dev1 --newkey-type p256 --newkeyout one.key --certout one.pem");
        let output = agent(&lab, &format!("{line} --total-timeout 3 --msg-timeout 3 --show-messages")).await;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{fault:?}\n{text}");
        assert_eq!(lab.path("one.pem").exists(), code == 0, "{fault:?}");
        assert!(!text.contains(['\u{1b}', '\0', '\r', '\u{202e}']) && text.len() < 20_000, "{fault:?}");
        lab.ca.stop().await;
    }
}
