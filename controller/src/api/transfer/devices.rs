//! Devices in bulk.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use serde::Serialize;
use trustfleet_model::field::Violations;
use trustfleet_model::ids::DeviceId;

use super::{Halt, ImportQuery, ImportedLine, Outcome, PAGE, Seen, answer, has_room, read, streamed, text_of};
use crate::api::body::Text;
use crate::api::call::{Call, id_bytes, resolved};
use crate::api::devices::{DeviceQuery, change, one_active, read_name, register};
use crate::api::dto::device::{DeviceBody, DeviceCreate};
use crate::api::problem::Problem;
use crate::db::{Counted, DbError, DeviceFilter, RegisteredDevice};
use crate::error::AppError;
use crate::quota::Limit;

/// Registers and changes many devices. A line is the whole of a device, as for its registration; each is taken as a whole or
/// not at all, one after the other, and the same lines once more change nothing.
///
/// # Errors
/// 400, 413, 415; 422 for too many lines.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/import", tag = "Devices", operation_id = "device_import",
    summary = "Register and change many devices", params(ImportQuery),
    request_body(description = "At most 1000 lines: JSON objects as for the registration of a device (`DeviceCreate`)",
        content((String = "application/x-ndjson"))),
    responses((status = 200, description = "One JSON object a line, in the order of the lines: `line`, `result` (created, \
        updated, unchanged, refused), `name`, and why not: `code`, `detail`, `violations`",
        body = String, content_type = "application/x-ndjson")))]
pub async fn import(call: Call, text: Text) -> Result<HttpResponse, Problem> {
    let (lines, dry_run) = read::<DeviceCreate>(&call, &text)?;
    let limits = call.limits(&[Counted::Devices])?;
    let (mut told, mut seen, mut promised) = (Vec::with_capacity(lines.len()), Seen::default(), 0);
    for (line, entry) in lines {
        let name = entry.as_ref().ok().map(|entry| entry.name.clone());
        let result = match entry {
            Err(problem) => Err(problem),
            Ok(entry) => match seen.check(&entry.name, line) {
                Ok(()) => take(&call, entry, &limits, dry_run.then_some(promised)).await,
                Err(problem) => Err(problem),
            },
        };
        promised += u32::from(dry_run && matches!(result, Ok(Outcome::Created)));
        told.push(ImportedLine::new(line, name, result));
    }
    answer(&told)
}

/// One line; with `tried`, only tried, after so many that would have been registered.
async fn take(call: &Call, entry: DeviceCreate, limits: &[Limit], tried: Option<u32>) -> Result<Outcome, Problem> {
    let mut wrong = Violations::new();
    let (name, rest) = entry.split();
    let name = read_name(&name, &mut wrong);
    let registration = rest.check(&mut wrong);
    wrong.into_result().map_err(AppError::from)?;
    let Some(name) = name else { return Err(AppError::internal("a name that is none was not refused").into()) };
    let (tenant, id) = (call.tenant()?.id, DeviceId::fresh(call.now, id_bytes()?));
    let done: Result<Outcome, Halt> = call
        .services()
        .store
        .counted_tx(tenant, "device_import", async |tx| {
            let mut unknown = Violations::new();
            let agent_id = match &registration.agent {
                Some(agent) => resolved(tx.agent_fetch(agent).await, "agent", "agent", agent, &mut unknown)?,
                None => None,
            };
            let agent_id = agent_id.map(|agent| agent.id);
            unknown.into_result().map_err(AppError::from)?;
            let outcome = match tx.registered_device_fetch(&name).await {
                Ok(present) => {
                    let wanted = registration.clone().device(tenant, present.device.id, name.clone(), agent_id);
                    if wanted == present.device {
                        return Ok(Outcome::Unchanged);
                    }
                    change(call, tx, present, wanted).await?;
                    Outcome::Updated
                }
                Err(DbError::NotFound { .. }) => {
                    has_room(call, tx, limits, tried.unwrap_or_default()).await?;
                    let device = registration.clone().device(tenant, id, name.clone(), agent_id);
                    one_active(tx, &device).await?;
                    register(call, tx, &device).await?;
                    Outcome::Created
                }
                Err(error) => return Err(error.into()),
            };
            if tried.is_some() { Err(Halt::Tried(outcome)) } else { Ok(outcome) }
        })
        .await;
    match done {
        Ok(outcome) | Err(Halt::Tried(outcome)) => Ok(outcome),
        Err(Halt::Refused(error)) => Err(error.into()),
    }
}

/// A device as an import takes it.
#[derive(Serialize)]
struct DeviceLine {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pair: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    standby: bool,
}

impl From<RegisteredDevice> for DeviceLine {
    fn from(registered: RegisteredDevice) -> Self {
        let DeviceBody { name, agent, serial, mac, labels, pair, standby, .. } = registered.into();
        Self { name, agent, serial, mac, labels, pair, standby }
    }
}

/// Writes all devices, or those that are wanted, as an import takes them.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/devices/export", tag = "Devices", operation_id = "device_export",
    summary = "All devices as lines that an import takes, by name", params(DeviceQuery),
    responses((status = 200, description = "One JSON object a line; an answer that breaks off is not whole", body = String,
        content_type = "application/x-ndjson")))]
pub async fn export(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["agent", "selector"])?;
    let filter = DeviceFilter { agent: list.owned("agent"), labels: list.selector()?, after: None };
    streamed(filter, async move |mut filter: DeviceFilter| {
        let rows = call.tenant_tx("device_export", async |tx| Ok(tx.device_search(&filter, PAGE).await?)).await?;
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= PAGE;
        filter.after = rows.last().map(|row| row.device.name.to_string());
        let lines: Vec<DeviceLine> = rows.into_iter().map(DeviceLine::from).collect();
        Ok((text_of(&lines)?, is_full.then_some(filter)))
    })
    .await
}
