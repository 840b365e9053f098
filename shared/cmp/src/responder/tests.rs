//! What the server's half refuses, with messages that the client's half would never make.

use std::sync::Arc;

use der::{
    Encode,
    asn1::{Any, BitString, Int, Null},
};

use super::*;
use crate::{
    codec::{
        PkiStatusInfo, RawSequence,
        header::{CMP1999, CMP2000},
        raw::directory_name,
        request::{CertTemplate, Control, PopoSigningKey},
    },
    key::{KeyType, Signer, SoftwareKey},
    protection::{Hash, Sealer, mac::PbmKey},
    request::{HeaderFields, header},
};

struct Known;

impl Trust for Known {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (reference == b"dev1").then(|| Zeroizing::new(b"secret".to_vec()))
    }

    fn anchors(&self) -> Vec<Certificate> {
        Vec::new()
    }
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

struct Message {
    pvno: u64,
    reference: &'static [u8],
    nonce: Vec<u8>,
    transaction_id: Vec<u8>,
    sent_at: Timestamp,
    body: PkiBody,
}

impl Message {
    fn of(body: PkiBody) -> Self {
        Self {
            pvno: CMP2000,
            reference: b"dev1",
            nonce: vec![1; 16],
            transaction_id: vec![2; 16],
            sent_at: now(),
            body,
        }
    }

    fn seal(self) -> Vec<u8> {
        let mac = MacPolicy { iterations: 100, ..MacPolicy::of(Hash::Sha256) };
        let key = Arc::new(PbmKey::derive(&mac, b"secret", &[3; 16]).unwrap());
        let sender = Name::parse("/CN=dev1").unwrap();
        let fields = HeaderFields {
            sender: sender.as_der(),
            recipient: sender.as_der(),
            transaction_id: &self.transaction_id,
            sender_nonce: &self.nonce,
            recip_nonce: None,
            implicit_confirm: false,
            now: self.sent_at,
        };
        let sealer = Sealer::Mac { key, reference: self.reference.to_vec() };
        sealer.seal(header(&fields, self.pvno).unwrap(), self.body, &[]).unwrap()
    }

    fn refused(self) -> Rejected {
        let policy = ResponderPolicy { clock_skew_seconds: Some(300), ..ResponderPolicy::default() };
        *receive(&self.seal(), &Known, &policy, now()).unwrap_err()
    }

    fn bit(self) -> FailureBit {
        self.refused().error.failure_bit()
    }
}

fn template(key: &SoftwareKey) -> CertTemplate {
    CertTemplate {
        subject: Some(RawSequence::from_tlv(Name::parse("/CN=dev1").unwrap().as_der()).unwrap()),
        public_key: Some(RawSequence::from_tlv(key.public_key_der()).unwrap()),
        ..CertTemplate::default()
    }
}

fn request(cert_template: CertTemplate, controls: Option<Vec<Control>>, signer: &SoftwareKey) -> CertReqMsg {
    let cert_req = CertRequest { cert_req_id: 0, cert_template, controls }.to_der().unwrap();
    let popo = PopoSigningKey {
        poposk_input: None,
        algorithm: signer.algorithm(),
        signature: BitString::from_bytes(&signer.sign(&cert_req).unwrap()).unwrap(),
    };
    let cert_req = RawSequence::from_tlv(&cert_req).unwrap();
    CertReqMsg { cert_req, popo: Some(ProofOfPossession::Signature(popo)), reg_info: None }
}

fn key() -> SoftwareKey {
    SoftwareKey::generate(KeyType::P256).unwrap()
}

#[test]
fn r5_a_proof_of_possession_by_another_key_is_refused() {
    let (asked, other) = (key(), key());
    assert!(matches!(
        Message::of(PkiBody::Ir(vec![request(template(&asked), None, &other)])).bit(),
        FailureBit::BadPop
    ));
}

#[test]
fn r4_raverified_and_a_missing_proof_are_refused() {
    let key = key();
    for popo in [None, Some(ProofOfPossession::RaVerified(Null))] {
        let message = CertReqMsg { popo, ..request(template(&key), None, &key) };
        assert_eq!(Message::of(PkiBody::Ir(vec![message])).bit(), FailureBit::BadPop);
    }
}

#[test]
fn r2_a_template_without_subject_or_key_is_refused() {
    let key = key();
    let without_subject = CertTemplate { subject: None, ..template(&key) };
    let without_key = CertTemplate { public_key: None, ..template(&key) };
    for template in [without_subject, without_key] {
        let message = Message::of(PkiBody::Cr(vec![request(template, None, &key)]));
        assert_eq!(message.bit(), FailureBit::BadCertTemplate);
    }
}

#[test]
fn r1_two_requests_in_one_message_are_refused() {
    let key = key();
    let requests = vec![request(template(&key), None, &key), request(template(&key), None, &key)];
    assert!(matches!(Message::of(PkiBody::Ir(requests)).refused().error, MessageError::ResponseCount { got: 2 }));
}

#[test]
fn p9_a_kur_by_mac_is_refused() {
    let key = key();
    let body = PkiBody::Kur(vec![request(template(&key), None, &key)]);
    assert_eq!(Message::of(body).bit(), FailureBit::WrongIntegrity);
}

#[test]
fn r6_an_oldcertid_that_names_another_certificate_is_refused() {
    let pem = include_str!("../../tests/vectors/ca.crt");
    let signer = Certificate::from_pem(pem).unwrap();
    let id = |serial: &[u8]| {
        let issuer = directory_name(signer.issuer().as_der()).unwrap();
        let id = CertId { issuer, serial_number: Int::new(serial).unwrap() };
        vec![Control { id: oids::OLD_CERT_ID, value: Any::encode_from(&id).unwrap() }]
    };
    let client = Client::Signature { certificate: signer.clone() };
    let with = |controls| CertRequest { cert_req_id: 0, cert_template: CertTemplate::default(), controls };
    assert_eq!(old_certificate(&with(Some(id(signer.serial_der_bytes()))), &client).unwrap(), signer);
    for controls in [None, Some(id(&[1]))] {
        assert_eq!(old_certificate(&with(controls), &client).unwrap_err().failure_bit(), FailureBit::BadCertId);
    }
}

#[test]
fn an_unknown_reference_looks_like_a_wrong_secret() {
    let rejected = Message { reference: b"nobody", ..Message::of(PkiBody::PkiConf) }.refused();
    assert_eq!(rejected.error, MessageError::MacMismatch);
    assert_eq!(rejected.error.failure_bit(), FailureBit::BadMessageCheck);
    assert_eq!(rejected.reply_to.transaction_id, [2; 16]);
    assert!(rejected.client.is_none());
}

#[test]
fn h8_a_message_time_far_off_is_badtime() {
    let sent_at = "2026-11-21T11:00:00Z".parse().unwrap();
    assert_eq!(Message { sent_at, ..Message::of(PkiBody::PkiConf) }.bit(), FailureBit::BadTime);
}

#[test]
fn h11_a_short_nonce_and_h10_a_short_transactionid_are_refused() {
    assert_eq!(Message { nonce: vec![1; 15], ..Message::of(PkiBody::PkiConf) }.bit(), FailureBit::BadSenderNonce);
    let short = Message { transaction_id: vec![2; 8], ..Message::of(PkiBody::PkiConf) };
    assert_eq!(short.bit(), FailureBit::BadRequest);
}

#[test]
fn h1_versions_other_than_2_and_3_are_refused() {
    for (pvno, fits) in [(0, false), (CMP1999, false), (CMP2000, true), (3, true), (4, false)] {
        let message = Message { pvno, ..Message::of(PkiBody::PkiConf) }.seal();
        let received = receive(&message, &Known, &ResponderPolicy::default(), now());
        assert_eq!(received.is_ok(), fits, "pvno {pvno}");
        if let Err(rejected) = received {
            assert_eq!(rejected.error.failure_bit(), FailureBit::UnsupportedVersion);
        }
    }
}

#[test]
fn bytes_that_are_no_message_are_answered_by_baddataformat() {
    let rejected = receive(b"nonsense", &Known, &ResponderPolicy::default(), now()).unwrap_err();
    let Answer::Error { failure, .. } = Answer::error_for(&rejected) else { panic!() };
    assert_eq!(failure, [FailureBit::BadDataFormat]);
}

#[test]
fn c3_c6_certconf_is_about_the_issued_certificate_and_no_other() {
    let pem = include_str!("../../tests/vectors/dev.crt");
    let issued = Certificate::from_pem(pem).unwrap();
    let message = Message::of(PkiBody::PkiConf).seal();
    let received = receive(&message, &Known, &ResponderPolicy::default(), now()).unwrap();
    let reply = Reply { der: Vec::new(), sender_nonce: vec![9; 16] };
    let open = OpenTransaction::new(&received, RequestKind::Ir, 0, &reply, Some(issued.clone()));
    let status = |certificate: &Certificate, rejection| {
        let (PkiBody::CertConf(mut statuses), 2) = crate::request::cert_conf(certificate, 0, rejection).unwrap() else {
            panic!();
        };
        statuses.remove(0)
    };
    assert_eq!(open.confirmation(&status(&issued, None)), Ok(true));
    assert_eq!(open.confirmation(&status(&issued, Some("no"))), Ok(false));
    let other = Certificate::from_pem(include_str!("../../tests/vectors/ca.crt")).unwrap();
    assert_eq!(open.confirmation(&status(&other, None)).unwrap_err().failure_bit(), FailureBit::BadCertId);
    let accepted = CertStatus { status_info: Some(PkiStatusInfo::plain(PkiStatus::Accepted)), ..status(&issued, None) };
    assert_eq!(open.confirmation(&accepted), Ok(true), "C6");
    let elsewhere = CertStatus { cert_req_id: 1, ..status(&issued, None) };
    assert!(matches!(open.confirmation(&elsewhere), Err(MessageError::CertReqId { .. })));
}

#[test]
fn h12_p7_the_next_message_carries_the_servers_last_nonce_and_comes_from_the_same_client() {
    let message = Message::of(PkiBody::PkiConf).seal();
    let received = receive(&message, &Known, &ResponderPolicy::default(), now()).unwrap();
    let reply = Reply { der: Vec::new(), sender_nonce: vec![9; 16] };
    let open = OpenTransaction::new(&received, RequestKind::Ir, 0, &reply, None);
    assert!(matches!(open.check(&received), Err(MessageError::RecipNonce { .. })));
    let next = Received { recip_nonce: vec![9; 16], ..received.clone() };
    assert_eq!(open.check(&next), Ok(()));
    let mac = MacPolicy::of(Hash::Sha256);
    let other = Received { client: Client::Mac { reference: b"dev2".to_vec(), mac }, ..next };
    assert!(matches!(open.check(&other), Err(MessageError::WrongIntegrity { .. })), "P7");
}
