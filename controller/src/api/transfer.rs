//! Devices and trustpoints in bulk, as lines of JSON: read line by line with an answer for each, and written page by page, so
//! that neither way holds more than a bounded part of the fleet in memory. Nothing secret goes either way.

pub mod devices;
pub mod trustpoints;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Bytes;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::audit::NDJSON;
use super::body::Text;
use super::call::Call;
use super::problem::{Problem, ViolationBody};
use crate::db::{DbError, TenantTx};
use crate::error::AppError;
use crate::quota::Limit;

/// Most lines of one import.
const LINES_MAX: usize = 1_000;
/// Lines of an export that are read at once.
const PAGE: i64 = 500;

/// What an import does.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct ImportQuery {
    /// Say what would become of each line, and change nothing; default false.
    dry_run: Option<bool>,
}

/// What became of a line that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Updated,
    Unchanged,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What became of one line.
#[derive(Debug, Serialize)]
struct ImportedLine {
    line: u64,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<ViolationBody>,
}

impl ImportedLine {
    fn new(line: u64, name: Option<String>, result: Result<Outcome, Problem>) -> Self {
        match result {
            Ok(outcome) => {
                Self { line, result: outcome.as_str(), name, code: None, detail: None, violations: Vec::new() }
            }
            Err(problem) => Self {
                line,
                result: "refused",
                name,
                code: Some(problem.code().to_owned()),
                detail: Some(problem.detail().to_owned()),
                violations: problem.broken(),
            },
        }
    }
}

/// A line's number, and what it says or why it cannot be read.
type Line<T> = (u64, Result<T, Problem>);

/// The lines of a body, and whether they are only tried.
fn read<T: DeserializeOwned>(call: &Call, text: &Text) -> Result<(Vec<Line<T>>, bool), Problem> {
    let dry_run = match call.query("dry_run").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("dry_run", "choice", "must be true or false")),
    };
    if text.media != NDJSON {
        return Err(Problem::unsupported_media_type("send the lines as application/x-ndjson"));
    }
    let lines = (1_u64..).zip(text.bytes.split(|byte| *byte == b'\n'));
    let lines: Vec<_> = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    if lines.len() > LINES_MAX {
        let message = format!("are {}; at most {LINES_MAX} are taken at once", lines.len());
        return Err(Problem::invalid("lines", "count", message));
    }
    Ok((lines.into_iter().map(|(number, line)| (number, parsed(line))).collect(), dry_run))
}

/// What is wrong with a line is told without its values: somebody may have put a secret there.
fn parsed<T: DeserializeOwned>(line: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(line).map_err(|error| {
        let told = error.to_string();
        let names_a_field = told.starts_with("unknown field") || told.starts_with("missing field");
        let detail = match error.classify() {
            serde_json::error::Category::Data if names_a_field => told,
            serde_json::error::Category::Data => {
                format!("a field has another type than it should (column {})", error.column())
            }
            _ => format!("it is not JSON (column {})", error.column()),
        };
        AppError::Malformed { detail }.into()
    })
}

/// Refuses what stands on an earlier line.
#[derive(Default)]
struct Seen(std::collections::HashMap<String, u64>);

impl Seen {
    fn check(&mut self, name: &str, line: u64) -> Result<(), Problem> {
        let earlier = *self.0.entry(name.to_owned()).or_insert(line);
        if earlier == line {
            return Ok(());
        }
        let detail = format!("it stands on line {earlier} already");
        Err(AppError::Conflict { code: "repeated", detail }.into())
    }
}

/// Whether a tenant may have one more, when so many were promised to earlier lines that were only tried.
async fn has_room(call: &Call, tx: &TenantTx, limits: &[Limit], promised: u32) -> Result<(), AppError> {
    for limit in limits {
        if tx.quota_used(limit.counted, limit.most, call.now).await?.saturating_add(promised) >= limit.most {
            return Err(limit.exceeded());
        }
    }
    Ok(())
}

fn answer(lines: &[ImportedLine]) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, NDJSON)).body(text_of(lines)?))
}

fn text_of<T: Serialize>(lines: &[T]) -> Result<String, AppError> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line).map_err(|error| AppError::Internal { source: Box::new(error) })?;
        text.push('\n');
    }
    Ok(text)
}

/// Answers with pages as they are read; `page` returns a page's text, and where the next one begins. The first is read before
/// the answer begins, so that what is wrong then is an answer of its own; later the connection breaks off.
async fn streamed<S: 'static>(
    start: S,
    page: impl AsyncFn(S) -> Result<(String, Option<S>), Problem> + 'static,
) -> Result<HttpResponse, Problem> {
    let (first, next) = page(start).await?;
    let page = std::rc::Rc::new(page);
    let rest = stream::try_unfold(next, move |state| {
        let page = std::rc::Rc::clone(&page);
        async move {
            let Some(state) = state else { return Ok(None) };
            match page(state).await {
                Ok((text, next)) => Ok(Some((Bytes::from(text), next))),
                Err(problem) => Err(std::io::Error::other(problem.detail().to_owned())),
            }
        }
    });
    let first = stream::iter([Ok(Bytes::from(first))]);
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, NDJSON)).streaming(first.chain(rest)))
}

/// Why a line's transaction was given up: it was only tried, or it was refused.
enum Halt {
    Tried(Outcome),
    Refused(AppError),
}

impl From<DbError> for Halt {
    fn from(error: DbError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<AppError> for Halt {
    fn from(error: AppError) -> Self {
        Self::Refused(error)
    }
}
