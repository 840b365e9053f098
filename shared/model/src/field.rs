//! Names, bounded texts and the collection of everything that is wrong with an input.
//!
//! A form with three mistakes gets three sentences at once, each naming its field and the rule (S24, S32).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One broken rule of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Path of the field in the request body, such as `primary.url` or `sans[1].value`.
    pub field: String,
    /// The rule, stable for clients: a checklist id such as `S17`, or a snake_case word.
    pub rule: String,
    /// What is wrong and what would be right, as a sentence.
    pub message: String,
}

/// All broken rules found so far in one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Nothing found yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes one broken rule.
    pub fn add(&mut self, field: impl Into<String>, rule: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), rule: rule.into(), message: message.into() });
    }

    /// Passes a good value on; notes a bad one under `field` and `rule`.
    pub fn check<T, E: fmt::Display>(&mut self, field: &str, rule: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, rule, error.to_string());
                None
            }
        }
    }

    /// Whether nothing was found.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` when nothing was found.
    ///
    /// # Errors
    /// Itself, when at least one rule is broken.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The broken rules in the order they were found.
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// The broken rules in the order they were found.
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {} ({})", v.field, v.message, v.rule)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// Why a name or text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing was given.
    #[error("is empty; give 1 to {max} characters")]
    Empty {
        /// Longest allowed, characters.
        max: usize,
    },
    /// Too many characters.
    #[error("has {length} characters; at most {max} are allowed")]
    TooLong {
        /// Characters given.
        length: usize,
        /// Longest allowed, characters.
        max: usize,
    },
    /// A character outside the alphabet of names.
    #[error(
        "contains {character:?} at position {position}; names are letters, digits, '.', '_' and '-', beginning with a letter or digit"
    )]
    BadCharacter {
        /// The character.
        character: char,
        /// Its position, from 1.
        position: usize,
    },
    /// A control character in a free text.
    #[error("contains the control character {character:?} at position {position}")]
    Control {
        /// The character.
        character: char,
        /// Its position, from 1.
        position: usize,
    },
}

/// Name of an object inside its tenant or device: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or
/// digit, case-sensitive. It becomes part of URLs and file names, so no path can be made of it (S1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest name, characters.
    pub const MAX: usize = 63;

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a trustpoint: as [`ObjectName`], at most 32 characters (S17).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustpointName(String);

impl TrustpointName {
    /// Longest name, characters (S17).
    pub const MAX: usize = 32;

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! name_impls {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                check_name(text, Self::MAX).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                check_name(&text, Self::MAX).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name_impls!(ObjectName);
name_impls!(TrustpointName);

fn check_name(text: &str, max: usize) -> Result<(), TextError> {
    check_length(text, max)?;
    for (i, character) in text.chars().enumerate() {
        let inner = character.is_ascii_alphanumeric() || (i > 0 && matches!(character, '.' | '_' | '-'));
        if !inner {
            return Err(TextError::BadCharacter { character, position: i + 1 });
        }
    }
    Ok(())
}

/// Checks a free text: 1 to `max` characters, none of them a control character.
///
/// # Errors
/// The first rule that is broken.
pub fn check_text(text: &str, max: usize) -> Result<(), TextError> {
    check_length(text, max)?;
    match text.chars().enumerate().find(|(_, c)| c.is_control()) {
        Some((i, character)) => Err(TextError::Control { character, position: i + 1 }),
        None => Ok(()),
    }
}

fn check_length(text: &str, max: usize) -> Result<(), TextError> {
    let length = text.chars().count();
    match length {
        0 => Err(TextError::Empty { max }),
        n if n > max => Err(TextError::TooLong { length, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_no_path_can_be_made_of_a_name() {
        for bad in ["", "../x", "a/b", ".hidden", "a b", "ä", "-x", "a\0", "a\\b"] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("ap-1.lobby_2".parse::<ObjectName>().unwrap().as_str(), "ap-1.lobby_2");
    }

    #[test]
    fn s17_a_trustpoint_name_has_at_most_32_characters() {
        assert!("x".repeat(32).parse::<TrustpointName>().is_ok());
        let error = "x".repeat(33).parse::<TrustpointName>().unwrap_err();
        assert_eq!(error.to_string(), "has 33 characters; at most 32 are allowed");
    }

    #[test]
    fn all_broken_rules_are_told_at_once() {
        let mut violations = Violations::new();
        assert!(violations.check("name", "S1", "a/b".parse::<ObjectName>()).is_none());
        assert!(violations.check("subject", "S18", check_text("", 512)).is_none());
        let error = violations.into_result().unwrap_err();
        assert_eq!(error.as_slice().len(), 2);
        assert!(error.to_string().contains("name: contains '/' at position 2"));
    }
}
