//! The main path with nothing mocked: REST, actor, PostgreSQL, RabbitMQ, agent, CMP, CA, disk, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{path::Path, process::Command, time::Duration};

use serde_json::json;
use support::{Lab, policy};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_enrolment_goes_from_the_rest_api_to_the_agents_disk_and_back_into_the_database() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();

    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(job["kind"], "ir");
    let trustpoint = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();

    let active = &trustpoint["active"];
    assert_eq!(active["subject"], "CN=ap-1,O=Trustfleet Lab,C=DE");
    let file = active["file"].as_str().unwrap();
    assert!(file.starts_with(files.state.to_str().unwrap()), "{file}");
    openssl_verifies(&fleet.ca_dir, file);
    assert_eq!(
        openssl(&["x509", "-noout", "-serial", "-in", file]),
        format!("serial={}", active["serial"].as_str().unwrap())
    );

    // The same bytes are in the database and the API.
    let certificates = fleet.get("certificates?device=ap-1").unwrap();
    assert_eq!(certificates["items"].as_array().unwrap().len(), 1);
    let id = certificates["items"][0]["id"].as_str().unwrap();
    let pem = fleet.get(&format!("certificates/{id}")).unwrap()["pem"].as_str().unwrap().to_owned();
    assert_eq!(pem.trim(), openssl(&["x509", "-in", file]).trim());

    // And what went to and fro.
    let said = fleet.get(&format!("jobs/{}/transcript", job["id"].as_str().unwrap())).unwrap();
    let entries = said["entries"].as_array().unwrap();
    assert_eq!((&entries[0]["what"], &entries[0]["kind"]), (&json!("sent"), &json!("ir")), "{said}");
    assert_eq!((&entries[1]["what"], &entries[1]["status"]), (&json!("received"), &json!("accepted")), "{said}");

    // And in the metrics, within the refresh interval.
    lab.metric_becomes("trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"lab\"}", 1.0).await;
    lab.metric_becomes("trustfleet_certificates{slot=\"active\",tenant=\"lab\"}", 1.0).await;
    lab.metric_becomes("trustfleet_jobs{state=\"succeeded\",tenant=\"lab\"}", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s30_a_key_update_on_request_is_signed_with_the_old_certificate_and_replaces_it() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let first = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    let job = fleet.enroll("ap-1", "kur").unwrap();
    let ended = fleet.job_ended(&job, LIMIT).await.unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let second = lab
        .eventually("the new certificate is in use", || {
            let trustpoint = fleet.trustpoint("ap-1").ok()?;
            (trustpoint["active"]["serial"] != first["active"]["serial"]).then_some(trustpoint)
        })
        .await;

    assert_eq!(second["status"], "active");
    assert_eq!(second["previous"]["serial"], first["active"]["serial"]);
    assert_ne!(
        second["active"]["public_key_sha256"], first["active"]["public_key_sha256"],
        "the policy regenerates keys"
    );
    openssl_verifies(&fleet.ca_dir, second["active"]["file"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_with_manual_activation_a_certificate_waits_until_an_operator_puts_it_into_use() {
    let lab = Lab::start().await;
    let mut manual = policy();
    manual["activation"] = json!("manual");
    let fleet = lab.fleet(&["ap-1"], &manual).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded");
    let staged = fleet.trustpoint("ap-1").unwrap();
    assert_eq!(staged["status"], "staged");
    assert!(staged["active"].is_null());

    let job = fleet.post("devices/ap-1/trustpoints/default/activate", &json!({})).unwrap();
    let active = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(active["active"]["serial"], staged["staged"]["serial"]);
    assert!(active["staged"].is_null());
    openssl_verifies(&fleet.ca_dir, active["active"]["file"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_fronts_two_devices() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["gw-a", "gw-b"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("gw").await.unwrap();
    fleet.add_device("gw-a", "gw").unwrap();
    fleet.add_device("gw-b", "gw").unwrap();
    let jobs = [("gw-a", fleet.enroll("gw-a", "ir").unwrap()), ("gw-b", fleet.enroll("gw-b", "ir").unwrap())];
    let mut files = Vec::new();
    for (device, job) in &jobs {
        let trustpoint = fleet.enrolled(device, job, LIMIT).await.unwrap();
        files.push(trustpoint["active"]["file"].as_str().unwrap().to_owned());
        openssl_verifies(&fleet.ca_dir, files.last().unwrap());
    }
    assert_ne!(files[0], files[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_mac_secret_fails_the_job_with_the_cas_reason_and_stores_no_certificate() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device_with_secret("ap-1", "ap-1", "not-the-secret").unwrap();
    let job = fleet.job_ended(&fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();

    assert_eq!(job["state"], "failed");
    let failure = job["failure"].to_string();
    assert!(failure.contains("reference") && failure.contains("secret"), "{failure}");
    assert!(failure.contains("badMessageCheck"), "the CA's reason is missing: {failure}");
    let said = fleet.get(&format!("jobs/{}/transcript", job["id"].as_str().unwrap())).unwrap();
    let refused = said["entries"].as_array().unwrap().iter().find(|entry| entry["status"] == "rejection");
    assert_eq!(refused.unwrap()["fail_info"][0]["name"], "badMessageCheck", "{said}");
    let trustpoint = fleet.trustpoint("ap-1").unwrap();
    assert_eq!(trustpoint["status"], "failed");
    assert_eq!(trustpoint["last_failure"], job["failure"]);
    assert_eq!(fleet.get("certificates").unwrap()["items"].as_array().unwrap().len(), 0);
    let links = support::files_below(&files.state.join("devices")).filter(|path| path.contains("/current")).count();
    assert_eq!(links, 0, "a certificate is in use on the device");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_policys_source_reaches_the_device_and_one_that_is_not_there_is_told_at_the_job() {
    let lab = Lab::start().await;
    let mut policy = policy();
    policy["source"] = json!({ "interface": "no-such-one" });
    let fleet = lab.fleet(&["ap-1"], &policy).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = fleet.job_ended(&fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    let failure = &job["failure"];
    assert_eq!((&failure["culprit"], &failure["code"]), (&json!("configuration"), &json!("source_unusable")), "{job}");
    assert_eq!(failure["maybe_issued"], false);
    let said = failure["message"].as_str().unwrap();
    assert!(said.contains("no-such-one") && said.contains("lo"), "{said}");
    assert_eq!(lab.issued_by_ca(&fleet).len(), 0);

    let stored = fleet.get("policies").unwrap()["items"][0].clone();
    assert_eq!(stored["source"], policy["source"], "{stored}");
    let mut mended = stored.clone();
    mended["source"] = json!({ "interface": "lo" });
    for made_by_the_controller in ["id", "name", "revision", "created_at", "updated_at"] {
        mended.as_object_mut().unwrap().remove(made_by_the_controller);
    }
    let path = fleet.path(&format!("policies/{}", stored["name"].as_str().unwrap()));
    let answer = fleet.rest.send("PUT", &path, &[], Some(&mended)).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(fleet.enrolled("ap-1", &job, LIMIT).await.unwrap()["status"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_enrol_request_twice_is_one_job() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let path = fleet.path("devices/ap-1/trustpoints/default/enroll");
    let ask =
        || fleet.rest.send("POST", &path, &[("idempotency-key", "monday-1")], Some(&json!({"request": "ir"}))).unwrap();
    let (first, second) = (ask(), ask());
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.body["id"], second.body["id"]);
    fleet.enrolled("ap-1", &first.body, LIMIT).await.unwrap();
    assert_eq!(ask().body["id"], first.body["id"], "the key was forgotten when the job ended");
    assert_eq!(fleet.get("jobs").unwrap()["items"].as_array().unwrap().len(), 1);
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1);
}

/// `openssl verify` against the lab CA's root, with its issuing CA as helper.
fn openssl_verifies(ca_dir: &Path, file: &str) {
    let (root, issuing) = (ca_dir.join("root.pem"), ca_dir.join("issuing.pem"));
    let said = openssl(&["verify", "-CAfile", root.to_str().unwrap(), "-untrusted", issuing.to_str().unwrap(), file]);
    assert_eq!(said, format!("{file}: OK"));
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
