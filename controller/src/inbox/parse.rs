//! From a verified report to a command: certificates are read, words of strangers are cleaned and bounded.

use std::mem;

use jiff::Timestamp;
use trustfleet_model::{
    certificate::CertificateFacts,
    dry_run::{self, Check, CheckResult, DryRun},
    ids::CertificateId,
    job::{Culprit, Failure},
    service::{self, InService, ServiceOutcome, ServiceResult, ServiceStep},
    transcript::Transcript,
    trustpoint::Progress,
};
use trustfleet_pki::certificate::Certificate;
use trustfleet_wire::v1::{self as wire, Event, Exchanged, Failed, FromAgent, Issued, Report};

use crate::{
    audit::Requester,
    db::{Claimed, Sender},
    device::{self, IssuedCertificate, ReportEvent},
};

/// Longest version of an agent's software, characters.
pub(super) const SOFTWARE_MAX: usize = 128;
const WORD_MAX: usize = 128;
const TEXT_MAX: usize = 2_000;
const FILE_MAX: usize = 4_096;
const LIST_MAX: usize = 32;
/// Entries of a transcript that are looked at; an honest agent sends fewer.
const ENTRIES_READ: usize = 256;

/// What a message says of its sender, not believed yet.
pub(super) fn claimed(message: &FromAgent) -> Claimed {
    match message {
        FromAgent::Hello(hello) => {
            Claimed { tenant: hello.tenant_id, agent: hello.agent_id, job: None, lease: None, key: None }
        }
        FromAgent::Lease(answer) => {
            Claimed { tenant: answer.tenant_id, agent: answer.agent_id, job: None, lease: None, key: None }
        }
        FromAgent::Report(report) => Claimed {
            tenant: report.tenant_id,
            agent: report.agent_id,
            job: Some(report.job_id),
            lease: report.lease_id,
            key: match &report.event {
                Event::Started { public_key_sha256 } => {
                    Some((report.trustpoint_id, bounded(public_key_sha256, WORD_MAX)))
                }
                _ => None,
            },
        },
    }
}

/// The command for a report of `sender`.
pub(super) fn report(mut report: Report, sender: &Sender, id: CertificateId, now: Timestamp) -> device::Report {
    let sent = i64::try_from(report.sequence).unwrap_or(i64::MAX);
    device::Report {
        report_id: report.report_id,
        agent_id: report.agent_id,
        device_id: report.device_id,
        trustpoint_id: report.trustpoint_id,
        job_id: report.job_id,
        job: sender.job,
        offered_again: sender.in_outbox || sender.sequence.is_some_and(|latest| latest > sent),
        key_held_by: None,
        requested_by: Requester::agent(report.agent_id, report.report_id.as_uuid(), report.traceparent.as_deref()),
        transcript: transcript(&mut report.event),
        event: event(report.event, id, now),
    }
}

/// What went to and fro, taken out of the event; what a later agent says in words of its own is left out.
fn transcript(event: &mut Event) -> Option<Transcript> {
    let told = match event {
        Event::Issued(issued) => mem::take(&mut issued.transcript),
        Event::Failed(failed) => mem::take(&mut failed.transcript),
        Event::Revoked(revoked) => mem::take(&mut revoked.transcript),
        _ => Vec::new(),
    };
    let clean = |text: &str| bounded(text, TEXT_MAX);
    let entries = told.into_iter().take(ENTRIES_READ).filter_map(Exchanged::entry).map(|entry| entry.cleaned(&clean));
    Some(Transcript::of(entries)).filter(|transcript| !transcript.is_empty())
}

fn event(event: Event, id: CertificateId, now: Timestamp) -> ReportEvent {
    match event {
        Event::Started { public_key_sha256 } => {
            ReportEvent::Started { public_key_sha256: bounded(&public_key_sha256, WORD_MAX) }
        }
        Event::Waiting { check_after_s: _, progress } => ReportEvent::Waiting {
            requesting: progress.as_ref().is_some_and(|progress| progress.requesting),
            progress: progress.map(|told| Progress {
                told_at: Some(now),
                polls: told.polls,
                next_at: Some(told.next_at),
                trouble: told.trouble.map(|text| bounded(&text, TEXT_MAX)),
            }),
        },
        Event::PermitExpired => ReportEvent::PermitExpired,
        Event::Issued(issued) => self::issued(*issued, id, now),
        Event::Activated { serial, file, in_service } => {
            let serial = bounded(&serial, WORD_MAX);
            let in_service = in_service.map(|said| Box::new(self::in_service(*said, serial.clone(), now)));
            ReportEvent::Activated { serial, file: bounded(&file, FILE_MAX), in_service }
        }
        Event::Revoked(revoked) => ReportEvent::Revoked {
            transaction_id: bounded(&revoked.transaction_id, WORD_MAX),
            warnings: revoked.warnings.iter().take(LIST_MAX).map(|text| bounded(text, TEXT_MAX)).collect(),
        },
        Event::DryRun(found) => ReportEvent::DryRun(Box::new(dry_run(*found))),
        Event::Anchors { in_service } => {
            ReportEvent::Anchors { in_service: Box::new(self::in_service(*in_service, String::new(), now)) }
        }
        Event::Failed(failed) => self::failed(*failed, now),
    }
}

/// What a dry run found; a word of a later agent for a result counts as a warning.
fn dry_run(found: wire::DryRun) -> DryRun {
    let check = |check: wire::Check| Check {
        name: bounded(&check.name, WORD_MAX),
        result: CheckResult::ALL.into_iter().find(|it| it.as_str() == check.result).unwrap_or(CheckResult::Warning),
        rule: check.rule.map(|rule| bounded(&rule, WORD_MAX)),
        message: bounded(&check.message, dry_run::MESSAGE_MAX),
    };
    let checks = found.checks.into_iter().take(dry_run::CHECKS_MAX).map(check).collect();
    DryRun { duration_ms: found.duration_ms, checks }
}

fn issued(issued: Issued, id: CertificateId, now: Timestamp) -> ReportEvent {
    let certificate = match Certificate::from_der(&issued.certificate.0) {
        Ok(certificate) => certificate,
        Err(error) => {
            let failure = Failure {
                culprit: Culprit::PeerMessage,
                code: "unreadable_certificate".to_owned(),
                message: format!("the agent stored a certificate that the controller cannot read: {error}"),
                pki_status: None,
                fail_info: Vec::new(),
                status_string: None,
                maybe_issued: true,
            };
            let transaction_id = Some(bounded(&issued.transaction_id, WORD_MAX));
            return ReportEvent::Failed { failure, transaction_id, in_service: None, in_use: None };
        }
    };
    let facts = CertificateFacts {
        id,
        serial: certificate.serial_hex(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        sha256: hex::encode(certificate.sha256_fingerprint()),
        public_key_sha256: hex::encode(certificate.public_key().fingerprint()),
        file: Some(bounded(&issued.file, FILE_MAX)),
        revocation: None,
    };
    ReportEvent::Issued(Box::new(IssuedCertificate {
        facts,
        der: issued.certificate.0,
        chain: issued.chain.into_iter().take(LIST_MAX).map(|der| der.0).collect(),
        transaction_id: bounded(&issued.transaction_id, WORD_MAX),
        warnings: issued.warnings.iter().take(LIST_MAX).map(|text| bounded(text, TEXT_MAX)).collect(),
        received_at: now,
    }))
}

fn failed(failed: Failed, now: Timestamp) -> ReportEvent {
    let culprit = Culprit::ALL.into_iter().find(|culprit| culprit.as_str() == failed.culprit);
    let failure = Failure {
        // A word of a later agent: the device is where to look.
        culprit: culprit.unwrap_or(Culprit::Device),
        code: bounded(&failed.code, WORD_MAX),
        message: bounded(&failed.message, TEXT_MAX),
        pki_status: failed.pki_status.map(|text| bounded(&text, WORD_MAX)),
        fail_info: failed.fail_info.iter().take(LIST_MAX).map(|text| bounded(text, WORD_MAX)).collect(),
        status_string: failed.status_string.map(|text| bounded(&text, TEXT_MAX)),
        maybe_issued: failed.maybe_issued,
    };
    ReportEvent::Failed {
        failure,
        transaction_id: failed.transaction_id.map(|text| bounded(&text, WORD_MAX)),
        in_service: failed.in_service.map(|said| Box::new(in_service(*said, String::new(), now))),
        in_use: failed.in_use.map(|used| (bounded(&used.serial, WORD_MAX), bounded(&used.file, FILE_MAX))),
    }
}

/// What an agent says of services. What bears no name of a service is left out; a word of a later agent for a result
/// counts as one that verifies nothing.
fn in_service(said: wire::InService, serial: String, now: Timestamp) -> InService {
    let outcome = |outcome: wire::ServiceOutcome| {
        let known = ServiceResult::ALL.into_iter().find(|result| result.as_str() == outcome.result);
        let service = outcome.service.parse().ok()?;
        Some(ServiceOutcome { service, result: known.unwrap_or(ServiceResult::Unverifiable) })
    };
    let step = |step: wire::ServiceStep| {
        Some(ServiceStep {
            service: step.service.parse().ok()?,
            step: bounded(&step.step, WORD_MAX),
            ok: step.ok,
            duration_ms: step.duration_ms,
            detail: bounded(&step.detail, service::DETAIL_MAX),
        })
    };
    let warnings = said.warnings.iter().take(service::WARNINGS_MAX);
    InService {
        serial,
        at: now,
        services: said.services.into_iter().take(service::SERVICES_MAX).filter_map(outcome).collect(),
        steps: said.steps.into_iter().take(service::STEPS_MAX).filter_map(step).collect(),
        warnings: warnings.map(|text| bounded(text, service::DETAIL_MAX)).collect(),
    }
}

/// The text without control characters, at most `max` characters of it.
pub(super) fn bounded(text: &str, max: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_are_cleaned_and_bounded() {
        assert_eq!(bounded("a\u{1b}[31mb\0\nc", 5), "a[31m");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_ends_the_job_and_says_that_one_may_exist() {
        let issued = Issued {
            certificate: trustfleet_wire::v1::Blob(b"no certificate".to_vec()),
            chain: Vec::new(),
            transaction_id: "00ff".to_owned(),
            status: "accepted".to_owned(),
            implicitly_confirmed: false,
            duration_ms: 1,
            polls: 0,
            file: "/x".to_owned(),
            warnings: Vec::new(),
            transcript: Vec::new(),
        };
        let id = CertificateId::from(uuid::Uuid::from_u128(1));
        let ReportEvent::Failed { failure, .. } = super::issued(issued, id, Timestamp::UNIX_EPOCH) else {
            panic!("it was taken as a certificate");
        };
        assert!(failure.maybe_issued);
        assert_eq!(failure.code, "unreadable_certificate");
    }
}
