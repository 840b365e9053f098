//! Object identifiers as text.

use der::asn1::ObjectIdentifier;

/// Reads dotted numbers. The library computes on with numbers that do not fit: it would take another identifier, or panic.
pub fn parse(text: &str) -> Option<ObjectIdentifier> {
    text.split('.').all(|arc| arc.parse::<u32>().is_ok()).then(|| ObjectIdentifier::new(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_no_identifier() {
        assert_eq!(parse("2.5.4.3").map(|oid| oid.to_string()).as_deref(), Some("2.5.4.3"));
        assert!(parse("1.2.4294967295").is_some());
        for wrong in ["1.2.4294967296", &"2".repeat(100), "", ".", "1.2.", "1..2", "1.-2", "1.+2", "cn"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
