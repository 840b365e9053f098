//! Devices: what operators register about them. What happens to their trustpoints is the device actors' business.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::device::Device;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_model::ids::{AgentId, DeviceId};
use trustfleet_model::revocation::{Revocation, RevocationReason};
use utoipa::IntoParams;

use super::body::{Body, Findings};
use super::call::{Call, ListQuery, id_bytes, name_taken, resolved};
use super::changes;
use super::dto::Page;
use super::dto::device::{DeviceBody, DeviceCreate, DeviceUpdate, Registration};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{Condemn, Counted, DbError, DeviceFilter, LeavingDevice, RegisteredDevice, TenantTx};
use crate::error::AppError;

/// Filters of the list of devices.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct DeviceQuery {
    /// Only devices behind the agent of this name.
    agent: Option<String>,
    /// Only devices with all of these labels: `KEY=VALUE`, several with commas between them.
    #[param(example = "site=berlin,role=edge")]
    selector: Option<String>,
}

/// Lists devices by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices", tag = "Devices", operation_id = "device_list",
    summary = "List devices by name", params(ListQuery, DeviceQuery),
    responses((status = 200, description = "A part of the list", body = Page<DeviceBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["agent", "selector"])?;
    let filter =
        DeviceFilter { agent: list.owned("agent"), labels: list.selector()?, after: list.after().map(str::to_owned) };
    let rows = call.tenant_tx("device_list", async |tx| Ok(tx.device_search(&filter, list.rows()).await?)).await?;
    let page: Page<DeviceBody> = list.page(rows, |row| row.device.name.to_string());
    json(StatusCode::OK, &page)
}

/// Registers a device.
///
/// # Errors
/// 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices", tag = "Devices", operation_id = "device_create",
    summary = "Register a device", request_body = DeviceCreate, responses(
        (status = 201, description = "Registered", body = DeviceBody),
        (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<DeviceCreate>) -> Result<HttpResponse, Problem> {
    let (body, mut findings) = body.open();
    let read = body.map(|body| {
        let (name, rest) = body.split();
        let name = read_name(&name, &mut findings.rules);
        (name, rest.check(&mut findings.rules))
    });
    let agent_id = find_agent(&call, read.as_ref().map(|(_, registration)| registration), &mut findings).await?;
    let (name, registration) = findings.finish(read.and_then(|(name, rest)| name.map(|name| (name, rest))))?;
    let id = DeviceId::fresh(call.now, id_bytes()?);
    let device = registration.device(call.tenant()?.id, id, name, agent_id);
    let limits = call.limits(&[Counted::Devices])?;
    let made = call
        .services()
        .store
        .counted_tx(call.tenant()?.id, "device_create", async |tx| {
            call.check_quota(tx, &limits).await?;
            one_active(tx, &device).await?;
            register(&call, tx, &device).await
        })
        .await?;
    call.created(device.name.as_str(), &DeviceBody::from(made))
}

/// Shows one device.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/{device}", tag = "Devices", operation_id = "device_show",
    summary = "Show a device", responses((status = 200, description = "The device", body = DeviceBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    let found = call.tenant_read("device_show", async |tx| Ok(tx.registered_device_fetch(&name).await?)).await?;
    json(StatusCode::OK, &DeviceBody::from(found))
}

/// Changes what is registered.
///
/// # Errors
/// 404, 409 when the agent is to change while a job is under way, 422 with everything that is wrong.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/devices/{device}", tag = "Devices", operation_id = "device_update",
    summary = "Change a device: all of it, the name stays", request_body = DeviceUpdate, responses(
        (status = 200, description = "Changed", body = DeviceBody),
        (status = 409, description = "A job is under way at the present agent", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn update(call: Call, body: Body<DeviceUpdate>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    call.tenant_read("device_show", async |tx| Ok(tx.registered_device_fetch(&name).await?)).await?;
    let (body, mut findings) = body.open();
    let registration = body.map(|body| body.check(&mut findings.rules));
    let agent_id = find_agent(&call, registration.as_ref(), &mut findings).await?;
    let registration = findings.finish(registration)?;
    let changed = call
        .tenant_tx("device_update", async |tx| {
            let registered = tx.registered_device_fetch(&name).await?;
            let present = &registered.device;
            let wanted = registration.clone().device(present.tenant_id, present.id, present.name.clone(), agent_id);
            change(&call, tx, registered, wanted).await
        })
        .await?;
    json(StatusCode::OK, &DeviceBody::from(changed))
}

/// What becomes of a device's certificates.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct DeviceLeave {
    /// `keep`: its valid certificates stay valid, and are forgotten here. `revoke`: it leaves, and is deleted when they are
    /// revoked. Left out: it is deleted only if it has no trustpoint and no history.
    certificates: Option<String>,
}

/// Deletes a device.
///
/// # Errors
/// 404; 409 while a job is under way, and without `certificates` while it has trustpoints or a history; 422.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/devices/{device}", tag = "Devices", operation_id = "device_delete",
    summary = "Delete a device with everything that is its own", params(DeviceLeave), responses(
        (status = 202, description = "It leaves: it is gone when its certificates are revoked", body = DeviceBody),
        (status = 204, description = "Deleted"),
        (status = 409, description = "A job is under way; or it has trustpoints or a history, and it was not said what becomes \
            of its certificates", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    let present = call.tenant_read("device_show", async |tx| Ok(tx.registered_device_fetch(&name).await?)).await?;
    let certificates = match call.query("certificates").as_deref() {
        None => "none",
        Some("keep") => "keep",
        Some("revoke") => return leave(&call, &name).await,
        Some(_) => {
            let message = "must be keep or revoke: say what becomes of the device's certificates";
            return Err(Problem::invalid("certificates", "choice", message));
        }
    };
    let id = present.device.id;
    if certificates == "none" {
        let jobs = call.tenant_tx("device_jobs", async |tx| Ok(tx.registered_device_jobs(id).await?.1)).await?;
        untouched(&present, jobs)?;
    }
    let tenant = call.tenant()?.id;
    let trustpoints: Result<Vec<TrustpointName>, DbError> =
        call.services().store.system_tx("device_trustpoints", async |tx| tx.device_trustpoints(tenant, id).await).await;
    let leaving = LeavingDevice {
        tenant_id: tenant,
        id,
        name,
        agent_id: present.device.agent_id,
        by: call.actor(),
        trustpoints: trustpoints?,
    };
    call.services().leaver().remove(&leaving, &call.requester(), certificates).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A device goes without a word about its certificates only if it never had any.
fn untouched(present: &RegisteredDevice, jobs: i64) -> Result<(), AppError> {
    const SAY: &str = "say what becomes of its certificates: ?certificates=keep or revoke";
    if present.trustpoints > 0 {
        let detail = format!("the device has {} trustpoint(s): delete them first, or {SAY}", present.trustpoints);
        return Err(AppError::Conflict { code: "has_trustpoints", detail });
    }
    if jobs > 0 {
        let detail = format!("the device has a history of {jobs} job(s), which goes with it: {SAY}");
        return Err(AppError::Conflict { code: "has_history", detail });
    }
    Ok(())
}

/// Its certificates are revoked, then it goes.
async fn leave(call: &Call, name: &ObjectName) -> Result<HttpResponse, Problem> {
    if changes::is_held(call, "device_revoke")? {
        let detail = "revoking certificates needs another administrator's approval in this tenant: have them revoked first \
                      (…/revoke), then delete the device with ?certificates=keep";
        return Err(AppError::Conflict { code: "needs_approval", detail: detail.to_owned() }.into());
    }
    let left = call
        .tenant_tx("device_leave", async |tx| {
            let present = tx.registered_device_fetch(name).await?.device;
            let revocation = Revocation::wanted(RevocationReason::CessationOfOperation, call.actor(), call.now);
            tx.device_leave(present.id, &call.actor(), call.now).await?;
            let revoked = tx.revocation_want(Condemn::Device(present.id), &revocation, call.now).await?;
            let detail = json!({"name": name.as_str(), "certificates": "revoke", "revoked": revoked});
            call.note(tx, "device_leaves", "device", present.id.as_uuid(), detail).await?;
            Ok(tx.registered_device_fetch(name).await?)
        })
        .await?;
    json(StatusCode::ACCEPTED, &DeviceBody::from(left))
}

/// Makes a device the active node of its pair.
///
/// # Errors
/// 404; 409 where it belongs to no pair.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/switch-over", tag = "Devices",
    operation_id = "device_switch_over", summary = "Make a device the active node of its pair; the others stand by", responses(
        (status = 200, description = "It is active; it applies where it has no valid certificate", body = DeviceBody),
        (status = 409, description = "It belongs to no pair", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn switch_over(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    let active = call
        .tenant_tx("device_switch_over", async |tx| {
            let device = tx.registered_device_fetch(&name).await?.device;
            let Some(pair) = device.pair else {
                let detail = "the device belongs to no pair: give it one first (pair)";
                return Err(AppError::Conflict { code: "no_pair", detail: detail.to_owned() });
            };
            let others = tx.pair_switch(&pair, device.id, call.now).await?;
            let detail = json!({"name": name.as_str(), "pair": pair.as_ref(), "standing_by": others});
            call.note(tx, "device_switched_over", "device", device.id.as_uuid(), detail).await?;
            Ok(tx.registered_device_fetch(&name).await?)
        })
        .await?;
    json(StatusCode::OK, &DeviceBody::from(active))
}

/// A pair has one active node (S47).
pub(super) async fn one_active(tx: &TenantTx, device: &Device) -> Result<(), AppError> {
    let Some(pair) = device.pair.as_ref().filter(|_| !device.standby) else { return Ok(()) };
    match tx.pair_active(pair, device.id).await? {
        None => Ok(()),
        Some(active) => {
            let detail = format!(
                "{active} is the active node of the pair {}: register this device as standby, then switch over",
                pair.as_ref()
            );
            Err(AppError::Conflict { code: "pair_has_active", detail })
        }
    }
}

async fn find_agent(
    call: &Call,
    registration: Option<&Registration>,
    findings: &mut Findings,
) -> Result<Option<AgentId>, Problem> {
    let Some(name) = registration.and_then(|registration| registration.agent.as_ref()) else { return Ok(None) };
    let (agent, unknown) = call
        .tenant_tx("device_agent", async |tx| {
            let mut unknown = Violations::new();
            let found = resolved(tx.agent_fetch(name).await, "agent", "agent", name, &mut unknown)?;
            Ok((found.map(|agent| agent.id), unknown))
        })
        .await?;
    findings.add(unknown);
    Ok(agent)
}

/// Names that a device cannot have: they are paths of the API.
const RESERVED: [&str; 3] = ["import", "export", "at-risk"];

/// The name of a new device.
pub(super) fn read_name(text: &str, violations: &mut Violations) -> Option<ObjectName> {
    if RESERVED.contains(&text) {
        violations.add("name", "reserved", format!("{text} is a path of the API: choose another name"));
        return None;
    }
    violations.check("name", "name", text.parse::<ObjectName>())
}

/// Registers a device.
///
/// # Errors
/// The name is taken; the database's own.
pub(super) async fn register(call: &Call, tx: &TenantTx, device: &Device) -> Result<RegisteredDevice, AppError> {
    tx.registered_device_insert(device, call.now).await.map_err(|error| name_taken(error, "device"))?;
    let made = tx.registered_device_fetch(&device.name).await?;
    let (object, after) = (("device", device.id.as_uuid()), shown(&DeviceBody::from(made.clone())));
    let detail = json!({"name": device.name.as_str()});
    call.note_change(tx, "device_created", object, None, Some(after), detail).await?;
    Ok(made)
}

/// Changes what is registered of a device.
///
/// # Errors
/// A job is under way at the agent that it is to leave, its pair has another active node; the database's own.
pub(super) async fn change(
    call: &Call,
    tx: &TenantTx,
    registered: RegisteredDevice,
    wanted: Device,
) -> Result<RegisteredDevice, AppError> {
    let before = shown(&DeviceBody::from(registered.clone()));
    let present = registered.device;
    if present.agent_id != wanted.agent_id && tx.registered_device_jobs(present.id).await?.0 > 0 {
        let detail = "a job is under way at the device's present agent: wait until it has ended";
        return Err(AppError::Conflict { code: "job_under_way", detail: detail.to_owned() });
    }
    one_active(tx, &wanted).await?;
    tx.registered_device_update(&wanted, call.now).await?;
    let changed = tx.registered_device_fetch(&wanted.name).await?;
    let after = shown(&DeviceBody::from(changed.clone()));
    let (object, detail) = (("device", wanted.id.as_uuid()), json!({"name": wanted.name.as_str()}));
    call.note_change(tx, "device_updated", object, Some(before), Some(after), detail).await?;
    Ok(changed)
}
