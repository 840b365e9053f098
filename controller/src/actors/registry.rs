//! From (tenant, device) to its actor: activated on demand, created again when it is gone.
//!
//! An actor that panicked, stopped for idleness or died after an unknown outcome is found closed by the next command,
//! which then goes to a new one. Commands may be decided twice without harm, so an interrupted one is asked again once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use actix::{Actor as _, Addr, ArbiterHandle, Context, prelude::SendError};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};
use trustfleet_model::{
    clock::Clock,
    ids::{DeviceId, TenantId},
};
use trustfleet_telemetry::{in_trace, record_error, trace_span};

use super::device::{Ask, DeviceActor};
use crate::{
    commit::CommitHandle,
    config::ActorsConfig,
    db::Store,
    device::{Command, Reply},
    error::AppError,
    load::LoadHandle,
    metrics::Metrics,
    quota::Limit,
};

/// Parts of the map, so that commands to different devices do not wait for one lock.
const PARTS: usize = 32;
/// How often a command is given to a new actor after its actor vanished.
const ATTEMPTS: usize = 3;

type Key = (TenantId, DeviceId);

/// Finds, makes and remembers device actors. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Vec<Mutex<HashMap<Key, Addr<DeviceActor>>>>,
    threads: Vec<ArbiterHandle>,
    shared: Arc<Shared>,
}

/// What all actors work with.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) load: LoadHandle,
    pub(super) commit: CommitHandle,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) config: ActorsConfig,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} actors)", self.len())
    }
}

/// What became of a command on its way to an actor.
enum Handed {
    Over,
    Full,
    Closed,
}

/// The threads that actors run on, made inside of an actix system.
#[derive(Debug)]
pub struct ActorThreads(Vec<actix::Arbiter>);

impl ActorThreads {
    /// Starts `config.threads` threads; must be called where an actix system runs.
    pub fn start(config: &ActorsConfig) -> Self {
        Self((0..config.threads).map(|_| actix::Arbiter::new()).collect())
    }

    /// Ends the threads, and all actors with them.
    pub fn stop(self) {
        for thread in self.0 {
            thread.stop();
        }
    }
}

impl Registry {
    /// A registry without actors.
    pub fn new(
        threads: &ActorThreads,
        store: Store,
        (load, commit): (LoadHandle, CommitHandle),
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        config: ActorsConfig,
    ) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        let threads = threads.0.iter().map(actix::Arbiter::handle).collect();
        let shared = Arc::new(Shared { store, load, commit, clock, metrics, config });
        Self { inner: Arc::new(Inner { parts, threads, shared }) }
    }

    /// Gives a command to a device and waits for its answer, which comes after the commit.
    ///
    /// # Errors
    /// [`AppError::NotFound`] when there is no such device, [`AppError::Rejected`] when the device refused,
    /// [`AppError::Busy`] when its mailbox is full, [`AppError::Unavailable`] or [`AppError::OutcomeUnknown`].
    pub async fn ask(&self, tenant: TenantId, device: DeviceId, command: Command) -> Result<Reply, AppError> {
        self.ask_within(tenant, device, command, Vec::new()).await
    }

    /// The same for a command that makes what these quotas of the tenant count.
    ///
    /// # Errors
    /// As [`Registry::ask`], and that a quota is used up.
    pub async fn ask_within(
        &self,
        tenant: TenantId,
        device: DeviceId,
        command: Command,
        limits: Vec<Limit>,
    ) -> Result<Reply, AppError> {
        let span = span(tenant, device, &command);
        let answer = self.ask_actor(tenant, device, command, limits).instrument(span.clone()).await;
        if let Err(error) = &answer {
            record_error(&span, error.code(), error.status() >= 500);
        }
        answer
    }

    async fn ask_actor(
        &self,
        tenant: TenantId,
        device: DeviceId,
        command: Command,
        limits: Vec<Limit>,
    ) -> Result<Reply, AppError> {
        for _ in 0..ATTEMPTS {
            let (answer, answered) = oneshot::channel();
            let ask = Ask { command: command.clone(), limits: limits.clone(), answer, span: Span::current() };
            match self.hand_over((tenant, device), ask) {
                Handed::Over => {}
                Handed::Full => {
                    self.inner.shared.metrics.mailbox_was_full();
                    return Err(AppError::Busy);
                }
                Handed::Closed => {
                    self.forget_closed((tenant, device));
                    continue;
                }
            }
            if let Ok(answer) = answered.await {
                return answer;
            }
            // The actor vanished with the command in it: whether it was done, a new actor reads from the row.
            self.forget_closed((tenant, device));
        }
        Err(AppError::internal("a device actor vanished several times in a row"))
    }

    /// How many actors there are.
    pub fn len(&self) -> usize {
        self.inner.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets actors that are gone; called now and then by the composition root.
    pub fn sweep(&self) {
        for part in &self.inner.parts {
            part.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, actor| actor.connected());
        }
    }

    /// Puts a command into its actor's mailbox, always through the map's own address: every copy of an address could put
    /// one message more into a full mailbox, and a copy for each command would make it boundless.
    fn hand_over(&self, key: Key, ask: Ask) -> Handed {
        let mut part = self.part(key).lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match part.get(&key) {
            Some(actor) if actor.connected() => actor.try_send(ask),
            _ => {
                let actor = self.activate(key);
                let sent = actor.try_send(ask);
                part.insert(key, actor);
                sent
            }
        };
        match sent {
            Ok(()) => Handed::Over,
            Err(SendError::Full(_)) => Handed::Full,
            Err(SendError::Closed(_)) => Handed::Closed,
        }
    }

    fn activate(&self, key: Key) -> Addr<DeviceActor> {
        let shared = Arc::clone(&self.inner.shared);
        let thread = &self.inner.threads[spread(key) % self.inner.threads.len()];
        shared.metrics.actor_activated();
        DeviceActor::start_in_arbiter(thread, move |context: &mut Context<DeviceActor>| {
            context.set_mailbox_capacity(shared.config.mailbox);
            DeviceActor::new(key.0, key.1, shared)
        })
    }

    fn forget_closed(&self, key: Key) {
        let mut part = self.part(key).lock().unwrap_or_else(PoisonError::into_inner);
        if part.get(&key).is_some_and(|actor| !actor.connected()) {
            part.remove(&key);
        }
    }

    fn part(&self, key: Key) -> &Mutex<HashMap<Key, Addr<DeviceActor>>> {
        &self.inner.parts[spread(key) / 7 % PARTS]
    }
}

/// The span of a command: the way to the actor and back, with what the actor does for it inside.
fn span(tenant: TenantId, device: DeviceId, command: &Command) -> Span {
    if !in_trace() {
        return Span::none();
    }
    let name = match command {
        Command::AddTrustpoint(_) => "device add_trustpoint",
        Command::SetMac(_) => "device set_mac",
        Command::ArmRecovery(_) => "device arm_recovery",
        Command::DisarmRecovery(_) => "device disarm_recovery",
        Command::SetServices(_) => "device set_services",
        Command::RemoveTrustpoint(_) => "device remove_trustpoint",
        Command::Adopt(_) => "device adopt",
        Command::Enroll(_) => "device enroll",
        Command::DistributeAnchors(_) => "device distribute_anchors",
        Command::DryRun(_) => "device dry_run",
        Command::Rebind(_) => "device rebind",
        Command::Unbind(_) => "device unbind",
        Command::Renew(_) => "device renew",
        Command::Reissue(_) => "device reissue",
        Command::PutBack(_) => "device put_back",
        Command::SetAutoUpdate(_) => "device set_auto_update",
        Command::Activate(_) => "device activate",
        Command::Revoke(_) => "device revoke",
        Command::Report(_) => "device report",
        Command::ResetStatistics(_) => "device reset_statistics",
        Command::Stop(_) => "device stop",
        Command::Undeliverable(_) => "device undeliverable",
    };
    trace_span!("internal", name, trustfleet.tenant.id = %tenant, trustfleet.device.id = %device)
}

/// An even number for a device: the last bytes of a UUIDv7 are random.
fn spread((_, device): Key) -> usize {
    let uuid = device.as_uuid();
    let [.., a, b] = uuid.as_bytes();
    usize::from(u16::from_be_bytes([*a, *b]))
}
