//! Trust anchors of a roll-over (S57): a job has the agent trust them and give them to the services; it says which of these are
//! seen to have loaded them. No CA is asked, and it stands beside whatever happens at the trustpoint.

use jiff::Timestamp;
use trustfleet_model::{
    ids::JobId,
    job::{AnchorsOrder, JobState, JobTask},
    rollover::{AnchorState, AnchorsHeld, REASON_MAX},
    service::InService,
};

use super::{Changes, Decision, DeviceState, JobInsert, JobKind, OpenJob, Rejection, Reply, changed, order, unchanged};
use crate::device::{DistributeAnchors, Report, ReportEvent};

/// Tells a trustpoint once for each step of a roll-over, and again later where that failed. A trustpoint without a certificate in
/// use has no service that could rely on anything: it is told when it has one.
pub(super) fn distribute(
    state: &DeviceState,
    wanted: &DistributeAnchors,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoints.get(&wanted.trustpoint_id).ok_or(Rejection::NoTrustpoint)?;
    let held = trustpoint.anchors.as_ref();
    if let Some(held) = held.filter(|held| held.is_settled(wanted.rollover_id, wanted.step, now)) {
        return Ok(unchanged(Reply::Job { job_id: held.job_id }));
    }
    if trustpoint.active.is_none() {
        return Ok(unchanged(Reply::Known));
    }
    // Of two orders the agent must end with the later one.
    if let Some(job_id) = state.beside(trustpoint.id, JobKind::Anchors) {
        return Err(Rejection::RequestUnderWay { job_id, kind: JobKind::Anchors });
    }
    let agent_id = state.device.agent_id.ok_or_else(|| order::agent_missing(state))?;
    let job_id = wanted.job_id;
    let failures = held.filter(|held| (held.rollover_id, held.step) == (wanted.rollover_id, wanted.step));
    let mut changes = Changes::next(state, now);
    let mut told = trustpoint.clone();
    told.anchors = Some(AnchorsHeld {
        rollover_id: wanted.rollover_id,
        step: wanted.step,
        job_id,
        state: AnchorState::Sent,
        at: now,
        failures: failures.map_or(0, |held| held.failures),
        reason: None,
    });
    changes.write(told);
    let open = OpenJob {
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::Anchors,
        public_key_sha256: None,
        started: false,
        stop_requested: false,
        condemned: None,
    };
    changes.state.open_jobs.insert(job_id, open);
    let detail = serde_json::json!({
        "device": state.device.name, "trustpoint": trustpoint.name, "kind": JobKind::Anchors.as_str(),
        "rollover_id": wanted.rollover_id, "step": wanted.step, "agent_id": agent_id,
    });
    changes.audit_of_job(wanted.requested_by.clone(), "job_created", job_id.as_uuid(), detail);
    changes.jobs.push(JobInsert {
        job_id,
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::Anchors,
        request_key: None,
        requested_by: wanted.requested_by.actor.clone(),
        task: JobTask::Anchors(Box::new(AnchorsOrder {
            trusted: wanted.trusted.clone(),
            retired: wanted.retired.clone(),
            services: trustpoint.services.clone(),
        })),
        traceparent: None,
        certificate_id: None,
        lease_id: None,
        // It says nothing to the CA.
        endpoint: None,
        deadline: None,
    });
    changes.outbox.push(job_id);
    Ok(changed(changes, Reply::Job { job_id }))
}

/// What an agent says of them, also of a job that was stopped here before it had begun, as far as was known.
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
        ReportEvent::Anchors { in_service } => {
            changes.finish(job_id, JobState::Succeeded, |update| update.in_service = Some((**in_service).clone()));
            let held = AnchorState::of_services(&in_service.services);
            changes.hold(report, job_id, held, unseen(in_service), now);
            ("anchors_distributed", serde_json::json!({ "state": held, "services": in_service.services }))
        }
        ReportEvent::Failed { failure, in_service, .. } => {
            changes.finish(job_id, JobState::Failed, |update| {
                update.failure = Some(failure.clone());
                update.in_service = in_service.as_deref().cloned();
            });
            changes.hold(report, job_id, AnchorState::Failed, Some(failure.message.clone()), now);
            let detail = serde_json::json!({
                "culprit": failure.culprit, "code": failure.code, "message": failure.message,
            });
            ("job_failed", detail)
        }
        _ => return unchanged(Reply::Known),
    };
    detail["kind"] = serde_json::json!(JobKind::Anchors.as_str());
    changes.audit_of_job(report.requested_by.clone(), action, job_id.as_uuid(), detail);
    changed(changes, Reply::Taken)
}

/// Why it is not seen that services have loaded them.
fn unseen(said: &InService) -> Option<String> {
    let step = said.steps.iter().find(|step| step.step == "anchors" && !step.ok)?;
    Some(format!("service {}: {}", step.service, step.detail))
}

impl Changes {
    fn hold(&mut self, report: &Report, job_id: JobId, state: AnchorState, reason: Option<String>, now: Timestamp) {
        if let Some(open) = self.state.trustpoints.get(&report.trustpoint_id).cloned() {
            self.hold_at(open, job_id, state, reason, now);
        }
    }

    /// An order of anchors came to nothing here: it could not be sent, or was stopped.
    pub(super) fn anchors_lost(&mut self, job_id: JobId, open: &OpenJob, reason: &str, now: Timestamp) {
        let of = self.state.trustpoints.get(&open.trustpoint_id).filter(|_| open.kind == JobKind::Anchors).cloned();
        if let Some(trustpoint) = of {
            self.hold_at(trustpoint, job_id, AnchorState::Failed, Some(reason.to_owned()), now);
        }
    }

    /// Only of the job that the trustpoint was told by last.
    fn hold_at(
        &mut self,
        mut trustpoint: trustfleet_model::trustpoint::Trustpoint,
        job_id: JobId,
        state: AnchorState,
        reason: Option<String>,
        now: Timestamp,
    ) {
        let Some(held) = trustpoint.anchors.as_mut().filter(|held| held.job_id == job_id) else { return };
        held.failures = if state == AnchorState::Failed { held.failures.saturating_add(1) } else { 0 };
        held.state = state;
        held.at = now;
        held.reason = reason.map(|reason| reason.chars().take(REASON_MAX).collect());
        self.write(trustpoint);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use trustfleet_model::ids::RolloverId;
    use trustfleet_model::job::RequestKind;
    use trustfleet_model::rollover::Step;
    use trustfleet_model::service::{ServiceOutcome, ServiceResult};

    use super::super::decide;
    use super::super::tests::{
        after, changes, enroll, failed, id, in_use, mgmt, now, ready, refusal, report_of, requester, unchanged as same,
    };
    use super::*;
    use crate::device::{Command, SetServices, Stop};

    fn wanted(state: &DeviceState, job: u128, rollover: u128, step: Step) -> Command {
        Command::DistributeAnchors(Box::new(DistributeAnchors {
            trustpoint_id: mgmt(state).id,
            rollover_id: RolloverId::from(uuid::Uuid::from_u128(rollover)),
            step,
            trusted: vec!["old".to_owned(), "next".to_owned()],
            retired: Vec::new(),
            job_id: id(job),
            requested_by: requester(),
        }))
    }

    fn told(job: u128, results: &[ServiceResult]) -> Command {
        let outcome = |result: &ServiceResult| ServiceOutcome { service: "https".parse().unwrap(), result: *result };
        let services = results.iter().map(outcome).collect();
        let in_service =
            InService { serial: String::new(), at: now(), services, steps: Vec::new(), warnings: Vec::new() };
        let event = ReportEvent::Anchors { in_service: Box::new(in_service) };
        Command::Report(Box::new(report_of(job, JobKind::Anchors, event)))
    }

    fn held(state: &DeviceState) -> &AnchorsHeld {
        mgmt(state).anchors.as_ref().unwrap()
    }

    #[test]
    fn s57_a_trustpoint_is_told_once_beside_its_requests_and_counts_when_its_services_have_loaded_them() {
        let state = after(&in_use(), &enroll(60, RequestKind::Kur, None));
        let asked = changes(&state, &wanted(&state, 70, 1, Step::Add));
        assert_eq!((asked.jobs[0].kind, asked.jobs[0].endpoint.as_ref()), (JobKind::Anchors, None));
        assert_eq!((asked.outbox.as_slice(), held(&asked.state).state), ([id(70)].as_slice(), AnchorState::Sent));
        assert_eq!(mgmt(&asked.state).request, mgmt(&state).request, "the renewal goes on");
        assert_eq!(same(&asked.state, &wanted(&state, 71, 1, Step::Add)), Reply::Job { job_id: id(70) });
        let done = after(&asked.state, &told(70, &[ServiceResult::Verified]));
        assert_eq!((held(&done).state, held(&done).reason.as_ref()), (AnchorState::Loaded, None));
        assert_eq!(same(&done, &wanted(&done, 72, 1, Step::Add)), Reply::Job { job_id: id(70) }, "not again");
        assert_eq!(same(&done, &told(70, &[])), Reply::Known, "told twice");
        let stored = after(&asked.state, &told(70, &[ServiceResult::Verified, ServiceResult::Unverifiable]));
        assert_eq!(held(&stored).state, AnchorState::Stored);
        let next = changes(&done, &wanted(&done, 73, 1, Step::Remove));
        assert_eq!(held(&next.state).step, Step::Remove);
    }

    #[test]
    fn s57_of_two_orders_the_later_one_waits_for_the_answer_to_the_first() {
        let asked = after(&in_use(), &wanted(&in_use(), 70, 1, Step::Add));
        let refused = refusal(&asked, &wanted(&asked, 71, 1, Step::Remove));
        assert_eq!(refused, Rejection::RequestUnderWay { job_id: id(70), kind: JobKind::Anchors });
    }

    #[test]
    fn s57_what_failed_tells_why_and_is_told_again_later() {
        let asked = after(&in_use(), &wanted(&in_use(), 70, 1, Step::Add));
        let report = report_of(70, JobKind::Anchors, failed("reload_failed"));
        let state = after(&asked, &Command::Report(Box::new(report)));
        assert_eq!((held(&state).state, held(&state).failures), (AnchorState::Failed, 1));
        assert!(held(&state).reason.is_some());
        let again = wanted(&state, 71, 1, Step::Add);
        assert_eq!(same(&state, &again), Reply::Job { job_id: id(70) }, "not at once");
        let later = decide(&state, &again, now() + SignedDuration::from_mins(2)).unwrap().changes.unwrap();
        assert_eq!((held(&later.state).state, held(&later.state).failures), (AnchorState::Sent, 1));
        let stopped = after(&asked, &Command::Stop(Stop { job_id: id(70), requested_by: requester() }));
        assert_eq!(held(&stopped).state, AnchorState::Failed, "stopped by hand");
    }

    #[test]
    fn s57_nobody_is_told_without_a_certificate_in_use_and_new_services_have_to_load_them_as_well() {
        let none = ready();
        assert_eq!(same(&none, &wanted(&none, 70, 1, Step::Add)), Reply::Known);
        let asked = after(&in_use(), &wanted(&in_use(), 70, 1, Step::Add));
        let done = after(&asked, &told(70, &[]));
        let set = SetServices {
            trustpoint: "mgmt".parse().unwrap(),
            services: vec!["radius".parse().unwrap()],
            requested_by: requester(),
        };
        assert_eq!(mgmt(&after(&done, &Command::SetServices(set))).anchors, None);
        let mut alone = in_use();
        alone.device.agent_id = None;
        assert!(matches!(refusal(&alone, &wanted(&alone, 70, 1, Step::Add)), Rejection::NotReady(_)));
    }
}
