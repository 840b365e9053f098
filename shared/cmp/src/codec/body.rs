//! The message body: one of 27 kinds, decided by its tag.

use std::fmt;

use der::{
    Decode, Encode, Tag, TagNumber,
    asn1::{Any, Null},
};
use serde::{Deserialize, Serialize};

use super::{
    DecodeError,
    header::InfoTypeAndValue,
    message::PkiMessage,
    raw::RawSequence,
    request::{CertReqMsg, PollRep, PollReq, RevDetails},
    response::{CertRepMessage, RevRepContent},
    status::{CertStatus, ErrorMsgContent},
};

/// RFC 9810 section 5.1.2; all tags are EXPLICIT.
///
/// ```text
/// PKIBody ::= CHOICE {
///     ir       [0]  CertReqMessages,        ip       [1]  CertRepMessage,
///     cr       [2]  CertReqMessages,        cp       [3]  CertRepMessage,
///     p10cr    [4]  CertificationRequest,
///     popdecc  [5]  POPODecKeyChallContent, popdecr  [6]  POPODecKeyRespContent,
///     kur      [7]  CertReqMessages,        kup      [8]  CertRepMessage,
///     krr      [9]  CertReqMessages,        krp      [10] KeyRecRepContent,
///     rr       [11] RevReqContent,          rp       [12] RevRepContent,
///     ccr      [13] CertReqMessages,        ccp      [14] CertRepMessage,
///     ckuann   [15] CAKeyUpdContent,        cann     [16] CertAnnContent,
///     rann     [17] RevAnnContent,          crlann   [18] CRLAnnContent,
///     pkiconf  [19] PKIConfirmContent,      nested   [20] NestedMessageContent,
///     genm     [21] GenMsgContent,          genp     [22] GenRepContent,
///     error    [23] ErrorMsgContent,        certConf [24] CertConfirmContent,
///     pollReq  [25] PollReqContent,         pollRep  [26] PollRepContent }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PkiBody {
    /// Initialization request.
    Ir(Vec<CertReqMsg>),
    /// Initialization response.
    Ip(CertRepMessage),
    /// Certification request.
    Cr(Vec<CertReqMsg>),
    /// Certification response.
    Cp(CertRepMessage),
    /// PKCS #10 request, kept as its bytes.
    P10cr(RawSequence),
    /// Key update request.
    Kur(Vec<CertReqMsg>),
    /// Key update response.
    Kup(CertRepMessage),
    /// Revocation request.
    Rr(Vec<RevDetails>),
    /// Revocation response.
    Rp(RevRepContent),
    /// Confirmation.
    PkiConf,
    /// Messages inside a message (RFC 9810 section 5.1.3.4).
    Nested(Vec<PkiMessage>),
    /// General message.
    Genm(Vec<InfoTypeAndValue>),
    /// General response.
    Genp(Vec<InfoTypeAndValue>),
    /// Error message.
    Error(ErrorMsgContent),
    /// Certificate confirmation.
    CertConf(Vec<CertStatus>),
    /// Polling request.
    PollReq(Vec<PollReq>),
    /// Polling response.
    PollRep(Vec<PollRep>),
    /// Any other kind: recognised, its content kept unread.
    Other(BodyKind, Vec<u8>),
}

macro_rules! body_kinds {
    ($($name:ident = $number:ident, $text:literal;)*) => {
        /// The kind of a body, by its name in the RFC.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
        #[allow(missing_docs)] // the names are those of the CHOICE above
        pub enum BodyKind { $(#[serde(rename = $text)] $name,)* }

        impl BodyKind {
            /// The name in the RFC (`ir`, `ip`, ...).
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            const fn tag_number(self) -> TagNumber {
                match self { $(Self::$name => TagNumber::$number),* }
            }

            fn from_tag(number: TagNumber) -> Option<Self> {
                match number { $(TagNumber::$number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

body_kinds! {
    Ir = N0, "ir"; Ip = N1, "ip"; Cr = N2, "cr"; Cp = N3, "cp"; P10cr = N4, "p10cr";
    Popdecc = N5, "popdecc"; Popdecr = N6, "popdecr"; Kur = N7, "kur"; Kup = N8, "kup";
    Krr = N9, "krr"; Krp = N10, "krp"; Rr = N11, "rr"; Rp = N12, "rp"; Ccr = N13, "ccr";
    Ccp = N14, "ccp"; Ckuann = N15, "ckuann"; Cann = N16, "cann"; Rann = N17, "rann";
    CrlAnn = N18, "crlann"; PkiConf = N19, "pkiconf"; Nested = N20, "nested"; Genm = N21, "genm";
    Genp = N22, "genp"; Error = N23, "error"; CertConf = N24, "certConf"; PollReq = N25, "pollReq";
    PollRep = N26, "pollRep";
}

impl fmt::Display for BodyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PkiBody {
    /// The kind.
    pub const fn kind(&self) -> BodyKind {
        match self {
            Self::Ir(_) => BodyKind::Ir,
            Self::Ip(_) => BodyKind::Ip,
            Self::Cr(_) => BodyKind::Cr,
            Self::Cp(_) => BodyKind::Cp,
            Self::P10cr(_) => BodyKind::P10cr,
            Self::Kur(_) => BodyKind::Kur,
            Self::Kup(_) => BodyKind::Kup,
            Self::Rr(_) => BodyKind::Rr,
            Self::Rp(_) => BodyKind::Rp,
            Self::PkiConf => BodyKind::PkiConf,
            Self::Nested(_) => BodyKind::Nested,
            Self::Genm(_) => BodyKind::Genm,
            Self::Genp(_) => BodyKind::Genp,
            Self::Error(_) => BodyKind::Error,
            Self::CertConf(_) => BodyKind::CertConf,
            Self::PollReq(_) => BodyKind::PollReq,
            Self::PollRep(_) => BodyKind::PollRep,
            Self::Other(kind, _) => *kind,
        }
    }

    /// The body as DER.
    ///
    /// # Errors
    /// When a value in it cannot be encoded.
    pub fn to_der(&self) -> der::Result<Vec<u8>> {
        let content = match self {
            Self::Ir(requests) | Self::Cr(requests) | Self::Kur(requests) => requests.to_der()?,
            Self::Ip(answer) | Self::Cp(answer) | Self::Kup(answer) => answer.to_der()?,
            Self::P10cr(request) => request.to_der()?,
            Self::Rr(details) => details.to_der()?,
            Self::Rp(answer) => answer.to_der()?,
            Self::PkiConf => Null.to_der()?,
            Self::Nested(messages) => {
                let messages = messages.iter().map(|message| RawSequence::from_tlv(&message.to_der()?));
                messages.collect::<der::Result<Vec<_>>>()?.to_der()?
            }
            Self::Genm(infos) | Self::Genp(infos) => infos.to_der()?,
            Self::Error(error) => error.to_der()?,
            Self::CertConf(statuses) => statuses.to_der()?,
            Self::PollReq(polls) => polls.to_der()?,
            Self::PollRep(polls) => polls.to_der()?,
            Self::Other(_, content) => content.clone(),
        };
        Any::new(Tag::ContextSpecific { number: self.kind().tag_number(), constructed: true }, content)?.to_der()
    }

    /// Decodes a body; `nested` says how many messages are around it already.
    pub(super) fn decode(body: &[u8], nested: usize) -> Result<Self, DecodeError> {
        let any = der::asn1::AnyRef::from_der(body).map_err(|source| DecodeError::der("body", source))?;
        let Tag::ContextSpecific { number, constructed: true } = der::Tagged::tag(&any) else {
            return Err(DecodeError::UnknownBody { tag: der::Tagged::tag(&any).octet() });
        };
        let kind = BodyKind::from_tag(number)
            .ok_or_else(|| DecodeError::UnknownBody { tag: der::Tagged::tag(&any).octet() })?;
        let content = any.value();
        Ok(match kind {
            BodyKind::Ir => Self::Ir(read(kind, content)?),
            BodyKind::Ip => Self::Ip(read(kind, content)?),
            BodyKind::Cr => Self::Cr(read(kind, content)?),
            BodyKind::Cp => Self::Cp(read(kind, content)?),
            BodyKind::P10cr => Self::P10cr(read(kind, content)?),
            BodyKind::Kur => Self::Kur(read(kind, content)?),
            BodyKind::Kup => Self::Kup(read(kind, content)?),
            BodyKind::Rr => Self::Rr(read(kind, content)?),
            BodyKind::Rp => Self::Rp(read(kind, content)?),
            BodyKind::PkiConf => read::<Null>(kind, content).map(|_| Self::PkiConf)?,
            BodyKind::Nested => {
                if nested >= super::bounds::MAX_NESTED {
                    return Err(DecodeError::NestedTooDeep);
                }
                let messages: Vec<RawSequence> = read(kind, content)?;
                let decoded = messages.iter().map(|message| {
                    let der = message.to_tlv().map_err(|source| DecodeError::der("nested", source))?;
                    PkiMessage::decode_at(&der, nested + 1)
                });
                Self::Nested(decoded.collect::<Result<_, _>>()?)
            }
            BodyKind::Genm => Self::Genm(read(kind, content)?),
            BodyKind::Genp => Self::Genp(read(kind, content)?),
            BodyKind::Error => Self::Error(read(kind, content)?),
            BodyKind::CertConf => Self::CertConf(read(kind, content)?),
            BodyKind::PollReq => Self::PollReq(read(kind, content)?),
            BodyKind::PollRep => Self::PollRep(read(kind, content)?),
            other => Self::Other(other, content.to_vec()),
        })
    }
}

fn read<'a, T: Decode<'a>>(kind: BodyKind, content: &'a [u8]) -> Result<T, DecodeError> {
    T::from_der(content).map_err(|source| DecodeError::der(kind.name(), source))
}
