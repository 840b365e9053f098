//! What the controller tells Prometheus.
//!
//! Names stand in `families`, the values of labels in [`labels`] and, for tenants, in [`tenants`]: nothing that a
//! device, a CA or a caller says becomes a label. What can be enumerated exists at zero from the start, so that the
//! first event of a kind shows as an increase.
//!
//! Gauges about the fleet are set in the background ([`Metrics::set_stats`]): the cost of a scrape does not grow with
//! the fleet.

mod families;
pub mod fleet;
pub mod labels;
mod memory;
pub mod tenants;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus::{Encoder as _, TextEncoder};
use trustfleet_model::{ids::TenantId, job::RequestKind, service::ServiceResult};

use self::{families::Families, memory::ActorMemory, tenants::TenantLabels};
pub use self::{
    fleet::{PoolUse, TenantCount},
    labels::{
        ConnectionRole, ConnectionState, CutOffOutcome, Denial, DoorRefusal, ExchangeResult, FailInfo, LastSeen,
        LeaseOutcome, LetterLoss, OTHER_OPERATION, PublishOutcome, Refusal, Renewal, RenewalOutcome, StatusClass,
        TimeLeft, TxOutcome,
    },
};
use crate::{
    db::{Chore, Stats},
    device::JobKind,
};

/// All metrics of a controller.
pub struct Metrics {
    families: Families,
    tenants: Mutex<Tenants>,
    actor_memory: Mutex<ActorMemory>,
}

/// Which tenants have series.
#[derive(Debug)]
struct Tenants {
    labels: TenantLabels,
    /// Tenants were named since the last count came in: the next one may have begun before they were there.
    named_since_count: bool,
}

impl Tenants {
    /// Whether a tenant that has series is not among `others`: it has vanished, or they were read before it came.
    fn miss_any_in(&self, others: &TenantLabels) -> bool {
        let known: BTreeSet<_> = others.ids().collect();
        self.labels.ids().any(|id| !known.contains(&id))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Measures one transaction.
#[derive(Debug)]
pub(crate) struct TxTimer<'a> {
    metrics: &'a Metrics,
    name: &'static str,
    start: Instant,
}

impl TxTimer<'_> {
    pub(crate) fn finish(self, outcome: TxOutcome) {
        let families = &self.metrics.families;
        families.transactions.with_label_values(&[self.name, outcome.as_str()]).inc();
        families.transaction_seconds.with_label_values(&[self.name]).observe(self.start.elapsed().as_secs_f64());
    }
}

impl Metrics {
    /// Registers everything, and sets everything that can be counted to zero; `tenants_max` tenants are named.
    ///
    /// # Errors
    /// Two metrics of the same name: a fault of ours.
    pub fn new(tenants_max: usize) -> Result<Self, prometheus::Error> {
        let tenants = Tenants { labels: TenantLabels::none(tenants_max), named_since_count: false };
        let metrics =
            Self { families: Families::register()?, tenants: Mutex::new(tenants), actor_memory: Mutex::default() };
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        let families = &self.families;
        for outcome in PublishOutcome::ALL {
            families.published.with_label_values(&[outcome.as_str()]);
        }
        for reason in Refusal::ALL {
            families.reports_refused.with_label_values(&[reason.as_str()]);
            families.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for chore in Chore::ALL {
            families.housekeeping.with_label_values(&[chore.as_str()]);
        }
        for cause in LetterLoss::ALL {
            families.dead_letters_lost.with_label_values(&[cause.as_str()]);
        }
        for reason in DoorRefusal::ALL {
            families.door_refusals.with_label_values(&[reason.as_str()]);
        }
        for kind in Denial::ALL {
            families.broker_denials.with_label_values(&[kind.as_str()]);
        }
        for outcome in RenewalOutcome::ALL {
            families.renewals.with_label_values(&[outcome.as_str()]);
        }
        for outcome in LeaseOutcome::ALL {
            families.leases.with_label_values(&[outcome.as_str()]);
        }
        for result in ExchangeResult::all() {
            families.autonomous.with_label_values(&[result.as_str()]);
        }
        for result in ServiceResult::ALL {
            families.services.with_label_values(&[result.as_str()]);
        }
        for outcome in CutOffOutcome::ALL {
            families.cut_offs.with_label_values(&[outcome.as_str()]);
        }
        for kind in JobKind::ALL {
            families.job_seconds.with_label_values(&[kind.as_str()]);
        }
        for role in ConnectionRole::ALL {
            self.set_pool(*role, PoolUse::default());
        }
    }

    /// The metrics in Prometheus' text format, and its content type.
    ///
    /// # Errors
    /// The encoder's own.
    pub fn render(&self) -> Result<(String, String), prometheus::Error> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        encoder.encode(&self.families.registry.gather(), &mut text)?;
        Ok((String::from_utf8_lossy(&text).into_owned(), encoder.format_type().to_owned()))
    }

    /// Sets the gauges about the fleet. Series of tenants that are there no more go.
    ///
    /// Counts come one after the other. One that misses tenants which were named while it ran takes no series away: the
    /// next begins after they were named, and tells whether they have vanished.
    pub(crate) fn set_stats(&self, stats: &Stats) {
        let mut tenants = self.tenants();
        let families = &self.families;
        let may_be_older = std::mem::take(&mut tenants.named_since_count) && tenants.miss_any_in(&stats.labels);
        if !may_be_older {
            for gone in tenants.labels.gone_in(&stats.labels) {
                families.forget_tenant(gone);
            }
            tenants.labels.clone_from(&stats.labels);
        }
        let nothing = TenantCount::default();
        for label in stats.labels.all() {
            families.set_tenant(label, stats.tenants.get(label).unwrap_or(&nothing));
        }
        families.outbox.set(stats.outbox);
        families.outbox_held.set(stats.outbox_held);
        families.outbox_age.set(stats.outbox_age_s);
        families.audit_unchained_age.set(stats.audit_unchained_age_s);
        for reason in Refusal::ALL {
            let letters = stats.dead_letters.get(reason.as_str()).copied().unwrap_or_default();
            families.dead_letters.with_label_values(&[reason.as_str()]).set(letters);
        }
        families.fleet_counted.set(seconds(stats.counted_at));
    }

    /// Whether a tenant is newer than the last count and would be named by a new one; then how many can be named.
    pub(crate) fn lacks_tenant(&self, tenant: TenantId) -> Option<usize> {
        let tenants = self.tenants();
        tenants.labels.lack(tenant).then(|| tenants.labels.limit())
    }

    /// Names tenants that came since the last count. Labels that miss a tenant with series are passed over: they were
    /// read before another's, or the next count tells that it has vanished.
    pub(crate) fn name_tenants(&self, labels: TenantLabels) {
        let mut tenants = self.tenants();
        if tenants.miss_any_in(&labels) {
            return;
        }
        for label in tenants.labels.gone_in(&labels) {
            self.families.forget_tenant(label);
        }
        for label in labels.all() {
            self.families.start_tenant(label);
        }
        *tenants = Tenants { labels, named_since_count: true };
    }

    /// An exchange with a CA has ended; `reasons`: the CA's, where it refused.
    pub(crate) fn exchange_ended(
        &self,
        tenant: TenantId,
        kind: RequestKind,
        result: ExchangeResult,
        reasons: &[FailInfo],
    ) {
        let tenants = self.tenants();
        let label = tenants.labels.label(Some(tenant));
        self.families.exchanges.with_label_values(&[label, kind.as_str(), result.as_str()]).inc();
        for reason in reasons {
            self.families.refusals.with_label_values(&[label, reason.as_str()]).inc();
        }
    }

    /// A job has ended that was accepted so long ago.
    pub(crate) fn job_ended(&self, kind: JobKind, after: jiff::SignedDuration) {
        self.families.job_seconds.with_label_values(&[kind.as_str()]).observe(after.as_secs_f64().max(0.0));
    }

    /// Makes the series of these operations, and of [`OTHER_OPERATION`], exist at zero: those of answers as they should
    /// be, and of those that an alert counts.
    pub(crate) fn expect_operations(&self, operations: impl Iterator<Item = &'static str>) {
        for operation in operations.chain([OTHER_OPERATION]) {
            for class in [StatusClass::Success, StatusClass::ServersFault] {
                self.families.http_seconds.with_label_values(&[operation, class.as_str()]);
            }
        }
    }

    /// A request was answered.
    pub(crate) fn http_answered(&self, operation: &'static str, status: u16, after: Duration) {
        let labels = [operation, StatusClass::of(status).as_str()];
        self.families.http_seconds.with_label_values(&labels).observe(after.as_secs_f64());
    }

    /// What the connections of a role are doing.
    pub(crate) fn set_pool(&self, role: ConnectionRole, pool: PoolUse) {
        let gauge =
            |state: ConnectionState| self.families.db_connections.with_label_values(&[role.as_str(), state.as_str()]);
        gauge(ConnectionState::Idle).set(whole(pool.idle));
        gauge(ConnectionState::InUse).set(whole(pool.in_use));
        self.families.db_connections_max.with_label_values(&[role.as_str()]).set(whole(pool.max));
    }

    pub(crate) fn set_actors(&self, actors: usize) {
        self.families.actors.set(whole(actors));
        if let Some(resident) = memory::resident_bytes() {
            let of_each = self.actor_memory.lock().unwrap_or_else(PoisonError::into_inner).of_each(actors, resident);
            self.families.actor_bytes.set(i64::try_from(of_each).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn set_broker_connected(&self, connected: bool) {
        self.families.broker_connected.set(connected.into());
    }

    /// End of the API's own certificate, where it has one, and whether newer files were refused.
    pub(crate) fn set_api_certificate(&self, not_after: Option<jiff::Timestamp>, refused: bool) {
        let end = not_after.map_or(f64::INFINITY, |end| end.as_duration().as_secs_f64());
        self.families.api_certificate_not_after.set(end);
        self.families.api_certificate_refused.set(i64::from(refused));
    }

    pub(crate) fn published(&self, outcome: PublishOutcome) {
        self.families.published.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn key_conflict(&self) {
        self.families.key_conflicts.inc();
    }

    pub(crate) fn renewal(&self, outcome: RenewalOutcome) {
        self.families.renewals.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn lease(&self, outcome: LeaseOutcome) {
        self.families.leases.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A renewal that its agent had begun by itself has ended.
    pub(crate) fn autonomous(&self, result: ExchangeResult) {
        self.families.autonomous.with_label_values(&[result.as_str()]).inc();
    }

    pub(crate) fn service(&self, result: ServiceResult) {
        self.families.services.with_label_values(&[result.as_str()]).inc();
    }

    pub(crate) fn report_refused(&self, reason: Refusal) {
        self.families.reports_refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn removed(&self, chore: Chore, count: u64) {
        self.families.housekeeping.with_label_values(&[chore.as_str()]).inc_by(count);
    }

    pub(crate) fn letters_lost(&self, cause: LetterLoss, letters: u64) {
        self.families.dead_letters_lost.with_label_values(&[cause.as_str()]).inc_by(letters);
    }

    pub(crate) fn door_refused(&self, reason: DoorRefusal) {
        self.families.door_refusals.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn cut_off(&self, outcome: CutOffOutcome) {
        self.families.cut_offs.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn broker_denied(&self, kind: Denial) {
        self.families.broker_denials.with_label_values(&[kind.as_str()]).inc();
    }

    pub(crate) fn agent_lives_twice(&self) {
        self.families.live_twice.inc();
    }

    pub(crate) fn commit_batch(&self, decisions: usize) {
        self.families.commit_batch.observe(u32::try_from(decisions).map_or(f64::MAX, f64::from));
    }

    pub(crate) fn version_conflict(&self) {
        self.families.version_conflicts.inc();
    }

    pub(crate) fn mailbox_was_full(&self) {
        self.families.mailboxes_full.inc();
    }

    pub(crate) fn actor_activated(&self) {
        self.families.actors_activated.inc();
    }

    pub(crate) fn tx_timer(&self, name: &'static str) -> TxTimer<'_> {
        // Their first failure must show as an increase.
        for outcome in TxOutcome::ALL {
            self.families.transactions.with_label_values(&[name, outcome.as_str()]);
        }
        self.families.transaction_retries.with_label_values(&[name]);
        TxTimer { metrics: self, name, start: Instant::now() }
    }

    pub(crate) fn tx_retried(&self, name: &'static str) {
        self.families.transaction_retries.with_label_values(&[name]).inc();
    }

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trustfleet_model::job::Culprit;

    use super::*;

    fn id(n: u128) -> TenantId {
        TenantId::from(uuid::Uuid::from_u128(n))
    }

    fn assert_tells(metrics: &Metrics, lines: &[&str]) {
        let (text, _) = metrics.render().unwrap();
        for line in lines {
            assert!(text.lines().any(|told| told == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_can_be_enumerated_without_a_tenant_exists_at_zero_from_the_start() {
        let metrics = Metrics::new(100).unwrap();
        metrics.expect_operations(["job_list"].into_iter());
        let lines = [
            "trustfleet_reports_refused_total{reason=\"not_authentic\"} 0",
            "trustfleet_jobs_published_total{outcome=\"undeliverable\"} 0",
            "trustfleet_job_seconds_count{kind=\"activate\"} 0",
            "trustfleet_http_request_seconds_count{operation=\"job_list\",status=\"5xx\"} 0",
            "trustfleet_http_request_seconds_count{operation=\"other\",status=\"2xx\"} 0",
            "trustfleet_db_connections{role=\"system\",state=\"in_use\"} 0",
            "trustfleet_fleet_counted_timestamp_seconds 0",
        ];
        assert_tells(&metrics, &lines);
    }

    #[test]
    fn what_can_be_enumerated_of_a_tenant_exists_at_zero_from_its_first_count() {
        let metrics = Metrics::new(100).unwrap();
        let labels = TenantLabels::of(100, [(id(1), "acme".to_owned())]);
        let counted_at = Timestamp::from_second(1_800_000_000).unwrap();
        let tenants = BTreeMap::new();
        metrics.set_stats(&Stats {
            counted_at,
            labels,
            tenants,
            outbox: 3,
            outbox_held: 1,
            outbox_age_s: 1.5,
            audit_unchained_age_s: 2.5,
            dead_letters: BTreeMap::new(),
        });
        let lines = [
            "trustfleet_jobs{state=\"awaiting_agent\",tenant=\"acme\"} 0",
            "trustfleet_certificates{slot=\"active\",tenant=\"acme\"} 0",
            "trustfleet_revocations{state=\"wanted\",tenant=\"acme\"} 0",
            "trustfleet_active_certificates{renewal=\"failed\",tenant=\"acme\",time_left=\"expired\"} 0",
            "trustfleet_certificate_nearest_expiry_timestamp_seconds{tenant=\"acme\"} inf",
            "trustfleet_agents{last_seen=\"longer\",tenant=\"acme\"} 0",
            "trustfleet_exchanges_total{kind=\"kur\",result=\"peer_refusal\",tenant=\"acme\"} 0",
            "trustfleet_refusals_total{fail_info=\"duplicateCertReq\",tenant=\"acme\"} 0",
            "trustfleet_outbox_jobs 3",
            "trustfleet_outbox_oldest_age_seconds 1.5",
            "trustfleet_fleet_counted_timestamp_seconds 1800000000",
        ];
        assert_tells(&metrics, &lines);
    }

    #[test]
    fn a_tenant_that_is_newer_than_the_last_count_is_counted_under_its_own_name() {
        let metrics = Metrics::new(1).unwrap();
        assert_eq!(metrics.lacks_tenant(id(1)), Some(1));
        metrics.name_tenants(TenantLabels::of(1, [(id(1), "acme".to_owned()), (id(2), "beta".to_owned())]));
        assert_eq!((metrics.lacks_tenant(id(1)), metrics.lacks_tenant(id(2))), (None, None));
        let failed = ExchangeResult::Failed(Culprit::PeerRefusal);
        metrics.exchange_ended(id(1), RequestKind::Ir, failed, &[FailInfo::BadAlg, FailInfo::BadPop]);
        metrics.exchange_ended(id(2), RequestKind::Ir, ExchangeResult::Issued, &[]);
        let lines = [
            "trustfleet_exchanges_total{kind=\"ir\",result=\"peer_refusal\",tenant=\"acme\"} 1",
            "trustfleet_refusals_total{fail_info=\"badAlg\",tenant=\"acme\"} 1",
            "trustfleet_refusals_total{fail_info=\"badPOP\",tenant=\"acme\"} 1",
            "trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"(others)\"} 1",
        ];
        assert_tells(&metrics, &lines);
    }

    fn named(names: &[&str]) -> TenantLabels {
        TenantLabels::of(100, (1..).zip(names).map(|(n, name)| (id(n), (*name).to_owned())))
    }

    fn counted(names: &[&str]) -> Stats {
        let counted_at = Timestamp::from_second(1_800_000_000).unwrap();
        let tenants = BTreeMap::new();
        Stats {
            counted_at,
            labels: named(names),
            tenants,
            outbox: 0,
            outbox_held: 0,
            outbox_age_s: 0.0,
            audit_unchained_age_s: 0.0,
            dead_letters: BTreeMap::new(),
        }
    }

    #[test]
    fn a_count_that_began_before_a_tenant_was_named_takes_no_series_from_it_but_the_next_one_may() {
        let metrics = Metrics::new(100).unwrap();
        let issued = "trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"beta\"} 1";
        metrics.set_stats(&counted(&["acme"]));
        metrics.name_tenants(named(&["acme", "beta"]));
        metrics.exchange_ended(id(2), RequestKind::Ir, ExchangeResult::Issued, &[]);
        metrics.set_stats(&counted(&["acme"]));
        assert_tells(&metrics, &[issued]);
        assert_eq!(metrics.lacks_tenant(id(2)), None);
        metrics.set_stats(&counted(&["acme", "beta"]));
        assert_tells(&metrics, &[issued, "trustfleet_jobs{state=\"failed\",tenant=\"beta\"} 0"]);
        // Nobody was named since: it has vanished.
        metrics.set_stats(&counted(&["acme"]));
        assert!(!metrics.render().unwrap().0.contains("beta"));
    }

    #[test]
    fn tenants_that_were_read_before_another_was_named_take_no_series_from_it() {
        let metrics = Metrics::new(100).unwrap();
        metrics.name_tenants(named(&["acme", "beta"]));
        metrics.exchange_ended(id(2), RequestKind::Ir, ExchangeResult::Issued, &[]);
        metrics.name_tenants(named(&["acme"]));
        assert_tells(&metrics, &["trustfleet_exchanges_total{kind=\"ir\",result=\"issued\",tenant=\"beta\"} 1"]);
    }

    #[test]
    fn a_transactions_first_failure_shows_as_an_increase() {
        let metrics = Metrics::new(1).unwrap();
        metrics.tx_timer("outbox_claim").finish(TxOutcome::Committed);
        let lines = [
            "trustfleet_db_transactions_total{name=\"outbox_claim\",outcome=\"committed\"} 1",
            "trustfleet_db_transactions_total{name=\"outbox_claim\",outcome=\"gave_up\"} 0",
            "trustfleet_db_transaction_retries_total{name=\"outbox_claim\"} 0",
        ];
        assert_tells(&metrics, &lines);
    }
}
