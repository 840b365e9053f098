//! What a hostile answer may leave behind: short errors, short messages, small records.

use super::*;
use trustfleet_cmp::{
    Request as Begin, RevocationReason, RevokeRequest,
    codec::{PkiHeader, RawSequence, raw::directory_name},
};

/// Longest error or message to the server that a hostile answer may cause.
const SHORT: usize = 4096;

/// A name of 15 KiB.
fn long_name() -> Name {
    let rdn = &name(&format!("/CN={}", "\u{e4}".repeat(64))).as_der()[3..].to_vec();
    let rdns = rdn.repeat(100);
    Name::from_der(&[&[0x30, 0x82, (rdns.len() >> 8) as u8, rdns.len() as u8][..], &rdns].concat()).unwrap()
}

#[test]
fn e3_a_peers_name_of_many_kilobytes_makes_no_long_error() {
    assert!(long_name().to_string().len() > 3 * SHORT);
    let mut world = World::new();
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::P256);
    world.shape = |header: &mut PkiHeader| header.sender = directory_name(long_name().as_der()).unwrap();
    let error = world.run(world.request(), signature(&key, &certificate)).result.unwrap_err();
    assert_eq!(error.code(), "signer_unknown");
    assert!(error.to_string().len() < SHORT, "{} bytes", error.to_string().len());
}

#[test]
fn e3_a_certificate_with_such_a_name_makes_no_long_warning() {
    let mut world = World::new();
    let leaf = Leaf { subject: long_name(), ..Leaf::new("/CN=unused", world.key.as_ref()) };
    let certificate = world.ca.issue(&leaf);
    world.twist = Box::new(move |_, _, answer, _, _| match answer {
        Answer::Granted { kind, cert_req_id, .. } => Answer::Granted {
            kind,
            cert_req_id,
            certificate: certificate.clone(),
            with_mods: false,
            ca_pubs: vec![],
            extra_certs: vec![],
            implicit_confirm: false,
        },
        other => other,
    });
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let answer = world.serve(&message);
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let Step::Send { transaction, .. } = step else { panic!("{step:?}") };
    let json = serde_json::to_value(transaction.record()).unwrap();
    assert!(json["context"]["warnings"].to_string().len() < SHORT);
}

#[test]
fn r8_a_serial_number_of_many_kilobytes_makes_no_long_error() {
    let mut world = World::twisted(|_, received, answer, _, _| match &received.request {
        Request::Revoke(asked) => Answer::Revoked {
            status: trustfleet_cmp::PkiStatus::Accepted,
            issuer: asked.issuer.clone(),
            serial: vec![1; 100_000],
            crls: vec![],
        },
        _ => answer,
    });
    let (key, certificate) = world.ca.identity("/CN=dev1", KeyType::P256);
    let request = Begin::Revoke(Box::new(RevokeRequest::of(&certificate, RevocationReason::Superseded)));
    let error = world.begin(request, signature(&key, &certificate)).failed();
    assert_eq!(error.code(), "other_certificate");
    assert!(error.to_string().len() < SHORT, "{} bytes", error.to_string().len());
}

#[test]
fn v3_a_nonce_of_many_kilobytes_is_refused_and_not_sent_back() {
    let long = |header: &mut PkiHeader| header.sender_nonce = Some(der::asn1::OctetString::new([7; 50_000]).unwrap());
    // authentic or not
    for secret in [SECRET, "another secret of sufficient length"] {
        let mut world = World::twisted(move |_, _, answer, _, protection| {
            if let ReplyProtection::Mac { secret: used, .. } = protection {
                *used = secret.as_bytes().to_vec().into();
            }
            answer
        });
        world.shape = long;
        let end = world.run_mac();
        assert_eq!(end.code(), if secret == SECRET { "sender_nonce_wrong" } else { "mac_mismatch" });
        assert!(end.tell_peer.unwrap().len() < SHORT);
    }
}

/// No protection covers extraCerts: whoever stands between could fill the device's disk with them.
#[test]
fn x4_slipped_in_certificates_do_not_make_a_large_record() {
    let mut world = World::twisted(|_, received, answer, _, _| match &received.request {
        Request::Certificate(asked) => Answer::Waiting { kind: asked.kind, cert_req_id: asked.cert_req_id },
        _ => answer,
    });
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let mut waiting = PkiMessage::from_der(&world.serve(&message)).unwrap();
    let large = |n: u32| {
        let names = vec![trustfleet_pki::San::parse("dns", "a.example").unwrap(); 2_500];
        let san_der = Some(trustfleet_pki::san::extension_value(&names).unwrap());
        world.ca.issue(&Leaf { san_der, ..Leaf::new(&format!("/CN={n}"), world.key.as_ref()) })
    };
    let certificates = (0..30).map(|n| RawSequence::from_tlv(large(n).as_der()).unwrap());
    waiting.extra_certs = certificates.collect();
    let answer = waiting.to_der().unwrap();
    assert!(answer.len() > 800_000, "{} bytes came", answer.len());
    let step = transaction.handle(Input::Response(&answer), &mut world.entropy, world.now);
    let Step::Send { transaction, .. } = step else { panic!("{step:?}") };
    let record = serde_json::to_string(&transaction.record()).unwrap();
    assert!(record.len() < 400_000, "{} bytes are kept", record.len());
}
