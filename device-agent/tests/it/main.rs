//! The agent without its broker: signed jobs in, a CA over real HTTP, signed reports out, a real disk below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "../../../shared/cmp/tests/support/mod.rs"]
mod authority;
mod ca;
mod cmp_shell;
mod house;
#[path = "../../../shared/cmp/tests/support/openssl.rs"]
mod openssl;

mod autonomy;
mod cmp_cli;
mod cmp_cli_ends;
mod cmp_cli_tls;
mod cmp_docs;
mod delays;
mod dry_runs;
mod enrolment;
mod faults;
mod gateway;
mod intake;
mod joining;
mod local_rules;
mod newer_openssl;
mod records;
mod restarts;
mod revoking;
mod services;
mod stopping;
mod token;
mod transcripts;
mod transport;
