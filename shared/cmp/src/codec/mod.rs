//! CMP messages on the wire: owned types by `der`, each with the ASN.1 of its RFC above it.
//!
//! It exists beside the crates `cmpv2` and `crmf` because those read failInfo bits, polling and optional validity
//! wrongly, know no pvno 3 and keep no received bytes. It decides nothing: whether a message is wanted, fresh or
//! authentic is for [`crate::check`] and [`crate::protection`]. It never panics on hostile input.

pub mod body;
pub mod header;
pub mod info;
pub mod message;
pub mod oids;
pub mod pbm;
pub mod pbmac1;
pub mod raw;
pub mod request;
pub mod response;
pub mod status;

use thiserror::Error;
pub use trustfleet_pki::bounds;

pub use self::{
    body::{BodyKind, PkiBody},
    header::{InfoTypeAndValue, PkiHeader},
    message::PkiMessage,
    pbm::PbmParameter,
    pbmac1::{Pbkdf2Params, Pbmac1Params},
    raw::{FreeText, PeerText, RawSequence, TimeText},
    request::{CertId, CertReqMsg, CertRequest, CertTemplate, PollRep, PollReq, ProofOfPossession},
    response::{CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair},
    status::{CertStatus, ErrorMsgContent, FailureBit, FailureInfo, PkiStatus, PkiStatusInfo},
};

/// Bytes of a peer that are not a CMP message.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// Refused by its outer shape.
    #[error(transparent)]
    Bounds(#[from] bounds::BoundsError),
    /// A part does not decode.
    #[error("{part} does not decode: {detail}")]
    Der {
        /// Which part, by its name in the RFC.
        part: &'static str,
        /// What the decoder says.
        detail: der::Error,
    },
    /// The body has a tag that RFC 9810 does not know.
    #[error("body of unknown kind (tag 0x{tag:02x})")]
    UnknownBody {
        /// The tag octet.
        tag: u8,
    },
    /// The protection is not a whole number of octets.
    #[error("protection is not a whole number of octets")]
    ProtectionBits,
    /// Messages inside messages, more than [`bounds::MAX_NESTED`] deep.
    #[error("nested messages are more than {} deep", bounds::MAX_NESTED)]
    NestedTooDeep,
    /// More certificates than [`bounds::MAX_CERTIFICATES`].
    #[error("{count} certificates in {field}: at most {} are taken", bounds::MAX_CERTIFICATES)]
    TooManyCertificates {
        /// extraCerts or caPubs.
        field: &'static str,
        /// How many there are.
        count: usize,
    },
}

impl DecodeError {
    const fn der(part: &'static str, detail: der::Error) -> Self {
        Self::Der { part, detail }
    }
}
