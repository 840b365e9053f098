//! What the audit log holds: who did or tried what, on whose behalf, and what it changed. Pure but for [`Refusals`]
//! and [`Chainer`].
//!
//! Rows are written with the change itself, by [`crate::db`] and the group commit; refused attempts a moment later and
//! within bounds, because whoever is refused must not fill the disk.

mod chain;
mod chainer;
mod export;
mod hex_text;
mod limit;
mod record;
mod refusals;
mod shown;
mod verify;

use std::net::IpAddr;

use trustfleet_model::ids::TenantId;
use uuid::Uuid;

pub use self::{
    chain::{Checkpoint, Hash},
    chainer::Chainer,
    export::{FORMAT, Head, Heads, Line, Link, LogLine, RowLine},
    limit::{Attempt, Bounds},
    record::{Content, Record, Sealer},
    refusals::Refusals,
    shown::{differences, shown},
    verify::{Finding, Report, Verifier},
};

/// The row that says what retention has dropped: up to which link.
pub const DROPPED: &str = "audit_segments_dropped";

/// The log of what belongs to no tenant: attempts with a platform administrator's credential, the keys, the log itself.
/// It is kept under the nil UUID, which no tenant can have.
pub const PLATFORM: TenantId = TenantId::nil();

/// Who asks, and how the request can be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// `token:<id> (<description>)`, `join_token:<id>`, `agent:<id>` or `controller`.
    pub actor: String,
    /// What it might do when it asked: a role of the API, `agent` or `controller`.
    pub role: String,
    /// Address of the connection's other end; none for what came over the broker, or from the controller itself.
    pub source: Option<IpAddr>,
    /// Id of the request, as its answer said in `X-Request-Id`; for reports of agents the report's id.
    pub request_id: Option<Uuid>,
    /// Id of the trace, 32 hex digits.
    pub trace_id: Option<String>,
}

impl Requester {
    /// Somebody of whom only name and role are known.
    pub fn new(actor: impl Into<String>, role: impl Into<String>) -> Self {
        Self { actor: actor.into(), role: role.into(), source: None, request_id: None, trace_id: None }
    }

    /// The controller itself.
    pub fn controller() -> Self {
        Self::new("controller", "controller")
    }

    /// An agent, by a report of its.
    pub fn agent(agent: impl std::fmt::Display, request_id: Uuid, traceparent: Option<&str>) -> Self {
        let trace_id = traceparent.and_then(trace_id);
        Self { request_id: Some(request_id), trace_id, ..Self::new(format!("agent:{agent}"), "agent") }
    }
}

/// The trace's id in a W3C trace context, if it is one.
pub fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let is_hex = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| id.to_owned())
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

impl Outcome {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_known_by_the_second_part_of_its_context() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        for bad in ["", "00", "00-short-1-1", "00-4BF92F3577B34DA6A3CE929D0E0E4736-1-1"] {
            assert_eq!(trace_id(bad), None, "{bad:?}");
        }
    }
}
