//! `trustfleet-lab fleet`: real agents, many in a process, each in front of several devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use serde_json::Value;
use trustfleet_lab::testkit::command;

/// Runs a fleet in a house of its own; what it says.
fn fleet(arguments: &[&str]) -> (bool, Value) {
    let output =
        command("trustfleet-lab").unwrap().arg("fleet").args(arguments).args(["--output", "json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = serde_json::from_slice(&output.stdout);
    (output.status.success(), said.unwrap_or_else(|error| panic!("{error}: {told}")))
}

#[test]
fn a_fleet_of_real_agents_enrols_and_renews_all_its_devices_although_agents_and_exchanges_are_lost() {
    let faults = ["--restart-every", "3", "--fail-exchanges", "60", "--start-within", "1", "--seed", "11"];
    let size = ["--agents", "6", "--devices-per-agent", "3", "--processes", "2", "--renew", "1", "--ready-keys", "4"];
    let sources = ["--source-addresses", "4"];
    let (good, said) = fleet(&[&size[..], &faults[..], &sources[..]].concat());
    assert!(good, "{said}");
    let done: Vec<(&str, u64)> = said["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| (phase["phase"].as_str().unwrap(), phase["succeeded"].as_u64().unwrap()))
        .collect();
    assert_eq!(done, [("join", 6), ("register", 18), ("ir", 18), ("kur", 18)], "{said}");
    assert!(said["restarts"].as_u64().unwrap() > 0, "no agent was cut off: the seed does nothing: {said}");
}

#[test]
fn a_key_that_cannot_be_made_is_refused_before_anything_is_started() {
    let output = command("trustfleet-lab").unwrap().args(["fleet", "--key-algorithm", "dsa"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ecdsa-p256, ecdsa-p384 or rsa-2048"));
}
