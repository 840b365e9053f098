//! Which nodes of hot-standby pairs are active, as this machine sees it (S47).
//!
//! The agent's own configuration says how that is seen: by a program, or by a file. What was seen steadily is told to the
//! controller with every hello, and at once when it changes; it is kept on the disk, so that a restart is no change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use trustfleet_model::clock::Clock as _;
use trustfleet_model::field::ObjectName;
use trustfleet_wire::v1::NodeSeen;

use crate::core::Core;
use crate::services::Program;
use crate::store::{self, Store};

/// Most devices of one agent that are watched.
const NODES_MAX: usize = 64;
/// Between two changes that are told: what flaps faster is told as it stands then.
const CHANGE_LEAST: SignedDuration = SignedDuration::from_secs(30);
/// Longest file that is read.
const FILE_MAX: u64 = 64 * 1024;

/// How it is seen whether a device is the active node of its pair: the table `[pairs.DEVICE]`. One of `command` and `file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Program and arguments, no shell: exit code 0 says active, 1 standby, anything else that nobody can tell.
    #[serde(default)]
    pub command: Vec<String>,
    /// Longest time of the program, seconds, 1 to 60.
    #[serde(default = "default_time_limit_s")]
    pub time_limit_s: u32,
    /// File whose content tells, without blanks around it.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// What the file holds on the active node.
    #[serde(default)]
    pub active: Option<String>,
    /// What it holds on the standby; by default anything else.
    #[serde(default)]
    pub standby: Option<String>,
    /// Seconds between two looks, 1 to 3600.
    #[serde(default = "default_every_s")]
    pub every_s: u32,
    /// Seconds that something else must be seen before it counts, 0 to 3600.
    #[serde(default = "default_settle_s")]
    pub settle_s: u32,
}

const fn default_time_limit_s() -> u32 {
    10
}
const fn default_every_s() -> u32 {
    5
}
const fn default_settle_s() -> u32 {
    10
}

impl NodeConfig {
    /// What is wrong with the whole section.
    pub(crate) fn check(all: &BTreeMap<ObjectName, Self>) -> Result<(), String> {
        if all.len() > NODES_MAX {
            return Err(format!("pairs has {} devices; at most {NODES_MAX} are watched", all.len()));
        }
        for (device, node) in all {
            let wrong = |what: &str| Err(format!("pairs.{device}{what}"));
            match (&node.file, node.command.first()) {
                (Some(file), None) if !file.is_absolute() => return wrong(".file must be an absolute path"),
                (Some(_), None) if node.active.as_ref().is_none_or(|text| text.trim().is_empty()) => {
                    return wrong(".active is missing: what the file holds on the active node");
                }
                (Some(_), None) => {}
                (None, Some(program)) if !program.starts_with('/') => {
                    return wrong(".command must begin with the whole path of a program");
                }
                (None, Some(_)) if node.active.is_some() || node.standby.is_some() => {
                    return wrong(".active and .standby are for a file; a command tells by its exit code");
                }
                (None, Some(_)) => {}
                _ => return wrong(" needs a command or a file, and not both"),
            }
            if !(1..=60).contains(&node.time_limit_s) {
                return wrong(".time_limit_s must be 1 to 60");
            }
            if !(1..=3600).contains(&node.every_s) || node.settle_s > 3600 {
                return wrong(".every_s must be 1 to 3600, and .settle_s 0 to 3600");
            }
        }
        Ok(())
    }

    /// What a file's content says.
    fn read(&self, content: &str) -> Option<bool> {
        let content = content.trim();
        let is = |word: &Option<String>| word.as_ref().is_some_and(|word| word.trim() == content);
        if is(&self.active) {
            Some(true)
        } else if self.standby.is_none() && !content.is_empty() || is(&self.standby) {
            Some(false)
        } else {
            None
        }
    }

    /// Looks once; none: nobody can tell.
    async fn look(&self) -> Option<bool> {
        if let Some(file) = self.file.clone() {
            let read = tokio::task::spawn_blocking(move || {
                let short = std::fs::metadata(&file).is_ok_and(|meta| meta.len() <= FILE_MAX);
                if short { std::fs::read_to_string(&file).ok() } else { None }
            });
            return self.read(&read.await.ok()??);
        }
        let limit = Duration::from_secs(self.time_limit_s.into());
        let program = Program { words: self.command.clone(), environment: Vec::new(), run_as: None, limit };
        match program.run().await.code {
            Some(0) => Some(true),
            Some(1) => Some(false),
            _ => None,
        }
    }
}

/// What counts of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// It is the active node of its pair.
    pub active: bool,
    /// Since when, by the agent's clock.
    pub since: Timestamp,
}

/// What was seen of one device, and what counts of it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    settled: Option<Settled>,
    /// Something else, and since when it has been seen without a break.
    other: Option<Settled>,
}

impl Seen {
    /// Takes note of a look; says whether something else counts now.
    fn observe(&mut self, active: Option<bool>, settle: SignedDuration, now: Timestamp) -> bool {
        let Some(active) = active.filter(|active| self.settled.is_none_or(|settled| settled.active != *active)) else {
            self.other = None;
            return false;
        };
        let other = self.other.filter(|other| other.active == active && other.since <= now);
        let other = other.unwrap_or(Settled { active, since: now });
        self.other = Some(other);
        let rests = self.settled.is_none_or(|settled| {
            // A clock that was set back must not silence a device for ever.
            settled.since > now || now.duration_since(settled.since) >= CHANGE_LEAST
        });
        if !rests || now.duration_since(other.since) < settle {
            return false;
        }
        *self = Self { settled: Some(other), other: None };
        true
    }
}

/// What counts of all devices that are watched.
#[derive(Debug)]
pub struct Nodes {
    settled: Mutex<BTreeMap<ObjectName, Settled>>,
    changes: watch::Sender<u64>,
}

impl Nodes {
    /// As it was before the last stop, of the devices that are watched still.
    pub fn load(store: &Store, watched: &BTreeMap<ObjectName, NodeConfig>) -> Self {
        let kept: Result<Option<BTreeMap<ObjectName, Settled>>, _> = store::load_json(&store.nodes_file());
        let mut settled = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "which nodes were active is forgotten");
            None
        });
        if let Some(settled) = &mut settled {
            settled.retain(|device, _| watched.contains_key(device));
        }
        Self { settled: Mutex::new(settled.unwrap_or_default()), changes: watch::Sender::new(0) }
    }

    /// What the controller is told.
    pub fn told(&self) -> Vec<NodeSeen> {
        let seen = |(device, settled): (&ObjectName, &Settled)| NodeSeen {
            device: device.to_string(),
            active: settled.active,
            since: settled.since,
        };
        self.settled().iter().map(seen).collect()
    }

    /// Whether a device is known to stand by.
    pub fn stands_by(&self, device: &ObjectName) -> bool {
        self.settled().get(device).is_some_and(|settled| !settled.active)
    }

    /// To be told of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn set(&self, store: &Store, device: &ObjectName, settled: Settled) {
        let all = {
            let mut all = self.settled();
            all.insert(device.clone(), settled);
            all.clone()
        };
        if let Err(error) = store::save_json(&store.nodes_file(), &all) {
            tracing::warn!(%error, "which nodes are active is not saved: a restart will count as a change");
        }
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn settled(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches all nodes of the configuration until the agent stops.
pub async fn watch(core: Arc<Core>) {
    let watching = core.identity.config.pairs.iter().map(|(device, node)| watch_one(&core, device, node));
    futures_util::future::join_all(watching).await;
}

async fn watch_one(core: &Core, device: &ObjectName, node: &NodeConfig) {
    let nodes = &core.identity.nodes;
    let mut seen = Seen { settled: nodes.settled().get(device).copied(), other: None };
    let settle = SignedDuration::from_secs(node.settle_s.into());
    loop {
        let looked = tokio::select! {
            looked = node.look() => looked,
            () = core.stopping() => return,
        };
        if seen.observe(looked, settle, core.identity.clock.now())
            && let Some(settled) = seen.settled
        {
            tracing::info!(%device, active = settled.active, "node of a hot-standby pair");
            nodes.set(&core.store, device, settled);
        }
        tokio::select! {
            () = sleep(Duration::from_secs(node.every_s.into())) => {}
            () = core.stopping() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn node(text: &str) -> NodeConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn s47_a_change_counts_when_it_was_seen_steadily_and_flapping_is_bounded() {
        let settle = SignedDuration::from_secs(10);
        let mut seen = Seen::default();
        let mut told = Vec::new();
        // Every 5 seconds: standby, then flapping, then active for good.
        let looks = (0..=60).map(|n| (n * 5, if n < 8 { false } else { n >= 20 || n % 2 == 0 }));
        for (second, active) in looks {
            if seen.observe(Some(active), settle, at(second)) {
                told.push((second, active));
            }
        }
        assert_eq!(told, [(10, false), (110, true)]);
        assert_eq!(seen.settled, Some(Settled { active: true, since: at(100) }), "since it was first seen so");
        // That nobody can tell changes nothing, and breaks what was seen.
        assert!(!seen.observe(Some(false), settle, at(400)));
        assert!(!seen.observe(None, settle, at(405)));
        assert!(!seen.observe(Some(false), settle, at(410)));
        assert!(seen.observe(Some(false), settle, at(420)));
        // Steady, but sooner after the last change than changes are told.
        assert!(!seen.observe(Some(true), SignedDuration::ZERO, at(425)));
        assert!(seen.observe(Some(true), SignedDuration::ZERO, at(440)));
    }

    #[test]
    fn a_files_content_tells_and_what_it_does_not_tell_is_nothing() {
        let strict = node("file = \"/run/vrrp\"\nactive = \"MASTER\"\nstandby = \"BACKUP\"\n");
        assert_eq!(
            ["MASTER\n", " BACKUP", "FAULT", ""].map(|text| strict.read(text)),
            [Some(true), Some(false), None, None]
        );
        let loose = node("file = \"/run/vrrp\"\nactive = \"MASTER\"\n");
        assert_eq!(["MASTER", "FAULT", ""].map(|text| loose.read(text)), [Some(true), Some(false), None]);
    }

    #[tokio::test]
    async fn a_program_tells_by_its_exit_code_in_its_time() {
        let look = async |script: &str| {
            let text = format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\ntime_limit_s = 1\n");
            node(&text).look().await
        };
        assert_eq!((look("exit 0").await, look("exit 1").await), (Some(true), Some(false)));
        assert_eq!((look("exit 2").await, look("sleep 9").await), (None, None));
    }

    #[test]
    fn what_cannot_be_watched_is_named() {
        for (text, what) in [
            ("every_s = 5\n", "needs a command or a file"),
            ("file = \"/x\"\ncommand = [\"/y\"]\n", "and not both"),
            ("file = \"x\"\nactive = \"A\"\n", ".file must be an absolute path"),
            ("file = \"/x\"\n", ".active is missing"),
            ("command = [\"y\"]\n", "whole path"),
            ("command = [\"/y\"]\nactive = \"A\"\n", "exit code"),
            ("command = [\"/y\"]\ntime_limit_s = 61\n", ".time_limit_s"),
            ("command = [\"/y\"]\nevery_s = 0\n", ".every_s"),
        ] {
            let all = BTreeMap::from([("gw-1".parse().unwrap(), node(text))]);
            let said = NodeConfig::check(&all).unwrap_err();
            assert!(said.starts_with("pairs.gw-1") && said.contains(what), "{text:?}: {said}");
        }
    }

    #[test]
    fn what_counts_survives_a_restart_for_the_devices_that_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let watched = |name: &str| BTreeMap::from([(name.parse().unwrap(), node("command = [\"/y\"]\n"))]);
        let gw: ObjectName = "gw-1".parse().unwrap();
        let nodes = Nodes::load(&store, &watched("gw-1"));
        nodes.set(&store, &gw, Settled { active: false, since: at(5) });
        assert!(nodes.stands_by(&gw));
        let again = Nodes::load(&store, &watched("gw-1")).told();
        assert_eq!(again, [NodeSeen { device: "gw-1".to_owned(), active: false, since: at(5) }]);
        assert!(Nodes::load(&store, &watched("gw-2")).told().is_empty());
    }
}
