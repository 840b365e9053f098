//! Status and failure of a request: PKIStatusInfo, PKIFailureInfo with every bit, the error message, CertStatus.

use std::fmt;

use der::{
    DecodeValue, EncodeValue, Enumerated, FixedTag, Header, Length, Reader, Sequence, Tag, Writer,
    asn1::{BitString, OctetString},
};
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;

use super::raw::FreeText;

/// RFC 9810 section 5.2.3.
///
/// ```text
/// PKIStatus ::= INTEGER {
///     accepted               (0),
///     grantedWithMods        (1),
///     rejection              (2),
///     waiting                (3),
///     revocationWarning      (4),
///     revocationNotification (5),
///     keyUpdateWarning       (6) }
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Enumerated, Eq, PartialEq, Serialize)]
#[asn1(type = "INTEGER")]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum PkiStatus {
    /// You got exactly what you asked for.
    Accepted = 0,
    /// You got something like it; the requester finds the differences.
    GrantedWithMods = 1,
    /// You do not get it.
    Rejection = 2,
    /// Not yet processed: poll (W1, W2).
    Waiting = 3,
    /// A revocation is imminent (a warning, E6).
    RevocationWarning = 4,
    /// A revocation has occurred.
    RevocationNotification = 5,
    /// The update was already done for that oldCertID (a warning, E6).
    KeyUpdateWarning = 6,
}

macro_rules! failure_bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $code:literal;)*) => {
        /// One bit of PKIFailureInfo, by its bit number.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[repr(u8)]
        pub enum FailureBit { $($(#[$doc])* #[serde(rename = $code)] $name = $bit,)* }

        impl FailureBit {
            /// All bits, in the order of their numbers.
            pub const ALL: [Self; 27] = [$(Self::$name),*];

            /// The name of the RFC.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }
        }
    };
}

failure_bits! {
    /// Unrecognised or unsupported algorithm.
    BadAlg = 0, "badAlg";
    /// Integrity check failed.
    BadMessageCheck = 1, "badMessageCheck";
    /// Transaction not permitted or supported.
    BadRequest = 2, "badRequest";
    /// messageTime too far from the server's clock.
    BadTime = 3, "badTime";
    /// No certificate matches the given criteria.
    BadCertId = 4, "badCertId";
    /// Wrong format of the data.
    BadDataFormat = 5, "badDataFormat";
    /// Another authority is meant than the one that answers.
    WrongAuthority = 6, "wrongAuthority";
    /// The requester's data is incorrect.
    IncorrectData = 7, "incorrectData";
    /// The time stamp is missing.
    MissingTimeStamp = 8, "missingTimeStamp";
    /// Proof of possession failed.
    BadPop = 9, "badPOP";
    /// The certificate is already revoked.
    CertRevoked = 10, "certRevoked";
    /// The certificate is already confirmed.
    CertConfirmed = 11, "certConfirmed";
    /// MAC where a signature is wanted, or the other way round.
    WrongIntegrity = 12, "wrongIntegrity";
    /// recipNonce missing or wrong.
    BadRecipientNonce = 13, "badRecipientNonce";
    /// The time source is not available.
    TimeNotAvailable = 14, "timeNotAvailable";
    /// The policy is not supported.
    UnacceptedPolicy = 15, "unacceptedPolicy";
    /// The extension is not supported.
    UnacceptedExtension = 16, "unacceptedExtension";
    /// The additional information is not available.
    AddInfoNotAvailable = 17, "addInfoNotAvailable";
    /// senderNonce missing or of the wrong size.
    BadSenderNonce = 18, "badSenderNonce";
    /// Template invalid or lacking what must be there.
    BadCertTemplate = 19, "badCertTemplate";
    /// The signer is unknown or not trusted.
    SignerNotTrusted = 20, "signerNotTrusted";
    /// The transactionID is in use.
    TransactionIdInUse = 21, "transactionIdInUse";
    /// The version is not supported.
    UnsupportedVersion = 22, "unsupportedVersion";
    /// The sender may not do that.
    NotAuthorized = 23, "notAuthorized";
    /// The system is unavailable.
    SystemUnavail = 24, "systemUnavail";
    /// The system failed.
    SystemFailure = 25, "systemFailure";
    /// A duplicate certificate exists.
    DuplicateCertReq = 26, "duplicateCertReq";
}

impl fmt::Display for FailureBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// RFC 9810 section 5.2.3: a BIT STRING of which several bits can be set (E3).
///
/// ```text
/// PKIFailureInfo ::= BIT STRING {
///     badAlg (0), badMessageCheck (1), badRequest (2), badTime (3), badCertId (4), badDataFormat (5),
///     wrongAuthority (6), incorrectData (7), missingTimeStamp (8), badPOP (9), certRevoked (10),
///     certConfirmed (11), wrongIntegrity (12), badRecipientNonce (13), timeNotAvailable (14),
///     unacceptedPolicy (15), unacceptedExtension (16), addInfoNotAvailable (17), badSenderNonce (18),
///     badCertTemplate (19), signerNotTrusted (20), transactionIdInUse (21), unsupportedVersion (22),
///     notAuthorized (23), systemUnavail (24), systemFailure (25), duplicateCertReq (26) }
/// ```
///
/// Bits 27 to 31 are kept and shown by number; those beyond are ignored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FailureInfo(u32);

impl FailureInfo {
    /// With exactly these bits.
    pub fn of(bits: &[FailureBit]) -> Self {
        Self(bits.iter().fold(0, |set, bit| set | 1 << (*bit as u8)))
    }

    /// Is the bit set?
    pub const fn contains(self, bit: FailureBit) -> bool {
        self.0 & (1 << (bit as u8)) != 0
    }

    /// The set bits that have a name, in the order of their numbers.
    pub fn bits(self) -> Vec<FailureBit> {
        FailureBit::ALL.into_iter().filter(|bit| self.contains(*bit)).collect()
    }

    /// Is no bit set?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for FailureInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = self.bits().into_iter().map(|bit| bit.name().to_owned()).collect();
        names.extend((27..32).filter(|number| self.0 & (1 << number) != 0).map(|number| format!("bit {number}")));
        f.write_str(&names.join(", "))
    }
}

impl FixedTag for FailureInfo {
    const TAG: Tag = Tag::BitString;
}

impl<'a> DecodeValue<'a> for FailureInfo {
    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        let string = BitString::decode_value(reader, header)?;
        Ok(Self(
            string.bits().take(32).enumerate().filter(|(_, set)| *set).fold(0, |set, (number, _)| set | 1 << number),
        ))
    }
}

impl FailureInfo {
    /// As a named bit list: trailing zero bits are left out (X.690 section 11.2.2).
    fn bit_string(self) -> der::Result<BitString> {
        let bit_len = 32 - self.0.leading_zeros();
        let mut bytes = vec![0_u8; bit_len.div_ceil(8) as usize];
        for number in 0..bit_len {
            if self.0 & (1 << number) != 0
                && let Some(byte) = bytes.get_mut(number as usize / 8)
            {
                *byte |= 0x80 >> (number % 8);
            }
        }
        BitString::new(((8 - bit_len % 8) % 8) as u8, bytes)
    }
}

impl EncodeValue for FailureInfo {
    fn value_len(&self) -> der::Result<Length> {
        self.bit_string()?.value_len()
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        self.bit_string()?.encode_value(writer)
    }
}

/// RFC 9810 section 5.2.3.
///
/// ```text
/// PKIStatusInfo ::= SEQUENCE {
///     status        PKIStatus,
///     statusString  PKIFreeText     OPTIONAL,
///     failInfo      PKIFailureInfo  OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct PkiStatusInfo {
    /// The status.
    pub status: PkiStatus,
    /// Text for humans; untrusted.
    pub status_string: Option<FreeText>,
    /// Why not.
    pub fail_info: Option<FailureInfo>,
}

impl PkiStatusInfo {
    /// A status without text and failInfo.
    pub const fn plain(status: PkiStatus) -> Self {
        Self { status, status_string: None, fail_info: None }
    }

    /// A rejection with its reasons.
    pub fn rejection(bits: &[FailureBit], text: &str) -> Self {
        Self {
            status: PkiStatus::Rejection,
            status_string: (!text.is_empty()).then(|| vec![super::raw::PeerText::new(text)]),
            fail_info: (!bits.is_empty()).then(|| FailureInfo::of(bits)),
        }
    }
}

/// RFC 9810 section 5.3.21.
///
/// ```text
/// ErrorMsgContent ::= SEQUENCE {
///     pKIStatusInfo          PKIStatusInfo,
///     errorCode              INTEGER           OPTIONAL,
///     errorDetails           PKIFreeText       OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct ErrorMsgContent {
    /// Status, text and reasons.
    pub status_info: PkiStatusInfo,
    /// A code of the implementation.
    pub error_code: Option<der::asn1::Int>,
    /// More text; untrusted.
    pub error_details: Option<FreeText>,
}

/// RFC 9810 section 5.3.18.
///
/// ```text
/// CertStatus ::= SEQUENCE {
///     certHash    OCTET STRING,
///     certReqId   INTEGER,
///     statusInfo  PKIStatusInfo OPTIONAL,
///     hashAlg [0] AlgorithmIdentifier{DIGEST-ALGORITHM, {...}} OPTIONAL }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct CertStatus {
    /// Hash of the certificate by the hash of its own signature algorithm, or by `hash_alg` (C3, C4).
    pub cert_hash: OctetString,
    /// The certReqId of the response.
    pub cert_req_id: i64,
    /// Absent or accepted: taken; rejection: refused (C6, C7).
    pub status_info: Option<PkiStatusInfo>,
    /// Only where the certificate's signature algorithm names no hash, with pvno 3 (C4).
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true", optional = "true")]
    pub hash_alg: Option<AlgorithmIdentifierOwned>,
}

#[cfg(test)]
mod tests {
    use der::{Decode, Encode};

    use super::*;

    #[test]
    fn every_failure_bit_has_its_own_place() {
        for bit in FailureBit::ALL {
            let der = FailureInfo::of(&[bit]).to_der().unwrap();
            let number = bit as u8;
            // 03 len unused bits…: the bit is counted from the most significant one of the first octet
            assert_eq!(der[1] as usize, 1 + number as usize / 8 + 1);
            assert_eq!(der[2], 7 - number % 8);
            assert_eq!(*der.last().unwrap(), 0x80 >> (number % 8));
            assert_eq!(FailureInfo::from_der(&der).unwrap().bits(), vec![bit]);
        }
    }

    #[test]
    fn e3_several_bits_are_read_together_and_unknown_ones_shown_by_number() {
        let both = FailureInfo::of(&[FailureBit::BadPop, FailureBit::DuplicateCertReq]);
        assert_eq!(FailureInfo::from_der(&both.to_der().unwrap()).unwrap(), both);
        assert_eq!(both.to_string(), "badPOP, duplicateCertReq");
        let unknown = FailureInfo::from_der(&[0x03, 0x05, 0x00, 0x80, 0x00, 0x00, 0x10]).unwrap();
        assert_eq!(unknown.to_string(), "badAlg, bit 27");
        assert!(FailureInfo::from_der(&[0x03, 0x01, 0x00]).unwrap().is_empty());
    }
}
