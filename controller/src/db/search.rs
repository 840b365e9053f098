//! SQL of searches: devices, trustpoints and certificates by labels, state, time left, CA, issuer and key, all of them
//! together. A statement has the conditions that were asked for and no others, and is planned for its very values, so that
//! each of them can lead to an index; pages go on behind the last row, never by counting rows.
//!
//! Conditions compare plain columns for equality or order: nothing else may be looked up in an index before row level
//! security has passed a row.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use trustfleet_model::device::Labels;
use trustfleet_model::ids::{CertificateId, TrustpointId};
use uuid::Uuid;

use super::tx::Id;
use super::{
    DbError, ListedCertificate, ListedTrustpoint, RegisteredDevice, TenantTx, device_registry, lease, listing,
};

/// Which devices are wanted.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    /// Only behind the agent of this name.
    pub agent: Option<String>,
    /// Only with all of these labels.
    pub labels: Labels,
    /// After the one of this name.
    pub after: Option<String>,
}

/// Which trustpoints are wanted.
#[derive(Clone, Debug, Default)]
pub struct TrustpointFilter {
    /// Only of the device of this name.
    pub device: Option<String>,
    /// Only on devices with all of these labels.
    pub labels: Labels,
    /// Only in this state.
    pub status: Option<String>,
    /// Only with a certificate in use that ends at or after this moment.
    pub expires_after: Option<Timestamp>,
    /// Only with one that ends before this moment.
    pub expires_before: Option<Timestamp>,
    /// Only of the CA server of this name.
    pub ca_server: Option<String>,
    /// Only of the policy of this name.
    pub policy: Option<String>,
    /// After this one.
    pub after: Option<TrustpointId>,
}

/// Which certificates are wanted.
#[derive(Clone, Debug, Default)]
pub struct CertificateFilter {
    /// Only of the device of this name.
    pub device: Option<String>,
    /// Only of trustpoints of this name.
    pub trustpoint: Option<String>,
    /// Only of devices with all of these labels.
    pub labels: Labels,
    /// Only in this slot.
    pub slot: Option<String>,
    /// Only with a revocation in this state.
    pub revocation: Option<String>,
    /// Only those that end at or after this moment.
    pub expires_after: Option<Timestamp>,
    /// Only those that end before this moment.
    pub expires_before: Option<Timestamp>,
    /// Only of this issuer, as certificates show it.
    pub issuer: Option<String>,
    /// Only of trustpoints of the CA server of this name.
    pub ca_server: Option<String>,
    /// Only with a key of this kind and size, as policies spell it.
    pub key: Option<String>,
    /// After this one: lists begin with the one that ends first.
    pub after: Option<(Timestamp, CertificateId)>,
}

type Param = Box<dyn ToSql + Sync + Send>;

/// What is searched for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Devices, by name.
    Devices(DeviceFilter),
    /// Trustpoints, in the order they were made.
    Trustpoints(TrustpointFilter),
    /// Certificates, the one that ends first leading.
    Certificates(CertificateFilter),
}

/// Ids of the objects that a filter names, looked up before: the planner knows how many rows an id has, and of a sub-select
/// nothing. The nil UUID for a name that nothing has.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    ca_server: Option<Uuid>,
    policy: Option<Uuid>,
}

/// A statement with the conditions that were asked for.
struct Search {
    sql: String,
    params: Vec<Param>,
}

impl Search {
    fn new(select: &str) -> Self {
        Self { sql: format!("{select} WHERE "), params: Vec::new() }
    }

    /// A condition; `{}` in it is the parameter, `$1` the tenant.
    fn and(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        self.params.push(Box::new(value));
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace("{}", &format!("${}", self.params.len() + 1)));
    }

    fn maybe(&mut self, condition: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            self.and(condition, value);
        }
    }

    /// Only rows whose device, in column `device`, has these labels.
    fn labelled(&mut self, labels: &Labels, device: &str) {
        for label in words(labels) {
            let condition = format!(
                "EXISTS (SELECT FROM device_labels l WHERE l.tenant_id = $1 AND l.device_id = {device} AND l.label = {{}})"
            );
            self.and(&condition, label);
        }
    }

    fn ordered(mut self, by: &str, limit: i64) -> Self {
        self.params.push(Box::new(limit));
        self.sql.push_str(&format!(" ORDER BY {by} LIMIT ${}", self.params.len() + 1));
        self
    }
}

/// Labels as `device_labels` holds them.
fn words(labels: &Labels) -> impl Iterator<Item = String> + '_ {
    labels.iter().map(|(key, value)| format!("{key}={value}"))
}

impl DeviceFilter {
    /// At most `limit` of them, by name.
    fn search(&self, limit: i64) -> Search {
        let mut labels = words(&self.labels);
        let columns = device_registry::COLUMNS;
        let Some(first) = labels.next() else {
            let mut search = Search::new(&format!("/* device_search */ SELECT {columns} {}", device_registry::FROM));
            search.sql.push_str("d.tenant_id = $1");
            search.behind_agent(self.agent.as_deref());
            search.maybe("d.name > {}", self.after.clone());
            return search.ordered("d.name", limit);
        };
        // The label leads, in the order of names.
        let from = format!(
            "FROM device_labels f JOIN devices d ON d.tenant_id = f.tenant_id AND d.device_id = f.device_id {}",
            device_registry::AGENT
        );
        let mut search = Search::new(&format!("/* device_search: by label */ SELECT {columns} {from}"));
        search.sql.push_str("f.tenant_id = $1");
        search.and("f.label = {}", first);
        for label in labels {
            search.and(
                "EXISTS (SELECT FROM device_labels l WHERE l.tenant_id = $1 AND l.device_id = f.device_id AND l.label = {})",
                label,
            );
        }
        search.behind_agent(self.agent.as_deref());
        search.maybe("f.name > {}", self.after.clone());
        search.ordered("f.name", limit)
    }
}

impl Search {
    fn behind_agent(&mut self, agent: Option<&str>) {
        let condition = "d.agent_id = (SELECT g.agent_id FROM agents g WHERE g.tenant_id = $1 AND g.name = {})";
        self.maybe(condition, agent.map(str::to_owned));
    }

    /// Only rows whose device, in column `device`, has this name.
    fn of_device(&mut self, column: &str, name: Option<&str>) {
        let condition =
            format!("{column} = (SELECT n.device_id FROM devices n WHERE n.tenant_id = $1 AND n.name = {{}})");
        self.maybe(&condition, name.map(str::to_owned));
    }
}

impl TrustpointFilter {
    /// At most `limit` of them, in the order they were made.
    fn search(&self, known: Known, limit: i64) -> Search {
        let (lease, lease_from) = lease::LEASE;
        let (columns, from) = (listing::TRUSTPOINT, listing::TRUSTPOINT_FROM);
        let mut search = Search::new(&format!("/* trustpoint_search */ SELECT {columns}, {lease} {from} {lease_from}"));
        search.sql.push_str("t.tenant_id = $1");
        search.of_device("t.device_id", self.device.as_deref());
        search.labelled(&self.labels, "t.device_id");
        search.maybe("t.status = {}", self.status.clone());
        search.maybe("t.not_after >= {}", self.expires_after);
        search.maybe("t.not_after < {}", self.expires_before);
        search.maybe("t.ca_server_id = {}", known.ca_server);
        search.maybe("t.policy_id = {}", known.policy);
        search.maybe("t.trustpoint_id > {}", self.after.map(Id));
        search.ordered("t.trustpoint_id", limit)
    }
}

impl CertificateFilter {
    /// At most `limit` of them, the one that ends first leading.
    fn search(&self, known: Known, limit: i64) -> Search {
        let (columns, from) = (listing::CERTIFICATE, listing::CERTIFICATE_FROM);
        let mut search = Search::new(&format!("/* certificate_search */ SELECT {columns} {from}"));
        search.sql.push_str("c.tenant_id = $1");
        search.of_device("c.device_id", self.device.as_deref());
        search.labelled(&self.labels, "c.device_id");
        search.maybe("t.name = {}", self.trustpoint.clone());
        search.maybe("c.slot = {}", self.slot.clone());
        search.maybe("c.revocation_state = {}", self.revocation.clone());
        search.maybe("c.not_after >= {}", self.expires_after);
        search.maybe("c.not_after < {}", self.expires_before);
        // Not the name besides: two conditions that say the same would count as two.
        search.maybe("c.issuer_key = md5({}::text)", self.issuer.clone());
        search.maybe("t.ca_server_id = {}", known.ca_server);
        search.maybe("c.key_type = {}", self.key.clone());
        if let Some((ends, id)) = self.after {
            search.params.push(Box::new(ends));
            let ends = search.params.len() + 1;
            search.and(&format!("(c.not_after, c.certificate_id) > (${ends}, {{}})"), Id(id));
        }
        search.ordered("c.not_after, c.certificate_id", limit)
    }
}

impl TenantTx {
    /// Devices, by name.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn device_search(&self, filter: &DeviceFilter, limit: i64) -> Result<Vec<RegisteredDevice>, DbError> {
        let rows = self.found(&filter.search(limit)).await?;
        rows.iter().map(|row| device_registry::read(row, self.tenant_id())).collect()
    }

    /// Trustpoints, in the order they were made.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn trustpoint_search(
        &self,
        filter: &TrustpointFilter,
        limit: i64,
    ) -> Result<Vec<ListedTrustpoint>, DbError> {
        let known = self.known(filter.ca_server.as_deref(), filter.policy.as_deref()).await?;
        self.found(&filter.search(known, limit)).await?.iter().map(listing::read_trustpoint).collect()
    }

    /// Certificates, the one that ends first leading.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn certificate_search(
        &self,
        filter: &CertificateFilter,
        limit: i64,
    ) -> Result<Vec<ListedCertificate>, DbError> {
        let known = self.known(filter.ca_server.as_deref(), None).await?;
        self.found(&filter.search(known, limit)).await?.iter().map(listing::read_certificate).collect()
    }

    /// How the database carries a search out, as its EXPLAIN tells after having done so: for whoever looks why one is slow.
    ///
    /// # Errors
    /// The database's own.
    pub async fn search_plan(&self, wanted: &Wanted, limit: i64) -> Result<Value, DbError> {
        let search = match wanted {
            Wanted::Devices(filter) => filter.search(limit),
            Wanted::Trustpoints(filter) => {
                filter.search(self.known(filter.ca_server.as_deref(), filter.policy.as_deref()).await?, limit)
            }
            Wanted::Certificates(filter) => filter.search(self.known(filter.ca_server.as_deref(), None).await?, limit),
        };
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}", search.sql);
        let rows = self.searched(&sql, &search.params).await?;
        rows.first().map_or(Ok(Value::Null), |row| Ok(row.try_get(0)?))
    }

    async fn known(&self, ca_server: Option<&str>, policy: Option<&str>) -> Result<Known, DbError> {
        if ca_server.is_none() && policy.is_none() {
            return Ok(Known::default());
        }
        // For this transaction: a page is found by indexes. By its own estimate the planner would now and then read a whole table
        // for it, of which it knows no better than by a sample.
        let sql = "/* search_known */ SELECT (SELECT ca_server_id FROM ca_servers WHERE tenant_id = $1 AND name = $2), \
                   (SELECT policy_id FROM policies WHERE tenant_id = $1 AND name = $3), \
                   set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
                   set_config('enable_mergejoin', 'off', true)";
        let row = self.query_opt(sql, &[&ca_server, &policy]).await?.ok_or(DbError::NotFound { kind: "tenant" })?;
        let (found_ca, found_policy): (Option<Uuid>, Option<Uuid>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Known {
            ca_server: ca_server.map(|_| found_ca.unwrap_or_default()),
            policy: policy.map(|_| found_policy.unwrap_or_default()),
        })
    }

    async fn found(&self, search: &Search) -> Result<Vec<Row>, DbError> {
        self.searched(&search.sql, &search.params).await
    }

    /// Not kept as a prepared statement: there are as many as there are ways to search, and each is planned for its values.
    async fn searched(&self, sql: &str, params: &[Param]) -> Result<Vec<Row>, DbError> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        self.query_once(sql, &params).await
    }
}
