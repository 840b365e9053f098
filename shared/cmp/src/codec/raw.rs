//! Values that are kept byte for byte instead of being taken apart: certificates, names, extensions, free text.
//!
//! What a signature covers, what is compared as DER and what only passes through must come out as it went in; a
//! decode and re-encode by another type is not always the identity. Nothing here judges the content it carries.

use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Tag, Writer,
    asn1::{Any, Int},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// A DER SEQUENCE whose content octets are kept as received (`Certificate`, `Name`, `Extensions`, ...).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawSequence(Vec<u8>);

impl RawSequence {
    /// Takes one complete DER SEQUENCE, header included.
    ///
    /// # Errors
    /// When `der` is not exactly one SEQUENCE.
    pub fn from_tlv(der: &[u8]) -> der::Result<Self> {
        Self::from_der(der)
    }

    /// The SEQUENCE as DER, header included.
    ///
    /// # Errors
    /// When the content is longer than DER lengths of this library reach (256 MiB).
    pub fn to_tlv(&self) -> der::Result<Vec<u8>> {
        self.to_der()
    }

    /// Decodes the same bytes as a typed value.
    ///
    /// # Errors
    /// When the content does not fit `T`.
    pub fn parse<T: for<'a> Decode<'a>>(&self) -> der::Result<T> {
        T::from_der(&self.to_der()?)
    }

    /// The content octets without the header.
    pub fn content(&self) -> &[u8] {
        &self.0
    }
}

impl FixedTag for RawSequence {
    const TAG: Tag = Tag::Sequence;
}

impl<'a> DecodeValue<'a> for RawSequence {
    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        Ok(Self(reader.read_slice(header.length)?.to_vec()))
    }
}

impl EncodeValue for RawSequence {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.0)
    }
}

/// One UTF8String of a peer, kept as bytes: a peer that sends Latin-1 here must not hide its failInfo from us.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerText(Vec<u8>);

impl PeerText {
    /// Text of our own.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// The text with invalid UTF-8 replaced; still untrusted, see [`crate::text`] before it is shown.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl FixedTag for PeerText {
    const TAG: Tag = Tag::Utf8String;
}

impl<'a> DecodeValue<'a> for PeerText {
    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        Ok(Self(reader.read_slice(header.length)?.to_vec()))
    }
}

impl EncodeValue for PeerText {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.0)
    }
}

/// A GeneralizedTime kept as its characters: a response's messageTime is informative (V13), so a form that we do not
/// expect (fractions of a second, say) must not make the message unreadable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimeText(Vec<u8>);

impl TimeText {
    /// `now` in whole seconds, as `YYYYMMDDHHMMSSZ` (H8).
    pub fn from_timestamp(now: Timestamp) -> Self {
        Self(now.strftime("%Y%m%d%H%M%SZ").to_string().into_bytes())
    }

    /// The moment, when it is written as `YYYYMMDDHHMMSSZ`.
    pub fn timestamp(&self) -> Option<Timestamp> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let digits = text.strip_suffix('Z')?;
        let civil = DateTime::strptime("%Y%m%d%H%M%S", digits).ok()?;
        civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

impl FixedTag for TimeText {
    const TAG: Tag = Tag::GeneralizedTime;
}

impl<'a> DecodeValue<'a> for TimeText {
    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        Ok(Self(reader.read_slice(header.length)?.to_vec()))
    }
}

impl EncodeValue for TimeText {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.0)
    }
}

/// ```text
/// PKIFreeText ::= SEQUENCE SIZE (1..MAX) OF UTF8String      -- RFC 9810 section 5.1.1
/// ```
pub type FreeText = Vec<PeerText>;

/// A GeneralName as received. RFC 5280 section 4.2.1.6; only `directoryName` is looked into.
pub type GeneralName = Any;

const DIRECTORY_NAME: u8 = 0xa4;

/// The GeneralName `directoryName [4] EXPLICIT Name` around a name given as DER.
///
/// # Errors
/// When the name is longer than DER lengths of this library reach.
pub fn directory_name(name_der: &[u8]) -> der::Result<GeneralName> {
    Any::new(Tag::try_from(DIRECTORY_NAME)?, name_der)
}

/// The DER of the Name when the GeneralName is a `directoryName`.
pub fn directory_name_der(name: &GeneralName) -> Option<&[u8]> {
    (der::Tagged::tag(name).octet() == DIRECTORY_NAME).then(|| name.value())
}

/// An INTEGER's content octets as upper-case hexadecimal, a leading sign octet left out, as OpenSSL prints serials.
pub fn integer_hex(value: &Int) -> String {
    use std::fmt::Write;
    let bytes = value.as_bytes();
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
