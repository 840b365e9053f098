//! An independent decoder, RustCrypto's cmpv2 0.2, reads what our engine writes: the same fields, and the same bytes again.
//!
//! It proves the encoding apart from our own codec. Left out is what that crate cannot do: pollReq and pollRep (wrong
//! types), hashAlg and pvno 3, and the meaning of failInfo (it takes bit numbers for masks; only the bits 0 to 4 pass
//! through it unchanged, and the private fields of its error message show in its `Debug` form alone).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use cmpv2::{
    body::PkiBody as TheirBody,
    certified_key_pair::CertOrEncCert,
    header::Pvno,
    message::{PkiMessage as Theirs, ProtectedPart},
    status::PkiStatus,
};
use der::{Decode, Encode, asn1::OctetString};
use support::{key, mac, name, signature};
use trustfleet_cmp::{
    Credentials, EnrollRequest, FailureBit, Input, RequestKind, Signer, Step,
    codec::PkiMessage,
    key::KeyType,
    responder::{Answer, ReplyProtection},
};
use trustfleet_pki::{certificate::Certificate, digest::sha256, name::Name};
use world::{SECRET, World};
use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};

/// All messages of one transaction, ours and the server's in turn.
fn exchange(world: &mut World, request: EnrollRequest, credentials: Credentials) -> Vec<Vec<u8>> {
    let (transaction, message) = world.start(request, credentials).unwrap();
    let mut messages = vec![];
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                let next = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
                messages.extend([message, answer]);
                next
            }
            Step::Concluded(conclusion) => panic!("concluded: {conclusion:?}"),
            Step::Done(_) => return messages,
            Step::Failed { tell_peer, .. } => {
                messages.extend(tell_peer);
                return messages;
            }
            waiting @ Step::Wait { .. } => panic!("{waiting:?}"),
        };
    }
}

/// Reads a message by the other decoder, compares the header with ours, and has it encode the same bytes.
fn agreed(message: &[u8]) -> Theirs<'_> {
    let theirs = Theirs::from_der(message).unwrap();
    let ours = PkiMessage::from_der(message).unwrap();
    let header = &theirs.header;
    assert_eq!(header.pvno, Pvno::Cmp2000);
    assert_eq!(header.sender.to_der().unwrap(), ours.header.sender.to_der().unwrap());
    assert_eq!(header.recipient.to_der().unwrap(), ours.header.recipient.to_der().unwrap());
    let time = header.message_time.unwrap().to_unix_duration().as_secs();
    assert_eq!(time as i64, ours.header.message_time.as_ref().unwrap().timestamp().unwrap().as_second());
    assert_eq!(header.protection_alg, ours.header.protection_alg);
    assert_eq!(header.sender_kid, ours.header.sender_kid);
    assert_eq!(header.recip_kid, ours.header.recip_kid);
    assert_eq!(header.trans_id, ours.header.transaction_id);
    assert_eq!(header.sender_nonce, ours.header.sender_nonce);
    assert_eq!(header.recip_nonce, ours.header.recip_nonce);
    let infos: Vec<_> = header.general_info.iter().flatten().map(|info| (info.oid, info.value.clone())).collect();
    let our_infos = ours.header.general_info.iter().flatten();
    assert_eq!(infos, our_infos.map(|info| (info.info_type, info.info_value.clone())).collect::<Vec<_>>());
    assert_eq!(theirs.protection.as_ref().map(|bits| bits.raw_bytes().to_vec()), ours.protection);
    let certificates: Vec<_> = theirs.extra_certs.iter().flatten().map(|cert| cert.to_der().unwrap()).collect();
    assert_eq!(certificates, ours.extra_certs.iter().map(|raw| raw.to_tlv().unwrap()).collect::<Vec<_>>());

    let covered = ProtectedPart { header: header.clone(), body: theirs.body.clone() };
    assert_eq!(covered.to_der().unwrap(), ours.protected_part().unwrap(), "P1: the bytes under the protection");
    assert_eq!(theirs.to_der().unwrap(), message, "the same bytes again");
    theirs
}

/// What a request asks for, as the other decoder sees it; gives the controls in its `Debug` form.
fn asked(body: &TheirBody<'_>, world: &World, subject: &Name) -> Vec<(String, Vec<u8>)> {
    let (TheirBody::Ir(requests) | TheirBody::Cr(requests) | TheirBody::KUr(requests)) = body else {
        panic!("{body:?}")
    };
    let [request] = requests.as_slice() else { panic!("R1") };
    assert_eq!(request.cert_req.cert_req_id.as_bytes(), [0], "R1");
    let template = &request.cert_req.cert_template;
    assert_eq!(template.subject.as_ref().unwrap().to_der().unwrap(), subject.as_der());
    let public_key = template.subject_public_key_info.as_ref().unwrap().to_der().unwrap();
    assert_eq!(public_key, world.key.public_key_der());
    let [extension] = template.extensions.as_ref().unwrap().as_slice() else { panic!() };
    let names = SubjectAltName::from_der(extension.extn_value.as_bytes()).unwrap().0;
    assert!(matches!(names.as_slice(), [GeneralName::DnsName(dns)] if dns.as_str() == "dev1.example"));
    let popo = format!("{:?}", request.popo);
    assert!(popo.starts_with("Some(Signature(PopoSigningKey { poposk_input: None"), "R3: {popo}");
    let controls = request.cert_req.controls.iter().flatten();
    controls.map(|control| (control.oid.to_string(), control.value.to_der().unwrap())).collect()
}

/// The certificate of an answer.
fn granted(body: &TheirBody<'_>) -> Certificate {
    let (TheirBody::Ip(answer) | TheirBody::Cp(answer) | TheirBody::Kup(answer)) = body else { panic!("{body:?}") };
    let [response] = answer.response.as_slice() else { panic!("V7") };
    assert_eq!((response.cert_req_id.as_bytes(), response.status.status), (&[0][..], PkiStatus::Accepted));
    let CertOrEncCert::Certificate(certificate) = &response.certified_key_pair.as_ref().unwrap().cert_or_enc_cert
    else {
        panic!("not a certificate");
    };
    Certificate::from_der(&certificate.to_der().unwrap()).unwrap()
}

#[test]
fn an_enrolment_by_mac_reads_the_same_from_ir_to_pkiconf() {
    let mut world = World::new();
    let ca = world.ca.certificate.clone();
    world.twist = Box::new(move |_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, certificate, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate,
            with_mods: false,
            ca_pubs: vec![ca.clone()],
            extra_certs: vec![ca.clone()],
            implicit_confirm: false,
        },
        other => other,
    });
    let request = EnrollRequest { implicit_confirm: true, ..world.request() };
    let messages = exchange(&mut world, request, mac("dev1", SECRET));
    let [ir, ip, cert_conf, pki_conf] = &messages[..] else { panic!("{} messages", messages.len()) };

    let ir = agreed(ir);
    assert!(asked(&ir.body, &world, &name("/CN=dev1")).is_empty());
    let [info] = ir.header.general_info.as_deref().unwrap() else { panic!("H13") };
    assert_eq!(info.oid.to_string(), "1.3.6.1.5.5.7.4.13", "H13: implicitConfirm");
    assert!(info.value.as_ref().unwrap().is_null(), "H13");

    let ip = agreed(ip);
    let certificate = granted(&ip.body);
    assert_eq!(certificate.spki_der(), world.key.public_key_der());
    let TheirBody::Ip(answer) = &ip.body else { panic!() };
    assert_eq!(answer.ca_pubs.as_ref().unwrap().len(), 1);

    let cert_conf = agreed(cert_conf);
    let TheirBody::CertConf(statuses) = &cert_conf.body else { panic!() };
    let [status] = statuses.as_slice() else { panic!("C5") };
    assert_eq!(status.cert_hash.as_bytes(), sha256(certificate.as_der()), "C3");
    assert_eq!((status.cert_req_id.as_bytes(), &status.status_info), (&[0][..], &None), "C5, C6");
    assert_eq!(cert_conf.header.recip_nonce, ip.header.sender_nonce, "H12");

    assert!(matches!(agreed(pki_conf).body, TheirBody::PkiConf(_)));
}

#[test]
fn a_kur_by_signature_reads_the_same_with_its_oldcertid() {
    let mut world = World::new();
    let (old_key, old) = world.ca.identity("/O=Lab/CN=dev1", KeyType::Rsa2048);
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        subject: Name::null(),
        old_certificate: Some(old.clone()),
        ..world.request()
    };
    let messages = exchange(&mut world, request, signature(&old_key, &old));
    let [kur, kup, cert_conf, pki_conf] = &messages[..] else { panic!("{} messages", messages.len()) };

    let kur = agreed(kur);
    assert_eq!(kur.header.sender, GeneralName::DirectoryName(old.parsed().tbs_certificate.subject.clone()), "H3");
    assert_eq!(kur.header.sender_kid, Some(OctetString::new(old.subject_key_id().unwrap()).unwrap()), "H6");
    assert_eq!(kur.extra_certs.as_ref().unwrap().first(), Some(old.parsed()), "X1");
    let controls = asked(&kur.body, &world, &old.subject());
    let [(id, value)] = controls.as_slice() else { panic!("R6: {controls:?}") };
    assert_eq!(id, "1.3.6.1.5.5.7.5.1.5", "R6: oldCertID");
    let issuer = GeneralName::DirectoryName(old.parsed().tbs_certificate.issuer.clone()).to_der().unwrap();
    let serial = old.parsed().tbs_certificate.serial_number.to_der().unwrap();
    let old_cert_id = der::asn1::Any::new(der::Tag::Sequence, [issuer, serial].concat()).unwrap();
    assert_eq!(*value, old_cert_id.to_der().unwrap(), "R6: issuer and serialNumber");

    assert_eq!(granted(&agreed(kup).body).subject(), old.subject());
    assert!(matches!(agreed(cert_conf).body, TheirBody::CertConf(_)));
    assert!(matches!(agreed(pki_conf).body, TheirBody::PkiConf(_)));
}

#[test]
fn a_rejecting_certconf_reads_the_same() {
    let mut world = World::new();
    let other = world.ca.issue(&support::Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    world.twist = Box::new(move |_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate: other.clone(),
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        other => other,
    });
    let request = world.request();
    let messages = exchange(&mut world, request, mac("dev1", SECRET));
    // failInfo incorrectData (7) does not pass through that crate unchanged, so no bytes are compared
    let cert_conf = Theirs::from_der(&messages[2]).unwrap();
    let TheirBody::CertConf(statuses) = &cert_conf.body else { panic!() };
    let info = statuses[0].status_info.as_ref().unwrap();
    assert_eq!(info.status, PkiStatus::Rejection, "C7");
    assert_eq!(info.status_string.as_ref().unwrap()[0].as_str(), "the certificate does not fit the request");
}

#[test]
fn errors_and_rejections_read_the_same_with_the_failinfo_bits_that_pass_through() {
    for bit in [FailureBit::BadMessageCheck, FailureBit::BadRequest, FailureBit::BadTime, FailureBit::BadCertId] {
        for (nth, protected) in [(0, true), (1, true), (0, false)] {
            let mut world = World::twisted(move |n, _, answer, _, protection| {
                if n != nth {
                    return answer;
                }
                if !protected {
                    *protection = ReplyProtection::Nothing;
                }
                Answer::Error { failure: vec![bit], text: "ask the operator".to_owned() }
            });
            let request = world.request();
            let messages = exchange(&mut world, request, mac("dev1", SECRET));
            let error = agreed(messages.last().unwrap());
            let body = format!("{:?}", error.body);
            assert!(body.starts_with("Error(ErrorMsgContent { pki_status_info: PkiStatusInfo { status: Rejection, "));
            assert!(
                body.contains("ask the operator") && body.contains("error_code: None, error_details: None"),
                "{body}"
            );
            assert_eq!(error.protection.is_some(), protected);
        }
    }
    let mut world = World::twisted(|_, _, _, _, _| Answer::Refused {
        kind: RequestKind::Ir,
        cert_req_id: 0,
        failure: vec![FailureBit::BadTime],
        text: "too late".to_owned(),
    });
    let request = world.request();
    let messages = exchange(&mut world, request, mac("dev1", SECRET));
    let TheirBody::Ip(answer) = agreed(&messages[1]).body else { panic!() };
    assert_eq!(answer.response[0].status.status, PkiStatus::Rejection);
    assert!(answer.response[0].certified_key_pair.is_none(), "V8");
}

#[test]
fn r8_r9_revocations_and_questions_read_the_same() {
    use trustfleet_cmp::{InfoRequest, Question, Request, RevocationReason, RevokeRequest};
    let mut world = World::new();
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::P256);
    let question = |question| {
        let recipient = certificate.issuer();
        Request::Info(Box::new(InfoRequest { question, recipient, sender: None, extra_certs: vec![] }))
    };
    let requests = [
        Request::Revoke(Box::new(RevokeRequest::of(&certificate, RevocationReason::AaCompromise))),
        question(Question::SignKeyPairTypes),
        question(Question::RootCaUpdate { old: world.ca.certificate.clone() }),
        question(Question::SupportedLanguages(vec!["de".to_owned()])),
    ];
    for request in requests {
        world.open = None;
        let credentials = signature(&key, &certificate);
        let acceptance = world.acceptance.clone();
        let begun = trustfleet_cmp::Transaction::begin(request, credentials, acceptance, &mut world.entropy, world.now);
        let (_, message) = begun.unwrap();
        let answer = world.serve(&message);
        agreed(&answer);
        match agreed(&message).body {
            TheirBody::Rr(details) => {
                let [details] = details.as_slice() else { panic!("R8") };
                let template = &details.cert_details;
                let serial = template.serial_number.as_ref().unwrap();
                assert_eq!(serial.as_bytes(), certificate.serial_der_bytes());
                assert_eq!(template.issuer.as_ref().unwrap().to_der().unwrap(), certificate.issuer().as_der());
                let [reason] = details.crl_entry_details.as_deref().unwrap() else { panic!("R8") };
                assert_eq!(reason.extn_value.as_bytes(), [0x0a, 1, 10]);
            }
            TheirBody::GenM(infos) => assert_eq!(infos.len(), 1, "R9"),
            other => panic!("{other:?}"),
        }
    }
}
