//! rr and rp.

use super::*;
use trustfleet_cmp::{
    Request as Begin, RevocationReason, RevokeRequest, Signer, codec::PkiStatus, crl::Crl, responder,
};

/// A certificate of the world's CA with its key.
fn device(world: &World) -> (Arc<SoftwareKey>, trustfleet_pki::Certificate) {
    world.ca.identity("/CN=dev1", KeyType::P256)
}

fn revoke(certificate: &trustfleet_pki::Certificate, reason: RevocationReason) -> Begin {
    Begin::Revoke(Box::new(RevokeRequest::of(certificate, reason)))
}

fn asked(world: &World) -> responder::RevocationRequest {
    match &world.heard[0].request {
        Request::Revoke(asked) => asked.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r8_a_certificate_revokes_itself_for_every_reason() {
    for reason in RevocationReason::ALL {
        let mut world = World::new();
        let (key, certificate) = device(&world);
        let revoked = world.begin(revoke(&certificate, reason), signature(&key, &certificate)).revoked();
        assert_eq!(revoked.serial, certificate.serial_hex());
        assert_eq!(revoked.status, PkiStatus::Accepted);
        let asked = asked(&world);
        assert_eq!((asked.issuer, asked.serial.as_slice()), (certificate.issuer(), certificate.serial_der_bytes()));
        assert_eq!(asked.reason, Some(reason));
        assert_eq!(kinds(&revoked.transcript), ["rr", "rp"]);
    }
}

#[test]
fn r8_an_ra_revokes_the_certificate_of_a_device_that_is_lost() {
    let mut world = World::new();
    let (_, lost) = device(&world);
    let (ra_key, ra) = world.ca.identity("/CN=RA", KeyType::P256);
    let revoked = world.begin(revoke(&lost, RevocationReason::KeyCompromise), signature(&ra_key, &ra)).revoked();
    assert_eq!(revoked.serial, lost.serial_hex());
    assert!(matches!(&world.heard[0].client, Client::Signature { certificate } if *certificate == ra));
}

#[test]
fn p9_an_rr_is_never_protected_by_a_mac() {
    let mut world = World::new();
    let (_, certificate) = device(&world);
    let error = Transaction::begin(
        revoke(&certificate, RevocationReason::Superseded),
        mac("dev1", SECRET),
        world.acceptance.clone(),
        &mut world.entropy,
        world.now,
    );
    assert_eq!(error.unwrap_err().code(), "revocation_needs_signature");
}

fn answered(status: PkiStatus, of: impl Fn(&responder::RevocationRequest) -> Vec<u8> + 'static) -> World {
    World::twisted(move |_, received, answer, _, _| match &received.request {
        Request::Revoke(asked) => {
            Answer::Revoked { status, issuer: asked.issuer.clone(), serial: of(asked), crls: vec![] }
        }
        _ => answer,
    })
}

#[test]
fn e6_warnings_in_an_rp_are_no_failures() {
    for (status, warning) in [
        (PkiStatus::RevocationWarning, Warning::RevocationWarning),
        (PkiStatus::RevocationNotification, Warning::RevocationNotification),
        (PkiStatus::GrantedWithMods, Warning::GrantedWithMods),
    ] {
        let mut world = answered(status, |asked| asked.serial.clone());
        let (key, certificate) = device(&world);
        let request = revoke(&certificate, RevocationReason::Unspecified);
        let revoked = world.begin(request, signature(&key, &certificate)).revoked();
        assert_eq!((revoked.status, revoked.warnings), (status, vec![warning]));
    }
}

#[test]
fn r8_an_rp_about_another_certificate_or_without_sense_is_refused() {
    for (status, serial, code) in [
        (PkiStatus::Accepted, Some(vec![7]), "other_certificate"),
        (PkiStatus::KeyUpdateWarning, None, "status_unexpected"),
    ] {
        let mut world = answered(status, move |asked| serial.clone().unwrap_or_else(|| asked.serial.clone()));
        let (key, certificate) = device(&world);
        let request = revoke(&certificate, RevocationReason::Unspecified);
        assert_eq!(world.begin(request, signature(&key, &certificate)).failed().code(), code);
    }
}

#[test]
fn e3_a_refused_revocation_is_read_with_its_reasons() {
    let mut world = World::twisted(|_, _, _, _, _| Answer::Refused {
        kind: RequestKind::Rr,
        cert_req_id: -1,
        failure: vec![FailureBit::CertRevoked, FailureBit::BadCertId],
        text: "revoked already".to_owned(),
    });
    let (key, certificate) = device(&world);
    let request = revoke(&certificate, RevocationReason::Unspecified);
    match world.begin(request, signature(&key, &certificate)).failed() {
        CmpError::Refused(refusal) => {
            assert_eq!(refusal.body, BodyKind::Rp);
            assert_eq!(refusal.failure, [FailureBit::BadCertId, FailureBit::CertRevoked]);
            assert_eq!(refusal.texts, ["revoked already"]);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn w2_a_delayed_revocation_is_polled_for_with_minus_one_and_survives_a_restart() {
    let mut first = None;
    let mut world = World::twisted(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Rr, cert_req_id: -1 }
        }
        1 => Answer::PollRep { cert_req_id: -1, check_after: 30, reason: String::new() },
        _ => first.take().unwrap(),
    });
    let (key, certificate) = device(&world);
    let credentials = signature(&key, &certificate);
    let acceptance = world.acceptance.clone();
    let request = revoke(&certificate, RevocationReason::CertificateHold);
    let begun = Transaction::begin(request, credentials.clone(), acceptance.clone(), &mut world.entropy, world.now);
    let (mut transaction, mut message) = begun.unwrap();
    let step = loop {
        let answer = world.serve(&message);
        match transaction.handle(Input::Response(&answer), &mut world.entropy, world.now) {
            Step::Send { transaction: next, message: bytes } => (transaction, message) = (*next, bytes),
            Step::Wait { transaction, seconds } => {
                assert_eq!(seconds, 30);
                let json = serde_json::to_string(&transaction.record()).unwrap();
                let record = serde_json::from_str(&json).unwrap();
                break Transaction::resume_keyless(record, credentials, acceptance, world.now).unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    let last = world.drive(step);
    assert_eq!(last.waits, [30]);
    assert_eq!(last.revoked().serial, certificate.serial_hex());
    assert!(matches!(world.heard[1].request, Request::Poll { cert_req_id: -1 }));
}

#[test]
fn a_crl_that_names_two_algorithms_is_signed_by_nobody() {
    use der::{Decode, Encode, asn1::BitString};
    use trustfleet_pki::signature::{SignatureAlgorithm, SignatureError};
    use x509_cert::{crl::CertificateList, crl::TbsCertList, time::Time};
    let ca = Authority::root("/CN=CA", KeyType::P256);
    let at = der::DateTime::new(2026, 11, 21, 12, 0, 0).unwrap();
    let verified = |inside: SignatureAlgorithm| {
        let tbs_cert_list = TbsCertList {
            version: x509_cert::Version::V2,
            signature: inside.identifier(),
            issuer: x509_cert::name::Name::from_der(ca.certificate.subject().as_der()).unwrap(),
            this_update: Time::UtcTime(der::asn1::UtcTime::from_date_time(at).unwrap()),
            next_update: None,
            revoked_certificates: None,
            crl_extensions: None,
        };
        let signature = BitString::from_bytes(&ca.key.sign(&tbs_cert_list.to_der().unwrap()).unwrap()).unwrap();
        let list = CertificateList { signature_algorithm: ca.key.algorithm(), tbs_cert_list, signature };
        Crl::from_der(&list.to_der().unwrap()).unwrap().verify_signed_by(&ca.certificate)
    };
    assert_eq!(verified(SignatureAlgorithm::EcdsaSha256), Ok(()));
    assert!(matches!(verified(SignatureAlgorithm::EcdsaSha384), Err(SignatureError::Parameters { .. })));
}

#[test]
fn crls_of_both_versions_that_openssl_makes_are_read_and_verified() {
    use std::{fs, process::Command};
    let ca = Authority::root("/O=Lab/CN=CA", KeyType::P256);
    let revoked = ca.issue(&Leaf::new("/CN=revoked", key(KeyType::P256).as_ref()));
    let config = "[ca]\ndefault_ca = one\n[one]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n";
    for (more, version) in [("", None), ("crlnumber = number\n", Some("v2"))] {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, content: &str| fs::write(folder.path().join(file), content).unwrap();
        write("ca.cnf", &format!("{config}{more}"));
        write("number", "01\n");
        write("ca.crt", &ca.certificate.to_pem());
        write("ca.key", &ca.key.pkcs8_pem().unwrap());
        write("index", &format!("R\t450101000000Z\t261121120000Z\t{}\tunknown\t/CN=revoked\n", revoked.serial_hex()));
        let openssl = |line: &str| {
            let ran = Command::new("openssl").args(line.split(' ')).current_dir(folder.path()).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
        };
        openssl("ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.crt -out ca.crl");
        openssl("crl -in ca.crl -outform DER -out ca.der");
        let der = fs::read(folder.path().join("ca.der")).unwrap();
        let crl = Crl::from_der(&der).unwrap_or_else(|error| panic!("{version:?}: {error}"));
        assert_eq!(crl.verify_signed_by(&ca.certificate), Ok(()), "{version:?}");
        assert_eq!(crl.serials(), [revoked.serial_hex()]);
        assert_eq!(crl.issuer(), &ca.certificate.subject());
    }
}
