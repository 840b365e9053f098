//! The composition root: the only module that knows everyone.

use std::sync::Arc;

use jiff::Timestamp;
use trustfleet_model::clock::Clock;

use crate::{
    actors::Registry, broker::BrokerHandle, config::Config, db::Store, entropy, error::AppError, keys::Keys,
    metrics::Metrics,
};

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// Signing, broker tokens, secrets at rest.
    pub keys: Arc<Keys>,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The configuration.
    pub config: Arc<Config>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("registry", &self.registry)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

impl Services {
    /// A fresh id: `services.fresh(JobId::fresh)`.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn fresh<T>(&self, make: impl FnOnce(Timestamp, [u8; 10]) -> T) -> Result<T, AppError> {
        Ok(make(self.clock.now(), entropy::random()?))
    }
}
