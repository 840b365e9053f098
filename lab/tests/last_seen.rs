//! An agent with nothing to do is still seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, io::Write as _, time::Duration};

use support::{Lab, policy};
use trustfleet_lab::house::start_agent_process;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_agent_says_hello_again_and_the_controller_notes_when() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let (mut agent, files) = fleet.start_agent("ap-1").await.unwrap();
    assert!(agent.terminate(LIMIT).await.unwrap().success());
    let mut config = fs::OpenOptions::new().append(true).open(&files.config).unwrap();
    writeln!(config, "hello_s = 1").unwrap();
    let mut agent = start_agent_process(&files).unwrap();
    agent.line_with("connected to the broker", LIMIT).await.unwrap();

    let seen = || fleet.get("agents/ap-1").ok()?["last_seen_at"].as_str().map(str::to_owned);
    let mut last = lab.eventually("the agent was seen", seen).await;
    for _ in 0..3 {
        let next = lab.eventually("the agent is seen again", || seen().filter(|now| *now != last)).await;
        last = next;
    }
    assert_eq!(agent.log().matches("connected to the broker").count(), 1, "these were new sessions: {}", agent.log());
    let log = lab.house.controller.log();
    assert!(log.matches("agent says hello").count() <= 2, "only sessions are worth a line: {log}");
}
