//! Trustpoints in bulk, by the names of what they refer to. MAC references and secrets have an import of their own and no
//! export; whether one is renewed by itself against its policy is set where its certificate is.

use std::collections::BTreeSet;

use actix_web::HttpResponse;
use serde::{Deserialize, Serialize};
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_model::ids::{DeviceId, TrustpointId};
use trustfleet_model::service;

use super::{ImportQuery, ImportedLine, Outcome, PAGE, Seen, answer, has_room, read, streamed, text_of};
use crate::api::body::Text;
use crate::api::call::{Call, id_bytes};
use crate::api::problem::Problem;
use crate::api::trustpoints::{FILTERS, TrustpointQuery, ask, ask_within, filter_of, find_references};
use crate::db::{Counted, DbError, ListedTrustpoint, TrustpointFilter};
use crate::device::{AddTrustpoint, Command, SetServices};
use crate::error::AppError;
use crate::quota::Limit;

/// A trustpoint as an import takes it and an export gives it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TrustpointLine {
    device: String,
    name: String,
    entity: String,
    ca_server: String,
    policy: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    services: Vec<String>,
}

impl From<ListedTrustpoint> for TrustpointLine {
    fn from(listed: ListedTrustpoint) -> Self {
        Self {
            device: listed.device.into(),
            name: listed.trustpoint.name.to_string(),
            entity: listed.entity.into(),
            ca_server: listed.ca_server.into(),
            policy: listed.policy.into(),
            services: listed.trustpoint.services.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Makes many trustpoints, and binds them to services. Each line is taken as a whole or not at all, one after the other, and
/// the same lines once more change nothing.
///
/// # Errors
/// 400, 413, 415; 422 for too many lines.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/trustpoints/import", tag = "Trustpoints", operation_id = "trustpoint_import",
    summary = "Make many trustpoints", params(ImportQuery),
    request_body(description = "At most 1000 lines: JSON objects with `device`, `name`, `entity`, `ca_server`, `policy` and if \
        wanted `services`, all by their names", content((String = "application/x-ndjson"))),
    responses((status = 200, description = "One JSON object a line, in the order of the lines: `line`, `result` (created, \
        updated, unchanged, refused), `name` as DEVICE/TRUSTPOINT, and why not: `code`, `detail`, `violations`",
        body = String, content_type = "application/x-ndjson")))]
pub async fn import(call: Call, text: Text) -> Result<HttpResponse, Problem> {
    let (lines, dry_run) = read::<TrustpointLine>(&call, &text)?;
    let limits = call.limits(&[Counted::Trustpoints])?;
    let (mut told, mut seen, mut promised) = (Vec::with_capacity(lines.len()), Seen::default(), 0);
    for (line, entry) in lines {
        let name = entry.as_ref().ok().map(|entry| format!("{}/{}", entry.device, entry.name));
        let result = match entry {
            Err(problem) => Err(problem),
            Ok(entry) => match seen.check(&format!("{}/{}", entry.device, entry.name), line) {
                Ok(()) => take(&call, entry, &limits, dry_run.then_some(promised)).await,
                Err(problem) => Err(problem),
            },
        };
        promised += u32::from(dry_run && matches!(result, Ok(Outcome::Created)));
        told.push(ImportedLine::new(line, name, result));
    }
    answer(&told)
}

/// One line; with `tried`, only tried, after so many that would have been made.
async fn take(call: &Call, entry: TrustpointLine, limits: &[Limit], tried: Option<u32>) -> Result<Outcome, Problem> {
    let mut wrong = Violations::new();
    let device = wrong.check("device", "name", entry.device.parse::<ObjectName>());
    let name = wrong.check("name", "S17", entry.name.parse::<TrustpointName>());
    let services = service::read_names("services", &entry.services, &mut wrong);
    let named = (entry.entity.as_str(), entry.ca_server.as_str(), entry.policy.as_str());
    let (references, unknown) = find_references(call, named, &[]).await?;
    for violation in unknown.into_vec() {
        wrong.add(violation.field, violation.rule, violation.message);
    }
    wrong.into_result().map_err(AppError::from)?;
    let (Some(device), Some(name), Some(references)) = (device, name, references) else {
        return Err(AppError::internal("a line that is wrong was not refused").into());
    };
    let (device, present) = find(call, &device, &name).await?;
    if let Some(present) = present {
        return follow(call, (device, name), present, entry, services, tried.is_some()).await;
    }
    if let Some(promised) = tried {
        call.tenant_tx("trustpoint_import", async |tx| {
            has_room(call, tx, limits, promised).await?;
            let of_device = TrustpointFilter { device: Some(entry.device.clone()), ..TrustpointFilter::default() };
            let others = tx.trustpoint_search(&of_device, PAGE).await?;
            free(&services, &others)
        })
        .await?;
        return Ok(Outcome::Created);
    }
    let add = AddTrustpoint {
        id: TrustpointId::fresh(call.now, id_bytes()?),
        name,
        entity_id: references.entity,
        ca_server_id: references.ca_server,
        policy_id: references.policy,
        mac: None,
        mac_one_time: false,
        services,
        binding: None,
        requested_by: call.requester(),
    };
    ask_within(call, device, Command::AddTrustpoint(Box::new(add)), limits.to_vec()).await?;
    Ok(Outcome::Created)
}

async fn find(
    call: &Call,
    device: &ObjectName,
    name: &TrustpointName,
) -> Result<(DeviceId, Option<ListedTrustpoint>), Problem> {
    call.tenant_tx("trustpoint_show", async |tx| {
        let device = tx.registered_device_fetch(device).await?.device.id;
        match tx.listed_trustpoint_fetch(device, name).await {
            Ok(found) => Ok((device, Some(found))),
            Err(DbError::NotFound { .. }) => Ok((device, None)),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// A trustpoint that is there: its services can be changed, what it refers to not.
async fn follow(
    call: &Call,
    (device, name): (DeviceId, TrustpointName),
    present: ListedTrustpoint,
    wanted: TrustpointLine,
    services: Vec<ObjectName>,
    tried: bool,
) -> Result<Outcome, Problem> {
    let present = TrustpointLine::from(present);
    let refers = |line: &TrustpointLine| (line.entity.clone(), line.ca_server.clone(), line.policy.clone());
    if refers(&present) != refers(&wanted) {
        let (entity, ca_server, policy) = refers(&present);
        let detail = format!(
            "there is one of this name with entity {entity}, CA server {ca_server} and policy {policy}: delete it first"
        );
        return Err(AppError::Conflict { code: "differs", detail }.into());
    }
    let set = |services: &[String]| services.iter().cloned().collect::<BTreeSet<_>>();
    if set(&present.services) == set(&wanted.services) {
        return Ok(Outcome::Unchanged);
    }
    if !tried {
        let command = SetServices { trustpoint: name, services, requested_by: call.requester() };
        ask(call, device, Command::SetServices(command)).await?;
    }
    Ok(Outcome::Updated)
}

/// Whether no other trustpoint has one of these services (S40).
fn free(services: &[ObjectName], others: &[ListedTrustpoint]) -> Result<(), AppError> {
    for other in others {
        if let Some(taken) = services.iter().find(|service| other.trustpoint.services.contains(service)) {
            let detail = format!("trustpoint {} of the device has the service {taken}", other.trustpoint.name);
            return Err(AppError::Conflict { code: "service_taken", detail });
        }
    }
    Ok(())
}

/// Writes all trustpoints, or those that are wanted, as an import takes them.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/trustpoints/export", tag = "Trustpoints", operation_id = "trustpoint_export",
    summary = "All trustpoints as lines that an import takes, by names and without secrets", params(TrustpointQuery),
    responses((status = 200, description = "One JSON object a line; an answer that breaks off is not whole", body = String,
        content_type = "application/x-ndjson")))]
pub async fn export(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&FILTERS)?;
    let filter = filter_of(&list, list.filter("device"))?;
    streamed(filter, async move |mut filter: TrustpointFilter| {
        let rows =
            call.tenant_tx("trustpoint_export", async |tx| Ok(tx.trustpoint_search(&filter, PAGE).await?)).await?;
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= PAGE;
        filter.after = rows.last().map(|row| row.trustpoint.id);
        let lines: Vec<TrustpointLine> = rows.into_iter().map(TrustpointLine::from).collect();
        Ok((text_of(&lines)?, is_full.then_some(filter)))
    })
    .await
}
