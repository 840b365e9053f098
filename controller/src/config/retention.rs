//! How long what is over is kept at most.

use serde::Deserialize;

use super::{ConfigError, range};

/// The platform's bound on what tenants may want.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Most days that transcripts, jobs, certificates, join tokens, applicants and leases are kept when they are over, 7 to
    /// 3653, whatever their tenant wants.
    #[serde(default = "default_days_max")]
    pub days_max: u16,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { days_max: default_days_max() }
    }
}

impl RetentionConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        range("retention.days_max", self.days_max, 7, 3_653)
    }
}

const fn default_days_max() -> u16 {
    3_653
}
