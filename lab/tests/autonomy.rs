//! An agent that is cut off from its controller, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{AgentFiles, Fleet},
    stack::{Stack, StackOptions},
    testkit::eventually,
};
use trustfleet_pki::Certificate;

const LIMIT: Duration = Duration::from_secs(60);
/// Certificates are valid for so long: past their mark after 12 seconds, and after 29 at the latest.
const VALID: [&str; 2] = ["--validity-seconds", "80"];

/// The controller would renew just before the mark.
fn by_itself(lease_s: u32) -> Value {
    let mut policy = policy();
    policy["auto_update"] = json!({ "enabled": true, "elapsed_percent": 14, "latest_percent": 15,
        "emergency_percent": 15, "lease_s": lease_s });
    policy
}

/// A device with a certificate in use and a lease that its agent holds.
async fn leased(lab: &Lab, fleet: &Fleet, device: &str) -> Value {
    let job = fleet.enroll(device, "ir").unwrap();
    fleet.enrolled(device, &job, LIMIT).await.unwrap();
    lab.eventually("its agent holds a lease", || {
        let trustpoint = fleet.trustpoint(device).ok()?;
        (trustpoint["lease"]["state"] == "held").then_some(trustpoint)
    })
    .await
}

fn on_the_device(files: &AgentFiles, device: &str) -> String {
    let file = files.state.join(format!("devices/{device}/default/current/certificate.pem"));
    Certificate::from_pem(&fs::read_to_string(file).unwrap()).unwrap().serial_hex()
}

fn lease_on_the_disk(state: &Path) -> Value {
    let entry = fs::read_dir(state.join("leases")).unwrap().next().expect("a lease").unwrap();
    serde_json::from_slice::<Value>(&fs::read(entry.path()).unwrap()).unwrap()["lease"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_renews_by_itself_while_the_broker_is_away_and_it_is_recorded_when_it_is_back() {
    let mut stack = Stack::start(StackOptions::default()).await.unwrap();
    let lab = Lab::start_on(stack.env().clone()).await;
    let fleet = Fleet::create_at(&lab.house, &["ap-1"], &by_itself(3_600), &VALID).await.unwrap();
    let (_agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let first = leased(&lab, &fleet, "ap-1").await["active"]["serial"].as_str().unwrap().to_owned();

    stack.rabbit.stop().await;
    // Twice, so that what is told of the former must not overtake what is told of the latter.
    let mut renewed = vec![first.clone()];
    for _ in 0..2 {
        let next = lab
            .eventually("the agent renews by itself", || {
                Some(on_the_device(&files, "ap-1")).filter(|serial| !renewed.contains(serial))
            })
            .await;
        renewed.push(next);
    }
    let second = renewed.swap_remove(1);
    assert_eq!(fleet.trustpoint("ap-1").unwrap()["active"]["serial"], first.as_str(), "nobody could know of it");
    stack.rabbit.start().await.unwrap();

    let recorded = async || {
        let certificates = fleet.get("certificates").ok()?;
        let found = certificates["items"].as_array()?.iter().find(|one| one["serial"] == second.as_str())?.clone();
        let job = fleet.get(&format!("jobs/{}", found["job_id"].as_str()?)).ok()?;
        (job["state"] == "succeeded").then_some(job)
    };
    // An agent that has sought the broker for so long looks again after two minutes at the latest.
    let job = eventually(Duration::from_secs(150), "it is recorded", recorded).await.unwrap();
    assert_eq!((&job["kind"], &job["autonomous"]), (&json!("kur"), &json!(true)), "{job}");
    assert!(job["requested_by"].as_str().unwrap().starts_with("agent:"), "{job}");
    let said = fleet.get(&format!("jobs/{}/transcript", job["id"].as_str().unwrap())).unwrap();
    assert_eq!(said["entries"][0]["kind"], "kur", "{said}");
    let counted = "trustfleet_autonomous_renewals_total{result=\"issued\"}";
    lab.eventually("it is counted", || lab.metric(counted).filter(|count| *count >= 1.0)).await;
    lab.eventually("the trustpoint follows what is in use", || {
        let trustpoint = fleet.trustpoint("ap-1").ok()?;
        (trustpoint["active"]["serial"] == on_the_device(&files, "ap-1").as_str()).then_some(())
    })
    .await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_renewed_by_the_agent_when_its_lease_has_ended() {
    let mut stack = Stack::start(StackOptions::default()).await.unwrap();
    let lab = Lab::start_on(stack.env().clone()).await;
    let fleet = Fleet::create_at(&lab.house, &["ap-1"], &by_itself(10), &VALID).await.unwrap();
    let (_agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let first = leased(&lab, &fleet, "ap-1").await["active"]["serial"].as_str().unwrap().to_owned();
    stack.rabbit.stop().await;
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(on_the_device(&files, "ap-1"), first);
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1);
    assert_eq!(fleet.trustpoint("ap-1").unwrap()["lease"]["state"], "expired");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_in_quarantine_drops_its_lease_at_once_and_renews_nothing() {
    let lab = Lab::start().await;
    let fleet = Fleet::create_at(&lab.house, &["ap-1"], &by_itself(3_600), &VALID).await.unwrap();
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    leased(&lab, &fleet, "ap-1").await;
    assert!(!lease_on_the_disk(&files.state).is_null());
    fleet.post("agents/ap-1/quarantine", &json!({ "reason": "stolen" })).unwrap();
    agent.line_with("its leases have ended", LIMIT).await.unwrap();
    assert!(lease_on_the_disk(&files.state).is_null());
    let lease = fleet.trustpoint("ap-1").unwrap()["lease"].clone();
    assert_eq!((&lease["state"], &lease["reason"]), (&json!("ended"), &json!("quarantine")), "{lease}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1, "renewed in quarantine");
}
