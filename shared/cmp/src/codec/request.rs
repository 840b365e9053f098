//! What a certificate request carries: template, proof of possession, controls (RFC 4211), and the small request
//! bodies of revocation and polling.

use der::{
    Choice, Sequence,
    asn1::{Any, BitString, Int, Null, ObjectIdentifier},
};
use spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::raw::{FreeText, GeneralName, RawSequence};

/// RFC 4211 section 3.
///
/// ```text
/// CertReqMessages ::= SEQUENCE SIZE (1..MAX) OF CertReqMsg
/// CertReqMsg ::= SEQUENCE {
///     certReq   CertRequest,
///     popo      ProofOfPossession  OPTIONAL,
///     regInfo   SEQUENCE SIZE(1..MAX) OF SingleAttribute{{RegInfoSet}} OPTIONAL }
/// ```
///
/// certReq stays as its bytes: the proof of possession is a signature over exactly these (R3).
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertReqMsg {
    /// DER of [`CertRequest`].
    pub cert_req: RawSequence,
    /// Proof that the requester has the private key.
    pub popo: Option<ProofOfPossession>,
    /// Registration info, not looked into.
    pub reg_info: Option<RawSequence>,
}

/// RFC 4211 section 5.
///
/// ```text
/// CertRequest ::= SEQUENCE {
///     certReqId     INTEGER,
///     certTemplate  CertTemplate,
///     controls      Controls OPTIONAL }
/// Controls ::= SEQUENCE SIZE(1..MAX) OF SingleAttribute{{RegControlSet}}
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertRequest {
    /// Matches request and response; 0 (R1).
    pub cert_req_id: i64,
    /// The fields asked for.
    pub cert_template: CertTemplate,
    /// oldCertID and others.
    pub controls: Option<Vec<Control>>,
}

/// RFC 4211 section 6: one control or registration attribute.
///
/// ```text
/// SingleAttribute ::= SEQUENCE { type ATTRIBUTE.&id, value ATTRIBUTE.&Type }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct Control {
    /// Which control.
    pub id: ObjectIdentifier,
    /// Its value.
    pub value: Any,
}

/// RFC 4211 section 6.5; the value of the control oldCertID (R6).
///
/// ```text
/// CertId ::= SEQUENCE { issuer GeneralName, serialNumber INTEGER }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertId {
    /// Issuer of the certificate.
    pub issuer: GeneralName,
    /// Its serial number.
    pub serial_number: Int,
}

/// RFC 4211 section 5. Every field can be absent, those of the validity too.
///
/// ```text
/// CertTemplate ::= SEQUENCE {
///     version      [0] Version               OPTIONAL,
///     serialNumber [1] INTEGER               OPTIONAL,
///     signingAlg   [2] AlgorithmIdentifier   OPTIONAL,
///     issuer       [3] Name                  OPTIONAL,
///     validity     [4] OptionalValidity      OPTIONAL,
///     subject      [5] Name                  OPTIONAL,
///     publicKey    [6] SubjectPublicKeyInfo  OPTIONAL,
///     issuerUID    [7] UniqueIdentifier      OPTIONAL,
///     subjectUID   [8] UniqueIdentifier      OPTIONAL,
///     extensions   [9] Extensions            OPTIONAL }
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq, Sequence)]
pub struct CertTemplate {
    /// X.509 version; left out by us.
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub version: Option<u8>,
    /// Serial number (rr only).
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub serial_number: Option<Int>,
    /// Signature algorithm; left out by us.
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub signing_alg: Option<AlgorithmIdentifierOwned>,
    /// DER Name of the issuer asked for.
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub issuer: Option<RawSequence>,
    /// Validity asked for.
    #[asn1(context_specific = "4", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub validity: Option<OptionalValidity>,
    /// DER Name of the subject.
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub subject: Option<RawSequence>,
    /// DER SubjectPublicKeyInfo.
    #[asn1(context_specific = "6", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub public_key: Option<RawSequence>,
    /// Not used.
    #[asn1(context_specific = "7", tag_mode = "IMPLICIT", optional = "true")]
    pub issuer_uid: Option<BitString>,
    /// Not used.
    #[asn1(context_specific = "8", tag_mode = "IMPLICIT", optional = "true")]
    pub subject_uid: Option<BitString>,
    /// DER Extensions.
    #[asn1(context_specific = "9", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub extensions: Option<RawSequence>,
}

/// RFC 4211 section 5.
///
/// ```text
/// OptionalValidity ::= SEQUENCE {
///     notBefore  [0] Time OPTIONAL,
///     notAfter   [1] Time OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct OptionalValidity {
    /// Start.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub not_before: Option<Time>,
    /// End.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub not_after: Option<Time>,
}

/// RFC 4211 section 4.
///
/// ```text
/// ProofOfPossession ::= CHOICE {
///     raVerified        [0] NULL,
///     signature         [1] POPOSigningKey,
///     keyEncipherment   [2] POPOPrivKey,
///     keyAgreement      [3] POPOPrivKey }
/// ```
#[derive(Choice, Clone, Debug, Eq, PartialEq)]
pub enum ProofOfPossession {
    /// An RA has verified it; a client never says so (R4).
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "false")]
    RaVerified(Null),
    /// A signature by the key.
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Signature(PopoSigningKey),
    /// For encryption keys; kept unread.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    KeyEncipherment(Any),
    /// For agreement keys; kept unread.
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", constructed = "true")]
    KeyAgreement(Any),
}

/// RFC 4211 section 4.1.
///
/// ```text
/// POPOSigningKey ::= SEQUENCE {
///     poposkInput           [0] POPOSigningKeyInput OPTIONAL,
///     algorithmIdentifier   AlgorithmIdentifier{SIGNATURE-ALGORITHM, {SignatureAlgorithms}},
///     signature             BIT STRING }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct PopoSigningKey {
    /// Absent when the template has subject and publicKey (R3).
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub poposk_input: Option<RawSequence>,
    /// How it was signed.
    pub algorithm: AlgorithmIdentifierOwned,
    /// Over the DER of certReq.
    pub signature: BitString,
}

/// RFC 9810 section 5.3.9.
///
/// ```text
/// RevReqContent ::= SEQUENCE OF RevDetails
/// RevDetails ::= SEQUENCE {
///     certDetails         CertTemplate,
///     crlEntryDetails     Extensions{{...}} OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct RevDetails {
    /// Names the certificate: issuer and serialNumber (R8).
    pub cert_details: CertTemplate,
    /// reasonCode and others, as DER Extensions.
    pub crl_entry_details: Option<RawSequence>,
}

/// RFC 9810 section 5.3.22: one element of PollReqContent.
///
/// ```text
/// PollReqContent ::= SEQUENCE OF SEQUENCE { certReqId INTEGER }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq, Sequence)]
pub struct PollReq {
    /// Of the request waited for; -1 for any other message (W2).
    pub cert_req_id: i64,
}

/// RFC 9810 section 5.3.22: one element of PollRepContent.
///
/// ```text
/// PollRepContent ::= SEQUENCE OF SEQUENCE {
///     certReqId     INTEGER,
///     checkAfter    INTEGER,  -- time in seconds
///     reason        PKIFreeText OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct PollRep {
    /// Of the request waited for.
    pub cert_req_id: i64,
    /// Seconds before the next pollReq (W3).
    pub check_after: i64,
    /// Text for humans; untrusted.
    pub reason: Option<FreeText>,
}
