//! Messages between controller and agents: versioned, signed, frozen once shipped.
//!
//! A message on the broker is an [`Envelope`]: version, signing key, payload bytes and a signature over exactly those
//! bytes. A broker can delay and drop, but not forge or change. Payloads are the types of [`v1`]; an unknown version
//! is refused with a clear error and never a panic. Secrets travel only as [`seal::SealedSecret`].

pub mod envelope;
pub mod join;
mod lease;
mod report;
pub mod routing;
pub mod seal;
pub mod sign;
mod transcript;
pub mod v1;

pub use envelope::{Envelope, WireError};
