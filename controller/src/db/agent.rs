//! SQL of table `agents`. Joining and sessions come before a tenant is known: they go through the system role.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_postgres::Row;
use trustfleet_model::device::{Labels, Word};
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, InstanceId, TenantId};

use super::column::{Columns, to_json};
use super::tx::Id;
use super::{DbError, Note, SystemTx, TenantTx};
use crate::audit::Requester;

/// That an agent lives twice stands in the audit log once in this time.
const TWICE_NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// A device agent that has joined.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its id; names its queue on the broker.
    pub id: AgentId,
    /// Its name.
    pub name: ObjectName,
    /// Ed25519 public key: proves possession, verifies reports.
    pub sign_key: Vec<u8>,
    /// X25519 public key: secrets are sealed to it.
    pub seal_key: Vec<u8>,
    /// Version of its software at the last hello.
    pub software: String,
    /// Labels from the token that it joined with.
    pub labels: Labels,
    /// Serial number that its factory identity vouched for or an operator approved; none: it joined by a token.
    pub serial: Option<Word>,
    /// How it first joined.
    pub joined_by: JoinedBy,
    /// When it joined, with its present keys.
    pub joined_at: Timestamp,
    /// Last session, hello or report.
    pub last_seen_at: Timestamp,
    /// Its quarantine; none: it works.
    pub quarantine: Option<Quarantine>,
    /// When its connections were last closed for good; none: they need not be, or could not be yet.
    pub cut_off_at: Option<Timestamp>,
    /// When two processes with its keys were last found alive at once.
    pub live_twice_at: Option<Timestamp>,
    /// How far its device's clock was behind the controller's at its last hello, seconds; negative: ahead.
    pub clock_off_s: Option<i64>,
}

/// How an agent first joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedBy {
    /// By a one-time token.
    Token,
    /// By a factory identity.
    Factory,
    /// By an operator's approval of its keys.
    Approval,
}

impl JoinedBy {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Factory => "factory",
            Self::Approval => "approval",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Token, Self::Factory, Self::Approval].into_iter().find(|way| way.as_str() == word)
    }
}

/// Why an agent is let in no more.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// Since when.
    pub since: Timestamp,
    /// In the words of who decided it.
    pub reason: String,
}

/// The columns that [`read`] wants, of `agents a`.
macro_rules! columns {
    () => {
        "a.tenant_id, a.agent_id, a.name, a.sign_key, a.seal_key, a.software, a.labels, a.serial, a.joined_by, a.joined_at, a.last_seen_at, \
         a.quarantined_at, a.quarantine_reason, a.live_twice_at, a.clock_off_s, \
         (SELECT max(c.done_at) FROM broker_cut_offs c WHERE c.tenant_id = a.tenant_id AND c.agent_id = a.agent_id \
          AND c.with_queue) AS cut_off_at"
    };
}

impl TenantTx {
    /// The agent of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn agent_fetch(&self, name: &ObjectName) -> Result<Agent, DbError> {
        let sql =
            concat!("/* agent_fetch */ SELECT ", columns!(), " FROM agents a WHERE a.tenant_id = $1 AND a.name = $2");
        let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "agent" })?;
        read(&row)
    }

    /// At most `limit` agents by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Agent>, DbError> {
        let sql = concat!(
            "/* agent_list */ SELECT ",
            columns!(),
            " FROM agents a WHERE a.tenant_id = $1 AND ($2::text IS NULL OR a.name > $2) ORDER BY a.name LIMIT $3"
        );
        self.query(sql, &[&after, &limit]).await?.iter().map(read).collect()
    }

    /// Puts an agent into quarantine; one that is there already keeps its reason. Returns whether it was not.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_quarantine(&self, id: AgentId, reason: &str, now: Timestamp) -> Result<bool, DbError> {
        let sql = "/* agent_quarantine */ UPDATE agents SET quarantined_at = $3, quarantine_reason = $4 \
                   WHERE tenant_id = $1 AND agent_id = $2 AND quarantined_at IS NULL";
        Ok(self.execute(sql, &[&Id(id), &now, &reason]).await? == 1)
    }

    /// Lets an agent out of quarantine. Returns whether it was there.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_release(&self, id: AgentId) -> Result<bool, DbError> {
        let sql = "/* agent_release */ UPDATE agents SET quarantined_at = NULL, quarantine_reason = NULL \
                   WHERE tenant_id = $1 AND agent_id = $2 AND quarantined_at IS NOT NULL";
        Ok(self.execute(sql, &[&Id(id)]).await? == 1)
    }
}

impl SystemTx {
    /// Takes an agent in.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when its name or its key is taken in its tenant.
    pub async fn agent_insert(&self, agent: &Agent) -> Result<(), DbError> {
        let sql = "/* agent_insert */ INSERT INTO agents \
                   (tenant_id, agent_id, name, sign_key, seal_key, software, labels, joined_at, last_seen_at, serial, \
                   joined_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let Agent { tenant_id, id, name, sign_key, seal_key, software, labels, joined_at, last_seen_at, .. } = agent;
        let labels = to_json("agents", "labels", id, labels)?;
        let (serial, joined_by) = (agent.serial.as_ref().map(AsRef::as_ref), agent.joined_by.as_str());
        let serial: Option<&str> = serial;
        let count = self
            .execute(
                sql,
                &[
                    &Id(*tenant_id),
                    &Id(*id),
                    &name.as_str(),
                    sign_key,
                    seal_key,
                    software,
                    &labels,
                    joined_at,
                    last_seen_at,
                    &serial,
                    &joined_by,
                ],
            )
            .await?;
        DbError::one_row(count, "agent")
    }

    /// Gives an agent new keys; what was known of the processes with the former ones is forgotten, its quarantine ends.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; [`DbError::Conflict`] when another agent has the key.
    pub async fn agent_rejoin(&self, agent: &Agent) -> Result<(), DbError> {
        let sql = "/* agent_rejoin */ UPDATE agents SET sign_key = $3, seal_key = $4, software = $5, joined_at = $6, \
                   last_seen_at = greatest(last_seen_at, $6), quarantined_at = NULL, quarantine_reason = NULL, \
                   last_challenge = NULL, instance_id = NULL, former_instances = '{}', live_twice_at = NULL \
                   WHERE tenant_id = $1 AND agent_id = $2";
        let Agent { tenant_id, id, sign_key, seal_key, software, joined_at, .. } = agent;
        let count = self.execute(sql, &[&Id(*tenant_id), &Id(*id), sign_key, seal_key, software, joined_at]).await?;
        DbError::one_row(count, "agent")
    }

    /// The agent of this id, of whatever tenant that is not deleted: it says who it is before its tenant is known.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn agent_by_id(&self, id: AgentId) -> Result<Agent, DbError> {
        let sql = concat!(
            "/* agent_by_id */ SELECT ",
            columns!(),
            " FROM agents a JOIN tenants t ON t.tenant_id = a.tenant_id AND t.state <> 'deleted' WHERE a.agent_id = $1"
        );
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "agent" })?;
        read(&row)
    }

    /// The agent of this name in `tenant`, if there is one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_by_name(&self, tenant: TenantId, name: &ObjectName) -> Result<Option<Agent>, DbError> {
        let sql =
            concat!("/* agent_by_name */ SELECT ", columns!(), " FROM agents a WHERE a.tenant_id = $1 AND a.name = $2");
        self.query_opt(sql, &[&Id(tenant), &name.as_str()]).await?.as_ref().map(read).transpose()
    }

    /// The agent of this serial number in `tenant`, if there is one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_by_serial(&self, tenant: TenantId, serial: &Word) -> Result<Option<Agent>, DbError> {
        let sql = concat!(
            "/* agent_by_serial */ SELECT ",
            columns!(),
            " FROM agents a WHERE a.tenant_id = $1 AND a.serial = $2"
        );
        self.query_opt(sql, &[&Id(tenant), &serial.as_ref()]).await?.as_ref().map(read).transpose()
    }

    /// Uses a challenge for a session of an agent; of several, each must be newer than those before. Returns whether it
    /// was, and could be used.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_session_begin(
        &self,
        tenant: TenantId,
        id: AgentId,
        challenge: &[u8],
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let sql = "/* agent_session_begin */ UPDATE agents \
                   SET last_seen_at = greatest(last_seen_at, $4), last_challenge = $3 \
                   WHERE tenant_id = $1 AND agent_id = $2 AND (last_challenge IS NULL OR last_challenge < $3)";
        Ok(self.execute(sql, &[&Id(tenant), &Id(id), &challenge, &now]).await? == 1)
    }

    /// Notes that a process of an agent has spoken at `at`. Returns whether another one had taken over from it: both live,
    /// which then stands in the audit log, once in an hour. A word from a process that another one took over from counts
    /// only when it was said after that, give or take five seconds of the device's clock.
    ///
    /// # Errors
    /// The database's own.
    pub async fn agent_heard(
        &self,
        tenant: TenantId,
        id: AgentId,
        instance: InstanceId,
        at: Timestamp,
    ) -> Result<bool, DbError> {
        let sql = "/* agent_heard */ WITH old AS (\
                       SELECT instance_id, former_instances, live_twice_at, \
                              coalesce($3 = ANY (former_instances), false) AS is_former \
                       FROM agents WHERE tenant_id = $1 AND agent_id = $2 FOR UPDATE\
                   ) UPDATE agents a SET instance_id = $3, instance_since = $4, \
                       former_instances = CASE WHEN old.instance_id IS NULL THEN '{}' \
                           ELSE (ARRAY[old.instance_id] || array_remove(old.former_instances, $3))[1:8] END, \
                       live_twice_at = CASE WHEN old.is_former THEN $4 ELSE a.live_twice_at END \
                   FROM old WHERE a.tenant_id = $1 AND a.agent_id = $2 AND a.instance_id IS DISTINCT FROM $3 \
                       AND (NOT old.is_former OR $4 > a.instance_since + interval '5 seconds') \
                   RETURNING old.is_former, old.instance_id AS other, old.live_twice_at AS before";
        let Some(row) = self.query_opt(sql, &[&Id(tenant), &Id(id), &Id(instance), &at]).await? else {
            return Ok(false);
        };
        if !row.try_get::<_, bool>("is_former")? {
            return Ok(false);
        }
        let before: Option<Timestamp> = row.try_get("before")?;
        if before.is_none_or(|before| at.duration_since(before) >= TWICE_NOTED_EVERY) {
            let other: Option<Id<InstanceId>> = row.try_get("other")?;
            let requester = Requester::new(format!("agent:{id}"), "agent");
            let detail = json!({"instance": instance, "other": other.map(|Id(other)| other)});
            let note = Note::new(at, &requester, "agent_live_twice", "agent", id.as_uuid(), detail);
            self.audit_note(tenant, &note).await?;
        }
        Ok(true)
    }
}

fn read(row: &Row) -> Result<Agent, DbError> {
    let columns = Columns::new(row, "agents", "agent_id");
    let (since, reason): (Option<Timestamp>, Option<String>) =
        (columns.read("quarantined_at")?, columns.read("quarantine_reason")?);
    let joined_by: String = columns.read("joined_by")?;
    Ok(Agent {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        id: columns.read::<Id<AgentId>>("agent_id")?.0,
        name: columns.parse::<String, _>("name")?,
        sign_key: columns.read("sign_key")?,
        seal_key: columns.read("seal_key")?,
        software: columns.read("software")?,
        labels: columns.json("labels")?,
        serial: columns.parse_opt::<String, _>("serial")?,
        joined_by: JoinedBy::from_word(&joined_by)
            .ok_or_else(|| columns.wrong("joined_by", format!("{joined_by:?} is unknown")))?,
        joined_at: columns.read("joined_at")?,
        last_seen_at: columns.read("last_seen_at")?,
        quarantine: since.zip(reason).map(|(since, reason)| Quarantine { since, reason }),
        cut_off_at: columns.read("cut_off_at")?,
        live_twice_at: columns.read("live_twice_at")?,
        clock_off_s: columns.read("clock_off_s")?,
    })
}
