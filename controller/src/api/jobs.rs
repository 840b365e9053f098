//! Jobs: what was asked of agents, where it stands, how it ended.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::ids::JobId;
use trustfleet_model::job::JobState;
use utoipa::IntoParams;

use super::call::{Call, ListQuery};
use super::dto::Page;
use super::dto::job::JobBody;
use super::dto::transcript::TranscriptBody;
use super::problem::{Problem, ProblemBody, json};
use crate::db::JobFilter;
use crate::device::{Command, Stop};

/// Filters of the list of jobs.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct JobQuery {
    /// Only of the device of this name.
    device: Option<String>,
    /// Only of trustpoints of this name.
    trustpoint: Option<String>,
    /// Only in this state.
    state: Option<String>,
}

/// Lists jobs, newest first.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs", tag = "Jobs", operation_id = "job_list",
    summary = "List jobs, newest first", params(ListQuery, JobQuery),
    responses((status = 200, description = "A part of the list", body = Page<JobBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["device", "trustpoint", "state"])?;
    let state = list.filter("state");
    if state.is_some_and(|state| !JobState::ALL.iter().any(|known| known.as_str() == state)) {
        let known = JobState::ALL.map(JobState::as_str).join(", ");
        return Err(Problem::invalid("state", "choice", format!("must be one of {known}")));
    }
    let before = list.after_as()?;
    let filter = JobFilter { device: list.filter("device"), trustpoint: list.filter("trustpoint"), state, before };
    let rows = call.tenant_read("job_list", async |tx| Ok(tx.listed_job_list(filter, list.rows()).await?)).await?;
    let page: Page<JobBody> = list.page(rows, |row| row.id.to_string());
    json(StatusCode::OK, &page)
}

/// Shows one job.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs/{job}", tag = "Jobs", operation_id = "job_show",
    summary = "Show a job", responses((status = 200, description = "The job", body = JobBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let id: JobId = call.segment("job", "job")?;
    let job = call.tenant_read("job_show", async |tx| Ok(tx.listed_job_fetch(id).await?)).await?;
    json(StatusCode::OK, &JobBody::from(job))
}

/// Shows what went to and fro in a job's exchange.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs/{job}/transcript", tag = "Jobs", operation_id = "job_transcript",
    summary = "Show what went to and fro between the device and the CA, decoded and without secrets",
    responses((status = 200, description = "The transcript, or why there is none", body = TranscriptBody)))]
pub async fn transcript(call: Call) -> Result<HttpResponse, Problem> {
    let id: JobId = call.segment("job", "job")?;
    let found = call.tenant_read("job_transcript", async |tx| Ok(tx.job_transcript_fetch(id).await?)).await?;
    json(StatusCode::OK, &TranscriptBody::new(id, found, call.now))
}

/// Ends a job that has no certificate yet (S37). One that its agent has not begun ends at once; one that is under way is
/// stopped by its agent, which tells the CA.
///
/// # Errors
/// 404; 409 when it has ended otherwise.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/jobs/{job}/stop", tag = "Jobs", operation_id = "job_stop",
    summary = "Stop a job", responses(
        (status = 202, description = "It has ended as `stopped`, or its agent will stop it: follow the job", body = JobBody),
        (status = 409, description = "It has ended already, its certificate may be issued", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn stop(call: Call) -> Result<HttpResponse, Problem> {
    let job_id: JobId = call.segment("job", "job")?;
    let job = call.tenant_read("job_show", async |tx| Ok(tx.listed_job_fetch(job_id).await?)).await?;
    // Said again it is no error.
    if job.failure.as_ref().is_none_or(|failure| failure.code != "stopped") {
        let command = Command::Stop(Stop { job_id, requested_by: call.requester() });
        call.services().registry.ask(call.tenant()?.id, job.device_id, command).await?;
    }
    let job = call.tenant_read("job_show", async |tx| Ok(tx.listed_job_fetch(job_id).await?)).await?;
    json(StatusCode::ACCEPTED, &JobBody::from(job))
}
