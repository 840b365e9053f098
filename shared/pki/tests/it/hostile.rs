//! Whatever a peer sends: an answer or an error, never a panic.

use std::{slice::from_ref, sync::LazyLock};

use der::{Decode, Encode};
use jiff::Timestamp;
use proptest::prelude::*;
use trustfleet_pki::{
    Certificate, Name, PublicKey, San,
    chain::{verify_end_entity, verify_signer},
};

use crate::openssl::{END_ENTITY, OpenSsl};

static SAMPLE: LazyLock<(Certificate, Certificate)> = LazyLock::new(|| {
    let openssl = OpenSsl::new();
    let root = openssl.root("root", "");
    let extensions = format!("{END_ENTITY}subjectAltName=DNS:a.b,IP:192.0.2.1,email:a@b\n");
    let leaf = openssl.issued("leaf", "root", &extensions, "");
    (root, leaf)
});

/// Everything that can be asked of a certificate.
fn exercise(certificate: &Certificate, anchor: &Certificate) {
    let at = anchor.not_before();
    let _ = (certificate.subject().to_slash(), certificate.issuer().to_string(), certificate.subject().to_x509());
    let _ = (certificate.serial_hex(), certificate.subject_alt_names(), certificate.sans(), certificate.to_pem());
    let _ = certificate.verify_signed_by(&anchor.public_key());
    let _ = verify_end_entity(certificate, from_ref(certificate), from_ref(anchor), at);
    let _ = verify_signer(certificate, from_ref(certificate), from_ref(anchor), at);
    let _ = verify_signer(certificate, &[], from_ref(certificate), Timestamp::UNIX_EPOCH);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Certificate::from_der(&bytes).is_err());
        let _ = (Name::from_der(&bytes), PublicKey::from_spki_der(&bytes));
        let _ = Certificate::pem_bundle(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_damaged_certificate_is_never_taken_for_the_good_one(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (root, leaf) = &*SAMPLE;
        let mut der = leaf.as_der().to_vec();
        for (index, flip) in changes {
            let at = index.index(der.len());
            der[at] ^= flip;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        if let Ok(damaged) = Certificate::from_der(&der) {
            exercise(&damaged, root);
            if der != leaf.as_der() {
                prop_assert!(damaged.verify_signed_by(&root.public_key()).is_err());
            }
        }
    }

    #[test]
    fn any_text_is_a_name_that_reads_back_or_an_error(text in ".{0,80}", kind in "dns|ip|email|uri|dn|upn") {
        for text in [text.clone(), format!("/CN={text}"), format!("CN={text},O=x"), format!("/O=x/{text}")] {
            if let Ok(name) = Name::parse(&text) {
                let shown = if name.is_null() { "/".to_owned() } else { name.to_string() };
                prop_assert_eq!(&Name::parse(&shown).unwrap(), &name);
                prop_assert_eq!(&Name::parse(&name.to_slash()).unwrap(), &name);
                prop_assert_eq!(&Name::from_der(name.as_der()).unwrap(), &name);
            }
        }
        if let Ok(san) = San::parse(&kind, &text) {
            prop_assert_eq!(San::from_general_name(&san.to_general_name().unwrap()), Some(san));
        }
    }
}

#[test]
fn the_undamaged_sample_is_good() {
    let (root, leaf) = &*SAMPLE;
    exercise(leaf, root);
    let at = leaf.not_before();
    assert_eq!(verify_end_entity(leaf, &[], from_ref(root), at), Ok(()));
}

#[test]
fn nested_and_endless_lengths_do_not_exhaust_anything() {
    let deep: Vec<u8> = std::iter::repeat_n([0x30, 0x80], 20_000).flatten().collect();
    assert!(Certificate::from_der(&deep).is_err());
    assert!(Name::from_der(&deep[..16_000]).is_err());
    assert!(Name::from_der(&vec![0x30; 20_000]).unwrap_err().to_string().contains("at most 16384"));
    assert!(Certificate::from_der(b"\x30\x84\xff\xff\xff\xff").is_err());
}

#[test]
fn a_name_that_would_take_long_to_sort_is_refused_at_once() {
    let tlv =
        |tag: u8, content: &[u8]| der::asn1::Any::new(tag.try_into().unwrap(), content).unwrap().to_der().unwrap();
    let attribute = |n: u16| tlv(0x30, &[tlv(0x06, &[0x55, 0x04, 0x03]), tlv(0x04, &n.to_be_bytes())].concat());
    let name = |attributes: u16| {
        let reversed: Vec<u8> = (0..attributes).rev().flat_map(attribute).collect();
        tlv(0x30, &tlv(0x31, &reversed))
    };
    assert!(Name::from_der(&name(64)).is_ok());
    assert!(Name::from_der(&name(65)).unwrap_err().to_string().contains("65 attributes"));
    // the sample with such a subject: sorting it took ten seconds
    let (_, leaf) = &*SAMPLE;
    let parts = Vec::<der::asn1::Any>::from_der(leaf.as_der()).unwrap();
    let mut fields = Vec::<der::asn1::Any>::from_der(&parts[0].to_der().unwrap()).unwrap();
    fields[5] = der::asn1::Any::from_der(&name(5_000)).unwrap();
    let mut whole = parts;
    whole[0] = der::asn1::Any::encode_from(&fields).unwrap();
    let certificate = whole.to_der().unwrap();
    let begun = std::time::Instant::now();
    assert!(Certificate::from_der(&certificate).is_err());
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn no_room_is_made_for_what_a_length_only_promises() {
    use trustfleet_pki::{CertificateError, bounds::BoundsError, public_key::PublicKeyError};
    // id-ecPublicKey, and parameters that would have a hundred megabytes
    let spki = hex_bytes("3012 3010 0607 2a8648ce3d0201 0484 06035504 00");
    assert!(matches!(PublicKey::from_spki_der(&spki), Err(PublicKeyError::Bounds(BoundsError::Broken { .. }))));
    let mut certificate = SAMPLE.1.as_der().to_vec();
    let identifier = certificate.windows(5).rposition(|at| at == [0x06, 0x03, 0x55, 0x1d, 0x0e]).unwrap();
    // subjectKeyIdentifier: OCTET STRING { OCTET STRING of 20 bytes }, the inner one now of 127
    assert_eq!(certificate[identifier + 7..identifier + 9], [0x04, 0x14]);
    certificate[identifier + 8] = 0x7f;
    assert!(matches!(Certificate::from_der(&certificate), Err(CertificateError::Bounds(BoundsError::Broken { .. }))));
}

fn hex_bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}
