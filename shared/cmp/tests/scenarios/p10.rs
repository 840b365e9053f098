//! p10cr: a certificate for a request that somebody else's key made.

use super::*;
use support::csr::csr_der;
use trustfleet_cmp::{Csr, P10Request, Request as Begin, Signer as _, codec::oids, csr::CsrError};

fn request(world: &World) -> (P10Request, Vec<u8>) {
    let der = csr_der("/CN=dev1", &world.key, &world.key);
    let request = P10Request {
        csr: Csr::from_der(&der).unwrap(),
        recipient: world.ca.certificate.subject(),
        sender: None,
        implicit_confirm: false,
        cert_profile: None,
        extra_certs: vec![],
    };
    (request, der)
}

fn begin(request: P10Request) -> Begin {
    Begin::P10(Box::new(request))
}

fn enrolled(last: world::Last) -> Box<trustfleet_cmp::Enrolled> {
    match last.step {
        Step::Done(enrolled) => enrolled,
        Step::Failed { error, .. } => panic!("{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r7_a_p10cr_is_sent_unchanged_and_answered_and_confirmed_with_minus_one() {
    for by_mac in [true, false] {
        let mut world = World::new();
        let (request, der) = request(&world);
        let (other_key, other) = world.ca.identity("/CN=RA", KeyType::P256);
        let credentials = if by_mac { mac("dev1", SECRET) } else { signature(&other_key, &other) };
        let enrolled = enrolled(world.begin(begin(request), credentials));
        assert_eq!(kinds(&enrolled.transcript), ["p10cr", "cp", "certConf", "pkiconf"]);
        assert_eq!(enrolled.certificate.spki_der(), world.key.public_key_der());
        assert_eq!(enrolled.certificate.subject_alt_names(), ["dns:dev1.example"]);
        assert_eq!(enrolled.kind, RequestKind::P10cr);
        match (&world.heard[0].request, &world.heard[1].request) {
            (Request::Certificate(asked), Request::CertConf(status)) => {
                assert_eq!((asked.cert_req_id, status.cert_req_id), (-1, -1), "R7, C5");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(Csr::from_der(&der).unwrap().as_der(), der);
        assert!(enrolled.warnings.is_empty(), "{:?}", enrolled.warnings);
    }
}

#[test]
fn r7_a_csr_whose_signature_does_not_verify_is_never_sent() {
    let (one, two) = (key(KeyType::P256), key(KeyType::P256));
    assert!(matches!(Csr::from_der(&csr_der("/CN=dev1", &one, &two)), Err(CsrError::Signature(_))));
    assert!(matches!(Csr::from_der(b"nonsense"), Err(CsrError::Unreadable(_))));
}

#[test]
fn v7_any_other_certreqid_than_minus_one_is_refused() {
    for cert_req_id in [0, 1] {
        let mut world = World::twisted(move |_, _, _, _, _| Answer::Waiting { kind: RequestKind::P10cr, cert_req_id });
        let (request, _) = request(&world);
        assert_eq!(world.begin(begin(request), mac("dev1", SECRET)).failed().code(), "cert_req_id_wrong");
    }
}

#[test]
fn w1_w6_a_delayed_p10cr_is_polled_for_with_minus_one_and_resumed_without_the_key() {
    let mut first = None;
    let mut world = World::twisted(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::P10cr, cert_req_id: -1 }
        }
        1 => Answer::PollRep { cert_req_id: -1, check_after: 60, reason: String::new() },
        2 => first.take().unwrap(),
        _ => answer,
    });
    let (request, _) = request(&world);
    let acceptance = world.acceptance.clone();
    let begun =
        Transaction::begin(begin(request), mac("dev1", SECRET), acceptance.clone(), &mut world.entropy, world.now);
    let (transaction, message) = begun.unwrap();
    let answer = world.serve(&message);
    let Step::Send { transaction, message } =
        transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
    else {
        panic!("a pollReq is due");
    };
    let answer = world.serve(&message);
    let Step::Wait { transaction, .. } = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
    else {
        panic!("a wait is due");
    };
    let step = Transaction::resume_keyless(transaction.record(), mac("dev1", SECRET), acceptance, world.now).unwrap();
    let last = world.drive(step);
    assert_eq!(last.waits, [60]);
    enrolled(last);
    assert!(matches!(world.heard[1].request, Request::Poll { cert_req_id: -1 }));
}

#[test]
fn h15_one_certificate_profile_is_named_in_the_header() {
    let world = World::new();
    let (request, _) = request(&world);
    let profile = Some("devices".to_owned());
    let p10 = Begin::P10(Box::new(P10Request { cert_profile: profile.clone(), ..request }));
    let ir = EnrollRequest { cert_profile: profile, ..world.request() };
    let signer: Arc<dyn trustfleet_cmp::Signer> = Arc::<SoftwareKey>::clone(&world.key);
    for request in [p10, Begin::Enroll(Box::new(ir), signer)] {
        let mut entropy = support::Seeded::new(3);
        let begun = Transaction::begin(request, mac("dev1", SECRET), world.acceptance.clone(), &mut entropy, world.now);
        let message = PkiMessage::from_der(&begun.unwrap().1).unwrap();
        let infos = message.header.general_info.unwrap();
        let [info] = infos.as_slice() else { panic!("{infos:?}") };
        assert_eq!(info.info_type, oids::IT_CERT_PROFILE);
        let names: Vec<String> = info.info_value.as_ref().unwrap().decode_as().unwrap();
        assert_eq!(names, ["devices"]);
    }
}
