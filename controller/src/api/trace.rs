//! The span of a request: where its trace begins, or goes on from the client's `traceparent`.
//!
//! The path's pattern names it, never the path: names of devices are nobody's business who reads traces for something
//! else. Probes, metrics and the API's description are not traced: they come all the time and tell nothing.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use trustfleet_telemetry::{continue_from, record_error, trace_span};

use super::Route;

/// Runs the rest of a request in its span.
///
/// # Errors
/// The handler's own.
pub async fn traced(
    route: &'static Route,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let span = span(route, &request);
    let result = next.call(request).instrument(span.clone()).await.map(ServiceResponse::map_into_boxed_body);
    if let Ok(response) = &result {
        let status = response.status();
        span.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
    result
}

fn span(route: &'static Route, request: &ServiceRequest) -> Span {
    if !route.path.starts_with("/v1/") && !route.path.starts_with("/agent/") {
        return Span::none();
    }
    let span = trace_span!(
        "server",
        format_args!("{} {}", route.method, route.path),
        http.request.method = route.method,
        http.route = route.path,
        http.response.status_code = Empty,
        trustfleet.tenant.id = Empty,
    );
    continue_from(&span, request.headers().get("traceparent").and_then(|value| value.to_str().ok()));
    span
}

/// Notes the tenant whose request this is.
pub(super) fn note_tenant(tenant: trustfleet_model::ids::TenantId) {
    Span::current().record("trustfleet.tenant.id", tracing::field::display(tenant));
}

/// Notes the stable code of an error at the span of its request.
pub(super) fn note_error(code: &str) {
    record_error(&Span::current(), code, false);
}
