//! Times every request, whatever becomes of it: from its head to the answer's, so that a slow reader of an answer does
//! not count.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web;

use super::ROUTES;
use super::auth::Api;
use crate::metrics::OTHER_OPERATION;

/// Middleware around everything that answers.
///
/// # Errors
/// Those of what it is around.
pub async fn timed(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let start = Instant::now();
    let operation = operation(request.method().as_str(), request.match_pattern().as_deref());
    let api = request.app_data::<web::Data<Api>>().cloned();
    let result = next.call(request).await;
    let status = match &result {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    if let Some(api) = api {
        api.services.metrics.http_answered(operation, status.as_u16(), start.elapsed());
    }
    result
}

/// The operation of a method and a path's pattern in the route table.
pub(super) fn operation(method: &str, pattern: Option<&str>) -> &'static str {
    let found = ROUTES.iter().find(|route| route.method == method && Some(route.path) == pattern);
    found.map_or(OTHER_OPERATION, |route| route.operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_table_shares_one_label() {
        assert_eq!(operation("GET", Some("/v1/tenants/{tenant}/devices")), "device_list");
        assert_eq!(operation("POST", Some("/v1/tenants/{tenant}/devices")), "device_create");
        assert_eq!(operation("BREW", Some("/v1/tenants/{tenant}/devices")), OTHER_OPERATION);
        assert_eq!(operation("GET", Some("/docs/{_:.*}")), OTHER_OPERATION);
        assert_eq!(operation("GET", None), OTHER_OPERATION);
    }
}
