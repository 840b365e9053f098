//! Roots that follow trust anchors of orders, as CAs told: said in every hello until the orders have them, and trusted by
//! nobody here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use trustfleet_model::ids::TrustpointId;
use trustfleet_wire::v1::RootOffered;

/// Most roots in a hello.
const TOLD_MAX: usize = 8;

/// What was found, by trustpoint; kept on the disk with what is looked after ([`crate::upkeep`]).
#[derive(Debug, Default)]
pub struct FollowingRoots {
    found: Mutex<BTreeMap<TrustpointId, Vec<RootOffered>>>,
    changes: watch::Sender<u64>,
}

impl FollowingRoots {
    /// What a hello says: each root once.
    pub fn told(&self) -> Vec<RootOffered> {
        told(&self.found())
    }

    /// To be told of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What was found for a trustpoint.
    pub fn set(&self, trustpoint: TrustpointId, roots: Vec<RootOffered>) {
        let changed = {
            let mut found = self.found();
            let before = told(&found);
            if roots.is_empty() {
                found.remove(&trustpoint);
            } else {
                found.insert(trustpoint, roots);
            }
            told(&found) != before
        };
        if changed {
            self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<TrustpointId, Vec<RootOffered>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gateway has the same CA at a thousand trustpoints.
fn told(found: &BTreeMap<TrustpointId, Vec<RootOffered>>) -> Vec<RootOffered> {
    let mut told: Vec<RootOffered> = Vec::new();
    for offered in found.values().flatten() {
        if told.len() < TOLD_MAX && !told.iter().any(|known| known.root == offered.root) {
            told.push(offered.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use trustfleet_wire::v1::Blob;

    use super::*;

    #[test]
    fn a_root_is_told_once_however_many_trustpoints_have_its_ca_and_changes_are_news() {
        let roots = FollowingRoots::default();
        let mut news = roots.changes();
        let id = |n: u128| TrustpointId::from(uuid::Uuid::from_u128(n));
        let offered = |n: u128, root: u8| RootOffered {
            trustpoint_id: id(n),
            root: Blob(vec![root]),
            with_old: Blob(vec![root, 1]),
        };
        for n in 1..=20 {
            roots.set(id(n), vec![offered(n, 1)]);
        }
        assert_eq!(roots.told(), [offered(1, 1)]);
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        roots.set(id(7), vec![offered(7, 1)]);
        assert!(!news.has_changed().unwrap(), "nothing new");
        for n in 1..=20 {
            roots.set(id(n), Vec::new());
        }
        assert!(roots.told().is_empty() && news.has_changed().unwrap());
        for n in 1..=20 {
            roots.set(id(n), vec![offered(n, u8::try_from(n).unwrap())]);
        }
        assert_eq!(roots.told().len(), TOLD_MAX);
    }
}
