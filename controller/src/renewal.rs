//! Renewal by itself (S31): finds out when each trustpoint is due, and asks its device when the moment has come.
//!
//! Two steps, by any replica, both in batches. Planning follows every change of a trustpoint or of its policy and writes
//! the moment into an indexed column, so that time costs no memory and looking for what is due does not grow with the
//! fleet. A trustpoint that is due is claimed for a minute; what comes of it changes the trustpoint, and that plans anew.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    clock::Clock,
    ids::{JobId, TenantId, TrustpointId},
    job::RequestKind,
    renewal::{Due, next_action},
};

use crate::{
    actors::Registry,
    audit::Requester,
    db::{DbError, DueTrustpoint, Plan, PlannedTrustpoint, Store},
    device::{Activate, Command, DisarmRecovery, Enroll, Renew, Reply},
    entropy,
    error::AppError,
    metrics::{Metrics, RenewalOutcome},
    steady::Steady,
    telemetry::chain,
};

/// Rows in one transaction.
const BATCH: i64 = 256;
/// Devices that are asked at a time: one after the other a hundred in a second would be the most, and together their
/// decisions share loads and commits.
const AT_ONCE: usize = 32;
/// How long a trustpoint that is due is left alone when nothing came of it.
const CLAIM: SignedDuration = SignedDuration::from_secs(60);

/// Renews what is due.
#[derive(Clone)]
pub struct Renewal {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewal")
    }
}

impl Steady for Renewal {
    const WHAT: &'static str = "renewal";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let planned = self.plan().await?;
        let due = self.due().await?;
        let full = |rows: usize| i64::try_from(rows).is_ok_and(|rows| rows >= BATCH);
        let more = full(planned) || full(due.len());
        stream::iter(due).for_each_concurrent(AT_ONCE, |due| self.act(due)).await;
        Ok(more)
    }
}

impl Renewal {
    /// Finds the moments of one batch; how many there were.
    async fn plan(&self) -> Result<usize, DbError> {
        let now = self.clock.now();
        self.store
            .system_tx("trustpoints_plan", async move |tx| -> Result<usize, DbError> {
                let rows = tx.trustpoints_to_plan(BATCH).await?;
                let plans = plans(&rows, now);
                if !plans.is_empty() {
                    tx.trustpoints_planned(&plans).await?;
                    // What moves a renewal may begin or end a lease.
                    tx.leases_look(&leased(&rows), now).await?;
                }
                Ok(plans.len())
            })
            .await
    }

    async fn due(&self) -> Result<Vec<DueTrustpoint>, DbError> {
        let now = self.clock.now();
        let again_at = now.checked_add(CLAIM).unwrap_or(now);
        self.store.system_tx("trustpoints_due", async move |tx| tx.trustpoints_due(now, again_at, BATCH).await).await
    }

    async fn act(&self, due: DueTrustpoint) {
        let PlannedTrustpoint { trustpoint, policy, duty, spread, .. } = &due.planned;
        let Some((_, action)) = next_action(trustpoint, policy, *duty, spread.as_ref(), self.clock.now()) else {
            return;
        };
        let (device, trustpoint) = (due.planned.device_id, trustpoint.name.clone());
        let outcome = match self.ask(due, action).await {
            Ok(Reply::Job { job_id }) => {
                tracing::info!(device.id = %device, trustpoint = %trustpoint, job.id = %job_id, ?action, "due, asked for");
                RenewalOutcome::Asked
            }
            Ok(Reply::Taken) => RenewalOutcome::NotReady,
            Ok(_) => RenewalOutcome::NotDue,
            Err(AppError::NotFound { .. } | AppError::Rejected(_)) => RenewalOutcome::NotDue,
            Err(error) => {
                tracing::warn!(device.id = %device, trustpoint = %trustpoint, error = %chain(&error), "due, and put off");
                RenewalOutcome::PutOff
            }
        };
        self.metrics.renewal(outcome);
    }

    async fn ask(&self, due: DueTrustpoint, action: Due) -> Result<Reply, AppError> {
        let DueTrustpoint { planned: due, context } = due;
        let (tenant, device, trustpoint) = (due.tenant_id, due.device_id, due.trustpoint.name);
        let job_id = JobId::fresh(self.clock.now(), entropy::random()?);
        let requested_by = Requester::controller();
        let command = match action {
            Due::Disarm => Command::DisarmRecovery(DisarmRecovery { trustpoint, only_when_over: true, requested_by }),
            Due::Renew | Due::Enroll | Due::Recover => {
                let (request, recover) = match action {
                    Due::Renew => (RequestKind::Kur, false),
                    _ => (RequestKind::Ir, action == Due::Recover),
                };
                let serial = due.trustpoint.active.filter(|_| action != Due::Enroll).map(|active| active.serial);
                let enroll = Enroll {
                    trustpoint,
                    request,
                    job_id,
                    request_key: None,
                    past_floor: false,
                    requested_by,
                    traceparent: None,
                    context,
                };
                Command::Renew(Box::new(Renew { serial, spread: due.spread, recover, enroll }))
            }
            Due::Activate => {
                let replaced_is_revoked = context.ca_server.quirks.revokes_on_issue;
                Command::Activate(Activate { trustpoint, replaced_is_revoked, job_id, requested_by, traceparent: None })
            }
        };
        self.registry.ask(tenant, device, command).await
    }
}

/// Those that were planned, each with whether it may want a lease.
fn leased(rows: &[Result<PlannedTrustpoint, Plan>]) -> Vec<(TenantId, TrustpointId, bool)> {
    let of = |row: &Result<PlannedTrustpoint, Plan>| match row {
        Ok(PlannedTrustpoint { tenant_id, trustpoint, policy, .. }) => {
            let by_itself = trustpoint.auto_update.unwrap_or(policy.auto_update.enabled);
            (*tenant_id, trustpoint.id, by_itself && trustpoint.active.is_some())
        }
        Err(plan) => (plan.tenant_id, plan.trustpoint_id, false),
    };
    rows.iter().map(of).collect()
}

fn plans(rows: &[Result<PlannedTrustpoint, Plan>], now: Timestamp) -> Vec<Plan> {
    let plan = |row: &PlannedTrustpoint| Plan {
        tenant_id: row.tenant_id,
        trustpoint_id: row.trustpoint.id,
        next_action_at: next_action(&row.trustpoint, &row.policy, row.duty, row.spread.as_ref(), now)
            .map(|(moment, _)| moment),
        revision: row.revision,
    };
    rows.iter().map(|row| row.as_ref().map_or_else(|unreadable| *unreadable, plan)).collect()
}
