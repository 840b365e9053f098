//! A PKCS #10 request, written here so that the engine's reader has something foreign.

use der::{
    Encode, Sequence,
    asn1::{BitString, OctetString, SetOfVec},
};
use trustfleet_cmp::{
    Signer as _, SoftwareKey,
    codec::{RawSequence, oids},
};
use trustfleet_pki::san::San;

use super::name;

/// SEQUENCE { version, subject, subjectPKInfo, attributes [0] }
#[derive(Sequence)]
struct Info {
    version: u8,
    subject: RawSequence,
    public_key: RawSequence,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true")]
    attributes: SetOfVec<x509_cert::attr::Attribute>,
}

#[derive(Sequence)]
struct Outer {
    info: RawSequence,
    algorithm: spki::AlgorithmIdentifierOwned,
    signature: BitString,
}

pub fn csr_der(subject: &str, key: &SoftwareKey, signer: &SoftwareKey) -> Vec<u8> {
    let names = trustfleet_pki::san::extension_value(&[San::parse("dns", "dev1.example").unwrap()]).unwrap();
    let names = x509_cert::ext::Extension {
        extn_id: oids::SUBJECT_ALT_NAME,
        critical: false,
        extn_value: OctetString::new(names).unwrap(),
    };
    let values = SetOfVec::try_from(vec![der::asn1::Any::encode_from(&vec![names]).unwrap()]).unwrap();
    let extensions = x509_cert::attr::Attribute { oid: oids::EXTENSION_REQUEST, values };
    let info = Info {
        version: 0,
        subject: RawSequence::from_tlv(name(subject).as_der()).unwrap(),
        public_key: RawSequence::from_tlv(key.public_key_der()).unwrap(),
        attributes: SetOfVec::try_from(vec![extensions]).unwrap(),
    };
    let info = info.to_der().unwrap();
    let signature = BitString::from_bytes(&signer.sign(&info).unwrap()).unwrap();
    let info = RawSequence::from_tlv(&info).unwrap();
    Outer { info, algorithm: signer.algorithm(), signature }.to_der().unwrap()
}
