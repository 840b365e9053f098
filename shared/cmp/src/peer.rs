//! Who may answer us: the authenticity of a response and the authority of its sender (V4 to V6, P10 to P12).
//!
//! A certificate in extraCerts helps to build a chain and is never an anchor (X3). A valid chain is not enough: any
//! sibling device has one. The signer must be the configured CA, a pinned certificate, or carry cmcCA or cmcRA
//! from the CA that was asked.

use std::{ops::RangeInclusive, sync::Arc};

use jiff::Timestamp;
use trustfleet_pki::{certificate::Certificate, chain, name::Name};

use crate::{
    check,
    codec::{PkiHeader, PkiMessage, RawSequence, oids, raw::directory_name_der},
    envelope::Decrypter,
    error::MessageError,
    protection::{
        AcceptedMacs, AcceptedSignatures,
        mac::{self, ACCEPTED_ITERATIONS, ACCEPTED_PBKDF2_ITERATIONS, Iterations},
        signature,
    },
    request::Credentials,
    text::shown,
};

/// What is accepted as an answer, set by policy.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Accepted MAC algorithms; SHA-1 only by choice (S8).
    pub macs: AcceptedMacs,
    /// Accepted PBM iteration counts (P4).
    pub pbm_iterations: RangeInclusive<u32>,
    /// Accepted rounds of PBKDF2 in PBMAC1 (P4).
    pub pbkdf2_iterations: RangeInclusive<u32>,
    /// Accepted signature algorithms.
    pub signatures: AcceptedSignatures,
    /// Trust anchors for signed answers (S10), roots or issuing CAs.
    pub anchors: Vec<Certificate>,
    /// Anchors that the issued certificate must lead to (V10); empty: `anchors`, and under MAC without these the
    /// CA certificates of the response (V11).
    pub enrolment_anchors: Vec<Certificate>,
    /// Certificates that verify the answer: a signer that equals one of them is authorised without a chain (S9); they
    /// also count as anchors, and a cmcCA or cmcRA signer issued by one of them is authorised.
    pub verification_certificates: Vec<Certificate>,
    /// Helpers for chain building, never anchors.
    pub untrusted: Vec<Certificate>,
    /// The name that signs answers (V6); `None`: the recipient of the request.
    pub expected_signer: Option<Name>,
    /// Accept a signer whose key usage lacks digitalSignature (P11): some CAs sign with such a key.
    pub ignore_key_usage: bool,
    /// What happens when the CA changed subject or alternative names (V9).
    pub modifications: Modifications,
    /// The whole transaction ends after this many seconds (W4).
    pub total_seconds: u64,
    /// Begin once more with a new transactionID when the server says transactionIdInUse (E4). Only for a caller who posts
    /// each message once: to a repeated request the same words say that the first one may have been granted.
    pub retry_id_in_use: bool,
    /// Opens a certificate that was encrypted to the requested key; without it such a one is refused by name (S24a).
    pub decrypter: Option<Arc<dyn Decrypter>>,
}

/// What happens when the CA changed subject or alternative names (V9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Modifications {
    /// Take the certificate and say nothing of it.
    Accept,
    /// Take the certificate and warn.
    Warn,
    /// Reject the certificate.
    Refuse,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            macs: AcceptedMacs::strong(),
            pbm_iterations: ACCEPTED_ITERATIONS,
            pbkdf2_iterations: ACCEPTED_PBKDF2_ITERATIONS,
            signatures: AcceptedSignatures::default(),
            anchors: Vec::new(),
            enrolment_anchors: Vec::new(),
            verification_certificates: Vec::new(),
            untrusted: Vec::new(),
            expected_signer: None,
            ignore_key_usage: false,
            modifications: Modifications::Warn,
            total_seconds: 7 * 24 * 3600,
            retry_id_in_use: false,
            decrypter: None,
        }
    }
}

/// How an answer was authenticated.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// By our secret.
    Mac {
        weak: bool,
        /// senderKID is there and names something else than our reference (V5; OpenSSL's server does that).
        other_reference: bool,
    },
    /// By an authorised signer.
    Signature,
}

/// Authenticates an answer; `kept` are certificates of earlier answers of the transaction (X4).
pub(crate) fn authenticate(
    message: &PkiMessage,
    credentials: &Credentials,
    acceptance: &Acceptance,
    recipient: &Name,
    kept: &[Certificate],
    now: Timestamp,
) -> Result<Proof, MessageError> {
    check::protected(message)?;
    if !mac::is_mac(message) {
        // P12: also in answer to a MAC, but then by configured trust only, which is all that is looked at here
        return signed(message, acceptance, recipient, kept, now).map(|()| Proof::Signature);
    }
    let Credentials::Mac { reference, secret, .. } = credentials else {
        return Err(MessageError::WrongIntegrity { expected: "a signature", got: "a MAC" });
    };
    let bounds = Iterations { pbm: &acceptance.pbm_iterations, pbkdf2: &acceptance.pbkdf2_iterations };
    let used = mac::verify(message, secret, &acceptance.macs, bounds)?;
    let kid = PkiHeader::octets(message.header.sender_kid.as_ref());
    let other_reference = !kid.is_empty() && kid != reference.as_slice();
    Ok(Proof::Mac { weak: used.weak_allowed, other_reference })
}

fn signed(
    message: &PkiMessage,
    acceptance: &Acceptance,
    recipient: &Name,
    kept: &[Certificate],
    now: Timestamp,
) -> Result<(), MessageError> {
    acceptance.signatures.check(message)?;
    let helpers = helpers(message, acceptance, kept);
    let configured = acceptance.verification_certificates.iter().chain(&acceptance.anchors);
    find_signer(message, configured.chain(&helpers), |signer| may_answer(signer, &helpers, acceptance, recipient, now))
        .map(|_signer| ())
}

fn may_answer(
    signer: &Certificate,
    helpers: &[Certificate],
    acceptance: &Acceptance,
    recipient: &Name,
    now: Timestamp,
) -> Result<(), MessageError> {
    authorised(signer, acceptance, recipient)?;
    let name = shown(&signer.subject());
    if !acceptance.ignore_key_usage && !signer.allows_digital_signature() {
        return Err(MessageError::SignerKeyUsage { signer: name });
    }
    if acceptance.verification_certificates.contains(signer) {
        if signer.is_valid_at(now) {
            return Ok(());
        }
        let detail =
            format!("the verification certificate is valid from {} to {}", signer.not_before(), signer.not_after());
        return Err(MessageError::SignerUntrusted { signer: name, detail });
    }
    let anchors = [acceptance.anchors.as_slice(), &acceptance.verification_certificates].concat();
    chain::verify_signer(signer, helpers, &anchors, now)
        .map_err(|error| MessageError::SignerUntrusted { signer: name, detail: shown(&error) })
}

/// extraCerts that can be read, kept ones and configured ones.
fn helpers(message: &PkiMessage, acceptance: &Acceptance, kept: &[Certificate]) -> Vec<Certificate> {
    let mut helpers = acceptance.certificates(&message.extra_certs);
    helpers.extend(kept.iter().chain(&acceptance.untrusted).cloned());
    helpers
}

/// The certificates of a list that can be read; others do not help.
pub(crate) fn certificates(list: &[RawSequence]) -> Vec<Certificate> {
    list.iter().filter_map(|raw| raw.to_tlv().ok()).filter_map(|der| Certificate::from_der(&der).ok()).collect()
}

impl Acceptance {
    /// The certificates of a list that can be read. Those that we have already, as CAs like to send their own, are not
    /// read once more: that is a fifth of what an answer costs beside its cryptography.
    pub(crate) fn certificates(&self, list: &[RawSequence]) -> Vec<Certificate> {
        let lists = [&self.enrolment_anchors, &self.anchors, &self.verification_certificates, &self.untrusted];
        let read = |der: Vec<u8>| {
            let known = lists.into_iter().flatten().find(|known| known.as_der() == der).cloned();
            known.or_else(|| Certificate::from_der(&der).ok())
        };
        list.iter().filter_map(|raw| raw.to_tlv().ok()).filter_map(read).collect()
    }
}

/// Most certificates of one key that are judged: a certificate and its renewals by the same key, say.
const MAX_SIGNERS: usize = 8;

/// V4: a certificate whose subject is the sender, whose key made the signature and which `judge` takes; senderKID
/// narrows the choice. One key can have several certificates, an expired one among them, so the first is not the last.
pub(crate) fn find_signer<'a>(
    message: &PkiMessage,
    candidates: impl Iterator<Item = &'a Certificate>,
    judge: impl Fn(&Certificate) -> Result<(), MessageError>,
) -> Result<Certificate, MessageError> {
    let sender = directory_name_der(&message.header.sender).and_then(|der| Name::from_der(der).ok());
    let unknown = |sender: &str| MessageError::SignerUnknown { sender: sender.to_owned() };
    let sender = sender.ok_or_else(|| unknown("(not a directory name)"))?;
    let kid = PkiHeader::octets(message.header.sender_kid.as_ref());
    let fits = |certificate: &&Certificate| {
        certificate.subject().says_the_same_as(&sender)
            && (kid.is_empty() || certificate.subject_key_id().is_none_or(|identifier| identifier == kid))
    };
    let mut refused = unknown(&shown(&sender));
    let mut judged: Vec<&Certificate> = Vec::new();
    for candidate in candidates.filter(fits) {
        if judged.contains(&candidate) {
            continue;
        }
        match signature::verify(message, candidate) {
            Ok(()) => {
                match judge(candidate) {
                    Ok(()) => return Ok(candidate.clone()),
                    Err(error) => refused = error,
                }
                judged.push(candidate);
                if judged.len() == MAX_SIGNERS {
                    break;
                }
            }
            Err(error) if judged.is_empty() => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// V6: any sibling device's certificate chains to the same anchor, so the signer must be more than that.
fn authorised(signer: &Certificate, acceptance: &Acceptance, recipient: &Name) -> Result<(), MessageError> {
    let ca = acceptance.expected_signer.as_ref().unwrap_or(recipient);
    let pinned = acceptance.verification_certificates.contains(signer);
    let named = !ca.is_null() && signer.subject().says_the_same_as(ca);
    let delegated = signer.extended_key_usages().iter().any(|usage| [oids::CMC_CA, oids::CMC_RA].contains(usage)) && {
        let issuer = signer.issuer();
        let configured = acceptance.anchors.iter().chain(&acceptance.verification_certificates);
        issuer.says_the_same_as(ca)
            || issuer.says_the_same_as(recipient)
            || configured.into_iter().any(|anchor| anchor.subject() == issuer)
    };
    if pinned || named || delegated {
        return Ok(());
    }
    Err(MessageError::SignerNotAuthorised { signer: shown(&signer.subject()), ca: ca.to_string() })
}
