//! The agents' own doors: join with a one-time token, then sessions by proof of possession.
//!
//! Answers are signed, so that an agent that knows the controller's key needs to trust nobody in between. Nothing here
//! says whether a token or an agent exists: every wrong attempt looks the same.

mod announce;
mod broker_token;
mod challenge;
mod knock;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::{AgentId, TokenId};
use trustfleet_wire::Envelope;
use trustfleet_wire::join::{Challenge, ChallengeRequest, JOIN_TOKEN_MAX, JoinAnswer, JoinRequest, SessionRequest};
use trustfleet_wire::routing::agent_user;
use trustfleet_wire::sign::{PUBLIC_KEY_LEN, Purpose, SigningKey, key_id, verify};
use trustfleet_wire::v1::Blob;

pub use self::announce::{__path_announce, announce};
use self::broker_token::session_answer;
pub use self::broker_token::virtual_host;
use self::challenge::{check_challenge, make_challenge};
use self::knock::{Knock, Refused};
use super::auth::{Api, sha256};
use super::body::Body;
use super::call::name_taken;
use super::dto::agent_door::{ChallengeBody, ChallengeRequestBody, EnvelopeBody, JoinRequestBody, SessionRequestBody};
use super::problem::{Problem, ProblemBody, json};
use crate::app::Services;
use crate::broker::BrokerError;
use crate::db::{Agent, CutOff, DbError, JoinToken, JoinedBy, Note, SystemTx};
use crate::entropy;
use crate::error::AppError;
use crate::metrics::DoorRefusal;

/// Longest software version, characters.
const SOFTWARE_MAX: usize = 64;
/// How long after its end a broker token is still feared: clocks differ.
const TOKEN_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Takes an agent in.
///
/// # Errors
/// 401 for every wrong attempt, 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/agent/v1/join", tag = "Agents' doors", operation_id = "agent_join",
    summary = "An agent joins with a one-time token", request_body = JoinRequestBody, responses(
        (status = 200, description = "A signed envelope with the answer", body = EnvelopeBody),
        (status = 401, description = "The token or the proof is not good", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or the keys are another agent's", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn join(api: web::Data<Api>, http: HttpRequest, body: Body<JoinRequest>) -> Result<HttpResponse, Problem> {
    let services = &api.services;
    let knock = Knock::at(services, &http, "join_refused");
    let (request, name) = body.check(check_join)?;
    let (agent, is_again) = match take_in(services, &knock, request, name).await? {
        Ok(joined) => joined,
        Err(refused) => return Err(knock.refuse(*refused)),
    };
    if is_again {
        services.cut_offs.notify_one();
        // Whoever still reads with the former keys reads no more.
        if let Err(error) = services.broker.delete_agent_queue(agent.id).await {
            tracing::info!(agent.id = %agent.id, error = %error, "queue of an agent that joined again is not emptied");
        }
    }
    // At its session the queue is declared again; until then jobs for it wait in the database.
    if let Err(error) = services.broker.declare_agent_queue(agent.id).await {
        tracing::info!(agent.id = %agent.id, error = %error, "queue of a new agent is left to its first session");
    }
    tracing::info!(agent.id = %agent.id, tenant.id = %agent.tenant_id, again = is_again, "agent joined");
    let answer = JoinAnswer {
        tenant_id: agent.tenant_id,
        agent_id: agent.id,
        name: agent.name.into(),
        controller_key: Blob(services.keys.signing.public_key()),
        sign_key: Blob(agent.sign_key),
    };
    signed(&answer, Purpose::JoinAnswer, services)
}

/// The agent, and whether it got new keys in place of former ones; or why not.
async fn take_in(
    services: &Services,
    knock: &Knock<'_>,
    request: JoinRequest,
    name: ObjectName,
) -> Result<Result<(Agent, bool), Box<Refused>>, Problem> {
    let unknown = |reason| Ok(Err(Box::new(Refused::unknown(reason, refused_token()))));
    let Some(token) = read_token(&request.token, &services.keys.signing) else {
        return unknown(DoorRefusal::BadToken);
    };
    let input = JoinRequest::proof_input(&request.token, &request.name, &request.sign_key.0, &request.seal_key.0);
    if verify(&request.sign_key.0, Purpose::JoinProof, &input, &request.proof.0).is_err() {
        return unknown(DoorRefusal::BadProof);
    }
    let now = knock.now;
    let agent = Agent {
        // Replaced below by the tenant and the labels of the token.
        tenant_id: uuid::Uuid::nil().into(),
        labels: trustfleet_model::device::Labels::default(),
        serial: None,
        joined_by: JoinedBy::Token,
        id: services.fresh(AgentId::fresh)?,
        name,
        sign_key: request.sign_key.0,
        seal_key: request.seal_key.0,
        software: request.software,
        joined_at: now,
        last_seen_at: now,
        quarantine: None,
        cut_off_at: None,
        live_twice_at: None,
        clock_off_s: None,
    };
    let until = services.last_broker_token_ends(now)?;
    let joined = services
        .store
        .system_tx("agent_join", async |tx| {
            let stored = match tx.join_token_lock(token.id).await {
                Ok(stored) => stored,
                Err(DbError::NotFound { .. }) => {
                    return Ok(Err(Box::new(Refused::unknown(DoorRefusal::BadToken, refused_token()))));
                }
                Err(error) => return Err(AppError::from(error)),
            };
            if !bool::from(stored.secret_hash.ct_eq(&token.secret_hash)) {
                return Ok(Err(Box::new(Refused { code: "wrong_secret", ..bad_token(&stored, now) })));
            }
            if stored.agent_name.as_ref().is_some_and(|fixed| *fixed != agent.name) {
                let message = "is not the name that the token is for";
                let problem = Problem::invalid("name", "token_name", message);
                return Ok(Err(Box::new(Refused {
                    problem,
                    reason: DoorRefusal::Name,
                    code: "token_name",
                    ..bad_token(&stored, now)
                })));
            }
            let present = match stored.rejoin_agent_id {
                Some(id) => Some(tx.agent_by_id(id).await?),
                None => tx.agent_by_name(stored.tenant_id, &agent.name).await?,
            };
            if let Some(present) = present {
                // The answer to an earlier join was lost: the same keys get the same answer, and no second use is counted.
                if present.sign_key == agent.sign_key && present.seal_key == agent.seal_key {
                    return Ok(Ok((present, false)));
                }
                if stored.rejoin_agent_id.is_none() {
                    let (problem, reason) = (taken(&stored, now), DoorRefusal::Name);
                    return Ok(Err(Box::new(Refused {
                        problem,
                        reason,
                        code: "name_taken",
                        ..bad_token(&stored, now)
                    })));
                }
                return join_again(tx, knock, &stored, present, &agent, until).await;
            }
            match tx.join_token_use(stored.tenant_id, stored.id, now).await {
                Err(DbError::NotFound { .. }) => return Ok(Err(Box::new(bad_token(&stored, now)))),
                other => other?,
            }
            let agent = Agent { tenant_id: stored.tenant_id, labels: stored.labels.clone(), ..agent.clone() };
            tx.agent_insert(&agent).await.map_err(key_taken)?;
            let detail =
                json!({"name": agent.name.as_str(), "key_id": key_id(&agent.sign_key), "labels": agent.labels});
            note(tx, knock, &stored, &agent, "agent_joined", detail).await?;
            Ok(Ok((agent, false)))
        })
        .await?;
    Ok(joined)
}

/// An agent gets new keys; its connections with the former ones are to be closed.
async fn join_again(
    tx: &SystemTx,
    knock: &Knock<'_>,
    token: &JoinToken,
    present: Agent,
    new: &Agent,
    until: Timestamp,
) -> Result<Result<(Agent, bool), Box<Refused>>, AppError> {
    match tx.join_token_use(token.tenant_id, token.id, new.joined_at).await {
        Err(DbError::NotFound { .. }) => return Ok(Err(Box::new(bad_token(token, new.joined_at)))),
        other => other?,
    }
    let former = key_id(&present.sign_key);
    let agent = Agent {
        sign_key: new.sign_key.clone(),
        seal_key: new.seal_key.clone(),
        software: new.software.clone(),
        joined_at: new.joined_at,
        quarantine: None,
        live_twice_at: None,
        clock_off_s: None,
        ..present
    };
    tx.agent_rejoin(&agent).await.map_err(key_taken)?;
    tx.leases_of_rejoined(agent.tenant_id, agent.id).await?;
    // The quarantine was about the former keys; its order to close connections goes on, but the queue is needed again.
    tx.cut_off_keep_queue(agent.tenant_id, agent.id).await?;
    let order = CutOff {
        tenant_id: agent.tenant_id,
        agent_id: agent.id,
        broker_user: agent_user(agent.id, &former),
        with_queue: false,
        until,
    };
    tx.cut_off_insert(&order, new.joined_at).await?;
    let detail = json!({"name": agent.name.as_str(), "former_key_id": former, "key_id": key_id(&agent.sign_key)});
    note(tx, knock, token, &agent, "agent_rejoined", detail).await?;
    Ok(Ok((agent, true)))
}

async fn note(
    tx: &SystemTx,
    knock: &Knock<'_>,
    token: &JoinToken,
    agent: &Agent,
    action: &'static str,
    detail: serde_json::Value,
) -> Result<(), DbError> {
    let requester = knock.requester(format!("join_token:{}", token.id));
    let note = Note::new(agent.joined_at, &requester, action, "agent", agent.id.as_uuid(), detail);
    tx.audit_note(agent.tenant_id, &note).await
}

/// Gives an agent something to sign; it holds the controller's time, so that a device with a wrong clock gets in.
///
/// # Errors
/// 422 for an unreadable body.
#[utoipa::path(post, path = "/agent/v1/challenge", tag = "Agents' doors", operation_id = "agent_challenge",
    summary = "An agent asks for something to sign", request_body = ChallengeRequestBody,
    responses((status = 200, description = "The challenge, good for one minute and one session", body = ChallengeBody)))]
pub async fn challenge(
    api: web::Data<Api>,
    http: HttpRequest,
    body: Body<ChallengeRequest>,
) -> Result<HttpResponse, Problem> {
    let now = Knock::at(&api.services, &http, "session_refused").now;
    body.check(|request, _| Some(request.agent_id))?;
    let challenge = make_challenge(now, entropy::random()?, &api.services.keys.signing);
    json(StatusCode::OK, &Challenge { challenge: Blob(challenge), now })
}

/// Opens a session: a short-lived token for the broker, for the agent's own queue and keys alone.
///
/// # Errors
/// 401 for every wrong attempt, 403 for an agent in quarantine, 503 while the broker is away.
#[utoipa::path(post, path = "/agent/v1/session", tag = "Agents' doors", operation_id = "agent_session",
    summary = "An agent opens a session", request_body = SessionRequestBody, responses(
        (status = 200, description = "A signed envelope with the answer", body = EnvelopeBody),
        (status = 401, description = "The agent, the challenge or the proof is not good", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 403, description = "The agent is in quarantine", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn session(
    api: web::Data<Api>,
    http: HttpRequest,
    body: Body<SessionRequest>,
) -> Result<HttpResponse, Problem> {
    let services = &api.services;
    let knock = Knock::at(services, &http, "session_refused");
    let request = body.check(|request, _| Some(request))?;
    let agent = match prove(services, &knock, &request).await? {
        Ok(agent) => agent,
        Err(refused) => return Err(knock.refuse(*refused)),
    };
    services.broker.declare_agent_queue(agent.id).await.map_err(broker_error)?;
    let answer = session_answer(agent.id, &key_id(&agent.sign_key), knock.now, services)?;
    signed(&answer, Purpose::SessionAnswer, services)
}

/// The agent that a request proves to come from; or why not.
async fn prove(
    services: &Services,
    knock: &Knock<'_>,
    request: &SessionRequest,
) -> Result<Result<Agent, Box<Refused>>, Problem> {
    let now = knock.now;
    let unknown = |reason| Ok(Err(Box::new(Refused::unknown(reason, refused_session()))));
    let Some(challenge) = check_challenge(&request.challenge.0, now, &services.keys.signing) else {
        return unknown(DoorRefusal::BadChallenge);
    };
    let input = SessionRequest::proof_input(request.agent_id, &request.challenge.0, request.instance);
    let proven = services
        .store
        .system_tx("agent_session", async |tx| {
            let agent = tx.agent_by_id(request.agent_id).await?;
            let refused = |reason: DoorRefusal, problem| {
                let about = Some((agent.tenant_id, "agent", agent.id.as_uuid()));
                let code = if reason == DoorRefusal::BadProof { "wrong_proof" } else { reason.as_str() };
                Ok(Err(Box::new(Refused { reason, code, about, problem })))
            };
            if verify(&agent.sign_key, Purpose::SessionProof, &input, &request.proof.0).is_err() {
                return refused(DoorRefusal::BadProof, refused_session());
            }
            if agent.quarantine.is_some() {
                return refused(DoorRefusal::Quarantined, quarantined());
            }
            if !tx.agent_session_begin(agent.tenant_id, agent.id, challenge, now).await? {
                return refused(DoorRefusal::Replayed, refused_session());
            }
            let twice = match request.instance {
                Some(instance) => tx.agent_heard(agent.tenant_id, agent.id, instance, now).await?,
                None => false,
            };
            Ok::<_, DbError>(Ok((agent, twice)))
        })
        .await;
    match proven {
        Err(DbError::NotFound { .. }) => unknown(DoorRefusal::UnknownAgent),
        Ok(Ok((agent, true))) => {
            services.metrics.agent_lives_twice();
            tracing::warn!(agent.id = %agent.id, tenant.id = %agent.tenant_id, "two processes have the keys of one agent");
            Ok(Ok(agent))
        }
        other => Ok(other?.map(|(agent, _)| agent)),
    }
}

impl Services {
    /// When a token for the broker that is made at `now` has ended for sure.
    ///
    /// # Errors
    /// A clock out of range.
    pub fn last_broker_token_ends(&self, now: Timestamp) -> Result<Timestamp, AppError> {
        let life = SignedDuration::from_secs(self.config.broker.token_lifetime_s.into());
        now.checked_add(life + TOKEN_SLACK).map_err(|error| AppError::Internal { source: Box::new(error) })
    }
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

fn bad_token(token: &JoinToken, now: Timestamp) -> Refused {
    let about = Some((token.tenant_id, "join_token", token.id.as_uuid()));
    let code = if token.expires_at <= now { "expired" } else { "used_up" };
    Refused { reason: DoorRefusal::BadToken, code, about, problem: refused_token() }
}

/// The name is taken: told only to who has a token that is still good.
fn taken(token: &JoinToken, now: Timestamp) -> Problem {
    if token.uses_left == 0 || token.expires_at <= now {
        return refused_token();
    }
    let detail = "there is an agent of this name already; choose another name, start it with the keys that it joined \
                  with, or let it join again with new ones: `trustfleet agent rejoin`";
    Problem::conflict("name_taken", detail)
}

/// Another agent of the tenant has the same key: its state folder was copied.
fn key_taken(error: DbError) -> AppError {
    if error.constraint() == Some("agents_sign_key") {
        let detail =
            "another agent has joined with these keys: empty the state folder, which is a copy, and join again";
        return AppError::Conflict { code: "key_taken", detail: detail.to_owned() };
    }
    name_taken(error, "agent")
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

/// Told only to who has proven to be that agent.
fn quarantined() -> Problem {
    let detail = "this agent is in quarantine: an operator lets it out with `trustfleet agent release`, or lets it join \
                  again with new keys by `trustfleet agent rejoin`";
    Problem::http(StatusCode::FORBIDDEN, "agent_quarantined", detail)
}

fn broker_error(error: BrokerError) -> Problem {
    AppError::Unavailable { what: "the broker", source: Some(Box::new(error)) }.into()
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
    fn a_join_token_for_another_controller_is_refused() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let id = "018f0000-0000-7000-8000-0000000000a1";
        let token = format!("tfj1.{id}.secret.{}", key_id(&key.public_key()));
        assert!(read_token(&token, &key).is_some());
        assert!(read_token(&token, &other).is_none());
        assert!(read_token("tfj1.x", &key).is_none());
    }
}
