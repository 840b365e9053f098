//! What of an object may stand in the audit log: everything but secrets, and certificates by their fingerprint, so that
//! a row stays small.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields whose value is never shown, whatever object they are in.
const HIDDEN: [&str; 7] = ["secret", "token", "password", "private_key", "proof", "signature", "ciphertext"];
/// Longest text that is shown in full, bytes.
const TEXT_MAX: usize = 4_096;

/// An object as the audit log shows it; null when it cannot be written at all.
pub fn shown<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).map_or(Value::Null, |mut value| {
        redact(&mut value);
        value
    })
}

/// The fields that are not the same before and after; those of the bookkeeping are left out.
pub fn differences(before: &Value, after: &Value) -> (Value, Value) {
    const BOOKKEEPING: [&str; 2] = ["updated_at", "created_at"];
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return (before.clone(), after.clone()) };
    let differs = |key: &String| !BOOKKEEPING.contains(&key.as_str()) && old.get(key) != new.get(key);
    let only = |map: &Map<String, Value>| -> Value {
        map.iter().filter(|(key, _)| differs(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    (only(old), only(new))
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if HIDDEN.contains(&key.as_str()) && !value.is_null() {
                    *value = Value::from("redacted");
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) if text.contains("-----BEGIN") || text.len() > TEXT_MAX => {
            let hash = hex::encode(digest(&SHA256, text.as_bytes()));
            let what = if text.contains("-----BEGIN") { "PEM" } else { "text" };
            *text = format!("{what} of {} bytes, SHA-256 {hash}", text.len());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_never_shown_and_a_certificate_by_its_fingerprint_alone() {
        let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let object = json!({
            "name": "x", "mac": {"reference": "r", "secret": "melon"}, "list": [{"token": "t"}], "anchors": [pem], "secret": null
        });
        let text = shown(&object).to_string();
        assert!(!text.contains("melon") && !text.contains("MIIB") && !text.contains("\"t\""), "{text}");
        assert!(text.contains("\"reference\":\"r\"") && text.contains("PEM of 59 bytes, SHA-256 "), "{text}");
        assert_eq!(shown(&object)["secret"], Value::Null);
        assert!(shown(&json!({"a": "x".repeat(10_000)})).to_string().len() < 200);
    }

    #[test]
    fn a_change_is_told_by_what_differs() {
        let before = json!({"name": "x", "labels": {"site": "a"}, "serial": "1", "updated_at": "1"});
        let after = json!({"name": "x", "labels": {"site": "b"}, "mac": "2", "updated_at": "2"});
        let (old, new) = differences(&before, &after);
        assert_eq!(old, json!({"labels": {"site": "a"}, "serial": "1"}));
        assert_eq!(new, json!({"labels": {"site": "b"}, "mac": "2"}));
    }
}
