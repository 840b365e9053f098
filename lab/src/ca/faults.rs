//! How the lab CA misbehaves when it is told to: each fault is one thing that a client must not fall for.

use clap::ValueEnum;
use trustfleet_cmp::codec::{
    CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair, PkiBody, PkiHeader, PkiMessage, PkiStatus,
    PkiStatusInfo, RawSequence,
};
use trustfleet_cmp::{
    request::RequestKind,
    responder::{Answer, ReplyTo},
};

/// One way to misbehave.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Fault {
    /// Answer with another recipNonce (V3)
    WrongNonce,
    /// Answer with another transactionID (V2)
    WrongTransactionId,
    /// Change a bit of the signature or MAC (P10)
    BadProtection,
    /// Answer without protection (P10)
    Unprotected,
    /// Sign by a device's certificate of the same CA (V6)
    SiblingSigner,
    /// Certify another public key than the one asked for (V9)
    OtherKey,
    /// Send two CertResponses for one request (V7)
    ExtraResponse,
    /// Leave out messageTime, which a response may do (V13)
    MissingOptionals,
    /// Let every request wait and never decide (W4)
    WaitingForEver,
    /// Let every request wait, and say to come back in 68 years (W4)
    AbsurdCheckAfter,
    /// Refuse with a text full of control characters and format directives
    HostileText,
    /// Cut the message, with a Content-Length that fits (V1)
    TruncatedDer,
    /// Answer by HTTP status 500 and plain text
    Http500,
    /// Redirect to another path (T3)
    Redirect,
    /// Close the connection in the middle of the message (T5)
    CutBody,
    /// Answer as text/html (T1)
    WrongContentType,
    /// Treat the same bytes again as a new message: a request is refused with transactionIdInUse (S37)
    NoRepetition,
}

/// What a hostile peer writes for people to read.
pub(super) fn hostile_text() -> String {
    format!("%s%n\u{1b}[31m\r\n2026-11-21 INFO all is well\0\u{202e}{}", "x".repeat(100_000))
}

/// Changes what the answer is about and says.
pub(super) fn twist(has: impl Fn(Fault) -> bool, to: &mut ReplyTo, answer: &Answer) -> Option<Answer> {
    let flip = |bytes: &mut Vec<u8>| {
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
    };
    if has(Fault::WrongNonce) {
        flip(&mut to.sender_nonce);
    }
    if has(Fault::WrongTransactionId) {
        flip(&mut to.transaction_id);
    }
    if has(Fault::ExtraResponse)
        && let Answer::Granted { kind, cert_req_id, certificate, .. } = answer
    {
        let pair = |certificate| CertifiedKeyPair {
            cert_or_enc_cert: CertOrEncCert::Certificate(certificate),
            private_key: None,
            publication_info: None,
        };
        let response = CertResponse {
            cert_req_id: *cert_req_id,
            status: PkiStatusInfo::plain(PkiStatus::Accepted),
            certified_key_pair: RawSequence::from_tlv(certificate.as_der()).ok().map(pair),
            rsp_info: None,
        };
        let message = CertRepMessage { ca_pubs: None, response: vec![response.clone(), response] };
        return Some(Answer::Body(Box::new(match kind {
            RequestKind::Cr | RequestKind::P10cr => PkiBody::Cp(message),
            RequestKind::Kur => PkiBody::Kup(message),
            _ => PkiBody::Ip(message),
        })));
    }
    None
}

/// Changes the header before it is protected.
pub(super) fn shape(has: impl Fn(Fault) -> bool, header: &mut PkiHeader) {
    if has(Fault::MissingOptionals) {
        header.message_time = None;
    }
}

/// Changes the finished message.
pub(super) fn spoil(has: impl Fn(Fault) -> bool, mut der: Vec<u8>) -> Vec<u8> {
    if has(Fault::BadProtection)
        && let Ok(mut message) = PkiMessage::from_der(&der)
        && let Some(last) = message.protection.as_mut().and_then(|protection| protection.last_mut())
    {
        *last ^= 1;
        der = message.to_der().unwrap_or(der);
    }
    if has(Fault::TruncatedDer) {
        der.truncate(der.len() * 2 / 3);
    }
    der
}
