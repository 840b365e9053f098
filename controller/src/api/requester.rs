//! What a request tells of its sender: id, address and trace, for the audit log and for the answer.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, HttpRequest, web};
use trustfleet_model::ids::MessageId;
use uuid::Uuid;

use super::auth::Api;
use crate::audit::{Requester, trace_id};
use crate::entropy;

/// Under which an operator finds a request again in the audit log and in the controller's log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id, made here; in the request's extensions.
#[derive(Clone, Copy, Debug)]
struct RequestId(Uuid);

/// Middleware that gives every request an id, and tells it in the answer.
///
/// # Errors
/// Those of what it is around.
pub(super) async fn identified(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let now = request.app_data::<web::Data<Api>>().map(|api| api.services.clock.now());
    let id = now.and_then(|now| Some(MessageId::fresh(now, entropy::random().ok()?).as_uuid()));
    if let Some(id) = id {
        request.extensions_mut().insert(RequestId(id));
    }
    let mut answered = next.call(request).await?;
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        answered.headers_mut().insert(REQUEST_ID, value);
    }
    Ok(answered)
}

/// The id of a request.
pub(super) fn request_id(request: &HttpRequest) -> Option<Uuid> {
    request.extensions().get::<RequestId>().map(|id| id.0)
}

/// Who asks, by a request; `traceparent`: that of the request, where it is known already.
pub(super) fn requester(
    actor: String,
    role: impl Into<String>,
    request: &HttpRequest,
    traceparent: Option<&str>,
) -> Requester {
    let traceparent = traceparent.map(str::to_owned).or_else(|| traceparent_of(request.headers()));
    Requester {
        actor,
        role: role.into(),
        source: request.peer_addr().map(|address| address.ip().to_canonical()),
        request_id: request_id(request),
        trace_id: traceparent.as_deref().and_then(trace_id),
    }
}

/// The trace context (W3C) of the running span, or without traces the client's own.
pub(super) fn traceparent_of(headers: &HeaderMap) -> Option<String> {
    let given = || headers.get("traceparent").and_then(|value| value.to_str().ok());
    trustfleet_telemetry::current_traceparent()
        .or_else(|| given().filter(|text| is_traceparent(text)).map(str::to_owned))
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let [version, trace, span, flags] = parts[..] else { return false };
    version == "00"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_context_is_taken_over() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
