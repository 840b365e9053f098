//! Hostile input: changed, cut, mixed and random bytes are refused, and nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{fs, path::PathBuf, sync::OnceLock};

use proptest::{collection::vec, prelude::*, sample::Index};
use support::mac;
use trustfleet_cmp::{Input, Step, Transaction, codec::PkiMessage, key::SoftwareKey, transaction::TransactionRecord};
use world::{SECRET, World};

fn vectors() -> &'static [Vec<u8>] {
    static VECTORS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VECTORS.get_or_init(read_vectors)
}

fn read_vectors() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "der"));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A transaction that awaits its ip, and that ip.
fn awaiting(world: &mut World) -> (TransactionRecord, Vec<u8>) {
    let request = trustfleet_cmp::EnrollRequest { implicit_confirm: true, ..world.request() };
    let (transaction, message) = world.start(request, mac("dev1", SECRET)).unwrap();
    (transaction.record(), world.serve(&message))
}

fn answer(world: &mut World, record: &TransactionRecord, answer: &[u8]) -> Step {
    let key: &SoftwareKey = &world.key;
    let step =
        Transaction::resume(record.clone(), mac("dev1", SECRET), world.acceptance.clone(), key, world.now).unwrap();
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
