//! Bindings: devices get trustpoints by their labels (S51). What follows from them is the binder's work.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::binding::{BINDINGS_MAX, BindingSpec, Leaving};
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::BindingId;
use utoipa::IntoParams;

use super::body::Body;
use super::call::{Call, ListQuery, id_bytes, name_taken};
use super::dto::Page;
use super::dto::binding::{BindingBody, BindingCreate};
use super::problem::{Problem, ProblemBody, json};
use super::trustpoints::find_references;
use crate::audit::shown;
use crate::error::AppError;

/// What becomes of what a binding has brought.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct BindingLeave {
    /// Must be said: `keep`, its trustpoints stay as if made by hand; `delete`, they are removed with their secrets, one
    /// after the other, as soon as nothing is under way on them. Certificates are not revoked, and stay on the devices.
    certificates: String,
}

/// Lists bindings by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/bindings", tag = "Bindings", operation_id = "binding_list",
    summary = "List bindings by name", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<BindingBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call.tenant_tx("binding_list", async |tx| Ok(tx.binding_list(list.after(), list.rows()).await?)).await?;
    let page: Page<BindingBody> = list.page(rows, |row| row.name.to_string());
    json(StatusCode::OK, &page)
}

/// Makes a binding.
///
/// # Errors
/// 409 when the name is taken or there are too many, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/bindings", tag = "Bindings", operation_id = "binding_create",
    summary = "Give a trustpoint to all devices with certain labels, also to those that come later",
    request_body = BindingCreate, responses(
        (status = 201, description = "Made; the devices follow within seconds to minutes", body = BindingBody),
        (status = 409, description = "The name is taken, or there are too many", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<BindingCreate>) -> Result<HttpResponse, Problem> {
    let (body, mut findings) = body.open();
    let mut read = None;
    if let Some(body) = &body {
        let name = findings.rules.check("name", "S1", body.name.parse::<ObjectName>());
        let trustpoint = findings.rules.check("trustpoint", "S17", body.trustpoint.parse::<TrustpointName>());
        let selector = BindingSpec::selector(&body.selector, &mut findings.rules);
        let named = (body.entity.as_str(), body.ca_server.as_str(), body.policy.as_str());
        let (references, unknown) = find_references(&call, named, &[]).await?;
        findings.add(unknown);
        read = match (name, trustpoint, references) {
            (Some(name), Some(trustpoint), Some(references)) => Some((
                name,
                BindingSpec {
                    selector,
                    trustpoint,
                    entity_id: references.entity,
                    ca_server_id: references.ca_server,
                    policy_id: references.policy,
                    enroll: body.enroll,
                },
            )),
            _ => None,
        };
    }
    let (name, spec) = findings.finish(read)?;
    let id = BindingId::fresh(call.now, id_bytes()?);
    let made = call
        .tenant_tx("binding_create", async |tx| {
            if tx.binding_count().await? >= i64::from(BINDINGS_MAX) {
                let detail = format!("the tenant has {BINDINGS_MAX} bindings, and cannot have more");
                return Err(AppError::Conflict { code: "too_many_bindings", detail });
            }
            tx.binding_insert(id, &name, &spec, call.now).await.map_err(|error| name_taken(error, "binding"))?;
            let made = BindingBody::from(tx.binding_fetch(&name).await?).reaching(tx.binding_reach(id, &spec).await?);
            let object = ("binding", id.as_uuid());
            call.note_change(tx, "binding_created", object, None, Some(shown(&made)), json!({"name": name.as_str()}))
                .await?;
            Ok(made)
        })
        .await?;
    call.created(name.as_str(), &made)
}

/// Shows one binding.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/bindings/{binding}", tag = "Bindings", operation_id = "binding_show",
    summary = "Show a binding, and how far it reaches",
    responses((status = 200, description = "The binding", body = BindingBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("binding", "binding")?;
    let found = call
        .tenant_tx("binding_show", async |tx| {
            let found = tx.binding_fetch(&name).await?;
            let reach = tx.binding_reach(found.id, &found.spec).await?;
            Ok(BindingBody::from(found).reaching(reach))
        })
        .await?;
    json(StatusCode::OK, &found)
}

/// Removes a binding.
///
/// # Errors
/// 404; 422 when it is not said what becomes of what it has brought.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/bindings/{binding}", tag = "Bindings", operation_id = "binding_delete",
    summary = "Remove a binding", params(BindingLeave), responses(
        (status = 202, description = "It leaves: it is gone when its trustpoints are dealt with", body = BindingBody)))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("binding", "binding")?;
    call.tenant_tx("binding_show", async |tx| Ok(tx.binding_fetch(&name).await?)).await?;
    let leaving = call.query("certificates").as_deref().and_then(Leaving::from_word).ok_or_else(|| {
        let message = "must be keep or delete: say what becomes of the trustpoints that the binding has brought";
        Problem::invalid("certificates", "choice", message)
    })?;
    let left = call
        .tenant_tx("binding_leave", async |tx| {
            let present = tx.binding_fetch(&name).await?;
            tx.binding_leave(present.id, leaving).await?;
            let left = BindingBody::from(tx.binding_fetch(&name).await?);
            let detail =
                json!({"name": name.as_str(), "certificates": leaving.as_str(), "trustpoints": left.trustpoints});
            call.note(tx, "binding_leaves", "binding", present.id.as_uuid(), detail).await?;
            Ok(left)
        })
        .await?;
    json(StatusCode::ACCEPTED, &left)
}
