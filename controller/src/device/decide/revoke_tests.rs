//! Stories of revocations.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    ids::{AgentId, JobId, TrustpointId},
    job::{Culprit, Failure, JobState, JobTask, RequestKind},
    revocation::{Revocation, RevocationReason, RevocationRoute, RevocationState, Signer},
    trustpoint::TrustpointStatus,
};

use super::tests::{
    TRUSTPOINT, after, changes, context, enroll, facts, failure, id, in_use, mgmt, now, refusal, report_of, requester,
    unchanged,
};
use super::{Rejection, decide};
use crate::device::{
    Changes, Command, DeviceState, JobKind, RemoveTrustpoint, Reply, ReportEvent, Revoke, RevokeContext, Stop,
};

fn revoke_by(job: u128, route: RevocationRoute) -> Revoke {
    let mut configured = context();
    configured.ca_server.revocation = route;
    Revoke {
        trustpoint_id: id::<TrustpointId>(TRUSTPOINT),
        certificate: facts(50, now() + SignedDuration::from_hours(24)),
        reason: RevocationReason::KeyCompromise,
        by_hand: false,
        unattended: false,
        job_id: id::<JobId>(job),
        requested_by: requester(),
        traceparent: None,
        context: RevokeContext {
            certificate_pem: "pem".to_owned(),
            ca_server: configured.ca_server,
            policy: configured.policy,
            policy_revision: 3,
            agent_id: Some(id::<AgentId>(10)),
            agent_quarantined: false,
            signer_in_use: true,
        },
    }
}

fn revoke(job: u128) -> Revoke {
    revoke_by(job, RevocationRoute::Device)
}

fn command(revoke: Revoke) -> Command {
    Command::Revoke(Box::new(revoke))
}

fn said(job: u128, event: ReportEvent) -> Command {
    Command::Report(Box::new(report_of(job, JobKind::Revoke, event)))
}

fn done() -> ReportEvent {
    ReportEvent::Revoked { transaction_id: "00".to_owned(), warnings: Vec::new() }
}

fn unreachable() -> ReportEvent {
    let failure = Failure { culprit: Culprit::Transport, ..failure("ca_unreachable") };
    ReportEvent::Failed { failure, transaction_id: None, in_service: None, in_use: None }
}

fn state_of(state: &DeviceState) -> Option<RevocationState> {
    mgmt(state).active.as_ref()?.revocation.as_ref().map(|revocation| revocation.state)
}

fn again_at(changes: &Changes) -> Option<Timestamp> {
    changes.revocations.last().unwrap().again_at
}

#[test]
fn a_device_asks_for_the_revocation_of_its_certificate_and_the_trustpoint_is_given_up() {
    let asked = changes(&in_use(), &command(revoke(60)));
    let JobTask::Revoke(order) = &asked.jobs[0].task else { panic!("{:?}", asked.jobs[0].task) };
    assert_eq!((order.reason, order.signer.as_ref()), (RevocationReason::KeyCompromise, None));
    assert_eq!(asked.outbox, [id::<JobId>(60)]);
    assert_eq!(state_of(&asked.state), Some(RevocationState::Requested));
    assert_eq!(mgmt(&asked.state).status(), TrustpointStatus::Revoked, "nothing is built on it from now on");
    assert!(matches!(refusal(&asked.state, &enroll(41, RequestKind::Kur, None)), Rejection::NotReady(_)));
    let begun = after(&asked.state, &said(60, ReportEvent::Started { public_key_sha256: "aa".to_owned() }));
    let ended = changes(&begun, &said(60, done()));
    assert_eq!(state_of(&ended.state), Some(RevocationState::Revoked));
    assert_eq!(ended.job_updates[0].state, JobState::Succeeded);
    assert_eq!(mgmt(&ended.state).statistics.requests["rr"], 1);
    assert_eq!(refusal(&ended.state, &command(revoke(61))), Rejection::AlreadyRevoked);
    assert_eq!(unchanged(&ended.state, &said(60, done())), Reply::Known, "a report that comes again");
}

#[test]
fn a_revocation_asked_for_twice_is_one_job_and_holds_up_no_enrolment() {
    let asked = after(&in_use(), &command(revoke(60)));
    assert_eq!(unchanged(&asked, &command(revoke(61))), Reply::Job { job_id: id(60) });
    let by_hand = Revoke { by_hand: true, ..revoke(61) };
    assert!(matches!(refusal(&asked, &command(by_hand)), Rejection::RequestUnderWay { .. }));
    let remove = RemoveTrustpoint { trustpoint: "mgmt".parse().unwrap(), requested_by: requester() };
    assert!(matches!(refusal(&asked, &Command::RemoveTrustpoint(remove)), Rejection::RequestUnderWay { .. }));
    let enrolling = after(&asked, &enroll(41, RequestKind::Ir, None));
    assert_eq!(enrolling.open_jobs.len(), 2, "a new certificate can be asked for meanwhile");
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_asked() {
    let named = |revoke: Revoke| match refusal(&in_use(), &command(revoke)) {
        Rejection::NotReady(missing) => missing.into_vec().into_iter().map(|it| it.field).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(named(revoke_by(60, RevocationRoute::Hand)), ["ca_server.revocation"]);
    let mut quarantined = revoke(60);
    quarantined.context.agent_quarantined = true;
    assert_eq!(named(quarantined), ["device.agent"]);
    let retired = Revoke { certificate: facts(49, now() + SignedDuration::from_hours(24)), ..revoke(60) };
    assert_eq!(named(retired.clone()), ["certificate.slot"], "its key is gone, it cannot sign");
    let ended = Revoke { certificate: facts(50, now()), ..revoke(60) };
    assert_eq!(named(ended), ["certificate.not_after"]);
    let authority =
        RevocationRoute::RegistrationAuthority(Signer { device: "ra-1".to_owned(), trustpoint: "ra".to_owned() });
    let mut without = Revoke { certificate: retired.certificate.clone(), ..revoke_by(60, authority.clone()) };
    without.context.signer_in_use = false;
    assert_eq!(named(without), ["ca_server.revocation"]);
    let by_authority = Revoke { certificate: retired.certificate, ..revoke_by(60, authority) };
    let asked = changes(&in_use(), &command(by_authority));
    let JobTask::Revoke(order) = &asked.jobs[0].task else { panic!("{:?}", asked.jobs[0].task) };
    assert_eq!(order.signer.as_ref().map(|it| it.trustpoint.as_str()), Some("ra"), "it needs no key of the device");
}

#[test]
fn a_revocation_that_nobody_waits_for_tells_at_the_certificate_what_is_missing() {
    let wanted = Revocation::wanted(RevocationReason::CessationOfOperation, "token:9".to_owned(), now());
    let mut unattended = Revoke { unattended: true, ..revoke_by(60, RevocationRoute::Hand) };
    unattended.certificate.revocation = Some(wanted);
    let changes = *decide(&in_use(), &command(unattended), now()).unwrap().changes.unwrap();
    let noted = &changes.revocations[0].revocation;
    assert_eq!((noted.state, noted.wanted_by.as_str()), (RevocationState::Failed, "token:9"));
    assert!(noted.failure.as_ref().unwrap().message.contains("by_hand"));
    assert!(changes.jobs.is_empty() && changes.audit[0].action == "revocation_failed");
    assert_eq!(mgmt(&changes.state).status(), TrustpointStatus::Active, "the certificate is as valid as before");
}

#[test]
fn a_ca_that_cannot_be_reached_is_asked_again_and_one_that_refuses_is_not() {
    let asked = after(&in_use(), &command(revoke(60)));
    let failed = changes(&asked, &said(60, unreachable()));
    assert_eq!(state_of(&failed.state), Some(RevocationState::Wanted));
    assert_eq!(again_at(&failed), Some(now() + SignedDuration::from_mins(5)));
    let again = after(&failed.state, &command(revoke(61)));
    let refused = ReportEvent::Failed {
        failure: failure("refused"),
        transaction_id: Some("00".to_owned()),
        in_service: None,
        in_use: None,
    };
    let refused = changes(&again, &said(61, refused));
    assert_eq!((state_of(&refused.state), again_at(&refused)), (Some(RevocationState::Failed), None));
    assert_eq!(mgmt(&refused.state).status(), TrustpointStatus::Active);
    assert!(mgmt(&refused.state).last_failure.is_none(), "the trustpoint itself has not failed");
}

#[test]
fn s37_a_revocation_is_stopped_at_once_or_by_its_agent_and_one_that_was_faster_counts() {
    let asked = after(&in_use(), &command(revoke(60)));
    let stop = Command::Stop(Stop { job_id: id(60), requested_by: requester() });
    let stopped = changes(&asked, &stop);
    assert_eq!(state_of(&stopped.state), Some(RevocationState::Failed));
    assert_eq!(stopped.outbox, [id::<JobId>(60)], "its agent is told in any case");
    let faster = changes(&stopped.state, &said(60, done()));
    assert_eq!(state_of(&faster.state), Some(RevocationState::Revoked));
    let begun = after(&asked, &said(60, ReportEvent::Started { public_key_sha256: "aa".to_owned() }));
    let told = changes(&begun, &stop);
    assert_eq!(state_of(&told.state), Some(RevocationState::Requested), "it ends when the agent says so");
    assert!(told.state.open_jobs[&id::<JobId>(60)].stop_requested);
}

#[test]
fn what_was_revoked_by_hand_is_noted_without_a_job() {
    let noted = changes(&in_use(), &command(Revoke { by_hand: true, ..revoke_by(60, RevocationRoute::Hand) }));
    assert!(noted.jobs.is_empty() && noted.outbox.is_empty());
    let revocation = &noted.revocations[0].revocation;
    assert!(revocation.by_hand && revocation.state == RevocationState::Revoked);
    assert_eq!(noted.audit[0].action, "certificate_revoked");
}

#[test]
fn a_report_of_a_revocation_fits_no_other_job_and_others_do_not_fit_it() {
    let asked = after(&in_use(), &command(revoke(60)));
    let issued = said(60, super::tests::issued(51));
    assert_eq!(refusal(&asked, &issued), Rejection::WrongKind);
    let enrolling = after(&in_use(), &enroll(41, RequestKind::Kur, None));
    let wrong = Command::Report(Box::new(report_of(41, JobKind::Enroll(RequestKind::Kur), done())));
    assert_eq!(refusal(&enrolling, &wrong), Rejection::WrongKind);
}
