//! Services of trustpoints: who has which, what jobs take along, what agents say of them.

use trustfleet_model::{
    certificate::Slot,
    job::{JobTask, RequestKind},
    service::{InService, ServiceOutcome, ServiceResult},
    trustpoint::TrustpointStatus,
};

use super::{
    Rejection,
    tests::{
        activate, add, after, changes, enroll, failure, id, in_use, issued, mgmt, now, ready, refusal, report,
        report_of, requester, unchanged, under_way,
    },
};
use crate::device::{Command, JobKind, ReportEvent, SetServices};

fn set_services(trustpoint: &str, services: &[&str]) -> Command {
    Command::SetServices(SetServices {
        trustpoint: trustpoint.parse().unwrap(),
        services: services.iter().map(|name| name.parse().unwrap()).collect(),
        requested_by: requester(),
    })
}

fn said(result: ServiceResult) -> Option<Box<InService>> {
    Some(Box::new(InService {
        serial: String::new(),
        at: now(),
        services: vec![ServiceOutcome { service: "https".parse().unwrap(), result }],
        steps: Vec::new(),
        warnings: Vec::new(),
    }))
}

#[test]
fn s40_a_service_has_one_trustpoint_on_a_device_and_the_holder_is_named() {
    let two = after(&after(&ready(), &add(21, "radius")), &set_services("mgmt", &["https", "ssh"]));
    let taken = Rejection::ServiceTaken { service: "https".parse().unwrap(), holder: "mgmt".parse().unwrap() };
    assert_eq!(refusal(&two, &set_services("radius", &["eap", "https"])), taken);
    let Command::AddTrustpoint(mut third) = add(22, "third") else { unreachable!() };
    third.services = vec!["https".parse().unwrap()];
    assert_eq!(refusal(&two, &Command::AddTrustpoint(third)), taken);

    let parted = after(&after(&two, &set_services("mgmt", &["ssh"])), &set_services("radius", &["eap", "https"]));
    let names = |name: &str| parted.trustpoint(&name.parse().unwrap()).unwrap().services.len();
    assert_eq!((names("mgmt"), names("radius")), (1, 2));
}

#[test]
fn services_go_along_with_the_next_job_and_not_into_one_that_is_under_way() {
    let bound = after(&ready(), &set_services("mgmt", &["https"]));
    unchanged(&bound, &set_services("mgmt", &["https"]));
    let asked = changes(&bound, &enroll(40, RequestKind::Ir, None));
    let JobTask::Enroll(order) = &asked.jobs[0].task else { panic!() };
    assert_eq!(order.services, ["https".parse().unwrap()]);
    let under_way = Rejection::RequestUnderWay { job_id: id(40), kind: JobKind::Enroll(RequestKind::Ir) };
    assert_eq!(refusal(&asked.state, &set_services("mgmt", &[])), under_way);

    // The certificate in use is given to services that were bound later.
    let later = after(&in_use(), &set_services("mgmt", &["https"]));
    let again = changes(&later, &activate(61));
    let services = vec!["https".parse().unwrap()];
    let serial = "32".to_owned();
    assert_eq!(again.jobs[0].task, JobTask::Activate { serial, services, replaced_is_revoked: false });
    let done = ReportEvent::Activated {
        serial: "32".to_owned(),
        file: "/current".to_owned(),
        in_service: said(ServiceResult::Unverifiable),
    };
    let done = changes(&again.state, &Command::Report(Box::new(report_of(61, JobKind::Activate, done))));
    assert_eq!(done.audit[0].action, "services_reloaded");
    assert_eq!(done.job_updates[0].in_service, mgmt(&done.state).in_service);
    assert!(mgmt(&done.state).in_service.is_some());
}

#[test]
fn what_became_of_services_is_kept_with_the_trustpoint_and_told_at_the_job_that_has_ended() {
    let staged = after(&under_way(), &report(40, issued(50)));
    let (serial, file) = ("32".to_owned(), "/current".to_owned());
    let event = ReportEvent::Activated { serial, file, in_service: said(ServiceResult::Verified) };
    let done = changes(&staged, &report(40, event.clone()));
    assert_eq!(done.jobs_told[0].job_id, id(40));
    assert!(done.job_updates.is_empty(), "the job has ended with the issue");
    assert_eq!(mgmt(&done.state).in_service.as_ref().unwrap().services[0].result, ServiceResult::Verified);
    assert_eq!(done.audit[0].detail["services"][0]["result"], "verified");
    assert_eq!(refusal(&under_way(), &report(40, event)), Rejection::TooEarly);
}

#[test]
fn a_certificate_that_services_did_not_take_stays_staged_or_where_the_old_one_is_revoked_in_use() {
    let staged = after(&under_way(), &report(40, issued(50)));
    let failed = |in_use| ReportEvent::Failed {
        failure: failure("probe_failed"),
        transaction_id: None,
        in_service: said(ServiceResult::Failed),
        in_use,
    };
    let rolled_back = changes(&staged, &report(40, failed(None)));
    assert_eq!(mgmt(&rolled_back.state).status(), TrustpointStatus::Staged);
    assert_eq!(mgmt(&rolled_back.state).in_service.as_ref().unwrap().serial, "32");
    unchanged(&rolled_back.state, &report(40, failed(None)));
    // And can be activated again.
    assert_eq!(changes(&rolled_back.state, &activate(62)).jobs.len(), 1);

    let kept = changes(&staged, &report(40, failed(Some(("32".to_owned(), "/current".to_owned())))));
    let now_in_use = mgmt(&kept.state);
    assert_eq!(now_in_use.active.as_ref().unwrap().serial, "32");
    assert!(now_in_use.staged.is_none() && now_in_use.last_failure.is_some());
    assert_eq!((kept.slots[0].certificate_id, kept.slots[0].slot), (id(50), Slot::Active));
    // Before the report of the issue it comes too early, whatever it says.
    assert_eq!(refusal(&under_way(), &report(40, failed(None))), Rejection::TooEarly);
}
