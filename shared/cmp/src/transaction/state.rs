//! The states of a transaction, named for what they await; each carries exactly its own data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Bytes;
use crate::{
    codec::{BodyKind, PkiStatus},
    error::Unfit,
};

/// What the transaction waits for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "awaits")]
pub(super) enum State {
    /// The request is sent: ip, cp, kup, rp or genp is to come. (The name is that of the first form of the record.)
    CertRep {
        /// The request.
        sent: Sent,
    },
    /// certConf is sent: pkiConf is to come.
    PkiConf {
        /// The certConf.
        sent: Sent,
        /// What it said.
        verdict: Verdict,
    },
    /// The server said when to ask again: the time is to come (W3).
    PollTime {
        /// What the final answer will be.
        pending: Pending,
        /// Not before this.
        not_before: Timestamp,
        /// senderNonce of the pollRep (H12).
        peer_nonce: Bytes,
    },
    /// pollReq is sent: pollRep or the final answer is to come.
    PollRep {
        /// The pollReq.
        sent: Sent,
        /// What the final answer will be.
        pending: Pending,
    },
}

impl State {
    /// In words, for errors and displays (S50).
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::CertRep { .. } => "awaiting the response",
            Self::PkiConf { .. } => "awaiting the confirmation",
            Self::PollTime { .. } => "waiting to poll",
            Self::PollRep { .. } => "awaiting a poll response",
        }
    }
}

/// A message that was sent and awaits its answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Sent {
    /// Its kind.
    pub(super) kind: BodyKind,
    /// Its senderNonce: the answer's recipNonce (V3).
    pub(super) nonce: Bytes,
    /// Its bytes, to be repeated as they are (T5).
    pub(super) bytes: Bytes,
}

/// An answer that the server delays.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Pending {
    /// To be used in pollReq; -1 when an error message said waiting (W2).
    pub(super) cert_req_id: i64,
    /// senderNonce of the delayed request: a final answer made by a server behind an RA answers that one (RFC 9483
    /// section 4.4), others answer the last pollReq.
    pub(super) original_nonce: Bytes,
    /// The delayed answer.
    pub(super) awaited: Awaited,
}

/// Which answer is delayed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub(super) enum Awaited {
    /// ip, cp, kup, rp or genp.
    CertRep,
    /// pkiConf.
    PkiConf {
        /// What certConf said.
        verdict: Verdict,
    },
}

/// What certConf said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub(super) enum Verdict {
    /// Taken.
    Accept {
        /// What was taken.
        issued: Issued,
    },
    /// Refused (C7).
    Reject {
        /// Why.
        reasons: Vec<Unfit>,
        /// What came with it.
        issued: Issued,
    },
}

impl Verdict {
    pub(super) const fn issued(&self) -> &Issued {
        match self {
            Self::Accept { issued } | Self::Reject { issued, .. } => issued,
        }
    }
}

/// What a response brought.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Issued {
    /// DER.
    pub(super) certificate: Bytes,
    /// DER.
    pub(super) ca_pubs: Vec<Bytes>,
    /// The response was authenticated by the shared secret (V11).
    pub(super) by_mac: bool,
    pub(super) status: PkiStatus,
    /// Harmless already.
    pub(super) status_texts: Vec<String>,
}
