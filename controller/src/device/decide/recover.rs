//! Recovery of a trustpoint whose certificate has ended: armed by an operator, used once, by the agent that it was armed for.

use jiff::Timestamp;
use trustfleet_model::{
    job::RequestKind,
    policy::OriginAuthentication,
    recovery::{Recovery, RecoveryBy},
    trustpoint::{RequestState, Trustpoint},
};

use super::{
    AuditEntry, Changes, Decision, DeviceState, JobKind, Rejection, Reply, TrustpointChange, changed, new_enrollment,
    order, stop, unchanged,
};
use crate::device::{ArmRecovery, DisarmRecovery, Enroll, Stop};

/// Arms it; what was armed before is replaced, and its secret goes.
pub(super) fn arm(state: &DeviceState, arm: &ArmRecovery, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&arm.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.recovery.as_ref().is_some_and(|armed| armed.with == arm.with && armed.until == arm.until) {
        return Ok(unchanged(reply));
    }
    let Some(agent_key_sha256) = arm.agent_key_sha256.clone().filter(|_| state.device.agent_id.is_some()) else {
        return Err(order::agent_missing(state));
    };
    not_in_use(state, trustpoint)?;
    let recovery = Recovery {
        with: arm.with.clone(),
        agent_key_sha256,
        until: arm.until,
        armed_by: arm.requested_by.actor.clone(),
        armed_at: now,
        job_id: None,
    };
    let mut changes = Changes::next(state, now);
    changes.secrets_gone.extend(trustpoint.recovery.as_ref().and_then(|before| before.with.secret_id()));
    let detail = serde_json::json!({
        "by": recovery.with.as_str(), "until": recovery.until, "secret_id": recovery.with.secret_id(),
        "agent_key_sha256": recovery.agent_key_sha256,
    });
    changes.audit_recovery(trustpoint, &arm.requested_by, "recovery_armed", detail);
    changes.write(Trustpoint { recovery: Some(recovery), ..trustpoint.clone() });
    Ok(changed(changes, reply))
}

/// Disarms it; the secret goes.
pub(super) fn disarm(state: &DeviceState, disarm: &DisarmRecovery, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&disarm.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    let Some(recovery) = &trustpoint.recovery else { return Ok(unchanged(reply)) };
    if disarm.only_when_over && recovery.until > now {
        return Ok(unchanged(reply));
    }
    not_in_use(state, trustpoint)?;
    let mut changes = Changes::next(state, now);
    changes.secrets_gone.extend(recovery.with.secret_id());
    let detail =
        serde_json::json!({ "by": recovery.with.as_str(), "until": recovery.until, "over": recovery.until <= now });
    changes.audit_recovery(trustpoint, &disarm.requested_by, "recovery_disarmed", detail);
    changes.write(Trustpoint { recovery: None, ..trustpoint.clone() });
    Ok(changed(changes, reply))
}

/// Its job needs the secret until it has ended.
fn not_in_use(state: &DeviceState, trustpoint: &Trustpoint) -> Result<(), Rejection> {
    let job = trustpoint.recovery.as_ref().and_then(|recovery| recovery.job_id);
    match state.job_under_way(trustpoint) {
        Some((job_id, kind)) if job == Some(job_id) => Err(Rejection::RequestUnderWay { job_id, kind }),
        _ => Ok(()),
    }
}

/// What is missing for the request of a recovery.
pub(super) enum Unready {
    /// Conditions, as for every request (S32).
    Missing(trustfleet_model::field::Violations),
    /// The trustpoint has none that is due.
    None,
}

/// Asks for a certificate by what was armed. A renewal that waits for its agent, and could only fail, is stopped first; then
/// this is looked at again.
pub(super) fn recover(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    enroll: &Enroll,
    now: Timestamp,
) -> Result<Decision, Unready> {
    let (Some(recovery), Some(active)) = (&trustpoint.recovery, &trustpoint.active) else { return Err(Unready::None) };
    if let (Some((job_id, JobKind::Enroll(RequestKind::Kur | RequestKind::Cr))), RequestState::Agent { .. }) =
        (state.job_under_way(trustpoint), &trustpoint.request)
    {
        let order = Stop { job_id, requested_by: enroll.requested_by.clone() };
        return stop::stop(state, &order, now).map(without_wait).map_err(|_| Unready::None);
    }
    if trustpoint.request.job_id().is_some() {
        return Err(Unready::None);
    }
    let mut missing = trustfleet_model::field::Violations::new();
    if enroll.context.agent_key_sha256.as_ref() != Some(&recovery.agent_key_sha256) {
        let message = "was armed for another key than the agent in front of the device has now: make sure that it is the \
                       right one, then arm it again";
        missing.add("trustpoint.recovery", "recovery", message);
    }
    let mut context = enroll.context.clone();
    let mut by = trustpoint.clone();
    match &recovery.with {
        RecoveryBy::Mac { mac } => {
            context.policy.origin_authentication = OriginAuthentication::MessageAuthenticationCode;
            by.mac_reference = Some(mac.reference.clone());
            by.mac_secret_id = Some(mac.secret_id);
        }
        RecoveryBy::FactoryIdentity => context.policy.origin_authentication = OriginAuthentication::Signature,
    }
    context.policy.authentication_domain = None;
    let (agent_id, mut order) = match order::enrollment(state, &by, RequestKind::Ir, &context, now) {
        Ok(ready) if missing.is_empty() => ready,
        Ok(_) => return Err(Unready::Missing(missing)),
        Err(more) => {
            more.into_vec().into_iter().for_each(|one| missing.add(one.field, one.rule, one.message));
            return Err(Unready::Missing(missing));
        }
    };
    order.automatic = true;
    order.replaces = Some(active.serial.clone());
    order.agent_key_sha256 = Some(recovery.agent_key_sha256.clone());
    let used = Trustpoint {
        recovery: Some(Recovery { job_id: Some(enroll.job_id), ..recovery.clone() }),
        ..trustpoint.clone()
    };
    let enroll = Enroll { request: RequestKind::Ir, context, ..enroll.clone() };
    let mut decision = new_enrollment(state, &used, &enroll, agent_id, order, now);
    if let Some(changes) = &mut decision.changes {
        let detail =
            serde_json::json!({ "by": recovery.with.as_str(), "job_id": enroll.job_id, "ended_at": active.not_after });
        changes.audit_recovery(trustpoint, &enroll.requested_by, "recovery_begun", detail);
    }
    Ok(decision)
}

/// Stopping is no failure of the CA or of the device: nothing has to wait for it.
fn without_wait(mut decision: Decision) -> Decision {
    if let Some(changes) = &mut decision.changes {
        let stopped = changes.trustpoints.iter().find_map(TrustpointChange::written).cloned();
        if let Some(mut trustpoint) = stopped {
            trustpoint.succeed();
            changes.write(trustpoint);
        }
    }
    decision
}

impl Changes {
    fn audit_recovery(
        &mut self,
        trustpoint: &Trustpoint,
        by: &crate::audit::Requester,
        action: &'static str,
        mut detail: serde_json::Value,
    ) {
        detail["device"] = serde_json::json!(self.state.device.name);
        detail["name"] = serde_json::json!(trustpoint.name);
        let (before, after) = (None, None);
        let (requester, object_id) = (by.clone(), trustpoint.id.as_uuid());
        self.audit.push(AuditEntry { requester, action, object_kind: "trustpoint", object_id, before, after, detail });
    }

    /// A certificate has come by it: it is used up, and its secret goes. Gives the trustpoint as it is then, and whether that was so.
    pub(super) fn use_up_recovery(
        &mut self,
        trustpoint: &Trustpoint,
        job_id: trustfleet_model::ids::JobId,
    ) -> Option<Trustpoint> {
        let used = trustpoint.recovery.as_ref().filter(|recovery| recovery.job_id == Some(job_id))?;
        self.secrets_gone.extend(used.with.secret_id());
        Some(Trustpoint { recovery: None, ..trustpoint.clone() })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use trustfleet_model::job::{JobTask, MacCredentials};

    use super::super::decide;
    use super::super::tests::{
        after, changes, context, enroll, failure, id, in_use, issued, mgmt, now, refusal, report, report_of, requester,
        unchanged as same,
    };
    use super::*;
    use crate::audit::Requester;
    use crate::device::{Command, Renew, ReportEvent};

    const KEY: &str = "aa";

    fn secret(n: u128) -> trustfleet_model::ids::SecretId {
        uuid::Uuid::from_u128(n).into()
    }

    fn by_mac() -> RecoveryBy {
        RecoveryBy::Mac { mac: MacCredentials { reference: "once".to_owned(), secret_id: secret(99) } }
    }

    fn armed(with: RecoveryBy) -> DeviceState {
        let arm = ArmRecovery {
            trustpoint: "mgmt".parse().unwrap(),
            with,
            until: now() + SignedDuration::from_hours(24 * 30),
            agent_key_sha256: Some(KEY.to_owned()),
            requested_by: requester(),
        };
        after(&in_use(), &Command::ArmRecovery(Box::new(arm)))
    }

    /// After the end of the certificate in use, which is valid for a day.
    fn ended() -> Timestamp {
        now() + SignedDuration::from_hours(24 * 3)
    }

    fn due(state: &DeviceState, job: u128, key: &str) -> Command {
        let mut context = context();
        context.agent_key_sha256 = Some(key.to_owned());
        Command::Renew(Box::new(Renew {
            serial: mgmt(state).active.as_ref().map(|active| active.serial.clone()),
            spread: None,
            recover: true,
            enroll: Enroll {
                trustpoint: "mgmt".parse().unwrap(),
                request: RequestKind::Ir,
                job_id: id(job),
                request_key: None,
                past_floor: false,
                requested_by: Requester::controller(),
                traceparent: None,
                context,
            },
        }))
    }

    fn at(state: &DeviceState, command: &Command, at: Timestamp) -> Option<Box<Changes>> {
        decide(state, command, at).unwrap().changes
    }

    #[test]
    fn a_certificate_that_has_ended_is_recovered_once_by_what_was_armed_and_the_secret_goes() {
        let state = armed(by_mac());
        assert!(at(&state, &due(&state, 70, KEY), now()).is_none(), "it has not ended");
        let asked = at(&state, &due(&state, 70, KEY), ended()).unwrap();
        let JobTask::Enroll(order) = &asked.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.kind, order.mac.as_ref().unwrap().secret_id), (RequestKind::Ir, secret(99)));
        assert_eq!((order.automatic, order.agent_key_sha256.as_deref()), (true, Some(KEY)));
        assert_eq!(order.replaces, mgmt(&state).active.as_ref().map(|active| active.serial.clone()));
        assert!(at(&asked.state, &due(&state, 71, KEY), ended()).is_none(), "it is under way");
        let disarm =
            DisarmRecovery { trustpoint: "mgmt".parse().unwrap(), only_when_over: false, requested_by: requester() };
        assert!(matches!(refusal(&asked.state, &Command::DisarmRecovery(disarm)), Rejection::RequestUnderWay { .. }));
        let own_secret = mgmt(&asked.state).mac_secret_id;
        let issued = changes(&asked.state, &report(70, issued(70)));
        assert_eq!(
            (mgmt(&issued.state).recovery.as_ref(), issued.secrets_gone.as_slice()),
            (None, [secret(99)].as_slice())
        );
        assert_eq!(mgmt(&issued.state).mac_secret_id, own_secret, "the trustpoint's own stays");
    }

    #[test]
    fn nothing_falls_back_to_a_mac_that_nobody_has_armed_and_another_key_does_not_get_it() {
        let state = in_use();
        assert!(at(&state, &due(&state, 70, KEY), ended()).is_none());
        let state = armed(by_mac());
        let refused = at(&state, &due(&state, 70, "bb"), ended()).unwrap();
        assert!(refused.jobs.is_empty());
        let failure = mgmt(&refused.state).last_failure.as_ref().unwrap();
        assert!(failure.message.contains("armed for another key"), "{failure:?}");
        assert!(mgmt(&refused.state).recovery.is_some(), "it stays armed for the right one");
    }

    #[test]
    fn by_the_factory_identity_no_secret_goes_out_whatever_the_policy_says() {
        let state = armed(RecoveryBy::FactoryIdentity);
        let asked = at(&state, &due(&state, 70, KEY), ended()).unwrap();
        let JobTask::Enroll(order) = &asked.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.mac.as_ref(), order.policy.domain()), (None, Some("default")));
    }

    #[test]
    fn an_update_that_waits_for_its_agent_is_stopped_first_and_one_that_has_begun_is_left_alone() {
        for request in [RequestKind::Kur, RequestKind::Cr] {
            let waiting = after(&armed(by_mac()), &enroll(60, request, None));
            let stopped = at(&waiting, &due(&waiting, 70, KEY), ended()).unwrap();
            assert!(stopped.jobs.is_empty() && stopped.state.stopped_jobs.contains_key(&id(60)), "{request:?}");
        }
        let waiting = after(&armed(by_mac()), &enroll(60, RequestKind::Kur, None));
        let stopped = at(&waiting, &due(&waiting, 70, KEY), ended()).unwrap();
        assert!(stopped.jobs.is_empty() && stopped.state.stopped_jobs.contains_key(&id(60)));
        let asked = at(&stopped.state, &due(&waiting, 71, KEY), ended()).unwrap();
        assert_eq!(asked.jobs.len(), 1, "without a wait");
        let started = report_of(
            60,
            JobKind::Enroll(RequestKind::Kur),
            ReportEvent::Started { public_key_sha256: "ff".to_owned() },
        );
        let begun = after(&waiting, &Command::Report(Box::new(started)));
        assert!(at(&begun, &due(&begun, 70, KEY), ended()).is_none());
    }

    #[test]
    fn an_update_that_has_failed_after_the_end_holds_up_no_recovery() {
        let waiting = after(&armed(by_mac()), &enroll(60, RequestKind::Kur, None));
        let event =
            ReportEvent::Failed { failure: failure("expired"), transaction_id: None, in_service: None, in_use: None };
        let report = report_of(60, JobKind::Enroll(RequestKind::Kur), event);
        let failed = at(&waiting, &Command::Report(Box::new(report)), ended()).unwrap().state;
        assert_eq!(at(&failed, &due(&failed, 70, KEY), ended()).unwrap().jobs.len(), 1);
    }

    #[test]
    fn it_is_tried_again_after_a_failure_until_its_end_and_then_disarmed_with_its_secret() {
        let state = armed(by_mac());
        let asked = at(&state, &due(&state, 70, KEY), ended()).unwrap().state;
        let event = ReportEvent::Failed {
            failure: failure("unreachable"),
            transaction_id: None,
            in_service: None,
            in_use: None,
        };
        let report = report_of(70, JobKind::Enroll(RequestKind::Ir), event);
        let failed = at(&asked, &Command::Report(Box::new(report)), ended()).unwrap().state;
        assert!(mgmt(&failed).recovery.is_some());
        assert!(at(&failed, &due(&failed, 71, KEY), ended()).is_none(), "not at once");
        assert!(at(&failed, &due(&failed, 71, KEY), ended() + SignedDuration::from_hours(1)).is_some());
        let over = now() + SignedDuration::from_hours(24 * 31);
        assert!(at(&failed, &due(&failed, 72, KEY), over).is_none(), "its time is over");
        let disarm = |only_when_over| {
            Command::DisarmRecovery(DisarmRecovery {
                trustpoint: "mgmt".parse().unwrap(),
                only_when_over,
                requested_by: requester(),
            })
        };
        assert!(matches!(same(&failed, &disarm(true)), Reply::Trustpoint { .. }));
        let disarmed = at(&failed, &disarm(true), over).unwrap();
        assert_eq!(
            (mgmt(&disarmed.state).recovery.as_ref(), disarmed.secrets_gone.as_slice()),
            (None, [secret(99)].as_slice())
        );
    }
}
