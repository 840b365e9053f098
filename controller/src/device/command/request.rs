//! What is asked of a device that leads to a job, or ends one.

use trustfleet_model::{
    ca_server::CaServerSpec,
    certificate::CertificateFacts,
    entity::EntitySpec,
    field::TrustpointName,
    ids::{AgentId, CaServerId, JobId, LeaseId, PolicyId, RolloverId, TrustpointId},
    job::{Failure, RequestKind},
    policy::PolicySpec,
    revocation::RevocationReason,
    rollover::Step,
    spread::Spread,
};

use crate::audit::Requester;

/// Get a certificate. Repeated with the same job id or idempotency key it gives the same job.
#[derive(Clone, Debug)]
pub struct Enroll {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// Kind of the request.
    pub request: RequestKind,
    /// Id of the job, if one is made.
    pub job_id: JobId,
    /// The client's idempotency key.
    pub request_key: Option<String>,
    /// Below the floor under re-issue as well.
    pub past_floor: bool,
    /// Who asks.
    pub requested_by: Requester,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The configuration as it was read.
    pub context: EnrollContext,
}

/// Renew the certificate in use, or get the first one. Where that is not due any more, nothing happens.
#[derive(Clone, Debug)]
pub struct Renew {
    /// Serial number of the certificate that is due, upper-case hex; none: the first one is.
    pub serial: Option<String>,
    /// Another moment than the policy's that was found for it.
    pub spread: Option<Spread>,
    /// It has ended, and is recovered by what was armed.
    pub recover: bool,
    /// The request, a key update or an initialization request.
    pub enroll: Enroll,
}

/// A new certificate, by another CA server or policy where that is said.
#[derive(Clone, Debug)]
pub struct Reissue {
    /// The trustpoint has this CA server from now on.
    pub ca_server_id: CaServerId,
    /// The trustpoint has this policy from now on.
    pub policy_id: PolicyId,
    /// For a new key, whatever the policy says.
    pub new_key: bool,
    /// It takes effect by itself, or stays staged, whatever the policy says.
    pub activates: bool,
    /// It goes before everything else at the CA.
    pub urgent: bool,
    /// The request; its context is that of the CA server and the policy above.
    pub enroll: Enroll,
}

/// Take back what a campaign did to a trustpoint: its CA server and policy, and the certificate in use.
#[derive(Clone, Debug)]
pub struct PutBack {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// Its CA server before.
    pub ca_server_id: CaServerId,
    /// Its policy before.
    pub policy_id: PolicyId,
    /// Serial number of the certificate that was in use, upper-case hex; none: the certificate stays as it is.
    pub serial: Option<String>,
    /// The CA has revoked the certificates that it replaced, as the CA server's settings are now.
    pub replaced_is_revoked: bool,
    /// Id of the job, if one is made.
    pub job_id: JobId,
    /// Who asks.
    pub requested_by: Requester,
}

/// Configuration of an enrolment, read in one transaction.
#[derive(Clone, Debug)]
pub struct EnrollContext {
    /// The trustpoint that it was read for.
    pub trustpoint_id: TrustpointId,
    /// The entity.
    pub entity: EntitySpec,
    /// The CA server.
    pub ca_server: CaServerSpec,
    /// The policy.
    pub policy: PolicySpec,
    /// The policy's revision.
    pub policy_revision: u32,
    /// The job that was made for the same idempotency key, however long ago.
    pub known_job: Option<JobId>,
    /// SHA-256 of the registered signing key of the agent in front of the device, lower-case hex; none: there is no agent.
    pub agent_key_sha256: Option<String>,
}

/// A job that an agent began by itself.
#[derive(Clone, Debug)]
pub struct Adopt {
    /// Its id, of the agent's choice.
    pub job_id: JobId,
    /// The agent.
    pub agent_id: AgentId,
    /// The trustpoint of the lease.
    pub trustpoint_id: TrustpointId,
    /// The lease.
    pub lease_id: LeaseId,
    /// The trustpoint's policy as it is now; none: the trustpoint is gone.
    pub policy: Option<PolicySpec>,
    /// The policy's revision.
    pub policy_revision: u32,
    /// The lease had ended when the agent began, as far as the ids' times tell.
    pub lease_ended: bool,
    /// Who says so.
    pub requested_by: Requester,
}

/// Have a trustpoint trust other anchors. Once told for a step of a roll-over, it is not told again unless that failed.
#[derive(Clone, Debug)]
pub struct DistributeAnchors {
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// For which roll-over.
    pub rollover_id: RolloverId,
    /// For which of its steps.
    pub step: Step,
    /// All anchors that are trusted from now on, PEM, one each.
    pub trusted: Vec<String>,
    /// Those that are trusted no more, PEM, one each.
    pub retired: Vec<String>,
    /// Id of the job, if one is made.
    pub job_id: JobId,
    /// Who asks.
    pub requested_by: Requester,
}

/// Put the staged certificate into use; where none is staged, give the one in use to the trustpoint's services once more.
#[derive(Clone, Debug)]
pub struct Activate {
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
    /// The CA has revoked the certificate that is replaced, as the CA server's settings are now.
    pub replaced_is_revoked: bool,
    /// Id of the job, if one is made.
    pub job_id: JobId,
    /// Who asks.
    pub requested_by: Requester,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Have a certificate revoked. While a job asks for it, that job is the answer.
#[derive(Clone, Debug)]
pub struct Revoke {
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The certificate, with its revocation as it was read.
    pub certificate: CertificateFacts,
    /// Why.
    pub reason: RevocationReason,
    /// It was revoked at the CA by hand: nothing is asked, that is noted.
    pub by_hand: bool,
    /// Nobody waits for the answer: what is missing is noted at the certificate.
    pub unattended: bool,
    /// Id of the job, if one is made.
    pub job_id: JobId,
    /// Who asks.
    pub requested_by: Requester,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The configuration as it was read.
    pub context: RevokeContext,
}

/// Configuration of a revocation, read in one transaction.
#[derive(Clone, Debug)]
pub struct RevokeContext {
    /// The certificate.
    pub certificate_pem: String,
    /// The CA server of its trustpoint.
    pub ca_server: CaServerSpec,
    /// Policy of the trustpoint that signs.
    pub policy: PolicySpec,
    /// That policy's revision.
    pub policy_revision: u32,
    /// The agent in front of the device that signs; none: there is no such device, or it has none.
    pub agent_id: Option<AgentId>,
    /// It is in quarantine.
    pub agent_quarantined: bool,
    /// The trustpoint that signs as a registration authority has a valid certificate in use.
    pub signer_in_use: bool,
}

/// End a job. Repeated while its agent has not answered it changes nothing.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The job.
    pub job_id: JobId,
    /// Who asks.
    pub requested_by: Requester,
}

/// A job that cannot be sent.
#[derive(Clone, Debug)]
pub struct Undeliverable {
    /// The job.
    pub job_id: JobId,
    /// Why.
    pub failure: Failure,
}
