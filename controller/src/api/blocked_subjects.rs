//! People of identity providers who are let in no more, although their tokens have not ended: in a tenant, or anywhere.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::check_text;
use trustfleet_model::ids::{BlockId, TenantId};

use super::body::Body;
use super::call::{Call, ListQuery, REASON_MAX, id_bytes};
use super::dto::Page;
use super::dto::blocked_subject::{BlockedSubjectBody, BlockedSubjectCreate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{PLATFORM, shown};
use crate::db::{BlockedSubject, DbError, Note};
use crate::error::AppError;

/// Longest subject, characters (OpenID Connect Core 1.0, section 2).
const SUBJECT_MAX: usize = 255;

/// Lists who is let into the tenant no more.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/blocked-subjects", tag = "Tokens", operation_id = "blocked_subject_list",
    summary = "List subjects of identity providers that are let into the tenant no more", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<BlockedSubjectBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.id;
    page(&call, tenant).await
}

/// Lets a subject into the tenant no more.
///
/// # Errors
/// 409 when it is blocked already, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/blocked-subjects", tag = "Tokens",
    operation_id = "blocked_subject_create", request_body = BlockedSubjectCreate,
    summary = "Let a subject of an identity provider into the tenant no more: its tokens are refused within five seconds",
    responses((status = 201, description = "Blocked", body = BlockedSubjectBody),
        (status = 409, description = "It is blocked already", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<BlockedSubjectCreate>) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.id;
    block(&call, tenant, body).await
}

/// Lets a subject into the tenant again.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/blocked-subjects/{block}", tag = "Tokens",
    operation_id = "blocked_subject_delete", summary = "Let a subject of an identity provider into the tenant again",
    responses((status = 204, description = "It is let in again")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.id;
    lift(&call, tenant).await
}

/// Lists who is let in nowhere.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/blocked-subjects", tag = "Tokens", operation_id = "platform_blocked_subject_list",
    summary = "List subjects of identity providers that are let in nowhere", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<BlockedSubjectBody>)))]
pub async fn platform_list(call: Call) -> Result<HttpResponse, Problem> {
    page(&call, PLATFORM).await
}

/// Lets a subject in nowhere any more.
///
/// # Errors
/// 409 when it is blocked already, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/blocked-subjects", tag = "Tokens", operation_id = "platform_blocked_subject_create",
    request_body = BlockedSubjectCreate,
    summary = "Let a subject of an identity provider in nowhere any more: its tokens are refused within five seconds",
    responses((status = 201, description = "Blocked", body = BlockedSubjectBody),
        (status = 409, description = "It is blocked already", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn platform_create(call: Call, body: Body<BlockedSubjectCreate>) -> Result<HttpResponse, Problem> {
    block(&call, PLATFORM, body).await
}

/// Lets a subject in again.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/blocked-subjects/{block}", tag = "Tokens",
    operation_id = "platform_blocked_subject_delete",
    summary = "Let a subject of an identity provider in again; blocks of single tenants stay",
    responses((status = 204, description = "It is let in again")))]
pub async fn platform_remove(call: Call) -> Result<HttpResponse, Problem> {
    lift(&call, PLATFORM).await
}

async fn page(call: &Call, tenant: TenantId) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let after: Option<BlockId> = list.after_as()?;
    let store = &call.services().store;
    let rows: Result<Vec<BlockedSubject>, DbError> = store
        .system_tx("blocked_subject_list", async |tx| tx.blocked_subject_list(tenant, after, list.rows()).await)
        .await;
    let page: Page<BlockedSubjectBody> = list.page(rows?, |blocked| blocked.id.to_string());
    json(StatusCode::OK, &page)
}

async fn block(call: &Call, tenant: TenantId, body: Body<BlockedSubjectCreate>) -> Result<HttpResponse, Problem> {
    let id = BlockId::fresh(call.now, id_bytes()?);
    let known = &call.services().config.oidc;
    let blocked = body.check(|body, violations| {
        let BlockedSubjectCreate { issuer, subject, reason } = body;
        // One that is misspelt would block nobody, and nobody would notice.
        if !known.iter().any(|provider| provider.issuer == issuer) {
            let message = "is no identity provider of this controller: give its `iss`, character by character";
            violations.add("issuer", "unknown_reference", message);
        }
        violations.check("subject", "text", check_text(&subject, SUBJECT_MAX));
        violations.check("reason", "text", check_text(&reason, REASON_MAX));
        Some(BlockedSubject { id, issuer, subject, reason, blocked_by: call.actor(), blocked_at: call.now })
    })?;
    let requester = call.requester();
    let after = shown(&BlockedSubjectBody::from(blocked.clone()));
    let note = Note::new(call.now, &requester, "subject_blocked", "blocked_subject", id.as_uuid(), json!({}))
        .change(None, Some(after));
    call.services()
        .store
        .system_tx("blocked_subject_create", async |tx| {
            tx.blocked_subject_insert(tenant, &blocked).await.map_err(|error| match error.constraint() {
                Some("blocked_subjects_tenant_id_issuer_subject_key") => AppError::Conflict {
                    code: "blocked_already",
                    detail: "this subject is blocked here already".to_owned(),
                },
                _ => error.into(),
            })?;
            Ok::<_, AppError>(tx.audit_note(tenant, &note).await?)
        })
        .await?;
    call.api.forget_subject(&blocked.issuer, &blocked.subject);
    call.created(&id.to_string(), &BlockedSubjectBody::from(blocked))
}

async fn lift(call: &Call, tenant: TenantId) -> Result<HttpResponse, Problem> {
    let id: BlockId = call.segment("block", "blocked subject")?;
    let requester = call.requester();
    let lifted: Result<BlockedSubject, DbError> = call
        .services()
        .store
        .system_tx("blocked_subject_delete", async |tx| {
            let lifted = tx.blocked_subject_delete(tenant, id).await?;
            let before = shown(&BlockedSubjectBody::from(lifted.clone()));
            let note = Note::new(call.now, &requester, "subject_unblocked", "blocked_subject", id.as_uuid(), json!({}))
                .change(Some(before), None);
            tx.audit_note(tenant, &note).await?;
            Ok(lifted)
        })
        .await;
    let lifted = lifted?;
    call.api.forget_subject(&lifted.issuer, &lifted.subject);
    Ok(HttpResponse::NoContent().finish())
}
