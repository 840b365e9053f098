//! Real agents in front of many devices, in processes of their own, at a running controller.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::ProgressBar;

use super::{
    part::agent_name,
    tenant::{Ends, Settings, Tenant},
};
use crate::{
    house::{AgentFiles, RestError},
    testkit::{Child, TestkitError, command},
};

const READY_LIMIT: Duration = Duration::from_secs(600);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Which agents, and what goes wrong with them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many agents.
    pub agents: u32,
    /// Devices behind each.
    pub devices_per_agent: u32,
    /// Processes among which they are shared out.
    pub processes: u32,
    /// All chances follow from it.
    pub seed: u64,
    /// Each starts at some moment within so many seconds.
    pub start_within_s: f64,
    /// An agent is cut off and comes back once in about so many seconds; 0: never.
    pub restart_every_s: f64,
    /// Keys made beforehand in each process; 0: each is made when it is needed.
    pub ready_keys: usize,
    /// Kind of the keys.
    pub key_algorithm: String,
    /// So many addresses of 127.0.0.0/8 from which the agents' connections come in turn; 0: all from the one that the system takes.
    pub source_addresses: u32,
    /// More lines for each agent's configuration.
    pub more: String,
}

/// The herd does not come together.
#[derive(Debug, thiserror::Error)]
pub enum HerdError {
    /// The controller.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// A process.
    #[error(transparent)]
    Process(#[from] TestkitError),
    /// A file.
    #[error("{} cannot be written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Some agents are missing.
    #[error("only {joined} of {wanted} agents have joined within {} s", limit.as_secs())]
    NotJoined {
        /// How many have.
        joined: usize,
        /// How many there should be.
        wanted: usize,
        /// How long was waited.
        limit: Duration,
    },
    /// A thread died.
    #[error("a thread of the herd died")]
    Thread,
}

/// Where the connections of an agent come from: from one address there are 28,000 to a server and port.
fn source_address(agent: usize, of: u32) -> Option<Ipv4Addr> {
    let turn = u32::try_from(agent).unwrap_or(0).checked_rem(of)?;
    // 127.0.0.1 is everybody else's.
    Some(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + turn))
}

/// Running agents. Dropped, their processes are killed.
#[derive(Debug)]
pub struct Herd {
    /// The tenant that they belong to.
    pub tenant: Tenant,
    /// Names of all devices.
    pub devices: Vec<String>,
    /// Folder of the agents' configurations and states.
    pub dir: PathBuf,
    processes: Vec<Child>,
}

impl Herd {
    /// Starts the agents below `dir`, and waits until all have joined.
    ///
    /// # Errors
    /// [`HerdError`].
    pub async fn start(tenant: Tenant, plan: &Plan, dir: &Path, bar: &ProgressBar) -> Result<Self, HerdError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| HerdError::File { path, source }
        };
        fs::create_dir_all(dir).map_err(file(dir))?;
        let wanted = usize::try_from(plan.agents).unwrap_or(usize::MAX);
        let tokens = blocking(&tenant, move |tenant| tenant.join_tokens(wanted)).await?;
        let names: Vec<String> = (0..plan.agents).map(agent_name).collect();
        for (n, name) in names.iter().enumerate() {
            let token = tokens.get(n / 1_000).map(String::as_str).unwrap_or_default();
            let files = AgentFiles::write(dir, name, tenant.rest.base(), token).map_err(file(dir))?;
            let text = fs::read_to_string(&files.config).map_err(file(&files.config))?;
            let source = source_address(n, plan.source_addresses)
                .map_or_else(String::new, |address| format!("source.address = \"{address}\"\n"));
            fs::write(&files.config, text + &plan.more + &source).map_err(file(&files.config))?;
        }
        let each = plan.agents.div_ceil(plan.processes.max(1)).max(1);
        let mut processes = Vec::new();
        for first in (0..plan.agents).step_by(usize::try_from(each).unwrap_or(1)) {
            processes.push(part(plan, dir, first, each.min(plan.agents - first))?);
        }
        for process in &mut processes {
            process.line_with("fleet-part: ready", READY_LIMIT).await?;
        }
        let limit = Duration::from_secs_f64(plan.start_within_s.max(0.0))
            + Duration::from_secs(120)
            + Duration::from_millis(100) * plan.agents;
        let (bar, waited_for) = (bar.clone(), names.clone());
        let joined = blocking(&tenant, move |tenant| tenant.wait_joined(&waited_for, limit, &bar)).await?;
        if joined < wanted {
            return Err(HerdError::NotJoined { joined, wanted, limit });
        }
        Ok(Self { tenant, devices: Vec::new(), dir: dir.to_owned(), processes })
    }

    /// Registers the devices behind their agents.
    ///
    /// # Errors
    /// The controller refuses.
    pub async fn add_devices(&mut self, plan: &Plan, settings: &Settings, bar: &ProgressBar) -> Result<(), HerdError> {
        let all: Vec<(String, String)> = (0..plan.agents)
            .flat_map(|agent| {
                (0..plan.devices_per_agent).map(move |n| (format!("device-{agent:05}-{n:04}"), agent_name(agent)))
            })
            .collect();
        self.devices = all.iter().map(|(device, _)| device.clone()).collect();
        let (settings, bar) = (settings.clone(), bar.clone());
        blocking(&self.tenant, move |tenant| tenant.add_devices(&all, &settings, &bar)).await
    }

    /// Asks for a certificate on every device and waits until all jobs have ended, and what was issued is in use.
    ///
    /// # Errors
    /// The controller refuses a request.
    pub async fn enroll(&self, request: &'static str, at_most: Duration, bar: &ProgressBar) -> Result<Ends, HerdError> {
        let (devices, bar) = (self.devices.clone(), bar.clone());
        blocking(&self.tenant, move |tenant| {
            let jobs = tenant.enroll(&devices, request)?;
            let mut ends = tenant.wait_ended(&jobs, at_most, &bar)?;
            if ends.succeeded == devices.len() {
                let in_use = tenant.wait_in_use(&devices, at_most)?;
                ends.open = devices.len() - in_use;
                ends.succeeded = in_use;
            }
            Ok(ends)
        })
        .await
    }

    /// Process ids.
    pub fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).collect()
    }

    /// Stops all agents in order; how often one was cut off and came back.
    ///
    /// # Errors
    /// A process does not end.
    pub async fn stop(mut self) -> Result<u64, HerdError> {
        let mut restarts = 0;
        for process in &mut self.processes {
            process.terminate(STOP_LIMIT).await?;
            let said =
                process.log().lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            restarts += said.and_then(|said| said["restarts"].as_u64()).unwrap_or(0);
        }
        Ok(restarts)
    }
}

fn part(plan: &Plan, dir: &Path, first: u32, count: u32) -> Result<Child, HerdError> {
    let mut part = command("trustfleet-lab")?;
    part.arg("fleet-part").arg("--dir").arg(dir);
    for (name, value) in [
        ("--first", first.to_string()),
        ("--count", count.to_string()),
        ("--start-within-s", plan.start_within_s.to_string()),
        ("--restart-every-s", plan.restart_every_s.to_string()),
        ("--ready-keys", plan.ready_keys.to_string()),
        ("--key-algorithm", plan.key_algorithm.clone()),
        ("--seed", plan.seed.to_string()),
    ] {
        part.args([name, &value]);
    }
    Ok(Child::start("trustfleet-lab fleet-part", part)?)
}

async fn blocking<T: Send + 'static>(
    tenant: &Tenant,
    work: impl FnOnce(&Tenant) -> Result<T, RestError> + Send + 'static,
) -> Result<T, HerdError> {
    let tenant = tenant.clone();
    let done = tokio::task::spawn_blocking(move || work(&tenant)).await;
    Ok(done.map_err(|_| HerdError::Thread)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_come_from_their_addresses_in_turn_and_never_from_the_one_of_everybody_else() {
        let of = |agent| source_address(agent, 3).map(|address| address.to_string());
        let turns: Vec<_> = (0..4).filter_map(of).collect();
        assert_eq!(turns, ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.2"]);
        assert_eq!(source_address(7, 0), None, "the system's choice");
        assert_eq!(source_address(299, 300), Some(Ipv4Addr::new(127, 0, 1, 45)));
    }
}
