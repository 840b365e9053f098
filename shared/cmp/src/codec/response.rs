//! What a certificate response carries, and the answer to a revocation.

use der::{Choice, Sequence, asn1::OctetString};

use super::{raw::RawSequence, request::CertId, status::PkiStatusInfo};

/// RFC 9810 section 5.3.4.
///
/// ```text
/// CertRepMessage ::= SEQUENCE {
///     caPubs       [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL,
///     response         SEQUENCE OF CertResponse }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertRepMessage {
    /// DER certificates of CAs; when they may be trusted is V11.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub ca_pubs: Option<Vec<RawSequence>>,
    /// One per request.
    pub response: Vec<CertResponse>,
}

/// RFC 9810 section 5.3.4.
///
/// ```text
/// CertResponse ::= SEQUENCE {
///     certReqId           INTEGER,
///     status              PKIStatusInfo,
///     certifiedKeyPair    CertifiedKeyPair    OPTIONAL,
///     rspInfo             OCTET STRING        OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertResponse {
    /// The certReqId of the request, or -1 after p10cr (V7).
    pub cert_req_id: i64,
    /// Granted or not.
    pub status: PkiStatusInfo,
    /// The certificate.
    pub certified_key_pair: Option<CertifiedKeyPair>,
    /// Not looked into.
    pub rsp_info: Option<OctetString>,
}

/// RFC 9810 section 5.3.4.
///
/// ```text
/// CertifiedKeyPair ::= SEQUENCE {
///     certOrEncCert       CertOrEncCert,
///     privateKey      [0] EncryptedKey        OPTIONAL,
///     publicationInfo [1] PKIPublicationInfo  OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertifiedKeyPair {
    /// The certificate, or an encrypted one.
    pub cert_or_enc_cert: CertOrEncCert,
    /// A key made by the CA; refused by this engine.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub private_key: Option<EncryptedKey>,
    /// Not looked into.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub publication_info: Option<RawSequence>,
}

/// RFC 9810 section 5.3.4.
///
/// ```text
/// CertOrEncCert ::= CHOICE {
///     certificate     [0] CMPCertificate,
///     encryptedCert   [1] EncryptedKey }
/// CMPCertificate ::= CHOICE { x509v3PKCert Certificate }
/// ```
#[derive(Choice, Clone, Debug, Eq, PartialEq)]
pub enum CertOrEncCert {
    /// DER Certificate.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true")]
    Certificate(RawSequence),
    /// Encrypted to the requested key (S24a).
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    EncryptedCert(EncryptedKey),
}

/// RFC 9810 section 5.2.2 and RFC 4211 section 6.4 (IMPLICIT tags).
///
/// ```text
/// EncryptedKey ::= CHOICE {
///     encryptedValue        EncryptedValue,   -- deprecated
///     envelopedData     [0] EnvelopedData }
/// ```
///
/// The first form is recognised so that it can be refused by name; the second is opened by [`crate::envelope`].
#[derive(Choice, Clone, Debug, Eq, PartialEq)]
pub enum EncryptedKey {
    /// The form of RFC 4210.
    EncryptedValue(RawSequence),
    /// The form of RFC 9480 and later (pvno 3).
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true")]
    EnvelopedData(RawSequence),
}

impl EncryptedKey {
    /// The name of the form.
    pub const fn form(&self) -> &'static str {
        match self {
            Self::EncryptedValue(_) => "EncryptedValue",
            Self::EnvelopedData(_) => "EnvelopedData",
        }
    }
}

/// RFC 9810 section 5.3.10.
///
/// ```text
/// RevRepContent ::= SEQUENCE {
///     status        SEQUENCE SIZE (1..MAX) OF PKIStatusInfo,
///     revCerts  [0] SEQUENCE SIZE (1..MAX) OF CertId OPTIONAL,
///     crls      [1] SEQUENCE SIZE (1..MAX) OF CertificateList OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct RevRepContent {
    /// One per request.
    pub status: Vec<PkiStatusInfo>,
    /// The certificates meant.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub rev_certs: Option<Vec<CertId>>,
    /// CRLs, as DER.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub crls: Option<Vec<RawSequence>>,
}
