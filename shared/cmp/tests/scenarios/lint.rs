//! What the lint finds in requests of ours, of OpenSSL's, and in broken ones.

use trustfleet_cmp::codec::{
    PkiBody, RawSequence,
    request::{CertRequest, ProofOfPossession},
};
use trustfleet_cmp::lint::{Finding, Severity, lint};

use super::*;

fn rules(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.rule).collect()
}

/// What is found after a change, the protection left as it was: the lint does not verify it.
fn broken(message: &[u8], change: impl FnOnce(&mut PkiMessage)) -> Vec<&'static str> {
    let mut message = PkiMessage::from_der(message).unwrap();
    change(&mut message);
    rules(&lint(&message.reencoded().unwrap()))
}

fn with_request(message: &mut PkiMessage, change: impl FnOnce(&mut CertRequest)) {
    let (PkiBody::Ir(requests) | PkiBody::Kur(requests)) = &mut message.body else { panic!() };
    let mut asked: CertRequest = requests[0].cert_req.parse().unwrap();
    change(&mut asked);
    requests[0].cert_req = RawSequence::from_tlv(&der::Encode::to_der(&asked).unwrap()).unwrap();
}

#[test]
fn requests_of_ours_and_of_openssl_have_no_errors() {
    let mut world = World::new();
    let (_, by_mac) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    assert_eq!(lint(&by_mac), []);
    let (identity_key, identity) = world.ca.identity("/C=DE/CN=identity", KeyType::P256);
    let (_, signed) = world.start(world.request(), signature(&identity_key, &identity)).unwrap();
    let found = lint(&signed);
    assert!(found.iter().all(|finding| finding.severity == Severity::Warning), "{found:?}");
    for vector in [
        include_bytes!("../vectors/ir-mac-q1.der").as_slice(),
        include_bytes!("../vectors/ir-signature-q1.der"),
        include_bytes!("../vectors/cr-signature-q1.der"),
        include_bytes!("../vectors/kur-signature-q1.der"),
    ] {
        let found = lint(vector);
        assert!(found.iter().all(|finding| finding.severity == Severity::Warning), "{found:?}");
    }
}

#[test]
fn what_a_strict_server_refuses_is_found_and_named_by_its_rule() {
    let mut world = World::new();
    let (_, sent) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    assert_eq!(broken(&sent, |message| message.header.message_time = None), ["H8"]);
    assert_eq!(broken(&sent, |message| message.header.transaction_id = None), ["H10"]);
    assert_eq!(broken(&sent, |message| message.header.sender_nonce = None), ["H11"]);
    assert_eq!(broken(&sent, |message| message.header.recip_nonce = message.header.sender_nonce.clone()), ["H12"]);
    assert_eq!(broken(&sent, |message| message.header.pvno = 3), ["H1"]);
    assert_eq!(broken(&sent, |message| message.protection = None), ["H9", "P10"]);
    let other = directory_name(name("/CN=other").as_der()).unwrap();
    assert_eq!(broken(&sent, |message| message.header.sender = other), ["H4"]);
    assert_eq!(broken(&sent, |message| with_request(message, |asked| asked.cert_req_id = 1)), ["R1"]);
    let empty = RawSequence::from_tlv(Name::null().as_der()).unwrap();
    assert_eq!(
        broken(&sent, |message| {
            with_request(message, |asked| {
                asked.cert_template.subject = Some(empty);
                asked.cert_template.extensions = None;
            });
        }),
        ["R2"]
    );
    assert_eq!(broken(&sent, |message| with_request(message, |asked| asked.cert_template.public_key = None)), ["R2"]);
    let popo = |popo: Option<ProofOfPossession>| {
        broken(&sent, |message| {
            let PkiBody::Ir(requests) = &mut message.body else { panic!() };
            requests[0].popo = popo;
        })
    };
    assert_eq!(popo(None), ["R5"]);
    assert_eq!(popo(Some(ProofOfPossession::RaVerified(der::asn1::Null))), ["R4"]);
    let double = broken(&sent, |message| {
        let PkiBody::Ir(requests) = &mut message.body else { panic!() };
        requests.push(requests[0].clone());
    });
    assert_eq!(double, ["R1"]);
    assert_eq!(broken(&sent, |message| message.body = PkiBody::PkiConf), ["R1"]);
    assert_eq!(rules(&lint(b"no message")), ["V1"]);

    let update = include_bytes!("../vectors/kur-signature-q1.der").as_slice();
    assert!(broken(update, |message| message.extra_certs.clear()).contains(&"X1"));
    let foreign = directory_name(name("/CN=somebody").as_der()).unwrap();
    assert!(broken(update, |message| message.header.sender = foreign).contains(&"H3"));
    assert!(broken(update, |message| with_request(message, |asked| asked.controls = None)).contains(&"R6"));
    let by_mac = PkiMessage::from_der(&sent).unwrap().header;
    assert!(broken(update, |message| message.header = by_mac).contains(&"P9"));
}

#[test]
fn no_finding_repeats_a_salt_or_a_secret() {
    let mut world = World::new();
    let (_, sent) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let told = format!("{:?}", lint(&sent));
    assert!(!told.contains(SECRET), "{told}");
}
