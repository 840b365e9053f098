//! Records that an earlier release wrote must stay readable: a device is updated in the middle of an exchange.
//!
//! The samples in `tests/golden/record-v1` were written by real runs (in `activation.json` the state was set by hand, as it
//! lasts only milliseconds) and are never edited.

use std::fs;
use std::path::PathBuf;

use trustfleet_agent::record::{JobRecord, State};
use trustfleet_wire::v1::ToAgent;

fn samples() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/record-v1");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    samples.sort();
    samples
}

#[test]
fn every_record_ever_written_reads_and_is_written_back_the_same() {
    for (name, text) in samples() {
        let record: JobRecord = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(matches!(record.envelope.peek().unwrap(), ToAgent::Job(_)), "{name}");
        let again: serde_json::Value = serde_json::to_value(&record).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(&text).unwrap(), "{name} changed");
    }
}

#[test]
fn every_state_has_a_sample() {
    let states: Vec<String> = samples()
        .iter()
        .map(|(_, text)| {
            let record: JobRecord = serde_json::from_str(text).unwrap();
            match record.state {
                State::Start => "start",
                State::Ca { exchange } if exchange.poll_at.is_some() => "poll",
                State::Ca { .. } => "ca",
                State::Storage { .. } => "storage",
                State::Activation { .. } => "activation",
                State::Nothing { .. } => record.state.as_str(),
            }
            .to_owned()
        })
        .collect();
    for state in ["start", "poll", "ca", "storage", "activation", "succeeded", "failed", "returned: permit expired"] {
        assert!(states.iter().any(|have| have == state), "no sample of {state}; there are {states:?}");
    }
}
