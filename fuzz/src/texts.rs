//! Texts and JSON from outside: what peers write for people, names and alternative names as text, and the envelopes of the
//! broker.

use trustfleet_cmp::text::{MAX_CHARACTERS, sanitise};
use trustfleet_pki::name::MAX_TEXT_CHARS;
use trustfleet_pki::{Certificate, Name, San};
use trustfleet_wire::{
    envelope::Envelope,
    sign::Purpose,
    v1::{FromAgent, ToAgent},
};

/// Longest error, warning or line about anything that a peer sent, in characters.
const MAX_SHOWN: usize = 6 * 1024;

/// Reads the input as each of them.
pub fn texts(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let clean = sanitise(&text);
    harmless(&clean);
    assert!(clean.chars().count() <= MAX_CHARACTERS + 1);
    // a text that was cut may end with a space before the ellipsis
    let said = |text: &str| text.trim_end_matches('…').trim().to_owned();
    assert_eq!(said(&sanitise(&clean)), said(&clean), "what is harmless stays");
    if let Ok(name) = Name::parse(&text) {
        quiet(&name.to_string());
        let shown = if name.is_null() { "/".to_owned() } else { name.to_string() };
        // a value given as its encoding may be one that nobody would write as text, and a text may grow when it is shown
        let fits = |shown: &&String| shown.chars().count() <= MAX_TEXT_CHARS;
        for shown in [shown, name.to_slash()].iter().filter(|_| !text.contains('#')).filter(fits) {
            assert_eq!(Name::parse(shown).as_ref(), Ok(&name), "{shown}");
        }
        assert_eq!(Name::from_der(name.as_der()).as_ref(), Ok(&name));
    }
    for kind in ["dns", "ip", "email", "uri", "dn", "upn"] {
        if let Ok(san) = San::parse(kind, &text) {
            let encoded = san.to_general_name().expect("what was parsed encodes");
            assert_eq!(San::from_general_name(&encoded), Some(san));
        }
    }
    let _ = Certificate::pem_bundle(&text);
    envelope(input);
}

fn envelope(input: &[u8]) {
    let Ok(envelope) = Envelope::from_bytes(input) else { return };
    let bytes = envelope.to_bytes().expect("what was read can be written");
    assert_eq!(Envelope::from_bytes(&bytes).expect("and read again"), envelope);
    // nothing is opened by a key that never signed it
    assert!(envelope.open::<ToAgent>(Purpose::ToAgent, &[7; 32]).is_err());
    if let Ok(message) = envelope.peek::<ToAgent>() {
        kept(&message);
    }
    if let Ok(message) = envelope.peek::<FromAgent>() {
        kept(&message);
    }
}

/// Written and read again it says the same.
fn kept<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let json = serde_json::to_vec(value).expect("what was read can be written");
    assert_eq!(&serde_json::from_slice::<T>(&json).expect("and read again"), value);
}

/// A text that may be logged and shown: it drives no terminal, forges no line, and has an end.
pub(crate) fn harmless(text: &str) {
    quiet(text);
    let length = text.chars().count();
    assert!(length <= MAX_SHOWN, "{length} characters: {}", text.chars().take(200).collect::<String>());
}

/// It drives no terminal and forges no line, but may be long.
pub(crate) fn quiet(text: &str) {
    let bad = text.chars().find(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    assert_eq!(bad, None, "in {text:?}");
}
