//! The agents' own doors: join with a one-time token, then sessions by proof of possession.
//!
//! Answers are signed, so that an agent that knows the controller's key needs to trust nobody in between. Nothing here
//! says whether a token or an agent exists: every wrong attempt looks the same.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::{AgentId, TokenId};
use trustfleet_wire::Envelope;
use trustfleet_wire::join::{
    Challenge, ChallengeRequest, JOIN_TOKEN_MAX, JoinAnswer, JoinRequest, SessionAnswer, SessionRequest,
};
use trustfleet_wire::routing;
use trustfleet_wire::sign::{PUBLIC_KEY_LEN, Purpose, SigningKey, key_id, verify};
use trustfleet_wire::v1::Blob;

use super::auth::{Api, sha256};
use super::body::Body;
use super::call::name_taken;
use super::dto::agent_door::{ChallengeBody, ChallengeRequestBody, EnvelopeBody, JoinRequestBody, SessionRequestBody};
use super::problem::{Problem, ProblemBody, json};
use super::requester::requester;
use crate::app::Services;
use crate::audit::Attempt;
use crate::broker::BrokerError;
use crate::db::{Agent, DbError, JoinToken, Note};
use crate::entropy;
use crate::error::AppError;
use crate::keys::BROKER_TOKEN_KEY_ID;

/// How long a challenge is good.
const CHALLENGE_VALID: SignedDuration = SignedDuration::from_secs(60);
/// How far another replica's clock may be ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(5);
/// Microseconds since 1970 (8 bytes) and randomness (16 bytes); the signature follows.
const CHALLENGE_LEN: usize = 24;
/// Longest software version, characters.
const SOFTWARE_MAX: usize = 64;

/// Takes an agent in.
///
/// # Errors
/// 401 for every wrong attempt, 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/agent/v1/join", tag = "Agents' doors", operation_id = "agent_join",
    summary = "An agent joins with a one-time token", request_body = JoinRequestBody, responses(
        (status = 200, description = "A signed envelope with the answer", body = EnvelopeBody),
        (status = 401, description = "The token or the proof is not good", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn join(http: HttpRequest, api: web::Data<Api>, body: Body<JoinRequest>) -> Result<HttpResponse, Problem> {
    let services = &api.services;
    let (request, name) = body.check(check_join)?;
    let token = read_token(&request.token, &services.keys.signing).ok_or_else(refused_token)?;
    let input = JoinRequest::proof_input(&request.token, &request.name, &request.sign_key.0, &request.seal_key.0);
    verify(&request.sign_key.0, Purpose::JoinProof, &input, &request.proof.0).map_err(|_| refused_token())?;

    let now = services.clock.now();
    let agent = Agent {
        // Replaced below by the tenant of the token.
        tenant_id: uuid::Uuid::nil().into(),
        id: services.fresh(AgentId::fresh)?,
        name,
        sign_key: request.sign_key.0,
        seal_key: request.seal_key.0,
        software: request.software,
        joined_at: now,
        last_seen_at: now,
    };
    let joined = services
        .store
        .system_tx("agent_join", async |tx| {
            let stored = match tx.join_token_lock(token.id).await {
                Ok(stored) => stored,
                Err(DbError::NotFound { .. }) => return Ok(Err(refused_token())),
                Err(error) => return Err(AppError::from(error)),
            };
            if !bool::from(stored.secret_hash.ct_eq(&token.secret_hash)) {
                note_refused_join(services, &stored, "wrong_secret", &http);
                return Ok(Err(refused_token()));
            }
            if stored.agent_name.as_ref().is_some_and(|fixed| *fixed != agent.name) {
                let message = "is not the name that the token is for";
                return Ok(Err(Problem::invalid("name", "token_name", message)));
            }
            // The answer to an earlier join was lost: the same keys get the same answer, and no second use is counted.
            let present = tx.agent_by_name(stored.tenant_id, &agent.name).await?;
            if let Some(present) = present {
                let same = present.sign_key == agent.sign_key && present.seal_key == agent.seal_key;
                return Ok(if same { Ok(present) } else { Err(taken(&stored, now)) });
            }
            match tx.join_token_use(stored.tenant_id, stored.id, now).await {
                Err(DbError::NotFound { .. }) => {
                    let reason = if stored.expires_at <= now { "expired" } else { "used_up" };
                    note_refused_join(services, &stored, reason, &http);
                    return Ok(Err(refused_token()));
                }
                other => other?,
            }
            let agent = Agent { tenant_id: stored.tenant_id, ..agent.clone() };
            tx.agent_insert(&agent).await.map_err(|error| name_taken(error, "agent"))?;
            let requester = requester(format!("join_token:{}", stored.id), "agent", &http, None);
            let detail = json!({"name": agent.name.as_str(), "key_id": key_id(&agent.sign_key)});
            let note = Note::new(now, &requester, "agent_joined", "agent", agent.id.as_uuid(), detail);
            tx.audit_note(stored.tenant_id, &note).await?;
            Ok(Ok(agent))
        })
        .await??;
    // At its session the queue is declared again; until then jobs for it wait in the database.
    if let Err(error) = services.broker.declare_agent_queue(joined.id).await {
        tracing::info!(agent.id = %joined.id, error = %error, "queue of a new agent is left to its first session");
    }
    tracing::info!(agent.id = %joined.id, tenant.id = %joined.tenant_id, "agent joined");
    let answer = JoinAnswer {
        tenant_id: joined.tenant_id,
        agent_id: joined.id,
        name: joined.name.into(),
        controller_key: Blob(services.keys.signing.public_key()),
        sign_key: Blob(joined.sign_key),
    };
    signed(&answer, Purpose::JoinAnswer, services)
}

/// Gives an agent something to sign; it holds the controller's time, so that a device with a wrong clock gets in.
///
/// # Errors
/// 422 for an unreadable body.
#[utoipa::path(post, path = "/agent/v1/challenge", tag = "Agents' doors", operation_id = "agent_challenge",
    summary = "An agent asks for something to sign", request_body = ChallengeRequestBody,
    responses((status = 200, description = "The challenge, good for one minute", body = ChallengeBody)))]
pub async fn challenge(api: web::Data<Api>, body: Body<ChallengeRequest>) -> Result<HttpResponse, Problem> {
    body.check(|request, _| Some(request.agent_id))?;
    let now = api.services.clock.now();
    let challenge = make_challenge(now, entropy::random()?, &api.services.keys.signing);
    json(StatusCode::OK, &Challenge { challenge: Blob(challenge), now })
}

/// Opens a session: a short-lived token for the broker, for the agent's own queue and keys alone.
///
/// # Errors
/// 401 for every wrong attempt, 503 while the broker is away.
#[utoipa::path(post, path = "/agent/v1/session", tag = "Agents' doors", operation_id = "agent_session",
    summary = "An agent opens a session", request_body = SessionRequestBody, responses(
        (status = 200, description = "A signed envelope with the answer", body = EnvelopeBody),
        (status = 401, description = "The agent, the challenge or the proof is not good", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn session(
    http: HttpRequest,
    api: web::Data<Api>,
    body: Body<SessionRequest>,
) -> Result<HttpResponse, Problem> {
    let services = &api.services;
    let request = body.check(|request, _| Some(request))?;
    let now = services.clock.now();
    check_challenge(&request.challenge.0, now, &services.keys.signing).map_err(|()| refused_session())?;
    let input = SessionRequest::proof_input(request.agent_id, &request.challenge.0);
    let known = services
        .store
        .system_tx("agent_session", async |tx| {
            let agent = tx.agent_by_id(request.agent_id).await?;
            let proven = verify(&agent.sign_key, Purpose::SessionProof, &input, &request.proof.0).is_ok();
            if proven {
                tx.agent_seen(agent.tenant_id, agent.id, now).await?;
            } else {
                note_refused_session(services, &agent, &http);
            }
            Ok::<_, DbError>(proven)
        })
        .await;
    match known {
        Ok(true) => {}
        Ok(false) | Err(DbError::NotFound { .. }) => return Err(refused_session()),
        Err(error) => return Err(error.into()),
    }
    services.broker.declare_agent_queue(request.agent_id).await.map_err(broker_error)?;
    signed(&session_answer(request.agent_id, now, services)?, Purpose::SessionAnswer, services)
}

/// The parts of a join token.
struct ReadToken {
    id: TokenId,
    secret_hash: [u8; 32],
}

/// Reads `tfj1.<id>.<secret>.<key id>`; a token that pins another controller's key is none of ours.
fn read_token(text: &str, key: &SigningKey) -> Option<ReadToken> {
    if text.len() > JOIN_TOKEN_MAX {
        return None;
    }
    let parts: Vec<&str> = text.split('.').collect();
    let ["tfj1", id, secret, pin] = parts[..] else { return None };
    if pin != key_id(&key.public_key()) {
        return None;
    }
    Some(ReadToken { id: id.parse().ok()?, secret_hash: sha256(secret.as_bytes()) })
}

fn check_join(request: JoinRequest, violations: &mut Violations) -> Option<(JoinRequest, ObjectName)> {
    let name = violations.check("name", "name", request.name.parse::<ObjectName>());
    violations.check("software", "text", check_text(&request.software, SOFTWARE_MAX));
    for (field, key) in [("sign_key", &request.sign_key), ("seal_key", &request.seal_key)] {
        if key.0.len() != PUBLIC_KEY_LEN {
            violations.add(field, "key", format!("has {} bytes; a key has {PUBLIC_KEY_LEN}", key.0.len()));
        }
    }
    name.map(|name| (request, name))
}

/// Records that a join token of ours was refused.
fn note_refused_join(services: &Services, token: &JoinToken, reason: &str, http: &HttpRequest) {
    services.refusals.note(Attempt {
        tenant: token.tenant_id,
        at: services.clock.now(),
        requester: requester(format!("join_token:{}", token.id), "agent", http, None),
        action: "join_refused",
        object_kind: "join_token",
        object_id: token.id.as_uuid(),
        detail: json!({ "code": reason }),
    });
}

/// Records that somebody could not prove to be the agent that it said it was.
fn note_refused_session(services: &Services, agent: &Agent, http: &HttpRequest) {
    services.refusals.note(Attempt {
        tenant: agent.tenant_id,
        at: services.clock.now(),
        requester: requester(format!("agent:{}", agent.id), "agent", http, None),
        action: "session_refused",
        object_kind: "agent",
        object_id: agent.id.as_uuid(),
        detail: json!({ "code": "wrong_proof" }),
    });
}

/// The name is taken: told only to who has a token that is still good.
fn taken(token: &JoinToken, now: Timestamp) -> Problem {
    if token.uses_left == 0 || token.expires_at <= now {
        return refused_token();
    }
    let detail =
        "there is an agent of this name already; choose another name, or start it with the keys that it joined with";
    Problem::conflict("name_taken", detail)
}

fn refused_token() -> Problem {
    let detail = "the join token is unknown, used up, expired or for another controller, or the proof does not fit it; \
                  make a new one with `trustfleet join-token create`";
    Problem::http(StatusCode::UNAUTHORIZED, "join_refused", detail)
}

fn refused_session() -> Problem {
    let detail =
        "the agent is unknown, or the challenge is too old, or the proof does not fit: ask for a new challenge";
    Problem::http(StatusCode::UNAUTHORIZED, "session_refused", detail)
}

fn broker_error(error: BrokerError) -> Problem {
    AppError::Unavailable { what: "the broker", source: Some(Box::new(error)) }.into()
}

fn make_challenge(now: Timestamp, random: [u8; 16], key: &SigningKey) -> Vec<u8> {
    let mut challenge = now.as_microsecond().to_be_bytes().to_vec();
    challenge.extend_from_slice(&random);
    let signature = key.sign(Purpose::Challenge, &challenge);
    challenge.extend_from_slice(&signature);
    challenge
}

fn check_challenge(challenge: &[u8], now: Timestamp, key: &SigningKey) -> Result<(), ()> {
    let (made, signature) = challenge.split_at_checked(CHALLENGE_LEN).ok_or(())?;
    verify(&key.public_key(), Purpose::Challenge, made, signature).map_err(|_| ())?;
    let micros = made.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes)).ok_or(())?;
    let age = now.duration_since(Timestamp::from_microsecond(micros).map_err(|_| ())?);
    if age >= CHALLENGE_VALID || age < -CLOCK_SKEW { Err(()) } else { Ok(()) }
}

/// Claims of a broker token.
#[derive(Serialize)]
struct Claims {
    sub: String,
    aud: [&'static str; 1],
    scope: [String; 2],
    iat: i64,
    exp: i64,
}

fn session_answer(agent: AgentId, now: Timestamp, services: &Services) -> Result<SessionAnswer, AppError> {
    let config = &services.config.broker;
    let iat = now.as_second();
    let exp = iat + i64::from(config.token_lifetime_s);
    let internal = |error: jiff::Error| AppError::Internal { source: Box::new(error) };
    let claims = Claims {
        sub: agent.to_string(),
        aud: [routing::RESOURCE_SERVER],
        scope: routing::agent_scopes(&virtual_host(config.agent_url.path()), agent),
        iat,
        exp,
    };
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(BROKER_TOKEN_KEY_ID.to_owned());
    let token = jsonwebtoken::encode(&header, &claims, &services.keys.broker_token)
        .map_err(|error| AppError::Internal { source: Box::new(error) })?;
    Ok(SessionAnswer {
        agent_id: agent,
        amqp_url: config.agent_url.to_string(),
        amqp_user: agent.to_string(),
        amqp_token: token,
        token_expires_at: Timestamp::from_second(exp).map_err(internal)?,
        queue: routing::agent_queue(agent),
        reports_exchange: routing::REPORTS_EXCHANGE.to_owned(),
        hello_key: routing::hello_key(agent),
        now,
    })
}

/// The virtual host in an AMQP URL's path; without one it is `/`.
fn virtual_host(path: &str) -> String {
    let encoded = path.strip_prefix('/').unwrap_or(path).as_bytes();
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut i = 0;
    while i < encoded.len() {
        let escaped = encoded.get(i + 1..i + 3).filter(|_| encoded[i] == b'%');
        if let Some(byte) = escaped.and_then(|digits| hex::decode(digits).ok()) {
            bytes.extend(byte);
            i += 3;
        } else {
            bytes.push(encoded[i]);
            i += 1;
        }
    }
    if bytes.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

fn signed<T: Serialize>(answer: &T, purpose: Purpose, services: &Services) -> Result<HttpResponse, Problem> {
    let envelope = Envelope::seal(answer, purpose, &services.keys.signing)
        .map_err(|error| AppError::Internal { source: Box::new(error) })?;
    json(StatusCode::OK, &envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_good_for_a_minute_and_only_as_the_controller_made_it() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let made = make_challenge(now, [7; 16], &key);
        assert_eq!(check_challenge(&made, now + SignedDuration::from_secs(59), &key), Ok(()));
        assert_eq!(check_challenge(&made, now + SignedDuration::from_secs(60), &key), Err(()));
        assert_eq!(check_challenge(&made, now - SignedDuration::from_secs(6), &key), Err(()));
        assert_eq!(check_challenge(&made, now, &other), Err(()));
        let mut changed = made;
        changed[7] ^= 1;
        assert_eq!(check_challenge(&changed, now, &key), Err(()));
        assert_eq!(check_challenge(b"short", now, &key), Err(()));
    }

    #[test]
    fn the_virtual_host_is_read_as_amqp_urls_write_it() {
        for (path, host) in
            [("/%2f", "/"), ("/%2F", "/"), ("", "/"), ("/", "/"), ("/test-1", "test-1"), ("/a%20b", "a b")]
        {
            assert_eq!(virtual_host(path), host, "{path:?}");
        }
    }

    #[test]
    fn a_join_token_for_another_controller_is_refused() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let id = "018f0000-0000-7000-8000-0000000000a1";
        let token = format!("tfj1.{id}.secret.{}", key_id(&key.public_key()));
        assert!(read_token(&token, &key).is_some());
        assert!(read_token(&token, &other).is_none());
        assert!(read_token("tfj1.x", &key).is_none());
    }
}
