//! One row of the log, and the bytes that stand for it: what the chain links and what a seal vouches for.
//!
//! The encoding is our own and fixed for ever: each field with its length before it, JSON with sorted keys. So nothing
//! depends on how PostgreSQL or a library writes JSON.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trustfleet_model::ids::TenantId;
use trustfleet_wire::sign::{SignError, SigningKey};
use uuid::Uuid;

use super::Requester;

/// A row of the log, as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id, in the order of insertion.
    pub id: i64,
    /// When; whole microseconds.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What the actor might do.
    pub role: String,
    /// From which address.
    pub source: Option<IpAddr>,
    /// By which request.
    pub request_id: Option<Uuid>,
    /// In which trace.
    pub trace_id: Option<String>,
    /// What.
    pub action: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// Kind of the object.
    pub object_kind: String,
    /// Id of the object.
    pub object_id: Uuid,
    /// What changed of it, as it was.
    pub before: Option<Value>,
    /// What changed of it, as it is.
    pub after: Option<Value>,
    /// What else matters.
    pub detail: Value,
}

impl Record {
    /// The bytes that stand for it, but for its id.
    pub fn content(&self, tenant: TenantId) -> Vec<u8> {
        let requester = Requester {
            actor: self.actor.clone(),
            role: self.role.clone(),
            source: self.source,
            request_id: self.request_id,
            trace_id: self.trace_id.clone(),
        };
        Content {
            tenant,
            at: self.at,
            requester: &requester,
            action: &self.action,
            outcome: &self.outcome,
            object_kind: &self.object_kind,
            object_id: self.object_id,
            before: self.before.as_ref(),
            after: self.after.as_ref(),
            detail: &self.detail,
        }
        .encode()
    }
}

/// A row before it has an id.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Whose log.
    pub tenant: TenantId,
    /// When; what is finer than a microsecond does not count.
    pub at: Timestamp,
    /// Who.
    pub requester: &'a Requester,
    /// What.
    pub action: &'a str,
    /// `done` or `refused`.
    pub outcome: &'a str,
    /// Kind of the object.
    pub object_kind: &'a str,
    /// Id of the object.
    pub object_id: Uuid,
    /// As it was.
    pub before: Option<&'a Value>,
    /// As it is.
    pub after: Option<&'a Value>,
    /// What else matters.
    pub detail: &'a Value,
}

impl Content<'_> {
    /// The bytes that stand for it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = b"trustfleet v1 audit row\0".to_vec();
        bytes.extend_from_slice(self.tenant.as_uuid().as_bytes());
        bytes.extend_from_slice(&self.at.as_microsecond().to_be_bytes());
        let json = |value: Option<&Value>| {
            value.filter(|value| !value.is_null()).map(|value| {
                let mut text = String::new();
                write_json(value, &mut text);
                text
            })
        };
        let Requester { actor, role, source, request_id, trace_id } = self.requester;
        for field in [
            Some(actor.clone()),
            Some(role.clone()),
            source.map(|address| address.to_string()),
            request_id.map(|id| id.to_string()),
            trace_id.clone(),
            Some(self.action.to_owned()),
            Some(self.outcome.to_owned()),
            Some(self.object_kind.to_owned()),
            Some(self.object_id.to_string()),
            json(self.before),
            json(self.after),
            json(Some(self.detail)),
        ] {
            match field {
                None => bytes.push(0),
                Some(text) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        bytes
    }
}

/// JSON without white space, keys sorted by their bytes.
fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                if let Some(value) = map.get(key) {
                    write_json(value, out);
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// SHA-256.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

/// Seals rows when they are inserted: who can write to the database, but has not the controllers' signing key, cannot
/// make a row that looks like theirs.
pub struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// With a key that follows from the signing key, which all replicas share.
    ///
    /// # Errors
    /// The library refused.
    pub fn new(signing: &SigningKey) -> Result<Self, SignError> {
        let key = signing.derive(b"trustfleet v1 audit seal")?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())))
    }

    /// The seal of a row: HMAC-SHA256 over [`Content::encode`].
    pub fn seal(&self, content: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, content).as_ref().to_vec()
    }

    /// Whether a controller made this row.
    pub fn is_good(&self, content: &[u8], seal: &[u8]) -> bool {
        hmac::verify(&self.0, content, seal).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        Record {
            id: 1,
            at: "2026-11-21T12:00:00.123456789Z".parse().unwrap(),
            actor: "token:1 (x)".to_owned(),
            role: "admin".to_owned(),
            source: Some("192.0.2.1".parse().unwrap()),
            request_id: None,
            trace_id: None,
            action: "device_created".to_owned(),
            outcome: "done".to_owned(),
            object_kind: "device".to_owned(),
            object_id: Uuid::from_u128(7),
            before: None,
            after: Some(json!({"b": [1, {"y": 1, "x": "ä\n"}], "a": null})),
            detail: json!({}),
        }
    }

    #[test]
    fn the_encoding_does_not_depend_on_the_order_of_keys_or_on_what_the_database_cannot_keep() {
        let tenant = TenantId::from(Uuid::from_u128(1));
        let mut text = String::new();
        write_json(record().after.as_ref().unwrap(), &mut text);
        assert_eq!(text, r#"{"a":null,"b":[1,{"x":"ä\n","y":1}]}"#);
        let stored = Record {
            at: "2026-11-21T12:00:00.123456Z".parse().unwrap(),
            before: Some(Value::Null),
            id: 99,
            ..record()
        };
        assert_eq!(record().content(tenant), stored.content(tenant));
    }

    #[test]
    fn every_field_counts_and_nothing_can_move_from_one_to_the_next() {
        let tenant = TenantId::from(Uuid::from_u128(1));
        let base = record().content(tenant);
        let changed = [
            Record { actor: "token:1 (x)a".to_owned(), role: "dmin".to_owned(), ..record() },
            Record { source: None, ..record() },
            Record { request_id: Some(Uuid::nil()), ..record() },
            Record { trace_id: Some(String::new()), ..record() },
            Record { action: "device_deleted".to_owned(), ..record() },
            Record { outcome: "refused".to_owned(), ..record() },
            Record { object_kind: "x".to_owned(), ..record() },
            Record { object_id: Uuid::from_u128(8), ..record() },
            Record { before: record().after, after: None, ..record() },
            Record { detail: json!({"x": 1}), ..record() },
            Record { at: "2026-11-21T12:00:00.123457Z".parse().unwrap(), ..record() },
        ];
        for other in changed {
            assert_ne!(other.content(tenant), base, "{other:?}");
        }
        assert_ne!(record().content(TenantId::from(Uuid::from_u128(2))), base);
    }

    #[test]
    fn a_seal_is_good_for_its_row_and_its_installation_alone() {
        let key = SigningKey::generate().unwrap();
        let (ours, theirs) = (Sealer::new(&key).unwrap(), Sealer::new(&SigningKey::generate().unwrap()).unwrap());
        let seal = ours.seal(b"row");
        assert!(Sealer::new(&key).unwrap().is_good(b"row", &seal));
        assert!(!ours.is_good(b"raw", &seal) && !theirs.is_good(b"row", &seal) && !ours.is_good(b"row", b""));
    }
}
