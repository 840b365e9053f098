//! PKI entities: the subject and alternative names that requests carry (S2, S18, S21, S22).
//!
//! Texts may hold placeholders, so that one entity serves a fleet. What fills them comes from the controller's own
//! registration of the device, never from what a device says of itself.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::field::{Violations, check_text};

/// Longest subject text, characters (S18).
pub const SUBJECT_MAX: usize = 512;
/// Longest alternative name, characters (S22).
pub const SAN_MAX: usize = 128;
/// Most alternative names in one entity.
pub const SANS_MAX: usize = 16;

/// Kind of an alternative name (S21). `upn` is an otherName with the UPN OID and a UTF8String.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SanKind {
    /// IPv4 or IPv6 address.
    Ip,
    /// Distinguished name.
    Dn,
    /// E-mail address (rfc822Name).
    Email,
    /// Uniform resource identifier.
    Uri,
    /// User principal name (otherName 1.3.6.1.4.1.311.20.2.3).
    Upn,
    /// Fully qualified domain name (dNSName).
    Dns,
}

impl SanKind {
    /// The kind's word in the API and in jobs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Dn => "dn",
            Self::Email => "email",
            Self::Uri => "uri",
            Self::Upn => "upn",
            Self::Dns => "dns",
        }
    }
}

/// One alternative name, possibly with placeholders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SanSpec {
    /// Kind of the name (S21).
    pub kind: SanKind,
    /// The name, 1 to 128 characters (S22).
    pub value: String,
}

/// Subject and alternative names as configured, possibly with placeholders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntitySpec {
    /// Subject DN: `/C=DE/O=X/CN=Y` as written, or RFC 4514; its order is kept (S5).
    pub subject: String,
    /// Alternative names.
    #[serde(default)]
    pub sans: Vec<SanSpec>,
}

impl EntitySpec {
    /// Checks lengths, counts and the spelling of placeholders; whether a resolved text is a DN is for the PKI crate.
    pub fn check(&self, violations: &mut Violations) {
        if violations.check("subject", "S18", check_text(&self.subject, SUBJECT_MAX)).is_some() {
            violations.check("subject", "placeholder", placeholders(&self.subject));
        }
        if self.sans.len() > SANS_MAX {
            violations.add("sans", "S21", format!("has {} names; at most {SANS_MAX} are allowed", self.sans.len()));
        }
        for (i, san) in self.sans.iter().enumerate() {
            let field = format!("sans[{i}].value");
            if violations.check(&field, "S22", check_text(&san.value, SAN_MAX)).is_some() {
                violations.check(&field, "placeholder", placeholders(&san.value));
            }
        }
    }

    /// Fills the placeholders from the device.
    ///
    /// # Errors
    /// Every placeholder that the device has no value for, and every result that became too long (S32).
    pub fn resolve(&self, device: &Device) -> Result<ResolvedEntity, Violations> {
        let mut violations = Violations::new();
        let subject = violations.check("entity.subject", "placeholder", fill(&self.subject, device));
        if let Some(subject) = &subject {
            violations.check("entity.subject", "S18", check_text(subject, SUBJECT_MAX));
        }
        let mut sans = Vec::with_capacity(self.sans.len());
        for (i, san) in self.sans.iter().enumerate() {
            let field = format!("entity.sans[{i}].value");
            if let Some(value) = violations.check(&field, "placeholder", fill(&san.value, device)) {
                violations.check(&field, "S22", check_text(&value, SAN_MAX));
                sans.push(SanSpec { kind: san.kind, value });
            }
        }
        violations.into_result()?;
        Ok(ResolvedEntity { subject: subject.unwrap_or_default(), sans })
    }
}

/// Subject and alternative names of one device, without placeholders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedEntity {
    /// Subject DN, as text.
    pub subject: String,
    /// Alternative names.
    pub sans: Vec<SanSpec>,
}

/// A placeholder that cannot be read or filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// `{` without `}`.
    #[error("has '{{' without a closing '}}' at position {position}")]
    Unclosed {
        /// Position of the brace, from 1.
        position: usize,
    },
    /// Not one of the known names.
    #[error(
        "has the unknown placeholder {{{name}}}; known are {{device.name}}, {{device.serial}}, {{device.mac}} and {{label.NAME}}"
    )]
    Unknown {
        /// What stands between the braces.
        name: String,
    },
    /// The device has no such value.
    #[error("needs {{{name}}}, which device {device} does not have: register it on the device")]
    Unresolved {
        /// What stands between the braces.
        name: String,
        /// Name of the device.
        device: String,
    },
}

/// A piece of a text with placeholders.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let position = text[..text.len() - rest.len() + open].chars().count() + 1;
        let close = after.find('}').ok_or(PlaceholderError::Unclosed { position })?;
        pieces.push(Piece::Text(&rest[..open]));
        pieces.push(Piece::Placeholder(&after[..close]));
        rest = &after[close + 1..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// Checks the spelling of placeholders.
///
/// # Errors
/// The first that cannot be read.
pub(crate) fn placeholders(text: &str) -> Result<(), PlaceholderError> {
    for piece in pieces(text)? {
        if let Piece::Placeholder(name) = piece {
            let known = matches!(name, "device.name" | "device.serial" | "device.mac")
                || name.strip_prefix("label.").is_some_and(|label| !label.is_empty());
            if !known {
                return Err(PlaceholderError::Unknown { name: name.to_owned() });
            }
        }
    }
    Ok(())
}

/// A text with its placeholders filled from the device.
///
/// # Errors
/// The first placeholder that cannot be read, or that the device has no value for.
pub fn fill(text: &str, device: &Device) -> Result<String, PlaceholderError> {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Placeholder(name) => {
                let value = match name {
                    "device.name" => Some(device.name.as_str()),
                    "device.serial" => device.serial.as_ref().map(AsRef::as_ref),
                    "device.mac" => device.mac.as_ref().map(AsRef::as_ref),
                    _ => match name.strip_prefix("label.") {
                        Some(label) => device.labels.value(label),
                        None => return Err(PlaceholderError::Unknown { name: name.to_owned() }),
                    },
                };
                filled.push_str(value.ok_or_else(|| PlaceholderError::Unresolved {
                    name: name.to_owned(),
                    device: device.name.to_string(),
                })?);
            }
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::device;

    fn spec(subject: &str) -> EntitySpec {
        EntitySpec { subject: subject.to_owned(), sans: Vec::new() }
    }

    #[test]
    fn s2_one_entity_serves_a_fleet_through_placeholders() {
        let mut entity = spec("/O=Example/CN={device.name}/serialNumber={device.serial}");
        entity.sans.push(SanSpec { kind: SanKind::Dns, value: "{device.name}.{label.site}.example".to_owned() });
        let resolved = entity.resolve(&device("ap-1")).unwrap();
        assert_eq!(resolved.subject, "/O=Example/CN=ap-1/serialNumber=SN-1");
        assert_eq!(resolved.sans[0].value, "ap-1.berlin.example");
    }

    #[test]
    fn s32_a_placeholder_without_a_value_is_named() {
        let error = spec("CN={label.floor}").resolve(&device("ap-1")).unwrap_err();
        assert!(error.to_string().contains("{label.floor}"), "{error}");
    }

    #[test]
    fn an_unknown_or_open_placeholder_is_refused_when_it_is_configured() {
        for (text, word) in [("CN={device.colour}", "unknown placeholder"), ("CN={device.name", "closing")] {
            let mut violations = Violations::new();
            spec(text).check(&mut violations);
            assert!(violations.to_string().contains(word), "{violations}");
        }
    }

    #[test]
    fn s18_a_subject_longer_than_512_characters_is_refused() {
        let mut violations = Violations::new();
        spec(&format!("CN={}", "x".repeat(510))).check(&mut violations);
        assert_eq!(violations.as_slice()[0].rule, "S18");
    }
}
