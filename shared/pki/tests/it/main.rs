//! What this crate promises, against certificates made by the real `openssl` command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod certificates;
mod chains;
mod hostile;
mod names;
mod openssl;
mod sans;
mod signatures;
