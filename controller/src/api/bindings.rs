//! Bindings: devices get trustpoints by their labels (S51). What follows from them is the binder's work.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::{Value, json};
use trustfleet_model::binding::{BINDINGS_MAX, BindingSpec, Leaving};
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::BindingId;
use trustfleet_model::revocation::{Revocation, RevocationReason};
use trustfleet_model::service;
use utoipa::IntoParams;

use super::body::{Body, Findings};
use super::call::{Call, IfMatch, ListQuery, id_bytes, name_taken, with_revision};
use super::changes;
use super::dto::Page;
use super::dto::binding::{BindingBody, BindingCreate, BindingDryRunBody, BindingRemovalBody, BindingUpdate};
use super::problem::{Problem, ProblemBody, json};
use super::trustpoints::find_references;
use crate::audit::{differences, shown};
use crate::db::{Binding, Change, Condemn, DbError, TenantTx};
use crate::error::AppError;

/// What becomes of what a binding has brought.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct BindingLeave {
    /// Must be said: `keep`, its trustpoints stay as if made by hand; `delete`, they are removed with their secrets, one
    /// after the other, as soon as nothing is under way on them, and certificates stay on the devices; `revoke`, their valid
    /// certificates are revoked by their CA (`cessationOfOperation`), and they stay as if made by hand.
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
    let rows =
        call.tenant_read("binding_list", async |tx| Ok(tx.binding_list(list.after(), list.rows()).await?)).await?;
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
    if let Some(body) = body {
        let (name, trustpoint, rest) = body.split();
        let name = findings.rules.check("name", "S1", name.parse::<ObjectName>());
        let trustpoint = findings.rules.check("trustpoint", "S17", trustpoint.parse::<TrustpointName>());
        let said = check(&call, &rest, &mut findings).await?;
        read = match (name, trustpoint, said) {
            (Some(name), Some(trustpoint), Some(said)) => Some((name, said(trustpoint))),
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
    Ok(with_revision(call.created(name.as_str(), &made)?, made.revision))
}

/// What a binding says, but for its trustpoint's name; what is wrong is noted.
async fn check(
    call: &Call,
    body: &BindingUpdate,
    findings: &mut Findings,
) -> Result<Option<impl FnOnce(TrustpointName) -> BindingSpec + use<>>, Problem> {
    let selector = BindingSpec::selector(&body.selector, &mut findings.rules);
    let services = service::read_names("services", &body.services, &mut findings.rules);
    let named = (body.entity.as_str(), body.ca_server.as_str(), body.policy.as_str());
    let (references, unknown) = find_references(call, named, &[]).await?;
    findings.add(unknown);
    let enroll = body.enroll;
    Ok(references.map(|references| {
        move |trustpoint| BindingSpec {
            selector,
            trustpoint,
            entity_id: references.entity,
            ca_server_id: references.ca_server,
            policy_id: references.policy,
            services,
            enroll,
        }
    }))
}

/// What a change would make of a binding: the binding as it is, and its new specification.
async fn changed(call: &Call, body: Body<BindingUpdate>) -> Result<(Binding, BindingSpec), Problem> {
    let name: ObjectName = call.segment("binding", "binding")?;
    let present = call.tenant_read("binding_show", async |tx| Ok(tx.binding_fetch(&name).await?)).await?;
    let (body, mut findings) = body.open();
    let said = match &body {
        Some(body) => check(call, body, &mut findings).await?,
        None => None,
    };
    let spec = findings.finish(said.map(|said| said(present.spec.trustpoint.clone())))?;
    if let Some(wanted) = call.if_match()?
        && wanted != present.revision
    {
        return Err(AppError::PreconditionFailed { current: present.revision }.into());
    }
    if present.leaving.is_some() {
        let detail = "the binding is being removed, and cannot be changed any more";
        return Err(Problem::conflict("leaving", detail));
    }
    Ok((present, spec))
}

/// Changes a binding; its trustpoints follow.
///
/// # Errors
/// 404; 409 when it is being removed; 412 when it has another revision by now; 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/bindings/{binding}", tag = "Bindings", operation_id = "binding_update",
    summary = "Change a binding: all of it but its name and its trustpoint's", request_body = BindingUpdate, params(IfMatch),
    responses(
        (status = 200, description = "Changed; its trustpoints follow within seconds to minutes, each when nothing is under \
            way on it", body = BindingBody),
        (status = 409, description = "It is being removed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It has another revision by now", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn update(call: Call, body: Body<BindingUpdate>) -> Result<HttpResponse, Problem> {
    let (present, spec) = changed(&call, body).await?;
    let (id, name, before) = (present.id, present.name.clone(), BindingBody::from(present.clone()));
    let made = call
        .tenant_tx("binding_update", async |tx| {
            match tx.binding_update(id, present.revision, &spec, call.now).await {
                Err(DbError::NotFound { .. }) => {
                    let current = tx.binding_fetch(&name).await?.revision;
                    return Err(AppError::PreconditionFailed { current });
                }
                other => other?,
            }
            let made = BindingBody::from(tx.binding_fetch(&name).await?).reaching(tx.binding_reach(id, &spec).await?);
            let object = ("binding", id.as_uuid());
            let detail = json!({"name": name.as_str(), "revision": made.revision, "trustpoints": made.behind});
            let (before, after) = (settings(&before), settings(&made));
            call.note_change(tx, "binding_updated", object, Some(before), Some(after), detail).await?;
            Ok(made)
        })
        .await?;
    Ok(with_revision(json(StatusCode::OK, &made)?, made.revision))
}

/// Says what a change of a binding would do, and changes nothing.
///
/// # Errors
/// As [`update`].
#[utoipa::path(post, path = "/v1/tenants/{tenant}/bindings/{binding}/dry-run", tag = "Bindings",
    operation_id = "binding_dry_run", summary = "Say what a change of a binding would do to its trustpoints, and change nothing",
    request_body = BindingUpdate, params(IfMatch), responses(
        (status = 200, description = "What it would do", body = BindingDryRunBody),
        (status = 412, description = "It has another revision by now", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn dry_run(call: Call, body: Body<BindingUpdate>) -> Result<HttpResponse, Problem> {
    let (present, spec) = changed(&call, body).await?;
    let is_other = present.spec.entity_id != spec.entity_id || present.spec.ca_server_id != spec.ca_server_id;
    let preview = call
        .tenant_tx("binding_dry_run", async |tx| {
            let reach = tx.binding_reach(present.id, &spec).await?;
            let holdings = tx.binding_holdings(present.id, call.now).await?;
            let left_behind = tx.binding_left_behind(present.id, &spec).await?;
            let was = BindingBody::from(present.clone());
            let is = BindingBody::from(Binding {
                entity: tx.entity_name(spec.entity_id).await?,
                ca_server: tx.ca_server_name(spec.ca_server_id).await?,
                policy: tx.policy_name(spec.policy_id).await?,
                spec: spec.clone(),
                ..present.clone()
            });
            let (before, after) = differences(&settings(&was), &settings(&is));
            Ok(BindingDryRunBody {
                name: was.name,
                revision: was.revision,
                before,
                after,
                devices: reach.devices,
                gain: reach.devices.saturating_sub(reach.bound + reach.name_taken),
                name_taken: reach.name_taken,
                service_taken: reach.service_taken,
                follow: holdings.trustpoints,
                left_behind,
                to_enroll_anew: if is_other { holdings.in_use } else { 0 },
            })
        })
        .await?;
    Ok(with_revision(json(StatusCode::OK, &preview)?, preview.revision))
}

/// What of a binding can be changed, for the audit log and for dry runs.
fn settings(binding: &BindingBody) -> Value {
    json!({
        "selector": binding.selector, "entity": binding.entity, "ca_server": binding.ca_server, "policy": binding.policy,
        "services": binding.services, "enroll": binding.enroll,
    })
}

/// Says what removing a binding would touch.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/bindings/{binding}/removal", tag = "Bindings",
    operation_id = "binding_removal", summary = "Say what removing a binding would touch",
    responses((status = 200, description = "How much there is that came by it", body = BindingRemovalBody)))]
pub async fn removal(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("binding", "binding")?;
    let holdings = call
        .tenant_tx("binding_removal", async |tx| {
            let present = tx.binding_fetch(&name).await?;
            Ok(tx.binding_holdings(present.id, call.now).await?)
        })
        .await?;
    json(StatusCode::OK, &BindingRemovalBody::from(holdings))
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
    Ok(with_revision(json(StatusCode::OK, &found)?, found.revision))
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
    call.tenant_read("binding_show", async |tx| Ok(tx.binding_fetch(&name).await?)).await?;
    let leaving = call.query("certificates").as_deref().and_then(Leaving::from_word).ok_or_else(|| {
        let message =
            "must be keep, delete or revoke: say what becomes of the trustpoints that the binding has brought";
        Problem::invalid("certificates", "choice", message)
    })?;
    if leaving == Leaving::Revoke && changes::is_held(&call, "binding_delete")? {
        let look = async |tx: &TenantTx| Ok(Some(tx.binding_fetch(&name).await?.revision));
        return changes::propose(&call, "binding_delete", "binding", &name, Some(&leaving), look).await;
    }
    let left = call.tenant_tx("binding_leave", async |tx| leave(&call, tx, &name, leaving).await).await?;
    json(StatusCode::ACCEPTED, &left)
}

/// Carries out an approved removal.
///
/// # Errors
/// The binding is gone, or another one by now; the database's own.
pub(super) async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
    let current = tx.binding_fetch(&change.object_name).await?.revision;
    if change.object_revision != Some(current) {
        return Err(AppError::PreconditionFailed { current });
    }
    leave(call, tx, &change.object_name, Leaving::Revoke).await.map(drop)
}

async fn leave(call: &Call, tx: &TenantTx, name: &ObjectName, leaving: Leaving) -> Result<BindingBody, AppError> {
    let present = tx.binding_fetch(name).await?;
    tx.binding_leave(present.id, leaving).await?;
    let mut detail =
        json!({"name": name.as_str(), "certificates": leaving.as_str(), "trustpoints": present.trustpoints});
    if leaving == Leaving::Revoke {
        let revocation = Revocation::wanted(RevocationReason::CessationOfOperation, call.actor(), call.now);
        detail["revoked"] = tx.revocation_want(Condemn::Binding(present.id), &revocation, call.now).await?.into();
    }
    call.note(tx, "binding_leaves", "binding", present.id.as_uuid(), detail).await?;
    Ok(BindingBody::from(tx.binding_fetch(name).await?))
}
