use trustfleet_pki::{
    Certificate, CertificateError, KeyKind, ObjectIdentifier,
    certificate::{CMC_CA, MAX_DER_BYTES, serial_hex},
    digest::{HashAlgorithm, digest_for_signature, sha256},
};

use crate::openssl::{CA, END_ENTITY, OpenSsl};

#[test]
fn a_certificate_is_read_as_openssl_shows_it() {
    let openssl = OpenSsl::new();
    openssl.root("root", "");
    openssl.issued("issuing", "root", CA, "-set_serial 0x00f1");
    let certificate = openssl.issued("ap1", "issuing", &END_ENTITY.replace("clientAuth", "clientAuth,cmcCA"), "");

    let shown = openssl.run("x509 -in ap1.pem -noout -serial -fingerprint -sha256");
    let fingerprint = hex::encode_upper(certificate.sha256_fingerprint());
    assert!(shown.contains(&format!("serial={}", certificate.serial_hex())), "{shown}");
    assert!(shown.replace(':', "").contains(&fingerprint), "{shown}");
    assert_eq!(certificate.subject().to_slash(), "/O=Lab/CN=ap1");
    assert_eq!(certificate.issuer(), openssl.certificate("issuing").subject());
    assert_eq!(openssl.certificate("issuing").serial_hex(), "F1");
    assert_eq!(openssl.certificate("issuing").serial_der_bytes(), [0x00, 0xf1]);

    let lifetime = certificate.not_after().as_second() - certificate.not_before().as_second();
    assert_eq!(lifetime, 20 * 86_400);
    assert!(certificate.is_valid_at(certificate.not_after()));

    assert!(!certificate.is_ca() && openssl.certificate("issuing").is_ca());
    assert_eq!(certificate.key_usage().unwrap().names(), ["digitalSignature"]);
    assert_eq!(
        openssl.certificate("issuing").key_usage().unwrap().names(),
        ["digitalSignature", "keyCertSign", "cRLSign"]
    );
    assert!(certificate.allows_digital_signature());
    assert_eq!(certificate.extended_key_usages(), [ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"), CMC_CA]);
    let shown = openssl.run("x509 -in ap1.pem -noout -ext subjectKeyIdentifier").replace(':', "");
    assert!(shown.contains(&hex::encode_upper(certificate.subject_key_id().unwrap())), "{shown}");

    openssl.run("x509 -in ap1.pem -noout -pubkey -out ap1.pub");
    openssl.run("pkey -pubin -in ap1.pub -outform DER -out ap1.spki");
    let spki = std::fs::read(openssl.path("ap1.spki")).unwrap();
    assert_eq!(certificate.spki_der(), spki);
    assert_eq!(certificate.public_key().fingerprint(), sha256(&spki));
    assert_eq!(certificate.public_key().algorithm(), KeyKind::EcP256);
    assert_eq!(digest_for_signature(&certificate.signature_algorithm()).unwrap(), HashAlgorithm::Sha256);
}

#[test]
fn the_http_addresses_of_a_certificates_crl_are_read() {
    let openssl = OpenSsl::new();
    openssl.root("root", "");
    let points =
        "crlDistributionPoints=URI:http://ca.example/a.crl,URI:ldap://ca.example/x,URI:https://b.example/b.crl";
    let certificate = openssl.issued("ap1", "root", &format!("{END_ENTITY}\n{points}"), "");
    assert_eq!(certificate.crl_urls(), ["http://ca.example/a.crl", "https://b.example/b.crl"]);
    assert!(openssl.certificate("root").crl_urls().is_empty());
}

#[test]
fn der_and_pem_go_round_unchanged() {
    let openssl = OpenSsl::new();
    let root = openssl.root("root", "");
    openssl.run("x509 -in root.pem -outform DER -out root.der");
    let der = std::fs::read(openssl.path("root.der")).unwrap();
    assert_eq!(Certificate::from_der(&der).unwrap().as_der(), der);
    assert_eq!(root.to_pem(), std::fs::read_to_string(openssl.path("root.pem")).unwrap());
    assert_eq!(Certificate::from_pem(&root.to_pem().replace('\n', "\r\n")).unwrap(), root);
}

#[test]
fn p11_without_a_key_usage_signing_is_allowed_and_with_another_one_it_is_not() {
    let openssl = OpenSsl::new();
    openssl.root("root", "");
    assert!(openssl.issued("a", "root", "basicConstraints=CA:FALSE\n", "").allows_digital_signature());
    let other = openssl.issued("b", "root", "keyUsage=keyEncipherment\n", "");
    assert!(!other.allows_digital_signature());
}

#[test]
fn a_bundle_keeps_its_order_and_passes_over_text_and_keys() {
    let openssl = OpenSsl::new();
    let (one, two) = (openssl.root("one", ""), openssl.root("two", ""));
    let key = std::fs::read_to_string(openssl.path("one.key")).unwrap();
    let bundle = format!("subject=/CN=one\n{}\n{key}\n# two\n{}", one.to_pem(), two.to_pem());
    assert_eq!(Certificate::pem_bundle(&bundle).unwrap(), [one.clone(), two]);
    assert_eq!(Certificate::from_pem(&bundle).unwrap_err(), CertificateError::PemCount { found: 2 });
    assert_eq!(Certificate::from_pem(&key).unwrap_err(), CertificateError::PemNone);
    let broken = one.to_pem().replace("-----END", "!----END");
    assert!(Certificate::from_pem(&broken).is_err());
}

#[test]
fn what_is_no_certificate_is_refused_with_a_reason() {
    assert_eq!(
        Certificate::from_der(&vec![0x30; MAX_DER_BYTES + 1]).unwrap_err().to_string(),
        "certificate has 65537 bytes, at most 65536 are allowed"
    );
    assert!(matches!(Certificate::from_der(b"hello").unwrap_err(), CertificateError::Der(_)));
    assert_eq!(Certificate::from_pem("").unwrap_err().to_string(), "PEM has no CERTIFICATE block");
    let openssl = OpenSsl::new();
    let mut trailing = openssl.root("root", "").as_der().to_vec();
    trailing.push(0);
    assert!(Certificate::from_der(&trailing).is_err(), "bytes after a certificate are not ignored");
}

#[test]
fn serial_numbers_are_printed_as_openssl_does() {
    for (integer, text) in [
        (&[0x00][..], "00"),
        (&[0x01], "01"),
        (&[0x00, 0x80], "80"),
        (&[0x0a, 0xbc], "0ABC"),
        (&[0xff], "-01"),
        (&[0x80], "-80"),
        (&[0xff, 0x00], "-0100"),
    ] {
        assert_eq!(serial_hex(integer), text, "{integer:?}");
    }
    let openssl = OpenSsl::new();
    openssl.root("ca", "");
    for serial in ["0x0", "0x80", "-0x80", "-0x100", "0x7fffffffffffffffffffffffffffffffffffffff"] {
        let certificate = openssl.issued("x", "ca", END_ENTITY, &format!("-set_serial {serial}"));
        let shown = openssl.run("x509 -in x.pem -noout -serial");
        assert_eq!(shown.trim(), format!("serial={}", certificate.serial_hex()));
    }
}
