//! Every message that was ever sent must stay readable: one sample of each kind lies in `golden/v1` for ever.
//!
//! A sample is never edited. A message that gains an optional field gets a further sample beside the old one, and the
//! old one must still read and come out unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trustfleet_wire::join::{
    AnnounceAnswer, AnnounceRequest, Challenge, ChallengeRequest, JoinAnswer, JoinRequest, SessionAnswer,
    SessionRequest,
};
use trustfleet_wire::sign::{Purpose, SigningKey, verify};
use trustfleet_wire::v1::{FromAgent, ToAgent};
use trustfleet_wire::{Envelope, WireError};

/// PKCS#8 of the Ed25519 key whose 32 secret bytes are all 7: known to everybody, for these samples only.
const TEST_KEY_PKCS8: [u8; 48] = {
    let mut der = [7; 48];
    let head = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut i = 0;
    while i < head.len() {
        der[i] = head[i];
        i += 1;
    }
    der
};

/// What begins a sample's file name, and the type that reads it; the first that fits counts.
type Reader = fn(&str) -> Result<String, serde_json::Error>;
const READERS: [(&str, Reader); 11] = [
    ("announce_request", rewrite::<AnnounceRequest>),
    ("announce_answer", rewrite::<AnnounceAnswer>),
    ("to_agent_", rewrite::<ToAgent>),
    ("from_agent_", rewrite::<FromAgent>),
    ("join_request", rewrite::<JoinRequest>),
    ("join_answer", rewrite::<JoinAnswer>),
    ("challenge_request", rewrite::<ChallengeRequest>),
    ("challenge", rewrite::<Challenge>),
    ("session_request", rewrite::<SessionRequest>),
    ("session_answer", rewrite::<SessionAnswer>),
    ("envelope_", rewrite::<Envelope>),
];

fn rewrite<T: DeserializeOwned + Serialize>(text: &str) -> Result<String, serde_json::Error> {
    let message: T = serde_json::from_str(text)?;
    Ok(serde_json::to_string_pretty(&message)? + "\n")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn samples() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()
}

#[test]
fn every_sample_reads_and_is_written_back_byte_for_byte() {
    let samples = samples();
    for (name, text) in &samples {
        let reader = READERS.iter().find(|(prefix, _)| name.starts_with(prefix));
        let (_, reader) = reader.unwrap_or_else(|| panic!("{name}.json: no type reads it"));
        assert_eq!(&reader(text).unwrap_or_else(|error| panic!("{name}.json: {error}")), text, "{name}.json changed");
    }
}

#[test]
fn every_kind_of_message_has_a_sample() {
    let all: String = samples().into_values().collect();
    // The match breaks the build when a kind is added: give it a sample, then a word here.
    let words = |message: &FromAgent| match message {
        FromAgent::Hello(_) | FromAgent::Report(_) | FromAgent::Lease(_) => [
            "hello",
            "lease",
            "started",
            "waiting",
            "permit_expired",
            "issued",
            "activated",
            "revoked",
            "dry_run",
            "anchors",
            "failed",
        ],
    };
    let hello: FromAgent = serde_json::from_str(&sample("from_agent_hello")).unwrap();
    let to_agent = ["job", "receipt", "stop", "lease_end", "enroll", "activate", "revoke", "report"];
    for word in words(&hello).into_iter().chain(to_agent) {
        let tagged = [format!("\"type\": \"{word}\""), format!("\"kind\": \"{word}\"")];
        assert!(tagged.iter().any(|tag| all.contains(tag)), "no sample of {word}");
    }
    for (prefix, _) in READERS {
        assert!(samples().keys().any(|name| name.starts_with(prefix)), "no sample of {prefix}");
    }
}

#[test]
fn a_field_from_a_later_release_does_not_stop_an_older_reader() {
    for name in ["to_agent_receipt", "from_agent_hello", "to_agent_job_activate"] {
        let text = sample(name).replacen('{', "{\n  \"added_later\": 1,", 1);
        let reader = READERS.iter().find(|(prefix, _)| name.starts_with(prefix)).unwrap().1;
        assert_eq!(reader(&text).unwrap(), sample(name));
    }
}

#[test]
fn a_signed_sample_still_verifies_and_signing_it_again_gives_the_same_bytes() {
    let key = SigningKey::from_pkcs8(&TEST_KEY_PKCS8).unwrap();
    let text = sample("envelope_to_agent_receipt");
    let envelope = Envelope::from_bytes(text.as_bytes()).unwrap();
    let message: ToAgent = envelope.open(Purpose::ToAgent, &key.public_key()).unwrap();
    assert_eq!(serde_json::to_string_pretty(&message).unwrap() + "\n", sample("to_agent_receipt"));
    assert_eq!(Envelope::seal(&message, Purpose::ToAgent, &key).unwrap(), envelope);
    assert!(verify(&key.public_key(), Purpose::FromAgent, &envelope.payload.0, &envelope.signature.0).is_err());
}

#[test]
fn a_later_version_is_refused_by_its_number_whatever_else_it_holds() {
    let text = sample("envelope_to_agent_receipt").replacen("\"v\": 1", "\"v\": 2", 1);
    assert!(matches!(Envelope::from_bytes(text.as_bytes()), Err(WireError::UnknownVersion(2))));
    let strange = br#"{"v": 65535, "payload": {"not": "a string"}}"#;
    assert!(matches!(Envelope::from_bytes(strange), Err(WireError::UnknownVersion(65535))));
    assert!(matches!(Envelope::from_bytes(br#"{"v": 70000}"#), Err(WireError::NotAnEnvelope(_))));
}

#[test]
fn an_unknown_kind_of_message_is_an_error_and_never_a_panic() {
    let key = SigningKey::from_pkcs8(&TEST_KEY_PKCS8).unwrap();
    let unknown = serde_json::json!({"type": "self_destruct"});
    let envelope = Envelope::seal(&unknown, Purpose::ToAgent, &key).unwrap();
    let error = envelope.open::<ToAgent>(Purpose::ToAgent, &key.public_key()).unwrap_err();
    assert!(matches!(error, WireError::BadPayload(_)));
}
