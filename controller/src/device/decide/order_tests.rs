//! Orders: every condition that is checked first, and by what a request proves where it comes from.

use jiff::SignedDuration;
use trustfleet_model::job::{JobTask, RequestKind};

use super::{
    Rejection,
    tests::{changes, enroll, facts, id, in_use, now, ready, refusal},
};
use crate::device::Command;

#[test]
fn s32_everything_that_is_missing_is_named_at_once() {
    let mut state = ready();
    state.device.agent_id = None;
    for trustpoint in state.trustpoints.values_mut() {
        trustpoint.mac_secret_id = None;
    }
    let Command::Enroll(mut command) = enroll(40, RequestKind::Ir, None) else { unreachable!() };
    command.context.entity.subject = "CN={device.serial}".to_owned();
    command.context.ca_server.trust_anchors.clear();
    command.context.ca_server.ca_name = "no name".to_owned();
    let Rejection::NotReady(violations) = refusal(&state, &Command::Enroll(command)) else { panic!("not refused") };
    let fields: Vec<_> = violations.as_slice().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        ["device.agent", "entity.subject", "ca_server.ca_name", "ca_server.trust_anchors", "trustpoint.mac"]
    );
}

#[test]
fn s30_an_update_needs_a_certificate_that_is_in_use_and_has_not_ended() {
    let Rejection::NotReady(violations) = refusal(&ready(), &enroll(41, RequestKind::Kur, None)) else {
        panic!("not refused")
    };
    assert_eq!(violations.as_slice()[0].field, "trustpoint.active");
    let mut state = in_use();
    let update = changes(&state, &enroll(41, RequestKind::Kur, None));
    let JobTask::Enroll(order) = &update.jobs[0].task else { panic!("{:?}", update.jobs) };
    assert_eq!(order.mac, None);
    for trustpoint in state.trustpoints.values_mut() {
        trustpoint.active = Some(facts(50, now()));
    }
    let Rejection::NotReady(violations) = refusal(&state, &enroll(41, RequestKind::Kur, None)) else {
        panic!("not refused")
    };
    assert!(violations.to_string().contains("ended at"), "{violations}");
}

#[test]
fn s30_no_update_is_asked_for_where_the_entity_has_another_subject_by_now() {
    let state = in_use();
    let Command::Enroll(mut update) = enroll(41, RequestKind::Kur, None) else { unreachable!() };
    update.context.entity.subject = "/O=Acme/OU=Aps/CN={device.name}".to_owned();
    let Rejection::NotReady(violations) = refusal(&state, &Command::Enroll(update.clone())) else {
        panic!("not refused")
    };
    let told = &violations.as_slice()[0];
    assert_eq!((told.field.as_str(), told.rule.as_str()), ("entity.subject", "S30"));
    assert!(told.message.contains("CN=ap-1,O=Acme") && told.message.contains("cr or ir"), "{}", told.message);

    // The same in another spelling is the same.
    update.context.entity.subject = "CN={device.name},O=Acme".to_owned();
    changes(&state, &Command::Enroll(update));
}

#[test]
fn s12_a_certificate_in_use_signs_a_cr_for_which_no_secret_is_left() {
    let mut state = in_use();
    for trustpoint in state.trustpoints.values_mut() {
        trustpoint.mac_secret_id = None;
    }
    let signed = changes(&state, &enroll(41, RequestKind::Cr, None));
    let JobTask::Enroll(order) = &signed.jobs[0].task else { panic!("{:?}", signed.jobs) };
    assert_eq!((order.kind, &order.mac), (RequestKind::Cr, &None));
    for (request, until) in [(RequestKind::Ir, now() + SignedDuration::from_hours(1)), (RequestKind::Cr, now())] {
        for trustpoint in state.trustpoints.values_mut() {
            trustpoint.active = Some(facts(50, until));
        }
        let Rejection::NotReady(violations) = refusal(&state, &enroll(41, request, None)) else {
            panic!("not refused")
        };
        assert_eq!(violations.as_slice()[0].field, "trustpoint.mac", "{request:?} at {until}");
    }
}

#[test]
fn s19_s20_sender_and_recipient_of_the_policy_are_those_of_the_request() {
    let Command::Enroll(mut command) = enroll(40, RequestKind::Ir, None) else { unreachable!() };
    command.context.policy.sender = Some("CN={device.name}".to_owned());
    command.context.policy.recipient = Some("/O=Acme/CN=RA".to_owned());
    let made = changes(&ready(), &Command::Enroll(command.clone()));
    let JobTask::Enroll(order) = &made.jobs[0].task else { panic!("no enrolment") };
    assert_eq!((order.sender.as_deref(), order.recipient.as_deref()), (Some("CN=ap-1"), Some("/O=Acme/CN=RA")));

    command.context.policy.sender = Some("CN={device.serial}".to_owned());
    command.context.policy.recipient = Some("no name".to_owned());
    let Rejection::NotReady(violations) = refusal(&ready(), &Command::Enroll(command)) else { panic!("not refused") };
    let rules: Vec<_> = violations.as_slice().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(rules, ["policy.sender", "policy.recipient"], "and both at once");
}

#[test]
fn s14_an_identity_of_the_device_makes_mac_credentials_superfluous() {
    let mut without = ready();
    let trustpoint = without.trustpoints.get_mut(&id(20)).unwrap();
    (trustpoint.mac_reference, trustpoint.mac_secret_id) = (None, None);
    let Command::Enroll(mut command) = enroll(40, RequestKind::Cr, None) else { unreachable!() };
    assert!(matches!(refusal(&without, &Command::Enroll(command.clone())), Rejection::NotReady(_)));
    command.context.policy = serde_json::from_str(
        r#"{"key":{"algorithm":"rsa-2048"},"origin_authentication":"signature","authentication_domain":"site"}"#,
    )
    .unwrap();
    let made = changes(&without, &Command::Enroll(command));
    let JobTask::Enroll(order) = &made.jobs[0].task else { panic!("no enrolment") };
    assert!(order.mac.is_none() && order.policy.domain() == Some("site"));
}
