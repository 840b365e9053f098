//! The Trustfleet device agent: runs CMP next to the device and keeps the device's keys there.
//!
//! Why it exists: private keys never leave the device, and an exchange with a CA survives whatever dies in between. The
//! agent takes signed jobs from its controller over AMQP, speaks CMP with the CA over HTTP, and reports until it is
//! answered. It must never act on a message that the pinned controller has not signed, never run a job twice, and never
//! let a private key or a secret out of its hands.
//!
//! ```text
//! controller_link -> driver -> worker -> exchange -> cmp_http      shells
//!                      |          |          |
//!                  lifecycle   slots       trustfleet_cmp          decisions and files
//! ```
//!
//! Beside all that stands [`cmp_cli`]: the same engine by hand, from a shell.

pub mod accept;
pub mod activation;
pub mod anchors;
pub mod autonomy;
pub mod backoff;
pub mod ca_tls;
pub mod clock;
pub mod cmp_cli;
pub mod cmp_http;
pub mod config;
pub mod controller_link;
pub mod core;
pub mod domain_cli;
pub mod domains;
pub mod driver;
pub mod dry_run;
pub mod exchange;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod leases;
pub mod lifecycle;
pub mod nodes;
pub mod order;
pub mod outcome;
pub mod overlay;
pub mod prepare;
pub mod queue;
pub mod record;
pub mod recorder;
pub mod reports;
pub mod roots;
pub mod run;
pub mod services;
pub mod session;
pub mod slots;
pub mod status;
pub mod store;
pub mod tls_roots;
pub mod upkeep;
pub mod worker;
