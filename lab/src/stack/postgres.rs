//! A private PostgreSQL cluster: its own folder, its own port on 127.0.0.1, no socket file, the roles of the house.
//!
//! It runs in the foreground as our child, never through the distribution's service scripts. Authentication is `trust`
//! on the loopback interface, which is right for a throw-away cluster and for nothing else.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Signal, geteuid};
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::{
    PortReservation, StackError, StackOptions,
    keys::write_private,
    process::{Process, find_program, mortal, search_path, tail},
    tls::TlsFiles,
};

const NAME: &str = "postgresql";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(20);

const ROLES: &str = "
    CREATE ROLE trustfleet_owner LOGIN CREATEDB;
    CREATE ROLE trustfleet_api LOGIN NOBYPASSRLS;
    CREATE ROLE trustfleet_system LOGIN NOBYPASSRLS;
    GRANT trustfleet_owner TO CURRENT_USER;
";
const DATABASE: &str = "CREATE DATABASE trustfleet OWNER trustfleet_owner";

/// The running (or just now stopped) cluster.
#[derive(Debug)]
pub struct Postgres {
    program: PathBuf,
    run_as: Option<RunAs>,
    dir: PathBuf,
    port: PortReservation,
    mark: (&'static str, String),
    tls: Option<TlsFiles>,
    process: Option<Process>,
}

impl Postgres {
    /// Makes the cluster below `dir` and starts it.
    pub(super) async fn create(
        dir: PathBuf,
        mark: (&'static str, String),
        options: &StackOptions,
        tls: Option<TlsFiles>,
    ) -> Result<Self, StackError> {
        let bin = bin_dir()?;
        let run_as = if geteuid().is_root() { Some(RunAs::postgres_user()?) } else { None };
        let port = PortReservation::any()?;
        let mut cluster = Self { program: bin.join("postgres"), run_as, dir, port, mark, tls, process: None };
        cluster.init(&bin.join("initdb"), options).await?;
        cluster.port.open();
        cluster.start().await?;
        cluster.set_up().await?;
        Ok(cluster)
    }

    /// The port on 127.0.0.1; the same after a stop and a start.
    pub const fn port(&self) -> u16 {
        self.port.port()
    }

    /// The superuser's URL, on the database `postgres`.
    pub fn admin_url(&self) -> Result<Url, StackError> {
        self.url("postgres", "postgres")
    }

    /// The URL of `role` on `database`.
    pub(super) fn url(&self, role: &str, database: &str) -> Result<Url, StackError> {
        let mode = if self.tls.is_some() { "?sslmode=require" } else { "" };
        let url = format!("postgres://{role}@127.0.0.1:{}/{database}{mode}", self.port());
        url.parse().map_err(|error| StackError::Io {
            what: format!("making a URL for {role}"),
            source: std::io::Error::other(error),
        })
    }

    /// Starts the cluster on its data and port; does nothing when it runs.
    ///
    /// # Errors
    /// [`StackError::Exited`] or [`StackError::NotReady`] with the end of the server's log.
    pub async fn start(&mut self) -> Result<(), StackError> {
        if self.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        let mut command = self.as_its_user(&self.program, "INT");
        command.arg("-D").arg(self.dir.join("data"));
        // SIGQUIT ends every backend at once and, unlike SIGKILL, leaves no shared memory behind.
        let mut process = Process::spawn(NAME, command, &self.dir.join("log"), Signal::QUIT)?;
        let url = self.admin_url()?;
        process.until_ready(START_TIMEOUT, async || connect(&url, self.tls.as_ref()).await.ok()).await?;
        self.process = Some(process);
        Ok(())
    }

    /// A fast shutdown: connections are cut, transactions rolled back, what was committed stays.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::INT, STOP_GRACE).await;
        }
    }

    /// An immediate shutdown without a checkpoint: the next start recovers from the log, as after a crash.
    pub async fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::QUIT, STOP_GRACE).await;
        }
    }

    async fn init(&self, initdb: &Path, options: &StackOptions) -> Result<(), StackError> {
        fs::create_dir_all(&self.dir).map_err(StackError::io(format!("creating {}", self.dir.display())))?;
        if let Some(user) = &self.run_as {
            chown(&self.dir, Some(user.uid), Some(user.gid))
                .map_err(StackError::io(format!("giving {} to the user postgres", self.dir.display())))?;
        }
        let log = self.dir.join("initdb.log");
        let mut command = self.as_its_user(initdb, "TERM");
        command.arg("-D").arg(self.dir.join("data")).args([
            "-U",
            "postgres",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
            "--no-sync",
        ]);
        let mut process = Process::spawn("initdb", command, &log, Signal::KILL)?;
        match process.wait(START_TIMEOUT).await {
            Some(status) if status.success() => {}
            Some(status) => {
                let status = super::process::in_words(status);
                return Err(StackError::Exited { name: "initdb", status, tail: tail(&log), log });
            }
            None => {
                let seconds = START_TIMEOUT.as_secs();
                return Err(StackError::NotReady { name: "initdb", seconds, tail: tail(&log), log });
            }
        }
        let mut settings = self.settings(options);
        if let Some(tls) = &self.tls {
            settings.push_str(&self.take_no_plaintext(tls)?);
        }
        let path = self.dir.join("data/postgresql.auto.conf");
        fs::write(&path, settings).map_err(StackError::io(format!("writing {}", path.display())))
    }

    /// Gives the server its certificate, and lets nobody in without TLS; returns the settings for it.
    fn take_no_plaintext(&self, tls: &TlsFiles) -> Result<String, StackError> {
        let (certificate, key) = (self.dir.join("server.pem"), self.dir.join("server.key"));
        for (from, to) in [(&tls.certificate, &certificate), (&tls.key, &key)] {
            let text = fs::read_to_string(from).map_err(StackError::io(format!("reading {}", from.display())))?;
            write_private(to, &text)?;
            if let Some(user) = &self.run_as {
                chown(to, Some(user.uid), Some(user.gid))
                    .map_err(StackError::io(format!("giving {} to the user postgres", to.display())))?;
            }
        }
        let path = self.dir.join("data/pg_hba.conf");
        fs::write(&path, "hostssl all all 127.0.0.1/32 trust\n")
            .map_err(StackError::io(format!("writing {}", path.display())))?;
        Ok(format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display()))
    }

    fn settings(&self, options: &StackOptions) -> String {
        // Without fsync a crash of PostgreSQL still loses nothing, only a crash of the machine does.
        let durable = if options.fsync { "on" } else { "off" };
        format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nmax_connections = 400\n\
             shared_buffers = '256MB'\nfsync = {durable}\nfull_page_writes = {durable}\nmax_wal_size = '2GB'\n\
             jit = off\ntimezone = 'UTC'\nlog_timezone = 'UTC'\nlog_line_prefix = '%m [%p] %u@%d '\n",
            self.port()
        )
    }

    async fn set_up(&self) -> Result<(), StackError> {
        let sql = |what| move |source| StackError::Sql { what, source };
        let client = connect(&self.admin_url()?, self.tls.as_ref()).await?;
        client.batch_execute(ROLES).await.map_err(sql("create the roles"))?;
        client.batch_execute(DATABASE).await.map_err(sql("create the database trustfleet"))
    }

    /// `program` with a clean environment, and as the user `postgres` when we are root.
    fn as_its_user(&self, program: &Path, death_signal: &str) -> Command {
        let options = if self.run_as.is_some() {
            ["--reuid=postgres", "--regid=postgres", "--clear-groups"].as_slice()
        } else {
            &[]
        };
        let mut command = mortal(program, death_signal, options);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env(self.mark.0, &self.mark.1)
            .current_dir(&self.dir);
        command
    }
}

/// A connection whose driver runs in a task of its own; with `tls` the server is verified.
pub(crate) async fn connect(url: &Url, tls: Option<&TlsFiles>) -> Result<Client, StackError> {
    let refused = |source| StackError::Sql { what: "let anybody in", source };
    match tls {
        Some(tls) => {
            let connector = MakeRustlsConnect::new(tls.client_config()?);
            let (client, connection) = tokio_postgres::connect(url.as_str(), connector).await.map_err(refused)?;
            tokio::spawn(driven(connection));
            Ok(client)
        }
        None => {
            let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls).await.map_err(refused)?;
            tokio::spawn(driven(connection));
            Ok(client)
        }
    }
}

async fn driven(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = %error, "connection to postgresql ended");
    }
}

/// The folder of `initdb` and `postgres`: on PATH, or the newest below /usr/lib/postgresql.
fn bin_dir() -> Result<PathBuf, StackError> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    let directories = search_path().into_iter().chain(versions.into_iter().map(|(_, path)| path));
    directories
        .into_iter()
        .find(|directory| {
            ["initdb", "postgres"].iter().all(|program| find_program(program, [directory.clone()]).is_some())
        })
        .ok_or(StackError::MissingProgram { program: "postgres (the server)", package: "postgresql" })
}

#[derive(Clone, Copy, Debug)]
struct RunAs {
    uid: u32,
    gid: u32,
}

impl RunAs {
    fn postgres_user() -> Result<Self, StackError> {
        let passwd = fs::read_to_string("/etc/passwd").map_err(StackError::io("reading /etc/passwd"))?;
        passwd
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == "postgres").then_some(())?;
                Some(Self { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
            })
            .ok_or(StackError::NoPostgresUser)
    }
}

/// Lets other users pass through (not list) a folder that `tempfile` made for its owner alone, and checks that they get
/// there when PostgreSQL will be one of them.
pub(super) fn make_passable(dir: &Path) -> Result<(), StackError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
        .map_err(StackError::io(format!("changing the permissions of {}", dir.display())))?;
    let closed = |folder: &&Path| fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0);
    match dir.ancestors().find(closed) {
        Some(folder) if geteuid().is_root() => Err(StackError::NotPassable { folder: folder.to_owned() }),
        _ => Ok(()),
    }
}
