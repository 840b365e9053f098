//! What agents say of leases, and of jobs that they began by themselves.

use trustfleet_model::ids::LeaseId;
use trustfleet_wire::v1::{Event, LeaseAnswer, Report};

use super::{Fate, Inbox, ending::made_at, parse};
use crate::{
    audit::{Attempt, Requester},
    db::{DbError, LeaseFacts, Sender},
    device::{Adopt, Command, Reply},
    error::AppError,
    metrics::Refusal,
    telemetry::chain,
};

/// Longest reason of a refused lease, characters.
const REASON_MAX: usize = 500;

/// What becomes of a report that names a job which is not known, and a lease.
#[derive(Debug)]
pub(super) enum Adopted {
    /// The job is known now.
    Job,
    /// There is nothing more to it.
    Nothing,
    /// Not as it should be.
    Fate(Fate),
}

impl Inbox {
    /// What became of a lease at the agent.
    pub(super) async fn lease_answered(&self, answer: LeaseAnswer) -> Fate {
        let (tenant, agent, lease) = (answer.tenant_id, answer.agent_id, answer.lease_id);
        let (sequence, now) = (answer.sequence, self.clock.now());
        // A word of a later agent: it does not hold it.
        let word = ["held", "ended"].into_iter().find(|word| *word == answer.state).unwrap_or("refused").to_owned();
        let reason = answer.reason.map(|reason| parse::bounded(&reason, REASON_MAX));
        let noted: Result<bool, DbError> = self
            .store
            .system_tx("lease_answered", async move |tx| {
                tx.lease_answered((tenant, agent, lease), sequence, (&word, reason.as_deref()), now).await
            })
            .await;
        match noted {
            Ok(true) => Fate::Done,
            Ok(false) => Fate::Refused(Refusal::UnknownLease, format!("lease {lease}")),
            Err(error) => Fate::Later(error.into()),
        }
    }

    /// A job that nobody here has asked for: its agent began it by a lease, or lies.
    pub(super) async fn adopt(&self, report: &Report, lease_id: LeaseId, sender: &Sender) -> Adopted {
        let refused = |refusal, detail: String| Adopted::Fate(Fate::Refused(refusal, detail));
        let Some(lease) = sender.lease else {
            return refused(Refusal::UnknownLease, format!("agent {}: lease {lease_id}", report.agent_id));
        };
        if !is_its(&lease, report) {
            return refused(
                Refusal::ForeignJob,
                format!("agent {}: the lease {lease_id} is for others", report.agent_id),
            );
        }
        if matches!(report.event, Event::PermitExpired) {
            return Adopted::Nothing; // it has begun nothing
        }
        match self.make_known(report, lease_id, &lease).await {
            Ok(Reply::Job { .. }) => {
                self.count_exempt(report).await;
                Adopted::Job
            }
            Ok(_) | Err(AppError::NotFound { .. }) => {
                self.after_removal(report, lease_id);
                Adopted::Nothing
            }
            Err(AppError::Rejected(rejection)) => refused(Refusal::ForeignJob, rejection.to_string()),
            Err(error) => Adopted::Fate(Fate::Later(error)),
        }
    }

    /// It has begun without being asked for: its CA's budget is the smaller for others.
    async fn count_exempt(&self, report: &Report) {
        let (tenant, trustpoint, budget) = (report.tenant_id, report.trustpoint_id, self.ca_budget);
        let counted: Result<_, DbError> = self
            .store
            .system_tx("ca_endpoint_autonomous", async move |tx| {
                tx.ca_endpoint_autonomous(tenant, trustpoint, budget).await
            })
            .await;
        if let Err(error) = counted {
            tracing::warn!(job.id = %report.job_id, error = %chain(&error), "a renewal by itself is not counted for its CA");
        }
    }

    /// There is a certificate of a trustpoint that is gone: worth a line in the audit log.
    fn after_removal(&self, report: &Report, lease_id: LeaseId) {
        if let Event::Issued(_) = &report.event {
            self.refusals.note(Attempt {
                tenant: report.tenant_id,
                at: self.clock.now(),
                requester: Requester::new(format!("agent:{}", report.agent_id), "agent"),
                action: "renewed_after_removal",
                object_kind: "trustpoint",
                object_id: report.trustpoint_id.as_uuid(),
                detail: serde_json::json!({ "device_id": report.device_id, "lease_id": lease_id }),
            });
        }
    }

    async fn make_known(&self, report: &Report, lease_id: LeaseId, lease: &LeaseFacts) -> Result<Reply, AppError> {
        let (tenant, trustpoint) = (report.tenant_id, report.trustpoint_id);
        let policy: Result<_, DbError> = self
            .store
            .system_tx("inbox_policy", async move |tx| tx.policy_of_trustpoint(tenant, trustpoint).await)
            .await;
        let (policy, policy_revision) = policy?.unzip();
        let traceparent = report.traceparent.as_deref();
        let command = Command::Adopt(Box::new(Adopt {
            job_id: report.job_id,
            agent_id: report.agent_id,
            trustpoint_id: report.trustpoint_id,
            lease_id,
            policy,
            policy_revision: policy_revision.unwrap_or(0),
            lease_ended: made_at(report.job_id).is_some_and(|began_at| began_at > lease.ends_at),
            requested_by: Requester::agent(report.agent_id, report.report_id.as_uuid(), traceparent),
        }));
        self.registry.ask(tenant, report.device_id, command).await
    }
}

fn is_its(lease: &LeaseFacts, report: &Report) -> bool {
    lease.agent_id == report.agent_id
        && lease.device_id == report.device_id
        && lease.trustpoint_id == report.trustpoint_id
}
