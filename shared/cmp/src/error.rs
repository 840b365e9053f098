//! Errors by culprit: our configuration, this machine, the peer's message, the certificate that came, the peer's
//! refusal, or an end that we chose. Transport errors belong to the shell around this crate.
//!
//! Every error has a stable snake_case code ([`CmpError::code`]) and there is one map to PKIFailureInfo
//! ([`CmpError::failure_bit`]) for telling the peer. Texts of peers appear in them only after [`crate::text`].

mod message;
mod refusal;

use thiserror::Error;

pub use self::{
    message::MessageError,
    refusal::{PeerRefusal, Unfit, UnfitCertificate},
};
use crate::codec::FailureBit;

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
    #[error("{got} iterations in a MAC: between {lowest} and {highest} are sensible")]
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
    /// p10cr, rr and genm are asked for by requests of their own.
    #[error("{kind} cannot be asked for as an enrolment: it has a request of its own")]
    KindNeedsItsOwnRequest {
        /// Which body.
        kind: crate::codec::BodyKind,
    },
    /// P9.
    #[error("an rr must be signed, by the certificate itself or by an RA's: use signature credentials")]
    RevocationNeedsSignature,
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
            Self::KindNeedsItsOwnRequest { .. } => "kind_needs_its_own_request",
            Self::RevocationNeedsSignature => "revocation_needs_signature",
            Self::KeyIsNotTheCertificates { .. } => "key_is_not_the_certificates",
            Self::SignerExpired { .. } => "signer_expired",
            Self::RecordMismatch { .. } => "record_mismatch",
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
