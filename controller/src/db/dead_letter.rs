//! SQL of table `dead_letters`: messages of agents that cannot be processed. By the system role alone: they are of nobody
//! before they are understood.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, DeadLetterId, TenantId};

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx};

/// Class of the advisory locks under which the letters of one agent are counted.
const LETTER_LOCK: i32 = 0x7466_646c;

/// A message that could not be processed.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// Tenant of the agent that wrote it; nil: not known.
    pub tenant_id: TenantId,
    /// Name of that tenant; not read when it is written.
    pub tenant: Option<ObjectName>,
    /// Whose routing key it came by; nil: not known.
    pub agent_id: AgentId,
    /// Name of that agent; not read when it is written.
    pub agent: Option<ObjectName>,
    /// The routing key; empty: not known.
    pub routing_key: String,
    /// Why, as in the metrics.
    pub reason: String,
    /// What was found, in words.
    pub detail: String,
    /// The message, or its beginning; not read for lists.
    pub body: Vec<u8>,
    /// Length of the whole message, bytes.
    pub size: i64,
    /// SHA-256 of the whole message.
    pub sha256: Vec<u8>,
    /// How often it was laid aside.
    pub times: i64,
    /// When it was laid aside first.
    pub first_at: Timestamp,
    /// When it was last.
    pub last_at: Timestamp,
}

/// Which letters are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LetterFilter<'a> {
    /// Only for this reason.
    pub reason: Option<&'a str>,
    /// Only of agents of the tenant of this name.
    pub tenant: Option<&'a str>,
    /// Only of agents of this name, or of this id.
    pub agent: Option<&'a str>,
    /// Before this one: lists begin with the newest.
    pub before: Option<DeadLetterId>,
}

const COLUMNS: &str = "l.dead_letter_id, l.tenant_id, l.agent_id, l.routing_key, l.reason, l.detail, l.size, l.sha256, \
    l.times, l.first_at, l.last_at, t.name AS tenant, a.name AS agent";

const FROM: &str = "FROM dead_letters l LEFT JOIN tenants t ON t.tenant_id = l.tenant_id \
    LEFT JOIN agents a ON a.tenant_id = l.tenant_id AND a.agent_id = l.agent_id";

impl SystemTx {
    /// Lays a message aside; one that lies there already is told of again. Of its agent's letters the oldest go when they
    /// are more than `most` or their bodies longer than `bytes` together; returns how many went.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letter_insert(&self, letter: &DeadLetter, most: i64, bytes: i64) -> Result<u64, DbError> {
        // One agent's letters are counted by one at a time.
        let lock = "/* dead_letter_lock */ SELECT pg_advisory_xact_lock($1, hashtext($2))";
        self.query(lock, &[&LETTER_LOCK, &letter.agent_id.to_string()]).await?;
        let sql = "/* dead_letter_insert */ INSERT INTO dead_letters (tenant_id, dead_letter_id, agent_id, routing_key, \
                   reason, detail, body, size, sha256, first_at, last_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) \
                   ON CONFLICT (tenant_id, agent_id, sha256) DO UPDATE SET times = dead_letters.times + 1, \
                   reason = excluded.reason, detail = excluded.detail, last_at = excluded.last_at";
        let count = self
            .execute(
                sql,
                &[
                    &Id(letter.tenant_id),
                    &Id(letter.id),
                    &Id(letter.agent_id),
                    &letter.routing_key,
                    &letter.reason,
                    &letter.detail,
                    &letter.body,
                    &letter.size,
                    &letter.sha256,
                    &letter.last_at,
                ],
            )
            .await?;
        DbError::one_row(count, "dead letter")?;
        let sql = "/* dead_letters_trim_agent */ DELETE FROM dead_letters d USING ( \
                       SELECT dead_letter_id, row_number() OVER newest AS place, sum(length(body)) OVER newest AS bytes \
                       FROM dead_letters WHERE tenant_id = $1 AND agent_id = $2 \
                       WINDOW newest AS (ORDER BY last_at DESC, dead_letter_id DESC ROWS UNBOUNDED PRECEDING) \
                   ) o WHERE d.tenant_id = $1 AND d.dead_letter_id = o.dead_letter_id \
                   AND (o.place > $3 OR (o.bytes > $4 AND o.place > 1))";
        self.execute(sql, &[&Id(letter.tenant_id), &Id(letter.agent_id), &most, &bytes]).await
    }

    /// Removes the oldest letters beyond `most`, and beyond `bytes` of bodies together; returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letters_trim(&self, most: i64, bytes: i64) -> Result<u64, DbError> {
        let sql = "/* dead_letters_trim */ DELETE FROM dead_letters d USING ( \
                       SELECT tenant_id, dead_letter_id, row_number() OVER newest AS place, \
                              sum(length(body)) OVER newest AS bytes FROM dead_letters \
                       WINDOW newest AS (ORDER BY last_at DESC, dead_letter_id DESC ROWS UNBOUNDED PRECEDING) \
                   ) o WHERE d.tenant_id = o.tenant_id AND d.dead_letter_id = o.dead_letter_id \
                   AND (o.place > $1 OR o.bytes > $2)";
        self.execute(sql, &[&most, &bytes]).await
    }

    /// Removes letters that were last laid aside before `until`; returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letters_remove_old(&self, until: Timestamp) -> Result<u64, DbError> {
        let sql = "/* dead_letters_remove_old */ DELETE FROM dead_letters WHERE last_at < $1";
        self.execute(sql, &[&until]).await
    }

    /// At most `limit` letters without their bodies, newest first.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letter_list(&self, filter: LetterFilter<'_>, limit: i64) -> Result<Vec<DeadLetter>, DbError> {
        let sql = format!(
            "/* dead_letter_list */ SELECT {COLUMNS}, ''::bytea AS body {FROM} \
             WHERE ($1::text IS NULL OR l.reason = $1) AND ($2::text IS NULL OR t.name = $2) \
             AND ($3::text IS NULL OR a.name = $3 OR l.agent_id::text = $3) \
             AND ($4::uuid IS NULL OR l.dead_letter_id < $4) ORDER BY l.dead_letter_id DESC LIMIT $5"
        );
        let before = filter.before.map(Id);
        let rows = self.query(&sql, &[&filter.reason, &filter.tenant, &filter.agent, &before, &limit]).await?;
        rows.iter().map(read).collect()
    }

    /// The letter of this id, with its body.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn dead_letter_fetch(&self, id: DeadLetterId) -> Result<DeadLetter, DbError> {
        let sql = format!("/* dead_letter_fetch */ SELECT {COLUMNS}, l.body {FROM} WHERE l.dead_letter_id = $1");
        let row = self.query_opt(&sql, &[&Id(id)]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "dead letter" })?)
    }

    /// Removes a letter; with `times`, only if it was not laid aside again since. Whether it went.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letter_delete(&self, letter: &DeadLetter, times: Option<i64>) -> Result<bool, DbError> {
        let sql = "/* dead_letter_delete */ DELETE FROM dead_letters WHERE tenant_id = $1 AND dead_letter_id = $2 \
                   AND ($3::bigint IS NULL OR times = $3)";
        Ok(self.execute(sql, &[&Id(letter.tenant_id), &Id(letter.id), &times]).await? > 0)
    }

    /// Removes all letters of a reason; returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn dead_letters_delete(&self, reason: &str) -> Result<u64, DbError> {
        let sql = "/* dead_letters_delete */ DELETE FROM dead_letters WHERE reason = $1";
        self.execute(sql, &[&reason]).await
    }
}

fn read(row: &Row) -> Result<DeadLetter, DbError> {
    let columns = Columns::new(row, "dead_letters", "dead_letter_id");
    Ok(DeadLetter {
        id: columns.read::<Id<DeadLetterId>>("dead_letter_id")?.0,
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        tenant: columns.parse_opt::<String, _>("tenant")?,
        agent_id: columns.read::<Id<AgentId>>("agent_id")?.0,
        agent: columns.parse_opt::<String, _>("agent")?,
        routing_key: columns.read("routing_key")?,
        reason: columns.read("reason")?,
        detail: columns.read("detail")?,
        body: columns.read("body")?,
        size: columns.read("size")?,
        sha256: columns.read("sha256")?,
        times: columns.read("times")?,
        first_at: columns.read("first_at")?,
        last_at: columns.read("last_at")?,
    })
}
