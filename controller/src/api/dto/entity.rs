//! Entities (S2).

use trustfleet_model::entity::{EntitySpec, SanKind, SanSpec};
use trustfleet_model::ids::EntityId;

use super::{configured, words};
use crate::db::Configured;

words! {
    /// Kind of an alternative name (S21).
    SanKindBody mirrors SanKind {
        /// IPv4 or IPv6 address.
        Ip = "ip",
        /// Distinguished name.
        Dn = "dn",
        /// E-mail address.
        Email = "email",
        /// Uniform resource identifier.
        Uri = "uri",
        /// User principal name: otherName with the UPN OID.
        Upn = "upn",
        /// Fully qualified domain name.
        Dns = "dns",
    }
}

/// One alternative name.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = San)]
pub struct SanBody {
    /// Kind of the name (S21).
    pub kind: SanKindBody,
    /// The name, 1 to 128 characters, placeholders allowed (S22).
    #[schema(example = "{device.name}.example", max_length = 128)]
    pub value: String,
}

configured! {
    /// Subject and alternative names that requests carry.
    EntityBody (EntityCreate, EntityUpdate) of EntityId {
        /// Subject DN: `/C=DE/O=X/CN=Y` as written, or RFC 4514; its order is kept. Placeholders: `{device.name}`,
        /// `{device.serial}`, `{device.mac}`, `{label.NAME}` (S18).
        #[schema(example = "/O=Example/CN={device.name}", max_length = 512)]
        subject: String,
        /// Alternative names, at most 16 (S21, S22).
        #[serde(default)]
        sans: Vec<SanBody>,
    }
}

impl EntityUpdate {
    /// The domain's value; nothing of it is checked yet.
    pub fn into_spec(self) -> EntitySpec {
        let san = |san: SanBody| SanSpec { kind: san.kind.into(), value: san.value };
        EntitySpec { subject: self.subject, sans: self.sans.into_iter().map(san).collect() }
    }
}

impl From<Configured<EntityId, EntitySpec>> for EntityBody {
    fn from(entity: Configured<EntityId, EntitySpec>) -> Self {
        let san = |san: SanSpec| SanBody { kind: san.kind.into(), value: san.value };
        Self {
            id: entity.id,
            name: entity.name.into(),
            revision: entity.revision,
            created_at: entity.created_at,
            updated_at: entity.updated_at,
            subject: entity.spec.subject,
            sans: entity.spec.sans.into_iter().map(san).collect(),
        }
    }
}
