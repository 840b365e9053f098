//! The composition root: everything is put together here, started in order and stopped in the reverse order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_model::secret::SecretText;
use trustfleet_wire::sign::key_id;

use crate::backoff::Backoff;
use crate::clock::AgentClock;
use crate::cmp_http::CmpHttp;
use crate::config::{AnnounceConfig, Config, ConfigError};
use crate::controller_link::Link;
use crate::core::{Core, stopping};
use crate::driver;
use crate::identity::{Identity, fresh_instance};
use crate::keys::{self, IdentityKeys, KeyStore, KeysError};
use crate::nodes::{self, Nodes};
use crate::roots::FollowingRoots;
use crate::session::{Doors, Membership, SessionError, load_membership};
use crate::store::{self, Store, StoreError};
use crate::tls_roots::{TlsRoots, TlsRootsError};
use crate::upkeep;

/// Waits between tries to join while the controller cannot be reached.
const JOIN_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// Waits between questions while an operator has yet to approve the agent, besides what the controller asks for.
const APPROVAL_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(600) };

/// Threads for the disk and the controller besides those that ask CAs.
const BESIDES: usize = 4;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The roots for TLS.
    #[error(transparent)]
    TlsRoots(#[from] TlsRootsError),
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent's own keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Joining.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A TLS library or runtime that does not start.
    #[error("{0}")]
    Setup(String),
}

/// Runs the agent with a configuration file until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start; once it runs it ends only when told to.
pub fn run(config: Config) -> Result<(), RunError> {
    let setup = |error: &dyn std::fmt::Display| RunError::Setup(error.to_string());
    // Another part of the process may have installed it already: all the same to us.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = Store::open(&config.state_dir)?;
    let lock = store.lock()?;
    let unfinished = store.clear_unfinished(&lock)?;
    let keys = IdentityKeys::load_or_make(&store)?;
    // Enough threads for all exchanges to ask their CAs, and for the disk besides.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.parallel_exchanges + BESIDES)
        .build()
        .map_err(|error| setup(&error))?;
    let result = runtime.block_on(async {
        let (stop_tx, stop) = watch::channel(false);
        stop_on_signals(stop_tx)?;
        if unfinished > 0 {
            tracing::info!(files = unfinished, "removed what an earlier run did not finish writing");
        }
        serve(config, store, (keys, None), stop).await
    });
    // A call to a CA that hangs in a blocking thread must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Runs an agent on the runtime that calls it, until `stop` turns true: for programs that run many agents at once. Each has a
/// state folder and a connection of its own, as if it had a process; signals and logs are the caller's. `key_store`: where
/// keys of trustpoints come from, instead of what the configuration says.
///
/// # Errors
/// Why it did not start; once it runs it ends only when told to.
pub async fn run_until(
    config: Config,
    key_store: Option<Arc<dyn KeyStore>>,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let state_dir = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<_, RunError> {
        let store = Store::open(&state_dir)?;
        let lock = store.lock()?;
        store.clear_unfinished(&lock)?;
        let keys = IdentityKeys::load_or_make(&store)?;
        Ok((store, lock, keys))
    });
    let (store, _lock, keys) = opened.await.map_err(|error| RunError::Setup(error.to_string()))??;
    serve(config, store, (keys, key_store), stop).await
}

async fn serve(
    config: Config,
    store: Store,
    (keys, key_store): (IdentityKeys, Option<Arc<dyn KeyStore>>),
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let accept = config.accept()?;
    let services = config.services()?;
    let roots = TlsRoots::of(&config)?;
    let client = config.ca_client()?;
    // Not the end: at the start of a device its network may be on its way.
    if let Err(error) = config.source.check() {
        tracing::warn!(%error, "connections cannot come from where the configuration says");
    }
    let doors = Arc::new(Doors::new(&config.controller_url, roots.clone(), config.source.clone()));
    let (membership, keys) = match load_membership(&store)? {
        Some(membership) => (membership, keys),
        None => match join(&config, &store, Arc::clone(&doors), keys, &stop).await? {
            Some(joined) => joined,
            None => return Ok(()),
        },
    };
    let (agent_id, name) = (membership.agent_id, membership.name.clone());
    let (clock, nodes) = (AgentClock::load(&store), Nodes::load(&store, &config.pairs));
    let (following, instance) = (FollowingRoots::default(), fresh_instance());
    let identity = Arc::new(Identity { config, membership, keys, clock, nodes, roots: following, instance });
    let http = CmpHttp::new(roots.clone(), client, identity.config.source.clone());
    let key_store = match key_store {
        Some(key_store) => key_store,
        None => keys::open(&identity.config.keys, &identity.keys)?,
    };
    keys::sweep(key_store.as_ref(), &store);
    let core = Core::new(Arc::clone(&identity), accept, store, key_store, services, http, stop.clone())?;
    tracing::info!(agent.id = %agent_id, agent.name = %name, version = crate::session::SOFTWARE, "agent running");
    let (incoming_tx, incoming) = mpsc::channel(16);
    let (link_tx, outgoing) = mpsc::channel(64);
    // The link stops after the driver: the last reports should still go.
    let (link_stop_tx, link_stop) = watch::channel(false);
    let link = tokio::spawn(Link { identity, doors, roots }.run(incoming_tx, outgoing, link_stop));
    let core = Arc::new(core);
    let watching = tokio::spawn(nodes::watch(Arc::clone(&core)));
    let keeping = tokio::spawn(upkeep::keep(Arc::clone(&core)));
    driver::run(core, incoming, link_tx).await;
    watching.abort();
    keeping.abort();
    let _ = link_stop_tx.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), link).await;
    tracing::info!("agent stopped");
    Ok(())
}

/// How an agent joins.
#[derive(Clone)]
enum Way {
    Token(SecretText),
    Announce(Box<AnnounceConfig>),
}

/// Joins, as often as it takes to reach the controller; `None` when told to stop.
async fn join(
    config: &Config,
    store: &Store,
    doors: Arc<Doors>,
    keys: IdentityKeys,
    stop: &watch::Receiver<bool>,
) -> Result<Option<(Membership, IdentityKeys)>, RunError> {
    let way = match &config.announce {
        Some(announce) if !config.has_join_token() => Way::Announce(Box::new(announce.clone())),
        _ => Way::Token(config.join_token()?),
    };
    let name = config.name()?;
    let keys = Arc::new(keys);
    let (mut failures, mut asked) = (0_u32, 0_u32);
    let random = u64::from(std::process::id());
    let membership = loop {
        let (doors, way, name, keys) = (Arc::clone(&doors), way.clone(), name.clone(), Arc::clone(&keys));
        let key = key_id(&keys.sign.public_key());
        let joining = tokio::task::spawn_blocking(move || match way {
            Way::Token(token) => doors.join(&token, &name, &keys, SystemClock.now()).map(Ok),
            Way::Announce(announce) => doors.announce(&announce, &name, &keys, SystemClock.now()),
        });
        let joined = joining.await.map_err(|error| RunError::Setup(error.to_string()))?;
        let wait = match joined {
            Ok(Ok(membership)) => break membership,
            Ok(Err(retry_after_s)) => {
                failures = 0;
                asked = asked.saturating_add(1);
                let wait = Duration::from_secs(retry_after_s.into()) + APPROVAL_BACKOFF.wait(asked, random);
                tracing::info!(
                    key.id = key,
                    wait_s = wait.as_secs(),
                    "announced, and waits to be approved by an operator"
                );
                wait
            }
            Err(error) if error.is_transient() => {
                failures = failures.saturating_add(1);
                let wait = JOIN_BACKOFF.wait(failures, random);
                tracing::warn!(%error, wait_s = wait.as_secs(), "not joined yet");
                wait
            }
            Err(error) => return Err(error.into()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopping(stop) => return Ok(None),
        }
    };
    store::save_json(&store.agent_file(), &membership)?;
    tracing::info!(agent.id = %membership.agent_id, tenant.id = %membership.tenant_id, "joined the controller");
    let keys = Arc::into_inner(keys).map_or_else(|| IdentityKeys::load_or_make(store), Ok)?;
    Ok(Some((membership, keys)))
}

fn stop_on_signals(stop: watch::Sender<bool>) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let setup = |error: std::io::Error| RunError::Setup(format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(setup)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: steps under way are finished and saved");
        let _ = stop.send(true);
    });
    Ok(())
}
