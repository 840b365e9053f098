//! What the parameters of a MAC may be, and that nothing is computed before that is known.

use der::asn1::{Any, OctetString};

use super::*;
use crate::codec::{Pbkdf2Params, PbmParameter, Pbmac1Params, PkiBody, PkiHeader, raw::directory_name};

fn bounds() -> Iterations<'static> {
    Iterations { pbm: &ACCEPTED_ITERATIONS, pbkdf2: &ACCEPTED_PBKDF2_ITERATIONS }
}

fn plain(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: None }
}

/// A message with such a protectionAlg.
fn message(algorithm: AlgorithmIdentifierOwned) -> PkiMessage {
    let name = directory_name(&[0x30, 0x00]).unwrap();
    let header = PkiHeader {
        pvno: 2,
        sender: name.clone(),
        recipient: name,
        message_time: None,
        protection_alg: Some(algorithm),
        sender_kid: None,
        recip_kid: None,
        transaction_id: None,
        sender_nonce: None,
        recip_nonce: None,
        free_text: None,
        general_info: None,
    };
    let mut message = PkiMessage::assemble(header, PkiBody::PkiConf).unwrap();
    message.protection = Some(vec![0; 64]);
    message
}

fn pbm(iteration_count: u32, salt: &[u8]) -> PkiMessage {
    let parameters = PbmParameter {
        salt: OctetString::new(salt).unwrap(),
        owf: plain(oids::SHA512),
        iteration_count,
        mac: plain(oids::HMAC_WITH_SHA512),
    };
    let parameters = Some(Any::encode_from(&parameters).unwrap());
    message(AlgorithmIdentifierOwned { oid: oids::PASSWORD_BASED_MAC, parameters })
}

/// PBMAC1 with parameters changed from good ones.
fn pbmac1(change: impl FnOnce(&mut Pbkdf2Params, &mut Pbmac1Params)) -> PkiMessage {
    let mut inner = Pbkdf2Params {
        salt: OctetString::new([7; 16]).unwrap(),
        iteration_count: 2048,
        key_length: Some(32),
        prf: Some(plain(oids::HMAC_WITH_SHA256)),
    };
    let mut outer =
        Pbmac1Params { key_derivation_func: plain(oids::PBKDF2), message_auth_scheme: plain(oids::HMAC_WITH_SHA256) };
    change(&mut inner, &mut outer);
    outer.key_derivation_func.parameters = Some(Any::encode_from(&inner).unwrap());
    let parameters = Some(Any::encode_from(&outer).unwrap());
    message(AlgorithmIdentifierOwned { oid: oids::PBMAC1, parameters })
}

fn refusal(message: &PkiMessage, accepted: &AcceptedMacs) -> String {
    verify(message, b"secret", accepted, bounds()).unwrap_err().to_string()
}

#[test]
fn p4_four_thousand_million_iterations_are_refused_without_computing_one() {
    let huge = [pbm(u32::MAX, &[1; 16]), pbmac1(|inner, _| inner.iteration_count = u32::MAX)];
    for message in huge {
        let begin = std::time::Instant::now();
        let error = verify(&message, b"secret", &AcceptedMacs::strong(), bounds()).unwrap_err();
        assert!(matches!(error, MessageError::Iterations { got: u32::MAX, .. }), "{error}");
        assert!(begin.elapsed().as_secs() < 30, "that many would take many minutes");
    }
    let few = pbmac1(|inner, _| inner.iteration_count = 999);
    assert!(refusal(&few, &AcceptedMacs::strong()).contains("between 1000 and 600000"));
}

#[test]
fn p4_a_long_key_does_not_multiply_the_iterations_beyond_their_bound() {
    let cost = |rounds: u32, length: u32| {
        pbmac1(|inner, _| {
            inner.iteration_count = rounds;
            inner.key_length = Some(length);
        })
    };
    // four blocks of 32 octets: four times 600,000 rounds
    let error = verify(&cost(600_000, 128), b"secret", &AcceptedMacs::strong(), bounds()).unwrap_err();
    assert_eq!(error, MessageError::Iterations { got: 2_400_000, lowest: 1000, highest: 600_000 });
    let error = verify(&cost(150_000, 128), b"secret", &AcceptedMacs::strong(), bounds()).unwrap_err();
    assert_eq!(error, MessageError::MacMismatch, "within the bound it is computed");
}

#[test]
fn p4_salts_and_keys_of_absurd_length_are_refused() {
    let strong = AcceptedMacs::strong();
    assert!(refusal(&pbm(500, &[1; 1025]), &strong).contains("a salt of 1025 bytes"));
    let salt = |length| pbmac1(|inner, _| inner.salt = OctetString::new(vec![1; length]).unwrap());
    assert!(refusal(&salt(1025), &strong).contains("a salt of 1025 bytes"));
    assert!(refusal(&salt(7), &strong).contains("a salt of 7 octets"));
    for length in [0, 19, 129, u32::MAX] {
        let error = refusal(&pbmac1(|inner, _| inner.key_length = Some(length)), &strong);
        assert!(error.contains(&format!("a key of {length} octets: 20 to 128")), "{error}");
    }
}

#[test]
fn p5_pbmac1_needs_its_keylength_and_takes_sha1_only_by_choice() {
    let (strong, weak) = (AcceptedMacs::strong(), AcceptedMacs::with_sha1());
    assert!(refusal(&pbmac1(|inner, _| inner.key_length = None), &strong).contains("without keyLength"));
    let default_prf = || pbmac1(|inner, _| inner.prf = None);
    assert!(refusal(&default_prf(), &strong).contains("PBMAC1 with SHA-1"), "an absent prf is HMAC-SHA1");
    assert!(refusal(&default_prf(), &weak).contains("does not fit"), "judged by its value");
    let sha1_mac = || pbmac1(|_, outer| outer.message_auth_scheme = plain(oids::HMAC_WITH_SHA1));
    assert!(refusal(&sha1_mac(), &strong).contains("HMAC with SHA-1"));
    let pbm_only = AcceptedMacs { schemes: vec![MacScheme::Pbm], ..strong };
    assert!(refusal(&pbmac1(|_, _| {}), &pbm_only).contains("PBMAC1 is not among those configured"));
}

#[test]
fn p5_other_derivations_a_bare_hmac_and_odd_parameters_are_refused() {
    let strong = AcceptedMacs::strong();
    let scrypt =
        pbmac1(|_, outer| outer.key_derivation_func.oid = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.4.11"));
    assert!(refusal(&scrypt, &strong).contains("only PBKDF2 is known"));
    assert!(refusal(&message(plain(oids::HMAC_WITH_SHA256)), &strong).contains("is not a password-based MAC"));
    assert!(refusal(&message(plain(oids::PBMAC1)), &strong).contains("PBMAC1 without parameters"));
    let odd = pbmac1(|_, outer| outer.message_auth_scheme.parameters = Some(Any::encode_from(&5_u8).unwrap()));
    assert!(refusal(&odd, &strong).contains("PBMAC1 with 1.2.840.113549.2.9"));
}

#[test]
fn p3_what_is_read_of_our_own_parameters_is_what_was_asked_for() {
    for scheme in [MacScheme::Pbm, MacScheme::Pbmac1] {
        for (owf, hmac) in [(Hash::Sha256, Hash::Sha512), (Hash::Sha384, Hash::Sha256), (Hash::Sha1, Hash::Sha1)] {
            let policy = MacPolicy { scheme, owf, hmac, iterations: 1500, weak_allowed: owf == Hash::Sha1 };
            let key = PbmKey::derive(&policy, b"secret", &[9; 16]).unwrap();
            let mut sealed = message(key.algorithm().unwrap());
            sealed.protection = Some(key.mac(&sealed.protected_part().unwrap()));
            assert_eq!(verify(&sealed, b"secret", &AcceptedMacs::with_sha1(), bounds()).unwrap(), policy);
            sealed.protection = Some(vec![]);
            assert!(refusal(&sealed, &AcceptedMacs::with_sha1()).contains("does not fit"), "an empty MAC fits nothing");
        }
    }
}

#[test]
fn a_policy_kept_before_there_were_two_schemes_is_read_as_pbm() {
    let old = r#"{"owf":"sha256","hmac":"sha256","iterations":10000,"weak_allowed":false}"#;
    let policy = MacPolicy::of(Hash::Sha256);
    assert_eq!(serde_json::from_str::<MacPolicy>(old).unwrap(), policy);
    assert_eq!(serde_json::to_string(&policy).unwrap(), old, "and written as it was");
    let new = MacPolicy::pbmac1(Hash::Sha256);
    assert_eq!(serde_json::from_str::<MacPolicy>(&serde_json::to_string(&new).unwrap()).unwrap(), new);
}
