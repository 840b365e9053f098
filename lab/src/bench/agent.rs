//! The agent at rest, behind the real controller and broker: its memory, the size of its file, and what a further device
//! behind it costs.

mod gateway;

use std::{fs, time::Duration};

use serde_json::json;

use super::{
    BenchError,
    harness::Harness,
    process::{settled_bytes, shipped_agent},
    spec::{Limit, Pace, Spec},
};
use crate::{
    house::{AgentFiles, Fleet, House},
    stack::{Stack, StackOptions, process::mortal},
    testkit::Child,
};

/// The benchmarks of this group.
pub(crate) const SPECS: &[Spec] = &[
    Spec {
        id: "agent.size",
        what: "file of the agent's program as it is shipped, stripped, linked against the distribution's glibc",
        beside: "absolute",
        unit: "MB",
        limits: &[Limit::at_most(6.0)],
        pace: Pace::Look,
    },
    Spec {
        id: "agent.rss",
        what: "memory of an agent at rest, connected, with one trustpoint that it has just renewed",
        beside: "absolute",
        unit: "MB",
        limits: &[Limit::at_most(6.0)],
        pace: Pace::Minutes,
    },
    Spec {
        id: "agent.gateway",
        what: "memory for each further device behind one agent, all enrolled within the day, from 1 to 10,000",
        beside: "absolute",
        unit: "KB",
        limits: &[Limit::at_most(4.0)],
        pace: Pace::Minutes,
    },
];

/// The device: in its DNS name `.lab.example` is added, which makes 40 characters.
const DEVICE: &str = "ap-0001.building-07.berlin.x";
const AGENT: &str = "gw-1";
const ENROL_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Measures what was chosen.
///
/// # Errors
/// The system does not come up.
pub(crate) async fn run(harness: &mut Harness) -> Result<(), BenchError> {
    harness.values("agent.size", async || file_mb()).await;
    if !harness.wants("agent.rss") && !harness.wants("agent.gateway") {
        return Ok(());
    }
    harness.say("starting a private PostgreSQL and RabbitMQ, a controller, the lab CA and an agent");
    let stack = Stack::start(StackOptions { fsync: true, ..StackOptions::default() }).await?;
    let result = with_stack(harness, &stack).await;
    stack.stop().await;
    result
}

async fn with_stack(harness: &mut Harness, stack: &Stack) -> Result<(), BenchError> {
    let dir = stack.env().dir.join("bench");
    fs::create_dir_all(&dir).map_err(BenchError::io(format!("making {}", dir.display())))?;
    let house = House::start(&dir, stack.env()).await?;
    let policy = json!({ "key": { "algorithm": "rsa-2048" } });
    let fleet = Fleet::create(&house, &[DEVICE], &policy).await?;
    let (mut first, files) = fleet.start_agent(AGENT).await?;
    fleet.add_device(DEVICE, AGENT)?;
    let job = fleet.enroll(DEVICE, "ir")?;
    fleet.enrolled(DEVICE, &job, ENROL_LIMIT).await?;
    first.terminate(STOP_LIMIT).await?;

    harness.values("agent.rss", async || renewed_mb(&fleet, &files).await).await;

    if harness.wants("agent.gateway") {
        let devices = harness.size(10_000, 1_000);
        harness.say(format_args!("agent.gateway: writing the state of {devices} enrolled devices"));
        let many = gateway::grown(&files, &dir, &stack.env().keys.signing_key, devices)?;
        harness.values("agent.gateway", async || further_kb(&files, &many, devices).await).await;
    }
    Ok(())
}

fn file_mb() -> Result<f64, BenchError> {
    let path = shipped_agent()?;
    let length = fs::metadata(&path).map_err(BenchError::io(format!("looking at {}", path.display())))?.len();
    Ok(length as f64 / 1e6)
}

/// A fresh process that renews its certificate and comes to rest: what it needed for that and gives back does not count,
/// what it keeps does.
async fn renewed_mb(fleet: &Fleet, files: &AgentFiles) -> Result<f64, BenchError> {
    let mut agent = connected(files).await?;
    let job = fleet.enroll(DEVICE, "kur")?;
    fleet.enrolled(DEVICE, &job, ENROL_LIMIT).await?;
    let bytes = settled_bytes(agent.id()).await?;
    agent.terminate(STOP_LIMIT).await?;
    Ok(bytes / 1e6)
}

async fn further_kb(one: &AgentFiles, many: &AgentFiles, devices: usize) -> Result<f64, BenchError> {
    let (few, all) = (at_rest_bytes(one).await?, at_rest_bytes(many).await?);
    Ok((all - few) / (devices - 1) as f64 / 1e3)
}

async fn at_rest_bytes(files: &AgentFiles) -> Result<f64, BenchError> {
    let mut agent = connected(files).await?;
    let bytes = settled_bytes(agent.id()).await?;
    agent.terminate(STOP_LIMIT).await?;
    Ok(bytes)
}

async fn connected(files: &AgentFiles) -> Result<Child, BenchError> {
    let mut run = mortal(shipped_agent()?, "KILL", &[]);
    run.arg("run").arg("--config").arg(&files.config);
    let mut agent = Child::start("trustfleet-agent", run)?;
    agent.line_with("connected to the broker", CONNECT_LIMIT).await?;
    Ok(agent)
}
