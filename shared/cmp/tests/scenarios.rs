//! The client against our own responder, joined in memory: good ends, refusals, delays and restarts.
//!
//! Both halves share a codec, so this proves the state machine, not the encoding (that is vectors.rs, openssl_mock.rs, cmpv2_agrees.rs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use jiff::SignedDuration;
use support::{Authority, CMC_RA, Leaf, NoEntropy, accepting, key, mac, name, signature};
use trustfleet_cmp::{
    BodyKind, CmpError, Credentials, EnrollRequest, FailureBit, Input, Modifications, RequestKind, SoftwareKey, Step,
    Transaction, Warning,
    codec::{PkiMessage, raw::directory_name_der},
    error::{ConfigurationError, Unfit},
    key::KeyType,
    protection::{Hash, MacPolicy},
    responder::{Answer, Client, ReplyProtection, Request},
};
use trustfleet_pki::{name::Name, san::San};
use world::{SECRET, World};

fn kinds(transcript: &[trustfleet_cmp::Exchanged]) -> Vec<&'static str> {
    transcript.iter().filter_map(|exchanged| exchanged.kind).map(BodyKind::name).collect()
}

// ---- good ends ----------------------------------------------------------------------------------------------------

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

// ---- what we send -------------------------------------------------------------------------------------------------

#[test]
fn h4_without_a_sender_the_reference_becomes_the_common_name_and_h6_the_senderkid() {
    let mut world = World::new();
    let (_, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let received = world.read(&message);
    assert_eq!(received.reply_to.sender, name("/CN=dev1").as_der());
    assert!(matches!(received.client, Client::Mac { reference, .. } if reference == b"dev1"));
    let request = EnrollRequest { sender: Some(name("/O=Configured/CN=x")), ..world.request() };
    let (_, message) = world.start(request, mac("dev1", SECRET)).unwrap();
    assert_eq!(world.read(&message).reply_to.sender, name("/O=Configured/CN=x").as_der());
}

#[test]
fn h7_names_go_out_in_the_order_they_were_given_and_h1_h8_with_version_2_and_the_time() {
    let mut world = World::new();
    let request = EnrollRequest {
        recipient: name("/CN=first/O=second/C=DE"),
        subject: name("/OU=first/CN=second"),
        ..world.request()
    };
    let (_, message) = world.start(request, mac("dev1", SECRET)).unwrap();
    let header = PkiMessage::from_der(&message).unwrap().header;
    assert_eq!(directory_name_der(&header.recipient), Some(name("/CN=first/O=second/C=DE").as_der()));
    assert_eq!(header.pvno, 2);
    assert_eq!(header.message_time.unwrap().timestamp(), Some(world.now));
    let Request::Certificate(asked) = world.read(&message).request else { panic!() };
    assert_eq!(asked.subject.as_der(), name("/OU=first/CN=second").as_der());
}

#[test]
fn h13_implicit_confirmation_is_asked_for_in_the_first_message_only() {
    let mut world = World::new();
    world.twist = Box::new(|_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, certificate, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate,
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        other => other,
    });
    let request = EnrollRequest { implicit_confirm: true, ..world.request() };
    world.run(request, mac("dev1", SECRET)).enrolled();
    let asked: Vec<bool> = world.heard.iter().map(|received| received.implicit_confirm).collect();
    assert_eq!(asked, [true, false]);
}

#[test]
fn p3_the_mac_parameters_stay_the_same_over_a_transaction() {
    let mut world = World::new();
    let (transaction, first) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let answer = world.serve(&first);
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let Step::Send { message: second, .. } = step else { panic!("{step:?}") };
    let algorithm = |message: &[u8]| PkiMessage::from_der(message).unwrap().header.protection_alg.unwrap();
    assert_eq!(algorithm(&first), algorithm(&second));
}

#[test]
fn h3_with_a_signature_the_sender_is_the_certificates_subject() {
    let mut world = World::new();
    let (identity_key, identity) = world.ca.identity("/C=DE/CN=identity", KeyType::P256);
    let request = EnrollRequest { sender: Some(name("/CN=ignored")), ..world.request() };
    let (_, message) = world.start(request, signature(&identity_key, &identity)).unwrap();
    let received = world.read(&message);
    assert_eq!(received.reply_to.sender, identity.subject().as_der());
    assert_eq!(received.extra_certs[0], identity, "X1");
}

#[test]
fn h10_h11_identifiers_and_nonces_are_fresh_and_h12_chained() {
    let mut world = World::new();
    world.run_mac().enrolled();
    let [ir, conf] = world.heard.as_slice() else { panic!("{}", world.heard.len()) };
    assert_eq!(ir.reply_to.transaction_id.len(), 16);
    assert_eq!(ir.reply_to.transaction_id, conf.reply_to.transaction_id);
    assert!(ir.recip_nonce.is_empty());
    assert_ne!(ir.reply_to.sender_nonce, conf.reply_to.sender_nonce);
    assert_eq!(conf.recip_nonce.len(), 16);
    let first = ir.reply_to.transaction_id.clone();
    world.open = None;
    world.run_mac().enrolled();
    assert_ne!(world.heard[2].reply_to.transaction_id, first);
}

#[test]
fn a_short_secret_is_warned_of() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", "15 octets only!")).unwrap();
    let json = serde_json::to_value(transaction.record()).unwrap();
    assert_eq!(json["context"]["warnings"][0]["warning"], "short_secret");
}

#[test]
fn without_randomness_nothing_is_sent() {
    let world = World::new();
    let key: Arc<dyn trustfleet_cmp::Signer> = Arc::<SoftwareKey>::clone(&world.key);
    let credentials = mac("dev1", SECRET);
    let started =
        Transaction::start(world.request(), credentials, world.acceptance.clone(), key, &mut NoEntropy, world.now);
    assert_eq!(started.unwrap_err().code(), "entropy_failed");
}

// ---- what cannot work is refused before anything is sent (S32) -------------------------------------------------------

#[test]
fn s32_requests_that_cannot_work_are_refused_by_name() {
    let mut world = World::new();
    let (old_key, old) = world.ca.identity("/CN=dev1", KeyType::P256);
    let (other_key, other) = world.ca.identity("/CN=other", KeyType::P256);
    let kur = EnrollRequest { kind: RequestKind::Kur, old_certificate: Some(old.clone()), ..world.request() };
    let ir = world.request();
    let weak = |hmac| Credentials::Mac {
        reference: b"dev1".to_vec(),
        secret: b"x".to_vec().into(),
        mac: MacPolicy { hmac, ..MacPolicy::of(Hash::Sha256) },
    };
    let few = Credentials::Mac {
        reference: b"dev1".to_vec(),
        secret: b"x".to_vec().into(),
        mac: MacPolicy { iterations: 1, ..MacPolicy::of(Hash::Sha256) },
    };
    let mut expired = Leaf::new("/CN=dev1", old_key.as_ref());
    expired.not_after = "2021-01-01T00:00:00Z";
    let expired = world.ca.issue(&expired);
    let cases = [
        (EnrollRequest { subject: Name::null(), sans: vec![], ..ir.clone() }, mac("dev1", SECRET), "subject_missing"),
        (ir.clone(), mac("", SECRET), "mac_reference_empty"),
        (ir.clone(), mac("dev1", ""), "mac_secret_empty"),
        (ir.clone(), weak(Hash::Sha1), "weak_mac"),
        (ir.clone(), few, "pbm_iterations_out_of_range"),
        (ir.clone(), signature(&other_key, &old), "key_is_not_the_certificates"),
        (ir, signature(&old_key, &expired), "signer_expired"),
        (kur.clone(), mac("dev1", SECRET), "update_needs_signature"),
        (EnrollRequest { old_certificate: None, ..kur.clone() }, signature(&old_key, &old), "old_certificate_missing"),
        (kur.clone(), signature(&other_key, &other), "signer_is_not_old_certificate"),
        (EnrollRequest { subject: name("/CN=x"), ..kur }, signature(&old_key, &old), "update_changes_subject"),
    ];
    for (request, credentials, code) in cases {
        let error = world.start(request, credentials).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(matches!(error, CmpError::Configuration(_)));
    }
}

// ---- answers that do not belong to us --------------------------------------------------------------------------------

#[test]
fn v2_another_transactionid_is_refused_with_expected_and_got_and_the_server_is_told() {
    let mut world = World::twisted(|_, _, answer, to, _| {
        to.transaction_id = vec![7; 16];
        answer
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "transaction_id_wrong");
    let text = end.result.unwrap_err().to_string();
    assert!(text.contains(&"07".repeat(16)), "{text}");
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::BadRequest]));
}

#[test]
fn v3_another_recipnonce_is_refused() {
    for nonce in [vec![7; 16], vec![], vec![7; 15]] {
        let mut world = World::twisted(move |_, _, answer, to, _| {
            to.sender_nonce.clone_from(&nonce);
            answer
        });
        let end = world.run_mac();
        assert_eq!(end.code(), "recip_nonce_wrong");
        let told = world.read(&end.tell_peer.unwrap());
        assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::BadRecipientNonce]));
    }
}

#[test]
fn v7_another_certreqid_is_refused() {
    let mut world = World::twisted(|_, _, answer, _, _| match answer {
        Answer::Granted { kind, certificate, .. } => Answer::Granted {
            kind,
            cert_req_id: 7,
            certificate,
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        other => other,
    });
    assert_eq!(world.run_mac().code(), "cert_req_id_wrong");
}

#[test]
fn v1_an_answer_of_another_kind_is_refused_with_the_list_of_what_would_fit() {
    let mut world = World::twisted(|_, _, _, _, _| Answer::PkiConf);
    let end = world.run_mac();
    assert_eq!(end.code(), "body_unexpected");
    assert_eq!(end.result.unwrap_err().to_string(), "expected ip or error, got pkiconf");
}

#[test]
fn v1_bytes_that_are_no_message_end_the_transaction() {
    let mut world = World::new();
    for garbage in [&b"<html>502 Bad Gateway</html>"[..], b"", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
        let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
        let step = transaction.handle(Input::Response(garbage), &mut world.entropy, world.now);
        assert!(matches!(step, Step::Failed { error, .. } if error.code() == "message_malformed"));
    }
}

// ---- protection ------------------------------------------------------------------------------------------------------

#[test]
fn v5_an_answer_by_another_secret_is_refused() {
    let mut world = World::twisted(|_, _, answer, _, protection| {
        if let ReplyProtection::Mac { secret, .. } = protection {
            *secret = b"another secret".to_vec().into();
        }
        answer
    });
    assert_eq!(world.run_mac().code(), "mac_mismatch");
}

#[test]
fn v5_a_refusal_by_another_secret_keeps_the_words_as_untrusted_detail() {
    let mut world = World::twisted(|_, _, _, _, protection| {
        if let ReplyProtection::Mac { secret, .. } = protection {
            *secret = b"another secret".to_vec().into();
        }
        Answer::Error { failure: vec![FailureBit::BadMessageCheck], text: "no\u{1b}[31m\nforged %s%n\0".to_owned() }
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "refused_unauthenticated");
    assert!(end.tell_peer.is_none());
    let text = end.result.unwrap_err().to_string();
    assert!(text.contains("its answer cannot be authenticated"), "{text}");
    assert!(text.contains("check reference and secret") && text.contains("badMessageCheck"), "{text}");
    assert!(!text.contains(['\u{1b}', '\n', '\0']), "{text}");
}

#[test]
fn p10_an_unprotected_answer_is_refused() {
    let mut world = World::twisted(|_, _, answer, _, protection| {
        *protection = ReplyProtection::Nothing;
        answer
    });
    assert_eq!(world.run_mac().code(), "unprotected");
}

#[test]
fn p7_a_mac_in_answer_to_a_signature_is_refused() {
    let mut world = World::twisted(|_, _, answer, _, protection| {
        let mac = MacPolicy::of(Hash::Sha256);
        *protection =
            ReplyProtection::Mac { reference: b"dev1".to_vec(), secret: SECRET.as_bytes().to_vec().into(), mac };
        answer
    });
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    let request = world.request();
    assert_eq!(world.run(request, signature(&identity_key, &identity)).code(), "wrong_integrity");
}

#[test]
fn p4_an_iteration_count_beyond_the_bounds_is_refused() {
    // the server uses 101: one set of bounds ends below, the other begins above
    for accepted in [1..=100, 102..=200] {
        let mut world = World::twisted(|_, _, answer, _, protection| {
            if let ReplyProtection::Mac { mac, .. } = protection {
                mac.iterations = 101;
            }
            answer
        });
        world.acceptance.pbm_iterations = accepted;
        assert_eq!(world.run_mac().code(), "pbm_iterations_not_accepted");
    }
}

#[test]
fn p12_a_signed_answer_to_a_mac_is_taken_only_with_a_configured_anchor() {
    for anchored in [true, false] {
        let mut world = World::new();
        let signed = world.signed();
        world.twist = Box::new(move |_, _, answer, _, protection| {
            *protection = signed.clone();
            answer
        });
        if anchored {
            let enrolled = world.run_mac().enrolled();
            assert_eq!(enrolled.warnings, [Warning::SignedAnswer]);
            assert!(!enrolled.ca_pubs_trusted);
        } else {
            world.acceptance.anchors.clear();
            assert_eq!(world.run_mac().code(), "signer_untrusted");
        }
    }
}

/// A world whose answers are signed by a certificate of the test's choice.
fn signed_by(world: &mut World, leaf: impl FnOnce(Leaf) -> Leaf, subject: &str) -> trustfleet_pki::Certificate {
    let signing_key = key(KeyType::P256);
    let certificate = world.ca.issue(&leaf(Leaf::new(subject, signing_key.as_ref())));
    let (signer, shown): (Arc<dyn trustfleet_cmp::Signer>, _) = (signing_key, certificate.clone());
    world.twist = Box::new(move |_, _, answer, _, protection| {
        let (signer, certificate) = (Arc::clone(&signer), shown.clone());
        *protection = ReplyProtection::Signature { signer, certificate, chain: vec![] };
        answer
    });
    certificate
}

fn run_signed(world: &mut World) -> world::End {
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    let request = world.request();
    world.run(request, signature(&identity_key, &identity))
}

#[test]
fn v6_a_sibling_device_cannot_answer_although_its_chain_is_good() {
    let mut world = World::new();
    signed_by(&mut world, |leaf| leaf, "/CN=sibling device");
    let end = run_signed(&mut world);
    assert_eq!(end.code(), "signer_not_authorised");
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { failure, .. } if failure == [FailureBit::NotAuthorized]));
}

#[test]
fn v6_a_signer_with_cmcra_from_the_asked_ca_may_answer() {
    let mut world = World::new();
    signed_by(&mut world, |leaf| Leaf { usages: vec![CMC_RA], ..leaf }, "/CN=RA");
    run_signed(&mut world).enrolled();
}

#[test]
fn v6_a_signer_with_cmcra_from_another_ca_below_the_same_root_may_not_answer() {
    let mut world = World::new();
    let root = Authority::root("/CN=Root", KeyType::P256);
    let sub_key = key(KeyType::P256);
    let sub = root.issue(&Leaf { ca: true, ..Leaf::new("/CN=Another CA", sub_key.as_ref()) });
    let sub = Authority { key: sub_key, certificate: sub };
    let (ra_key, shown) = (key(KeyType::P256), sub.certificate.clone());
    let ra = sub.issue(&Leaf { usages: vec![CMC_RA], ..Leaf::new("/CN=RA of another CA", ra_key.as_ref()) });
    let signer: Arc<dyn trustfleet_cmp::Signer> = ra_key;
    world.acceptance.anchors.push(root.certificate.clone());
    world.twist = Box::new(move |_, _, answer, _, protection| {
        let (signer, certificate) = (Arc::clone(&signer), ra.clone());
        *protection = ReplyProtection::Signature { signer, certificate, chain: vec![shown.clone()] };
        answer
    });
    assert_eq!(run_signed(&mut world).code(), "signer_not_authorised");
}

#[test]
fn v6_a_configured_signer_name_may_answer() {
    let mut world = World::new();
    signed_by(&mut world, |leaf| leaf, "/CN=named signer");
    world.acceptance.expected_signer = Some(name("/CN=named signer"));
    run_signed(&mut world).enrolled();
}

#[test]
fn s9_a_pinned_verification_certificate_needs_no_chain_but_its_validity() {
    let mut world = World::new();
    let pinned = signed_by(&mut world, |leaf| leaf, "/CN=pinned");
    world.acceptance = accepting(&[]);
    world.acceptance.verification_certificates = vec![pinned];
    world.acceptance.enrolment_anchors = vec![world.ca.certificate.clone()];
    run_signed(&mut world).enrolled();

    let mut world = World::new();
    let old = signed_by(&mut world, |leaf| Leaf { not_after: "2021-01-01T00:00:00Z", ..leaf }, "/CN=pinned");
    world.acceptance.verification_certificates = vec![old];
    assert_eq!(run_signed(&mut world).code(), "signer_untrusted");
}

#[test]
fn s9_of_several_certificates_of_one_key_any_that_is_good_verifies() {
    for good_last in [false, true] {
        let mut world = World::new();
        let (signer, leaf) =
            (key(KeyType::P256), |not_after, key: &SoftwareKey| Leaf { not_after, ..Leaf::new("/CN=pinned", key) });
        let expired = world.ca.issue(&leaf("2021-01-01T00:00:00Z", &signer));
        let renewed = world.ca.issue(&leaf("2045-01-01T00:00:00Z", &signer));
        let (signer, shown): (Arc<dyn trustfleet_cmp::Signer>, _) = (signer, renewed.clone());
        world.twist = Box::new(move |_, _, answer, _, protection| {
            let (signer, certificate) = (Arc::clone(&signer), shown.clone());
            *protection = ReplyProtection::Signature { signer, certificate, chain: vec![] };
            answer
        });
        let mut pinned = vec![renewed, expired];
        if good_last {
            pinned.reverse();
        }
        world.acceptance.verification_certificates = pinned;
        run_signed(&mut world).enrolled();
    }
}

/// `/O=Lab/CN=Issuing CA` in PrintableStrings, where a name written as text has UTF8Strings.
const PRINTABLE_CA: &str = "/O=#13034c6162/CN=#130a49737375696e67204341";

#[test]
fn v6_the_string_types_of_the_cas_name_do_not_matter_but_its_characters_do() {
    for (recipient, code) in [("/O=Lab/CN=Issuing CA", "enrolled"), ("/O=Lab/CN=Issuing cA", "signer_not_authorised")] {
        let ca = Authority::root(PRINTABLE_CA, KeyType::P256);
        let mut world = World { acceptance: accepting(std::slice::from_ref(&ca.certificate)), ca, ..World::new() };
        assert_ne!(world.ca.certificate.subject(), name("/O=Lab/CN=Issuing CA"), "not the same bytes");
        let signer: Arc<dyn trustfleet_cmp::Signer> = Arc::<SoftwareKey>::clone(&world.ca.key);
        let certificate = world.ca.certificate.clone();
        world.twist = Box::new(move |_, _, answer, _, protection| {
            let (signer, certificate) = (Arc::clone(&signer), certificate.clone());
            *protection = ReplyProtection::Signature { signer, certificate, chain: vec![] };
            answer
        });
        let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
        let request = EnrollRequest { recipient: name(recipient), ..world.request() };
        assert_eq!(world.run(request, signature(&identity_key, &identity)).code(), code);
    }
}

#[test]
fn p11_a_signer_without_digitalsignature_is_refused_unless_that_is_ignored() {
    let without = |leaf| Leaf { digital_signature: false, usages: vec![CMC_RA], ..leaf };
    let mut world = World::new();
    signed_by(&mut world, without, "/CN=RA");
    assert_eq!(run_signed(&mut world).code(), "signer_key_usage");
    let mut world = World::new();
    signed_by(&mut world, without, "/CN=RA");
    world.acceptance.ignore_key_usage = true;
    run_signed(&mut world).enrolled();
}

#[test]
fn v4_a_signer_below_another_root_is_refused() {
    let mut world = World::new();
    world.acceptance.anchors = vec![Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256).certificate];
    assert_eq!(run_signed(&mut world).code(), "signer_untrusted");
}

// ---- certificates that do not fit --------------------------------------------------------------------------------------

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
    for modifications in [Modifications::Warn, Modifications::Refuse] {
        let mut world = World::new();
        let changed = world.ca.issue(&Leaf::new("/CN=renamed", world.key.as_ref()));
        granting(&mut world, changed);
        world.acceptance.modifications = modifications;
        let end = world.run_mac();
        match modifications {
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
    for modifications in [Modifications::Warn, Modifications::Refuse] {
        let mut world = World::new();
        let two = ["dev1.example", "other.example"].map(|dns| San::parse("dns", dns).unwrap());
        let names = trustfleet_pki::san::extension_value(&two).unwrap();
        let added = world.ca.issue(&Leaf { san_der: Some(names), ..Leaf::new("/CN=dev1", world.key.as_ref()) });
        granting(&mut world, added);
        world.acceptance.modifications = modifications;
        let end = world.run_mac();
        match modifications {
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

// ---- delays ----------------------------------------------------------------------------------------------------------

#[test]
fn w1_w3_waiting_is_polled_for_not_before_the_servers_time() {
    let mut world = World::new();
    let mut first = None;
    world.twist = Box::new(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 | 2 => Answer::PollRep { cert_req_id: 0, check_after: 60, reason: "a human decides".to_owned() },
        3 => first.take().unwrap(),
        _ => answer,
    });
    let end = world.run_mac();
    assert_eq!(end.waits, [60, 60]);
    assert!(matches!(world.heard[1].request, Request::Poll { cert_req_id: 0 }));
    end.enrolled();
}

#[test]
fn w2_an_error_that_says_waiting_is_polled_for_with_minus_one_even_after_certconf() {
    let mut world = World::twisted(|nth, _, answer, _, _| match nth {
        1 => Answer::ErrorWaiting,
        2 => Answer::PollRep { cert_req_id: -1, check_after: 5, reason: String::new() },
        _ => answer,
    });
    let end = world.run_mac();
    assert_eq!(end.waits, [5]);
    assert!(matches!(world.heard[2].request, Request::Poll { cert_req_id: -1 }));
    assert_eq!(
        kinds(&end.enrolled().transcript),
        ["ir", "ip", "certConf", "error", "pollReq", "pollRep", "pollReq", "pkiconf"]
    );
}

#[test]
fn w6_a_delayed_answer_may_carry_the_nonce_of_the_delayed_request() {
    let mut world = World::new();
    let (mut first, mut nonce) = (None, vec![]);
    world.twist = Box::new(move |nth, received, answer, to, _| match nth {
        0 => {
            nonce.clone_from(&received.reply_to.sender_nonce);
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 => {
            to.sender_nonce.clone_from(&nonce);
            first.take().unwrap()
        }
        _ => answer,
    });
    world.run_mac().enrolled();
}

fn polling_world(check_after: i64) -> World {
    World::twisted(move |nth, _, _, _, _| match nth {
        0 => Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 },
        _ => Answer::PollRep { cert_req_id: 0, check_after, reason: String::new() },
    })
}

#[test]
fn w4_polling_ends_with_the_total_time_however_long_the_server_wants() {
    let mut world = polling_world(i64::MAX);
    world.acceptance.total_seconds = 300;
    let end = world.run_mac();
    assert_eq!(end.code(), "total_time_exceeded");
    assert!(end.waits.iter().sum::<u64>() <= 300, "{:?}", end.waits);
    let told = world.read(&end.tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { .. }));
}

#[test]
fn w4_a_server_that_only_ever_says_waiting_is_not_asked_in_a_circle() {
    for with in [Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }, Answer::ErrorWaiting] {
        let mut world = World::twisted(move |nth, _, _, _, _| {
            assert!(nth < 100, "asked without end");
            with.clone()
        });
        world.acceptance.total_seconds = 60;
        let end = world.run_mac();
        assert_eq!(end.code(), "total_time_exceeded");
        assert_eq!(end.waits.iter().sum::<u64>(), 60);
        assert!(world.heard.len() <= 10, "{}", world.heard.len());
    }
}

#[test]
fn w4_a_clock_that_is_set_back_stretches_neither_a_wait_nor_the_whole() {
    let mut world = polling_world(60);
    world.acceptance.total_seconds = 300;
    let transaction = until_waiting(&mut world);
    world.now -= SignedDuration::from_hours(24 * 365 * 10);
    let Step::Wait { transaction, seconds } = restarted(&world, &transaction) else { panic!() };
    assert!(seconds <= 60, "{seconds}");
    let end = world.go_on(Step::Wait { transaction, seconds });
    assert_eq!(end.code(), "total_time_exceeded");
    assert!(end.waits.iter().sum::<u64>() <= 300, "{:?}", end.waits);
}

#[test]
fn w3_a_negative_checkafter_is_refused_and_zero_still_waits() {
    assert_eq!(polling_world(-1).run_mac().code(), "check_after_absurd");
    let mut world = polling_world(0);
    world.acceptance.total_seconds = 3;
    assert_eq!(world.run_mac().waits, [1, 1, 1]);
}

fn until_waiting(world: &mut World) -> Box<Transaction> {
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
            }
            Step::Wait { transaction, .. } => return transaction,
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn w3_a_timer_that_fires_early_waits_on() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let early = world.now + SignedDuration::from_secs(20);
    let step = transaction.handle(Input::TimerFired, &mut world.entropy, early);
    assert!(matches!(step, Step::Wait { seconds: 40, .. }), "{step:?}");
}

#[test]
fn s37_polling_is_stopped_by_hand_and_the_server_is_told() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let Step::Failed { error, tell_peer, .. } = transaction.handle(Input::Stop, &mut world.entropy, world.now) else {
        panic!();
    };
    assert_eq!(error.code(), "stopped");
    let told = world.read(&tell_peer.unwrap());
    assert!(matches!(told.request, Request::Error { .. }));
    assert_eq!(world.open.as_ref().unwrap().check(&told), Ok(()), "H12: with the server's last nonce");
}

#[test]
fn a_response_while_waiting_is_refused() {
    let mut world = polling_world(60);
    let transaction = until_waiting(&mut world);
    let step = transaction.handle(Input::Response(b""), &mut world.entropy, world.now);
    assert!(matches!(step, Step::Failed { error, .. } if error.code() == "unexpected_input"));
}

// ---- restarts --------------------------------------------------------------------------------------------------------

fn restarted(world: &World, transaction: &Transaction) -> Step {
    let json = serde_json::to_string(&transaction.record()).unwrap();
    let record = serde_json::from_str(&json).unwrap();
    let credentials = mac("dev1", SECRET);
    Transaction::resume(record, credentials, world.acceptance.clone(), world.key.as_ref(), world.now).unwrap()
}

#[test]
fn w6_a_transaction_survives_a_restart_before_every_message() {
    let mut first = None;
    let mut world = World::twisted(move |nth, _, answer, _, _| match nth {
        0 => {
            first = Some(answer);
            Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 }
        }
        1 => Answer::PollRep { cert_req_id: 0, check_after: 60, reason: String::new() },
        2 => first.take().unwrap(),
        _ => answer,
    });
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let Step::Send { transaction, message: again } = restarted(&world, &transaction) else { panic!() };
                assert_eq!(again, message, "T5: exactly the same bytes");
                let answer = world.serve(&again);
                transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
            }
            Step::Wait { transaction, .. } => {
                let Step::Wait { transaction, seconds } = restarted(&world, &transaction) else { panic!() };
                world.now += SignedDuration::from_secs(seconds as i64);
                transaction.handle(Input::TimerFired, &mut world.entropy, world.now)
            }
            Step::Done(enrolled) => {
                assert_eq!(
                    kinds(&enrolled.transcript),
                    ["ir", "ip", "pollReq", "pollRep", "pollReq", "ip", "certConf", "pkiconf"]
                );
                return;
            }
            failed @ Step::Failed { .. } => panic!("{failed:?}"),
        };
    }
}

#[test]
fn t5_a_lost_answer_is_asked_for_again_with_the_same_bytes() {
    let mut world = World::new();
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let Step::Send { message: again, .. } = transaction.handle(Input::TimerFired, &mut world.entropy, world.now) else {
        panic!();
    };
    assert_eq!(again, message);
}

#[test]
fn t5_after_the_total_time_a_restart_asks_for_nothing_but_confirms_what_is_here() {
    let mut world = World::new();
    world.acceptance.total_seconds = 300;
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let began = world.now;
    world.now += SignedDuration::from_secs(301);
    let Step::Failed { error, tell_peer: None, orphan: None, .. } = restarted(&world, &transaction) else { panic!() };
    assert_eq!(error.code(), "total_time_exceeded");

    world.now = began;
    let answer = world.serve(&message);
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let Step::Send { transaction, message: confirmation } = step else { panic!() };
    world.now += SignedDuration::from_secs(301);
    let Step::Send { transaction, message } = restarted(&world, &transaction) else { panic!() };
    assert_eq!(message, confirmation);
    world.go_on(Step::Send { transaction, message }).enrolled();
}

#[test]
fn a_kept_transaction_holds_neither_secret_nor_private_key() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let json = serde_json::to_string(&transaction.record()).unwrap();
    let debug = format!("{transaction:?}");
    for shown in [&json, &debug] {
        assert!(!shown.contains(SECRET));
        // nor a piece of its base64 form, at any of the three alignments
        for form in ["LXdpdGgtMTI4", "13aXRoLTEyOC1i", "aXRoLTEyOC1i"] {
            assert!(!shown.contains(form));
        }
    }
}

#[test]
fn p7_a_kept_transaction_goes_on_only_with_its_own_key_and_credentials() {
    let mut world = World::new();
    let (transaction, _) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let resume = |credentials, key: &SoftwareKey| {
        let acceptance = world.acceptance.clone();
        Transaction::resume(transaction.record(), credentials, acceptance, key, world.now).unwrap_err()
    };
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    let cases = [
        (resume(mac("dev1", SECRET), &key(KeyType::P256)), "key"),
        (resume(mac("dev2", SECRET), &world.key), "credentials"),
        (resume(signature(&identity_key, &identity), &world.key), "credentials"),
    ];
    for (error, what) in cases {
        assert!(
            matches!(error, CmpError::Configuration(ConfigurationError::RecordMismatch { what: got }) if got == what),
            "{error}"
        );
    }
}
