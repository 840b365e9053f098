//! A client and a server joined in memory, with time moved by hand; the server misbehaves by choice.

#![allow(dead_code, unreachable_pub)] // a module of several test binaries, each uses its own part

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::{
    Acceptance, CmpError, Conclusion, Credentials, EnrollRequest, Enrolled, Exchanged, Informed, Input, RequestKind,
    Revoked, Signer, SoftwareKey, Step, Transaction,
    codec::{PkiHeader, PkiStatus},
    key::KeyType,
    responder::{
        Answer, Client, OpenTransaction, Received, Reply, ReplyProtection, ReplyTo, Request, ResponderPolicy, Trust,
        answer_shaped, receive,
    },
};
use trustfleet_pki::certificate::Certificate;
use zeroize::Zeroizing;

use crate::support::{Authority, CMC_CA, Leaf, Seeded, accepting};

pub const SECRET: &str = "S3cret-of-dev1-with-128-bits";

/// What the server answers instead of what it should.
pub type Twist = Box<dyn FnMut(usize, &Received, Answer, &mut ReplyTo, &mut ReplyProtection) -> Answer>;

pub struct World {
    pub ca: Authority,
    /// Signs the server's answers: cmcCA, issued by the CA.
    pub cmp_key: Arc<SoftwareKey>,
    pub cmp: Certificate,
    /// The key asked for.
    pub key: Arc<SoftwareKey>,
    pub now: Timestamp,
    pub entropy: Seeded,
    pub acceptance: Acceptance,
    /// What the server has been sent, read.
    pub heard: Vec<Received>,
    pub open: Option<OpenTransaction>,
    /// What certConf said.
    pub taken: Option<bool>,
    pub twist: Twist,
    /// What is done to the headers of its answers.
    pub shape: fn(&mut PkiHeader),
}

struct Known(Vec<Certificate>);

impl Trust for Known {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (reference == b"dev1").then(|| Zeroizing::new(SECRET.as_bytes().to_vec()))
    }

    fn anchors(&self) -> Vec<Certificate> {
        self.0.clone()
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    pub result: Result<Box<Enrolled>, CmpError>,
    pub tell_peer: Option<Vec<u8>>,
    pub orphan: Option<Certificate>,
    pub transcript: Vec<Exchanged>,
    pub waits: Vec<u64>,
}

/// The last step of anything.
#[derive(Debug)]
pub struct Last {
    pub step: Step,
    pub waits: Vec<u64>,
}

impl Last {
    pub fn revoked(self) -> Revoked {
        match self.step {
            Step::Concluded(conclusion) => match *conclusion {
                Conclusion::Revoked(revoked) => revoked,
                other => panic!("{other:?}"),
            },
            Step::Failed { error, .. } => panic!("{error}"),
            other => panic!("{other:?}"),
        }
    }

    pub fn informed(self) -> Informed {
        match self.step {
            Step::Concluded(conclusion) => match *conclusion {
                Conclusion::Informed(informed) => informed,
                other => panic!("{other:?}"),
            },
            Step::Failed { error, .. } => panic!("{error}"),
            other => panic!("{other:?}"),
        }
    }

    pub fn failed(self) -> CmpError {
        match self.step {
            Step::Failed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }
}

impl End {
    pub fn enrolled(self) -> Box<Enrolled> {
        self.result.unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn code(&self) -> &'static str {
        self.result.as_ref().map_or_else(CmpError::code, |_| "enrolled")
    }
}

impl World {
    pub fn new() -> Self {
        let ca = Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256);
        let cmp_key = crate::support::key(KeyType::P256);
        let cmp = ca.issue(&Leaf { usages: vec![CMC_CA], ..Leaf::new("/O=Lab/CN=CMP", cmp_key.as_ref()) });
        let acceptance = accepting(std::slice::from_ref(&ca.certificate));
        Self {
            ca,
            cmp_key,
            cmp,
            key: crate::support::key(KeyType::P256),
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            entropy: Seeded::new(1),
            acceptance,
            heard: vec![],
            open: None,
            taken: None,
            twist: Box::new(|_, _, answer, _, _| answer),
            shape: |_| {},
        }
    }

    pub fn twisted(
        twist: impl FnMut(usize, &Received, Answer, &mut ReplyTo, &mut ReplyProtection) -> Answer + 'static,
    ) -> Self {
        Self { twist: Box::new(twist), ..Self::new() }
    }

    pub fn request(&self) -> EnrollRequest {
        crate::support::ir(&self.ca.certificate.subject())
    }

    pub fn start(
        &mut self,
        request: EnrollRequest,
        credentials: Credentials,
    ) -> Result<(Transaction, Vec<u8>), CmpError> {
        let key: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&self.key);
        Transaction::start(request, credentials, self.acceptance.clone(), key, &mut self.entropy, self.now)
    }

    pub fn run(&mut self, request: EnrollRequest, credentials: Credentials) -> End {
        let (transaction, message) = self.start(request, credentials).unwrap();
        self.go_on(Step::Send { transaction: Box::new(transaction), message })
    }

    pub fn run_mac(&mut self) -> End {
        let request = self.request();
        self.run(request, crate::support::mac("dev1", SECRET))
    }

    /// Begins anything and brings it to its last step.
    pub fn begin(&mut self, request: trustfleet_cmp::Request, credentials: Credentials) -> Last {
        let begun =
            Transaction::begin(request, credentials, self.acceptance.clone(), &mut self.entropy, self.now).unwrap();
        self.drive(Step::Send { transaction: Box::new(begun.0), message: begun.1 })
    }

    /// Goes on to the last step.
    pub fn drive(&mut self, mut step: Step) -> Last {
        let mut waits = vec![];
        loop {
            step = match step {
                Step::Send { transaction, message } => {
                    let answer = self.serve(&message);
                    self.now += SignedDuration::from_millis(20);
                    transaction.handle(Input::Response(&answer), &mut self.entropy, self.now)
                }
                Step::Wait { transaction, seconds } => {
                    waits.push(seconds);
                    self.now += SignedDuration::from_secs(seconds as i64);
                    transaction.handle(Input::TimerFired, &mut self.entropy, self.now)
                }
                step => return Last { step, waits },
            };
        }
    }

    pub fn go_on(&mut self, step: Step) -> End {
        let Last { step, waits } = self.drive(step);
        match step {
            Step::Done(enrolled) => {
                let transcript = enrolled.transcript.clone();
                End { result: Ok(enrolled), tell_peer: None, orphan: None, transcript, waits }
            }
            Step::Failed { error, tell_peer, orphan, transcript } => {
                End { result: Err(error), tell_peer, orphan, transcript, waits }
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the server reads of a message.
    pub fn read(&self, message: &[u8]) -> Received {
        let trust = Known(vec![self.ca.certificate.clone()]);
        receive(message, &trust, &ResponderPolicy::default(), self.now).unwrap_or_else(|no| panic!("{}", no.error))
    }

    /// The server: issues to everybody, and answers in the client's own way.
    pub fn serve(&mut self, message: &[u8]) -> Vec<u8> {
        let received = self.read(message);
        let mut protection = match &received.client {
            Client::Mac { reference, mac } => ReplyProtection::Mac {
                reference: reference.clone(),
                secret: Zeroizing::new(SECRET.as_bytes().to_vec()),
                mac: *mac,
            },
            Client::Signature { .. } => self.signed(),
        };
        let granted = self.answer_to(&received);
        let mut to = received.reply_to.clone();
        let nth = self.heard.len();
        let answer_given = (self.twist)(nth, &received, granted, &mut to, &mut protection);
        let sender = self.ca.certificate.subject();
        let reply =
            answer_shaped(&to, &answer_given, &protection, &sender, &self.shape, &mut self.entropy, self.now).unwrap();
        self.remember(&received, &answer_given, &reply);
        self.heard.push(received);
        reply.der
    }

    pub fn signed(&self) -> ReplyProtection {
        let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&self.cmp_key);
        ReplyProtection::Signature { signer, certificate: self.cmp.clone(), chain: vec![self.ca.certificate.clone()] }
    }

    fn answer_to(&mut self, received: &Received) -> Answer {
        if let Some(open) = &self.open {
            open.check(received).unwrap_or_else(|error| panic!("{error}"));
        }
        match &received.request {
            Request::Certificate(asked) => Answer::Granted {
                kind: asked.kind,
                cert_req_id: asked.cert_req_id,
                certificate: self.ca.issue(&Leaf {
                    subject: asked.subject.clone(),
                    spki: asked.public_key.spki_der().to_vec(),
                    san_der: asked.subject_alt_names.clone(),
                    ..Leaf::new("/CN=unused", self.key.as_ref())
                }),
                with_mods: false,
                ca_pubs: vec![],
                extra_certs: vec![],
                implicit_confirm: received.implicit_confirm,
            },
            Request::CertConf(status) => {
                self.taken = Some(self.open.as_ref().unwrap().confirmation(status).unwrap());
                Answer::PkiConf
            }
            _ => self.other_answer(received),
        }
    }

    /// Revokes whatever is asked for, and has nothing to say to a question.
    fn other_answer(&self, received: &Received) -> Answer {
        match &received.request {
            Request::Revoke(asked) => Answer::Revoked {
                status: PkiStatus::Accepted,
                issuer: asked.issuer.clone(),
                serial: asked.serial.clone(),
                crls: vec![],
            },
            Request::Info(asked) => Answer::Info(vec![asked.as_ref().clone()]),
            _ => Answer::PkiConf,
        }
    }

    fn remember(&mut self, received: &Received, given: &Answer, reply: &Reply) {
        let certificate = match given {
            Answer::Granted { certificate, .. } => Some(certificate.clone()),
            _ => None,
        };
        match &mut self.open {
            Some(open) => {
                open.answered(reply);
                open.certificate = certificate.or_else(|| open.certificate.take());
            }
            None => {
                let (kind, cert_req_id) = match &received.request {
                    Request::Certificate(asked) => (asked.kind, asked.cert_req_id),
                    Request::Revoke(_) => (RequestKind::Rr, -1),
                    _ => (RequestKind::Genm, -1),
                };
                self.open = Some(OpenTransaction::new(received, kind, cert_req_id, reply, certificate));
            }
        }
    }
}
