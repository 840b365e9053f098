//! Tokens of a tenant: for the REST API, and for agents that are to join. A token is shown once, when it is made.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trustfleet_model::device::Labels;
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::{AgentId, TenantId, TokenId};
use trustfleet_wire::sign::key_id;
use zeroize::Zeroizing;

use super::access::Role;
use super::auth::{new_token, sha256, token_hash};
use super::body::Body;
use super::call::{Call, ListQuery, id_bytes};
use super::dto::Page;
use super::dto::tenant::{JoinTokenCreate, JoinTokenCreatedBody, TokenBody, TokenCreate, TokenCreatedBody};
use super::problem::{Problem, json};
use super::scope::{Scope, Scopes};
use crate::audit::PLATFORM;
use crate::db::{ApiToken, ApiTokenInsert, DbError, JoinToken, Note, TenantTx};
use crate::entropy;
use crate::error::AppError;

const DESCRIPTION_MAX: usize = 200;
const SCOPES_MAX: usize = 64;
const VALID_MIN_S: u32 = 60;
/// Ten years.
const TOKEN_VALID_MAX_S: u32 = 315_360_000;
/// 30 days.
const JOIN_TOKEN_VALID_MAX_S: u32 = 2_592_000;
const JOIN_TOKEN_USES_MAX: u32 = 1000;

/// Lists the tenant's API tokens, without the tokens themselves.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tokens", tag = "Tokens", operation_id = "token_list",
    summary = "List API tokens, oldest first", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<TokenBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    page(&call, Some(call.tenant()?.id)).await
}

/// A part of the list of a tenant's tokens, or of the platform's.
pub(super) async fn page(call: &Call, tenant: Option<TenantId>) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let after: Option<TokenId> = list.after_as()?;
    let store = &call.services().store;
    let rows: Result<Vec<ApiToken>, DbError> =
        store.system_tx("token_list", async |tx| tx.api_token_list(tenant, after, list.rows()).await).await;
    let page: Page<TokenBody> = list.page(rows?, |token| token.id.to_string());
    json(StatusCode::OK, &page)
}

/// Makes an API token.
///
/// # Errors
/// 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/tokens", tag = "Tokens", operation_id = "token_create",
    summary = "Make an API token", request_body = TokenCreate,
    responses((status = 201, description = "Made; the token is shown only here", body = TokenCreatedBody)))]
pub async fn create(call: Call, body: Body<TokenCreate>) -> Result<HttpResponse, Problem> {
    let wanted = body.check(|body, violations| {
        let TokenCreate { role, scopes, description, valid_for_s } = body;
        check_wanted(&call, role.into(), &scopes, description, valid_for_s, violations)
    })?;
    mint(&call, Some(call.tenant()?.id), wanted).await
}

/// A token that may be made.
#[derive(Debug)]
pub(super) struct Wanted {
    role: Role,
    scopes: Scopes,
    description: String,
    valid_for_s: Option<u32>,
}

/// Checks what a new token is to be; nobody gives more than he has.
pub(super) fn check_wanted(
    call: &Call,
    role: Role,
    scopes: &[String],
    description: String,
    valid_for_s: Option<u32>,
    violations: &mut Violations,
) -> Option<Wanted> {
    violations.check("description", "text", check_text(&description, DESCRIPTION_MAX));
    if let Some(seconds) = valid_for_s {
        check_range("valid_for_s", seconds, VALID_MIN_S, TOKEN_VALID_MAX_S, violations);
    }
    if scopes.len() > SCOPES_MAX {
        violations.add("scopes", "count", format!("has {} entries; at most {SCOPES_MAX} are allowed", scopes.len()));
        return None;
    }
    let scopes: Vec<Option<Scope>> = scopes
        .iter()
        .enumerate()
        .map(|(i, text)| violations.check(&format!("scopes[{i}]"), "scope", text.parse::<Scope>()))
        .collect();
    let scopes = Scopes::only(scopes.into_iter().collect::<Option<_>>()?);
    if !call.caller().scopes.include(&scopes) {
        violations.add("scopes", "exceeds", "gives more than the scopes of the token that asks for it");
    }
    Some(Wanted { role, scopes, description, valid_for_s })
}

/// Makes a token of a tenant, or of the platform.
pub(super) async fn mint(call: &Call, tenant: Option<TenantId>, wanted: Wanted) -> Result<HttpResponse, Problem> {
    let token = new_token(&Zeroizing::new(entropy::random()?));
    let hash = token_hash(token.expose()).ok_or_else(|| AppError::internal("a new token has no hash"))?;
    let id = TokenId::fresh(call.now, id_bytes()?);
    let expires_at = wanted.valid_for_s.map(|seconds| later(call.now, seconds)).transpose()?;
    let scopes = wanted.scopes.words();
    let insert = ApiTokenInsert {
        id,
        tenant_id: tenant,
        hash: &hash,
        role: wanted.role.as_str(),
        scopes: &scopes,
        description: &wanted.description,
        created_by: &call.actor(),
        person: &call.caller().person_of_new_token(id),
        created_at: call.now,
        expires_at,
    };
    let requester = call.requester();
    let shown = json!({
        "role": insert.role, "scopes": scopes, "description": &wanted.description, "expires_at": expires_at
    });
    let note =
        Note::new(call.now, &requester, "token_created", "token", id.as_uuid(), json!({})).change(None, Some(shown));
    let store = &call.services().store;
    store
        .system_tx("token_create", async |tx| {
            tx.api_token_insert(&insert).await?;
            tx.audit_note(tenant.unwrap_or(PLATFORM), &note).await
        })
        .await
        .map_err(|error: DbError| Problem::from(error))?;
    let Wanted { role, description, .. } = wanted;
    let role = role.as_str().to_owned();
    let made = TokenCreatedBody { id, token: token.expose().clone(), role, scopes, description, expires_at };
    call.created(&id.to_string(), &made)
}

/// Takes an API token back.
///
/// # Errors
/// 404, also when it was taken back before.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/tokens/{token}", tag = "Tokens", operation_id = "token_delete",
    summary = "Take an API token back; it is refused everywhere within five seconds",
    responses((status = 204, description = "Taken back")))]
pub async fn revoke(call: Call) -> Result<HttpResponse, Problem> {
    take_back(&call, Some(call.tenant()?.id)).await
}

/// Takes back the token in the path, of a tenant or of the platform.
pub(super) async fn take_back(call: &Call, tenant: Option<TenantId>) -> Result<HttpResponse, Problem> {
    let id: TokenId = call.segment("token", "token")?;
    let requester = call.requester();
    let note = Note::new(call.now, &requester, "token_revoked", "token", id.as_uuid(), json!({}));
    let store = &call.services().store;
    store
        .system_tx("token_delete", async |tx| {
            let last = tenant.is_none() && !tx.platform_token_exists(call.now, Some(id)).await?;
            tx.api_token_revoke(tenant, id, call.now).await?;
            if last {
                let detail = "it is the last platform token in force: make another one first".to_owned();
                return Err(AppError::Conflict { code: "last_platform_token", detail });
            }
            Ok(tx.audit_note(tenant.unwrap_or(PLATFORM), &note).await?)
        })
        .await?;
    call.api.forget_token(id);
    Ok(HttpResponse::NoContent().finish())
}

/// Makes a join token, `tfj1.<id>.<secret>.<id of the controller's key>`.
///
/// # Errors
/// 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/join-tokens", tag = "Tokens", operation_id = "join_token_create",
    summary = "Make a token by which agents join", request_body = JoinTokenCreate,
    responses((status = 201, description = "Made; the token is shown only here", body = JoinTokenCreatedBody)))]
pub async fn create_join_token(call: Call, body: Body<JoinTokenCreate>) -> Result<HttpResponse, Problem> {
    let wanted = body.check(|body, violations| {
        check_range("uses", body.uses, 1, JOIN_TOKEN_USES_MAX, violations);
        check_join_token_life(body.valid_for_s, violations);
        let name = body.agent_name.map(|name| violations.check("agent_name", "name", name.parse::<ObjectName>()));
        if name.is_some() && body.uses > 1 {
            violations.add("uses", "one_name", "is more than 1, but only one agent can have the name agent_name");
        }
        let labels = Labels::parse(&body.labels, violations);
        let (agent_name, uses, valid_for_s) = (name.flatten(), body.uses, body.valid_for_s);
        Some(NewJoinToken { agent_name, labels, rejoin: None, uses, valid_for_s })
    })?;
    let made = call.tenant_tx("join_token_create", async |tx| make_join_token(&call, tx, &wanted).await).await?;
    json(StatusCode::CREATED, &made)
}

/// What a new join token is for.
#[derive(Clone, Debug)]
pub(super) struct NewJoinToken {
    /// Name that the agent must take.
    pub(super) agent_name: Option<ObjectName>,
    /// Labels that it gets.
    pub(super) labels: Labels,
    /// The agent that joins again.
    pub(super) rejoin: Option<AgentId>,
    /// How many agents may join with it.
    pub(super) uses: u32,
    /// How long it is good, seconds.
    pub(super) valid_for_s: u32,
}

/// Notes when a join token would live too short or too long.
pub(super) fn check_join_token_life(valid_for_s: u32, violations: &mut Violations) {
    check_range("valid_for_s", valid_for_s, VALID_MIN_S, JOIN_TOKEN_VALID_MAX_S, violations);
}

/// Stores a new join token and its line in the audit log; the answer is the only one that holds the token.
///
/// # Errors
/// No randomness, or the database's own.
pub(super) async fn make_join_token(
    call: &Call,
    tx: &TenantTx,
    wanted: &NewJoinToken,
) -> Result<JoinTokenCreatedBody, AppError> {
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*Zeroizing::new(entropy::random::<32>()?)));
    let id = TokenId::fresh(call.now, entropy::random()?);
    let NewJoinToken { agent_name, labels, rejoin, uses, valid_for_s } = wanted.clone();
    let token = JoinToken {
        tenant_id: tx.tenant_id(),
        id,
        secret_hash: sha256(secret.as_bytes()).to_vec(),
        agent_name,
        labels,
        rejoin_agent_id: rejoin,
        uses_left: uses,
        expires_at: later(call.now, valid_for_s)?,
    };
    tx.join_token_insert(&token, call.now).await?;
    let made = json!({
        "agent_name": token.agent_name.as_ref().map(ObjectName::as_str), "labels": token.labels, "uses": uses,
        "rejoin": rejoin, "expires_at": token.expires_at
    });
    let object = ("join_token", id.as_uuid());
    call.note_change(tx, "join_token_created", object, None, Some(made), json!({})).await?;
    let pin = key_id(&call.services().keys.signing.public_key());
    let text = format!("tfj1.{id}.{}.{pin}", *secret);
    Ok(JoinTokenCreatedBody { id, token: text, expires_at: token.expires_at, uses_left: uses })
}

fn check_range(field: &str, value: u32, least: u32, most: u32, violations: &mut Violations) {
    if !(least..=most).contains(&value) {
        violations.add(field, "range", format!("is {value}; allowed are {least} to {most}"));
    }
}

fn later(now: Timestamp, seconds: u32) -> Result<Timestamp, AppError> {
    now.checked_add(SignedDuration::from_secs(seconds.into()))
        .map_err(|error| AppError::Internal { source: Box::new(error) })
}
