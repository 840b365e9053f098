//! Stopping a job by hand (S37).
//!
//! What its agent has not begun, as far as is known here, ends at once; what is under way ends when the agent says so. The
//! agent is told in either case, because it may know more: it may have begun a moment ago, or may have a certificate.

use jiff::Timestamp;
use trustfleet_model::{
    job::{Culprit, Failure, JobState},
    trustpoint::RequestState,
};

use super::{Changes, Decision, DeviceState, OpenJob, Rejection, Reply, changed, revoke, unchanged};
use crate::device::{Stop, StopNote};

/// The code of a job that was stopped.
pub(super) const STOPPED: &str = "stopped";

pub(super) fn stop(state: &DeviceState, stop: &Stop, now: Timestamp) -> Result<Decision, Rejection> {
    let job_id = stop.job_id;
    let open = state.open_jobs.get(&job_id).ok_or(Rejection::JobEnded)?;
    let reply = Reply::Job { job_id };
    if open.stop_requested {
        return Ok(unchanged(reply));
    }
    let mut changes = Changes::next(state, now);
    if open.kind.is_beside() {
        let failure = failure("stopped by an operator before its agent had begun, as far as is known");
        revoke::stop(&mut changes, job_id, open, &failure, now);
        changes.anchors_lost(job_id, open, &failure.message, now);
        return Ok(stopped(state, changes, stop, open, open.started));
    }
    let trustpoint = state.trustpoints.get(&open.trustpoint_id).filter(|it| it.request.job_id() == Some(job_id));
    let under_way = match trustpoint.map(|trustpoint| &trustpoint.request) {
        Some(RequestState::Ca { .. }) => Some(JobState::AwaitingCa),
        Some(RequestState::Poll { .. }) => Some(JobState::AwaitingPoll),
        _ => None,
    };
    if let Some(job_state) = under_way {
        if let Some(open) = changes.state.open_jobs.get_mut(&job_id) {
            open.stop_requested = true;
        }
        changes.update_job(job_id, job_state, |update| update.stop = Some(StopNote::Requested));
    } else {
        let failure = failure("stopped by an operator before its agent had begun, as far as is known");
        changes.finish(job_id, JobState::Failed, |update| {
            update.failure = Some(failure.clone());
            update.stop = Some(StopNote::Requested);
        });
        changes.state.stopped_jobs.insert(job_id, open.clone());
        if let Some(mut trustpoint) = trustpoint.cloned() {
            trustpoint.request = RequestState::Nothing;
            trustpoint.fail(failure, now);
            changes.write(trustpoint);
        }
    }
    Ok(stopped(state, changes, stop, open, under_way.is_some()))
}

/// The agent is told in any case, and the audit log that somebody wanted it.
fn stopped(state: &DeviceState, mut changes: Changes, stop: &Stop, open: &OpenJob, under_way: bool) -> Decision {
    changes.outbox.push(stop.job_id);
    let detail = serde_json::json!({
        "device": state.device.name, "kind": open.kind.as_str(), "under_way": under_way,
    });
    changes.audit_of_job(stop.requested_by.clone(), "job_stop_requested", stop.job_id.as_uuid(), detail);
    changed(changes, Reply::Job { job_id: stop.job_id })
}

fn failure(message: &str) -> Failure {
    Failure {
        culprit: Culprit::Configuration,
        code: STOPPED.to_owned(),
        message: message.to_owned(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    }
}
