//! Distinguished names, kept exactly as they are.
//!
//! Why it exists: a CA compares names byte for byte (checklist S5), and people write them in two spellings with
//! opposite orders. So a [`Name`] is its DER; the texts are views of it.
//!
//! What it must never do: reorder, normalise or re-encode the sequence of RDNs.

mod attribute;
mod parse;
mod text;

use std::{cmp::Ordering, fmt, hash};

use der::{Decode, Encode, Tag, asn1::ObjectIdentifier};

use self::attribute::Attribute;
use crate::raw;

/// Longest text that [`Name::parse`] reads, in characters (checklist S18).
pub const MAX_TEXT_CHARS: usize = 512;

/// Longest DER that [`Name::from_der`] reads, in bytes.
pub const MAX_DER_BYTES: usize = 16 * 1024;

/// Most attributes of one RDN that are read: x509-cert sorts them in quadratic time.
const MAX_RDN: usize = 64;

/// Most attributes of one RDN that are compared by what they say: each is compared with each, and names come from peers.
const MAX_COMPARED: usize = 8;

/// A distinguished name: the DER as it was received or made, and its RDNs decoded for display.
///
/// Equal, ordered and hashed by its DER. There is no serde: a text loses the string types, so callers keep the text
/// that the operator wrote, or the DER.
#[derive(Clone)]
pub struct Name {
    der: Vec<u8>,
    rdns: Vec<Vec<Attribute>>,
}

impl Name {
    /// Reads a name written by a person, in one of two spellings (checklist S5):
    ///
    /// - it starts with `/`: as `openssl -subj` has it, `/C=DE/O=Example/CN=CA`, in the order of the DER; `/` alone is
    ///   the NULL-DN;
    /// - otherwise RFC 4514, `CN=CA,O=Example,C=DE`, which is the order of the DER reversed.
    ///
    /// Types: C, ST, L, STREET, O, OU, CN, DC, UID, serialNumber, emailAddress, title, SN, GN (upper or lower case) and
    /// dotted OIDs. `\` escapes the next character or stands before two hexadecimal digits; `+` joins attributes to
    /// one RDN. C and serialNumber become PrintableString, DC and emailAddress IA5String, all else UTF8String.
    ///
    /// # Errors
    /// Text longer than [`MAX_TEXT_CHARS`], syntax, unknown types, and values beyond the upper bounds of RFC 5280
    /// appendix A; each with its position and the rule.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::from_attributes(parse::parse(text)?)
    }

    /// Takes a name as it came, byte for byte.
    ///
    /// # Errors
    /// When it is not the DER of an RDNSequence (RFC 5280 section 4.1.2.4), longer than [`MAX_DER_BYTES`], or has an RDN
    /// of more than 64 attributes.
    pub fn from_der(der: &[u8]) -> Result<Self, NameError> {
        if der.len() > MAX_DER_BYTES {
            return Err(NameError::DerTooLong { bytes: der.len() });
        }
        let mut rdns = Vec::new();
        for set in raw::children(der, Tag::Sequence)? {
            let attributes =
                raw::children(set, Tag::Set)?.into_iter().map(Attribute::from_der).collect::<der::Result<Vec<_>>>()?;
            if attributes.is_empty() {
                return Err(NameError::EmptyRdn);
            }
            if attributes.len() > MAX_RDN {
                return Err(NameError::LongRdn { attributes: attributes.len() });
            }
            rdns.push(attributes);
        }
        Ok(Self { der: der.to_vec(), rdns })
    }

    /// The name that has one common name, whatever its length: the sender of a CMP message under a MAC has its
    /// reference value here (RFC 9483 section 3.1), and references may be longer than a subject's common name.
    ///
    /// # Errors
    /// When `text` is empty or longer than [`MAX_TEXT_CHARS`].
    pub fn of_common_name(text: &str) -> Result<Self, NameError> {
        let chars = text.chars().count();
        if chars == 0 {
            return Err(NameError::Empty);
        }
        if chars > MAX_TEXT_CHARS {
            return Err(NameError::TooLong { chars });
        }
        Self::from_attributes(vec![vec![Attribute::new(attribute::COMMON_NAME, Tag::Utf8String, text.as_bytes())]])
    }

    /// The NULL-DN: a sequence without RDNs.
    pub fn null() -> Self {
        Self { der: vec![0x30, 0x00], rdns: Vec::new() }
    }

    /// Whether this is the NULL-DN.
    pub fn is_null(&self) -> bool {
        self.rdns.is_empty()
    }

    /// The DER, as received or as made by [`Name::parse`].
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The last common name in the order of the DER (the most specific one), when it is a string.
    pub fn common_name(&self) -> Option<String> {
        self.values_of(attribute::COMMON_NAME).pop()
    }

    /// The string values of all attributes of one type, in the order of the DER.
    pub fn values_of(&self, oid: ObjectIdentifier) -> Vec<String> {
        self.rdns.iter().flatten().filter(|attribute| attribute.oid == oid).filter_map(Attribute::text).collect()
    }

    /// Whether both say the same: the same attributes in the same order with the same characters, whatever string types
    /// hold them. CAs often encode a name anew, with PrintableString for UTF8String or the other way round, and RFC 5280
    /// section 7.1 has such names match. Stricter than that section: case and spaces count.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let covers =
            |one: &[Attribute], all: &[Attribute]| one.iter().all(|a| all.iter().any(|b| a.says_the_same_as(b)));
        let same = |one: &[Attribute], two: &[Attribute]| {
            one.len() == two.len() && one.len() <= MAX_COMPARED && covers(one, two) && covers(two, one)
        };
        self == other
            || self.rdns.len() == other.rdns.len() && self.rdns.iter().zip(&other.rdns).all(|(one, two)| same(one, two))
    }

    /// The OpenSSL spelling `/C=DE/O=Example/CN=CA`, in the order of the DER; `/` for the NULL-DN.
    pub fn to_slash(&self) -> String {
        text::slash(&self.rdns)
    }

    /// The same name as the type of x509-cert.
    ///
    /// # Errors
    /// When that type would encode to other bytes than these (a multi-valued RDN that is not sorted as DER wants, for
    /// one): using it would change the name.
    pub fn to_x509(&self) -> Result<x509_cert::name::Name, NameError> {
        let name = x509_cert::name::Name::from_der(&self.der)?;
        if name.to_der()? == self.der { Ok(name) } else { Err(NameError::NotCanonical) }
    }

    fn from_attributes(rdns: Vec<Vec<Attribute>>) -> Result<Self, NameError> {
        let mut sequence = Vec::new();
        for rdn in &rdns {
            let mut encoded = rdn.iter().map(Attribute::to_der).collect::<der::Result<Vec<_>>>()?;
            encoded.sort(); // X.690 section 11.6: the elements of a SET OF ascend
            sequence.extend(raw::element(Tag::Set, &encoded.concat())?);
        }
        Self::from_der(&raw::element(Tag::Sequence, &sequence)?)
    }
}

/// RFC 4514: the RDNs in reverse order of the DER. Control and text-direction characters are escaped, so a hostile
/// name cannot disturb a terminal or a log.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::rfc4514(&self.rdns))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.to_slash())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.der.cmp(&other.der)
    }
}

impl hash::Hash for Name {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// Why a name was refused. Positions count characters of the text from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing was written.
    #[error("name is empty: write /C=.../CN=... or CN=...,C=... (a single / is the NULL-DN)")]
    Empty,
    /// More than [`MAX_TEXT_CHARS`].
    #[error("name has {chars} characters, at most {MAX_TEXT_CHARS} are allowed")]
    TooLong {
        /// How many characters there were.
        chars: usize,
    },
    /// The text does not follow its spelling.
    #[error("name, position {position}: {rule}")]
    Syntax {
        /// Where, in characters from 1.
        position: usize,
        /// What the spelling wants there.
        rule: &'static str,
    },
    /// An attribute type that is not known by name.
    #[error(
        "name, position {position}: unknown attribute type \"{attribute}\": use C, ST, L, STREET, O, OU, CN, DC, UID, \
         serialNumber, emailAddress, title, SN, GN or a dotted OID"
    )]
    UnknownType {
        /// Where the type begins, in characters from 1.
        position: usize,
        /// The type as written, shortened.
        attribute: String,
    },
    /// A value that its attribute type does not allow.
    #[error("name, position {position}: value of {attribute} {rule}")]
    Value {
        /// Where the value begins, in characters from 1.
        position: usize,
        /// The attribute type.
        attribute: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// More than [`MAX_DER_BYTES`].
    #[error("encoded name has {bytes} bytes, at most {MAX_DER_BYTES} are allowed")]
    DerTooLong {
        /// How many bytes there were.
        bytes: usize,
    },
    /// An RDN must have at least one attribute (RFC 5280 section 4.1.2.4).
    #[error("encoded name has an RDN without attributes")]
    EmptyRdn,
    /// More attributes than anybody uses: a trap for those who sort them.
    #[error("encoded name has an RDN of {attributes} attributes, at most {MAX_RDN} are allowed")]
    LongRdn {
        /// How many there were.
        attributes: usize,
    },
    /// The DER cannot pass through a typed value without changing.
    #[error("encoded name is not canonical DER: keep and send it as it is")]
    NotCanonical,
    /// Not the DER of a name.
    #[error("not the DER of a distinguished name")]
    Der(#[from] der::Error),
}
