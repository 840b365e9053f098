//! An entry of a transcript on the wire, version 1: one flat form for all of them, so that a later agent can tell more and an
//! older controller reads what it knows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::transcript::{Entry, Folded, Message};

/// One thing that happened in an exchange. What does not belong to its `what` is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchanged {
    /// `sent`, `received`, `no_answer`, `resumed` or `folded`.
    pub what: String,
    /// When; of a fold, when it begins.
    pub at: Timestamp,
    /// Kind of the message in the RFC's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// PKIStatus in the RFC's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// PKIFailureInfo bits in the RFC's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_info: Vec<String>,
    /// Seconds that the CA lets us wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_after_s: Option<u64>,
    /// The CA's own words: untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_string: Option<String>,
    /// Stable snake_case code of a try without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When a fold ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Messages to the CA in a fold, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
    /// Messages of the CA in a fold, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub responses: BTreeMap<String, u64>,
    /// Tries without an answer in a fold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub no_answers: u64,
    /// Starts of the agent in a fold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Exchanged {
    fn bare(what: &str, at: Timestamp) -> Self {
        Self {
            what: what.to_owned(),
            at,
            kind: None,
            bytes: None,
            status: None,
            fail_info: Vec::new(),
            check_after_s: None,
            status_string: None,
            code: None,
            detail: None,
            until: None,
            requests: BTreeMap::new(),
            responses: BTreeMap::new(),
            no_answers: 0,
            resumes: 0,
        }
    }

    fn message(what: &str, message: Message) -> Self {
        Self {
            kind: Some(message.kind),
            bytes: Some(message.bytes),
            status: message.status,
            fail_info: message.fail_info,
            check_after_s: message.check_after_s,
            status_string: message.status_string,
            ..Self::bare(what, message.at)
        }
    }

    /// The entry; none: a word of a later agent.
    pub fn entry(self) -> Option<Entry> {
        Some(match self.what.as_str() {
            "sent" => Entry::Sent(self.into_message()),
            "received" => Entry::Received(self.into_message()),
            "no_answer" => Entry::NoAnswer {
                at: self.at,
                kind: self.kind.unwrap_or_default(),
                code: self.code.unwrap_or_default(),
                detail: self.detail.unwrap_or_default(),
            },
            "resumed" => Entry::Resumed { at: self.at },
            "folded" => Entry::Folded(Folded {
                from: self.at,
                until: self.until.unwrap_or(self.at),
                requests: self.requests,
                responses: self.responses,
                no_answers: self.no_answers,
                resumes: self.resumes,
            }),
            _ => return None,
        })
    }

    fn into_message(self) -> Message {
        Message {
            at: self.at,
            kind: self.kind.unwrap_or_default(),
            bytes: self.bytes.unwrap_or_default(),
            status: self.status,
            fail_info: self.fail_info,
            check_after_s: self.check_after_s,
            status_string: self.status_string,
        }
    }
}

impl From<Entry> for Exchanged {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Sent(message) => Self::message("sent", message),
            Entry::Received(message) => Self::message("received", message),
            Entry::NoAnswer { at, kind, code, detail } => {
                Self { kind: Some(kind), code: Some(code), detail: Some(detail), ..Self::bare("no_answer", at) }
            }
            Entry::Resumed { at } => Self::bare("resumed", at),
            Entry::Folded(fold) => Self {
                until: Some(fold.until),
                requests: fold.requests,
                responses: fold.responses,
                no_answers: fold.no_answers,
                resumes: fold.resumes,
                ..Self::bare("folded", fold.from)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_the_same_after_its_way_and_a_word_of_a_later_agent_is_left_out() {
        let at = Timestamp::UNIX_EPOCH;
        let message = Message {
            at,
            kind: "ip".to_owned(),
            bytes: 900,
            status: Some("rejection".to_owned()),
            fail_info: vec!["badPOP".to_owned()],
            check_after_s: Some(5),
            status_string: Some("no".to_owned()),
        };
        let fold = Folded {
            from: at,
            until: at,
            requests: BTreeMap::from([("pollReq".to_owned(), 312)]),
            responses: BTreeMap::from([("pollRep".to_owned(), 311)]),
            no_answers: 1,
            resumes: 2,
        };
        let text = str::to_owned;
        for entry in [
            Entry::Sent(message.clone()),
            Entry::Received(message),
            Entry::NoAnswer { at, kind: text("ir"), code: text("ca_unreachable"), detail: text("refused") },
            Entry::Resumed { at },
            Entry::Folded(fold),
        ] {
            let written = serde_json::to_string(&Exchanged::from(entry.clone())).unwrap();
            let read: Exchanged = serde_json::from_str(&written).unwrap();
            assert_eq!(read.entry(), Some(entry), "{written}");
        }
        assert_eq!(Exchanged::bare("added_later", at).entry(), None);
    }
}
