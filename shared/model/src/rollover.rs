//! Roll-over of trust anchors (S57): the next anchors reach the services that rely on them before the CA is switched.
//!
//! A roll-over belongs to one CA server. While it distributes, every trustpoint with a certificate in use is told to trust the
//! next anchors beside the former ones; the switch is allowed when enough of them have said that they do; it is finished when
//! nothing in use needs the former anchors any more, and then they are taken away.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::field::Violations;
use crate::ids::{JobId, RolloverId};
use crate::service::{ServiceOutcome, ServiceResult};

/// How many of those that are missing a refusal names; all of them are in a list.
pub const NAMED_MAX: usize = 5;
/// Longest reason that is kept with a trustpoint, characters.
pub const REASON_MAX: usize = 500;
/// First and longest wait before a trustpoint that failed is told again.
const AGAIN_FIRST: SignedDuration = SignedDuration::from_secs(30);
const AGAIN_MOST: SignedDuration = SignedDuration::from_hours(6);

/// Where a roll-over stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The next anchors go to the devices; certificates come from the former issuer.
    Distributing,
    /// Certificates come from the next issuer; both are trusted.
    Switched,
    /// Only the next anchors are trusted.
    Finished,
    /// It was given up before the switch: only the former anchors are trusted.
    Cancelled,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 4] = [Self::Distributing, Self::Switched, Self::Finished, Self::Cancelled];

    /// The word in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Distributing => "distributing",
            Self::Switched => "switched",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }

    /// The phase of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Whether it is under way: a CA server has at most one of these.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Distributing | Self::Switched)
    }

    /// What trustpoints are told in it.
    pub const fn step(self) -> Step {
        match self {
            Self::Distributing | Self::Switched => Step::Add,
            Self::Finished | Self::Cancelled => Step::Remove,
        }
    }
}

/// What a trustpoint is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Trust the next anchors beside the former ones.
    Add,
    /// Trust one side only from now on.
    Remove,
}

impl Step {
    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// How far one trustpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorState {
    /// It is not its turn yet, or nobody can be told.
    Pending,
    /// The order goes to its agent, again with each of its sessions until it is answered.
    Sent,
    /// The anchors are on the device and its services were reloaded with them; of at least one nobody can see that it has them.
    Stored,
    /// All services that rely on them are seen to have loaded them, or none relies on them.
    Loaded,
    /// They could not be given to a service; everything there is as it was, and it is tried again.
    Failed,
}

impl AnchorState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Sent, Self::Stored, Self::Loaded, Self::Failed];

    /// The word in the API, in SQL and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Stored => "stored",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// What an agent that has done it says of the relying services.
    pub fn of_services(services: &[ServiceOutcome]) -> Self {
        let seen = |outcome: &ServiceOutcome| outcome.result == ServiceResult::Verified;
        if services.iter().all(seen) { Self::Loaded } else { Self::Stored }
    }
}

/// What counts as having the anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Only where every relying service is seen to have loaded them.
    #[default]
    Loaded,
    /// Also where services were reloaded with them and nobody can see more.
    Stored,
}

impl Counts {
    /// The word in the API and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Stored => "stored",
        }
    }

    /// That of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Loaded, Self::Stored].into_iter().find(|counts| counts.as_str() == word)
    }

    /// Whether a trustpoint in this state counts.
    pub const fn covers(self, state: AnchorState) -> bool {
        match state {
            AnchorState::Loaded => true,
            AnchorState::Stored => matches!(self, Self::Stored),
            AnchorState::Pending | AnchorState::Sent | AnchorState::Failed => false,
        }
    }
}

/// What a trustpoint's agent was last told of anchors, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorsHeld {
    /// For which roll-over.
    pub rollover_id: RolloverId,
    /// For which of its steps.
    pub step: Step,
    /// The job.
    pub job_id: JobId,
    /// How far it is.
    pub state: AnchorState,
    /// When that became known.
    pub at: Timestamp,
    /// Failures in a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Why it failed, or what is not seen; at most [`REASON_MAX`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl AnchorsHeld {
    /// When it is to be told again by itself; none: never, for it is done or on its way.
    pub fn again_at(&self) -> Option<Timestamp> {
        if self.state != AnchorState::Failed {
            return None;
        }
        let doublings = self.failures.saturating_sub(1).min(16);
        let wait = AGAIN_FIRST.saturating_mul(1 << doublings).min(AGAIN_MOST);
        Some(self.at.checked_add(wait).unwrap_or(Timestamp::MAX))
    }

    /// Whether nothing is to be told for this step of this roll-over at this moment.
    pub fn is_settled(&self, rollover: RolloverId, step: Step, now: Timestamp) -> bool {
        self.rollover_id == rollover && self.step == step && self.again_at().is_none_or(|again| again > now)
    }
}

/// How many trustpoints stand where: those of the CA server that have a certificate in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the order of [`AnchorState::ALL`].
    pub by_state: [u64; 5],
}

impl Tally {
    /// Adds trustpoints.
    pub fn add(&mut self, state: AnchorState, count: u64) {
        let place = AnchorState::ALL.iter().position(|other| *other == state).unwrap_or_default();
        self.by_state[place] = self.by_state[place].saturating_add(count);
    }

    /// How many are in a state.
    pub fn of(&self, state: AnchorState) -> u64 {
        AnchorState::ALL.iter().zip(self.by_state).find(|(other, _)| **other == state).map_or(0, |(_, count)| count)
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_state.iter().sum()
    }

    /// Those that count.
    pub fn covered(&self, counts: Counts) -> u64 {
        AnchorState::ALL.iter().filter(|state| counts.covers(**state)).map(|state| self.of(*state)).sum()
    }

    /// Those that do not.
    pub fn missing(&self, counts: Counts) -> u64 {
        self.total() - self.covered(counts)
    }

    /// Share of those that count, whole percent, rounded down: 100 only where none is missing. Of none all count.
    pub fn percent(&self, counts: Counts) -> u8 {
        let total = self.total();
        if total == 0 {
            return 100;
        }
        u8::try_from(u128::from(self.covered(counts)) * 100 / u128::from(total)).unwrap_or(100)
    }
}

/// Why the issuer is not switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{covered} of {total} trustpoints ({percent} %) have the next anchors, {required} % are required")]
pub struct TooFew {
    /// Trustpoints that count.
    pub covered: u64,
    /// All of them.
    pub total: u64,
    /// Their share.
    pub percent: u8,
    /// The share that is required.
    pub required: u8,
}

/// Whether the issuer may be switched.
///
/// # Errors
/// The required share is not there.
pub fn may_switch(tally: &Tally, counts: Counts, required: u8) -> Result<(), TooFew> {
    let (covered, total, percent) = (tally.covered(counts), tally.total(), tally.percent(counts));
    // By the numbers themselves: a share that is rounded down must not refuse what is there exactly.
    if u128::from(covered) * 100 >= u128::from(total) * u128::from(required) {
        return Ok(());
    }
    Err(TooFew { covered, total, percent, required })
}

/// What is set for a roll-over; read from a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloverSpec {
    /// The next anchors, PEM, one certificate each.
    pub next_anchors: Vec<String>,
    /// Share of trustpoints that must have them before the switch, percent, 1 to 100.
    pub required_percent: u8,
    /// What counts as having them.
    pub counts: Counts,
    /// What the switch changes.
    pub issuer: Issuer,
    /// Until the switch nobody is told but by a campaign, wave by wave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_campaign: bool,
}

/// The issuing side after the switch; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// Name of the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_name: Option<String>,
    /// CMP URL of the primary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_url: Option<String>,
    /// CMP URL of the secondary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary_url: Option<String>,
    /// Certificates that verify signed answers, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_certificates: Option<Vec<String>>,
}

impl RolloverSpec {
    /// Checks what can be seen without reading certificates.
    pub fn check(&self, violations: &mut Violations) {
        if self.next_anchors.is_empty() {
            violations.add("next_anchors", "S57", "is empty; give at least one CA certificate in PEM");
        }
        if !(1..=100).contains(&self.required_percent) {
            let message = format!("is {}; it must be 1 to 100", self.required_percent);
            violations.add("required_percent", "S57", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(AnchorState, u64)]) -> Tally {
        let mut tally = Tally::default();
        counts.iter().for_each(|(state, count)| tally.add(*state, *count));
        tally
    }

    fn outcome(result: ServiceResult) -> ServiceOutcome {
        ServiceOutcome { service: "https".parse().unwrap(), result }
    }

    #[test]
    fn s57_the_switch_is_refused_below_the_required_share_and_allowed_exactly_at_it() {
        let some = tally(&[(AnchorState::Loaded, 97), (AnchorState::Sent, 2), (AnchorState::Failed, 1)]);
        assert_eq!(may_switch(&some, Counts::Loaded, 97), Ok(()));
        let refused = may_switch(&some, Counts::Loaded, 98).unwrap_err();
        assert_eq!((refused.covered, refused.total, refused.percent), (97, 100, 97));
        assert!(may_switch(&some, Counts::Loaded, 100).is_err());
        let nearly = tally(&[(AnchorState::Loaded, 999_999), (AnchorState::Pending, 1)]);
        assert_eq!((nearly.percent(Counts::Loaded), nearly.missing(Counts::Loaded)), (99, 1));
        assert!(may_switch(&nearly, Counts::Loaded, 100).is_err(), "one of a million is one that is cut off");
        let third = tally(&[(AnchorState::Loaded, 2), (AnchorState::Sent, 1)]);
        assert!(may_switch(&third, Counts::Loaded, 66).is_ok() && may_switch(&third, Counts::Loaded, 67).is_err());
        assert_eq!(may_switch(&Tally::default(), Counts::Loaded, 100), Ok(()), "nobody can be cut off");
    }

    #[test]
    fn s57_what_nobody_can_see_counts_only_where_that_is_wanted() {
        assert_eq!(AnchorState::of_services(&[]), AnchorState::Loaded, "none relies on them");
        assert_eq!(AnchorState::of_services(&[outcome(ServiceResult::Verified)]), AnchorState::Loaded);
        let both = [outcome(ServiceResult::Verified), outcome(ServiceResult::Unverifiable)];
        assert_eq!(AnchorState::of_services(&both), AnchorState::Stored);
        let stored = tally(&[(AnchorState::Stored, 3)]);
        assert!(may_switch(&stored, Counts::Loaded, 1).is_err() && may_switch(&stored, Counts::Stored, 100).is_ok());
    }

    #[test]
    fn s57_a_trustpoint_that_failed_is_told_again_later_each_time_and_others_once() {
        let (rollover_id, at) = (uuid::Uuid::from_u128(1).into(), Timestamp::from_second(1_000).unwrap());
        let job_id = uuid::Uuid::from_u128(2).into();
        let held =
            |state, failures| AnchorsHeld { rollover_id, step: Step::Add, job_id, state, at, failures, reason: None };
        let wait = |failures| held(AnchorState::Failed, failures).again_at().unwrap().duration_since(at).as_secs();
        assert_eq!([1, 2, 3, 40].map(wait), [30, 60, 120, 21_600]);
        for state in [AnchorState::Sent, AnchorState::Stored, AnchorState::Loaded] {
            assert!(held(state, 0).is_settled(rollover_id, Step::Add, Timestamp::MAX));
            assert!(!held(state, 0).is_settled(rollover_id, Step::Remove, at), "the next step is told");
        }
        assert!(!held(AnchorState::Loaded, 0).is_settled(uuid::Uuid::from_u128(9).into(), Step::Add, at));
    }
}
