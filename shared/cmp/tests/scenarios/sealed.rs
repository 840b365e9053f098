//! Certificates that come encrypted to the requested key: the envelope is made by `openssl cms`.

use super::*;
use std::{fs, process::Command};

use der::{Decode, asn1::Any};
use trustfleet_cmp::{
    SoftwareDecrypter,
    codec::{
        CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair, PkiBody, PkiStatus, PkiStatusInfo, RawSequence,
        response::EncryptedKey,
    },
};
use trustfleet_pki::Certificate;

/// EnvelopedData with the certificate, encrypted to the key of `recipient`.
fn envelope(certificate: &Certificate, recipient: &Certificate, cipher: &str, more: &[&str]) -> RawSequence {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("content"), certificate.as_der()).unwrap();
    fs::write(folder.path().join("recipient.pem"), recipient.to_pem()).unwrap();
    let fixed = ["cms", "-encrypt", "-binary", "-outform", "DER", "-in", "content"];
    let made = Command::new("openssl")
        .args(fixed)
        .arg(cipher)
        .args(["-recip", "recipient.pem"])
        .args(more)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    // ContentInfo ::= SEQUENCE { contentType, content [0] EXPLICIT EnvelopedData }
    let parts = Vec::<Any>::from_der(&made.stdout).unwrap();
    RawSequence::from_tlv(parts[1].value()).unwrap()
}

/// A world that issues in an envelope, to the requested key or to another one.
fn sealing(cipher: &str, more: &[&str], for_another: bool) -> (World, Certificate) {
    let mut world = World::new();
    world.key = key(KeyType::Rsa2048);
    let names = trustfleet_pki::san::extension_value(&[San::parse("dns", "dev1.example").unwrap()]).unwrap();
    let leaf = Leaf { san_der: Some(names), ..Leaf::new("/CN=dev1", world.key.as_ref()) };
    let certificate = world.ca.issue(&leaf);
    let other = world.ca.issue(&Leaf::new("/CN=other", key(KeyType::Rsa2048).as_ref()));
    let sealed = envelope(&certificate, if for_another { &other } else { &certificate }, cipher, more);
    world.twist = Box::new(move |nth, _, answer, _, _| {
        if nth > 0 {
            return answer;
        }
        let pair = CertifiedKeyPair {
            cert_or_enc_cert: CertOrEncCert::EncryptedCert(EncryptedKey::EnvelopedData(sealed.clone())),
            private_key: None,
            publication_info: None,
        };
        let response = CertResponse {
            cert_req_id: 0,
            status: PkiStatusInfo::plain(PkiStatus::Accepted),
            certified_key_pair: Some(pair),
            rsp_info: None,
        };
        Answer::Body(Box::new(PkiBody::Ip(CertRepMessage { ca_pubs: None, response: vec![response] })))
    });
    (world, certificate)
}

/// The first answer, read; certConf would be about the certificate that was inside.
fn first_step(world: &mut World, certificate: &Certificate, opens: bool) -> Step {
    if opens {
        let decrypter = SoftwareDecrypter::from_pkcs8(world.key.pkcs8_der()).unwrap();
        world.acceptance.decrypter = Some(Arc::new(decrypter));
    }
    let (transaction, message) = world.start(world.request(), mac("dev1", SECRET)).unwrap();
    let answer = world.serve(&message);
    world.open.as_mut().unwrap().certificate = Some(certificate.clone());
    transaction.handle(Input::Response(&answer), &mut world.entropy, world.now)
}

#[test]
fn s24a_a_certificate_encrypted_to_the_requested_key_is_opened_and_confirmed() {
    let oaep = |hash: &str| ["rsa_padding_mode:oaep".to_owned(), format!("rsa_oaep_md:{hash}")];
    let [sha256, sha1] = ["sha256", "sha1"].map(oaep);
    let with =
        |options: &[String; 2]| ["-keyopt".to_owned(), options[0].clone(), "-keyopt".to_owned(), options[1].clone()];
    for (cipher, more) in [("-aes256", vec![]), ("-aes128", with(&sha256).to_vec()), ("-aes192", with(&sha1).to_vec())]
    {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let (mut world, certificate) = sealing(cipher, &more, false);
        let step = first_step(&mut world, &certificate, true);
        let enrolled = world.go_on(step).enrolled();
        assert_eq!(enrolled.certificate, certificate);
        assert_eq!(world.taken, Some(true), "C3: certHash is that of the certificate inside");
    }
}

#[test]
fn s24a_an_envelope_for_another_key_or_without_a_decrypter_is_refused() {
    let (mut world, certificate) = sealing("-aes256", &[], true);
    let Step::Failed { error, .. } = first_step(&mut world, &certificate, true) else { panic!() };
    assert_eq!(error.code(), "certificate_sealed");
    let (mut world, certificate) = sealing("-aes256", &[], false);
    let Step::Failed { error, .. } = first_step(&mut world, &certificate, false) else { panic!() };
    assert_eq!(error.code(), "certificate_encrypted");
    let (mut world, certificate) = sealing("-des3", &[], false);
    let Step::Failed { error, .. } = first_step(&mut world, &certificate, true) else { panic!() };
    assert!(error.to_string().contains("the cipher 1.2.840.113549.3.7, which is not supported"), "{error}");
}

/// What the server is told when the envelope cannot be used must not say how far it could be opened: an RA between us and
/// the CA could ask so for the content of other envelopes to the same key, one guess each.
#[test]
fn s24a_the_server_does_not_learn_how_far_an_envelope_could_be_opened() {
    let told = |certificate_opens: bool, change: fn(&mut Vec<u8>)| {
        let (mut world, certificate) = sealing("-aes256", &[], !certificate_opens);
        let mut first = std::mem::replace(&mut world.twist, Box::new(|_, _, answer, _, _| answer));
        world.twist = Box::new(move |nth, received, answer, to, by| match first(nth, received, answer, to, by) {
            Answer::Body(body) => Answer::Body(Box::new(changed(*body, change))),
            other => other,
        });
        let Step::Failed { error, tell_peer, .. } = first_step(&mut world, &certificate, true) else { panic!() };
        let told = PkiMessage::from_der(&tell_peer.unwrap()).unwrap().body;
        (error.code(), format!("{told:?}"))
    };
    let not_ours = told(false, |_| {});
    // the last block decides on the padding, the block before the last on what is in it
    let bad_padding = told(true, |content| {
        let at = content.len() - 17;
        content[at] ^= 0x80;
    });
    let no_certificate = told(true, |content| content[0] ^= 0x01);
    assert_eq!(not_ours.0, "certificate_sealed");
    assert_eq!(not_ours, bad_padding);
    assert_eq!(not_ours, no_certificate);
}

/// The body with the encrypted content changed.
fn changed(body: PkiBody, change: fn(&mut Vec<u8>)) -> PkiBody {
    let PkiBody::Ip(mut answer) = body else { panic!() };
    let pair = answer.response[0].certified_key_pair.as_mut().unwrap();
    let CertOrEncCert::EncryptedCert(EncryptedKey::EnvelopedData(raw)) = &mut pair.cert_or_enc_cert else { panic!() };
    let mut parts = Vec::<Any>::from_der(&raw.to_tlv().unwrap()).unwrap();
    let last = parts.len() - 1;
    let mut content = Vec::<Any>::from_der(&der::Encode::to_der(&parts[last]).unwrap()).unwrap();
    let mut bytes = content[2].value().to_vec();
    change(&mut bytes);
    content[2] = Any::new(der::Tagged::tag(&content[2]), bytes).unwrap();
    parts[last] = Any::encode_from(&content).unwrap();
    *raw = RawSequence::from_tlv(&der::Encode::to_der(&parts).unwrap()).unwrap();
    PkiBody::Ip(answer)
}
