//! Who may answer, and how an answer is protected.

use super::*;

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
