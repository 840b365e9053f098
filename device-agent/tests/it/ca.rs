//! A small CA on a real socket. It issues properly unless a trick is set for its next answer.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use trustfleet_cmp::codec::{FailureBit, PkiStatus};
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::key::{KeyType, Signer, SoftwareKey};
use trustfleet_cmp::request::RequestKind;
use trustfleet_cmp::responder::{
    Answer, Client, OpenTransaction, Received, ReplyProtection, Request, ResponderPolicy, Trust, answer, receive,
};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::Certificate;
use zeroize::Zeroizing;

use crate::authority::{Authority, CMC_CA, Leaf};

pub const REFERENCE: &str = "ref-ap-1";
pub const SECRET: &str = "correct horse battery staple";

/// What the CA does instead of what it should, once.
#[derive(Clone, Debug)]
pub enum Trick {
    /// Reads the request and closes the connection.
    NoAnswer,
    /// Does its work, then closes the connection: the answer is lost.
    LoseAnswer,
    /// Answers HTTP with something that is not CMP.
    Http { status: u16, content_type: &'static str, body: Vec<u8> },
    /// Redirects.
    Redirect(String),
    /// Sends its PKIMessage under this HTTP status and content type (T2, T8).
    Under(u16, &'static str),
    /// Refuses.
    Refuse(Vec<FailureBit>, String),
    /// waiting, then pollRep twice with checkAfter 1, then the certificate.
    Wait,
    /// Certifies another key than asked.
    OtherKey,
    /// Says so when it has read the request, then answers only when released.
    Gate(Arc<Gate>),
}

/// Holds an answer back.
#[derive(Debug, Default)]
pub struct Gate {
    pub reached: AtomicBool,
    pub open: AtomicBool,
}

pub struct TestCa {
    pub url: String,
    pub authority: Arc<Authority>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    authority: Arc<Authority>,
    cmp_key: Arc<SoftwareKey>,
    cmp: Certificate,
    tricks: VecDeque<Trick>,
    implicit: bool,
    open: HashMap<Vec<u8>, Open>,
    heard: Vec<&'static str>,
    peers: Vec<IpAddr>,
    raw: Vec<Vec<u8>>,
    heads: Vec<String>,
    issued: u32,
    revoked: Vec<Vec<u8>>,
    valid_for_s: Option<i64>,
}

struct Open {
    transaction: OpenTransaction,
    waits: usize,
    request: Box<Received>,
    last: Option<(Vec<u8>, Vec<u8>)>,
}

struct Known(Vec<Certificate>);

impl Trust for Known {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (reference == REFERENCE.as_bytes()).then(|| Zeroizing::new(SECRET.as_bytes().to_vec()))
    }

    fn anchors(&self) -> Vec<Certificate> {
        self.0.clone()
    }
}

impl TestCa {
    pub fn start() -> Self {
        let authority = Arc::new(Authority::root("/O=Lab/CN=Issuing CA", KeyType::P256));
        let cmp_key = crate::authority::key(KeyType::P256);
        let cmp = authority.issue(&Leaf { usages: vec![CMC_CA], ..Leaf::new("/O=Lab/CN=CMP", cmp_key.as_ref()) });
        let shared = Arc::new(Mutex::new(Shared {
            authority: Arc::clone(&authority),
            cmp_key,
            cmp,
            tricks: VecDeque::new(),
            implicit: true,
            open: HashMap::new(),
            heard: Vec::new(),
            peers: Vec::new(),
            raw: Vec::new(),
            heads: Vec::new(),
            issued: 0,
            revoked: Vec::new(),
            valid_for_s: None,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/pkix/?profile=ap", listener.local_addr().unwrap());
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                thread::spawn(move || serve(stream, &served));
            }
        });
        Self { url, authority, shared }
    }

    pub fn trick(&self, trick: Trick) {
        self.shared.lock().unwrap().tricks.push_back(trick);
    }

    /// Certificates are valid from now on for so many seconds.
    pub fn short_lived(&self, seconds: i64) {
        self.shared.lock().unwrap().valid_for_s = Some(seconds);
    }

    pub fn never_confirm_implicitly(&self) {
        self.shared.lock().unwrap().implicit = false;
    }

    /// Bodies of the messages received, in the RFC's words.
    pub fn heard(&self) -> Vec<&'static str> {
        self.shared.lock().unwrap().heard.clone()
    }

    /// Where connections came from.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.shared.lock().unwrap().peers.clone()
    }

    /// The messages received.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.shared.lock().unwrap().raw.clone()
    }

    /// Request lines and header fields as they came, field names in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.shared.lock().unwrap().heads.clone()
    }

    pub fn issued(&self) -> u32 {
        self.shared.lock().unwrap().issued
    }

    /// Serial numbers of what was revoked, in the order of that.
    pub fn revoked(&self) -> Vec<Vec<u8>> {
        self.shared.lock().unwrap().revoked.clone()
    }
}

fn serve(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let peer = stream.peer_addr().ok()?.ip();
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut line, mut head) = (0, String::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None; // somebody looked whether anybody is here
        }
        match line.split_once(':') {
            Some((field, value)) if !head.is_empty() => head += &format!("{}:{value}", field.to_ascii_lowercase()),
            _ => head += &line,
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    shared.lock().unwrap().heads.push(head);
    shared.lock().unwrap().peers.push(peer);
    let trick = shared.lock().unwrap().tricks.pop_front();
    let (mut status, mut content_type, mut location) = (200, "application/pkixcmp", String::new());
    let mut lose = false;
    let answer = match trick {
        Some(Trick::NoAnswer) => {
            shared.lock().unwrap().heard.push("lost");
            shared.lock().unwrap().raw.push(body);
            return None;
        }
        Some(Trick::Http { status: with, content_type: kind, body: text }) => {
            (status, content_type) = (with, kind);
            text
        }
        Some(Trick::Redirect(to)) => {
            (status, location) = (302, format!("location: {to}\r\n"));
            Vec::new()
        }
        Some(Trick::Gate(gate)) => {
            gate.reached.store(true, Ordering::SeqCst);
            while !gate.open.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            shared.lock().unwrap().answer(&body, None)
        }
        Some(Trick::Under(with, kind)) => {
            (status, content_type) = (with, kind);
            shared.lock().unwrap().answer(&body, None)
        }
        Some(Trick::LoseAnswer) => {
            lose = true;
            shared.lock().unwrap().answer(&body, None)
        }
        other => shared.lock().unwrap().answer(&body, other),
    };
    if lose {
        return None;
    }
    let mut stream = stream;
    let head = format!(
        "HTTP/1.0 {status} X\r\ncontent-type: {content_type}\r\n{location}content-length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&answer).ok()
}

impl Shared {
    fn answer(&mut self, message: &[u8], trick: Option<Trick>) -> Vec<u8> {
        let now = SystemClock.now();
        self.raw.push(message.to_vec());
        let trust = Known(vec![self.authority.certificate.clone()]);
        let received = match receive(message, &trust, &ResponderPolicy::default(), now) {
            Ok(received) => received,
            Err(rejected) => {
                self.heard.push("rejected");
                let protection = self.signed();
                return self.seal(&rejected.reply_to, &Answer::error_for(&rejected), &protection);
            }
        };
        self.heard.push(received.reply_to.body.map_or("?", |body| body.name()));
        let id = received.reply_to.transaction_id.clone();
        // The same bytes again get the same answer again.
        if let Some((_, reply)) =
            self.open.get(&id).and_then(|open| open.last.as_ref()).filter(|(last, _)| last == message)
        {
            return reply.clone();
        }
        let protection = match &received.client {
            Client::Mac { reference, mac } => ReplyProtection::Mac {
                reference: reference.clone(),
                secret: Zeroizing::new(SECRET.as_bytes().to_vec()),
                mac: *mac,
            },
            Client::Signature { .. } => self.signed(),
        };
        let given = self.decide(&received, trick);
        let sender = self.authority.certificate.subject();
        let reply = answer(&received.reply_to, &given, &protection, &sender, &mut SystemEntropy, now).unwrap();
        self.remember(received, &given, &reply, message);
        reply.der
    }

    fn decide(&mut self, received: &Received, trick: Option<Trick>) -> Answer {
        let id = &received.reply_to.transaction_id;
        let (kind, cert_req_id) = match &received.request {
            Request::Certificate(asked) => (asked.kind, asked.cert_req_id),
            Request::Revoke(_) => (RequestKind::Rr, -1),
            _ => self
                .open
                .get(id)
                .map_or((RequestKind::Ir, 0), |open| (open.transaction.kind, open.transaction.cert_req_id)),
        };
        match (&received.request, trick) {
            (_, Some(Trick::Refuse(failure, text))) => Answer::Refused { kind, cert_req_id, failure, text },
            (Request::Certificate(_), Some(Trick::Wait)) => Answer::Waiting { kind, cert_req_id },
            (Request::Certificate(_), trick) => self.grant(received, matches!(trick, Some(Trick::OtherKey))),
            (Request::Poll { cert_req_id }, _) => {
                let open = self.open.get_mut(id).unwrap();
                if open.waits > 0 {
                    open.waits -= 1;
                    return Answer::PollRep { cert_req_id: *cert_req_id, check_after: 1, reason: String::new() };
                }
                let request = open.request.clone();
                self.grant(&request, false)
            }
            (Request::CertConf(status), _) => {
                self.open[id].transaction.confirmation(status).unwrap();
                Answer::PkiConf
            }
            (Request::Revoke(asked), _) if self.revoked.contains(&asked.serial) => {
                let text = "it is revoked".to_owned();
                Answer::Refused { kind, cert_req_id, failure: vec![FailureBit::CertRevoked], text }
            }
            (Request::Revoke(asked), _) => {
                self.revoked.push(asked.serial.clone());
                let (issuer, serial) = (asked.issuer.clone(), asked.serial.clone());
                Answer::Revoked { status: PkiStatus::Accepted, issuer, serial, crls: Vec::new() }
            }
            (_, _) => Answer::PkiConf,
        }
    }

    fn grant(&mut self, received: &Received, other_key: bool) -> Answer {
        let Request::Certificate(asked) = &received.request else { panic!("nothing was asked for") };
        let other = crate::authority::key(KeyType::P256);
        self.issued += 1;
        let spki = if other_key { other.public_key_der().to_vec() } else { asked.public_key.spki_der().to_vec() };
        let other_leaf = Leaf::new("/CN=unused", other.as_ref());
        let now = SystemClock.now();
        let (not_before, not_after) =
            self.valid_for_s.map_or((other_leaf.not_before, other_leaf.not_after), |seconds| {
                let text = |at: jiff::Timestamp| -> &'static str { Box::leak(at.to_string().into_boxed_str()) };
                (text(now), text(now + jiff::SignedDuration::from_secs(seconds)))
            });
        let certificate = self.authority.issue(&Leaf {
            not_before,
            not_after,
            subject: asked.subject.clone(),
            spki,
            san_der: asked.subject_alt_names.clone(),
            ..other_leaf
        });
        Answer::Granted {
            kind: asked.kind,
            cert_req_id: asked.cert_req_id,
            certificate,
            with_mods: false,
            ca_pubs: vec![self.authority.certificate.clone()],
            extra_certs: vec![],
            implicit_confirm: received.implicit_confirm && self.implicit,
        }
    }

    fn remember(
        &mut self,
        received: Received,
        given: &Answer,
        reply: &trustfleet_cmp::responder::Reply,
        message: &[u8],
    ) {
        let certificate = match given {
            Answer::Granted { certificate, .. } => Some(certificate.clone()),
            _ => None,
        };
        let id = received.reply_to.transaction_id.clone();
        let last = Some((message.to_vec(), reply.der.clone()));
        if let Some(open) = self.open.get_mut(&id) {
            open.transaction.answered(reply);
            open.transaction.certificate = certificate.or_else(|| open.transaction.certificate.take());
            open.last = last;
        } else if let Request::Certificate(asked) = &received.request {
            let transaction = OpenTransaction::new(&received, asked.kind, asked.cert_req_id, reply, certificate);
            self.open.insert(id, Open { transaction, waits: 2, request: Box::new(received), last });
        }
    }

    fn signed(&self) -> ReplyProtection {
        let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(&self.cmp_key);
        let chain = vec![self.authority.certificate.clone()];
        ReplyProtection::Signature { signer, certificate: self.cmp.clone(), chain }
    }

    fn seal(&self, to: &trustfleet_cmp::responder::ReplyTo, given: &Answer, protection: &ReplyProtection) -> Vec<u8> {
        let sender = self.authority.certificate.subject();
        answer(to, given, protection, &sender, &mut SystemEntropy, SystemClock.now()).unwrap().der
    }
}
