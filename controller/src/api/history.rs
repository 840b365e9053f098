//! The history of a trustpoint, from its certificates and their jobs: never from the audit log, which may be cut off.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::history::HistoryBody;
use super::problem::{Problem, json};
use super::trustpoints::find_listed;

/// Lists a trustpoint's certificates with how each came about and what became of it, newest first.
///
/// # Errors
/// 404; 422 for unreadable parameters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/history", tag = "Trustpoints",
    operation_id = "trustpoint_history", summary = "List a trustpoint's certificates: who asked, when, and what took their place",
    params(ListQuery), responses((status = 200, description = "A part of the list", body = Page<HistoryBody>)))]
pub async fn of_trustpoint(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let (_, found) = find_listed(&call).await?;
    let (id, before) = (found.trustpoint.id, list.after_as()?);
    let rows = call
        .tenant_tx("trustpoint_history", async |tx| Ok(tx.trustpoint_history(id, before, list.rows()).await?))
        .await?;
    let page: Page<HistoryBody> = list.page(rows, |row| row.id.to_string());
    json(StatusCode::OK, &page)
}
