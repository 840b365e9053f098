//! Hostile input: changed, cut, mixed and random bytes are refused, and nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use support::{CMC_CA, Leaf, covered_bits, mac, signature, vectors};
use trustfleet_cmp::{
    Credentials, Input, Signer, Step, Transaction,
    codec::PkiMessage,
    key::{KeyType, SoftwareKey, Using},
    protection::{Hash, MacPolicy},
    responder::ReplyProtection,
    transaction::TransactionRecord,
};
use trustfleet_pki::SignatureAlgorithm;
use world::{SECRET, World};

/// A transaction that awaits its ip, and that ip.
fn awaiting(world: &mut World) -> (TransactionRecord, Vec<u8>) {
    awaiting_by(world, mac("dev1", SECRET))
}

fn awaiting_by(world: &mut World, credentials: Credentials) -> (TransactionRecord, Vec<u8>) {
    let request = trustfleet_cmp::EnrollRequest { implicit_confirm: true, ..world.request() };
    let (transaction, message) = world.start(request, credentials).unwrap();
    (transaction.record(), world.serve(&message))
}

fn answer(world: &mut World, record: &TransactionRecord, answer: &[u8]) -> Step {
    answer_by(world, mac("dev1", SECRET), record, answer)
}

fn answer_by(world: &mut World, credentials: Credentials, record: &TransactionRecord, answer: &[u8]) -> Step {
    let key: &SoftwareKey = &world.key;
    let step = Transaction::resume(record.clone(), credentials, world.acceptance.clone(), key, world.now).unwrap();
    let Step::Send { transaction, .. } = step else { panic!("{step:?}") };
    transaction.handle(Input::Response(answer), &mut world.entropy, world.now)
}

#[test]
fn p1_every_single_flipped_bit_of_a_maced_response_is_refused() {
    let mut world = World::new();
    let (record, response) = awaiting(&mut world);
    assert!(matches!(answer(&mut world, &record, &response), Step::Done(_)), "unchanged it is taken");
    for bit in 0..response.len() * 8 {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let step = answer(&mut world, &record, &changed);
        assert!(matches!(step, Step::Failed { .. }), "bit {bit} was changed and the response taken");
    }
}

/// Flips bits of the response and demands that it is refused, or taken with nothing changed but the certificates of
/// extraCerts, which no protection covers; every bit of what is covered and of the protection when `step` is 1, every
/// so-manieth otherwise, and fewer in the certificates. Returns how often it was taken.
fn flip(world: &mut World, credentials: &Credentials, step: usize) -> usize {
    let (record, response) = awaiting_by(world, credentials.clone());
    let untouched = match answer_by(world, credentials.clone(), &record, &response) {
        Step::Done(enrolled) => enrolled,
        other => panic!("{other:?}"),
    };
    let covered = covered_bits(&response);
    let mut taken = 0;
    for bit in (0..covered).step_by(step).chain((covered..response.len() * 8).step_by(step * 5)) {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Step::Done(enrolled) = answer_by(world, credentials.clone(), &record, &changed) {
            assert!(bit >= covered, "bit {bit} of header, body or protection was changed and the response taken");
            assert_eq!(enrolled.certificate, untouched.certificate);
            assert_eq!((&enrolled.ca_pubs, enrolled.ca_pubs_trusted), (&untouched.ca_pubs, untouched.ca_pubs_trusted));
            assert_eq!((enrolled.status, &enrolled.status_texts), (untouched.status, &untouched.status_texts));
            assert_eq!(enrolled.warnings, untouched.warnings);
            taken += 1;
        }
    }
    taken
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_pbmac1_is_refused() {
    let mut world = World::new();
    let policy = MacPolicy { iterations: 1000, ..MacPolicy::pbmac1(Hash::Sha256) };
    let secret = SECRET.as_bytes().to_vec().into();
    let credentials = Credentials::Mac { reference: b"dev1".to_vec(), secret, mac: policy };
    assert_eq!(flip(&mut world, &credentials, 1), 0);
}

fn flip_signed(key_type: KeyType, algorithm: SignatureAlgorithm, step: usize) {
    let mut world = World::new();
    let signer: Arc<dyn Signer> = Arc::new(Using { signer: support::key(key_type), algorithm });
    let leaf = Leaf { usages: vec![CMC_CA], ..Leaf::new("/O=Lab/CN=CMP", signer.as_ref()) };
    let (certificate, root) = (world.ca.issue(&leaf), world.ca.certificate.clone());
    world.twist = Box::new(move |_, _, answer, _, protection| {
        let (signer, certificate) = (Arc::clone(&signer), certificate.clone());
        *protection = ReplyProtection::Signature { signer, certificate, chain: vec![root.clone()] };
        answer
    });
    let (identity_key, identity) = world.ca.identity("/CN=identity", KeyType::P256);
    flip(&mut world, &signature(&identity_key, &identity), step);
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_rsa_is_refused_or_changes_nothing() {
    flip_signed(KeyType::Rsa2048, SignatureAlgorithm::RsaSha256, 1);
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_pss_is_refused_or_changes_nothing() {
    flip_signed(KeyType::Rsa2048, SignatureAlgorithm::RsaPssSha256, 1);
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_ecdsa_p256_is_refused_or_changes_nothing() {
    flip_signed(KeyType::P256, SignatureAlgorithm::EcdsaSha256, 1);
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_ecdsa_p384_is_refused_or_changes_nothing() {
    flip_signed(KeyType::P384, SignatureAlgorithm::EcdsaSha384, 1);
}

#[test]
fn p1_every_single_flipped_bit_of_a_response_by_ed25519_is_refused_or_changes_nothing() {
    flip_signed(KeyType::Ed25519, SignatureAlgorithm::Ed25519, 1);
}

#[test]
fn p1_flipped_bits_of_a_response_by_ml_dsa_are_refused_or_change_nothing() {
    flip_signed(KeyType::MlDsa44, SignatureAlgorithm::MlDsa44, 13);
}

#[test]
fn a_response_cut_anywhere_or_with_something_behind_it_is_refused() {
    let mut world = World::new();
    let (record, response) = awaiting(&mut world);
    for end in 0..response.len() {
        let step = answer(&mut world, &record, &response[..end]);
        assert!(matches!(step, Step::Failed { error, .. } if error.code() == "message_malformed"), "cut at {end}");
    }
    let longer = [response.as_slice(), &[0]].concat();
    assert!(matches!(answer(&mut world, &record, &longer), Step::Failed { .. }));
}

#[test]
fn a_response_to_another_transaction_is_refused() {
    let mut world = World::new();
    let (_, stale) = awaiting(&mut world);
    world.open = None;
    let (record, _) = awaiting(&mut world);
    let step = answer(&mut world, &record, &stale);
    assert!(matches!(step, Step::Failed { error, .. } if error.code() == "transaction_id_wrong"));
}

#[test]
fn every_vector_handed_in_as_an_answer_ends_the_transaction() {
    let mut world = World::new();
    let (record, _) = awaiting(&mut world);
    for vector in vectors() {
        assert!(matches!(answer(&mut world, &record, vector), Step::Failed { .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_random_bytes_never_panics(bytes in vec(any::<u8>(), 0..600)) {
        let _ = PkiMessage::from_der(&bytes);
    }

    #[test]
    fn decoding_changed_messages_never_panics(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Index>(),
        keep in any::<bool>(),
    ) {
        let mut bytes = which.get(vectors()).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(message) = PkiMessage::from_der(&bytes) {
            // what decodes also encodes, and covers the received bytes
            prop_assert_eq!(message.to_der().unwrap().len(), bytes.len());
            let _ = message.reencoded();
            let _ = format!("{message:?}");
        }
    }

    #[test]
    fn decoding_nested_values_of_any_shape_never_panics(tags in vec(any::<u8>(), 1..60)) {
        let mut bytes = Vec::new();
        for tag in tags {
            let length = u8::try_from(bytes.len().min(127)).unwrap();
            bytes = [&[tag, length][..], &bytes].concat();
        }
        let _ = PkiMessage::from_der(&bytes);
    }
}
