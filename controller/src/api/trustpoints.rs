//! Trustpoints: made, removed, enrolled and activated by their device's actor; read from the database.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_model::ids::{CaServerId, DeviceId, EntityId, JobId, PolicyId, TrustpointId};
use trustfleet_model::service;
use trustfleet_model::trustpoint::{TrustpointStatus, secret_warning};
use utoipa::IntoParams;

use super::body::Body;
use super::call::{Call, List, ListQuery, id_bytes, resolved};
use super::dto::Page;
use super::dto::job::{EnrollRequest, JobBody};
use super::dto::service::ServicesBody;
use super::dto::trustpoint::{AutoUpdateSet, TrustpointBody, TrustpointCreate};
use super::mac::{check_mac, drop_unused, store_secret};
use super::problem::{Problem, ProblemBody, json};
use crate::db::{Counted, DbError, ListedTrustpoint, TrustpointFilter};
use crate::device::{Activate, AddTrustpoint, Command, Enroll, RemoveTrustpoint, Reply, SetAutoUpdate, SetServices};
use crate::error::AppError;
use crate::quota::Limit;

/// Filters of the list of trustpoints.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct TrustpointQuery {
    /// Only of the device of this name.
    device: Option<String>,
    /// Only in this state: `not_enrolled`, `requesting`, `staged`, `active`, `revoked` or `failed`.
    status: Option<String>,
    /// Only on devices with all of these labels: `KEY=VALUE`, several with commas between them.
    #[param(example = "site=berlin,role=edge")]
    selector: Option<String>,
    /// Only with a certificate in use that ends at or after this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    expires_after: Option<String>,
    /// Only with a certificate in use that ends before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    expires_before: Option<String>,
    /// Only of the CA server of this name.
    ca_server: Option<String>,
    /// Only of the policy of this name.
    policy: Option<String>,
}

/// The header by which a repeated request finds its job.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct IdempotencyKey {
    /// 1 to 128 visible ASCII characters; the same key leads to the same job, also after it ended. A key that
    /// only joined a job already under way does so until the trustpoint's next job.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 128)]
    idempotency_key: Option<String>,
}

/// Lists the tenant's trustpoints.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/trustpoints", tag = "Trustpoints", operation_id = "trustpoint_list",
    summary = "List trustpoints of all devices", params(ListQuery, TrustpointQuery),
    responses((status = 200, description = "A part of the list", body = Page<TrustpointBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&FILTERS)?;
    page(&call, &list, list.filter("device")).await
}

/// Lists the trustpoints of one device.
///
/// # Errors
/// 404; 422 for unreadable parameters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints", tag = "Trustpoints",
    operation_id = "device_trustpoint_list", summary = "List the trustpoints of a device", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<TrustpointBody>)))]
pub async fn list_of_device(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let name: ObjectName = call.segment("device", "device")?;
    find_device(&call, &name).await?;
    page(&call, &list, Some(name.as_str())).await
}

async fn page(call: &Call, list: &List, device: Option<&str>) -> Result<HttpResponse, Problem> {
    let filter = filter_of(list, device)?;
    let rows =
        call.tenant_tx("trustpoint_list", async |tx| Ok(tx.trustpoint_search(&filter, list.rows()).await?)).await?;
    let page: Page<TrustpointBody> = list.page(rows, |row| row.trustpoint.id.to_string());
    json(StatusCode::OK, &page)
}

/// What lists of trustpoints can be narrowed by.
pub(super) const FILTERS: [&str; 7] =
    ["device", "status", "selector", "expires_after", "expires_before", "ca_server", "policy"];

/// Which trustpoints are wanted.
pub(super) fn filter_of(list: &List, device: Option<&str>) -> Result<TrustpointFilter, Problem> {
    let status = list.filter("status");
    if status.is_some_and(|status| !STATUSES.iter().any(|known| known.as_str() == status)) {
        let known = STATUSES.map(TrustpointStatus::as_str).join(", ");
        return Err(Problem::invalid("status", "choice", format!("must be one of {known}")));
    }
    Ok(TrustpointFilter {
        device: device.map(str::to_owned),
        labels: list.selector()?,
        status: list.owned("status"),
        expires_after: list.moment("expires_after")?,
        expires_before: list.moment("expires_before")?,
        ca_server: list.owned("ca_server"),
        policy: list.owned("policy"),
        after: list.after_as()?,
    })
}

const STATUSES: [TrustpointStatus; 6] = [
    TrustpointStatus::NotEnrolled,
    TrustpointStatus::Requesting,
    TrustpointStatus::Staged,
    TrustpointStatus::Active,
    TrustpointStatus::Revoked,
    TrustpointStatus::Failed,
];

/// What a new trustpoint refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct References {
    pub(super) entity: EntityId,
    pub(super) ca_server: CaServerId,
    pub(super) policy: PolicyId,
}

/// Makes a trustpoint.
///
/// # Errors
/// 404 for the device, 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints", tag = "Trustpoints",
    operation_id = "trustpoint_create", summary = "Make a trustpoint", request_body = TrustpointCreate, responses(
        (status = 201, description = "Made", body = TrustpointBody),
        (status = 409, description = "The name is taken, or one of the services is", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<TrustpointCreate>) -> Result<HttpResponse, Problem> {
    let device_name: ObjectName = call.segment("device", "device")?;
    let device = find_device(&call, &device_name).await?;
    let limits = call.limits(&[Counted::Trustpoints])?;
    let (body, mut findings) = body.open();
    let mut references = None;
    let mut named = None;
    let mut services = Vec::new();
    if let Some(body) = &body {
        services = service::read_names("services", &body.services, &mut findings.rules);
        named = findings.rules.check("name", "S17", body.name.parse::<TrustpointName>());
        if let Some(mac) = &body.mac {
            check_mac("mac.", mac, &mut findings.rules);
        }
        let named = (body.entity.as_str(), body.ca_server.as_str(), body.policy.as_str());
        let (found, unknown) = find_references(&call, named, &limits).await?;
        findings.add(unknown);
        references = found;
    }
    let mac = body.and_then(|body| body.mac);
    let one_time = mac.as_ref().is_some_and(|mac| mac.one_time);
    let warning = mac.as_ref().and_then(|mac| secret_warning(mac.secret.expose()));
    let (name, references) = findings.finish(named.zip(references))?;

    let mac = match mac {
        Some(mac) => Some(store_secret(&call, mac).await?),
        None => None,
    };
    let command = Command::AddTrustpoint(Box::new(AddTrustpoint {
        id: TrustpointId::fresh(call.now, id_bytes()?),
        name: name.clone(),
        entity_id: references.entity,
        ca_server_id: references.ca_server,
        policy_id: references.policy,
        mac: mac.clone(),
        mac_one_time: one_time,
        services,
        binding: None,
        requested_by: call.requester(),
    }));
    if let Err(error) = ask_within(&call, device, command, limits).await {
        if let Some(mac) = mac {
            drop_unused(&call, mac.secret_id, &error).await;
        }
        return Err(error.into());
    }
    let mut made = read(&call, device, &name).await?;
    made.warnings.extend(warning);
    call.created(name.as_str(), &made)
}

/// Binds a trustpoint to other services.
///
/// # Errors
/// 404; 409 while a request is under way, or when another trustpoint of the device has one of them; 422 for bad names.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/services", tag = "Trustpoints",
    operation_id = "trustpoint_services_set", summary = "Bind a trustpoint to services of its device", request_body = ServicesBody,
    responses(
        (status = 200, description = "Set; the next job takes them along", body = ServicesBody),
        (status = 409, description = "A request is under way, or another trustpoint has one of the services", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn set_services(call: Call, body: Body<ServicesBody>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let services = body.check(|body, violations| Some(service::read_names("services", &body.services, violations)))?;
    let shown = ServicesBody { services: services.iter().map(ToString::to_string).collect() };
    let command = SetServices { trustpoint, services, requested_by: call.requester() };
    ask(&call, device, Command::SetServices(command)).await?;
    json(StatusCode::OK, &shown)
}

/// Renews a trustpoint by itself from now on, or not.
///
/// # Errors
/// 404; 422 naming every condition of an update that is missing, when it is switched on (S42).
#[utoipa::path(put, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/auto-update", tag = "Trustpoints",
    operation_id = "trustpoint_auto_update_set", summary = "Renew a trustpoint by itself, or not, over what its policy says",
    request_body = AutoUpdateSet, responses((status = 200, description = "Set", body = TrustpointBody)))]
pub async fn set_auto_update(call: Call, body: Body<AutoUpdateSet>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let enabled = body.check(|body, _| Some(body.enabled))?;
    let context = call
        .tenant_tx("enrollment_context", async |tx| Ok(tx.enrollment_context(device, &trustpoint, None).await?))
        .await?;
    let name = trustpoint.clone();
    let set = SetAutoUpdate { trustpoint, enabled, context, requested_by: call.requester() };
    ask(&call, device, Command::SetAutoUpdate(Box::new(set))).await?;
    json(StatusCode::OK, &read(&call, device, &name).await?)
}

/// The objects of these names (entity, CA server, policy), and those that are unknown; refused at once where one of the
/// limits is reached.
pub(super) async fn find_references(
    call: &Call,
    (entity, ca_server, policy): (&str, &str, &str),
    limits: &[Limit],
) -> Result<(Option<References>, Violations), Problem> {
    call.tenant_tx("trustpoint_references", async |tx| {
        call.check_quota(tx, limits).await?;
        let mut wrong = Violations::new();
        let entity = match wrong.check("entity", "name", entity.parse::<ObjectName>()) {
            Some(name) => resolved(tx.entity_fetch(&name).await, "entity", "entity", &name, &mut wrong)?,
            None => None,
        };
        let ca_server = match wrong.check("ca_server", "name", ca_server.parse::<ObjectName>()) {
            Some(name) => resolved(tx.ca_server_fetch(&name).await, "ca_server", "CA server", &name, &mut wrong)?,
            None => None,
        };
        let policy = match wrong.check("policy", "name", policy.parse::<ObjectName>()) {
            Some(name) => resolved(tx.policy_fetch(&name).await, "policy", "policy", &name, &mut wrong)?,
            None => None,
        };
        let found = match (entity, ca_server, policy) {
            (Some(entity), Some(ca_server), Some(policy)) => {
                Some(References { entity: entity.id, ca_server: ca_server.id, policy: policy.id })
            }
            _ => None,
        };
        Ok((found, wrong))
    })
    .await
}

/// Shows one trustpoint.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}", tag = "Trustpoints",
    operation_id = "trustpoint_show", summary = "Show a trustpoint",
    responses((status = 200, description = "The trustpoint", body = TrustpointBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let (_, found) = find_listed(&call).await?;
    json(StatusCode::OK, &TrustpointBody::from(found))
}

/// Removes a trustpoint; its secret goes with it, its jobs and certificates stay as history.
///
/// # Errors
/// 404, 409 while a request is under way.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}", tag = "Trustpoints",
    operation_id = "trustpoint_delete", summary = "Remove a trustpoint that has nothing under way", responses(
        (status = 204, description = "Removed"),
        (status = 409, description = "A request is under way", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let requested_by = call.requester();
    ask(&call, device, Command::RemoveTrustpoint(RemoveTrustpoint { trustpoint, requested_by })).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Asks for a certificate.
///
/// # Errors
/// 404; 409 while a request of another kind is under way; 422 naming every missing condition (S32).
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/enroll", tag = "Trustpoints",
    operation_id = "trustpoint_enroll", summary = "Ask for a certificate", request_body = EnrollRequest,
    params(IdempotencyKey), responses(
        (status = 202, description = "The job: a new one, the one of the same kind under way, or that of the same key",
            body = JobBody),
        (status = 409, description = "A request of another kind is under way", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn enroll(call: Call, body: Body<EnrollRequest>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let request_key = call.idempotency_key()?;
    let (request, past_floor) = body.check(|body, violations| {
        if body.confirm_floor && !body.force {
            violations.add("confirm_floor", "reissue", "does not go without force: it confirms that you mean it");
        }
        Some((body.request.into(), body.force && body.confirm_floor))
    })?;
    let limits = call.limits(JOBS)?;
    let context = call
        .tenant_tx("enrollment_context", async |tx| {
            let context = tx.enrollment_context(device, &trustpoint, request_key.as_deref()).await?;
            if context.known_job.is_none() {
                call.check_quota(tx, &limits).await?;
            }
            Ok(context)
        })
        .await?;
    let command = Command::Enroll(Box::new(Enroll {
        trustpoint,
        request,
        job_id: JobId::fresh(call.now, id_bytes()?),
        request_key,
        past_floor,
        requested_by: call.requester(),
        traceparent: Some(call.traceparent()?),
        context,
    }));
    accepted(&call, ask_within(&call, device, command, limits).await?).await
}

/// Puts the staged certificate into use; where none is staged, gives the one in use to its services once more.
///
/// # Errors
/// 404; 409 when nothing is staged or something else is under way.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/activate", tag = "Trustpoints",
    operation_id = "trustpoint_activate", summary = "Put the staged certificate into use, or give the one in use to its services once more", responses(
        (status = 202, description = "The job", body = JobBody),
        (status = 409, description = "Nothing is staged, or something is under way", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn activate(call: Call) -> Result<HttpResponse, Problem> {
    let (device, found) = find_listed(&call).await?;
    let limits = call.limits(JOBS)?;
    let ca_server = call
        .tenant_tx("activation_context", async |tx| {
            call.check_quota(tx, &limits).await?;
            Ok(tx.ca_server_fetch(&found.ca_server).await?)
        })
        .await?;
    let command = Command::Activate(Activate {
        trustpoint: found.trustpoint.name,
        replaced_is_revoked: ca_server.spec.quirks.revokes_on_issue,
        job_id: JobId::fresh(call.now, id_bytes()?),
        requested_by: call.requester(),
        traceparent: Some(call.traceparent()?),
    });
    accepted(&call, ask_within(&call, device, command, limits).await?).await
}

/// What limits a job that is asked for by hand.
pub(super) const JOBS: &[Counted] = &[Counted::JobsPerHour, Counted::JobsInFlight];

pub(super) async fn ask(call: &Call, device: DeviceId, command: Command) -> Result<Reply, AppError> {
    ask_within(call, device, command, Vec::new()).await
}

/// The same for a command that makes what these limits count.
pub(super) async fn ask_within(
    call: &Call,
    device: DeviceId,
    command: Command,
    limits: Vec<Limit>,
) -> Result<Reply, AppError> {
    let tenant = call.tenant().map_err(|_| AppError::internal("the route has no tenant"))?.id;
    call.services().registry.ask_within(tenant, device, command, limits).await
}

pub(super) async fn accepted(call: &Call, reply: Reply) -> Result<HttpResponse, Problem> {
    let Reply::Job { job_id } = reply else {
        return Err(AppError::internal("a device answered a request for a job without one").into());
    };
    let job = call.tenant_read("job_show", async |tx| Ok(tx.listed_job_fetch(job_id).await?)).await?;
    json(StatusCode::ACCEPTED, &JobBody::from(job))
}

/// The device and the trustpoint in the path.
pub(super) async fn find_listed(call: &Call) -> Result<(DeviceId, ListedTrustpoint), Problem> {
    let device: ObjectName = call.segment("device", "device")?;
    // A name that no trustpoint can have is looked at after the device: the device may be unknown, too.
    let name: Result<TrustpointName, Problem> = call.segment("trustpoint", "trustpoint");
    let Ok(name) = name else {
        find_device(call, &device).await?;
        return Err(Problem::not_found("trustpoint"));
    };
    call.tenant_read("trustpoint_show", async |tx| {
        if let Some(found) = tx.listed_trustpoint_by_names(&device, &name).await? {
            return Ok(found);
        }
        tx.registered_device_fetch(&device).await?;
        Err(DbError::NotFound { kind: "trustpoint" }.into())
    })
    .await
}

/// The device in the path, and the trustpoint's name if there is such a trustpoint.
pub(super) async fn find(call: &Call) -> Result<(DeviceId, TrustpointName), Problem> {
    let (device, found) = find_listed(call).await?;
    Ok((device, found.trustpoint.name))
}

pub(super) async fn find_device(call: &Call, name: &ObjectName) -> Result<DeviceId, Problem> {
    let found = call.tenant_read("device_show", async |tx| Ok(tx.registered_device_fetch(name).await?)).await?;
    Ok(found.device.id)
}

async fn read(call: &Call, device: DeviceId, name: &TrustpointName) -> Result<TrustpointBody, Problem> {
    let found =
        call.tenant_read("trustpoint_show", async |tx| Ok(tx.listed_trustpoint_fetch(device, name).await?)).await?;
    Ok(found.into())
}
