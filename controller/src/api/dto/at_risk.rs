//! Certificates that may end before they are renewed.

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::contact::Risk;
use utoipa::ToSchema;

use super::words;
use crate::db::AtRisk;

words! {
    /// Why a certificate is at risk.
    RiskBody mirrors Risk {
        /// It has ended: a key update is impossible, recovery must be armed.
        Expired = "expired",
        /// No agent is in front of its device.
        NoAgent = "no_agent",
        /// Its agent is in quarantine.
        Quarantined = "quarantined",
        /// Its agent is away for longer than it usually is.
        Absent = "absent",
        /// Its agent comes too seldom: the next time is to be expected too late.
        Seldom = "seldom",
        /// It would be in time, but for the jobs that wait for the CA.
        Queue = "queue",
    }
}

/// A certificate in use that may end before it is renewed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AtRisk)]
pub struct AtRiskBody {
    /// Name of the device.
    pub device: String,
    /// Name of the trustpoint.
    pub trustpoint: String,
    /// The certificate's end.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// Why it is at risk.
    pub risk: RiskBody,
    /// When it was to be renewed by itself; null: nobody has planned that.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub renew_at: Option<Timestamp>,
    /// When its successor is to be expected, as things are; null: nobody can say.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub renewed_at: Option<Timestamp>,
    /// Name of the agent in front of the device.
    #[schema(required)]
    pub agent: Option<String>,
    /// When that was last heard of.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub last_seen_at: Option<Timestamp>,
    /// How long it usually is away at most, seconds; null: that is not known yet.
    #[schema(required)]
    pub usual_absence_s: Option<i64>,
    /// How long jobs wait for its CA at present, seconds.
    pub queue_s: i64,
    /// Until when its agent may renew by itself, where it can reach the CA; null: it may not.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub leased_until: Option<Timestamp>,
    /// Recovery is armed: when its agent comes back after the end, a new certificate is asked for.
    pub recovery_armed: bool,
}

impl From<AtRisk> for AtRiskBody {
    fn from(found: AtRisk) -> Self {
        let situation = found.situation;
        Self {
            device: found.device.into(),
            trustpoint: found.trustpoint.into(),
            not_after: situation.not_after,
            risk: found.prediction.risk.into(),
            renew_at: situation.renew_at,
            renewed_at: found.prediction.renewed_at,
            agent: found.agent.map(Into::into),
            last_seen_at: situation.last_seen_at,
            usual_absence_s: situation.rhythm.map(|rhythm| rhythm.usual_absence().as_secs()),
            queue_s: situation.queue.as_secs(),
            leased_until: found.leased_until,
            recovery_armed: found.recovery_armed,
        }
    }
}
