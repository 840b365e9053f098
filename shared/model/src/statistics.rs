//! What a CMP session has done so far, counted (S48): requests and responses by kind, and how they ended.
//!
//! One pure function counts a finished exchange from its transcript. What an agent says is a stranger's word: unknown kinds
//! count as `other`, and every count is bounded, so that sums over a fleet stay sums.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::transcript::{Entry, Transcript};

/// Kinds of messages that are counted by their own name, in the RFC's words.
pub const KINDS: [&str; 15] = [
    "ir", "ip", "cr", "cp", "kur", "kup", "p10cr", "rr", "rp", "genm", "genp", "error", "certConf", "pkiconf",
    "pollReq",
];
/// The kind of everything else but `pollRep`, unreadable messages included.
pub const OTHER: &str = "other";
/// Greatest count that one exchange adds: an honest one has fewer messages in its whole life.
const ONE_EXCHANGE_MAX: u64 = 10_000_000;

/// Counts of one session, or sums of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// When they were set to nothing; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Messages to the CA by kind, repetitions not counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
    /// Messages of the CA by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub responses: BTreeMap<String, u64>,
    /// pollReq messages.
    #[serde(default)]
    pub polls: u64,
    /// Exchanges that ended well: with a certificate, or with a revocation.
    #[serde(default)]
    pub successes: u64,
    /// Exchanges that did not.
    #[serde(default)]
    pub failures: u64,
    /// Tries to send a message that brought no answer.
    #[serde(default)]
    pub timeouts: u64,
    /// Certificates that the CA confirmed by a message.
    #[serde(default)]
    pub confirmations: u64,
    /// Error messages of the CA.
    #[serde(default)]
    pub errors: u64,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With what was asked for.
    Done,
    /// Without.
    Failed {
        /// The CA could not be reached or did not answer.
        by_transport: bool,
        /// Something was sent.
        sent: bool,
    },
}

impl Statistics {
    /// Nothing, from now on.
    pub fn reset(now: Timestamp) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// Whether there is nothing to remember.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Counts an exchange that has ended and began with `kind` (`ir`, `rr` and so on). Without a transcript, which older agents do not send, it counts as its request and
    /// its end.
    pub fn count(&mut self, kind: &str, transcript: Option<&Transcript>, ending: Ending) {
        match transcript {
            Some(transcript) => transcript.entries().iter().for_each(|entry| self.take(entry)),
            None => self.guess(kind, ending),
        }
        match ending {
            Ending::Done => add(&mut self.successes, 1),
            Ending::Failed { .. } => add(&mut self.failures, 1),
        }
    }

    fn guess(&mut self, kind: &str, ending: Ending) {
        match ending {
            Ending::Done => {
                self.request(kind, 1);
                self.response(answer_to(kind), 1);
            }
            Ending::Failed { by_transport, sent } => {
                if sent || by_transport {
                    self.request(kind, 1);
                }
                add(&mut self.timeouts, by_transport.into());
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Sent(message) => self.request(&message.kind, 1),
            Entry::Received(message) => self.response(&message.kind, 1),
            Entry::NoAnswer { .. } => add(&mut self.timeouts, 1),
            Entry::Resumed { .. } => {}
            Entry::Folded(fold) => {
                fold.requests.iter().for_each(|(kind, count)| self.request(kind, *count));
                fold.responses.iter().for_each(|(kind, count)| self.response(kind, *count));
                add(&mut self.timeouts, fold.no_answers);
            }
        }
    }

    fn request(&mut self, kind: &str, more: u64) {
        add(self.requests.entry(known(kind)).or_default(), more);
        if kind == "pollReq" {
            add(&mut self.polls, more);
        }
    }

    fn response(&mut self, kind: &str, more: u64) {
        add(self.responses.entry(known(kind)).or_default(), more);
        match kind {
            "pkiconf" => add(&mut self.confirmations, more),
            "error" => add(&mut self.errors, more),
            _ => {}
        }
    }

    /// As pairs of a name and a count, for sums in SQL: `requests.ir`, `polls` and so on.
    pub fn flat(&self) -> BTreeMap<String, u64> {
        let of = |what: &str, counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(kind, count)| (format!("{what}.{kind}"), *count)).collect::<Vec<_>>()
        };
        let single = [
            ("polls", self.polls),
            ("successes", self.successes),
            ("failures", self.failures),
            ("timeouts", self.timeouts),
            ("confirmations", self.confirmations),
            ("errors", self.errors),
        ];
        let single = single.into_iter().map(|(name, count)| (name.to_owned(), count));
        let all = of(REQUESTS, &self.requests).into_iter().chain(of(RESPONSES, &self.responses)).chain(single);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// From such pairs; names that are unknown here are left out.
    pub fn from_flat(pairs: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut sum = Self::default();
        for (name, count) in pairs {
            match (name.split_once('.'), name.as_str()) {
                (Some((REQUESTS, kind)), _) => add_up(sum.requests.entry(kind.to_owned()).or_default(), count),
                (Some((RESPONSES, kind)), _) => add_up(sum.responses.entry(kind.to_owned()).or_default(), count),
                (_, "polls") => add_up(&mut sum.polls, count),
                (_, "successes") => add_up(&mut sum.successes, count),
                (_, "failures") => add_up(&mut sum.failures, count),
                (_, "timeouts") => add_up(&mut sum.timeouts, count),
                (_, "confirmations") => add_up(&mut sum.confirmations, count),
                (_, "errors") => add_up(&mut sum.errors, count),
                _ => {}
            }
        }
        sum
    }
}

const REQUESTS: &str = "requests";
const RESPONSES: &str = "responses";

fn answer_to(kind: &str) -> &'static str {
    match kind {
        "ir" => "ip",
        "cr" => "cp",
        "kur" => "kup",
        "rr" => "rp",
        _ => OTHER,
    }
}

fn known(kind: &str) -> String {
    if kind == "pollRep" || KINDS.contains(&kind) { kind.to_owned() } else { OTHER.to_owned() }
}

fn add(count: &mut u64, more: u64) {
    add_up(count, more.min(ONE_EXCHANGE_MAX));
}

fn add_up(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::tests::{at, message, polled};
    use crate::transcript::{Folded, Message};

    #[test]
    fn s48_every_message_of_a_transcript_counts_also_those_that_were_folded() {
        let mut statistics = Statistics::default();
        statistics.count("ir", Some(&polled(10_000)), Ending::Done);
        assert_eq!((statistics.requests["ir"], statistics.requests["pollReq"], statistics.polls), (1, 10_000, 10_000));
        assert_eq!((statistics.responses["ip"], statistics.responses["pollRep"]), (2, 9_999));
        assert_eq!((statistics.successes, statistics.failures), (1, 0));
    }

    #[test]
    fn s48_failures_timeouts_confirmations_and_errors_are_told_apart() {
        let no_answer =
            Entry::NoAnswer { at: at(2), kind: "ir".to_owned(), code: "ca_timeout".to_owned(), detail: String::new() };
        let refused = Transcript::of([
            Entry::Sent(message(1, "ir")),
            no_answer,
            Entry::Resumed { at: at(3) },
            Entry::Received(message(4, "error")),
        ]);
        let confirmed = Transcript::of([
            Entry::Sent(message(1, "kur")),
            Entry::Received(message(2, "kup")),
            Entry::Sent(message(3, "certConf")),
            Entry::Received(message(4, "pkiconf")),
        ]);
        let mut statistics = Statistics::default();
        let failed = Ending::Failed { by_transport: false, sent: true };
        statistics.count("ir", Some(&refused), failed);
        statistics.count("kur", Some(&confirmed), Ending::Done);
        let Statistics { successes, failures, timeouts, confirmations, errors, .. } = statistics;
        assert_eq!((successes, failures, timeouts, confirmations, errors), (1, 1, 1, 1, 1));
    }

    #[test]
    fn s48_without_a_transcript_the_kind_of_the_job_and_its_end_count() {
        let mut statistics = Statistics::default();
        statistics.count("kur", None, Ending::Done);
        statistics.count("ir", None, Ending::Failed { by_transport: true, sent: false });
        statistics.count("ir", None, Ending::Failed { by_transport: false, sent: false });
        assert_eq!((statistics.requests["kur"], statistics.responses["kup"], statistics.successes), (1, 1, 1));
        assert_eq!(
            (statistics.requests["ir"], statistics.timeouts, statistics.failures),
            (1, 1, 2),
            "nothing was sent"
        );
    }

    #[test]
    fn a_hostile_agent_cannot_invent_kinds_or_make_sums_overflow() {
        let invented: BTreeMap<String, u64> = (0..30).map(|n| (format!("kind-{n}"), u64::MAX)).collect();
        let fold = Folded {
            from: at(0),
            until: at(1),
            requests: invented,
            responses: BTreeMap::new(),
            no_answers: u64::MAX,
            resumes: 0,
        };
        let hostile =
            Transcript::of([Entry::Folded(fold), Entry::Sent(Message { kind: "x".repeat(99), ..message(2, "ir") })]);
        let mut statistics = Statistics::default();
        statistics.count("ir", Some(&hostile), Ending::Done);
        assert_eq!(statistics.requests.keys().collect::<Vec<_>>(), [OTHER]);
        assert!(statistics.flat().values().all(|count| *count <= 31 * ONE_EXCHANGE_MAX));
    }

    #[test]
    fn flat_pairs_are_the_same_counts() {
        let mut statistics = Statistics::default();
        statistics.count("ir", Some(&polled(5)), Ending::Done);
        assert_eq!(Statistics::from_flat(statistics.flat()), statistics);
        assert_eq!(statistics.flat()["requests.pollReq"], 5);
    }
}
