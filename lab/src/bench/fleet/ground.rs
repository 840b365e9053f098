//! What every benchmark of a fleet begins with: a private stack whose database has one device that was really enrolled.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::super::{BenchError, harness::Harness};
use crate::{
    house::{ControllerFiles, Fleet, House, TENANT},
    stack::{PortReservation, Stack, StackEnv, StackOptions, with_database},
    testkit::{Child, command},
};

use super::http::Http;

/// The device: in its DNS name `.lab.example` is added, which makes 40 characters.
pub(crate) const DEVICE: &str = "ap-0001.building-07.berlin.x";
/// The database of a stack.
pub(crate) const DATABASE: &str = "trustfleet";
const AGENT: &str = "gw-1";
const ENROL_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A stack whose database has one enrolled device; its agent and its controller have ended, its CA runs.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Fields are dropped in this order: processes before what they work on.
    pub(crate) fleet: Fleet,
    /// Its controller has ended.
    pub(crate) house: House,
    /// Folder for further files.
    pub(crate) dir: PathBuf,
    /// PostgreSQL, which waits for the disk, and RabbitMQ.
    pub(crate) stack: Stack,
}

impl Ground {
    /// Starts everything and enrols the device with a key of this algorithm, renewed by itself later.
    ///
    /// # Errors
    /// The system does not come up.
    pub(crate) async fn make(harness: &Harness, algorithm: &str) -> Result<Self, BenchError> {
        harness.say("starting a private PostgreSQL and RabbitMQ, a controller, the lab CA and an agent");
        let stack = Stack::start(StackOptions { fsync: true, ..StackOptions::default() }).await?;
        let dir = stack.env().dir.join("bench");
        fs::create_dir_all(&dir).map_err(BenchError::io(format!("making {}", dir.display())))?;
        let mut house = House::start(&dir, stack.env()).await?;
        let policy = json!({ "key": { "algorithm": algorithm }, "auto_update": { "enabled": true } });
        let fleet = Fleet::create(&house, &[DEVICE], &policy).await?;
        let (mut agent, _) = fleet.start_agent(AGENT).await?;
        fleet.add_device(DEVICE, AGENT)?;
        fleet.enrolled(DEVICE, &fleet.enroll(DEVICE, "ir")?, ENROL_LIMIT).await?;
        agent.terminate(STOP_LIMIT).await?;
        house.controller.terminate(STOP_LIMIT).await?;
        Ok(Self { fleet, house, dir, stack })
    }

    /// Ends everything.
    pub(crate) async fn end(self) {
        let Self { fleet, house, stack, .. } = self;
        drop((fleet, house));
        stack.stop().await;
    }
}

/// A controller process on one database of the ground, started and stopped as often as is wanted.
#[derive(Debug)]
pub(crate) struct Server {
    files: ControllerFiles,
    address: SocketAddr,
    settings: Vec<(&'static str, String)>,
    process: Option<Child>,
    _port: PortReservation,
}

impl Server {
    /// Its files; `settings`: variables of its environment, over the configuration's file.
    ///
    /// # Errors
    /// No port, or a file cannot be written.
    pub(crate) fn new(
        ground: &Ground,
        database: &str,
        settings: &[(&'static str, String)],
    ) -> Result<Self, BenchError> {
        let env = on_database(ground.stack.env(), database);
        let mut port = PortReservation::any()?;
        port.open();
        let dir = ground.dir.join(format!("{database}-{}", port.port()));
        fs::create_dir_all(&dir).map_err(BenchError::io(format!("making {}", dir.display())))?;
        let files = ControllerFiles::write(&dir, &env, port.port())
            .map_err(BenchError::io(format!("writing to {}", dir.display())))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port.port()));
        Ok(Self { files, address, settings: settings.to_vec(), process: None, _port: port })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its files.
    pub(crate) const fn files(&self) -> &ControllerFiles {
        &self.files
    }

    /// Its process.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn id(&self) -> Result<u32, BenchError> {
        let stopped = || BenchError::Odd("the controller does not run".to_owned());
        self.process.as_ref().map(Child::id).ok_or_else(stopped)
    }

    /// Starts it and waits until it says that it can work.
    ///
    /// # Errors
    /// It does not within a minute.
    pub(crate) async fn start(&mut self) -> Result<(), BenchError> {
        let mut serve = command("trustfleet")?;
        serve.arg("serve").arg("--config").arg(&self.files.config);
        serve.envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())));
        let mut process = Child::start("trustfleet serve", serve)?;
        let begin = std::time::Instant::now();
        while !is_ready(self.address).await {
            if !process.is_running() || begin.elapsed() > START_LIMIT {
                return Err(BenchError::Odd(format!("the controller does not get ready: {}", process.log())));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) async fn stop(&mut self) -> Result<(), BenchError> {
        if let Some(mut process) = self.process.take() {
            process.terminate(STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// Kills it, as when its machine dies.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(Child::log).unwrap_or_default()
    }
}

/// A token that may read the first tenant. The controller must run.
///
/// # Errors
/// The controller refuses.
pub(crate) fn viewer(ground: &Ground, server: &Server) -> Result<String, BenchError> {
    let base = format!("http://{}", server.address()).parse().map_err(BenchError::odd("the controller's address"))?;
    let body = json!({ "role": "viewer", "description": "bench" });
    let made = ground.house.platform.at(base).post(&format!("/v1/tenants/{TENANT}/tokens"), &body)?;
    match &made["token"] {
        Value::String(token) => Ok(token.clone()),
        other => Err(BenchError::Odd(format!("the controller's token is {other}"))),
    }
}

/// The stack's variables with another database.
pub(crate) fn on_database(env: &StackEnv, database: &str) -> StackEnv {
    StackEnv {
        db_owner_url: with_database(&env.db_owner_url, database),
        db_api_url: with_database(&env.db_api_url, database),
        db_system_url: with_database(&env.db_system_url, database),
        ..env.clone()
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut http) = Http::open(address).await else { return false };
    matches!(http.get("/readyz", None).await, Ok((200, _)))
}
