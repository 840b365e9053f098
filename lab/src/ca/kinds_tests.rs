//! Every kind of request at the lab CA, delayed, approved and refused; and every fault, which our client must not fall for.

use std::sync::Arc;

use trustfleet_cmp::{
    Acceptance, CmpError, Conclusion, Credentials, Enrolled, Information, Input, Question, Request, RequestKind,
    RevocationReason, RevokeRequest, SoftwareKey, Step, SystemEntropy, Transaction, apply_template, codec::FailureBit,
    info::InfoRequest, key::KeyType,
};
use trustfleet_pki::Certificate;

use super::{
    Fault,
    tests::{Lab, lab, mac, now, refused_with},
};

/// How it ended, and how often the client polled.
enum End {
    Enrolled(Box<Enrolled>),
    Concluded(Box<Conclusion>),
    Failed(CmpError),
}

impl End {
    fn enrolled(self) -> Box<Enrolled> {
        match self {
            Self::Enrolled(enrolled) => enrolled,
            Self::Concluded(_) => panic!("no certificate"),
            Self::Failed(error) => panic!("{error}"),
        }
    }

    fn concluded(self) -> Conclusion {
        match self {
            Self::Concluded(conclusion) => *conclusion,
            Self::Enrolled(_) => panic!("a certificate"),
            Self::Failed(error) => panic!("{error}"),
        }
    }

    fn failed(self) -> CmpError {
        match self {
            Self::Failed(error) => error,
            _ => panic!("it did not fail"),
        }
    }
}

/// Brings a request to its end; waits take no time, and `meanwhile` is done in each.
fn run(lab: &Lab, request: Request, credentials: Credentials, mut meanwhile: impl FnMut()) -> (End, usize) {
    let acceptance = Acceptance { total_seconds: 3600, ..lab.acceptance() };
    let (mut at, mut polls) = (now(), 0);
    let (transaction, message) = Transaction::begin(request, credentials, acceptance, &mut SystemEntropy, at).unwrap();
    let mut step = Step::Send { transaction: Box::new(transaction), message };
    let end = loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = lab.ca.answer(&message).unwrap();
                transaction.handle(Input::Response(&answer), &mut SystemEntropy, at)
            }
            Step::Wait { transaction, seconds } => {
                polls += 1;
                meanwhile();
                at += jiff::SignedDuration::from_secs(seconds as i64);
                transaction.handle(Input::TimerFired, &mut SystemEntropy, at)
            }
            Step::Done(enrolled) => break End::Enrolled(enrolled),
            Step::Concluded(conclusion) => break End::Concluded(conclusion),
            Step::Failed { error, tell_peer, .. } => {
                tell_peer.map(|message| lab.ca.answer(&message));
                break End::Failed(error);
            }
        };
    };
    (end, polls)
}

fn key() -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::generate(KeyType::P256).unwrap())
}

fn ir(lab: &Lab) -> Request {
    Request::Enroll(Box::new(lab.request(RequestKind::Ir)), key())
}

fn secret() -> Credentials {
    mac("dev1", "secret")
}

fn signed(lab: &Lab, key: &Arc<SoftwareKey>, certificate: &Certificate) -> Credentials {
    let (signer, certificate) = (Arc::<SoftwareKey>::clone(key), certificate.clone());
    Credentials::Signature { signer, certificate, chain: vec![lab.issuing.clone()] }
}

fn rr(certificate: &Certificate, reason: RevocationReason) -> Request {
    Request::Revoke(Box::new(RevokeRequest::of(certificate, reason)))
}

fn ask(lab: &Lab, question: Question) -> Information {
    let recipient = lab.issuing.subject();
    let request = Request::Info(Box::new(InfoRequest { question, recipient, sender: None, extra_certs: vec![] }));
    match run(lab, request, secret(), || {}).0.concluded() {
        Conclusion::Informed(informed) => informed.information,
        other @ Conclusion::Revoked(_) => panic!("{other:?}"),
    }
}

#[test]
fn w1_w2_every_kind_of_request_and_certconf_are_polled_for() {
    let lab = lab(|config| (config.poll_count, config.poll_certconf, config.check_after) = (2, true, 60));
    let key = key();
    let request = Request::Enroll(Box::new(lab.request(RequestKind::Ir)), Arc::<SoftwareKey>::clone(&key) as _);
    let (end, polls) = run(&lab, request, secret(), || {});
    assert_eq!(polls, 2, "one wait for the certificate, one for pkiConf");
    let first = end.enrolled().certificate;
    assert!(lab.ca.issued()[0].confirmed);
    let (end, polls) = run(&lab, rr(&first, RevocationReason::Superseded), signed(&lab, &key, &first), || {});
    assert!(matches!(end.concluded(), Conclusion::Revoked(revoked) if revoked.serial == first.serial_hex()));
    assert_eq!(polls, 1);
    assert!(matches!(ask(&lab, Question::CaCerts), Information::CaCerts(list) if list == [lab.issuing.clone()]));
}

#[test]
fn r8_a_certificate_revokes_itself_once_and_is_in_the_crl_then() {
    let lab = lab(|_| {});
    let key = key();
    let first = lab.enrol(&key);
    let revoke = |reason| run(&lab, rr(&first, reason), signed(&lab, &key, &first), || {}).0;
    let Conclusion::Revoked(revoked) = revoke(RevocationReason::KeyCompromise).concluded() else { panic!() };
    let [crl] = revoked.crls.as_slice() else { panic!("{}", revoked.crls.len()) };
    assert_eq!(crl.serials(), [first.serial_hex()]);
    assert_eq!(crl.verify_signed_by(&lab.issuing), Ok(()));
    assert!(crl.verify_signed_by(&lab.root).is_err());
    assert_eq!(crl.issuer(), &lab.issuing.subject());
    assert_eq!(lab.ca.issued()[0].reason, Some(RevocationReason::KeyCompromise));
    let again = revoke(RevocationReason::KeyCompromise).failed();
    assert!(refused_with(&again, FailureBit::CertRevoked), "{again}");
}

#[test]
fn r8_a_hold_can_be_released_and_nothing_else() {
    let lab = lab(|_| {});
    let key = key();
    let first = lab.enrol(&key);
    let revoke = |reason| run(&lab, rr(&first, reason), signed(&lab, &key, &first), || {}).0;
    revoke(RevocationReason::CertificateHold).concluded();
    revoke(RevocationReason::RemoveFromCrl).concluded();
    assert!(!lab.ca.issued()[0].revoked);
    let error = revoke(RevocationReason::RemoveFromCrl).failed();
    assert!(refused_with(&error, FailureBit::BadRequest), "{error}");
}

#[test]
fn r8_only_the_ra_revokes_anothers_certificate() {
    let lab = lab(|config| config.ra = Some("/O=x/CN=dev1".parse().unwrap()));
    let (lost_key, ra_key) = (key(), key());
    let (lost, ra) = (lab.enrol(&lost_key), lab.enrol(&ra_key));
    let revoke = |lab: &Lab| run(lab, rr(&lost, RevocationReason::Superseded), signed(lab, &ra_key, &ra), || {}).0;
    assert!(matches!(revoke(&lab).concluded(), Conclusion::Revoked(revoked) if revoked.serial == lost.serial_hex()));

    let strict = self::lab(|_| {});
    let (mine, other) = (key(), key());
    let (mine_certificate, others) = (strict.enrol(&mine), strict.enrol(&other));
    let request = rr(&others, RevocationReason::Superseded);
    let error = run(&strict, request, signed(&strict, &mine, &mine_certificate), || {}).0.failed();
    assert!(refused_with(&error, FailureBit::NotAuthorized), "{error}");
}

#[test]
fn r9_questions_are_answered() {
    let lab = lab(|config| (config.root_update, config.template) = (true, true));
    match ask(&lab, Question::RootCaUpdate { old: lab.root.clone() }) {
        Information::RootCaUpdate(Some(update)) => assert_ne!(update.new_root.public_key(), lab.root.public_key()),
        other => panic!("{other:?}"),
    }
    let other_root = lab.issuing.clone();
    assert!(matches!(ask(&lab, Question::RootCaUpdate { old: other_root }), Information::RootCaUpdate(None)));
    match ask(&lab, Question::CertReqTemplate) {
        Information::CertReqTemplate(Some(template)) => {
            let request = trustfleet_cmp::EnrollRequest { sans: vec![], ..lab.request(RequestKind::Ir) };
            assert!(apply_template(request.clone(), &template).is_err(), "O is another one");
            let subject = "/CN=dev1".parse().unwrap();
            let fitted = apply_template(trustfleet_cmp::EnrollRequest { subject, ..request }, &template).unwrap();
            assert_eq!(fitted.subject.to_slash(), "/O=Trustfleet Lab/CN=dev1");
        }
        other => panic!("{other:?}"),
    }
    let source = || trustfleet_cmp::CrlOf::Issuer(lab.issuing.subject());
    let newest = match ask(&lab, Question::CrlUpdate { source: source(), this_update: None }) {
        Information::Crls(crls) => crls[0].this_update(),
        other => panic!("{other:?}"),
    };
    let later = newest.map(|time| time + jiff::SignedDuration::from_hours(1));
    let question = Question::CrlUpdate { source: source(), this_update: later };
    assert!(matches!(ask(&lab, question), Information::Crls(crls) if crls.is_empty()));
    assert!(matches!(ask(&lab, Question::CurrentCrl), Information::Crls(crls) if crls.len() == 1));
    assert!(matches!(ask(&lab, Question::SignKeyPairTypes), Information::Algorithms(list) if list.len() == 3));
    let tags = vec!["de".to_owned(), "en".to_owned()];
    assert!(matches!(ask(&lab, Question::SupportedLanguages(tags)), Information::Languages(list) if list == ["en"]));
}

#[test]
fn a_request_waits_until_it_is_approved_or_denied_by_command() {
    let lab = lab(|config| config.approval = true);
    for yes in [true, false] {
        let mut waits = 0;
        let (end, _) = run(&lab, ir(&lab), secret(), || {
            waits += 1;
            if waits == 3 {
                let [waiting] = lab.ca.waiting().try_into().unwrap();
                assert_eq!(lab.ca.approve(Some("00"), yes), 0);
                assert_eq!(lab.ca.approve(Some(&waiting), yes), 1);
            }
        });
        assert_eq!(waits, 3);
        match end {
            End::Enrolled(_) => assert!(yes),
            other => assert!(refused_with(&other.failed(), FailureBit::NotAuthorized) && !yes),
        }
    }
    assert_eq!((lab.ca.issued().len(), lab.ca.approve(None, true)), (1, 0));
}

#[test]
fn a_strict_ca_refuses_a_second_kur_while_the_first_is_unfinished() {
    let lab = lab(|config| config.one_update = true);
    let key = key();
    let first = lab.enrol(&key);
    let update = || {
        let mut request = lab.request(RequestKind::Kur);
        request.old_certificate = Some(first.clone());
        request
    };
    let credentials = || signed(&lab, &key, &first);
    let (transaction, message) = lab.start(update(), credentials());
    let answer = lab.ca.answer(&message).unwrap();
    let second = Request::Enroll(Box::new(update()), self::key());
    let error = run(&lab, second, credentials(), || {}).0.failed();
    assert!(refused_with(&error, FailureBit::BadRequest), "{error}");
    let Step::Send { message, .. } = transaction.handle(Input::Response(&answer), &mut SystemEntropy, now()) else {
        panic!("a certConf is due");
    };
    lab.ca.answer(&message).unwrap();
    run(&lab, Request::Enroll(Box::new(update()), self::key()), credentials(), || {}).0.enrolled();
}

#[test]
fn every_fault_of_a_message_is_refused_for_what_it_is() {
    for (fault, code) in [
        (Fault::WrongNonce, "recip_nonce_wrong"),
        (Fault::WrongTransactionId, "transaction_id_wrong"),
        (Fault::BadProtection, "mac_mismatch"),
        (Fault::Unprotected, "unprotected"),
        (Fault::SiblingSigner, "signer_not_authorised"),
        (Fault::OtherKey, "certificate_unfit"),
        (Fault::ExtraResponse, "response_count_wrong"),
        (Fault::WaitingForEver, "total_time_exceeded"),
        (Fault::AbsurdCheckAfter, "total_time_exceeded"),
        (Fault::HostileText, "refused"),
        (Fault::TruncatedDer, "message_malformed"),
    ] {
        let lab = lab(|config| (config.faults, config.check_after) = (vec![fault], 600));
        let error = run(&lab, ir(&lab), secret(), || {}).0.failed();
        assert_eq!(error.code(), code, "{fault:?}: {error}");
        let shown = error.to_string();
        assert!(shown.len() < 2_000 && !shown.contains(char::is_control), "{shown:?}");
        assert!(lab.ca.issued().iter().all(|issued| !issued.confirmed), "{fault:?}");
    }
    let lenient = lab(|config| config.faults = vec![Fault::MissingOptionals]);
    run(&lenient, ir(&lenient), secret(), || {}).0.enrolled();
}
