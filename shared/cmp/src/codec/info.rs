//! The values of general messages that have a form of their own (RFC 9810 section 5.3.19).
//!
//! Only the encoding: what is asked for and what an answer may be used for is [`crate::info`].

use der::{Choice, Sequence, asn1::Any};
use x509_cert::time::Time;

use super::{
    raw::RawSequence,
    request::{CertTemplate, Control},
};

/// RFC 9810 section 4.4 and 5.3.19.15.
///
/// ```text
/// RootCaKeyUpdateContent ::= SEQUENCE {
///     newWithNew       CMPCertificate,
///     newWithOld   [0] CMPCertificate OPTIONAL,
///     oldWithNew   [1] CMPCertificate OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct RootCaKeyUpdateContent {
    /// The new root, signed by itself.
    pub new_with_new: RawSequence,
    /// The new root's key, certified by the old root.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub new_with_old: Option<RawSequence>,
    /// The old root's key, certified by the new root.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub old_with_new: Option<RawSequence>,
}

/// RFC 9810 section 5.3.19.16.
///
/// ```text
/// CertReqTemplateContent ::= SEQUENCE {
///     certTemplate  CertTemplate,
///     keySpec       Controls OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertReqTemplateContent {
    /// What the CA wants in a request; empty values are to be filled in.
    pub cert_template: CertTemplate,
    /// Kinds of keys that the CA certifies.
    pub key_spec: Option<Vec<Control>>,
}

/// RFC 9810 section 5.3.19.17.
///
/// ```text
/// CRLStatusListValue ::= SEQUENCE SIZE (1..MAX) OF CRLStatus
/// CRLStatus ::= SEQUENCE {
///     source       CRLSource,
///     thisUpdate   Time OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CrlStatus {
    /// Which CRL.
    pub source: CrlSource,
    /// thisUpdate of the CRL that the asker has.
    pub this_update: Option<Time>,
}

/// RFC 9810 section 5.3.19.17.
///
/// ```text
/// CRLSource ::= CHOICE {
///     dpn      [0] DistributionPointName,
///     issuer   [1] GeneralNames }
/// ```
#[derive(Choice, Clone, Debug, Eq, PartialEq)]
pub enum CrlSource {
    /// A DistributionPointName (RFC 5280 section 4.2.1.13), kept as it is.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true")]
    Point(Any),
    /// The names of the CRL's issuer, kept as they are.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Issuer(Vec<Any>),
}
