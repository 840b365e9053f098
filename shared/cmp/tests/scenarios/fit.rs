//! Certificates that do not fit, and how that is told to the CA.

use super::*;

fn granting(world: &mut World, certificate: trustfleet_pki::Certificate) {
    world.twist = Box::new(move |_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, implicit_confirm, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate: certificate.clone(),
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm,
        },
        other => other,
    });
}

#[test]
fn c7_a_certificate_for_another_key_is_rejected_by_certconf_and_not_used() {
    let mut world = World::new();
    let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    granting(&mut world, other.clone());
    let end = world.run_mac();
    assert_eq!(kinds(&end.transcript), ["ir", "ip", "certConf", "pkiconf"]);
    assert_eq!(world.taken, Some(false), "the server was told");
    assert_eq!(end.orphan, Some(other));
    assert!(end.tell_peer.is_none());
    let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
    assert!(unfit.reasons.contains(&Unfit::PublicKey));
    assert!(unfit.rejection_confirmed);
}

#[test]
fn v9_an_unfit_certificate_under_implicit_confirmation_is_refused_by_an_error_message() {
    let mut world = World::new();
    let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    granting(&mut world, other.clone());
    let request = EnrollRequest { implicit_confirm: true, ..world.request() };
    let end = world.run(request, mac("dev1", SECRET));
    assert_eq!(end.code(), "certificate_unfit");
    assert_eq!(end.orphan, Some(other));
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::IncorrectData]));
}

#[test]
fn v9_changed_names_are_warned_of_or_refused_by_policy() {
    for modifications in [Modifications::Accept, Modifications::Warn, Modifications::Refuse] {
        let mut world = World::new();
        let changed = world.ca.issue(&Leaf::new("/CN=renamed", world.key.as_ref()));
        granting(&mut world, changed);
        world.acceptance.modifications = modifications;
        let end = world.run_mac();
        match modifications {
            Modifications::Accept => assert!(end.enrolled().warnings.is_empty()),
            Modifications::Warn => {
                let codes: Vec<_> = end.enrolled().warnings.iter().map(Warning::code).collect();
                assert_eq!(codes, ["subject_changed", "alternative_names_missing"]);
            }
            Modifications::Refuse => {
                let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
                assert_eq!(unfit.reasons.len(), 2, "{unfit}");
            }
        }
    }
}

#[test]
fn v9_added_alternative_names_are_warned_of_or_refused_by_policy() {
    for modifications in [Modifications::Accept, Modifications::Warn, Modifications::Refuse] {
        let mut world = World::new();
        let two = ["dev1.example", "other.example"].map(|dns| San::parse("dns", dns).unwrap());
        let names = trustfleet_pki::san::extension_value(&two).unwrap();
        let added = world.ca.issue(&Leaf { san_der: Some(names), ..Leaf::new("/CN=dev1", world.key.as_ref()) });
        granting(&mut world, added);
        world.acceptance.modifications = modifications;
        let end = world.run_mac();
        match modifications {
            Modifications::Accept => assert!(end.enrolled().warnings.is_empty()),
            Modifications::Warn => {
                assert_eq!(end.enrolled().warnings, [Warning::AlternativeNamesAdded { added: 1 }]);
            }
            Modifications::Refuse => {
                let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
                assert_eq!(unfit.reasons, [Unfit::AlternativeNamesAdded { added: 1 }]);
            }
        }
    }
}

#[test]
fn v9_granted_with_mods_is_accepted_warned_of_or_refused_by_policy() {
    for modifications in [Modifications::Accept, Modifications::Warn, Modifications::Refuse] {
        let mut world = World::twisted(|_, _, answer, _, _| match answer {
            Answer::Granted { kind, cert_req_id, certificate, ca_pubs, extra_certs, implicit_confirm, .. } => {
                let with_mods = true;
                Answer::Granted { kind, cert_req_id, certificate, with_mods, ca_pubs, extra_certs, implicit_confirm }
            }
            answer => answer,
        });
        world.acceptance.modifications = modifications;
        let end = world.run_mac();
        match modifications {
            Modifications::Accept => assert!(end.enrolled().warnings.is_empty()),
            Modifications::Warn => assert_eq!(end.enrolled().warnings, [Warning::GrantedWithMods]),
            Modifications::Refuse => {
                let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
                assert_eq!(unfit.reasons, [Unfit::GrantedWithMods]);
                assert!(unfit.rejection_confirmed, "C7");
            }
        }
    }
}

#[test]
fn v10_a_certificate_of_another_ca_is_rejected() {
    let mut world = World::new();
    let foreign = Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256);
    let certificate = foreign.issue(&Leaf::new("/CN=dev1", world.key.as_ref()));
    granting(&mut world, certificate);
    let end = world.run_mac();
    let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
    assert!(unfit.reasons.iter().any(|reason| matches!(reason, Unfit::Chain { .. })), "{unfit}");
    assert_eq!(world.taken, Some(false));
}

#[test]
fn v8_a_rejection_is_shown_in_full_and_needs_no_answer() {
    let mut world = World::twisted(|_, _, _, _, _| Answer::Refused {
        kind: RequestKind::Ir,
        cert_req_id: 0,
        failure: vec![FailureBit::BadCertTemplate, FailureBit::NotAuthorized],
        text: "ask the operator".to_owned(),
    });
    let end = world.run_mac();
    assert!(end.tell_peer.is_none());
    let text = end.result.unwrap_err().to_string();
    assert_eq!(text, "the server refused (ip): badCertTemplate, notAuthorized: \"ask the operator\"");
}

#[test]
fn e2_an_error_in_answer_to_certconf_ends_without_pkiconf_and_keeps_the_orphan() {
    let mut world = World::twisted(|nth, _, answer, _, _| match nth {
        0 => answer,
        _ => Answer::Error { failure: vec![FailureBit::SystemFailure], text: String::new() },
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "refused");
    assert!(end.orphan.is_some(), "the CA issued a certificate that is unconfirmed");
}

#[test]
fn c7_an_error_in_answer_to_a_rejecting_certconf_does_not_hide_why_it_was_rejected() {
    let mut world = World::new();
    let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    world.twist = Box::new(move |nth, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate: other.clone(),
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        _ => {
            assert_eq!(nth, 1);
            Answer::Error { failure: vec![FailureBit::SystemFailure], text: String::new() }
        }
    });
    let end = world.run_mac();
    assert!(end.tell_peer.is_none(), "E2: nothing follows an error");
    let Err(CmpError::Certificate(unfit)) = end.result else { panic!() };
    assert!(!unfit.rejection_confirmed);
}

#[test]
fn c7_nor_does_an_answer_that_cannot_be_authenticated() {
    let mut world = World::new();
    let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    granting(&mut world, other.clone());
    let mut grant = std::mem::replace(&mut world.twist, Box::new(|_, _, answer, _, _| answer));
    world.twist = Box::new(move |nth, received, answer, to, protection| {
        if nth == 1 {
            *protection = ReplyProtection::Nothing;
            return Answer::Error { failure: vec![FailureBit::BadCertId], text: String::new() };
        }
        grant(nth, received, answer, to, protection)
    });
    let end = world.run_mac();
    assert_eq!(end.orphan, Some(other));
    let Err(CmpError::Certificate(unfit)) = end.result else { panic!("{:?}", end.result) };
    assert!(unfit.reasons.contains(&Unfit::PublicKey) && !unfit.rejection_confirmed);
}

#[test]
fn c8_without_an_authentic_pkiconf_nothing_is_reported_as_enrolled() {
    let mut world = World::twisted(|nth, _, answer, _, protection| {
        if nth == 1 {
            *protection = ReplyProtection::Nothing;
        }
        answer
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "unprotected");
    assert!(end.orphan.is_some());
}

#[test]
fn c9_certconfirmed_in_answer_to_a_repeated_certconf_is_success() {
    let mut world = World::twisted(|nth, _, answer, _, _| match nth {
        0 => answer,
        _ => Answer::Error { failure: vec![FailureBit::CertConfirmed], text: String::new() },
    });
    assert_eq!(world.run_mac().enrolled().warnings, [Warning::AlreadyConfirmed]);
}
