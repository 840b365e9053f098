//! What every request and answer has to keep to, whoever asks: size of the head, size of the body, time, and headers that
//! tell browsers and proxies to leave an answer alone.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::web;
use tokio::time::timeout;

use super::auth::Api;
use super::problem::Problem;

/// Longest path with its query, bytes.
const TARGET_MAX: usize = 8 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 64;
/// Longest headers together, bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Longest body of an operation, bytes: trust anchors are large, what an agent says of itself is small.
pub(super) fn body_max(operation: &str) -> usize {
    match operation {
        "ca_server_create" | "ca_server_update" | "factory_ca_create" => 256 * 1024,
        "trustpoint_mac_import" | "device_import" | "trustpoint_import" => 512 * 1024,
        "agent_join" | "agent_challenge" | "agent_session" => 16 * 1024,
        _ => 64 * 1024,
    }
}

/// How long a client may take to send a body: half of what the whole request may take, and no longer than this.
pub(super) fn body_timeout(request_timeout_s: u32) -> Duration {
    const BODY_TIMEOUT: Duration = Duration::from_secs(30);
    BODY_TIMEOUT.min(Duration::from_secs(request_timeout_s.into()) / 2)
}

/// Middleware around everything that answers.
///
/// # Errors
/// 414, 431 and 503, and those of what it is around.
pub(super) async fn bounded(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    check_head(request.head())?;
    let is_documentation = request.path().starts_with("/docs/");
    let limit = request.app_data::<web::Data<Api>>().map(|api| api.services.config.http.request_timeout_s);
    // A little before the connection is cut: an answer that says so is better than none.
    let limit = Duration::from_secs(limit.unwrap_or(60).into()) * 9 / 10;
    let Ok(answered) = timeout(limit, next.call(request)).await else { return Err(timed_out().into()) };
    let mut response = answered?;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !is_documentation && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

fn check_head(head: &RequestHead) -> Result<(), Problem> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_MAX {
        let detail = format!("path and query together are longer than {TARGET_MAX} bytes");
        return Err(Problem::http(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let headers = head.headers();
    if headers.len() > HEADERS_MAX {
        let detail = format!("there are more than {HEADERS_MAX} headers");
        return Err(Problem::http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
    }
    // As on the wire: ": " and the line's end.
    let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if length > HEAD_MAX {
        let detail = format!("the headers together are longer than {HEAD_MAX} bytes");
        return Err(Problem::http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
    }
    Ok(())
}

fn timed_out() -> Problem {
    let detail = "the request took too long and was given up; whether it was carried out is not known: look before you \
                  repeat it";
    Problem::http(StatusCode::SERVICE_UNAVAILABLE, "timed_out", detail)
}
