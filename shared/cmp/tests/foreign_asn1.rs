//! Our messages under another implementation of their ASN.1, and its messages made anew: pyasn1-alt-modules.
//!
//! `make interop` brings it as the first `python3` of PATH and runs these tests (docs/interop.md). What it reads of ours
//! has to be DER to the last octet, and to mean what was meant; it computes the MACs again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use der::{
    Decode, Encode,
    asn1::{Any, Int, ObjectIdentifier},
};
use serde_json::{Value, json};
use support::{Authority, Leaf, accepting, key, mac, name, signature};
use trustfleet_cmp::{
    Credentials, CrlOf, Csr, EnrollRequest, FailureBit, InfoRequest, Input, P10Request, PkiStatus, Question, Request,
    RequestKind, RevocationReason, RevokeRequest, Signer, SoftwareKey, Step, Transaction,
    codec::{
        CertOrEncCert, CertRepMessage, CertResponse, CertTemplate, CertifiedKeyPair, ErrorMsgContent, FreeText,
        InfoTypeAndValue, PkiBody, PkiMessage, PkiStatusInfo, RawSequence,
        info::{CertReqTemplateContent, RootCaKeyUpdateContent},
        oids,
        request::Control,
        response::EncryptedKey,
    },
    key::KeyType,
    protection::{Hash, MacPolicy},
    responder::Answer,
};
use trustfleet_pki::Certificate;
use world::{SECRET, World};

const PYTHON: &str = "wants pyasn1-alt-modules: scripts/interop/cmp.sh";

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Runs one of the scripts beside the vectors.
fn python(script: &str, folder: &Path, more: &[&str]) -> Vec<u8> {
    let output = Command::new("python3").arg(vectors().join(script)).arg(folder).args(more).output().unwrap();
    assert!(output.status.success(), "{PYTHON}\n{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn the_vectors_of_pyasn1_are_made_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for certificate in ["ca.crt", "dev.crt"] {
        fs::copy(vectors().join(certificate), folder.path().join(certificate)).unwrap();
    }
    python("make_pyasn1.py", folder.path(), &[]);
    python("make_pbmac1.py", folder.path(), &[]);
    let ders = |folder: &Path| {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = files.filter(|file| file.starts_with("pyasn1-") && file.ends_with(".der")).collect();
        files.sort();
        files
    };
    let made = ders(folder.path());
    assert_eq!(made, ders(&vectors()));
    assert!(made.len() >= 14, "{made:?}");
    for file in made {
        let (now, kept) = (fs::read(folder.path().join(&file)).unwrap(), fs::read(vectors().join(&file)).unwrap());
        assert_eq!(now, kept, "{file}");
    }
}

/// Both halves' messages, in turns, until the client has nothing more to send.
fn exchanged(world: &mut World, mut step: Step) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    loop {
        step = match step {
            Step::Send { transaction, message } => {
                let answer = world.serve(&message);
                let next = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
                messages.extend([message, answer]);
                next
            }
            Step::Wait { transaction, seconds } => {
                world.now += jiff::SignedDuration::from_secs(seconds as i64);
                transaction.handle(Input::TimerFired, &mut world.entropy, world.now)
            }
            Step::Failed { tell_peer, .. } => {
                messages.extend(tell_peer);
                return messages;
            }
            _ => return messages,
        };
    }
}

fn begin(world: &mut World, request: Request, credentials: Credentials) -> Vec<Vec<u8>> {
    let begun = Transaction::begin(request, credentials, world.acceptance.clone(), &mut world.entropy, world.now);
    let (transaction, message) = begun.unwrap();
    exchanged(world, Step::Send { transaction: Box::new(transaction), message })
}

fn enrol(world: &mut World, request: EnrollRequest, credentials: Credentials) -> Vec<Vec<u8>> {
    let key: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&world.key);
    begin(world, Request::Enroll(Box::new(request), key), credentials)
}

/// What pyasn1 says of the messages, one after the other.
fn read(messages: &[Vec<u8>]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    for (number, message) in messages.iter().enumerate() {
        fs::write(folder.path().join(format!("{number:03}.der")), message).unwrap();
    }
    let said: Value = serde_json::from_slice(&python("read_pyasn1.py", folder.path(), &[SECRET])).unwrap();
    let said: Vec<_> = said.as_object().unwrap().values().cloned().collect();
    assert_eq!(said.len(), messages.len());
    said
}

fn bodies(said: &[Value]) -> Vec<&str> {
    said.iter().map(|one| one["body"].as_str().unwrap()).collect()
}

fn serial(certificate: &Certificate) -> String {
    certificate.serial_hex().to_lowercase()
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn p2_p5_macs_of_both_schemes_and_every_hash_are_computed_again_over_every_message_of_an_enrolment() {
    let hashes = [(Hash::Sha256, "sha256"), (Hash::Sha384, "sha384"), (Hash::Sha512, "sha512")];
    let (mut messages, mut protections) = (Vec::new(), Vec::new());
    for (owf, (hmac, shown)) in hashes.into_iter().flat_map(|owf| hashes.map(|hmac| (owf.0, hmac))) {
        for (policy, scheme) in [(MacPolicy::of(hmac), "pbm"), (MacPolicy::pbmac1(hmac), "pbmac1")] {
            let mac = MacPolicy { owf, iterations: 1003, ..policy };
            let secret = SECRET.as_bytes().to_vec().into();
            messages.extend(delayed_and_refused(Credentials::Mac { reference: b"dev1".to_vec(), secret, mac }));
            protections.push(format!("{scheme} {shown} good"));
        }
    }
    for (said, protection) in read(&messages).chunks(6).zip(protections) {
        assert_eq!(bodies(said), ["ir", "ip", "pollReq", "pollRep", "pollReq", "ip"]);
        for one in said {
            assert_eq!(one["protection"], protection, "{one}");
            assert_eq!((&one["pvno"], &one["senderKID"]), (&2.into(), &hex::encode("dev1").into()));
        }
        let [ir, waiting, poll, rep, _, refusal] = said else { panic!() };
        assert_eq!(ir["generalInfo"], json!([["1.3.6.1.5.5.7.4.13", null], ["1.3.6.1.5.5.7.4.21", ["geräte"]]]));
        let fields = ["subject", "publicKey", "extensions"];
        let template = json!({ "fields": fields, "subject": "/2.5.4.3=dev1", "extensions": ["2.5.29.17"] });
        let request = json!([{ "certReqId": 0, "template": template, "controls": [], "popo": "signature" }]);
        assert_eq!(ir["content"], request);
        let status = |status: u8, texts: &[&str], bits: &[u8]| json!([{ "certReqId": 0, "status": status, "texts": texts, "failInfo": bits }]);
        assert_eq!(waiting["content"], status(3, &[], &[]));
        assert_eq!((&poll["content"], &rep["content"]), (&json!([0]), &json!([[0, 7, ["ein Mensch entscheidet: ü"]]])));
        assert_eq!(refusal["content"], status(2, &["no"], &[9, 26]));
    }
}

/// The messages of an ir that waits for its refusal.
fn delayed_and_refused(credentials: Credentials) -> Vec<Vec<u8>> {
    let kind = RequestKind::Ir;
    let mut world = World::twisted(move |nth, _, _, _, _| match nth {
        0 => Answer::Waiting { kind, cert_req_id: 0 },
        1 => Answer::PollRep { cert_req_id: 0, check_after: 7, reason: "ein Mensch entscheidet: ü".to_owned() },
        _ => Answer::Refused {
            kind,
            cert_req_id: 0,
            failure: vec![FailureBit::BadPop, FailureBit::DuplicateCertReq],
            text: "no".to_owned(),
        },
    });
    let cert_profile = Some("geräte".to_owned());
    let request = EnrollRequest { cert_profile, implicit_confirm: true, ..world.request() };
    enrol(&mut world, request, credentials)
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn r6_r8_signed_requests_are_read_with_oldcertid_extracerts_and_reason() {
    let mut world = World::new();
    let (old_key, old) = world.ca.identity("/O=Lab/CN=dev1", KeyType::P256);
    let kur = EnrollRequest {
        kind: RequestKind::Kur,
        old_certificate: Some(old.clone()),
        extra_certs: vec![world.ca.certificate.clone()],
        subject: name("/O=Lab/CN=dev1"),
        ..world.request()
    };
    let said = read(&enrol(&mut world, kur, signature(&old_key, &old)));
    assert_eq!(bodies(&said), ["kur", "kup", "certConf", "pkiconf"]);
    assert!(said.iter().all(|one| one["protection"] == "1.2.840.10045.4.3.2"), "ecdsa-with-SHA256: {said:?}");
    assert_eq!(said[0]["extraCerts"], 2);
    let [control] = said[0]["content"][0]["controls"].as_array().unwrap().as_slice() else { panic!("{}", said[0]) };
    assert_eq!(control[0], "1.3.6.1.5.5.7.5.1.5", "oldCertID");
    assert!(control[1].as_str().unwrap().contains(&serial(&old)), "{control}");
    let conf = &said[2]["content"][0];
    assert_eq!((&conf["certReqId"], &conf["hashAlg"], &conf["status"]), (&0.into(), &Value::Null, &Value::Null));

    let mut world = World::new();
    let (device_key, device) = world.ca.identity("/CN=dev1", KeyType::P384);
    let rr = Request::Revoke(Box::new(RevokeRequest::of(&device, RevocationReason::CaCompromise)));
    let said = read(&begin(&mut world, rr, signature(&device_key, &device)));
    assert_eq!(bodies(&said), ["rr", "rp"]);
    let expected = json!([{ "fields": ["serialNumber", "issuer"], "issuer": "/2.5.4.10=Lab/2.5.4.3=Issuing CA", "serial": serial(&device), "reason": 2 }]);
    assert_eq!(said[0]["content"], expected);
    assert_eq!(said[1]["content"]["revCerts"], json!([serial(&device)]));
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn c4_certconf_with_hashalg_and_c7_a_rejecting_one_are_read() {
    let ca = Authority::root("/O=Lab/CN=Issuing CA", KeyType::MlDsa44);
    let mut world = World { acceptance: accepting(std::slice::from_ref(&ca.certificate)), ca, ..World::new() };
    let request = world.request();
    let said = read(&enrol(&mut world, request, mac("dev1", SECRET)));
    assert_eq!(bodies(&said), ["ir", "ip", "certConf", "pkiconf"]);
    assert_eq!(said.iter().map(|one| one["pvno"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 2, 3, 2]);
    assert_eq!(said[2]["content"][0]["hashAlg"], "2.16.840.1.101.3.4.2.1");

    let mut world = World::new();
    let other = world.ca.issue(&Leaf::new("/CN=dev1", key(KeyType::P256).as_ref()));
    let issued = other.clone();
    world.twist = Box::new(move |_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate: issued.clone(),
            with_mods: true,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        answer => answer,
    });
    let request = world.request();
    let said = read(&enrol(&mut world, request, mac("dev1", SECRET)));
    assert_eq!(said[1]["content"][0]["certificate"], serial(&other));
    assert_eq!(said[1]["content"][0]["status"], 1, "grantedWithMods");
    let conf = &said[2]["content"][0];
    assert_eq!(conf["certHash"], hex::encode(trustfleet_pki::digest::sha256(other.as_der())));
    assert_eq!((&conf["status"]["status"], &conf["status"]["failInfo"]), (&2.into(), &json!([7])), "incorrectData");
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn r7_a_p10cr_is_read_with_the_csr_inside() {
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dev.key"), world.key.pkcs8_pem().unwrap()).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-new", "-key", "dev.key", "-subj", "/CN=dev1", "-addext", "subjectAltName=DNS:dev1.example"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let p10 = P10Request {
        csr: Csr::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap(),
        recipient: world.ca.certificate.subject(),
        sender: None,
        implicit_confirm: false,
        cert_profile: None,
        extra_certs: vec![],
    };
    let said = read(&begin(&mut world, Request::P10(Box::new(p10)), mac("dev1", SECRET)));
    assert_eq!(bodies(&said), ["p10cr", "cp", "certConf", "pkiconf"]);
    assert_eq!(said[0]["content"], "/2.5.4.3=dev1");
    assert_eq!((&said[1]["content"][0]["certReqId"], &said[2]["content"][0]["certReqId"]), (&json!(-1), &json!(-1)));
}

fn info(info_type: ObjectIdentifier, value: Option<Any>) -> Answer {
    Answer::Info(vec![InfoTypeAndValue { info_type, info_value: value }])
}

/// What was asked and what was answered, as pyasn1 reads both.
fn asked(question: Question, answer: Answer) -> (Value, Value) {
    let mut world = World::twisted(move |_, _, _, _, _| answer.clone());
    let recipient = world.ca.certificate.subject();
    let request = InfoRequest { question, recipient, sender: None, extra_certs: vec![] };
    let said = read(&begin(&mut world, Request::Info(Box::new(request)), mac("dev1", SECRET)));
    assert_eq!(bodies(&said)[..2], ["genm", "genp"]);
    (said[0]["content"].clone(), said[1]["content"].clone())
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn r9_questions_and_answers_with_forms_of_their_own_are_read() {
    let raw = |certificate: &Certificate| RawSequence::from_tlv(certificate.as_der()).unwrap();
    let any = |value: &dyn Fn() -> der::Result<Any>| Some(value().unwrap());
    let old = Authority::root("/O=Lab/CN=Root", KeyType::P256);
    let new = Authority::root("/O=Lab/CN=Root", KeyType::P384);
    let root = |key: &dyn Signer| Leaf { ca: true, ..Leaf::new("/O=Lab/CN=Root", key) };
    let (new_with_old, old_with_new) = (old.issue(&root(new.key.as_ref())), new.issue(&root(old.key.as_ref())));
    for with_old in [true, false] {
        let update = RootCaKeyUpdateContent {
            new_with_new: raw(&new.certificate),
            new_with_old: Some(raw(&new_with_old)),
            old_with_new: with_old.then(|| raw(&old_with_new)),
        };
        let answer = info(oids::IT_ROOT_CA_KEY_UPDATE, any(&|| Any::encode_from(&update)));
        let (question, answer) = asked(Question::RootCaUpdate { old: old.certificate.clone() }, answer);
        assert_eq!(question, json!([["1.3.6.1.5.5.7.4.20", [serial(&old.certificate)]]]));
        let mut expected = json!({ "newWithNew": serial(&new.certificate), "newWithOld": serial(&new_with_old) });
        if with_old {
            expected["oldWithNew"] = serial(&old_with_new).into();
        }
        assert_eq!(answer, json!([["1.3.6.1.5.5.7.4.18", expected]]));
    }

    let ec =
        spki::AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"), parameters: None };
    let content = CertReqTemplateContent {
        cert_template: CertTemplate {
            subject: Some(RawSequence::from_tlv(name("/O=Lab/CN=x").as_der()).unwrap()),
            ..CertTemplate::default()
        },
        key_spec: Some(vec![
            Control { id: oids::REG_CTRL_ALG_ID, value: Any::encode_from(&ec).unwrap() },
            Control { id: oids::REG_CTRL_RSA_KEY_LEN, value: Any::encode_from(&3072_u32).unwrap() },
        ]),
    };
    let answer = info(oids::IT_CERT_REQ_TEMPLATE, any(&|| Any::encode_from(&content)));
    let (question, answer) = asked(Question::CertReqTemplate, answer);
    assert_eq!(question, json!([["1.3.6.1.5.5.7.4.19", null]]));
    let template = json!({ "fields": ["subject"], "subject": "/2.5.4.10=Lab/2.5.4.3=x" });
    let key_spec =
        json!([["1.3.6.1.5.5.7.5.1.11", hex::encode(ec.to_der().unwrap())], ["1.3.6.1.5.5.7.5.1.12", "02020c00"]]);
    assert_eq!(answer, json!([["1.3.6.1.5.5.7.4.19", { "template": template, "keySpec": key_spec }]]));

    let (issuer, uri) = (CrlOf::Issuer(name("/O=Lab/CN=x")), "http://ca.example/ca.crl".to_owned());
    for (source, this_update, expected) in [
        (issuer.clone(), None, json!(["issuer", ["directoryName:/2.5.4.10=Lab/2.5.4.3=x"], null])),
        (
            issuer,
            Some("2049-12-31T23:59:59Z"),
            json!(["issuer", ["directoryName:/2.5.4.10=Lab/2.5.4.3=x"], "utcTime:491231235959Z"]),
        ),
        (
            CrlOf::Uri(uri),
            Some("2050-01-01T00:00:00Z"),
            json!(["dpn", ["uniformResourceIdentifier:http://ca.example/ca.crl"], "generalTime:20500101000000Z"]),
        ),
    ] {
        let this_update = this_update.map(|text| text.parse().unwrap());
        let (question, _) = asked(Question::CrlUpdate { source, this_update }, info(oids::IT_CRLS, None));
        assert_eq!(question, json!([["1.3.6.1.5.5.7.4.22", [expected]]]));
    }

    let languages = Question::SupportedLanguages(vec!["de".to_owned(), "en".to_owned()]);
    let (question, _) = asked(languages, info(oids::IT_SUPP_LANG_TAGS, None));
    assert_eq!(question, json!([["1.3.6.1.5.5.7.4.16", ["de", "en"]]]));
    let certificates = any(&|| Any::encode_from(&vec![raw(&new.certificate), raw(&old.certificate)]));
    let (question, answer) = asked(Question::CaCerts, info(oids::IT_CA_CERTS, certificates));
    assert_eq!(question, json!([["1.3.6.1.5.5.7.4.17", null]]));
    assert_eq!(answer, json!([["1.3.6.1.5.5.7.4.17", [serial(&new.certificate), serial(&old.certificate)]]]));
}

fn texts(texts: &[&str]) -> FreeText {
    texts.iter().map(|text| Decode::from_der(&(*text).to_owned().to_der().unwrap()).unwrap()).collect()
}

/// One answer of the server, whatever it is, as pyasn1 reads it.
fn answered(body: PkiBody) -> Value {
    let mut world = World::twisted(move |_, _, _, _, _| Answer::Body(Box::new(body.clone())));
    let request = world.request();
    read(&enrol(&mut world, request, mac("dev1", SECRET))).swap_remove(1)
}

#[test]
#[ignore = "wants pyasn1-alt-modules: scripts/interop/cmp.sh"]
fn e3_v1_errors_with_every_field_nested_messages_and_encrypted_certificates_are_read() {
    let mut status_info = PkiStatusInfo::rejection(&[FailureBit::BadAlg, FailureBit::DuplicateCertReq], "one");
    status_info.status_string = Some(texts(&["one", "zwei: ü"]));
    let error = ErrorMsgContent {
        status_info,
        error_code: Some(Int::new(&[0xfb]).unwrap()),
        error_details: Some(texts(&["details"])),
    };
    let said = answered(PkiBody::Error(error));
    let expected =
        json!({ "status": 2, "texts": ["one", "zwei: ü"], "failInfo": [0, 26], "code": -5, "details": ["details"] });
    assert_eq!(said["content"], expected);

    // an RA's envelope around two messages, protected inside and out
    let mut world = World::new();
    let (transaction, inner) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    drop(transaction);
    let inner = PkiMessage::from_der(&inner).unwrap();
    let said = answered(PkiBody::Nested(vec![inner.clone(), inner]));
    assert_eq!(said["protection"], "pbm sha256 good", "over what is inside as well");
    let inside: Vec<_> = said["content"].as_array().unwrap().clone();
    assert_eq!(bodies(&inside), ["ir", "ir"]);
    assert!(inside.iter().all(|one| one["protection"] == "pbm sha256 good"), "{inside:?}");

    let recipient = Authority::root("/CN=dev1", KeyType::Rsa2048);
    for (sealed, expected) in [
        (
            EncryptedKey::EnvelopedData(envelope(&recipient.certificate)),
            json!({ "recipients": ["ktri"], "contentType": "1.2.840.113549.1.7.1", "cipher": "2.16.840.1.101.3.4.1.42" }),
        ),
        (EncryptedKey::EncryptedValue(encrypted_value()), json!("encryptedValue")),
    ] {
        let pair = CertifiedKeyPair {
            cert_or_enc_cert: CertOrEncCert::EncryptedCert(sealed),
            private_key: None,
            publication_info: None,
        };
        let response = CertResponse {
            cert_req_id: 0,
            status: PkiStatusInfo::plain(PkiStatus::Accepted),
            certified_key_pair: Some(pair),
            rsp_info: None,
        };
        let said = answered(PkiBody::Ip(CertRepMessage { ca_pubs: None, response: vec![response] }));
        assert_eq!(said["content"][0]["encrypted"], expected);
    }
}

/// EnvelopedData by `openssl cms`.
fn envelope(recipient: &Certificate) -> RawSequence {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("recipient.pem"), recipient.to_pem()).unwrap();
    let made = Command::new("openssl")
        .args("cms -encrypt -binary -outform DER -in recipient.pem -aes256 -recip recipient.pem".split(' '))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let parts = Vec::<Any>::from_der(&made.stdout).unwrap();
    RawSequence::from_tlv(parts[1].value()).unwrap()
}

/// EncryptedValue with nothing but encValue.
fn encrypted_value() -> RawSequence {
    RawSequence::from_tlv(&[0x30, 0x05, 0x03, 0x03, 0x00, 0xaa, 0xbb]).unwrap()
}
