//! From a bearer token to who asks and for which tenant, before anything else of a request is looked at.
//!
//! Only hashes of tokens are compared. What was looked up is kept for a few seconds, so that a revocation takes effect
//! at every replica within [`KEPT_FOR`]; the replica that revoked forgets it at once, but for a look-up that was under way.
//! A tenant that the token may not see does not exist for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
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

use super::access::{Access, Role};
use super::problem::Problem;
use super::requester::requester;
use super::timing::operation;
use crate::app::Services;
use crate::audit::{Attempt, PLATFORM};
use crate::db::{DbError, PresentedToken};
use crate::error::AppError;

/// How long a looked-up token or tenant is believed.
const KEPT_FOR: SignedDuration = SignedDuration::from_secs(3);
/// Most tokens or tenants kept.
const KEPT_MAX: usize = 10_000;
/// What every API token begins with, so that scanners for leaked secrets find it.
const TOKEN_PREFIX: &str = "tft1_";

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token.
    pub token_id: TokenId,
    /// What the token may do.
    pub role: Role,
    /// What the token is for, in the words of whoever made it.
    pub description: String,
    tenant: Option<TenantRef>,
    expires_at: Option<Timestamp>,
    revoked: bool,
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
        format!("token:{} ({})", self.token_id, self.description)
    }

    /// Whose log tells of this caller's refused attempts.
    fn log(&self) -> TenantId {
        self.tenant.as_ref().map_or(PLATFORM, |tenant| tenant.id)
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
}

/// Who was let in, and to which tenant; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Who asks.
    pub caller: Caller,
    /// The tenant in the path, where there is one.
    pub tenant: Option<TenantRef>,
}

/// What the HTTP handlers work with.
#[derive(Debug)]
pub struct Api {
    /// The rest of the controller.
    pub services: Services,
    tokens: Kept<[u8; 32], Caller>,
    tenants: Kept<ObjectName, TenantRef>,
}

impl Api {
    /// Nothing is kept yet.
    pub fn new(services: Services) -> Self {
        Self { services, tokens: Kept::default(), tenants: Kept::default() }
    }

    /// Forgets a token that was taken back.
    pub fn forget_token(&self, id: TokenId) {
        self.tokens.retain(|caller| caller.token_id != id);
    }

    async fn admit(&self, access: Access, headers: &HeaderMap, tenant: Option<&str>) -> Result<Admitted, Refused> {
        let now = self.services.clock.now();
        let caller = self.caller(bearer(headers)?, now).await?;
        let refused = |error, caller| Refused { error, caller: Some(Box::new(caller)) };
        if !caller.is_in_force(now) {
            return Err(refused(AppError::Unauthenticated, caller));
        }
        let tenant = match tenant {
            Some(name) => match self.tenant(&caller, name, now).await {
                Ok(tenant) => Some(tenant),
                Err(error) => return Err(refused(error, caller)),
            },
            None => None,
        };
        let needed = match access {
            Access::Public => return Ok(Admitted { caller, tenant }),
            Access::Tenant(role) => role,
            Access::Platform => Role::PlatformAdmin,
        };
        if caller.role < needed {
            let error = AppError::Forbidden { needed: needed.as_str(), has: caller.role.as_str() };
            return Err(refused(error, caller));
        }
        Ok(Admitted { caller, tenant })
    }

    /// Whose token it is, in force or not.
    async fn caller(&self, token: &str, now: Timestamp) -> Result<Caller, AppError> {
        let hash = token_hash(token).ok_or(AppError::Unauthenticated)?;
        if let Some(caller) = self.tokens.find(&hash, now) {
            return Ok(caller);
        }
        let presented = self
            .services
            .store
            .system_tx("token_look_up", async |tx| {
                let presented = tx.api_token_by_hash(&hash).await?;
                if presented.token.is_in_force(now) {
                    tx.api_token_used(presented.token.id, now).await?;
                }
                Ok::<_, DbError>(presented)
            })
            .await
            .map_err(|error| match error {
                DbError::NotFound { .. } => AppError::Unauthenticated,
                other => other.into(),
            })?;
        let caller = read_caller(presented)?;
        self.tokens.keep(hash, caller.clone(), now);
        Ok(caller)
    }

    async fn tenant(&self, caller: &Caller, name: &str, now: Timestamp) -> Result<TenantRef, AppError> {
        const UNKNOWN: AppError = AppError::NotFound { kind: "tenant" };
        if let Some(own) = &caller.tenant {
            return if own.name.as_str() == name { Ok(own.clone()) } else { Err(UNKNOWN) };
        }
        let name: ObjectName = name.parse().map_err(|_| UNKNOWN)?;
        if let Some(tenant) = self.tenants.find(&name, now) {
            return Ok(tenant);
        }
        let tenant = self.services.store.system_tx("tenant_look_up", async |tx| tx.tenant_by_name(&name).await).await;
        let tenant = tenant.map_err(AppError::from)?;
        let tenant =
            TenantRef { id: tenant.id, name: tenant.name, allow_weak_algorithms: tenant.allow_weak_algorithms };
        self.tenants.keep(name, tenant.clone(), now);
        Ok(tenant)
    }
}

fn read_caller(presented: PresentedToken) -> Result<Caller, AppError> {
    let PresentedToken { token, tenant } = presented;
    let role = Role::from_word(&token.role);
    let role = role.ok_or_else(|| AppError::internal(format!("token {} has an unknown role", token.id)))?;
    if (role == Role::PlatformAdmin) != tenant.is_none() {
        return Err(AppError::internal(format!("the role of token {} does not fit its tenant", token.id)));
    }
    let tenant = tenant.map(|tenant| TenantRef {
        id: tenant.id,
        name: tenant.name,
        allow_weak_algorithms: tenant.allow_weak_algorithms,
    });
    let (expires_at, revoked) = (token.expires_at, token.revoked_at.is_some());
    Ok(Caller { token_id: token.id, role, description: token.description, tenant, expires_at, revoked })
}

/// Lets a request through to its handler, or answers it.
///
/// # Errors
/// The handler's own.
pub async fn guard(
    access: Access,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if access != Access::Public {
        let Some(api) = request.app_data::<web::Data<Api>>().cloned() else {
            let problem = Problem::from(AppError::internal("the API's state is missing"));
            return Ok(request.into_response(problem.response()));
        };
        match api.admit(access, request.headers(), request.match_info().get("tenant")).await {
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
    let route = request.match_pattern().unwrap_or_default();
    let result = next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    let status = result.as_ref().map_or(0, |response| response.status().as_u16());
    let duration_ms = start.elapsed().as_millis();
    // The pattern, not the path: names of devices are nobody's business who reads logs for something else.
    tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, "request answered");
    result
}

/// Records that somebody whose credential is known was refused. Who shows none, or one that never was, is not worth a row.
fn note_refusal(api: &Api, refused: &Refused, request: &ServiceRequest) {
    let Some(caller) = &refused.caller else { return };
    let is_refusal = matches!(refused.error.status(), 401 | 403 | 404);
    if !is_refusal {
        return;
    }
    let (method, pattern) = (request.method().as_str(), request.match_pattern());
    // The name as it was typed, when it can be one: what it names need not exist.
    let tenant = request.match_info().get("tenant").and_then(|name| name.parse::<ObjectName>().ok());
    api.services.refusals.note(Attempt {
        tenant: caller.log(),
        at: api.services.clock.now(),
        requester: requester(caller.actor(), caller.role.as_str(), request.request(), None),
        action: "access_refused",
        object_kind: "token",
        object_id: caller.token_id.as_uuid(),
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
