//! CA servers (S5, S6, S9, S10, S16, S23).

use serde::{Deserialize, Serialize};
use trustfleet_model::ca_server::{CaServerSpec, Quirks};
use trustfleet_model::ids::CaServerId;
use trustfleet_model::revocation::{RevocationRoute, Signer};
use utoipa::ToSchema;

use super::{configured, words};
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
        /// Who asks this CA to revoke; default: each device for itself.
        #[serde(default)]
        revocation: RevocationRouteBody,
    }
}

words! {
    /// Who asks a CA to revoke.
    AskedByBody mirrors AskedBy {
        /// The device itself, with a request that the certificate signs (RFC 9483 section 4.2).
        Device = "device",
        /// A registration authority: the certificate in use of another trustpoint (RFC 9483 section 5.3.2); also for
        /// devices that are lost.
        RegistrationAuthority = "registration_authority",
        /// Nobody: the CA takes no requests. Certificates are revoked there by hand, which is then noted here.
        Hand = "hand",
    }
}

/// The same without its names.
#[derive(Clone, Copy, Debug, Default)]
pub enum AskedBy {
    /// The device.
    #[default]
    Device,
    /// A registration authority.
    RegistrationAuthority,
    /// Nobody.
    Hand,
}

/// Who asks a CA to revoke.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevocationRoute)]
pub struct RevocationRouteBody {
    /// Who asks.
    pub by: AskedByBody,
    /// The registration authority's device; for it alone.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub device: Option<String>,
    /// The registration authority's trustpoint; for it alone.
    #[serde(default)]
    #[schema(max_length = 32)]
    pub trustpoint: Option<String>,
}

impl Default for RevocationRouteBody {
    fn default() -> Self {
        RevocationRoute::default().into()
    }
}

impl From<RevocationRouteBody> for RevocationRoute {
    fn from(route: RevocationRouteBody) -> Self {
        match route.by.into() {
            AskedBy::Device => Self::Device,
            AskedBy::Hand => Self::Hand,
            // A name that is missing is refused as one that is empty.
            AskedBy::RegistrationAuthority => Self::RegistrationAuthority(Signer {
                device: route.device.unwrap_or_default(),
                trustpoint: route.trustpoint.unwrap_or_default(),
            }),
        }
    }
}

impl From<RevocationRoute> for RevocationRouteBody {
    fn from(route: RevocationRoute) -> Self {
        let by = match route {
            RevocationRoute::Device => AskedByBody::Device,
            RevocationRoute::RegistrationAuthority(_) => AskedByBody::RegistrationAuthority,
            RevocationRoute::Hand => AskedByBody::Hand,
        };
        let signer = route.signer().cloned();
        let (device, trustpoint) = signer.map(|signer| (signer.device, signer.trustpoint)).unzip();
        Self { by, device, trustpoint }
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
    /// It refuses an update (kur) of a certificate of which an earlier one is not finished: after one that may be
    /// unfinished there, the next request by itself is a cr where the trustpoint has what that needs, and a kur by hand is
    /// refused; default false.
    #[serde(default)]
    pub one_update_at_a_time: bool,
    /// It says `waiting` and does not know pollReq: waiting ends the exchange with a failure; default false.
    #[serde(default)]
    pub no_polling: bool,
    /// It wants the root of the signing certificate among extraCerts of signed requests; default false.
    #[serde(default)]
    pub root_in_extra_certs: bool,
    /// It answers with HMAC-SHA1, whatever the request is protected by: such answers are accepted from it. Needs the tenant's
    /// permission for weak algorithms (S8); default false.
    #[serde(default)]
    pub answers_by_sha1: bool,
}

impl From<QuirksBody> for Quirks {
    fn from(quirks: QuirksBody) -> Self {
        let QuirksBody { revokes_on_issue, one_update_at_a_time, no_polling, root_in_extra_certs, answers_by_sha1 } =
            quirks;
        Self { revokes_on_issue, one_update_at_a_time, no_polling, root_in_extra_certs, answers_by_sha1 }
    }
}

impl From<Quirks> for QuirksBody {
    fn from(quirks: Quirks) -> Self {
        let Quirks { revokes_on_issue, one_update_at_a_time, no_polling, root_in_extra_certs, answers_by_sha1 } =
            quirks;
        Self { revokes_on_issue, one_update_at_a_time, no_polling, root_in_extra_certs, answers_by_sha1 }
    }
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
            quirks: self.quirks.into(),
            revocation: self.revocation.into(),
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
            quirks: server.spec.quirks.into(),
            revocation: server.spec.revocation.into(),
        }
    }
}
