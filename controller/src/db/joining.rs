//! SQL of tables `factory_cas`, `expected_agents` and `agent_applicants`: how agents come in without a token.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::device::{Labels, Word};
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{ApplicantId, ExpectedId, FactoryCaId, TenantId};

use super::column::{Columns, to_json};
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};
use crate::factory::SerialFrom;

/// A CA whose factory identities let agents in.
#[derive(Clone, Debug)]
pub struct FactoryCa {
    /// Its id.
    pub id: FactoryCaId,
    /// Its name.
    pub name: ObjectName,
    /// Trust anchors, PEM.
    pub anchors: Vec<String>,
    /// Where its certificates hold the serial number.
    pub serial_from: SerialFrom,
    /// Whether only expected serial numbers come in.
    pub expected_only: bool,
    /// Labels that its agents get.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A serial number that an operator expects.
#[derive(Clone, Debug)]
pub struct ExpectedAgent {
    /// Its id, for the audit log.
    pub id: ExpectedId,
    /// The serial number.
    pub serial: Word,
    /// Name that the agent gets.
    pub agent_name: Option<ObjectName>,
    /// Labels that it gets.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What was decided about an applicant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicantState {
    /// Nothing yet.
    Pending,
    /// It may come in.
    Approved,
    /// It may not.
    Rejected,
}

impl ApplicantState {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Rejected].into_iter().find(|state| state.as_str() == word)
    }
}

/// An agent that announced an expected serial number.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Its id.
    pub id: ApplicantId,
    /// The serial number that it claims.
    pub serial: Word,
    /// Name that it will get.
    pub name: ObjectName,
    /// Its Ed25519 key.
    pub sign_key: Vec<u8>,
    /// Its X25519 key.
    pub seal_key: Vec<u8>,
    /// Version of its software, as it says.
    pub software: String,
    /// Where it last came from.
    pub address: Option<String>,
    /// What was decided.
    pub state: ApplicantState,
    /// When it first announced itself.
    pub first_seen_at: Timestamp,
    /// When it last did.
    pub last_seen_at: Timestamp,
}

const FACTORY_CAS: &str =
    "SELECT factory_ca_id, name, anchors, serial_from, expected_only, labels, created_at FROM factory_cas";
const EXPECTED: &str = "SELECT expected_id, serial, agent_name, labels, created_at FROM expected_agents";
const APPLICANTS: &str = "SELECT applicant_id, serial, name, sign_key, seal_key, software, address, state, first_seen_at, \
                          last_seen_at FROM agent_applicants";

impl TenantTx {
    /// Registers a factory CA.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn factory_ca_insert(&self, ca: &FactoryCa) -> Result<(), DbError> {
        let sql = "/* factory_ca_insert */ INSERT INTO factory_cas (tenant_id, factory_ca_id, name, anchors, serial_from, \
                   expected_only, labels, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let labels = to_json("factory_cas", "labels", ca.id, &ca.labels)?;
        let serial_from = ca.serial_from.as_str();
        let count = self
            .execute(
                sql,
                &[&Id(ca.id), &ca.name.as_str(), &ca.anchors, &serial_from, &ca.expected_only, &labels, &ca.created_at],
            )
            .await?;
        DbError::one_row(count, "factory CA")
    }

    /// The factory CA of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn factory_ca_fetch(&self, name: &ObjectName) -> Result<FactoryCa, DbError> {
        let sql = format!("/* factory_ca_fetch */ {FACTORY_CAS} WHERE tenant_id = $1 AND name = $2");
        let row = self.query_opt(&sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "factory CA" })?;
        factory_ca(&row)
    }

    /// At most `limit` factory CAs by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn factory_ca_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<FactoryCa>, DbError> {
        let sql = format!(
            "/* factory_ca_list */ {FACTORY_CAS} WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2) ORDER BY name LIMIT $3"
        );
        self.query(&sql, &[&after, &limit]).await?.iter().map(factory_ca).collect()
    }

    /// Forgets a factory CA; agents that came in by it stay.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn factory_ca_delete(&self, id: FactoryCaId) -> Result<(), DbError> {
        let sql = "/* factory_ca_delete */ DELETE FROM factory_cas WHERE tenant_id = $1 AND factory_ca_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id)]).await?, "factory CA")
    }

    /// Expects a serial number.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it is expected already.
    pub async fn expected_agent_insert(&self, expected: &ExpectedAgent) -> Result<(), DbError> {
        let sql = "/* expected_agent_insert */ INSERT INTO expected_agents \
                   (tenant_id, expected_id, serial, agent_name, labels, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
        let labels = to_json("expected_agents", "labels", expected.id, &expected.labels)?;
        let (serial, name) = (expected.serial.as_ref(), expected.agent_name.as_ref().map(ObjectName::as_str));
        let count = self.execute(sql, &[&Id(expected.id), &serial, &name, &labels, &expected.created_at]).await?;
        DbError::one_row(count, "expected agent")
    }

    /// The expectation of this serial number.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn expected_agent_fetch(&self, serial: &Word) -> Result<ExpectedAgent, DbError> {
        let sql = format!("/* expected_agent_fetch */ {EXPECTED} WHERE tenant_id = $1 AND serial = $2");
        let row = self.query_opt(&sql, &[&serial.as_ref()]).await?;
        expected_agent(&row.ok_or(DbError::NotFound { kind: "expected agent" })?)
    }

    /// At most `limit` expected serial numbers, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn expected_agent_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<ExpectedAgent>, DbError> {
        let sql = format!(
            "/* expected_agent_list */ {EXPECTED} WHERE tenant_id = $1 AND ($2::text IS NULL OR serial > $2) \
             ORDER BY serial LIMIT $3"
        );
        self.query(&sql, &[&after, &limit]).await?.iter().map(expected_agent).collect()
    }

    /// Expects a serial number no more; whoever announced it is forgotten.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn expected_agent_delete(&self, serial: &Word) -> Result<(), DbError> {
        let sql = "/* expected_agent_delete */ DELETE FROM expected_agents WHERE tenant_id = $1 AND serial = $2";
        DbError::one_row(self.execute(sql, &[&serial.as_ref()]).await?, "expected agent")
    }

    /// At most `limit` applicants in the order of their first announcement, beginning after the id `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn applicant_list(&self, after: Option<ApplicantId>, limit: i64) -> Result<Vec<Applicant>, DbError> {
        let sql = format!(
            "/* applicant_list */ {APPLICANTS} WHERE tenant_id = $1 AND ($2::uuid IS NULL OR applicant_id > $2) \
             ORDER BY applicant_id LIMIT $3"
        );
        let after = after.map(|id| id.as_uuid());
        self.query(&sql, &[&after, &limit]).await?.iter().map(applicant).collect()
    }

    /// Decides about an applicant; what was decided before can be changed until it has come in.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn applicant_decide(&self, id: ApplicantId, state: ApplicantState) -> Result<Applicant, DbError> {
        let sql =
            "/* applicant_decide */ UPDATE agent_applicants SET state = $3 WHERE tenant_id = $1 AND applicant_id = $2";
        let count = self.execute(sql, &[&Id(id), &state.as_str()]).await?;
        DbError::one_row(count, "applicant")?;
        let sql = format!("/* applicant_decided */ {APPLICANTS} WHERE tenant_id = $1 AND applicant_id = $2");
        applicant(&self.query_opt(&sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "applicant" })?)
    }
}

impl SystemTx {
    /// The factory CAs of a tenant, at most 64.
    ///
    /// # Errors
    /// The database's own.
    pub async fn factory_cas_of(&self, tenant: TenantId) -> Result<Vec<FactoryCa>, DbError> {
        let sql = format!("/* factory_cas_of */ {FACTORY_CAS} WHERE tenant_id = $1 ORDER BY name LIMIT 64");
        self.query(&sql, &[&Id(tenant)]).await?.iter().map(factory_ca).collect()
    }

    /// The expectation of a serial number, locked against other announcements of it.
    ///
    /// # Errors
    /// The database's own.
    pub async fn expected_agent_lock(&self, tenant: TenantId, serial: &Word) -> Result<Option<ExpectedAgent>, DbError> {
        // The role may not update the row, and so not lock it: a lock of that name does as well.
        let lock = "/* expected_agent_lock */ SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2, 0))";
        self.query(lock, &[&Id(tenant), &serial.as_ref()]).await?;
        let sql = format!("/* expected_agent_of */ {EXPECTED} WHERE tenant_id = $1 AND serial = $2");
        self.query_opt(&sql, &[&Id(tenant), &serial.as_ref()]).await?.as_ref().map(expected_agent).transpose()
    }

    /// Expects a serial number no more: its agent has come in.
    ///
    /// # Errors
    /// The database's own.
    pub async fn expected_agent_came(&self, tenant: TenantId, serial: &Word) -> Result<(), DbError> {
        let sql = "/* expected_agent_came */ DELETE FROM expected_agents WHERE tenant_id = $1 AND serial = $2";
        self.execute(sql, &[&Id(tenant), &serial.as_ref()]).await.map(drop)
    }

    /// Notes an announcement; gives what is known of the applicant by now. None: others of the same serial number are too
    /// many already.
    ///
    /// # Errors
    /// The database's own.
    pub async fn applicant_announced(
        &self,
        tenant: TenantId,
        new: &Applicant,
        most: i64,
    ) -> Result<Option<Applicant>, DbError> {
        let sql = "/* applicant_announced */ INSERT INTO agent_applicants (tenant_id, applicant_id, serial, name, sign_key, \
                   seal_key, software, address, state, first_seen_at, last_seen_at) \
                   SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::bytea, $6::bytea, $7::text, $8::text, 'pending', \
                   $9::timestamptz, $9::timestamptz \
                   WHERE EXISTS (SELECT FROM agent_applicants WHERE tenant_id = $1 AND sign_key = $5) \
                      OR (SELECT count(*) FROM agent_applicants WHERE tenant_id = $1 AND serial = $3) < $10 \
                   ON CONFLICT (tenant_id, sign_key) DO UPDATE SET last_seen_at = $9, address = $8, software = $7";
        let Applicant { id, serial, name, sign_key, seal_key, software, address, last_seen_at, .. } = new;
        let (serial, name) = (serial.as_ref(), name.as_str());
        self.execute(
            sql,
            &[&Id(tenant), &Id(*id), &serial, &name, sign_key, seal_key, software, address, last_seen_at, &most],
        )
        .await?;
        let sql = format!(
            "/* applicant_of */ {APPLICANTS} WHERE tenant_id = $1 AND sign_key = $2 AND seal_key = $3 AND serial = $4"
        );
        let row = self.query_opt(&sql, &[&Id(tenant), sign_key, seal_key, &serial]).await?;
        row.as_ref().map(applicant).transpose()
    }
}

fn factory_ca(row: &Row) -> Result<FactoryCa, DbError> {
    let columns = Columns::new(row, "factory_cas", "factory_ca_id");
    let serial_from: String = columns.read("serial_from")?;
    Ok(FactoryCa {
        id: columns.read::<Id<FactoryCaId>>("factory_ca_id")?.0,
        name: columns.parse::<String, _>("name")?,
        anchors: columns.read("anchors")?,
        serial_from: SerialFrom::from_word(&serial_from)
            .ok_or_else(|| columns.wrong("serial_from", format!("{serial_from:?} is unknown")))?,
        expected_only: columns.read("expected_only")?,
        labels: columns.json("labels")?,
        created_at: columns.read("created_at")?,
    })
}

fn expected_agent(row: &Row) -> Result<ExpectedAgent, DbError> {
    let columns = Columns::new(row, "expected_agents", "expected_id");
    Ok(ExpectedAgent {
        id: columns.read::<Id<ExpectedId>>("expected_id")?.0,
        serial: columns.parse::<String, _>("serial")?,
        agent_name: columns.parse_opt::<String, _>("agent_name")?,
        labels: columns.json("labels")?,
        created_at: columns.read("created_at")?,
    })
}

fn applicant(row: &Row) -> Result<Applicant, DbError> {
    let columns = Columns::new(row, "agent_applicants", "applicant_id");
    let state: String = columns.read("state")?;
    Ok(Applicant {
        id: columns.read::<Id<ApplicantId>>("applicant_id")?.0,
        serial: columns.parse::<String, _>("serial")?,
        name: columns.parse::<String, _>("name")?,
        sign_key: columns.read("sign_key")?,
        seal_key: columns.read("seal_key")?,
        software: columns.read("software")?,
        address: columns.read("address")?,
        state: ApplicantState::from_word(&state)
            .ok_or_else(|| columns.wrong("state", format!("{state:?} is unknown")))?,
        first_seen_at: columns.read("first_seen_at")?,
        last_seen_at: columns.read("last_seen_at")?,
    })
}
