//! How jobs leave the controller.

use serde::Deserialize;

use super::{ConfigError, range};
use crate::admission::Budget;

/// Publication of jobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxConfig {
    /// How long a replica may take to publish what it has claimed, seconds, 1 to 5; then another one may.
    #[serde(default = "default_claim_s")]
    pub claim_s: u32,
    /// How long an agent may take to start a published job, seconds, 10 to 604,800; a late one returns it. Of jobs for a
    /// CA `ca_budget.permit_s` counts where it is shorter.
    #[serde(default = "default_permit_s")]
    pub permit_s: u32,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { claim_s: default_claim_s(), permit_s: default_permit_s() }
    }
}

/// What the server of a CA may be burdened with that has no budget of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaBudgetConfig {
    /// Exchanges that may begin in a second, 0.01 to 100,000.
    #[serde(default = "default_rate_per_s")]
    pub rate_per_s: f64,
    /// Exchanges that may begin at once after a pause, 1 to 100,000.
    #[serde(default = "default_burst")]
    pub burst: u32,
    /// Exchanges under way at a time, 1 to 100,000; those that the CA lets wait do not count.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How long an agent may take to start a job for a CA, seconds, 10 to 604,800: so long what was admitted can pile up at
    /// agents that are cut off, and come at once when they are back.
    #[serde(default = "default_ca_permit_s")]
    pub permit_s: u32,
    /// How often coming renewals are looked at, to spread those of an hour that holds more than its CA's budget, seconds, 1 to
    /// 86,400.
    #[serde(default = "default_respread_s")]
    pub respread_s: u32,
}

impl Default for CaBudgetConfig {
    fn default() -> Self {
        Self {
            rate_per_s: default_rate_per_s(),
            burst: default_burst(),
            concurrency: default_concurrency(),
            permit_s: default_ca_permit_s(),
            respread_s: default_respread_s(),
        }
    }
}

impl CaBudgetConfig {
    /// The budget.
    pub const fn budget(&self) -> Budget {
        Budget { rate_per_s: self.rate_per_s, burst: self.burst, concurrency: self.concurrency }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        range("ca_budget.rate_per_s", self.rate_per_s, 0.01, 100_000.0)?;
        range("ca_budget.burst", self.burst, 1, 100_000)?;
        range("ca_budget.concurrency", self.concurrency, 1, 100_000)?;
        range("ca_budget.permit_s", self.permit_s, 10, 604_800)?;
        range("ca_budget.respread_s", self.respread_s, 1, 86_400)
    }
}

const fn default_claim_s() -> u32 {
    5
}
const fn default_permit_s() -> u32 {
    600
}
const fn default_rate_per_s() -> f64 {
    100.0
}
const fn default_burst() -> u32 {
    100
}
const fn default_concurrency() -> u32 {
    200
}
const fn default_ca_permit_s() -> u32 {
    60
}
const fn default_respread_s() -> u32 {
    600
}
