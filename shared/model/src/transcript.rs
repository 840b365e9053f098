//! The flight recorder of one CMP exchange: what went to and fro, decoded and without anything secret.
//!
//! Bounded by itself: a CA that lets its clients wait for weeks makes thousands of messages, and what is kept of them must
//! fit into a record that is written at every step. The beginning and the end stay; the middle is folded into counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Most entries.
pub const ENTRIES_MAX: usize = 48;
/// Most bytes that the entries may take, by [`Entry::weight`].
pub const BYTES_MAX: usize = 24 * 1024;
/// How many of the first entries stay: the request, its first answers and failures.
pub const HEAD: usize = 8;
/// Longest text in an entry, characters.
pub const TEXT_MAX: usize = 256;
/// Most failInfo bits of an entry, and most kinds of messages in a fold: more than CMP has.
pub const WORDS_MAX: usize = 32;

/// The word for a message that could not be read.
pub const UNREADABLE: &str = "unreadable";

/// What was said in one exchange, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    entries: Vec<Entry>,
}

/// One thing that happened in an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Entry {
    /// A message to the CA. One that is repeated, byte for byte, stands here once.
    Sent(Message),
    /// A message of the CA. Whether it was authentic, the end of the exchange tells.
    Received(Message),
    /// A try to send a message that brought no answer.
    NoAnswer {
        /// When it was given up.
        at: Timestamp,
        /// Kind of the message that was to be sent.
        kind: String,
        /// Stable snake_case code.
        code: String,
        /// What went wrong.
        detail: String,
    },
    /// The agent was started again and went on.
    Resumed {
        /// When.
        at: Timestamp,
    },
    /// Entries that are counted only.
    Folded(Folded),
}

/// A message without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// When it was sent for the first time, or came.
    pub at: Timestamp,
    /// Its kind in the RFC's words (`ir`, `ip`, `pollReq`, …), or [`UNREADABLE`].
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// PKIStatus in the RFC's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// PKIFailureInfo bits in the RFC's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_info: Vec<String>,
    /// Seconds that the CA lets us wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_after_s: Option<u64>,
    /// The CA's own words: untrusted, cleaned and bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_string: Option<String>,
}

/// Entries that are counted only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// When the first of them was.
    pub from: Timestamp,
    /// When the last of them was.
    pub until: Timestamp,
    /// Messages to the CA by their kind.
    pub requests: BTreeMap<String, u64>,
    /// Messages of the CA by their kind.
    pub responses: BTreeMap<String, u64>,
    /// Tries that brought no answer.
    pub no_answers: u64,
    /// Starts of the agent.
    pub resumes: u64,
}

impl Transcript {
    /// The entries of a transcript from elsewhere, bounded like an own one.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut transcript = Self::default();
        for entry in entries {
            transcript.push(entry);
        }
        transcript
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether nothing was said.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry; what is too much afterwards is folded.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry.bounded());
        // One fold makes room for one entry, and takes up one itself when it is the first.
        while self.is_too_much() && self.fold_one() {}
    }

    /// Whether the last message was one of ours, so that the same bytes go out again if anything does.
    pub fn awaits_answer(&self) -> bool {
        let last = self.entries.iter().rev().find(|entry| matches!(entry, Entry::Sent(_) | Entry::Received(_)));
        matches!(last, Some(Entry::Sent(_)))
    }

    fn is_too_much(&self) -> bool {
        self.entries.len() > ENTRIES_MAX || self.entries.iter().map(Entry::weight).sum::<usize>() > BYTES_MAX
    }

    /// Folds the oldest entry behind the head; the last one always stays. Whether there was one.
    fn fold_one(&mut self) -> bool {
        let place = self.entries.iter().position(|entry| matches!(entry, Entry::Folded(_)));
        let place = place.unwrap_or_else(|| HEAD.min(self.entries.len() / 2));
        let is_fold = matches!(self.entries.get(place), Some(Entry::Folded(_)));
        let next = if is_fold { place + 1 } else { place };
        if next + 1 >= self.entries.len() {
            return false;
        }
        let taken = self.entries.remove(next);
        if let (true, Some(Entry::Folded(fold))) = (is_fold, self.entries.get_mut(place)) {
            fold.take(&taken);
        } else {
            let mut fold = Folded::at(taken.at());
            fold.take(&taken);
            self.entries.insert(place, Entry::Folded(fold));
        }
        true
    }
}

impl Entry {
    /// When it was, or began.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Sent(message) | Self::Received(message) => message.at,
            Self::NoAnswer { at, .. } | Self::Resumed { at } => *at,
            Self::Folded(fold) => fold.from,
        }
    }

    /// With every text in it made harmless by `clean`.
    pub fn cleaned(mut self, clean: &dyn Fn(&str) -> String) -> Self {
        match &mut self {
            Self::Sent(message) | Self::Received(message) => {
                let others = message.fail_info.iter_mut().chain(&mut message.status).chain(&mut message.status_string);
                std::iter::once(&mut message.kind).chain(others).for_each(|text| *text = clean(text));
            }
            Self::NoAnswer { kind, code, detail, .. } => {
                [kind, code, detail].into_iter().for_each(|text| *text = clean(text));
            }
            Self::Resumed { .. } => {}
            Self::Folded(fold) => {
                for counts in [&mut fold.requests, &mut fold.responses] {
                    *counts = counts.iter().map(|(kind, count)| (clean(kind), *count)).collect();
                }
            }
        }
        self
    }

    /// About how many bytes it takes as JSON.
    fn weight(&self) -> usize {
        /// Names of fields, times and numbers.
        const FRAME: usize = 160;
        let texts = match self {
            Self::Sent(message) | Self::Received(message) => {
                let words: usize = message.fail_info.iter().map(|word| word.len() + 3).sum();
                message.kind.len() + words + message.status_string.as_ref().map_or(0, String::len)
            }
            Self::NoAnswer { kind, code, detail, .. } => kind.len() + code.len() + detail.len(),
            Self::Resumed { .. } => 0,
            Self::Folded(fold) => fold.requests.keys().chain(fold.responses.keys()).map(|kind| kind.len() + 24).sum(),
        };
        FRAME + texts
    }

    /// With every text and list cut to its limit.
    fn bounded(mut self) -> Self {
        match &mut self {
            Self::Sent(message) | Self::Received(message) => {
                cut(&mut message.kind);
                message.fail_info.truncate(WORDS_MAX);
                message.fail_info.iter_mut().chain(&mut message.status).chain(&mut message.status_string).for_each(cut);
            }
            Self::NoAnswer { kind, code, detail, .. } => [kind, code, detail].into_iter().for_each(cut),
            Self::Resumed { .. } => {}
            Self::Folded(fold) => {
                for counts in [&mut fold.requests, &mut fold.responses] {
                    while counts.len() > WORDS_MAX {
                        counts.pop_last();
                    }
                }
            }
        }
        self
    }
}

impl Folded {
    const fn at(at: Timestamp) -> Self {
        Self { from: at, until: at, requests: BTreeMap::new(), responses: BTreeMap::new(), no_answers: 0, resumes: 0 }
    }

    fn take(&mut self, entry: &Entry) {
        self.until = self.until.max(entry.at());
        let add = |counts: &mut BTreeMap<String, u64>, kind: &str, more: u64| {
            let count = counts.entry(kind.to_owned()).or_default();
            *count = count.saturating_add(more);
        };
        match entry {
            Entry::Sent(message) => add(&mut self.requests, &message.kind, 1),
            Entry::Received(message) => add(&mut self.responses, &message.kind, 1),
            Entry::NoAnswer { .. } => self.no_answers = self.no_answers.saturating_add(1),
            Entry::Resumed { .. } => self.resumes = self.resumes.saturating_add(1),
            Entry::Folded(other) => {
                self.until = self.until.max(other.until);
                for (kind, count) in &other.requests {
                    add(&mut self.requests, kind, *count);
                }
                for (kind, count) in &other.responses {
                    add(&mut self.responses, kind, *count);
                }
                self.no_answers = self.no_answers.saturating_add(other.no_answers);
                self.resumes = self.resumes.saturating_add(other.resumes);
            }
        }
    }
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn message(second: i64, kind: &str) -> Message {
        Message {
            at: at(second),
            kind: kind.to_owned(),
            bytes: 500,
            status: None,
            fail_info: Vec::new(),
            check_after_s: None,
            status_string: None,
        }
    }

    /// An `ir` that is polled for so often.
    pub(crate) fn polled(polls: i64) -> Transcript {
        let mut all = vec![Entry::Sent(message(0, "ir")), Entry::Received(message(1, "ip"))];
        for n in 0..polls {
            all.push(Entry::Sent(message(10 * n + 10, "pollReq")));
            let answer = if n + 1 == polls { "ip" } else { "pollRep" };
            all.push(Entry::Received(message(10 * n + 11, answer)));
        }
        Transcript::of(all)
    }

    #[test]
    fn a_short_exchange_is_kept_whole() {
        let transcript = polled(3);
        assert_eq!(transcript.entries().len(), 8);
        assert!(!transcript.awaits_answer());
    }

    #[test]
    fn the_middle_of_long_polling_is_folded_into_counts_and_both_ends_stay() {
        let transcript = polled(10_000);
        let entries = transcript.entries();
        assert!(entries.len() <= ENTRIES_MAX, "{} entries", entries.len());
        assert_eq!(entries[0], Entry::Sent(message(0, "ir")));
        assert_eq!(entries.last(), Some(&Entry::Received(message(99_991 + 10, "ip"))));
        let folds: Vec<&Folded> = entries
            .iter()
            .filter_map(|entry| if let Entry::Folded(fold) = entry { Some(fold) } else { None })
            .collect();
        let [fold] = folds.as_slice() else { panic!("{} folds", folds.len()) };
        let left = |kind: &str| {
            let is = |entry: &&Entry| matches!(entry, Entry::Sent(m) | Entry::Received(m) if m.kind == kind);
            u64::try_from(entries.iter().filter(is).count()).unwrap()
        };
        assert_eq!(fold.requests["pollReq"] + left("pollReq"), 10_000, "no poll is lost");
        assert_eq!(fold.responses["pollRep"] + left("pollRep"), 9_999);
        assert!(fold.from < fold.until);
    }

    #[test]
    fn a_hostile_ca_cannot_make_a_transcript_grow_beyond_its_bytes() {
        let mut hostile = message(0, "error");
        hostile.status_string = Some("ä".repeat(100_000));
        hostile.fail_info = vec!["x".repeat(10_000); 1_000];
        let transcript = Transcript::of((0..1_000).map(|_| Entry::Received(hostile.clone())));
        let written = serde_json::to_vec(&transcript).unwrap().len();
        assert!(written < BYTES_MAX * 2, "{written} bytes");
        assert!(transcript.entries().len() >= 2, "something is left to look at");
    }

    #[test]
    fn the_last_message_says_whether_an_answer_is_awaited_also_behind_failures() {
        let mut transcript = Transcript::of([Entry::Sent(message(0, "ir"))]);
        let failed = |second| Entry::NoAnswer {
            at: at(second),
            kind: "ir".to_owned(),
            code: "ca_unreachable".to_owned(),
            detail: String::new(),
        };
        for second in 1..500 {
            transcript.push(failed(second));
        }
        assert!(transcript.awaits_answer(), "the request stands in the head");
        transcript.push(Entry::Received(message(501, "ip")));
        assert!(!transcript.awaits_answer());
    }
}
