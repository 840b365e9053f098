//! Every metric's name, unit, help and label names. Nothing outside of this file names a metric.
//!
//! `docs/metrics.md` tells operators the same, and tests hold both against each other.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector, process_collector::ProcessCollector,
};

/// Seconds, from half a second to a week: a CA may let a person decide.
const JOB_BUCKETS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];
/// Seconds.
const HTTP_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Seconds.
const TX_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Decisions.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All metrics of a controller.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) jobs: IntGaugeVec,
    pub(super) certificates: IntGaugeVec,
    pub(super) revocations: IntGaugeVec,
    pub(super) active_certificates: IntGaugeVec,
    pub(super) nearest_expiry: GaugeVec,
    pub(super) agents: IntGaugeVec,
    pub(super) wrong_clocks: IntGaugeVec,
    pub(super) campaigns: IntGaugeVec,
    pub(super) at_risk: IntGaugeVec,
    pub(super) anchors: IntGaugeVec,
    pub(super) exchanges: IntCounterVec,
    pub(super) refusals: IntCounterVec,
    pub(super) fleet_counted: Gauge,
    pub(super) job_seconds: HistogramVec,
    pub(super) outbox: IntGauge,
    pub(super) outbox_held: IntGauge,
    pub(super) outbox_age: Gauge,
    pub(super) audit_unchained_age: Gauge,
    pub(super) published: IntCounterVec,
    pub(super) renewals: IntCounterVec,
    pub(super) leases: IntCounterVec,
    pub(super) autonomous: IntCounterVec,
    pub(super) services: IntCounterVec,
    pub(super) reports_refused: IntCounterVec,
    pub(super) dead_letters: IntGaugeVec,
    pub(super) dead_letters_lost: IntCounterVec,
    pub(super) housekeeping: IntCounterVec,
    pub(super) broker_connected: IntGauge,
    pub(super) door_refusals: IntCounterVec,
    pub(super) cut_offs: IntCounterVec,
    pub(super) key_conflicts: IntCounter,
    pub(super) live_twice: IntCounter,
    pub(super) broker_denials: IntCounterVec,
    pub(super) actors: IntGauge,
    pub(super) actor_bytes: IntGauge,
    pub(super) actors_activated: IntCounter,
    pub(super) mailboxes_full: IntCounter,
    pub(super) version_conflicts: IntCounter,
    pub(super) commit_batch: Histogram,
    pub(super) transactions: IntCounterVec,
    pub(super) transaction_retries: IntCounterVec,
    pub(super) transaction_seconds: HistogramVec,
    pub(super) db_connections: IntGaugeVec,
    pub(super) db_connections_max: IntGaugeVec,
    pub(super) http_seconds: HistogramVec,
    pub(super) api_certificate_not_after: Gauge,
    pub(super) api_certificate_refused: IntGauge,
}

impl Families {
    /// Registers everything.
    ///
    /// # Errors
    /// Two metrics of the same name: a fault of this file.
    pub(super) fn register() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let add = Adder(&registry);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        add.gauges("trustfleet_build_info", "1; the version of the controller is a label.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(Self {
            jobs: add.gauges(
                "trustfleet_jobs",
                "Jobs by tenant and state; of those that have ended, only the ones of the last 24 hours.",
                &["tenant", "state"],
            )?,
            certificates: add.gauges(
                "trustfleet_certificates",
                "Certificates by tenant and place on their trustpoint.",
                &["tenant", "slot"],
            )?,
            revocations: add.gauges(
                "trustfleet_revocations",
                "Certificates that have not ended and are to be revoked, by tenant and how far that is.",
                &["tenant", "state"],
            )?,
            active_certificates: add.gauges(
                "trustfleet_active_certificates",
                "Certificates in use by tenant, time left until their end, and state of their renewal.",
                &["tenant", "time_left", "renewal"],
            )?,
            nearest_expiry: add.add(GaugeVec::new(
                Opts::new(
                    "trustfleet_certificate_nearest_expiry_timestamp_seconds",
                    "First end of a tenant's certificates in use, seconds since 1970; +Inf: none is in use.",
                ),
                &["tenant"],
            )?)?,
            agents: add.gauges(
                "trustfleet_agents",
                "Agents by tenant and by how long ago they were heard of.",
                &["tenant", "last_seen"],
            )?,
            wrong_clocks: add.gauges(
                "trustfleet_agents_wrong_clock",
                "Agents whose device's clock differed from the controller's at their last hello, by tenant.",
                &["tenant"],
            )?,
            campaigns: add.gauges(
                "trustfleet_campaigns",
                "Campaigns by tenant and state; stopped: by failures, an operator decides.",
                &["tenant", "state"],
            )?,
            at_risk: add.gauges(
                "trustfleet_certificates_at_risk",
                "Certificates in use that may end before they are renewed, or have ended, by tenant.",
                &["tenant"],
            )?,
            anchors: add.gauges(
                "trustfleet_rollover_trustpoints",
                "Trustpoints of open roll-overs before their switch, by tenant and by how far they are with the next anchors.",
                &["tenant", "state"],
            )?,
            exchanges: add.counters(
                "trustfleet_exchanges_total",
                "Exchanges with CAs by tenant, kind of the request and result; a failure names who is to blame.",
                &["tenant", "kind", "result"],
            )?,
            refusals: add.counters(
                "trustfleet_refusals_total",
                "Refusals of CAs by tenant and PKIFailureInfo; one with several reasons counts for each.",
                &["tenant", "fail_info"],
            )?,
            fleet_counted: add.add(Gauge::new(
                "trustfleet_fleet_counted_timestamp_seconds",
                "When the numbers of the fleet were last counted, seconds since 1970; 0: not yet.",
            )?)?,
            job_seconds: add.histograms(
                "trustfleet_job_seconds",
                "Time of jobs from their acceptance to their end, by kind.",
                &JOB_BUCKETS,
                &["kind"],
            )?,
            outbox: add.gauge("trustfleet_outbox_jobs", "Jobs that wait to be published.")?,
            outbox_held: add.gauge(
                "trustfleet_outbox_held_jobs",
                "Jobs that a freeze window holds; they are among those that wait to be published.",
            )?,
            outbox_age: add.add(Gauge::new(
                "trustfleet_outbox_oldest_age_seconds",
                "Age of the job that waits longest to be published, and that no freeze window holds.",
            )?)?,
            audit_unchained_age: add.add(Gauge::new(
                "trustfleet_audit_oldest_unchained_seconds",
                "Age of the row of the audit logs that waits longest to be chained.",
            )?)?,
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
            dead_letters: add.gauges(
                "trustfleet_dead_letters",
                "Messages of agents that could not be processed and wait for an administrator, by reason.",
                &["reason"],
            )?,
            dead_letters_lost: add.counters(
                "trustfleet_dead_letters_dropped_total",
                "Dead letters that were dropped to keep their number bounded, by cause.",
                &["cause"],
            )?,
            housekeeping: add.counters(
                "trustfleet_housekeeping_removed_total",
                "What was removed because its time is over, by kind.",
                &["kind"],
            )?,
            door_refusals: add.counters(
                "trustfleet_agent_door_refusals_total",
                "Attempts of agents to join or to open a session that were refused, by reason.",
                &["reason"],
            )?,
            renewals: add.counters(
                "trustfleet_renewals_due_total",
                "Trustpoints on which something was due without being asked, by what came of it.",
                &["outcome"],
            )?,
            leases: add.counters(
                "trustfleet_leases_total",
                "Messages about leases by which agents renew by themselves, by what became of them.",
                &["outcome"],
            )?,
            autonomous: add.counters(
                "trustfleet_autonomous_renewals_total",
                "Renewals that agents began by themselves while they were cut off, by result.",
                &["result"],
            )?,
            services: add.counters(
                "trustfleet_service_activations_total",
                "Services that were to take a certificate, by what became of them.",
                &["result"],
            )?,
            cut_offs: add.counters(
                "trustfleet_agent_cut_offs_total",
                "Orders to close an agent's connections to the broker that were carried out or tried, by what became of them.",
                &["outcome"],
            )?,
            broker_denials: add.counters(
                "trustfleet_broker_denials_total",
                "What the broker denied to agents, as its log tells, by kind.",
                &["kind"],
            )?,
            key_conflicts: add.counter(
                "trustfleet_key_conflicts_total",
                "Exchanges that began with a key that another trustpoint of the tenant has.",
            )?,
            live_twice: add.counter(
                "trustfleet_agents_live_twice_total",
                "How often two processes with the keys of one agent were found alive at once.",
            )?,
            broker_connected: add.gauge("trustfleet_broker_connected", "1 while the broker can be reached.")?,
            actors: add.gauge("trustfleet_device_actors", "Device actors in memory.")?,
            actor_bytes: add.gauge(
                "trustfleet_device_actor_bytes",
                "Resident memory that came since the start for each device actor in memory; 0 while there are fewer than 1,000.",
            )?,
            actors_activated: add
                .counter("trustfleet_device_actors_activated_total", "Device actors brought into memory.")?,
            mailboxes_full: add
                .counter("trustfleet_device_mailbox_full_total", "Commands refused because a device was busy.")?,
            version_conflicts: add.counter(
                "trustfleet_device_version_conflicts_total",
                "Decisions made anew because another replica or request had changed the device.",
            )?,
            commit_batch: add.add(Histogram::with_opts(
                HistogramOpts::new("trustfleet_group_commit_decisions", "Decisions in one group commit.")
                    .buckets(BATCH_BUCKETS.to_vec()),
            )?)?,
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
            transaction_seconds: add.histograms(
                "trustfleet_db_transaction_seconds",
                "Time of database transactions by name.",
                &TX_BUCKETS,
                &["name"],
            )?,
            db_connections: add.gauges(
                "trustfleet_db_connections",
                "Open connections to the database by role and by what they are doing.",
                &["role", "state"],
            )?,
            db_connections_max: add.gauges(
                "trustfleet_db_connections_max",
                "Most connections to the database that a role may have open.",
                &["role"],
            )?,
            http_seconds: add.histograms(
                "trustfleet_http_request_seconds",
                "Time of HTTP requests by operation and class of the answer's status.",
                &HTTP_BUCKETS,
                &["operation", "status"],
            )?,
            api_certificate_not_after: add.add(Gauge::new(
                "trustfleet_api_certificate_not_after_timestamp_seconds",
                "End of the API's own certificate, seconds since 1970; +Inf: the API speaks plain HTTP.",
            )?)?,
            api_certificate_refused: add.gauge(
                "trustfleet_api_certificate_refused",
                "1 while the API's certificate files hold something that cannot be used.",
            )?,
            registry,
        })
    }
}

/// Makes and registers in one step.
struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn add<T: Collector + Clone + 'static>(&self, metric: T) -> Result<T, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }
}
