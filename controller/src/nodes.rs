//! What an agent's word on a node of a hot-standby pair leads to (S47).
//!
//! Pure. A node that has become active takes over, as `switch-over` does it by hand. Only a change counts: two nodes that both
//! call themselves active, and say so with every hello, move nothing any more. A pair rests between two changes.

use jiff::{SignedDuration, Timestamp};

/// Between two changes of a pair that agents cause.
const REST: SignedDuration = SignedDuration::from_secs(30);

/// What is known of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// It belongs to a pair.
    pub paired: bool,
    /// It is registered as standing by.
    pub standby: bool,
    /// What its agent said last: active or not, and since when.
    pub said: Option<(bool, Timestamp)>,
    /// When the agent said that.
    pub told_at: Option<Timestamp>,
    /// When an agent last caused a change of its pair.
    pub pair_switched_at: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Nothing: it is known, or was said before what is known.
    Nothing,
    /// Take note of it.
    Note,
    /// Make it the active node of its pair.
    SwitchOver,
    /// The pair must rest; the agent says it again.
    Wait,
}

/// Decides on an agent's word: `active` since `since`, said at `told_at`.
pub fn node_step(known: &KnownNode, active: bool, since: Timestamp, told_at: Timestamp, now: Timestamp) -> NodeStep {
    let is_old = known.told_at.is_some_and(|before| told_at <= before);
    if is_old || known.said == Some((active, since)) {
        return NodeStep::Nothing;
    }
    if !(active && known.paired && known.standby) {
        return NodeStep::Note;
    }
    let rests = known.pair_switched_at.is_none_or(|at| now.duration_since(at) >= REST);
    if rests { NodeStep::SwitchOver } else { NodeStep::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    const STANDBY: KnownNode =
        KnownNode { paired: true, standby: true, said: None, told_at: None, pair_switched_at: None };

    #[test]
    fn s47_a_node_that_has_become_active_takes_over_once_and_an_old_word_changes_nothing() {
        let step = |known: KnownNode, active, since, told| node_step(&known, active, at(since), at(told), at(100));
        assert_eq!(step(STANDBY, true, 50, 60), NodeStep::SwitchOver);
        assert_eq!(step(STANDBY, false, 50, 60), NodeStep::Note);
        assert_eq!(step(KnownNode { standby: false, ..STANDBY }, true, 50, 60), NodeStep::Note, "it is the active one");
        assert_eq!(step(KnownNode { paired: false, ..STANDBY }, true, 50, 60), NodeStep::Note);
        // The other one took over since, by hand or by its own agent: saying the same again moves nothing.
        let said = KnownNode { said: Some((true, at(50))), told_at: Some(at(60)), ..STANDBY };
        assert_eq!(step(said, true, 50, 90), NodeStep::Nothing);
        assert_eq!(step(said, true, 80, 90), NodeStep::SwitchOver, "it went and came back");
        assert_eq!(step(said, true, 55, 60), NodeStep::Nothing, "a broker that repeats what was said");
    }

    #[test]
    fn s47_a_pair_rests_between_two_changes() {
        let lately = KnownNode { pair_switched_at: Some(at(80)), ..STANDBY };
        assert_eq!(node_step(&lately, true, at(90), at(95), at(100)), NodeStep::Wait);
        assert_eq!(node_step(&lately, true, at(90), at(110), at(110)), NodeStep::SwitchOver);
    }
}
