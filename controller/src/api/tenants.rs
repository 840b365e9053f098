//! Tenants: made and ended by platform administrators, seen by those who belong to them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use trustfleet_model::field::{ObjectName, Violations, check_text};
use trustfleet_model::ids::TenantId;

use super::body::Body;
use super::call::{Call, ListQuery, id_bytes, name_taken};
use super::dto::Page;
use super::dto::tenant::{QuotaBody, QuotaUpdate, TenantBody, TenantCreate, TenantReason, TenantUpdate, UsageBody};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{differences, shown};
use crate::db::{Counted, DbError, Keeps, Note, Quota, Tenant, TenantState};
use crate::error::AppError;

/// Days that transcripts are kept, unless a tenant says otherwise.
const TRANSCRIPT_DAYS: u16 = 90;
/// Days that other things are kept, unless a tenant says otherwise.
const KEEPS: Keeps = Keeps { jobs: 730, certificates: 730, joining: 90, audit: 0 };
/// Longest time that anything can be kept, days: ten years.
const DAYS_MAX: u16 = 3_653;
/// Longest name for people, characters.
const DISPLAY_NAME_MAX: usize = 128;
/// Longest reason, characters.
const REASON_MAX: usize = 200;
/// Largest quota.
const QUOTA_MAX: u32 = 1_000_000_000;
/// Usage is counted up to this where there is no quota.
const COUNT_MAX: u32 = 1_000_000;

fn check_days(fields: [(&'static str, Option<u16>, u16); 5], violations: &mut Violations) {
    for (field, days, least) in fields {
        let is_off = field == "audit_days" && days == Some(0);
        if !is_off && days.is_some_and(|days| !(least..=DAYS_MAX).contains(&days)) {
            violations.add(field, "range", format!("must be {least} to {DAYS_MAX}"));
        }
    }
}

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
    let (name, body) = body.check(|body, violations| {
        let name = violations.check("name", "S1", body.name.parse::<ObjectName>());
        if let Some(text) = &body.display_name {
            violations.check("display_name", "text", check_text(text, DISPLAY_NAME_MAX));
        }
        check_days(body.days(), violations);
        name.map(|name| (name, body))
    })?;
    let keeps = body.keeps(KEEPS);
    let tenant = Tenant {
        id: TenantId::fresh(call.now, id_bytes()?),
        display_name: body.display_name.unwrap_or_else(|| name.to_string()),
        name,
        allow_weak_algorithms: body.allow_weak_algorithms,
        four_eyes: body.four_eyes,
        transcript_days: body.transcript_days.unwrap_or(TRANSCRIPT_DAYS),
        keeps,
        state: TenantState::Active,
        state_reason: None,
        state_since: None,
        purge_at: None,
        quota: Quota::default(),
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

/// Changes a tenant's settings.
///
/// # Errors
/// 404; 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/tenants/{tenant}", tag = "Tenants", operation_id = "tenant_update",
    summary = "Change a tenant's settings: all of them, the name stays", request_body = TenantUpdate,
    responses((status = 200, description = "Changed", body = TenantBody)))]
pub async fn update(call: Call, body: Body<TenantUpdate>) -> Result<HttpResponse, Problem> {
    let body = body.check(|body, violations| {
        violations.check("display_name", "text", check_text(&body.display_name, DISPLAY_NAME_MAX));
        check_days(body.days(), violations);
        Some(body)
    })?;
    change(&call, "tenant_updated", |tenant| {
        tenant.display_name.clone_from(&body.display_name);
        tenant.allow_weak_algorithms = body.allow_weak_algorithms;
        tenant.four_eyes = body.four_eyes;
        tenant.transcript_days = body.transcript_days.unwrap_or(tenant.transcript_days);
        tenant.keeps = body.keeps(tenant.keeps);
        Ok(())
    })
    .await
}

/// Suspends a tenant: everything can be read, nothing changed, nothing is published to its agents.
///
/// # Errors
/// 404; 409 when it is deleted; 422.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/suspend", tag = "Tenants", operation_id = "tenant_suspend",
    summary = "Suspend a tenant: it can be read, but nothing is changed and nothing published", request_body = TenantReason,
    responses((status = 200, description = "Suspended", body = TenantBody),
        (status = 409, description = "It is deleted", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn suspend(call: Call, body: Body<TenantReason>) -> Result<HttpResponse, Problem> {
    let reason = body.check(check_reason)?;
    change(&call, "tenant_suspended", |tenant| {
        if tenant.state == TenantState::Deleted {
            return Err(not_now("tenant_deleted", "it is deleted: restore it, which leaves it suspended"));
        }
        enter(tenant, TenantState::Suspended, Some(&reason), call.now);
        Ok(())
    })
    .await
}

/// Lets a suspended tenant go on.
///
/// # Errors
/// 404; 409 when it is deleted.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/resume", tag = "Tenants", operation_id = "tenant_resume",
    summary = "Let a suspended tenant go on", responses(
        (status = 200, description = "It goes on", body = TenantBody),
        (status = 409, description = "It is deleted", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn resume(call: Call) -> Result<HttpResponse, Problem> {
    change(&call, "tenant_resumed", |tenant| match tenant.state {
        TenantState::Deleted => Err(not_now("tenant_deleted", "it is deleted: restore it first")),
        TenantState::Active => Ok(()),
        TenantState::Suspended => {
            enter(tenant, TenantState::Active, None, call.now);
            Ok(())
        }
    })
    .await
}

/// Deletes a tenant: at once for its own people and agents, for good after the grace time.
///
/// # Errors
/// 404; 409 when it is deleted already.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", tag = "Tenants", operation_id = "tenant_delete",
    summary = "Delete a tenant; until `purge_at` it can be restored", responses(
        (status = 200, description = "Deleted", body = TenantBody),
        (status = 409, description = "It is deleted already", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let grace = SignedDuration::from_secs(call.services().config.tenants.delete_grace_s.into());
    change(&call, "tenant_deleted", |tenant| {
        if tenant.state == TenantState::Deleted {
            return Err(not_now("tenant_deleted", "it is deleted already"));
        }
        enter(tenant, TenantState::Deleted, None, call.now);
        let end = call.now.checked_add(grace).map_err(|error| AppError::Internal { source: Box::new(error) })?;
        tenant.purge_at = Some(end);
        Ok(())
    })
    .await
}

/// Takes a deletion back; the tenant is suspended then.
///
/// # Errors
/// 404; 409 when it is not deleted, or its grace time is over.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/restore", tag = "Tenants", operation_id = "tenant_restore",
    summary = "Take a tenant's deletion back; it is suspended then", responses(
        (status = 200, description = "Restored, and suspended", body = TenantBody),
        (status = 409, description = "It is not deleted, or its grace time is over", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn restore(call: Call) -> Result<HttpResponse, Problem> {
    change(&call, "tenant_restored", |tenant| {
        match tenant.purge_at {
            None => return Err(not_now("not_deleted", "it is not deleted")),
            Some(end) if end <= call.now => {
                return Err(not_now("grace_time_over", "its grace time is over: it is being purged"));
            }
            Some(_) => {}
        }
        enter(tenant, TenantState::Suspended, Some("restored after a deletion"), call.now);
        Ok(())
    })
    .await
}

/// Shows quotas, and how much of them is used.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/quota", tag = "Tenants", operation_id = "tenant_quota_show",
    summary = "Show a tenant's quotas, and how much of them is used",
    responses((status = 200, description = "The quotas", body = QuotaBody)))]
pub async fn show_quota(call: Call) -> Result<HttpResponse, Problem> {
    let name = &call.tenant()?.name;
    let store = &call.services().store;
    let tenant: Result<Tenant, DbError> =
        store.system_tx("tenant_show", async |tx| tx.tenant_by_name(name).await).await;
    quota(&call, tenant?.quota).await
}

/// Sets quotas.
///
/// # Errors
/// 404; 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/quota", tag = "Tenants", operation_id = "tenant_quota_update",
    summary = "Set a tenant's quotas: all of them; what is left out has none", request_body = QuotaUpdate,
    responses((status = 200, description = "Set", body = QuotaBody)))]
pub async fn update_quota(call: Call, body: Body<QuotaUpdate>) -> Result<HttpResponse, Problem> {
    let wanted = body.check(|body, violations| {
        let QuotaUpdate { devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight } = body;
        if !(1..=100).contains(&ca_weight) {
            violations.add("ca_weight", "range", format!("is {ca_weight}; allowed are 1 to 100"));
        }
        for (field, limit) in [
            ("devices", devices),
            ("trustpoints", trustpoints),
            ("jobs_per_hour", jobs_per_hour),
            ("jobs_in_flight", jobs_in_flight),
        ] {
            if limit.is_some_and(|limit| limit > QUOTA_MAX) {
                violations.add(field, "range", format!("is more than {QUOTA_MAX}"));
            }
        }
        Some(Quota { devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight })
    })?;
    change(&call, "tenant_quota_set", |tenant| {
        tenant.quota = wanted;
        Ok(())
    })
    .await?;
    quota(&call, wanted).await
}

async fn quota(call: &Call, quota: Quota) -> Result<HttpResponse, Problem> {
    let used = call
        .tenant_tx("tenant_usage", async |tx| {
            let count = async |counted| tx.quota_used(counted, COUNT_MAX, call.now).await;
            Ok(UsageBody {
                devices: count(Counted::Devices).await?,
                trustpoints: count(Counted::Trustpoints).await?,
                jobs_per_hour: count(Counted::JobsPerHour).await?,
                jobs_in_flight: count(Counted::JobsInFlight).await?,
            })
        })
        .await?;
    let Quota { devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight } = quota;
    json(StatusCode::OK, &QuotaBody { devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight, used })
}

fn check_reason(body: TenantReason, violations: &mut Violations) -> Option<String> {
    violations.check("reason", "text", check_text(&body.reason, REASON_MAX));
    Some(body.reason)
}

fn enter(tenant: &mut Tenant, state: TenantState, reason: Option<&str>, now: jiff::Timestamp) {
    tenant.state = state;
    tenant.state_reason = reason.map(str::to_owned);
    tenant.state_since = Some(now);
    tenant.purge_at = None;
}

fn not_now(code: &'static str, detail: &str) -> AppError {
    AppError::Conflict { code, detail: detail.to_owned() }
}

/// Changes the tenant in the path, in one transaction with its line in the audit log.
async fn change(
    call: &Call,
    action: &'static str,
    change: impl Fn(&mut Tenant) -> Result<(), AppError>,
) -> Result<HttpResponse, Problem> {
    let name = &call.tenant()?.name;
    let requester = call.requester();
    let as_shown = |tenant: &Tenant| -> Value {
        let mut value = shown(&TenantBody::from(tenant.clone()));
        value["quota"] = json!({
            "devices": tenant.quota.devices, "trustpoints": tenant.quota.trustpoints,
            "jobs_per_hour": tenant.quota.jobs_per_hour, "jobs_in_flight": tenant.quota.jobs_in_flight,
            "ca_weight": tenant.quota.ca_weight,
        });
        value
    };
    let store = &call.services().store;
    let changed = store
        .system_tx("tenant_change", async |tx| {
            let mut tenant = tx.tenant_lock(name).await?;
            let before = as_shown(&tenant);
            change(&mut tenant)?;
            tenant.updated_at = call.now;
            tx.tenant_update(&tenant).await?;
            tx.leases_of_tenant(tenant.id, call.now).await?;
            let (before, after) = differences(&before, &as_shown(&tenant));
            let detail = json!({"name": name.as_str()});
            let note = Note::new(call.now, &requester, action, "tenant", tenant.id.as_uuid(), detail)
                .change(Some(before), Some(after));
            tx.audit_note(tenant.id, &note).await?;
            Ok::<_, AppError>(tenant)
        })
        .await?;
    call.api.forget_tenant(changed.id);
    json(StatusCode::OK, &TenantBody::from(changed))
}
