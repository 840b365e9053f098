//! What the running agent is made of, shared by the driver and the workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tracing::Span;
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::{AgentId, DeviceId, JobId, LeaseId, MessageId, TenantId, TrustpointId};
use trustfleet_telemetry::{continue_from, current_traceparent, in_trace, trace_span};
use trustfleet_wire::Envelope;
use trustfleet_wire::routing::REPORTS_EXCHANGE;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{Event, FromAgent, Job, Report, Stop};

use crate::accept::Accept;
use crate::cmp_http::CmpHttp;
use crate::identity::Identity;
use crate::jobs::{Entry, JobBook, Live};
use crate::keys::KeyStore;
use crate::leases::LeaseBook;
use crate::order::Place;
use crate::record::{Outgoing, State};
use crate::reports::Reports;
use crate::services::Services;
use crate::slots::Slots;
use crate::store::{Store, StoreError};
use crate::upkeep::Upkeep;

/// Locks of trustpoints that nobody needs are thrown away when there are so many.
const PLACES_KEPT: usize = 64;

/// The agent without its link.
pub struct Core {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What jobs may order.
    pub accept: Accept,
    /// Its state folder.
    pub store: Store,
    /// Its jobs.
    pub book: JobBook,
    /// What it may renew by itself.
    pub leases: LeaseBook,
    /// What it keeps fresh.
    pub upkeep: Upkeep,
    /// Its reports.
    pub reports: Arc<Reports>,
    /// Keys of trustpoints.
    pub keys: Arc<dyn KeyStore>,
    /// Services that use certificates.
    pub services: Services,
    /// The way to the CAs.
    pub http: CmpHttp,
    /// Places for exchanges at the same time.
    pub exchanges: Arc<Semaphore>,
    /// Turns true when the agent shall stop.
    pub stop: watch::Receiver<bool>,
    places: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
    /// Counts orders to stop a job: whoever works on one looks into its record then.
    stop_orders: watch::Sender<u64>,
}

/// What a report is about, and where it goes.
#[derive(Clone, Debug)]
pub struct About {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The agent.
    pub agent_id: AgentId,
    /// The device.
    pub device_id: DeviceId,
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The job.
    pub job_id: JobId,
    /// Routing key.
    pub reply_to: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The lease by which the agent began it.
    pub lease_id: Option<LeaseId>,
    /// `host:port` of the CMP server that has its request.
    pub server: Option<String>,
}

impl From<&Live> for About {
    fn from(live: &Live) -> Self {
        let url = match &live.record.state {
            State::Ca { exchange } => exchange.url.as_deref(),
            State::Storage { issued } => issued.url.as_deref(),
            _ => None,
        };
        Self { lease_id: live.lease_id, server: url.and_then(endpoint_of), ..Self::from(&live.job) }
    }
}

impl From<&Job> for About {
    fn from(job: &Job) -> Self {
        Self {
            tenant_id: job.tenant_id,
            agent_id: job.agent_id,
            device_id: job.device_id,
            trustpoint_id: job.trustpoint_id,
            job_id: job.job_id,
            reply_to: job.reply_to.clone(),
            traceparent: job.traceparent.clone(),
            lease_id: None,
            server: None,
        }
    }
}

impl From<&Stop> for About {
    fn from(stop: &Stop) -> Self {
        Self {
            tenant_id: stop.tenant_id,
            agent_id: stop.agent_id,
            device_id: stop.device_id,
            trustpoint_id: stop.trustpoint_id,
            job_id: stop.job_id,
            reply_to: stop.reply_to.clone(),
            traceparent: stop.traceparent.clone(),
            lease_id: None,
            server: None,
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("agent", &self.identity.membership.agent_id).finish_non_exhaustive()
    }
}

impl Core {
    /// Puts the parts together and reads job records and leases back. Jobs may order what `accept` says.
    ///
    /// # Errors
    /// The records' folder cannot be read.
    pub fn new(
        identity: Arc<Identity>,
        accept: Accept,
        store: Store,
        keys: Arc<dyn KeyStore>,
        services: Services,
        http: CmpHttp,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let book = JobBook::load(&store, &identity.membership.controller_key.0)?;
        let leases = LeaseBook::load(&store, &identity.membership.controller_key.0)?;
        let upkeep = Upkeep::load(&store)?;
        let exchanges = Arc::new(Semaphore::new(identity.config.parallel_exchanges));
        let reports = Arc::new(Reports::default());
        let (places, stop_orders) = (Mutex::default(), watch::Sender::new(0));
        Ok(Self {
            identity,
            accept,
            store,
            book,
            leases,
            upkeep,
            reports,
            keys,
            services,
            http,
            exchanges,
            stop,
            places,
            stop_orders,
        })
    }

    /// The slots of a trustpoint.
    pub fn slots(&self, place: &Place) -> Slots {
        Slots::new(self.store.trustpoint(&place.device, &place.trustpoint))
    }

    /// The lock of a trustpoint: one job at a time.
    pub fn lock_of(&self, place: &Place) -> Arc<tokio::sync::Mutex<()>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_KEPT {
            places.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(places.entry(place.clone()).or_default())
    }

    /// Ends when the agent shall stop.
    pub async fn stopping(&self) {
        stopping(&self.stop).await;
    }

    /// Lets whoever works on a job look whether it is to be stopped: its record says so by now.
    pub fn order_stop(&self) {
        self.stop_orders.send_modify(|orders| *orders = orders.wrapping_add(1));
    }

    /// Ends when an operator wants this job to end.
    pub async fn stop_ordered(&self, entry: &Entry) {
        let mut orders = self.stop_orders.subscribe();
        while !entry.snapshot().await.record.stop {
            if orders.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// A signed report, and the span of its way to the broker, whose context it carries.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn report(&self, job: &About, sequence: u64, event: Event) -> Result<(Outgoing, Span), StoreError> {
        let now = self.identity.clock.now();
        let report_id = MessageId::fresh(now, self.identity.random_id());
        let kind = match &event {
            Event::Started { .. } => "started",
            Event::Waiting { .. } => "waiting",
            Event::PermitExpired => "permit_expired",
            Event::Issued(_) => "issued",
            Event::Activated { .. } => "activated",
            Event::Revoked(_) => "revoked",
            Event::DryRun(_) => "dry_run",
            Event::Anchors { .. } => "anchors",
            Event::Failed(_) => "failed",
        };
        let span = span(job, report_id, kind);
        let report = FromAgent::Report(Box::new(Report {
            report_id,
            tenant_id: job.tenant_id,
            agent_id: job.agent_id,
            device_id: job.device_id,
            trustpoint_id: job.trustpoint_id,
            job_id: job.job_id,
            sequence,
            lease_id: job.lease_id,
            server: job.server.clone(),
            at: now,
            traceparent: span.in_scope(current_traceparent).or_else(|| job.traceparent.clone()),
            event,
        }));
        let envelope = Envelope::seal(&report, Purpose::FromAgent, &self.identity.keys.sign);
        let corrupt = |error: trustfleet_wire::WireError| StoreError::Corrupt {
            path: self.store.job_file(job.job_id),
            detail: error.to_string(),
        };
        let envelope = envelope.map_err(corrupt)?;
        Ok((Outgoing { report_id, routing_key: job.reply_to.clone(), kind: kind.to_owned(), envelope }, span))
    }

    /// Brings a job into a state, with its reports, in one save; then the reports go.
    ///
    /// # Errors
    /// The disk's; nothing has changed then.
    pub async fn commit(&self, entry: &Entry, state: State, events: Vec<Event>) -> Result<Vec<MessageId>, StoreError> {
        let live = entry.snapshot().await;
        let (reports, spans) = self.seal_all(&live, events)?;
        entry.change(|live| apply(live, state, &reports)).await?;
        Ok(self.queue(&live.job, reports, spans))
    }

    /// As [`Core::commit`], but an end counts and is reported also when it cannot be saved.
    pub async fn settle(&self, entry: &Entry, state: State, events: Vec<Event>) {
        self.settle_then(entry, state, events, async {}).await;
    }

    /// As [`Core::settle`]; `between` is done when the end is saved and before it is told.
    pub async fn settle_then(
        &self,
        entry: &Entry,
        state: State,
        events: Vec<Event>,
        between: impl Future<Output = ()>,
    ) {
        let live = entry.snapshot().await;
        let (reports, spans) = match self.seal_all(&live, events) {
            Ok(reports) => reports,
            Err(error) => {
                tracing::error!(job.id = %live.record.job_id, %error, "a report cannot be made");
                (Vec::new(), Vec::new())
            }
        };
        if let Err(error) = entry.settle(|live| apply(live, state, &reports)).await {
            tracing::error!(job.id = %live.record.job_id, %error, "the end of a job is not saved, only reported");
        }
        between.await;
        self.queue(&live.job, reports, spans);
    }

    fn seal_all(&self, live: &Live, events: Vec<Event>) -> Result<(Vec<Outgoing>, Vec<Span>), StoreError> {
        let about = About::from(live);
        events.into_iter().map(|event| self.report(&about, live.record.sequence, event)).collect()
    }

    fn queue(&self, job: &Job, reports: Vec<Outgoing>, spans: Vec<Span>) -> Vec<MessageId> {
        let ids = reports.iter().map(|report| report.report_id).collect();
        for (report, span) in reports.into_iter().zip(spans) {
            self.reports.add(job.trustpoint_id, job.job_id, report, span);
        }
        ids
    }
}

/// The span of a report's way to the broker. What is not made in the work on its job goes on from the job's message.
fn span(job: &About, report: MessageId, kind: &str) -> Span {
    let span = trace_span!(
        "producer",
        "publish trustfleet.reports",
        messaging.system = "rabbitmq",
        messaging.operation.type = "send",
        messaging.operation.name = "publish",
        messaging.destination.name = REPORTS_EXCHANGE,
        messaging.message.id = %report,
        trustfleet.job.id = %job.job_id,
        trustfleet.report.kind = kind,
    );
    if !in_trace() {
        continue_from(&span, job.traceparent.as_deref());
    }
    span
}

fn apply(live: &mut Live, state: State, reports: &[Outgoing]) {
    live.record.state = state;
    live.record.reports.extend_from_slice(reports);
    if let Some(last) = reports.last() {
        live.record.last_report = Some(last.clone());
    }
}

/// Ends when `stop` turns true, or when nobody is left who could turn it.
pub async fn stopping(stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    let _ = stop.wait_for(|stop| *stop).await.is_ok();
}
