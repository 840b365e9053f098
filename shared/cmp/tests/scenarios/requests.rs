//! What we send, and what is refused before anything is sent (S32).

use super::*;

#[test]
fn h4_without_a_sender_the_reference_becomes_the_common_name() {
    let mut world = World::new();
    let (_, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let received = world.read(&message);
    assert_eq!(received.reply_to.sender, name("/CN=dev1").as_der());
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
fn h11_without_randomness_nothing_is_sent() {
    let world = World::new();
    let key: Arc<dyn trustfleet_cmp::Signer> = Arc::<SoftwareKey>::clone(&world.key);
    let credentials = mac("dev1", SECRET);
    let started =
        Transaction::start(world.request(), credentials, world.acceptance.clone(), key, &mut NoEntropy, world.now);
    assert_eq!(started.unwrap_err().code(), "entropy_failed");
}

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
