//! Errors by culprit: our configuration, this machine, the peer's message, the certificate that came, the peer's
//! refusal, or an end that we chose. Transport errors belong to the shell around this crate.
//!
//! Every error has a stable snake_case code ([`CmpError::code`]) and there is one map to PKIFailureInfo
//! ([`CmpError::failure_bit`]) for telling the peer. Texts of peers appear in them only after [`crate::text`].

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trustfleet_pki::certificate::Certificate;

use crate::codec::{
    BodyKind, DecodeError,
    status::{FailureBit, PkiStatus},
};

/// Why a transaction did not start or did not end with a certificate.
#[derive(Clone, Debug, Error)]
pub enum CmpError {
    /// What we were told to do cannot be done: nothing was sent because of it.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// This machine failed: randomness, signing, encoding.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The peer's message is malformed, does not belong to this transaction, or is not authentic.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer issued a certificate that does not fit the request; it must not be used.
    #[error(transparent)]
    Certificate(Box<UnfitCertificate>),
    /// The peer refused.
    #[error(transparent)]
    Refused(Box<PeerRefusal>),
    /// We ended it ourselves.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl CmpError {
    /// A stable code for clients, logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Configuration(error) => error.code(),
            Self::Local(error) => error.code(),
            Self::Message(error) => error.code(),
            Self::Certificate(_) => "certificate_unfit",
            Self::Refused(refusal) if refusal.unauthenticated.is_some() => "refused_unauthenticated",
            Self::Refused(_) => "refused",
            Self::Ended(Ended::Stopped) => "stopped",
            Self::Ended(Ended::TotalTime { .. }) => "total_time_exceeded",
        }
    }

    /// The one map from our errors to what a peer is told of them (E5).
    pub const fn failure_bit(&self) -> FailureBit {
        match self {
            Self::Configuration(_) => FailureBit::BadRequest,
            Self::Local(_) => FailureBit::SystemFailure,
            Self::Message(error) => error.failure_bit(),
            Self::Certificate(_) => FailureBit::IncorrectData,
            Self::Refused(_) | Self::Ended(_) => FailureBit::BadRequest,
        }
    }
}

/// What we were told to do cannot be done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigurationError {
    /// R2.
    #[error("the subject is empty and there is no alternative name: give one of them")]
    SubjectMissing,
    /// A name or alternative name cannot be encoded.
    #[error("{field} cannot be encoded: {detail}")]
    Name {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// H6, S12.
    #[error("the MAC reference value is empty")]
    ReferenceEmpty,
    /// S13.
    #[error("the MAC secret is empty")]
    SecretEmpty,
    /// S8.
    #[error("SHA-1 is weak: allow weak algorithms explicitly to send it")]
    WeakMac,
    /// P4.
    #[error("{got} PBM iterations: between {lowest} and {highest} are sensible")]
    Iterations {
        /// Asked for.
        got: u32,
        /// At least.
        lowest: u32,
        /// At most.
        highest: u32,
    },
    /// P9.
    #[error("a kur must be signed with the certificate it replaces: use signature credentials")]
    UpdateNeedsSignature,
    /// R6.
    #[error("a kur needs the certificate that it replaces")]
    OldCertificateMissing,
    /// R6.
    #[error("a kur must be signed with the certificate it replaces, not with another one")]
    SignerIsNotOldCertificate,
    /// A change of subject is not an update.
    #[error("the subject {asked} differs from the replaced certificate's {held}: use ir or cr for another subject")]
    UpdateChangesSubject {
        /// Of the request.
        asked: String,
        /// Of the old certificate.
        held: String,
    },
    /// The signer's key is not the certificate's.
    #[error("the signing key does not belong to the certificate {subject}")]
    KeyIsNotTheCertificates {
        /// Of the certificate.
        subject: String,
    },
    /// An expired certificate cannot sign.
    #[error("the certificate {subject} expired at {not_after} and cannot sign a request: enrol anew by ir")]
    SignerExpired {
        /// Of the certificate.
        subject: String,
        /// Its end.
        not_after: String,
    },
    /// A kept transaction and what is given with it do not fit.
    #[error("this is not what the kept transaction was started with: {what}")]
    RecordMismatch {
        /// Which part.
        what: &'static str,
    },
    /// A kept transaction does not decode.
    #[error("the kept transaction cannot be read: {detail}")]
    RecordUnreadable {
        /// What is wrong.
        detail: String,
    },
    /// The shell gave a response where none was awaited.
    #[error("a response was handed in while {state}")]
    UnexpectedInput {
        /// The state.
        state: &'static str,
    },
}

impl ConfigurationError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SubjectMissing => "subject_missing",
            Self::Name { .. } => "name_invalid",
            Self::ReferenceEmpty => "mac_reference_empty",
            Self::SecretEmpty => "mac_secret_empty",
            Self::WeakMac => "weak_mac",
            Self::Iterations { .. } => "pbm_iterations_out_of_range",
            Self::UpdateNeedsSignature => "update_needs_signature",
            Self::OldCertificateMissing => "old_certificate_missing",
            Self::SignerIsNotOldCertificate => "signer_is_not_old_certificate",
            Self::UpdateChangesSubject { .. } => "update_changes_subject",
            Self::KeyIsNotTheCertificates { .. } => "key_is_not_the_certificates",
            Self::SignerExpired { .. } => "signer_expired",
            Self::RecordMismatch { .. } => "record_mismatch",
            Self::RecordUnreadable { .. } => "record_unreadable",
            Self::UnexpectedInput { .. } => "unexpected_input",
        }
    }
}

/// This machine failed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum LocalError {
    /// No randomness.
    #[error("no randomness to be had for {purpose}")]
    Entropy {
        /// What for.
        purpose: &'static str,
    },
    /// The key did not sign.
    #[error("signing failed: {detail}")]
    Signing {
        /// What the key store says.
        detail: String,
    },
    /// A message could not be encoded.
    #[error("encoding {what} failed: {detail}")]
    Encoding {
        /// What.
        what: &'static str,
        /// Why.
        detail: String,
    },
}

impl LocalError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Entropy { .. } => "entropy_failed",
            Self::Signing { .. } => "signing_failed",
            Self::Encoding { .. } => "encoding_failed",
        }
    }

    pub(crate) fn encoding(what: &'static str) -> impl FnOnce(der::Error) -> Self {
        move |error| Self::Encoding { what, detail: error.to_string() }
    }
}

/// The peer's message is malformed, does not belong here, or is not authentic.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum MessageError {
    /// V1.
    #[error("the answer is not a CMP message: {0}")]
    Malformed(#[from] DecodeError),
    /// V1, H2.
    #[error("the answer has protocol version {got}: 2 or 3 expected")]
    Version {
        /// Its pvno.
        got: u64,
    },
    /// V1.
    #[error("expected {}, got {got}", one_of(expected))]
    UnexpectedBody {
        /// What would have fitted.
        expected: Vec<BodyKind>,
        /// What came.
        got: BodyKind,
    },
    /// V2, H10.
    #[error("transactionID: expected {expected}, got {got}")]
    TransactionId {
        /// Hexadecimal.
        expected: String,
        /// Hexadecimal, or `none`.
        got: String,
    },
    /// V3, H12.
    #[error("recipNonce: expected {expected}, got {got}")]
    RecipNonce {
        /// Hexadecimal.
        expected: String,
        /// Hexadecimal, or `none`.
        got: String,
    },
    /// V3, H11.
    #[error("senderNonce of {bits} bits: at least 128 expected")]
    SenderNonce {
        /// Its length in bits; 0 when absent.
        bits: usize,
    },
    /// V7.
    #[error("certReqId: expected {expected}, got {got}")]
    CertReqId {
        /// Ours.
        expected: i64,
        /// Theirs.
        got: i64,
    },
    /// V7.
    #[error("{got} responses in one message: exactly one expected")]
    ResponseCount {
        /// How many.
        got: usize,
    },
    /// P10.
    #[error("the {body} is not protected")]
    Unprotected {
        /// Which message.
        body: BodyKind,
    },
    /// H9.
    #[error("protection and protectionAlg do not go together: one of them is missing")]
    ProtectionIncomplete,
    /// P5, S8.
    #[error("protection algorithm not accepted: {detail}")]
    Algorithm {
        /// Which, and why not.
        detail: String,
    },
    /// P4.
    #[error("{got} PBM iterations: between {lowest} and {highest} are accepted")]
    Iterations {
        /// In the message.
        got: u32,
        /// At least.
        lowest: u32,
        /// At most.
        highest: u32,
    },
    /// V5.
    #[error("the MAC does not fit: another secret, or a changed message")]
    MacMismatch,
    /// P7.
    #[error("protected by {got} where {expected} was expected")]
    WrongIntegrity {
        /// What would have fitted.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// V4.
    #[error("no certificate of the sender {sender} whose key made the signature is at hand")]
    SignerUnknown {
        /// The sender.
        sender: String,
    },
    /// V4, P10.
    #[error("the signature by {signer} does not verify: {detail}")]
    SignatureInvalid {
        /// Subject of the certificate.
        signer: String,
        /// Why.
        detail: String,
    },
    /// V4.
    #[error("the signer {signer} does not chain to a configured trust anchor: {detail}")]
    SignerUntrusted {
        /// Subject of the certificate.
        signer: String,
        /// Why.
        detail: String,
    },
    /// V6.
    #[error(
        "the signer {signer} is not authorised to act for the CA: neither the configured name or certificate, nor cmcCA or cmcRA by {ca}"
    )]
    SignerNotAuthorised {
        /// Subject of the certificate.
        signer: String,
        /// The CA that was addressed.
        ca: String,
    },
    /// P11.
    #[error("the key usage of {signer} does not allow digital signatures")]
    SignerKeyUsage {
        /// Subject of the certificate.
        signer: String,
    },
    /// V8.
    #[error("status {status:?} without a certificate")]
    CertificateMissing {
        /// Of the response.
        status: PkiStatus,
    },
    /// V8.
    #[error("status rejection together with a certificate")]
    CertificateWithRejection,
    /// S24a.
    #[error("the certificate is encrypted ({form}), which is not supported: let the CA send it in clear")]
    CertificateEncrypted {
        /// EncryptedValue or EnvelopedData.
        form: &'static str,
    },
    /// A key was sent although ours was in the request.
    #[error("the CA sent a private key that was not asked for")]
    PrivateKeySent,
    /// The certificate cannot be read.
    #[error("the certificate in the answer cannot be read: {detail}")]
    CertificateUnreadable {
        /// Why.
        detail: String,
    },
    /// W3, W4.
    #[error("checkAfter of {got} seconds: it cannot be negative")]
    CheckAfter {
        /// In the message.
        got: i64,
    },
    /// R1, R3, R4: seen by the server's half.
    #[error("certificate request not acceptable: {detail}")]
    Request {
        /// Why.
        detail: String,
        /// What to answer.
        bit: FailureBit,
    },
}

impl MessageError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "message_malformed",
            Self::Version { .. } => "version_unsupported",
            Self::UnexpectedBody { .. } => "body_unexpected",
            Self::TransactionId { .. } => "transaction_id_wrong",
            Self::RecipNonce { .. } => "recip_nonce_wrong",
            Self::SenderNonce { .. } => "sender_nonce_wrong",
            Self::CertReqId { .. } => "cert_req_id_wrong",
            Self::ResponseCount { .. } => "response_count_wrong",
            Self::Unprotected { .. } => "unprotected",
            Self::ProtectionIncomplete => "protection_incomplete",
            Self::Algorithm { .. } => "protection_algorithm_not_accepted",
            Self::Iterations { .. } => "pbm_iterations_not_accepted",
            Self::MacMismatch => "mac_mismatch",
            Self::WrongIntegrity { .. } => "wrong_integrity",
            Self::SignerUnknown { .. } => "signer_unknown",
            Self::SignatureInvalid { .. } => "signature_invalid",
            Self::SignerUntrusted { .. } => "signer_untrusted",
            Self::SignerNotAuthorised { .. } => "signer_not_authorised",
            Self::SignerKeyUsage { .. } => "signer_key_usage",
            Self::CertificateMissing { .. } => "certificate_missing",
            Self::CertificateWithRejection => "certificate_with_rejection",
            Self::CertificateEncrypted { .. } => "certificate_encrypted",
            Self::PrivateKeySent => "private_key_sent",
            Self::CertificateUnreadable { .. } => "certificate_unreadable",
            Self::CheckAfter { .. } => "check_after_absurd",
            Self::Request { .. } => "request_not_acceptable",
        }
    }

    /// What the peer is told.
    pub const fn failure_bit(&self) -> FailureBit {
        match self {
            Self::Malformed(_)
            | Self::CertificateMissing { .. }
            | Self::CertificateWithRejection
            | Self::CertificateUnreadable { .. }
            | Self::CertificateEncrypted { .. }
            | Self::CheckAfter { .. } => FailureBit::BadDataFormat,
            Self::Version { .. } => FailureBit::UnsupportedVersion,
            Self::UnexpectedBody { .. }
            | Self::TransactionId { .. }
            | Self::CertReqId { .. }
            | Self::ResponseCount { .. }
            | Self::PrivateKeySent => FailureBit::BadRequest,
            Self::RecipNonce { .. } => FailureBit::BadRecipientNonce,
            Self::SenderNonce { .. } => FailureBit::BadSenderNonce,
            Self::Unprotected { .. }
            | Self::ProtectionIncomplete
            | Self::MacMismatch
            | Self::SignatureInvalid { .. } => FailureBit::BadMessageCheck,
            Self::Algorithm { .. } | Self::Iterations { .. } => FailureBit::BadAlg,
            Self::WrongIntegrity { .. } => FailureBit::WrongIntegrity,
            Self::SignerUnknown { .. } | Self::SignerUntrusted { .. } => FailureBit::SignerNotTrusted,
            Self::SignerNotAuthorised { .. } | Self::SignerKeyUsage { .. } => FailureBit::NotAuthorized,
            Self::Request { bit, .. } => *bit,
        }
    }
}

/// The certificate that came does not fit what was asked for (V9, V10).
#[derive(Clone, Debug, Error)]
#[error("the certificate {} does not fit the request: {}; it is not used{}", .certificate.serial_hex(), join(.reasons), if *.rejection_confirmed { " and was rejected at the CA" } else { "; it may be valid at the CA: revoke it there" })]
pub struct UnfitCertificate {
    /// All that is wrong with it.
    pub reasons: Vec<Unfit>,
    /// The certificate; an orphan that should be revoked (C7: some CAs leave it valid).
    pub certificate: Certificate,
    /// The CA has confirmed our rejection by pkiConf.
    pub rejection_confirmed: bool,
}

/// One way not to fit.
#[derive(Clone, Debug, Deserialize, Eq, Error, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unfit {
    /// V9.
    #[error("its public key is not the one requested")]
    PublicKey,
    /// V9, only where modifications are refused.
    #[error("its subject is {got}, asked for was {asked}")]
    Subject {
        /// Requested.
        asked: String,
        /// Issued.
        got: String,
    },
    /// V9, only where modifications are refused.
    #[error("{missing} of the alternative names asked for are missing")]
    AlternativeNames {
        /// How many.
        missing: usize,
    },
    /// V10.
    #[error("it does not chain to a configured enrolment anchor: {detail}")]
    Chain {
        /// Why.
        detail: String,
    },
}

/// The peer said no (E2, E3), read in full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRefusal {
    /// The message that carried it.
    pub body: BodyKind,
    /// Its status.
    pub status: PkiStatus,
    /// Every failInfo bit that has a name, in the order of the numbers.
    pub failure: Vec<FailureBit>,
    /// failInfo as text, unknown bits included; empty when absent.
    pub failure_text: String,
    /// statusString and errorDetails, harmless but untrusted.
    pub texts: Vec<String>,
    /// errorCode as hexadecimal.
    pub error_code: Option<String>,
    /// Why the refusal could not be authenticated; `None` when it is authentic.
    pub unauthenticated: Option<MessageError>,
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unauthenticated {
            None => write!(f, "the server refused ({})", self.body)?,
            Some(why) => {
                write!(
                    f,
                    "the server refused, its answer cannot be authenticated ({why}): check reference and secret, or the trust anchors; it says"
                )?;
            }
        }
        if !self.failure_text.is_empty() {
            write!(f, ": {}", self.failure_text)?;
        }
        if !self.texts.is_empty() {
            write!(f, ": {}", self.texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", "))?;
        }
        if self.failure_text.is_empty() && self.texts.is_empty() {
            f.write_str(": no reason given")?;
        }
        if let Some(code) = &self.error_code {
            write!(f, " (error code 0x{code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for PeerRefusal {}

/// We ended the transaction ourselves.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Ended {
    /// By hand (S37).
    #[error("stopped by hand")]
    Stopped,
    /// W4.
    #[error("no final answer within {seconds} seconds")]
    TotalTime {
        /// The limit.
        seconds: u64,
    },
}

fn one_of(kinds: &[BodyKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ")
}

fn join(reasons: &[Unfit]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
