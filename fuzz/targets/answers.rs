//! libFuzzer's entry to [`trustfleet_fuzz::answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| trustfleet_fuzz::answers(input));
