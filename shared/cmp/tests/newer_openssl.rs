//! Our client at the mock server of a newer OpenSSL than Debian's 3.0: ML-DSA, protection by RSA-PSS and Ed25519,
//! delayed confirmations, certificate profiles, templates, updates of roots and CRLs.
//!
//! `make interop` brings one, makes it the first `openssl` of PATH and runs these tests (docs/interop.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/mock_lab.rs"]
mod mock_lab;
#[path = "support/openssl.rs"]
mod openssl;
mod support;

use std::{process::Command, sync::Arc};

use jiff::Timestamp;
use mock_lab::{Lab, SECRET, kinds, now};
use openssl::MockServer;
use support::{Authority, CMC_RA, Leaf, Mistaken, key, mac, signature};
use trustfleet_cmp::{
    Conclusion, CrlOf, EnrollRequest, Information, Question, Request, RequestKind, RevocationReason, RevokeRequest,
    Signer, apply_template,
    codec::{BodyKind, FailureBit, PkiBody, PkiMessage, PkiStatus},
    key::{KeyType, Using},
};
use trustfleet_pki::{PublicKey, SignatureAlgorithm, signature::SignatureAlgorithm as S};

const ML_DSA: [KeyType; 3] = [KeyType::MlDsa44, KeyType::MlDsa65, KeyType::MlDsa87];

/// Runs a command line, split at blanks, in the lab's folder.
fn run(lab: &Lab, line: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(line.split_whitespace()).current_dir(lab.folder.path()).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// By what each message is signed.
fn signed_by(messages: &[PkiMessage]) -> Vec<SignatureAlgorithm> {
    let algorithms = messages.iter().map(|message| message.header.protection_alg.clone().unwrap());
    algorithms.map(|algorithm| SignatureAlgorithm::of(&algorithm).unwrap()).collect()
}

fn kinds_of(messages: &[PkiMessage]) -> Vec<&'static str> {
    messages.iter().map(|message| message.body.kind().name()).collect()
}

/// The same message with one bit of its nonce changed.
fn changed(message: &PkiMessage) -> Vec<u8> {
    let nonce = message.header.sender_nonce.as_ref().unwrap().as_bytes();
    let mut der = message.to_der().unwrap();
    let at = der.windows(nonce.len()).position(|bytes| bytes == nonce).unwrap();
    der[at] ^= 1;
    der
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn p6_openssl_verifies_our_protection_by_ml_dsa_and_its_own_is_taken() {
    for key_type in ML_DSA {
        let lab = Lab::of(key_type, KeyType::P256);
        let (identity_key, identity) = lab.ca.identity("/CN=factory identity", key_type);
        let server = lab.signature_server(&[]);
        let outcome = lab.run(&server, lab.request(), signature(&identity_key, &identity));
        assert_eq!(signed_by(&outcome.messages), vec![identity_key.signature_algorithm(); 4], "{key_type}");
        // it does look: the same request with one bit changed is refused, and the refusal is signed as well
        let refusal = PkiMessage::from_der(&server.post(&changed(&outcome.messages[0]))).unwrap();
        assert_eq!(refusal.body.kind(), BodyKind::Error, "{key_type}");
        assert_eq!(signed_by(&[refusal]), [identity_key.signature_algorithm()]);
        let enrolled = outcome.enrolled();
        assert_eq!(kinds(&enrolled), ["ir", "ip", "certConf", "pkiconf"]);
        assert_eq!(enrolled.certificate, lab.issued);
    }
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn r3_openssl_verifies_our_proof_of_possession_by_ml_dsa_and_reads_the_certificate() {
    for key_type in ML_DSA {
        let lab = Lab::of(key_type, key_type);
        let server = lab.mac_server(&[]);
        let enrolled = lab.run(&server, lab.request(), mac("dev1", SECRET)).enrolled();
        let issued = PublicKey::from_spki_der(&enrolled.certificate.spki_der()).unwrap();
        assert_eq!(issued.algorithm().to_string(), key_type.to_string().to_uppercase());
        let said = run(&lab, "verify -CAfile ca.crt issued.crt");
        assert_eq!(String::from_utf8(said).unwrap().trim(), "issued.crt: OK");

        let mistaken = Arc::new(Mistaken { says: key(key_type), signs: key(key_type) });
        let request = Request::Enroll(Box::new(lab.request()), mistaken);
        assert_eq!(lab.begin(&server, request, mac("dev1", SECRET)).refusal().failure, [FailureBit::BadPop]);
    }
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn c4_openssl_takes_our_certconf_with_hashalg_and_pvno_3_for_an_ml_dsa_certificate() {
    for key_type in ML_DSA {
        let lab = Lab::of(key_type, KeyType::P256);
        let outcome = lab.run(&lab.mac_server(&[]), lab.request(), mac("dev1", SECRET));
        assert_eq!(kinds_of(&outcome.messages), ["ir", "ip", "certConf", "pkiconf"], "{key_type}");
        assert_eq!(outcome.messages.iter().map(|message| message.header.pvno).collect::<Vec<_>>(), [2, 2, 3, 2]);
        let PkiBody::CertConf(statuses) = &outcome.messages[2].body else { panic!() };
        // the server computes the hash again and compares
        assert_eq!(statuses[0].hash_alg.as_ref().unwrap().oid.to_string(), "2.16.840.1.101.3.4.2.1", "SHA-256");
        outcome.enrolled();
    }
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn p6_openssl_itself_protects_by_ed25519_and_rsa_pss_and_is_understood() {
    // its digest is SHA-256 whatever an RSA key says
    for (genpkey, expected) in
        [("-algorithm ED25519", S::Ed25519), ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", S::RsaPssSha256)]
    {
        let lab = Lab::new(KeyType::P256);
        run(&lab, &format!("genpkey {genpkey} -out ra.key"));
        let spki = run(&lab, "pkey -in ra.key -pubout -outform DER");
        let leaf = Leaf { spki, usages: vec![CMC_RA], ..Leaf::new("/CN=RA", lab.key.as_ref()) };
        lab.write("ra.crt", &lab.ca.issue(&leaf).to_pem());
        let arguments = "-srv_cert ra.crt -srv_key ra.key -srv_trusted ca.crt -rsp_cert issued.crt";
        let server = MockServer::start(lab.folder.path(), &arguments.split(' ').collect::<Vec<_>>());
        for ours in [(KeyType::Ed25519, S::Ed25519), (KeyType::Rsa2048, S::RsaPssSha384)] {
            let (identity_key, identity) = lab.ca.identity("/CN=factory identity", ours.0);
            let signer = Arc::new(Using { signer: identity_key, algorithm: ours.1 });
            let credentials =
                trustfleet_cmp::Credentials::Signature { signer, certificate: identity, chain: Vec::new() };
            let outcome = lab.run(&server, lab.request(), credentials);
            assert_eq!(signed_by(&outcome.messages), [ours.1, expected, ours.1, expected], "{genpkey}");
            outcome.enrolled();
        }
    }
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn w2_openssl_delays_certconf_rr_and_genm_by_an_error_and_is_polled_with_minus_one() {
    let lab = Lab::new(KeyType::P256);
    let delays = ["-poll_count", "2", "-check_after", "1"];
    let polled = |messages: &[PkiMessage]| -> Vec<i64> {
        let polls = messages.iter().filter_map(|message| match &message.body {
            PkiBody::PollReq(polls) => Some(polls[0].cert_req_id),
            _ => None,
        });
        polls.collect()
    };
    let delay = ["pollReq", "pollRep", "pollReq"];
    let outcome = lab.run(&lab.mac_server(&delays), lab.request(), mac("dev1", SECRET));
    let expected = [&["ir", "ip"][..], &delay, &["ip", "certConf", "error"], &delay, &["pkiconf"]].concat();
    assert_eq!(kinds_of(&outcome.messages), expected, "{}", outcome.log);
    assert_eq!(polled(&outcome.messages), [0, 0, -1, -1]);
    let PkiBody::Error(error) = &outcome.messages[7].body else { panic!() };
    assert_eq!(error.status_info.status, PkiStatus::Waiting);
    assert_eq!(outcome.enrolled().certificate, lab.issued);

    let request = Request::Revoke(Box::new(RevokeRequest::of(&lab.issued, RevocationReason::Superseded)));
    let server = lab.signature_server(&delays);
    let outcome = lab.begin(&server, request, signature(&lab.key, &lab.issued));
    assert_eq!(kinds_of(&outcome.messages), [&["rr", "error"][..], &delay, &["rp"]].concat(), "{}", outcome.log);
    assert_eq!(polled(&outcome.messages), [-1, -1]);
    assert!(matches!(outcome.conclusion(), Conclusion::Revoked(_)));

    let server = lab.mac_server(&[&delays[..], &["-rsp_capubs", "ca.crt"]].concat());
    let Information::CaCerts(came) = lab.ask(&server, Question::CaCerts, mac("dev1", SECRET)) else { panic!() };
    assert_eq!(came, std::slice::from_ref(&lab.ca.certificate));
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn h15_openssl_reads_our_certprofile_and_knows_one_name() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&[]);
    let cr = |profile: &str| EnrollRequest {
        kind: RequestKind::Cr,
        cert_profile: Some(profile.to_owned()),
        ..lab.request()
    };
    lab.run(&server, cr("profile1"), mac("dev1", SECRET)).enrolled();
    let refusal = lab.run(&server, cr("profile2"), mac("dev1", SECRET)).refusal();
    assert!(refusal.to_string().contains("unexpected certprofile"), "{refusal}");
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn r9_openssls_template_is_respected_an_algorithm_without_a_curve_is_any_curve() {
    let lab = Lab::new(KeyType::P256);
    let server = lab.mac_server(&["-ref_cert", "issued.crt"]);
    let information = lab.ask(&server, Question::CertReqTemplate, mac("dev1", SECRET));
    let Information::CertReqTemplate(Some(template)) = information else { panic!("{information:?}") };
    assert_eq!(template.rsa_bits, [4096]);
    for (key_type, permitted) in [
        (KeyType::P256, true),
        (KeyType::P384, true),
        (KeyType::Rsa4096, true),
        (KeyType::Rsa2048, false),
        (KeyType::Ed25519, false),
    ] {
        let asked = PublicKey::from_spki_der(key(key_type).public_key_der()).unwrap();
        assert_eq!(template.permits_key(&asked).is_ok(), permitted, "{key_type}");
    }
    // it fixes the issuer, which is whom we ask
    assert_eq!(apply_template(lab.request(), &template).unwrap().subject, lab.request().subject);
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn v12_a_new_root_comes_from_openssl_and_one_that_ours_does_not_certify_is_refused() {
    let lab = Lab::new(KeyType::P256);
    let new = Authority::root("/O=Lab/CN=Mock CA", KeyType::P384);
    let root = |key: &dyn Signer| Leaf { ca: true, ..Leaf::new("/O=Lab/CN=Mock CA", key) };
    let new_with_old = lab.ca.issue(&root(new.key.as_ref()));
    let old_with_new = new.issue(&root(lab.ca.key.as_ref()));
    lab.write("new.crt", &new.certificate.to_pem());
    lab.write("new-old.crt", &new_with_old.to_pem());
    lab.write("old-new.crt", &old_with_new.to_pem());
    let files = ["-rsp_newwithnew", "new.crt", "-rsp_newwithold", "new-old.crt", "-rsp_oldwithnew", "old-new.crt"];
    let question = || Question::RootCaUpdate { old: lab.ca.certificate.clone() };
    let information = lab.ask(&lab.mac_server(&files), question(), mac("dev1", SECRET));
    let Information::RootCaUpdate(Some(update)) = information else { panic!("{information:?}") };
    assert_eq!(
        (update.new_root, update.new_with_old, update.old_with_new),
        (new.certificate, new_with_old, Some(old_with_new))
    );

    let stranger = Authority::root("/O=Lab/CN=Mock CA", KeyType::P384);
    lab.write("new-old.crt", &stranger.issue(&root(new.key.as_ref())).to_pem());
    let request = trustfleet_cmp::InfoRequest {
        question: question(),
        recipient: lab.ca.certificate.subject(),
        sender: None,
        extra_certs: vec![],
    };
    let outcome = lab.begin(&lab.mac_server(&files), Request::Info(Box::new(request)), mac("dev1", SECRET));
    assert_eq!(outcome.result.unwrap_err().code(), "root_update_refused");
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn r9_openssl_reads_our_crl_question_by_issuer_and_by_point_and_sends_only_what_is_newer() {
    let lab = Lab::new(KeyType::P256);
    let config = "[ca]\ndefault_ca = one\n[one]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n";
    lab.write("ca.cnf", config);
    lab.write("index", "");
    run(&lab, "ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.crt -out ca.crl");
    let server = lab.mac_server(&["-rsp_crl", "ca.crl"]);
    let long_ago: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let far_away: Timestamp = "2051-01-01T00:00:00Z".parse().unwrap(); // a GeneralizedTime
    let issuer = || CrlOf::Issuer(lab.ca.certificate.subject());
    let point = || CrlOf::Uri("http://ca.example/ca.crl".to_owned());
    for (source, this_update, comes) in [
        (issuer(), None, true),
        (issuer(), Some(long_ago), true),
        (issuer(), Some(now()), false),
        (issuer(), Some(far_away), false),
        (point(), Some(long_ago), true),
        (point(), Some(now()), false),
    ] {
        let shown = format!("{source:?} {this_update:?}");
        let information = lab.ask(&server, Question::CrlUpdate { source, this_update }, mac("dev1", SECRET));
        let Information::Crls(crls) = information else { panic!("{information:?}") };
        assert_eq!(crls.len(), usize::from(comes), "{shown}");
        for crl in crls {
            crl.verify_signed_by(&lab.ca.certificate).unwrap();
            assert_eq!(crl.issuer(), &lab.ca.certificate.subject());
        }
    }
    // it compares the issuer that is named with its own
    let other = support::name("/O=Lab/CN=Another CA");
    let request = trustfleet_cmp::InfoRequest {
        question: Question::CrlUpdate { source: CrlOf::Issuer(other), this_update: None },
        recipient: lab.ca.certificate.subject(),
        sender: None,
        extra_certs: vec![],
    };
    let refusal = lab.begin(&server, Request::Info(Box::new(request)), mac("dev1", SECRET)).refusal();
    assert!(refusal.to_string().contains("unknown crl issuer"), "{refusal}");
}
