//! Reports of agents: duplicates and late ones change nothing and are still answered.

use std::mem;

use jiff::Timestamp;
use trustfleet_model::{
    certificate::Slot,
    ids::JobId,
    job::{Culprit, Failure, JobState, RequestKind},
    reissue::note_issued,
    service::InService,
    statistics::{Ending, Statistics},
    trustpoint::{Progress, RequestState, Trustpoint},
};

use super::stop::STOPPED;
use super::{
    Changes, Decision, DeviceState, JobKind, OpenJob, Rejection, Reply, SlotChange, anchors, changed, dry_run, revoke,
    unchanged,
};
use crate::device::{CertificateInsert, IssuedCertificate, JobFacts, JobTold, Report, ReportEvent, StopNote};

pub(super) fn report(state: &DeviceState, report: &Report, now: Timestamp) -> Result<Decision, Rejection> {
    let job = report.job.ok_or(Rejection::UnknownJob)?;
    let for_sender = job.agent_id == report.agent_id
        && job.device_id == report.device_id
        && job.trustpoint_id == report.trustpoint_id
        && job.device_id == state.device.id;
    if !for_sender {
        return Err(Rejection::ForeignJob);
    }
    let fits = match (&report.event, job.kind) {
        (ReportEvent::PermitExpired | ReportEvent::Failed { .. }, _) => true,
        (ReportEvent::Started { .. }, kind) => !matches!(kind, JobKind::DryRun | JobKind::Anchors),
        (ReportEvent::Waiting { .. }, kind) => matches!(kind, JobKind::Enroll(_) | JobKind::Revoke),
        (ReportEvent::Issued(_), kind) => matches!(kind, JobKind::Enroll(_)),
        (ReportEvent::Activated { .. }, kind) => matches!(kind, JobKind::Enroll(_) | JobKind::Activate),
        (ReportEvent::Revoked { .. }, kind) => kind == JobKind::Revoke,
        (ReportEvent::DryRun(_), kind) => kind == JobKind::DryRun,
        (ReportEvent::Anchors { .. }, kind) => kind == JobKind::Anchors,
    };
    if !fits {
        return Err(Rejection::WrongKind);
    }
    if job.kind == JobKind::Revoke {
        return Ok(revoke::report(state, report, now));
    }
    if job.kind == JobKind::DryRun {
        return Ok(dry_run::report(state, report, now));
    }
    if job.kind == JobKind::Anchors {
        return Ok(anchors::report(state, report, now));
    }
    let ends = matches!(report.event, ReportEvent::Issued(_) | ReportEvent::Failed { .. });
    let Some(trustpoint) = state.trustpoints.get(&report.trustpoint_id) else {
        // A removed trustpoint: its history is closed. Its agent need not be told any more to stop.
        if !(ends && state.stopped_jobs.contains_key(&report.job_id)) {
            return Ok(unchanged(Reply::Known));
        }
        let mut changes = Changes::next(state, now);
        changes.state.stopped_jobs.remove(&report.job_id);
        changes.update_job(report.job_id, JobState::Failed, |update| update.stop = Some(StopNote::Answered));
        return Ok(changed(changes, Reply::Taken));
    };
    let open = state.open_jobs.get(&report.job_id).filter(|_| trustpoint.request.job_id() == Some(report.job_id));
    let story = Story { state, report, job, trustpoint, open, now };
    match &report.event {
        ReportEvent::Started { public_key_sha256 } => Ok(story.started(public_key_sha256)),
        ReportEvent::Waiting { requesting, progress } => Ok(story.waiting(*requesting, progress.as_ref())),
        ReportEvent::PermitExpired => Ok(story.permit_expired()),
        ReportEvent::Issued(issued) => Ok(story.issued(issued)),
        ReportEvent::Activated { serial, file, in_service } => story.activated(serial, file, in_service.as_deref()),
        // Only of jobs that stand beside, which went their own way above.
        ReportEvent::Revoked { .. } | ReportEvent::DryRun(_) | ReportEvent::Anchors { .. } => Err(Rejection::WrongKind),
        ReportEvent::Failed { failure, transaction_id, in_service, in_use } => {
            let in_use = in_use.as_ref().map(|(serial, file)| (serial.as_str(), file.as_str()));
            story.failed(failure, transaction_id.as_ref(), in_service.as_deref(), in_use)
        }
    }
}

/// A report with what it is about.
struct Story<'a> {
    state: &'a DeviceState,
    report: &'a Report,
    job: JobFacts,
    trustpoint: &'a Trustpoint,
    /// The job, while it is the one under way on its trustpoint.
    open: Option<&'a OpenJob>,
    now: Timestamp,
}

impl Story<'_> {
    const fn job_id(&self) -> JobId {
        self.report.job_id
    }

    /// Whether it was ended here by an operator, and its agent has yet to say how it ended there.
    fn is_stopped(&self) -> bool {
        self.state.stopped_jobs.contains_key(&self.job_id())
    }

    fn changes(&self) -> Changes {
        Changes::next(self.state, self.now)
    }

    fn audit(&self, changes: &mut Changes, action: &'static str, detail: serde_json::Value) {
        changes.audit_of_job(self.report.requested_by.clone(), action, self.job_id().as_uuid(), detail);
    }

    fn started(&self, fingerprint: &str) -> Decision {
        let Some(open) = self.open else { return unchanged(Reply::Known) };
        let same_key = open.public_key_sha256.as_deref() == Some(fingerprint);
        let (request, job_state) = match self.trustpoint.request {
            RequestState::Agent { job_id } => {
                (RequestState::Ca { job_id, since: self.now, progress: Progress::default() }, JobState::AwaitingCa)
            }
            _ if same_key => return unchanged(Reply::Known),
            // Begun again with another key, or overtaken by `waiting`: the fingerprint still counts.
            RequestState::Poll { .. } => (self.trustpoint.request.clone(), JobState::AwaitingPoll),
            RequestState::Ca { .. } | RequestState::Nothing => (self.trustpoint.request.clone(), JobState::AwaitingCa),
        };
        let mut changes = self.changes();
        let key_conflict = self.report.key_held_by.clone();
        if let Some(holder) = &key_conflict {
            let detail = serde_json::json!({ "public_key_sha256": fingerprint, "held_by": holder });
            self.audit(&mut changes, "key_conflict", detail);
        }
        changes.step(Trustpoint { request, key_conflict, ..self.trustpoint.clone() });
        if let Some(open) = changes.state.open_jobs.get_mut(&self.job_id()) {
            open.public_key_sha256 = Some(fingerprint.to_owned());
        }
        changes.update_job(self.job_id(), job_state, |update| {
            update.public_key_sha256 = Some(fingerprint.to_owned());
            update.started_at = Some(self.now);
        });
        self.audit(&mut changes, "job_started", serde_json::json!({ "public_key_sha256": fingerprint }));
        changed(changes, Reply::Taken)
    }

    /// The first time that the CA lets its client wait is a step; what comes later is news of the same (S50).
    fn waiting(&self, requesting: bool, progress: Option<&Progress>) -> Decision {
        let job_id = self.job_id();
        let (now, told) = (self.now, progress.cloned().unwrap_or_default());
        let (request, job_state, is_step) = match &self.trustpoint.request {
            _ if self.open.is_none() => return unchanged(Reply::Known),
            RequestState::Poll { progress: former, .. } | RequestState::Ca { progress: former, .. }
                if progress.is_some() && former.next_at >= told.next_at =>
            {
                return unchanged(Reply::Known); // overtaken
            }
            RequestState::Poll { .. } if progress.is_none() => return unchanged(Reply::Known),
            RequestState::Poll { since, .. } => {
                (RequestState::Poll { job_id, since: *since, progress: told }, JobState::AwaitingPoll, false)
            }
            RequestState::Ca { since, .. } if requesting => {
                (RequestState::Ca { job_id, since: *since, progress: told }, JobState::AwaitingCa, false)
            }
            _ if requesting => (RequestState::Ca { job_id, since: now, progress: told }, JobState::AwaitingCa, true),
            _ => (RequestState::Poll { job_id, since: now, progress: told }, JobState::AwaitingPoll, true),
        };
        let mut changes = self.changes();
        changes.step(Trustpoint { request, ..self.trustpoint.clone() });
        changes.update_job(job_id, job_state, |_| {});
        if is_step {
            self.audit(&mut changes, "job_waiting", serde_json::json!({}));
        }
        changed(changes, Reply::Taken)
    }

    fn permit_expired(&self) -> Decision {
        let not_started = matches!(self.trustpoint.request, RequestState::Agent { .. });
        if self.open.is_none() || !not_started || self.report.offered_again {
            return unchanged(Reply::Known);
        }
        let mut changes = self.changes();
        changes.update_job(self.job_id(), JobState::AwaitingPublish, |_| {});
        changes.outbox.push(self.job_id());
        self.audit(&mut changes, "job_permit_expired", serde_json::json!({}));
        changed(changes, Reply::Taken)
    }

    fn issued(&self, issued: &IssuedCertificate) -> Decision {
        if self.open.is_none() && !self.is_stopped() {
            return unchanged(Reply::Known);
        }
        if self.open.is_none() && self.trustpoint.request.job_id().is_some() {
            return self.issued_beside(issued);
        }
        // Or it was stopped here, and the agent was faster: there is a certificate, and that counts.
        let mut changes = self.changes();
        if let Some(unused) = &self.trustpoint.staged {
            let (slot, replaced_by) = (Slot::Retired, Some(issued.facts.id));
            changes.slots.push(SlotChange { certificate_id: unused.id, slot, file: None, replaced_by });
        }
        let recovered = changes.use_up_recovery(self.trustpoint, self.job_id());
        // By ir and cr; an update is signed, and leaves a secret for the day when it is needed.
        let by_secret =
            recovered.is_none() && matches!(self.job.kind, JobKind::Enroll(RequestKind::Ir | RequestKind::Cr));
        let used_up = self.trustpoint.mac_secret_id.filter(|_| by_secret && self.trustpoint.mac_one_time);
        changes.secrets_gone.extend(used_up);
        changes.write(Trustpoint {
            statistics: self.counted(Ending::Done),
            request: RequestState::Nothing,
            staged: Some(issued.facts.clone()),
            mac_secret_id: self.trustpoint.mac_secret_id.filter(|_| used_up.is_none()),
            issued_at: Some(self.now),
            issued_lately: self.issued_lately(),
            last_failure: None,
            failures: 0,
            last_failed_at: None,
            ..recovered.clone().unwrap_or_else(|| self.trustpoint.clone())
        });
        changes.certificates.push(CertificateInsert {
            trustpoint_id: self.trustpoint.id,
            job_id: self.job_id(),
            slot: Slot::Staged,
            issued: issued.clone(),
        });
        changes.finish(self.job_id(), JobState::Succeeded, |update| {
            update.transaction_id = Some(issued.transaction_id.clone());
            update.public_key_sha256 = Some(issued.facts.public_key_sha256.clone());
            update.transcript.clone_from(&self.report.transcript);
        });
        let detail = serde_json::json!({
            "certificate_id": issued.facts.id,
            "serial": issued.facts.serial,
            "issuer": issued.facts.issuer,
            "not_after": issued.facts.not_after,
            "warnings": issued.warnings,
            "one_time_secret_deleted": used_up.is_some(),
            "by_recovery": recovered.is_some(),
        });
        self.audit(&mut changes, "certificate_issued", detail);
        changed(changes, Reply::Taken)
    }

    /// A job that was stopped here brings a certificate while the next one is under way: it is kept, and not used.
    fn issued_beside(&self, issued: &IssuedCertificate) -> Decision {
        let mut changes = self.changes();
        let issued_lately = self.issued_lately();
        changes.write(Trustpoint { statistics: self.counted(Ending::Done), issued_lately, ..self.trustpoint.clone() });
        changes.certificates.push(CertificateInsert {
            trustpoint_id: self.trustpoint.id,
            job_id: self.job_id(),
            slot: Slot::Retired,
            issued: issued.clone(),
        });
        changes.finish(self.job_id(), JobState::Succeeded, |update| {
            update.transaction_id = Some(issued.transaction_id.clone());
            update.transcript.clone_from(&self.report.transcript);
        });
        let detail = serde_json::json!({
            "certificate_id": issued.facts.id, "serial": issued.facts.serial, "used": false,
        });
        self.audit(&mut changes, "certificate_issued", detail);
        changed(changes, Reply::Taken)
    }

    fn activated(&self, serial: &str, file: &str, in_service: Option<&InService>) -> Result<Decision, Rejection> {
        let mut trustpoint = self.trustpoint.clone();
        let mut changes = self.changes();
        match (&trustpoint.staged, &trustpoint.active) {
            (Some(staged), _) if staged.serial == serial => {
                put_into_use(&mut trustpoint, &mut changes, file);
                let services = in_service.map(|said| &said.services);
                let detail = serde_json::json!({ "serial": serial, "file": file, "services": services });
                self.audit(&mut changes, "certificate_activated", detail);
            }
            // In use already; but its activation job may have come later than that.
            (_, Some(active)) if active.serial == serial && self.open_kind() == Some(JobKind::Activate) => {
                if let Some(said) = in_service {
                    let detail = serde_json::json!({ "serial": serial, "services": said.services });
                    self.audit(&mut changes, "services_reloaded", detail);
                }
            }
            (_, Some(active)) if active.serial == serial => return Ok(unchanged(Reply::Known)),
            // The report of the issue is still on its way.
            _ if matches!(self.open_kind(), Some(JobKind::Enroll(_))) => return Err(Rejection::TooEarly),
            _ => return Ok(unchanged(Reply::Known)),
        }
        let in_service = in_service.cloned();
        if self.open_kind() == Some(JobKind::Activate) {
            trustpoint.request = RequestState::Nothing;
            changes.finish(self.job_id(), JobState::Succeeded, |update| update.in_service.clone_from(&in_service));
        } else {
            self.tell(&mut changes, in_service.as_ref());
        }
        trustpoint.in_service = in_service;
        trustpoint.succeed();
        changes.write(trustpoint);
        Ok(changed(changes, Reply::Taken))
    }

    fn failed(
        &self,
        failure: &Failure,
        transaction_id: Option<&String>,
        in_service: Option<&InService>,
        in_use: Option<(&str, &str)>,
    ) -> Result<Decision, Rejection> {
        let mut changes = self.changes();
        let mut trustpoint = self.trustpoint.clone();
        let meant = trustpoint.staged.as_ref().or(trustpoint.active.as_ref()).map(|facts| facts.serial.clone());
        let in_service = in_service.map(|said| InService { serial: meant.unwrap_or_default(), ..said.clone() });
        let begun = matches!(trustpoint.request, RequestState::Ca { .. } | RequestState::Poll { .. });
        let mut failure = failure.clone();
        // An agent that knows nothing of a job that it had begun has lost its memory, not the CA.
        failure.maybe_issued |= self.open.is_some() && begun && failure.code == STOPPED && transaction_id.is_none();
        let failure = &failure;
        if self.open.is_some() || self.is_stopped() {
            let by_transport = failure.culprit == Culprit::Transport;
            let sent = transaction_id.is_some();
            trustpoint.statistics = self.counted(Ending::Failed { by_transport, sent });
            if self.job.kind == JobKind::Enroll(RequestKind::Kur) && failure.maybe_issued {
                trustpoint.unfinished_update = trustpoint.active.as_ref().map(|active| active.serial.clone());
            }
        }
        if self.open.is_some() {
            // Services fail after the issue, whose report is still on its way.
            if in_service.is_some() && matches!(self.open_kind(), Some(JobKind::Enroll(_))) {
                return Err(Rejection::TooEarly);
            }
            trustpoint.request = RequestState::Nothing;
            changes.finish(self.job_id(), JobState::Failed, |update| {
                update.failure = Some(failure.clone());
                update.transaction_id = transaction_id.cloned();
                update.transcript.clone_from(&self.report.transcript);
                update.in_service.clone_from(&in_service);
            });
        } else if self.is_stopped() {
            // It was ended here at once; now its agent says how it ended there.
            changes.finish(self.job_id(), JobState::Failed, |update| {
                update.failure = Some(failure.clone());
                update.transaction_id = transaction_id.cloned();
                update.transcript.clone_from(&self.report.transcript);
                update.finished_at = None;
            });
            let of_last_job = trustpoint.last_request.as_ref().is_some_and(|last| last.job_id == self.job_id());
            if of_last_job && trustpoint.last_failure.as_ref().is_some_and(|last| last.code == STOPPED) {
                trustpoint.last_failure = Some(failure.clone());
            }
            changes.write(trustpoint);
            self.audit(
                &mut changes,
                "job_stopped",
                serde_json::json!({ "code": failure.code, "maybe_issued": failure.maybe_issued }),
            );
            return Ok(changed(changes, Reply::Taken));
        } else {
            // After the issue: the activation failed. Only of the last job, and only once.
            let of_last_job = trustpoint.last_request.as_ref().is_some_and(|last| last.job_id == self.job_id());
            if !of_last_job || trustpoint.staged.is_none() || trustpoint.last_failure.is_some() {
                return Ok(unchanged(Reply::Known));
            }
            self.tell(&mut changes, in_service.as_ref());
        }
        if let Some((serial, file)) = in_use
            && trustpoint.staged.as_ref().is_some_and(|staged| staged.serial == serial)
        {
            put_into_use(&mut trustpoint, &mut changes, file);
        }
        trustpoint.fail(failure.clone(), self.now);
        let services = in_service.as_ref().map(|said| &said.services);
        let detail = serde_json::json!({
            "culprit": failure.culprit,
            "code": failure.code,
            "message": failure.message,
            "services": services,
            "in_use": in_use.map(|(serial, _)| serial),
        });
        if in_service.is_some() {
            trustpoint.in_service = in_service;
        }
        changes.write(trustpoint);
        self.audit(&mut changes, "job_failed", detail);
        Ok(changed(changes, Reply::Taken))
    }

    /// The job has ended with the issue; its services are told of besides.
    fn tell(&self, changes: &mut Changes, in_service: Option<&InService>) {
        let job_id = self.job_id();
        changes.jobs_told.extend(in_service.map(|said| JobTold { job_id, in_service: said.clone() }));
    }

    /// When certificates were issued, with this one.
    fn issued_lately(&self) -> Vec<Timestamp> {
        let mut moments = self.trustpoint.issued_lately.clone();
        note_issued(&mut moments, self.now);
        moments
    }

    /// The trustpoint's statistics with this exchange; an activation is none (S48).
    fn counted(&self, ending: Ending) -> Statistics {
        let mut statistics = self.trustpoint.statistics.clone();
        if let JobKind::Enroll(kind) = self.job.kind {
            statistics.count(kind.as_str(), self.report.transcript.as_ref(), ending);
        }
        statistics
    }

    fn open_kind(&self) -> Option<JobKind> {
        self.open.map(|open| open.kind)
    }
}

/// The staged certificate is in use, in `file`; the others move on.
fn put_into_use(trustpoint: &mut Trustpoint, changes: &mut Changes, file: &str) {
    let mut now_active = trustpoint.staged.take();
    if let Some(facts) = &mut now_active {
        facts.file = Some(file.to_owned());
    }
    let successor = now_active.as_ref().map(|facts| facts.id);
    let now_previous = mem::replace(&mut trustpoint.active, now_active);
    let retired = mem::replace(&mut trustpoint.previous, now_previous);
    if let Some(previous) = &mut trustpoint.previous {
        previous.file = None; // another certificate is there by now
    }
    for (facts, slot) in
        [(&trustpoint.active, Slot::Active), (&trustpoint.previous, Slot::Previous), (&retired, Slot::Retired)]
    {
        let file = (slot == Slot::Active).then(|| file.to_owned());
        changes.slots.extend(facts.iter().map(|facts| SlotChange {
            certificate_id: facts.id,
            slot,
            file: file.clone(),
            replaced_by: successor.filter(|_| slot == Slot::Previous),
        }));
    }
}
