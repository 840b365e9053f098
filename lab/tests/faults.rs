//! What dies in the middle, and what must happen then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use support::{Lab, policy};
use trustfleet_lab::{
    house::{Fleet, start_agent_process},
    stack::{Stack, StackOptions},
};

const LIMIT: Duration = Duration::from_secs(90);

async fn own_stack() -> Stack {
    Stack::start(StackOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_the_controllers_death_between_accepting_and_publishing_and_is_done_exactly_once() {
    let mut stack = own_stack().await;
    let mut lab = Lab::start_on(stack.env().clone()).await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();

    // Without a broker the job is accepted and cannot be published.
    stack.rabbit.stop().await;
    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(job["state"], "awaiting_publish");
    lab.house.controller.kill().await;
    stack.rabbit.start().await.unwrap();
    lab.house.start_again().await.unwrap();

    let trustpoint = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(trustpoint["status"], "active");
    assert_eq!(fleet.get("jobs").unwrap()["items"].as_array().unwrap().len(), 1);
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1, "the CA was asked more than once");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_and_starts_in_the_middle_delays_jobs_and_loses_none() {
    let mut stack = own_stack().await;
    let lab = Lab::start_on(stack.env().clone()).await;
    let devices = ["gw-1", "gw-2", "gw-3", "gw-4"];
    let fleet = lab.fleet(&devices, &policy()).await;
    let (_agent, _files) = fleet.start_agent("gw").await.unwrap();
    for device in devices {
        fleet.add_device(device, "gw").unwrap();
    }
    let mut jobs = Vec::new();
    for device in &devices[..2] {
        jobs.push((*device, fleet.enroll(device, "ir").unwrap()));
    }
    stack.rabbit.stop().await;
    for device in &devices[2..] {
        jobs.push((*device, fleet.enroll(device, "ir").unwrap()));
    }
    stack.rabbit.start().await.unwrap();

    for (device, job) in &jobs {
        fleet.enrolled(device, job, LIMIT).await.unwrap();
    }
    assert_eq!(lab.issued_by_ca(&fleet).len(), devices.len());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_an_agent_that_is_switched_off_is_done_when_it_comes_back() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    agent.kill().await;
    let job = fleet.enroll("ap-1", "ir").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = fleet.get(&format!("jobs/{}", job["id"].as_str().unwrap())).unwrap();
    assert_eq!(waiting["state"], "awaiting_agent", "{waiting}");
    let _agent = start_agent_process(&files).unwrap();
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(lab.issued_by_ca(&fleet).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_the_ca_thinks_goes_on_with_the_same_transaction_and_one_certificate_is_issued() {
    let lab = Lab::start().await;
    let fleet = Fleet::create_at(&lab.house, &["ap-1"], &policy(), &["--hold-seconds", "1.5"]).await.unwrap();
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = fleet.enroll("ap-1", "ir").unwrap();
    let below = format!("jobs/{}", job["id"].as_str().unwrap());
    let asked = lab
        .eventually("the agent asks the CA", || fleet.get(&below).ok().filter(|job| job["state"] == "awaiting_ca"))
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await; // the request is at the CA, the answer is not here
    agent.kill().await;
    let _agent = start_agent_process(&files).unwrap();

    let trustpoint = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(trustpoint["active"]["public_key_sha256"], asked["public_key_sha256"], "another key came into use");
    let issued = lab.issued_by_ca(&fleet);
    assert_eq!(issued.len(), 1, "{issued:?}");
    assert_eq!(issued[0]["confirmed"], true, "{issued:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_stopped_by_sigterm_ends_cleanly_and_soon() {
    let mut lab = Lab::start().await;
    let status = lab.house.controller.terminate(Duration::from_secs(15)).await.unwrap();
    assert!(status.success(), "{status}: {}", lab.house.controller.log());
}
