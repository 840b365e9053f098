//! Agents that have joined, as operators see them, put them out and let them in again.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::{ObjectName, check_text};
use trustfleet_wire::routing::agent_user;
use trustfleet_wire::sign::key_id;

use super::body::Body;
use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::agent::{AgentBody, QuarantineCreate, RejoinCreate};
use super::dto::tenant::JoinTokenCreatedBody;
use super::problem::{Problem, ProblemBody, json};
use super::tokens::{NewJoinToken, check_join_token_life, make_join_token};
use crate::db::{CutOff, DbError};
use crate::error::AppError;

/// Longest reason, characters.
const REASON_MAX: usize = 200;

/// Lists agents by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/agents", tag = "Agents", operation_id = "agent_list",
    summary = "List agents by name", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<AgentBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call.tenant_read("agent_list", async |tx| Ok(tx.agent_list(list.after(), list.rows()).await?)).await?;
    let page: Page<AgentBody> = list.page(rows, |agent| agent.name.to_string());
    json(StatusCode::OK, &page)
}

/// Shows one agent.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/agents/{agent}", tag = "Agents", operation_id = "agent_show",
    summary = "Show an agent", responses((status = 200, description = "The agent", body = AgentBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    let agent = call.tenant_read("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    json(StatusCode::OK, &AgentBody::from(agent))
}

/// Puts an agent into quarantine.
///
/// # Errors
/// 404, 422 for a reason that is none.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/agents/{agent}/quarantine", tag = "Agents",
    operation_id = "agent_quarantine",
    summary = "Put an agent into quarantine: no session, no jobs, no word of it counts, its connection is closed",
    request_body = QuarantineCreate, responses(
        (status = 200, description = "It is in quarantine; one that was keeps its first reason", body = AgentBody)))]
pub async fn quarantine(call: Call, body: Body<QuarantineCreate>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    call.tenant_read("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    let reason = body.check(|body, violations| {
        violations.check("reason", "text", check_text(&body.reason, REASON_MAX)).map(|_| body.reason)
    })?;
    let until = call.services().last_broker_token_ends(call.now)?;
    let agent = call
        .tenant_tx("agent_quarantine", async |tx| {
            let agent = tx.agent_fetch(&name).await?;
            if tx.agent_quarantine(agent.id, &reason, call.now).await? {
                let key_id = key_id(&agent.sign_key);
                let order = CutOff {
                    tenant_id: tx.tenant_id(),
                    agent_id: agent.id,
                    broker_user: agent_user(agent.id, &key_id),
                    with_queue: true,
                    until,
                };
                tx.cut_off_insert(&order, call.now).await?;
                let leases = tx.leases_of_quarantined(agent.id, call.now).await?;
                let detail =
                    json!({"name": name.as_str(), "reason": &reason, "key_id": key_id, "leases_ended": leases});
                call.note(tx, "agent_quarantined", "agent", agent.id.as_uuid(), detail).await?;
            }
            Ok(tx.agent_fetch(&name).await?)
        })
        .await?;
    call.services().cut_offs.notify_one();
    json(StatusCode::OK, &AgentBody::from(agent))
}

/// Lets an agent out of quarantine.
///
/// # Errors
/// 404.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/agents/{agent}/release", tag = "Agents", operation_id = "agent_release",
    summary = "Let an agent out of quarantine, with the keys that it has",
    responses((status = 200, description = "It is in none", body = AgentBody)))]
pub async fn release(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    let agent = call
        .tenant_tx("agent_release", async |tx| {
            let agent = tx.agent_fetch(&name).await?;
            if tx.agent_release(agent.id).await? {
                tx.cut_off_take_back(agent.id).await?;
                let detail = json!({"name": name.as_str(), "key_id": key_id(&agent.sign_key)});
                call.note(tx, "agent_released", "agent", agent.id.as_uuid(), detail).await?;
            }
            Ok(tx.agent_fetch(&name).await?)
        })
        .await?;
    json(StatusCode::OK, &AgentBody::from(agent))
}

/// Makes a token by which an agent joins again.
///
/// # Errors
/// 404, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/agents/{agent}/rejoin", tag = "Agents", operation_id = "agent_rejoin",
    summary = "Make a token by which an agent joins again: the same agent with new keys, its former ones are dead then",
    request_body = RejoinCreate, responses(
        (status = 201, description = "Made; the token is shown only here", body = JoinTokenCreatedBody)))]
pub async fn rejoin(call: Call, body: Body<RejoinCreate>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    call.tenant_read("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    let valid_for_s = body.check(|body, violations| {
        check_join_token_life(body.valid_for_s, violations);
        Some(body.valid_for_s)
    })?;
    let made = call
        .tenant_tx("join_token_create", async |tx| {
            let agent = tx.agent_fetch(&name).await?;
            let wanted = NewJoinToken {
                agent_name: Some(name.clone()),
                labels: agent.labels,
                rejoin: Some(agent.id),
                uses: 1,
                valid_for_s,
            };
            make_join_token(&call, tx, &wanted).await
        })
        .await?;
    json(StatusCode::CREATED, &made)
}

/// Deletes an agent that is out for good.
///
/// # Errors
/// 404; 409 while it is not in quarantine, has devices, or may have a token for the broker.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/agents/{agent}", tag = "Agents", operation_id = "agent_delete",
    summary = "Delete an agent in quarantine that no device has any more, with its queue at the broker", responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "It is not in quarantine, devices are behind it, or its last token for the broker has \
            not ended", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    let agent = call.tenant_read("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    let refused = |code, detail: String| Err(AppError::Conflict { code, detail });
    call.tenant_tx("agent_delete", async |tx| {
        if agent.quarantine.is_none() {
            let detail = "put the agent into quarantine first: that closes its connections and ends its leases";
            return refused("not_in_quarantine", detail.to_owned());
        }
        if let Some(until) = tx.agent_cut_off_until(agent.id).await?.filter(|until| *until > call.now) {
            return refused(
                "token_not_ended",
                format!("its last token for the broker ends at {until}: delete it then"),
            );
        }
        match tx.agent_delete(agent.id).await {
            Ok(()) => {}
            Err(DbError::Conflict { .. }) => {
                let detail = "devices are behind the agent: delete them, or give them another one";
                return refused("has_devices", detail.to_owned());
            }
            Err(error) => return Err(error.into()),
        }
        let detail = json!({"name": name.as_str(), "key_id": key_id(&agent.sign_key)});
        Ok(call.note(tx, "agent_deleted", "agent", agent.id.as_uuid(), detail).await?)
    })
    .await?;
    call.services().leaver().drop_queue(call.tenant()?.id, agent.id).await;
    Ok(HttpResponse::NoContent().finish())
}
