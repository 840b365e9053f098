//! CMP servers that jobs go to, with what they may be burdened with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words;
use crate::admission::{BreakerState, Budget};
use crate::db::CaEndpoint;

words! {
    /// How the circuit breaker of an endpoint stands.
    BreakerBody mirrors BreakerState {
        /// Everything goes.
        Closed = "closed",
        /// Nothing goes: it does not answer.
        Open = "open",
        /// One job tries whether it is back.
        HalfOpen = "half_open",
    }
}

/// A budget of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaEndpointUpdate {
    /// Exchanges that may begin in a second, 0.01 to 100,000.
    #[schema(minimum = 0.01, maximum = 100_000)]
    pub rate_per_s: f64,
    /// Exchanges that may begin at once after a pause, 1 to 100,000.
    #[schema(minimum = 1, maximum = 100_000)]
    pub burst: u32,
    /// Exchanges under way at a time, 1 to 100,000; those that the CA lets wait do not count.
    #[schema(minimum = 1, maximum = 100_000)]
    pub concurrency: u32,
}

/// A CMP server that jobs go to.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CaEndpoint)]
pub struct CaEndpointBody {
    /// `host:port` of the primary or the secondary URL of CA servers.
    #[schema(example = "ca.example:8080")]
    pub endpoint: String,
    /// Exchanges that may begin in a second.
    pub rate_per_s: f64,
    /// Exchanges that may begin at once after a pause.
    pub burst: u32,
    /// Exchanges under way at a time.
    pub concurrency: u32,
    /// The budget is its own; otherwise it is the configuration's (`ca_budget`).
    pub own_budget: bool,
    /// Exchanges under way, and those whose agents are about to begin.
    pub in_use: u32,
    /// Jobs that wait for budget.
    pub waiting: i64,
    /// Exchanges that agents began by themselves: exempt from the budget, and counted; jobs wait until they are worked off.
    pub exempt: i64,
    /// Exchanges that went to a secondary server instead of this one.
    pub failovers: i64,
    /// Jobs that have a secondary server wait for that one's budget at present.
    pub failing_over: bool,
    /// Its circuit breaker.
    pub breaker: BreakerBody,
    /// Exchanges in a row that brought no answer.
    pub failures: u32,
}

impl From<CaEndpointUpdate> for Budget {
    fn from(budget: CaEndpointUpdate) -> Self {
        Self { rate_per_s: budget.rate_per_s, burst: budget.burst, concurrency: budget.concurrency }
    }
}

impl From<CaEndpoint> for CaEndpointBody {
    fn from(found: CaEndpoint) -> Self {
        let endpoint = found.endpoint;
        Self {
            endpoint: found.name,
            rate_per_s: endpoint.budget.rate_per_s,
            burst: endpoint.budget.burst,
            concurrency: endpoint.budget.concurrency,
            own_budget: found.has_own_budget,
            in_use: endpoint.in_use,
            waiting: found.waiting,
            exempt: found.exempt,
            failovers: found.failovers,
            failing_over: found.failing_over,
            breaker: endpoint.breaker.state().into(),
            failures: endpoint.breaker.failures,
        }
    }
}
