//! What a campaign does next, from how many of its members are how far.

use jiff::{SignedDuration, Timestamp};

use super::CampaignSpec;

/// Members of one wave by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Their turn has not come.
    pub pending: u32,
    /// Being asked for, under way, or being put into use.
    pub at_work: u32,
    /// Seen in service.
    pub verified: u32,
    /// Done, and not to be seen.
    pub unverifiable: u32,
    /// Failed.
    pub failed: u32,
    /// Not come to an end in time.
    pub unreachable: u32,
    /// There was nothing to do.
    pub skipped: u32,
}

impl Count {
    /// All of them.
    pub const fn total(&self) -> u32 {
        self.pending + self.at_work + self.verified + self.unverifiable + self.failed + self.unreachable + self.skipped
    }
}

/// The wave that is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Its members.
    pub count: Count,
    /// Members of all waves that are at work.
    pub at_work: u32,
    /// Failures that an operator has seen.
    pub forgiven: u32,
    /// Members that were not seen in service, and are not asked to be any more.
    pub waived: u32,
    /// When it came to its threshold.
    pub reached_at: Option<Timestamp>,
    /// No other follows.
    pub is_last: bool,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: members are on their way, or the wave is watched.
    Wait,
    /// Up to so many more members are asked for.
    Ask(u32),
    /// The wave has come to its threshold: it is watched from now on.
    Reached,
    /// The next wave begins.
    NextWave,
    /// An operator has to look.
    Stop(StopReason),
    /// It is done.
    Complete,
}

/// Why a campaign stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Too many failed.
    #[error(
        "{failed} of the wave's {total} members failed, allowed are {allowed}: look at the reasons, then resume or roll back"
    )]
    Failures {
        /// How many failed and are not forgiven.
        failed: u32,
        /// How many may.
        allowed: u32,
        /// Members of the wave.
        total: u32,
    },
    /// Everything has ended, and too few were seen in service.
    #[error(
        "{seen} of the wave's {total} members were seen in service ({unverifiable} cannot be seen, {unreachable} did not answer in time), \
         wanted are {wanted}: give services a probe or accept what cannot be seen, then resume; or roll back"
    )]
    BelowThreshold {
        /// How many count as seen.
        seen: u32,
        /// How many must.
        wanted: u32,
        /// Done, and not to be seen.
        unverifiable: u32,
        /// Not come to an end in time.
        unreachable: u32,
        /// Members of the wave.
        total: u32,
    },
}

/// What a running campaign does next at `now`.
pub fn step(spec: &CampaignSpec, wave: &Wave, now: Timestamp) -> Step {
    let count = &wave.count;
    let total = count.total();
    let failed = count.failed.saturating_sub(wave.forgiven);
    let allowed = spec.failures_allowed.at_most(total);
    if failed > allowed {
        return Step::Stop(StopReason::Failures { failed, allowed, total });
    }
    if count.pending > 0 {
        let room = spec.max_in_flight.saturating_sub(wave.at_work);
        return if room == 0 { Step::Wait } else { Step::Ask(room.min(count.pending)) };
    }
    if wave.is_last {
        // What was out of reach may still come, and is told; nothing waits for it.
        if count.at_work > 0 {
            return Step::Wait;
        }
    }
    let unverifiable = if spec.accept_unverifiable { count.unverifiable } else { 0 };
    // What failed and was forgiven, and what there was nothing to do for, is not asked to be seen.
    let let_go = wave.forgiven.min(count.failed) + wave.waived;
    let asked = total.saturating_sub(count.skipped).saturating_sub(let_go);
    let seen = count.verified + unverifiable;
    let wanted = wanted(asked, spec.success_percent);
    if seen >= wanted {
        return match wave.reached_at {
            _ if wave.is_last => Step::Complete,
            None if spec.soak_s > 0 => Step::Reached,
            Some(since) if since + SignedDuration::from_secs(spec.soak_s.into()) > now => Step::Wait,
            _ => Step::NextWave,
        };
    }
    if count.at_work > 0 {
        return Step::Wait;
    }
    let (unverifiable, unreachable) = (count.unverifiable, count.unreachable);
    Step::Stop(StopReason::BelowThreshold { seen, wanted, unverifiable, unreachable, total })
}

/// The least number of `asked` that are so many percent of them.
fn wanted(asked: u32, percent: u8) -> u32 {
    u32::try_from((u64::from(asked) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::{Action, FAILURES, IN_FLIGHT, PATIENCE_S, Portion, SUCCESS_PERCENT, Selector};

    fn spec() -> CampaignSpec {
        CampaignSpec {
            select: Selector::default(),
            action: Action::Renew { stage_only: false },
            waves: vec![Portion::Count(1)],
            max_in_flight: IN_FLIGHT,
            success_percent: SUCCESS_PERCENT,
            failures_allowed: FAILURES,
            accept_unverifiable: false,
            soak_s: 0,
            patience_s: PATIENCE_S,
            urgent: false,
        }
    }

    fn wave(count: Count) -> Wave {
        Wave { count, at_work: count.at_work, forgiven: 0, waived: 0, reached_at: None, is_last: false }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn next(wave: &Wave) -> Step {
        step(&spec(), wave, now())
    }

    #[test]
    fn s51_no_more_members_are_at_work_than_may_be() {
        let count = Count { pending: 500, at_work: 60, ..Count::default() };
        assert_eq!(next(&wave(count)), Step::Ask(40));
        assert_eq!(next(&Wave { at_work: 100, ..wave(count) }), Step::Wait, "members of earlier waves count too");
        assert_eq!(next(&wave(Count { pending: 7, ..count })), Step::Ask(7));
    }

    #[test]
    fn s51_the_next_wave_begins_when_enough_were_seen_in_service_and_not_before() {
        let count = Count { at_work: 6, verified: 94, ..Count::default() };
        assert_eq!(next(&wave(count)), Step::Wait);
        let enough = Count { at_work: 5, verified: 95, ..Count::default() };
        assert_eq!(next(&wave(enough)), Step::NextWave, "a device that is away holds nobody up");
        assert_eq!(next(&Wave { is_last: true, ..wave(enough) }), Step::Wait, "the last wave is done when all are");
        let done = Count { verified: 95, unreachable: 5, ..Count::default() };
        assert_eq!(next(&Wave { is_last: true, ..wave(done) }), Step::Complete);
        let skipped = Count { verified: 1, skipped: 9, ..Count::default() };
        assert_eq!(next(&wave(skipped)), Step::NextWave, "where there was nothing to do nothing is to be seen");
    }

    #[test]
    fn what_cannot_be_seen_counts_only_where_that_is_accepted() {
        let count = Count { unverifiable: 10, ..Count::default() };
        let stop = StopReason::BelowThreshold { seen: 0, wanted: 10, unverifiable: 10, unreachable: 0, total: 10 };
        assert_eq!(next(&wave(count)), Step::Stop(stop));
        let accepting = CampaignSpec { accept_unverifiable: true, ..spec() };
        assert_eq!(step(&accepting, &wave(count), now()), Step::NextWave);
    }

    #[test]
    fn s51_one_failure_more_than_allowed_stops_it_at_once() {
        let count = Count { pending: 50, at_work: 44, failed: 5, verified: 1, ..Count::default() };
        assert_eq!(next(&wave(count)), Step::Ask(50));
        let more = Count { failed: 6, at_work: 43, ..count };
        let stop = StopReason::Failures { failed: 6, allowed: 5, total: 100 };
        assert_eq!(next(&wave(more)), Step::Stop(stop));
        assert_eq!(next(&Wave { forgiven: 1, ..wave(more) }), Step::Ask(50), "an operator has seen it");
        let canary = Count { failed: 1, ..Count::default() };
        assert!(matches!(next(&wave(canary)), Step::Stop(StopReason::Failures { .. })), "5 % of one is none");
    }

    #[test]
    fn a_wave_that_was_resumed_goes_on_without_what_was_forgiven() {
        let count = Count { verified: 8, failed: 2, ..Count::default() };
        assert!(matches!(next(&wave(count)), Step::Stop(_)));
        assert_eq!(next(&Wave { forgiven: 2, ..wave(count) }), Step::NextWave);
        let unseen = Count { verified: 8, unreachable: 2, ..Count::default() };
        assert!(matches!(next(&wave(unseen)), Step::Stop(StopReason::BelowThreshold { .. })));
        assert_eq!(next(&Wave { waived: 2, ..wave(unseen) }), Step::NextWave);
    }

    #[test]
    fn a_wave_is_watched_as_long_as_it_is_to_soak() {
        let spec = CampaignSpec { soak_s: 3_600, ..spec() };
        let count = Count { verified: 10, ..Count::default() };
        assert_eq!(step(&spec, &wave(count), now()), Step::Reached);
        let since = |seconds| Some(now() - SignedDuration::from_secs(seconds));
        assert_eq!(step(&spec, &Wave { reached_at: since(3_599), ..wave(count) }, now()), Step::Wait);
        assert_eq!(step(&spec, &Wave { reached_at: since(3_600), ..wave(count) }, now()), Step::NextWave);
        let failing = Count { verified: 9, failed: 1, ..Count::default() };
        let watched = Wave { reached_at: since(10), ..wave(failing) };
        assert!(matches!(step(&spec, &watched, now()), Step::Stop(_)), "a failure while it is watched");
    }
}
