//! Texts of the configuration with the names of device and trustpoint in them: a gateway fronts many devices.

use std::fmt;

use crate::order::Place;

/// A text in which `{device}` and `{trustpoint}` stand for names. Those are letters, digits, `.`, `_` and `-`, beginning
/// with a letter or digit (S1), so no path and no option can be made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that nothing fills.
    #[error("has the placeholder {{{0}}}; known are {{device}} and {{trustpoint}}")]
    Unknown(String),
    /// Braces that are no placeholder.
    #[error("has a brace that belongs to no placeholder")]
    Brace,
    /// A control character.
    #[error("has a control character")]
    Control,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// Other placeholders, loose braces, control characters.
    pub fn read(text: &str) -> Result<Self, TemplateError> {
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let Some(inside) = rest[at..].strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
                return Err(TemplateError::Brace);
            };
            if !matches!(inside.0, "device" | "trustpoint") {
                return Err(TemplateError::Unknown(inside.0.to_owned()));
            }
            rest = inside.1;
        }
        Ok(Self(text.to_owned()))
    }

    /// The text for one trustpoint.
    pub fn fill(&self, place: &Place) -> String {
        self.0.replace("{device}", place.device.as_str()).replace("{trustpoint}", place.trustpoint.as_str())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_device_and_trustpoint_are_filled_in() {
        let place = Place { device: "gw-1".parse().unwrap(), trustpoint: "radius".parse().unwrap() };
        let template = Template::read("/x/{device}/{trustpoint}.pem").unwrap();
        assert_eq!(template.fill(&place), "/x/gw-1/radius.pem");
        assert_eq!(Template::read("{serial}"), Err(TemplateError::Unknown("serial".to_owned())));
        for loose in ["{device", "a}", "{{device}}", "}{"] {
            assert!(Template::read(loose).is_err(), "{loose}");
        }
        assert_eq!(Template::read("a\nb"), Err(TemplateError::Control));
    }
}
