//! Every metric's name, unit and labels; label values come from enums, counters exist at zero from the start.
//!
//! Gauges about the fleet are set in the background ([`Metrics::set_stats`]): the cost of a scrape does not grow with
//! the fleet.

use std::{fmt, time::Instant};

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};
use trustfleet_model::{
    certificate::Slot,
    job::{Culprit, JobState, RequestKind},
};

use crate::db::Stats;

/// How a database transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// Committed.
    Committed,
    /// Given up by our own decision, or refused by the database.
    RolledBack,
    /// Lost too many races, or the connection.
    GaveUp,
}

impl TxOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::GaveUp => "gave_up",
        }
    }
}

/// What became of a message to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// In the agent's queue.
    Confirmed,
    /// The agent has no queue yet.
    Returned,
    /// Not confirmed; it will be sent again.
    Failed,
    /// It can never be sent.
    Undeliverable,
}

impl PublishOutcome {
    const ALL: [Self; 4] = [Self::Confirmed, Self::Returned, Self::Failed, Self::Undeliverable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Failed => "failed",
            Self::Undeliverable => "undeliverable",
        }
    }
}

/// Why an agent's message was laid aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not an envelope, or not a payload.
    Unreadable,
    /// Of a version that this program does not know.
    UnknownVersion,
    /// From an agent that is not registered.
    UnknownAgent,
    /// The signature does not fit.
    NotAuthentic,
    /// About a job or device that does not exist.
    UnknownJob,
    /// About a job of another agent, device or trustpoint.
    ForeignJob,
    /// About something that its job cannot lead to.
    WrongKind,
}

impl Refusal {
    /// All reasons, for counters that must exist at zero.
    pub const ALL: [Self; 7] = [
        Self::Unreadable,
        Self::UnknownVersion,
        Self::UnknownAgent,
        Self::NotAuthentic,
        Self::UnknownJob,
        Self::ForeignJob,
        Self::WrongKind,
    ];

    /// The word in metrics and in the dead letter's header `x-reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownAgent => "unknown_agent",
            Self::NotAuthentic => "not_authentic",
            Self::UnknownJob => "unknown_job",
            Self::ForeignJob => "foreign_job",
            Self::WrongKind => "wrong_kind",
        }
    }
}

/// How an exchange with a CA ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeResult {
    /// With a certificate.
    Issued,
    /// Without one, and who is to blame.
    Failed(Culprit),
}

impl ExchangeResult {
    fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Issued).chain(Culprit::ALL.into_iter().map(Self::Failed))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Failed(culprit) => culprit.as_str(),
        }
    }
}

/// All metrics of a controller.
pub struct Metrics {
    registry: Registry,
    transactions: IntCounterVec,
    transaction_retries: IntCounterVec,
    transaction_seconds: HistogramVec,
    commit_batch: Histogram,
    version_conflicts: IntCounter,
    mailboxes_full: IntCounter,
    actors_activated: IntCounter,
    actors: IntGauge,
    broker_connected: IntGauge,
    published: IntCounterVec,
    reports_refused: IntCounterVec,
    exchanges: IntCounterVec,
    jobs: IntGaugeVec,
    certificates: IntGaugeVec,
    nearest_expiry: Gauge,
    outbox: IntGauge,
    outbox_age: Gauge,
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
        let metrics = self.metrics;
        metrics.transactions.with_label_values(&[self.name, outcome.as_str()]).inc();
        metrics.transaction_seconds.with_label_values(&[self.name]).observe(self.start.elapsed().as_secs_f64());
    }
}

impl Metrics {
    /// Registers everything, and sets everything that can be counted to zero.
    ///
    /// # Errors
    /// Two metrics of the same name: a fault of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let add = Adder(&registry);
        let metrics = Self {
            transactions: add.counters(
                "trustfleet_db_transactions_total",
                "Database transactions by name and outcome.",
                &["name", "outcome"],
            )?,
            transaction_retries: add.counters(
                "trustfleet_db_transaction_retries_total",
                "Repeated runs of database transactions by name.",
                &["name"],
            )?,
            transaction_seconds: add.add(HistogramVec::new(
                HistogramOpts::new("trustfleet_db_transaction_seconds", "Time of database transactions by name.")
                    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
                &["name"],
            )?)?,
            commit_batch: add.add(Histogram::with_opts(
                HistogramOpts::new("trustfleet_group_commit_decisions", "Decisions in one group commit.")
                    .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            )?)?,
            version_conflicts: add.add(IntCounter::new(
                "trustfleet_device_version_conflicts_total",
                "Decisions made anew because another replica or request had changed the device.",
            )?)?,
            mailboxes_full: add.add(IntCounter::new(
                "trustfleet_device_mailbox_full_total",
                "Commands refused because a device was busy.",
            )?)?,
            actors_activated: add.add(IntCounter::new(
                "trustfleet_device_actors_activated_total",
                "Device actors brought into memory.",
            )?)?,
            actors: add.gauge("trustfleet_device_actors", "Device actors in memory.")?,
            broker_connected: add.gauge("trustfleet_broker_connected", "1 while the broker can be reached.")?,
            published: add.counters(
                "trustfleet_jobs_published_total",
                "Job messages by what became of them.",
                &["outcome"],
            )?,
            reports_refused: add.counters(
                "trustfleet_reports_refused_total",
                "Messages of agents that were laid aside, by reason.",
                &["reason"],
            )?,
            exchanges: add.counters(
                "trustfleet_exchanges_total",
                "Exchanges with CAs by kind of the request and result; a failure names who is to blame.",
                &["kind", "result"],
            )?,
            jobs: add.gauges("trustfleet_jobs", "Jobs by state.", "state")?,
            certificates: add.gauges(
                "trustfleet_certificates",
                "Certificates by place on their trustpoint.",
                "slot",
            )?,
            nearest_expiry: add.add(Gauge::new(
                "trustfleet_certificate_nearest_expiry_timestamp_seconds",
                "First end of a certificate in use, seconds since 1970; +Inf: none is in use.",
            )?)?,
            outbox: add.gauge("trustfleet_outbox_jobs", "Jobs that wait to be published.")?,
            outbox_age: add.add(Gauge::new(
                "trustfleet_outbox_oldest_age_seconds",
                "Age of the job that waits longest to be published.",
            )?)?,
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        for outcome in PublishOutcome::ALL {
            self.published.with_label_values(&[outcome.as_str()]);
        }
        for reason in Refusal::ALL {
            self.reports_refused.with_label_values(&[reason.as_str()]);
        }
        for kind in RequestKind::ALL {
            for result in ExchangeResult::all() {
                self.exchanges.with_label_values(&[kind.as_str(), result.as_str()]);
            }
        }
        self.set_stats(&Stats::default());
    }

    /// The metrics in Prometheus' text format, and its content type.
    ///
    /// # Errors
    /// The encoder's own.
    pub fn render(&self) -> Result<(String, String), prometheus::Error> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        Ok((String::from_utf8_lossy(&text).into_owned(), encoder.format_type().to_owned()))
    }

    /// Sets the gauges about the fleet.
    pub(crate) fn set_stats(&self, stats: &Stats) {
        let count = |pairs: &[(String, i64)], word: &str| {
            pairs.iter().find(|(found, _)| found == word).map_or(0, |(_, count)| *count)
        };
        for state in JobState::ALL {
            self.jobs.with_label_values(&[state.as_str()]).set(count(&stats.jobs, state.as_str()));
        }
        for slot in Slot::ALL {
            self.certificates.with_label_values(&[slot.as_str()]).set(count(&stats.certificates, slot.as_str()));
        }
        let seconds = |at: jiff::Timestamp| at.as_duration().as_secs_f64();
        self.nearest_expiry.set(stats.nearest_expiry.map_or(f64::INFINITY, seconds));
        self.outbox.set(stats.outbox);
        self.outbox_age.set(stats.outbox_age_s);
    }

    pub(crate) fn set_actors(&self, actors: usize) {
        self.actors.set(i64::try_from(actors).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_broker_connected(&self, connected: bool) {
        self.broker_connected.set(connected.into());
    }

    pub(crate) fn published(&self, outcome: PublishOutcome) {
        self.published.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn report_refused(&self, reason: Refusal) {
        self.reports_refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn exchange_ended(&self, kind: RequestKind, result: ExchangeResult) {
        self.exchanges.with_label_values(&[kind.as_str(), result.as_str()]).inc();
    }

    pub(crate) fn commit_batch(&self, decisions: usize) {
        self.commit_batch.observe(u32::try_from(decisions).map_or(f64::MAX, f64::from));
    }

    pub(crate) fn version_conflict(&self) {
        self.version_conflicts.inc();
    }

    pub(crate) fn mailbox_was_full(&self) {
        self.mailboxes_full.inc();
    }

    pub(crate) fn actor_activated(&self) {
        self.actors_activated.inc();
    }

    pub(crate) fn tx_timer(&self, name: &'static str) -> TxTimer<'_> {
        TxTimer { metrics: self, name, start: Instant::now() }
    }

    pub(crate) fn tx_retried(&self, name: &'static str) {
        self.transaction_retries.with_label_values(&[name]).inc();
    }
}

/// Makes and registers in one step.
struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn add<T: Collector + Clone + 'static>(&self, metric: T) -> Result<T, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_slot_and_result_exists_at_zero_from_the_start() {
        let (text, _) = Metrics::new().unwrap().render().unwrap();
        for line in [
            "trustfleet_jobs{state=\"awaiting_agent\"} 0",
            "trustfleet_certificates{slot=\"active\"} 0",
            "trustfleet_exchanges_total{kind=\"ir\",result=\"issued\"} 0",
            "trustfleet_exchanges_total{kind=\"kur\",result=\"peer_refusal\"} 0",
            "trustfleet_reports_refused_total{reason=\"not_authentic\"} 0",
            "trustfleet_certificate_nearest_expiry_timestamp_seconds inf",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
