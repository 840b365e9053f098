//! Hot-standby pairs whose agents see which node is active, and clocks that are wrong, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::house::{Fleet, start_agent_process};

const LIMIT: Duration = Duration::from_secs(60);

/// An agent that watches a device by a file.
fn watching(device: &str, file: &Path) -> String {
    format!(
        "[pairs.{device}]\nfile = {:?}\nactive = \"MASTER\"\nstandby = \"BACKUP\"\nevery_s = 1\nsettle_s = 1\n",
        file.display().to_string()
    )
}

fn node(fleet: &Fleet, device: &str) -> (Value, Value) {
    let device = fleet.get(&format!("devices/{device}")).unwrap();
    (device["standby"].clone(), device["node_active"].clone())
}

fn switch_overs(fleet: &Fleet) -> Vec<Value> {
    let lines = fleet.get("audit?limit=200").unwrap();
    let lines = lines["items"].as_array().unwrap().clone();
    lines.into_iter().filter(|line| line["action"] == "device_switched_over").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s47_a_node_whose_agent_sees_it_become_active_takes_over_and_only_for_that_agents_devices() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["gw-a", "gw-b"], &policy()).await;
    let state = |name: &str| lab.dir.path().join(format!("{name}.state"));
    fs::write(state("gw-a"), "MASTER\n").unwrap();
    fs::write(state("gw-b"), "BACKUP\n").unwrap();
    fs::write(state("stranger"), "MASTER\n").unwrap();
    let (_a, _) = fleet.start_agent_with("gw-a", &watching("gw-a", &state("gw-a"))).await.unwrap();
    let (_b, _) = fleet.start_agent_with("gw-b", &watching("gw-b", &state("gw-b"))).await.unwrap();
    // It is in front of neither.
    let (_other, _) = fleet.start_agent_with("other", &watching("gw-b", &state("stranger"))).await.unwrap();
    fleet.post("devices", &json!({ "name": "gw-a", "agent": "gw-a", "pair": "gw" })).unwrap();
    fleet.post("devices", &json!({ "name": "gw-b", "agent": "gw-b", "pair": "gw", "standby": true })).unwrap();

    // They tell of a device that was registered later with a later hello, or when something changes.
    fs::write(state("gw-a"), "BACKUP\n").unwrap();
    fs::write(state("gw-b"), "MASTER\n").unwrap();
    lab.eventually("the other node takes over", || {
        let (a, b) = (node(&fleet, "gw-a"), node(&fleet, "gw-b"));
        (a == (json!(true), json!(false)) && b == (json!(false), json!(true))).then_some(())
    })
    .await;
    let lines = switch_overs(&fleet);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0]["actor"].as_str().unwrap().starts_with("agent:"), "{lines:?}");
    assert_eq!(lines[0]["detail"]["name"], "gw-b");

    // By hand over what the nodes say, which is no news.
    fleet.post("devices/gw-a/switch-over", &Value::Null).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node(&fleet, "gw-a"), (json!(false), json!(false)), "an operator's word holds");
    assert_eq!(switch_overs(&fleet).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_a_device_whose_clock_is_behind_what_was_known_reckons_from_that_until_the_controller_tells_the_time() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    agent.line_with("connected to the broker", LIMIT).await.unwrap();
    let file = files.state.join("clock.json");
    lab.eventually("the time is noted", || file.exists().then_some(())).await;
    agent.kill().await;
    // As if the device had been switched off for a day without a clock.
    let noted: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let right_at: Timestamp = noted["right_at"].as_str().unwrap().parse().unwrap();
    let later = right_at + SignedDuration::from_hours(24);
    fs::write(&file, json!({ "right_at": later }).to_string()).unwrap();

    let mut again = start_agent_process(&files).unwrap();
    again.line_with("behind what is known of the time", LIMIT).await.unwrap();
    // The controller's word goes over it: jobs run, and that the device's clock is right is known.
    let job = fleet.enroll("ap-1", "ir").unwrap();
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(fleet.get("agents/ap-1").unwrap()["clock_off_s"], Value::Null);
    lab.metric_becomes("trustfleet_agents_wrong_clock{tenant=\"lab\"}", 0.0).await;
}
