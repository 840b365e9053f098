//! One CMP message in, one answer out: what the lab CA decides.
//!
//! Reading, verifying and protecting messages is the responder's (`trustfleet_cmp::responder`). Here: who may have
//! which certificate, and what is remembered of a transaction until it is confirmed. The same bytes again get the same
//! answer again, so a client whose answer was lost can repeat its request.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::{
    CmpError,
    codec::{CertStatus, FailureBit, PkiHeader},
    entropy::SystemEntropy,
    error::MessageError,
    key::Signer,
    protection::AcceptedMacs,
    request::RequestKind,
    responder::{
        Answer, Client, OpenTransaction, Received, Rejected, Reply, ReplyProtection, ReplyTo, Request, ResponderPolicy,
        Trust, answer_shaped, receive,
    },
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::{Certificate, digest::sha256};
use zeroize::Zeroizing;

use super::{
    delays::{Approval, Confirmed, Pending, Polled, Waiting},
    faults::{self, Fault},
    issue::Authority,
    ledger::{Issued, Ledger, Stats},
    options::{CaConfig, Credential},
};

/// How long a transaction is remembered after its last message.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// From so many transactions on, forgotten ones are looked for.
const MANY: usize = 4096;

/// The lab CA between two messages.
pub(super) struct Ca {
    pub(super) authority: Authority,
    cmp_key: Arc<dyn Signer>,
    pub(super) config: CaConfig,
    policy: ResponderPolicy,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    secrets: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    pub(super) ledger: Ledger,
    pub(super) transactions: HashMap<Vec<u8>, Transaction>,
    /// Certificates (serial number) with the transaction of their last kur.
    pub(super) updates: HashMap<String, Vec<u8>>,
}

/// What is remembered of a transaction.
pub(super) struct Transaction {
    pub(super) step: Step,
    /// The last message and its answer.
    pub(super) last: Option<([u8; 32], Vec<u8>)>,
    pub(super) touched: Timestamp,
}

pub(super) enum Step {
    /// A request is being worked on.
    Deciding,
    /// The client polls.
    Waiting(Box<Waiting>),
    AwaitCertConf(Box<OpenTransaction>),
    Done,
}

/// A refusal, as a client is told.
pub(super) struct Refusal(pub(super) FailureBit, pub(super) String);

/// What a request is about: its kind and certReqId.
pub(super) const fn about(request: &Request) -> (RequestKind, i64) {
    match request {
        Request::Certificate(request) => (request.kind, request.cert_req_id),
        Request::Revoke(_) => (RequestKind::Rr, -1),
        _ => (RequestKind::Genm, -1),
    }
}

impl Ca {
    pub(super) fn new(authority: Authority, config: CaConfig) -> Self {
        let secrets = config
            .secrets
            .iter()
            .map(|known| (known.reference.clone().into_bytes(), Zeroizing::new(known.secret.clone().into_bytes())))
            .collect();
        let macs = if config.allow_sha1 { AcceptedMacs::with_sha1() } else { AcceptedMacs::strong() };
        Self {
            cmp_key: authority.cmp_signer_key.clone(),
            authority,
            config,
            policy: ResponderPolicy { macs, ..ResponderPolicy::default() },
            state: Mutex::new(State { secrets, ..State::default() }),
        }
    }

    /// Answers one message.
    pub(super) fn answer(&self, message: &[u8]) -> Result<Vec<u8>, CmpError> {
        let now = SystemClock.now();
        self.state().ledger.stats.messages += 1;
        match receive(message, self, &self.policy, now) {
            Ok(received) => self.decide(&received, sha256(message), now),
            Err(rejected) => self.refuse(&rejected, now),
        }
    }

    pub(super) fn add_secret(&self, known: Credential) {
        self.state().secrets.insert(known.reference.into_bytes(), Zeroizing::new(known.secret.into_bytes()));
    }

    pub(super) fn revoke(&self, serial: &str) -> bool {
        self.state().ledger.revoke(serial)
    }

    pub(super) fn issued(&self) -> Vec<Issued> {
        self.state().ledger.issued().to_vec()
    }

    pub(super) fn stats(&self) -> Stats {
        self.state().ledger.stats.clone()
    }

    fn decide(&self, received: &Received, digest: [u8; 32], now: Timestamp) -> Result<Vec<u8>, CmpError> {
        if let Some(body) = received.reply_to.body {
            self.state().ledger.count_request(body.name());
        }
        let id = &received.reply_to.transaction_id;
        if let Some((last, reply)) = self.state().transactions.get(id).and_then(|known| known.last.as_ref())
            && *last == digest
            && !self.config.has(Fault::NoRepetition)
        {
            return Ok(reply.clone());
        }
        let answer = match &received.request {
            Request::Certificate(_) | Request::Revoke(_) | Request::Info(_) => {
                return self.first(received, digest, now);
            }
            Request::CertConf(status) => match self.confirm(received, status) {
                Ok(Confirmed::Now) => Answer::PkiConf,
                Ok(Confirmed::Later(pending)) => return self.wait(received, *pending, digest, now),
                Err(refusal) => self.error(refusal),
            },
            Request::Poll { cert_req_id } => match self.polled(received, *cert_req_id) {
                Ok(Polled::NotYet) => Answer::PollRep {
                    cert_req_id: *cert_req_id,
                    check_after: self.check_after(),
                    reason: "the lab CA takes its time".to_owned(),
                },
                Ok(Polled::Ready(pending)) => return self.conclude(&pending, received, digest, now),
                Err(refusal) => self.error(refusal),
            },
            Request::Error { .. } => match self.abandon(received) {
                Ok(()) => Answer::PkiConf,
                Err(refusal) => self.error(refusal),
            },
            Request::Other(kind) => {
                self.error(Refusal(FailureBit::BadRequest, format!("this CA does not answer {kind}")))
            }
        };
        let reply = self.reply(received, &answer, now)?;
        if let Some(known) = self.state().transactions.get_mut(id) {
            known.last = Some((digest, reply.der.clone()));
            known.touched = now;
            if let Step::Waiting(pending) = &mut known.step {
                pending.open.answered(&reply);
            }
        }
        Ok(reply.der)
    }

    /// ir, cr, kur, p10cr, rr, genm: the begin of a transaction.
    fn first(&self, received: &Received, digest: [u8; 32], now: Timestamp) -> Result<Vec<u8>, CmpError> {
        if !self.state().begin(&received.reply_to.transaction_id, now) {
            let text = "this transactionID is in use: begin again with a new one".to_owned();
            return Ok(self.reply(received, &self.error(Refusal(FailureBit::TransactionIdInUse, text)), now)?.der);
        }
        let question = matches!(received.request, Request::Info(_));
        let approval = (self.config.approval && !question).then_some(Approval::Awaited);
        let pending = Pending { received: received.clone(), polls: self.config.poll_count, approval, confirms: None };
        let never = self.config.has(Fault::WaitingForEver) || self.config.has(Fault::AbsurdCheckAfter);
        if pending.polls > 0 || pending.approval.is_some() || never {
            return self.wait(received, pending, digest, now);
        }
        self.conclude(&pending, received, digest, now)
    }

    /// The final answer to what was asked first, in answer to `received`.
    fn conclude(
        &self,
        pending: &Pending,
        received: &Received,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Vec<u8>, CmpError> {
        let id = received.reply_to.transaction_id.clone();
        let (kind, cert_req_id) = about(&pending.received.request);
        let (answer, certificate) = if let Some((certificate, accepted)) = &pending.confirms {
            self.confirmed(certificate, *accepted);
            (Answer::PkiConf, None)
        } else if pending.approval == Some(Approval::Denied) {
            let bit = FailureBit::NotAuthorized;
            self.state().ledger.count_refusal(bit.name());
            let text = "this request was not approved".to_owned();
            (Answer::Refused { kind, cert_req_id, failure: vec![bit], text }, None)
        } else {
            self.outcome(&pending.received, now)
        };
        let reply = self.reply(received, &answer, now);
        let mut state = self.state();
        let Ok(reply) = reply else {
            state.transactions.remove(&id);
            return reply.map(|reply| reply.der);
        };
        let implicit = matches!(answer, Answer::Granted { implicit_confirm: true, .. });
        let step = match certificate {
            Some(certificate) if !implicit => {
                let open = OpenTransaction::new(received, kind, cert_req_id, &reply, Some(certificate));
                Step::AwaitCertConf(Box::new(open))
            }
            _ => Step::Done,
        };
        state.transactions.insert(id, Transaction { step, last: Some((digest, reply.der.clone())), touched: now });
        Ok(reply.der)
    }

    /// certConf.
    fn confirm(&self, received: &Received, status: &CertStatus) -> Result<Confirmed, Refusal> {
        let (certificate, accepted) = {
            let mut state = self.state();
            let known = state.transactions.get_mut(&received.reply_to.transaction_id);
            let Some(Transaction { step, .. }) = known else {
                return Err(Refusal(FailureBit::BadRequest, "no such transaction is open".to_owned()));
            };
            let open = match step {
                Step::AwaitCertConf(open) => open,
                Step::Deciding | Step::Waiting(_) => {
                    return Err(Refusal(FailureBit::BadRequest, "nothing was issued yet".to_owned()));
                }
                Step::Done => {
                    let text = "the certificate of this transaction is already confirmed, or there is none".to_owned();
                    return Err(Refusal(FailureBit::CertConfirmed, text));
                }
            };
            open.check(received)?;
            let accepted = open.confirmation(status)?;
            let certificate = open.certificate.clone();
            if !self.config.poll_certconf {
                *step = Step::Done;
            }
            (certificate, accepted)
        };
        let Some(certificate) = certificate else { return Ok(Confirmed::Now) };
        if self.config.poll_certconf {
            let (polls, confirms) = (self.config.poll_count, Some((certificate, accepted)));
            let pending = Pending { received: received.clone(), polls, approval: None, confirms };
            return Ok(Confirmed::Later(Box::new(pending)));
        }
        self.confirmed(&certificate, accepted);
        Ok(Confirmed::Now)
    }

    fn confirmed(&self, certificate: &Certificate, accepted: bool) {
        let ledger = &mut self.state().ledger;
        if accepted { ledger.confirm(certificate) } else { ledger.reject(certificate) }
    }

    /// The client ends its transaction: what it has not confirmed is not valid any more.
    fn abandon(&self, received: &Received) -> Result<(), Refusal> {
        let mut state = self.state();
        let State { ledger, transactions, .. } = &mut *state;
        if let Some(Transaction { step, .. }) = transactions.get_mut(&received.reply_to.transaction_id) {
            if let Step::AwaitCertConf(open) = step {
                match open.check(received) {
                    // whoever gives up between two messages has no nonce to answer; the credentials are the same
                    Err(MessageError::RecipNonce { .. }) if received.recip_nonce.is_empty() => {}
                    other => other?,
                }
                if let Some(certificate) = &open.certificate {
                    ledger.revoke(&certificate.serial_hex());
                }
            }
            if let Step::Waiting(waiting) = step {
                waiting.open.check(received)?;
                if let Some((certificate, _)) = &waiting.pending.confirms {
                    ledger.revoke(&certificate.serial_hex());
                }
            }
            *step = Step::Done;
        }
        Ok(())
    }

    /// The answer to a message that is malformed, not authentic, or asks in a wrong way.
    fn refuse(&self, rejected: &Rejected, now: Timestamp) -> Result<Vec<u8>, CmpError> {
        let bit = rejected.error.failure_bit();
        {
            let ledger = &mut self.state().ledger;
            match rejected.reply_to.body {
                Some(body) => ledger.count_request(body.name()),
                None => ledger.stats.unreadable += 1,
            }
            ledger.count_refusal(bit.name());
        }
        let reply_to = &rejected.reply_to;
        Ok(self.protect(reply_to, rejected.client.as_ref(), &Answer::error_for(rejected), now)?.der)
    }

    fn error(&self, Refusal(bit, text): Refusal) -> Answer {
        self.state().ledger.count_refusal(bit.name());
        Answer::Error { failure: vec![bit], text }
    }

    pub(super) fn reply(&self, received: &Received, what: &Answer, now: Timestamp) -> Result<Reply, CmpError> {
        self.protect(&received.reply_to, Some(&received.client), what, now)
    }

    /// As the client did it: by its secret, or by a signature; a signature also for whoever is not authenticated.
    fn protect(&self, to: &ReplyTo, client: Option<&Client>, what: &Answer, now: Timestamp) -> Result<Reply, CmpError> {
        let by_secret = match client {
            Some(Client::Mac { reference, mac }) => self.secret(reference).map(|secret| ReplyProtection::Mac {
                reference: reference.clone(),
                secret,
                mac: *mac,
            }),
            _ => None,
        };
        let has = |fault| self.config.has(fault);
        let chain = vec![self.authority.issuing.clone()];
        let protection = if has(Fault::Unprotected) {
            ReplyProtection::Nothing
        } else if has(Fault::SiblingSigner) {
            let certificate = self.authority.sibling.clone();
            ReplyProtection::Signature { signer: self.authority.sibling_key.clone(), certificate, chain }
        } else {
            let certificate = self.authority.cmp_signer.clone();
            let signed = || ReplyProtection::Signature { signer: self.cmp_key.clone(), certificate, chain };
            by_secret.unwrap_or_else(signed)
        };
        let mut to = to.clone();
        let twisted = faults::twist(has, &mut to, what);
        let (what, sender) = (twisted.as_ref().unwrap_or(what), self.authority.issuing.subject());
        let shape = |header: &mut PkiHeader| faults::shape(has, header);
        let reply = answer_shaped(&to, what, &protection, &sender, &shape, &mut SystemEntropy, now)?;
        Ok(Reply { der: faults::spoil(has, reply.der), ..reply })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Is there another kur for this certificate that is not finished?
    pub(super) fn is_being_updated(&self, serial: &str, transaction_id: &[u8]) -> bool {
        let other = self.updates.get(serial).filter(|other| *other != transaction_id);
        let other = other.and_then(|id| self.transactions.get(id));
        other.is_some_and(|other| !matches!(other.step, Step::Done))
    }

    /// Opens a transaction; false when its id is taken.
    fn begin(&mut self, id: &[u8], now: Timestamp) -> bool {
        if self.transactions.len() >= MANY {
            self.transactions.retain(|_, known| now.duration_since(known.touched) < REMEMBERED);
        }
        if self.transactions.contains_key(id) {
            return false;
        }
        self.transactions.insert(id.to_vec(), Transaction { step: Step::Deciding, last: None, touched: now });
        true
    }
}

impl Trust for Ca {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.state().secrets.get(reference).cloned()
    }

    fn anchors(&self) -> Vec<Certificate> {
        let mut anchors = vec![self.authority.issuing.clone()];
        anchors.extend(self.config.trusted.iter().cloned());
        anchors
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self(error.failure_bit(), error.to_string())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("issuing", &self.authority.issuing).finish_non_exhaustive()
    }
}
