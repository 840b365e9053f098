//! What went to and fro in an exchange, for people and programs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use trustfleet_model::fail_info::meaning;
use trustfleet_model::ids::JobId;
use trustfleet_model::transcript::{Entry, Message};
use utoipa::ToSchema;

use super::job::JobStateBody;
use crate::db::JobTranscript;

/// The transcript of a job's CMP exchange, oldest entry first. There is no secret in it, and nothing that lets one be
/// guessed: no salt, MAC or nonce.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Transcript)]
pub struct TranscriptBody {
    /// The job.
    #[schema(value_type = uuid::Uuid)]
    pub job_id: JobId,
    /// Where the job stands.
    pub state: JobStateBody,
    /// Why there are no entries: `not_ended`, `not_told` (nothing was sent to a CA, or the agent is too old to tell) or
    /// `removed`; null: there are some.
    #[schema(required)]
    pub missing: Option<&'static str>,
    /// The entries.
    pub entries: Vec<TranscriptEntryBody>,
}

/// One entry. What does not belong to its `what` is left out.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TranscriptEntry)]
pub struct TranscriptEntryBody {
    /// `sent`: a message to the CA, repetitions not counted; `received`: one of the CA, authentic or not; `no_answer`: a try
    /// that failed; `resumed`: the agent was started again; `folded`: what is counted only.
    pub what: &'static str,
    /// When; of a fold, when it begins. By the device's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Kind of the message in the RFC's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "pollReq")]
    pub kind: Option<String>,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// PKIStatus in the RFC's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// PKIFailureInfo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fail_info: Vec<FailInfoBody>,
    /// Seconds that the CA lets the device wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_after_s: Option<u64>,
    /// The CA's own words: untrusted text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_string: Option<String>,
    /// Stable snake_case code of a try that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When a fold ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Messages to the CA in a fold, by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, u64>>,
    /// Messages of the CA in a fold, by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses: Option<BTreeMap<String, u64>>,
    /// Tries that failed in a fold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answers: Option<u64>,
    /// Starts of the agent in a fold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumes: Option<u64>,
}

/// One bit of PKIFailureInfo.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = FailInfo)]
pub struct FailInfoBody {
    /// Its word in the RFC.
    #[schema(example = "badMessageCheck")]
    pub name: String,
    /// What it says; null: the word is unknown.
    #[schema(required)]
    pub meaning: Option<&'static str>,
}

impl TranscriptBody {
    /// What is known of a job's exchange.
    pub fn new(job_id: JobId, found: JobTranscript, now: Timestamp) -> Self {
        let entries: Vec<TranscriptEntryBody> = found
            .transcript
            .iter()
            .flat_map(|transcript| transcript.entries().iter().cloned().map(Into::into))
            .collect();
        let kept = SignedDuration::from_hours(24 * i64::from(found.kept_days));
        let missing = match found.finished_at {
            _ if !entries.is_empty() => None,
            None => Some("not_ended"),
            Some(ended) if now.duration_since(ended) > kept => Some("removed"),
            Some(_) => Some("not_told"),
        };
        Self { job_id, state: found.state.into(), missing, entries }
    }
}

impl TranscriptEntryBody {
    const fn bare(what: &'static str, at: Timestamp) -> Self {
        Self {
            what,
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
            requests: None,
            responses: None,
            no_answers: None,
            resumes: None,
        }
    }

    fn message(what: &'static str, message: Message) -> Self {
        let explained = |name: String| FailInfoBody { meaning: meaning(&name), name };
        Self {
            kind: Some(message.kind),
            bytes: Some(message.bytes),
            status: message.status,
            fail_info: message.fail_info.into_iter().map(explained).collect(),
            check_after_s: message.check_after_s,
            status_string: message.status_string,
            ..Self::bare(what, message.at)
        }
    }
}

impl From<Entry> for TranscriptEntryBody {
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
                requests: Some(fold.requests),
                responses: Some(fold.responses),
                no_answers: Some(fold.no_answers),
                resumes: Some(fold.resumes),
                ..Self::bare("folded", fold.from)
            },
        }
    }
}
