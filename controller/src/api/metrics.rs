//! The metrics, as Prometheus reads them. What they are called stands in [`crate::metrics`].

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};

use super::auth::Api;
use super::problem::Problem;
use crate::error::AppError;

/// All metrics in Prometheus' text format.
///
/// # Errors
/// The encoder's own.
#[utoipa::path(get, path = "/metrics", tag = "Health", operation_id = "metrics", summary = "Metrics for Prometheus",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain")))]
pub async fn metrics(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let metrics = &api.services.metrics;
    for (role, pool) in api.services.store.pools() {
        metrics.set_pool(role, pool);
    }
    let (text, content_type) = metrics.render().map_err(|error| AppError::Internal { source: Box::new(error) })?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, content_type)).body(text))
}
