//! Devices with certificates in use, and what campaigns make of them.
#![allow(dead_code)] // each test file uses its part

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use trustfleet_lab::{
    house::{AgentFiles, Fleet},
    testkit::Child,
};

use crate::support::Lab;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const NAMES: [&str; 6] = ["ap-1", "ap-2", "ap-3", "ap-4", "ap-5", "ap-6"];

/// Devices behind one agent, each with a certificate in use.
pub(crate) async fn enrolled(fleet: &Fleet, devices: &[&str]) -> (Child, AgentFiles) {
    let agent = fleet.start_agent("site").await.unwrap();
    for device in devices {
        fleet.add_device(device, "site").unwrap();
        fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
    }
    agent
}

pub(crate) fn serials(fleet: &Fleet, devices: &[&str]) -> BTreeMap<String, String> {
    let of = |device: &&str| {
        let trustpoint = fleet.trustpoint(device).unwrap();
        ((*device).to_owned(), trustpoint["active"]["serial"].as_str().unwrap().to_owned())
    };
    devices.iter().map(of).collect()
}

/// The campaign as soon as it is in this state.
pub(crate) async fn becomes(lab: &Lab, fleet: &Fleet, name: &str, state: &str) -> Value {
    let mut last = Value::Null;
    lab.eventually(&format!("campaign {name} is {state}"), || {
        last = fleet.get(&format!("campaigns/{name}")).ok()?;
        (last["state"] == state).then(|| last.clone())
    })
    .await
}

/// How many members are in which state, wave by wave.
pub(crate) fn states(campaign: &Value) -> Vec<Value> {
    campaign["progress"].as_array().unwrap().iter().map(|wave| wave["states"].clone()).collect()
}
