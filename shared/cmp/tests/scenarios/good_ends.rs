//! Exchanges that end well.

use super::*;

#[test]
fn c1_a_certificate_is_confirmed_when_the_server_does_not_grant_implicit_confirmation() {
    let mut world = World::new();
    let enrolled = world.run_mac().enrolled();
    assert_eq!(kinds(&enrolled.transcript), ["ir", "ip", "certConf", "pkiconf"]);
    assert_eq!(enrolled.certificate.spki_der(), trustfleet_cmp::Signer::public_key_der(world.key.as_ref()));
    assert_eq!(world.taken, Some(true));
    assert!(enrolled.warnings.is_empty(), "{:?}", enrolled.warnings);
}

#[test]
fn c2_implicit_confirmation_that_was_asked_for_and_granted_ends_at_once() {
    let mut world = World::new();
    let request = EnrollRequest { implicit_confirm: true, ..world.request() };
    let enrolled = world.run(request, mac("dev1", SECRET)).enrolled();
    assert!(enrolled.implicitly_confirmed);
    assert_eq!(kinds(&enrolled.transcript), ["ir", "ip"]);
}

#[test]
fn c1_implicit_confirmation_that_was_not_asked_for_changes_nothing() {
    let mut world = World::twisted(|_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, certificate, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate,
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: true,
        },
        other => other,
    });
    assert_eq!(kinds(&world.run_mac().transcript), ["ir", "ip", "certConf", "pkiconf"]);
}

#[test]
fn r10_cr_is_answered_by_cp() {
    let mut world = World::new();
    let (identity_key, identity) = world.ca.identity("/CN=known entity", KeyType::P256);
    let request = EnrollRequest { kind: RequestKind::Cr, ..world.request() };
    let enrolled = world.run(request, signature(&identity_key, &identity)).enrolled();
    assert_eq!(kinds(&enrolled.transcript), ["cr", "cp", "certConf", "pkiconf"]);
    assert!(!enrolled.ca_pubs_trusted);
}

#[test]
fn r6_kur_takes_the_old_certificates_subject_and_names_it() {
    let mut world = World::new();
    let (old_key, old) = world.ca.identity("/O=Lab/CN=dev1", KeyType::P256);
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        subject: Name::null(),
        old_certificate: Some(old.clone()),
        ..world.request()
    };
    let enrolled = world.run(request, signature(&old_key, &old)).enrolled();
    assert_eq!(kinds(&enrolled.transcript), ["kur", "kup", "certConf", "pkiconf"]);
    assert_eq!(enrolled.certificate.subject(), name("/O=Lab/CN=dev1"));
    let Request::Certificate(asked) = &world.heard[0].request else { panic!() };
    assert_eq!(asked.old_certificate.as_ref(), Some(&old));
}

#[test]
fn r6_a_kur_keeps_the_string_types_of_the_subject_that_the_ca_gave() {
    let mut world = World::new();
    let (old_key, old) = world.ca.identity("/O=#13034c6162/CN=#130464657631", KeyType::P256);
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        subject: name("/O=Lab/CN=dev1"),
        old_certificate: Some(old.clone()),
        ..world.request()
    };
    assert_ne!(request.subject, old.subject(), "not the same bytes");
    let enrolled = world.run(request, signature(&old_key, &old)).enrolled();
    assert_eq!(enrolled.certificate.subject(), old.subject());
}

#[test]
fn v11_ca_certificates_are_trusted_only_under_the_shared_secret() {
    let pubs = |world: &mut World| {
        let ca = world.ca.certificate.clone();
        world.twist = Box::new(move |_, _, answer, _, _| match answer {
            Answer::Granted { kind, cert_req_id, certificate, implicit_confirm, .. } => Answer::Granted {
                kind,
                cert_req_id,
                certificate,
                with_mods: true,
                ca_pubs: vec![ca.clone()],
                extra_certs: vec![],
                implicit_confirm,
            },
            other => other,
        });
    };
    let mut world = World::new();
    pubs(&mut world);
    world.acceptance.anchors.clear();
    let enrolled = world.run_mac().enrolled();
    assert!(enrolled.ca_pubs_trusted);
    assert_eq!(enrolled.ca_pubs, [world.ca.certificate.clone()]);
    // the chain was checked against caPubs, so there is no warning about that
    assert_eq!(enrolled.warnings, [Warning::GrantedWithMods]);

    let mut world = World::new();
    pubs(&mut world);
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    let request = world.request();
    let enrolled = world.run(request, signature(&identity_key, &identity)).enrolled();
    assert!(!enrolled.ca_pubs_trusted);
}
