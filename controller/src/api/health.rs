//! Whether this process lives, and whether it can do its work: two different questions.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Api;
use super::problem::{Problem, ProblemBody, json};

/// How long the database may take to answer the readiness question.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything asked about is well.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What an operator should change although it works: plaintext that was allowed, a certificate that was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Health {
    const fn ok(warnings: Vec<String>) -> Self {
        Self { status: "ok", warnings }
    }
}

/// The process answers; nothing else is looked at.
///
/// # Errors
/// None.
#[utoipa::path(get, path = "/healthz", tag = "Health", operation_id = "healthz", summary = "Is the process alive?",
    responses((status = 200, description = "It is", body = Health)))]
pub async fn healthz() -> Result<HttpResponse, Problem> {
    json(StatusCode::OK, &Health::ok(Vec::new()))
}

/// Database and broker can be reached.
///
/// # Errors
/// 503 naming what is missing.
#[utoipa::path(get, path = "/readyz", tag = "Health", operation_id = "readyz",
    summary = "Can it work: are database and broker there?", responses(
        (status = 200, description = "They are", body = Health),
        (status = 503, description = "Something is missing", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn readyz(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let database = tokio::time::timeout(DATABASE_TIMEOUT, api.services.store.is_ready()).await.unwrap_or(false);
    let broker = api.services.broker.is_ready();
    let missing: Vec<&str> = [(database, "the database"), (broker, "the broker")]
        .iter()
        .filter(|(ready, _)| !ready)
        .map(|(_, n)| *n)
        .collect();
    if missing.is_empty() {
        let services = &api.services;
        let mut warnings = services.config.insecure();
        warnings.extend(services.config.broker.warnings().map(str::to_owned));
        warnings.extend(services.tls.iter().flat_map(|tls| tls.warnings(services.clock.now())));
        return json(StatusCode::OK, &Health::ok(warnings));
    }
    let detail = format!("{} cannot be reached at the moment", missing.join(" and "));
    Err(Problem::moment("not_ready", detail))
}
