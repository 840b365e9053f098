//! The peer's message is malformed, does not belong to this transaction, or is not authentic.

use thiserror::Error;

use crate::codec::{BodyKind, DecodeError, FailureBit, PkiStatus};

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
    #[error("senderNonce of {bits} bits: 128 to 1024 expected")]
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
    #[error("{got} iterations in a MAC: between {lowest} and {highest} are accepted")]
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
    /// S24a.
    #[error("the certificate is encrypted and cannot be opened: {detail}")]
    CertificateSealed {
        /// Why.
        detail: String,
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
    /// A message from RA to RA.
    #[error("the answer is a nested message, which only RAs send each other: check the server's path")]
    Nested,
    /// R9: a genp that cannot be used.
    #[error("the information in the answer cannot be used: {detail}")]
    Information {
        /// Why.
        detail: String,
    },
    /// V12.
    #[error("the new root is not taken: {detail}")]
    RootUpdate {
        /// What is missing or wrong.
        detail: String,
    },
    /// A status that has no meaning there.
    #[error("the {body} has the status {status:?}, which means nothing there")]
    Status {
        /// Which message.
        body: BodyKind,
        /// Its status.
        status: PkiStatus,
    },
    /// R8: the rp is about another certificate.
    #[error("the rp is about certificate {got}, asked for was {expected}")]
    OtherCertificate {
        /// Serial number in hexadecimal.
        expected: String,
        /// Serial number in hexadecimal.
        got: String,
    },
    /// A CRL that does not decode.
    #[error("a CRL in the answer cannot be read: {detail}")]
    CrlUnreadable {
        /// Why.
        detail: String,
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
            Self::CertificateSealed { .. } => "certificate_sealed",
            Self::PrivateKeySent => "private_key_sent",
            Self::CertificateUnreadable { .. } => "certificate_unreadable",
            Self::CheckAfter { .. } => "check_after_absurd",
            Self::Nested => "nested_message",
            Self::Information { .. } => "information_unusable",
            Self::RootUpdate { .. } => "root_update_refused",
            Self::Status { .. } => "status_unexpected",
            Self::OtherCertificate { .. } => "other_certificate",
            Self::CrlUnreadable { .. } => "crl_unreadable",
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
            | Self::CertificateSealed { .. }
            | Self::Information { .. }
            | Self::CrlUnreadable { .. }
            | Self::CheckAfter { .. } => FailureBit::BadDataFormat,
            Self::Version { .. } => FailureBit::UnsupportedVersion,
            Self::UnexpectedBody { .. }
            | Self::TransactionId { .. }
            | Self::CertReqId { .. }
            | Self::ResponseCount { .. }
            | Self::Nested
            | Self::Status { .. }
            | Self::PrivateKeySent => FailureBit::BadRequest,
            Self::RootUpdate { .. } => FailureBit::SignerNotTrusted,
            Self::OtherCertificate { .. } => FailureBit::BadCertId,
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

fn one_of(kinds: &[BodyKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ")
}
