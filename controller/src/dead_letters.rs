//! Dead letters: how many are kept, and what may be shown of one.
//!
//! Whoever can write to the broker decides what a letter holds, so nothing of it is shown as it came: a message of a form
//! that this program knows is read into it and shown again, everything else only by its shape.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use trustfleet_model::clock::Clock;
use trustfleet_wire::{Envelope, v1::FromAgent};

use crate::{
    db::{DbError, Store},
    metrics::{LetterLoss, Metrics},
    telemetry::chain,
};

/// Letters that are kept of one agent.
pub const OF_AGENT_MAX: i64 = 50;
/// Their bodies together, bytes.
pub const OF_AGENT_BYTES: i64 = 4 * 1024 * 1024;
/// Letters that are kept of all.
pub const ALL_MAX: i64 = 10_000;
/// Their bodies together, bytes.
pub const ALL_BYTES: i64 = 256 * 1024 * 1024;
/// How long one is kept that nobody looks after, days.
pub const KEPT_DAYS: i64 = 30;
/// How often it is looked whether there are too many.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Longest text that is shown of a letter, characters.
const TEXT_SHOWN: usize = 256;
/// Most elements of a list that are shown.
const ELEMENTS_SHOWN: usize = 32;
/// Deepest nesting that is shown.
const DEPTH_SHOWN: usize = 12;
/// Parts of a field's name that could hold a secret, whatever else it is.
const SUSPICIOUS: [&str; 8] = ["secret", "passw", "token", "private", "credential", "sealed", "authorization", "pin"];

/// Keeps the number of letters bounded until `shutdown`, whichever replica comes first.
pub async fn keep(
    store: Store,
    clock: std::sync::Arc<dyn Clock>,
    metrics: std::sync::Arc<Metrics>,
    shutdown: CancellationToken,
) {
    loop {
        if let Err(error) = trim(&store, &metrics, clock.now()).await {
            tracing::warn!(error = %chain(&error), "dead letters wait to be bounded");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Drops what is too old or too many, and counts it.
///
/// # Errors
/// The database's own.
pub async fn trim(store: &Store, metrics: &Metrics, now: Timestamp) -> Result<(), DbError> {
    let until = now.checked_sub(SignedDuration::from_hours(24 * KEPT_DAYS)).unwrap_or(Timestamp::MIN);
    let dropped: Result<_, DbError> = store
        .system_tx("dead_letters_trim", async move |tx| {
            Ok((tx.dead_letters_remove_old(until).await?, tx.dead_letters_trim(ALL_MAX, ALL_BYTES).await?))
        })
        .await;
    let (old, beyond) = dropped?;
    metrics.letters_lost(LetterLoss::Age, old);
    metrics.letters_lost(LetterLoss::TotalLimit, beyond);
    if beyond > 0 {
        tracing::warn!(letters = beyond, "there are more dead letters than are kept: the oldest were dropped");
    }
    Ok(())
}

/// What may be shown of a message: null where it is no JSON.
pub fn shown(body: &[u8]) -> Value {
    let known = Envelope::from_bytes(body).and_then(|envelope| envelope.peek::<FromAgent>());
    // What this program does not know of it is lost on the way.
    let known = known.ok().and_then(|message| serde_json::to_value(message).ok());
    match (known, serde_json::from_slice::<Value>(body)) {
        (Some(message), _) => json!({ "form": "v1", "message": redacted(&message, true, 0) }),
        (None, Ok(other)) => json!({ "form": "unknown", "shape": redacted(&other, false, 0) }),
        (None, Err(_)) => Value::Null,
    }
}

/// Without what could be a secret; with `texts` short texts stay.
fn redacted(value: &Value, texts: bool, depth: usize) -> Value {
    if depth > DEPTH_SHOWN {
        return "(nested deeper than is shown)".into();
    }
    match value {
        Value::String(text) if texts && text.chars().count() <= TEXT_SHOWN && !text.contains("PRIVATE KEY") => {
            value.clone()
        }
        Value::String(text) => format!("(text of {} characters)", text.chars().count()).into(),
        Value::Array(list) => {
            let mut shown: Vec<Value> =
                list.iter().take(ELEMENTS_SHOWN).map(|element| redacted(element, texts, depth + 1)).collect();
            if list.len() > ELEMENTS_SHOWN {
                shown.push(format!("({} more)", list.len() - ELEMENTS_SHOWN).into());
            }
            shown.into()
        }
        Value::Object(object) => {
            let mut shown = Map::new();
            for (name, value) in object.iter().take(ELEMENTS_SHOWN) {
                let lower = name.to_lowercase();
                let suspicious = SUSPICIOUS.iter().any(|part| lower.contains(part));
                // Names of an unknown form are somebody's invention like everything else in it.
                let name = if texts || is_plain(name) { name.clone() } else { format!("(field {})", shown.len() + 1) };
                let value = if suspicious { "(left out)".into() } else { redacted(value, texts, depth + 1) };
                shown.insert(name, value);
            }
            shown.into()
        }
        Value::Number(_) if !texts => "(number)".into(),
        plain => plain.clone(),
    }
}

/// Whether a field's name looks like one.
fn is_plain(name: &str) -> bool {
    name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use trustfleet_model::ids::{AgentId, MessageId, TenantId};
    use trustfleet_wire::sign::{Purpose, SigningKey};
    use trustfleet_wire::v1::Hello;

    use super::*;

    #[test]
    fn a_message_of_a_known_form_is_shown_and_what_nobody_knows_of_it_is_not() {
        let hello = FromAgent::Hello(Hello {
            leases: false,
            clock_off_s: None,
            nodes: Vec::new(),
            roots: Vec::new(),
            repeated: false,
            tenant_id: TenantId::nil(),
            agent_id: AgentId::nil(),
            message_id: MessageId::nil(),
            at: Timestamp::UNIX_EPOCH,
            software: "agent 1".to_owned(),
            instance: None,
        });
        let mut payload = serde_json::to_value(&hello).unwrap();
        let key = SigningKey::generate().unwrap();
        let inner = payload.as_object_mut().unwrap();
        inner.insert("note".to_owned(), "melon-harbour".into());
        let sealed = Envelope::seal(&payload, Purpose::FromAgent, &key).unwrap();
        let shown = shown(&sealed.to_bytes().unwrap()).to_string();
        assert!(shown.contains("agent 1") && shown.contains("\"v1\""), "{shown}");
        assert!(!shown.contains("melon"), "{shown}");
    }

    #[test]
    fn of_an_unknown_form_the_shape_alone_is_shown() {
        let shown = shown(br#"{"v": 7, "secret": "melon", "melon harbour": ["melon", {"pin": 4711, "ok": true}]}"#);
        let text = shown.to_string();
        assert!(!text.contains("melon") && !text.contains("4711"), "{text}");
        assert_eq!(shown["shape"]["v"], "(number)");
        assert_eq!(shown["shape"]["secret"], "(left out)");
        assert_eq!(super::shown(b"\x00rubbish"), Value::Null);
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        assert!(super::shown(deep.as_bytes()).to_string().contains("deeper"));
    }

    #[test]
    fn a_private_key_and_long_texts_are_not_shown_whatever_field_they_stand_in() {
        let told =
            json!({ "message": "-----BEGIN PRIVATE KEY-----", "token": "x", "der": "A".repeat(1000), "ok": "yes" });
        let shown = redacted(&told, true, 0);
        assert_eq!(shown["message"], "(text of 27 characters)");
        assert_eq!((&shown["token"], &shown["ok"]), (&json!("(left out)"), &json!("yes")));
        assert_eq!(shown["der"], "(text of 1000 characters)");
    }
}
