//! Bindings: devices with certain labels get a trustpoint by themselves, also those that come later (S51).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::device::Labels;
use crate::field::{ObjectName, TrustpointName, Violations};
use crate::ids::{CaServerId, EntityId, PolicyId};

/// Most bindings of a tenant: each new device is held against all of them.
pub const BINDINGS_MAX: u32 = 200;

/// Which devices get which trustpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingSpec {
    /// Labels that a device must have, all of them.
    pub selector: Labels,
    /// Name of the trustpoint that it gets (S17).
    pub trustpoint: TrustpointName,
    /// Subject and alternative names, with placeholders (S2).
    pub entity_id: EntityId,
    /// The CA.
    pub ca_server_id: CaServerId,
    /// The session's settings.
    pub policy_id: PolicyId,
    /// Services of the device that use the certificate (S40).
    #[serde(default)]
    pub services: Vec<ObjectName>,
    /// Ask for the first certificate as soon as the trustpoint has MAC credentials.
    pub enroll: bool,
}

impl BindingSpec {
    /// Whether a device gets the trustpoint.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.iter().all(|(key, value)| labels.value(key) == Some(value))
    }

    /// Reads a selector; an empty one is refused, because it would select everything by mistake.
    pub fn selector(pairs: &BTreeMap<String, String>, violations: &mut Violations) -> Labels {
        if pairs.is_empty() {
            violations.add("selector", "selector", "is empty; give at least one label that devices must have");
        }
        let mut wrong = Violations::new();
        let selector = Labels::parse(pairs, &mut wrong);
        for violation in wrong.into_vec() {
            let field = violation.field.replacen("labels", "selector", 1);
            violations.add(field, violation.rule, violation.message);
        }
        selector
    }
}

/// What becomes of the trustpoints of a binding that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// They stay, as if they had been made by hand.
    Keep,
    /// They are removed, with their secrets; certificates stay known, and on the devices.
    Delete,
    /// Their certificates are revoked; they stay, as if they had been made by hand.
    Revoke,
}

impl Leaving {
    /// The word in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
            Self::Revoke => "revoke",
        }
    }

    /// What a word says.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Keep, Self::Delete, Self::Revoke].into_iter().find(|leaving| leaving.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn binding(selector: &[(&str, &str)]) -> BindingSpec {
        let mut violations = Violations::new();
        let id = uuid::Uuid::from_u128;
        let spec = BindingSpec {
            selector: BindingSpec::selector(&labels(selector), &mut violations),
            trustpoint: "dot1x".parse().unwrap(),
            entity_id: id(1).into(),
            ca_server_id: id(2).into(),
            policy_id: id(3).into(),
            services: Vec::new(),
            enroll: false,
        };
        assert!(violations.is_empty(), "{violations}");
        spec
    }

    #[test]
    fn s51_a_selector_selects_devices_that_have_all_of_its_labels() {
        let binding = binding(&[("site", "berlin"), ("model", "ap-5")]);
        for (device, selected) in [
            (&[("site", "berlin"), ("model", "ap-5"), ("floor", "3")][..], true),
            (&[("site", "berlin")], false),
            (&[("site", "berlin"), ("model", "ap-6")], false),
            (&[], false),
        ] {
            let found = Labels::parse(&labels(device), &mut Violations::new());
            assert_eq!(binding.selects(&found), selected, "{device:?}");
        }
    }

    #[test]
    fn a_selector_that_would_select_everything_is_refused() {
        let mut violations = Violations::new();
        BindingSpec::selector(&labels(&[]), &mut violations);
        BindingSpec::selector(&labels(&[("a b", "x")]), &mut violations);
        let fields: Vec<_> = violations.as_slice().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["selector", "selector.a b"]);
    }
}
