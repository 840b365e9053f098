//! Four eyes: where a tenant wants it, some changes are kept until an administrator other than their proposer approves
//! them. They are applied exactly as they were proposed, and only to the revision of the object that the proposer saw.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use jiff::SignedDuration;
use serde::Serialize;
use serde_json::{Value, json};
use trustfleet_model::field::{ObjectName, check_text};
use trustfleet_model::ids::ChangeId;
use utoipa::IntoParams;

use super::body::Body;
use super::call::{Call, ListQuery, REASON_MAX};
use super::dto::Page;
use super::dto::change::{ChangeBody, ChangeReject};
use super::problem::{Problem, ProblemBody, json};
use super::{bindings, ca_servers, campaigns, entities, policies, revocations, rollovers};
use crate::db::{Change, ChangeState, TenantTx};
use crate::error::AppError;

/// Operations that wait in a tenant with four eyes: they decide whom devices trust, or cannot be taken back.
/// A binding's removal only if it revokes.
pub(super) const HELD: [&str; 11] = [
    "campaign_create",
    "ca_server_create",
    "ca_server_update",
    "ca_server_delete",
    "rollover_start",
    "rollover_switch",
    "rollover_finish",
    "certificate_revoke",
    "device_revoke",
    "agent_revoke",
    "binding_delete",
];
/// How long a change can be approved.
const VALID: SignedDuration = SignedDuration::from_hours(7 * 24);
const STATES: [&str; 4] = ["pending", "approved", "rejected", "expired"];

/// Filters of the list of changes.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ChangeQuery {
    /// Only in this state: `pending`, `approved`, `rejected` or `expired`.
    state: Option<String>,
}

/// Lists changes.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/changes", tag = "Changes", operation_id = "change_list",
    summary = "List changes that need approval, newest first", params(ListQuery, ChangeQuery),
    responses((status = 200, description = "A part of the list", body = Page<ChangeBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["state"])?;
    let state = list.filter("state");
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(Problem::invalid("state", "choice", format!("must be one of {}", STATES.join(", "))));
    }
    let after: Option<ChangeId> = list.after_as()?;
    let rows = call
        .tenant_read("change_list", async |tx| Ok(tx.change_list(state, after, list.rows(), call.now).await?))
        .await?;
    let page: Page<Change> = list.page(rows, |change| change.id.to_string());
    let items = page.items.into_iter().map(|change| ChangeBody::new(change, call.now)).collect();
    json(StatusCode::OK, &Page::<ChangeBody> { items, next: page.next })
}

/// Shows one change.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/changes/{change}", tag = "Changes", operation_id = "change_show",
    summary = "Show a change", responses((status = 200, description = "The change", body = ChangeBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let id: ChangeId = call.segment("change", "change")?;
    let found = call.tenant_read("change_show", async |tx| Ok(tx.change_fetch(id).await?)).await?;
    json(StatusCode::OK, &ChangeBody::new(found, call.now))
}

/// Lets a change take effect.
///
/// # Errors
/// 403 for whoever proposed it; 404; 409 when it is decided, expired, or its object is another one by now.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/changes/{change}/approve", tag = "Changes",
    operation_id = "change_approve", summary = "Let a change take effect that somebody else has proposed", responses(
        (status = 200, description = "It has taken effect", body = ChangeBody),
        (status = 409, description = "It is decided or expired, or its object has changed", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn approve(call: Call) -> Result<HttpResponse, Problem> {
    let id: ChangeId = call.segment("change", "change")?;
    let approved = call
        .tenant_tx("change_approve", async |tx| {
            let change = tx.change_fetch(id).await?;
            undecided(&change)?;
            if change.expires_at <= call.now {
                return Err(refuse("change_expired", "nobody approved it in time: propose it again"));
            }
            if change.proposer == call.caller().person {
                return Err(AppError::OwnChange);
            }
            tx.change_decide(id, ChangeState::Approved, &call.actor(), None, call.now).await?;
            apply(&call, tx, &change).await.map_err(changed_meanwhile)?;
            note(&call, tx, "change_approved", &change, None).await?;
            Ok(tx.change_fetch(id).await?)
        })
        .await?;
    json(StatusCode::OK, &ChangeBody::new(approved, call.now))
}

/// Rejects a change; whoever proposed it takes it back so.
///
/// # Errors
/// 404; 409 when it is decided; 422.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/changes/{change}/reject", tag = "Changes",
    operation_id = "change_reject", summary = "Reject a change, or take an own one back", request_body = ChangeReject,
    responses((status = 200, description = "It will not take effect", body = ChangeBody),
        (status = 409, description = "It is decided", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn reject(call: Call, body: Body<ChangeReject>) -> Result<HttpResponse, Problem> {
    let id: ChangeId = call.segment("change", "change")?;
    call.tenant_read("change_show", async |tx| Ok(tx.change_fetch(id).await?)).await?;
    let reason = body.check(|body, violations| {
        violations.check("reason", "text", check_text(&body.reason, REASON_MAX));
        Some(body.reason)
    })?;
    let rejected = call
        .tenant_tx("change_reject", async |tx| {
            let change = tx.change_fetch(id).await?;
            undecided(&change)?;
            tx.change_decide(id, ChangeState::Rejected, &call.actor(), Some(&reason), call.now).await?;
            note(&call, tx, "change_rejected", &change, Some(&reason)).await?;
            Ok(tx.change_fetch(id).await?)
        })
        .await?;
    json(StatusCode::OK, &ChangeBody::new(rejected, call.now))
}

/// Whether an operation waits for approval in the call's tenant.
pub(super) fn is_held(call: &Call, operation: &str) -> Result<bool, Problem> {
    Ok(HELD.contains(&operation) && call.tenant()?.four_eyes)
}

/// Keeps a change instead of making it: 202. `look` says what is there now: the object's revision, or none.
pub(super) async fn propose<S: Serialize>(
    call: &Call,
    operation: &'static str,
    object_kind: &'static str,
    object_name: &ObjectName,
    proposal: Option<&S>,
    look: impl AsyncFn(&TenantTx) -> Result<Option<u32>, AppError>,
) -> Result<HttpResponse, Problem> {
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| AppError::Internal { source: error };
    let proposal = proposal.map(serde_json::to_value).transpose().map_err(|error| internal(error.into()))?;
    let why = call.reason()?;
    let id = call.services().fresh(ChangeId::fresh)?;
    let expires_at = call.now.checked_add(VALID).map_err(|error| internal(error.into()))?;
    let proposed = call
        .tenant_tx("change_propose", async |tx| {
            let change = Change {
                id,
                operation: operation.to_owned(),
                object_kind: object_kind.to_owned(),
                object_name: object_name.clone(),
                object_revision: look(tx).await?,
                proposal: proposal.clone(),
                state: ChangeState::Pending,
                proposed_by: call.actor(),
                proposer: call.caller().person.clone(),
                proposed_at: call.now,
                expires_at,
                decided_by: None,
                decided_at: None,
                reason: None,
            };
            tx.change_insert(&change).await?;
            note(call, tx, "change_proposed", &change, why.as_deref()).await?;
            Ok(change)
        })
        .await?;
    json(StatusCode::ACCEPTED, &ChangeBody::new(proposed, call.now))
}

async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
    match change.object_kind.as_str() {
        "ca_server" => ca_servers::apply(call, tx, change).await,
        "rollover" => rollovers::apply(call, tx, change).await,
        "entity" => entities::apply(call, tx, change).await,
        "policy" => policies::apply(call, tx, change).await,
        "campaign" => campaigns::apply(call, tx, change).await,
        "binding" => bindings::apply(call, tx, change).await,
        "certificate" | "device" | "agent" => revocations::apply(call, tx, change).await,
        other => Err(AppError::internal(format!("change {} is of an unknown kind: {other}", change.id))),
    }
}

fn undecided(change: &Change) -> Result<(), AppError> {
    match change.state {
        ChangeState::Pending => Ok(()),
        decided => Err(refuse("change_decided", &format!("it was {} before", decided.as_str()))),
    }
}

fn changed_meanwhile(error: AppError) -> AppError {
    match error {
        AppError::PreconditionFailed { .. } | AppError::NotFound { .. } => {
            refuse("changed_meanwhile", "its object is not any more what the proposer saw: propose it again")
        }
        other => other,
    }
}

fn refuse(code: &'static str, detail: &str) -> AppError {
    AppError::Conflict { code, detail: detail.to_owned() }
}

async fn note(
    call: &Call,
    tx: &TenantTx,
    action: &'static str,
    change: &Change,
    reason: Option<&str>,
) -> Result<(), AppError> {
    let detail: Value = json!({
        "operation": change.operation, "name": change.object_name.as_str(), "revision": change.object_revision,
        "proposed_by": change.proposed_by, "reason": reason,
    });
    Ok(call.note(tx, action, "change", change.id.as_uuid(), detail).await?)
}
