//! First certificates without a secret: requests signed by an identity that somebody else has issued to the device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, path::Path, process::Command, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{AgentFiles, Fleet, start_agent_process},
    testkit::binary,
};
use trustfleet_model::clock::{Clock as _, SystemClock};

const LIMIT: Duration = Duration::from_secs(60);

fn openssl(dir: &Path, args: &[&str]) {
    let made = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "openssl {}: {}", args.join(" "), String::from_utf8_lossy(&made.stderr));
}

/// A factory CA, and an identity by it: `factory-ca.pem`, `idevid.pem`, `idevid.key`.
fn factory(dir: &Path) {
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca = ["req", "-x509", "-days", "30", "-subj", "/O=Factory/CN=Factory CA", "-keyout", "factory-ca.key"];
    openssl(dir, &[&ca[..], &["-out", "factory-ca.pem"], &ec].concat());
    let request = ["req", "-subj", "/O=Factory/CN=device/serialNumber=SN-1", "-keyout", "idevid.key"];
    openssl(dir, &[&request[..], &["-out", "idevid.csr"], &ec].concat());
    fs::write(dir.join("idevid.ext"), "keyUsage=critical,digitalSignature\n").unwrap();
    let sign =
        ["x509", "-req", "-days", "30", "-in", "idevid.csr", "-CA", "factory-ca.pem", "-CAkey", "factory-ca.key"];
    openssl(dir, &[&sign[..], &["-CAcreateserial", "-extfile", "idevid.ext", "-out", "idevid.pem"]].concat());
}

/// Tells an agent that is not running where its factory identity is.
fn equip(lab: &Lab, files: &AgentFiles) {
    let mut config: toml::Table = fs::read_to_string(&files.config).unwrap().parse().unwrap();
    let mut factory = toml::Table::new();
    for (key, file) in [("certificate_file", "idevid.pem"), ("key_file", "idevid.key"), ("ca_file", "factory-ca.pem")] {
        factory.insert(key.to_owned(), lab.dir.path().join(file).to_str().unwrap().into());
    }
    config.insert("factory_identity".to_owned(), factory.into());
    fs::write(&files.config, config.to_string()).unwrap();
}

/// A fleet whose CA trusts the factory, with devices `ap-1` that have no MAC credentials.
async fn fleet(lab: &Lab, more: Value, ca_args: &[&str]) -> Fleet {
    let dir = lab.dir.path();
    factory(dir);
    let mut policy = policy();
    policy["origin_authentication"] = json!("signature");
    for (key, value) in more.as_object().unwrap() {
        policy[key] = value.clone();
    }
    let ca = dir.join("factory-ca.pem");
    let trusting = [&["--trusted", ca.to_str().unwrap()], ca_args].concat();
    Fleet::create_at(&lab.house, &["ap-1"], &policy, &trusting).await.unwrap()
}

fn bare_device(fleet: &Fleet) {
    fleet.post("devices", &json!({ "name": "ap-1", "agent": "ap-1" })).unwrap();
    let trustpoint = json!({ "name": "default", "entity": "default", "ca_server": "default", "policy": "default" });
    fleet.post("devices/ap-1/trustpoints", &trustpoint).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_s39_a_first_certificate_is_asked_for_with_the_factory_identity_and_renewed_with_itself() {
    let lab = Lab::start().await;
    let fleet = fleet(&lab, json!({}), &[]).await;
    let (agent, files) = fleet.start_agent("ap-1").await.unwrap();
    bare_device(&fleet);

    // Without an identity nothing is sent, and the reason says what to do.
    let job = fleet.job_ended(&fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    let failure = &job["failure"];
    assert_eq!((&failure["code"], &failure["maybe_issued"]), (&json!("identity_missing"), &json!(false)), "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("factory_identity.certificate_file"), "{failure}");
    assert!(lab.issued_by_ca(&fleet).is_empty());

    drop(agent);
    equip(&lab, &files);
    let _agent = start_agent_process(&files).unwrap();

    let first = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    assert_eq!(first["active"]["subject"], "CN=ap-1,O=Trustfleet Lab,C=DE");
    let renewed = fleet.job_ended(&fleet.enroll("ap-1", "kur").unwrap(), LIMIT).await.unwrap();
    assert_eq!(renewed["state"], "succeeded", "{renewed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s29_s38_a_cr_is_signed_with_an_identity_that_was_imported_by_hand() {
    let lab = Lab::start().await;
    let fleet = fleet(&lab, json!({ "authentication_domain": "site" }), &[]).await;
    let (_agent, files) = fleet.start_agent("ap-1").await.unwrap();
    bare_device(&fleet);
    let import = |name: &str| {
        let mut command = Command::new(binary("trustfleet-agent").unwrap());
        command.arg("domain").arg("--config").arg(&files.config).args(["import", name]).current_dir(lab.dir.path());
        command.args(["--certificate", "idevid.pem", "--key", "idevid.key", "--ca", "factory-ca.pem"]);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (refused, said) = import("default");
    assert!(!refused && said.contains("factory identity"), "{said}");
    let (imported, said) = import("site");
    assert!(imported && said.contains("O=Factory") && said.contains("next: "), "{said}");

    let trustpoint = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "cr").unwrap(), LIMIT).await.unwrap();
    assert_eq!(trustpoint["active"]["subject"], "CN=ap-1,O=Trustfleet Lab,C=DE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_a_device_that_was_away_until_the_end_comes_back_by_its_factory_identity_where_that_was_armed_and_once() {
    let lab = Lab::start().await;
    let renewed = json!({ "auto_update": { "enabled": true, "lease_s": 0 } });
    let fleet = fleet(&lab, renewed, &["--validity-seconds", "25"]).await;
    let (agent, files) = fleet.start_agent("ap-1").await.unwrap();
    bare_device(&fleet);
    drop(agent);
    equip(&lab, &files);
    let agent = start_agent_process(&files).unwrap();
    let first = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    drop(agent);
    let recovery = fleet.path("devices/ap-1/trustpoints/default/recovery");
    let until = (SystemClock.now() + SignedDuration::from_hours(1)).to_string();
    let arm = |until: &str| fleet.rest.put(&recovery, &json!({ "by": "factory_identity", "until": until }));
    let armed = arm(&until).unwrap();
    assert!(armed["recovery"].is_object(), "{armed}");
    let end: Timestamp = first["active"]["not_after"].as_str().unwrap().parse().unwrap();
    lab.eventually("its certificate has ended", || (end < SystemClock.now()).then_some(())).await;

    let _agent = start_agent_process(&files).unwrap();
    let back = lab
        .eventually("it has a certificate again", || {
            let trustpoint = fleet.trustpoint("ap-1").ok()?;
            let is_new = trustpoint["active"]["serial"] != first["active"]["serial"];
            (is_new && trustpoint["status"] == "active").then_some(trustpoint)
        })
        .await;
    assert_eq!(back["recovery"], Value::Null, "it is used up: {back}");
    let jobs = fleet.get("jobs?device=ap-1&limit=50").unwrap();
    let first_requests = jobs["items"].as_array().unwrap().iter().filter(|job| job["kind"] == "ir");
    assert_eq!(first_requests.count(), 2, "the first one and the recovery: {jobs}");
}
