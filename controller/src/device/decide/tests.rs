//! Given a state, when a command, then a decision: without runtime, database or broker.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    ca_server::{CaServerSpec, Quirks},
    certificate::{CertificateFacts, Slot},
    device::{Device, Labels},
    entity::EntitySpec,
    field::Violations,
    ids::{
        AgentId, CaServerId, CertificateId, DeviceId, EntityId, JobId, MessageId, PolicyId, SecretId, TenantId,
        TrustpointId,
    },
    job::{Culprit, Failure, JobState, JobTask, MacCredentials, RequestKind},
    revocation::RevocationRoute,
    trustpoint::{Progress, RequestState, Trustpoint, TrustpointStatus},
};
use uuid::Uuid;

use super::{Rejection, TRUSTPOINTS_MAX, decide};
use crate::device::{
    Activate, AddTrustpoint, Changes, Command, DeviceState, Enroll, EnrollContext, IssuedCertificate, JobFacts,
    JobKind, RemoveTrustpoint, Reply, Report, ReportEvent, Requester, SetMac, TrustpointChange, Undeliverable,
};

const AGENT: u128 = 10;
pub(super) const TRUSTPOINT: u128 = 20;

pub(super) fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

pub(super) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(super) fn requester() -> Requester {
    Requester::new("token:1 (tests)", "operator")
}

/// A device without trustpoints.
fn bare() -> DeviceState {
    DeviceState {
        device: Device {
            tenant_id: id::<TenantId>(1),
            id: id::<DeviceId>(2),
            name: "ap-1".parse().unwrap(),
            agent_id: Some(id::<AgentId>(AGENT)),
            serial: None,
            mac: None,
            labels: Labels::parse(&BTreeMap::new(), &mut Violations::new()),
            pair: None,
            standby: false,
        },
        version: 5,
        trustpoints: BTreeMap::new(),
        open_jobs: BTreeMap::new(),
        stopped_jobs: BTreeMap::new(),
    }
}

pub(super) fn add(n: u128, name: &str) -> Command {
    Command::AddTrustpoint(Box::new(AddTrustpoint {
        id: id::<TrustpointId>(n),
        name: name.parse().unwrap(),
        entity_id: id::<EntityId>(30),
        ca_server_id: id::<CaServerId>(31),
        policy_id: id::<PolicyId>(32),
        mac: Some(MacCredentials { reference: "ref".to_owned(), secret_id: id::<SecretId>(33) }),
        mac_one_time: false,
        services: Vec::new(),
        binding: None,
        requested_by: requester(),
    }))
}

/// A device with trustpoint `mgmt`.
pub(super) fn ready() -> DeviceState {
    after(&bare(), &add(TRUSTPOINT, "mgmt"))
}

pub(super) fn enroll(job: u128, request: RequestKind, key: Option<&str>) -> Command {
    Command::Enroll(Box::new(Enroll {
        trustpoint: "mgmt".parse().unwrap(),
        request,
        job_id: id::<JobId>(job),
        request_key: key.map(str::to_owned),
        past_floor: false,
        requested_by: requester(),
        traceparent: None,
        context: context(),
    }))
}

/// The configuration of `mgmt`.
pub(super) fn context() -> EnrollContext {
    EnrollContext {
        trustpoint_id: id::<TrustpointId>(TRUSTPOINT),
        entity: EntitySpec { subject: "/O=Acme/CN={device.name}".to_owned(), sans: Vec::new() },
        ca_server: CaServerSpec {
            ca_name: "/CN=CA".to_owned(),
            primary_url: "http://ca.example/".to_owned(),
            secondary_url: None,
            trust_anchors: vec!["pem".to_owned()],
            verification_certificates: Vec::new(),
            quirks: Quirks::default(),
            revocation: RevocationRoute::default(),
        },
        policy: serde_json::from_str(r#"{"key":{"algorithm":"rsa-2048"}}"#).unwrap(),
        policy_revision: 3,
        known_job: None,
        agent_key_sha256: None,
    }
}

pub(super) fn activate(job: u128) -> Command {
    Command::Activate(Activate {
        trustpoint: "mgmt".parse().unwrap(),
        replaced_is_revoked: false,
        job_id: id::<JobId>(job),
        requested_by: requester(),
        traceparent: None,
    })
}

pub(super) fn report_of(job: u128, kind: JobKind, event: ReportEvent) -> Report {
    let (agent_id, device_id, trustpoint_id) = (id(AGENT), id(2), id(TRUSTPOINT));
    Report {
        report_id: id::<MessageId>(90),
        agent_id,
        device_id,
        trustpoint_id,
        job_id: id::<JobId>(job),
        job: Some(JobFacts { agent_id, device_id, trustpoint_id, kind }),
        offered_again: false,
        key_held_by: None,
        requested_by: Requester::agent("10", Uuid::from_u128(90), None),
        transcript: None,
        event,
    }
}

pub(super) fn report(job: u128, event: ReportEvent) -> Command {
    Command::Report(Box::new(report_of(job, JobKind::Enroll(RequestKind::Ir), event)))
}

pub(super) fn facts(n: u128, not_after: Timestamp) -> CertificateFacts {
    CertificateFacts {
        id: id::<CertificateId>(n),
        serial: format!("{n:X}"),
        subject: "CN=ap-1,O=Acme".to_owned(),
        issuer: "CN=CA".to_owned(),
        not_before: now(),
        not_after,
        sha256: "00".repeat(32),
        public_key_sha256: "11".repeat(32),
        file: Some("/staged".to_owned()),
        revocation: None,
    }
}

pub(super) fn issued(n: u128) -> ReportEvent {
    ReportEvent::Issued(Box::new(IssuedCertificate {
        facts: facts(n, now() + SignedDuration::from_hours(24)),
        der: vec![1],
        chain: Vec::new(),
        transaction_id: "00".to_owned(),
        warnings: Vec::new(),
        received_at: now(),
    }))
}

pub(super) fn activated(n: u128) -> ReportEvent {
    ReportEvent::Activated { serial: format!("{n:X}"), file: "/current".to_owned(), in_service: None }
}

pub(super) fn failure(code: &str) -> Failure {
    Failure {
        culprit: Culprit::PeerRefusal,
        code: code.to_owned(),
        message: "no".to_owned(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    }
}

pub(super) fn failed(code: &str) -> ReportEvent {
    ReportEvent::Failed { failure: failure(code), transaction_id: None, in_service: None, in_use: None }
}

/// The changes of a command that must change something; deciding it again on their state must change nothing.
pub(super) fn changes(state: &DeviceState, command: &Command) -> Changes {
    let decision = decide(state, command, now()).unwrap();
    let changes = *decision.changes.expect("something changes");
    assert_eq!(changes.state.version, state.version + 1);
    if !matches!(command, Command::RemoveTrustpoint(_) | Command::Report(_)) || changes.outbox.is_empty() {
        let again = decide(&changes.state, command, now());
        assert!(
            again.as_ref().map_or(true, |decision| decision.changes.is_none()),
            "decided twice, it changes something twice: {again:?}"
        );
    }
    changes
}

pub(super) fn after(state: &DeviceState, command: &Command) -> DeviceState {
    changes(state, command).state
}

pub(super) fn unchanged(state: &DeviceState, command: &Command) -> Reply {
    let decision = decide(state, command, now()).unwrap();
    assert!(decision.changes.is_none(), "{:?}", decision.changes);
    decision.reply
}

pub(super) fn refusal(state: &DeviceState, command: &Command) -> Rejection {
    decide(state, command, now()).unwrap_err()
}

pub(super) fn mgmt(state: &DeviceState) -> &Trustpoint {
    &state.trustpoints[&id::<TrustpointId>(TRUSTPOINT)]
}

/// A device whose job 40 has begun.
pub(super) fn under_way() -> DeviceState {
    after(&ready(), &enroll(40, RequestKind::Ir, Some("key-1")))
}

/// A device with certificate 50 in use, of job 40.
pub(super) fn in_use() -> DeviceState {
    let state = after(&under_way(), &report(40, issued(50)));
    after(&state, &report(40, activated(50)))
}

#[test]
fn s17_a_name_is_taken_only_once_on_a_device_and_the_same_id_is_the_same_trustpoint() {
    assert_eq!(refusal(&ready(), &add(21, "mgmt")), Rejection::NameTaken);
    assert_eq!(unchanged(&ready(), &add(TRUSTPOINT, "mgmt")), Reply::Trustpoint { id: id(TRUSTPOINT) });
    let mut full = bare();
    for n in 0..TRUSTPOINTS_MAX {
        full = after(&full, &add(1_000 + n as u128, &format!("tp-{n}")));
    }
    assert_eq!(refusal(&full, &add(9_999, "one-more")), Rejection::TooManyTrustpoints);
}

#[test]
fn a_new_job_writes_state_job_outbox_and_audit_together() {
    let changes = changes(&ready(), &enroll(40, RequestKind::Ir, Some("key-1")));
    assert_eq!(changes.outbox, [id::<JobId>(40)]);
    assert_eq!(changes.audit[0].action, "job_created");
    assert_eq!(changes.audit[0].requester.actor, "token:1 (tests)");
    let [job] = changes.jobs.as_slice() else { panic!("{:?}", changes.jobs) };
    let JobTask::Enroll(order) = &job.task else { panic!("{:?}", job.task) };
    assert_eq!((order.entity.subject.as_str(), order.policy_revision), ("/O=Acme/CN=ap-1", 3));
    assert_eq!(order.mac.as_ref().unwrap().secret_id, id(33));
    assert_eq!(mgmt(&changes.state).request, RequestState::Agent { job_id: id(40) });
    assert_eq!(mgmt(&changes.state).status(), TrustpointStatus::Requesting);
}

#[test]
fn the_same_request_finds_its_job_under_way_and_after_its_end() {
    let state = under_way();
    assert_eq!(unchanged(&state, &enroll(41, RequestKind::Ir, None)), Reply::Job { job_id: id(40) });
    assert_eq!(unchanged(&state, &enroll(41, RequestKind::Ir, Some("key-1"))), Reply::Job { job_id: id(40) });
    let ended = after(&state, &report(40, failed("refused")));
    assert_eq!(unchanged(&ended, &enroll(41, RequestKind::Ir, Some("key-1"))), Reply::Job { job_id: id(40) });
    let Command::Enroll(mut long_ago) = enroll(42, RequestKind::Ir, Some("key-0")) else { unreachable!() };
    long_ago.context.known_job = Some(id(7));
    assert_eq!(unchanged(&ended, &Command::Enroll(long_ago)), Reply::Job { job_id: id(7) });
    assert_eq!(changes(&ended, &enroll(43, RequestKind::Ir, Some("key-2"))).jobs.len(), 1);
}

#[test]
fn a_key_that_joined_a_job_under_way_leads_to_it_after_its_end_too() {
    let joined = changes(&under_way(), &enroll(41, RequestKind::Ir, Some("key-2")));
    assert!(joined.jobs.is_empty() && joined.outbox.is_empty());
    let ended = after(&joined.state, &report(40, failed("refused")));
    assert_eq!(unchanged(&ended, &enroll(42, RequestKind::Ir, Some("key-2"))), Reply::Job { job_id: id(40) });
}

#[test]
fn a_request_of_another_kind_waits_until_the_first_has_ended() {
    let under_way = under_way();
    let kind = JobKind::Enroll(RequestKind::Ir);
    let expected = Rejection::RequestUnderWay { job_id: id(40), kind };
    assert_eq!(refusal(&under_way, &enroll(41, RequestKind::Cr, None)), expected);
    assert_eq!(refusal(&under_way, &activate(41)), expected);
    let remove = RemoveTrustpoint { trustpoint: "mgmt".parse().unwrap(), requested_by: requester() };
    assert_eq!(refusal(&under_way, &Command::RemoveTrustpoint(remove)), expected);
}

#[test]
fn a_trustpoint_that_was_made_anew_meanwhile_is_noticed() {
    let Command::Enroll(mut command) = enroll(40, RequestKind::Ir, None) else { unreachable!() };
    command.context.trustpoint_id = id(99);
    assert_eq!(refusal(&ready(), &Command::Enroll(command)), Rejection::Outdated);
}

#[test]
fn while_a_request_begins_and_goes_on_nothing_is_planned_anew_and_when_anything_else_changes_it_is() {
    let is_step = |changes: &Changes| match changes.trustpoints.as_slice() {
        [TrustpointChange::Step(_)] => true,
        [TrustpointChange::Write(_)] => false,
        other => panic!("{other:?}"),
    };
    let begun = changes(&ready(), &enroll(40, RequestKind::Ir, None));
    assert!(is_step(&begun));
    let started = report(40, ReportEvent::Started { public_key_sha256: "ab".repeat(32) });
    let started = changes(&begun.state, &started);
    assert!(is_step(&started));
    assert!(!is_step(&changes(&started.state, &report(40, issued(50)))), "its end");
    assert!(!is_step(&changes(&started.state, &report(40, failed("refused")))), "its end");
    // A request that moves the trustpoint to another policy at once.
    let mut moved = mgmt(&ready()).clone();
    (moved.policy_id, moved.request) = (id(77), RequestState::Agent { job_id: id(41) });
    let mut of_another_policy = Changes::next(&ready(), now());
    of_another_policy.step(moved);
    assert!(!is_step(&of_another_policy));
}

#[test]
fn started_and_waiting_move_the_request_on_and_come_twice_without_harm() {
    let started = ReportEvent::Started { public_key_sha256: "aa".to_owned() };
    let began = changes(&under_way(), &report(40, started.clone()));
    assert_eq!(
        mgmt(&began.state).request,
        RequestState::Ca { job_id: id(40), since: now(), progress: Progress::default() }
    );
    let update = &began.job_updates[0];
    assert_eq!((update.state, update.started_at), (JobState::AwaitingCa, Some(now())));
    let polls = changes(&began.state, &report(40, ReportEvent::Waiting { requesting: false, progress: None }));
    assert_eq!(polls.job_updates[0].state, JobState::AwaitingPoll);
    assert_eq!(unchanged(&polls.state, &report(40, started)), Reply::Known);
    // Begun again with another key: the fingerprint counts, the wait goes on.
    let again = changes(&polls.state, &report(40, ReportEvent::Started { public_key_sha256: "bb".to_owned() }));
    assert_eq!(again.job_updates[0].public_key_sha256.as_deref(), Some("bb"));
    assert_eq!(again.job_updates[0].state, JobState::AwaitingPoll);
}

#[test]
fn an_issued_certificate_is_staged_then_active_and_pushes_the_others_on() {
    let first = in_use();
    let second = after(&after(&first, &enroll(41, RequestKind::Ir, None)), &report(41, issued(51)));
    assert_eq!(mgmt(&second).status(), TrustpointStatus::Staged);
    let swapped = changes(&second, &report(41, activated(51)));
    let moved: Vec<_> = swapped.slots.iter().map(|change| (change.certificate_id, change.slot)).collect();
    assert_eq!(moved, [(id(51), Slot::Active), (id(50), Slot::Previous)]);
    assert_eq!(mgmt(&swapped.state).active.as_ref().unwrap().file.as_deref(), Some("/current"));

    let third = after(&after(&swapped.state, &enroll(42, RequestKind::Ir, None)), &report(42, issued(52)));
    let swapped = changes(&third, &report(42, activated(52)));
    let moved: Vec<_> = swapped.slots.iter().map(|change| (change.certificate_id, change.slot)).collect();
    assert_eq!(moved, [(id(52), Slot::Active), (id(51), Slot::Previous), (id(50), Slot::Retired)]);
}

#[test]
fn a_staged_certificate_that_a_newer_one_replaces_is_retired() {
    let staged = after(&under_way(), &report(40, issued(50)));
    let next = after(&staged, &enroll(41, RequestKind::Ir, None));
    let replaced = changes(&next, &report(41, issued(51)));
    assert_eq!((replaced.slots[0].certificate_id, replaced.slots[0].slot), (id(50), Slot::Retired));
}

#[test]
fn late_reports_of_an_ended_job_change_nothing() {
    let state = in_use();
    let late = [
        ReportEvent::Started { public_key_sha256: "cc".to_owned() },
        ReportEvent::Waiting { requesting: false, progress: None },
        ReportEvent::PermitExpired,
        issued(59),
        activated(50),
        activated(77),
        failed("late"),
    ];
    for event in late {
        assert_eq!(unchanged(&state, &report(40, event)), Reply::Known);
    }
}

#[test]
fn a_failed_activation_is_told_at_the_trustpoint_once_and_its_job_stays_done() {
    let staged = after(&under_way(), &report(40, issued(50)));
    let told = changes(&staged, &report(40, failed("reload_failed")));
    assert!(told.job_updates.is_empty());
    assert_eq!(mgmt(&told.state).last_failure.as_ref().unwrap().code, "reload_failed");
    assert_eq!(mgmt(&told.state).status(), TrustpointStatus::Staged);
}

#[test]
fn an_activation_by_hand_is_a_job_of_its_own() {
    assert_eq!(refusal(&ready(), &activate(60)), Rejection::NothingStaged);
    let staged = after(&under_way(), &report(40, issued(50)));
    let asked = changes(&staged, &activate(60));
    assert_eq!(
        asked.jobs[0].task,
        JobTask::Activate { serial: "32".to_owned(), services: Vec::new(), replaced_is_revoked: false }
    );
    assert_eq!(unchanged(&asked.state, &activate(61)), Reply::Job { job_id: id(60) });
    let done = Command::Report(Box::new(report_of(60, JobKind::Activate, activated(50))));
    let done = changes(&asked.state, &done);
    assert_eq!(done.job_updates[0].state, JobState::Succeeded);
    assert_eq!(mgmt(&done.state).status(), TrustpointStatus::Active);
    assert!(done.state.open_jobs.is_empty());

    let refused = Command::Report(Box::new(report_of(60, JobKind::Activate, failed("probe_failed"))));
    let refused = changes(&asked.state, &refused);
    assert_eq!(refused.job_updates[0].state, JobState::Failed);
    assert_eq!(mgmt(&refused.state).status(), TrustpointStatus::Staged);
    let wrong = Command::Report(Box::new(report_of(60, JobKind::Activate, issued(51))));
    assert_eq!(refusal(&asked.state, &wrong), Rejection::WrongKind);
}

#[test]
fn an_activation_that_overtakes_its_issue_is_sent_back() {
    assert_eq!(refusal(&under_way(), &report(40, activated(50))), Rejection::TooEarly);
}

#[test]
fn a_returned_job_goes_into_the_outbox_again_unless_it_is_offered_already() {
    let mut returned = report_of(40, JobKind::Enroll(RequestKind::Ir), ReportEvent::PermitExpired);
    let offered = changes(&under_way(), &Command::Report(Box::new(returned.clone())));
    assert_eq!(offered.outbox, [id::<JobId>(40)]);
    assert_eq!(offered.job_updates[0].state, JobState::AwaitingPublish);
    returned.offered_again = true;
    assert_eq!(unchanged(&under_way(), &Command::Report(Box::new(returned))), Reply::Known);
}

#[test]
fn a_report_counts_only_from_the_agent_the_job_is_for_and_for_its_own_trustpoint() {
    let good = report_of(40, JobKind::Enroll(RequestKind::Ir), issued(50));
    let mut unknown = good.clone();
    unknown.job = None;
    assert_eq!(refusal(&under_way(), &Command::Report(Box::new(unknown))), Rejection::UnknownJob);
    let mut thief = good.clone();
    thief.agent_id = id(11);
    let mut elsewhere = good.clone();
    elsewhere.trustpoint_id = id(21);
    let mut other_device = good;
    other_device.device_id = id(3);
    for foreign in [thief, elsewhere, other_device] {
        assert_eq!(refusal(&under_way(), &Command::Report(Box::new(foreign))), Rejection::ForeignJob);
    }
}

#[test]
fn a_removed_trustpoint_takes_its_secret_along_and_leaves_its_history() {
    let remove = RemoveTrustpoint { trustpoint: "mgmt".parse().unwrap(), requested_by: requester() };
    let gone = changes(&in_use(), &Command::RemoveTrustpoint(remove.clone()));
    assert_eq!(gone.secrets_gone, [id::<SecretId>(33)]);
    assert!(matches!(gone.trustpoints.as_slice(), [TrustpointChange::Remove(_)]));
    assert_eq!((gone.slots[0].certificate_id, gone.slots[0].slot), (id(50), Slot::Retired));
    assert_eq!(refusal(&gone.state, &Command::RemoveTrustpoint(remove)), Rejection::NoTrustpoint);
    assert_eq!(unchanged(&gone.state, &report(40, failed("late"))), Reply::Known);
}

#[test]
fn a_job_that_cannot_be_sent_fails_and_makes_room_for_the_next() {
    let command = Command::Undeliverable(Undeliverable { job_id: id(40), failure: failure("secret_missing") });
    let ended = changes(&under_way(), &command);
    assert_eq!(ended.job_updates[0].state, JobState::Failed);
    assert_eq!(mgmt(&ended.state).status(), TrustpointStatus::Failed);
    assert_eq!(changes(&ended.state, &enroll(41, RequestKind::Ir, None)).jobs.len(), 1);
}

#[test]
fn a_job_that_its_agent_has_begun_is_not_ended_because_it_cannot_be_sent_again() {
    let begun = changes(&under_way(), &report(40, ReportEvent::Started { public_key_sha256: "aa".to_owned() })).state;
    let command = Command::Undeliverable(Undeliverable { job_id: id(40), failure: failure("secret_unreadable") });
    assert_eq!(unchanged(&begun, &command), Reply::Known);
    assert!(mgmt(&changes(&begun, &report(40, issued(50))).state).staged.is_some());
}

#[test]
fn a_one_time_secret_goes_with_the_enrolment_that_it_was_for_and_not_before() {
    let mut state = ready();
    state.trustpoints.get_mut(&id::<TrustpointId>(TRUSTPOINT)).unwrap().mac_one_time = true;
    let state = after(&state, &enroll(100, RequestKind::Ir, None));
    let failed_first = changes(&state, &report(100, failed("refused")));
    assert_eq!(failed_first.secrets_gone, []);
    let issued_first = changes(&state, &report(100, issued(500)));
    assert_eq!(issued_first.secrets_gone, [id::<SecretId>(33)]);
    let trustpoint = &issued_first.state.trustpoints[&id::<TrustpointId>(TRUSTPOINT)];
    assert_eq!((trustpoint.mac_secret_id, trustpoint.mac_reference.as_deref()), (None, Some("ref")));
    // Without it the next request by MAC names what is missing.
    let again = decide(&issued_first.state, &enroll(101, RequestKind::Cr, None), now()).unwrap_err();
    assert!(matches!(again, Rejection::NotReady(_)), "{again:?}");
}

#[test]
fn a_secret_that_is_not_for_once_stays_after_an_enrolment() {
    let state = after(&ready(), &enroll(100, RequestKind::Ir, None));
    assert_eq!(changes(&state, &report(100, issued(500))).secrets_gone, []);
}

#[test]
fn other_mac_credentials_take_the_place_of_the_former_ones_whose_secret_goes() {
    let set = Command::SetMac(Box::new(SetMac {
        trustpoint: "mgmt".parse().unwrap(),
        mac: MacCredentials { reference: "ref-2".to_owned(), secret_id: id::<SecretId>(34) },
        one_time: true,
        requested_by: requester(),
    }));
    let state = ready();
    let changes = changes(&state, &set);
    assert_eq!(changes.secrets_gone, [id::<SecretId>(33)]);
    assert_eq!(changes.audit[0].before.as_ref().unwrap()["mac_reference"], "ref");
    assert_eq!(changes.audit[0].after.as_ref().unwrap()["mac_reference"], "ref-2");
    assert!(decide(&changes.state, &set, now()).unwrap().changes.is_none(), "the same again changes nothing");
    let under_way = after(&state, &enroll(100, RequestKind::Ir, None));
    assert!(matches!(decide(&under_way, &set, now()), Err(Rejection::RequestUnderWay { .. })));
}
