//! Transactions: [`TenantTx`] sees one tenant, [`SystemTx`] is the short door across tenants.
//!
//! What begins a transaction goes to the server together with its first statement, and where every statement stands for
//! itself what ends it goes along, too: a round trip costs both sides more than most statements do.
//!
//! A transaction that is dropped without commit (an error, a panic, a client that went away) takes its connection with
//! it, so that no later user of the pool finds itself inside of it.

use std::{
    borrow::Cow,
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use deadpool_postgres::Object;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type},
};
use trustfleet_model::ids::TenantId;

use super::{DbError, error};
use crate::audit::Sealer;

/// A statement's parameters.
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What [`super::Store`] needs of a transaction.
pub(super) trait Transaction {
    /// Commits; an error comes with whether the transaction may run again.
    fn commit(self) -> impl Future<Output = Result<(), (DbError, bool)>> + Send;
    /// Gives everything up.
    fn roll_back(self) -> impl Future<Output = ()> + Send;
    /// Whether it failed in a way that a second run may well not.
    fn may_run_again(&self) -> bool;
}

/// A transaction of one tenant, under a role that row level security keeps inside of it.
pub struct TenantTx {
    raw: Raw,
    tenant: TenantId,
    sealer: Arc<Sealer>,
}

impl fmt::Debug for TenantTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantTx({} of {})", self.raw.name, self.tenant)
    }
}

impl TenantTx {
    pub(super) const fn new(raw: Raw, tenant: TenantId, sealer: Arc<Sealer>) -> Self {
        Self { raw, tenant, sealer }
    }

    /// Seals rows of the audit log.
    pub(in crate::db) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The tenant.
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant
    }

    /// The transaction's name, for `updated_by`.
    pub const fn name(&self) -> &'static str {
        self.raw.name
    }

    /// Rows of a statement whose `$1` is the tenant; `params` begin at `$2`.
    pub(in crate::db) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let tenant = Id(self.tenant);
        self.raw.query(sql, &with_first(&tenant, params)).await
    }

    /// The same for a statement that is not kept: there are many of its kind.
    pub(in crate::db) async fn query_once(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let tenant = Id(self.tenant);
        self.raw.query_once(sql, &with_first(&tenant, params)).await
    }

    /// The row of a statement that has one or none; `$1` is the tenant.
    pub(in crate::db) async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, DbError> {
        let tenant = Id(self.tenant);
        self.raw.query_opt(sql, &with_first(&tenant, params)).await
    }

    /// Rows touched by a statement whose `$1` is the tenant.
    pub(in crate::db) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, DbError> {
        let tenant = Id(self.tenant);
        self.raw.execute(sql, &with_first(&tenant, params)).await
    }
}

/// A transaction across tenants: every statement carries the tenant of the rows it touches. For group commit, loading
/// of devices, outbox, inbox, token look-up, tenants and statistics; nothing else.
pub struct SystemTx {
    raw: Raw,
    sealer: Arc<Sealer>,
}

impl fmt::Debug for SystemTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemTx({})", self.raw.name)
    }
}

impl SystemTx {
    pub(super) const fn new(raw: Raw, sealer: Arc<Sealer>) -> Self {
        Self { raw, sealer }
    }

    /// Seals rows of the audit log.
    pub(in crate::db) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The transaction's name, for `updated_by`.
    pub const fn name(&self) -> &'static str {
        self.raw.name
    }

    /// Rows of a statement.
    pub(in crate::db) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        self.raw.query(sql, params).await
    }

    /// The row of a statement that has one or none.
    pub(in crate::db) async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, DbError> {
        self.raw.query_opt(sql, params).await
    }

    /// Rows touched by a statement.
    pub(in crate::db) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, DbError> {
        self.raw.execute(sql, params).await
    }
}

/// An id as a statement's parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id<T>(pub(crate) T);

macro_rules! id_params {
    ($($name:ident),*) => {$(
        impl ToSql for Id<trustfleet_model::ids::$name> {
            fn to_sql(
                &self,
                ty: &Type,
                out: &mut tokio_postgres::types::private::BytesMut,
            ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
                self.0.as_uuid().to_sql(ty, out)
            }
            fn accepts(ty: &Type) -> bool {
                <uuid::Uuid as ToSql>::accepts(ty)
            }
            tokio_postgres::types::to_sql_checked!();
        }

        impl<'a> FromSql<'a> for Id<trustfleet_model::ids::$name> {
            fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                <uuid::Uuid as FromSql<'_>>::from_sql(ty, raw).map(|id| Self(id.into()))
            }
            fn accepts(ty: &Type) -> bool {
                <uuid::Uuid as FromSql<'_>>::accepts(ty)
            }
        }
    )*};
}
id_params!(
    TenantId,
    AgentId,
    DeviceId,
    TrustpointId,
    EntityId,
    CaServerId,
    PolicyId,
    JobId,
    CertificateId,
    SecretId,
    TokenId,
    InstanceId,
    FactoryCaId,
    ExpectedId,
    ApplicantId,
    ChangeId,
    BindingId,
    BlockId,
    LeaseId,
    CampaignId,
    FreezeId,
    RolloverId,
    DeadLetterId
);

fn with_first<'a>(first: &'a (dyn ToSql + Sync), rest: Params<'a>) -> Vec<&'a (dyn ToSql + Sync)> {
    let mut all = Vec::with_capacity(rest.len() + 1);
    all.push(first);
    all.extend_from_slice(rest);
    all
}

/// How statements are kept together.
#[derive(Clone, Debug)]
pub(super) enum Bond {
    /// Not at all: the server makes a transaction of each.
    None,
    /// Each in a transaction of its own, which begins with this.
    Each(Cow<'static, str>),
    /// All in one, which begins with this.
    All(Cow<'static, str>),
}

/// A connection, inside a transaction from the first statement on.
pub(super) struct Raw {
    client: Option<Object>,
    name: &'static str,
    bond: Bond,
    begun: AtomicBool,
    may_run_again: AtomicBool,
    failed: AtomicBool,
}

impl Raw {
    pub(super) const fn new(client: Object, name: &'static str, bond: Bond) -> Self {
        let (begun, may_run_again, failed) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Self { client: Some(client), name, bond, begun, may_run_again, failed }
    }

    /// Whether there is a transaction to be ended.
    fn is_open(&self) -> bool {
        matches!(self.bond, Bond::All(_)) && self.begun.load(Ordering::Relaxed)
    }

    /// Sends what belongs before and after a statement along with it; the server takes them in this order.
    async fn bound<T>(
        &self,
        client: &Object,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        let asked = match &self.bond {
            Bond::None => statement.await,
            Bond::All(_) if self.begun.swap(true, Ordering::Relaxed) => statement.await,
            Bond::All(begin) => {
                let (begun, asked) = tokio::join!(biased; client.batch_execute(begin), statement);
                begun.and(asked)
            }
            Bond::Each(begin) => {
                let (begun, asked, ended) =
                    tokio::join!(biased; client.batch_execute(begin), statement, client.batch_execute("COMMIT"));
                // After a statement that failed the commit is a silent rollback.
                begun.and(asked).and_then(|answer| ended.map(|()| answer))
            }
        };
        asked.map_err(|error| self.sort(error))
    }

    fn client(&self) -> Result<&Object, DbError> {
        let ended = || DbError::Unavailable { source: "the transaction has ended".into() };
        self.client.as_ref().ok_or_else(ended)
    }

    async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await.map_err(|error| self.sort(error))?;
        self.bound(client, client.query(&statement, params)).await
    }

    async fn query_once(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, DbError> {
        let client = self.client()?;
        let statement = client.prepare(sql).await.map_err(|error| self.sort(error))?;
        self.bound(client, client.query(&statement, params)).await
    }

    async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, DbError> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await.map_err(|error| self.sort(error))?;
        self.bound(client, client.query_opt(&statement, params)).await
    }

    async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, DbError> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await.map_err(|error| self.sort(error))?;
        self.bound(client, client.execute(&statement, params)).await
    }

    fn sort(&self, error: tokio_postgres::Error) -> DbError {
        self.failed.store(true, Ordering::Relaxed);
        if error::connection_lost(&error) || error::lost_a_race(&error) {
            self.may_run_again.store(true, Ordering::Relaxed);
        }
        if error::lost_a_race(&error) {
            // Told only when the runs are used up: nothing was changed, and the caller may try again.
            return DbError::Unavailable { source: Box::new(error) };
        }
        error.into()
    }

    /// Whether it may run again comes with the error.
    async fn commit(mut self) -> Result<(), (DbError, bool)> {
        let ended = || (DbError::Unavailable { source: "the transaction has ended".into() }, false);
        if self.failed.load(Ordering::Relaxed) {
            // PostgreSQL would answer COMMIT with a silent ROLLBACK.
            self.roll_back().await;
            let source = "a statement failed, so nothing can be committed".into();
            return Err((DbError::Query { source }, false));
        }
        let is_open = self.is_open();
        let client = self.client.take().ok_or_else(ended)?;
        if !is_open {
            return Ok(());
        }
        match client.batch_execute("COMMIT").await {
            Ok(()) => Ok(()),
            Err(error) => {
                drop(Object::take(client));
                let again = error::lost_a_race(&error);
                Err((DbError::of_lone_statement(error), again))
            }
        }
    }

    async fn roll_back(mut self) {
        let is_open = self.is_open();
        if let Some(client) = self.client.take()
            && is_open
            && client.batch_execute("ROLLBACK").await.is_err()
        {
            drop(Object::take(client));
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Closing the connection rolls back.
            mem::drop(Object::take(client));
        }
    }
}

macro_rules! transaction {
    ($name:ident) => {
        impl Transaction for $name {
            async fn commit(self) -> Result<(), (DbError, bool)> {
                self.raw.commit().await
            }
            async fn roll_back(self) {
                self.raw.roll_back().await;
            }
            fn may_run_again(&self) -> bool {
                self.raw.may_run_again.load(Ordering::Relaxed)
            }
        }
    };
}
transaction!(TenantTx);
transaction!(SystemTx);
