//! Revocation: a job asks the CA for it, by the device itself or by a registration authority (RFC 9483 sections 4.2 and
//! 5.3.2).
//!
//! It stands beside whatever else happens on the trustpoint: a stolen device's enrolment that will never end must not hold
//! it up.

use jiff::Timestamp;
use trustfleet_model::{
    ca_server::endpoint_of,
    field::Violations,
    ids::JobId,
    job::{Culprit, Failure, JobState, JobTask, RevocationOrder},
    revocation::{Revocation, RevocationRoute, RevocationState},
    statistics::Ending,
};

use super::{
    Changes, Decision, DeviceState, JobInsert, JobKind, OpenJob, Rejection, Reply, StopNote, changed, order, unchanged,
};
use crate::device::{Condemned, Report, ReportEvent, RevocationChange, Revoke};

pub(super) fn revoke(state: &DeviceState, revoke: &Revoke, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoints.get(&revoke.trustpoint_id).ok_or(Rejection::NoTrustpoint)?;
    let id = revoke.certificate.id;
    // What stands in a slot is as new as the device; what stood in the row was read before.
    let so_far = trustpoint.certificate(id).and_then(|facts| facts.revocation.as_ref());
    let so_far = so_far.or(revoke.certificate.revocation.as_ref());
    let under_way = state.open_jobs.iter().find(|(_, job)| job.condemned.as_ref().is_some_and(|it| it.id == id));
    if let Some((job_id, job)) = under_way {
        return match revoke.by_hand {
            true => Err(Rejection::RequestUnderWay { job_id: *job_id, kind: job.kind }),
            false => Ok(unchanged(Reply::Job { job_id: *job_id })),
        };
    }
    if so_far.is_some_and(|it| it.state == RevocationState::Revoked) {
        return if revoke.unattended { Ok(unchanged(Reply::Known)) } else { Err(Rejection::AlreadyRevoked) };
    }
    let actor = revoke.requested_by.actor.clone();
    let wanted = match revoke.certificate.revocation.as_ref().filter(|_| revoke.unattended) {
        Some(wanted) => wanted.clone(),
        None => Revocation::wanted(revoke.reason, actor.clone(), now),
    };
    let mut changes = Changes::next(state, now);
    let condemned = |revocation| Condemned { id, not_after: revoke.certificate.not_after, revocation };
    if revoke.by_hand {
        let revocation = Revocation { by_hand: true, ..wanted.revoked(now) };
        changes.note_revocation(revoke.trustpoint_id, &condemned(revocation), None);
        audit(&mut changes, revoke, "certificate_revoked", serde_json::json!({ "by_hand": true }));
        return Ok(changed(changes, Reply::Taken));
    }
    let agent_id = match missing(state, revoke, now).into_result() {
        Ok(()) => revoke.context.agent_id,
        Err(missing) if revoke.unattended => {
            let message = format!("the revocation was not asked for, conditions are missing: {missing}");
            let (revocation, again_at) =
                wanted.failed(failure("not_ready", message), revoke.certificate.not_after, now);
            changes.note_revocation(revoke.trustpoint_id, &condemned(revocation), again_at);
            audit(&mut changes, revoke, "revocation_failed", serde_json::json!({ "missing": missing.as_slice() }));
            return Ok(changed(changes, Reply::Taken));
        }
        Err(missing) => return Err(Rejection::NotReady(missing)),
    };
    // That there is one was checked above.
    let agent_id = agent_id.ok_or_else(|| Rejection::NotReady(Violations::new()))?;
    let condemned = condemned(wanted.requested(revoke.job_id));
    let job = JobInsert {
        job_id: revoke.job_id,
        trustpoint_id: revoke.trustpoint_id,
        agent_id,
        kind: JobKind::Revoke,
        request_key: None,
        requested_by: actor,
        task: JobTask::Revoke(Box::new(RevocationOrder {
            certificate_id: id,
            certificate: revoke.context.certificate_pem.clone(),
            reason: condemned.revocation.reason,
            ca_server: revoke.context.ca_server.clone(),
            policy: revoke.context.policy.clone(),
            policy_revision: revoke.context.policy_revision,
            signer: revoke.context.ca_server.revocation.signer().cloned(),
        })),
        lease_id: None,
        traceparent: revoke.traceparent.clone(),
        certificate_id: Some(id),
        endpoint: endpoint_of(&revoke.context.ca_server.primary_url),
        // Whoever revokes is in a hurry.
        deadline: Some(now),
    };
    changes.note_revocation(revoke.trustpoint_id, &condemned, None);
    let open = OpenJob {
        trustpoint_id: revoke.trustpoint_id,
        agent_id,
        kind: JobKind::Revoke,
        public_key_sha256: None,
        started: false,
        stop_requested: false,
        condemned: Some(condemned),
    };
    changes.state.open_jobs.insert(revoke.job_id, open);
    let detail = serde_json::json!({
        "job_id": revoke.job_id, "agent_id": agent_id, "registration_authority": revoke.context.ca_server.revocation.signer().is_some(),
    });
    audit(&mut changes, revoke, "revocation_requested", detail);
    changes.jobs.push(job);
    changes.outbox.push(revoke.job_id);
    Ok(changed(changes, Reply::Job { job_id: revoke.job_id }))
}

fn audit(changes: &mut Changes, revoke: &Revoke, action: &'static str, mut detail: serde_json::Value) {
    let facts = &revoke.certificate;
    let wanted_by = facts.revocation.as_ref().filter(|_| revoke.unattended).map(|it| it.wanted_by.as_str());
    for (name, value) in [
        ("serial", serde_json::json!(facts.serial)),
        ("issuer", serde_json::json!(facts.issuer)),
        ("reason", serde_json::json!(revoke.reason)),
        ("wanted_by", serde_json::json!(wanted_by)),
    ] {
        detail[name] = value;
    }
    changes.audit.push(super::AuditEntry {
        requester: revoke.requested_by.clone(),
        action,
        object_kind: "certificate",
        object_id: facts.id.as_uuid(),
        before: None,
        after: None,
        detail,
    });
}

/// Everything that stands in the way (S32).
fn missing(state: &DeviceState, revoke: &Revoke, now: Timestamp) -> Violations {
    let mut violations = Violations::new();
    let (facts, context) = (&revoke.certificate, &revoke.context);
    if facts.not_after <= now {
        let message = format!("was {}: a certificate that has ended needs no revocation", facts.not_after);
        violations.add("certificate.not_after", "R8", message);
    }
    match &context.ca_server.revocation {
        RevocationRoute::Hand => {
            let message = "says that this CA takes no revocation requests: revoke the certificate there, then note it \
                           here with by_hand";
            violations.add("ca_server.revocation", "R8", message);
        }
        RevocationRoute::Device => {
            if context.agent_id.is_none() {
                order::no_agent(state, &mut violations);
            }
            if context.agent_quarantined {
                let message = "is in quarantine and gets no job: name a registration authority at the CA server, or \
                               revoke the certificate at the CA and note it here with by_hand";
                violations.add("device.agent", "quarantine", message);
            }
            let kept = state.trustpoints.get(&revoke.trustpoint_id).and_then(|it| it.certificate(facts.id));
            if kept.is_none() {
                let message = "is not kept on the device any more, which could not sign: name a registration authority \
                               at the CA server, or revoke it at the CA and note it here with by_hand";
                violations.add("certificate.slot", "R8", message);
            }
        }
        RevocationRoute::RegistrationAuthority(signer) => {
            let name = format!("{}/{}", signer.device, signer.trustpoint);
            let wrong = if context.agent_id.is_none() {
                Some("names a trustpoint that does not exist, or whose device has no agent")
            } else if context.agent_quarantined {
                Some("names a trustpoint whose agent is in quarantine")
            } else if !context.signer_in_use {
                Some("names a trustpoint that has no valid certificate in use: enrol it first")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                violations.add("ca_server.revocation", "R8", format!("{wrong} ({name})"));
            }
        }
    }
    violations
}

fn failure(code: &str, message: String) -> Failure {
    Failure {
        culprit: Culprit::Configuration,
        code: code.to_owned(),
        message,
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    }
}

/// What an agent says of a revocation. Also of one that was stopped here before it had begun, as far as was known.
pub(super) fn report(state: &DeviceState, report: &Report, now: Timestamp) -> Decision {
    let job_id = report.job_id;
    let open = state.open_jobs.get(&job_id);
    let Some(job) = open.or_else(|| state.stopped_jobs.get(&job_id)) else { return unchanged(Reply::Known) };
    let mut changes = Changes::next(state, now);
    match &report.event {
        ReportEvent::Started { .. } if open.is_some_and(|open| !open.started) => {
            if let Some(open) = changes.state.open_jobs.get_mut(&job_id) {
                open.started = true;
            }
            changes.update_job(job_id, JobState::AwaitingCa, |update| update.started_at = Some(now));
            note(&mut changes, report, "job_started", serde_json::json!({}));
        }
        ReportEvent::Waiting { requesting, .. } if open.is_some() => {
            let job_state = if *requesting { JobState::AwaitingCa } else { JobState::AwaitingPoll };
            changes.update_job(job_id, job_state, |_| {});
        }
        ReportEvent::PermitExpired if open.is_some_and(|open| !open.started) && !report.offered_again => {
            changes.update_job(job_id, JobState::AwaitingPublish, |_| {});
            changes.outbox.push(job_id);
            note(&mut changes, report, "job_permit_expired", serde_json::json!({}));
        }
        ReportEvent::Revoked { transaction_id, warnings } => {
            changes.finish(job_id, JobState::Succeeded, |update| {
                update.transaction_id = Some(transaction_id.clone());
                update.transcript.clone_from(&report.transcript);
            });
            changes.count_revocation(job, report, Ending::Done);
            if let Some(condemned) = &job.condemned {
                let condemned =
                    Condemned { revocation: condemned.revocation.clone().revoked(now), ..condemned.clone() };
                changes.note_revocation(job.trustpoint_id, &condemned, None);
            }
            note(&mut changes, report, "certificate_revoked", serde_json::json!({ "warnings": warnings }));
        }
        ReportEvent::Failed { failure, transaction_id, .. } => {
            let (by_transport, sent) = (failure.culprit == Culprit::Transport, transaction_id.is_some());
            changes.finish(job_id, JobState::Failed, |update| {
                update.failure = Some(failure.clone());
                update.transaction_id.clone_from(transaction_id);
                update.transcript.clone_from(&report.transcript);
            });
            changes.count_revocation(job, report, Ending::Failed { by_transport, sent });
            let again_at = changes.fail_revocation(job, failure, now);
            let detail = serde_json::json!({
                "culprit": failure.culprit, "code": failure.code, "message": failure.message, "again_at": again_at,
            });
            note(&mut changes, report, "job_failed", detail);
        }
        _ => return unchanged(Reply::Known),
    }
    changed(changes, Reply::Taken)
}

fn note(changes: &mut Changes, report: &Report, action: &'static str, mut detail: serde_json::Value) {
    detail["kind"] = serde_json::json!(JobKind::Revoke.as_str());
    changes.audit_of_job(report.requested_by.clone(), action, report.job_id.as_uuid(), detail);
}

/// A job beside the trustpoint's request that has not begun, as far as is known, ends here at once; one that has is stopped
/// by its agent (S37).
pub(super) fn stop(changes: &mut Changes, job_id: JobId, open: &OpenJob, failure: &Failure, now: Timestamp) {
    if open.started {
        if let Some(open) = changes.state.open_jobs.get_mut(&job_id) {
            open.stop_requested = true;
        }
        changes.update_job(job_id, JobState::AwaitingCa, |update| update.stop = Some(StopNote::Requested));
    } else {
        end(changes, job_id, open, failure, now);
        changes.job_updates.iter_mut().for_each(|update| update.stop = Some(StopNote::Requested));
        changes.state.stopped_jobs.insert(job_id, open.clone());
    }
}

/// Ends a job beside the trustpoint's request without success.
pub(super) fn end(changes: &mut Changes, job_id: JobId, open: &OpenJob, failure: &Failure, now: Timestamp) {
    changes.finish(job_id, JobState::Failed, |update| update.failure = Some(failure.clone()));
    changes.fail_revocation(open, failure, now);
}

impl Changes {
    /// Writes a revocation at its certificate, also where it stands in a slot. `again_at`: when it is tried again.
    fn note_revocation(
        &mut self,
        trustpoint: trustfleet_model::ids::TrustpointId,
        condemned: &Condemned,
        again_at: Option<Timestamp>,
    ) {
        if let Some(mut trustpoint) = self.state.trustpoints.get(&trustpoint).cloned()
            && trustpoint.certificate(condemned.id).is_some()
        {
            trustpoint.note_revocation(condemned.id, &condemned.revocation);
            self.write(trustpoint);
        }
        self.revocations.push(RevocationChange {
            certificate_id: condemned.id,
            revocation: condemned.revocation.clone(),
            again_at,
        });
    }

    fn fail_revocation(&mut self, job: &OpenJob, failure: &Failure, now: Timestamp) -> Option<Timestamp> {
        let condemned = job.condemned.as_ref()?;
        let (revocation, again_at) = condemned.revocation.clone().failed(failure.clone(), condemned.not_after, now);
        self.note_revocation(job.trustpoint_id, &Condemned { revocation, ..condemned.clone() }, again_at);
        again_at
    }

    /// Its exchange counts where its trustpoint is still there (S48).
    fn count_revocation(&mut self, job: &OpenJob, report: &Report, ending: Ending) {
        if let Some(mut trustpoint) = self.state.trustpoints.get(&job.trustpoint_id).cloned() {
            trustpoint.statistics.count("rr", report.transcript.as_ref(), ending);
            self.write(trustpoint);
        }
    }
}
