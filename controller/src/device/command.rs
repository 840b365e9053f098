//! What can be asked of a device. Every command carries what deciding it needs: ids that are to be used, configuration
//! as it was read, facts parsed from a report.

use jiff::Timestamp;
use trustfleet_model::{
    ca_server::CaServerSpec,
    certificate::CertificateFacts,
    dry_run::DryRun,
    entity::EntitySpec,
    field::{ObjectName, TrustpointName},
    ids::{
        AgentId, BindingId, CaServerId, DeviceId, EntityId, JobId, LeaseId, MessageId, PolicyId, RolloverId,
        TrustpointId,
    },
    job::{Failure, MacCredentials, RequestKind},
    policy::PolicySpec,
    recovery::RecoveryBy,
    revocation::RevocationReason,
    rollover::Step,
    service::InService,
    spread::Spread,
    transcript::Transcript,
    trustpoint::Progress,
};

use super::JobKind;
use crate::audit::Requester;

/// One command to one device.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a trustpoint.
    AddTrustpoint(Box<AddTrustpoint>),
    /// Give a trustpoint other MAC credentials.
    SetMac(Box<SetMac>),
    /// Arm a recovery.
    ArmRecovery(Box<ArmRecovery>),
    /// Disarm a recovery.
    DisarmRecovery(DisarmRecovery),
    /// Bind a trustpoint to other services of its device (S40).
    SetServices(SetServices),
    /// Remove a trustpoint that has nothing under way.
    RemoveTrustpoint(RemoveTrustpoint),
    /// Have a trustpoint follow its binding, which was changed.
    Rebind(Box<Rebind>),
    /// Leave a trustpoint to itself: its binding goes.
    Unbind(Unbind),
    /// Get a certificate (S27 to S30).
    Enroll(Box<Enroll>),
    /// Renew the certificate in use, or get the first one: it is due (S31).
    Renew(Box<Renew>),
    /// Renew a trustpoint by itself from now on, or not, over what its policy says (S41, S42).
    SetAutoUpdate(Box<SetAutoUpdate>),
    /// Try on the device everything that an enrolment needs.
    DryRun(Box<Enroll>),
    /// A new certificate, by another CA server or policy where that is said, for a campaign (S58).
    Reissue(Box<Reissue>),
    /// Take back what a campaign did to a trustpoint.
    PutBack(Box<PutBack>),
    /// Have a trustpoint trust other anchors, and its services load them (S57).
    DistributeAnchors(Box<DistributeAnchors>),
    /// Put the staged certificate into use (S33).
    Activate(Activate),
    /// Have a certificate revoked.
    Revoke(Box<Revoke>),
    /// An agent tells of a job that it began by itself, by a lease; signature and lease are verified already.
    Adopt(Box<Adopt>),
    /// An agent says what happened to a job; signature and sender are verified already.
    Report(Box<Report>),
    /// End a job that has no certificate yet (S37).
    Stop(Stop),
    /// Set the statistics of one trustpoint, or of all of the device, to nothing (S48).
    ResetStatistics(ResetStatistics),
    /// A job cannot be sent: its secret or configuration cannot be read.
    Undeliverable(Undeliverable),
}

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

/// Set statistics to nothing.
#[derive(Clone, Debug)]
pub struct ResetStatistics {
    /// Name of the trustpoint; none: all of the device.
    pub trustpoint: Option<TrustpointName>,
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

/// What an agent says of a job.
#[derive(Clone, Debug)]
pub struct Report {
    /// The report; the same id comes again until it is answered.
    pub report_id: MessageId,
    /// The agent that signed it.
    pub agent_id: AgentId,
    /// The device that it names.
    pub device_id: DeviceId,
    /// The trustpoint that it names.
    pub trustpoint_id: TrustpointId,
    /// The job that it names.
    pub job_id: JobId,
    /// That job as it is stored; none: there is no such job in the agent's tenant.
    pub job: Option<JobFacts>,
    /// The job waits in the outbox, or was published again after the message that this answers.
    pub offered_again: bool,
    /// Another trustpoint that has the key of an exchange that begins, as DEVICE/TRUSTPOINT (S4).
    pub key_held_by: Option<String>,
    /// Who says so.
    pub requested_by: Requester,
    /// What went to and fro, at the end of an exchange of which the agent tells.
    pub transcript: Option<Transcript>,
    /// What happened.
    pub event: ReportEvent,
}

/// What never changes of a stored job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// The agent it is for.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// What it asks.
    pub kind: JobKind,
}

/// What happened, parsed.
#[derive(Clone, Debug)]
pub enum ReportEvent {
    /// The exchange begins, with this public-key fingerprint.
    Started {
        /// SHA-256 of the subjectPublicKeyInfo, lower-case hex.
        public_key_sha256: String,
    },
    /// The exchange waits for the CA.
    Waiting {
        /// The CA has not said `waiting`: the request is tried again.
        requesting: bool,
        /// What the agent tells of it; none: an agent that is older.
        progress: Option<Progress>,
    },
    /// The permit had run out; nothing was started.
    PermitExpired,
    /// Issued and stored on the device.
    Issued(Box<IssuedCertificate>),
    /// In use.
    Activated {
        /// Serial number, upper-case hex.
        serial: String,
        /// File on the device.
        file: String,
        /// What became of its services, where the agent tells; the serial is that of the certificate.
        in_service: Option<Box<InService>>,
    },
    /// The CA has revoked the certificate.
    Revoked {
        /// transactionID of the exchange, hex.
        transaction_id: String,
        /// Warnings of the agent, as sentences.
        warnings: Vec<String>,
    },
    /// Everything that an enrolment needs was tried.
    DryRun(Box<DryRun>),
    /// The anchors are on the device; each service that relies on them, with what was seen of its having loaded them.
    Anchors {
        /// The services.
        in_service: Box<InService>,
    },
    /// Ended without what was asked for.
    Failed {
        /// Why.
        failure: Failure,
        /// transactionID, hex, where an exchange began.
        transaction_id: Option<String>,
        /// What became of services, where they are what failed; its serial is not known here.
        in_service: Option<Box<InService>>,
        /// Serial number and file of the certificate that is in use nevertheless.
        in_use: Option<(String, String)>,
    },
}

/// An issued certificate with its bytes.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// What can be read in it; its id is to be used.
    pub facts: CertificateFacts,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// CA certificates that came with it, DER.
    pub chain: Vec<Vec<u8>>,
    /// transactionID of the exchange, hex.
    pub transaction_id: String,
    /// Warnings of the agent, as sentences.
    pub warnings: Vec<String>,
    /// When the controller learned of it.
    pub received_at: Timestamp,
}

/// Answer to a command that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The trustpoint is there.
    Trustpoint {
        /// Its id.
        id: TrustpointId,
    },
    /// The trustpoint is gone.
    Removed,
    /// The job that does what was asked: a new one, the one under way, or the one of the same idempotency key.
    Job {
        /// Its id.
        job_id: JobId,
    },
    /// The report changed something.
    Taken,
    /// The report was known, or came too late to matter: nothing changed.
    Known,
}
