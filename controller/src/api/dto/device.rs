//! Devices: what an operator registers about them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::device::{Device, Labels, Word};
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::{AgentId, DeviceId, TenantId};
use utoipa::ToSchema;

/// What registers a new device.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceCreate {
    /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Name of the agent in front of it; may follow later.
    #[serde(default)]
    pub agent: Option<String>,
    /// Serial number, for names in certificates: 1 to 63 letters, digits, `.`, `_`, `:`, `-`.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub serial: Option<String>,
    /// MAC address, for names in certificates: 1 to 63 letters, digits, `.`, `_`, `:`, `-`.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub mac: Option<String>,
    /// Labels, at most 32 pairs of words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Name of the hot-standby pair that it belongs to (S47).
    #[serde(default)]
    #[schema(max_length = 63)]
    pub pair: Option<String>,
    /// In a pair: it stands by, and never applies for a certificate; default false.
    #[serde(default)]
    pub standby: bool,
}

/// What changes a device: all of it; a field left out is emptied.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceUpdate {
    /// Name of the agent in front of it.
    #[serde(default)]
    pub agent: Option<String>,
    /// Serial number, for names in certificates.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub serial: Option<String>,
    /// MAC address, for names in certificates.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub mac: Option<String>,
    /// Labels, at most 32 pairs of words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Name of the hot-standby pair that it belongs to (S47).
    #[serde(default)]
    #[schema(max_length = 63)]
    pub pair: Option<String>,
    /// In a pair: it stands by, and never applies for a certificate.
    #[serde(default)]
    pub standby: bool,
}

impl DeviceCreate {
    /// The name, and the rest as for a change.
    pub fn split(self) -> (String, DeviceUpdate) {
        let Self { name, agent, serial, mac, labels, pair, standby } = self;
        (name, DeviceUpdate { agent, serial, mac, labels, pair, standby })
    }
}

/// A device's registration, checked; the agent is still a name.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of its agent.
    pub agent: Option<ObjectName>,
    /// Serial number.
    pub serial: Option<Word>,
    /// MAC address.
    pub mac: Option<Word>,
    /// Labels.
    pub labels: Labels,
    /// Its pair.
    pub pair: Option<Word>,
    /// Whether it stands by.
    pub standby: bool,
}

impl Registration {
    /// The device of this registration; its agent was found.
    pub fn device(self, tenant_id: TenantId, id: DeviceId, name: ObjectName, agent_id: Option<AgentId>) -> Device {
        let Self { serial, mac, labels, pair, standby, .. } = self;
        Device { tenant_id, id, name, agent_id, serial, mac, labels, pair, standby }
    }
}

impl DeviceUpdate {
    /// The registration; everything that is wrong is noted.
    pub fn check(self, violations: &mut Violations) -> Registration {
        let mut word =
            |field, text: Option<String>| text.and_then(|text| violations.check(field, "word", Word::try_from(text)));
        let serial = word("serial", self.serial);
        let mac = word("mac", self.mac);
        let pair = word("pair", self.pair);
        if self.standby && pair.is_none() {
            violations.add("standby", "S47", "is set without a pair: name the pair that the device stands by in");
        }
        let agent = self.agent.and_then(|name| violations.check("agent", "name", name.parse()));
        let labels = Labels::parse(&self.labels, violations);
        Registration { agent, serial, mac, labels, pair, standby: self.standby }
    }
}

/// A registered device.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub struct DeviceBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Name of the agent in front of it.
    #[schema(required)]
    pub agent: Option<String>,
    /// Serial number as registered.
    #[schema(required)]
    pub serial: Option<String>,
    /// MAC address as registered.
    #[schema(required)]
    pub mac: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the hot-standby pair that it belongs to (S47).
    #[schema(required)]
    pub pair: Option<String>,
    /// In a pair: it stands by, and never applies for a certificate.
    pub standby: bool,
    /// Whether it is the active node of its pair, as its agent sees it; null: the agent does not tell.
    #[schema(required)]
    pub node_active: Option<bool>,
    /// Since when, by the agent's clock.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub node_since: Option<Timestamp>,
    /// How many trustpoints it has.
    pub trustpoints: u32,
    /// Since when it leaves: its certificates are being revoked, then it is deleted; null: it stays.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub leaving_at: Option<Timestamp>,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it, or one of its trustpoints, was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<crate::db::RegisteredDevice> for DeviceBody {
    fn from(registered: crate::db::RegisteredDevice) -> Self {
        let device = registered.device;
        Self {
            id: device.id,
            name: device.name.into(),
            agent: registered.agent.map(Into::into),
            serial: device.serial.map(Into::into),
            mac: device.mac.map(Into::into),
            labels: device.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            pair: device.pair.map(Into::into),
            standby: device.standby,
            node_active: registered.node.map(|(active, _)| active),
            node_since: registered.node.map(|(_, since)| since),
            trustpoints: registered.trustpoints,
            leaving_at: registered.leaving_at,
            created_at: registered.created_at,
            updated_at: registered.updated_at,
        }
    }
}
