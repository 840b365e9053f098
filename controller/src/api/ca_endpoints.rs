//! Budgets of CAs: they belong to the endpoint, whichever tenants use it, and so to the platform.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::{Value, json};
use trustfleet_model::ca_server::endpoint_of;
use trustfleet_model::field::Violations;

use super::body::Body;
use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::ca_endpoint::{CaEndpointBody, CaEndpointUpdate};
use super::problem::{Problem, json};
use crate::admission::Budget;
use crate::audit::PLATFORM;
use crate::db::{CaEndpoint, DbError, Note, SystemTx};
use crate::error::AppError;

/// Greatest of each number.
const MOST: u32 = 100_000;

/// Lists the CMP servers that jobs go to.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/ca-endpoints", tag = "CA endpoints", operation_id = "ca_endpoint_list",
    summary = "List the CMP servers that jobs go to: budget, what is under way, what waits, circuit breaker",
    params(ListQuery), responses((status = 200, description = "A part of the list", body = Page<CaEndpointBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let after = list.after().map(str::to_owned);
    let rows = all(&call).await?.into_iter().filter(|found| after.as_ref().is_none_or(|after| found.name > *after));
    let rows: Vec<CaEndpoint> = rows.take(usize::try_from(list.rows()).unwrap_or(usize::MAX)).collect();
    let page: Page<CaEndpointBody> = list.page(rows, |found| found.name.clone());
    json(StatusCode::OK, &page)
}

/// Gives an endpoint a budget of its own.
///
/// # Errors
/// 404 for what is no `host:port`; 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/ca-endpoints/{endpoint}", tag = "CA endpoints", operation_id = "ca_endpoint_update",
    summary = "Give a CMP server a budget of its own, over all tenants and replicas; in effect at once",
    request_body = CaEndpointUpdate, responses((status = 200, description = "Set", body = CaEndpointBody)))]
pub async fn update(call: Call, body: Body<CaEndpointUpdate>) -> Result<HttpResponse, Problem> {
    let name = endpoint(&call)?;
    let wanted = body.check(|body, violations| {
        check(&body, violations);
        Some(body)
    })?;
    set(&call, &name, Some(wanted)).await?;
    let found = all(&call).await?.into_iter().find(|found| found.name == name);
    let found = found.ok_or_else(|| Problem::not_found("ca_endpoint"))?;
    json(StatusCode::OK, &CaEndpointBody::from(found))
}

/// Takes an endpoint's own budget away.
///
/// # Errors
/// 404 for what is no `host:port`.
#[utoipa::path(delete, path = "/v1/ca-endpoints/{endpoint}", tag = "CA endpoints", operation_id = "ca_endpoint_delete",
    summary = "Let a CMP server have the configuration's budget again",
    responses((status = 204, description = "It has")))]
pub async fn reset(call: Call) -> Result<HttpResponse, Problem> {
    let name = endpoint(&call)?;
    set(&call, &name, None).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The endpoint in the path, in the spelling of jobs.
fn endpoint(call: &Call) -> Result<String, Problem> {
    let text: String = call.segment("endpoint", "ca_endpoint")?;
    let with_port = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let read = endpoint_of(&format!("http://{text}/")).filter(|_| with_port && !text.contains(['/', '?', '@']));
    read.ok_or_else(|| Problem::not_found("ca_endpoint"))
}

fn check(wanted: &CaEndpointUpdate, violations: &mut Violations) {
    if !(0.01..=f64::from(MOST)).contains(&wanted.rate_per_s) {
        violations.add("rate_per_s", "range", format!("is {}; allowed are 0.01 to {MOST}", wanted.rate_per_s));
    }
    for (field, number) in [("burst", wanted.burst), ("concurrency", wanted.concurrency)] {
        if !(1..=MOST).contains(&number) {
            violations.add(field, "range", format!("is {number}; allowed are 1 to {MOST}"));
        }
    }
}

async fn all(call: &Call) -> Result<Vec<CaEndpoint>, Problem> {
    let services = call.services();
    let default = services.config.ca_budget.budget();
    let found: Result<Vec<CaEndpoint>, DbError> =
        services.store.system_tx("ca_endpoint_list", async |tx: &SystemTx| tx.ca_endpoint_list(default).await).await;
    Ok(found?)
}

async fn set(call: &Call, name: &str, wanted: Option<CaEndpointUpdate>) -> Result<(), Problem> {
    let requester = call.requester();
    let after = wanted.map_or(Value::Null, |wanted| json!(wanted));
    let detail = json!({ "endpoint": name, "budget": after });
    let note = Note::new(call.now, &requester, "ca_budget_set", "ca_endpoint", uuid::Uuid::nil(), detail);
    call.services()
        .store
        .system_tx("ca_endpoint_set", async |tx| {
            tx.ca_endpoint_set(name, wanted.map(Budget::from)).await?;
            tx.audit_note(PLATFORM, &note).await?;
            Ok::<_, AppError>(())
        })
        .await?;
    Ok(())
}
