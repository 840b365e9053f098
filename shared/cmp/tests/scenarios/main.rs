//! The client against our own responder, joined in memory: good ends, refusals, delays and restarts.
//!
//! Both halves share a codec, so this proves the state machine, not the encoding (that is vectors.rs, openssl_mock.rs, cmpv2_agrees.rs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod anew;
mod costs;
mod delays;
mod fit;
mod foreign_answers;
mod good_ends;
mod lint;
mod p10;
mod protection;
mod questions;
mod requests;
mod restarts;
mod revocation;
mod rules;
mod sealed;
#[path = "../support/mod.rs"]
mod support;
mod templates;
#[path = "../support/world.rs"]
mod world;

use std::sync::Arc;

use jiff::SignedDuration;
use support::{Authority, CMC_RA, Leaf, NoEntropy, accepting, key, mac, name, signature};
use trustfleet_cmp::{
    BodyKind, CmpError, Credentials, EnrollRequest, FailureBit, Input, Modifications, RequestKind, SoftwareKey, Step,
    Transaction, Warning,
    codec::{
        PkiMessage,
        raw::{directory_name, directory_name_der},
    },
    error::{ConfigurationError, Unfit},
    key::KeyType,
    protection::{Hash, MacPolicy},
    responder::{Answer, Client, ReplyProtection, Request},
};
use trustfleet_pki::{name::Name, san::San};
use world::{SECRET, World};

fn kinds(transcript: &[trustfleet_cmp::Exchanged]) -> Vec<&'static str> {
    transcript.iter().filter_map(|exchanged| exchanged.kind).map(BodyKind::name).collect()
}

fn restarted(world: &World, transaction: &Transaction) -> Step {
    let json = serde_json::to_string(&transaction.record()).unwrap();
    let record = serde_json::from_str(&json).unwrap();
    let credentials = mac("dev1", SECRET);
    Transaction::resume(record, credentials, world.acceptance.clone(), world.key.as_ref(), world.now).unwrap()
}
