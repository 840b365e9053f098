//! Tenants: made by platform administrators, seen by those who belong to them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::{ObjectName, check_text};
use trustfleet_model::ids::TenantId;

use super::body::Body;
use super::call::{Call, ListQuery, id_bytes, name_taken};
use super::dto::Page;
use super::dto::tenant::{TenantBody, TenantCreate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{DbError, Note, Tenant};
use crate::error::AppError;

/// Longest name for people, characters.
const DISPLAY_NAME_MAX: usize = 128;

/// Lists all tenants.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants", tag = "Tenants", operation_id = "tenant_list", summary = "List all tenants",
    params(ListQuery), responses((status = 200, description = "A part of the list", body = Page<TenantBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let store = &call.services().store;
    let rows: Vec<Tenant> = store
        .system_tx("tenant_list", async |tx| tx.tenant_list(list.after(), list.rows()).await)
        .await
        .map_err(|error: DbError| Problem::from(error))?;
    let page: Page<TenantBody> = list.page(rows, |tenant| tenant.name.to_string());
    json(StatusCode::OK, &page)
}

/// Makes a tenant.
///
/// # Errors
/// 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants", tag = "Tenants", operation_id = "tenant_create", summary = "Make a tenant",
    request_body = TenantCreate, responses(
        (status = 201, description = "Made", body = TenantBody),
        (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<TenantCreate>) -> Result<HttpResponse, Problem> {
    let (name, display_name, allow_weak_algorithms) = body.check(|body, violations| {
        let name = violations.check("name", "S1", body.name.parse::<ObjectName>());
        if let Some(text) = &body.display_name {
            violations.check("display_name", "text", check_text(text, DISPLAY_NAME_MAX));
        }
        let display_name = body.display_name.unwrap_or(body.name);
        name.map(|name| (name, display_name, body.allow_weak_algorithms))
    })?;
    let tenant = Tenant {
        id: TenantId::fresh(call.now, id_bytes()?),
        name,
        display_name,
        allow_weak_algorithms,
        created_at: call.now,
        updated_at: call.now,
    };
    let requester = call.requester();
    let detail = json!({"name": tenant.name.as_str()});
    let note = Note::new(call.now, &requester, "tenant_created", "tenant", tenant.id.as_uuid(), detail)
        .change(None, Some(shown(&TenantBody::from(tenant.clone()))));
    let store = &call.services().store;
    store
        .system_tx("tenant_create", async |tx| {
            tx.tenant_insert(&tenant).await.map_err(|error| name_taken(error, "tenant"))?;
            tx.audit_note(tenant.id, &note).await?;
            Ok::<_, AppError>(())
        })
        .await?;
    call.created(tenant.name.as_str(), &TenantBody::from(tenant.clone()))
}

/// Shows one tenant.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "Tenants", operation_id = "tenant_show",
    summary = "Show a tenant", responses((status = 200, description = "The tenant", body = TenantBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name = &call.tenant()?.name;
    let store = &call.services().store;
    let tenant: Result<Tenant, DbError> =
        store.system_tx("tenant_show", async |tx| tx.tenant_by_name(name).await).await;
    json(StatusCode::OK, &TenantBody::from(tenant?))
}
