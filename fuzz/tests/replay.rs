//! What the fuzzers found stays found: every seed and every kept input, without libFuzzer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};
use trustfleet_fuzz::{
    TARGETS,
    play::{Ending, play},
    seeds::{files, folder, seeds},
};

/// The kept inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    files(&folder("fuzz/corpus").join(target), "")
}

fn replay(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let kept = corpus(target);
    assert!(kept.len() >= 20, "only {} inputs are kept for {target}", kept.len());
    let seeds = seeds(target).into_iter().enumerate().map(|(number, seed)| (format!("seed {number}"), seed));
    let broken: Vec<String> = kept
        .into_iter()
        .chain(seeds)
        .filter(|(_, input)| catch_unwind(AssertUnwindSafe(|| run(input))).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(broken.is_empty(), "{target} breaks a promise with {broken:?}");
}

#[test]
fn every_kept_input_of_answers_keeps_the_rules() {
    replay("answers");
}

#[test]
fn every_kept_input_of_decode_decodes_or_is_refused() {
    replay("decode");
}

#[test]
fn every_kept_input_of_records_is_resumed_or_refused() {
    replay("records");
}

#[test]
fn every_kept_input_of_texts_is_read_or_refused() {
    replay("texts");
}

/// Otherwise the fuzzers would rattle at the door: the runs must get behind the protection and to every end.
#[test]
fn the_seeds_of_answers_reach_every_end() {
    let ends: BTreeSet<String> = seeds("answers").iter().map(|seed| format!("{:?}", play(seed))).collect();
    for end in [
        Ending::Enrolled,
        Ending::Concluded,
        Ending::Open("awaiting the response"),
        Ending::Open("awaiting the confirmation"),
        Ending::Open("waiting to poll"),
        Ending::Open("awaiting a poll response"),
        Ending::Failed("refused"),
        Ending::Failed("stopped"),
        Ending::Failed("total_time_exceeded"),
        Ending::Failed("certificate_unfit"),
        Ending::Failed("mac_mismatch"),
        Ending::Failed("signer_not_authorised"),
        Ending::Failed("signer_untrusted"),
        Ending::Failed("signature_invalid"),
        Ending::Failed("unprotected"),
        Ending::Failed("wrong_integrity"),
        Ending::Failed("pbm_iterations_not_accepted"),
        Ending::Failed("protection_algorithm_not_accepted"),
        Ending::Failed("transaction_id_wrong"),
        Ending::Failed("recip_nonce_wrong"),
        Ending::Failed("sender_nonce_wrong"),
        Ending::Failed("body_unexpected"),
        Ending::Failed("version_unsupported"),
        Ending::Failed("status_unexpected"),
        Ending::Failed("other_certificate"),
        Ending::Failed("nested_message"),
    ] {
        let end = format!("{end:?}");
        assert!(ends.contains(&end), "no seed ends in {end}, only {ends:#?}");
    }
}

/// A little of what the fuzzers do, in every run of the tests: seeds with a few bytes changed.
#[test]
fn changed_seeds_keep_the_rules() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        let changes = vec((any::<Index>(), any::<u8>()), 1..6);
        let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
        let strategy = (any::<Index>(), changes, any::<Index>());
        let result = TestRunner::new(config).run(&strategy, |(which, changes, at)| {
            let mut input = which.get(&seeds).clone();
            for (place, byte) in changes {
                let place = place.index(input.len());
                if byte % 7 == 0 {
                    input.insert(at.index(input.len()), byte);
                } else {
                    input[place] = byte;
                }
            }
            run(&input);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}
