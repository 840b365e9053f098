//! A job that an agent began by itself, by a lease: it becomes known here by its first report.
//!
//! From then on it is a job like any other. Whatever was under way on the trustpoint is over: an agent begins nothing by
//! itself while it knows of an open job, so what waits for it has not reached it, and what it had begun it has lost.

use jiff::Timestamp;
use trustfleet_model::{
    device::Duty,
    job::{Culprit, Failure, JobState, JobTask, RequestKind},
    trustpoint::{LastRequest, Progress, RequestState, Trustpoint},
};

use super::{Changes, Decision, DeviceState, JobInsert, JobKind, OpenJob, Rejection, Reply, changed, unchanged};
use crate::device::{Adopt, StopNote};

/// The code of a job that an autonomous renewal has overtaken.
const OVERTAKEN: &str = "renewed_by_the_agent";

pub(super) fn adopt(state: &DeviceState, adopt: &Adopt, now: Timestamp) -> Result<Decision, Rejection> {
    let reply = Reply::Job { job_id: adopt.job_id };
    if state.open_jobs.contains_key(&adopt.job_id) {
        return Ok(unchanged(reply));
    }
    let Some((trustpoint, policy)) = state.trustpoints.get(&adopt.trustpoint_id).zip(adopt.policy.as_ref()) else {
        return Ok(unchanged(Reply::Known)); // its history is closed
    };
    let mut changes = Changes::next(state, now);
    if let Some((job_id, _)) = state.job_under_way(trustpoint) {
        let begun = !matches!(trustpoint.request, RequestState::Agent { .. });
        changes.finish(job_id, JobState::Failed, |update| {
            update.failure = Some(overtaken(begun));
            update.stop = Some(StopNote::Requested);
        });
        let stopped = state.open_jobs.get(&job_id).cloned();
        changes.state.stopped_jobs.extend(stopped.map(|open| (job_id, open)));
        changes.outbox.push(job_id);
        let detail = serde_json::json!({ "by": adopt.job_id });
        changes.audit_of_job(adopt.requested_by.clone(), "job_overtaken", job_id.as_uuid(), detail);
    }
    let (job_id, kind) = (adopt.job_id, JobKind::Enroll(RequestKind::Kur));
    changes.write(Trustpoint {
        request: RequestState::Ca { job_id, since: now, progress: Progress::default() },
        last_request: Some(LastRequest { job_id, request_key: None }),
        activates_by_itself: policy.activates(RequestKind::Kur, true),
        policy_revision: Some(adopt.policy_revision),
        ..trustpoint.clone()
    });
    let open = OpenJob {
        trustpoint_id: trustpoint.id,
        agent_id: adopt.agent_id,
        kind,
        public_key_sha256: None,
        started: true,
        stop_requested: false,
        condemned: None,
    };
    changes.state.open_jobs.insert(job_id, open);
    let total = jiff::SignedDuration::from_secs(policy.total_timeout_s.into());
    changes.jobs.push(JobInsert {
        job_id,
        trustpoint_id: trustpoint.id,
        agent_id: adopt.agent_id,
        kind,
        request_key: None,
        requested_by: adopt.requested_by.actor.clone(),
        task: JobTask::Autonomous {
            lease_id: adopt.lease_id,
            policy_revision: adopt.policy_revision,
            automatic: true,
            ends_by: now.checked_add(total).unwrap_or(Timestamp::MAX),
        },
        lease_id: Some(adopt.lease_id),
        traceparent: None,
        certificate_id: None,
        endpoint: None,
        deadline: None,
    });
    let detail = serde_json::json!({
        "device": state.device.name,
        "trustpoint": trustpoint.name,
        "kind": kind.as_str(),
        "lease_id": adopt.lease_id,
        "lease_had_ended": adopt.lease_ended,
        "standby": state.device.duty() == Duty::Standby,
    });
    changes.audit_of_job(adopt.requested_by.clone(), "autonomous_renewal_begun", job_id.as_uuid(), detail);
    Ok(changed(changes, reply))
}

fn overtaken(begun: bool) -> Failure {
    Failure {
        culprit: Culprit::Configuration,
        code: OVERTAKEN.to_owned(),
        message: "the agent was cut off and has renewed the certificate by itself".to_owned(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: begun,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{
        activated, after, changes, enroll, id, in_use, issued, mgmt, report, report_of, unchanged as same,
    };
    use super::*;
    use crate::audit::Requester;
    use crate::device::{Command, ReportEvent};

    fn adopt_of(state: &DeviceState, job: u128) -> Command {
        let policy = serde_json::from_str(r#"{"key":{"algorithm":"rsa-2048"}}"#).unwrap();
        Command::Adopt(Box::new(Adopt {
            job_id: id(job),
            agent_id: state.device.agent_id.unwrap(),
            trustpoint_id: mgmt(state).id,
            lease_id: id(80),
            policy: Some(policy),
            policy_revision: 4,
            lease_ended: false,
            requested_by: Requester::agent("a", uuid::Uuid::from_u128(1), None),
        }))
    }

    #[test]
    fn what_an_agent_began_by_itself_becomes_a_job_once_and_goes_the_way_of_every_job() {
        let state = in_use();
        let former = mgmt(&state).active.clone().unwrap();
        let command = adopt_of(&state, 90);
        let made = changes(&state, &command);
        let job = &made.jobs[0];
        assert_eq!((job.requested_by.as_str(), job.lease_id, made.outbox.len()), ("agent:a", Some(id(80)), 0));
        assert_eq!((job.kind, made.audit[0].action), (JobKind::Enroll(RequestKind::Kur), "autonomous_renewal_begun"));
        let begun = after(&state, &command);
        assert_eq!(same(&begun, &command), Reply::Job { job_id: id(90) });
        let kind = JobKind::Enroll(RequestKind::Kur);
        let told = |event: ReportEvent| Command::Report(Box::new(report_of(90, kind, event)));
        let started = after(&begun, &told(ReportEvent::Started { public_key_sha256: "ab".repeat(32) }));
        let staged = after(&started, &told(issued(7)));
        let used = after(&staged, &told(activated(7)));
        let trustpoint = mgmt(&used);
        assert_eq!(trustpoint.previous.as_ref().map(|facts| facts.id), Some(former.id));
        assert!(trustpoint.staged.is_none() && used.open_jobs.is_empty() && trustpoint.policy_revision == Some(4));
    }

    #[test]
    fn a_job_that_had_not_reached_the_agent_is_over_and_its_agent_is_told_to_leave_it() {
        let asked = after(&in_use(), &enroll(50, RequestKind::Kur, None));
        let made = changes(&asked, &adopt_of(&asked, 90));
        let ended = &made.job_updates[0];
        assert_eq!((ended.job_id, ended.state, ended.stop), (id(50), JobState::Failed, Some(StopNote::Requested)));
        let failure = ended.failure.as_ref().unwrap();
        assert!(failure.code == OVERTAKEN && !failure.maybe_issued, "{failure:?}");
        assert_eq!((made.outbox.as_slice(), mgmt(&made.state).request.job_id()), (&[id(50)][..], Some(id(90))));
        // Its agent was faster than the word that it is over.
        let beside = after(&made.state, &report(50, issued(8)));
        assert_eq!(mgmt(&beside).request.job_id(), Some(id(90)), "kept, and not used");
        assert_eq!(mgmt(&made.state).failures, 0);
    }

    #[test]
    fn what_was_renewed_of_a_trustpoint_that_is_gone_makes_no_job() {
        let state = in_use();
        let command = adopt_of(&state, 90);
        let mut gone = state;
        gone.trustpoints.clear();
        assert_eq!(same(&gone, &command), Reply::Known);
    }
}
