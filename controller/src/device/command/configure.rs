//! What is configured of trustpoints.

use jiff::Timestamp;
use trustfleet_model::{
    field::{ObjectName, TrustpointName},
    ids::{BindingId, CaServerId, EntityId, PolicyId, TrustpointId},
    job::MacCredentials,
    recovery::RecoveryBy,
};

use super::EnrollContext;
use crate::audit::Requester;

/// Make a trustpoint. Repeated with the same id it changes nothing and gives the same answer.
#[derive(Clone, Debug)]
pub struct AddTrustpoint {
    /// Its id.
    pub id: TrustpointId,
    /// Its name, unique on the device (S17).
    pub name: TrustpointName,
    /// Subject and alternative names (S2).
    pub entity_id: EntityId,
    /// The CA.
    pub ca_server_id: CaServerId,
    /// The session's settings.
    pub policy_id: PolicyId,
    /// MAC reference and the id of its secret, which is stored already (S12, S13).
    pub mac: Option<MacCredentials>,
    /// The secret is deleted when an enrolment by it has succeeded.
    pub mac_one_time: bool,
    /// Services that use its certificate (S40).
    pub services: Vec<ObjectName>,
    /// The binding that it comes by; none: it is made by hand.
    pub binding: Option<Bound>,
    /// Who asks.
    pub requested_by: Requester,
}

/// By which binding a trustpoint comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The binding.
    pub id: BindingId,
    /// Its revision.
    pub revision: u32,
    /// The trustpoint asks for its first certificate by itself.
    pub enroll: bool,
}

/// Have a trustpoint follow its binding, which was changed. Where it has done so nothing happens.
#[derive(Clone, Debug)]
pub struct Rebind {
    /// Its name.
    pub trustpoint: TrustpointName,
    /// The binding as it is now.
    pub bound: Bound,
    /// Subject and alternative names.
    pub entity_id: EntityId,
    /// The CA.
    pub ca_server_id: CaServerId,
    /// The session's settings.
    pub policy_id: PolicyId,
    /// Services that use its certificate (S40).
    pub services: Vec<ObjectName>,
    /// Who asks.
    pub requested_by: Requester,
}

/// Leave a trustpoint to itself: its binding goes.
#[derive(Clone, Debug)]
pub struct Unbind {
    /// Its name.
    pub trustpoint: TrustpointName,
    /// The binding that goes.
    pub binding_id: BindingId,
    /// Only while nothing is under way, so that no certificate can follow.
    pub when_idle: bool,
    /// Who asks.
    pub requested_by: Requester,
}

/// Give a trustpoint other MAC credentials; the former secret goes.
#[derive(Clone, Debug)]
pub struct SetMac {
    /// Its name.
    pub trustpoint: TrustpointName,
    /// MAC reference and the id of its secret, which is stored already (S12, S13).
    pub mac: MacCredentials,
    /// The secret is deleted when an enrolment by it has succeeded.
    pub one_time: bool,
    /// Who asks.
    pub requested_by: Requester,
}

/// Bind a trustpoint to these services and no others; the next job takes them along.
#[derive(Clone, Debug)]
pub struct SetServices {
    /// Its name.
    pub trustpoint: TrustpointName,
    /// The services, each once.
    pub services: Vec<ObjectName>,
    /// Who asks.
    pub requested_by: Requester,
}

/// Remove a trustpoint; its secret goes with it, its jobs and certificates stay as history.
#[derive(Clone, Debug)]
pub struct RemoveTrustpoint {
    /// Its name.
    pub trustpoint: TrustpointName,
    /// Who asks.
    pub requested_by: Requester,
}

/// Arm a recovery: what a certificate is asked for by when the one in use has ended while the device was away.
#[derive(Clone, Debug)]
pub struct ArmRecovery {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// By what; its secret is stored already.
    pub with: RecoveryBy,
    /// From then on it is disarmed.
    pub until: Timestamp,
    /// SHA-256 of the registered signing key of the agent in front of the device; none: there is no agent.
    pub agent_key_sha256: Option<String>,
    /// Who asks.
    pub requested_by: Requester,
}

/// Disarm a recovery; its secret goes.
#[derive(Clone, Debug)]
pub struct DisarmRecovery {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// Only one whose time is over.
    pub only_when_over: bool,
    /// Who asks.
    pub requested_by: Requester,
}

/// Renew a trustpoint by itself, or not.
#[derive(Clone, Debug)]
pub struct SetAutoUpdate {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// On or off; none: as the policy says.
    pub enabled: Option<bool>,
    /// The configuration as it was read, to tell what is missing.
    pub context: EnrollContext,
    /// Who asks.
    pub requested_by: Requester,
}

/// Set statistics to nothing.
#[derive(Clone, Debug)]
pub struct ResetStatistics {
    /// Name of the trustpoint; none: all of the device.
    pub trustpoint: Option<TrustpointName>,
    /// Who asks.
    pub requested_by: Requester,
}
