//! What has become of one member, from its job and its trustpoint.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    job::{Failure, JobState},
    rollover::AnchorState,
    service::ServiceResult,
    trustpoint::Trustpoint,
};

use super::{Action, CampaignSpec, MemberState};

/// A member's job as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFact {
    /// Where it stands.
    pub state: JobState,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Serial number of the certificate that it brought, or was to put into use; none: it has to do with none.
    pub serial: Option<String>,
}

/// What is known of a member that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its trustpoint; none: it is gone.
    pub trustpoint: Option<&'a Trustpoint>,
    /// Its job; none: it is gone.
    pub job: Option<&'a JobFact>,
    /// When it was asked for.
    pub asked_at: Timestamp,
}

/// What follows for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on its way.
    Wait,
    /// Its certificate is staged and waits for somebody to put it into use.
    Activate,
    /// It has come to an end, with the reason as a word and a sentence where there is one.
    Ended(MemberState, Option<(String, String)>),
}

fn ended(state: MemberState, code: &str, reason: impl Into<String>) -> Outcome {
    Outcome::Ended(state, Some((code.to_owned(), reason.into())))
}

/// What has become of a member at `now`.
pub fn settle(spec: &CampaignSpec, facts: &Facts<'_>, now: Timestamp) -> Outcome {
    let Some(trustpoint) = facts.trustpoint else {
        return ended(MemberState::Skipped, "trustpoint_removed", "the trustpoint was removed meanwhile");
    };
    let Some(job) = facts.job else {
        return ended(MemberState::Failed, "job_gone", "its job is not kept any more, and how it ended is not known");
    };
    let outcome = match job.state {
        JobState::Failed => of_failure(job.failure.as_ref()),
        JobState::Succeeded => of_success(&spec.action, trustpoint, job),
        _ => Outcome::Wait,
    };
    if outcome == Outcome::Wait
        && now.duration_since(facts.asked_at) >= SignedDuration::from_secs(spec.patience_s.into())
    {
        let waits_for = match job.state {
            JobState::AwaitingPublish => "its job waits for the agent to come, or for the CA's budget",
            JobState::AwaitingAgent => "its agent has not begun",
            JobState::AwaitingCa => "the CA has not answered",
            JobState::AwaitingPoll => "the CA has it wait",
            JobState::Succeeded | JobState::Failed => "its services have not told",
        };
        let reason = format!("no end within {} seconds: {waits_for}", spec.patience_s);
        return ended(MemberState::Unreachable, job.state.as_str(), reason);
    }
    outcome
}

/// What has become of a roll-back; the job puts the former certificate into use.
pub fn settle_undo(facts: &Facts<'_>) -> Outcome {
    match facts.job.map(|job| (job.state, job.failure.as_ref())) {
        None => {
            ended(MemberState::UndoFailed, "job_gone", "its job is not kept any more, and how it ended is not known")
        }
        Some((JobState::Succeeded, _)) => Outcome::Ended(MemberState::Undone, None),
        Some((JobState::Failed, failure)) => match of_failure(failure) {
            Outcome::Ended(_, reason) => Outcome::Ended(MemberState::UndoFailed, reason),
            other => other,
        },
        Some(_) => Outcome::Wait,
    }
}

fn of_failure(failure: Option<&Failure>) -> Outcome {
    let reason = failure.map(|failure| (failure.code.clone(), failure.message.clone()));
    Outcome::Ended(MemberState::Failed, reason)
}

/// What a trustpoint's services are seen to have of the anchors that they were given.
fn of_anchors(trustpoint: &Trustpoint) -> Outcome {
    let Some(held) = &trustpoint.anchors else {
        return ended(MemberState::Failed, "anchors_gone", "its job ended well, and nothing is known of its anchors");
    };
    let reason = held.reason.clone().unwrap_or_else(|| "no reason was told".to_owned());
    match held.state {
        AnchorState::Loaded => Outcome::Ended(MemberState::Verified, None),
        AnchorState::Stored => ended(MemberState::Unverifiable, "anchors_unseen", reason),
        AnchorState::Failed => ended(MemberState::Failed, "anchors_failed", reason),
        AnchorState::Pending | AnchorState::Sent => Outcome::Wait,
    }
}

fn of_success(action: &Action, trustpoint: &Trustpoint, job: &JobFact) -> Outcome {
    if matches!(action, Action::Revoke { .. }) {
        return Outcome::Ended(MemberState::Verified, None);
    }
    if matches!(action, Action::Anchors) {
        return of_anchors(trustpoint);
    }
    let Some(serial) = job.serial.as_deref() else {
        return ended(MemberState::Failed, "no_certificate", "its job ended well, and no certificate of it is known");
    };
    let is = |slot: &Option<trustfleet_model::certificate::CertificateFacts>| {
        slot.as_ref().is_some_and(|facts| facts.serial == serial)
    };
    let told = trustpoint.in_service.as_ref().filter(|told| told.serial == serial);
    let failed = told.and_then(|told| told.services.iter().find(|service| service.result == ServiceResult::Failed));
    if let Some(failed) = failed {
        let reason = format!(
            "the service {} could not be given the certificate, or went on with another one: `trustfleet trustpoint show` has the steps",
            failed.service
        );
        return ended(MemberState::Failed, "service_failed", reason);
    }
    if action.stages_only() {
        return Outcome::Ended(MemberState::Verified, None);
    }
    if is(&trustpoint.staged) {
        return match &trustpoint.last_failure {
            _ if !trustpoint.activates_by_itself => Outcome::Activate,
            Some(failure) => of_failure(Some(failure)),
            None => Outcome::Wait,
        };
    }
    if !is(&trustpoint.active) {
        let reason = "another certificate has taken its place since";
        return ended(MemberState::Skipped, "superseded", reason);
    }
    if trustpoint.services.is_empty() {
        let reason = "no service is bound to the trustpoint, so nobody can see whether the certificate is used";
        return ended(MemberState::Unverifiable, "no_service", reason);
    }
    match told {
        None => Outcome::Wait,
        Some(told) if told.services.iter().all(|service| service.result == ServiceResult::Verified) => {
            Outcome::Ended(MemberState::Verified, None)
        }
        Some(told) => {
            let unseen = told.services.iter().filter(|service| service.result == ServiceResult::Unverifiable);
            let names: Vec<&str> = unseen.map(|service| service.service.as_str()).collect();
            let reason = format!("reloaded, and without a probe that could tell: {}", names.join(", "));
            ended(MemberState::Unverifiable, "no_probe", reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use trustfleet_model::{
        certificate::CertificateFacts,
        ids::CertificateId,
        job::Culprit,
        revocation::RevocationReason,
        service::{InService, ServiceOutcome},
    };
    use uuid::Uuid;

    use super::*;
    use crate::campaign::{FAILURES, IN_FLIGHT, PATIENCE_S, SUCCESS_PERCENT, Selector};

    fn spec(action: Action) -> CampaignSpec {
        CampaignSpec {
            select: Selector::default(),
            action,
            waves: Vec::new(),
            max_in_flight: IN_FLIGHT,
            success_percent: SUCCESS_PERCENT,
            failures_allowed: FAILURES,
            accept_unverifiable: false,
            soak_s: 0,
            patience_s: PATIENCE_S,
            urgent: false,
        }
    }

    const RENEW: Action = Action::Renew { stage_only: false };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn certificate(serial: &str) -> CertificateFacts {
        CertificateFacts {
            id: CertificateId::from(Uuid::from_u128(9)),
            serial: serial.to_owned(),
            subject: "CN=ap".to_owned(),
            issuer: "CN=ca".to_owned(),
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(24),
            sha256: String::new(),
            public_key_sha256: String::new(),
            file: None,
            revocation: None,
        }
    }

    fn trustpoint(services: &[&str]) -> Trustpoint {
        let id = Uuid::from_u128;
        let name = "default".parse().unwrap();
        let mut made = Trustpoint::new(id(1).into(), name, id(2).into(), id(3).into(), id(4).into());
        made.services = services.iter().map(|name| name.parse().unwrap()).collect();
        made
    }

    fn told(serial: &str, results: &[(&str, ServiceResult)]) -> InService {
        let outcome =
            |(name, result): &(&str, ServiceResult)| ServiceOutcome { service: name.parse().unwrap(), result: *result };
        let services = results.iter().map(outcome).collect();
        InService { serial: serial.to_owned(), at: now(), services, steps: Vec::new(), warnings: Vec::new() }
    }

    fn job(state: JobState, serial: Option<&str>) -> JobFact {
        JobFact { state, failure: None, serial: serial.map(str::to_owned) }
    }

    fn after(action: Action, trustpoint: &Trustpoint, job: &JobFact) -> Outcome {
        settle(&spec(action), &Facts { trustpoint: Some(trustpoint), job: Some(job), asked_at: now() }, now())
    }

    fn state(outcome: &Outcome) -> Option<MemberState> {
        match outcome {
            Outcome::Ended(state, _) => Some(*state),
            _ => None,
        }
    }

    #[test]
    fn s51_a_member_is_done_when_all_of_its_services_were_seen_to_use_the_certificate() {
        let done = job(JobState::Succeeded, Some("0A"));
        let mut member = trustpoint(&["https", "radius"]);
        member.active = Some(certificate("0A"));
        assert_eq!(after(RENEW, &member, &done), Outcome::Wait, "nothing was told of them yet");
        member.in_service = Some(told("09", &[("https", ServiceResult::Verified)]));
        assert_eq!(after(RENEW, &member, &done), Outcome::Wait, "that was the certificate before");
        let verified = [("https", ServiceResult::Verified), ("radius", ServiceResult::Verified)];
        member.in_service = Some(told("0A", &verified));
        assert_eq!(after(RENEW, &member, &done), Outcome::Ended(MemberState::Verified, None));
        let mixed = [("https", ServiceResult::Verified), ("radius", ServiceResult::Unverifiable)];
        member.in_service = Some(told("0A", &mixed));
        assert_eq!(state(&after(RENEW, &member, &done)), Some(MemberState::Unverifiable));
        let failed = [("https", ServiceResult::Failed), ("radius", ServiceResult::Verified)];
        member.in_service = Some(told("0A", &failed));
        assert_eq!(state(&after(RENEW, &member, &done)), Some(MemberState::Failed));
    }

    #[test]
    fn without_services_nobody_can_see_it_and_that_is_said() {
        let mut member = trustpoint(&[]);
        member.active = Some(certificate("0A"));
        let outcome = after(RENEW, &member, &job(JobState::Succeeded, Some("0A")));
        let Outcome::Ended(MemberState::Unverifiable, Some((code, _))) = outcome else { panic!("{outcome:?}") };
        assert_eq!(code, "no_service");
    }

    #[test]
    fn s33_what_waits_for_a_command_is_put_into_use_unless_it_is_to_stay_staged() {
        let done = job(JobState::Succeeded, Some("0A"));
        let mut member = trustpoint(&["https"]);
        member.staged = Some(certificate("0A"));
        assert_eq!(after(RENEW, &member, &done), Outcome::Activate);
        member.activates_by_itself = true;
        assert_eq!(after(RENEW, &member, &done), Outcome::Wait);
        let staged = after(Action::Rekey { stage_only: true }, &member, &done);
        assert_eq!(staged, Outcome::Ended(MemberState::Verified, None));
        member.staged = None;
        member.active = Some(certificate("0B"));
        assert_eq!(state(&after(RENEW, &member, &done)), Some(MemberState::Skipped), "another one took its place");
    }

    #[test]
    fn a_failed_job_fails_its_member_with_the_same_words() {
        let failure = Failure {
            culprit: Culprit::PeerRefusal,
            code: "bad_pop".to_owned(),
            message: "the CA refused".to_owned(),
            pki_status: None,
            fail_info: Vec::new(),
            status_string: None,
            maybe_issued: false,
        };
        let failed = JobFact { state: JobState::Failed, failure: Some(failure), serial: None };
        let reason = Some(("bad_pop".to_owned(), "the CA refused".to_owned()));
        assert_eq!(after(RENEW, &trustpoint(&[]), &failed), Outcome::Ended(MemberState::Failed, reason.clone()));
        let facts = Facts { trustpoint: None, job: Some(&failed), asked_at: now() };
        assert_eq!(settle_undo(&facts), Outcome::Ended(MemberState::UndoFailed, reason));
        assert_eq!(state(&settle(&spec(RENEW), &facts, now())), Some(MemberState::Skipped), "it was removed");
    }

    #[test]
    fn s53_a_member_that_takes_too_long_is_out_of_reach_and_says_what_it_waits_for() {
        let waiting = job(JobState::AwaitingAgent, None);
        let member = trustpoint(&[]);
        let at = |seconds| {
            let facts = Facts { trustpoint: Some(&member), job: Some(&waiting), asked_at: now() };
            settle(&spec(RENEW), &facts, now() + SignedDuration::from_secs(seconds))
        };
        assert_eq!(at(86_399), Outcome::Wait);
        let Outcome::Ended(MemberState::Unreachable, Some((code, reason))) = at(86_400) else {
            panic!("{:?}", at(86_400))
        };
        assert!(code == "awaiting_agent" && reason.contains("its agent has not begun"), "{reason}");
    }

    #[test]
    fn a_revocation_is_done_when_its_job_is() {
        let revoke = Action::Revoke { reason: RevocationReason::KeyCompromise };
        assert_eq!(
            after(revoke, &trustpoint(&[]), &job(JobState::Succeeded, None)),
            Outcome::Ended(MemberState::Verified, None)
        );
    }
}
