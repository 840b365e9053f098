//! CA servers (S5, S6, S9, S10, S16, S23).

use serde::{Deserialize, Serialize};
use trustfleet_model::ca_server::{CaServerSpec, Quirks};
use trustfleet_model::ids::CaServerId;
use utoipa::ToSchema;

use super::configured;
use crate::db::Configured;

configured! {
    /// A CA: its name, its CMP servers, and what is trusted in its answers.
    CaServerBody (CaServerCreate, CaServerUpdate) of CaServerId {
        /// Name of the CA, the recipient of requests: `/C=DE/O=X/CN=CA` as written, or RFC 4514; never reordered (S5).
        #[schema(example = "/O=Example/CN=Issuing CA", max_length = 512)]
        ca_name: String,
        /// CMP URL of the primary server, http or https, query strings allowed (S6, S16).
        #[schema(example = "http://ca.example:8080/pkix/", max_length = 1024)]
        primary_url: String,
        /// CMP URL of the secondary server, used when the primary cannot be reached (S16).
        #[serde(default)]
        #[schema(max_length = 1024)]
        secondary_url: Option<String>,
        /// Trust anchors, PEM, one certificate each, 1 to 16.
        trust_anchors: Vec<String>,
        /// Certificates that verify signed answers, PEM, one each, at most 16; empty: a chain to an anchor (S9, S10).
        #[serde(default)]
        verification_certificates: Vec<String>,
        /// What this CA does otherwise than others.
        #[serde(default)]
        quirks: QuirksBody,
    }
}

/// Habits of a CA that change what is right on our side.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Quirks)]
pub struct QuirksBody {
    /// It revokes the certificate that an update replaces as soon as it has issued the new one: a certificate that its
    /// services do not take stays in use then, and the failure says so; default false.
    #[serde(default)]
    pub revokes_on_issue: bool,
}

impl CaServerUpdate {
    /// The domain's value; nothing of it is checked yet.
    pub fn into_spec(self) -> CaServerSpec {
        CaServerSpec {
            ca_name: self.ca_name,
            primary_url: self.primary_url,
            secondary_url: self.secondary_url,
            trust_anchors: self.trust_anchors,
            verification_certificates: self.verification_certificates,
            quirks: Quirks { revokes_on_issue: self.quirks.revokes_on_issue },
        }
    }
}

impl From<Configured<CaServerId, CaServerSpec>> for CaServerBody {
    fn from(server: Configured<CaServerId, CaServerSpec>) -> Self {
        Self {
            id: server.id,
            name: server.name.into(),
            revision: server.revision,
            created_at: server.created_at,
            updated_at: server.updated_at,
            ca_name: server.spec.ca_name,
            primary_url: server.spec.primary_url,
            secondary_url: server.spec.secondary_url,
            trust_anchors: server.spec.trust_anchors,
            verification_certificates: server.spec.verification_certificates,
            quirks: QuirksBody { revokes_on_issue: server.spec.quirks.revokes_on_issue },
        }
    }
}
