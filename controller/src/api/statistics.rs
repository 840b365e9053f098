//! Statistics of CMP sessions (S48): of a trustpoint, and sums over a device, a policy and the tenant.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::field::ObjectName;

use super::call::Call;
use super::dto::statistics::StatisticsBody;
use super::problem::{Problem, json};
use super::trustpoints;
use crate::db::StatisticsOf;
use crate::device::{Command, ResetStatistics};

/// Shows the statistics of one trustpoint.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/statistics", tag = "Statistics",
    operation_id = "trustpoint_statistics", summary = "Show what a trustpoint's CMP session has done so far",
    responses((status = 200, description = "The counts", body = StatisticsBody)))]
pub async fn of_trustpoint(call: Call) -> Result<HttpResponse, Problem> {
    let (_, found) = trustpoints::find_listed(&call).await?;
    json(StatusCode::OK, &StatisticsBody::new(1, found.trustpoint.statistics))
}

/// Sets the statistics of one trustpoint to nothing.
///
/// # Errors
/// 404.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/statistics/reset",
    tag = "Statistics", operation_id = "trustpoint_statistics_reset", summary = "Set a trustpoint's statistics to nothing",
    responses((status = 200, description = "The counts", body = StatisticsBody)))]
pub async fn reset_trustpoint(call: Call) -> Result<HttpResponse, Problem> {
    let (device, found) = trustpoints::find_listed(&call).await?;
    let reset = ResetStatistics { trustpoint: Some(found.trustpoint.name), requested_by: call.requester() };
    call.services().registry.ask(call.tenant()?.id, device, Command::ResetStatistics(reset)).await?;
    of_trustpoint(call).await
}

/// Shows the sums of a device's trustpoints.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}/statistics", tag = "Statistics",
    operation_id = "device_statistics", summary = "Show what the CMP sessions of a device have done so far",
    responses((status = 200, description = "The sums", body = StatisticsBody)))]
pub async fn of_device(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    let device = Some(trustpoints::find_device(&call, &name).await?);
    sums(&call, StatisticsOf { device, policy: None }).await
}

/// Sets the statistics of all trustpoints of a device to nothing.
///
/// # Errors
/// 404.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/statistics/reset", tag = "Statistics",
    operation_id = "device_statistics_reset", summary = "Set the statistics of all trustpoints of a device to nothing",
    responses((status = 200, description = "The sums", body = StatisticsBody)))]
pub async fn reset_device(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    let device = trustpoints::find_device(&call, &name).await?;
    let reset = ResetStatistics { trustpoint: None, requested_by: call.requester() };
    call.services().registry.ask(call.tenant()?.id, device, Command::ResetStatistics(reset)).await?;
    of_device(call).await
}

/// Shows the sums of all trustpoints with a policy.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/policies/{policy}/statistics", tag = "Statistics",
    operation_id = "policy_statistics", summary = "Show what the CMP sessions with a policy have done so far",
    responses((status = 200, description = "The sums", body = StatisticsBody)))]
pub async fn of_policy(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("policy", "policy")?;
    let policy = call.tenant_read("policy_show", async |tx| Ok(tx.policy_fetch(&name).await?)).await?;
    sums(&call, StatisticsOf { device: None, policy: Some(policy.id) }).await
}

/// Shows the sums of all trustpoints of the tenant.
///
/// # Errors
/// The database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/statistics", tag = "Statistics", operation_id = "tenant_statistics",
    summary = "Show what the CMP sessions of a tenant have done so far",
    responses((status = 200, description = "The sums", body = StatisticsBody)))]
pub async fn of_tenant(call: Call) -> Result<HttpResponse, Problem> {
    sums(&call, StatisticsOf::default()).await
}

async fn sums(call: &Call, of: StatisticsOf) -> Result<HttpResponse, Problem> {
    let (trustpoints, counts) = call.tenant_tx("statistics", async |tx| Ok(tx.statistics_sum(of).await?)).await?;
    json(StatusCode::OK, &StatisticsBody::new(trustpoints, counts))
}
