//! Dry runs on devices: what an enrolment needs is tried there before the CA is asked.

use actix_web::HttpResponse;
use trustfleet_model::ids::JobId;

use super::body::Body;
use super::call::{Call, id_bytes};
use super::dto::job::{EnrollRequest, JobBody};
use super::problem::Problem;
use super::trustpoints::{JOBS, accepted, ask_within, find};
use crate::device::{Command, Enroll};

/// Tries on the device what an enrolment needs.
///
/// # Errors
/// 404; 422 naming every missing condition that can be seen here (S32).
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/dry-run", tag = "Trustpoints",
    operation_id = "trustpoint_dry_run", summary = "Try on the device everything that an enrolment needs, and say nothing to the CA",
    request_body = EnrollRequest, responses(
        (status = 202, description = "The job, or the one under way: its `dry_run` tells what was found", body = JobBody)))]
pub async fn trustpoint(call: Call, body: Body<EnrollRequest>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let request = body.check(|body, _| Some(body.request.into()))?;
    let limits = call.limits(JOBS)?;
    let context = call
        .tenant_tx("dry_run_context", async |tx| {
            call.check_quota(tx, &limits).await?;
            Ok(tx.enrollment_context(device, &trustpoint, None).await?)
        })
        .await?;
    let command = Command::DryRun(Box::new(Enroll {
        trustpoint,
        request,
        job_id: JobId::fresh(call.now, id_bytes()?),
        request_key: None,
        past_floor: false,
        requested_by: call.requester(),
        traceparent: Some(call.traceparent()?),
        context,
    }));
    accepted(&call, ask_within(&call, device, command, limits).await?).await
}
