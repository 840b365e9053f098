//! Agents that have joined, as operators see them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::field::ObjectName;

use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::agent::AgentBody;
use super::problem::{Problem, json};

/// Lists agents by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/agents", tag = "Agents", operation_id = "agent_list",
    summary = "List agents by name", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<AgentBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call.tenant_tx("agent_list", async |tx| Ok(tx.agent_list(list.after(), list.rows()).await?)).await?;
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
    let agent = call.tenant_tx("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    json(StatusCode::OK, &AgentBody::from(agent))
}
