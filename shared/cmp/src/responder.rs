//! The server's half, sans-io: reads and verifies a client's message, and builds the answers.
//!
//! It exists for a lab CA. It issues nothing and remembers nothing: whoever calls it decides, and keeps an
//! [`OpenTransaction`] while a confirmation or a poll is to come. What the client's half demands of an answer, this
//! half demands of a request: protection over the received bytes, proof of possession over the received certReq.

mod answer;
mod open;
mod read;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use der::asn1::Any;
use jiff::Timestamp;
use trustfleet_pki::{
    certificate::{Certificate, serial_hex},
    chain,
    name::Name,
    public_key::PublicKey,
};
use x509_cert::ext::Extension;
use zeroize::Zeroizing;

pub use self::{
    answer::{Answer, Reply, ReplyProtection, answer, answer_shaped},
    open::OpenTransaction,
    read::RevocationRequest,
};
use crate::{
    check,
    codec::{
        BodyKind, CertId, CertReqMsg, CertRequest, CertStatus, ErrorMsgContent, FailureBit, InfoTypeAndValue, PkiBody,
        PkiHeader, PkiMessage, PkiStatus, ProofOfPossession, oids, raw::directory_name_der,
    },
    error::MessageError,
    peer::{certificates, find_signer},
    protection::{
        AcceptedMacs, AcceptedSignatures, MacPolicy,
        mac::{self, ACCEPTED_ITERATIONS, ACCEPTED_PBKDF2_ITERATIONS, Iterations},
    },
    request::RequestKind,
    text,
};

/// Whom the server believes.
pub trait Trust {
    /// The secret that a MAC reference names.
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>>;

    /// Anchors for signed requests: its own CA, and those of external identities.
    fn anchors(&self) -> Vec<Certificate>;

    /// Helpers for building chains to these.
    fn helpers(&self) -> Vec<Certificate> {
        Vec::new()
    }
}

/// What the server accepts.
#[derive(Clone, Debug)]
pub struct ResponderPolicy {
    /// MAC algorithms.
    pub macs: AcceptedMacs,
    /// PBM iteration counts.
    pub pbm_iterations: RangeInclusive<u32>,
    /// Rounds of PBKDF2 in PBMAC1.
    pub pbkdf2_iterations: RangeInclusive<u32>,
    /// Signature algorithms.
    pub signatures: AcceptedSignatures,
    /// Largest difference of messageTime, in seconds; `None`: not looked at (H8).
    pub clock_skew_seconds: Option<u64>,
}

impl Default for ResponderPolicy {
    fn default() -> Self {
        Self {
            macs: AcceptedMacs::strong(),
            pbm_iterations: ACCEPTED_ITERATIONS,
            pbkdf2_iterations: ACCEPTED_PBKDF2_ITERATIONS,
            signatures: AcceptedSignatures::default(),
            clock_skew_seconds: None,
        }
    }
}

/// An authentic message of a client.
#[derive(Clone, Debug)]
pub struct Received {
    /// To answer it by.
    pub reply_to: ReplyTo,
    /// Who sent it.
    pub client: Client,
    /// What it says.
    pub request: Request,
    /// It asks for implicit confirmation (H13).
    pub implicit_confirm: bool,
    /// recipNonce; see [`OpenTransaction::check`].
    pub recip_nonce: Vec<u8>,
    /// extraCerts that can be read.
    pub extra_certs: Vec<Certificate>,
}

/// A message that is refused; answer with [`Answer::error_for`].
#[derive(Clone, Debug)]
pub struct Rejected {
    /// To answer it by, as far as it could be read.
    pub reply_to: ReplyTo,
    /// Who sent it, when that much was verified.
    pub client: Option<Client>,
    /// Why.
    pub error: MessageError,
}

/// What an answer takes over from the message that it answers.
#[derive(Clone, Debug, Default)]
pub struct ReplyTo {
    /// transactionID; empty when it could not be read.
    pub transaction_id: Vec<u8>,
    /// senderNonce, to become recipNonce.
    pub sender_nonce: Vec<u8>,
    /// DER Name of the sender, to become the recipient.
    pub sender: Vec<u8>,
    /// Its body.
    pub body: Option<BodyKind>,
    /// It was protected by a MAC.
    pub by_mac: bool,
}

/// Who sent a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Client {
    /// Somebody who knows a secret.
    Mac {
        /// Which one.
        reference: Vec<u8>,
        /// How the client MACs: an answer the same way will be understood.
        mac: MacPolicy,
    },
    /// The holder of a certificate.
    Signature {
        /// That certificate.
        certificate: Certificate,
    },
}

/// What a client says.
#[derive(Clone, Debug)]
pub enum Request {
    /// ir, cr, kur or p10cr, with verified proof of possession.
    Certificate(Box<CertificateRequest>),
    /// rr, signed by whoever.
    Revoke(Box<RevocationRequest>),
    /// genm with one question.
    Info(Box<InfoTypeAndValue>),
    /// certConf.
    CertConf(CertStatus),
    /// pollReq.
    Poll {
        /// Of the request waited for; -1 for any other.
        cert_req_id: i64,
    },
    /// The client ends the transaction.
    Error {
        /// Its failInfo bits.
        failure: Vec<FailureBit>,
        /// Its texts, harmless but untrusted.
        texts: Vec<String>,
    },
    /// A message that this half does not read.
    Other(BodyKind),
}

/// A request for one certificate.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// ir, cr, kur or p10cr.
    pub kind: RequestKind,
    /// To be repeated in the answer.
    pub cert_req_id: i64,
    /// The subject asked for.
    pub subject: Name,
    /// The key to be certified; its possession is proven.
    pub public_key: PublicKey,
    /// DER GeneralNames asked for.
    pub subject_alt_names: Option<Vec<u8>>,
    /// All extensions asked for.
    pub extensions: Vec<Extension>,
    /// kur: the certificate to replace; it signed this message.
    pub old_certificate: Option<Certificate>,
}

/// Reads one message of a client and verifies its protection and proof of possession.
///
/// # Errors
/// [`Rejected`] with what to answer by.
pub fn receive(
    der: &[u8],
    trust: &dyn Trust,
    policy: &ResponderPolicy,
    now: Timestamp,
) -> Result<Received, Box<Rejected>> {
    let message = PkiMessage::from_der(der)
        .map_err(|error| Box::new(Rejected { reply_to: ReplyTo::default(), client: None, error: error.into() }))?;
    let reply_to = ReplyTo {
        transaction_id: PkiHeader::octets(message.header.transaction_id.as_ref()).to_vec(),
        sender_nonce: PkiHeader::octets(message.header.sender_nonce.as_ref()).to_vec(),
        sender: directory_name_der(&message.header.sender).unwrap_or(&[0x30, 0x00]).to_vec(),
        body: Some(message.body.kind()),
        by_mac: mac::is_mac(&message),
    };
    let rejected =
        |client: Option<Client>, error: MessageError| Box::new(Rejected { reply_to: reply_to.clone(), client, error });
    let client = authenticate(&message, trust, policy, now).map_err(|error| rejected(None, error))?;
    let read = || -> Result<Request, MessageError> {
        check_header(&message, policy, now)?;
        read_body(&message, &client)
    };
    let request = read().map_err(|error| rejected(Some(client.clone()), error))?;
    Ok(Received {
        client,
        request,
        implicit_confirm: message.header.has_implicit_confirm(),
        recip_nonce: PkiHeader::octets(message.header.recip_nonce.as_ref()).to_vec(),
        extra_certs: certificates(&message.extra_certs),
        reply_to,
    })
}

fn authenticate(
    message: &PkiMessage,
    trust: &dyn Trust,
    policy: &ResponderPolicy,
    now: Timestamp,
) -> Result<Client, MessageError> {
    check::version(&message.header)?;
    check::protected(message)?;
    if mac::is_mac(message) {
        let reference = PkiHeader::octets(message.header.sender_kid.as_ref()).to_vec();
        // an unknown reference must look like a wrong secret
        let secret = trust.secret(&reference).ok_or(MessageError::MacMismatch)?;
        let bounds = Iterations { pbm: &policy.pbm_iterations, pbkdf2: &policy.pbkdf2_iterations };
        let mac = mac::verify(message, &secret, &policy.macs, bounds)?;
        return Ok(Client::Mac { reference, mac });
    }
    policy.signatures.check(message)?;
    let helpers = [certificates(&message.extra_certs), trust.helpers()].concat();
    let anchors = trust.anchors();
    let certificate = find_signer(message, helpers.iter().chain(&anchors), |certificate| {
        let signer = text::shown(&certificate.subject());
        if !certificate.allows_digital_signature() {
            return Err(MessageError::SignerKeyUsage { signer });
        }
        chain::verify_signer(certificate, &helpers, &anchors, now)
            .map_err(|error| MessageError::SignerUntrusted { signer, detail: text::shown(&error) })
    })?;
    Ok(Client::Signature { certificate })
}

/// H8, H10, H11.
fn check_header(message: &PkiMessage, policy: &ResponderPolicy, now: Timestamp) -> Result<(), MessageError> {
    check::sender_nonce(&message.header)?;
    let id = PkiHeader::octets(message.header.transaction_id.as_ref());
    if id.len() < check::MIN_NONCE_BYTES {
        let detail = format!("transactionID of {} bits: at least 128 expected", id.len() * 8);
        return Err(MessageError::Request { detail, bit: FailureBit::BadRequest });
    }
    let Some(skew) = policy.clock_skew_seconds else { return Ok(()) };
    let time = message.header.message_time.as_ref().and_then(|time| time.timestamp());
    if time.is_some_and(|time| time.duration_since(now).unsigned_abs().as_secs() <= skew) {
        return Ok(());
    }
    let detail = format!("messageTime is absent or more than {skew} seconds off");
    Err(MessageError::Request { detail, bit: FailureBit::BadTime })
}

fn read_body(message: &PkiMessage, client: &Client) -> Result<Request, MessageError> {
    let certificate = |kind, requests: &[CertReqMsg]| {
        let [request] = requests else {
            return Err(MessageError::ResponseCount { got: requests.len() });
        };
        read_request(kind, request, client).map(|request| Request::Certificate(Box::new(request)))
    };
    match &message.body {
        PkiBody::Ir(requests) => certificate(RequestKind::Ir, requests),
        PkiBody::Cr(requests) => certificate(RequestKind::Cr, requests),
        PkiBody::Kur(requests) => certificate(RequestKind::Kur, requests),
        PkiBody::P10cr(request) => read::p10(request),
        PkiBody::Rr(details) => read::revocation(details, client),
        PkiBody::Genm(infos) => read::question(infos),
        PkiBody::CertConf(statuses) => match statuses.as_slice() {
            [status] => Ok(Request::CertConf(status.clone())),
            other => Err(MessageError::ResponseCount { got: other.len() }),
        },
        PkiBody::PollReq(polls) => match polls.as_slice() {
            [poll] => Ok(Request::Poll { cert_req_id: poll.cert_req_id }),
            other => Err(MessageError::ResponseCount { got: other.len() }),
        },
        PkiBody::Error(ErrorMsgContent { status_info, error_details, .. })
            if status_info.status == PkiStatus::Rejection =>
        {
            let failure = status_info.fail_info.unwrap_or_default().bits();
            let mut texts = text::sanitise_all(status_info.status_string.as_ref());
            texts.extend(text::sanitise_all(error_details.as_ref()));
            Ok(Request::Error { failure, texts })
        }
        other => Ok(Request::Other(other.kind())),
    }
}

fn read_request(kind: RequestKind, message: &CertReqMsg, client: &Client) -> Result<CertificateRequest, MessageError> {
    let bad = |bit, detail: String| MessageError::Request { detail, bit };
    let format = |what: &str, error: &dyn std::fmt::Display| bad(FailureBit::BadDataFormat, format!("{what}: {error}"));
    let template = |detail: &str| bad(FailureBit::BadCertTemplate, detail.to_owned());
    let request: CertRequest = message.cert_req.parse().map_err(|error| format("certReq", &error))?;
    let fields = &request.cert_template;
    let subject = fields.subject.as_ref().ok_or_else(|| template("the template has no subject (R2)"))?;
    let subject = subject.to_tlv().map_err(|error| format("subject", &error))?;
    let subject = Name::from_der(&subject).map_err(|error| format("subject", &error))?;
    let key = fields.public_key.as_ref().ok_or_else(|| template("the template has no public key (R2)"))?;
    let key = key.to_tlv().map_err(|error| format("publicKey", &error))?;
    let public_key = PublicKey::from_spki_der(&key).map_err(|error| template(&error.to_string()))?;
    let extensions: Vec<Extension> = match &fields.extensions {
        Some(raw) => raw.parse().map_err(|error| format("extensions", &error))?,
        None => Vec::new(),
    };
    let names = extensions.iter().find(|extension| extension.extn_id == oids::SUBJECT_ALT_NAME);
    let subject_alt_names = names.map(|extension| extension.extn_value.as_bytes().to_vec());
    if subject.is_null() && subject_alt_names.is_none() {
        return Err(template("neither a subject nor alternative names (R2)"));
    }
    prove_possession(message, &public_key)?;
    let old_certificate = match kind {
        RequestKind::Kur => Some(old_certificate(&request, client)?),
        _ => None,
    };
    Ok(CertificateRequest {
        kind,
        cert_req_id: request.cert_req_id,
        subject,
        public_key,
        subject_alt_names,
        extensions,
        old_certificate,
    })
}

/// R3 to R5: a signature by the key over the certReq as received.
fn prove_possession(message: &CertReqMsg, public_key: &PublicKey) -> Result<(), MessageError> {
    let bad = |detail: String| MessageError::Request { detail, bit: FailureBit::BadPop };
    let Some(ProofOfPossession::Signature(popo)) = &message.popo else {
        return Err(bad("a proof of possession by signature is needed (R4, R5)".to_owned()));
    };
    if popo.poposk_input.is_some() {
        return Err(bad("poposkInput is there although the template has subject and key (R3)".to_owned()));
    }
    let covered = message.cert_req.to_tlv().map_err(|error| bad(error.to_string()))?;
    public_key
        .verify(&popo.algorithm, &covered, popo.signature.raw_bytes())
        .map_err(|error| bad(format!("the proof of possession does not verify: {error}")))
}

/// P9, R6: the certificate named by oldCertID is the one that signed.
fn old_certificate(request: &CertRequest, client: &Client) -> Result<Certificate, MessageError> {
    let Client::Signature { certificate } = client else {
        return Err(MessageError::WrongIntegrity { expected: "a signature", got: "a MAC" });
    };
    let control = request.controls.iter().flatten().find(|control| control.id == oids::OLD_CERT_ID);
    let bad = |detail: String| MessageError::Request { detail, bit: FailureBit::BadCertId };
    let control = control.ok_or_else(|| bad("the kur has no oldCertID (R6)".to_owned()))?;
    let id: CertId = Any::decode_as(&control.value).map_err(|error| bad(format!("oldCertID: {error}")))?;
    let issuer = directory_name_der(&id.issuer) == Some(certificate.issuer().as_der());
    if !issuer || id.serial_number.as_bytes() != certificate.serial_der_bytes() {
        let named = serial_hex(id.serial_number.as_bytes());
        let held = certificate.serial_hex();
        return Err(bad(format!("oldCertID names serial {named}, the message is signed by {held} (R6)")));
    }
    Ok(certificate.clone())
}
