//! Recovery of trustpoints whose certificate has ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::recovery::{Recovery, RecoveryBy};
use utoipa::ToSchema;

use super::trustpoint::MacCreate;

/// By what a certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RecoveryMeans)]
pub enum RecoveryByBody {
    /// A MAC reference and secret that the CA knows for this; the secret is deleted after use.
    Mac,
    /// The factory identity of the device.
    FactoryIdentity,
}

/// What arms a recovery.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryArm {
    /// By what.
    pub by: RecoveryByBody,
    /// Reference and secret; for `mac` alone. Its `one_time` is always true.
    #[serde(default)]
    pub mac: Option<MacCreate>,
    /// From then on it is disarmed, and its secret deleted; 366 days from now at most.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// An armed recovery; without the secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Recovery)]
pub struct RecoveryBody {
    /// By what.
    pub by: RecoveryByBody,
    /// Reference value of the MAC credentials.
    #[schema(required)]
    pub reference: Option<String>,
    /// SHA-256 of the registered signing key of the agent that it is for, lower-case hex.
    pub agent_key_sha256: String,
    /// From then on it is disarmed.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Who armed it.
    pub armed_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub armed_at: Timestamp,
}

impl From<Recovery> for RecoveryBody {
    fn from(recovery: Recovery) -> Self {
        let (by, reference) = match recovery.with {
            RecoveryBy::Mac { mac } => (RecoveryByBody::Mac, Some(mac.reference)),
            RecoveryBy::FactoryIdentity => (RecoveryByBody::FactoryIdentity, None),
        };
        let Recovery { agent_key_sha256, until, armed_by, armed_at, .. } = recovery;
        Self { by, reference, agent_key_sha256, until, armed_by, armed_at }
    }
}
