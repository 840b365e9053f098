//! From a bearer token (ours, or an identity provider's JWT) to who asks and for which tenant, before anything else of a request is looked at.
//!
//! Only hashes of tokens are compared: of 256 random bits, so that what the time of a comparison tells of a hash tells
//! nothing of a token. What was looked up is kept for a few seconds, so that a revocation takes effect
//! at every replica within [`KEPT_FOR`]; the replica that revoked forgets it at once, but for a look-up that was under way.
//! A tenant that the token may not see does not exist for it. A JWT is good until it ends, but its subject can be blocked, which
//! takes effect in the same way.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, web};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{TenantId, TokenId};
use trustfleet_model::secret::SecretText;

use super::Route;
use super::access::{Access, Role};
use super::limits::Limits;
use super::oidc::{Issuers, Verified};
use super::problem::Problem;
use super::requester::requester;
use super::scope::{Scope, Scopes};
use super::timing::operation;
use crate::app::Services;
use crate::audit::{Attempt, PLATFORM};
use crate::db::{ApiToken, Blocks, DbError, PresentedToken, Quota, Tenant, TenantState};
use crate::error::AppError;
use crate::tls::TlsError;

/// How long a looked-up token or tenant is believed.
const KEPT_FOR: SignedDuration = SignedDuration::from_secs(3);
/// How exactly the last use of a token is kept.
const LAST_USED_STEP: SignedDuration = SignedDuration::from_mins(1);
/// Most tokens or tenants kept.
const KEPT_MAX: usize = 10_000;
/// What is done in a suspended tenant, too: whoever may not get in any more must be kept out.
const GOES_ON: [&str; 3] = ["token_delete", "blocked_subject_create", "agent_quarantine"];
/// What every API token begins with, so that scanners for leaked secrets find it.
const TOKEN_PREFIX: &str = "tft1_";

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// By what it is known.
    pub credential: Credential,
    /// What of its role it may use.
    pub scopes: Scopes,
    /// Whom it acts for: two credentials of one person are not four eyes.
    pub person: String,
    grant: Grant,
    expires_at: Option<Timestamp>,
    revoked: bool,
    /// What its rate is counted by.
    limited_as: [u8; 32],
}

/// By what a caller is known.
#[derive(Clone, Debug)]
pub enum Credential {
    /// An API token.
    Token {
        /// Its id.
        id: TokenId,
        /// What it is for, in the words of whoever made it.
        description: String,
    },
    /// A JWT of an identity provider.
    Jwt {
        /// The provider.
        issuer: String,
        /// Whom it names.
        subject: String,
    },
}

/// What a caller may, and where.
#[derive(Clone, Debug)]
enum Grant {
    /// Everything everywhere.
    Platform,
    /// Something in one tenant.
    Tenant(TenantRef, Role),
    /// Something in tenants of these names.
    Named(Vec<(ObjectName, Role)>),
}

/// Why nobody was let in; with whoever it was, where the credential is one of ours.
#[derive(Debug)]
struct Refused {
    error: AppError,
    caller: Option<Box<Caller>>,
}

impl From<AppError> for Refused {
    fn from(error: AppError) -> Self {
        Self { error, caller: None }
    }
}

impl Caller {
    /// The caller in the words of the audit log.
    pub fn actor(&self) -> String {
        match &self.credential {
            Credential::Token { id, description } => format!("token:{id} ({description})"),
            Credential::Jwt { issuer, subject } => format!("oidc:{subject} ({issuer})"),
        }
    }

    fn token_id(&self) -> Option<TokenId> {
        match self.credential {
            Credential::Token { id, .. } => Some(id),
            Credential::Jwt { .. } => None,
        }
    }

    /// Whom a token acts for that this caller makes: what a platform administrator makes stands for itself.
    pub fn person_of_new_token(&self, id: TokenId) -> String {
        if matches!(self.grant, Grant::Platform) { format!("token:{id}") } else { self.person.clone() }
    }

    /// The role in a tenant, or outside of all.
    fn role(&self, tenant: Option<&TenantRef>) -> Option<Role> {
        match &self.grant {
            Grant::Platform => Some(Role::PlatformAdmin),
            Grant::Tenant(_, role) => Some(*role),
            Grant::Named(roles) => {
                let in_question = |name: &ObjectName| tenant.is_none_or(|tenant| tenant.name == *name);
                roles.iter().filter(|(name, _)| in_question(name)).map(|(_, role)| *role).max()
            }
        }
    }

    /// Whose log tells of this caller's refused attempts.
    fn log(&self) -> TenantId {
        match &self.grant {
            Grant::Tenant(tenant, _) => tenant.id,
            Grant::Platform | Grant::Named(_) => PLATFORM,
        }
    }

    fn is_in_force(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| end > now)
    }
}

/// The tenant that a request is about.
#[derive(Clone, Debug)]
pub struct TenantRef {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: ObjectName,
    /// Whether weak algorithms are allowed (S8).
    pub allow_weak_algorithms: bool,
    /// Whether changes of CA servers need another administrator's approval.
    pub four_eyes: bool,
    /// How much it may have.
    pub quota: Quota,
    state: TenantState,
    state_reason: Option<String>,
}

impl From<Tenant> for TenantRef {
    fn from(tenant: Tenant) -> Self {
        let Tenant { id, name, allow_weak_algorithms, four_eyes, quota, state, state_reason, .. } = tenant;
        Self { id, name, allow_weak_algorithms, four_eyes, quota, state, state_reason }
    }
}

impl TenantRef {
    /// Whether anything of it may be changed.
    fn may_change(&self) -> Result<(), AppError> {
        let reason = self.state_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        match self.state {
            TenantState::Active => Ok(()),
            TenantState::Suspended => {
                let detail = format!(
                    "the tenant is suspended{reason}: everything can be read, nothing changed until a platform \
                     administrator lets it go on"
                );
                Err(AppError::Conflict { code: "tenant_suspended", detail })
            }
            TenantState::Deleted => {
                let detail = "the tenant is deleted: a platform administrator can restore it until it is purged";
                Err(AppError::Conflict { code: "tenant_deleted", detail: detail.to_owned() })
            }
        }
    }
}

/// Who was let in, and to which tenant; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Who asks.
    pub caller: Caller,
    /// What the caller may, there.
    pub role: Role,
    /// The tenant in the path, where there is one.
    pub tenant: Option<TenantRef>,
}

/// What the HTTP handlers work with.
#[derive(Debug)]
pub struct Api {
    /// The rest of the controller.
    pub services: Services,
    limits: Limits,
    issuers: Issuers,
    tokens: Kept<[u8; 32], Caller>,
    tenants: Kept<ObjectName, TenantRef>,
}

impl Api {
    /// Nothing is kept yet.
    ///
    /// # Errors
    /// Roots of an identity provider that cannot be used.
    pub fn new(services: Services) -> Result<Self, TlsError> {
        let limits = Limits::new(&services.config.http);
        let issuers = Issuers::new(&services.config.oidc)?;
        Ok(Self { services, limits, issuers, tokens: Kept::default(), tenants: Kept::default() })
    }

    /// Forgets a token that was taken back.
    pub fn forget_token(&self, gone: TokenId) {
        self.tokens.retain(|caller| caller.token_id() != Some(gone));
    }

    /// Forgets the tokens of a subject that was blocked, or is let in again.
    pub fn forget_subject(&self, issuer: &str, subject: &str) {
        let person = person_of_jwt(issuer, subject);
        self.tokens.retain(|caller| caller.token_id().is_some() || caller.person != person);
    }

    /// Forgets a tenant that was changed.
    pub fn forget_tenant(&self, changed: TenantId) {
        self.tenants.retain(|tenant| tenant.id != changed);
        self.tokens.retain(|caller| !matches!(&caller.grant, Grant::Tenant(tenant, _) if tenant.id == changed));
    }

    async fn admit(&self, route: &Route, request: &ServiceRequest) -> Result<Admitted, Refused> {
        let now = self.services.clock.now();
        let source = request.peer_addr().map(|address| address.ip());
        let caller = self.caller(bearer(request.headers())?, source, now).await?;
        let refused = |error, caller| Refused { error, caller: Some(Box::new(caller)) };
        let is_gone = matches!(&caller.grant, Grant::Tenant(tenant, _) if tenant.state == TenantState::Deleted);
        if is_gone || !caller.is_in_force(now) {
            self.limits.failed(source);
            return Err(refused(AppError::Unauthenticated, caller));
        }
        let tenant = match request.match_info().get("tenant") {
            Some(name) => match self.tenant(&caller, name, now).await {
                Ok(tenant) => Some(tenant),
                Err(error) => return Err(refused(error, caller)),
            },
            None => None,
        };
        let needed = match route.access {
            Access::Public => Role::Viewer,
            Access::Tenant(role) => role,
            Access::Platform => Role::PlatformAdmin,
        };
        let role = caller.role(tenant.as_ref());
        let Some(role) = role.filter(|role| *role >= needed) else {
            let error = AppError::Forbidden { needed: needed.as_str(), has: role.map_or("none", Role::as_str) };
            return Err(refused(error, caller));
        };
        let scope = Scope::needed(route);
        if !caller.scopes.allow(scope) {
            return Err(refused(AppError::MissingScope { needed: scope.to_string() }, caller));
        }
        let changes = route.method != "GET" && route.access != Access::Platform && !GOES_ON.contains(&route.operation);
        if let Some(Err(error)) = tenant.as_ref().filter(|_| changes).map(TenantRef::may_change) {
            return Err(refused(error, caller));
        }
        Ok(Admitted { caller, role, tenant })
    }

    /// Whose credential it is, in force or not.
    async fn caller(&self, token: &str, source: Option<IpAddr>, now: Timestamp) -> Result<Caller, AppError> {
        let key = sha256(token.as_bytes());
        if let Some(caller) = self.tokens.find(&key, now) {
            self.limits.used(caller.limited_as)?;
            return Ok(caller);
        }
        self.limits.may_try(source)?;
        let caller = match token_hash(token) {
            Some(hash) => self.look_up(&hash, now).await?,
            None => match self.issuers.verify(token, now).await? {
                Some(verified) => Some(self.look_up_blocks(verified).await?),
                None => None,
            },
        };
        let Some(caller) = caller else {
            self.limits.failed(source);
            return Err(AppError::Unauthenticated);
        };
        self.tokens.keep(key, caller.clone(), now);
        self.limits.used(caller.limited_as)?;
        Ok(caller)
    }

    /// The caller of one of our own tokens; none: it is not in force.
    async fn look_up(&self, hash: &[u8; 32], now: Timestamp) -> Result<Option<Caller>, AppError> {
        let store = &self.services.store;
        match store.system_read("token_look_up", async |tx| tx.api_token_by_hash(hash).await).await {
            Ok(presented) => {
                if presented.token.is_in_force(now) {
                    self.note_use(&presented.token, now);
                }
                read_caller(presented, *hash).map(Some)
            }
            Err(DbError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The caller of a JWT that is good: with what its claims give, less what it is blocked from.
    async fn look_up_blocks(&self, verified: Verified) -> Result<Caller, AppError> {
        let (issuer, subject) = (&verified.issuer, &verified.subject);
        let store = &self.services.store;
        let blocks: Result<Blocks, DbError> =
            store.system_read("blocks_look_up", async |tx| tx.blocks_of(issuer, subject).await).await;
        Ok(caller_of_jwt(verified, &blocks?))
    }

    /// Writes when a token was last used, to the minute, without the request waiting for it.
    fn note_use(&self, token: &ApiToken, now: Timestamp) {
        if token.last_used_at.is_some_and(|last| now.duration_since(last) < LAST_USED_STEP) {
            return;
        }
        let (store, id) = (self.services.store.clone(), token.id);
        actix_web::rt::spawn(async move {
            let noted = store.system_tx("token_used", async move |tx| tx.api_token_used(id, now).await).await;
            if let Err(error) = noted {
                let error: DbError = error;
                tracing::warn!(token.id = %id, error = %crate::telemetry::chain(&error), "last use of a token not noted");
            }
        });
    }

    async fn tenant(&self, caller: &Caller, name: &str, now: Timestamp) -> Result<TenantRef, AppError> {
        const UNKNOWN: AppError = AppError::NotFound { kind: "tenant" };
        if let Grant::Tenant(own, _) = &caller.grant {
            return if own.name.as_str() == name { Ok(own.clone()) } else { Err(UNKNOWN) };
        }
        let name: ObjectName = name.parse().map_err(|_| UNKNOWN)?;
        if let Grant::Named(roles) = &caller.grant
            && !roles.iter().any(|(known, _)| *known == name)
        {
            return Err(UNKNOWN);
        }
        let tenant = match self.tenants.find(&name, now) {
            Some(tenant) => tenant,
            None => self.look_up_tenant(name, now).await?,
        };
        // Only the platform sees what is deleted.
        if tenant.state == TenantState::Deleted && !matches!(caller.grant, Grant::Platform) {
            return Err(UNKNOWN);
        }
        Ok(tenant)
    }

    async fn look_up_tenant(&self, name: ObjectName, now: Timestamp) -> Result<TenantRef, AppError> {
        let tenant = self.services.store.system_read("tenant_look_up", async |tx| tx.tenant_by_name(&name).await).await;
        let tenant = TenantRef::from(tenant.map_err(AppError::from)?);
        self.tenants.keep(name, tenant.clone(), now);
        Ok(tenant)
    }
}

fn read_caller(presented: PresentedToken, limited_as: [u8; 32]) -> Result<Caller, AppError> {
    let PresentedToken { token, person, tenant } = presented;
    let role = Role::from_word(&token.role);
    let role = role.ok_or_else(|| AppError::internal(format!("token {} has an unknown role", token.id)))?;
    let scopes = Scopes::from_words(&token.scopes);
    let scopes = scopes.ok_or_else(|| AppError::internal(format!("token {} has an unknown scope", token.id)))?;
    let grant = match tenant {
        None if role == Role::PlatformAdmin => Grant::Platform,
        Some(tenant) if role != Role::PlatformAdmin => Grant::Tenant(tenant.into(), role),
        _ => return Err(AppError::internal(format!("the role of token {} does not fit its tenant", token.id))),
    };
    let credential = Credential::Token { id: token.id, description: token.description };
    Ok(Caller {
        credential,
        scopes,
        person,
        grant,
        expires_at: token.expires_at,
        revoked: token.revoked_at.is_some(),
        limited_as,
    })
}

fn person_of_jwt(issuer: &str, subject: &str) -> String {
    format!("oidc:{issuer}#{subject}")
}

/// A tenant cannot keep out who administers the platform.
fn caller_of_jwt(verified: Verified, blocks: &Blocks) -> Caller {
    let Verified { issuer, subject, expires_at, platform, mut tenants } = verified;
    let person = person_of_jwt(&issuer, &subject);
    tenants.retain(|(name, _)| !blocks.tenants.contains(name));
    let grant = if platform { Grant::Platform } else { Grant::Named(tenants) };
    let limited_as = sha256(person.as_bytes());
    let credential = Credential::Jwt { issuer, subject };
    let expires_at = Some(expires_at);
    let (scopes, revoked) = (Scopes::all(), blocks.everywhere);
    Caller { credential, scopes, person, grant, expires_at, revoked, limited_as }
}

/// Lets a request through to its handler, or answers it.
///
/// # Errors
/// The handler's own.
pub async fn guard(
    route: &'static Route,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(api) = request.app_data::<web::Data<Api>>().cloned() else {
        let problem = Problem::from(AppError::internal("the API's state is missing"));
        return Ok(request.into_response(problem.response()));
    };
    let source = request.peer_addr().map(|address| address.ip());
    // An agent proves itself in the body: by a token, or by a signature.
    let takes_proof = route.path.starts_with("/agent/");
    if takes_proof && let Err(error) = api.limits.may_try(source) {
        return Ok(request.into_response(Problem::from(error).response()));
    }
    if route.access != Access::Public {
        match api.admit(route, &request).await {
            Ok(admitted) => {
                if let Some(tenant) = &admitted.tenant {
                    super::trace::note_tenant(tenant.id);
                }
                request.extensions_mut().insert(admitted);
            }
            Err(refused) => {
                note_refusal(&api, &refused, &request);
                return Ok(request.into_response(Problem::from(refused.error).response()));
            }
        }
    }
    let start = Instant::now();
    let method = request.method().clone();
    let result = next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    let status = result.as_ref().map_or(0, |response| response.status().as_u16());
    if takes_proof && status == StatusCode::UNAUTHORIZED.as_u16() {
        api.limits.failed(source);
    }
    let duration_ms = start.elapsed().as_millis();
    // The pattern, not the path: names of devices are nobody's business who reads logs for something else.
    tracing::debug!(http.method = %method, http.route = route.path, http.status = status, duration_ms, "request answered");
    result
}

/// Records that somebody whose credential is known was refused. Who shows none, or one that never was, is not worth a row.
fn note_refusal(api: &Api, refused: &Refused, request: &ServiceRequest) {
    let Some(caller) = &refused.caller else { return };
    let is_refusal = matches!(refused.error.status(), 401 | 403 | 404);
    if !is_refusal {
        return;
    }
    let role = caller.role(None);
    let (method, pattern) = (request.method().as_str(), request.match_pattern());
    // The name as it was typed, when it can be one: what it names need not exist.
    let tenant = request.match_info().get("tenant").and_then(|name| name.parse::<ObjectName>().ok());
    api.services.refusals.note(Attempt {
        tenant: caller.log(),
        at: api.services.clock.now(),
        requester: requester(caller.actor(), role.map_or("none", Role::as_str), request.request(), None),
        action: "access_refused",
        object_kind: "token",
        object_id: caller.token_id().unwrap_or_else(TokenId::nil).as_uuid(),
        detail: json!({
            "operation": operation(method, pattern.as_deref()),
            "tenant": tenant.as_ref().map(ObjectName::as_str),
            "status": refused.error.status(),
            "code": refused.error.code(),
            "revoked": caller.revoked,
            "expires_at": caller.expires_at,
        }),
    });
}

fn bearer(headers: &HeaderMap) -> Result<&str, AppError> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(AppError::Unauthenticated)?;
    let (scheme, token) = value.split_once(' ').ok_or(AppError::Unauthenticated)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(AppError::Unauthenticated) }
}

/// A new API token from 32 random bytes.
pub fn new_token(random: &[u8; 32]) -> SecretText {
    SecretText::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// SHA-256 of a text that has the shape of an API token; nothing else is worth a question to the database.
pub fn token_hash(token: &str) -> Option<[u8; 32]> {
    let random = token.strip_prefix(TOKEN_PREFIX)?;
    if random.len() != 43 || URL_SAFE_NO_PAD.decode(random).is_err() {
        return None;
    }
    Some(sha256(token.as_bytes()))
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Values that are believed for a few seconds.
#[derive(Debug)]
struct Kept<K, V>(Mutex<HashMap<K, (V, Timestamp)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn find(&self, key: &K, now: Timestamp) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(_, since)| is_fresh(*since, now)).map(|(value, _)| value.clone())
    }

    fn keep(&self, key: K, value: V, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (_, since)| is_fresh(*since, now));
        }
        if kept.len() < KEPT_MAX {
            kept.insert(key, (value, now));
        }
    }

    fn retain(&self, wanted: impl Fn(&V) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (value, _)| wanted(value));
    }
}

fn is_fresh(since: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(since);
    age >= SignedDuration::ZERO && age < KEPT_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_is_forgotten_before_a_revocation_must_be_known() {
        let start = Timestamp::from_second(1_000).unwrap();
        let kept = Kept::default();
        kept.keep("token", 1, start);
        assert_eq!(kept.find(&"token", start + SignedDuration::from_secs(2)), Some(1));
        assert_eq!(kept.find(&"token", start + SignedDuration::from_secs(3)), None);
        assert!(KEPT_FOR < SignedDuration::from_secs(5));
    }

    #[test]
    fn only_what_looks_like_a_token_reaches_the_database() {
        let token = new_token(&[7; 32]);
        assert!(token_hash(token.expose()).is_some());
        for bad in ["", "tft1_", "tft1_short", "Bearer x", &"x".repeat(48)] {
            assert_eq!(token_hash(bad), None, "{bad:?}");
        }
    }
}
