use std::slice::from_ref;

use jiff::{SignedDuration, Timestamp};
use trustfleet_pki::{
    Certificate, ChainError,
    chain::{verify_end_entity, verify_signer},
};

use crate::openssl::{CA, END_ENTITY, OpenSsl};

struct Pki {
    openssl: OpenSsl,
    root: Certificate,
    issuing: Certificate,
    leaf: Certificate,
}

/// Root, issuing CA and one end entity, as OpenSSL makes them.
fn pki() -> Pki {
    let openssl = OpenSsl::new();
    let root = openssl.root("root", "");
    let issuing = openssl.issued("issuing", "root", CA, "");
    let leaf = openssl.issued("leaf", "issuing", END_ENTITY, "");
    Pki { openssl, root, issuing, leaf }
}

fn soon_after(certificate: &Certificate) -> Timestamp {
    certificate.not_before() + SignedDuration::from_hours(1)
}

#[test]
fn a_path_over_a_helper_to_the_root_is_good() {
    let Pki { root, issuing, leaf, .. } = pki();
    let at = soon_after(&leaf);
    assert_eq!(verify_end_entity(&leaf, from_ref(&issuing), from_ref(&root), at), Ok(()));
    assert_eq!(verify_signer(&leaf, &[issuing], &[root], at), Ok(()), "a signer may be an end entity");
}

#[test]
fn an_issuing_ca_may_be_the_anchor_itself_and_so_may_the_certificate() {
    let Pki { openssl, issuing, leaf, root } = pki();
    let at = soon_after(&leaf);
    assert_eq!(verify_end_entity(&leaf, &[], from_ref(&issuing), at), Ok(()));
    assert_eq!(verify_end_entity(&leaf, &[], from_ref(&leaf), at), Ok(()));
    let lone = openssl.root("lone", "-addext basicConstraints=CA:FALSE");
    assert_eq!(verify_end_entity(&lone, &[], &[root, lone.clone()], at), Ok(()));
}

#[test]
fn x3_a_helper_is_never_an_anchor() {
    let Pki { openssl, root, issuing, leaf } = pki();
    let other = openssl.root("other", "");
    let at = soon_after(&leaf);
    let error = verify_end_entity(&leaf, &[issuing.clone(), root.clone()], &[other], at).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no path from CN=leaf,O=Lab (issued by CN=issuing,O=Lab) to a trust anchor: check the anchors and the chain \
         sent along"
    );
    let missing = verify_end_entity(&leaf, &[], &[root], at).unwrap_err();
    assert!(matches!(missing, ChainError::UnknownIssuer { .. }), "the chain sent along lacks the issuing CA");
    assert_eq!(verify_end_entity(&leaf, &[issuing], &[], at), Err(ChainError::NoAnchor));
}

#[test]
fn another_root_of_the_same_name_does_not_help() {
    let Pki { issuing, leaf, .. } = pki();
    let impostor = OpenSsl::new().root("root", "");
    let at = soon_after(&leaf);
    let error = verify_end_entity(&leaf, &[issuing], &[impostor], at).unwrap_err();
    assert!(matches!(error, ChainError::Signature { .. }), "{error}");
}

#[test]
fn time_decides_for_the_certificate_its_issuers_and_the_anchor() {
    let Pki { root, issuing, openssl, .. } = pki();
    // it ends well before its issuer, whenever in a second each of them was made
    let leaf = openssl.issued("short", "issuing", END_ENTITY, "-days 10");
    let (helpers, anchors) = ([issuing.clone()], [root.clone()]);
    let late = leaf.not_after() + SignedDuration::from_secs(1);
    assert_eq!(verify_end_entity(&leaf, &helpers, &anchors, leaf.not_after()), Ok(()));
    let error = verify_end_entity(&leaf, &helpers, &anchors, late).unwrap_err();
    assert!(error.to_string().starts_with("certificate of CN=short,O=Lab expired at "), "{error}");
    let early = leaf.not_before() - SignedDuration::from_secs(1);
    let error = verify_end_entity(&leaf, &helpers, &anchors, early).unwrap_err();
    assert!(error.to_string().ends_with("check the clock"), "{error}");

    let long = openssl.issued("long", "issuing", END_ENTITY, "-days 300");
    let after_issuing = issuing.not_after() + SignedDuration::from_hours(1);
    let error = verify_end_entity(&long, &helpers, &anchors, after_issuing).unwrap_err();
    assert!(error.to_string().contains("a CA certificate in it expired at"), "{error}");
    let after_root = root.not_after() + SignedDuration::from_hours(1);
    assert_eq!(
        verify_end_entity(&long, &helpers, &anchors, after_root),
        Err(ChainError::AnchorsOutsideValidity { at: after_root })
    );
}

#[test]
fn an_end_entity_or_a_ca_without_key_cert_sign_issues_nothing() {
    let Pki { openssl, root, issuing, leaf } = pki();
    let at = soon_after(&leaf);
    let child = openssl.issued("child", "leaf", END_ENTITY, "");
    let error = verify_end_entity(&child, &[leaf, issuing], from_ref(&root), at).unwrap_err();
    assert!(matches!(error, ChainError::Rule { .. }), "{error}");
    let crl_only = openssl.issued("crl", "root", &CA.replace("keyCertSign,", ""), "");
    let below = openssl.issued("below", "crl", END_ENTITY, "");
    let error = verify_end_entity(&below, &[crl_only], &[root], at).unwrap_err();
    assert!(matches!(error, ChainError::Rule { .. }), "{error}");
}

#[test]
fn an_end_entity_among_the_anchors_issues_nothing() {
    let Pki { openssl, root, leaf, .. } = pki();
    let at = soon_after(&leaf);
    let child = openssl.issued("child", "leaf", END_ENTITY, "");
    for anchors in [vec![leaf.clone()], vec![leaf.clone(), root]] {
        let error = verify_end_entity(&child, from_ref(&leaf), &anchors, at).unwrap_err();
        assert!(matches!(error, ChainError::UnknownIssuer { .. } | ChainError::Rule { .. }), "{error}");
        assert_eq!(verify_end_entity(&leaf, &[], &anchors, at), Ok(()), "it counts for itself");
    }
    // a root as old as version 1, without any extension
    openssl.key("v1");
    openssl.run("req -new -key v1.key -subj /O=Lab/CN=v1 -out v1.csr");
    openssl.run("x509 -req -in v1.csr -signkey v1.key -days 30 -out v1.pem");
    let old = openssl.certificate("v1");
    let below = openssl.issued("below-v1", "v1", END_ENTITY, "");
    assert_eq!(verify_end_entity(&below, &[], &[old], soon_after(&below)), Ok(()));
}

#[test]
fn a_ca_certificate_is_a_signer_but_no_end_entity() {
    let Pki { openssl, root, issuing, .. } = pki();
    let at = soon_after(&issuing);
    let anchors = [root.clone()];
    assert_eq!(
        verify_end_entity(&issuing, &[], &anchors, at),
        Err(ChainError::CaAsEndEntity { subject: issuing.subject() })
    );
    assert_eq!(verify_signer(&issuing, &[], &anchors, at), Ok(()));
    assert_eq!(verify_signer(&root, &[], &anchors, at), Ok(()), "the anchor itself");
    let sub = openssl.issued("sub", "issuing", CA, "");
    assert_eq!(verify_signer(&sub, from_ref(&issuing), &anchors, at), Ok(()));
    assert!(matches!(verify_signer(&sub, &[], &anchors, at), Err(ChainError::UnknownIssuer { .. })));
    let stranger = openssl.root("stranger", "");
    assert!(matches!(verify_signer(&stranger, &[], &anchors, at), Err(ChainError::UnknownIssuer { .. })));
    let late = issuing.not_after() + SignedDuration::from_secs(1);
    assert!(matches!(verify_signer(&issuing, &[], &anchors, late), Err(ChainError::Expired { .. })));
}

#[test]
fn path_lengths_hold_for_end_entities_and_for_cas_that_sign() {
    let openssl = OpenSsl::new();
    let root = openssl.root("root", "");
    let last = openssl.issued("last", "root", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"), "");
    let under = openssl.issued("under", "last", CA, "");
    let leaf = openssl.issued("leaf", "under", END_ENTITY, "");
    let at = soon_after(&leaf);
    let helpers = [last.clone(), under.clone()];
    let anchors = [root];
    assert_eq!(verify_signer(&last, &helpers, &anchors, at), Ok(()));
    assert!(matches!(verify_signer(&under, &helpers, &anchors, at), Err(ChainError::Rule { .. })));
    assert!(matches!(verify_end_entity(&leaf, &helpers, &anchors, at), Err(ChainError::Rule { .. })));
}

#[test]
fn a_ca_with_a_forged_signature_is_no_signer() {
    let Pki { root, issuing, .. } = pki();
    let mut der = issuing.as_der().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let forged = Certificate::from_der(&der).unwrap();
    let error = verify_signer(&forged, &[], &[root], soon_after(&issuing)).unwrap_err();
    assert!(matches!(error, ChainError::Signature { .. }), "{error}");
}

#[test]
fn sha1_in_a_path_is_refused() {
    let Pki { openssl, root, issuing, .. } = pki();
    let weak = openssl.issued("weak", "issuing", END_ENTITY, "-sha1");
    let error = verify_end_entity(&weak, &[issuing], &[root], soon_after(&weak)).unwrap_err();
    assert!(error.to_string().ends_with("its algorithm is unknown or too weak"), "{error}");
}

#[test]
fn crossed_certificates_do_not_multiply() {
    let openssl = OpenSsl::new();
    let anchor = openssl.root("anchor", "");
    for (name, other) in [("a", "b"), ("b", "a")] {
        openssl.root(name, "");
        openssl.run(&format!("req -new -key {name}.key -subj /O=Lab/CN={name} -out {name}.csr"));
        openssl.write(&format!("{other}.ext"), CA);
    }
    let mut crossed = Vec::new();
    for serial in 1..=10 {
        for (name, by) in [("a", "b"), ("b", "a")] {
            openssl.run(&format!(
                "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial {serial} -days 9 -extfile {name}.ext \
                 -out crossed.pem"
            ));
            crossed.push(openssl.certificate("crossed"));
        }
    }
    let begin = std::time::Instant::now();
    let error = verify_signer(&crossed[0], &crossed, &[anchor], soon_after(&crossed[0])).unwrap_err();
    assert!(matches!(error, ChainError::Rule { .. } | ChainError::UnknownIssuer { .. }), "{error}");
    assert!(begin.elapsed().as_secs() < 2, "bounded by a number of signatures, not by 10 to the power of 6");
}

#[test]
fn p6_cas_of_every_kind_of_key_issue_and_sign() {
    const PSS: &str = "-sigopt rsa_pss_saltlen:digest";
    for (genpkey, sign) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-sha512"),
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32",
        ),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", &format!("-sha384 {PSS}")),
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256 \
             -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32",
            &format!("-sha256 {PSS}"),
        ),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "-sha384"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "-sha512"),
        ("-algorithm ED25519", ""),
    ] {
        let openssl = OpenSsl::new();
        openssl.run(&format!("genpkey {genpkey} -out root.key"));
        openssl.run(&format!("req -x509 -new -key root.key -subj /O=Lab/CN=root -days 30 -out root.pem {sign}"));
        let root = openssl.certificate("root");
        let leaf = openssl.issued("leaf", "root", END_ENTITY, sign);
        let below = openssl.issued("below", "root", CA, sign);
        let at = soon_after(&leaf);
        assert_eq!(verify_end_entity(&leaf, &[], from_ref(&root), at), Ok(()), "{genpkey} {sign}");
        assert_eq!(verify_signer(&below, &[], from_ref(&root), at), Ok(()), "{genpkey} {sign}");
    }
}

#[test]
fn p4_longer_chains_than_anybody_needs_are_refused() {
    let openssl = OpenSsl::new();
    let root = openssl.root("ca0", "");
    let mut helpers = Vec::new();
    for depth in 1..=8 {
        helpers.push(openssl.issued(&format!("ca{depth}"), &format!("ca{}", depth - 1), CA, ""));
    }
    let leaf = |under: usize| openssl.issued("leaf", &format!("ca{under}"), END_ENTITY, "");
    let (good, long) = (leaf(5), leaf(8));
    let (at, anchors) = (soon_after(&long), [root]);
    assert_eq!(verify_end_entity(&good, &helpers, &anchors, at), Ok(()));
    assert!(verify_end_entity(&long, &helpers, &anchors, at).is_err());
    assert_eq!(verify_signer(&helpers[4], &helpers, &anchors, at), Ok(()));
    assert!(verify_signer(&helpers[7], &helpers, &anchors, at).is_err());
}
