//! The server's answers: ip, cp, kup, rp, genp, pkiConf, pollRep and error, protected as the server can.

use std::{fmt, sync::Arc};

use der::asn1::Int;
use jiff::Timestamp;
use trustfleet_pki::{certificate::Certificate, name::Name};
use zeroize::Zeroizing;

use super::{Rejected, ReplyTo};
use crate::{
    CmpError,
    codec::{
        CertId, CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair, ErrorMsgContent, FailureBit,
        InfoTypeAndValue, PeerText, PkiBody, PkiHeader, PkiStatus, PkiStatusInfo, PollRep, RawSequence,
        header::CMP2000, raw::directory_name, response::RevRepContent,
    },
    entropy::{Entropy, fresh},
    error::LocalError,
    key::Signer,
    protection::{MacPolicy, Sealer, mac::PbmKey},
    request::{HeaderFields, RequestKind, header},
};

/// What to answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// ip, cp or kup with a certificate.
    Granted {
        /// Of the request.
        kind: RequestKind,
        /// Of the request.
        cert_req_id: i64,
        /// What was issued.
        certificate: Certificate,
        /// grantedWithMods instead of accepted.
        with_mods: bool,
        /// CA certificates for caPubs.
        ca_pubs: Vec<Certificate>,
        /// Certificates for extraCerts.
        extra_certs: Vec<Certificate>,
        /// Grant the implicit confirmation; only when it was asked for (H13).
        implicit_confirm: bool,
    },
    /// ip, cp, kup or rp with a rejection; to a genm an error.
    Refused {
        /// Of the request.
        kind: RequestKind,
        /// Of the request.
        cert_req_id: i64,
        /// Why.
        failure: Vec<FailureBit>,
        /// In words.
        text: String,
    },
    /// ip, cp or kup with waiting (W1); to rr and genm an error that says so (W2).
    Waiting {
        /// Of the request.
        kind: RequestKind,
        /// Of the request.
        cert_req_id: i64,
    },
    /// pkiConf.
    PkiConf,
    /// pollRep (W3).
    PollRep {
        /// Of the pollReq.
        cert_req_id: i64,
        /// Seconds.
        check_after: i64,
        /// In words; may be empty.
        reason: String,
    },
    /// error with a rejection.
    Error {
        /// Why.
        failure: Vec<FailureBit>,
        /// In words.
        text: String,
    },
    /// error with waiting, in answer to anything (W2).
    ErrorWaiting,
    /// rp.
    Revoked {
        /// accepted, or a warning (E6).
        status: PkiStatus,
        /// Issuer of the certificate, for revCerts.
        issuer: Name,
        /// Content octets of its serial number.
        serial: Vec<u8>,
        /// DER CRLs.
        crls: Vec<Vec<u8>>,
    },
    /// genp.
    Info(Vec<InfoTypeAndValue>),
    /// Any body: for a server that misbehaves.
    Body(Box<PkiBody>),
}

impl Answer {
    /// The error that fits a rejected message.
    pub fn error_for(rejected: &Rejected) -> Self {
        Self::Error { failure: vec![rejected.error.failure_bit()], text: rejected.error.to_string() }
    }
}

/// How an answer is protected.
#[derive(Clone)]
pub enum ReplyProtection {
    /// By the client's secret.
    Mac {
        /// senderKID.
        reference: Vec<u8>,
        /// The secret.
        secret: Zeroizing<Vec<u8>>,
        /// Hashes and iterations.
        mac: MacPolicy,
    },
    /// By the server's signature.
    Signature {
        /// The private key.
        signer: Arc<dyn Signer>,
        /// Its certificate.
        certificate: Certificate,
        /// Its chain.
        chain: Vec<Certificate>,
    },
    /// Not at all: only an error can be unprotected, and a client treats it as a diagnostic (P10).
    Nothing,
}

impl fmt::Debug for ReplyProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac { .. } => "ReplyProtection(mac, redacted)",
            Self::Signature { .. } => "ReplyProtection(signature)",
            Self::Nothing => "ReplyProtection(nothing)",
        })
    }
}

/// An answer, ready to be sent.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message.
    pub der: Vec<u8>,
    /// Its senderNonce: the client's next recipNonce.
    pub sender_nonce: Vec<u8>,
}

/// Builds and protects an answer; `sender` is the server's name, and with a signature the certificate's subject.
///
/// # Errors
/// [`CmpError::Local`] when it cannot be encoded or signed.
pub fn answer(
    to: &ReplyTo,
    answer: &Answer,
    protection: &ReplyProtection,
    sender: &Name,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Reply, CmpError> {
    answer_shaped(to, answer, protection, sender, &|_| {}, entropy, now)
}

/// As [`answer`], with a header that is changed before it is protected: for a server that misbehaves.
///
/// # Errors
/// As [`answer`].
pub fn answer_shaped(
    to: &ReplyTo,
    answer: &Answer,
    protection: &ReplyProtection,
    sender: &Name,
    shape: &dyn Fn(&mut PkiHeader),
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Reply, CmpError> {
    let (sealer, sender) = match protection {
        ReplyProtection::Mac { reference, secret, mac } => {
            let salt = fresh(entropy, "a salt")?;
            let key = PbmKey::derive(mac, secret, &salt)?;
            (Sealer::Mac { key: Arc::new(key), reference: reference.clone() }, sender.clone())
        }
        ReplyProtection::Signature { signer, certificate, chain } => {
            let sealer = Sealer::Signature {
                signer: Arc::clone(signer),
                certificate: certificate.clone(),
                chain: chain.clone(),
            };
            (sealer, certificate.subject())
        }
        ReplyProtection::Nothing => (Sealer::Nothing, sender.clone()),
    };
    let sender_nonce = fresh(entropy, "a nonce")?;
    let null = Name::null();
    let recipient = if to.sender.is_empty() { null.as_der() } else { &to.sender };
    let unread_id;
    let transaction_id = if to.transaction_id.is_empty() {
        unread_id = fresh(entropy, "a transactionID")?;
        &unread_id
    } else {
        &to.transaction_id
    };
    let (implicit_confirm, extra): (bool, &[Certificate]) = match answer {
        Answer::Granted { implicit_confirm, extra_certs, .. } => (*implicit_confirm, extra_certs),
        _ => (false, &[]),
    };
    let fields = HeaderFields {
        sender: sender.as_der(),
        recipient,
        transaction_id,
        sender_nonce: &sender_nonce,
        recip_nonce: Some(&to.sender_nonce),
        implicit_confirm,
        now,
    };
    let body = body(answer).map_err(LocalError::encoding("an answer"))?;
    let mut header = header(&fields, CMP2000)?;
    shape(&mut header);
    let der = sealer.seal(header, body, extra)?;
    Ok(Reply { der, sender_nonce })
}

fn body(answer: &Answer) -> der::Result<PkiBody> {
    let response = |kind, ca_pubs: &[Certificate], response| -> der::Result<PkiBody> {
        let ca_pubs: Vec<RawSequence> =
            ca_pubs.iter().map(|ca| RawSequence::from_tlv(ca.as_der())).collect::<der::Result<_>>()?;
        let message = CertRepMessage { ca_pubs: (!ca_pubs.is_empty()).then_some(ca_pubs), response: vec![response] };
        Ok(match kind {
            RequestKind::Cr | RequestKind::P10cr => PkiBody::Cp(message),
            RequestKind::Kur => PkiBody::Kup(message),
            _ => PkiBody::Ip(message),
        })
    };
    let plain = |cert_req_id, status| CertResponse { cert_req_id, status, certified_key_pair: None, rsp_info: None };
    let error = |status_info| PkiBody::Error(ErrorMsgContent { status_info, error_code: None, error_details: None });
    match answer {
        Answer::Refused { kind: RequestKind::Genm, failure, text, .. } => {
            Ok(error(PkiStatusInfo::rejection(failure, text)))
        }
        Answer::Refused { kind: RequestKind::Rr, failure, text, .. } => Ok(PkiBody::Rp(RevRepContent {
            status: vec![PkiStatusInfo::rejection(failure, text)],
            rev_certs: None,
            crls: None,
        })),
        Answer::Waiting { kind: RequestKind::Rr | RequestKind::Genm, .. } => {
            Ok(error(PkiStatusInfo::plain(PkiStatus::Waiting)))
        }
        Answer::Revoked { status, issuer, serial, crls } => {
            let id = CertId { issuer: directory_name(issuer.as_der())?, serial_number: Int::new(serial)? };
            let crls = crls.iter().map(|crl| RawSequence::from_tlv(crl)).collect::<der::Result<Vec<_>>>()?;
            Ok(PkiBody::Rp(RevRepContent {
                status: vec![PkiStatusInfo::plain(*status)],
                rev_certs: Some(vec![id]),
                crls: (!crls.is_empty()).then_some(crls),
            }))
        }
        Answer::Info(infos) => Ok(PkiBody::Genp(infos.clone())),
        Answer::Body(body) => Ok(body.as_ref().clone()),
        Answer::Granted { kind, cert_req_id, certificate, with_mods, ca_pubs, .. } => {
            let status = if *with_mods { PkiStatus::GrantedWithMods } else { PkiStatus::Accepted };
            let certificate = CertOrEncCert::Certificate(RawSequence::from_tlv(certificate.as_der())?);
            let pair = CertifiedKeyPair { cert_or_enc_cert: certificate, private_key: None, publication_info: None };
            let granted = plain(*cert_req_id, PkiStatusInfo::plain(status));
            response(*kind, ca_pubs, CertResponse { certified_key_pair: Some(pair), ..granted })
        }
        Answer::Refused { kind, cert_req_id, failure, text } => {
            response(*kind, &[], plain(*cert_req_id, PkiStatusInfo::rejection(failure, text)))
        }
        Answer::Waiting { kind, cert_req_id } => {
            response(*kind, &[], plain(*cert_req_id, PkiStatusInfo::plain(PkiStatus::Waiting)))
        }
        Answer::PkiConf => Ok(PkiBody::PkiConf),
        Answer::PollRep { cert_req_id, check_after, reason } => Ok(PkiBody::PollRep(vec![PollRep {
            cert_req_id: *cert_req_id,
            check_after: *check_after,
            reason: (!reason.is_empty()).then(|| vec![PeerText::new(reason)]),
        }])),
        Answer::Error { failure, text } => Ok(error(PkiStatusInfo::rejection(failure, text))),
        Answer::ErrorWaiting => Ok(error(PkiStatusInfo::plain(PkiStatus::Waiting))),
    }
}
