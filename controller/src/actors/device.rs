//! The shell around the device aggregate: load, decide, commit, take over the new state, answer.
//!
//! One command at a time. The row is the truth: a decision that changes nothing, or refuses, counts only when the state
//! it was made on is still the row's version.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, Handler, Message,
    WrapFuture as _,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{Instrument as _, Span};
use trustfleet_model::ids::{DeviceId, TenantId};

use super::registry::Shared;
use crate::{
    commit::CommitError,
    device::{Command, Decision, DeviceState, Rejection, Reply, decide},
    error::AppError,
    quota::Limit,
};

/// How often a command is decided anew because the row had changed.
const DECISIONS_MAX: u32 = 10;
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// A command with the place for its answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ask {
    pub(super) command: Command,
    /// Quotas that what it makes is held to.
    pub(super) limits: Vec<Limit>,
    pub(super) answer: oneshot::Sender<Result<Reply, AppError>>,
    /// What is done for the command belongs to this span.
    pub(super) span: Span,
}

/// The actor of one device.
pub(super) struct DeviceActor {
    tenant: TenantId,
    device: DeviceId,
    shared: Arc<Shared>,
    /// As of the last command; gone while a command is worked on.
    state: Option<DeviceState>,
    last_command: Instant,
}

impl DeviceActor {
    pub(super) fn new(tenant: TenantId, device: DeviceId, shared: Arc<Shared>) -> Self {
        Self { tenant, device, shared, state: None, last_command: Instant::now() }
    }
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let idle = Duration::from_secs(self.shared.config.idle_s.into());
        context.run_interval(idle, move |actor, context| {
            if actor.last_command.elapsed() >= idle {
                context.stop();
            }
        });
    }
}

impl Handler<Ask> for DeviceActor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> Self::Result {
        self.last_command = Instant::now();
        let work = Work { tenant: self.tenant, device: self.device, shared: Arc::clone(&self.shared) };
        let cached = self.state.take();
        let span = ask.span.clone();
        let worked = async move { (work.run(cached, &ask.command, &ask.limits).await, ask.answer) }.instrument(span);
        AtomicResponse::new(Box::pin(worked.into_actor(self).map(|((state, result), answer), actor, context| {
            actor.last_command = Instant::now();
            actor.state = state;
            if matches!(result, Err(AppError::OutcomeUnknown { .. })) {
                // Nobody can say what the row holds: the next command finds a new actor, which reads it.
                tracing::warn!(device.id = %actor.device, "outcome of a commit unknown, the device actor ends");
                context.stop();
            }
            // Who asked may be gone by now; what was decided stays.
            let _ = answer.send(result);
        })))
    }
}

/// One command's way through load, decision and commit.
struct Work {
    tenant: TenantId,
    device: DeviceId,
    shared: Arc<Shared>,
}

impl Work {
    /// The state afterwards, where it is known, and the answer.
    async fn run(
        &self,
        mut cached: Option<DeviceState>,
        command: &Command,
        limits: &[Limit],
    ) -> (Option<DeviceState>, Result<Reply, AppError>) {
        for attempt in 1..=DECISIONS_MAX {
            let (state, fresh) = match cached.take() {
                Some(state) => (state, false),
                None => match self.load().await {
                    Ok(state) => (state, true),
                    Err(error) => return (None, Err(error)),
                },
            };
            let changes = match decide(&state, command, self.shared.clock.now()) {
                Ok(Decision { changes: Some(changes), reply }) => (changes, reply),
                settled => {
                    if !fresh {
                        match self.is_current(&state).await {
                            Ok(true) => {}
                            Ok(false) => continue,
                            Err(error) => return (Some(state), Err(error)),
                        }
                    }
                    return (Some(state), answer(settled));
                }
            };
            let (changes, reply) = changes;
            let after = changes.state.clone();
            match self.shared.commit.commit(self.tenant, self.device, changes, limits.to_vec()).await {
                Ok(()) => return (Some(after), Ok(reply)),
                Err(CommitError::VersionConflict) => {
                    self.shared.metrics.version_conflict();
                    // Whoever holds the row gets a moment to finish.
                    tokio::time::sleep(CONFLICT_PAUSE * attempt).await;
                }
                Err(CommitError::QuotaExceeded(limit)) => return (Some(state), Err(limit.exceeded())),
                Err(CommitError::NotDone(error)) => return (Some(state), Err(error.into())),
                Err(CommitError::OutcomeUnknown(error)) => return (None, Err(error.into())),
            }
        }
        (None, Err(AppError::Busy))
    }

    async fn load(&self) -> Result<DeviceState, AppError> {
        Ok(self.shared.load.load(self.tenant, self.device).await?)
    }

    async fn is_current(&self, state: &DeviceState) -> Result<bool, AppError> {
        let device = self.device;
        let version: Option<i64> = self
            .shared
            .store
            .tenant_read(self.tenant, "device_version", async |tx| tx.device_version(device).await)
            .await
            .map_err(|error: crate::db::DbError| AppError::from(error))?;
        Ok(version == Some(state.version))
    }
}

fn answer(settled: Result<Decision, Rejection>) -> Result<Reply, AppError> {
    settled.map(|decision| decision.reply).map_err(AppError::from)
}
