//! Services on a device that use a trustpoint's certificate (S34, S40), and what an agent says of their taking it.
//!
//! What a service is (which command reloads it, how it is seen to have loaded) stands in the agent's own configuration;
//! here it is a name and nothing else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::field::{ObjectName, Violations};

/// Most services bound to one trustpoint.
pub const SERVICES_MAX: usize = 8;
/// Most steps of one activation that are kept.
pub const STEPS_MAX: usize = 64;
/// Most warnings of one activation that are kept.
pub const WARNINGS_MAX: usize = 32;
/// Longest detail of a step and longest warning, characters.
pub const DETAIL_MAX: usize = 1_000;

/// Reads the names of a trustpoint's services: at most [`SERVICES_MAX`], each once, each a name as of every object (S1).
/// What is wrong is noted below `field`.
pub fn read_names(field: &str, names: &[String], violations: &mut Violations) -> Vec<ObjectName> {
    let mut read: Vec<ObjectName> = Vec::new();
    if names.len() > SERVICES_MAX {
        violations.add(field, "limit", format!("has {} names; at most {SERVICES_MAX} are allowed", names.len()));
        return read;
    }
    for (i, name) in names.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let Some(name) = violations.check(&field, "S1", name.parse::<ObjectName>()) else { continue };
        if read.contains(&name) {
            violations.add(field, "duplicate", format!("names {name} a second time"));
        } else {
            read.push(name);
        }
    }
    read
}

/// Whether a service is seen to use a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceResult {
    /// Its probe has seen the certificate's serial number.
    Verified,
    /// It has been reloaded, and has no probe that could tell.
    Unverifiable,
    /// It could not be reloaded, or went on with another certificate.
    Failed,
}

impl ServiceResult {
    /// All results.
    pub const ALL: [Self; 3] = [Self::Verified, Self::Unverifiable, Self::Failed];

    /// The word in the API and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverifiable => "unverifiable",
            Self::Failed => "failed",
        }
    }
}

/// One service and whether it is seen to use the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOutcome {
    /// The service.
    pub service: ObjectName,
    /// What was seen.
    pub result: ServiceResult,
}

/// One step of an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStep {
    /// The service.
    pub service: ObjectName,
    /// `export`, `reload`, `probe`, and after a failure `restore` and `reload_former`.
    pub step: String,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What a program printed or what was seen: a stranger's words, cleaned of control characters, bounded.
    pub detail: String,
}

/// What an agent said of the services when it last put a certificate into use, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InService {
    /// Serial number of the certificate, upper-case hex.
    pub serial: String,
    /// When the controller learned of it.
    pub at: Timestamp,
    /// Each service with what was seen; empty: it was not come so far.
    pub services: Vec<ServiceOutcome>,
    /// Its steps, in their order.
    pub steps: Vec<ServiceStep>,
    /// What the operator should know, such as a file that somebody had renamed (S46).
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_a_service_is_a_name_of_which_no_path_and_no_option_can_be_made() {
        let mut violations = Violations::new();
        let names = ["https", "../x", "-s", "https", ""].map(str::to_owned);
        assert_eq!(read_names("services", &names, &mut violations), ["https".parse().unwrap()]);
        let found: Vec<_> = violations.as_slice().iter().map(|v| (v.field.as_str(), v.rule.as_str())).collect();
        let expected =
            [("services[1]", "S1"), ("services[2]", "S1"), ("services[3]", "duplicate"), ("services[4]", "S1")];
        assert_eq!(found, expected);
    }
}
