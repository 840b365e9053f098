//! The one place where an error becomes an HTTP answer: problem+json (RFC 9457) for everything that is not a success.
//!
//! The sentences are public. Causes are logged here, once, and only for faults of ours; a caller's mistake is the
//! caller's to read. No answer ever repeats a value that was sent, because it might be a secret.

use std::fmt;

use actix_web::http::header::{self, ContentType, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use trustfleet_model::field::{Violation, Violations};
use utoipa::ToSchema;

use crate::db::DbError;
use crate::device::Rejection;
use crate::error::AppError;

/// Media type of every error (RFC 9457 section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// How long a client should wait before it repeats a request that failed for a moment, seconds.
const RETRY_AFTER_S: u32 = 1;

/// An error as the client sees it (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:trustfleet:error:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:trustfleet:error:not_found")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong and what would be right, as a sentence.
    pub detail: String,
    /// Stable snake_case code.
    #[schema(example = "not_found")]
    pub code: String,
    /// Every broken rule, each with its field; only for code `invalid`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<ViolationBody>,
}

/// One broken rule of one field.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Violation)]
pub struct ViolationBody {
    /// Path of the field in the body, such as `sans[1].value`, or the name of a parameter or header.
    pub field: String,
    /// The rule, stable for clients.
    pub rule: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// An error on its way to the client. Handlers return it; `?` makes it from [`AppError`] and [`DbError`].
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    violations: Violations,
    retry_after_s: Option<u32>,
    allow: Option<String>,
}

impl Problem {
    /// An error that the HTTP layer itself finds: `status` is a 4xx or 5xx.
    pub fn http(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let violations = Violations::new();
        Self { status, code, detail: detail.into(), violations, retry_after_s: None, allow: None }
    }

    /// A body of another kind than the path takes (415).
    pub fn unsupported_media_type(detail: &'static str) -> Self {
        Self::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// The stable code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Every broken rule.
    pub fn broken(&self) -> Vec<ViolationBody> {
        self.violations.as_slice().iter().cloned().map(Into::into).collect()
    }

    /// The sentence for whoever asked.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// No object of this kind, or one of another tenant: the answer is the same (404).
    pub fn not_found(kind: &'static str) -> Self {
        AppError::NotFound { kind }.into()
    }

    /// The state of things does not allow it (409).
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        AppError::Conflict { code, detail: detail.into() }.into()
    }

    /// One parameter or header breaks a rule (422).
    pub fn invalid(field: &str, rule: &str, message: impl Into<String>) -> Self {
        let mut violations = Violations::new();
        violations.add(field, rule, message);
        AppError::Invalid(violations).into()
    }

    /// Something is away for the moment (503).
    pub fn moment(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::http(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after_s = Some(RETRY_AFTER_S);
        problem
    }

    /// There is the path, but not for this method (405).
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        let allow = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let mut problem = Self::http(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("this path takes {allow}; see /openapi.json"),
        );
        problem.allow = Some(allow);
        problem
    }

    /// The answer.
    pub fn response(&self) -> HttpResponse {
        super::trace::note_error(self.code);
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"trustfleet\""));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            response.insert_header((header::ALLOW, allow));
        }
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        response.insert_header((header::CONTENT_TYPE, MEDIA_TYPE)).body(body)
    }

    fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: format!("urn:trustfleet:error:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            violations: self.violations.as_slice().iter().cloned().map(Into::into).collect(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        log(&error);
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = Self::http(status, error.code(), String::new());
        problem.retry_after_s = match &error {
            AppError::TooMany { retry_after_s, .. } => Some(*retry_after_s),
            other => other.is_transient().then_some(RETRY_AFTER_S),
        };
        problem.detail = match &error {
            AppError::Invalid(violations) => summary(violations.as_slice().len()),
            AppError::Rejected(Rejection::NotReady(_)) => {
                "nothing was sent: conditions are missing, each named below".to_owned()
            }
            other => other.to_string(),
        };
        problem.violations = error.violations().cloned().unwrap_or_default();
        problem
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        AppError::from(error).into()
    }
}

impl From<Violation> for ViolationBody {
    fn from(violation: Violation) -> Self {
        let Violation { field, rule, message } = violation;
        Self { field, rule, message }
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        AppError::Invalid(violations).into()
    }
}

/// Any path that is not in the route table.
pub async fn unknown_path() -> Result<HttpResponse, Problem> {
    Err(Problem::http(StatusCode::NOT_FOUND, "unknown_path", "there is nothing at this path; see /openapi.json"))
}

fn summary(count: usize) -> String {
    if count == 1 {
        "one field breaks a rule".to_owned()
    } else {
        format!("{count} rules are broken, each named below")
    }
}

fn log(error: &AppError) {
    let source = std::error::Error::source(error).map(chain).unwrap_or_default();
    match error {
        AppError::Internal { .. } => {
            tracing::error!(error.code = error.code(), error.source = source, "request failed")
        }
        transient if transient.is_transient() => {
            tracing::warn!(error.code = transient.code(), error.source = source, "request failed for the moment");
        }
        _ => {}
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A success with a JSON body that no proxy may keep.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<HttpResponse, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| AppError::Internal { source: Box::new(error) })?;
    Ok(HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(ContentType::json())
        .body(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_without_the_database_tells_the_client_when_to_come_back() {
        let problem = Problem::from(AppError::Unavailable { what: "the database", source: None });
        let response = problem.response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), MEDIA_TYPE);
    }

    #[test]
    fn a_device_whose_mailbox_is_full_tells_the_client_when_to_come_back() {
        let response = Problem::from(AppError::Busy).response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn an_internal_cause_is_not_told_to_the_client() {
        let problem = Problem::from(AppError::internal("password of the database"));
        assert!(!serde_json::to_string(&problem.body()).unwrap().contains("password"));
    }
}
