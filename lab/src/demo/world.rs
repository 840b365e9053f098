//! The processes of the demonstration, their logs and files, all below the stack's own folder.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use super::DemoError;
use crate::{
    house::{AgentFiles, ControllerFiles, Rest},
    stack::{
        Stack, StackOptions, TlsFiles,
        process::{Process, in_words, mortal, tail},
        random_word,
    },
    testkit::binary,
};

/// Names of further controllers.
pub(super) const REPLICAS: [&str; 3] = ["controller-2", "controller-3", "controller-4"];

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The running system; everything ends when it is dropped.
#[derive(Debug)]
pub(super) struct World {
    processes: Vec<Running>,
    dir: PathBuf,
    // Last: the processes end before the services that they use.
    stack: Stack,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    process: Process,
    log: PathBuf,
}

/// The lab CA.
#[derive(Debug)]
pub(super) struct RunningCa {
    /// Its CMP URL.
    pub(super) url: Url,
    /// Where its certificates are.
    pub(super) dir: PathBuf,
    /// Each device with its MAC secret; the reference is the device's name.
    pub(super) secrets: Vec<(&'static str, String)>,
}

/// The controller, reached with the platform's first token.
#[derive(Debug)]
pub(super) struct Controller {
    /// Its REST API.
    pub(super) rest: Rest,
}

impl Controller {
    /// Its URL.
    pub(super) const fn url(&self) -> &Url {
        self.rest.base()
    }
}

impl World {
    /// Starts PostgreSQL and RabbitMQ.
    ///
    /// # Errors
    /// A program is not installed, or did not start.
    pub(super) async fn start(base_dir: Option<PathBuf>, tls: bool) -> Result<Self, DemoError> {
        let stack = Stack::start(StackOptions { base_dir, fsync: false, progress: true, tls }).await?;
        let dir = stack.env().dir.join("demo");
        for folder in [dir.clone(), dir.join("logs")] {
            fs::DirBuilder::new().mode(0o700).create(&folder).map_err(DemoError::file("making", &folder))?;
        }
        Ok(Self { processes: Vec::new(), dir, stack })
    }

    /// Where all files of the demonstration are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where everything is encrypted: what verifies it.
    pub(super) const fn tls(&self) -> Option<&TlsFiles> {
        self.stack.env().tls.as_ref()
    }

    /// The stack's own folder.
    pub(super) fn stack_dir(&self) -> &Path {
        &self.stack.env().dir
    }

    /// Starts a lab CA; it knows a random MAC secret for each device. `validity`: its arguments for how long certificates
    /// are valid.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) async fn start_ca(
        &mut self,
        name: &'static str,
        devices: &[&'static str],
        validity: [&str; 2],
    ) -> Result<RunningCa, DemoError> {
        let dir = self.dir.join(name.replace(' ', "-"));
        let secrets =
            devices.iter().map(|device| Ok((*device, random_word(16)?))).collect::<Result<Vec<_>, DemoError>>()?;
        let table: Value = secrets.iter().map(|(device, secret)| ((*device).to_owned(), json!(secret))).collect();
        let file = dir.with_extension("secrets.toml");
        let text = toml::to_string(&json!({ "secrets": table }))
            .map_err(|error| DemoError::Unexpected(format!("the CA's secrets cannot be written: {error}")))?;
        write_private(&file, &text)?;

        let mut command = self.command("trustfleet-lab")?;
        command.arg("ca").args(validity).arg("--dir").arg(&dir).arg("--secrets-file").arg(&file);
        if let Some(tls) = self.tls() {
            command.arg("--tls-cert-file").arg(&tls.certificate).arg("--tls-key-file").arg(&tls.key);
        }
        let url = self.announced(name, command, "url").await?;
        Ok(RunningCa { url, dir, secrets })
    }

    /// Migrates the database and starts the controller.
    ///
    /// # Errors
    /// The migration fails, or the controller does not come up.
    pub(super) async fn start_controller(&mut self) -> Result<Controller, DemoError> {
        let files = ControllerFiles::write(&self.dir, self.stack.env(), 0)
            .map_err(DemoError::file("writing into", &self.dir))?;
        let mut migrate = self.command("trustfleet")?;
        migrate.arg("migrate").arg("--config").arg(&files.config);
        let index = self.spawn("migrate", migrate)?;
        let mut migration = self.processes.remove(index);
        match migration.process.wait(START_LIMIT).await {
            Some(status) if status.success() => {}
            status => {
                let status = status.map_or_else(|| "no answer".to_owned(), in_words);
                self.processes.push(migration);
                return Err(DemoError::Ended { name: "migrate", status });
            }
        }
        let mut serve = self.command("trustfleet")?;
        serve.arg("serve").arg("--config").arg(&files.config);
        let url = self.announced("controller", serve, "listening").await?;
        let token = fs::read_to_string(&files.first_token)
            .map_err(DemoError::file("reading the platform's first token", &files.first_token))?;
        let token = Some(token.trim().to_owned());
        let rest = match self.tls() {
            Some(tls) => Rest::trusting(url, token, &tls.ca).map_err(DemoError::file("reading", &tls.ca))?,
            None => Rest::new(url, token),
        };
        Ok(Controller { rest })
    }

    /// Starts a further controller on the same database and broker.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) async fn start_replica(&mut self, name: &'static str) -> Result<Url, DemoError> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(DemoError::file("making", &dir))?;
        let files = ControllerFiles::write(&dir, self.stack.env(), 0).map_err(DemoError::file("writing into", &dir))?;
        let mut serve = self.command("trustfleet")?;
        serve.arg("serve").arg("--config").arg(&files.config);
        self.announced(name, serve, "listening").await
    }

    /// Kills a process, as `kill -9` does.
    pub(super) async fn kill(&mut self, name: &str) {
        if let Some(at) = self.processes.iter().position(|running| running.name == name) {
            let mut running = self.processes.remove(at);
            running.process.signal_group(Signal::KILL);
            running.process.wait(STOP_LIMIT).await;
        }
    }

    /// Starts an agent that will join with the token; `services` goes into its configuration.
    ///
    /// # Errors
    /// A file cannot be written, or the process not started.
    pub(super) fn start_agent(
        &mut self,
        name: &'static str,
        controller: &Url,
        join_token: &str,
        services: &str,
    ) -> Result<(), DemoError> {
        let dir = self.dir.join("agents");
        fs::create_dir_all(&dir).map_err(DemoError::file("making", &dir))?;
        let ca_file = self.tls().map(|tls| tls.ca.as_path());
        let files = AgentFiles::write_trusting(&dir, name, controller, join_token, ca_file)
            .map_err(DemoError::file("writing", &dir))?;
        let config = fs::read_to_string(&files.config).map_err(DemoError::file("reading", &files.config))?;
        fs::write(&files.config, config + services).map_err(DemoError::file("writing", &files.config))?;
        let mut run = self.command("trustfleet-agent")?;
        run.arg("run").arg("--config").arg(&files.config);
        self.spawn(name, run)?;
        Ok(())
    }

    /// Starts another server, which says nothing when it is ready.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start_server(
        &mut self,
        name: &'static str,
        program: &Path,
        args: &[String],
    ) -> Result<(), DemoError> {
        let mut command = mortal(program, "KILL", &[]);
        let (mark, value) = self.stack.mark();
        command.env(mark, value).args(args);
        self.spawn(name, command).map(drop)
    }

    /// Fails when a process has ended.
    ///
    /// # Errors
    /// [`DemoError::Ended`].
    pub(super) fn all_alive(&mut self) -> Result<(), DemoError> {
        for running in &mut self.processes {
            if let Some(status) = running.process.ended() {
                return Err(DemoError::Ended { name: running.name, status: in_words(status) });
            }
        }
        Ok(())
    }

    /// Waits until a process ends, which none should.
    pub(super) async fn first_to_end(&mut self) -> DemoError {
        loop {
            if let Err(error) = self.all_alive() {
                return error;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends everything in order: agents, controller, CA, then broker and database.
    pub(super) async fn stop(mut self) {
        for running in self.processes.iter_mut().rev() {
            running.process.signal(Signal::TERM);
        }
        for running in &mut self.processes {
            running.process.stop(Signal::TERM, STOP_LIMIT).await;
        }
        drop(self.processes);
        self.stack.stop().await;
    }

    /// The ends of the logs that matter: of the processes that ended by themselves, otherwise of all.
    pub(super) fn log_tails(&mut self) -> Vec<(&'static str, String)> {
        let ended: Vec<_> = self.processes.iter_mut().map(|running| running.process.ended().is_some()).collect();
        let all = !ended.contains(&true);
        let chosen = self.processes.iter().zip(ended).filter(|(_, ended)| all || *ended);
        chosen.map(|(running, _)| (running.name, tail(&running.log))).collect()
    }

    /// Where the logs are: of this demonstration, of the database, of the broker.
    pub(super) fn log_places(&self) -> [PathBuf; 3] {
        let stack = self.stack_dir();
        [self.dir.join("logs"), stack.join("postgres/log"), stack.join("rabbitmq/log")]
    }

    fn command(&self, program: &str) -> Result<Command, DemoError> {
        let mut command = mortal(binary(program)?, "KILL", &[]);
        let (name, value) = self.stack.mark();
        command.env(name, value);
        Ok(command)
    }

    fn spawn(&mut self, name: &'static str, command: Command) -> Result<usize, DemoError> {
        let log = self.dir.join("logs").join(format!("{}.log", name.replace(' ', "-")));
        let process = Process::spawn(name, command, &log, Signal::TERM)?;
        self.processes.push(Running { name, process, log });
        Ok(self.processes.len() - 1)
    }

    /// Starts a server and reads the URL from the one JSON line that it prints when it is ready.
    async fn announced(&mut self, name: &'static str, command: Command, key: &str) -> Result<Url, DemoError> {
        let index = self.spawn(name, command)?;
        let Running { process, log, .. } = &mut self.processes[index];
        let log = log.clone();
        let read = async || {
            let text = fs::read_to_string(&log).ok()?;
            let whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            whole_lines
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find_map(|line| line.get(key)?.as_str()?.parse::<Url>().ok())
        };
        Ok(process.until_ready(START_LIMIT, read).await?)
    }
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(DemoError::file("writing", path))
}
