//! A dry run: a job tries on the device everything that an enrolment needs, and says nothing to the CA. It changes nothing
//! at its trustpoint and stands beside whatever happens there.

use jiff::Timestamp;
use trustfleet_model::job::{JobState, JobTask};

use super::{Changes, Decision, DeviceState, JobInsert, JobKind, OpenJob, Rejection, Reply, changed, order, unchanged};
use crate::device::{Enroll, Report, ReportEvent};

/// What can be seen here is checked as for the enrolment itself, and told at once (S32). While a dry run is under way, it is
/// the answer.
pub(super) fn dry_run(state: &DeviceState, wanted: &Enroll, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&wanted.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if trustpoint.id != wanted.context.trustpoint_id {
        return Err(Rejection::Outdated);
    }
    if let Some(job_id) = state.beside(trustpoint.id, JobKind::DryRun) {
        return Ok(unchanged(Reply::Job { job_id }));
    }
    let (agent_id, order) =
        order::enrollment(state, trustpoint, wanted.request, &wanted.context, now).map_err(Rejection::NotReady)?;
    let job_id = wanted.job_id;
    let mut changes = Changes::next(state, now);
    let open = OpenJob {
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::DryRun,
        public_key_sha256: None,
        started: false,
        stop_requested: false,
        condemned: None,
    };
    changes.state.open_jobs.insert(job_id, open);
    let detail = serde_json::json!({
        "device": state.device.name, "trustpoint": trustpoint.name, "kind": JobKind::DryRun.as_str(),
        "request": wanted.request, "agent_id": agent_id,
    });
    changes.audit_of_job(wanted.requested_by.clone(), "job_created", job_id.as_uuid(), detail);
    changes.jobs.push(JobInsert {
        job_id,
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::DryRun,
        request_key: None,
        requested_by: wanted.requested_by.actor.clone(),
        task: JobTask::DryRun(Box::new(order)),
        traceparent: wanted.traceparent.clone(),
        certificate_id: None,
        lease_id: None,
        // It says nothing to the CA.
        endpoint: None,
        deadline: None,
    });
    changes.outbox.push(job_id);
    Ok(changed(changes, Reply::Job { job_id }))
}

/// What an agent says of a dry run, also of one that was stopped here before it had begun, as far as was known.
pub(super) fn report(state: &DeviceState, report: &Report, now: Timestamp) -> Decision {
    let job_id = report.job_id;
    let is_open = state.open_jobs.contains_key(&job_id);
    if !is_open && !state.stopped_jobs.contains_key(&job_id) {
        return unchanged(Reply::Known);
    }
    let mut changes = Changes::next(state, now);
    let (action, mut detail) = match &report.event {
        ReportEvent::PermitExpired if is_open && !report.offered_again => {
            changes.update_job(job_id, JobState::AwaitingPublish, |_| {});
            changes.outbox.push(job_id);
            ("job_permit_expired", serde_json::json!({}))
        }
        ReportEvent::DryRun(found) => {
            changes.finish(job_id, JobState::Succeeded, |update| update.dry_run = Some((**found).clone()));
            ("dry_run_ended", serde_json::json!({ "ready": found.is_ready() }))
        }
        ReportEvent::Failed { failure, .. } => {
            changes.finish(job_id, JobState::Failed, |update| update.failure = Some(failure.clone()));
            let detail = serde_json::json!({
                "culprit": failure.culprit, "code": failure.code, "message": failure.message,
            });
            ("job_failed", detail)
        }
        _ => return unchanged(Reply::Known),
    };
    detail["kind"] = serde_json::json!(JobKind::DryRun.as_str());
    changes.audit_of_job(report.requested_by.clone(), action, job_id.as_uuid(), detail);
    changed(changes, Reply::Taken)
}

#[cfg(test)]
mod tests {
    use trustfleet_model::dry_run::{Check, CheckResult, DryRun};
    use trustfleet_model::job::RequestKind;

    use super::super::tests::{
        after, changes, enroll, failed, id, in_use, mgmt, ready, refusal, report_of, requester, unchanged as same,
    };
    use super::*;
    use crate::device::{Command, Stop};

    fn wanted(job: u128) -> Command {
        let Command::Enroll(enroll) = enroll(job, RequestKind::Ir, None) else { unreachable!() };
        Command::DryRun(enroll)
    }

    fn told(job: u128, event: ReportEvent) -> Command {
        Command::Report(Box::new(report_of(job, JobKind::DryRun, event)))
    }

    fn found(result: CheckResult) -> ReportEvent {
        let check = Check { name: "server".to_owned(), result, rule: None, message: "x".to_owned() };
        ReportEvent::DryRun(Box::new(DryRun { duration_ms: 3, checks: vec![check] }))
    }

    #[test]
    fn a_dry_run_stands_beside_a_request_changes_nothing_at_its_trustpoint_and_has_no_ca_budget() {
        let state = after(&ready(), &enroll(60, RequestKind::Ir, None));
        let asked = changes(&state, &wanted(70));
        assert_eq!((asked.trustpoints.len(), asked.outbox.as_slice()), (0, [id(70)].as_slice()));
        assert_eq!((asked.jobs[0].kind, asked.jobs[0].endpoint.as_ref()), (JobKind::DryRun, None));
        assert_eq!(same(&asked.state, &wanted(71)), Reply::Job { job_id: id(70) }, "it is under way");
        let ended = changes(&asked.state, &told(70, found(CheckResult::Failed)));
        assert_eq!(ended.job_updates[0].state, JobState::Succeeded);
        assert!(ended.job_updates[0].dry_run.is_some() && ended.trustpoints.is_empty());
        assert_eq!(mgmt(&ended.state), mgmt(&state));
        assert_eq!(same(&ended.state, &told(70, found(CheckResult::Ok))), Reply::Known, "told twice");
        assert_eq!(same(&ended.state, &told(70, failed("later"))), Reply::Known);
    }

    #[test]
    fn s32_a_dry_run_is_refused_with_what_can_be_seen_to_be_missing() {
        let mut state = in_use();
        state.device.agent_id = None;
        let Rejection::NotReady(missing) = refusal(&state, &wanted(70)) else { panic!("not refused") };
        assert_eq!(missing.as_slice()[0].field, "device.agent");
    }

    #[test]
    fn s37_a_dry_run_can_be_stopped_and_what_its_agent_says_then_counts() {
        let asked = after(&ready(), &wanted(70));
        let stop = Command::Stop(Stop { job_id: id(70), requested_by: requester() });
        let stopped = changes(&asked, &stop);
        assert_eq!(stopped.job_updates[0].state, JobState::Failed);
        let answered = changes(&stopped.state, &told(70, failed("stopped")));
        assert!(answered.state.stopped_jobs.is_empty() && answered.trustpoints.is_empty());
    }
}
