//! MAC references and secrets of trustpoints (S12, S13): one by one, or many at once from lines.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use futures_util::StreamExt as _;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_model::ids::{DeviceId, SecretId};
use trustfleet_model::job::MacCredentials;
use trustfleet_model::trustpoint::{check_reference, check_secret, secret_warning};
use utoipa::IntoParams;

use self::lines::{Entry, LINES_MAX, Line, csv_lines, json_lines, refuse_repeated};
use super::audit::NDJSON;
use super::body::{Body, Text};
use super::call::{Call, id_bytes};
use super::dto::trustpoint::{MacBody, MacCreate, MacImportedBody};
use super::problem::{Problem, ProblemBody, json};
use super::trustpoints::{ask, find};
use crate::device::{Command, SetMac};
use crate::error::AppError;

mod lines;

/// Lines of an import that are worked on at the same time.
const AT_ONCE: usize = 8;

/// Gives a trustpoint other MAC credentials.
///
/// # Errors
/// 404; 409 while a request is under way; 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/mac", tag = "Trustpoints",
    operation_id = "trustpoint_mac_set", summary = "Give a trustpoint another MAC reference and secret", request_body = MacCreate,
    responses(
        (status = 200, description = "Set; the former secret is deleted", body = MacBody),
        (status = 409, description = "A request is under way", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn set(call: Call, body: Body<MacCreate>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let mac = body.check(|mac, violations| {
        check_mac("", &mac, violations);
        Some(mac)
    })?;
    json(StatusCode::OK, &give(&call, device, trustpoint, mac).await?)
}

/// What lines that say nothing of it mean.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ImportQuery {
    /// Delete each secret when an enrolment by it has succeeded, where its line says nothing else; default false.
    one_time: Option<bool>,
}

/// Gives many trustpoints other MAC credentials. Each line is taken as a whole or not at all, and answered by one; no answer
/// repeats anything of a line but its number, and the names of a trustpoint that is there.
///
/// # Errors
/// 400, 413, 415; 422 for too many lines or for headings that lack a column.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/trustpoints/mac-import", tag = "Trustpoints",
    operation_id = "trustpoint_mac_import", summary = "Give many trustpoints their MAC references and secrets", params(ImportQuery),
    request_body(description = "At most 1000 lines: JSON objects with `device`, `trustpoint`, `reference`, `secret` and if \
        wanted `one_time`, or CSV with these headings",
        content((String = "application/x-ndjson"), (String = "text/csv"))),
    responses((status = 200, description = "One JSON object a line, in the order of the lines: `line`, `taken`, and why not",
        body = String, content_type = "application/x-ndjson")))]
pub async fn import(call: Call, text: Text) -> Result<HttpResponse, Problem> {
    let one_time = match call.query("one_time").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("one_time", "choice", "must be true or false")),
    };
    let mut lines = match text.media.as_str() {
        NDJSON => json_lines(&text.bytes),
        "text/csv" => csv_lines(&text.bytes).map_err(|lacks| {
            let message = format!("lack {lacks:?}: the first line must name the columns");
            Problem::invalid("headings", "required", message)
        })?,
        _ => return Err(Problem::unsupported_media_type("send the lines as application/x-ndjson or as text/csv")),
    };
    if lines.len() > LINES_MAX {
        let message = format!("are {}; at most {LINES_MAX} are taken at once", lines.len());
        return Err(Problem::invalid("lines", "count", message));
    }
    refuse_repeated(&mut lines);
    let answers = futures_util::stream::iter(lines).map(|line| take(&call, line, one_time)).buffered(AT_ONCE);
    let answers: Vec<MacImportedBody> = answers.collect().await;
    let mut told = String::new();
    for answer in answers {
        told += &serde_json::to_string(&answer).map_err(|error| AppError::Internal { source: Box::new(error) })?;
        told.push('\n');
    }
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, NDJSON)).body(told))
}

/// One line: taken, or why not.
async fn take(call: &Call, (line, entry): Line, one_time: bool) -> MacImportedBody {
    let refused = |code: &str, detail: String| MacImportedBody::refused(line, code, detail);
    let entry = match entry {
        Ok(entry) => entry,
        Err(why) => return refused("malformed", why),
    };
    let Entry { device, trustpoint, reference, secret, one_time: own } = entry;
    let mac = MacCreate { reference, secret, one_time: own.unwrap_or(one_time) };
    let mut wrong = Violations::new();
    check_mac("", &mac, &mut wrong);
    let (device_id, trustpoint) = match find_named(call, &device, &trustpoint).await {
        Ok(found) => found,
        Err(problem) => return refused(problem.code(), problem.detail().to_owned()),
    };
    let names = (device, trustpoint.to_string());
    let answer = match wrong.into_result() {
        Err(wrong) => refused("invalid", wrong.to_string()),
        Ok(()) => match give(call, device_id, trustpoint, mac).await {
            Ok(given) => MacImportedBody::taken(line, given.warnings),
            Err(problem) => refused(problem.code(), problem.detail().to_owned()),
        },
    };
    answer.of(names)
}

async fn find_named(call: &Call, device: &str, trustpoint: &str) -> Result<(DeviceId, TrustpointName), Problem> {
    let device: ObjectName = device.parse().map_err(|_| Problem::not_found("device"))?;
    let trustpoint: TrustpointName = trustpoint.parse().map_err(|_| Problem::not_found("trustpoint"))?;
    call.tenant_read("trustpoint_show", async |tx| {
        let device = tx.registered_device_fetch(&device).await?.device.id;
        Ok((device, tx.listed_trustpoint_fetch(device, &trustpoint).await?.trustpoint.name))
    })
    .await
}

/// Notes what is wrong with a reference and a secret; neither is repeated.
pub(super) fn check_mac(prefix: &str, mac: &MacCreate, violations: &mut Violations) {
    check_reference(&format!("{prefix}reference"), &mac.reference, violations);
    check_secret(&format!("{prefix}secret"), mac.secret.expose(), violations);
}

/// Stores the secret and gives it to the trustpoint; on refusal neither is kept.
async fn give(call: &Call, device: DeviceId, trustpoint: TrustpointName, mac: MacCreate) -> Result<MacBody, Problem> {
    let one_time = mac.one_time;
    let warnings: Vec<String> = secret_warning(mac.secret.expose()).into_iter().collect();
    let mac = store_secret(call, mac).await?;
    let (reference, secret_id) = (mac.reference.clone(), mac.secret_id);
    let command = Command::SetMac(Box::new(SetMac { trustpoint, mac, one_time, requested_by: call.requester() }));
    if let Err(error) = ask(call, device, command).await {
        drop_unused(call, secret_id, &error).await;
        return Err(error.into());
    }
    Ok(MacBody { reference, one_time, warnings })
}

/// Stores the MAC secret, encrypted for its row, before the trustpoint that refers to it.
pub(super) async fn store_secret(call: &Call, mac: MacCreate) -> Result<MacCredentials, Problem> {
    let secret_id = SecretId::fresh(call.now, id_bytes()?);
    let at_rest = &call.services().keys.at_rest;
    let ciphertext = at_rest
        .seal(call.tenant()?.id, secret_id, mac.secret.expose().as_bytes())
        .map_err(|error| AppError::Internal { source: Box::new(error) })?;
    call.tenant_tx("secret_store", async |tx| {
        Ok(tx.mac_secret_insert(secret_id, at_rest.id(), &ciphertext, call.now).await?)
    })
    .await?;
    Ok(MacCredentials { reference: mac.reference, secret_id })
}

/// Removes a secret that nothing refers to, if `error` says so for certain; when that fails it stays behind, encrypted and
/// unused.
pub(super) async fn drop_unused(call: &Call, secret_id: SecretId, error: &AppError) {
    if matches!(error, AppError::OutcomeUnknown { .. } | AppError::Internal { .. }) {
        return;
    }
    let dropped = call.tenant_tx("secret_drop", async |tx| Ok(tx.mac_secret_delete(secret_id).await?)).await;
    if dropped.is_err() {
        tracing::warn!(secret.id = %secret_id, "a secret without trustpoint stays behind");
    }
}
