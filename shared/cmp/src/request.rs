//! What the client says: ir, cr, kur, p10cr, certConf, pollReq and error, built from plain values. What rr and genm say
//! is in [`crate::revoke`] and [`crate::info`].
//!
//! It only builds. Whether a request makes sense is checked by [`EnrollRequest::check`] before anything is sent
//! (S32); the order of name parts is never touched (H7, S5).

use std::{fmt, sync::Arc, time::Duration};

use der::{
    DateTime, Encode,
    asn1::{Any, BitString, GeneralizedTime, Int, OctetString, UtcTime},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;
use trustfleet_pki::{
    certificate::Certificate,
    digest::{HashAlgorithm, digest_for_signature},
    name::Name,
    san::{San, extension_value},
};
use x509_cert::{ext::Extension, time::Time};
use zeroize::Zeroizing;

use crate::{
    codec::{
        BodyKind, CertId, CertReqMsg, CertRequest, CertStatus, CertTemplate, ErrorMsgContent, FailureBit,
        InfoTypeAndValue, PkiBody, PkiHeader, PkiStatusInfo, PollReq, ProofOfPossession, RawSequence, TimeText,
        header::{CMP2000, CMP2021},
        oids,
        raw::directory_name,
        request::{Control, OptionalValidity, PopoSigningKey},
    },
    csr::Csr,
    error::{ConfigurationError, LocalError},
    info::InfoRequest,
    key::Signer,
    protection::MacPolicy,
    revoke::RevokeRequest,
};

/// The certReqId of our only request (R1).
pub(crate) const CERT_REQ_ID: i64 = 0;

/// The certReqId of a p10cr, which has none itself (R7), and of polling for what is no certificate (W2).
pub(crate) const NO_CERT_REQ_ID: i64 = -1;

/// What is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Initialization request: the first certificate from this PKI (R10).
    Ir,
    /// Certification request: another certificate from a PKI that knows the entity (R10).
    Cr,
    /// Key update request: replaces a certificate that is still valid (R6).
    Kur,
    /// A certificate for a PKCS #10 request that somebody else's key made (R7).
    P10cr,
    /// Revocation request (R8).
    Rr,
    /// General message: a question (R9).
    Genm,
}

impl RequestKind {
    /// The body that asks.
    pub const fn request(self) -> BodyKind {
        match self {
            Self::Ir => BodyKind::Ir,
            Self::Cr => BodyKind::Cr,
            Self::Kur => BodyKind::Kur,
            Self::P10cr => BodyKind::P10cr,
            Self::Rr => BodyKind::Rr,
            Self::Genm => BodyKind::Genm,
        }
    }

    /// The body that answers.
    pub const fn response(self) -> BodyKind {
        match self {
            Self::Ir => BodyKind::Ip,
            Self::Cr => BodyKind::Cp,
            Self::Kur => BodyKind::Kup,
            Self::P10cr => BodyKind::Cp,
            Self::Rr => BodyKind::Rp,
            Self::Genm => BodyKind::Genp,
        }
    }

    /// Is a certificate asked for? Only then is there something to confirm.
    pub const fn is_enrolment(self) -> bool {
        matches!(self, Self::Ir | Self::Cr | Self::Kur | Self::P10cr)
    }

    /// certReqId of the request, of its answer and of certConf (R1, R7).
    pub const fn cert_req_id(self) -> i64 {
        match self {
            Self::Ir | Self::Cr | Self::Kur => CERT_REQ_ID,
            Self::P10cr | Self::Rr | Self::Genm => NO_CERT_REQ_ID,
        }
    }
}

/// Everything that a transaction can be about.
#[derive(Clone, Debug)]
pub enum Request {
    /// ir, cr or kur, with the key to be certified: it makes the proof of possession.
    Enroll(Box<EnrollRequest>, Arc<dyn Signer>),
    /// p10cr.
    P10(Box<P10Request>),
    /// rr.
    Revoke(Box<RevokeRequest>),
    /// genm.
    Info(Box<InfoRequest>),
}

/// A request for the certificate of a PKCS #10 request (R7).
#[derive(Clone, Debug)]
pub struct P10Request {
    /// Sent as it is; its signature is the proof of possession.
    pub csr: Csr,
    /// The CA or RA as it is known (H7).
    pub recipient: Name,
    /// Sender in MAC mode, as in [`EnrollRequest`].
    pub sender: Option<Name>,
    /// Ask that no confirmation be needed (H13); the server decides (C1, C2).
    pub implicit_confirm: bool,
    /// Name of the certificate profile asked for (H15).
    pub cert_profile: Option<String>,
    /// More certificates for extraCerts, behind the signer's own.
    pub extra_certs: Vec<Certificate>,
}

/// A request for one certificate.
#[derive(Clone, Debug)]
pub struct EnrollRequest {
    /// ir, cr or kur.
    pub kind: RequestKind,
    /// The subject; NULL-DN only together with `sans` (R2). In a kur NULL-DN means: as in the old certificate.
    pub subject: Name,
    /// Alternative names asked for.
    pub sans: Vec<San>,
    /// The CA or RA as it is known (H7).
    pub recipient: Name,
    /// Sender in MAC mode; without it the reference value becomes the common name (H4). With a signature the sender
    /// is always the subject of the signing certificate (H3).
    pub sender: Option<Name>,
    /// kur only: the certificate to replace.
    pub old_certificate: Option<Certificate>,
    /// Ask that no confirmation be needed (H13); the server decides (C1, C2).
    pub implicit_confirm: bool,
    /// More certificates for extraCerts, behind the signer's own.
    pub extra_certs: Vec<Certificate>,
    /// More extensions for the template, alternative names only where `sans` is empty.
    pub extensions: Vec<Extension>,
    /// Name of the certificate profile asked for (H15).
    pub cert_profile: Option<String>,
    /// Validity asked for; a CA may give another.
    pub validity: Option<Validity>,
}

/// When a certificate shall be valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// From this second on.
    pub not_before: Timestamp,
    /// Until this second.
    pub not_after: Timestamp,
}

impl Validity {
    /// So many days from a moment on; `None` beyond the calendar.
    pub fn days_from(now: Timestamp, days: u32) -> Option<Self> {
        let span = SignedDuration::from_hours(24 * i64::from(days));
        Some(Self { not_before: now, not_after: now.checked_add(span).ok()? })
    }

    fn to_template(self) -> der::Result<OptionalValidity> {
        Ok(OptionalValidity { not_before: Some(time(self.not_before)?), not_after: Some(time(self.not_after)?) })
    }
}

/// UTCTime until 2049, GeneralizedTime afterwards (RFC 5280 section 4.1.2.5).
fn time(at: Timestamp) -> der::Result<Time> {
    let seconds = u64::try_from(at.as_second()).map_err(|_| der::Tag::GeneralizedTime.value_error())?;
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds))?;
    Ok(match UtcTime::from_date_time(date) {
        Ok(time) => Time::UtcTime(time),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_date_time(date)),
    })
}

impl EnrollRequest {
    /// Finds what cannot work before anything is sent, and completes the subject of a kur.
    pub(crate) fn check(mut self, credentials: &Credentials, now: Timestamp) -> Result<Self, ConfigurationError> {
        credentials.check(now)?;
        if !matches!(self.kind, RequestKind::Ir | RequestKind::Cr | RequestKind::Kur) {
            return Err(ConfigurationError::KindNeedsItsOwnRequest { kind: self.kind.request() });
        }
        let has_names = |extension: &Extension| extension.extn_id == oids::SUBJECT_ALT_NAME;
        let more_names = self.extensions.iter().any(has_names);
        if more_names && !self.sans.is_empty() {
            let detail = "they are given as an extension as well".to_owned();
            return Err(ConfigurationError::Name { field: "sans", detail });
        }
        if self.kind == RequestKind::Kur {
            let Credentials::Signature { certificate, .. } = credentials else {
                return Err(ConfigurationError::UpdateNeedsSignature);
            };
            let old = self.old_certificate.as_ref().ok_or(ConfigurationError::OldCertificateMissing)?;
            if old != certificate {
                return Err(ConfigurationError::SignerIsNotOldCertificate);
            }
            if self.subject.is_null() || self.subject.says_the_same_as(&old.subject()) {
                self.subject = old.subject(); // with its string types: CAs compare bytes
            } else {
                let (asked, held) = (self.subject.to_string(), old.subject().to_string());
                return Err(ConfigurationError::UpdateChangesSubject { asked, held });
            }
        }
        if self.subject.is_null() && self.sans.is_empty() && !more_names {
            return Err(ConfigurationError::SubjectMissing);
        }
        Ok(self)
    }

    /// DER GeneralNames of the alternative names; empty without any.
    pub(crate) fn san_der(&self) -> Result<Vec<u8>, ConfigurationError> {
        if self.sans.is_empty() {
            let names = self.extensions.iter().find(|extension| extension.extn_id == oids::SUBJECT_ALT_NAME);
            return Ok(names.map(|extension| extension.extn_value.as_bytes().to_vec()).unwrap_or_default());
        }
        let name = |detail| ConfigurationError::Name { field: "sans", detail };
        extension_value(&self.sans).map_err(|error| name(error.to_string()))
    }

    /// The body: one CertReqMsg with the proof of possession by `key` (R1 to R6).
    pub(crate) fn body(&self, key: &dyn Signer) -> Result<PkiBody, crate::CmpError> {
        let encoding = |error| crate::CmpError::from(LocalError::encoding("a certificate request")(error));
        let template = CertTemplate {
            validity: self.validity.map(Validity::to_template).transpose().map_err(encoding)?,
            subject: Some(RawSequence::from_tlv(self.subject.as_der()).map_err(encoding)?),
            public_key: Some(RawSequence::from_tlv(key.public_key_der()).map_err(encoding)?),
            extensions: self.extensions()?,
            ..CertTemplate::default()
        };
        let controls = match &self.old_certificate {
            Some(old) if self.kind == RequestKind::Kur => Some(vec![old_cert_id(old).map_err(encoding)?]),
            _ => None,
        };
        let cert_req = CertRequest { cert_req_id: CERT_REQ_ID, cert_template: template, controls };
        let cert_req = cert_req.to_der().map_err(encoding)?;
        let signature = key.sign(&cert_req).map_err(|error| LocalError::Signing { detail: error.0 })?;
        let popo = PopoSigningKey {
            poposk_input: None,
            algorithm: key.algorithm(),
            signature: BitString::from_bytes(&signature).map_err(encoding)?,
        };
        let message = CertReqMsg {
            cert_req: RawSequence::from_tlv(&cert_req).map_err(encoding)?,
            popo: Some(ProofOfPossession::Signature(popo)),
            reg_info: None,
        };
        Ok(match self.kind {
            RequestKind::Cr => PkiBody::Cr(vec![message]),
            RequestKind::Kur => PkiBody::Kur(vec![message]),
            _ => PkiBody::Ir(vec![message]),
        })
    }

    fn extensions(&self) -> Result<Option<RawSequence>, crate::CmpError> {
        let encoding = LocalError::encoding("extensions");
        let encode = || -> der::Result<Option<RawSequence>> {
            let mut extensions = self.extensions.clone();
            if !self.sans.is_empty() {
                let value = self.san_der().map_err(|_| der::Tag::Sequence.value_error())?;
                // RFC 5280 section 4.2.1.6: critical when the subject is empty
                let critical = self.subject.is_null();
                let extn_value = OctetString::new(value)?;
                extensions.insert(0, Extension { extn_id: oids::SUBJECT_ALT_NAME, critical, extn_value });
            }
            if extensions.is_empty() {
                return Ok(None);
            }
            RawSequence::from_tlv(&extensions.to_der()?).map(Some)
        };
        Ok(encode().map_err(encoding)?)
    }
}

fn old_cert_id(old: &Certificate) -> der::Result<Control> {
    let id =
        CertId { issuer: directory_name(old.issuer().as_der())?, serial_number: Int::new(old.serial_der_bytes())? };
    Ok(Control { id: oids::OLD_CERT_ID, value: Any::encode_from(&id)? })
}

/// By what the messages of a transaction are protected, from the first to the last (P7).
#[derive(Clone)]
pub enum Credentials {
    /// A shared secret (S11 to S13).
    Mac {
        /// Names the secret at the CA; sent as senderKID.
        reference: Vec<u8>,
        /// The secret; under 128 bits of strength it can be found by trial from one recorded message.
        secret: Zeroizing<Vec<u8>>,
        /// Hashes and iteration count that we send.
        mac: MacPolicy,
    },
    /// A certificate with its key (S14).
    Signature {
        /// The private key.
        signer: Arc<dyn Signer>,
        /// The certificate of that key.
        certificate: Certificate,
        /// Its chain, each certifying the one before (X2).
        chain: Vec<Certificate>,
    },
}

impl Credentials {
    /// The sender of the messages (H3 to H5); `configured` counts in MAC mode only.
    pub(crate) fn sender(&self, configured: Option<&Name>) -> Name {
        match self {
            Self::Signature { certificate, .. } => certificate.subject(),
            Self::Mac { reference, .. } => configured.cloned().unwrap_or_else(|| {
                let text = std::str::from_utf8(reference).ok();
                text.and_then(|text| Name::of_common_name(text).ok()).unwrap_or_else(Name::null)
            }),
        }
    }

    /// A guessable secret can be found by trial from one recorded message.
    pub(crate) fn secret_is_short(&self) -> bool {
        matches!(self, Self::Mac { secret, .. } if secret.len() < 16)
    }

    pub(crate) fn check(&self, now: Timestamp) -> Result<(), ConfigurationError> {
        match self {
            Self::Mac { reference, secret, mac } => {
                if reference.is_empty() {
                    return Err(ConfigurationError::ReferenceEmpty);
                }
                if secret.is_empty() {
                    return Err(ConfigurationError::SecretEmpty);
                }
                mac.check()
            }
            Self::Signature { signer, certificate, .. } => {
                let subject = certificate.subject().to_string();
                if certificate.spki_der() != signer.public_key_der() {
                    return Err(ConfigurationError::KeyIsNotTheCertificates { subject });
                }
                if certificate.not_after() < now {
                    let not_after = certificate.not_after().to_string();
                    return Err(ConfigurationError::SignerExpired { subject, not_after });
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac { reference, mac, .. } => f
                .debug_struct("Mac")
                .field("reference", &String::from_utf8_lossy(reference))
                .field("secret", &"redacted")
                .field("mac", mac)
                .finish(),
            Self::Signature { certificate, .. } => f
                .debug_struct("Signature")
                .field("certificate", &certificate.subject().to_string())
                .finish_non_exhaustive(),
        }
    }
}

/// The fields of a header that differ from message to message.
pub(crate) struct HeaderFields<'a> {
    pub(crate) sender: &'a [u8],
    pub(crate) recipient: &'a [u8],
    pub(crate) transaction_id: &'a [u8],
    pub(crate) sender_nonce: &'a [u8],
    pub(crate) recip_nonce: Option<&'a [u8]>,
    pub(crate) implicit_confirm: bool,
    pub(crate) now: Timestamp,
}

/// A header without protection (H1 to H13).
pub(crate) fn header(fields: &HeaderFields<'_>, pvno: u64) -> Result<PkiHeader, LocalError> {
    let build = || -> der::Result<PkiHeader> {
        Ok(PkiHeader {
            pvno,
            sender: directory_name(fields.sender)?,
            recipient: directory_name(fields.recipient)?,
            message_time: Some(TimeText::from_timestamp(fields.now)),
            protection_alg: None,
            sender_kid: None,
            recip_kid: None,
            transaction_id: Some(OctetString::new(fields.transaction_id)?),
            sender_nonce: Some(OctetString::new(fields.sender_nonce)?),
            recip_nonce: fields.recip_nonce.filter(|nonce| !nonce.is_empty()).map(OctetString::new).transpose()?,
            free_text: None,
            general_info: fields.implicit_confirm.then(|| vec![InfoTypeAndValue::implicit_confirm()]),
        })
    };
    build().map_err(LocalError::encoding("a header"))
}

/// certConf for a certificate, and the pvno that it needs (C3 to C7).
pub(crate) fn cert_conf(
    certificate: &Certificate,
    cert_req_id: i64,
    rejection: Option<&str>,
) -> Result<(PkiBody, u64), LocalError> {
    let hash = digest_for_signature(&certificate.signature_algorithm());
    let (hash, named) = hash.map_or((HashAlgorithm::Sha256, false), |hash| (hash, true));
    let status = CertStatus {
        cert_hash: OctetString::new(hash.digest(certificate.as_der())).map_err(LocalError::encoding("a certHash"))?,
        cert_req_id,
        status_info: rejection.map(|text| PkiStatusInfo::rejection(&[FailureBit::IncorrectData], text)),
        hash_alg: (!named).then(|| AlgorithmIdentifierOwned { oid: hash.oid(), parameters: None }),
    };
    Ok((PkiBody::CertConf(vec![status]), if named { CMP2000 } else { CMP2021 }))
}

/// pollReq for one certReqId (W1, W2).
pub(crate) fn poll_req(cert_req_id: i64) -> PkiBody {
    PkiBody::PollReq(vec![PollReq { cert_req_id }])
}

/// error with one failInfo bit and a text (E1, E5).
pub(crate) fn error(bit: FailureBit, text: &str) -> PkiBody {
    PkiBody::Error(ErrorMsgContent {
        status_info: PkiStatusInfo::rejection(&[bit], text),
        error_code: None,
        error_details: None,
    })
}
