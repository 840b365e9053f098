//! What operators and bindings configure of trustpoints.

use jiff::Timestamp;
use trustfleet_model::{field::ObjectName, ids::TrustpointId, statistics::Statistics, trustpoint::Trustpoint};

use super::{
    AddTrustpoint, AuditEntry, Changes, Decision, DeviceState, Rejection, RemoveTrustpoint, Reply, Requester,
    ResetStatistics, SetMac, SetServices, TRUSTPOINTS_MAX, TrustpointChange, Unbind, changed, order, unchanged,
};
use crate::audit::differences;
use crate::device::{JobKind, Rebind, SetAutoUpdate};

pub(super) fn add_trustpoint(state: &DeviceState, add: &AddTrustpoint, now: Timestamp) -> Result<Decision, Rejection> {
    let reply = Reply::Trustpoint { id: add.id };
    if state.trustpoints.contains_key(&add.id) {
        return Ok(unchanged(reply));
    }
    if state.trustpoint(&add.name).is_some() {
        return Err(Rejection::NameTaken);
    }
    if state.trustpoints.len() >= TRUSTPOINTS_MAX {
        return Err(Rejection::TooManyTrustpoints);
    }
    check_services(state, add.id, &add.services)?;
    let trustpoint = Trustpoint {
        mac_reference: add.mac.as_ref().map(|mac| mac.reference.clone()),
        mac_secret_id: add.mac.as_ref().map(|mac| mac.secret_id),
        mac_one_time: add.mac_one_time,
        services: add.services.clone(),
        binding_id: add.binding.map(|bound| bound.id),
        binding_revision: add.binding.map_or(0, |bound| bound.revision),
        enrolls_by_itself: add.binding.is_some_and(|bound| bound.enroll),
        ..Trustpoint::new(add.id, add.name.clone(), add.entity_id, add.ca_server_id, add.policy_id)
    };
    let mut changes = Changes::next(state, now);
    changes.audit_of_trustpoint(&trustpoint, &add.requested_by, "trustpoint_created", None, Some(told(&trustpoint)));
    changes.write(trustpoint);
    Ok(changed(changes, reply))
}

pub(super) fn set_mac(state: &DeviceState, set: &SetMac, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&set.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.mac_secret_id == Some(set.mac.secret_id) {
        return Ok(unchanged(reply));
    }
    // Its order names the former secret, which must be there until it is published.
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    let mut changes = Changes::next(state, now);
    changes.secrets_gone.extend(trustpoint.mac_secret_id);
    let changed_to = Trustpoint {
        mac_reference: Some(set.mac.reference.clone()),
        mac_secret_id: Some(set.mac.secret_id),
        mac_one_time: set.one_time,
        ..trustpoint.clone()
    };
    changes.reconfigure(trustpoint, changed_to, &set.requested_by, "trustpoint_mac_set");
    Ok(changed(changes, reply))
}

pub(super) fn set_services(state: &DeviceState, set: &SetServices, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&set.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.services == set.services {
        return Ok(unchanged(reply));
    }
    // Its order names the services as they are now.
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    check_services(state, trustpoint.id, &set.services)?;
    // Anchors of a roll-over have to be loaded by the new services as well (S57).
    let changed_to = Trustpoint { services: set.services.clone(), anchors: None, ..trustpoint.clone() };
    let mut changes = Changes::next(state, now);
    changes.reconfigure(trustpoint, changed_to, &set.requested_by, "trustpoint_services_set");
    Ok(changed(changes, reply))
}

/// No other trustpoint of the device has one of the services (S40).
fn check_services(state: &DeviceState, id: TrustpointId, services: &[ObjectName]) -> Result<(), Rejection> {
    for other in state.trustpoints.values().filter(|other| other.id != id) {
        if let Some(service) = services.iter().find(|service| other.services.contains(service)) {
            return Err(Rejection::ServiceTaken { service: service.clone(), holder: other.name.clone() });
        }
    }
    Ok(())
}

pub(super) fn remove_trustpoint(
    state: &DeviceState,
    remove: &RemoveTrustpoint,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&remove.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    if let Some(job_id) = state.beside(trustpoint.id, JobKind::Revoke) {
        return Err(Rejection::RequestUnderWay { job_id, kind: JobKind::Revoke });
    }
    let mut changes = Changes::next(state, now);
    for facts in [&trustpoint.active, &trustpoint.staged, &trustpoint.previous].into_iter().flatten() {
        changes.retire(facts.id);
    }
    changes.secrets_gone.extend(trustpoint.mac_secret_id);
    changes.secrets_gone.extend(trustpoint.recovery.as_ref().and_then(|recovery| recovery.with.secret_id()));
    changes.trustpoints.push(TrustpointChange::Remove(trustpoint.id));
    changes.state.trustpoints.remove(&trustpoint.id);
    changes.audit_of_trustpoint(trustpoint, &remove.requested_by, "trustpoint_deleted", Some(told(trustpoint)), None);
    Ok(changed(changes, Reply::Removed))
}

pub(super) fn rebind(state: &DeviceState, rebind: &Rebind, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&rebind.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.binding_id != Some(rebind.bound.id) || trustpoint.binding_revision >= rebind.bound.revision {
        return Ok(unchanged(reply));
    }
    // Its order was made of what it is now.
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    check_services(state, trustpoint.id, &rebind.services)?;
    let changed_to = Trustpoint {
        entity_id: rebind.entity_id,
        ca_server_id: rebind.ca_server_id,
        policy_id: rebind.policy_id,
        services: rebind.services.clone(),
        anchors: trustpoint.anchors.clone().filter(|_| trustpoint.services == rebind.services),
        binding_revision: rebind.bound.revision,
        enrolls_by_itself: rebind.bound.enroll,
        ..trustpoint.clone()
    };
    let mut changes = Changes::next(state, now);
    if told(trustpoint) == told(&changed_to) {
        changes.write(changed_to);
    } else {
        changes.reconfigure(trustpoint, changed_to, &rebind.requested_by, "trustpoint_rebound");
    }
    Ok(changed(changes, reply))
}

pub(super) fn unbind(state: &DeviceState, unbind: &Unbind, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&unbind.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.binding_id != Some(unbind.binding_id) {
        return Ok(unchanged(reply));
    }
    if unbind.when_idle
        && let Some((job_id, kind)) = state.job_under_way(trustpoint)
    {
        return Err(Rejection::RequestUnderWay { job_id, kind });
    }
    let mut changes = Changes::next(state, now);
    let changed_to =
        Trustpoint { binding_id: None, binding_revision: 0, enrolls_by_itself: false, ..trustpoint.clone() };
    changes.reconfigure(trustpoint, changed_to, &unbind.requested_by, "trustpoint_unbound");
    Ok(changed(changes, reply))
}

pub(super) fn reset_statistics(
    state: &DeviceState,
    reset: &ResetStatistics,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let named = match &reset.trustpoint {
        Some(name) => vec![state.trustpoint(name).ok_or(Rejection::NoTrustpoint)?],
        None => state.trustpoints.values().collect(),
    };
    if named.is_empty() {
        return Ok(unchanged(Reply::Taken));
    }
    let mut changes = Changes::next(state, now);
    for trustpoint in named {
        changes.audit_of_trustpoint(
            trustpoint,
            &reset.requested_by,
            "statistics_reset",
            Some(serde_json::json!(trustpoint.statistics.flat())),
            None,
        );
        changes.write(Trustpoint { statistics: Statistics::reset(now), ..trustpoint.clone() });
    }
    Ok(changed(changes, Reply::Taken))
}

/// Switching on is refused while a condition of an update is missing, and each is named (S42); switching off never is.
pub(super) fn set_auto_update(state: &DeviceState, set: &SetAutoUpdate, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&set.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if trustpoint.id != set.context.trustpoint_id {
        return Err(Rejection::Outdated);
    }
    let reply = Reply::Trustpoint { id: trustpoint.id };
    if trustpoint.auto_update == set.enabled {
        return Ok(unchanged(reply));
    }
    if set.enabled == Some(true) {
        order::renewal(state, trustpoint, &set.context, now).map_err(Rejection::NotReady)?;
    }
    let changed_to = Trustpoint { auto_update: set.enabled, ..trustpoint.clone() };
    let mut changes = Changes::next(state, now);
    changes.reconfigure(trustpoint, changed_to, &set.requested_by, "trustpoint_auto_update_set");
    Ok(changed(changes, reply))
}

/// What was configured of a trustpoint, for the audit log; its secret by its id alone.
fn told(trustpoint: &Trustpoint) -> serde_json::Value {
    serde_json::json!({
        "name": trustpoint.name,
        "entity_id": trustpoint.entity_id,
        "ca_server_id": trustpoint.ca_server_id,
        "policy_id": trustpoint.policy_id,
        "mac_reference": trustpoint.mac_reference,
        "mac_secret_id": trustpoint.mac_secret_id,
        "mac_one_time": trustpoint.mac_one_time,
        "services": trustpoint.services,
        "auto_update": trustpoint.auto_update,
        "binding_id": trustpoint.binding_id,
        "enrolls_by_itself": trustpoint.enrolls_by_itself,
    })
}

impl Changes {
    /// Writes a trustpoint that is configured otherwise; the audit log has the difference.
    fn reconfigure(&mut self, was: &Trustpoint, is: Trustpoint, by: &Requester, action: &'static str) {
        let (before, after) = differences(&told(was), &told(&is));
        self.audit_of_trustpoint(was, by, action, Some(before), Some(after));
        self.write(is);
    }

    fn audit_of_trustpoint(
        &mut self,
        trustpoint: &Trustpoint,
        by: &Requester,
        action: &'static str,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
    ) {
        self.audit.push(AuditEntry {
            requester: by.clone(),
            action,
            object_kind: "trustpoint",
            object_id: trustpoint.id.as_uuid(),
            before,
            after,
            detail: serde_json::json!({ "device": self.state.device.name, "name": trustpoint.name }),
        });
    }
}
