//! The CMP engine (RFC 9810, 9483, 9481): codec, protection and the client's transaction, sans-io.
//!
//! Why it exists: an enrolment must be provable without a network. It must never know a clock, a socket, a runtime or a
//! random number generator of its own; it must never use a message before its protection is verified over the bytes
//! received; it must never panic on what a peer sends.
//!
//! # The client
//!
//! ```no_run
//! use std::sync::Arc;
//! use trustfleet_cmp::{
//!     Acceptance, CmpError, Credentials, EnrollRequest, Enrolled, Input, RequestKind, Step, SystemEntropy, Transaction,
//!     key::{KeyType, SoftwareKey},
//!     protection::{Hash, MacPolicy},
//! };
//! use trustfleet_pki::name::Name;
//!
//! # fn post(_: &[u8]) -> Option<Vec<u8>> { None }
//! # fn now() -> jiff::Timestamp { jiff::Timestamp::UNIX_EPOCH }
//! # fn keep<T>(_: T) {}
//! # fn enrol(secret: Vec<u8>) -> Result<Box<Enrolled>, Box<dyn std::error::Error>> {
//! let request = EnrollRequest {
//!     kind: RequestKind::Ir,
//!     subject: Name::parse("CN=ap-1,O=Example")?,
//!     sans: vec![],
//!     recipient: Name::parse("/O=Example/CN=Issuing CA")?,
//!     sender: None,
//!     old_certificate: None,
//!     implicit_confirm: true,
//!     extra_certs: vec![],
//!     extensions: vec![],
//!     cert_profile: None,
//!     validity: None,
//! };
//! let mac = MacPolicy::of(Hash::Sha256);
//! let credentials = Credentials::Mac { reference: b"ap-1".to_vec(), secret: secret.into(), mac };
//! let key = Arc::new(SoftwareKey::generate(KeyType::P256)?);
//! let mut entropy = SystemEntropy;
//! let (transaction, message) =
//!     Transaction::start(request, credentials, Acceptance::default(), key, &mut entropy, now())?;
//! keep(transaction.record()); // serde: Transaction::resume goes on with it after a restart
//! let mut step = Step::Send { transaction: Box::new(transaction), message };
//! loop {
//!     step = match step {
//!         Step::Send { transaction, message } => match post(&message) {
//!             Some(answer) => transaction.handle(Input::Response(&answer), &mut entropy, now()),
//!             None => transaction.handle(Input::TimerFired, &mut entropy, now()), // the same bytes again
//!         },
//!         Step::Wait { transaction, seconds } => {
//!             std::thread::sleep(std::time::Duration::from_secs(seconds));
//!             transaction.handle(Input::TimerFired, &mut entropy, now())
//!         }
//!         Step::Done(enrolled) => return Ok(enrolled),
//!         Step::Concluded(_) => unreachable!("that is how rr and genm end"),
//!         Step::Failed { error, tell_peer, .. } => {
//!             tell_peer.and_then(|message| post(&message)); // best effort
//!             return Err(error.into());
//!         }
//!     };
//! }
//! # }
//! ```
//!
//! # The server's half
//!
//! With the feature `responder`, [`responder::receive`] reads and verifies a client's message and
//! [`responder::answer`] builds what to answer; issuing and remembering are the caller's.

mod advice;
mod check;
pub mod codec;
pub mod crl;
pub mod csr;
pub mod entropy;
pub mod envelope;
pub mod error;
mod fit;
pub mod info;
pub mod key;
pub mod lint;
pub mod outcome;
pub mod peer;
pub mod protection;
pub mod request;
#[cfg(feature = "responder")]
pub mod responder;
pub mod revoke;
pub mod show;
pub mod summary;
pub mod template;
pub mod text;
pub mod transaction;

pub use self::{
    advice::advice,
    codec::{BodyKind, FailureBit, PkiStatus},
    crl::Crl,
    csr::Csr,
    entropy::{Entropy, SystemEntropy},
    envelope::{Decrypter, SoftwareDecrypter},
    error::CmpError,
    info::{CrlOf, InfoRequest, Information, Question, RootCaUpdate},
    key::{Signer, SoftwareKey},
    outcome::{Conclusion, Enrolled, Exchanged, Informed, Revoked, Warning},
    peer::{Acceptance, Modifications},
    request::{Credentials, EnrollRequest, P10Request, Request, RequestKind, Validity},
    revoke::{RevocationReason, RevokeRequest},
    template::{RequestTemplate, TemplateError, apply_template},
    transaction::{Input, Step, Transaction, TransactionRecord},
};
