//! Freeze windows: when devices are not to be changed, but for what is urgent.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::device::Labels;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::FreezeId;

use super::body::Body;
use super::call::{Call, ListQuery, id_bytes, name_taken};
use super::dto::Page;
use super::dto::freeze::{FreezeBody, FreezeCreate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{FREEZES_MAX, Freeze};
use crate::error::AppError;
use crate::freeze::FreezeSpec;

/// Lists freezes by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/freezes", tag = "Campaigns", operation_id = "freeze_list",
    summary = "List freezes by name, with their present and next windows", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<FreezeBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call.tenant_read("freeze_list", async |tx| Ok(tx.freeze_list(list.after(), list.rows()).await?)).await?;
    let page: Page<Freeze> = list.page(rows, |row| row.name.to_string());
    let items = page.items.into_iter().map(|freeze| FreezeBody::new(freeze, call.now)).collect();
    json(StatusCode::OK, &Page::<FreezeBody> { items, next: page.next })
}

/// Makes a freeze.
///
/// # Errors
/// 409 when the name is taken or there are too many, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/freezes", tag = "Campaigns", operation_id = "freeze_create",
    summary = "Hold every change of devices in certain windows, but for what is urgent", request_body = FreezeCreate,
    responses((status = 201, description = "Made", body = FreezeBody),
        (status = 409, description = "The name is taken, or there are too many", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<FreezeCreate>) -> Result<HttpResponse, Problem> {
    let (name, spec, labels) = body.check(|body, violations| {
        let name = violations.check("name", "S1", body.name.parse::<ObjectName>());
        let spec = FreezeSpec { cron: body.cron, duration_s: body.duration_s, time_zone: body.time_zone };
        spec.check(violations);
        let labels = Labels::parse(&body.labels, violations);
        Some((name?, spec, labels))
    })?;
    let windows = spec.windows(call.now).map_err(AppError::internal)?;
    let freeze = Freeze { id: FreezeId::fresh(call.now, id_bytes()?), name, spec, labels, created_at: call.now };
    let made = FreezeBody::new(freeze.clone(), call.now);
    call.tenant_tx("freeze_create", async |tx| {
        if tx.freeze_count().await? >= FREEZES_MAX {
            let detail = format!("the tenant has {FREEZES_MAX} freezes, and cannot have more");
            return Err(AppError::Conflict { code: "too_many_freezes", detail });
        }
        tx.freeze_insert(&freeze, windows).await.map_err(|error| name_taken(error, "freeze"))?;
        let detail = json!({ "name": freeze.name.as_str() });
        let object = ("freeze", freeze.id.as_uuid());
        Ok(call.note_change(tx, "freeze_created", object, None, Some(shown(&made)), detail).await?)
    })
    .await?;
    call.created(freeze.name.as_str(), &made)
}

/// Shows a freeze.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/freezes/{freeze}", tag = "Campaigns", operation_id = "freeze_show",
    summary = "Show a freeze", responses((status = 200, description = "The freeze", body = FreezeBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("freeze", "freeze")?;
    let found = call.tenant_read("freeze_show", async |tx| Ok(tx.freeze_fetch(&name).await?)).await?;
    json(StatusCode::OK, &FreezeBody::new(found, call.now))
}

/// Removes a freeze; what it holds goes on at once.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/freezes/{freeze}", tag = "Campaigns", operation_id = "freeze_delete",
    summary = "Remove a freeze; what it holds goes on at once",
    responses((status = 204, description = "Removed")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("freeze", "freeze")?;
    call.tenant_tx("freeze_delete", async |tx| {
        let freeze = tx.freeze_fetch(&name).await?;
        let before = shown(&FreezeBody::new(freeze.clone(), call.now));
        tx.freeze_delete(freeze.id).await?;
        let detail = json!({ "name": name.as_str() });
        Ok(call.note_change(tx, "freeze_deleted", ("freeze", freeze.id.as_uuid()), Some(before), None, detail).await?)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
