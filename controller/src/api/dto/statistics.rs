//! Statistics of CMP sessions (S48).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_model::statistics::Statistics;
use utoipa::ToSchema;

/// Counts of one CMP session, which is a trustpoint, or sums of many. Counted when an exchange has ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Statistics)]
pub struct StatisticsBody {
    /// How many trustpoints are in it.
    pub trustpoints: u64,
    /// When the trustpoint's were reset; null: never, or these are sums.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub since: Option<Timestamp>,
    /// Messages to the CA by kind in the RFC's words; one that was repeated counts once.
    pub requests: BTreeMap<String, u64>,
    /// Messages of the CA by kind.
    pub responses: BTreeMap<String, u64>,
    /// pollReq messages.
    pub polls: u64,
    /// Exchanges that ended with a certificate.
    pub successes: u64,
    /// Exchanges that ended without.
    pub failures: u64,
    /// Tries to send a message that brought no answer.
    pub timeouts: u64,
    /// Certificates that the CA confirmed by a message (pkiconf).
    pub confirmations: u64,
    /// Error messages of the CA.
    pub errors: u64,
}

impl StatisticsBody {
    /// The counts of this many trustpoints.
    pub fn new(trustpoints: u64, counts: Statistics) -> Self {
        Self {
            trustpoints,
            since: counts.since,
            requests: counts.requests,
            responses: counts.responses,
            polls: counts.polls,
            successes: counts.successes,
            failures: counts.failures,
            timeouts: counts.timeouts,
            confirmations: counts.confirmations,
            errors: counts.errors,
        }
    }
}
