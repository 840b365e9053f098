//! What the lab CA keeps to, with our own client joined to it in memory.

use std::{slice::from_ref, sync::Arc};

use jiff::Timestamp;
use trustfleet_cmp::{
    Acceptance, CmpError, Credentials, EnrollRequest, Enrolled, Entropy, Input, RequestKind, Signer, SoftwareKey, Step,
    SystemEntropy, Transaction,
    codec::FailureBit,
    entropy::EntropyFailed,
    key::KeyType,
    protection::{Hash, MacPolicy},
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::{
    Certificate, Name, San,
    chain::{verify_end_entity, verify_signer},
};

use super::{CaConfig, exchange::Ca, issue::Authority};

pub(super) struct Lab {
    pub(super) ca: Ca,
    pub(super) root: Certificate,
    pub(super) issuing: Certificate,
    cmp_signer: Certificate,
}

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

pub(super) fn lab(change: impl FnOnce(&mut CaConfig)) -> Lab {
    let mut config = CaConfig::new("unused").with_secret("dev1", "secret");
    change(&mut config);
    let authority = Authority::create(&config.organization, config.key_type, config.root_update, now()).unwrap();
    let (root, issuing, cmp_signer) = (authority.root.clone(), authority.issuing.clone(), authority.cmp_signer.clone());
    Lab { ca: Ca::new(authority, config), root, issuing, cmp_signer }
}

impl Lab {
    pub(super) fn request(&self, kind: RequestKind) -> EnrollRequest {
        EnrollRequest {
            kind,
            subject: Name::parse("/O=x/CN=dev1").unwrap(),
            sans: vec![San::parse("dns", "dev1.example.org").unwrap()],
            recipient: self.issuing.subject(),
            sender: None,
            old_certificate: None,
            implicit_confirm: false,
            extra_certs: vec![],
            extensions: vec![],
            cert_profile: None,
            validity: None,
        }
    }

    pub(super) fn acceptance(&self) -> Acceptance {
        Acceptance { anchors: vec![self.root.clone()], ..Acceptance::default() }
    }

    pub(super) fn start(&self, request: EnrollRequest, credentials: Credentials) -> (Transaction, Vec<u8>) {
        let key = Arc::new(SoftwareKey::generate(KeyType::P256).unwrap());
        Transaction::start(request, credentials, self.acceptance(), key, &mut SystemEntropy, now()).unwrap()
    }

    fn finish(&self, (transaction, message): (Transaction, Vec<u8>)) -> Result<Box<Enrolled>, CmpError> {
        let mut step = Step::Send { transaction: Box::new(transaction), message };
        loop {
            step = match step {
                Step::Send { transaction, message } => {
                    let answer = self.ca.answer(&message).unwrap();
                    transaction.handle(Input::Response(&answer), &mut SystemEntropy, now())
                }
                Step::Wait { .. } => panic!("the lab CA does not let anybody wait"),
                Step::Concluded(conclusion) => panic!("concluded: {conclusion:?}"),
                Step::Done(enrolled) => return Ok(enrolled),
                Step::Failed { error, tell_peer, .. } => {
                    if let Some(message) = tell_peer {
                        self.ca.answer(&message).unwrap();
                    }
                    return Err(error);
                }
            };
        }
    }

    pub(super) fn enrol(&self, key: &Arc<SoftwareKey>) -> Certificate {
        let (request, acceptance) = (self.request(RequestKind::Ir), self.acceptance());
        let started =
            Transaction::start(request, mac("dev1", "secret"), acceptance, key.clone(), &mut SystemEntropy, now());
        self.finish(started.unwrap()).unwrap().certificate
    }
}

pub(super) fn mac(reference: &str, secret: &str) -> Credentials {
    let mac = MacPolicy::of(Hash::Sha256);
    Credentials::Mac { reference: reference.into(), secret: secret.as_bytes().to_vec().into(), mac }
}

pub(super) fn refused_with(error: &CmpError, bit: FailureBit) -> bool {
    matches!(error, CmpError::Refused(refusal) if refusal.failure.contains(&bit))
}

#[test]
fn the_cas_own_certificates_are_what_path_validation_wants() {
    for key_type in [KeyType::P256, KeyType::Rsa2048] {
        let Lab { root, issuing, cmp_signer, .. } = lab(|config| config.key_type = key_type);
        let anchors = from_ref(&root);
        assert_eq!(verify_signer(&issuing, &[], anchors, now()), Ok(()));
        assert_eq!(verify_end_entity(&cmp_signer, from_ref(&issuing), anchors, now()), Ok(()));
        assert_eq!(cmp_signer.extended_key_usages(), [trustfleet_pki::certificate::CMC_CA]);
        assert!(root.is_self_issued() && root.is_ca() && issuing.is_ca() && !cmp_signer.is_ca());
        assert_eq!(issuing.path_len_constraint(), Some(0));
        assert_eq!(root.subject().to_slash(), "/O=Trustfleet Lab/CN=Lab Root CA");
    }
}

#[test]
fn our_client_enrols_by_mac_and_updates_by_signature() {
    let lab = lab(|_| {});
    let key = Arc::new(SoftwareKey::generate(KeyType::P256).unwrap());
    let first = lab.enrol(&key);
    assert_eq!(verify_end_entity(&first, from_ref(&lab.issuing), from_ref(&lab.root), now()), Ok(()));
    assert_eq!(first.subject_alt_names(), ["dns:dev1.example.org"]);
    let mut update = lab.request(RequestKind::Kur);
    update.old_certificate = Some(first.clone());
    let signed = Credentials::Signature { signer: key, certificate: first.clone(), chain: vec![lab.issuing.clone()] };
    let enrolled = lab.finish(lab.start(update, signed)).unwrap();
    assert_ne!(enrolled.certificate.public_key(), first.public_key());
    let kinds: Vec<_> = lab.ca.issued().iter().map(|issued| (issued.kind, issued.confirmed)).collect();
    assert_eq!(kinds, [("ir", true), ("kur", true)]);
}

#[test]
fn a_request_whose_answer_was_lost_can_be_repeated_and_issues_once() {
    let lab = lab(|_| {});
    let (transaction, message) = lab.start(lab.request(RequestKind::Ir), mac("dev1", "secret"));
    let lost = lab.ca.answer(&message).unwrap();
    assert_eq!(lab.ca.answer(&message).unwrap(), lost);
    let Step::Send { transaction, message } = transaction.handle(Input::Response(&lost), &mut SystemEntropy, now())
    else {
        panic!("a certConf is due");
    };
    let confirmed = lab.ca.answer(&message).unwrap();
    assert_eq!(lab.ca.answer(&message).unwrap(), confirmed, "C9");
    let Step::Done(enrolled) = transaction.handle(Input::Response(&confirmed), &mut SystemEntropy, now()) else {
        panic!("confirmed");
    };
    let [issued] = lab.ca.issued().try_into().unwrap();
    assert_eq!((issued.certificate, issued.confirmed), (enrolled.certificate, true));
    assert_eq!(lab.ca.stats().confirmed, 1);
}

/// Gives the same bytes in every transaction.
struct Stuck;

impl Entropy for Stuck {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        buffer.fill(7);
        Ok(())
    }
}

#[test]
fn e4_a_second_transaction_with_the_same_id_is_told_so() {
    let lab = lab(|_| {});
    let start = || {
        let key = Arc::new(SoftwareKey::generate(KeyType::P256).unwrap());
        let request = lab.request(RequestKind::Ir);
        Transaction::start(request, mac("dev1", "secret"), lab.acceptance(), key, &mut Stuck, now()).unwrap()
    };
    lab.ca.answer(&start().1).unwrap();
    let error = lab.finish(start()).unwrap_err();
    assert!(refused_with(&error, FailureBit::TransactionIdInUse), "{error}");
    assert_eq!(lab.ca.issued().len(), 1);
}

#[test]
fn c7_a_certificate_that_the_client_rejects_or_abandons_is_revoked() {
    let lab = lab(|_| {});
    let other = self::lab(|_| {}).root;
    let key = Arc::new(SoftwareKey::generate(KeyType::P256).unwrap());
    let acceptance = Acceptance { enrolment_anchors: vec![other], ..lab.acceptance() };
    let request = lab.request(RequestKind::Ir);
    let started = Transaction::start(request, mac("dev1", "secret"), acceptance, key, &mut SystemEntropy, now());
    let error = lab.finish(started.unwrap()).unwrap_err();
    assert!(matches!(error, CmpError::Certificate(_)), "{error}");
    let [issued] = lab.ca.issued().try_into().unwrap();
    assert!(issued.revoked && !issued.confirmed);
    assert_eq!(lab.ca.stats().rejected, 1);

    let (transaction, message) = lab.start(lab.request(RequestKind::Ir), mac("dev1", "secret"));
    let answer = lab.ca.answer(&message).unwrap();
    let Step::Send { transaction, .. } = transaction.handle(Input::Response(&answer), &mut SystemEntropy, now()) else {
        panic!("a certConf is due");
    };
    let Step::Failed { tell_peer, .. } = transaction.handle(Input::Stop, &mut SystemEntropy, now()) else {
        panic!("stopped");
    };
    lab.ca.answer(&tell_peer.unwrap()).unwrap();
    assert!(lab.ca.issued()[1].revoked, "E1");
}

#[test]
fn a_wrong_secret_is_refused_in_a_way_that_the_client_can_believe() {
    let lab = lab(|_| {});
    for credentials in [mac("dev1", "guess"), mac("nobody", "secret")] {
        let error = lab.finish(lab.start(lab.request(RequestKind::Ir), credentials)).unwrap_err();
        assert!(refused_with(&error, FailureBit::BadMessageCheck), "{error}");
        assert_eq!(error.code(), "refused", "signed by the CMP signer, so it is authentic");
    }
    assert!(lab.ca.issued().is_empty());
}

#[test]
fn the_cmp_signer_and_revoked_certificates_update_nothing() {
    let lab = lab(|_| {});
    let key = Arc::new(SoftwareKey::generate(KeyType::P256).unwrap());
    let first = lab.enrol(&key);
    assert!(lab.ca.revoke(&first.serial_hex()));
    let mut update = lab.request(RequestKind::Kur);
    update.old_certificate = Some(first.clone());
    let signed = Credentials::Signature { signer: key, certificate: first, chain: vec![lab.issuing.clone()] };
    let error = lab.finish(lab.start(update, signed)).unwrap_err();
    assert!(refused_with(&error, FailureBit::CertRevoked), "{error}");
    assert_eq!(lab.ca.stats().refusals["certRevoked"], 1);
    assert!(!lab.ca.revoke("00"));
}

#[test]
fn garbage_is_answered_with_an_error_and_counted() {
    let lab = lab(|_| {});
    for garbage in [&b""[..], b"hello", &[0x30, 0x80], &[0xff; 1000]] {
        assert!(!lab.ca.answer(garbage).unwrap().is_empty());
    }
    let stats = lab.ca.stats();
    assert_eq!((stats.messages, stats.unreadable), (4, 4));
}

#[test]
fn validity_is_what_the_configuration_says() {
    let lab = lab(|config| config.lifetime = jiff::SignedDuration::from_secs(90));
    let key = Arc::new(SoftwareKey::generate(KeyType::Rsa2048).unwrap());
    let certificate = lab.enrol(&key);
    assert_eq!(certificate.not_after().as_second() - certificate.not_before().as_second(), 90);
    assert_eq!(certificate.spki_der(), key.public_key_der());
    assert_eq!(certificate.key_usage().unwrap().names(), ["digitalSignature", "keyEncipherment"]);
}
