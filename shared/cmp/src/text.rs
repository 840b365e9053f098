//! Text of peers, made harmless before it is shown, logged or stored.
//!
//! What a server writes into statusString, errorDetails or freeText is hostile input: newlines would forge log lines,
//! escape sequences would drive a terminal, a megabyte would fill a report. It is never interpreted.

use std::fmt;

use crate::codec::raw::FreeText;

/// Longest text that is kept, in characters; what is longer ends with `…`.
pub const MAX_CHARACTERS: usize = 400;
/// Longest name or detail in an error, in characters.
const MAX_DETAIL: usize = 1000;
/// Most texts of one message that are kept.
pub const MAX_TEXTS: usize = 8;

/// One text without control characters, escape sequences, bidirectional overrides and surplus length.
pub fn sanitise(text: &str) -> String {
    bounded(text, MAX_CHARACTERS)
}

/// A name of a peer's, or a detail with such names in it, for an error: a name alone may have 16 KiB.
pub(crate) fn shown(value: &dyn fmt::Display) -> String {
    bounded(&value.to_string(), MAX_DETAIL)
}

fn bounded(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut characters = text.trim().chars();
    for character in characters.by_ref().take(most) {
        out.push(match character {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_invisible(c) => '\u{fffd}',
            c => c,
        });
    }
    if characters.next().is_some() {
        out.push('…');
    }
    out
}

/// All texts of a PKIFreeText, harmless.
pub fn sanitise_all(texts: Option<&FreeText>) -> Vec<String> {
    let texts = texts.into_iter().flatten().take(MAX_TEXTS).map(|text| sanitise(&text.lossy()));
    texts.filter(|text| !text.is_empty()).collect()
}

/// Characters that change the direction or hide others.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::raw::PeerText;

    #[test]
    fn escape_sequences_newlines_and_nul_lose_their_power() {
        let text = sanitise("ok\u{1b}[31m\r\n2026 ERROR forged\0 %s%n \u{202e}txt \u{61c}");
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        assert!(text.contains("%s%n"));
        assert!(!text.contains(['\u{202e}', '\u{61c}']));
    }

    #[test]
    fn e3_a_megabyte_of_text_is_cut() {
        let text = sanitise(&"ä".repeat(1_000_000));
        assert_eq!(text.chars().count(), MAX_CHARACTERS + 1);
        let many: FreeText = (0..1000).map(|_| PeerText::new("x")).collect();
        assert_eq!(sanitise_all(Some(&many)).len(), MAX_TEXTS);
    }
}
