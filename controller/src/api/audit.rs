//! The audit log, read: as a list, its signed heads, and the whole as JSON lines.
//!
//! Each comes twice: for a tenant, and for the log of the installation itself.

use std::collections::BTreeMap;
use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use trustfleet_model::ids::TenantId;
use utoipa::IntoParams;
use uuid::Uuid;

use super::call::{Call, List, ListQuery};
use super::dto::Page;
use super::dto::audit::{AuditHeadsBody, AuditRowBody};
use super::problem::{Problem, json};
use crate::audit::{FORMAT, Head, Heads, Line, LogLine, PLATFORM, RowLine};
use crate::db::{AuditFilter, DbError, TenantTx};
use crate::error::AppError;

/// Media type of JSON lines.
pub(super) const NDJSON: &str = "application/x-ndjson";
const OUTCOMES: [&str; 2] = ["done", "refused"];
const FILTERS: [&str; 9] =
    ["actor", "action", "object_kind", "object_id", "request_id", "trace_id", "outcome", "since", "until"];

/// Filters of the log.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct AuditQuery {
    /// Only of this actor, as rows show it.
    actor: Option<String>,
    /// Only this action, such as `device_created`.
    action: Option<String>,
    /// Only about objects of this kind.
    object_kind: Option<String>,
    /// Only about the object of this id.
    object_id: Option<Uuid>,
    /// Only by the request of this id (`X-Request-Id`).
    request_id: Option<Uuid>,
    /// Only in this trace.
    trace_id: Option<String>,
    /// Only what was `done`, or `refused`.
    outcome: Option<String>,
    /// Not before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
}

/// Lists the tenant's audit log.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/audit", tag = "Audit", operation_id = "audit_list",
    summary = "List the audit log, newest first", params(ListQuery, AuditQuery),
    responses((status = 200, description = "A part of the log", body = Page<AuditRowBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.id;
    list_of(&call, tenant).await
}

/// Lists the log of the installation itself.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/audit", tag = "Audit", operation_id = "platform_audit_list",
    summary = "List the installation's own audit log, newest first", params(ListQuery, AuditQuery),
    responses((status = 200, description = "A part of the log", body = Page<AuditRowBody>)))]
pub async fn platform_list(call: Call) -> Result<HttpResponse, Problem> {
    list_of(&call, PLATFORM).await
}

async fn list_of(call: &Call, log: TenantId) -> Result<HttpResponse, Problem> {
    let list = call.list(&FILTERS)?;
    if list.filter("outcome").is_some_and(|outcome| !OUTCOMES.contains(&outcome)) {
        return Err(Problem::invalid("outcome", "choice", format!("must be one of {}", OUTCOMES.join(", "))));
    }
    let filter = AuditFilter {
        actor: list.filter("actor"),
        action: list.filter("action"),
        object_kind: list.filter("object_kind"),
        object_id: parsed(&list, "object_id", "must be a UUID")?,
        request_id: parsed(&list, "request_id", "must be a UUID")?,
        trace_id: list.filter("trace_id"),
        outcome: list.filter("outcome"),
        since: parsed(&list, "since", "must be a moment such as 2026-11-21T12:00:00Z")?,
        until: parsed(&list, "until", "must be a moment such as 2026-11-21T12:00:00Z")?,
        before: list.after_as()?,
    };
    let rows = read(call, log, "audit_list", async |tx| tx.audit_list(&filter, list.rows()).await).await?;
    let page: Page<AuditRowBody> = list.page(rows, |row| row.id.to_string());
    json(StatusCode::OK, &page)
}

fn parsed<T: FromStr>(list: &List, name: &'static str, message: &str) -> Result<Option<T>, Problem> {
    let parse = |text: &str| text.parse().map_err(|_| Problem::invalid(name, "format", message));
    list.filter(name).map(parse).transpose()
}

/// The latest signed link of the tenant's log.
///
/// # Errors
/// The database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/audit/heads", tag = "Audit", operation_id = "audit_heads",
    summary = "The log's latest signed link, to be kept elsewhere",
    responses((status = 200, description = "None for a log that has none yet", body = AuditHeadsBody)))]
pub async fn heads(call: Call) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.clone();
    let latest = read(&call, tenant.id, "audit_heads", async |tx| tx.audit_checkpoint_latest().await).await?;
    let head = |checkpoint| Head { tenant_id: tenant.id, tenant: Some(tenant.name.to_string()), checkpoint };
    let public_key = call.services().keys.signing.public_key();
    json(StatusCode::OK, &Heads { public_key, heads: latest.map(head).into_iter().collect() })
}

/// The latest signed links of all logs.
///
/// # Errors
/// The database's own.
#[utoipa::path(get, path = "/v1/audit/heads", tag = "Audit", operation_id = "platform_audit_heads",
    summary = "The latest signed link of every log, to be kept elsewhere",
    responses((status = 200, description = "Those that have one", body = AuditHeadsBody)))]
pub async fn platform_heads(call: Call) -> Result<HttpResponse, Problem> {
    const AT_ONCE: i64 = 1_000;
    let mut heads: Vec<Head> = Vec::new();
    loop {
        let after = heads.last().map(|head| head.tenant_id);
        let store = &call.services().store;
        let found: Vec<Head> = store
            .system_tx("audit_heads", async |tx| tx.audit_heads_list(after, AT_ONCE).await)
            .await
            .map_err(|error: DbError| Problem::from(error))?;
        if found.is_empty() {
            break;
        }
        heads.extend(found);
    }
    json(StatusCode::OK, &Heads { public_key: call.services().keys.signing.public_key(), heads })
}

/// Query of an export.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ExportQuery {
    /// Most rows in the answer, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next` in the last line of the answer before.
    after: Option<String>,
}

/// Exports the tenant's log.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/audit/export", tag = "Audit", operation_id = "audit_export",
    summary = "The log as JSON lines with its chain and signatures, oldest first", params(ExportQuery),
    responses((status = 200, description = "A line `log`, rows and checkpoints, a line `end` with `next`", body = String,
        content_type = "application/x-ndjson")))]
pub async fn export(call: Call) -> Result<HttpResponse, Problem> {
    let tenant = call.tenant()?.id;
    export_of(&call, tenant).await
}

/// Exports the log of the installation itself.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/audit/export", tag = "Audit", operation_id = "platform_audit_export",
    summary = "The installation's own log as JSON lines with its chain and signatures, oldest first", params(ExportQuery),
    responses((status = 200, description = "A line `log`, rows and checkpoints, a line `end` with `next`", body = String,
        content_type = "application/x-ndjson")))]
pub async fn platform_export(call: Call) -> Result<HttpResponse, Problem> {
    export_of(&call, PLATFORM).await
}

async fn export_of(call: &Call, log: TenantId) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let after: i64 = list.after_as()?.unwrap_or(0);
    let limit = list.rows() - 1;
    // One snapshot: links, checkpoints and what is not chained fit together.
    let (links, checkpoints, open) = read(call, log, "audit_export", async |tx| {
        let links = tx.audit_chained(after, limit).await?;
        let is_last = i64::try_from(links.len()).unwrap_or(i64::MAX) < limit;
        let seq = |line: &RowLine| line.link.as_ref().map_or(0, |link| link.seq);
        let last = if is_last { i64::MAX } else { links.last().map_or(after, seq) };
        // A checkpoint belongs behind its row; the first answer begins with the one that retention has left, if any.
        let checkpoints = tx.audit_checkpoints(after + 1, last).await?;
        let open = if is_last { Some(tx.audit_not_chained(limit).await?) } else { None };
        Ok((links, checkpoints, open))
    })
    .await?;

    let mut checkpoints: BTreeMap<i64, _> = checkpoints.into_iter().map(|found| (found.seq, found)).collect();
    let now = call.now;
    let public_key = call.services().keys.signing.public_key();
    let mut lines = vec![Line::Log(LogLine { format: FORMAT, tenant_id: log, exported_at: now, public_key })];
    let mut end = after;
    for link in links {
        let seq = link.link.as_ref().map_or(0, |link| link.seq);
        // Those without a row before this one: the boundary of retention, or of rows that are gone.
        let behind = checkpoints.split_off(&seq);
        lines.extend(std::mem::replace(&mut checkpoints, behind).into_values().map(Line::Checkpoint));
        lines.push(Line::Row(Box::new(link)));
        lines.extend(checkpoints.remove(&seq).map(Line::Checkpoint));
        end = seq;
    }
    lines.extend(checkpoints.into_values().map(Line::Checkpoint));
    let next = open.is_none().then(|| cursor(end));
    for row in open.into_iter().flatten() {
        lines.push(Line::Row(Box::new(RowLine { link: None, row: Some(row) })));
    }
    lines.push(Line::End { next });
    let mut text = Vec::new();
    for line in &lines {
        serde_json::to_writer(&mut text, line).map_err(|error| AppError::Internal { source: Box::new(error) })?;
        text.push(b'\n');
    }
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).content_type(NDJSON).body(text))
}

/// As [`List`] reads it.
fn cursor(seq: i64) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(seq.to_string())
}

/// Reads in a transaction that is bound to the log, the installation's own as if it were a tenant's.
async fn read<T>(
    call: &Call,
    log: TenantId,
    name: &'static str,
    work: impl AsyncFn(&TenantTx) -> Result<T, DbError>,
) -> Result<T, Problem> {
    call.services().store.tenant_tx(log, name, work).await.map_err(Problem::from)
}
