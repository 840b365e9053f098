//! The lab CA against a foreign client: the real `openssl cmp` enrols and updates at it, and is refused with reasons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/openssl_lab.rs"]
mod openssl_lab;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use openssl_lab::{Lab, MAC, certificate, said};
use trustfleet_cmp::{codec::FailureBit, key::KeyType};
use trustfleet_pki::Certificate;

#[tokio::test(flavor = "multi_thread")]
async fn s27_ir_by_mac_with_certconf_issues_what_was_asked_for() {
    let lab = Lab::new().await;
    lab.key("dev.key", false).await;
    let said = lab
        .enrols(&format!(
            "-cmd ir {MAC} -newkey dev.key -subject /C=DE/O=Example/CN=dev1 -sans dev1.example.org,192.0.2.7 \
             -certout dev.pem -cacertsout cas.pem -extracertsout chain.pem"
        ))
        .await;
    assert!(said.contains("CERTCONF") || said.contains("certConf") || said.contains("PKICONF"), "{said}");
    let issued = lab.verifies("dev.pem").await;
    assert_eq!(issued.subject().to_slash(), "/C=DE/O=Example/CN=dev1");
    assert_eq!(issued.subject_alt_names(), ["dns:dev1.example.org", "ip:192.0.2.7"]);
    assert_eq!(issued.serial_der_bytes().len(), 16);
    assert_eq!(certificate(&lab.path("cas.pem")), lab.ca.root, "S35: the root comes along");
    assert_eq!(certificate(&lab.path("chain.pem")), lab.ca.issuing);
    let [entry] = lab.ca.issued().try_into().unwrap();
    assert_eq!(
        (entry.kind, entry.confirmed, entry.requester.as_str(), entry.serial),
        ("ir", true, "dev1", issued.serial_hex())
    );
    assert_eq!(entry.transaction_id.len(), 32);
    let stats = lab.ca.stats();
    assert_eq!((stats.issued, stats.confirmed, stats.implicitly_confirmed), (1, 1, 0));
    assert_eq!((stats.requests["ir"], stats.requests["certConf"], stats.refusals.len()), (1, 1, 0));
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn implicit_confirmation_is_granted_unless_switched_off() {
    for (granted, implicit, confirmed) in [(true, 1, 0), (false, 0, 1)] {
        let lab = Lab::with(|config| config.implicit_confirm = granted).await;
        lab.key("dev.key", false).await;
        lab.enrols(&format!("-cmd ir {MAC} -newkey dev.key -subject /CN=dev1 -implicit_confirm -certout dev.pem"))
            .await;
        lab.verifies("dev.pem").await;
        let stats = lab.ca.stats();
        assert_eq!((stats.implicitly_confirmed, stats.confirmed), (implicit, confirmed));
        assert!(lab.ca.issued()[0].confirmed);
        lab.ca.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s30_cr_and_kur_are_signed_with_the_certificate_of_before() {
    for (ca_keys, rsa) in [(KeyType::P256, false), (KeyType::Rsa2048, true)] {
        let lab = Lab::with(|config| config.key_type = ca_keys).await;
        for name in ["one.key", "two.key", "three.key"] {
            lab.key(name, rsa).await;
        }
        lab.enrols(&format!("-cmd ir {MAC} -newkey one.key -subject /O=x/CN=dev1 -certout one.pem")).await;
        let signed = "-trusted ca/root.pem -untrusted ca/issuing.pem -cert one.pem -key one.key";
        lab.enrols(&format!("-cmd kur {signed} -newkey two.key -certout two.pem")).await;
        lab.enrols(&format!(
            "-cmd cr {signed} -newkey three.key -subject /O=x/CN=dev1-https -implicit_confirm -certout three.pem"
        ))
        .await;
        let (one, two, three) =
            (lab.verifies("one.pem").await, lab.verifies("two.pem").await, lab.verifies("three.pem").await);
        assert_eq!(two.subject(), one.subject());
        assert_ne!(two.public_key(), one.public_key());
        assert_eq!(three.subject().to_slash(), "/O=x/CN=dev1-https");
        let kinds: Vec<_> = lab.ca.issued().iter().map(|issued| (issued.kind, issued.confirmed)).collect();
        assert_eq!(kinds, [("ir", true), ("kur", true), ("cr", true)]);
        assert_eq!(lab.ca.issued()[1].requester, "CN=dev1,O=x");
        lab.ca.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_cr_may_be_protected_by_a_mac_but_a_kur_must_be_signed() {
    let lab = Lab::new().await;
    lab.key("one.key", true).await;
    lab.key("two.key", false).await;
    lab.enrols(&format!("-cmd cr {MAC} -newkey one.key -subject /CN=dev1 -certout one.pem")).await;
    lab.verifies("one.pem").await;
    let said = lab.is_refused(&format!("-cmd kur {MAC} -oldcert one.pem -newkey two.key -certout two.pem")).await;
    assert!(said.contains("wrongIntegrity"), "{said}");
    assert_eq!(lab.ca.issued().len(), 1);
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s28_an_identity_of_another_trusted_ca_may_sign_an_ir_but_no_kur() {
    let maker = Lab::new().await;
    maker.key("id.key", false).await;
    maker.enrols(&format!("-cmd ir {MAC} -newkey id.key -subject /CN=factory-1 -certout id.pem")).await;
    let trusted = maker.ca.issuing.clone();
    let lab = Lab::with(|config| {
        config.trusted = vec![trusted];
        config.organization = "/O=Other Lab".parse().unwrap();
    })
    .await;
    for name in ["id.pem", "id.key"] {
        std::fs::copy(maker.path(name), lab.path(name)).unwrap();
    }
    lab.key("new.key", false).await;
    let signed = "-trusted ca/root.pem -untrusted ca/issuing.pem -cert id.pem -key id.key -newkey new.key";
    lab.enrols(&format!("-cmd ir {signed} -subject /CN=dev1 -certout dev.pem")).await;
    lab.verifies("dev.pem").await;
    let said = lab.is_refused(&format!("-cmd kur {signed} -certout no.pem")).await;
    assert!(said.contains("badCertId"), "{said}");
    let stranger = Lab::new().await;
    for name in ["id.pem", "id.key", "new.key"] {
        std::fs::copy(lab.path(name), stranger.path(name)).unwrap();
    }
    let said = stranger.is_refused(&format!("-cmd ir {signed} -subject /CN=dev1 -certout no.pem")).await;
    assert!(said.contains("signerNotTrusted"), "{said}");
    assert!(stranger.ca.issued().is_empty());
    for lab in [maker, lab, stranger] {
        lab.ca.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_and_an_unknown_reference_are_refused_alike() {
    let lab = Lab::new().await;
    lab.key("dev.key", false).await;
    let rest = "-mac hmacWithSHA256 -trusted ca/root.pem -newkey dev.key -subject /CN=dev1 -certout dev.pem";
    for credentials in ["-ref dev1 -secret pass:wrong", "-ref nobody -secret pass:s3cr3t-of-dev1"] {
        let said = lab.is_refused(&format!("-cmd ir {credentials} {rest}")).await;
        assert!(said.contains("badMessageCheck"), "{said}");
        assert!(said.contains("the MAC does not fit"), "{said}");
    }
    assert!(!lab.path("dev.pem").exists());
    assert_eq!((lab.ca.issued().len(), lab.ca.stats().refusals["badMessageCheck"]), (0, 2));

    lab.ca.add_secret("nobody", "s3cr3t-of-dev1");
    lab.enrols(&format!("-cmd ir -ref nobody -secret pass:s3cr3t-of-dev1 {rest}")).await;
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_cannot_be_updated() {
    let lab = Lab::new().await;
    lab.key("one.key", false).await;
    lab.key("two.key", false).await;
    lab.enrols(&format!("-cmd ir {MAC} -newkey one.key -subject /CN=dev1 -certout one.pem")).await;
    assert!(lab.ca.revoke(&certificate(&lab.path("one.pem")).serial_hex().to_lowercase()));
    let kur = "-cmd kur -trusted ca/root.pem -untrusted ca/issuing.pem -cert one.pem -key one.key -newkey two.key";
    let said = lab.is_refused(&format!("{kur} -certout two.pem")).await;
    assert!(said.contains("certRevoked"), "{said}");
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proof_of_possession_a_weak_key_and_sha1_are_refused_with_their_failinfo() {
    let lab = Lab::new().await;
    lab.key("dev.key", false).await;
    let said = lab.is_refused(&format!("-cmd ir {MAC} -newkey dev.key -subject /CN=a -popo 0 -certout a.pem")).await;
    assert!(said.contains("badPOP"), "{said}");
    lab.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out weak.key").await;
    let said = lab.is_refused(&format!("-cmd ir {MAC} -newkey weak.key -subject /CN=a -certout a.pem")).await;
    assert!(said.contains("RSA keys of 2048 to 8192 bits are accepted, this one has 1024"), "{said}");
    let sha1 = MAC.replace("hmacWithSHA256", "hmac-sha1");
    let rest = "-newkey dev.key -subject /CN=a -certout a.pem -trusted ca/root.pem";
    let said = lab.is_refused(&format!("-cmd ir {sha1} {rest}")).await;
    assert!(said.contains("badAlg"), "{said}");
    assert!(lab.ca.issued().is_empty());

    let lenient = Lab::with(|config| config.allow_sha1 = true).await;
    lenient.key("dev.key", false).await;
    lenient.enrols(&format!("-cmd ir {sha1} {rest}")).await;
    lab.ca.stop().await;
    lenient.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reject_switch_refuses_with_its_bit() {
    let lab = Lab::with(|config| config.reject = Some(FailureBit::SystemUnavail)).await;
    lab.key("dev.key", false).await;
    let said = lab.is_refused(&format!("-cmd ir {MAC} -newkey dev.key -subject /CN=dev1 -certout dev.pem")).await;
    assert!(said.contains("systemUnavail"), "{said}");
    assert_eq!(lab.ca.stats().refusals["systemUnavail"], 1);
    lab.ca.stop().await;
}

/// `trustfleet-lab ca` as a process; killed when dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trustfleet-lab"))
            .arg("ca")
            .arg("--dir")
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, url: ready["url"].as_str().unwrap().to_owned() }
    }

    fn get(&self, path: &str) -> serde_json::Value {
        let url = self.url.replace("/pkix/", path);
        serde_json::from_str(&ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()).unwrap()
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> u16 {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        agent.post(self.url.replace("/pkix/", path)).send_json(body).unwrap().status().as_u16()
    }

    fn cmp(&self, folder: &Path, reference: &str, secret: &str) -> Output {
        let server = self.url.replace("http://", "").replace("/pkix/", "");
        Command::new("openssl")
            .args([
                "cmp",
                "-config",
                "",
                "-cmd",
                "ir",
                "-server",
                &server,
                "-path",
                "any/path",
                "-mac",
                "hmacWithSHA256",
            ])
            .args(["-recipient", "/CN=whoever", "-subject", "/CN=dev", "-newkey", "k.key", "-certout", "dev.pem"])
            .args(["-ref", reference, "-secret", &format!("pass:{secret}"), "-implicit_confirm"])
            .current_dir(folder)
            .output()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_command_says_where_it_is_takes_secrets_at_run_time_and_ends_at_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let key = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "k.key"];
    assert!(Command::new("openssl").args(key).current_dir(folder.path()).output().unwrap().status.success());
    let secrets = folder.path().join("secrets.toml");
    std::fs::write(&secrets, "[secrets]\n\"ap 2\" = \"from the file\"\n").unwrap();
    let dir = folder.path().join("ca");
    let args = ["--secret", "ap1=a=b", "--secrets-file", secrets.to_str().unwrap(), "--hold-seconds", "0.4"];
    let mut process = Process::start(&dir, &[&args[..], &["--key-type", "rsa", "--days", "7"]].concat());

    let begin = Instant::now();
    let output = process.cmp(folder.path(), "ap1", "a=b");
    assert!(output.status.success(), "{}", said(&output));
    assert!(begin.elapsed() >= Duration::from_millis(400), "held back");
    let output = process.cmp(folder.path(), "ap 2", "from the file");
    assert!(output.status.success(), "{}", said(&output));
    assert!(!process.cmp(folder.path(), "ap3", "later").status.success());
    assert_eq!(process.post("/lab/secrets", &serde_json::json!({ "reference": "ap3", "secret": "later" })), 204);
    assert_eq!(process.post("/lab/secrets", &serde_json::json!({ "ref": "ap3" })), 400);
    assert!(process.cmp(folder.path(), "ap3", "later").status.success());

    let issued = process.get("/lab/issued");
    let last = certificate(&folder.path().join("dev.pem"));
    assert_eq!(issued[2]["serial"], last.serial_hex());
    assert_eq!((&issued[2]["subject"], &issued[2]["kind"]), (&"CN=dev".into(), &"ir".into()));
    assert_eq!((&issued[2]["confirmed"], &issued[2]["requester"]), (&true.into(), &"ap3".into()));
    assert!(issued[2]["time"].is_string() && issued[2]["transactionID"].as_str().unwrap().len() == 32);
    assert_eq!(last.not_after().as_second() - last.not_before().as_second(), 7 * 86_400);
    let stats = process.get("/lab/stats");
    assert_eq!((&stats["issued"], &stats["refusals"]["badMessageCheck"]), (&3.into(), &1.into()));
    assert_eq!(process.post("/lab/revoke", &serde_json::json!({ "serial": last.serial_hex() })), 204);
    assert_eq!(process.post("/lab/revoke", &serde_json::json!({ "serial": "00" })), 404);
    assert_eq!(process.post("/pkix/", &serde_json::json!({})), 415, "T1: only application/pkixcmp");

    let chain = Certificate::pem_bundle(&std::fs::read_to_string(dir.join("chain.pem")).unwrap()).unwrap();
    assert_eq!(chain, [certificate(&dir.join("issuing.pem")), certificate(&dir.join("root.pem"))]);
    assert!(certificate(&dir.join("cmp-signer.pem")).verify_signed_by(&chain[0].public_key()).is_ok());

    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let begin = Instant::now();
    assert!(process.child.wait().unwrap().success(), "SIGTERM is an ordinary end");
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn bad_arguments_are_named_and_secrets_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets.toml");
    std::fs::write(&secrets, "ap1 = s3cr3t\n").unwrap();
    let cases = [
        (vec!["--secrets-file", secrets.to_str().unwrap()], "a table [secrets]"),
        (vec!["--organization", "Lab"], "--organization is no name"),
        (vec!["--reject", "nothing"], "expected one of badAlg, badMessageCheck"),
        (vec!["--hold-seconds=-1"], "expected seconds between 0 and 86400"),
        (vec!["--secret", "s3cr3t"], "--secret wants REF=SECRET"),
    ];
    for (args, expected) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trustfleet-lab"));
        let output = command.arg("ca").arg("--dir").arg(folder.path()).args(&args).output().unwrap();
        let said = said(&output);
        assert!(!output.status.success() && said.contains(expected), "{args:?}: {said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}
