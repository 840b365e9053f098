//! What the fuzzers run, as plain functions: each takes bytes, and panics where a promise is broken.
//!
//! Why it exists: what reads a peer's bytes must survive any of them. The functions are ordinary code, so that the corpus
//! is replayed by an ordinary test (`tests/replay.rs`), and a finding stays found. `make fuzz` drives the same functions
//! by libFuzzer (`targets/`, with the feature `libfuzzer`). Nothing depends on this crate.
//!
//! What it must never do: read a clock or randomness. One input is one run, for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a broken promise is a panic here

mod decode;
pub mod play;
mod records;
pub mod seeds;
mod texts;
mod world;

pub use self::{decode::decode, play::answers, records::records, texts::texts};

/// Takes what a fuzzer made; panics where a promise is broken.
pub type Target = fn(&[u8]);

/// The targets by name, as the folders of the corpus and the programs of libFuzzer are called.
pub const TARGETS: [(&str, Target); 4] =
    [("answers", answers), ("decode", decode), ("records", records), ("texts", texts)];
