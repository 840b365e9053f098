//! genm and genp.

use super::*;
use der::{Decode, Encode, asn1::Any};
use trustfleet_cmp::{
    CrlOf, InfoRequest, Information, Question, Request as Begin,
    codec::{InfoTypeAndValue, RawSequence, info::RootCaKeyUpdateContent, oids},
};
use trustfleet_pki::Certificate;

fn ask(question: Question) -> Begin {
    let recipient = name("/O=Lab/CN=Issuing CA");
    Begin::Info(Box::new(InfoRequest { question, recipient, sender: None, extra_certs: vec![] }))
}

fn answering(id: der::asn1::ObjectIdentifier, value: Option<Any>) -> World {
    World::twisted(move |_, _, _, _, _| {
        Answer::Info(vec![InfoTypeAndValue { info_type: id, info_value: value.clone() }])
    })
}

fn any<T: Encode + der::Tagged>(value: &T) -> Any {
    Any::from_der(&value.to_der().unwrap()).unwrap()
}

fn raw(certificate: &Certificate) -> RawSequence {
    RawSequence::from_tlv(certificate.as_der()).unwrap()
}

fn information(world: &mut World, question: Question) -> Information {
    world.begin(ask(question), mac("dev1", SECRET)).informed().information
}

fn question_heard(world: &World) -> InfoTypeAndValue {
    match &world.heard[0].request {
        Request::Info(info) => info.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r9_ca_certificates_are_asked_for_without_a_value_and_come_as_helpers() {
    let other = Authority::root("/CN=Other CA", KeyType::P256).certificate;
    let mut world = answering(oids::IT_CA_CERTS, Some(any(&vec![raw(&other)])));
    assert!(matches!(information(&mut world, Question::CaCerts), Information::CaCerts(list) if list == [other]));
    let heard = question_heard(&world);
    assert_eq!((heard.info_type, heard.info_value), (oids::IT_CA_CERTS, None));
    let mut nothing = answering(oids::IT_CA_CERTS, None);
    assert!(matches!(information(&mut nothing, Question::CaCerts), Information::CaCerts(list) if list.is_empty()));
}

#[test]
fn r9_plain_questions_are_asked_without_a_value_and_read_by_their_type() {
    let algorithm = spki::AlgorithmIdentifierOwned { oid: oids::ED25519, parameters: None };
    let list = any(&vec![algorithm.clone()]);
    for (question, id, value) in [
        (Question::SignKeyPairTypes, oids::IT_SIGN_KEY_PAIR_TYPES, list.clone()),
        (Question::EncKeyPairTypes, oids::IT_ENC_KEY_PAIR_TYPES, list),
        (Question::PreferredSymmAlg, oids::IT_PREFERRED_SYMM_ALG, any(&algorithm)),
    ] {
        let mut world = answering(id, Some(value));
        match information(&mut world, question) {
            Information::Algorithms(algorithms) => assert_eq!(algorithms, std::slice::from_ref(&algorithm)),
            other => panic!("{other:?}"),
        }
        let heard = question_heard(&world);
        assert_eq!((heard.info_type, heard.info_value), (id, None));
    }
    let mut world = answering(oids::IT_SUPP_LANG_TAGS, Some(any(&vec!["de\u{1b}[31m".to_owned()])));
    let tags = vec!["de".to_owned(), "en".to_owned()];
    match information(&mut world, Question::SupportedLanguages(tags.clone())) {
        Information::Languages(answered) => assert_eq!(answered, ["de\u{fffd}[31m"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(question_heard(&world).info_value.unwrap(), any(&tags));
    let mut world = answering(oids::CONFIRM_WAIT_TIME, None);
    assert!(matches!(information(&mut world, Question::ConfirmWaitTime), Information::Other(None)));
    let id = der::asn1::ObjectIdentifier::new_unwrap("1.3.6.1.4.1.1.1");
    let mut world = answering(id, Some(any(&der::asn1::Null)));
    match information(&mut world, Question::Other(id)) {
        Information::Other(value) => assert_eq!(value, Some(vec![5, 0])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r9_a_crl_update_names_source_and_time() {
    let at = "2026-11-20T00:00:00Z".parse().unwrap();
    for (source, expected) in [
        // SEQUENCE of SEQUENCE { dpn [0] { fullName [0] { uri [6] "h" } }, UTCTime }
        (CrlOf::Uri("h".to_owned()), "30183016a005a0038601 68170d3236313132303030303030305a".replace(' ', "")),
        // SEQUENCE of SEQUENCE { issuer [1] SEQUENCE { directoryName [4] { } }, UTCTime }
        (CrlOf::Issuer(Name::null()), "30193017a1063004a4023000170d3236313132303030303030305a".to_owned()),
    ] {
        let mut world = answering(oids::IT_CRLS, None);
        let question = Question::CrlUpdate { source, this_update: Some(at) };
        assert!(matches!(information(&mut world, question), Information::Crls(crls) if crls.is_empty()));
        let value = question_heard(&world).info_value.unwrap();
        assert_eq!(hex::encode(value.to_der().unwrap()), expected);
    }
}

#[test]
fn r9_an_answer_to_another_question_or_to_several_is_refused() {
    let mut world = answering(oids::IT_CA_CERTS, None);
    let error = world.begin(ask(Question::CertReqTemplate), mac("dev1", SECRET)).failed();
    assert_eq!(error.code(), "information_unusable");
    let info = || InfoTypeAndValue { info_type: oids::IT_CA_CERTS, info_value: None };
    for infos in [vec![], vec![info(), info()]] {
        let mut world = World::twisted(move |_, _, _, _, _| Answer::Info(infos.clone()));
        let error = world.begin(ask(Question::CaCerts), mac("dev1", SECRET)).failed();
        assert_eq!(error.code(), "response_count_wrong");
    }
}

/// Old and new root with the certificates that tie them together.
struct Roots {
    old: Authority,
    new: Authority,
    new_with_old: Certificate,
    old_with_new: Certificate,
}

fn roots() -> Roots {
    let (old, new) = (Authority::root("/CN=Root", KeyType::P256), Authority::root("/CN=Root", KeyType::P256));
    let cross =
        |issuer: &Authority, of: &Authority| issuer.issue(&Leaf { ca: true, ..Leaf::new("/CN=Root", of.key.as_ref()) });
    let (new_with_old, old_with_new) = (cross(&old, &new), cross(&new, &old));
    Roots { old, new, new_with_old, old_with_new }
}

fn update(old: &Certificate, content: &RootCaKeyUpdateContent) -> World {
    let mut world = answering(oids::IT_ROOT_CA_KEY_UPDATE, Some(any(content)));
    world.acceptance.untrusted = vec![old.clone()];
    world
}

#[test]
fn v12_a_new_root_is_taken_when_old_and_new_certify_each_other() {
    let roots = roots();
    let content = RootCaKeyUpdateContent {
        new_with_new: raw(&roots.new.certificate),
        new_with_old: Some(raw(&roots.new_with_old)),
        old_with_new: Some(raw(&roots.old_with_new)),
    };
    let old = roots.old.certificate;
    let mut world = update(&old, &content);
    match information(&mut world, Question::RootCaUpdate { old: old.clone() }) {
        Information::RootCaUpdate(Some(update)) => {
            assert_eq!(update.new_root, roots.new.certificate);
            assert_eq!(update.new_with_old, roots.new_with_old);
            assert_eq!(update.old_with_new, Some(roots.old_with_new));
        }
        other => panic!("{other:?}"),
    }
    let heard = question_heard(&world);
    assert_eq!(heard.info_type, oids::IT_ROOT_CA_CERT, "R9: with the old root");
    assert_eq!(heard.info_value.unwrap().to_der().unwrap(), old.as_der());
    let mut none = answering(oids::IT_ROOT_CA_KEY_UPDATE, None);
    assert!(matches!(information(&mut none, Question::RootCaUpdate { old }), Information::RootCaUpdate(None)));
}

#[test]
fn v12_a_new_root_that_the_old_one_does_not_certify_is_refused() {
    let (roots, stranger) = (roots(), self::roots());
    let good = RootCaKeyUpdateContent {
        new_with_new: raw(&roots.new.certificate),
        new_with_old: Some(raw(&roots.new_with_old)),
        old_with_new: Some(raw(&roots.old_with_new)),
    };
    let device = raw(&roots.old.issue(&Leaf::new("/CN=Root", roots.new.key.as_ref())));
    let expired = Leaf { ca: true, not_after: "2025-01-01T00:00:00Z", ..Leaf::new("/CN=Root", roots.new.key.as_ref()) };
    let expired = raw(&roots.old.issue(&expired));
    let early = Leaf { ca: true, not_before: "2026-12-01T00:00:00Z", ..Leaf::new("/CN=Root", roots.new.key.as_ref()) };
    let early_root = raw(&roots.new.issue(&early)); // by itself
    let early = raw(&roots.old.issue(&early));
    let bad = [
        ("not valid yet", RootCaKeyUpdateContent { new_with_old: Some(early), ..good.clone() }),
        ("itself not valid yet", RootCaKeyUpdateContent { new_with_new: early_root, ..good.clone() }),
        ("expired", RootCaKeyUpdateContent { new_with_old: Some(expired), ..good.clone() }),
        ("no tie", RootCaKeyUpdateContent { new_with_old: None, ..good.clone() }),
        (
            "another old root's",
            RootCaKeyUpdateContent { new_with_old: Some(raw(&stranger.new_with_old)), ..good.clone() },
        ),
        ("another new root", RootCaKeyUpdateContent { new_with_new: raw(&stranger.new.certificate), ..good.clone() }),
        ("not itself", RootCaKeyUpdateContent { new_with_new: raw(&roots.new_with_old), ..good.clone() }),
        ("no CA", RootCaKeyUpdateContent { new_with_old: Some(device), ..good.clone() }),
        ("another old key", RootCaKeyUpdateContent { old_with_new: Some(raw(&roots.new.certificate)), ..good.clone() }),
        ("other way round", RootCaKeyUpdateContent { old_with_new: Some(raw(&stranger.old_with_new)), ..good }),
    ];
    for (what, content) in bad {
        let old = roots.old.certificate.clone();
        let mut world = update(&old, &content);
        let error = world.begin(ask(Question::RootCaUpdate { old }), mac("dev1", SECRET)).failed();
        assert_eq!(error.code(), "root_update_refused", "{what}");
    }
}

#[test]
fn w2_a_delayed_answer_is_polled_for_with_minus_one() {
    let mut world = World::twisted(|nth, _, _, _, _| match nth {
        0 => Answer::ErrorWaiting,
        1 => Answer::PollRep { cert_req_id: -1, check_after: 9, reason: String::new() },
        _ => Answer::Info(vec![InfoTypeAndValue { info_type: oids::IT_CA_CERTS, info_value: None }]),
    });
    let last = world.begin(ask(Question::CaCerts), mac("dev1", SECRET));
    assert_eq!(last.waits, [9]);
    assert_eq!(kinds(&last.informed().transcript), ["genm", "error", "pollReq", "pollRep", "pollReq", "genp"]);
}

#[test]
fn s37_a_question_is_stopped_by_hand_and_ends_with_the_total_time() {
    let mut world = World::twisted(|nth, _, _, _, _| match nth {
        0 => Answer::ErrorWaiting,
        _ => Answer::PollRep { cert_req_id: -1, check_after: i64::MAX, reason: String::new() },
    });
    world.acceptance.total_seconds = 60;
    assert_eq!(world.begin(ask(Question::CaCerts), mac("dev1", SECRET)).failed().code(), "total_time_exceeded");
    let begun = Transaction::begin(
        ask(Question::CaCerts),
        mac("dev1", SECRET),
        world.acceptance.clone(),
        &mut world.entropy,
        world.now,
    );
    let step = begun.unwrap().0.handle(Input::Stop, &mut world.entropy, world.now);
    assert!(matches!(step, Step::Failed { error, tell_peer: Some(_), .. } if error.code() == "stopped"));
}

#[test]
fn r9_our_crl_question_is_encoded_as_another_implementation_encodes_it() {
    let theirs = PkiMessage::from_der(include_bytes!("../vectors/pyasn1-genm-crl-status-list.der")).unwrap();
    let trustfleet_cmp::codec::PkiBody::Genm(infos) = theirs.body else { panic!() };
    let theirs: Vec<Any> = infos[0].info_value.as_ref().unwrap().decode_as().unwrap();
    let sources = [
        (CrlOf::Uri("http://ca.example/ca.crl".to_owned()), Some("2026-11-20T00:00:00Z".parse().unwrap())),
        (CrlOf::Issuer(name("/CN=CA")), None),
    ];
    for ((source, this_update), theirs) in sources.into_iter().zip(theirs) {
        let mut world = answering(oids::IT_CRLS, None);
        information(&mut world, Question::CrlUpdate { source, this_update });
        let ours: Vec<Any> = question_heard(&world).info_value.unwrap().decode_as().unwrap();
        assert_eq!(ours, [theirs]);
    }
}

#[test]
fn v12_a_subordinate_ca_of_the_old_root_makes_itself_no_root() {
    // what it holds already: a CA certificate by the old root; what it makes: one by itself
    let (old, sub) = (Authority::root("/CN=Root", KeyType::P256), Authority::root("/CN=Sub", KeyType::P256));
    let issued = old.issue(&Leaf { ca: true, ..Leaf::new("/CN=Sub", sub.key.as_ref()) });
    let content = RootCaKeyUpdateContent {
        new_with_new: raw(&sub.certificate),
        new_with_old: Some(raw(&issued)),
        old_with_new: None,
    };
    let old = old.certificate;
    let mut world = update(&old, &content);
    let error = world.begin(ask(Question::RootCaUpdate { old }), mac("dev1", SECRET)).failed();
    assert_eq!(error.code(), "root_update_refused");
    assert!(error.to_string().contains("another CA"), "{error}");
}

#[test]
fn v12_an_old_root_that_has_expired_vouches_for_no_new_one() {
    let roots = roots();
    let content = RootCaKeyUpdateContent {
        new_with_new: raw(&roots.new.certificate),
        new_with_old: Some(raw(&roots.new_with_old)),
        old_with_new: None,
    };
    let expired = Leaf { ca: true, not_after: "2026-01-01T00:00:00Z", ..Leaf::new("/CN=Root", roots.old.key.as_ref()) };
    let old = roots.old.issue(&expired); // itself by itself
    let mut world = update(&old, &content);
    let error = world.begin(ask(Question::RootCaUpdate { old }), mac("dev1", SECRET)).failed();
    assert_eq!(error.code(), "root_update_refused");
}
