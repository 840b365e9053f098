//! The numbers of the fleet on their way from the database to the gauges, and the series of one tenant.

use jiff::Timestamp;
use trustfleet_model::{
    certificate::Slot,
    job::{JobState, RequestKind},
    revocation::RevocationState,
    rollover::AnchorState,
};

use crate::campaign::CampaignState;

use super::{
    families::Families,
    labels::{ExchangeResult, FailInfo, LastSeen, Renewal, TimeLeft},
    seconds,
};

/// How much there is of a tenant's, or of all those that share a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantCount {
    /// Jobs by state, in the words of column `jobs.state`; those that have ended only if they did lately.
    pub jobs: Vec<(String, i64)>,
    /// Certificates by slot, in the words of column `certificates.slot`.
    pub certificates: Vec<(String, i64)>,
    /// Certificates that have not ended by how far their revocation is, in the words of column `certificates.revocation`.
    pub revocations: Vec<(String, i64)>,
    /// Certificates in use.
    pub active: Vec<(TimeLeft, Renewal, i64)>,
    /// The first end of a certificate in use.
    pub nearest_expiry: Option<Timestamp>,
    /// Agents.
    pub agents: Vec<(LastSeen, i64)>,
    /// Agents whose device's clock is wrong.
    pub wrong_clocks: i64,
    /// Campaigns by state, in the words of column `campaigns.state`.
    pub campaigns: Vec<(String, i64)>,
    /// Certificates in use that may end before they are renewed, and those that have ended.
    pub at_risk: i64,
    /// Trustpoints of open roll-overs by how far they are with the next anchors, in the words of the model.
    pub anchors: Vec<(String, i64)>,
}

impl TenantCount {
    /// Jobs in a state.
    pub fn jobs_in(&self, state: JobState) -> i64 {
        sum(&self.jobs, |(word, _)| word == state.as_str(), |(_, count)| *count)
    }

    /// Certificates at a place of their trustpoint.
    pub fn certificates_in(&self, slot: Slot) -> i64 {
        sum(&self.certificates, |(word, _)| word == slot.as_str(), |(_, count)| *count)
    }

    /// Certificates whose revocation is so far.
    pub fn revocations_in(&self, state: RevocationState) -> i64 {
        sum(&self.revocations, |(word, _)| word == state.as_str(), |(_, count)| *count)
    }

    /// Campaigns in a state.
    pub fn campaigns_in(&self, state: CampaignState) -> i64 {
        sum(&self.campaigns, |(word, _)| word == state.as_str(), |(_, count)| *count)
    }

    /// Certificates in use with so much time left and in this state of their renewal.
    pub fn active_in(&self, time_left: TimeLeft, renewal: Renewal) -> i64 {
        sum(&self.active, |(left, state, _)| (*left, *state) == (time_left, renewal), |(_, _, count)| *count)
    }

    /// Agents that were heard of so long ago.
    pub fn agents_in(&self, last_seen: LastSeen) -> i64 {
        sum(&self.agents, |(seen, _)| *seen == last_seen, |(_, count)| *count)
    }
}

fn sum<T>(items: &[T], wanted: impl Fn(&T) -> bool, count: impl Fn(&T) -> i64) -> i64 {
    items.iter().filter(|item| wanted(item)).map(count).sum()
}

/// What a pool of connections to the database is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Open, and nobody uses them.
    pub idle: usize,
    /// A transaction has them.
    pub in_use: usize,
    /// Most that may be open.
    pub max: usize,
}

impl Families {
    /// Sets the gauges of a tenant.
    pub(super) fn set_tenant(&self, tenant: &str, count: &TenantCount) {
        for state in JobState::ALL {
            self.jobs.with_label_values(&[tenant, state.as_str()]).set(count.jobs_in(state));
        }
        for slot in Slot::ALL {
            self.certificates.with_label_values(&[tenant, slot.as_str()]).set(count.certificates_in(slot));
        }
        for state in RevocationState::ALL {
            self.revocations.with_label_values(&[tenant, state.as_str()]).set(count.revocations_in(state));
        }
        for (time_left, renewal) in active() {
            let labels = [tenant, time_left.as_str(), renewal.as_str()];
            self.active_certificates.with_label_values(&labels).set(count.active_in(time_left, renewal));
        }
        self.nearest_expiry.with_label_values(&[tenant]).set(count.nearest_expiry.map_or(f64::INFINITY, seconds));
        for last_seen in LastSeen::ALL {
            self.agents.with_label_values(&[tenant, last_seen.as_str()]).set(count.agents_in(*last_seen));
        }
        self.wrong_clocks.with_label_values(&[tenant]).set(count.wrong_clocks);
        for state in CampaignState::ALL {
            self.campaigns.with_label_values(&[tenant, state.as_str()]).set(count.campaigns_in(state));
        }
        self.at_risk.with_label_values(&[tenant]).set(count.at_risk);
        for state in AnchorState::ALL {
            let in_state = sum(&count.anchors, |(word, _)| word == state.as_str(), |(_, count)| *count);
            self.anchors.with_label_values(&[tenant, state.as_str()]).set(in_state);
        }
        self.start_tenant(tenant);
    }

    /// Makes the counters of a tenant exist at zero.
    pub(super) fn start_tenant(&self, tenant: &str) {
        for (kind, result) in exchanges() {
            self.exchanges.with_label_values(&[tenant, kind.as_str(), result.as_str()]);
        }
        for reason in FailInfo::ALL {
            self.refusals.with_label_values(&[tenant, reason.as_str()]);
        }
    }

    /// Removes all series of a tenant.
    pub(super) fn forget_tenant(&self, tenant: &str) {
        // An error says that the series was not there: nothing to remove.
        for state in JobState::ALL {
            let _ = self.jobs.remove_label_values(&[tenant, state.as_str()]);
        }
        for slot in Slot::ALL {
            let _ = self.certificates.remove_label_values(&[tenant, slot.as_str()]);
        }
        for state in RevocationState::ALL {
            let _ = self.revocations.remove_label_values(&[tenant, state.as_str()]);
        }
        for (time_left, renewal) in active() {
            let _ = self.active_certificates.remove_label_values(&[tenant, time_left.as_str(), renewal.as_str()]);
        }
        let _ = self.nearest_expiry.remove_label_values(&[tenant]);
        let _ = self.wrong_clocks.remove_label_values(&[tenant]);
        for state in CampaignState::ALL {
            let _ = self.campaigns.remove_label_values(&[tenant, state.as_str()]);
        }
        let _ = self.at_risk.remove_label_values(&[tenant]);
        for state in AnchorState::ALL {
            let _ = self.anchors.remove_label_values(&[tenant, state.as_str()]);
        }
        for last_seen in LastSeen::ALL {
            let _ = self.agents.remove_label_values(&[tenant, last_seen.as_str()]);
        }
        for (kind, result) in exchanges() {
            let _ = self.exchanges.remove_label_values(&[tenant, kind.as_str(), result.as_str()]);
        }
        for reason in FailInfo::ALL {
            let _ = self.refusals.remove_label_values(&[tenant, reason.as_str()]);
        }
    }
}

fn active() -> impl Iterator<Item = (TimeLeft, Renewal)> {
    TimeLeft::ALL.iter().flat_map(|time_left| Renewal::ALL.iter().map(|renewal| (*time_left, *renewal)))
}

fn exchanges() -> impl Iterator<Item = (RequestKind, ExchangeResult)> {
    RequestKind::ALL.into_iter().flat_map(|kind| ExchangeResult::all().map(move |result| (kind, result)))
}
