//! Devices and what is registered about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::field::{ObjectName, Violations};
use crate::ids::{AgentId, DeviceId, TenantId};

/// A registered device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its id.
    pub id: DeviceId,
    /// Its name, unique in the tenant.
    pub name: ObjectName,
    /// The agent in front of it; several devices can share one.
    pub agent_id: Option<AgentId>,
    /// Serial number as registered, for names in certificates.
    pub serial: Option<Word>,
    /// MAC address as registered, for names in certificates.
    pub mac: Option<Word>,
    /// Labels for selectors and placeholders.
    pub labels: Labels,
    /// The hot-standby pair that it belongs to (S47).
    pub pair: Option<Word>,
    /// In a pair: it stands by, and never applies for a certificate.
    pub standby: bool,
}

/// What a device has to do for its certificates (S47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It stands alone.
    Alone,
    /// It is the active node of a pair: it applies whenever it has no valid certificate.
    Active,
    /// It stands by, and never applies.
    Standby,
}

impl Device {
    /// What it has to do for its certificates.
    pub const fn duty(&self) -> Duty {
        match (&self.pair, self.standby) {
            (None, _) => Duty::Alone,
            (Some(_), false) => Duty::Active,
            (Some(_), true) => Duty::Standby,
        }
    }

    /// Shard of a device, 0 to 255, from its id: stored for later partitioning, nothing depends on it yet.
    pub fn shard(id: DeviceId) -> u8 {
        // The last byte of a UUIDv7 is random, and so are the shards.
        id.as_uuid().as_bytes()[15]
    }
}

/// A short word that is safe inside a DN, a URL and a file name: 1 to 63 letters, digits, `.`, `_`, `:`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(String);

/// Why a word was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} must be 1 to 63 letters, digits, '.', '_', ':' or '-'")]
pub struct WordError {
    text: String,
}

impl TryFrom<String> for Word {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, WordError> {
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
        if good { Ok(Self(text)) } else { Err(WordError { text: text.chars().take(80).collect() }) }
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

impl AsRef<str> for Word {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Labels of a device: at most 32 pairs of words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<Word, Word>);

impl Labels {
    /// Most labels on one device.
    pub const MAX: usize = 32;

    /// Checks every pair; notes the bad ones under `labels.KEY`.
    pub fn parse(pairs: &BTreeMap<String, String>, violations: &mut Violations) -> Self {
        if pairs.len() > Self::MAX {
            let message = format!("has {} labels; at most {} are allowed", pairs.len(), Self::MAX);
            violations.add("labels", "labels", message);
        }
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            let field = format!("labels.{key}");
            let key = violations.check(&field, "label_key", Word::try_from(key.clone()));
            let value = violations.check(&field, "label_value", Word::try_from(value.clone()));
            if let (Some(key), Some(value)) = (key, value) {
                labels.insert(key, value);
            }
        }
        Self(labels)
    }

    /// Both together; where both have a key, that of `over` counts. What is beyond [`Labels::MAX`] is left out.
    #[must_use]
    pub fn merged(base: Option<&Self>, over: Option<&Self>) -> Self {
        let all = [base, over].into_iter().flatten().flat_map(|labels| labels.0.clone());
        let all: BTreeMap<Word, Word> = all.collect();
        Self(all.into_iter().take(Self::MAX).collect())
    }

    /// The value of a label.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An access point in Berlin.
    pub(crate) fn device(name: &str) -> Device {
        let pairs = BTreeMap::from([("site".to_owned(), "berlin".to_owned())]);
        Device {
            tenant_id: TenantId::from(uuid::Uuid::from_u128(1)),
            id: DeviceId::from(uuid::Uuid::from_u128(2)),
            name: name.parse().unwrap(),
            agent_id: None,
            serial: Some(Word::try_from("SN-1".to_owned()).unwrap()),
            mac: None,
            labels: Labels::parse(&pairs, &mut Violations::new()),
            pair: None,
            standby: false,
        }
    }

    #[test]
    fn a_label_cannot_smuggle_a_second_rdn_into_a_name() {
        for bad in ["x,CN=root", "x/CN=root", "x+CN=y", "x\"", "x y", ""] {
            let pairs = BTreeMap::from([("site".to_owned(), bad.to_owned())]);
            let mut violations = Violations::new();
            Labels::parse(&pairs, &mut violations);
            assert_eq!(violations.as_slice()[0].field, "labels.site", "{bad:?} was accepted");
        }
    }
}
