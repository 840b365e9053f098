//! Our client against a foreign server: the mock server of `openssl cmp -port`, started by each test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/mock_lab.rs"]
mod mock_lab;
#[path = "support/openssl.rs"]
mod openssl;
mod support;

use std::sync::Arc;

use mock_lab::{Lab, SECRET, kinds, kinds_of, now};
use openssl::MockServer;
use support::{Leaf, Seeded, accepting, key, mac, signature};
use trustfleet_cmp::{
    BodyKind, CmpError, Conclusion, Credentials, Csr, EnrollRequest, FailureBit, InfoRequest, Information, Input,
    P10Request, Question, Request, RequestKind, RevocationReason, RevokeRequest, SoftwareKey, Step, Transaction,
    Warning,
    codec::oids,
    error::MessageError,
    key::KeyType,
    protection::{Hash, MacPolicy},
};

#[test]
fn c2_ir_by_mac_with_implicit_confirm_needs_no_certconf() {
    let lab = Lab::new(KeyType::Rsa2048);
    let server = lab.mac_server(&["-grant_implicitconf", "-rsp_capubs", "ca.crt"]);
    let request = EnrollRequest { implicit_confirm: true, ..lab.request() };
    let enrolled = lab.run(&server, request, mac("dev1", SECRET)).enrolled();
    assert_eq!(enrolled.certificate, lab.issued);
    assert!(enrolled.implicitly_confirmed);
    assert_eq!(kinds(&enrolled), ["ir", "ip"]);
    assert_eq!(enrolled.ca_pubs, std::slice::from_ref(&lab.ca.certificate));
    assert!(enrolled.ca_pubs_trusted, "V11");
    assert_eq!(enrolled.warnings, [Warning::WeakMac]);
}

#[test]
fn c1_ir_by_mac_without_implicit_confirm_is_confirmed_by_certconf() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    let request = EnrollRequest { implicit_confirm: true, ..lab.request() };
    let enrolled = lab.run(&server, request, mac("dev1", SECRET)).enrolled();
    assert!(!enrolled.implicitly_confirmed);
    assert_eq!(kinds(&enrolled), ["ir", "ip", "certConf", "pkiconf"]);
}

#[test]
fn x1_ir_by_rsa_signature_of_an_external_identity_is_answered_by_signature() {
    let lab = Lab::new(KeyType::Rsa2048);
    let (identity_key, identity) = lab.ca.identity("/CN=factory identity", KeyType::Rsa2048);
    let server = lab.signature_server(&[]);
    let enrolled = lab.run(&server, lab.request(), signature(&identity_key, &identity)).enrolled();
    assert_eq!(enrolled.certificate, lab.issued);
    assert!(!enrolled.ca_pubs_trusted);
    assert_eq!(kinds(&enrolled), ["ir", "ip", "certConf", "pkiconf"]);
}

#[test]
fn r10_cr_by_ecdsa_signature_is_answered_by_signature() {
    let lab = Lab::new(KeyType::P256);
    let (identity_key, identity) = lab.ca.identity("/CN=another certificate", KeyType::P256);
    let server = lab.signature_server(&["-grant_implicitconf"]);
    let request = EnrollRequest { kind: RequestKind::Cr, implicit_confirm: true, ..lab.request() };
    let enrolled = lab.run(&server, request, signature(&identity_key, &identity)).enrolled();
    assert_eq!(kinds(&enrolled), ["cr", "cp"]);
}

#[test]
fn r6_kur_by_rsa_signature_replaces_the_certificate_that_signs() {
    let lab = Lab::new(KeyType::Rsa2048);
    // this server updates only the certificate that it returns, so key and certificate stay what they are
    let old = lab.issued.clone();
    let server = lab.signature_server(&[]);
    let request = EnrollRequest {
        kind: RequestKind::Kur,
        subject: trustfleet_pki::name::Name::null(),
        old_certificate: Some(old.clone()),
        ..lab.request()
    };
    let enrolled = lab.run(&server, request, signature(&lab.key, &old)).enrolled();
    assert_eq!(enrolled.certificate, lab.issued);
    assert_eq!(kinds(&enrolled), ["kur", "kup", "certConf", "pkiconf"]);
}

#[test]
fn e3_a_rejection_is_read_with_every_failinfo_bit() {
    let lab = Lab::new(KeyType::P256);
    for bit in FailureBit::ALL {
        let number = (bit as u8).to_string();
        let server = lab.mac_server(&["-pkistatus", "2", "-failure", &number, "-statusstring", "no, and why"]);
        let refusal = lab.run(&server, lab.request(), mac("dev1", SECRET)).refusal();
        assert_eq!(refusal.failure, [bit]);
        assert_eq!(refusal.body, BodyKind::Ip);
        assert_eq!(refusal.texts, ["no, and why"]);
        assert!(refusal.unauthenticated.is_none());
    }
}

#[test]
fn e3_several_failinfo_bits_at_once_are_all_read() {
    let lab = Lab::new(KeyType::P256);
    // bits 0, 9, 20 and 26
    let bits = (1_u32 << 26 | 1 << 20 | 1 << 9 | 1).to_string();
    let server = lab.mac_server(&["-pkistatus", "2", "-failurebits", &bits]);
    let refusal = lab.run(&server, lab.request(), mac("dev1", SECRET)).refusal();
    use FailureBit::{BadAlg, BadPop, DuplicateCertReq, SignerNotTrusted};
    assert_eq!(refusal.failure, [BadAlg, BadPop, SignerNotTrusted, DuplicateCertReq]);
    assert_eq!(refusal.failure_text, "badAlg, badPOP, signerNotTrusted, duplicateCertReq");
}

#[test]
fn e2_a_protected_error_ends_the_transaction_without_a_word_from_us() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-send_error"]);
    let outcome = lab.run(&server, lab.request(), mac("dev1", SECRET));
    assert!(!outcome.told);
    let refusal = outcome.refusal();
    assert_eq!(refusal.body, BodyKind::Error);
    assert!(refusal.unauthenticated.is_none());
}

#[test]
fn p10_an_unprotected_error_is_no_more_than_a_diagnostic() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-send_error", "-send_unprot_err", "-send_unprotected"]);
    let refusal = lab.run(&server, lab.request(), mac("dev1", SECRET)).refusal();
    assert_eq!(refusal.unauthenticated, Some(MessageError::Unprotected { body: BodyKind::Error }));
    assert!(refusal.to_string().contains("check reference and secret"), "{refusal}");
}

/// SHA-512 behind SHA-256 is where an HMAC has more octets than the hash that makes its key.
#[test]
fn p2_the_server_makes_the_same_key_of_every_hash_for_every_mac() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    for (owf, hmac) in hashes.into_iter().flat_map(|owf| hashes.map(|hmac| (owf, hmac))) {
        let policy = MacPolicy { owf, iterations: 1009, ..MacPolicy::of(hmac) };
        let credentials = |secret: &str| Credentials::Mac {
            reference: b"dev1".to_vec(),
            secret: secret.as_bytes().to_vec().into(),
            mac: policy,
        };
        lab.run(&server, lab.request(), credentials(SECRET)).enrolled();
        let refused = lab.run(&server, lab.request(), credentials("another secret")).result.unwrap_err();
        assert_eq!(refused.code(), "refused_unauthenticated", "{owf:?} {hmac:?}");
    }
}

#[test]
fn v5_a_wrong_secret_ends_with_advice_and_the_servers_words_as_untrusted_detail() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    let outcome = lab.run(&server, lab.request(), mac("dev1", "another secret"));
    let error = outcome.result.unwrap_err();
    assert_eq!(error.code(), "refused_unauthenticated");
    let text = error.to_string();
    assert!(text.contains("check reference and secret"), "{text}");
    assert!(text.contains("wrong pbm value"), "{text}");
}

#[test]
fn p10_an_unprotected_response_is_refused_and_the_server_is_told() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-send_unprotected"]);
    let outcome = lab.run(&server, lab.request(), mac("dev1", SECRET));
    assert!(outcome.told);
    assert_eq!(outcome.result.unwrap_err().code(), "unprotected");
}

#[test]
fn w1_a_waiting_answer_is_polled_for_at_the_servers_pace() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-poll_count", "3", "-check_after", "1"]);
    let outcome = lab.run(&server, lab.request(), mac("dev1", SECRET));
    assert_eq!(outcome.waits, [1, 1]);
    let enrolled = outcome.enrolled();
    let expected = ["ir", "ip", "pollReq", "pollRep", "pollReq", "pollRep", "pollReq", "ip", "certConf", "pkiconf"];
    assert_eq!(kinds(&enrolled), expected);
}

#[test]
fn s8_an_answer_by_sha1_is_refused_unless_it_is_allowed() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    let mut entropy = Seeded::new(8);
    let strong = accepting(std::slice::from_ref(&lab.ca.certificate));
    let key = Arc::<SoftwareKey>::clone(&lab.key);
    let credentials = mac("dev1", SECRET);
    let start = Transaction::start(lab.request(), credentials, strong, key, &mut entropy, now());
    let (transaction, message) = start.unwrap();
    let answer = server.post(&message);
    let Step::Failed { error, .. } = transaction.handle(Input::Response(&answer), &mut entropy, now()) else {
        panic!("an answer by HMAC-SHA1 was taken");
    };
    assert_eq!(error.code(), "protection_algorithm_not_accepted");
}

#[test]
fn v6_a_response_signed_by_a_sibling_device_is_refused() {
    let lab = Lab::new(KeyType::P256);
    let (identity_key, identity) = lab.ca.identity("/CN=factory identity", KeyType::Rsa2048);
    let (sibling_key, sibling) = lab.ca.identity("/CN=sibling", KeyType::Rsa2048);
    lab.write("sibling.crt", &sibling.to_pem());
    lab.write("sibling.key", &sibling_key.pkcs8_pem().unwrap());
    let arguments =
        ["-srv_cert", "sibling.crt", "-srv_key", "sibling.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"];
    let server = MockServer::start(lab.folder.path(), &arguments);
    let outcome = lab.run(&server, lab.request(), signature(&identity_key, &identity));
    assert_eq!(outcome.result.unwrap_err().code(), "signer_not_authorised");
}

#[test]
fn v9_a_certificate_for_another_key_is_rejected_by_certconf() {
    let lab = Lab::new(KeyType::P256);
    let other = lab.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    lab.write("issued.crt", &other.to_pem());
    let server = lab.mac_server(&[]);
    let outcome = lab.run(&server, lab.request(), mac("dev1", SECRET));
    let log = server.log();
    match outcome.result {
        Err(CmpError::Certificate(unfit)) => {
            assert!(unfit.rejection_confirmed, "{log}");
            assert_eq!(unfit.certificate, other);
        }
        other => panic!("{other:?} {log}"),
    }
}

/// A CSR for the key asked for, made by openssl.
fn csr(lab: &Lab) -> Csr {
    lab.write("dev.key", &lab.key.pkcs8_pem().unwrap());
    let arguments =
        ["req", "-new", "-key", "dev.key", "-subj", "/CN=dev1", "-addext", "subjectAltName=DNS:dev1.example"];
    let made = std::process::Command::new("openssl").args(arguments).current_dir(lab.folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    Csr::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap()
}

fn p10(lab: &Lab, implicit_confirm: bool) -> Request {
    Request::P10(Box::new(P10Request {
        csr: csr(lab),
        recipient: lab.ca.certificate.subject(),
        sender: None,
        implicit_confirm,
        cert_profile: None,
        extra_certs: vec![],
    }))
}

#[test]
fn r7_p10cr_by_mac_and_by_another_certificates_signature() {
    for (key_type, implicit) in [(KeyType::P256, false), (KeyType::Rsa2048, true)] {
        let lab = Lab::new(key_type);
        let server = lab.mac_server(&["-grant_implicitconf"]);
        let outcome = lab.begin(&server, p10(&lab, implicit), mac("dev1", SECRET));
        let enrolled = outcome.enrolled();
        assert_eq!(enrolled.certificate, lab.issued);
        let rest: &[_] = if implicit { &[] } else { &["certConf", "pkiconf"] };
        assert_eq!(kinds(&enrolled), [&["p10cr", "cp"], rest].concat());
        // this server returns the certificate that it was given
        assert_eq!(enrolled.warnings, [Warning::WeakMac, Warning::AlternativeNamesMissing { missing: 1 }]);

        let (identity_key, identity) = lab.ca.identity("/CN=RA", KeyType::P256);
        let server = lab.signature_server(&[]);
        let outcome = lab.begin(&server, p10(&lab, false), signature(&identity_key, &identity));
        assert_eq!(outcome.enrolled().certificate, lab.issued);
    }
}

#[test]
fn w1_a_waiting_p10cr_is_polled_for() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-poll_count", "2", "-check_after", "1"]);
    let outcome = lab.begin(&server, p10(&lab, false), mac("dev1", SECRET));
    assert_eq!(outcome.waits, [1]);
    let expected = ["p10cr", "cp", "pollReq", "pollRep", "pollReq", "cp", "certConf", "pkiconf"];
    assert_eq!(kinds(&outcome.enrolled()), expected);
}

#[test]
fn r8_rr_by_the_certificate_itself_and_by_another_for_every_reason() {
    let lab = Lab::new(KeyType::P256);
    let (ra_key, ra) = lab.ca.identity("/CN=RA", KeyType::P256);
    let server = lab.signature_server(&[]);
    for (key, certificate) in [(&lab.key, &lab.issued), (&ra_key, &ra)] {
        for reason in RevocationReason::ALL {
            let request = Request::Revoke(Box::new(RevokeRequest::of(&lab.issued, reason)));
            match lab.begin(&server, request, signature(key, certificate)).conclusion() {
                Conclusion::Revoked(revoked) => {
                    assert_eq!(revoked.serial, lab.issued.serial_hex());
                    assert_eq!(kinds_of(&revoked.transcript), ["rr", "rp"]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn r8_a_refused_rr_is_read_with_its_reasons() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.signature_server(&["-pkistatus", "2", "-failure", "10", "-statusstring", "revoked already"]);
    let request = Request::Revoke(Box::new(RevokeRequest::of(&lab.issued, RevocationReason::Superseded)));
    let refusal = lab.begin(&server, request, signature(&lab.key, &lab.issued)).refusal();
    assert_eq!((refusal.body, refusal.failure.as_slice()), (BodyKind::Rp, [FailureBit::CertRevoked].as_slice()));
    let stranger = lab.ca.issue(&Leaf::new("/CN=nobody", key(KeyType::P256).as_ref()));
    let server = lab.signature_server(&[]);
    let request = Request::Revoke(Box::new(RevokeRequest::of(&stranger, RevocationReason::Superseded)));
    let refusal = lab.begin(&server, request, signature(&lab.key, &lab.issued)).refusal();
    assert_eq!(refusal.failure, [FailureBit::BadRequest], "{refusal}");
}

#[test]
fn r9_genm_questions_are_read_and_their_echo_is_taken_for_no_information() {
    // the mock server of OpenSSL 3.0 repeats the question
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    for question in [
        Question::SignKeyPairTypes,
        Question::EncKeyPairTypes,
        Question::PreferredSymmAlg,
        Question::CurrentCrl,
        Question::CaCerts,
        Question::CertReqTemplate,
        Question::ConfirmWaitTime,
        Question::SupportedLanguages(vec!["de".to_owned(), "en".to_owned()]),
        Question::Other(oids::IT_CERT_PROFILE),
    ] {
        let shown = format!("{question:?}");
        let request =
            InfoRequest { question, recipient: lab.ca.certificate.subject(), sender: None, extra_certs: vec![] };
        let request = Request::Info(Box::new(request));
        let conclusion = lab.begin(&server, request, mac("dev1", SECRET)).conclusion();
        let Conclusion::Informed(informed) = conclusion else { panic!("{shown}") };
        assert_eq!(kinds_of(&informed.transcript), ["genm", "genp"]);
        let nothing = match &informed.information {
            Information::CaCerts(list) => list.is_empty(),
            Information::Crls(list) => list.is_empty(),
            Information::Algorithms(list) => list.is_empty(),
            Information::Languages(list) => list == &["de", "en"],
            Information::RootCaUpdate(update) => update.is_none(),
            Information::CertReqTemplate(template) => template.is_none(),
            Information::Other(value) => value.is_none(),
            Information::Time(_) => false,
        };
        assert!(nothing, "{shown}: {:?}", informed.information);
    }
}
