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
    codec::{CertStatus, FailureBit},
    entropy::SystemEntropy,
    error::MessageError,
    key::Signer,
    protection::AcceptedMacs,
    request::RequestKind,
    responder::{
        Answer, CertificateRequest, Client, OpenTransaction, Received, Rejected, Reply, ReplyProtection, ReplyTo,
        Request, ResponderPolicy, Trust, answer, receive,
    },
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::{Certificate, digest::sha256};
use zeroize::Zeroizing;

use super::{
    issue::{Authority, IssueError, Subject},
    ledger::{Issued, Ledger, Stats},
    options::{CaConfig, Credential},
};

/// How long a transaction is remembered after its last message.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// From so many transactions on, forgotten ones are looked for.
const MANY: usize = 4096;

/// The lab CA between two messages.
pub(super) struct Ca {
    authority: Authority,
    cmp_key: Arc<dyn Signer>,
    config: CaConfig,
    policy: ResponderPolicy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secrets: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    ledger: Ledger,
    transactions: HashMap<Vec<u8>, Transaction>,
}

/// What is remembered of a transaction.
struct Transaction {
    step: Step,
    /// The last message and its answer.
    last: Option<([u8; 32], Vec<u8>)>,
    touched: Timestamp,
}

enum Step {
    /// A request is being worked on.
    Deciding,
    AwaitCertConf(Box<OpenTransaction>),
    Done,
}

/// A refusal, as a client is told.
struct Refusal(FailureBit, String);

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
        {
            return Ok(reply.clone());
        }
        let reply = match &received.request {
            Request::Certificate(request) => return self.certificate(received, request, digest, now),
            Request::CertConf(status) => match self.confirm(received, status) {
                Ok(()) => self.reply(received, &Answer::PkiConf, now)?,
                Err(refusal) => self.reply(received, &self.error(refusal), now)?,
            },
            Request::Error { .. } => match self.abandon(received) {
                Ok(()) => self.reply(received, &Answer::PkiConf, now)?,
                Err(refusal) => self.reply(received, &self.error(refusal), now)?,
            },
            Request::Poll { .. } => {
                let refusal = Refusal(FailureBit::BadRequest, "nothing of this transaction is waiting".to_owned());
                self.reply(received, &self.error(refusal), now)?
            }
            Request::Other(kind) => {
                let refusal = Refusal(FailureBit::BadRequest, format!("this CA does not answer {kind}"));
                self.reply(received, &self.error(refusal), now)?
            }
        };
        if let Some(known) = self.state().transactions.get_mut(id) {
            known.last = Some((digest, reply.der.clone()));
            known.touched = now;
        }
        Ok(reply.der)
    }

    /// ir, cr, kur.
    fn certificate(
        &self,
        received: &Received,
        request: &CertificateRequest,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Vec<u8>, CmpError> {
        let id = received.reply_to.transaction_id.clone();
        let (kind, cert_req_id) = (request.kind, request.cert_req_id);
        if !self.state().begin(&id, now) {
            let text = "this transactionID is in use: begin again with a new one".to_owned();
            return Ok(self.reply(received, &self.error(Refusal(FailureBit::TransactionIdInUse, text)), now)?.der);
        }
        let implicit_confirm = received.implicit_confirm && self.config.implicit_confirm;
        let issued = self.may_have(received, request).and_then(|()| self.issue(request, now));
        let (answer, certificate) = match issued {
            Ok(certificate) => {
                let granted = Answer::Granted {
                    kind,
                    cert_req_id,
                    certificate: certificate.clone(),
                    with_mods: request.extensions.iter().any(|asked| asked.extn_id != super::issue::SUBJECT_ALT_NAME),
                    ca_pubs: if kind == RequestKind::Ir { vec![self.authority.root.clone()] } else { Vec::new() },
                    extra_certs: vec![self.authority.issuing.clone()],
                    implicit_confirm,
                };
                (granted, Some(certificate))
            }
            Err(Refusal(bit, text)) => {
                self.state().ledger.count_refusal(bit.name());
                (Answer::Refused { kind, cert_req_id, failure: vec![bit], text }, None)
            }
        };
        let reply = self.reply(received, &answer, now);
        let mut state = self.state();
        let Ok(reply) = reply else {
            state.transactions.remove(&id);
            return reply.map(|reply| reply.der);
        };
        let step = match &certificate {
            Some(certificate) if !implicit_confirm => {
                let issued = Some(certificate.clone());
                Step::AwaitCertConf(Box::new(OpenTransaction::new(received, kind, cert_req_id, &reply, issued)))
            }
            _ => Step::Done,
        };
        if let Some(certificate) = certificate {
            state.ledger.record(Issued {
                serial: certificate.serial_hex(),
                subject: certificate.subject().to_string(),
                kind: kind_name(kind),
                time: now,
                not_after: certificate.not_after(),
                transaction_id: hex::encode(&id),
                confirmed: implicit_confirm,
                revoked: false,
                requester: requester(&received.client),
                certificate,
            });
        }
        state.transactions.insert(id, Transaction { step, last: Some((digest, reply.der.clone())), touched: now });
        Ok(reply.der)
    }

    /// Whether this client may have such a certificate.
    fn may_have(&self, received: &Received, request: &CertificateRequest) -> Result<(), Refusal> {
        if let Some(bit) = self.config.reject {
            return Err(Refusal(bit, "this lab CA was told to refuse every request".to_owned()));
        }
        let Client::Signature { certificate } = &received.client else { return Ok(()) };
        let own = certificate.issuer() == self.authority.issuing.subject();
        match self.state().ledger.find(certificate) {
            Some(known) if known.revoked => {
                return Err(Refusal(FailureBit::CertRevoked, format!("certificate {} is revoked", known.serial)));
            }
            None if own || request.kind == RequestKind::Kur => {
                let text = format!("certificate {} was not issued to a device here", certificate.serial_hex());
                return Err(Refusal(FailureBit::BadCertId, text));
            }
            _ => {}
        }
        match &request.old_certificate {
            Some(old) if old.subject() != request.subject => Err(Refusal(
                FailureBit::BadCertTemplate,
                format!("an update keeps the subject {}: use ir or cr for another one", old.subject()),
            )),
            _ => Ok(()),
        }
    }

    fn issue(&self, request: &CertificateRequest, now: Timestamp) -> Result<Certificate, Refusal> {
        let subject = Subject {
            name: &request.subject,
            alternative_names: request.subject_alt_names.as_deref(),
            public_key: request.public_key.spki_der(),
        };
        self.authority.issue(&subject, self.config.lifetime, now).map_err(|error| {
            let bit = match &error {
                IssueError::WeakKey { .. } => FailureBit::BadAlg,
                IssueError::NoName | IssueError::Name(_) | IssueError::PublicKey(_) => FailureBit::BadCertTemplate,
                IssueError::NotCanonical { .. } | IssueError::Der(_) => FailureBit::BadDataFormat,
                _ => FailureBit::SystemFailure,
            };
            Refusal(bit, error.to_string())
        })
    }

    /// certConf.
    fn confirm(&self, received: &Received, status: &CertStatus) -> Result<(), Refusal> {
        let mut state = self.state();
        let State { ledger, transactions, .. } = &mut *state;
        let known = transactions.get_mut(&received.reply_to.transaction_id);
        let Some(Transaction { step, .. }) = known else {
            return Err(Refusal(FailureBit::BadRequest, "no such transaction is open".to_owned()));
        };
        let open = match step {
            Step::AwaitCertConf(open) => open,
            Step::Deciding => return Err(Refusal(FailureBit::BadRequest, "nothing was issued yet".to_owned())),
            Step::Done => {
                let text = "the certificate of this transaction is already confirmed, or there is none".to_owned();
                return Err(Refusal(FailureBit::CertConfirmed, text));
            }
        };
        open.check(received)?;
        let accepted = open.confirmation(status)?;
        if let Some(certificate) = &open.certificate {
            if accepted { ledger.confirm(certificate) } else { ledger.reject(certificate) }
        }
        *step = Step::Done;
        Ok(())
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

    fn reply(&self, received: &Received, what: &Answer, now: Timestamp) -> Result<Reply, CmpError> {
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
        let protection = by_secret.unwrap_or_else(|| ReplyProtection::Signature {
            signer: self.cmp_key.clone(),
            certificate: self.authority.cmp_signer.clone(),
            chain: vec![self.authority.issuing.clone()],
        });
        answer(to, what, &protection, &self.authority.issuing.subject(), &mut SystemEntropy, now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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

const fn kind_name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Ir => "ir",
        RequestKind::Cr => "cr",
        RequestKind::Kur => "kur",
        RequestKind::P10cr => "p10cr",
        RequestKind::Rr => "rr",
        RequestKind::Genm => "genm",
    }
}

fn requester(client: &Client) -> String {
    match client {
        Client::Mac { reference, .. } => String::from_utf8_lossy(reference).escape_debug().to_string(),
        Client::Signature { certificate } => certificate.subject().to_string(),
    }
}
