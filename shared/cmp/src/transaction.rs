//! The client's transaction, sans-io: bytes and time go in, bytes and waits come out.
//!
//! The shell around it posts what [`Step::Send`] holds, waits what [`Step::Wait`] says, and hands the result to
//! [`Transaction::handle`]. There is no clock, socket or random number generator in here. Nothing of a message is used
//! before its protection is verified over the bytes received (P10, E5).

mod anew;
mod confirm;
mod others;
mod prepare;
mod record;
mod respond;
mod state;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trustfleet_pki::{certificate::Certificate, name::Name};

pub use self::record::TransactionRecord;
use self::{
    prepare::prepare,
    record::{Bytes, Context, Protection, VERSION},
    state::{Awaited, Pending, Sent, State, Verdict},
};
use crate::{
    check,
    codec::{PkiBody, PkiMessage, RawSequence, header::CMP2000},
    entropy::{Entropy, fresh},
    error::{CmpError, ConfigurationError, Ended, LocalError, MessageError, UnfitCertificate},
    key::Signer,
    outcome::{Conclusion, Enrolled, Exchanged, Warning},
    peer::Acceptance,
    protection::{Sealer, mac::PbmKey},
    request::{self, Credentials, EnrollRequest, HeaderFields, Request, RequestKind},
};

/// Most entries of a transcript; a server that delays for days would fill the disk otherwise.
const MAX_TRANSCRIPT: usize = 200;

/// Seconds until the next pollReq when the server answers one by `waiting` instead of saying when to come back.
const POLL_PAUSE: u64 = 10;

/// One request from the first message to its end: for a certificate, up to the confirmation.
#[derive(Debug)]
pub struct Transaction {
    context: Context,
    credentials: Credentials,
    sealer: Sealer,
    acceptance: Acceptance,
    state: State,
    /// The last message may have been posted more than once.
    repeated: bool,
}

/// What happens to a transaction.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The content of an HTTP answer, of whatever status (T2).
    Response(&'a [u8]),
    /// The time of [`Step::Wait`] is over; or no answer came and the same bytes shall be sent again (S37, T5).
    TimerFired,
    /// An operator stops it (S37).
    Stop,
}

/// What to do next.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Keep [`Transaction::record`], post the message, hand in its answer.
    Send {
        /// Goes on with the answer.
        transaction: Box<Transaction>,
        /// DER, to be posted as application/pkixcmp (T1).
        message: Vec<u8>,
    },
    /// Keep [`Transaction::record`], wait, hand in [`Input::TimerFired`].
    Wait {
        /// Goes on after the wait.
        transaction: Box<Transaction>,
        /// How long.
        seconds: u64,
    },
    /// A certificate was issued, fits, and is confirmed.
    Done(Box<Enrolled>),
    /// A revocation was done, or a question is answered.
    Concluded(Box<Conclusion>),
    /// It ended without what was asked for.
    Failed {
        /// Why.
        error: CmpError,
        /// An error message for the server, to be posted with best effort (E1, E5).
        tell_peer: Option<Vec<u8>>,
        /// A certificate that may be valid at the CA although the transaction failed: keep it, and revoke it there.
        orphan: Option<Certificate>,
        /// Which messages went to and fro.
        transcript: Vec<Exchanged>,
    },
}

impl Transaction {
    /// Starts a transaction: the bytes returned are to be posted.
    ///
    /// `key` is the key to be certified; its proof of possession is made here.
    ///
    /// # Errors
    /// [`CmpError::Configuration`] names what is missing (nothing was made), [`CmpError::Local`] what failed here.
    pub fn start(
        request: EnrollRequest,
        credentials: Credentials,
        acceptance: Acceptance,
        key: Arc<dyn Signer>,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(Self, Vec<u8>), CmpError> {
        Self::begin(Request::Enroll(Box::new(request), key), credentials, acceptance, entropy, now)
    }

    /// Starts a transaction about anything: the bytes returned are to be posted.
    ///
    /// # Errors
    /// As [`Transaction::start`].
    pub fn begin(
        request: Request,
        credentials: Credentials,
        acceptance: Acceptance,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(Self, Vec<u8>), CmpError> {
        let request = prepare(request, &credentials, now)?;
        let protection = match &credentials {
            Credentials::Mac { reference, mac, .. } => Protection::Mac {
                reference: Bytes::from(reference.as_slice()),
                policy: *mac,
                salt: Bytes::from(fresh(entropy, "a salt")?),
            },
            Credentials::Signature { certificate, .. } => {
                Protection::Signature { certificate: Bytes::from(certificate.as_der()) }
            }
        };
        let context = Context {
            kind: request.kind,
            transaction_id: Bytes::from(fresh(entropy, "a transactionID")?),
            sender: Bytes::from(credentials.sender(request.sender.as_ref()).as_der()),
            recipient: Bytes::from(request.recipient.as_der()),
            subject: request.subject,
            sans: request.sans,
            public_key: request.public_key,
            implicit_confirm: request.implicit_confirm,
            cert_profile: request.cert_profile,
            pvno: CMP2000,
            begun_anew: false,
            topic: request.topic,
            revokes: request.revokes,
            protection,
            started_at: now,
            peer_certificates: Vec::new(),
            warnings: if credentials.secret_is_short() { vec![Warning::ShortSecret] } else { Vec::new() },
            transcript: Vec::new(),
        };
        let sealer = sealer(&context.protection, &credentials)?;
        let extra_certs = request.extra_certs.iter().map(|certificate| RawSequence::from_tlv(certificate.as_der()));
        let extra_certs = extra_certs.collect::<der::Result<Vec<_>>>().map_err(LocalError::encoding("extraCerts"))?;
        let kind = request.body.kind();
        // no answer yet: the state is the one after the message that is made from it
        let sent = Sent { kind, nonce: Bytes::default(), bytes: Bytes::default() };
        let state = State::CertRep { sent };
        let mut transaction = Self { context, credentials, sealer, acceptance, state, repeated: false };
        let (nonce, bytes) = transaction.first(request.body, &extra_certs, entropy, now)?;
        let sent = Sent { kind, nonce: Bytes::from(nonce), bytes: Bytes::from(bytes.clone()) };
        transaction.state = State::CertRep { sent };
        transaction.note(true, Some(kind), bytes.len());
        Ok((transaction, bytes))
    }

    /// Goes on with a kept transaction: the first step sends the last message's bytes again, or waits on (W6).
    ///
    /// After the total time nothing is asked for any more (T5); only a certConf is still repeated, because the certificate
    /// that it is about is here.
    ///
    /// # Errors
    /// [`ConfigurationError::RecordMismatch`] when the credentials or the key are others than at the start.
    pub fn resume(
        record: TransactionRecord,
        credentials: Credentials,
        acceptance: Acceptance,
        key: &dyn Signer,
        now: Timestamp,
    ) -> Result<Step, CmpError> {
        if record.context.public_key.0 != key.public_key_der() {
            return Err(ConfigurationError::RecordMismatch { what: "key" }.into());
        }
        Self::resume_any(record, credentials, acceptance, now)
    }

    /// As [`Transaction::resume`], for a request that certifies no key of ours: p10cr, rr, genm.
    ///
    /// # Errors
    /// As [`Transaction::resume`]; also when the record is of another kind.
    pub fn resume_keyless(
        record: TransactionRecord,
        credentials: Credentials,
        acceptance: Acceptance,
        now: Timestamp,
    ) -> Result<Step, CmpError> {
        if !matches!(record.context.kind, RequestKind::P10cr | RequestKind::Rr | RequestKind::Genm) {
            return Err(ConfigurationError::RecordMismatch { what: "key" }.into());
        }
        Self::resume_any(record, credentials, acceptance, now)
    }

    fn resume_any(
        record: TransactionRecord,
        credentials: Credentials,
        acceptance: Acceptance,
        now: Timestamp,
    ) -> Result<Step, CmpError> {
        let mismatch = |what| CmpError::from(ConfigurationError::RecordMismatch { what });
        if record.version != VERSION {
            return Err(mismatch("version of the record"));
        }
        match (&record.context.protection, &credentials) {
            (Protection::Mac { reference: kept, .. }, Credentials::Mac { reference, .. }) if kept.0 == *reference => {}
            (Protection::Signature { certificate: kept }, Credentials::Signature { certificate, .. })
                if kept.0 == certificate.as_der() => {}
            _ => return Err(mismatch("credentials")),
        }
        let sealer = sealer(&record.context.protection, &credentials)?;
        let TransactionRecord { context, state, .. } = record;
        let mut transaction = Self { context, credentials, sealer, acceptance, state, repeated: true };
        transaction.follow_clock(now);
        if transaction.seconds_left(now) == 0
            && matches!(transaction.state, State::CertRep { .. } | State::PollRep { .. })
        {
            let error = Ended::TotalTime { seconds: transaction.acceptance.total_seconds }.into();
            let orphan = transaction.state_certificate();
            return Ok(Step::Failed { error, tell_peer: None, orphan, transcript: transaction.context.transcript });
        }
        Ok(transaction.on_timer_or_repeat(now))
    }

    /// Everything needed to go on after a restart, except the secret and the private keys.
    pub fn record(&self) -> TransactionRecord {
        TransactionRecord { version: VERSION, context: self.context.clone(), state: self.state.clone() }
    }

    /// The transactionID in hexadecimal.
    pub fn transaction_id(&self) -> String {
        hex::encode(&self.context.transaction_id.0)
    }

    /// What it waits for, in words (S50).
    pub const fn awaits(&self) -> &'static str {
        self.state.name()
    }

    /// Takes what happened and says what to do next.
    pub fn handle(mut self, input: Input<'_>, entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        self.follow_clock(now);
        match input {
            Input::Stop => self.fail(Ended::Stopped.into(), None, entropy, now),
            Input::Response(bytes) => self.on_response(bytes, entropy, now),
            Input::TimerFired => {
                let seconds = self.acceptance.total_seconds;
                if self.seconds_left(now) == 0 {
                    return self.fail(Ended::TotalTime { seconds }.into(), None, entropy, now);
                }
                match &self.state {
                    State::PollTime { pending, not_before, peer_nonce } if *not_before <= now => {
                        let (pending, peer_nonce) = (pending.clone(), peer_nonce.clone());
                        self.poll(pending, &peer_nonce.0, entropy, now)
                    }
                    _ => self.on_timer_or_repeat(now),
                }
            }
        }
    }

    /// Waiting goes on waiting; everything else sends its last bytes again.
    fn on_timer_or_repeat(mut self, now: Timestamp) -> Step {
        self.repeated = true;
        match &self.state {
            State::PollTime { not_before, .. } => {
                let seconds = seconds_between(now, *not_before);
                Step::Wait { transaction: Box::new(self), seconds }
            }
            State::CertRep { sent } | State::PkiConf { sent, .. } | State::PollRep { sent, .. } => {
                let message = sent.bytes.0.clone();
                Step::Send { transaction: Box::new(self), message }
            }
        }
    }

    fn on_response(mut self, bytes: &[u8], entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        if let State::PollTime { .. } = self.state {
            let error = ConfigurationError::UnexpectedInput { state: self.state.name() };
            return self.fail(error.into(), None, entropy, now);
        }
        let message = match PkiMessage::from_der(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.note(false, None, bytes.len());
                return self.fail(MessageError::from(error).into(), None, entropy, now);
            }
        };
        self.note(false, Some(message.body.kind()), bytes.len());
        let proof = match self.vet(&message, now) {
            Ok(proof) => proof,
            Err(error) => return self.refuse(&message, error, entropy, now),
        };
        let peer_nonce =
            message.header.sender_nonce.as_ref().map(|nonce| nonce.as_bytes().to_vec()).unwrap_or_default();
        self.respond(message, &proof, peer_nonce, entropy, now)
    }

    /// Sends the next message; `next` makes the state out of what was sent.
    fn send(
        mut self,
        body: PkiBody,
        pvno: u64,
        peer_nonce: &[u8],
        next: impl FnOnce(Sent) -> State,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Step {
        let kind = body.kind();
        match self.sealed(body, pvno, peer_nonce, entropy, now) {
            Ok((nonce, bytes)) => {
                self.note(true, Some(kind), bytes.len());
                let sent = Sent { kind, nonce: Bytes::from(nonce), bytes: Bytes::from(bytes.clone()) };
                self.state = next(sent);
                Step::Send { transaction: Box::new(self), message: bytes }
            }
            Err(error) => self.fail(error.into(), None, entropy, now),
        }
    }

    fn sealed(
        &self,
        body: PkiBody,
        pvno: u64,
        peer_nonce: &[u8],
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Vec<u8>), LocalError> {
        let nonce = fresh(entropy, "a nonce")?;
        let fields = HeaderFields {
            sender: &self.context.sender.0,
            recipient: &self.context.recipient.0,
            transaction_id: &self.context.transaction_id.0,
            sender_nonce: &nonce,
            recip_nonce: Some(peer_nonce),
            implicit_confirm: false,
            now,
        };
        let pvno = pvno.max(self.context.pvno);
        let bytes = self.sealer.seal(request::header(&fields, pvno)?, body, &[])?;
        Ok((nonce, bytes))
    }

    /// W1, W2: the answer is delayed. The first pollReq goes out at once; a server that answers a pollReq by `waiting`
    /// again is not asked in a tight circle.
    fn delayed(self, pending: Pending, peer_nonce: Vec<u8>, entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        if matches!(self.state, State::PollRep { .. }) {
            return self.wait(pending, POLL_PAUSE, peer_nonce, now);
        }
        self.poll(pending, &peer_nonce, entropy, now)
    }

    /// Asks whether the delayed answer is ready.
    fn poll(self, pending: Pending, peer_nonce: &[u8], entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        let body = request::poll_req(pending.cert_req_id);
        self.send(body, CMP2000, peer_nonce, |sent| State::PollRep { sent, pending }, entropy, now)
    }

    /// W3, W4: waits as long as the server says, but not beyond the end of the transaction.
    fn wait(mut self, pending: Pending, check_after: u64, peer_nonce: Vec<u8>, now: Timestamp) -> Step {
        let seconds = check_after.max(1).min(self.seconds_left(now).max(1));
        let until = i64::try_from(seconds).ok().map(SignedDuration::from_secs);
        let not_before = until.and_then(|wait| now.checked_add(wait).ok()).unwrap_or(now);
        self.state = State::PollTime { pending, not_before, peer_nonce: Bytes::from(peer_nonce) };
        Step::Wait { transaction: Box::new(self), seconds }
    }

    /// Ends the transaction; tells the server unless it was the server that ended it (E2, E5).
    fn fail(self, error: CmpError, peer_nonce: Option<&[u8]>, entropy: &mut dyn Entropy, now: Timestamp) -> Step {
        let silent = matches!(error, CmpError::Refused(_) | CmpError::Local(_));
        let error = self.rather_the_rejection(error);
        // certConf said so already
        let told = matches!(error, CmpError::Certificate(_)) && self.state_certificate().is_some();
        let tell_peer = if silent || told {
            None
        } else {
            let body = request::error(error.failure_bit(), error.code());
            let peer_nonce = peer_nonce.map_or_else(|| self.last_peer_nonce(), <[u8]>::to_vec);
            self.sealed(body, CMP2000, &peer_nonce, entropy, now).ok().map(|(_, bytes)| bytes)
        };
        let orphan = match &error {
            CmpError::Certificate(unfit) => Some(unfit.certificate.clone()),
            _ => self.state_certificate(),
        };
        Step::Failed { error, tell_peer, orphan, transcript: self.context.transcript }
    }

    /// C7: whatever the server answers to a rejecting certConf does not hide why the certificate was rejected.
    fn rather_the_rejection(&self, error: CmpError) -> CmpError {
        let (CmpError::Message(_) | CmpError::Refused(_), Some(Verdict::Reject { reasons, .. }), Some(certificate)) =
            (&error, self.verdict(), self.state_certificate())
        else {
            return error;
        };
        let reasons = reasons.clone();
        CmpError::Certificate(Box::new(UnfitCertificate { reasons, certificate, rejection_confirmed: false }))
    }

    const fn verdict(&self) -> Option<&Verdict> {
        match &self.state {
            State::PkiConf { verdict, .. } => Some(verdict),
            State::PollTime { pending, .. } | State::PollRep { pending, .. } => match &pending.awaited {
                Awaited::PkiConf { verdict } => Some(verdict),
                Awaited::CertRep => None,
            },
            State::CertRep { .. } => None,
        }
    }

    /// The certificate that is issued but not confirmed yet.
    fn state_certificate(&self) -> Option<Certificate> {
        self.verdict().and_then(|verdict| Certificate::from_der(&verdict.issued().certificate.0).ok())
    }

    /// senderNonce of the last answer that was taken; empty before the first one.
    fn last_peer_nonce(&self) -> Vec<u8> {
        let sent = match &self.state {
            State::PollTime { peer_nonce, .. } => return peer_nonce.0.clone(),
            State::CertRep { sent } | State::PkiConf { sent, .. } | State::PollRep { sent, .. } => sent,
        };
        let answered = PkiMessage::from_der(&sent.bytes.0).ok().and_then(|message| message.header.recip_nonce);
        answered.map(|nonce| nonce.as_bytes().to_vec()).unwrap_or_default()
    }

    fn note(&mut self, sent: bool, kind: Option<crate::codec::BodyKind>, bytes: usize) {
        if self.context.transcript.len() < MAX_TRANSCRIPT {
            self.context.transcript.push(Exchanged { sent, kind, bytes });
        }
    }

    /// A device's clock that was ahead at the start and is right now must not stretch a wait, or the whole, by the
    /// difference: it is taken as if the transaction had begun at this moment.
    fn follow_clock(&mut self, now: Timestamp) {
        let back = self.context.started_at.duration_since(now);
        if back.is_positive() {
            self.context.started_at = now;
            if let State::PollTime { not_before, .. } = &mut self.state {
                *not_before = not_before.checked_sub(back).unwrap_or(now);
            }
        }
    }

    fn seconds_left(&self, now: Timestamp) -> u64 {
        let passed = u64::try_from(now.duration_since(self.context.started_at).as_secs()).unwrap_or(0);
        self.acceptance.total_seconds.saturating_sub(passed)
    }

    fn recipient(&self) -> Name {
        Name::from_der(&self.context.recipient.0).unwrap_or_else(|_| Name::null())
    }

    /// V1 to V6, V2, V3: is it authentic, by somebody who may answer, and an answer to our last message?
    fn vet(&self, message: &PkiMessage, now: Timestamp) -> Result<crate::peer::Proof, MessageError> {
        let (sent, original) = match &self.state {
            State::CertRep { sent } | State::PkiConf { sent, .. } => (sent, None),
            State::PollRep { sent, pending } => (sent, Some(&pending.original_nonce)),
            State::PollTime { .. } => return Err(check::unexpected(message, &[])),
        };
        check::version(&message.header)?;
        let (recipient, kept) = (self.recipient(), &self.context.peer_certificates);
        let proof = crate::peer::authenticate(message, &self.credentials, &self.acceptance, &recipient, kept, now)?;
        check::transaction_id(&message.header, &self.context.transaction_id.0)?;
        let mut nonces = vec![sent.nonce.0.as_slice()];
        if !matches!(message.body, PkiBody::PollRep(_)) {
            nonces.extend(original.map(|nonce| nonce.0.as_slice()));
        }
        check::recip_nonce(&message.header, &nonces)?;
        check::sender_nonce(&message.header)?;
        Ok(proof)
    }
}

fn sealer(protection: &Protection, credentials: &Credentials) -> Result<Sealer, CmpError> {
    match (credentials, protection) {
        (Credentials::Mac { reference, secret, .. }, Protection::Mac { policy, salt, .. }) => {
            let key = PbmKey::derive(policy, secret, &salt.0)?;
            Ok(Sealer::Mac { key: Arc::new(key), reference: reference.clone() })
        }
        (Credentials::Signature { signer, certificate, chain }, Protection::Signature { .. }) => {
            Ok(Sealer::Signature { signer: Arc::clone(signer), certificate: certificate.clone(), chain: chain.clone() })
        }
        _ => Err(ConfigurationError::RecordMismatch { what: "credentials" }.into()),
    }
}

/// Two DER names that say the same.
fn same_name(one: &[u8], other: &[u8]) -> bool {
    match (Name::from_der(one), Name::from_der(other)) {
        (Ok(one), Ok(other)) => one.says_the_same_as(&other),
        _ => false,
    }
}

/// Whole seconds until `later`, rounded up, at least 1.
fn seconds_between(now: Timestamp, later: Timestamp) -> u64 {
    let left = later.duration_since(now);
    let seconds = left.as_secs() + i64::from(left.subsec_nanos() > 0);
    u64::try_from(seconds).unwrap_or(0).max(1)
}
