//! The two spellings of a name, for people. The DER is the truth; these are views.

use std::fmt::Write as _;

use super::attribute::{Attribute, Kind};

/// RFC 4514 section 2: last RDN first.
pub(super) fn rfc4514(rdns: &[Vec<Attribute>]) -> String {
    rdns.iter().rev().map(|rdn| join(rdn, escape_rfc4514)).collect::<Vec<_>>().join(",")
}

/// The OpenSSL spelling: each RDN after a slash, in the order of the DER.
pub(super) fn slash(rdns: &[Vec<Attribute>]) -> String {
    if rdns.is_empty() {
        return "/".to_owned();
    }
    rdns.iter().fold(String::new(), |text, rdn| text + "/" + &join(rdn, escape_slash))
}

fn join(rdn: &[Attribute], escape: fn(&str) -> String) -> String {
    rdn.iter().map(|attribute| one(attribute, escape)).collect::<Vec<_>>().join("+")
}

fn one(attribute: &Attribute, escape: fn(&str) -> String) -> String {
    let kind = Kind::by_oid(attribute.oid);
    let name = kind.map_or_else(|| attribute.oid.to_string(), |kind| kind.name.to_owned());
    match attribute.text() {
        Some(text) if !text.is_empty() => format!("{name}={}", escape(&text)),
        _ => format!("{name}=#{}", attribute.value_der().map(hex::encode).unwrap_or_default()),
    }
}

fn escape_rfc4514(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        let escaped = match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => index == 0 || index == last,
            '#' => index == 0,
            _ => false,
        };
        push(&mut out, c, escaped);
    }
    out
}

fn escape_slash(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        push(&mut out, c, matches!(c, '/' | '+' | '\\') || (c == '#' && index == 0));
    }
    out
}

fn push(out: &mut String, c: char, escaped: bool) {
    if disturbs(c) {
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            let _ = write!(out, "\\{byte:02X}"); // writing to a String does not fail
        }
        return;
    }
    if escaped {
        out.push('\\');
    }
    out.push(c);
}

/// Control characters, line separators and marks of text direction.
pub(super) fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}
