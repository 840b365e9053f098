//! A private PostgreSQL cluster and a private RabbitMQ node below one temporary folder, for tests and demonstrations.
//!
//! Never the system's own services: free ports on 127.0.0.1, no service manager, nothing read from or written to the
//! distribution's configuration. Nothing stays behind, neither processes nor files, whether the stack ends by itself,
//! by a failure, by Ctrl-C or by SIGKILL.
//!
//! To keep one running for development:
//!
//! ```text
//! trustfleet-lab stack -- sleep infinity     # prints the folder; Ctrl-C ends it
//! . /tmp/trustfleet-stack-XXXXXX/env         # in another shell: all variables; then psql "$TRUSTFLEET_DB_OWNER_URL"
//! ```

mod env;
mod error;
mod keys;
mod ports;
mod postgres;
pub(crate) mod process;
mod rabbit;
mod run;
mod tls;
mod watchdog;

use std::{path::PathBuf, time::Instant};

use self::watchdog::Watchdog;
pub use self::{
    env::{StackEnv, with_database, with_vhost},
    error::StackError,
    keys::KeyFiles,
    ports::{PortReservation, free_port},
    postgres::Postgres,
    rabbit::Rabbit,
    run::run,
    tls::{LOOPBACK_NAMES, TlsAuthority, TlsFiles, server_config},
};
pub(crate) use self::{keys::random_word, postgres::connect};

/// How a stack is started.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// The folder below which the stack's own folder is made; the system's temporary folder when absent.
    pub base_dir: Option<PathBuf>,
    /// Whether PostgreSQL waits for the disk at commit. Off by default: only a crash of the machine tells the
    /// difference, and tests run several times faster. Measurements of throughput need it on.
    pub fsync: bool,
    /// Whether a line is written to stderr when each part is ready.
    pub progress: bool,
    /// Whether everything is encrypted: PostgreSQL and RabbitMQ then take no plaintext, and [`StackEnv::tls`] has what
    /// their clients, and further servers, need.
    pub tls: bool,
}

/// A running stack; everything ends when it is dropped.
#[derive(Debug)]
pub struct Stack {
    env: StackEnv,
    /// The database server, to be stopped and started by tests.
    pub postgres: Postgres,
    /// The broker, to be stopped and started by tests.
    pub rabbit: Rabbit,
    // Last, because fields are dropped in this order and the watchdog removes the folder.
    watchdog: Watchdog,
}

impl Stack {
    /// Makes keys and starts PostgreSQL and RabbitMQ side by side.
    ///
    /// # Errors
    /// [`StackError`]; whatever was started until then is ended again.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let base = options.base_dir.clone().unwrap_or_else(std::env::temp_dir);
        let base = base.canonicalize().map_err(StackError::io(format!("looking for the folder {}", base.display())))?;
        let dir = tempfile::Builder::new()
            .prefix("trustfleet-stack-")
            .tempdir_in(&base)
            .map_err(StackError::io(format!("making a folder below {}", base.display())))?
            .keep();
        let watchdog = Watchdog::start(&dir, random_word(12)?)?;
        postgres::make_passable(&dir)?;
        let mark = || (watchdog.mark().0, watchdog.mark().1.to_owned());

        let tls = if options.tls {
            let authority = TlsAuthority::new("Lab TLS CA")?;
            Some(authority.write(&dir.join("tls"), "server", &LOOPBACK_NAMES)?)
        } else {
            None
        };
        let begin = Instant::now();
        let say = |what: &str, port: u16| {
            if options.progress {
                eprintln!("stack: {what} on 127.0.0.1:{port} ({:.1} s)", begin.elapsed().as_secs_f32());
            }
        };
        let database = async {
            let postgres = Postgres::create(dir.join("postgres"), mark(), &options, tls.clone()).await?;
            say("postgresql", postgres.port());
            Ok::<_, StackError>(postgres)
        };
        let broker = async {
            let key_dir = dir.join("keys");
            let keys = tokio::task::spawn_blocking(move || KeyFiles::generate(&key_dir)).await;
            let keys = keys.map_err(|_| StackError::Key { what: "controller's keys" })??;
            let rabbit = Rabbit::create(dir.join("rabbitmq"), mark(), &keys, tls.clone()).await?;
            say("rabbitmq", rabbit.port());
            Ok::<_, StackError>((rabbit, keys))
        };
        let (postgres, (rabbit, keys)) = tokio::try_join!(database, broker)?;

        let env = StackEnv {
            pg_admin_url: postgres.admin_url()?,
            db_owner_url: postgres.url("trustfleet_owner", "trustfleet")?,
            db_api_url: postgres.url("trustfleet_api", "trustfleet")?,
            db_system_url: postgres.url("trustfleet_system", "trustfleet")?,
            amqp_url: rabbit.amqp_url()?,
            amqp_management_url: rabbit.management_url()?,
            keys,
            tls,
            dir,
        };
        keys::write_private(&env.dir.join("env"), &env.shell_text())?;
        if options.progress {
            eprintln!("stack: ready; its variables are in {}", env.dir.join("env").display());
        }
        Ok(Self { env, postgres, rabbit, watchdog })
    }

    /// URLs and files.
    pub const fn env(&self) -> &StackEnv {
        &self.env
    }

    /// The variable that puts a process under the guard that ends everything with the stack.
    pub(crate) fn mark(&self) -> (&'static str, &str) {
        self.watchdog.mark()
    }

    /// Ends everything and removes the folder; the same as dropping, without blocking a worker thread.
    pub async fn stop(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}
