//! Recovery of a trustpoint whose certificate has ended while its device was away: a key update is impossible then.
//!
//! An operator arms it, before or after the end; nothing falls back to it unasked. It is for one certificate, for one agent's
//! registered key, and for a time.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::certificate::CertificateFacts;
use crate::field::Violations;
use crate::ids::{JobId, SecretId};
use crate::job::MacCredentials;
use crate::renewal::plus;

/// Longest time that it can be armed for.
pub const ARMED_MOST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// What proves where the request of a recovery comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum RecoveryBy {
    /// A MAC reference and secret that the CA knows; the secret only by reference. It is deleted after use.
    Mac {
        /// The credentials.
        mac: MacCredentials,
    },
    /// The factory identity of the device.
    FactoryIdentity,
}

impl RecoveryBy {
    /// The word in the API.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Mac { .. } => "mac",
            Self::FactoryIdentity => "factory_identity",
        }
    }

    /// The secret that goes with it.
    pub const fn secret_id(&self) -> Option<SecretId> {
        match self {
            Self::Mac { mac } => Some(mac.secret_id),
            Self::FactoryIdentity => None,
        }
    }
}

/// An armed recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// By what.
    #[serde(flatten)]
    pub with: RecoveryBy,
    /// SHA-256 of the registered signing key of the agent that it is for, lower-case hex: another agent, or one that has joined
    /// again with another key, does not get it.
    pub agent_key_sha256: String,
    /// From then on it is disarmed.
    pub until: Timestamp,
    /// Who armed it.
    pub armed_by: String,
    /// When.
    pub armed_at: Timestamp,
    /// The job that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}

impl Recovery {
    /// Since when it is to be used for a certificate in use; none: not at this moment.
    pub fn due_at(&self, active: Option<&CertificateFacts>, now: Timestamp) -> Option<Timestamp> {
        let ended_at = active.map(|active| active.not_after).filter(|ended_at| *ended_at < self.until)?;
        (self.until > now).then_some(ended_at)
    }
}

/// Checks until when a recovery is to be armed.
pub fn check_until(field: &str, until: Timestamp, now: Timestamp, violations: &mut Violations) {
    if until <= now {
        violations.add(field, "recovery", format!("is {until}, which is over: give a moment to come"));
    } else if until > plus(now, ARMED_MOST) {
        violations.add(field, "recovery", format!("is {until}; a recovery is armed for 366 days at most"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_armed_for_a_time_to_come_and_for_a_year_at_most() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let wrong = |seconds: i64| {
            let mut violations = Violations::new();
            check_until("until", Timestamp::from_second(1_800_000_000 + seconds).unwrap(), now, &mut violations);
            !violations.is_empty()
        };
        assert!(wrong(0) && wrong(-1) && !wrong(1) && !wrong(366 * 86_400) && wrong(366 * 86_400 + 1));
    }

    #[test]
    fn a_secret_is_told_by_its_id_alone() {
        let mac = MacCredentials { reference: "ref".to_owned(), secret_id: uuid::Uuid::from_u128(7).into() };
        let recovery = Recovery {
            with: RecoveryBy::Mac { mac },
            agent_key_sha256: "00".repeat(32),
            until: Timestamp::UNIX_EPOCH,
            armed_by: "x".to_owned(),
            armed_at: Timestamp::UNIX_EPOCH,
            job_id: None,
        };
        let stored = serde_json::to_value(&recovery).unwrap();
        assert_eq!((&stored["by"], &stored["mac"]["reference"]), (&"mac".into(), &"ref".into()));
        assert_eq!(serde_json::from_value::<Recovery>(stored).unwrap(), recovery);
    }
}
