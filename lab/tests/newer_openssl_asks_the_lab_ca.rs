//! The lab CA against a newer foreign client than Debian's: what `openssl cmp` can only ask since 3.1 and later.
//!
//! `make interop` brings one, makes it the first `openssl` of PATH and runs these tests (docs/interop.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/openssl_lab.rs"]
mod openssl_lab;

use openssl_lab::{Lab, MAC, certificate};
use trustfleet_cmp::key::KeyType;

const SIGNED: &str = "-trusted ca/root.pem -untrusted ca/issuing.pem -cert one.pem -key one.key";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
async fn r9_openssl_reads_our_ca_certificates_root_update_template_and_crl() {
    let lab = Lab::with(|config| (config.root_update, config.template) = (true, true)).await;
    let ask = |words: &str| format!("-cmd genm {MAC} {words}");
    lab.enrols(&ask("-infotype caCerts -cacertsout cas.pem")).await;
    assert_eq!(certificate(&lab.path("cas.pem")), lab.ca.issuing);

    // it verifies the three against each other itself (V12)
    let files = "-newwithnew new.pem -newwithold newold.pem -oldwithnew oldnew.pem";
    lab.enrols(&ask(&format!("-infotype rootCaCert -oldwithold ca/root.pem {files}"))).await;
    let (new, old) = (certificate(&lab.path("new.pem")), certificate(&lab.path("ca/root.pem")));
    assert_eq!((new.subject(), new.spki_der() == old.spki_der()), (old.subject(), false));
    assert!(certificate(&lab.path("newold.pem")).verify_signed_by(&old.public_key()).is_ok());
    assert!(certificate(&lab.path("oldnew.pem")).verify_signed_by(&new.public_key()).is_ok());

    lab.enrols(&ask("-infotype certReqTemplate -template template.der -keyspec keyspec.der")).await;
    let template = lab.openssl("asn1parse -inform DER -in template.der").await;
    assert!(template.contains("Trustfleet Lab") && template.contains("commonName"), "{template}");
    let keys = lab.openssl("asn1parse -inform DER -in keyspec.der").await;
    assert!(keys.contains("prime256v1") && keys.contains(":0C00"), "P-256, and RSA of 3072 bits: {keys}");

    for (words, comes) in [("-crlcert ca/cmp-signer.pem", true), ("-oldcrl ca.crl", false)] {
        let file = if comes { "ca.crl" } else { "none.crl" };
        lab.enrols(&ask(&format!("-infotype crlStatusList {words} -crlout {file}"))).await;
        let size = std::fs::metadata(lab.path(file)).map_or(0, |file| file.len());
        assert_eq!(size > 0, comes, "{words}");
    }
    lab.openssl("crl -in ca.crl -noout -CAfile ca/issuing.pem -verify").await;
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
async fn w2_openssl_polls_for_certconf_rr_and_genm() {
    let lab = Lab::with(|config| (config.poll_count, config.poll_certconf) = (1, true)).await;
    lab.key("one.key", false).await;
    lab.enrols(&format!("-cmd ir {MAC} -newkey one.key -subject /O=x/CN=dev1 -certout one.pem")).await;
    lab.verifies("one.pem").await;
    assert_eq!(lab.ca.stats().requests["pollReq"], 2, "for the certificate and for its confirmation");
    assert!(lab.ca.issued()[0].confirmed);
    lab.enrols(&format!("-cmd genm {MAC} -infotype caCerts -cacertsout cas.pem")).await;
    lab.enrols(&format!("-cmd rr {SIGNED} -oldcert one.pem -revreason 4")).await;
    assert_eq!((lab.ca.stats().requests["pollReq"], lab.ca.stats().revoked), (4, 1));
    lab.ca.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
async fn p6_openssl_enrols_and_renews_by_every_kind_of_key_that_it_can_sign_by() {
    for (genpkey, ca_key) in [
        ("ED25519", KeyType::Ed25519),
        ("RSA-PSS -pkeyopt rsa_keygen_bits:2048", KeyType::P256),
        ("ML-DSA-44", KeyType::MlDsa44),
        ("ML-DSA-65", KeyType::MlDsa87),
        ("ML-DSA-87", KeyType::MlDsa65),
    ] {
        let lab = Lab::with(|config| config.key_type = ca_key).await;
        for name in ["one.key", "two.key"] {
            lab.openssl(&format!("genpkey -algorithm {genpkey} -out {name}")).await;
        }
        lab.enrols(&format!("-cmd ir {MAC} -newkey one.key -subject /O=x/CN=dev1 -certout one.pem")).await;
        lab.enrols(&format!("-cmd kur {SIGNED} -newkey two.key -certout two.pem")).await;
        lab.verifies("one.pem").await;
        lab.verifies("two.pem").await;
        let kinds: Vec<_> = lab.ca.issued().iter().map(|issued| (issued.kind, issued.confirmed)).collect();
        assert_eq!(kinds, [("ir", true), ("kur", true)], "{genpkey}: C4: with hashAlg after EdDSA and ML-DSA");
        lab.ca.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
async fn r2_a_key_that_the_ca_should_make_is_refused_and_h15_a_profile_is_passed_over() {
    let lab = Lab::new().await;
    lab.key("one.key", false).await;
    lab.enrols(&format!("-cmd ir {MAC} -profile devices -newkey one.key -subject /CN=dev1 -certout one.pem")).await;
    lab.verifies("one.pem").await;
    let central = "-centralkeygen -newkeyout made.key -subject /CN=dev1 -certout two.pem";
    let said = lab.is_refused(&format!("-cmd cr {SIGNED} {central}")).await;
    assert!(said.contains("badPOP") && said.contains("a proof of possession by signature is needed"), "{said}");
    assert!(!lab.path("made.key").exists() && lab.ca.issued().len() == 1);
    lab.ca.stop().await;
}
