//! The attribute types that names are made of, and one attribute with its value.
//!
//! Upper bounds and string types: RFC 5280 appendix A and RFC 4519. They bind what people write, never what was
//! received.

use der::{Decode, Tag, Tagged, asn1::ObjectIdentifier};

use crate::raw;

/// id-at-commonName.
pub(super) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The string type that a value gets when it is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Printable,
    Ia5,
}

/// An attribute type with a name.
#[derive(Debug)]
pub(super) struct Kind {
    /// How it is shown.
    pub(super) name: &'static str,
    /// Further names that are understood.
    pub(super) aliases: &'static [&'static str],
    pub(super) oid: ObjectIdentifier,
    pub(super) encoding: Encoding,
    /// Fewest characters of a value.
    pub(super) min: usize,
    /// Most characters of a value.
    pub(super) max: usize,
}

const fn kind(
    name: &'static str,
    aliases: &'static [&'static str],
    oid: &'static str,
    encoding: Encoding,
    max: usize,
) -> Kind {
    let min = if let Encoding::Printable = encoding
        && max == 2
    {
        2
    } else {
        1
    };
    Kind { name, aliases, oid: ObjectIdentifier::new_unwrap(oid), encoding, min, max }
}

static KINDS: [Kind; 14] = [
    kind("CN", &["commonName"], "2.5.4.3", Encoding::Utf8, 64),
    kind("C", &["countryName"], "2.5.4.6", Encoding::Printable, 2),
    kind("ST", &["S", "stateOrProvinceName"], "2.5.4.8", Encoding::Utf8, 128),
    kind("L", &["localityName"], "2.5.4.7", Encoding::Utf8, 128),
    kind("STREET", &["streetAddress"], "2.5.4.9", Encoding::Utf8, 128),
    kind("O", &["organizationName"], "2.5.4.10", Encoding::Utf8, 64),
    kind("OU", &["organizationalUnitName"], "2.5.4.11", Encoding::Utf8, 64),
    kind("DC", &["domainComponent"], "0.9.2342.19200300.100.1.25", Encoding::Ia5, 63),
    kind("UID", &["userId"], "0.9.2342.19200300.100.1.1", Encoding::Utf8, 256),
    kind("serialNumber", &[], "2.5.4.5", Encoding::Printable, 64),
    kind("emailAddress", &["E", "email"], "1.2.840.113549.1.9.1", Encoding::Ia5, 255),
    kind("title", &[], "2.5.4.12", Encoding::Utf8, 64),
    kind("SN", &["surname"], "2.5.4.4", Encoding::Utf8, 512),
    kind("GN", &["givenName"], "2.5.4.42", Encoding::Utf8, 512),
];

impl Kind {
    /// By name, whatever the case.
    pub(super) fn by_name(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| {
            kind.name.eq_ignore_ascii_case(name) || kind.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
        })
    }

    pub(super) fn by_oid(oid: ObjectIdentifier) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.oid == oid)
    }
}

/// One AttributeTypeAndValue, its value as the bytes inside the string.
#[derive(Clone, Debug)]
pub(super) struct Attribute {
    pub(super) oid: ObjectIdentifier,
    tag: Tag,
    value: Vec<u8>,
}

impl Attribute {
    pub(super) fn new(oid: ObjectIdentifier, tag: Tag, value: &[u8]) -> Self {
        Self { oid, tag, value: value.to_vec() }
    }

    /// AttributeTypeAndValue ::= SEQUENCE { type OBJECT IDENTIFIER, value ANY } (RFC 5280 section 4.1.2.4).
    pub(super) fn from_der(der: &[u8]) -> der::Result<Self> {
        let parts = raw::children(der, Tag::Sequence)?;
        let [oid, value] = parts.as_slice() else {
            return Err(Tag::Sequence.value_error());
        };
        let value = der::asn1::AnyRef::from_der(value)?;
        Ok(Self { oid: ObjectIdentifier::from_der(oid)?, tag: value.tag(), value: value.value().to_vec() })
    }

    pub(super) fn to_der(&self) -> der::Result<Vec<u8>> {
        let mut inside = raw::element(Tag::ObjectIdentifier, self.oid.as_bytes())?;
        inside.extend(self.value_der()?);
        raw::element(Tag::Sequence, &inside)
    }

    /// The value with its tag and length.
    pub(super) fn value_der(&self) -> der::Result<Vec<u8>> {
        raw::element(self.tag, &self.value)
    }

    /// The same type, and the same value, as bytes or as text of any string type.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.oid == other.oid
            && (self.tag == other.tag && self.value == other.value
                || self.text().is_some_and(|text| other.text() == Some(text)))
    }

    /// The value as text, when its type is a string and its bytes fit it.
    pub(super) fn text(&self) -> Option<String> {
        match self.tag {
            Tag::Utf8String => String::from_utf8(self.value.clone()).ok(),
            Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString
                if self.value.is_ascii() =>
            {
                String::from_utf8(self.value.clone()).ok()
            }
            // T.61 in certificates is Latin-1 in practice
            Tag::TeletexString => Some(self.value.iter().map(|&byte| char::from(byte)).collect()),
            Tag::BmpString if self.value.len().is_multiple_of(2) => {
                let units: Vec<u16> =
                    self.value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                String::from_utf16(&units).ok()
            }
            _ => None,
        }
    }
}
