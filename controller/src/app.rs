//! The composition root: the only module that knows everyone.
//!
//! Two kinds of threads: a multi-thread runtime (`backend`) for the drivers of database and broker, the committer,
//! outbox and inbox; and an actix system with the HTTP workers and the threads of the device actors.

use std::{
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_telemetry::TracesConfig;

use crate::{
    actors::{ActorThreads, Registry},
    api,
    audit::{Bounds, Chainer, Refusals, Sealer},
    binder::Binder,
    bounds::AgentBounds,
    broker::{BrokerHandle, Management},
    campaigner::Campaigner,
    commit::CommitHandle,
    config::Config,
    cut_off::Cutter,
    db::{self, Store},
    dead_letters,
    denials::Denials,
    entropy,
    error::AppError,
    freezer::Freezer,
    gauges::Gauges,
    housekeeping::Housekeeper,
    inbox::{Inbox, Senders},
    keys::Keys,
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
    telemetry,
    tls::{self, ClientTls, ServerTls, TlsError},
};

mod error;
mod part;

pub use self::error::StartError;
use self::part::{Part, STOP_TIMEOUT, first_ended};

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
        let gauges = Gauges {
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
        let spreader = Spreader::new(store.clone(), Arc::clone(&clock), &config.ca_budget);
        let bounded = dead_letters::keep(store.clone(), Arc::clone(&clock), Arc::clone(&metrics), intake.clone());
        let mut intake_parts = vec![
            Part::keep("the spreading of renewals", backend, spreader, &intake),
            Part::keep("the campaigns", backend, campaigner, &intake),
            Part::keep("the freeze windows", backend, freezer, &intake),
            Part::keep("the revoker", backend, revoker, &intake),
            Part::keep("the distribution of anchors", backend, roller, &intake),
            Part::keep("the binder", backend, binder, &intake),
            Part::spawn("the leases", backend, leaser.keep(intake.clone())),
            Part::keep("the renewal", backend, renewal, &intake),
            Part::spawn("the outbox", backend, outbox.run(intake.clone())),
            Part::spawn("the inbox", backend, inbox.run(intake.clone())),
            Part::spawn("the audit log's chain", backend, chainer.keep(intake.clone())),
            Part::spawn("the cutting off of agents", backend, cutter.run(intake.clone())),
            Part::spawn("the record of refusals", backend, recorded),
            Part::spawn(
                "the purge of tenants",
                backend,
                purge::keep(store.clone(), Arc::clone(&clock), intake.clone()),
            ),
            Part::keep("the removal of devices", backend, leaver, &intake),
            Part::keep("the housekeeping", backend, housekeeper, &intake),
            Part::spawn("the bounding of dead letters", backend, bounded),
            Part::spawn("the statistics", backend, gauges.keep(intake.clone())),
            Part::spawn("the watch over the certificate", backend, certificate),
        ];
        if let Some((task, denials)) = log {
            intake_parts.push(Part { name: "the connection to the broker's log", task });
            intake_parts.push(Part::spawn("the broker's log", backend, denials.run(intake.clone())));
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
