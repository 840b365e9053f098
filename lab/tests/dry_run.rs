//! Dry runs on a real device: REST, command line, agent and CA, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{Fleet, TENANT},
    testkit::command,
};

const LIMIT: Duration = Duration::from_secs(60);

fn cli(lab: &Lab, words: &[&str]) -> (Option<i32>, String) {
    let mut shell = command("trustfleet").unwrap();
    shell.args(words).env("TRUSTFLEET_URL", lab.house.platform.base().as_str()).env("TRUSTFLEET_TENANT", TENANT);
    let output = shell.env("TRUSTFLEET_TOKEN_FILE", &lab.house.files.first_token).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

async fn tried(fleet: &Fleet, request: &str) -> Value {
    let job = fleet.post("devices/ap-1/trustpoints/default/dry-run", &json!({ "request": request })).unwrap();
    assert_eq!(job["kind"], "dry_run");
    fleet.job_ended(&job, LIMIT).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_would_fail_before_a_ca_is_asked_and_changes_nothing() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let before = fleet.trustpoint("ap-1").unwrap();

    let job = tried(&fleet, "ir").await;
    assert_eq!((&job["state"], &job["dry_run"]["ready"]), (&json!("succeeded"), &json!(true)), "{job}");
    let names: Vec<_> =
        job["dry_run"]["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"server") && names.contains(&"credentials") && names.contains(&"request"), "{job}");
    assert!(lab.issued_by_ca(&fleet).is_empty());
    let after = fleet.trustpoint("ap-1").unwrap();
    assert_eq!((&after["status"], &after["updated_at"]), (&before["status"], &before["updated_at"]));
    let (code, said) = cli(&lab, &["trustpoint", "dry-run", "ap-1", "default"]);
    assert!(code == Some(0) && said.contains("server") && said.contains("trustpoint enroll"), "{said}");

    // What can be seen without the device is told at once; what only the device can see, by its agent.
    let path = "devices/ap-1/trustpoints/default";
    let kur = fleet.post(&format!("{path}/dry-run"), &json!({ "request": "kur" })).unwrap_err().to_string();
    assert!(kur.contains("422") && kur.contains("certificate in use"), "{kur}");
    fleet.rest.put(&fleet.path(&format!("{path}/services")), &json!({ "services": ["radius"] })).unwrap();
    let job = tried(&fleet, "ir").await;
    assert_eq!((&job["state"], &job["dry_run"]["ready"]), (&json!("succeeded"), &json!(false)), "{job}");
    let (code, said) = cli(&lab, &["trustpoint", "dry-run", "ap-1", "default"]);
    assert!(code == Some(1) && said.contains("S40") && said.contains("radius"), "{said}");
    let audit = fleet.get("audit?limit=200").unwrap().to_string();
    assert!(audit.contains("dry_run_ended"), "{audit}");
}
