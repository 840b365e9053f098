//! Bindings: which devices get which trustpoint by their labels (S51).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::BindingId;
use utoipa::ToSchema;

use crate::db::Binding;

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
    /// Ask for the first certificate by itself, as soon as the trustpoint has MAC credentials; default false.
    #[serde(default)]
    pub enroll: bool,
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
    /// The first certificate is asked for by itself.
    pub enroll: bool,
    /// It is being removed, and what becomes of its trustpoints: `keep` or `delete`; null: it is in force.
    #[schema(required)]
    pub leaving: Option<&'static str>,
    /// Trustpoints that came by it and are there.
    pub trustpoints: u64,
    /// Of those, the ones with a certificate in use.
    pub active: u64,
    /// Devices whose labels it selects; only where one binding is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u64>,
    /// Of those, the ones that have a trustpoint of that name which came otherwise; only where one binding is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_taken: Option<u64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
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
            enroll: spec.enroll,
            leaving: binding.leaving.map(trustfleet_model::binding::Leaving::as_str),
            trustpoints: binding.trustpoints,
            active: binding.active,
            devices: None,
            name_taken: None,
            created_at: binding.created_at,
        }
    }
}

impl BindingBody {
    /// With how many devices it reaches, and how many of them have another trustpoint of that name.
    #[must_use]
    pub fn reaching(self, (devices, name_taken): (i64, i64)) -> Self {
        Self { devices: Some(devices.unsigned_abs()), name_taken: Some(name_taken.unsigned_abs()), ..self }
    }
}
