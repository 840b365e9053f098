//! Dry runs: everything that an enrolment needs is tried on a device, and nothing is said to the CA.

use serde::{Deserialize, Serialize};

/// Most checks of one dry run that are kept.
pub const CHECKS_MAX: usize = 64;
/// Longest message of a check, characters.
pub const MESSAGE_MAX: usize = 1_000;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// Some CA servers refuse it, or it is weaker than it should be.
    Warning,
    /// The enrolment would fail.
    Failed,
}

impl CheckResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warning, Self::Failed];

    /// The word in the API and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: `order`, `accept`, `storage`, `services`, `source`, `server`, `credentials` or `request`.
    pub name: String,
    /// How it ended.
    pub result: CheckResult,
    /// The rule that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What was found, as a sentence.
    pub message: String,
}

/// What a dry run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What was tried, in its order.
    pub checks: Vec<Check>,
}

impl DryRun {
    /// Whether nothing is known that would keep the enrolment from succeeding on the device's side.
    pub fn is_ready(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.result != CheckResult::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_ready_when_something_was_tried_and_nothing_failed() {
        let of = |results: &[CheckResult]| DryRun {
            duration_ms: 1,
            checks: results
                .iter()
                .map(|result| Check { name: "server".to_owned(), result: *result, rule: None, message: String::new() })
                .collect(),
        };
        assert!(of(&[CheckResult::Ok, CheckResult::Warning]).is_ready());
        assert!(!of(&[CheckResult::Ok, CheckResult::Failed]).is_ready());
        assert!(!of(&[]).is_ready());
    }
}
