//! PBMAC1 of ours against another implementation of its parts: key and MAC are computed again by the `openssl` command
//! (no OpenSSL knows PBMAC1 in CMP), parameters are read by the crate pkcs5.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{fs, process::Command};

use der::{Decode, Encode, asn1::AnyRef};
use pkcs8::pkcs5::pbes2::Pbkdf2Params;
use trustfleet_cmp::{
    Credentials, EnrollRequest,
    codec::PkiMessage,
    protection::{AcceptedMacs, Hash, MacPolicy, MacScheme},
};
use world::{SECRET, World};

fn by(mac: MacPolicy) -> Credentials {
    Credentials::Mac { reference: b"dev1".to_vec(), secret: SECRET.as_bytes().to_vec().into(), mac }
}

/// One line of hexadecimal without separators, as `openssl kdf` and `openssl mac` print it.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text: String = String::from_utf8(output.stdout).unwrap().chars().filter(char::is_ascii_hexdigit).collect();
    hex::decode(text).unwrap()
}

/// PBMAC1-params with every AlgorithmIdentifier as (oid, parameters).
fn parameters(message: &PkiMessage) -> (Pbkdf2Params<'static>, String) {
    let algorithm = message.header.protection_alg.as_ref().unwrap();
    assert_eq!(algorithm.oid.to_string(), "1.2.840.113549.1.5.14");
    let der: &'static [u8] = Box::leak(algorithm.parameters.as_ref().unwrap().to_der().unwrap().into_boxed_slice());
    let [derivation, scheme] = <[spki::AlgorithmIdentifierRef<'_>; 2]>::from_der(der).unwrap();
    assert_eq!(derivation.oid.to_string(), "1.2.840.113549.1.5.12");
    assert_eq!(scheme.parameters, Some(AnyRef::NULL));
    let derivation = derivation.parameters.unwrap().decode_as::<Pbkdf2Params<'static>>().unwrap();
    (derivation, scheme.oid.to_string())
}

#[test]
fn p5_a_request_by_pbmac1_carries_the_mac_that_openssl_computes() {
    let folder = tempfile::tempdir().unwrap();
    let covered_file = folder.path().join("covered");
    let names = [(Hash::Sha256, "SHA256", 32), (Hash::Sha384, "SHA384", 48), (Hash::Sha512, "SHA512", 64)];
    for (prf, prf_name, _) in names {
        for (hmac, hmac_name, length) in names {
            let mut world = World::new();
            let policy = MacPolicy { owf: prf, iterations: 1234, ..MacPolicy::pbmac1(hmac) };
            let (_, message) = world.start(world.request(), by(policy)).unwrap();
            let message = PkiMessage::from_der(&message).unwrap();
            let (derivation, scheme) = parameters(&message);
            assert_eq!((derivation.iteration_count, derivation.key_length), (1234, Some(length)));
            let oid = |name: &str| match name {
                "SHA256" => "1.2.840.113549.2.9",
                "SHA384" => "1.2.840.113549.2.10",
                _ => "1.2.840.113549.2.11",
            };
            assert_eq!((derivation.prf.oid().to_string().as_str(), scheme.as_str()), (oid(prf_name), oid(hmac_name)));
            let key = openssl(&[
                "kdf",
                "-keylen",
                &length.to_string(),
                "-kdfopt",
                &format!("digest:{prf_name}"),
                "-kdfopt",
                &format!("pass:{SECRET}"),
                "-kdfopt",
                &format!("hexsalt:{}", hex::encode(derivation.salt)),
                "-kdfopt",
                "iter:1234",
                "PBKDF2",
            ]);
            fs::write(&covered_file, message.protected_part().unwrap()).unwrap();
            let mac = openssl(&[
                "mac",
                "-digest",
                hmac_name,
                "-macopt",
                &format!("hexkey:{}", hex::encode(key)),
                "-in",
                covered_file.to_str().unwrap(),
                "HMAC",
            ]);
            assert_eq!(message.protection.unwrap(), mac, "{prf_name} {hmac_name}");
        }
    }
}

#[test]
fn p5_a_whole_enrolment_goes_by_pbmac1_and_is_answered_by_it() {
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let mut world = World::new();
        let end = world.run(world.request(), by(MacPolicy::pbmac1(hash)));
        assert!(end.enrolled().warnings.is_empty());
        let trustfleet_cmp::responder::Client::Mac { mac, .. } = &world.heard[1].client else { panic!() };
        assert_eq!(*mac, MacPolicy::pbmac1(hash), "P7: the certConf too");
    }
}

#[test]
fn s8_pbmac1_with_sha1_is_neither_sent_nor_taken_unless_it_is_allowed() {
    let weak = MacPolicy { owf: Hash::Sha1, ..MacPolicy::pbmac1(Hash::Sha256) };
    let mut world = World::new();
    let error = world.start(world.request(), by(weak)).unwrap_err();
    assert_eq!(error.code(), "weak_mac");

    for allowed in [false, true] {
        let mut world = World::twisted(move |_, _, answer, _, protection| {
            if let trustfleet_cmp::responder::ReplyProtection::Mac { mac, .. } = protection {
                *mac = MacPolicy { weak_allowed: true, ..weak };
            }
            answer
        });
        if allowed {
            world.acceptance.macs = AcceptedMacs::with_sha1();
        }
        let request = EnrollRequest { implicit_confirm: true, ..world.request() };
        let end = world.run(request, by(MacPolicy::pbmac1(Hash::Sha256)));
        assert_eq!(end.code(), if allowed { "enrolled" } else { "protection_algorithm_not_accepted" });
    }
}

#[test]
fn p4_pbkdf2_has_bounds_of_its_own_and_what_is_accepted_is_set_apart_from_what_is_sent() {
    let mut world = World::new();
    world.acceptance.pbkdf2_iterations = 20_000..=30_000;
    assert_eq!(world.run(world.request(), by(MacPolicy::pbmac1(Hash::Sha256))).code(), "pbm_iterations_not_accepted");
    let mut world = World::new();
    world.acceptance.macs.schemes = vec![MacScheme::Pbm];
    let end = world.run(world.request(), by(MacPolicy::pbmac1(Hash::Sha256)));
    assert_eq!(end.code(), "protection_algorithm_not_accepted");
    let mut world = World::new();
    let few = MacPolicy { iterations: 999, ..MacPolicy::pbmac1(Hash::Sha256) };
    assert_eq!(world.start(world.request(), by(few)).unwrap_err().code(), "pbm_iterations_out_of_range");
}
