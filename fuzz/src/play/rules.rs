//! What must hold after every step of a run, whatever the server does.
//!
//! The ids are those of docs/cmp.md. The rules know the transaction only from outside: its steps, its messages as a
//! server reads them, and its record.

use std::{collections::HashSet, sync::Arc};

use der::Decode;
use jiff::Timestamp;
use spki::SubjectPublicKeyInfoOwned;
use trustfleet_cmp::{
    CmpError, Conclusion, Enrolled, FailureBit, Input, PkiStatus, RequestKind, Signer, SoftwareKey, Step, Transaction,
    codec::{BodyKind, PkiBody, PkiHeader, PkiMessage, bounds::MAX_CERTIFICATES},
    responder::{Client, Request},
};
use trustfleet_pki::{Certificate, chain::verify_end_entity};

use super::{Told, moves::Setup, server::Server};
use crate::{
    texts::harmless,
    world::{begin, world},
};

const RESPONSE: &str = "awaiting the response";
const CONFIRMATION: &str = "awaiting the confirmation";
const TIME: &str = "waiting to poll";
const POLL: &str = "awaiting a poll response";

/// Longest message that we ever send in a run, in bytes.
const MAX_SENT: usize = 6 * 1024;
/// Longest record of a run, in bytes: certificates of the answers and the last message.
const MAX_RECORD: usize = 512 * 1024;

/// The transaction before a step.
pub(super) struct Before {
    pub(super) awaits: &'static str,
    pub(super) told: Told,
    pub(super) now: Timestamp,
}

/// What is known of a run so far.
pub(super) struct Rules {
    setup: Setup,
    kind: RequestKind,
    key: Arc<SoftwareKey>,
    started: Timestamp,
    /// When the last step was made.
    stepped: Timestamp,
    total: u64,
    /// Every senderNonce of ours.
    nonces: HashSet<Vec<u8>>,
    transaction_ids: Vec<Vec<u8>>,
    /// senderNonce of the last answer that was taken (H12).
    peer_nonce: Vec<u8>,
    /// senderNonce of the request, or of the certConf, whose answer is delayed.
    delayed: Option<Vec<u8>>,
    last_nonce: Vec<u8>,
    confirming: bool,
}

impl Rules {
    pub(super) fn new(setup: Setup, kind: RequestKind, key: &Arc<SoftwareKey>, now: Timestamp, total: u64) -> Self {
        Self {
            setup,
            kind,
            key: Arc::clone(key),
            started: now,
            stepped: now,
            total,
            nonces: HashSet::new(),
            transaction_ids: vec![],
            peer_nonce: vec![],
            delayed: None,
            last_nonce: vec![],
            confirming: false,
        }
    }

    /// The total time is over (W4), also for a clock that was set back.
    pub(super) fn time_is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.started.min(now)).as_secs().unsigned_abs() >= self.total
    }

    /// It goes on after a restart; a clock that was set back meanwhile is followed there already.
    pub(super) fn resumed(&mut self, now: Timestamp) {
        self.started = self.started.min(now);
    }

    /// The clock is not where it was at the last step.
    pub(super) fn clock_was_moved(&self, now: Timestamp) -> bool {
        self.stepped != now
    }

    /// A new message of ours (H10 to H12, P7); the server has read it.
    pub(super) fn sent(&mut self, server: &Server, message: &[u8]) {
        assert!(message.len() <= MAX_SENT, "a message of {} bytes", message.len());
        let heard = server.heard().last().expect("the server has heard it");
        assert_eq!(Some(&heard.client), server.client(), "P7");
        assert!(self.nonces.insert(heard.reply_to.sender_nonce.clone()), "H11: a nonce was used again");
        assert!(heard.reply_to.sender_nonce.len() >= 16, "H11");
        let begins = matches!(heard.request, Request::Certificate(_) | Request::Revoke(_) | Request::Info(_));
        let id = &heard.reply_to.transaction_id;
        if begins {
            assert!(!self.transaction_ids.contains(id), "H10: a transactionID was used again");
            assert!(self.transaction_ids.len() < 2, "a transaction is begun anew once at most");
            self.transaction_ids.push(id.clone());
            assert_eq!(heard.recip_nonce, b"", "H12");
        } else {
            assert_eq!(Some(id), self.transaction_ids.last(), "H10");
            assert_eq!(heard.recip_nonce, self.peer_nonce, "H12");
        }
        self.confirming |= matches!(heard.request, Request::CertConf(_));
        if !matches!(heard.request, Request::Poll { .. }) {
            self.delayed = Some(heard.reply_to.sender_nonce.clone());
        }
        self.last_nonce.clone_from(&heard.reply_to.sender_nonce);
    }

    /// The error by which we tell the server that it is over (E1, E5).
    pub(super) fn told_the_end(&self, message: &[u8]) {
        assert!(message.len() <= MAX_SENT, "an error message of {} bytes", message.len());
        let received = Server::read(message);
        assert!(matches!(received.request, Request::Error { .. }), "{:?}", received.request);
        assert_eq!(Some(&received.reply_to.transaction_id), self.transaction_ids.last());
        assert!(!self.nonces.contains(&received.reply_to.sender_nonce), "H11: a nonce was used again");
    }

    pub(super) fn record(&self, json: &str) {
        assert!(json.len() <= MAX_RECORD, "a record of {} bytes", json.len());
    }

    /// Everything that must hold of a step.
    pub(super) fn check(&mut self, server: &Server, before: &Before, input: Input<'_>, step: &Step) {
        self.started = self.started.min(before.now);
        self.stepped = before.now;
        self.bounded(before.now, step);
        match input {
            Input::Stop => assert!(matches!(step, Step::Failed { error, .. } if error.code() == "stopped"), "{step:?}"),
            Input::TimerFired => self.fired(before, step),
            Input::Response(bytes) => self.answered(server, before, bytes, step),
        }
    }

    /// What is shown is harmless, what is waited for has an end.
    fn bounded(&self, now: Timestamp, step: &Step) {
        let (transcript, warnings) = match step {
            Step::Failed { error, transcript, .. } => {
                harmless(&error.to_string());
                harmless(error.code());
                (transcript, &[][..])
            }
            Step::Done(enrolled) => (&enrolled.transcript, enrolled.warnings.as_slice()),
            Step::Concluded(conclusion) => match conclusion.as_ref() {
                Conclusion::Revoked(revoked) => (&revoked.transcript, revoked.warnings.as_slice()),
                Conclusion::Informed(informed) => (&informed.transcript, informed.warnings.as_slice()),
            },
            Step::Wait { seconds, .. } => {
                assert!(*seconds >= 1, "W3: no circle");
                let left = now.duration_since(self.started).as_secs().unsigned_abs();
                assert!(*seconds <= self.total.saturating_sub(left).max(1), "W4: {seconds} seconds");
                return;
            }
            Step::Send { .. } => return,
        };
        assert!(transcript.len() <= 200);
        assert!(warnings.len() <= 16, "{warnings:?}");
        warnings.iter().for_each(|warning| harmless(&warning.to_string()));
    }

    fn fired(&self, before: &Before, step: &Step) {
        match step {
            Step::Failed { error, .. } => {
                assert_eq!(error.code(), "total_time_exceeded");
                assert!(self.time_is_over(before.now), "there was time");
            }
            Step::Wait { transaction, .. } => {
                assert_eq!((before.awaits, transaction.awaits()), (TIME, TIME));
            }
            Step::Send { transaction, message } if before.awaits == TIME => {
                assert_eq!(transaction.awaits(), POLL);
                assert_eq!(kind_of(message), BodyKind::PollReq);
            }
            Step::Send { transaction, message } => {
                assert_eq!(before.told, Told::Send(message.clone()), "T5: the same bytes");
                assert_eq!(transaction.awaits(), before.awaits);
            }
            other => panic!("a timer ended it well: {other:?}"),
        }
    }

    fn answered(&mut self, server: &Server, before: &Before, bytes: &[u8], step: &Step) {
        let message = PkiMessage::from_der(bytes).ok();
        let taken = message.filter(|message| server.vouches_for(message) && self.belongs(before, message));
        if let Step::Failed { error, orphan, .. } = step {
            return self.failed(server, taken.as_ref(), error, orphan.as_ref());
        }
        let Some(message) = taken else {
            panic!("an answer that nobody vouched for, or to something else, was used: {step:?}");
        };
        assert_ne!(before.awaits, TIME, "no answer was awaited");
        self.peer_nonce = PkiHeader::octets(message.header.sender_nonce.as_ref()).to_vec();
        match step {
            Step::Send { transaction, message: next } => self.goes_on(before, &message, transaction, kind_of(next)),
            Step::Wait { transaction, .. } => {
                assert_eq!((before.awaits, transaction.awaits()), (POLL, TIME));
                let waiting = status_of(&message.body) == Some(PkiStatus::Waiting);
                assert!(waiting || matches!(message.body, PkiBody::PollRep(_)));
            }
            Step::Done(enrolled) => self.enrolled(server, &message, enrolled),
            Step::Concluded(conclusion) => self.concluded(&message, conclusion),
            Step::Failed { .. } => {}
        }
    }

    /// V2, V3.
    fn belongs(&self, before: &Before, message: &PkiMessage) -> bool {
        let (id, nonce) = (message.header.transaction_id.as_ref(), message.header.recip_nonce.as_ref());
        let nonce = PkiHeader::octets(nonce);
        let delayed = before.awaits == POLL && self.delayed.as_deref() == Some(nonce);
        Some(PkiHeader::octets(id)) == self.transaction_ids.last().map(Vec::as_slice)
            && (nonce == self.last_nonce || delayed)
            && PkiHeader::octets(message.header.sender_nonce.as_ref()).len() >= 16
    }

    /// E5: of what nobody vouched for nothing is used, but the words of a refusal as such.
    fn failed(&self, server: &Server, taken: Option<&PkiMessage>, error: &CmpError, orphan: Option<&Certificate>) {
        match error {
            CmpError::Refused(refusal) => {
                assert!(refusal.unauthenticated.is_some() || taken.is_some(), "{refusal}");
            }
            CmpError::Certificate(unfit) => {
                assert!(taken.is_some() || self.confirming, "{unfit}");
                assert!(!unfit.rejection_confirmed || taken.is_some(), "C7");
                assert_eq!(orphan, Some(&unfit.certificate));
            }
            CmpError::Message(_) => {}
            CmpError::Configuration(error) => assert_eq!(error.code(), "unexpected_input"),
            CmpError::Local(_) | CmpError::Ended(_) => panic!("an answer made that: {error}"),
        }
        if let Some(orphan) = orphan {
            assert!(self.may_be_sealed() || server.vouched_bytes(orphan.as_der()), "an orphan out of nowhere");
        }
    }

    fn goes_on(&self, before: &Before, answer: &PkiMessage, after: &Transaction, next: BodyKind) {
        let waiting = status_of(&answer.body) == Some(PkiStatus::Waiting);
        match (before.awaits, after.awaits()) {
            (RESPONSE, POLL) | (CONFIRMATION, POLL) => {
                assert!(waiting, "W1, W2");
                assert_eq!(next, BodyKind::PollReq);
            }
            (RESPONSE | POLL, CONFIRMATION) => {
                assert!(!self.confirming, "one certConf is enough");
                assert!(self.kind.is_enrolment());
                assert_eq!(answer.body.kind(), self.kind.response());
                assert_eq!(next, BodyKind::CertConf);
            }
            (RESPONSE, RESPONSE) => {
                assert_eq!((answer.body.kind(), next), (BodyKind::Error, self.kind.request()), "H2, E4");
                let bits = match &answer.body {
                    PkiBody::Error(error) => error.status_info.fail_info.unwrap_or_default(),
                    _ => return,
                };
                let id = bits.contains(FailureBit::TransactionIdInUse) && self.setup.has(Setup::RETRY_ID);
                assert!(id || bits.contains(FailureBit::UnsupportedVersion));
            }
            (from, to) => panic!("from {from} to {to}, by {next}"),
        }
    }

    /// V9, V10, V11, C1, C2, C8: the certificate is for our key, came from the CA, and is confirmed.
    fn enrolled(&self, server: &Server, last: &PkiMessage, enrolled: &Enrolled) {
        assert!(self.kind.is_enrolment());
        assert_eq!(enrolled.kind, self.kind);
        let spki = |der: &[u8]| SubjectPublicKeyInfoOwned::from_der(der).expect("a key");
        let (held, asked) = (spki(&enrolled.certificate.spki_der()), spki(self.key.public_key_der()));
        assert_eq!(held.algorithm.oid, asked.algorithm.oid, "V9");
        assert_eq!(held.subject_public_key, asked.subject_public_key, "V9");
        assert!(self.may_be_sealed() || server.vouched_bytes(enrolled.certificate.as_der()), "out of nowhere");
        if !self.setup.has(Setup::NO_ANCHORS) {
            let anchors = std::slice::from_ref(world().ca());
            assert_eq!(verify_end_entity(&enrolled.certificate, &[], anchors, begin()), Ok(()), "V10");
        }
        for ca in &enrolled.ca_pubs {
            assert!(server.vouched_bytes(ca.as_der()), "V11: caPubs out of nowhere");
        }
        assert!(enrolled.chain_helpers.len() <= MAX_CERTIFICATES);
        let by_mac = matches!(server.client(), Some(Client::Mac { .. }));
        assert!(by_mac || !enrolled.ca_pubs_trusted, "V11");
        if enrolled.implicitly_confirmed {
            assert!(self.setup.has(Setup::IMPLICIT) && last.header.has_implicit_confirm(), "C1, C2");
            assert!(!self.confirming);
            return;
        }
        assert!(self.confirming, "C1");
        let confirmed = match &last.body {
            PkiBody::PkiConf => true,
            PkiBody::Error(error) => {
                error.status_info.fail_info.unwrap_or_default().contains(FailureBit::CertConfirmed)
            }
            _ => false,
        };
        assert!(confirmed, "C8: {:?}", last.body.kind());
    }

    fn concluded(&self, last: &PkiMessage, conclusion: &Conclusion) {
        let kind = match conclusion {
            Conclusion::Revoked(revoked) => {
                assert_eq!(revoked.issuer, world().old().issuer().as_der(), "R8");
                assert_eq!(revoked.serial, world().old().serial_hex(), "R8");
                RequestKind::Rr
            }
            Conclusion::Informed(_) => RequestKind::Genm,
        };
        assert_eq!(self.kind, kind);
        assert_eq!(last.body.kind(), kind.response());
    }

    /// A certificate may have come encrypted: then its bytes stand nowhere.
    fn may_be_sealed(&self) -> bool {
        self.setup.has(Setup::RSA_AND_DECRYPTER)
    }
}

fn kind_of(message: &[u8]) -> BodyKind {
    PkiMessage::from_der(message).expect("our own messages decode").body.kind()
}

fn status_of(body: &PkiBody) -> Option<PkiStatus> {
    match body {
        PkiBody::Error(error) => Some(error.status_info.status),
        PkiBody::Ip(answer) | PkiBody::Cp(answer) | PkiBody::Kup(answer) => match answer.response.as_slice() {
            [response] => Some(response.status.status),
            _ => None,
        },
        PkiBody::Rp(answer) => match answer.status.as_slice() {
            [status] => Some(status.status),
            _ => None,
        },
        _ => None,
    }
}
