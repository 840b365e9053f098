//! What a report that was taken means for the metrics: how an exchange ended, why the CA refused, how long the job took.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    ids::{JobId, TenantId},
    job::{Culprit, Failure},
    service::ServiceResult,
};

use super::Inbox;
use crate::{
    db::DbError,
    device::{JobKind, Report, ReportEvent},
    metrics::{ExchangeResult, FailInfo},
    telemetry::chain,
};

/// The end of a job, as a report tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    job_id: JobId,
    /// For an exchange with a CA; none where a certificate was put into use.
    result: Option<ExchangeResult>,
    /// The CA's reasons, where it refused.
    reasons: Vec<FailInfo>,
}

impl Ending {
    /// None: the job goes on.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let (result, reasons) = match &report.event {
            ReportEvent::Issued(_) => (Some(ExchangeResult::Issued), Vec::new()),
            ReportEvent::Failed { failure, .. } => (Some(ExchangeResult::Failed(failure.culprit)), reasons(failure)),
            ReportEvent::Activated { .. }
            | ReportEvent::Revoked { .. }
            | ReportEvent::DryRun(_)
            | ReportEvent::Anchors { .. } => (None, Vec::new()),
            ReportEvent::Started { .. } | ReportEvent::Waiting { .. } | ReportEvent::PermitExpired => return None,
        };
        Some(Self { job_id: report.job_id, result, reasons })
    }
}

/// Whether an exchange that ended had an answer of its CA; none: it has not ended, or nothing was sent.
pub(super) fn answered(report: &Report) -> Option<bool> {
    match &report.event {
        ReportEvent::Issued(_) | ReportEvent::Revoked { .. } => Some(true),
        ReportEvent::Failed { failure, .. } => match failure.culprit {
            Culprit::PeerMessage | Culprit::PeerRefusal => Some(true),
            Culprit::Transport => Some(false),
            Culprit::Configuration | Culprit::Device => None,
        },
        _ => None,
    }
}

/// What became of each service, where the report tells.
pub(super) fn services(report: &Report) -> Vec<ServiceResult> {
    let (ReportEvent::Activated { in_service, .. } | ReportEvent::Failed { in_service, .. }) = &report.event else {
        return Vec::new();
    };
    let services = in_service.iter().flat_map(|said| &said.services);
    services.map(|outcome| outcome.result).collect()
}

/// A refusal is whatever the CA answered with a reason or with nothing but a rejection.
fn reasons(failure: &Failure) -> Vec<FailInfo> {
    if failure.culprit == Culprit::PeerRefusal || !failure.fail_info.is_empty() {
        FailInfo::of_words(&failure.fail_info)
    } else {
        Vec::new()
    }
}

/// How long ago a job was accepted: its id was made then.
fn age(job: JobId, now: Timestamp) -> Option<SignedDuration> {
    Some(now.duration_since(made_at(job)?))
}

/// When a job's id was made, by the clock of whoever made it.
pub(super) fn made_at(job: JobId) -> Option<Timestamp> {
    let (seconds, nanoseconds) = job.as_uuid().get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

impl Inbox {
    /// Counts the end of a job that had not ended before.
    pub(super) async fn count(
        &self,
        tenant: TenantId,
        (kind, autonomous): (JobKind, bool),
        ending: &Ending,
        now: Timestamp,
    ) {
        match (kind, ending.result) {
            (JobKind::Enroll(request), Some(result)) => {
                self.name_tenant(tenant).await;
                if autonomous {
                    self.metrics.autonomous(result);
                }
                self.metrics.exchange_ended(tenant, request, result, &ending.reasons);
            }
            // The certificate is in use before its exchange's own end is told: that one is still to come.
            (JobKind::Enroll(_), None) => return,
            (JobKind::Activate | JobKind::Revoke | JobKind::DryRun | JobKind::Anchors, _) => {}
        }
        if let Some(age) = age(ending.job_id, now) {
            self.metrics.job_ended(kind, age);
        }
    }

    /// A tenant that is newer than the last count must not be taken for one of many.
    async fn name_tenant(&self, tenant: TenantId) {
        let Some(limit) = self.metrics.lacks_tenant(tenant) else { return };
        let named: Result<_, DbError> =
            self.store.system_tx("stats_tenants", async move |tx| tx.stats_tenants(limit).await).await;
        match named {
            Ok(labels) => self.metrics.name_tenants(labels),
            Err(error) => tracing::warn!(error = %chain(&error), "a new tenant is counted among the others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(culprit: Culprit, fail_info: &[&str]) -> Failure {
        Failure {
            culprit,
            code: "refused".to_owned(),
            message: String::new(),
            pki_status: None,
            fail_info: fail_info.iter().map(|word| (*word).to_owned()).collect(),
            status_string: None,
            maybe_issued: false,
        }
    }

    #[test]
    fn only_what_the_ca_refused_counts_as_a_refusal() {
        assert_eq!(reasons(&failure(Culprit::Transport, &[])), []);
        assert_eq!(reasons(&failure(Culprit::PeerRefusal, &[])), [FailInfo::None]);
        assert_eq!(reasons(&failure(Culprit::PeerRefusal, &["badPOP"])), [FailInfo::BadPop]);
        assert_eq!(reasons(&failure(Culprit::Configuration, &["badMessageCheck"])), [FailInfo::BadMessageCheck]);
    }

    #[test]
    fn a_jobs_age_counts_from_its_acceptance_and_an_unknown_kind_of_id_has_none() {
        let accepted: Timestamp = "2026-11-21T10:00:00.250Z".parse().unwrap();
        let job = JobId::fresh(accepted, [7; 10]);
        assert_eq!(age(job, accepted + SignedDuration::from_secs(90)), Some(SignedDuration::from_secs(90)));
        assert_eq!(age(JobId::from(uuid::Uuid::nil()), accepted), None);
    }
}
