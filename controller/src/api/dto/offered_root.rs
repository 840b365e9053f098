//! Roots that follow trust anchors of CA servers.

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::ids::AgentId;
use trustfleet_pki::Certificate;
use utoipa::ToSchema;

use crate::db::OfferedRoot;

/// A root that follows a trust anchor of a CA server, as its CA told an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OfferedRoot)]
pub struct OfferedRootBody {
    /// SHA-256 of the root, hex.
    pub sha256: String,
    /// Whom it names.
    pub subject: String,
    /// Until when it is valid; null: it cannot be read any more.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub not_after: Option<Timestamp>,
    /// The root, PEM.
    pub certificate: String,
    /// SHA-256 of the trust anchor that has certified its key, hex.
    pub follows: String,
    /// It is a trust anchor of the CA server by now.
    pub taken: bool,
    /// Id of the agent that told of it first.
    #[schema(value_type = uuid::Uuid)]
    pub agent: AgentId,
    /// When it first did.
    #[schema(value_type = String, format = DateTime)]
    pub offered_at: Timestamp,
    /// When an agent last told of it, to the hour.
    #[schema(value_type = String, format = DateTime)]
    pub told_at: Timestamp,
}

/// A root, and whether it is an anchor by now.
#[derive(Clone, Debug)]
pub struct Offered(pub OfferedRoot, pub bool);

impl From<Offered> for OfferedRootBody {
    fn from(Offered(root, taken): Offered) -> Self {
        let certificate = Certificate::from_pem(&root.certificate).ok();
        Self {
            subject: certificate.as_ref().map(|certificate| certificate.subject().to_string()).unwrap_or_default(),
            not_after: certificate.map(|certificate| certificate.not_after()),
            sha256: root.sha256,
            certificate: root.certificate,
            follows: root.follows,
            taken,
            agent: root.agent_id,
            offered_at: root.offered_at,
            told_at: root.told_at,
        }
    }
}
