//! Every metric's name, unit and labels; label values come from enums, counters exist at zero from the start.

use std::{fmt, time::Instant};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// How a database transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// Committed.
    Committed,
    /// Given up by our own decision.
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
    broker_connected: IntGauge,
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
    /// Registers everything.
    ///
    /// # Errors
    /// Two metrics of the same name: a fault of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let transactions = IntCounterVec::new(
            Opts::new("trustfleet_db_transactions_total", "Database transactions by name and outcome."),
            &["name", "outcome"],
        )?;
        let transaction_retries = IntCounterVec::new(
            Opts::new("trustfleet_db_transaction_retries_total", "Repeated runs of database transactions, by name."),
            &["name"],
        )?;
        let transaction_seconds = HistogramVec::new(
            HistogramOpts::new("trustfleet_db_transaction_seconds", "Time of database transactions by name.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
            &["name"],
        )?;
        let commit_batch = Histogram::with_opts(
            HistogramOpts::new("trustfleet_group_commit_decisions", "Decisions in one group commit.")
                .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
        )?;
        let version_conflicts = IntCounter::new(
            "trustfleet_device_version_conflicts_total",
            "Decisions made anew because another replica or request had changed the device.",
        )?;
        let mailboxes_full =
            IntCounter::new("trustfleet_device_mailbox_full_total", "Commands refused because a device was busy.")?;
        let actors_activated =
            IntCounter::new("trustfleet_device_actors_activated_total", "Device actors brought into memory.")?;
        let broker_connected = IntGauge::new("trustfleet_broker_connected", "1 while the broker can be reached.")?;
        registry.register(Box::new(commit_batch.clone()))?;
        registry.register(Box::new(version_conflicts.clone()))?;
        registry.register(Box::new(mailboxes_full.clone()))?;
        registry.register(Box::new(actors_activated.clone()))?;
        registry.register(Box::new(broker_connected.clone()))?;
        registry.register(Box::new(transactions.clone()))?;
        registry.register(Box::new(transaction_retries.clone()))?;
        registry.register(Box::new(transaction_seconds.clone()))?;
        Ok(Self {
            registry,
            transactions,
            transaction_retries,
            transaction_seconds,
            commit_batch,
            version_conflicts,
            mailboxes_full,
            actors_activated,
            broker_connected,
        })
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

    pub(crate) fn tx_timer(&self, name: &'static str) -> TxTimer<'_> {
        TxTimer { metrics: self, name, start: Instant::now() }
    }

    pub(crate) fn set_broker_connected(&self, connected: bool) {
        self.broker_connected.set(connected.into());
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

    pub(crate) fn tx_retried(&self, name: &'static str) {
        self.transaction_retries.with_label_values(&[name]).inc();
    }
}
