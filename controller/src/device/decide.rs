//! The device's decisions: what a command changes, or why it is refused.
//!
//! Commands and reports may come twice, late or out of order; each of them is harmless then.

use jiff::Timestamp;
use trustfleet_model::{
    ca_server::endpoint_of,
    field::{ObjectName, TrustpointName, Violations},
    ids::{AgentId, JobId},
    job::{EnrollmentOrder, JobState, JobTask, MacCredentials},
    reissue::Reached,
    trustpoint::{LastRequest, RequestState, Trustpoint},
};
use uuid::Uuid;

use super::{
    Activate, AddTrustpoint, AuditEntry, Changes, Command, Decision, DeviceState, Enroll, JobInsert, JobKind,
    JobUpdate, OpenJob, RemoveTrustpoint, Reply, Requester, ResetStatistics, SetMac, SetServices, SlotChange, StopNote,
    TrustpointChange, Unbind, Undeliverable,
};

mod adopt;
mod anchors;
mod configure;
mod dry_run;
pub(super) mod lease;
mod order;
#[cfg(test)]
mod order_tests;
mod recover;
mod reissue;
mod renew;
mod report;
mod revoke;
#[cfg(test)]
mod revoke_tests;
#[cfg(test)]
mod services_tests;
mod stop;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;

/// Most trustpoints on one device: its state is read and written as a whole.
pub(super) const TRUSTPOINTS_MAX: usize = 100;

/// Why a command was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No trustpoint of that name.
    #[error("there is no such trustpoint")]
    NoTrustpoint,
    /// The name is taken on this device.
    #[error("the device has a trustpoint of that name already")]
    NameTaken,
    /// As many trustpoints as a device can have.
    #[error("the device has {TRUSTPOINTS_MAX} trustpoints, and cannot have more")]
    TooManyTrustpoints,
    /// A service has one trustpoint on a device (S40).
    #[error("the service {service} has the certificate of trustpoint {holder}: take it from there first")]
    ServiceTaken {
        /// The service.
        service: ObjectName,
        /// The trustpoint that has it.
        holder: TrustpointName,
    },
    /// What was in use before is not kept any more, or cannot be used.
    #[error("the former certificate cannot be put back into use: {0}")]
    NotKept(&'static str),
    /// Another request is under way.
    #[error("the job {job_id} ({}) is under way: wait until it has ended", .kind.as_str())]
    RequestUnderWay {
        /// The job.
        job_id: JobId,
        /// What it asks.
        kind: JobKind,
    },
    /// The trustpoint has had too many certificates of late.
    #[error(
        "the trustpoint has had {} certificates within {} s, the policy allows no more: the next one is possible at {}; whoever \
         means it asks with force and confirm_floor",
        .0.issued, .0.within_s, .0.again_at
    )]
    ReissueFloor(Reached),
    /// Nothing to activate.
    #[error("no certificate is staged: enroll first")]
    NothingStaged,
    /// The trustpoint was made anew while its configuration was read.
    #[error("the trustpoint was changed at the same time: repeat the request")]
    Outdated,
    /// Conditions for the request are missing (S32).
    #[error("nothing was sent, conditions are missing: {0}")]
    NotReady(Violations),
    /// The certificate is revoked.
    #[error("the certificate is revoked already")]
    AlreadyRevoked,
    /// The job has ended.
    #[error("the job has ended already: there is nothing to stop")]
    JobEnded,
    /// A report names a job that does not exist.
    #[error("the report names a job that does not exist")]
    UnknownJob,
    /// A report names a job of another agent, device or trustpoint.
    #[error("the report names a job that is not for its sender, or not for that device and trustpoint")]
    ForeignJob,
    /// A report that its job cannot lead to.
    #[error("the report does not fit the kind of its job")]
    WrongKind,
    /// A report of an activation came before the one of the issue: it will be repeated.
    #[error("the report came before the one that must precede it")]
    TooEarly,
}

impl Rejection {
    /// The stable code for clients and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoTrustpoint => "not_found",
            Self::NameTaken => "name_taken",
            Self::TooManyTrustpoints => "too_many_trustpoints",
            Self::ServiceTaken { .. } => "service_taken",
            Self::RequestUnderWay { .. } => "request_under_way",
            Self::ReissueFloor(_) => "reissue_floor",
            Self::NothingStaged => "nothing_staged",
            Self::NotKept(_) => "not_kept",
            Self::Outdated => "outdated",
            Self::NotReady(_) => "not_ready",
            Self::AlreadyRevoked => "already_revoked",
            Self::JobEnded => "job_ended",
            Self::UnknownJob => "unknown_job",
            Self::ForeignJob => "foreign_job",
            Self::WrongKind => "wrong_kind",
            Self::TooEarly => "too_early",
        }
    }
}

/// Decides a command. The same command decided again on the state that it led to changes nothing.
///
/// # Errors
/// Why it is refused.
pub fn decide(state: &DeviceState, command: &Command, now: Timestamp) -> Result<Decision, Rejection> {
    match command {
        Command::AddTrustpoint(add) => configure::add_trustpoint(state, add, now),
        Command::SetMac(set) => configure::set_mac(state, set, now),
        Command::ArmRecovery(arm) => recover::arm(state, arm, now),
        Command::DisarmRecovery(disarm) => recover::disarm(state, disarm, now),
        Command::SetServices(set) => configure::set_services(state, set, now),
        Command::RemoveTrustpoint(remove) => configure::remove_trustpoint(state, remove, now),
        Command::Rebind(rebind) => configure::rebind(state, rebind, now),
        Command::Unbind(unbind) => configure::unbind(state, unbind, now),
        Command::Adopt(adopt) => adopt::adopt(state, adopt, now),
        Command::Enroll(enroll) => self::enroll(state, enroll, now),
        Command::DistributeAnchors(wanted) => anchors::distribute(state, wanted, now),
        Command::DryRun(wanted) => dry_run::dry_run(state, wanted, now),
        Command::Renew(renew) => renew::renew(state, renew, now),
        Command::SetAutoUpdate(set) => configure::set_auto_update(state, set, now),
        Command::Reissue(wanted) => reissue::reissue(state, wanted, now),
        Command::PutBack(wanted) => reissue::put_back(state, wanted, now),
        Command::Activate(activate) => self::activate(state, activate, now),
        Command::Revoke(revoke) => revoke::revoke(state, revoke, now),
        Command::Report(report) => report::report(state, report, now),
        Command::ResetStatistics(reset) => configure::reset_statistics(state, reset, now),
        Command::Stop(stop) => stop::stop(state, stop, now),
        Command::Undeliverable(undeliverable) => self::undeliverable(state, undeliverable, now),
    }
}

fn enroll(state: &DeviceState, enroll: &Enroll, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&enroll.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if trustpoint.id != enroll.context.trustpoint_id {
        return Err(Rejection::Outdated);
    }
    if let Some(job_id) =
        already_asked(trustpoint, enroll.job_id, enroll.request_key.as_deref()).or(enroll.context.known_job)
    {
        return Ok(unchanged(Reply::Job { job_id }));
    }
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        if kind != JobKind::Enroll(enroll.request) {
            return Err(Rejection::RequestUnderWay { job_id, kind });
        }
        return Ok(join_under_way(state, trustpoint, job_id, enroll.request_key.as_ref(), now));
    }
    let reached = trustpoint.reissue_reached(&enroll.context.policy.reissue, now);
    if let Some(reached) = reached.filter(|_| !enroll.past_floor) {
        return Err(Rejection::ReissueFloor(reached));
    }
    let (agent_id, order) =
        order::enrollment(state, trustpoint, enroll.request, &enroll.context, now).map_err(Rejection::NotReady)?;
    let mut decision = new_enrollment(state, trustpoint, enroll, agent_id, order, now);
    if let (Some(reached), Some(changes)) = (reached, &mut decision.changes) {
        let detail =
            serde_json::json!({ "issued": reached.issued, "within_s": reached.within_s, "again_at": reached.again_at });
        changes.audit_of_job(enroll.requested_by.clone(), "reissue_floor_passed", enroll.job_id.as_uuid(), detail);
    }
    Ok(decision)
}

fn new_enrollment(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    enroll: &Enroll,
    agent_id: AgentId,
    order: EnrollmentOrder,
    now: Timestamp,
) -> Decision {
    let asked = Trustpoint {
        activates_by_itself: order.policy.activates(order.kind, order.automatic),
        policy_revision: Some(order.policy_revision),
        ..trustpoint.clone()
    };
    let job = JobInsert {
        job_id: enroll.job_id,
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::Enroll(enroll.request),
        endpoint: endpoint_of(&order.ca_server.primary_url),
        deadline: trustpoint.active.as_ref().map(|active| active.not_after),
        request_key: enroll.request_key.clone(),
        requested_by: enroll.requested_by.actor.clone(),
        task: JobTask::Enroll(Box::new(order)),
        lease_id: None,
        traceparent: enroll.traceparent.clone(),
        certificate_id: None,
    };
    new_job(state, &asked, job, &enroll.requested_by, now)
}

fn activate(state: &DeviceState, activate: &Activate, now: Timestamp) -> Result<Decision, Rejection> {
    let trustpoint = state.trustpoint(&activate.trustpoint).ok_or(Rejection::NoTrustpoint)?;
    if let Some(job_id) = already_asked(trustpoint, activate.job_id, None) {
        return Ok(unchanged(Reply::Job { job_id }));
    }
    if let Some((job_id, kind)) = state.job_under_way(trustpoint) {
        return match kind {
            JobKind::Activate => Ok(unchanged(Reply::Job { job_id })),
            JobKind::Enroll(_) | JobKind::Revoke | JobKind::DryRun | JobKind::Anchors => {
                Err(Rejection::RequestUnderWay { job_id, kind })
            }
        };
    }
    // What is in use already can be given to services that were bound, or mended, since.
    let in_use = trustpoint.active.as_ref().filter(|_| !trustpoint.services.is_empty());
    let certificate = trustpoint.staged.as_ref().or(in_use).ok_or(Rejection::NothingStaged)?;
    if certificate.is_given_up() {
        return Err(Rejection::AlreadyRevoked);
    }
    let agent_id = state.device.agent_id.ok_or_else(|| order::agent_missing(state))?;
    let job = JobInsert {
        job_id: activate.job_id,
        trustpoint_id: trustpoint.id,
        agent_id,
        kind: JobKind::Activate,
        request_key: None,
        requested_by: activate.requested_by.actor.clone(),
        task: JobTask::Activate {
            serial: certificate.serial.clone(),
            services: trustpoint.services.clone(),
            replaced_is_revoked: activate.replaced_is_revoked,
        },
        lease_id: None,
        traceparent: activate.traceparent.clone(),
        certificate_id: None,
        endpoint: None,
        deadline: None,
    };
    Ok(new_job(state, trustpoint, job, &activate.requested_by, now))
}

fn undeliverable(state: &DeviceState, undeliverable: &Undeliverable, now: Timestamp) -> Result<Decision, Rejection> {
    let Some(open) = state.open_jobs.get(&undeliverable.job_id) else { return Ok(unchanged(Reply::Known)) };
    let request = state.trustpoints.get(&open.trustpoint_id).map(|trustpoint| &trustpoint.request);
    let is_beside = open.kind.is_beside();
    let has_begun = matches!(request, Some(RequestState::Ca { .. } | RequestState::Poll { .. }));
    if if is_beside { open.started } else { has_begun } {
        // Only the repetition cannot be sent: the agent has the job, and what it brings must find it open.
        return Ok(unchanged(Reply::Known));
    }
    let mut changes = Changes::next(state, now);
    if is_beside {
        revoke::end(&mut changes, undeliverable.job_id, open, &undeliverable.failure, now);
        changes.anchors_lost(undeliverable.job_id, open, &undeliverable.failure.message, now);
    } else {
        changes.finish(undeliverable.job_id, JobState::Failed, |update| {
            update.failure = Some(undeliverable.failure.clone());
        });
    }
    if !is_beside && let Some(mut trustpoint) = state.trustpoints.get(&open.trustpoint_id).cloned() {
        trustpoint.request = RequestState::Nothing;
        trustpoint.fail(undeliverable.failure.clone(), now);
        changes.write(trustpoint);
    }
    changes.audit.push(AuditEntry {
        requester: Requester::controller(),
        action: "job_undeliverable",
        object_kind: "job",
        object_id: undeliverable.job_id.as_uuid(),
        before: None,
        after: None,
        detail: serde_json::json!({ "code": undeliverable.failure.code }),
    });
    Ok(changed(changes, Reply::Taken))
}

/// The job that the same request led to before.
fn already_asked(trustpoint: &Trustpoint, job_id: JobId, request_key: Option<&str>) -> Option<JobId> {
    let last = trustpoint.last_request.as_ref()?;
    let same_key = request_key.is_some() && last.request_key.as_deref() == request_key;
    (last.job_id == job_id || same_key).then_some(last.job_id)
}

/// A request of the same kind is under way: its job is the answer, and the key is remembered as leading to it.
fn join_under_way(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    job_id: JobId,
    request_key: Option<&String>,
    now: Timestamp,
) -> Decision {
    let reply = Reply::Job { job_id };
    let Some(request_key) = request_key else { return unchanged(reply) };
    let mut changes = Changes::next(state, now);
    let last_request = Some(LastRequest { job_id, request_key: Some(request_key.clone()) });
    changes.write(Trustpoint { last_request, ..trustpoint.clone() });
    changed(changes, reply)
}

fn new_job(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    job: JobInsert,
    requested_by: &Requester,
    now: Timestamp,
) -> Decision {
    let job_id = job.job_id;
    let mut changes = Changes::next(state, now);
    changes.step(Trustpoint {
        request: RequestState::Agent { job_id },
        last_request: Some(LastRequest { job_id, request_key: job.request_key.clone() }),
        ..trustpoint.clone()
    });
    let open = OpenJob {
        trustpoint_id: trustpoint.id,
        agent_id: job.agent_id,
        kind: job.kind,
        public_key_sha256: None,
        started: false,
        stop_requested: false,
        condemned: None,
    };
    changes.state.open_jobs.insert(job_id, open);
    changes.audit.push(AuditEntry {
        requester: requested_by.clone(),
        action: "job_created",
        object_kind: "job",
        object_id: job_id.as_uuid(),
        before: None,
        after: None,
        detail: serde_json::json!({
            "device": state.device.name,
            "trustpoint": trustpoint.name,
            "kind": job.kind.as_str(),
            "agent_id": job.agent_id,
        }),
    });
    changes.jobs.push(job);
    changes.outbox.push(job_id);
    changed(changes, Reply::Job { job_id })
}

/// MAC credentials of a trustpoint, when both halves are there.
fn mac_credentials(trustpoint: &Trustpoint) -> Option<MacCredentials> {
    let reference = trustpoint.mac_reference.clone()?;
    Some(MacCredentials { reference, secret_id: trustpoint.mac_secret_id? })
}

const fn unchanged(reply: Reply) -> Decision {
    Decision { changes: None, reply }
}

fn changed(changes: Changes, reply: Reply) -> Decision {
    Decision { changes: Some(Box::new(changes)), reply }
}

impl Changes {
    /// Each trustpoint is written once by one decision, as it is at last.
    fn write(&mut self, trustpoint: Trustpoint) {
        self.trustpoints.retain(|change| change.written().is_none_or(|other| other.id != trustpoint.id));
        self.state.trustpoints.insert(trustpoint.id, trustpoint.clone());
        self.trustpoints.push(TrustpointChange::Write(Box::new(trustpoint)));
    }

    /// The same where no more than its request has changed, which is under way. What is armed for recovery may be due all the same.
    fn step(&mut self, trustpoint: Trustpoint) {
        let refers_to = |one: &Trustpoint| (one.entity_id, one.ca_server_id, one.policy_id);
        let former = self.state.trustpoints.get(&trustpoint.id).map(refers_to);
        let is_step = self.trustpoints.is_empty() && former == Some(refers_to(&trustpoint));
        let nothing_is_due = trustpoint.request != RequestState::Nothing && trustpoint.recovery.is_none();
        self.write(trustpoint);
        if is_step
            && nothing_is_due
            && let Some(TrustpointChange::Write(trustpoint)) = self.trustpoints.pop()
        {
            self.trustpoints.push(TrustpointChange::Step(trustpoint));
        }
    }

    fn retire(&mut self, certificate_id: trustfleet_model::ids::CertificateId) {
        let slot = trustfleet_model::certificate::Slot::Retired;
        self.slots.push(SlotChange { certificate_id, slot, file: None, replaced_by: None });
    }

    fn update_job(&mut self, job_id: JobId, state: JobState, fill: impl FnOnce(&mut JobUpdate)) {
        let mut update = JobUpdate {
            job_id,
            state,
            failure: None,
            public_key_sha256: None,
            transaction_id: None,
            started_at: None,
            finished_at: None,
            transcript: None,
            in_service: None,
            dry_run: None,
            stop: None,
        };
        fill(&mut update);
        self.job_updates.push(update);
    }

    fn finish(&mut self, job_id: JobId, state: JobState, fill: impl FnOnce(&mut JobUpdate)) {
        self.state.open_jobs.remove(&job_id);
        self.state.stopped_jobs.remove(&job_id);
        let at = self.at;
        self.update_job(job_id, state, |update| {
            update.finished_at = Some(at);
            update.stop = Some(StopNote::Answered);
            fill(update);
        });
    }

    fn audit_of_job(&mut self, requester: Requester, action: &'static str, job: Uuid, detail: serde_json::Value) {
        let (before, after) = (None, None);
        self.audit.push(AuditEntry { requester, action, object_kind: "job", object_id: job, before, after, detail });
    }
}
