//! The whole handling of answers: a live transaction of any kind against a server that does what the input says.
//!
//! The server may hold the right secret or key and say anything, or hold none of them and say it all the same; in between
//! time passes, the device restarts, an operator stops it. After every step the rules are asserted.

mod moves;
mod rules;
mod server;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::{
    Acceptance, Credentials, CrlOf, EnrollRequest, InfoRequest, Input, Modifications, P10Request, Question, Request,
    RequestKind, RevocationReason, RevokeRequest, Signer, SoftwareKey, Step, Transaction, TransactionRecord,
    codec::oids, protection::Hash,
};
use trustfleet_pki::San;

use self::{
    moves::read,
    rules::{Before, Rules},
    server::Server,
};
pub(crate) use self::{
    moves::{Content, Dress, HeaderChange, Move, Setup, write},
    server::KINDS,
};
use crate::world::{Counted, begin, ca_name, mac, pbm, pbmac1, weak, world};

/// How a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The moves ended first; what the transaction waits for.
    Open(&'static str),
    /// A certificate was issued.
    Enrolled,
    /// A revocation was done, or a question answered.
    Concluded,
    /// It failed, with this code.
    Failed(&'static str),
}

/// Plays the run that the input is.
pub fn answers(input: &[u8]) {
    play(input);
}

/// Plays the run, and says how it ended.
pub fn play(input: &[u8]) -> Ending {
    let (setup, moves) = read(input);
    let mut run = match Run::start(setup) {
        Ok(run) => run,
        Err(ending) => return ending,
    };
    for step in moves {
        run = match run.go(step) {
            Ok(run) => run,
            Err(ending) => return ending,
        };
    }
    Ending::Open(run.transaction.awaits())
}

/// The records that are kept during the run, for seeds.
pub(crate) fn records_of(input: &[u8]) -> Vec<String> {
    let (setup, moves) = read(input);
    let mut kept = vec![];
    let mut run = Run::start(setup).ok();
    for step in moves {
        kept.extend(run.as_ref().and_then(|run| serde_json::to_string(&run.transaction.record()).ok()));
        run = run.and_then(|run| run.go(step).ok());
    }
    kept
}

/// What the client was told to do last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    Send(Vec<u8>),
    Wait(u64),
}

struct Run {
    now: Timestamp,
    entropy: Counted,
    credentials: Credentials,
    acceptance: Acceptance,
    key: Arc<SoftwareKey>,
    transaction: Box<Transaction>,
    told: Told,
    server: Server,
    rules: Rules,
}

impl Run {
    fn start(setup: Setup) -> Result<Self, Ending> {
        let (request, key) = request(setup);
        let credentials = credentials(setup, &request);
        let acceptance = acceptance(setup);
        let (now, mut entropy) = (begin(), Counted::default());
        let kind = kind(&request);
        let started = Transaction::begin(request, credentials.clone(), acceptance.clone(), &mut entropy, now);
        let (transaction, message) = started.expect("every request of a run can be made");
        let by_mac = matches!(credentials, Credentials::Mac { .. });
        let mut server = Server::new(setup, by_mac);
        server.hear(&message);
        let mut rules = Rules::new(setup, kind, &key, now, acceptance.total_seconds);
        rules.sent(&server, &message);
        let run = Self {
            now,
            entropy,
            credentials,
            acceptance,
            key,
            transaction: Box::new(transaction),
            told: Told::Send(message),
            server,
            rules,
        };
        run.restarted(); // it can be kept from the first message on
        Ok(run)
    }

    fn go(mut self, step: Move) -> Result<Self, Ending> {
        match step {
            Move::Clock(seconds) => {
                self.pass(seconds);
                Ok(self)
            }
            Move::Timer(seconds) => {
                self.pass(seconds);
                self.handle(Input::TimerFired)
            }
            Move::Stop => self.handle(Input::Stop),
            Move::Restart => Ok(self.restart()),
            Move::Raw(bytes) => self.handle(Input::Response(&bytes)),
            Move::Answer(content, dress) => {
                let answer = self.server.answer(&content, &dress, self.now);
                self.handle(Input::Response(&answer))
            }
        }
    }

    fn pass(&mut self, seconds: i32) {
        self.now = self.now.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(self.now);
    }

    fn handle(mut self, input: Input<'_>) -> Result<Self, Ending> {
        let before = Before { awaits: self.transaction.awaits(), told: self.told.clone(), now: self.now };
        let step = self.transaction.handle(input, &mut self.entropy, self.now);
        self.rules.check(&self.server, &before, input, &step);
        match step {
            Step::Send { transaction, message } => {
                if self.told != Told::Send(message.clone()) {
                    self.server.hear(&message);
                    self.rules.sent(&self.server, &message);
                }
                (self.transaction, self.told) = (transaction, Told::Send(message));
            }
            Step::Wait { transaction, seconds } => {
                (self.transaction, self.told) = (transaction, Told::Wait(seconds));
            }
            Step::Done(_) => return Err(Ending::Enrolled),
            Step::Concluded(_) => return Err(Ending::Concluded),
            Step::Failed { error, tell_peer, .. } => {
                if let Some(message) = tell_peer {
                    self.rules.told_the_end(&message);
                }
                return Err(Ending::Failed(error.code()));
            }
        }
        self.restarted();
        Ok(self)
    }

    /// W6: the record goes on as the transaction does; `None` when the time is over, and with it the transaction.
    fn restarted(&self) -> Option<Box<Transaction>> {
        let json = serde_json::to_string(&self.transaction.record()).expect("a record can be written");
        self.rules.record(&json);
        let record: TransactionRecord = serde_json::from_str(&json).expect("a record can be read");
        let (credentials, acceptance) = (self.credentials.clone(), self.acceptance.clone());
        let resumed = if matches!(record.kind(), RequestKind::P10cr | RequestKind::Rr | RequestKind::Genm) {
            Transaction::resume_keyless(record, credentials, acceptance, self.now)
        } else {
            Transaction::resume(record, credentials, acceptance, self.key.as_ref(), self.now)
        };
        let (transaction, told) = match resumed.expect("it is what was kept") {
            Step::Send { transaction, message } => (transaction, Told::Send(message)),
            Step::Wait { transaction, seconds } => (transaction, Told::Wait(seconds)),
            Step::Failed { error, .. } => {
                assert!(self.rules.time_is_over(self.now), "{error}, although there is time");
                return None;
            }
            other => panic!("a restart ends nothing well: {other:?}"),
        };
        assert_eq!(transaction.awaits(), self.transaction.awaits());
        match (&told, &self.told) {
            (Told::Wait(now), Told::Wait(then)) => assert!(now <= then || self.rules.clock_was_moved(self.now)),
            _ => assert_eq!(told, self.told, "after a restart"),
        }
        let again = serde_json::to_string(&transaction.record()).expect("a record can be written");
        assert!(again == json || self.rules.clock_was_moved(self.now), "another record after a restart");
        Some(transaction)
    }

    fn restart(mut self) -> Self {
        if let Some(transaction) = self.restarted() {
            self.transaction = transaction;
            self.rules.resumed(self.now);
        }
        self
    }
}

/// The questions of a genm, by number; new ones go to the end.
fn question(number: u8) -> Question {
    let (old, issuer) = (world().ca().clone(), CrlOf::Issuer(ca_name()));
    match number % 11 {
        0 => Question::CaCerts,
        1 => Question::RootCaUpdate { old },
        2 => Question::CertReqTemplate,
        3 => Question::CrlUpdate { source: issuer, this_update: Some(begin()) },
        4 => Question::CurrentCrl,
        5 => Question::SignKeyPairTypes,
        6 => Question::EncKeyPairTypes,
        7 => Question::PreferredSymmAlg,
        8 => Question::SupportedLanguages(vec!["en".to_owned()]),
        9 => Question::ConfirmWaitTime,
        _ => Question::Other(oids::SHA1),
    }
}

fn request(setup: Setup) -> (Request, Arc<SoftwareKey>) {
    let world = world();
    let rsa = setup.has(Setup::RSA_AND_DECRYPTER) && setup.ask < 3;
    let key = Arc::clone(if rsa { &world.rsa } else { &world.device });
    let (recipient, implicit_confirm) = (ca_name(), setup.has(Setup::IMPLICIT));
    let request = match setup.ask {
        0..=2 => {
            let kind = [RequestKind::Ir, RequestKind::Cr, RequestKind::Kur][usize::from(setup.ask)];
            let request = EnrollRequest {
                kind,
                subject: world.old().subject(),
                sans: vec![San::parse("dns", "dev1.example").expect("a name")],
                recipient,
                sender: None,
                old_certificate: (kind == RequestKind::Kur).then(|| world.old().clone()),
                implicit_confirm,
                extra_certs: vec![],
                extensions: vec![],
                cert_profile: (setup.ask == 1).then(|| "device".to_owned()),
                validity: None,
            };
            let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&key);
            Request::Enroll(Box::new(request), signer)
        }
        3 => Request::P10(Box::new(P10Request {
            csr: world.csr.clone(),
            recipient,
            sender: None,
            implicit_confirm,
            cert_profile: None,
            extra_certs: vec![],
        })),
        4 => {
            let reason = RevocationReason::KeyCompromise;
            Request::Revoke(Box::new(RevokeRequest::of(world.old(), reason)))
        }
        more => {
            let question = question(more - 5);
            Request::Info(Box::new(InfoRequest { question, recipient, sender: None, extra_certs: vec![] }))
        }
    };
    (request, key)
}

fn kind(request: &Request) -> RequestKind {
    match request {
        Request::Enroll(request, _) => request.kind,
        Request::P10(_) => RequestKind::P10cr,
        Request::Revoke(_) => RequestKind::Rr,
        Request::Info(_) => RequestKind::Genm,
    }
}

/// kur and rr are signed (P9).
fn credentials(setup: Setup, request: &Request) -> Credentials {
    match (kind(request), setup.means % 3) {
        (RequestKind::Kur | RequestKind::Rr, _) | (_, 2) => world().signature(),
        (_, 1) => mac(pbmac1(Hash::Sha256)),
        _ => mac(pbm(Hash::Sha256)),
    }
}

fn acceptance(setup: Setup) -> Acceptance {
    let mut acceptance = world().acceptance();
    if setup.has(Setup::SHA1) {
        acceptance.macs = weak();
    }
    if setup.has(Setup::NO_ANCHORS) {
        acceptance.anchors.clear();
    }
    if setup.has(Setup::EXPECT_CMP) {
        acceptance.expected_signer = Some(world().cmp().subject());
    }
    if setup.has(Setup::REFUSE_MODIFICATIONS) {
        acceptance.modifications = Modifications::Refuse;
    } else if setup.has(Setup::ACCEPT_MODIFICATIONS) {
        acceptance.modifications = Modifications::Accept;
    }
    if setup.has(Setup::RSA_AND_DECRYPTER) {
        acceptance.decrypter = Some(Arc::<trustfleet_cmp::SoftwareDecrypter>::clone(&world().decrypter));
    }
    if setup.time != 0 {
        acceptance.total_seconds = 600 * u64::from(setup.time);
    }
    acceptance.retry_id_in_use = setup.has(Setup::RETRY_ID);
    acceptance
}
