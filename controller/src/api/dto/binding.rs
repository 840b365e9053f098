//! Bindings: which devices get which trustpoint by their labels (S51).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::BindingId;
use utoipa::ToSchema;

use crate::db::{Binding, BindingHoldings, Reach};

/// What makes a new binding.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingCreate {
    /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Labels that a device must have, all of them; at least one.
    pub selector: BTreeMap<String, String>,
    /// Name of the trustpoint that it gets, at most 32 characters (S17).
    #[schema(min_length = 1, max_length = 32)]
    pub trustpoint: String,
    /// Name of the entity.
    pub entity: String,
    /// Name of the CA server.
    pub ca_server: String,
    /// Name of the policy.
    pub policy: String,
    /// Services of the devices, named as in their agents' configuration, that use the certificate: at most 8 (S40).
    #[serde(default)]
    #[schema(max_items = 8)]
    pub services: Vec<String>,
    /// Ask for the first certificate by itself, as soon as the trustpoint has MAC credentials; default false.
    #[serde(default)]
    pub enroll: bool,
}

/// What a binding is changed to: all of it but its name and its trustpoint's.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingUpdate {
    /// Labels that a device must have, all of them; at least one.
    pub selector: BTreeMap<String, String>,
    /// Name of the entity.
    pub entity: String,
    /// Name of the CA server.
    pub ca_server: String,
    /// Name of the policy.
    pub policy: String,
    /// Services of the devices, named as in their agents' configuration, that use the certificate: at most 8 (S40).
    #[serde(default)]
    #[schema(max_items = 8)]
    pub services: Vec<String>,
    /// Ask for the first certificate by itself, as soon as the trustpoint has MAC credentials; default false.
    #[serde(default)]
    pub enroll: bool,
}

impl BindingCreate {
    /// The name of the binding and of its trustpoint, and what can be changed of it.
    pub fn split(self) -> (String, String, BindingUpdate) {
        let Self { name, selector, trustpoint, entity, ca_server, policy, services, enroll } = self;
        (name, trustpoint, BindingUpdate { selector, entity, ca_server, policy, services, enroll })
    }
}

/// What a change of a binding would do; nothing is changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = BindingDryRun)]
pub struct BindingDryRunBody {
    /// Its name.
    pub name: String,
    /// Its present revision, for `If-Match`.
    pub revision: u32,
    /// The fields that would change, as they are.
    #[schema(value_type = Object)]
    pub before: serde_json::Value,
    /// The same, as they would be.
    #[schema(value_type = Object)]
    pub after: serde_json::Value,
    /// Devices that it would select.
    pub devices: u64,
    /// Of those, the ones that would get the trustpoint.
    pub gain: u64,
    /// Of those, the ones that have a trustpoint of that name which came otherwise.
    pub name_taken: u64,
    /// Of those, the ones where another trustpoint has one of the services: they get no trustpoint, or theirs does not follow.
    pub service_taken: u64,
    /// Trustpoints that came by it and would follow, each as soon as nothing is under way on it.
    pub follow: u64,
    /// Of those, the ones whose device would not be selected any more: they stay, and follow as well.
    pub left_behind: u64,
    /// Of those that follow, the ones with a certificate in use that the change makes another one of: of another CA, or with
    /// other names. No key update leads to it: ask by ir or cr.
    pub to_enroll_anew: u64,
}

/// What removing a binding would touch; nothing is changed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = BindingRemoval)]
pub struct BindingRemovalBody {
    /// Trustpoints that came by it: with `keep` and `revoke` they stay as if made by hand, with `delete` they are removed.
    pub trustpoints: u64,
    /// Of those, the ones with something under way: they are dealt with when it has ended.
    pub under_way: u64,
    /// Certificates of theirs that are in use and have not ended: they stay on the devices.
    pub in_use: u64,
    /// Certificates of theirs that are staged: after `delete` nobody puts them into use any more.
    pub staged: u64,
    /// Certificates of theirs, in use or not, that `revoke` has revoked by their CA.
    pub to_revoke: u64,
    /// MAC secrets of theirs: after `delete` they are gone.
    pub secrets: u64,
}

impl From<BindingHoldings> for BindingRemovalBody {
    fn from(holdings: BindingHoldings) -> Self {
        let BindingHoldings { trustpoints, under_way, in_use, staged, to_revoke, secrets } = holdings;
        Self { trustpoints, under_way, in_use, staged, to_revoke, secrets }
    }
}

/// Which devices get which trustpoint, and how far that has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Binding)]
pub struct BindingBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: BindingId,
    /// Its name.
    pub name: String,
    /// Labels that a device must have, all of them.
    pub selector: BTreeMap<String, String>,
    /// Name of the trustpoint that it gets.
    pub trustpoint: String,
    /// Name of the entity.
    pub entity: String,
    /// Name of the CA server.
    pub ca_server: String,
    /// Name of the policy.
    pub policy: String,
    /// Services that its trustpoints are bound to.
    pub services: Vec<String>,
    /// The first certificate is asked for by itself.
    pub enroll: bool,
    /// Grows with every change; for `If-Match`.
    pub revision: u32,
    /// It is being removed, and what becomes of its trustpoints: `keep`, `delete` or `revoke`; null: it is in force.
    #[schema(required)]
    pub leaving: Option<&'static str>,
    /// Trustpoints that came by it and are there.
    pub trustpoints: u64,
    /// Of those, the ones with a certificate in use.
    pub active: u64,
    /// Trustpoints that have yet to follow its last change.
    pub behind: u64,
    /// Devices whose labels it selects; only where one binding is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u64>,
    /// Of those, the ones that have a trustpoint of that name which came otherwise; only where one binding is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_taken: Option<u64>,
    /// Of those, the ones where another trustpoint has one of the services; only where one binding is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_taken: Option<u64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<Binding> for BindingBody {
    fn from(binding: Binding) -> Self {
        let spec = binding.spec;
        Self {
            id: binding.id,
            name: binding.name.into(),
            selector: spec.selector.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            trustpoint: spec.trustpoint.into(),
            entity: binding.entity.into(),
            ca_server: binding.ca_server.into(),
            policy: binding.policy.into(),
            services: spec.services.iter().map(ToString::to_string).collect(),
            enroll: spec.enroll,
            revision: binding.revision,
            leaving: binding.leaving.map(trustfleet_model::binding::Leaving::as_str),
            trustpoints: binding.trustpoints,
            active: binding.active,
            behind: binding.behind,
            devices: None,
            name_taken: None,
            service_taken: None,
            created_at: binding.created_at,
            updated_at: binding.updated_at,
        }
    }
}

impl BindingBody {
    /// With how many devices it reaches.
    #[must_use]
    pub fn reaching(self, reach: Reach) -> Self {
        let Reach { devices, name_taken, service_taken, .. } = reach;
        Self { devices: Some(devices), name_taken: Some(name_taken), service_taken: Some(service_taken), ..self }
    }
}
