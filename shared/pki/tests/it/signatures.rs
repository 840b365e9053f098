use std::fs;

use trustfleet_pki::{
    AlgorithmIdentifierOwned, Certificate, KeyKind, ObjectIdentifier, PublicKey, SignatureAlgorithm, SignatureError,
    digest::{HashAlgorithm, digest_for_signature},
};

use crate::openssl::OpenSsl;

/// A self-signed certificate with a key made by `genpkey` and signed with the options given.
fn self_signed(openssl: &OpenSsl, genpkey: &str, sign: &str) -> Certificate {
    openssl.run(&format!("genpkey {genpkey} -out k.key"));
    openssl.run(&format!("req -x509 -new -key k.key -subj /CN=x -out x.pem {sign}"));
    openssl.certificate("x")
}

#[test]
fn c3_every_accepted_algorithm_verifies_what_openssl_signs_and_names_its_hash() {
    const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    const P384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
    const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    const PSS: &str = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
    const PSS_KEY: &str = "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048";
    let rsa = KeyKind::Rsa { bits: 2048 };
    let cases = [
        (P256, "-sha256", KeyKind::EcP256, HashAlgorithm::Sha256),
        (P256, "-sha384", KeyKind::EcP256, HashAlgorithm::Sha384),
        (P384, "-sha384", KeyKind::EcP384, HashAlgorithm::Sha384),
        (P384, "-sha256", KeyKind::EcP384, HashAlgorithm::Sha256),
        (P256, "-sha512", KeyKind::EcP256, HashAlgorithm::Sha512),
        (P384, "-sha512", KeyKind::EcP384, HashAlgorithm::Sha512),
        ("-algorithm ED25519", "", KeyKind::Ed25519, HashAlgorithm::Sha512),
        (RSA, "-sha256", rsa, HashAlgorithm::Sha256),
        (RSA, "-sha384", rsa, HashAlgorithm::Sha384),
        (RSA, "-sha512", rsa, HashAlgorithm::Sha512),
        (RSA, &format!("-sha256 {PSS}"), rsa, HashAlgorithm::Sha256),
        (RSA, &format!("-sha384 {PSS}"), rsa, HashAlgorithm::Sha384),
        (RSA, &format!("-sha512 {PSS}"), rsa, HashAlgorithm::Sha512),
        (PSS_KEY, &format!("-sha256 {PSS}"), KeyKind::RsaPss { bits: 2048 }, HashAlgorithm::Sha256),
        (PSS_KEY, &format!("-sha384 {PSS}"), KeyKind::RsaPss { bits: 2048 }, HashAlgorithm::Sha384),
    ];
    let openssl = OpenSsl::new();
    for (genpkey, sign, kind, hash) in cases {
        let certificate = self_signed(&openssl, genpkey, sign);
        let key = certificate.public_key();
        assert_eq!(key.algorithm(), kind);
        assert_eq!(certificate.verify_signed_by(&key), Ok(()), "{genpkey} {sign}");
        assert_eq!(digest_for_signature(&certificate.signature_algorithm()).unwrap(), hash, "C3 {genpkey} {sign}");
    }
}

#[test]
fn sha1_short_keys_and_odd_pss_parameters_are_refused() {
    let openssl = OpenSsl::new();
    const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    let sha1 = self_signed(&openssl, RSA, "-sha1");
    assert!(matches!(sha1.verify_signed_by(&sha1.public_key()), Err(SignatureError::Refused { .. })));
    assert_eq!(digest_for_signature(&sha1.signature_algorithm()).unwrap(), HashAlgorithm::Sha1);
    let salt = self_signed(&openssl, RSA, "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20");
    assert!(matches!(salt.verify_signed_by(&salt.public_key()), Err(SignatureError::Parameters { .. })));
    let short = self_signed(&openssl, "-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "-sha256");
    assert_eq!(short.public_key().algorithm(), KeyKind::Rsa { bits: 1024 });
    assert_eq!(
        short.verify_signed_by(&short.public_key()).unwrap_err().to_string(),
        "RSA keys of 2048 to 8192 bits are accepted, this one has 1024"
    );
}

#[test]
fn p6_rsa_parameters_may_be_null_or_absent_and_nothing_else() {
    let openssl = OpenSsl::new();
    let certificate = self_signed(&openssl, "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-sha256");
    openssl.write("message", "certConf");
    openssl.run("dgst -sha256 -sign k.key -out message.sig message");
    let signature = fs::read(openssl.path("message.sig")).unwrap();
    let key = certificate.public_key();
    let mut algorithm = certificate.signature_algorithm();
    assert!(algorithm.parameters.is_some(), "OpenSSL sends NULL");
    assert_eq!(key.verify(&algorithm, b"certConf", &signature), Ok(()));
    assert_eq!(key.verify(&algorithm, b"certconf", &signature), Err(SignatureError::Invalid));
    algorithm.parameters = None;
    assert_eq!(key.verify(&algorithm, b"certConf", &signature), Ok(()));
    algorithm.parameters = Some(der::Any::new(der::Tag::OctetString, [1]).unwrap());
    assert!(matches!(key.verify(&algorithm, b"certConf", &signature), Err(SignatureError::Parameters { .. })));
}

#[test]
fn an_algorithm_that_does_not_fit_the_key_is_named() {
    let openssl = OpenSsl::new();
    let ec = openssl.root("ec", "");
    let ed = self_signed(&openssl, "-algorithm ED25519", "");
    let error = ed.public_key().verify(&ec.signature_algorithm(), b"", b"").unwrap_err();
    assert_eq!(error.to_string(), "signature algorithm 1.2.840.10045.4.3.2 does not fit a key of kind Ed25519");
}

#[test]
fn a_public_key_is_what_openssl_writes_and_nothing_else() {
    let openssl = OpenSsl::new();
    openssl.key("k");
    openssl.run("pkey -in k.key -pubout -outform DER -out k.spki");
    let der = fs::read(openssl.path("k.spki")).unwrap();
    let key = PublicKey::from_spki_der(&der).unwrap();
    assert_eq!(key.spki_der(), der);
    assert!(PublicKey::from_spki_der(&der[..der.len() - 1]).is_err());
    assert!(PublicKey::from_spki_der(&vec![0; 20_000]).unwrap_err().to_string().contains("at most 16384"));
}

#[test]
fn p6_every_identifier_is_read_as_itself_and_only_with_its_own_parameters() {
    for algorithm in SignatureAlgorithm::ALL {
        let identifier = algorithm.identifier();
        assert_eq!(SignatureAlgorithm::of(&identifier), Ok(algorithm));
        assert_eq!(algorithm.name().parse::<SignatureAlgorithm>(), Ok(algorithm));
        let null = identifier.parameters.as_ref().is_some_and(der::Any::is_null);
        let pkcs1 = algorithm.name().starts_with("rsa-sha");
        assert_eq!(null, pkcs1, "NULL is sent for PKCS #1 v1.5 alone");
        let other =
            AlgorithmIdentifierOwned { parameters: Some(der::Any::new(der::Tag::Null, []).unwrap()), ..identifier };
        assert_eq!(SignatureAlgorithm::of(&other).is_ok(), pkcs1, "{algorithm} with NULL");
    }
    for weak in ["1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4", "1.2.840.10045.4.1"] {
        let oid = ObjectIdentifier::new(weak).unwrap();
        let refused = SignatureAlgorithm::of(&AlgorithmIdentifierOwned { oid, parameters: None });
        assert_eq!(refused, Err(SignatureError::Refused { algorithm: oid }));
    }
}

#[test]
fn p6_a_pss_mask_with_another_hash_is_refused() {
    let openssl = OpenSsl::new();
    const OPTIONS: &str = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sigopt rsa_mgf1_md:sha1";
    let odd = self_signed(&openssl, "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", OPTIONS);
    assert!(matches!(odd.verify_signed_by(&odd.public_key()), Err(SignatureError::Parameters { .. })));
}

#[test]
fn p6_a_key_for_pss_alone_takes_nothing_else_and_keeps_its_own_parameters() {
    let openssl = OpenSsl::new();
    const RESTRICTED: &str = "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha384 \
                              -pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48";
    let certificate = self_signed(&openssl, RESTRICTED, "-sha384 -sigopt rsa_pss_saltlen:digest");
    let key = certificate.public_key();
    assert_eq!(key.algorithm(), KeyKind::RsaPss { bits: 2048 });
    assert_eq!(certificate.verify_signed_by(&key), Ok(()));
    let verify = |algorithm: SignatureAlgorithm| key.verify(&algorithm.identifier(), b"", b"").unwrap_err();
    assert!(matches!(verify(SignatureAlgorithm::RsaSha384), SignatureError::KeyMismatch { .. }));
    assert!(matches!(verify(SignatureAlgorithm::RsaPssSha256), SignatureError::Parameters { .. }));
    assert_eq!(verify(SignatureAlgorithm::RsaPssSha384), SignatureError::Invalid);
}
