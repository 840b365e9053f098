//! Services of the device that use certificates: told to load them, and looked at whether they have (S34).
//!
//! Commands, probes and places of copies stand in the agent's own configuration; a job names a service and nothing else.

mod accounts;
mod act;
mod activate;
mod anchors;
mod claim;
mod command;
mod config;
mod disk;
mod export;
mod journal;
mod material;
mod names;
#[cfg(feature = "pkcs12")]
mod pkcs12;
mod probe;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use trustfleet_model::field::ObjectName;

pub use self::accounts::Accounts;
pub use self::activate::{Given, Giving, forget};
pub use self::anchors::Seen;
pub(crate) use self::command::Program;
pub use self::config::{ExportConfig, ProbeConfig, Service, ServiceConfig};
use crate::config::KeysConfig;

/// All services of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<BTreeMap<ObjectName, Entry>>);

#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    /// One activation at a time: two devices behind one gateway can have the same service.
    turn: Arc<Mutex<()>>,
}

/// Services of one activation, and the right to work with them.
#[derive(Debug)]
pub struct Held {
    services: Vec<Arc<Service>>,
    _turns: Vec<OwnedMutexGuard<()>>,
}

impl Services {
    /// Reads the configuration's services.
    ///
    /// # Errors
    /// Everything that is wrong, each with its key.
    pub fn read(
        services: &BTreeMap<String, ServiceConfig>,
        keys: &KeysConfig,
        accounts: &Accounts,
    ) -> Result<Self, Vec<String>> {
        let read = config::read(services, keys, accounts)?
            .into_iter()
            .map(|service| (service.name.clone(), Entry { service: Arc::new(service), turn: Arc::default() }));
        Ok(Self(Arc::new(read.collect())))
    }

    /// Names that no service here has.
    pub fn unknown(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|name| !self.0.keys().any(|known| known.as_str() == name.as_str())).cloned().collect()
    }

    /// All names, for a sentence.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.keys().map(ToString::to_string).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Waits for the turn at these services, and holds it. Always in the order of their names, so that nobody waits for
    /// somebody who waits for him; the services come in the order of `names`. Unknown ones are left out.
    pub async fn hold(&self, names: &[String]) -> Held {
        let mut turns = Vec::new();
        for (name, entry) in self.0.iter() {
            if names.iter().any(|wanted| wanted == name.as_str()) {
                turns.push(Arc::clone(&entry.turn).lock_owned().await);
            }
        }
        let found =
            names.iter().filter_map(|name| Some(Arc::clone(&self.0.get(&name.parse::<ObjectName>().ok()?)?.service)));
        Held { services: found.collect(), _turns: turns }
    }
}
