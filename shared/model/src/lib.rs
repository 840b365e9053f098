//! The vocabulary of Trustfleet: ids, names, domain types and the rules that make them valid.
//!
//! Everything here can be tested without a runtime: no socket, no SQL, no ASN.1, no clock of its own. What a value
//! must satisfy is checked once, where it is made; afterwards its type says that it is valid.

pub mod autonomy;
pub mod binding;
pub mod ca_server;
pub mod certificate;
pub mod clock;
pub mod contact;
pub mod device;
pub mod dry_run;
pub mod entity;
pub mod fail_info;
pub mod field;
pub mod ids;
pub mod job;
pub mod policy;
pub mod recovery;
pub mod reissue;
pub mod renewal;
pub mod revocation;
pub mod rollover;
pub mod secret;
pub mod service;
pub mod spread;
pub mod statistics;
pub mod transcript;
pub mod trustpoint;
