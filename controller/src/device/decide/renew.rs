//! Requests that are due by themselves: renewals, and first certificates (S31, S41).

use jiff::Timestamp;
use trustfleet_model::{
    field::Violations,
    job::{Culprit, Failure, REPLACED_ALREADY},
    renewal::{Due, NOT_READY, next_action},
    trustpoint::Trustpoint,
};

use super::{
    AuditEntry, Changes, Decision, DeviceState, Rejection, Reply, changed, new_enrollment, order, recover, unchanged,
};
use crate::device::{Enroll, Renew};

/// Asks for the certificate's successor, or for the first one, once: where anything has changed since it was found due, nothing happens. When a
/// condition is missing nothing is sent, and the trustpoint tells which (S32).
pub(super) fn renew(state: &DeviceState, renew: &Renew, now: Timestamp) -> Result<Decision, Rejection> {
    let enroll = &renew.enroll;
    let trustpoint = state.trustpoint(&enroll.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let next = next_action(trustpoint, &enroll.context.policy, state.device.duty(), renew.spread.as_ref(), now);
    let active = trustpoint.active.as_ref().map(|active| active.serial.as_str());
    let (wanted, is_same) = match renew.serial.as_deref() {
        Some(serial) if renew.recover => (Due::Recover, active == Some(serial)),
        Some(serial) => (Due::Renew, active == Some(serial)),
        None => (Due::Enroll, true),
    };
    let is_due = trustpoint.id == enroll.context.trustpoint_id
        && is_same
        && next.is_some_and(|(moment, due)| due == wanted && moment <= now);
    if !is_due {
        return Ok(unchanged(Reply::Known));
    }
    if wanted == Due::Recover {
        return match recover::recover(state, trustpoint, enroll, now) {
            Ok(decision) => Ok(decision),
            Err(recover::Unready::Missing(missing)) => Ok(not_ready(state, trustpoint, renew, &missing, now)),
            Err(recover::Unready::None) => Ok(unchanged(Reply::Known)),
        };
    }
    let order = match wanted {
        Due::Renew => order::renewal(state, trustpoint, &enroll.context, now),
        _ => order::enrollment(state, trustpoint, enroll.request, &enroll.context, now),
    };
    match order {
        Ok((agent_id, mut order)) => {
            order.automatic = true;
            order.replaces = renew.serial.clone().filter(|_| !is_misjudged(trustpoint));
            let enroll = Enroll { request: order.kind, ..enroll.clone() };
            Ok(new_enrollment(state, trustpoint, &enroll, agent_id, order, now))
        }
        Err(missing) => Ok(not_ready(state, trustpoint, renew, &missing, now)),
    }
}

/// The agent has another certificate in use than is known here, and by its last answer keeps refusing: whichever it is, the
/// next request replaces it, and both know the same again.
fn is_misjudged(trustpoint: &Trustpoint) -> bool {
    trustpoint.last_failure.as_ref().is_some_and(|last| last.code == REPLACED_ALREADY)
}

fn not_ready(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    renew: &Renew,
    missing: &Violations,
    now: Timestamp,
) -> Decision {
    let failure = Failure {
        culprit: Culprit::Configuration,
        code: NOT_READY.to_owned(),
        message: format!("the automatic request was not sent, conditions are missing: {missing}"),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    };
    let mut changes = Changes::next(state, now);
    changes.audit.push(AuditEntry {
        requester: renew.enroll.requested_by.clone(),
        action: "auto_update_not_ready",
        object_kind: "trustpoint",
        object_id: trustpoint.id.as_uuid(),
        before: None,
        after: None,
        detail: serde_json::json!({
            "device": state.device.name, "name": trustpoint.name, "missing": missing.as_slice(),
        }),
    });
    let mut failed = trustpoint.clone();
    failed.fail(failure, now);
    changes.write(failed);
    changed(changes, Reply::Taken)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use trustfleet_model::job::{JobTask, RequestKind};

    use super::super::decide;
    use super::super::tests::{
        after, context, enroll, failure, id, in_use, mgmt, now, ready, refusal, report_of, requester,
    };
    use super::*;
    use crate::audit::Requester;
    use crate::device::{Changes, Command, JobKind, ReportEvent, SetAutoUpdate};

    const ON: &str = r#"{"key":{"algorithm":"rsa-2048"},"activation":"router","auto_update":{"enabled":true}}"#;
    const OFF: &str = r#"{"key":{"algorithm":"rsa-2048"}}"#;

    /// Towards the end of the certificate in use, which is valid for a day.
    fn late() -> Timestamp {
        now() + SignedDuration::from_hours(23)
    }

    fn serial(state: &DeviceState) -> String {
        mgmt(state).active.as_ref().unwrap().serial.clone()
    }

    fn renewed(state: &DeviceState, serial: &str, policy: &str, at: Timestamp) -> Option<Box<Changes>> {
        let mut context = context();
        context.policy = serde_json::from_str(policy).unwrap();
        let renew = Renew {
            serial: Some(serial.to_owned()),
            spread: None,
            recover: false,
            enroll: Enroll {
                trustpoint: "mgmt".parse().unwrap(),
                request: RequestKind::Kur,
                job_id: id(70),
                request_key: None,
                past_floor: false,
                requested_by: Requester::controller(),
                traceparent: None,
                context,
            },
        };
        decide(state, &Command::Renew(Box::new(renew)), at).unwrap().changes
    }

    #[test]
    fn s31_a_due_certificate_is_renewed_once_and_its_successor_takes_effect_by_itself() {
        let state = in_use();
        let changes = renewed(&state, &serial(&state), ON, late()).unwrap();
        let JobTask::Enroll(order) = &changes.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.automatic, order.kind, changes.outbox.len()), (true, RequestKind::Kur, 1));
        assert!(order.policy.activates(order.kind, order.automatic) && mgmt(&changes.state).activates_by_itself);
        assert!(renewed(&changes.state, &serial(&state), ON, late()).is_none(), "it is under way already");
    }

    #[test]
    fn s41_nothing_is_renewed_that_is_not_due_or_was_switched_off_or_replaced_meanwhile() {
        let state = in_use();
        let serial = serial(&state);
        for (serial, policy, at) in [(serial.as_str(), OFF, late()), ("FFFF", ON, late()), (serial.as_str(), ON, now())]
        {
            assert!(renewed(&state, serial, policy, at).is_none(), "{serial} {policy} {at}");
        }
    }

    #[test]
    fn s32_a_renewal_that_cannot_be_sent_says_why_and_is_tried_again_later() {
        let mut state = in_use();
        state.device.agent_id = None;
        let changes = renewed(&state, &serial(&state), ON, late()).unwrap();
        assert!(changes.jobs.is_empty() && changes.outbox.is_empty());
        let trustpoint = mgmt(&changes.state);
        let failure = trustpoint.last_failure.as_ref().unwrap();
        assert!(failure.code == "not_ready" && failure.message.contains("device.agent"), "{failure:?}");
        assert_eq!((trustpoint.failures, trustpoint.last_failed_at), (1, Some(late())));
        assert!(renewed(&changes.state, &serial(&state), ON, late()).is_none(), "not at once again");
    }

    #[test]
    fn an_agent_that_has_another_certificate_in_use_than_is_known_here_renews_whichever_it_is_the_next_time() {
        let replaces = |changes: &Changes| match &changes.jobs[0].task {
            JobTask::Enroll(order) => order.replaces.clone(),
            other => panic!("no enrolment: {other:?}"),
        };
        let mut state = in_use();
        let usual = renewed(&state, &serial(&state), ON, late()).unwrap();
        assert_eq!(replaces(&usual), Some(serial(&state)));
        for (code, expected) in [("no_answer", Some(serial(&state))), (REPLACED_ALREADY, None)] {
            for trustpoint in state.trustpoints.values_mut() {
                trustpoint.last_failure = Some(failure(code));
            }
            assert_eq!(replaces(&renewed(&state, &serial(&state), ON, late()).unwrap()), expected, "{code}");
        }
    }

    #[test]
    fn where_the_ca_takes_one_update_at_a_time_an_unfinished_one_is_followed_by_another_request() {
        let state = after(&in_use(), &enroll(60, RequestKind::Kur, None));
        let lost = Failure { maybe_issued: true, ..failure("no_answer") };
        let event = ReportEvent::Failed { failure: lost, transaction_id: None, in_service: None, in_use: None };
        let report = report_of(60, JobKind::Enroll(RequestKind::Kur), event);
        let state = after(&state, &Command::Report(Box::new(report)));
        assert_eq!(mgmt(&state).unfinished_update, Some(serial(&state)));

        let usual = renewed(&state, &serial(&state), ON, late()).unwrap();
        let JobTask::Enroll(order) = &usual.jobs[0].task else { panic!("no enrolment") };
        assert_eq!(order.kind, RequestKind::Kur, "other CAs are asked as before");

        let mut strict = context();
        strict.ca_server.quirks.one_update_at_a_time = true;
        strict.policy = serde_json::from_str(ON).unwrap();
        let asked = |request| Enroll {
            trustpoint: "mgmt".parse().unwrap(),
            request,
            job_id: id(70),
            request_key: None,
            past_floor: false,
            requested_by: Requester::controller(),
            traceparent: None,
            context: strict.clone(),
        };
        let by_hand = Command::Enroll(Box::new(asked(RequestKind::Kur)));
        let Rejection::NotReady(missing) = refusal(&state, &by_hand) else { panic!("not refused") };
        assert_eq!(missing.as_slice()[0].rule, "one_update_at_a_time");
        let renew =
            Renew { serial: Some(serial(&state)), spread: None, recover: false, enroll: asked(RequestKind::Kur) };
        let changes = decide(&state, &Command::Renew(Box::new(renew)), late()).unwrap().changes.unwrap();
        let JobTask::Enroll(order) = &changes.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.kind, order.automatic), (RequestKind::Cr, true));
    }

    #[test]
    fn s30_where_the_entity_has_another_subject_by_now_the_renewal_is_a_cr() {
        let state = in_use();
        assert!(mgmt(&state).mac_secret_id.is_some(), "what is left of it is for a first request");
        let mut moved = context();
        moved.entity.subject = "/O=Other/CN={device.name}".to_owned();
        let by_hand = r#"{"key":{"algorithm":"rsa-2048"},"activation":"manual","activation_by_kind":{"automatic_kur":true},
                          "origin_authentication":"signature","auto_update":{"enabled":true}}"#;
        moved.policy = serde_json::from_str(by_hand).unwrap();
        let Command::Enroll(enroll) = enroll(70, RequestKind::Kur, None) else { unreachable!() };
        let enroll = Enroll { requested_by: Requester::controller(), context: moved, ..*enroll };
        let renew = Renew { serial: Some(serial(&state)), spread: None, recover: false, enroll };
        let changes = decide(&state, &Command::Renew(Box::new(renew)), late()).unwrap().changes.unwrap();
        let JobTask::Enroll(order) = &changes.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.kind, order.automatic, &order.mac), (RequestKind::Cr, true, &None));
        assert!(order.signed_by_current, "by what signs an update");
        assert!(mgmt(&changes.state).activates_by_itself, "as any renewal by itself does with this policy");
    }

    #[test]
    fn s42_switching_it_on_is_refused_with_everything_that_is_missing() {
        let set = |enabled| {
            let mut context = context();
            context.entity.subject = "CN={device.serial}".to_owned();
            context.ca_server.trust_anchors.clear();
            let (trustpoint, requested_by) = ("mgmt".parse().unwrap(), requester());
            Command::SetAutoUpdate(Box::new(SetAutoUpdate { trustpoint, enabled, context, requested_by }))
        };
        let mut state = ready();
        state.device.agent_id = None;
        let Rejection::NotReady(missing) = refusal(&state, &set(Some(true))) else { panic!("not refused") };
        let fields: Vec<_> = missing.as_slice().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["device.agent", "entity.subject", "ca_server.trust_anchors", "trustpoint.active"]);
        let off = after(&state, &set(Some(false)));
        assert_eq!(mgmt(&off).auto_update, Some(false), "switching off needs nothing");
        assert_eq!(mgmt(&after(&off, &set(None))).auto_update, None);
    }

    #[test]
    fn below_the_floor_nothing_is_issued_by_hand_unless_it_is_confirmed_and_nothing_by_itself_at_all() {
        let mut state = in_use();
        let recent = |state: &mut DeviceState, count: i64| {
            for trustpoint in state.trustpoints.values_mut() {
                trustpoint.issued_lately = (0..count).map(|n| now() - SignedDuration::from_mins(n)).collect();
            }
        };
        recent(&mut state, 9);
        assert!(!after(&state, &enroll(60, RequestKind::Kur, None)).open_jobs.is_empty());
        recent(&mut state, 10);
        let Rejection::ReissueFloor(reached) = refusal(&state, &enroll(60, RequestKind::Kur, None)) else {
            panic!("not refused")
        };
        assert_eq!((reached.issued, reached.again_at), (10, now() + SignedDuration::from_mins(51)));
        let told = Rejection::ReissueFloor(reached).to_string();
        assert!(told.contains(&reached.again_at.to_string()) && told.contains("confirm_floor"), "{told}");
        let Command::Enroll(mut meant) = enroll(60, RequestKind::Kur, None) else { unreachable!() };
        meant.past_floor = true;
        let forced = decide(&state, &Command::Enroll(meant), now()).unwrap().changes.unwrap();
        assert!(forced.audit.iter().any(|line| line.action == "reissue_floor_passed"), "{:?}", forced.audit);

        // By itself: not before one of them is old enough, however urgent it is.
        for trustpoint in state.trustpoints.values_mut() {
            trustpoint.issued_lately = vec![late(); 10];
        }
        assert!(renewed(&state, &serial(&state), ON, late()).is_none());
        let none = r#"{"key":{"algorithm":"rsa-2048"},"reissue":{"most":0},"activation":"router","auto_update":{"enabled":true}}"#;
        assert!(renewed(&state, &serial(&state), none, late()).is_some(), "the policy wants no floor");
    }

    #[test]
    fn every_certificate_that_is_issued_counts_for_the_floor() {
        assert_eq!(mgmt(&in_use()).issued_lately, [now()]);
    }
}
