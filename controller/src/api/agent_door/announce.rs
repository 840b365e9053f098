//! The door for agents without a token: a factory identity of a registered CA lets them in at once, a serial number that an
//! operator expects lets them ask.
//!
//! What a device says of itself counts for nothing by itself: a serial number becomes the agent's only when the factory
//! vouches for it by signature, or an operator has approved those very keys.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use trustfleet_model::device::{Labels, Word};
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::{AgentId, ApplicantId, TenantId};
use trustfleet_pki::Certificate;
use trustfleet_wire::join::{AnnounceAnswer, AnnounceRequest, JoinAnswer};
use trustfleet_wire::sign::{PUBLIC_KEY_LEN, Purpose, key_id, verify};
use trustfleet_wire::v1::Blob;

use super::challenge::check_challenge;
use super::knock::{Knock, Refused};
use super::{SOFTWARE_MAX, key_taken, signed};
use crate::api::auth::Api;
use crate::api::body::Body;
use crate::api::dto::agent_door::{AnnounceRequestBody, EnvelopeBody};
use crate::api::problem::{Problem, ProblemBody};
use crate::app::Services;
use crate::db::{Agent, Applicant, ApplicantState, DbError, FactoryCa, JoinedBy, Note, SystemTx, TenantState};
use crate::error::AppError;
use crate::factory::{SerialFrom, vouched};
use crate::metrics::DoorRefusal;

/// When an applicant asks again at the earliest, seconds.
const RETRY_AFTER_S: u32 = 30;
/// Most applicants for one serial number at a time: whoever knows the number can announce it.
const APPLICANTS_MAX: i64 = 5;

/// What an announcement leads to.
enum Outcome {
    Joined(Box<Agent>),
    Pending,
    Refused(Box<Refused>),
}

/// An announcement whose shape is right.
struct Announced {
    request: AnnounceRequest,
    tenant: ObjectName,
    name: ObjectName,
    serial: Option<Word>,
}

/// Takes an agent in by its factory identity, or notes it for an operator.
///
/// # Errors
/// 401 for every wrong attempt, 403 when an operator has rejected it, 409 when name, keys or serial number are another
/// agent's, 422 with everything that is wrong.
#[utoipa::path(post, path = "/agent/v1/announce", tag = "Agents' doors", operation_id = "agent_announce",
    summary = "An agent joins by its factory identity, or asks to be approved", request_body = AnnounceRequestBody, responses(
        (status = 200, description = "A signed envelope with the answer: joined, or pending", body = EnvelopeBody),
        (status = 401, description = "Nobody vouches for it, or a proof is not good", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 403, description = "An operator has rejected it", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The name, the keys or the serial number are another agent's", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn announce(
    http: HttpRequest,
    api: web::Data<Api>,
    body: Body<AnnounceRequest>,
) -> Result<HttpResponse, Problem> {
    let services = &api.services;
    let knock = Knock::at(services, &http, "announce_refused");
    let announced = body.check(check)?;
    let (controller_key, sign_key) =
        (Blob(services.keys.signing.public_key()), Blob(announced.request.sign_key.0.clone()));
    let answer = match decide(services, &knock, announced).await? {
        Outcome::Refused(refused) => return Err(knock.refuse(*refused)),
        Outcome::Pending => AnnounceAnswer::Pending { controller_key, sign_key, retry_after_s: RETRY_AFTER_S },
        Outcome::Joined(agent) => {
            if let Err(error) = services.broker.declare_agent_queue(agent.id).await {
                tracing::info!(agent.id = %agent.id, error = %error, "queue of a new agent is left to its first session");
            }
            tracing::info!(agent.id = %agent.id, tenant.id = %agent.tenant_id, by = agent.joined_by.as_str(), "agent joined");
            AnnounceAnswer::Joined(JoinAnswer {
                tenant_id: agent.tenant_id,
                agent_id: agent.id,
                name: agent.name.into(),
                controller_key,
                sign_key,
            })
        }
    };
    signed(&answer, Purpose::AnnounceAnswer, services)
}

fn check(request: AnnounceRequest, violations: &mut Violations) -> Option<Announced> {
    let tenant = violations.check("tenant", "name", request.tenant.parse::<ObjectName>());
    let name = violations.check("name", "name", request.name.parse::<ObjectName>());
    violations.check("software", "text", check_text(&request.software, SOFTWARE_MAX));
    let serial = request.serial.clone().map(|serial| violations.check("serial", "word", Word::try_from(serial)));
    if serial.is_none() && request.factory.is_none() {
        violations.add("serial", "identity", "is missing, and there is no factory identity: give one of them");
    }
    for (field, key) in [("sign_key", &request.sign_key), ("seal_key", &request.seal_key)] {
        if key.0.len() != PUBLIC_KEY_LEN {
            violations.add(field, "key", format!("has {} bytes; a key has {PUBLIC_KEY_LEN}", key.0.len()));
        }
    }
    Some(Announced { request, tenant: tenant?, name: name?, serial: serial.flatten() })
}

async fn decide(services: &Services, knock: &Knock<'_>, announced: Announced) -> Result<Outcome, Problem> {
    let Announced { request, tenant, name, serial } = announced;
    let unknown = |reason| Ok(Outcome::Refused(Box::new(Refused::unknown(reason, refused()))));
    if check_challenge(&request.challenge.0, knock.now, &services.keys.signing).is_none() {
        return unknown(DoorRefusal::BadChallenge);
    }
    if verify(&request.sign_key.0, Purpose::AnnounceProof, &request.proof_input(), &request.proof.0).is_err() {
        return unknown(DoorRefusal::BadProof);
    }
    let found = services
        .store
        .system_tx("announce_tenant", async |tx| {
            let tenant = tx.tenant_by_name(&tenant).await?;
            if tenant.state != TenantState::Active {
                return Err(DbError::NotFound { kind: "tenant" });
            }
            Ok::<_, DbError>((tenant.id, tx.factory_cas_of(tenant.id).await?))
        })
        .await;
    let (tenant, cas) = match found {
        Err(DbError::NotFound { .. }) => return unknown(DoorRefusal::UnknownAgent),
        other => other?,
    };
    let about = Some((tenant, "tenant", tenant.as_uuid()));
    let readable: Vec<(Vec<Certificate>, SerialFrom)> = cas.iter().map(anchors).collect();
    let (ca, serial) = match vouched(&request, &readable, knock.now) {
        Ok(Some((i, serial))) => (cas.get(i), Some(serial)),
        Ok(None) => (None, serial),
        Err(error) => {
            tracing::info!(tenant.id = %tenant, error = %error, "a factory identity is refused");
            let (reason, code) = (DoorRefusal::BadProof, error.code());
            return Ok(Outcome::Refused(Box::new(Refused { reason, code, about, problem: refused() })));
        }
    };
    let Some(serial) = serial else { return unknown(DoorRefusal::UnknownAgent) };
    let id = services.fresh(ApplicantId::fresh)?;
    let applicant = Applicant {
        id,
        serial,
        name,
        sign_key: request.sign_key.0,
        seal_key: request.seal_key.0,
        software: request.software,
        address: knock.address(),
        state: ApplicantState::Pending,
        first_seen_at: knock.now,
        last_seen_at: knock.now,
    };
    let agent_id = services.fresh(AgentId::fresh)?;
    let outcome = services
        .store
        .system_tx("agent_announce", async |tx| admit(tx, knock, tenant, ca, &applicant, agent_id).await)
        .await?;
    Ok(outcome)
}

/// Anchors that cannot be read any more vouch for nobody.
fn anchors(ca: &FactoryCa) -> (Vec<Certificate>, SerialFrom) {
    (ca.anchors.iter().filter_map(|pem| Certificate::from_pem(pem).ok()).collect(), ca.serial_from)
}

/// `ca`: the factory CA that vouches for the serial number; none: only the agent says so.
async fn admit(
    tx: &SystemTx,
    knock: &Knock<'_>,
    tenant: TenantId,
    ca: Option<&FactoryCa>,
    applicant: &Applicant,
    id: AgentId,
) -> Result<Outcome, AppError> {
    let refuse = |reason, code, problem| {
        let about = Some((tenant, "tenant", tenant.as_uuid()));
        Ok(Outcome::Refused(Box::new(Refused { reason, code, about, problem })))
    };
    let expected = tx.expected_agent_lock(tenant, &applicant.serial).await?;
    if let Some(present) = tx.agent_by_serial(tenant, &applicant.serial).await? {
        // The answer to an earlier announcement was lost.
        if present.sign_key == applicant.sign_key && present.seal_key == applicant.seal_key {
            return Ok(Outcome::Joined(Box::new(present)));
        }
        return refuse(DoorRefusal::Name, "serial_taken", serial_taken());
    }
    let joined_by = match (ca, &expected) {
        (Some(ca), None) if ca.expected_only => {
            return refuse(DoorRefusal::UnknownAgent, "serial_not_expected", refused());
        }
        (Some(_), _) => JoinedBy::Factory,
        (None, None) => return refuse(DoorRefusal::UnknownAgent, "serial_not_expected", refused()),
        (None, Some(expected)) => {
            let name = expected.agent_name.clone().unwrap_or_else(|| applicant.name.clone());
            let announced = Applicant { name, ..applicant.clone() };
            match tx.applicant_announced(tenant, &announced, APPLICANTS_MAX).await? {
                None => return refuse(DoorRefusal::TooMany, "too_many_applicants", refused()),
                Some(known) => match known.state {
                    ApplicantState::Pending => {
                        if known.id == applicant.id {
                            let detail = json!({"serial": applicant.serial, "key_id": key_id(&applicant.sign_key)});
                            let actor = format!("applicant:{}", known.id);
                            let (requester, object) = (knock.requester(actor), known.id.as_uuid());
                            let note = Note::new(knock.now, &requester, "agent_announced", "applicant", object, detail);
                            tx.audit_note(tenant, &note).await?;
                        }
                        return Ok(Outcome::Pending);
                    }
                    ApplicantState::Rejected => return refuse(DoorRefusal::Name, "rejected", rejected()),
                    ApplicantState::Approved => JoinedBy::Approval,
                },
            }
        }
    };
    let labels = Labels::merged(ca.map(|ca| &ca.labels), expected.as_ref().map(|expected| &expected.labels));
    let name = expected.and_then(|expected| expected.agent_name).unwrap_or_else(|| applicant.name.clone());
    let agent = Agent {
        tenant_id: tenant,
        id,
        name,
        sign_key: applicant.sign_key.clone(),
        seal_key: applicant.seal_key.clone(),
        software: applicant.software.clone(),
        labels,
        serial: Some(applicant.serial.clone()),
        joined_by,
        joined_at: knock.now,
        last_seen_at: knock.now,
        quarantine: None,
        cut_off_at: None,
        live_twice_at: None,
        clock_off_s: None,
    };
    tx.agent_insert(&agent).await.map_err(key_taken)?;
    tx.expected_agent_came(tenant, &applicant.serial).await?;
    let detail = json!({
        "name": agent.name.as_str(), "key_id": key_id(&agent.sign_key), "serial": applicant.serial,
        "joined_by": joined_by.as_str(), "factory_ca": ca.map(|ca| ca.name.as_str())
    });
    let requester = knock.requester(format!("agent:{id}"));
    let note = Note::new(knock.now, &requester, "agent_joined", "agent", id.as_uuid(), detail);
    tx.audit_note(tenant, &note).await?;
    Ok(Outcome::Joined(Box::new(agent)))
}

fn refused() -> Problem {
    let detail = "nobody vouches for this agent: no factory CA of the tenant has issued its certificate, its serial number is \
                  not expected, or a proof does not fit; the controller's audit log says which";
    Problem::http(StatusCode::UNAUTHORIZED, "announce_refused", detail)
}

fn rejected() -> Problem {
    let detail = "an operator has rejected this agent; make new keys and have its serial number expected again";
    Problem::http(StatusCode::FORBIDDEN, "announce_rejected", detail)
}

fn serial_taken() -> Problem {
    let detail = "an agent of this serial number has joined with other keys: start it with those, or let it join again by \
                  `trustfleet agent rejoin`";
    Problem::conflict("serial_taken", detail)
}
