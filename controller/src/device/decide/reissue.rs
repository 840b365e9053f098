//! What campaigns ask of a trustpoint: a new certificate, perhaps of another CA or by another policy, and the way back (S51,
//! S58).

use jiff::Timestamp;
use trustfleet_model::{
    certificate::Slot,
    job::RequestKind,
    policy::{Activation, ActivationByKind},
    trustpoint::Trustpoint,
};

use super::{
    AuditEntry, Changes, Decision, DeviceState, Rejection, Reply, SlotChange, activate, already_asked, changed,
    new_enrollment, order, unchanged,
};
use crate::device::{Activate, Enroll, PutBack, Reissue};

/// Asks for a new certificate. Settings and job are written together: a trustpoint never has a CA server for which nothing
/// was asked.
pub(super) fn reissue(state: &DeviceState, wanted: &Reissue, now: Timestamp) -> Result<Decision, Rejection> {
    let enroll = &wanted.enroll;
    let trustpoint = state.trustpoint(&enroll.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if trustpoint.id != enroll.context.trustpoint_id {
        return Err(Rejection::Outdated);
    }
    if let Some(job_id) = already_asked(trustpoint, enroll.job_id, None) {
        return Ok(unchanged(Reply::Job { job_id }));
    }
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    if let Some(reached) = trustpoint.reissue_reached(&enroll.context.policy.reissue, now) {
        return Err(Rejection::ReissueFloor(reached));
    }
    let moved = Trustpoint { ca_server_id: wanted.ca_server_id, policy_id: wanted.policy_id, ..trustpoint.clone() };
    let order = match enroll.request {
        RequestKind::Kur => order::renewal(state, &moved, &enroll.context, now),
        RequestKind::Cr => order::signed_cr(state, &moved, &enroll.context, now),
        RequestKind::Ir => order::enrollment(state, &moved, RequestKind::Ir, &enroll.context, now),
    };
    let (agent_id, mut order) = order.map_err(Rejection::NotReady)?;
    let enroll = &Enroll { request: order.kind, ..enroll.clone() };
    order.policy.activation = if wanted.activates { Activation::Automatic } else { Activation::Manual };
    order.policy.activation_by_kind = ActivationByKind::default();
    order.policy.key.regenerate |= wanted.new_key;
    let mut decision = new_enrollment(state, &moved, enroll, agent_id, order, now);
    if let Some(changes) = &mut decision.changes {
        if wanted.urgent {
            for job in &mut changes.jobs {
                job.deadline = Some(job.deadline.map_or(now, |deadline| deadline.min(now)));
            }
        }
        if moved != *trustpoint {
            changes.audit.push(moved_entry(state, trustpoint, &moved, enroll));
        }
    }
    Ok(decision)
}

fn moved_entry(state: &DeviceState, before: &Trustpoint, after: &Trustpoint, enroll: &Enroll) -> AuditEntry {
    let of = |it: &Trustpoint| serde_json::json!({ "ca_server_id": it.ca_server_id, "policy_id": it.policy_id });
    AuditEntry {
        requester: enroll.requested_by.clone(),
        action: "trustpoint_moved",
        object_kind: "trustpoint",
        object_id: before.id.as_uuid(),
        before: Some(of(before)),
        after: Some(of(after)),
        detail: serde_json::json!({ "device": state.device.name, "name": before.name }),
    }
}

/// Puts CA server and policy back, and the former certificate into use. Repeated with the same job id it gives the same job;
/// where the former certificate is in use anyway there is no job.
pub(super) fn put_back(state: &DeviceState, wanted: &PutBack, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&wanted.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let asked = already_asked(trustpoint, wanted.job_id, None);
    if let Some(job_id) = asked.filter(|_| wanted.serial.is_some()) {
        return Ok(unchanged(Reply::Job { job_id }));
    }
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    let mut restored =
        Trustpoint { ca_server_id: wanted.ca_server_id, policy_id: wanted.policy_id, ..trustpoint.clone() };
    let in_use = trustpoint.active.as_ref().map(|active| active.serial.as_str());
    if wanted.serial.is_none() || in_use == wanted.serial.as_deref() {
        if restored == *trustpoint {
            return Ok(unchanged(Reply::Known));
        }
        let mut changes = Changes::next(state, now);
        changes.audit.push(entry(state, trustpoint, wanted, false));
        changes.write(restored);
        return Ok(changed(changes, Reply::Taken));
    }
    let former = trustpoint.previous.as_ref().filter(|previous| Some(&previous.serial) == wanted.serial.as_ref());
    let former =
        former.ok_or(Rejection::NotKept("the device keeps only the one that was in use before the present one"))?;
    if former.is_given_up() || wanted.replaced_is_revoked {
        return Err(Rejection::NotKept("it is revoked"));
    }
    if former.not_after <= now {
        return Err(Rejection::NotKept("it has ended"));
    }
    // From here on it is as any other staged certificate: the agent does the same when it is told to put it into use.
    let mut slots = vec![SlotChange { certificate_id: former.id, slot: Slot::Staged, file: None, replaced_by: None }];
    if let Some(unused) = &trustpoint.staged {
        let replaced_by = Some(former.id);
        slots.push(SlotChange { certificate_id: unused.id, slot: Slot::Retired, file: None, replaced_by });
    }
    restored.staged = restored.previous.take();
    let mut staged = state.clone();
    staged.trustpoints.insert(restored.id, restored);
    let activate = Activate {
        trustpoint: wanted.trustpoint.clone(),
        replaced_is_revoked: false,
        job_id: wanted.job_id,
        requested_by: wanted.requested_by.clone(),
        traceparent: None,
    };
    let mut decision = self::activate(&staged, &activate, now)?;
    if let Some(changes) = &mut decision.changes {
        changes.slots.extend(slots);
        changes.audit.push(entry(state, trustpoint, wanted, true));
    }
    Ok(decision)
}

fn entry(state: &DeviceState, before: &Trustpoint, wanted: &PutBack, certificate: bool) -> AuditEntry {
    AuditEntry {
        requester: wanted.requested_by.clone(),
        action: "trustpoint_put_back",
        object_kind: "trustpoint",
        object_id: before.id.as_uuid(),
        before: Some(serde_json::json!({ "ca_server_id": before.ca_server_id, "policy_id": before.policy_id })),
        after: Some(serde_json::json!({ "ca_server_id": wanted.ca_server_id, "policy_id": wanted.policy_id })),
        detail: serde_json::json!({
            "device": state.device.name, "name": before.name, "serial": wanted.serial, "certificate": certificate,
        }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use trustfleet_model::{
        ids::{CaServerId, PolicyId},
        job::{JobTask, RequestKind},
        revocation::{Revocation, RevocationReason},
    };

    use super::super::decide;
    use super::super::tests::{
        activated, after, changes, context, id, in_use, issued, mgmt, now, ready, refusal, report_of, requester,
        unchanged,
    };
    use super::*;
    use crate::device::{Command, Enroll, JobKind};

    fn wanted(job: u128, request: RequestKind) -> Reissue {
        Reissue {
            ca_server_id: id::<CaServerId>(131),
            policy_id: id::<PolicyId>(32),
            new_key: true,
            activates: false,
            urgent: true,
            enroll: Enroll {
                trustpoint: "mgmt".parse().unwrap(),
                request,
                job_id: id(job),
                request_key: None,
                requested_by: requester(),
                past_floor: false,
                traceparent: None,
                context: context(),
            },
        }
    }

    fn command(wanted: Reissue) -> Command {
        Command::Reissue(Box::new(wanted))
    }

    fn back(job: u128, serial: Option<&str>) -> Command {
        Command::PutBack(Box::new(PutBack {
            trustpoint: "mgmt".parse().unwrap(),
            ca_server_id: id::<CaServerId>(31),
            policy_id: id::<PolicyId>(32),
            serial: serial.map(str::to_owned),
            replaced_is_revoked: false,
            job_id: id(job),
            requested_by: requester(),
        }))
    }

    /// A device that a campaign has moved to CA server 131, with certificate 51 in use after 50.
    fn moved() -> DeviceState {
        let state = after(&in_use(), &command(wanted(60, RequestKind::Cr)));
        let of_job = |event| Command::Report(Box::new(report_of(60, JobKind::Enroll(RequestKind::Cr), event)));
        let state = after(&state, &of_job(issued(51)));
        after(&state, &of_job(activated(51)))
    }

    #[test]
    fn s58_the_move_to_another_ca_and_the_request_there_are_written_together() {
        let changes = changes(&in_use(), &command(wanted(60, RequestKind::Cr)));
        assert_eq!(mgmt(&changes.state).ca_server_id, id(131));
        let JobTask::Enroll(order) = &changes.jobs[0].task else { panic!("no enrolment") };
        assert!(order.policy.key.regenerate && !order.policy.activates(order.kind, false), "{:?}", order.policy);
        assert!(!mgmt(&changes.state).activates_by_itself);
        assert_eq!(changes.jobs[0].deadline, Some(now()), "it goes before everything else");
        assert!(changes.audit.iter().any(|entry| entry.action == "trustpoint_moved"));
    }

    #[test]
    fn s30_a_campaign_that_renews_asks_by_cr_where_the_subject_is_another_one_by_now() {
        let mut renewal = wanted(60, RequestKind::Kur);
        renewal.enroll.context.entity.subject = "/O=Other/CN={device.name}".to_owned();
        let changes = changes(&in_use(), &command(renewal));
        let JobTask::Enroll(order) = &changes.jobs[0].task else { panic!("no enrolment") };
        assert_eq!((order.kind, changes.jobs[0].kind), (RequestKind::Cr, JobKind::Enroll(RequestKind::Cr)));
        assert!(order.signed_by_current && order.mac.is_none(), "{order:?}");
    }

    #[test]
    fn s32_a_move_for_which_a_condition_is_missing_changes_nothing() {
        let by_update = command(wanted(60, RequestKind::Kur));
        assert!(matches!(refusal(&ready(), &by_update), Rejection::NotReady(_)));
    }

    #[test]
    fn a_campaign_does_not_get_below_the_floor_under_re_issue() {
        let mut wanted = wanted(60, RequestKind::Cr);
        wanted.enroll.context.policy.reissue.most = 1;
        assert!(matches!(refusal(&in_use(), &command(wanted)), Rejection::ReissueFloor(_)));
    }

    #[test]
    fn a_trustpoint_with_a_request_under_way_is_left_alone() {
        let state = after(&in_use(), &command(wanted(60, RequestKind::Cr)));
        assert!(matches!(refusal(&state, &command(wanted(61, RequestKind::Cr))), Rejection::RequestUnderWay { .. }));
        assert!(matches!(refusal(&state, &back(61, None)), Rejection::RequestUnderWay { .. }));
    }

    #[test]
    fn a_roll_back_stages_the_former_certificate_and_has_it_put_into_use() {
        let state = moved();
        let changes = changes(&state, &back(70, Some("32")));
        let trustpoint = mgmt(&changes.state);
        assert_eq!((trustpoint.ca_server_id, trustpoint.staged.as_ref().unwrap().serial.as_str()), (id(31), "32"));
        assert!(trustpoint.previous.is_none());
        assert_eq!((changes.slots[0].slot, changes.slots[0].certificate_id), (Slot::Staged, id(50)));
        let JobTask::Activate { serial, .. } = &changes.jobs[0].task else { panic!("no activation") };
        assert_eq!(serial, "32");
        let done = Command::Report(Box::new(report_of(70, JobKind::Activate, activated(50))));
        let restored = after(&changes.state, &done);
        assert_eq!(mgmt(&restored).active.as_ref().unwrap().serial, "32");
        assert_eq!(mgmt(&restored).previous.as_ref().unwrap().serial, "33");
    }

    #[test]
    fn a_roll_back_where_the_certificate_did_not_change_puts_only_the_settings_back() {
        let mut state = in_use();
        let trustpoint = state.trustpoints.get_mut(&id(20)).unwrap();
        trustpoint.ca_server_id = id(131);
        let changes = changes(&state, &back(70, Some("32")));
        assert!(changes.jobs.is_empty() && mgmt(&changes.state).ca_server_id == id(31));
        assert_eq!(unchanged(&changes.state, &back(71, None)), Reply::Known);
    }

    #[test]
    fn what_is_not_kept_revoked_or_has_ended_is_not_put_back_into_use() {
        let refused = |state: &DeviceState, serial: &str| refusal(state, &back(70, Some(serial)));
        assert!(matches!(refused(&moved(), "31"), Rejection::NotKept(_)));
        let mut revoked = moved();
        let previous = revoked.trustpoints.get_mut(&id(20)).unwrap().previous.as_mut().unwrap();
        previous.revocation = Some(Revocation::wanted(RevocationReason::Superseded, "x".to_owned(), now()));
        assert_eq!(refused(&revoked, "32"), Rejection::NotKept("it is revoked"));
        let late = now() + SignedDuration::from_hours(25);
        assert_eq!(decide(&moved(), &back(70, Some("32")), late).unwrap_err(), Rejection::NotKept("it has ended"));
    }
}
