//! The flight recorder: messages and failed tries as entries of a transcript.
//!
//! Pure. Nothing of a message goes in but what [`trustfleet_cmp::summary`] tells: no name, nonce, salt, MAC or certificate.

use jiff::Timestamp;
use trustfleet_cmp::codec::PkiMessage;
use trustfleet_cmp::show::status_name;
use trustfleet_cmp::summary::summary;
use trustfleet_model::transcript::{Entry, Message, Transcript, UNREADABLE};

use crate::cmp_http::HttpError;

/// Notes that a message leaves for the first time.
pub fn sent(transcript: &mut Transcript, der: &[u8], now: Timestamp) {
    transcript.push(Entry::Sent(message(der, now)));
}

/// Notes a message that came, authentic or not.
pub fn received(transcript: &mut Transcript, der: &[u8], now: Timestamp) {
    transcript.push(Entry::Received(message(der, now)));
}

/// Notes that the agent was started again and goes on, if anything was said before.
pub fn resumed(transcript: &mut Transcript, now: Timestamp) {
    if !transcript.is_empty() {
        transcript.push(Entry::Resumed { at: now });
    }
}

/// Notes that a try to send the message brought no answer.
pub fn no_answer(transcript: &mut Transcript, der: &[u8], error: &HttpError, now: Timestamp) {
    transcript.push(Entry::NoAnswer {
        at: now,
        kind: message(der, now).kind,
        code: error.code().to_owned(),
        detail: error.to_string(),
    });
}

fn message(der: &[u8], at: Timestamp) -> Message {
    let bytes = u64::try_from(der.len()).unwrap_or(u64::MAX);
    let Ok(message) = PkiMessage::from_der(der) else {
        return Message {
            at,
            kind: UNREADABLE.to_owned(),
            bytes,
            status: None,
            fail_info: Vec::new(),
            check_after_s: None,
            status_string: None,
        };
    };
    let summary = summary(&message);
    Message {
        at,
        kind: summary.kind.name().to_owned(),
        bytes,
        status: summary.status.map(|status| status_name(status).to_owned()),
        fail_info: summary.fail_info.iter().map(|bit| bit.name().to_owned()).collect(),
        check_after_s: summary.check_after_s,
        status_string: (!summary.texts.is_empty()).then(|| summary.texts.join("; ")),
    }
}
