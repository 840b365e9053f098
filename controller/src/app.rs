//! The composition root: the only module that knows everyone.
//!
//! Two kinds of threads: a multi-thread runtime (`backend`) for the drivers of database and broker, the committer,
//! outbox and inbox; and an actix system with the HTTP workers and the threads of the device actors.

use std::{
    io,
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_telemetry::{TracesConfig, TracesError};

use crate::{
    actors::{ActorThreads, Registry},
    admission::Budget,
    api,
    audit::{Bounds, Chainer, Refusals, Sealer},
    binder::Binder,
    bounds::AgentBounds,
    broker::{BrokerHandle, Management},
    campaigner::Campaigner,
    commit::CommitHandle,
    config::{Config, ConfigError},
    cut_off::Cutter,
    db::{self, DbError, SchemaError, Store},
    dead_letters,
    denials::Denials,
    entropy,
    error::AppError,
    freezer::Freezer,
    housekeeping::Housekeeper,
    inbox::{Inbox, Senders},
    keys::{KeyError, Keys},
    leases::Leaser,
    leaver::Leaver,
    load::LoadHandle,
    metrics::Metrics,
    outbox::Outbox,
    purge,
    renewal::Renewal,
    revoker::Revoker,
    roller::Roller,
    rotation,
    spreader::Spreader,
    steady, telemetry,
    tls::{self, ClientTls, ServerTls, TlsError},
};

/// How often the gauges about the fleet are refreshed, at most.
const STATS_EVERY: Duration = Duration::from_secs(2);
/// The gauges may take this share of the time, not more: with a very large fleet they are refreshed less often.
const STATS_SHARE: u32 = 20;
/// How long the outbox, the inbox and the committer may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the parts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// Signing, broker tokens, secrets at rest.
    pub keys: Arc<Keys>,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Takes note of refused attempts, for the audit log.
    pub refusals: Refusals,
    /// The API's own certificate, where it has one.
    pub tls: Option<Arc<ServerTls>>,
    /// Bounds on what agents may cause.
    pub agent_bounds: Arc<AgentBounds>,
    /// To be notified when an agent is to be cut off.
    pub cut_offs: Arc<Notify>,
    /// The configuration.
    pub config: Arc<Config>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("registry", &self.registry)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

impl Services {
    /// Takes leave of devices.
    pub fn leaver(&self) -> Leaver {
        Leaver {
            store: self.store.clone(),
            registry: self.registry.clone(),
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    /// A fresh id: `services.fresh(JobId::fresh)`.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn fresh<T>(&self, make: impl FnOnce(Timestamp, [u8; 10]) -> T) -> Result<T, AppError> {
        Ok(make(self.clock.now(), entropy::random()?))
    }
}

/// The controller could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Certificates, keys or roots for TLS are wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Traces cannot be sent as configured.
    #[error("the configuration is wrong")]
    Traces(#[from] TracesError),
    /// The schema does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Secrets are encrypted under keys that the configuration does not name.
    #[error(
        "secrets in the database are encrypted under the key-encryption key {0}, which this controller has not: name its \
         file in keys.further_key_encryption_key_files; `trustfleet keys status` lists all"
    )]
    MissingKey(String),
    /// A database URL cannot be read.
    #[error("a database URL of the configuration cannot be read")]
    Database(#[from] DbError),
    /// `migrate` needs the owner.
    #[error("database.owner_url is missing: migrations are run by the owner of the tables")]
    NoOwner,
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (http.listen): another program may use it")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The first platform token could not be made or written.
    #[error("the first platform token could not be made (first_token_file)")]
    FirstToken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A part that must always run has ended, by a panic.
    #[error("{0} ended by itself, the log says why; the process ends with it, to be started again")]
    PartEnded(&'static str),
    /// Threads, signals or metrics.
    #[error("the process could not be set up")]
    Process(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the configuration and applies the migrations that are missing; returns their names.
///
/// # Errors
/// [`StartError`].
pub fn migrate(config: &Path) -> Result<Vec<String>, StartError> {
    let config = Config::load(config)?;
    let _logs = telemetry::start(&config.log, &TracesConfig::default(), [0; 16])?;
    let owner = config.database.owner_url.as_ref().ok_or(StartError::NoOwner)?;
    let tls = if config.database.is_encrypted(owner) { Some(database_roots(&config)?) } else { None };
    Ok(backend()?.block_on(db::migrate(owner, tls.as_ref()))?)
}

/// Reads the configuration and serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`].
pub fn serve(config: &Path) -> Result<(), StartError> {
    let config = Config::load(config)?;
    // Dropped last: what ends below is still seen.
    let _traces = telemetry::start(&config.log, &config.traces, entropy::random().map_err(process)?)?;
    let backend = backend()?;
    let handle = backend.handle().clone();
    let result = actix::System::new().block_on(async move {
        let running = Running::start(config, &handle, Arc::new(SystemClock)).await?;
        running.until_signal().await
    });
    backend.shutdown_timeout(STOP_TIMEOUT);
    result
}

pub(crate) fn database_roots(config: &Config) -> Result<ClientTls, TlsError> {
    ClientTls::new("database.tls_ca_file", config.database.tls_ca_file.as_deref())
}

fn broker_roots(config: &Config) -> Result<ClientTls, TlsError> {
    ClientTls::new("broker.tls_ca_file", config.broker.tls_ca_file.as_deref())
}

pub(crate) fn backend() -> Result<tokio::runtime::Runtime, StartError> {
    Builder::new_multi_thread().enable_all().thread_name("trustfleet-backend").build().map_err(process)
}

fn process(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    StartError::Process(error.into())
}

/// Everything that works in the background, without the HTTP server: tests start this alone.
#[derive(Debug)]
pub struct Core {
    /// What handlers work with.
    pub services: Services,
    threads: ActorThreads,
    intake: CancellationToken,
    intake_parts: Vec<Part>,
    commit: CancellationToken,
    commit_part: Part,
    broker: CancellationToken,
    broker_part: Part,
}

/// A task that must run as long as the process does, and what to call it in the log.
#[derive(Debug)]
struct Part {
    name: &'static str,
    task: JoinHandle<()>,
}

impl Core {
    /// Starts everything; must be called where an actix system runs.
    ///
    /// # Errors
    /// Wrong keys or URLs, a schema that does not fit.
    pub async fn start(config: Config, backend: &Handle, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let keys = Arc::new(Keys::load(&config.keys)?);
        let metrics = Arc::new(Metrics::new(config.metrics.tenants_max).map_err(process)?);
        for warning in config.insecure() {
            tracing::warn!(warning, "insecure by configuration");
        }
        let to_database = if config.database.encrypts_any() { Some(Arc::new(database_roots(&config)?)) } else { None };
        let to_broker = if config.broker.is_encrypted() { Some(Arc::new(broker_roots(&config)?)) } else { None };
        let tls = match (&config.http.tls_cert_file, &config.http.tls_key_file) {
            (Some(certificate), Some(key)) => Some(Arc::new(ServerTls::new(certificate, key)?)),
            _ => None,
        };
        let sealer = Sealer::new(&keys.signing).map_err(process)?;
        let hangup = signal(SignalKind::hangup()).map_err(process)?;
        let store = Store::new(&config.database, to_database, backend, Arc::clone(&metrics), sealer)?;
        store.system_tx("schema_check", async |tx| tx.schema_check().await).await?;
        rotation::check(&store, &keys.at_rest, clock.now()).await?;

        let (intake, commit, broker_token) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (broker, broker_task) =
            BrokerHandle::start(&config.broker, to_broker.clone(), backend, Arc::clone(&metrics), broker_token.clone());
        let new_jobs = Arc::new(Notify::new());
        let (commits, commit_task) =
            CommitHandle::start(backend, store.clone(), Arc::clone(&metrics), Arc::clone(&new_jobs), commit.clone());
        let threads = ActorThreads::start(&config.actors);
        let registry = Registry::new(
            &threads,
            store.clone(),
            (LoadHandle::start(backend, store.clone()), commits),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            config.actors.clone(),
        );
        let outbox = Outbox {
            store: store.clone(),
            registry: registry.clone(),
            broker: broker.clone(),
            keys: Arc::clone(&keys),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            config: config.outbox.clone(),
            ca_budget: config.ca_budget.clone(),
            new_jobs: Arc::clone(&new_jobs),
        };
        let agent_bounds = Arc::new(AgentBounds::new(&config.agents));
        let cut_offs = Arc::new(Notify::new());
        let cutter = Cutter {
            store: store.clone(),
            broker: broker.clone(),
            management: Management::of(&config.broker),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            orders: Arc::clone(&cut_offs),
        };
        let refusals = Refusals::new(Bounds::USUAL);
        let log = config.broker.log_url.as_ref().map(|url| {
            let vhost = api::virtual_host(config.broker.agent_url.path());
            let queue = format!("trustfleet.broker-log.{vhost}");
            let (log, task) = BrokerHandle::start_log(url.expose(), &queue, to_broker.clone(), backend, intake.clone());
            let denials = Denials {
                broker: log,
                queue,
                vhost,
                store: store.clone(),
                refusals: refusals.clone(),
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
            };
            (task, denials)
        });
        let inbox = Inbox {
            store: store.clone(),
            senders: Senders::start(backend, store.clone()),
            registry: registry.clone(),
            broker: broker.clone(),
            keys: Arc::clone(&keys),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            refusals: refusals.clone(),
            bounds: Arc::clone(&agent_bounds),
            new_jobs,
            ca_budget: config.ca_budget.budget(),
        };
        let stats = Statistics {
            store: store.clone(),
            registry: registry.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            tenants_max: config.metrics.tenants_max,
            budget: config.ca_budget.budget(),
        };
        let certificate = tls::keep(tls.clone(), Arc::clone(&metrics), hangup, intake.clone());
        let recorded = refusals.clone().keep(store.clone(), Arc::clone(&clock), intake.clone());
        let chainer = Chainer {
            store: store.clone(),
            keys: Arc::clone(&keys),
            clock: Arc::clone(&clock),
            config: config.audit.clone(),
        };
        let leaver = Leaver {
            store: store.clone(),
            registry: registry.clone(),
            broker: broker.clone(),
            clock: Arc::clone(&clock),
        };
        let housekeeper = Housekeeper {
            store: store.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            days_max: config.retention.days_max,
            done_at: Mutex::new(None),
        };
        let renewal = Renewal {
            store: store.clone(),
            registry: registry.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let leaser = Leaser {
            store: store.clone(),
            broker: broker.clone(),
            keys: Arc::clone(&keys),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let binder = Binder { store: store.clone(), registry: registry.clone(), clock: Arc::clone(&clock) };
        let roller = Roller { store: store.clone(), registry: registry.clone(), clock: Arc::clone(&clock) };
        let revoker = Revoker { store: store.clone(), registry: registry.clone(), clock: Arc::clone(&clock) };
        let campaigner = Campaigner { store: store.clone(), registry: registry.clone(), clock: Arc::clone(&clock) };
        let freezer =
            Freezer { store: store.clone(), clock: Arc::clone(&clock), new_jobs: Arc::clone(&outbox.new_jobs) };
        let spreader = Spreader::new(store.clone(), Arc::clone(&clock), config.ca_budget.budget());
        let mut intake_parts = vec![
            Part { name: "the spreading of renewals", task: backend.spawn(steady::keep(spreader, intake.clone())) },
            Part { name: "the campaigns", task: backend.spawn(steady::keep(campaigner, intake.clone())) },
            Part { name: "the freeze windows", task: backend.spawn(steady::keep(freezer, intake.clone())) },
            Part { name: "the revoker", task: backend.spawn(steady::keep(revoker, intake.clone())) },
            Part { name: "the distribution of anchors", task: backend.spawn(steady::keep(roller, intake.clone())) },
            Part { name: "the binder", task: backend.spawn(steady::keep(binder, intake.clone())) },
            Part { name: "the leases", task: backend.spawn(leaser.keep(intake.clone())) },
            Part { name: "the renewal", task: backend.spawn(steady::keep(renewal, intake.clone())) },
            Part { name: "the outbox", task: backend.spawn(outbox.run(intake.clone())) },
            Part { name: "the inbox", task: backend.spawn(inbox.run(intake.clone())) },
            Part { name: "the audit log's chain", task: backend.spawn(chainer.keep(intake.clone())) },
            Part { name: "the cutting off of agents", task: backend.spawn(cutter.run(intake.clone())) },
            Part { name: "the record of refusals", task: backend.spawn(recorded) },
            Part {
                name: "the purge of tenants",
                task: backend.spawn(purge::keep(store.clone(), Arc::clone(&clock), intake.clone())),
            },
            Part { name: "the removal of devices", task: backend.spawn(steady::keep(leaver, intake.clone())) },
            Part { name: "the housekeeping", task: backend.spawn(steady::keep(housekeeper, intake.clone())) },
            Part {
                name: "the bounding of dead letters",
                task: backend.spawn(dead_letters::keep(
                    store.clone(),
                    Arc::clone(&clock),
                    Arc::clone(&metrics),
                    intake.clone(),
                )),
            },
            Part { name: "the statistics", task: backend.spawn(stats.keep(intake.clone())) },
            Part { name: "the watch over the certificate", task: backend.spawn(certificate) },
        ];
        if let Some((task, denials)) = log {
            intake_parts.push(Part { name: "the connection to the broker's log", task });
            intake_parts.push(Part { name: "the broker's log", task: backend.spawn(denials.run(intake.clone())) });
        }
        Ok(Self {
            services: Services {
                store,
                registry,
                keys,
                broker,
                clock,
                metrics,
                refusals,
                tls,
                agent_bounds,
                cut_offs,
                config: Arc::new(config),
            },
            threads,
            intake,
            intake_parts,
            commit,
            commit_part: Part { name: "the group commit", task: commit_task },
            broker: broker_token,
            broker_part: Part { name: "the connection to the broker", task: broker_task },
        })
    }

    /// Returns when a part has ended without being told to: the process could not do its work any more.
    async fn part_ended(&self) -> &'static str {
        let parts = self.intake_parts.iter().chain([&self.commit_part, &self.broker_part]);
        first_ended(parts).await
    }

    /// Ends everything in order: no new work, what was begun is committed, then the broker and the actors.
    pub async fn stop(self) {
        self.intake.cancel();
        for part in self.intake_parts {
            part.end().await;
        }
        self.commit.cancel();
        self.commit_part.end().await;
        self.broker.cancel();
        self.broker_part.end().await;
        self.threads.stop();
    }
}

impl Part {
    async fn end(self) {
        match tokio::time::timeout(STOP_TIMEOUT, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(part = self.name, error = %error, "did not end in order"),
            Err(_) => tracing::error!(part = self.name, "did not end in time"),
        }
    }
}

async fn first_ended<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> &'static str {
    loop {
        if let Some(part) = parts.clone().find(|part| part.task.is_finished()) {
            return part.name;
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// A controller with its HTTP server.
struct Running {
    core: Core,
    server: actix_web::dev::Server,
    terminate: Signal,
    interrupt: Signal,
}

impl Running {
    async fn start(config: Config, backend: &Handle, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let address = config.http.listen;
        let listener = TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        let core = Core::start(config, backend, clock).await?;
        api::ensure_first_token(&core.services).await.map_err(|error| StartError::FirstToken(error.into()))?;
        let address = listener.local_addr().map_err(process)?;
        let server = api::serve(core.services.clone(), listener).map_err(process)?;
        // Caught before anybody is told that there is something to stop.
        let terminate = signal(SignalKind::terminate()).map_err(process)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(process)?;
        tracing::info!(address = %address, "listening");
        // The one line on stdout, for whoever started this with port 0.
        let scheme = if core.services.tls.is_some() { "https" } else { "http" };
        println!("{}", serde_json::json!({ "listening": format!("{scheme}://{address}") }));
        Ok(Self { core, server, terminate, interrupt })
    }

    async fn until_signal(mut self) -> Result<(), StartError> {
        let handle = self.server.handle();
        let serving = actix::spawn(self.server);
        let lost = tokio::select! {
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            name = self.core.part_ended() => Some(name),
        };
        match lost {
            None => tracing::info!("told to stop, stopping"),
            Some(part) => tracing::error!(part, "ended by itself, stopping"),
        }
        handle.stop(true).await;
        let served = serving.await;
        self.core.stop().await;
        tracing::info!("stopped");
        served.map_err(process)?.map_err(process)?;
        lost.map_or(Ok(()), |part| Err(StartError::PartEnded(part)))
    }
}

/// Keeps the gauges about the fleet.
struct Statistics {
    store: Store,
    registry: Registry,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tenants_max: usize,
    budget: Budget,
}

impl Statistics {
    async fn keep(self, shutdown: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let start = std::time::Instant::now();
            let (now, tenants_max, budget) = (self.clock.now(), self.tenants_max, self.budget);
            let counted: Result<_, DbError> = self
                .store
                .system_tx("stats_fetch", async move |tx| tx.stats_fetch(now, tenants_max, budget).await)
                .await;
            match counted {
                Ok(stats) => self.metrics.set_stats(&stats),
                Err(error) => tracing::warn!(error = %telemetry::chain(&error), "gauges not refreshed"),
            }
            self.registry.sweep();
            self.metrics.set_actors(self.registry.len());
            pause = STATS_EVERY.max(start.elapsed() * STATS_SHARE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_noticed_and_named() {
        let part = |name, task| Part { name, task };
        let parts = [
            part("the outbox", tokio::spawn(std::future::pending())),
            part("the group commit", tokio::spawn(async { panic!("a bug") })),
        ];
        let noticed = tokio::time::timeout(Duration::from_secs(5), first_ended(parts.iter()));
        assert_eq!(noticed.await.unwrap(), "the group commit");
        let healthy = tokio::time::timeout(Duration::from_millis(50), first_ended(parts[..1].iter()));
        assert!(healthy.await.is_err(), "a part that runs was taken for dead");
    }
}
