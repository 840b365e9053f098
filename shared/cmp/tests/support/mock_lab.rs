//! The files of one test at openssl's mock server, and our client driven to its end there.
//!
//! The server always returns the certificate it is given (`-rsp_cert`), so each test makes that one for the key it
//! asks with. It answers by HMAC-SHA1 unless told otherwise.

#![allow(dead_code, unreachable_pub)] // a module of several test binaries, each uses its own part

use std::{fs, sync::Arc, thread::sleep, time::Duration};

use jiff::Timestamp;
use tempfile::TempDir;
use trustfleet_cmp::{
    Acceptance, BodyKind, CmpError, Conclusion, Credentials, EnrollRequest, Enrolled, Exchanged, InfoRequest,
    Information, Input, Question, Request, SoftwareKey, Step, Transaction, codec::PkiMessage, error::PeerRefusal,
    key::KeyType, protection::AcceptedMacs,
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_pki::certificate::Certificate;

use crate::openssl::{MockServer, folder};
use crate::support::{Authority, Leaf, Seeded, accepting, ir, key};

/// The secret that the server has for `dev1`.
pub const SECRET: &str = "S3cret-of-dev1-with-128-bits";

/// A CA, the key asked for, and the certificate that the server will return.
pub struct Lab {
    pub folder: TempDir,
    pub ca: Authority,
    pub key: Arc<SoftwareKey>,
    pub issued: Certificate,
}

impl Lab {
    /// A CA with an RSA key.
    pub fn new(key_type: KeyType) -> Self {
        Self::of(KeyType::Rsa2048, key_type)
    }

    pub fn of(ca_key: KeyType, key_type: KeyType) -> Self {
        let ca = Authority::root("/O=Lab/CN=Mock CA", ca_key);
        let key = key(key_type);
        let issued = ca.issue(&Leaf::new("/CN=dev1", key.as_ref()));
        let lab = Self { folder: folder(), ca, key, issued };
        lab.write("ca.crt", &lab.ca.certificate.to_pem());
        lab.write("ca.key", &lab.ca.key.pkcs8_pem().unwrap());
        lab.write("issued.crt", &lab.issued.to_pem());
        lab
    }

    pub fn write(&self, file: &str, content: &str) {
        fs::write(self.folder.path().join(file), content).unwrap();
    }

    /// A server with a secret; `more` are further arguments.
    pub fn mac_server(&self, more: &[&str]) -> MockServer {
        let secret = format!("pass:{SECRET}");
        let base = ["-srv_ref", "dev1", "-srv_secret", &secret, "-rsp_cert", "issued.crt"];
        MockServer::start(self.folder.path(), &[&base, more].concat())
    }

    /// A server that signs with the CA's key and trusts what the CA issued.
    pub fn signature_server(&self, more: &[&str]) -> MockServer {
        let base = ["-srv_cert", "ca.crt", "-srv_key", "ca.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"];
        MockServer::start(self.folder.path(), &[&base, more].concat())
    }

    pub fn request(&self) -> EnrollRequest {
        EnrollRequest { sans: vec![], ..ir(&self.ca.certificate.subject()) }
    }

    pub fn acceptance(&self) -> Acceptance {
        // openssl's mock server answers by HMAC-SHA1
        Acceptance { macs: AcceptedMacs::with_sha1(), ..accepting(std::slice::from_ref(&self.ca.certificate)) }
    }

    pub fn run(&self, server: &MockServer, request: EnrollRequest, credentials: Credentials) -> Outcome {
        let key = Arc::<SoftwareKey>::clone(&self.key);
        self.begin(server, Request::Enroll(Box::new(request), key), credentials)
    }

    /// Asks, which must bring an answer.
    pub fn ask(&self, server: &MockServer, question: Question, credentials: Credentials) -> Information {
        let recipient = self.ca.certificate.subject();
        let request = InfoRequest { question, recipient, sender: None, extra_certs: vec![] };
        match self.begin(server, Request::Info(Box::new(request)), credentials).conclusion() {
            Conclusion::Informed(informed) => informed.information,
            other => panic!("{other:?}"),
        }
    }

    pub fn begin(&self, server: &MockServer, request: Request, credentials: Credentials) -> Outcome {
        let mut entropy = Seeded::new(now().as_nanosecond() as u64);
        let start = Transaction::begin(request, credentials, self.acceptance(), &mut entropy, now());
        let (transaction, message) = start.unwrap();
        let (mut waits, mut messages) = (Vec::new(), Vec::new());
        let mut step = Step::Send { transaction: Box::new(transaction), message };
        let (result, told) = loop {
            step = match step {
                Step::Send { transaction, message } => {
                    let answer = server.post(&message);
                    messages.extend([&message, &answer].map(|der| PkiMessage::from_der(der).unwrap()));
                    transaction.handle(Input::Response(&answer), &mut entropy, now())
                }
                Step::Wait { transaction, seconds } => {
                    waits.push(seconds);
                    sleep(Duration::from_secs(seconds));
                    transaction.handle(Input::TimerFired, &mut entropy, now())
                }
                Step::Concluded(conclusion) => break (Ok(Good::Concluded(conclusion)), false),
                Step::Done(enrolled) => break (Ok(Good::Enrolled(enrolled)), false),
                Step::Failed { error, tell_peer, .. } => break (Err(error), tell_peer.is_some()),
            };
        };
        Outcome { result, waits, told, messages, log: server.log() }
    }
}

#[derive(Debug)]
pub enum Good {
    Enrolled(Box<Enrolled>),
    Concluded(Box<Conclusion>),
}

/// How it ended.
pub struct Outcome {
    pub result: Result<Good, CmpError>,
    pub waits: Vec<u64>,
    /// Whether the server was told by an error message.
    pub told: bool,
    /// What was sent and what came, in turns.
    pub messages: Vec<PkiMessage>,
    /// What the server said on its standard error.
    pub log: String,
}

impl Outcome {
    pub fn enrolled(self) -> Box<Enrolled> {
        match self.result {
            Ok(Good::Enrolled(enrolled)) => enrolled,
            Ok(Good::Concluded(conclusion)) => panic!("{conclusion:?}"),
            Err(error) => panic!("{error}\n{}", self.log),
        }
    }

    pub fn conclusion(self) -> Conclusion {
        match self.result {
            Ok(Good::Concluded(conclusion)) => *conclusion,
            Ok(Good::Enrolled(enrolled)) => panic!("{enrolled:?}"),
            Err(error) => panic!("{error}\n{}", self.log),
        }
    }

    pub fn refusal(self) -> Box<PeerRefusal> {
        match self.result {
            Err(CmpError::Refused(refusal)) => refusal,
            other => panic!("{other:?}\n{}", self.log),
        }
    }
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

pub fn kinds(enrolled: &Enrolled) -> Vec<&'static str> {
    kinds_of(&enrolled.transcript)
}

pub fn kinds_of(transcript: &[Exchanged]) -> Vec<&'static str> {
    transcript.iter().filter_map(|exchanged| exchanged.kind).map(BodyKind::name).collect()
}
