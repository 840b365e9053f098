//! From a stored job to its signed message.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use trustfleet_model::{
    ca_server::CaServerSpec,
    ids::SecretId,
    job::{Culprit, EnrollmentOrder, Failure, JobTask, RequestKind, RevocationOrder},
    policy::PolicySpec,
};
use trustfleet_pki::certificate::Certificate;
use trustfleet_telemetry::current_traceparent;
use trustfleet_wire::{
    Envelope,
    routing::device_reply_key,
    seal::{SealContext, seal},
    sign::Purpose,
    v1::{Anchors, Blob, Enroll, Job, Mac, Request, Revoke, San, Signer, Source, Stop, Task, ToAgent, Upkeep},
};

use crate::{db::ClaimedJob, keys::Keys, secrets::AtRestError};

/// The secret is under a key that this controller has not: another one may have it, and this one after a restart.
pub(super) const KEY_MISSING: &str = "key_missing";
/// How long a signature outlives the permit: a late agent can still return the job.
const VALID_AFTER_PERMIT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The bytes to publish, or why the job can never be sent.
pub(super) fn signed(job: &ClaimedJob, keys: &Keys, now: Timestamp, permit_s: u32) -> Result<Vec<u8>, Box<Failure>> {
    let too_late = |_| failure("clock", "the present moment is out of range: check the controller's clock");
    let start_before = now.checked_add(SignedDuration::from_secs(permit_s.into())).map_err(too_late)?;
    let expires_at = start_before.checked_add(VALID_AFTER_PERMIT).map_err(too_late)?;
    // The agent goes on from the publication's span; without traces, from what the operator's client said.
    let traceparent = current_traceparent().or_else(|| job.traceparent.clone());
    let reply_to = device_reply_key(job.agent_id, job.device_id);
    if job.stop {
        return sealed(
            &ToAgent::Stop(Box::new(Stop {
                job_id: job.job_id,
                tenant_id: job.claim.tenant_id,
                agent_id: job.agent_id,
                device_id: job.device_id,
                trustpoint_id: job.trustpoint_id,
                sequence: job.claim.outbox_id.unsigned_abs(),
                issued_at: now,
                expires_at,
                reply_to,
                traceparent,
            })),
            keys,
        );
    }
    let (task, policy_revision) = match &job.task {
        JobTask::Enroll(order) if order.agent_key_sha256.as_ref().is_some_and(|key| *key != job.agent_key_sha256) => {
            return Err(failure(
                "agent_key_changed",
                "the recovery was armed for another key than the agent has now: make sure that it is the right one, then arm it again",
            ));
        }
        JobTask::Enroll(order) => {
            (Task::Enroll(Box::new(enroll(order, mac(job, order, keys)?)?)), order.policy_revision)
        }
        JobTask::Activate { serial, .. } => (Task::Activate { serial: serial.clone() }, 0),
        JobTask::Revoke(order) => (Task::Revoke(Box::new(revoke(order)?)), order.policy_revision),
        JobTask::DryRun(order) => {
            (Task::DryRun(Box::new(enroll(order, mac(job, order, keys)?)?)), order.policy_revision)
        }
        JobTask::Anchors(order) => {
            let trusted = certificates("trusted", &order.trusted)?;
            let retired = certificates("retired", &order.retired)?;
            (Task::Anchors(Box::new(Anchors { trusted, retired })), 0)
        }
        JobTask::Autonomous { .. } => return Err(failure("begun_by_agent", "the agent has begun it by itself")),
    };
    let (services, replaced_is_revoked) = match &job.task {
        JobTask::Enroll(order) | JobTask::DryRun(order) => (&order.services, order.ca_server.quirks.revokes_on_issue),
        JobTask::Activate { services, replaced_is_revoked, .. } => (services, *replaced_is_revoked),
        JobTask::Anchors(order) => (&order.services, false),
        JobTask::Revoke(_) => (&Vec::new(), false),
        JobTask::Autonomous { .. } => (&Vec::new(), false),
    };
    let message = ToAgent::Job(Box::new(Job {
        job_id: job.job_id,
        tenant_id: job.claim.tenant_id,
        agent_id: job.agent_id,
        device_id: job.device_id,
        device: job.device.clone(),
        trustpoint_id: job.trustpoint_id,
        trustpoint: job
            .trustpoint
            .clone()
            .ok_or_else(|| failure("trustpoint_removed", "the trustpoint was removed"))?,
        sequence: job.claim.outbox_id.unsigned_abs(),
        issued_at: now,
        expires_at,
        start_before,
        policy_revision,
        reply_to,
        traceparent,
        services: services.iter().map(ToString::to_string).collect(),
        replaced_is_revoked,
        task,
    }));
    sealed(&message, keys)
}

pub(crate) fn sealed(message: &ToAgent, keys: &Keys) -> Result<Vec<u8>, Box<Failure>> {
    Envelope::seal(message, Purpose::ToAgent, &keys.signing)
        .and_then(|envelope| envelope.to_bytes())
        .map_err(|error| failure("unwritable_job", error.to_string()))
}

fn mac(job: &ClaimedJob, order: &EnrollmentOrder, keys: &Keys) -> Result<Option<Mac>, Box<Failure>> {
    let Some(credentials) = &order.mac else { return Ok(None) };
    let context = SealContext { agent_id: job.agent_id, job_id: job.job_id, trustpoint_id: job.trustpoint_id };
    let secret = open_secret(job, credentials.secret_id, keys)?;
    let sealed = seal(secret.expose(), &job.seal_key, &context)
        .map_err(|error| failure("unsealable_secret", error.to_string()))?;
    Ok(Some(Mac {
        reference: credentials.reference.clone(),
        secret: sealed,
        algorithm: word(&order.policy.mac.algorithm)?,
        iterations: order.policy.mac.iterations,
    }))
}

/// An order on the wire, with MAC credentials or without.
pub(crate) fn enroll(order: &EnrollmentOrder, mac: Option<Mac>) -> Result<Enroll, Box<Failure>> {
    let (ca, policy) = (&order.ca_server, &order.policy);
    Ok(Enroll {
        request: match order.kind {
            RequestKind::Ir => Request::Ir,
            RequestKind::Cr => Request::Cr,
            RequestKind::Kur => Request::Kur,
        },
        subject: order.entity.subject.clone(),
        sans: order
            .entity
            .sans
            .iter()
            .map(|san| San { kind: san.kind.as_str().to_owned(), value: san.value.clone() })
            .collect(),
        recipient: order.recipient.as_ref().unwrap_or(&ca.ca_name).clone(),
        sender: order.sender.clone(),
        identity_domain: policy.domain().filter(|_| !order.signed_by_current).map(str::to_owned),
        source: source(policy),
        urls: urls(ca),
        key_algorithm: word(&policy.key.algorithm)?,
        regenerate_key: policy.key.regenerate,
        mac,
        replaces: order.replaces.clone(),
        ca_time: policy.ca_time,
        upkeep: (policy.upkeep.ca_certs || policy.upkeep.crls || policy.upkeep.roots).then_some(Upkeep {
            ca_certs: policy.upkeep.ca_certs,
            crls: policy.upkeep.crls,
            roots: policy.upkeep.roots,
            every_s: policy.upkeep.every_s,
        }),
        accept_sha1_answers: policy.mac.accept_sha1_answers || ca.quirks.answers_by_sha1,
        implicit_confirm: policy.implicit_confirm,
        trust_anchors: certificates("trust_anchors", &ca.trust_anchors)?,
        verification_certificates: certificates("verification_certificates", &ca.verification_certificates)?,
        activate: policy.activates(order.kind, order.automatic),
        file_format: word(&policy.file_format)?,
        message_timeout_s: policy.message_timeout_s,
        total_timeout_s: policy.total_timeout_s,
        no_polling: ca.quirks.no_polling,
        root_in_extra_certs: ca.quirks.root_in_extra_certs,
    })
}

fn revoke(order: &RevocationOrder) -> Result<Revoke, Box<Failure>> {
    let (ca, policy) = (&order.ca_server, &order.policy);
    let certificate = Certificate::from_pem(&order.certificate).map_err(|error| {
        failure("unreadable_certificate", format!("the certificate to be revoked cannot be read: {error}"))
    })?;
    Ok(Revoke {
        certificate: Blob(certificate.as_der().to_vec()),
        reason: order.reason.as_str().to_owned(),
        signer: order
            .signer
            .as_ref()
            .map(|signer| Signer { device: signer.device.clone(), trustpoint: signer.trustpoint.clone() }),
        recipient: ca.ca_name.clone(),
        urls: urls(ca),
        source: source(policy),
        accept_sha1_answers: policy.mac.accept_sha1_answers || ca.quirks.answers_by_sha1,
        trust_anchors: certificates("trust_anchors", &ca.trust_anchors)?,
        verification_certificates: certificates("verification_certificates", &ca.verification_certificates)?,
        message_timeout_s: policy.message_timeout_s,
        total_timeout_s: policy.total_timeout_s,
        no_polling: ca.quirks.no_polling,
        root_in_extra_certs: ca.quirks.root_in_extra_certs,
    })
}

fn urls(ca: &CaServerSpec) -> Vec<String> {
    std::iter::once(&ca.primary_url).chain(&ca.secondary_url).cloned().collect()
}

fn source(policy: &PolicySpec) -> Option<Source> {
    let source = &policy.source;
    (!source.is_anywhere()).then(|| Source { address: source.address.clone(), interface: source.interface.clone() })
}

fn open_secret(
    job: &ClaimedJob,
    secret_id: SecretId,
    keys: &Keys,
) -> Result<trustfleet_model::secret::SecretBytes, Box<Failure>> {
    let missing = "the trustpoint's MAC secret is not stored any more: give the trustpoint its secret again";
    let (kek_id, ciphertext) = job.secret.as_ref().ok_or_else(|| failure("secret_missing", missing))?;
    keys.at_rest.open(job.claim.tenant_id, secret_id, kek_id, ciphertext).map_err(|error| {
        failure(
            if error == AtRestError::OtherKey { KEY_MISSING } else { "secret_unreadable" },
            format!("the trustpoint's MAC secret: {error}"),
        )
    })
}

fn certificates(field: &str, list: &[String]) -> Result<Vec<Blob>, Box<Failure>> {
    list.iter()
        .enumerate()
        .map(|(i, pem)| match Certificate::from_pem(pem) {
            Ok(certificate) => Ok(Blob(certificate.as_der().to_vec())),
            Err(error) => {
                Err(failure("unreadable_certificate", format!("{field}[{i}] of the CA server cannot be read: {error}")))
            }
        })
        .collect()
}

/// The word of an enum in the API, which is the word on the wire.
fn word<T: Serialize>(value: &T) -> Result<String, Box<Failure>> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(failure("unwritable_job", "a setting of the policy has no word on the wire")),
    }
}

fn failure(code: &str, message: impl Into<String>) -> Box<Failure> {
    Box::new(Failure {
        culprit: Culprit::Configuration,
        code: code.to_owned(),
        message: message.into(),
        pki_status: None,
        fail_info: Vec::new(),
        status_string: None,
        maybe_issued: false,
    })
}
