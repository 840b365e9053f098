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

/// A statement with the conditions that were asked for.
pub struct Search {
    sql: String,
    params: Vec<Param>,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sql)
    }
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
    pub fn search(&self, limit: i64) -> Search {
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
    pub fn search(&self, limit: i64) -> Search {
        let (lease, lease_from) = lease::LEASE;
        let (columns, from) = (listing::TRUSTPOINT, listing::TRUSTPOINT_FROM);
        let mut search = Search::new(&format!("/* trustpoint_search */ SELECT {columns}, {lease} {from} {lease_from}"));
        search.sql.push_str("t.tenant_id = $1");
        search.of_device("t.device_id", self.device.as_deref());
        search.labelled(&self.labels, "t.device_id");
        search.maybe("t.status = {}", self.status.clone());
        search.maybe("t.not_after >= {}", self.expires_after);
        search.maybe("t.not_after < {}", self.expires_before);
        let ca_server =
            "t.ca_server_id = (SELECT s.ca_server_id FROM ca_servers s WHERE s.tenant_id = $1 AND s.name = {})";
        search.maybe(ca_server, self.ca_server.clone());
        let policy = "t.policy_id = (SELECT q.policy_id FROM policies q WHERE q.tenant_id = $1 AND q.name = {})";
        search.maybe(policy, self.policy.clone());
        search.maybe("t.trustpoint_id > {}", self.after.map(Id));
        search.ordered("t.trustpoint_id", limit)
    }
}

impl CertificateFilter {
    /// At most `limit` of them, the one that ends first leading.
    pub fn search(&self, limit: i64) -> Search {
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
        search.maybe("c.issuer_key = md5({}::text)", self.issuer.clone());
        search.maybe("c.issuer = {}", self.issuer.clone());
        let ca_server = "EXISTS (SELECT FROM trustpoints o JOIN ca_servers s ON s.tenant_id = o.tenant_id \
                         AND s.ca_server_id = o.ca_server_id WHERE o.tenant_id = $1 AND o.trustpoint_id = c.trustpoint_id \
                         AND s.name = {})";
        search.maybe(ca_server, self.ca_server.clone());
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
        self.found(&filter.search(limit)).await?.iter().map(listing::read_trustpoint).collect()
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
        self.found(&filter.search(limit)).await?.iter().map(listing::read_certificate).collect()
    }

    /// How the database carries a search out, as its EXPLAIN tells after having done so: for whoever looks why one is slow.
    ///
    /// # Errors
    /// The database's own.
    pub async fn search_plan(&self, search: &Search) -> Result<Value, DbError> {
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}", search.sql);
        let rows = self.searched(&sql, &search.params).await?;
        rows.first().map_or(Ok(Value::Null), |row| Ok(row.try_get(0)?))
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
