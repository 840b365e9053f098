//! Which tenants have series of their own.
//!
//! Pure. The cost of the metrics must not grow with the number of tenants: only the oldest tenants, up to a limit, are
//! named; all others are counted together under [`OTHERS`]. Age decides, so that all replicas name the same tenants and
//! a new tenant never takes an older one's place.

use std::collections::{BTreeMap, BTreeSet};

use trustfleet_model::ids::TenantId;

/// Label of all tenants that have no series of their own; parentheses cannot be in a name.
pub const OTHERS: &str = "(others)";

/// The tenants that are named, and whether there are more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLabels {
    limit: usize,
    named: BTreeMap<TenantId, String>,
    others: bool,
}

impl TenantLabels {
    /// No tenant is known yet; `limit` of them can be named.
    pub const fn none(limit: usize) -> Self {
        Self { limit, named: BTreeMap::new(), others: false }
    }

    /// Names the first `limit` of `oldest_first`; one more is enough to show that there are others.
    pub fn of(limit: usize, oldest_first: impl IntoIterator<Item = (TenantId, String)>) -> Self {
        let mut tenants = oldest_first.into_iter();
        let named = tenants.by_ref().take(limit).collect();
        Self { limit, named, others: tenants.next().is_some() }
    }

    /// How many tenants can be named.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a tenant came after the labels were made and could have a name: they should be made anew.
    pub fn lack(&self, id: TenantId) -> bool {
        self.named.len() < self.limit && !self.named.contains_key(&id)
    }

    /// The named tenants.
    pub fn ids(&self) -> impl Iterator<Item = TenantId> {
        self.named.keys().copied()
    }

    /// The label of a named tenant; that of all others for everybody else.
    pub fn label(&self, id: Option<TenantId>) -> &str {
        id.and_then(|id| self.named.get(&id)).map_or(OTHERS, String::as_str)
    }

    /// Every label that has series now.
    pub fn all(&self) -> BTreeSet<&str> {
        self.named.values().map(String::as_str).chain(self.others.then_some(OTHERS)).collect()
    }

    /// Labels of `self` that `newer` does not have: their series go.
    pub fn gone_in<'a>(&'a self, newer: &Self) -> Vec<&'a str> {
        let stay = newer.all();
        self.all().into_iter().filter(|label| !stay.contains(label)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> TenantId {
        TenantId::from(uuid::Uuid::from_u128(n))
    }

    fn tenants(names: &[&str]) -> Vec<(TenantId, String)> {
        (1..).zip(names).map(|(n, name)| (id(n), (*name).to_owned())).collect()
    }

    #[test]
    fn the_oldest_tenants_are_named_and_all_others_share_one_label() {
        let labels = TenantLabels::of(2, tenants(&["acme", "beta", "coyote"]));
        assert_eq!(labels.all(), BTreeSet::from(["acme", "beta", OTHERS]));
        assert_eq!(labels.label(Some(id(1))), "acme");
        assert_eq!(labels.label(Some(id(3))), OTHERS);
        assert_eq!(labels.label(None), OTHERS);
        assert_eq!(labels.ids().collect::<Vec<_>>(), [id(1), id(2)]);
    }

    #[test]
    fn there_are_no_others_while_everybody_has_a_name() {
        assert_eq!(TenantLabels::of(2, tenants(&["acme", "beta"])).all(), BTreeSet::from(["acme", "beta"]));
        assert!(TenantLabels::none(2).all().is_empty());
    }

    #[test]
    fn a_limit_of_zero_names_nobody() {
        let labels = TenantLabels::of(0, tenants(&["acme"]));
        assert_eq!(labels.all(), BTreeSet::from([OTHERS]));
        assert_eq!(labels.label(Some(id(1))), OTHERS);
    }

    #[test]
    fn a_tenant_that_came_since_is_noticed_while_there_is_room_for_its_name() {
        let labels = TenantLabels::of(2, tenants(&["acme"]));
        assert!(labels.lack(id(2)));
        assert!(!labels.lack(id(1)));
        assert!(!TenantLabels::of(2, tenants(&["acme", "beta"])).lack(id(3)), "there is no room");
        assert!(!TenantLabels::none(0).lack(id(1)));
    }

    #[test]
    fn a_tenant_that_vanished_is_told_so_that_its_series_go() {
        let before = TenantLabels::of(2, tenants(&["acme", "beta", "coyote"]));
        let after = TenantLabels::of(2, [(id(1), "acme".to_owned()), (id(3), "coyote".to_owned())]);
        assert_eq!(before.gone_in(&after), [OTHERS, "beta"]);
        assert!(after.gone_in(&after.clone()).is_empty());
    }
}
