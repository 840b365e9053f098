//! The message header: who speaks, in which transaction, protected how.

use der::{
    Sequence,
    asn1::{Any, Null, ObjectIdentifier, OctetString},
};
use spki::AlgorithmIdentifierOwned;

use super::{
    oids,
    raw::{FreeText, GeneralName, TimeText},
};

/// pvno cmp1999(1), RFC 2510.
pub const CMP1999: u64 = 1;
/// pvno cmp2000(2): what we send (H1).
pub const CMP2000: u64 = 2;
/// pvno cmp2021(3): only where its syntax is needed (H1).
pub const CMP2021: u64 = 3;

/// RFC 9810 section 5.1.1.
///
/// ```text
/// PKIHeader ::= SEQUENCE {
///     pvno                INTEGER     { cmp1999(1), cmp2000(2), cmp2021(3) },
///     sender              GeneralName,
///     recipient           GeneralName,
///     messageTime     [0] GeneralizedTime         OPTIONAL,
///     protectionAlg   [1] AlgorithmIdentifier{ALGORITHM, {...}} OPTIONAL,
///     senderKID       [2] KeyIdentifier           OPTIONAL,
///     recipKID        [3] KeyIdentifier           OPTIONAL,
///     transactionID   [4] OCTET STRING            OPTIONAL,
///     senderNonce     [5] OCTET STRING            OPTIONAL,
///     recipNonce      [6] OCTET STRING            OPTIONAL,
///     freeText        [7] PKIFreeText             OPTIONAL,
///     generalInfo     [8] SEQUENCE SIZE (1..MAX) OF InfoTypeAndValue OPTIONAL }
/// ```
///
/// The version is a number here, not an enumeration, so that an unknown one can be named in the error.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct PkiHeader {
    /// Protocol version, see [`CMP2000`].
    pub pvno: u64,
    /// Sender as received; see [`super::raw::directory_name_der`].
    pub sender: GeneralName,
    /// Recipient as received.
    pub recipient: GeneralName,
    /// Time of production (informative, V13).
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub message_time: Option<TimeText>,
    /// Algorithm of the protection; there if and only if the protection is (H9).
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub protection_alg: Option<AlgorithmIdentifierOwned>,
    /// Key identifier of the protection key, or the reference value of a MAC secret (H6).
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub sender_kid: Option<OctetString>,
    /// Key identifier of the recipient's key.
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub recip_kid: Option<OctetString>,
    /// Transaction identifier (H10).
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    pub transaction_id: Option<OctetString>,
    /// Nonce of the sender, fresh in every message (H11).
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    pub sender_nonce: Option<OctetString>,
    /// The senderNonce of the message that this one answers (H12).
    #[asn1(context_specific = "6", tag_mode = "EXPLICIT", optional = "true")]
    pub recip_nonce: Option<OctetString>,
    /// Text for humans; untrusted.
    #[asn1(context_specific = "7", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub free_text: Option<FreeText>,
    /// implicitConfirm, confirmWaitTime, certProfile, ...
    #[asn1(context_specific = "8", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub general_info: Option<Vec<InfoTypeAndValue>>,
}

impl PkiHeader {
    /// Is implicitConfirm there, with its only value NULL (H13)? OpenSSL and others also send it without a value.
    pub fn has_implicit_confirm(&self) -> bool {
        self.general_info
            .iter()
            .flatten()
            .any(|info| info.info_type == oids::IMPLICIT_CONFIRM && info.info_value.as_ref().is_none_or(Any::is_null))
    }

    /// The bytes of an octet string field, empty when it is absent.
    pub fn octets(field: Option<&OctetString>) -> &[u8] {
        field.map(OctetString::as_bytes).unwrap_or_default()
    }
}

/// RFC 9810 section 5.3.19.
///
/// ```text
/// InfoTypeAndValue ::= SEQUENCE {
///     infoType               INFO-TYPE-AND-VALUE.&id({SupportedInfoSet}),
///     infoValue              INFO-TYPE-AND-VALUE.&Type({SupportedInfoSet}{@infoType}) OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct InfoTypeAndValue {
    /// What it is.
    pub info_type: ObjectIdentifier,
    /// Its value, of the type that `info_type` says.
    pub info_value: Option<Any>,
}

impl InfoTypeAndValue {
    /// `implicitConfirm` with the value NULL (H13).
    pub fn implicit_confirm() -> Self {
        Self { info_type: oids::IMPLICIT_CONFIRM, info_value: Some(Any::from(Null)) }
    }

    /// `certProfile` with one name: there is one request in each of our messages (H15).
    ///
    /// # Errors
    /// When the name is longer than DER lengths of this library reach.
    pub fn cert_profile(name: &str) -> der::Result<Self> {
        let value = Any::encode_from(&vec![name.to_owned()])?;
        Ok(Self { info_type: oids::IT_CERT_PROFILE, info_value: Some(value) })
    }
}
