//! Quotas of tenants, held to exactly: whatever counts against one is counted and written under the tenant's lock, so that
//! requests at the very same moment, at whatever replicas, never get beyond it together.
//!
//! What comes due by itself (renewals, first certificates by a binding) is held to no quota of jobs, so that no
//! certificate ends for want of one; it counts all the same.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::ids::JobId;

use crate::{db::Counted, error::AppError};

/// The code of a refusal.
pub const EXCEEDED: &str = "quota_exceeded";

/// How many of something a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What is counted.
    pub counted: Counted,
    /// How many there may be.
    pub most: u32,
}

impl Limit {
    /// The refusal of one more: 409 where something has to be deleted first, 429 where waiting helps.
    pub fn exceeded(self) -> AppError {
        let (what, retry_after_s) = match self.counted {
            Counted::Devices => ("devices", None),
            Counted::Trustpoints => ("trustpoints", None),
            Counted::JobsPerHour => ("jobs in an hour", Some(60)),
            Counted::JobsInFlight => ("jobs under way", Some(10)),
        };
        let detail = format!("the tenant has its {} {what}, which is its quota", self.most);
        let more = "a platform administrator can raise the quota";
        match retry_after_s {
            None => AppError::Conflict { code: EXCEEDED, detail: format!("{detail}: delete some first; {more}") },
            Some(retry_after_s) => {
                AppError::TooMany { code: EXCEEDED, detail: format!("{detail}: wait a while; {more}"), retry_after_s }
            }
        }
    }
}

/// The id that the first job of the last hour can have: ids are UUIDv7, in the order of time.
pub(crate) fn hour_ago(now: Timestamp) -> JobId {
    let since = now.checked_sub(SignedDuration::from_hours(1)).unwrap_or(now);
    JobId::fresh(since, [0; 10])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_says_what_is_used_up_and_whether_waiting_helps() {
        for (counted, status) in [
            (Counted::Devices, 409),
            (Counted::Trustpoints, 409),
            (Counted::JobsPerHour, 429),
            (Counted::JobsInFlight, 429),
        ] {
            let refused = Limit { counted, most: 7 }.exceeded();
            assert_eq!((refused.status(), refused.code()), (status, EXCEEDED));
            assert!(refused.to_string().contains("its 7 "), "{refused}");
        }
    }
}
