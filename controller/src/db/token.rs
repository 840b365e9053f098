//! SQL of tables `api_tokens` and `join_tokens`. Who presents a token has no tenant yet: look-ups go through the system
//! role, and only hashes are stored.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use trustfleet_model::device::Labels;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, TenantId, TokenId};

use super::column::{Columns, to_json};
use super::tenant::{self, Tenant, tenant_columns};
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};

/// How exactly `last_used_at` is kept: one write per token and minute at most.
const LAST_USED_STEP: SignedDuration = SignedDuration::from_mins(1);

/// A new bearer token of the REST API.
#[derive(Clone, Debug)]
pub struct ApiTokenInsert<'a> {
    /// Its id.
    pub id: TokenId,
    /// Its tenant; none: the platform.
    pub tenant_id: Option<TenantId>,
    /// SHA-256 of the token.
    pub hash: &'a [u8],
    /// Word of its role.
    pub role: &'static str,
    /// What of its role it may use; empty: all.
    pub scopes: &'a [String],
    /// What it is for.
    pub description: &'a str,
    /// Who makes it, in the words of the audit log.
    pub created_by: &'a str,
    /// Whom it acts for.
    pub person: &'a str,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A bearer token of the REST API, as it is listed.
#[derive(Clone, Debug)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// Word of its role.
    pub role: String,
    /// What of its role it may use; empty: all.
    pub scopes: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Who made it, in the words of the audit log.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; none: never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl ApiToken {
    /// Whether it is neither revoked nor expired.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// A bearer token with the tenant it opens.
#[derive(Clone, Debug)]
pub struct PresentedToken {
    /// The token.
    pub token: ApiToken,
    /// Whom it acts for.
    pub person: String,
    /// Its tenant; none: the platform.
    pub tenant: Option<Tenant>,
}

/// A join token, as it is made and as an agent presents it; then its row is locked until the transaction ends.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// Tenant that the agent will belong to.
    pub tenant_id: TenantId,
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret part.
    pub secret_hash: Vec<u8>,
    /// Name that the agent must have.
    pub agent_name: Option<ObjectName>,
    /// Labels that the agent gets.
    pub labels: Labels,
    /// The agent that joins again; none: a new one joins.
    pub rejoin_agent_id: Option<AgentId>,
    /// How many agents may still join with it.
    pub uses_left: u32,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl TenantTx {
    /// Makes a join token.
    ///
    /// # Errors
    /// The database's own.
    pub async fn join_token_insert(&self, token: &JoinToken, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* join_token_insert */ INSERT INTO join_tokens \
                   (tenant_id, token_id, secret_hash, agent_name, labels, rejoin_agent_id, uses_left, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let JoinToken { id, secret_hash, agent_name, labels, rejoin_agent_id, uses_left, expires_at, .. } = token;
        let uses = i32::try_from(*uses_left).unwrap_or(i32::MAX);
        let (name, rejoin) = (agent_name.as_ref().map(ObjectName::as_str), rejoin_agent_id.map(Id));
        let labels = to_json("join_tokens", "labels", id, labels)?;
        let count =
            self.execute(sql, &[&Id(*id), secret_hash, &name, &labels, &rejoin, &uses, &now, expires_at]).await?;
        DbError::one_row(count, "join token")
    }
}

impl SystemTx {
    /// Makes an API token.
    ///
    /// # Errors
    /// The database's own.
    pub async fn api_token_insert(&self, token: &ApiTokenInsert<'_>) -> Result<(), DbError> {
        let sql = "/* api_token_insert */ INSERT INTO api_tokens \
                   (token_id, tenant_id, token_hash, role, scopes, description, created_by, person, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let tenant = token.tenant_id.map(Id);
        let count = self
            .execute(
                sql,
                &[
                    &Id(token.id),
                    &tenant,
                    &token.hash,
                    &token.role,
                    &token.scopes,
                    &token.description,
                    &token.created_by,
                    &token.person,
                    &token.created_at,
                    &token.expires_at,
                ],
            )
            .await?;
        DbError::one_row(count, "token")
    }

    /// The token with this hash, in force or not, with its tenant.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn api_token_by_hash(&self, hash: &[u8]) -> Result<PresentedToken, DbError> {
        let sql = concat!(
            "/* api_token_by_hash */ SELECT k.token_id, k.role, k.scopes, k.description, k.created_by, k.person, \
             k.created_at, k.expires_at, k.last_used_at, k.revoked_at, ",
            tenant_columns!(),
            " FROM api_tokens k LEFT JOIN tenants t ON t.tenant_id = k.tenant_id WHERE k.token_hash = $1"
        );
        let row = self.query_opt(sql, &[&hash]).await?.ok_or(DbError::NotFound { kind: "token" })?;
        let columns = Columns::new(&row, "api_tokens", "token_id");
        let has_tenant = columns.read::<Option<Id<TenantId>>>("tenant_id")?.is_some();
        let tenant = if has_tenant { Some(tenant::read(&row)?) } else { None };
        Ok(PresentedToken { token: read(&row)?, person: columns.read("person")?, tenant })
    }

    /// Notes the use of a token, unless that was done within the last minute.
    ///
    /// # Errors
    /// The database's own.
    pub async fn api_token_used(&self, id: TokenId, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* api_token_used */ UPDATE api_tokens SET last_used_at = $2 \
                   WHERE token_id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
        let before = now.checked_sub(LAST_USED_STEP).unwrap_or(now);
        self.execute(sql, &[&Id(id), &now, &before]).await.map(drop)
    }

    /// At most `limit` tokens of `tenant` (none: of the platform), oldest first, beginning after the id `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn api_token_list(
        &self,
        tenant: Option<TenantId>,
        after: Option<TokenId>,
        limit: i64,
    ) -> Result<Vec<ApiToken>, DbError> {
        let sql = "/* api_token_list */ SELECT token_id, role, scopes, description, created_by, created_at, expires_at, \
                   last_used_at, revoked_at FROM api_tokens \
                   WHERE tenant_id IS NOT DISTINCT FROM $1 AND ($2::uuid IS NULL OR token_id > $2) ORDER BY token_id LIMIT $3";
        self.query(sql, &[&tenant.map(Id), &after.map(Id), &limit]).await?.iter().map(read).collect()
    }

    /// Takes a token of `tenant` (none: of the platform) back; it stays in the list.
    ///
    /// # Errors
    /// [`DbError::NotFound`], also when it was taken back before.
    pub async fn api_token_revoke(&self, tenant: Option<TenantId>, id: TokenId, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* api_token_revoke */ UPDATE api_tokens SET revoked_at = $3 \
                   WHERE tenant_id IS NOT DISTINCT FROM $1 AND token_id = $2 AND revoked_at IS NULL";
        DbError::one_row(self.execute(sql, &[&tenant.map(Id), &Id(id), &now]).await?, "token")
    }

    /// Whether a platform administrator's token is in force, other than `except`. Holds a lock until the transaction ends, so that of two
    /// replicas that start together only one makes the first token.
    ///
    /// # Errors
    /// The database's own.
    pub async fn platform_token_exists(&self, now: Timestamp, except: Option<TokenId>) -> Result<bool, DbError> {
        let lock = "/* platform_token_exists */ SELECT pg_advisory_xact_lock(hashtext('trustfleet first token'))";
        self.query(lock, &[]).await?;
        let sql = "/* platform_token_exists */ SELECT token_id FROM api_tokens WHERE role = 'platform_admin' \
                   AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) AND token_id IS DISTINCT FROM $2 LIMIT 1";
        Ok(self.query_opt(sql, &[&now, &except.map(Id)]).await?.is_some())
    }

    /// The join token of this id, locked against other joins; those of tenants that are suspended or deleted open nothing.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn join_token_lock(&self, id: TokenId) -> Result<JoinToken, DbError> {
        let sql = "/* join_token_lock */ SELECT tenant_id, token_id, secret_hash, agent_name, labels, rejoin_agent_id, \
                   uses_left, expires_at \
                   FROM join_tokens k WHERE token_id = $1 AND EXISTS (SELECT FROM tenants t \
                   WHERE t.tenant_id = k.tenant_id AND t.state = 'active') FOR UPDATE";
        let row = self.query_opt(sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "join token" })?;
        let columns = Columns::new(&row, "join_tokens", "token_id");
        Ok(JoinToken {
            tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
            id,
            secret_hash: columns.read("secret_hash")?,
            agent_name: columns.parse_opt::<String, _>("agent_name")?,
            labels: columns.json("labels")?,
            rejoin_agent_id: columns.read::<Option<Id<AgentId>>>("rejoin_agent_id")?.map(|Id(agent)| agent),
            uses_left: columns.parse::<i32, _>("uses_left")?,
            expires_at: columns.read("expires_at")?,
        })
    }

    /// Uses a join token up by one.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when it is used up or expired.
    pub async fn join_token_use(&self, tenant: TenantId, id: TokenId, now: Timestamp) -> Result<(), DbError> {
        let sql = "/* join_token_use */ UPDATE join_tokens SET uses_left = uses_left - 1 \
                   WHERE tenant_id = $1 AND token_id = $2 AND uses_left > 0 AND expires_at > $3";
        DbError::one_row(self.execute(sql, &[&Id(tenant), &Id(id), &now]).await?, "join token")
    }
}

fn read(row: &Row) -> Result<ApiToken, DbError> {
    let columns = Columns::new(row, "api_tokens", "token_id");
    Ok(ApiToken {
        id: columns.read::<Id<TokenId>>("token_id")?.0,
        role: columns.read("role")?,
        scopes: columns.read("scopes")?,
        description: columns.read("description")?,
        created_by: columns.read("created_by")?,
        created_at: columns.read("created_at")?,
        expires_at: columns.read("expires_at")?,
        last_used_at: columns.read("last_used_at")?,
        revoked_at: columns.read("revoked_at")?,
    })
}
