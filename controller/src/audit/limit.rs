//! Which refused attempts are recorded: the first few of a credential in a minute in full, the rest as a number.
//!
//! Memory is bounded as well: beyond [`Bounds::credentials`] different credentials in one minute, further ones are only
//! counted together.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trustfleet_model::ids::TenantId;
use uuid::Uuid;

use super::{PLATFORM, Requester};

/// How long attempts of a credential are counted together.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Attempts of one credential that are recorded in full, each minute.
    pub each: u32,
    /// Credentials that are told apart in one minute.
    pub credentials: usize,
}

impl Bounds {
    /// Enough to see what somebody is after, too little to fill a disk: with a hundred credentials gone wild some 900,000
    /// rows a day.
    pub const USUAL: Self = Self { each: 5, credentials: 10_000 };
}

/// An attempt that was refused, by somebody whose credential is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Whose log it belongs to: the credential's tenant, or [`PLATFORM`].
    pub tenant: TenantId,
    /// When.
    pub at: Timestamp,
    /// Who, and from where.
    pub requester: Requester,
    /// What was refused: a snake_case word.
    pub action: &'static str,
    /// Kind of the credential: `token`, `join_token`, `agent`.
    pub object_kind: &'static str,
    /// Id of the credential.
    pub object_id: Uuid,
    /// What was tried, and why it was refused.
    pub detail: Value,
}

/// Attempts of one credential within a minute.
#[derive(Debug)]
struct Window {
    since: Timestamp,
    recorded: u32,
    left_out: u64,
    last: Attempt,
}

/// Decides which attempts are recorded.
#[derive(Debug)]
pub(super) struct Limit {
    bounds: Bounds,
    windows: HashMap<(TenantId, Uuid), Window>,
    /// Of credentials that are too many to be told apart.
    others: u64,
}

impl Limit {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, windows: HashMap::new(), others: 0 }
    }

    /// The attempt, if it is to be recorded.
    pub(super) fn take(&mut self, attempt: Attempt) -> Option<Attempt> {
        let key = (attempt.tenant, attempt.object_id);
        if let Some(window) = self.windows.get_mut(&key) {
            window.last = attempt.clone();
            if window.recorded < self.bounds.each {
                window.recorded += 1;
                return Some(attempt);
            }
            window.left_out += 1;
            return None;
        }
        if self.windows.len() >= self.bounds.credentials {
            self.others += 1;
            return None;
        }
        self.windows.insert(key, Window { since: attempt.at, recorded: 1, left_out: 0, last: attempt.clone() });
        Some(attempt)
    }

    /// Closes the windows that have lasted a minute (or all), and gives a row for each that left something out.
    pub(super) fn close(&mut self, now: Timestamp, all: bool) -> Vec<Attempt> {
        let mut summaries = Vec::new();
        self.windows.retain(|_, window| {
            let age = now.duration_since(window.since);
            // A clock that was set back must not keep a window open.
            let goes_on = !all && age < WINDOW && age > -WINDOW;
            if !goes_on && window.left_out > 0 {
                summaries.push(summary(window.last.clone(), window.left_out, now));
            }
            goes_on
        });
        if self.others > 0 && (all || self.windows.len() < self.bounds.credentials) {
            let left_out = std::mem::take(&mut self.others);
            summaries.push(Attempt {
                tenant: PLATFORM,
                at: now,
                requester: Requester::controller(),
                action: "refusals_left_out",
                object_kind: "installation",
                object_id: Uuid::nil(),
                detail: json!({ "left_out": left_out, "of": "credentials too many to be told apart" }),
            });
        }
        summaries
    }
}

fn summary(last: Attempt, left_out: u64, now: Timestamp) -> Attempt {
    let detail = json!({ "left_out": left_out, "last": last.detail, "last_at": last.at });
    Attempt { at: now, action: "refusals_left_out", detail, ..last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(credential: u128, at: Timestamp) -> Attempt {
        Attempt {
            tenant: TenantId::from(Uuid::from_u128(1)),
            at,
            requester: Requester::new("token:x", "viewer"),
            action: "access_refused",
            object_kind: "token",
            object_id: Uuid::from_u128(credential),
            detail: json!({ "code": "forbidden" }),
        }
    }

    #[test]
    fn of_a_flood_the_first_few_are_recorded_and_the_rest_is_one_number() {
        let start = Timestamp::from_second(1_000).unwrap();
        let mut limit = Limit::new(Bounds::USUAL);
        let recorded = (0..1_000).filter_map(|_| limit.take(attempt(7, start))).count();
        assert_eq!(recorded, 5);
        assert_eq!(limit.close(start + SignedDuration::from_secs(59), false), []);
        let closed = limit.close(start + SignedDuration::from_secs(60), false);
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].action, "refusals_left_out");
        assert_eq!(closed[0].detail["left_out"], 995);
        assert!(limit.take(attempt(7, start)).is_some(), "the next minute begins anew");
    }

    #[test]
    fn a_window_without_anything_left_out_leaves_no_row() {
        let start = Timestamp::from_second(1_000).unwrap();
        let mut limit = Limit::new(Bounds::USUAL);
        limit.take(attempt(7, start));
        assert_eq!(limit.close(start, true), []);
    }

    #[test]
    fn more_credentials_than_memory_are_counted_together() {
        let start = Timestamp::from_second(1_000).unwrap();
        let mut limit = Limit::new(Bounds { each: 5, credentials: 2 });
        let recorded = (0..10).filter_map(|credential| limit.take(attempt(credential, start))).count();
        assert_eq!(recorded, 2);
        let closed = limit.close(start, true);
        assert_eq!((closed.len(), &closed[0].detail["left_out"], closed[0].tenant), (1, &json!(8), PLATFORM));
    }
}
