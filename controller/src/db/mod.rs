//! The only door to PostgreSQL: every statement lives in this folder (and the group commit's in [`crate::commit`]).
//!
//! Method names are resource-first (`device_fetch`, `outbox_claim`). Methods exist only on [`TenantTx`], which supplies
//! the tenant as `$1`, and on the short [`SystemTx`], whose statements carry the tenant of every row they touch. Each
//! statement begins with a comment naming its function; every write checks its row count; every transaction has a
//! static name, used in metrics and `updated_by`.

mod admission;
mod agent;
mod at_risk;
mod audit;
mod binder;
mod binding;
mod binding_reach;
mod blocked_subject;
mod ca_server;
mod campaign;
mod campaign_work;
mod change;
mod column;
mod configured;
mod connect;
mod cut_off;
mod dead_letter;
mod device;
mod device_leave;
mod device_registry;
mod entity;
mod error;
mod forecast;
mod freeze;
mod history;
mod housekeeping;
mod joining;
mod key_encryption;
mod lease;
mod listing;
mod mac_secret;
mod migrate;
mod node;
mod note;
mod offered_root;
mod outbox;
mod policy;
mod renewal;
mod revision;
mod revocation;
mod roller;
mod rollover;
mod row;
mod search;
mod sender;
mod statistics;
mod stats;
mod tenant;
mod token;
mod transcript;
mod trustpoint;
mod tx;

use std::{fmt, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::runtime::Handle;
use tracing::{Instrument as _, Span};
use trustfleet_model::ids::TenantId;
use trustfleet_telemetry::{in_trace, record_error, trace_span};

pub use self::{
    admission::{Admitted, CaEndpoint},
    agent::{Agent, JoinedBy, Quarantine},
    at_risk::{AtRisk, Place, Queues},
    audit::{AuditFilter, AuditHead, ChainedLink, UnchainedRow},
    binder::{ChangedBinding, InForce, LeavingBinding, Unbound},
    binding::Binding,
    binding_reach::{BindingHoldings, Reach},
    blocked_subject::{BlockedSubject, Blocks},
    campaign::{CAMPAIGNS_MAX, Campaign, CampaignReach, ListedMember, MemberCount, MemberFilter},
    campaign_work::Member,
    change::{Change, ChangeState},
    configured::{Configured, UsedBy},
    cut_off::CutOff,
    dead_letter::{DeadLetter, LetterFilter},
    device::{DeviceKey, DeviceStates},
    device_leave::{Gone, InTheWay, LeavingDevice},
    device_registry::RegisteredDevice,
    error::DbError,
    forecast::{Forecast, HORIZON, Movable, ServerOf, Unfit},
    freeze::{DueFreeze, FREEZES_MAX, Freeze},
    history::{AskedBy, PastCertificate},
    housekeeping::Chore,
    joining::{Applicant, ApplicantState, ExpectedAgent, FactoryCa},
    key_encryption::{KekUse, StoredSecret},
    lease::{DueLease, LeaseGiven, LeaseNext, LeasedTrustpoint, ShownLease},
    listing::{CertificateWithBytes, JobFilter, ListedCertificate, ListedJob, ListedTrustpoint},
    migrate::{SchemaError, migrate, schema_version},
    node::NodeRow,
    note::Note,
    offered_root::{OfferedRoot, SpokenOf},
    outbox::{Claim, ClaimedJob},
    renewal::{DueTrustpoint, Plan, PlannedTrustpoint},
    revision::{Reference, Revision},
    revocation::{Condemn, DueRevocation, ToRevoke},
    roller::DueRollover,
    rollover::{IssuedAlike, Laggard, Rollover},
    search::{CertificateFilter, DeviceFilter, TrustpointFilter, Wanted},
    sender::{Claimed, LeaseFacts, Sender},
    statistics::StatisticsOf,
    stats::Stats,
    tenant::{Counted, Keeps, Quota, Tenant, TenantState},
    token::{ApiToken, ApiTokenInsert, JoinToken, PresentedToken},
    transcript::JobTranscript,
    tx::{SystemTx, TenantTx},
};
use self::{
    connect::OnBackend,
    tx::{Bond, Raw},
};
pub(crate) use self::{housekeeping::key_type, row::stored_trustpoint, transcript::stored_transcript, tx::Id};
use crate::{
    audit::Sealer,
    config::{DatabaseConfig, SecretUrl},
    metrics::{Metrics, TxOutcome},
    tls::ClientTls,
};

/// How often a transaction is run again that lost a race or its connection before the commit.
const RETRIES: u32 = 4;
/// Class of the advisory locks under which is counted and written what a tenant has a quota of.
pub(crate) const QUOTA_LOCK: i32 = 0x7466_7175;
const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(5);

/// The two pools: role `trustfleet_api` for [`TenantTx`], role `trustfleet_system` for [`SystemTx`]. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    api: Pool,
    system: Pool,
    metrics: Arc<Metrics>,
    sealer: Arc<Sealer>,
}

/// What the failure of an attempt says about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// We decided so, or the database refused: another one would end the same way.
    Refused,
    /// It lost a race or its connection before the commit.
    Retryable,
    /// No connection came although it was waited for, or it was lost during the commit.
    Away,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("api", &self.inner.api.status())
            .field("system", &self.inner.system.status())
            .finish()
    }
}

impl Store {
    /// Makes the pools; connections are opened when they are needed, and their drivers run on `backend`. `tls` verifies the
    /// server on those that are encrypted; `sealer` seals rows of the audit log.
    ///
    /// # Errors
    /// URLs that PostgreSQL's driver cannot read.
    pub fn new(
        config: &DatabaseConfig,
        tls: Option<Arc<ClientTls>>,
        backend: &Handle,
        metrics: Arc<Metrics>,
        sealer: Sealer,
    ) -> Result<Self, DbError> {
        let pool = |url| {
            let tls = tls.clone().filter(|_| config.is_encrypted(url));
            pool(url, config.max_connections, OnBackend { backend: backend.clone(), tls })
        };
        let (api, system) = (pool(&config.api_url)?, pool(&config.system_url)?);
        Ok(Self { inner: Arc::new(Inner { api, system, metrics, sealer: Arc::new(sealer) }) })
    }

    /// Seals rows of the audit log.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }

    /// Runs `work` in a transaction of one tenant, repeatable read, under the API's role; commits when it returns `Ok`.
    ///
    /// `work` runs again when the transaction lost a race or its connection before the commit: it must not act on
    /// anything but the transaction.
    ///
    /// # Errors
    /// What `work` returned, or why there was no transaction or no commit.
    pub async fn tenant_tx<T, E, F>(&self, tenant: TenantId, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&TenantTx) -> Result<T, E>,
        E: From<DbError>,
    {
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL trustfleet.tenant = '{tenant}'");
        self.of_tenant(tenant, name, Bond::All(begin.into()), work).await
    }

    /// As [`Store::tenant_tx`], for what only reads and is one statement where all is as it should be: several see several
    /// snapshots.
    ///
    /// # Errors
    /// As [`Store::tenant_tx`].
    pub async fn tenant_read<T, E, F>(&self, tenant: TenantId, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&TenantTx) -> Result<T, E>,
        E: From<DbError>,
    {
        let begin = format!("BEGIN READ ONLY; SET LOCAL trustfleet.tenant = '{tenant}'");
        self.of_tenant(tenant, name, Bond::Each(begin.into()), work).await
    }

    /// As [`Store::tenant_tx`], but alone among those of the tenant that are counted against its quotas, and read committed:
    /// what it counts is what is there.
    ///
    /// # Errors
    /// As [`Store::tenant_tx`].
    pub async fn counted_tx<T, E, F>(&self, tenant: TenantId, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&TenantTx) -> Result<T, E>,
        E: From<DbError>,
    {
        let begin = format!(
            "BEGIN; SET LOCAL trustfleet.tenant = '{tenant}'; \
             SELECT pg_advisory_xact_lock({QUOTA_LOCK}, hashtext('{tenant}'))"
        );
        self.of_tenant(tenant, name, Bond::All(begin.into()), work).await
    }

    /// Runs `work` in a transaction across tenants, read committed, under the system role; otherwise as
    /// [`Store::tenant_tx`].
    ///
    /// # Errors
    /// As [`Store::tenant_tx`].
    pub async fn system_tx<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&SystemTx) -> Result<T, E>,
        E: From<DbError>,
    {
        self.across_tenants(name, Bond::All("BEGIN".into()), work).await
    }

    /// As [`Store::system_tx`], for work that is one statement which only reads: it needs no transaction around it, and two of
    /// three round trips less count where every message of every agent makes one. Several statements see several snapshots.
    ///
    /// # Errors
    /// As [`Store::tenant_tx`].
    pub async fn system_read<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&SystemTx) -> Result<T, E>,
        E: From<DbError>,
    {
        self.across_tenants(name, Bond::None, work).await
    }

    /// As [`Store::system_tx`], but of one snapshot, and reading only.
    ///
    /// # Errors
    /// As [`Store::tenant_tx`].
    pub async fn snapshot_tx<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        F: AsyncFn(&SystemTx) -> Result<T, E>,
        E: From<DbError>,
    {
        self.across_tenants(name, Bond::All("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".into()), work).await
    }

    /// A connection of the system role for one statement that is a transaction by itself (the group commit).
    pub(crate) async fn system_client(&self) -> Result<Object, DbError> {
        client(&self.inner.system).await
    }

    /// Whether both roles get an answer from the database.
    pub async fn is_ready(&self) -> bool {
        let ask = async |pool: &Pool| match client(pool).await {
            Ok(client) => client.simple_query("/* is_ready */ SELECT 1").await.is_ok(),
            Err(_) => false,
        };
        ask(&self.inner.api).await && ask(&self.inner.system).await
    }

    async fn of_tenant<T, E, F>(&self, tenant: TenantId, name: &'static str, bond: Bond, work: F) -> Result<T, E>
    where
        F: AsyncFn(&TenantTx) -> Result<T, E>,
        E: From<DbError>,
    {
        let open = |raw| TenantTx::new(raw, tenant, Arc::clone(&self.inner.sealer));
        self.run(&self.inner.api, name, bond, open, work).await
    }

    async fn across_tenants<T, E, F>(&self, name: &'static str, bond: Bond, work: F) -> Result<T, E>
    where
        F: AsyncFn(&SystemTx) -> Result<T, E>,
        E: From<DbError>,
    {
        let open = |raw| SystemTx::new(raw, Arc::clone(&self.inner.sealer));
        self.run(&self.inner.system, name, bond, open, work).await
    }

    async fn run<X, T, E, F>(
        &self,
        pool: &Pool,
        name: &'static str,
        bond: Bond,
        open: impl Fn(Raw) -> X,
        work: F,
    ) -> Result<T, E>
    where
        X: tx::Transaction,
        F: AsyncFn(&X) -> Result<T, E>,
        E: From<DbError>,
    {
        let span = span(name);
        let timer = self.inner.metrics.tx_timer(name);
        let mut retry = 0;
        loop {
            let (error, failed) = match Self::attempt(pool, |client| open(Raw::new(client, name, bond.clone())), &work)
                .instrument(span.clone())
                .await
            {
                Ok(value) => {
                    timer.finish(TxOutcome::Committed);
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if failed == Failed::Retryable && retry < RETRIES {
                retry += 1;
                self.inner.metrics.tx_retried(name);
                // Who lost a race waits a little longer each time, so that the winner gets through.
                tokio::time::sleep(Duration::from_millis(u64::from(2_u32.pow(retry)))).await;
                continue;
            }
            // Rolled back is what a refusal does, too: its own span says what it was.
            let outcome = if failed == Failed::Refused { TxOutcome::RolledBack } else { TxOutcome::GaveUp };
            timer.finish(outcome);
            record_error(&span, outcome.as_str(), outcome == TxOutcome::GaveUp);
            return Err(error);
        }
    }

    /// One attempt; with an error comes what it says about another one.
    async fn attempt<X, T, E, F>(pool: &Pool, open: impl FnOnce(Object) -> X, work: &F) -> Result<T, (E, Failed)>
    where
        X: tx::Transaction,
        F: AsyncFn(&X) -> Result<T, E>,
        E: From<DbError>,
    {
        let client = match client(pool).await {
            Ok(client) => client,
            Err(error) => return Err((error.into(), Failed::Away)),
        };
        let tx = open(client);
        match work(&tx).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => Ok(value),
                Err((error, true)) => Err((error.into(), Failed::Retryable)),
                Err((error, false)) if error.is_away() => Err((error.into(), Failed::Away)),
                Err((error, false)) => Err((error.into(), Failed::Refused)),
            },
            Err(error) => {
                let failed = if tx.may_run_again() { Failed::Retryable } else { Failed::Refused };
                tx.roll_back().await;
                Err((error, failed))
            }
        }
    }
}

/// The span of a transaction, all its attempts included. What runs on its own, outside of any trace, has none.
fn span(name: &'static str) -> Span {
    if !in_trace() {
        return Span::none();
    }
    trace_span!("client", name, db.system.name = "postgresql")
}

async fn client(pool: &Pool) -> Result<Object, DbError> {
    pool.get().await.map_err(|error| DbError::Unavailable { source: Box::new(error) })
}

fn pool(url: &SecretUrl, max_size: usize, connect: OnBackend) -> Result<Pool, DbError> {
    let mut config = connect::driver_config(url, connect.tls.is_some())?;
    // A frozen replica must not hold locks: the server ends a transaction that waits for its client.
    // One statement is one process of the server: workers that help would read far beyond a page, and take what others need.
    let limits = "-c idle_in_transaction_session_timeout=15s -c statement_timeout=30s -c lock_timeout=10s \
                  -c max_parallel_workers_per_gather=0";
    let options = config.get_options().map_or_else(|| limits.to_owned(), |given| format!("{given} {limits}"));
    config.options(options).application_name("trustfleet").connect_timeout(WAIT_FOR_CONNECTION);
    let manager = Manager::from_connect(config, connect, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager)
        .max_size(max_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_FOR_CONNECTION))
        .create_timeout(Some(WAIT_FOR_CONNECTION))
        .recycle_timeout(Some(WAIT_FOR_CONNECTION))
        .build()
        .map_err(|error| DbError::Unavailable { source: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_that_gets_no_connection_is_given_up() {
        // Nobody listens on it any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://trustfleet@127.0.0.1:{port}/trustfleet");
        let config = serde_json::json!({ "api_url": url, "system_url": url });
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let sealer = Sealer::new(&trustfleet_wire::sign::SigningKey::generate().unwrap()).unwrap();
        let config = serde_json::from_value(config).unwrap();
        let store = Store::new(&config, None, &Handle::current(), Arc::clone(&metrics), sealer).unwrap();
        let result: Result<(), DbError> = store.system_tx("test", async |_| Ok(())).await;
        assert!(matches!(result, Err(DbError::Unavailable { .. })));
        let (text, _) = metrics.render().unwrap();
        for (outcome, count) in [("gave_up", 1), ("rolled_back", 0), ("committed", 0)] {
            let line = format!("trustfleet_db_transactions_total{{name=\"test\",outcome=\"{outcome}\"}} {count}");
            assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
        }
    }
}
