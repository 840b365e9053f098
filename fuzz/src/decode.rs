//! Everything that is decoded from DER, each by its own entry point.
//!
//! The first byte chooses the entry point, the rest is what is decoded. What decodes must encode, and decode to the same
//! value again; what keeps the bytes that it was given must give them back.

use std::fmt::Debug;

use der::{Decode, Encode};
use jiff::Timestamp;
use spki::AlgorithmIdentifierOwned;
use trustfleet_cmp::{
    Crl, Csr,
    codec::{self, PkiMessage, RawSequence, header, info, pbmac1, request, response, status},
    show,
};
use trustfleet_pki::{
    Certificate, Name, PublicKey, SignatureAlgorithm,
    chain::{verify_end_entity, verify_signer},
};

use crate::{
    texts::{harmless, quiet},
    world::{begin, world},
};

/// Says whether it decoded.
type Entry = fn(&[u8]) -> bool;

/// The entry points, which say whether it decoded, in the order of their numbers, which stand in the corpus: new ones go to the end.
pub(crate) const ENTRIES: [(&str, Entry); 30] = [
    ("message", message),
    ("certificate", certificate),
    ("name", name),
    ("crl", crl),
    ("csr", csr),
    ("public key", public_key),
    ("signature algorithm", signature_algorithm),
    ("PKIHeader", again::<header::PkiHeader>),
    ("InfoTypeAndValue", again::<header::InfoTypeAndValue>),
    ("CertRepMessage", again::<response::CertRepMessage>),
    ("CertResponse", again::<response::CertResponse>),
    ("RevRepContent", again::<response::RevRepContent>),
    ("CertReqMsg", again::<request::CertReqMsg>),
    ("CertRequest", again::<request::CertRequest>),
    ("CertTemplate", again::<request::CertTemplate>),
    ("CertId", again::<request::CertId>),
    ("RevDetails", again::<request::RevDetails>),
    ("PollReq", again::<request::PollReq>),
    ("PollRep", again::<request::PollRep>),
    ("PKIStatusInfo", again::<status::PkiStatusInfo>),
    ("ErrorMsgContent", again::<status::ErrorMsgContent>),
    ("CertStatus", again::<status::CertStatus>),
    ("RootCaKeyUpdateContent", again::<info::RootCaKeyUpdateContent>),
    ("CertReqTemplateContent", again::<info::CertReqTemplateContent>),
    ("CRLStatus", again::<info::CrlStatus>),
    ("PBMParameter", again::<codec::PbmParameter>),
    ("PBMAC1-params", again::<pbmac1::Pbmac1Params>),
    ("PBKDF2-params", again::<pbmac1::Pbkdf2Params>),
    ("RawSequence", again::<RawSequence>),
    ("csr of our key", csr_signed),
];

/// Decodes by one of [`ENTRIES`].
pub fn decode(input: &[u8]) {
    if let Some((choice, der)) = input.split_first() {
        let (_, entry) = ENTRIES[usize::from(*choice) % ENTRIES.len()];
        entry(der);
    }
}

/// What decodes also encodes, and both say the same.
fn again<T: for<'a> Decode<'a> + Encode + PartialEq + Debug>(der: &[u8]) -> bool {
    if codec::bounds::check(der).is_err() {
        return false; // as for whole messages: the decoders are not given what is too deep or too long
    }
    let Ok(value) = T::from_der(der) else { return false };
    let encoded = value.to_der().expect("what decodes encodes");
    let read = T::from_der(&encoded).expect("what was encoded decodes");
    assert_eq!(read, value);
    assert_eq!(read.to_der().expect("a second time"), encoded);
    true
}

fn message(der: &[u8]) -> bool {
    let Ok(message) = PkiMessage::from_der(der) else { return false };
    let encoded = message.to_der().expect("what decodes encodes");
    let read = PkiMessage::from_der(&encoded).expect("what was encoded decodes");
    assert_eq!(read, message);
    // P1: header and body stand in what is verified as they were received
    let covered = message.protected_part().expect("it was received");
    let sequence = RawSequence::from_tlv(&covered).expect("a sequence");
    assert!(holds(der, sequence.content()), "the protected part is not what was received");
    if let Ok(anew) = message.reencoded()
        && let Ok(read) = PkiMessage::from_der(&anew)
    {
        assert_eq!((&read.header, &read.body), (&message.header, &message.body));
    }
    for line in show::lines(&message) {
        harmless(&line);
    }
    true
}

fn certificate(der: &[u8]) -> bool {
    let read = Certificate::from_der(der);
    if let Err(error) = &read {
        harmless(&error.to_string());
    }
    let Ok(certificate) = read else { return false };
    assert_eq!(certificate.as_der(), der);
    assert_eq!(Certificate::from_pem(&certificate.to_pem()).as_ref(), Ok(&certificate));
    named(&certificate.subject());
    named(&certificate.issuer());
    quiet(&format!("{certificate:?} {}", certificate.serial_hex()));
    for san in certificate.subject_alt_names() {
        quiet(&san);
    }
    let _ = (certificate.sans(), certificate.key_usage(), certificate.extended_key_usages());
    let (world, anchor) = (world(), std::slice::from_ref(world().ca()));
    let others = [certificate.clone(), world.cmp().clone()];
    for at in [begin(), certificate.not_before(), Timestamp::UNIX_EPOCH] {
        for result in [
            verify_end_entity(&certificate, &others, anchor, at),
            verify_signer(&certificate, &others, anchor, at),
            verify_signer(world.cmp(), &others, &others[..1], at),
        ] {
            if let Err(error) = result {
                quiet(&error.to_string());
            }
        }
    }
    // a certificate that leads to the CA is one that the CA made
    if verify_end_entity(&certificate, &[], anchor, begin()).is_ok() {
        assert!(world.certificates.contains(&certificate), "{certificate:?} was never issued");
    }
    true
}

fn name(der: &[u8]) -> bool {
    let Ok(name) = Name::from_der(der) else { return false };
    assert_eq!(name.as_der(), der);
    named(&name);
    true
}

fn named(name: &Name) {
    quiet(&name.to_string());
    quiet(&name.to_slash());
    assert!(name.says_the_same_as(name));
    let _ = (name.to_x509(), name.common_name());
}

fn crl(der: &[u8]) -> bool {
    let Ok(crl) = Crl::from_der(der) else { return false };
    assert_eq!(crl.as_der(), der);
    named(crl.issuer());
    let _ = (crl.this_update(), crl.next_update(), crl.serials());
    if crl.verify_signed_by(world().ca()).is_ok() {
        assert_eq!(der, crate::world::CRL, "a CRL that was never issued");
    }
    true
}

fn csr(der: &[u8]) -> bool {
    let Ok(csr) = Csr::from_der(der) else { return false };
    assert_eq!(csr.as_der(), der);
    named(csr.subject());
    let _ = (csr.extensions(), csr.san_der(), csr.public_key().algorithm());
    true
}

/// The part of a CSR that its key signs, signed by our key: behind the signature as well.
fn csr_signed(info: &[u8]) -> bool {
    use trustfleet_cmp::Signer as _;
    let key = &world().device;
    let Ok(info) = RawSequence::from_tlv(info) else { return false };
    let info = info.to_tlv().expect("a sequence");
    let signature = key.sign(&info).expect("our key signs");
    let signature = der::asn1::BitString::from_bytes(&signature).and_then(|bits| bits.to_der()).expect("64 octets");
    let algorithm = key.algorithm().to_der().expect("an algorithm");
    let whole = der::asn1::Any::new(der::Tag::Sequence, [info, algorithm, signature].concat());
    csr(&whole.and_then(|whole| whole.to_der()).expect("a sequence"))
}

fn public_key(der: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_spki_der(der) else { return false };
    assert_eq!(key.spki_der(), der);
    let _ = (key.algorithm().to_string(), key.fingerprint(), key.key_identifier());
    for algorithm in SignatureAlgorithm::ALL {
        // a peer's key can make anything verify (exponent 1, points of small order), but it ends
        let _ = key.verify(&algorithm.identifier(), b"message", &[1; 64]);
    }
    true
}

fn signature_algorithm(der: &[u8]) -> bool {
    let Ok(identifier) = AlgorithmIdentifierOwned::from_der(der) else { return false };
    harmless(&show::algorithm(&identifier));
    if let Ok(known) = SignatureAlgorithm::of(&identifier) {
        assert_eq!(SignatureAlgorithm::of(&known.identifier()), Ok(known));
    }
    true
}

fn holds(all: &[u8], part: &[u8]) -> bool {
    part.is_empty() || all.windows(part.len()).any(|window| window == part)
}
