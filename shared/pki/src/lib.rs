//! Names, alternative names, certificates and the public side of keys.
//!
//! Why it exists: everything that Trustfleet says about an X.509 certificate is read here, once, from the bytes as
//! they were received. Together with the CMP crate this is the only place that knows ASN.1.
//!
//! What it must never do: reorder, normalise or re-encode a name or a certificate that came from outside; touch a
//! private key; read a clock (the moment of a validation is an argument); panic on what a peer sends.

pub mod bounds;
pub mod certificate;
pub mod chain;
pub mod digest;
pub mod name;
pub mod oid;
pub mod public_key;
pub mod san;
pub mod signature;
pub mod succession;

mod path_algorithms;
mod raw;

pub use certificate::{Certificate, CertificateError};
pub use chain::ChainError;
pub use der::asn1::ObjectIdentifier;
pub use name::{Name, NameError};
pub use public_key::{KeyKind, PublicKey};
pub use san::{San, SanError};
pub use signature::{SignatureAlgorithm, SignatureError};
pub use spki::AlgorithmIdentifierOwned;
