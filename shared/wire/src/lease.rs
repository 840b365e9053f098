//! Leases: by one an agent may renew a trustpoint by itself while its controller is out of reach.
//!
//! A lease is signed as a job is, for one agent and one trustpoint, and holds all that a key update needs, and no secret.
//! Of two messages about one trustpoint the one with the greater sequence counts, whatever order the broker brings them in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{AgentId, DeviceId, JobId, LeaseId, MessageId, TenantId, TrustpointId};

use crate::v1::{Enroll, Job, Task};

/// Leave to renew one trustpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The lease; it keeps its id when it is given anew for longer or with other settings.
    pub lease_id: LeaseId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent it is for; any other must refuse it.
    pub agent_id: AgentId,
    /// The device it is for.
    pub device_id: DeviceId,
    /// Name of the device, for folders and messages.
    pub device: String,
    /// The trustpoint it is for.
    pub trustpoint_id: TrustpointId,
    /// Name of the trustpoint, for folders and messages.
    pub trustpoint: String,
    /// Grows with every message about a lease of the trustpoint.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Nothing is begun by it from then on.
    pub expires_at: Timestamp,
    /// Emergency mark, percent elapsed of the validity of the certificate in use, 1 to 99.
    pub emergency_percent: u8,
    /// Revision of the policy it was made from.
    pub policy_revision: u32,
    /// Routing key of the answer, and of reports of what is begun by it.
    pub reply_to: String,
    /// Services of the agent's own configuration that are to take the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The CA revokes the certificate that is replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced_is_revoked: bool,
    /// The update: `kur`, without MAC credentials.
    pub enroll: Box<Enroll>,
}

impl Lease {
    /// The job that an agent makes of it: as if the controller had asked for it.
    pub fn job(&self, job_id: JobId) -> Job {
        Job {
            job_id,
            tenant_id: self.tenant_id,
            agent_id: self.agent_id,
            device_id: self.device_id,
            device: self.device.clone(),
            trustpoint_id: self.trustpoint_id,
            trustpoint: self.trustpoint.clone(),
            sequence: self.sequence,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            start_before: self.expires_at,
            policy_revision: self.policy_revision,
            reply_to: self.reply_to.clone(),
            traceparent: None,
            services: self.services.clone(),
            replaced_is_revoked: self.replaced_is_revoked,
            task: Task::Enroll(self.enroll.clone()),
        }
    }

    /// The answer to it.
    pub fn answer(&self, message_id: MessageId, at: Timestamp, state: &str, reason: Option<String>) -> LeaseAnswer {
        LeaseAnswer {
            message_id,
            tenant_id: self.tenant_id,
            agent_id: self.agent_id,
            device_id: self.device_id,
            trustpoint_id: self.trustpoint_id,
            lease_id: self.lease_id,
            sequence: self.sequence,
            at,
            state: state.to_owned(),
            reason,
        }
    }
}

/// The end of a lease. Answered by a [`LeaseAnswer`], as the lease itself is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEnd {
    /// The lease.
    pub lease_id: LeaseId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent it is for.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Grows with every message about a lease of the trustpoint.
    pub sequence: u64,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// No lease that was given before lasts longer: so long the agent remembers the sequence.
    pub expires_at: Timestamp,
    /// Routing key of the answer.
    pub reply_to: String,
    /// Why, as one word: `auto_update_off`, `trustpoint_removed` and so on.
    pub reason: String,
}

impl LeaseEnd {
    /// The answer to it.
    pub fn answer(&self, message_id: MessageId, at: Timestamp, state: &str) -> LeaseAnswer {
        LeaseAnswer {
            message_id,
            tenant_id: self.tenant_id,
            agent_id: self.agent_id,
            device_id: self.device_id,
            trustpoint_id: self.trustpoint_id,
            lease_id: self.lease_id,
            sequence: self.sequence,
            at,
            state: state.to_owned(),
            reason: None,
        }
    }
}

/// What became of a lease at the agent. Not repeated: what is not answered is offered again in the next session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// This message.
    pub message_id: MessageId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent.
    pub agent_id: AgentId,
    /// The device.
    pub device_id: DeviceId,
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The lease.
    pub lease_id: LeaseId,
    /// Sequence of the message that it answers.
    pub sequence: u64,
    /// When it was signed, by the agent's clock.
    pub at: Timestamp,
    /// `held`: it lies on the agent's disk. `ended`: the agent renews nothing by it any more. `refused`: the agent's own
    /// configuration does not want it, or it cannot be used.
    pub state: String,
    /// Why it was refused, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
