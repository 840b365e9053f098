//! Subject alternative names that requests carry (RFC 5280 section 4.2.1.6; checklist S21, S22).
//!
//! A value is checked for its type when it is made from text, so that a CA never has to refuse a typing error.

use std::{fmt, net::IpAddr};

use der::{
    Any, Decode, Encode, Tag, Tagged,
    asn1::{Ia5String, ObjectIdentifier, OctetString},
};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use crate::{
    bounds,
    name::{Name, NameError},
};

/// Longest value, in characters (checklist S22).
pub const MAX_VALUE_CHARS: usize = 128;

/// id-ms-UPN, the otherName that "string" values become by default (checklist S21).
pub const UPN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

/// One alternative name of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum San {
    /// dNSName: a fully qualified domain name, perhaps with `*` as its first label.
    Dns(String),
    /// iPAddress, version 4 or 6.
    Ip(IpAddr),
    /// rfc822Name.
    Email(String),
    /// uniformResourceIdentifier.
    Uri(String),
    /// directoryName.
    DirectoryName(Name),
    /// otherName with the type [`UPN`] and a UTF8String.
    Upn(String),
}

impl San {
    /// Makes one from its kind (`dns`, `ip`, `email`, `uri`, `dn` or `upn`) and value.
    ///
    /// # Errors
    /// Unknown kind; value empty, longer than [`MAX_VALUE_CHARS`], or not of its kind.
    pub fn parse(kind: &str, value: &str) -> Result<Self, SanError> {
        if !["dns", "ip", "email", "uri", "dn", "upn"].contains(&kind) {
            return Err(SanError::Kind { kind: kind.chars().take(40).collect() });
        }
        let chars = value.chars().count();
        if chars == 0 {
            return Err(SanError::Empty);
        }
        if chars > MAX_VALUE_CHARS {
            return Err(SanError::TooLong { chars });
        }
        let checked = |fits: bool, rule: &'static str| if fits { Ok(()) } else { Err(SanError::Value { rule }) };
        Ok(match kind {
            "dns" => {
                checked(is_dns_name(value), "is not a domain name (letters, digits and hyphens between dots)")?;
                Self::Dns(value.to_owned())
            }
            "ip" => Self::Ip(value.parse().map_err(|_| SanError::Value { rule: "is not an IPv4 or IPv6 address" })?),
            "email" => {
                checked(is_email(value), "is not an e-mail address of the form name@domain")?;
                Self::Email(value.to_owned())
            }
            "uri" => {
                checked(is_uri(value), "is not a URI with a scheme, in ASCII and without spaces")?;
                Self::Uri(value.to_owned())
            }
            "dn" => Self::DirectoryName(Name::parse(value)?),
            _ => {
                checked(!value.chars().any(char::is_control), "has control characters")?;
                Self::Upn(value.to_owned())
            }
        })
    }

    /// The name of its kind, as [`San::parse`] takes it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Ip(_) => "ip",
            Self::Email(_) => "email",
            Self::Uri(_) => "uri",
            Self::DirectoryName(_) => "dn",
            Self::Upn(_) => "upn",
        }
    }

    /// The same as a GeneralName.
    ///
    /// # Errors
    /// When a text does not fit IA5String, or a directory name is not canonical DER.
    pub fn to_general_name(&self) -> Result<GeneralName, SanError> {
        Ok(match self {
            Self::Dns(text) => GeneralName::DnsName(Ia5String::new(text)?),
            Self::Email(text) => GeneralName::Rfc822Name(Ia5String::new(text)?),
            Self::Uri(text) => GeneralName::UniformResourceIdentifier(Ia5String::new(text)?),
            Self::Ip(IpAddr::V4(address)) => GeneralName::IpAddress(OctetString::new(address.octets())?),
            Self::Ip(IpAddr::V6(address)) => GeneralName::IpAddress(OctetString::new(address.octets())?),
            Self::DirectoryName(name) => GeneralName::DirectoryName(name.to_x509()?),
            Self::Upn(text) => {
                GeneralName::OtherName(OtherName { type_id: UPN, value: Any::new(Tag::Utf8String, text.as_bytes())? })
            }
        })
    }

    /// Reads a GeneralName of a kind that exists here; `None` for any other.
    pub fn from_general_name(name: &GeneralName) -> Option<Self> {
        Some(match name {
            GeneralName::DnsName(text) => Self::Dns(text.to_string()),
            GeneralName::Rfc822Name(text) => Self::Email(text.to_string()),
            GeneralName::UniformResourceIdentifier(text) => Self::Uri(text.to_string()),
            GeneralName::IpAddress(bytes) => Self::Ip(match bytes.as_bytes() {
                four if four.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(four).ok()?),
                sixteen => IpAddr::from(<[u8; 16]>::try_from(sixteen).ok()?),
            }),
            GeneralName::DirectoryName(name) => Self::DirectoryName(Name::from_der(&name.to_der().ok()?).ok()?),
            GeneralName::OtherName(other) if other.type_id == UPN && other.value.tag() == Tag::Utf8String => {
                Self::Upn(String::from_utf8(other.value.value().to_vec()).ok()?)
            }
            _ => return None,
        })
    }

    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        bounds::check(der).ok()?;
        Self::from_general_name(&GeneralName::from_der(der).ok()?)
    }
}

/// `dns:ap1.example.org`, with control characters escaped.
impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) | Self::Upn(text) => {
                write!(f, "{kind}:")?;
                text.chars().try_for_each(|c| {
                    if c.is_control() { write!(f, "{}", c.escape_default()) } else { fmt::Write::write_char(f, c) }
                })
            }
            Self::Ip(address) => write!(f, "{kind}:{address}"),
            Self::DirectoryName(name) => write!(f, "{kind}:{name}"),
        }
    }
}

/// The DER of GeneralNames: the value inside the subjectAltName extension.
///
/// # Errors
/// As [`San::to_general_name`]; also when `sans` is empty (GeneralNames has at least one).
pub fn extension_value(sans: &[San]) -> Result<Vec<u8>, SanError> {
    if sans.is_empty() {
        return Err(SanError::Empty);
    }
    let names = sans.iter().map(San::to_general_name).collect::<Result<Vec<_>, _>>()?;
    Ok(names.to_der()?)
}

/// Why an alternative name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SanError {
    /// A kind that does not exist.
    #[error("unknown kind of alternative name \"{kind}\": use dns, ip, email, uri, dn or upn")]
    Kind {
        /// The kind as written, shortened.
        kind: String,
    },
    /// Nothing was written.
    #[error("alternative name is empty")]
    Empty,
    /// More than [`MAX_VALUE_CHARS`].
    #[error("alternative name has {chars} characters, at most {MAX_VALUE_CHARS} are allowed")]
    TooLong {
        /// How many characters there were.
        chars: usize,
    },
    /// Not a value of its kind.
    #[error("alternative name {rule}")]
    Value {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A directory name that is none.
    #[error("alternative name of kind dn: {0}")]
    Name(#[from] NameError),
    /// A value that its type cannot hold.
    #[error("alternative name cannot be encoded")]
    Der(#[from] der::Error),
}

fn is_dns_name(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    !rest.is_empty()
        && rest.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && local.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@')
            && !domain.starts_with('*')
            && is_dns_name(domain)
    })
}

fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'`'))
    })
}
