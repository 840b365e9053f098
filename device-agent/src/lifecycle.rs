//! What to do next with a job: decided from its record, the clock and what came in, and nothing else.
//!
//! Pure: no disk, no socket, no clock of its own. That a job runs once, that a stale or foreign message does nothing and
//! that a late start is returned instead of begun: all of it is decided here.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::ids::{AgentId, TrustpointId};
use trustfleet_wire::v1::{Job, Stop, Task};

use crate::backoff::Backoff;
use crate::record::{JobRecord, Outcome, State, Told};

/// How long a finished job is remembered at least, so that a repeated message finds its answer.
const REMEMBER: SignedDuration = SignedDuration::from_hours(24);
/// Waits between the repetitions of a report without a receipt.
pub const REPORT_BACKOFF: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_secs(300) };
/// Waits between tries to reach a CA.
pub const CA_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// Tries to send a request before the job fails.
pub const REQUEST_TRIES: u32 = 5;
/// Tries to send a certConf: the certificate is issued by then, so there is more to lose.
pub const CONFIRM_TRIES: u32 = 12;

/// What becomes of an incoming job message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// A new job: save it, then take it up.
    Take,
    /// A job whose permit had run out, admitted anew: save the new message, start again.
    TakeAgain,
    /// A newer message for a job that has not started: save it (its permit counts now).
    Renew,
    /// Known: answer with the last report, run nothing.
    Repeat,
    /// Not for us, too late or too old: do nothing.
    Drop(Drop),
}

/// Why a job message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// For another agent.
    OtherAgent,
    /// Its signature's time is over.
    Expired,
    /// A message with a greater sequence was seen before.
    Stale,
}

impl Drop {
    /// For logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherAgent => "it is for another agent",
            Self::Expired => "it has expired",
            Self::Stale => "a newer message for the job was seen before",
        }
    }
}

/// Decides on an authentic job message.
pub fn intake(known: Option<&JobRecord>, job: &Job, agent: AgentId, now: Timestamp) -> Intake {
    if job.agent_id != agent {
        return Intake::Drop(Drop::OtherAgent);
    }
    if job.expires_at <= now {
        return Intake::Drop(Drop::Expired);
    }
    let Some(record) = known else { return Intake::Take };
    if job.sequence < record.sequence {
        return Intake::Drop(Drop::Stale);
    }
    match record.state {
        _ if job.sequence == record.sequence => Intake::Repeat,
        State::Start => Intake::Renew,
        State::Nothing { outcome: Outcome::PermitExpired } => Intake::TakeAgain,
        State::Ca { .. } | State::Storage { .. } | State::Activation { .. } | State::Nothing { .. } => Intake::Repeat,
    }
}

/// What becomes of an order to stop a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halting {
    /// Not for us, or too late: do nothing.
    Drop,
    /// Nobody knows the job: nothing of it was done here, and that is the answer.
    Unknown,
    /// It waits for its permit to be given again: it ends now.
    End,
    /// Somebody works on it, or will: it is told in the record.
    Order,
    /// A certificate is issued: it is brought to its end, and its report is the answer.
    TooLate,
    /// It has ended: its last report is the answer.
    Repeat,
}

/// Decides on an authentic order to stop a job.
pub fn halting(known: Option<&JobRecord>, stop: &Stop, agent: AgentId, now: Timestamp) -> Halting {
    if stop.agent_id != agent || stop.expires_at <= now {
        return Halting::Drop;
    }
    let Some(record) = known else { return Halting::Unknown };
    match record.state {
        State::Start | State::Ca { .. } => Halting::Order,
        State::Storage { .. } | State::Activation { .. } => Halting::TooLate,
        State::Nothing { outcome: Outcome::PermitExpired } => Halting::End,
        State::Nothing { .. } => Halting::Repeat,
    }
}

/// The next thing to do for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An operator wants it to end, and nothing has been sent.
    Stop,
    /// The permit has run out: return the job without touching the CA.
    ReturnPermit,
    /// Begin the exchange.
    Begin,
    /// Go on with the exchange where it stopped.
    Resume,
    /// Lay the certificate into its slot.
    Store,
    /// Put the staged certificate into use.
    Activate,
    /// Trust other anchors, and give them to the services.
    Trust,
    /// Try what an enrolment needs.
    Try,
    /// Nothing: only reports may be left to send.
    Rest,
}

/// Decides what to do next. `job` is the record's own message, verified.
pub fn next(record: &JobRecord, job: &Job, now: Timestamp) -> Next {
    match (&record.state, &job.task) {
        (State::Start, _) if record.stop => Next::Stop,
        (State::Start, _) if job.start_before <= now => Next::ReturnPermit,
        (State::Start, Task::Enroll(_) | Task::Revoke(_)) => Next::Begin,
        (State::Start, Task::DryRun(_)) => Next::Try,
        (State::Start | State::Activation { .. }, Task::Anchors(_)) => Next::Trust,
        (State::Start, Task::Activate { .. }) | (State::Activation { .. }, _) => Next::Activate,
        (State::Ca { .. }, _) => Next::Resume,
        (State::Storage { .. }, _) => Next::Store,
        (State::Nothing { .. }, _) => Next::Rest,
    }
}

/// What is remembered of a job while its record lies on the disk alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It waits for its turn.
    Waits {
        /// Jobs begin in the order of these.
        sequence: u64,
        /// The end of its permit.
        start_before: Timestamp,
        /// Its trustpoint.
        trustpoint_id: TrustpointId,
    },
    /// It has ended and is answered for.
    Ended {
        /// From then on no valid message about it can come any more.
        forget_at: Timestamp,
    },
}

impl Rest {
    /// Whether a job can be forgotten.
    pub fn is_forgotten(self, now: Timestamp) -> bool {
        matches!(self, Self::Ended { forget_at } if forget_at <= now)
    }
}

/// Whether a job can rest, and what to remember of it then: nothing is under way, and no report is left to send.
pub fn rest(record: &JobRecord, job: &Job) -> Option<Rest> {
    match record.state {
        _ if !record.reports.is_empty() => None,
        State::Start => Some(Rest::Waits {
            sequence: record.sequence,
            start_before: job.start_before,
            trustpoint_id: job.trustpoint_id,
        }),
        State::Nothing { .. } => {
            let remembered_until = record.received_at.checked_add(REMEMBER).unwrap_or(record.received_at);
            Some(Rest::Ended { forget_at: job.expires_at.max(remembered_until) })
        }
        State::Ca { .. } | State::Storage { .. } | State::Activation { .. } => None,
    }
}

/// Between two reports of one exchange that waits, at least.
const TELL_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// A CA that gives no answer is told of when that has lasted so long: most troubles are over by then.
pub const TROUBLE_LASTS: SignedDuration = SignedDuration::from_secs(20);

/// Whether the controller should be told how an exchange waits, and `trouble` with it (S50). What was told before and
/// has no receipt yet must get one first. Mere progress is told ever more rarely: a tenth of the time that the exchange
/// lasts by then.
pub fn worth_telling(told: Option<Told>, outstanding: bool, trouble: bool, begun: Timestamp, now: Timestamp) -> bool {
    let Some(told) = told else { return !outstanding };
    let since = now.duration_since(told.at);
    let rarely = TELL_AGAIN.max(now.duration_since(begun) / 10);
    !outstanding && since >= if trouble == told.trouble { rarely } else { TELL_AGAIN }
}

/// How long to go on with a message that gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A request: a few tries, then the job ends.
    Request,
    /// A confirmation.
    Confirm,
    /// A poll: the CA has the request, so as long as the transaction may last.
    Poll,
}

impl Patience {
    /// Whether to try again after `failures` tries without an answer, at `now`.
    pub fn goes_on(self, failures: u32, now: Timestamp, transaction_ends_at: Timestamp) -> bool {
        let tries_left = match self {
            Self::Request => failures < REQUEST_TRIES,
            Self::Confirm => failures < CONFIRM_TRIES,
            Self::Poll => true,
        };
        tries_left && now < transaction_ends_at
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use trustfleet_model::ids::MessageId;
    use trustfleet_wire::Envelope;
    use trustfleet_wire::sign::{Purpose, SigningKey};

    use super::*;
    use crate::record::{Outgoing, VERSION};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn agent() -> AgentId {
        uuid::Uuid::from_u128(7).into()
    }

    fn job(sequence: u64) -> Job {
        let id = |n| uuid::Uuid::from_u128(n);
        Job {
            job_id: id(1).into(),
            tenant_id: id(2).into(),
            agent_id: agent(),
            device_id: id(3).into(),
            device: "ap-1".to_owned(),
            trustpoint_id: id(4).into(),
            trustpoint: "dot1x".to_owned(),
            sequence,
            issued_at: at(0),
            expires_at: at(1_000),
            start_before: at(600),
            policy_revision: 1,
            reply_to: "agent.x.r1".to_owned(),
            traceparent: None,
            services: Vec::new(),
            replaced_is_revoked: false,
            task: Task::Activate { serial: "0A".to_owned() },
        }
    }

    fn record(sequence: u64, state: State) -> JobRecord {
        let key = SigningKey::generate().unwrap();
        JobRecord {
            version: VERSION,
            job_id: job(sequence).job_id,
            envelope: Envelope::seal(&"message", Purpose::ToAgent, &key).unwrap(),
            sequence,
            received_at: at(0),
            state,
            reports: Vec::new(),
            last_report: None,
            stop: false,
        }
    }

    fn ended(outcome: Outcome) -> State {
        State::Nothing { outcome }
    }

    #[test]
    fn a_job_message_for_another_agent_or_out_of_its_time_does_nothing() {
        let mut foreign = job(1);
        foreign.agent_id = uuid::Uuid::from_u128(8).into();
        assert_eq!(intake(None, &foreign, agent(), at(1)), Intake::Drop(Drop::OtherAgent));
        assert_eq!(intake(None, &job(1), agent(), at(999)), Intake::Take);
        assert_eq!(intake(None, &job(1), agent(), at(1_000)), Intake::Drop(Drop::Expired));
    }

    #[test]
    fn a_job_runs_once_however_often_its_message_comes() {
        for state in [
            State::Start,
            State::Activation { serial: "0A".to_owned() },
            ended(Outcome::Succeeded),
            ended(Outcome::PermitExpired),
        ] {
            assert_eq!(intake(Some(&record(5, state)), &job(5), agent(), at(1)), Intake::Repeat);
        }
        let running = record(5, State::Activation { serial: "0A".to_owned() });
        assert_eq!(intake(Some(&running), &job(6), agent(), at(1)), Intake::Repeat);
        assert_eq!(intake(Some(&record(5, ended(Outcome::Succeeded))), &job(6), agent(), at(1)), Intake::Repeat);
    }

    #[test]
    fn an_older_message_never_replaces_a_newer_one() {
        for state in [State::Start, ended(Outcome::PermitExpired), ended(Outcome::Succeeded)] {
            assert_eq!(intake(Some(&record(5, state)), &job(4), agent(), at(1)), Intake::Drop(Drop::Stale));
        }
    }

    #[test]
    fn a_new_permit_starts_a_returned_job_and_lengthens_a_waiting_one() {
        let returned = record(5, ended(Outcome::PermitExpired));
        assert_eq!(intake(Some(&returned), &job(6), agent(), at(1)), Intake::TakeAgain);
        assert_eq!(intake(Some(&record(5, State::Start)), &job(6), agent(), at(1)), Intake::Renew);
    }

    #[test]
    fn a_job_that_comes_too_late_is_returned_without_touching_the_ca() {
        let waiting = record(1, State::Start);
        assert_eq!(next(&waiting, &job(1), at(599)), Next::Activate);
        assert_eq!(next(&waiting, &job(1), at(600)), Next::ReturnPermit);
    }

    #[test]
    fn what_has_begun_is_finished_also_after_its_permit() {
        let begun = record(1, State::Activation { serial: "0A".to_owned() });
        assert_eq!(next(&begun, &job(1), at(5_000)), Next::Activate);
        assert_eq!(next(&record(1, ended(Outcome::Succeeded)), &job(1), at(5_000)), Next::Rest);
    }

    #[test]
    fn a_job_is_forgotten_only_when_answered_for_and_expired() {
        let mut done = record(1, ended(Outcome::Succeeded));
        let rests = rest(&done, &job(1)).unwrap();
        assert!(!rests.is_forgotten(at(999)));
        assert!(!rests.is_forgotten(at(1_000)), "remembered for a day at least");
        assert!(rests.is_forgotten(at(90_000)));
        assert!(!rest(&record(1, State::Start), &job(1)).unwrap().is_forgotten(at(90_000)));
        done.reports.push(Outgoing {
            report_id: MessageId::fresh(at(0), [0; 10]),
            routing_key: String::new(),
            kind: "failed".to_owned(),
            envelope: done.envelope.clone(),
        });
        assert_eq!(rest(&done, &job(1)), None);
    }

    #[test]
    fn a_job_rests_before_its_turn_and_after_its_end_and_not_in_between() {
        let waits = rest(&record(5, State::Start), &job(5));
        assert_eq!(
            waits,
            Some(Rest::Waits { sequence: 5, start_before: at(600), trustpoint_id: job(5).trustpoint_id })
        );
        assert_eq!(rest(&record(5, State::Activation { serial: "0A".to_owned() }), &job(5)), None);
    }

    #[test]
    fn s50_waiting_is_told_at_once_then_at_most_every_minute_and_ever_more_rarely_while_nothing_changes() {
        let told = |second, trouble| Some(Told { at: at(second), trouble });
        assert!(worth_telling(None, false, false, at(0), at(0)));
        assert!(!worth_telling(None, true, false, at(0), at(0)), "the one before has no receipt yet");
        assert!(!worth_telling(told(0, false), false, true, at(0), at(59)));
        assert!(worth_telling(told(0, false), false, true, at(0), at(60)), "the CA gives no answer");
        assert!(worth_telling(told(100, true), false, false, at(0), at(160)), "it answers again");
        assert!(worth_telling(told(0, false), false, false, at(0), at(60)));
        let (day, hour) = (86_400, 3_600);
        assert!(!worth_telling(told(day, false), false, false, at(0), at(day + 2 * hour)), "a day of polling");
        assert!(worth_telling(told(day, false), false, false, at(0), at(day + 3 * hour)));
        assert!(
            worth_telling(told(day, false), false, true, at(0), at(day + 60)),
            "a trouble is told soon all the same"
        );
    }

    #[test]
    fn a_request_is_given_up_sooner_than_a_confirmation_and_polling_lasts_as_long_as_the_transaction() {
        let goes_on = |patience: Patience, failures| patience.goes_on(failures, at(0), at(100));
        assert!(goes_on(Patience::Request, 4) && !goes_on(Patience::Request, 5));
        assert!(goes_on(Patience::Confirm, 11) && !goes_on(Patience::Confirm, 12));
        assert!(goes_on(Patience::Poll, 10_000) && !Patience::Poll.goes_on(0, at(100), at(100)));
    }
}
