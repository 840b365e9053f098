//! Rules that no story of its own tells: what each message holds, and who is told what.

use super::*;
use trustfleet_cmp::codec::{CertRequest, PkiBody, ProofOfPossession};
use trustfleet_pki::public_key::PublicKey;

/// The messages that we send on the way to a certificate.
fn sent(world: &mut World, credentials: Credentials) -> Vec<PkiMessage> {
    let (transaction, message) = world.start(world.request(), credentials).unwrap();
    let mut messages = vec![PkiMessage::from_der(&message).unwrap()];
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                let next = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
                if let Step::Send { message, .. } = &next {
                    messages.push(PkiMessage::from_der(message).unwrap());
                }
                next
            }
            Step::Done(_) => return messages,
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn h5_a_reference_that_is_no_text_leaves_the_sender_null_and_fills_the_senderkid() {
    let mut world = World::new();
    let Credentials::Mac { secret, mac, .. } = mac("dev1", SECRET) else { panic!() };
    let credentials = Credentials::Mac { reference: vec![0xff, 0x00, 0x80], secret, mac };
    let (_, message) = world.start(world.request(), credentials).unwrap();
    let header = PkiMessage::from_der(&message).unwrap().header;
    assert!(Name::from_der(directory_name_der(&header.sender).unwrap()).unwrap().is_null());
    assert_eq!(header.sender_kid.unwrap().as_bytes(), [0xff, 0x00, 0x80]);
}

#[test]
fn h6_every_message_has_a_senderkid_the_reference_or_the_certificates_key_identifier() {
    let mut world = World::new();
    let (key, certificate) = world.ca.identity("/CN=identity", KeyType::P256);
    let identifier = certificate.subject_key_id().unwrap();
    for (credentials, expected) in
        [(mac("dev1", SECRET), b"dev1".to_vec()), (signature(&key, &certificate), identifier)]
    {
        world.open = None;
        let messages = sent(&mut world, credentials);
        let ids = messages.iter().map(|message| message.header.sender_kid.as_ref().unwrap().as_bytes());
        assert_eq!(ids.collect::<Vec<_>>(), [&expected, &expected], "ir and certConf");
    }
}

#[test]
fn r3_the_proof_is_a_signature_over_the_certreq_without_poposkinput() {
    let mut world = World::new();
    let (_, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let PkiBody::Ir(requests) = PkiMessage::from_der(&message).unwrap().body else { panic!() };
    let [request] = requests.as_slice() else { panic!("R1: {}", requests.len()) };
    let Some(ProofOfPossession::Signature(proof)) = &request.popo else { panic!("{:?}", request.popo) };
    assert!(proof.poposk_input.is_none());
    let fields: CertRequest = request.cert_req.parse().unwrap();
    assert_eq!(fields.cert_req_id, 0, "R1");
    let key = PublicKey::from_spki_der(&fields.cert_template.public_key.unwrap().to_tlv().unwrap()).unwrap();
    let covered = request.cert_req.to_tlv().unwrap();
    key.verify(&proof.algorithm, &covered, proof.signature.raw_bytes()).unwrap();
}

#[test]
fn c5_certconf_has_one_status_with_the_requests_certreqid() {
    let mut world = World::new();
    let messages = sent(&mut world, mac("dev1", SECRET));
    let PkiBody::CertConf(statuses) = &messages[1].body else { panic!() };
    let [status] = statuses.as_slice() else { panic!("{}", statuses.len()) };
    assert_eq!((status.cert_req_id, &status.hash_alg), (0, &None));
    assert_eq!(messages[1].header.pvno, 2, "H1, C4");
}

#[test]
fn c6_an_accepting_certconf_leaves_statusinfo_out_and_a_rejecting_one_gives_its_failinfo() {
    for fit in [true, false] {
        let mut world = World::new();
        let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
        world.twist = Box::new(move |nth, _, answer, _, _| match answer {
            Answer::Granted { kind, cert_req_id, .. } if nth == 0 && !fit => Answer::Granted {
                kind,
                cert_req_id,
                certificate: other.clone(),
                with_mods: false,
                ca_pubs: vec![],
                extra_certs: vec![],
                implicit_confirm: false,
            },
            answer => answer,
        });
        let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
        let answer = world.serve(&message);
        let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
        let Step::Send { message, .. } = step else { panic!("{step:?}") };
        let PkiBody::CertConf(statuses) = PkiMessage::from_der(&message).unwrap().body else { panic!() };
        match &statuses[0].status_info {
            None => assert!(fit),
            Some(info) => {
                assert!(!fit);
                assert_eq!(info.status, trustfleet_cmp::PkiStatus::Rejection);
                assert_eq!(info.fail_info.as_ref().unwrap().bits(), [FailureBit::IncorrectData]);
            }
        }
    }
}

#[test]
fn x2_the_signers_certificate_comes_first_then_its_chain_then_what_was_added() {
    let mut world = World::new();
    let (key, certificate) = world.ca.identity("/CN=factory identity", KeyType::P256);
    let (_, more) = world.ca.identity("/CN=more", KeyType::P256);
    let Credentials::Signature { signer, certificate, .. } = signature(&key, &certificate) else { panic!() };
    let chain = vec![world.ca.certificate.clone()];
    let expected = [certificate.clone(), chain[0].clone(), more.clone()];
    let request = EnrollRequest { extra_certs: vec![more], ..world.request() };
    let (_, message) = world.start(request, Credentials::Signature { signer, certificate, chain }).unwrap();
    let extra = PkiMessage::from_der(&message).unwrap().extra_certs;
    let ders: Vec<_> = extra.iter().map(|raw| raw.to_tlv().unwrap()).collect();
    assert_eq!(ders, expected.map(|certificate| certificate.as_der().to_vec()));
}

#[test]
fn x4_certificates_of_the_first_answer_help_with_the_later_ones() {
    let mut world = World::new();
    let key = key(KeyType::P256);
    let between = world.ca.issue(&Leaf { ca: true, ..Leaf::new("/O=Lab/CN=Between", key.as_ref()) });
    let sub = Authority { key, certificate: between.clone() };
    let (signer, certificate) = sub.identity("/O=Lab/CN=Answers", KeyType::P256);
    world.acceptance.expected_signer = Some(certificate.subject());
    world.twist = Box::new(move |nth, _, answer, _, protection| {
        let chain = if nth == 0 { vec![between.clone()] } else { vec![] };
        let signer = Arc::<SoftwareKey>::clone(&signer);
        *protection = ReplyProtection::Signature { signer, certificate: certificate.clone(), chain };
        answer
    });
    world.run_mac().enrolled();
}

#[test]
fn p8_an_error_by_us_is_protected_like_the_first_message() {
    for by_mac in [true, false] {
        let mut world = World::twisted(|_, _, answer, to, _| {
            to.sender_nonce = vec![1; 16];
            answer
        });
        let (key, certificate) = world.ca.identity("/CN=factory identity", KeyType::P256);
        let credentials = if by_mac { mac("dev1", SECRET) } else { signature(&key, &certificate) };
        let request = world.request();
        let end = world.run(request, credentials);
        let told = world.read(&end.tell_peer.unwrap());
        assert_eq!(told.client, world.heard[0].client);
    }
}

#[test]
fn e5_what_must_not_be_used_is_told_to_the_server_by_its_own_failinfo() {
    type Spoil = fn(&mut trustfleet_cmp::responder::ReplyTo, &mut ReplyProtection);
    let cases: [(Spoil, FailureBit); 3] = [
        (|to, _| to.sender_nonce = vec![1; 16], FailureBit::BadRecipientNonce),
        (|to, _| to.transaction_id = vec![1; 16], FailureBit::BadRequest),
        (|_, protection| *protection = ReplyProtection::Nothing, FailureBit::BadMessageCheck),
    ];
    for (spoil, expected) in cases {
        let mut world = World::twisted(move |_, _, answer, to, protection| {
            spoil(to, protection);
            answer
        });
        let end = world.run_mac();
        assert!(end.orphan.is_none(), "nothing of the message is used");
        let told = world.read(&end.tell_peer.unwrap());
        assert!(matches!(told.request, Request::Error { failure, .. } if failure == [expected]));
    }
}

#[test]
fn w5_a_final_answer_of_another_kind_ends_the_request() {
    let mut world = World::twisted(|nth, _, _, _, _| match nth {
        0 => Answer::Waiting { kind: RequestKind::Ir, cert_req_id: 0 },
        _ => Answer::PkiConf,
    });
    let end = world.run_mac();
    assert_eq!(end.code(), "body_unexpected");
    assert_eq!(kinds(&end.transcript), ["ir", "ip", "pollReq", "pkiconf"]);
}

#[test]
fn e6_warnings_with_a_certificate_are_no_failures() {
    use trustfleet_cmp::codec::{
        CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair, PkiStatus, PkiStatusInfo, RawSequence,
    };
    for (status, warning) in [
        (PkiStatus::RevocationWarning, Warning::RevocationWarning),
        (PkiStatus::KeyUpdateWarning, Warning::KeyUpdateWarning),
    ] {
        let mut world = World::new();
        let leaf = Leaf::new("/CN=dev1", world.key.as_ref());
        let names = trustfleet_pki::san::extension_value(&[San::parse("dns", "dev1.example").unwrap()]).unwrap();
        let certificate = world.ca.issue(&Leaf { san_der: Some(names), ..leaf });
        world.open = None;
        let issued = certificate.clone();
        world.twist = Box::new(move |nth, _, answer, _, _| {
            if nth > 0 {
                return answer;
            }
            let raw = RawSequence::from_tlv(issued.as_der()).unwrap();
            let pair = CertifiedKeyPair {
                cert_or_enc_cert: CertOrEncCert::Certificate(raw),
                private_key: None,
                publication_info: None,
            };
            let response = CertResponse {
                cert_req_id: 0,
                status: PkiStatusInfo::plain(status),
                certified_key_pair: Some(pair),
                rsp_info: None,
            };
            Answer::Body(Box::new(PkiBody::Ip(CertRepMessage { ca_pubs: None, response: vec![response] })))
        });
        let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
        let answer = world.serve(&message);
        world.open.as_mut().unwrap().certificate = Some(certificate);
        let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
        assert_eq!(world.go_on(step).enrolled().warnings, [warning]);
    }
}
