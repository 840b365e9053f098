//! Revocation: one certificate, or all that a device or the devices of an agent have. Under four eyes where the tenant
//! wants them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{CertificateId, JobId};
use trustfleet_model::revocation::Revocation;
use uuid::Uuid;

use super::body::Body;
use super::call::{Call, id_bytes};
use super::changes;
use super::dto::certificate::CertificateBody;
use super::dto::revocation::{RevokeManyRequest, RevokeRequest, RevokedManyBody};
use super::problem::{Problem, ProblemBody, json};
use crate::db::{Change, Condemn, TenantTx};
use crate::device::{Command, Revoke};
use crate::error::AppError;

/// Revokes a certificate.
///
/// # Errors
/// 404; 409 when it is revoked, or its trustpoint is gone; 422 naming everything that stands in the way (S32).
#[utoipa::path(post, path = "/v1/tenants/{tenant}/certificates/{certificate}/revoke", tag = "Certificates",
    operation_id = "certificate_revoke", summary = "Have a certificate revoked by its CA, or note that it was",
    request_body = RevokeRequest, responses(
        (status = 200, description = "A job asks for it, or it is noted: `revocation` tells how far it is", body = CertificateBody),
        (status = 409, description = "It is revoked already, or its trustpoint is gone", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn certificate(call: Call, body: Body<RevokeRequest>) -> Result<HttpResponse, Problem> {
    let id: CertificateId = call.segment("certificate", "certificate")?;
    call.tenant_read("certificate_show", async |tx| Ok(tx.listed_certificate_fetch(id).await?)).await?;
    let wanted = body.check(|body, _| Some(body))?;
    if changes::is_held(&call, "certificate_revoke")? {
        let name = object_name(id.as_uuid())?;
        let look = async |_: &TenantTx| Ok(None);
        return changes::propose(&call, "certificate_revoke", "certificate", &name, Some(&wanted), look).await;
    }
    let found = call.tenant_tx("revocation_context", async |tx| Ok(tx.revocation_context(id, call.now).await?)).await?;
    let found = found.ok_or_else(|| AppError::Conflict {
        code: "trustpoint_removed",
        detail: "the certificate's trustpoint is gone, and with it whom to ask: revoke it at its CA".to_owned(),
    })?;
    let command = Command::Revoke(Box::new(Revoke {
        trustpoint_id: found.trustpoint_id,
        certificate: found.facts,
        reason: wanted.reason.into(),
        by_hand: wanted.by_hand,
        unattended: false,
        job_id: JobId::fresh(call.now, id_bytes()?),
        requested_by: call.requester(),
        traceparent: Some(call.traceparent()?),
        context: found.context,
    }));
    call.services().registry.ask(call.tenant()?.id, found.device_id, command).await?;
    let found = call.tenant_read("certificate_show", async |tx| Ok(tx.listed_certificate_fetch(id).await?)).await?;
    json(StatusCode::OK, &CertificateBody::from(found.listed))
}

/// Revokes all valid certificates of a device.
///
/// # Errors
/// 404, 422.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/devices/{device}/revoke", tag = "Devices",
    operation_id = "device_revoke", summary = "Have all valid certificates of a device revoked",
    request_body = RevokeManyRequest, responses(
        (status = 200, description = "They are asked for from now on: follow them in the list of certificates", body = RevokedManyBody)))]
pub async fn device(call: Call, body: Body<RevokeManyRequest>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("device", "device")?;
    call.tenant_read("device_show", async |tx| Ok(tx.registered_device_fetch(&name).await?)).await?;
    many(&call, body, "device_revoke", "device", &name).await
}

/// Revokes all valid certificates of the devices that an agent is in front of.
///
/// # Errors
/// 404, 422.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/agents/{agent}/revoke", tag = "Agents",
    operation_id = "agent_revoke", summary = "Have all valid certificates of an agent's devices revoked: it was stolen",
    request_body = RevokeManyRequest, responses(
        (status = 200, description = "They are asked for from now on: follow them in the list of certificates", body = RevokedManyBody)))]
pub async fn agent(call: Call, body: Body<RevokeManyRequest>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("agent", "agent")?;
    call.tenant_read("agent_show", async |tx| Ok(tx.agent_fetch(&name).await?)).await?;
    many(&call, body, "agent_revoke", "agent", &name).await
}

async fn many(
    call: &Call,
    body: Body<RevokeManyRequest>,
    operation: &'static str,
    kind: &'static str,
    name: &ObjectName,
) -> Result<HttpResponse, Problem> {
    let wanted = body.check(|body, _| Some(body))?;
    let wanted = RevokeRequest { reason: wanted.reason, by_hand: false };
    if changes::is_held(call, operation)? {
        return changes::propose(call, operation, kind, name, Some(&wanted), async |_: &TenantTx| Ok(None)).await;
    }
    let certificates =
        call.tenant_tx("revocation_want", async |tx| condemn(call, tx, kind, name, wanted).await).await?;
    json(StatusCode::OK, &RevokedManyBody { certificates })
}

/// Carries out an approved change.
///
/// # Errors
/// Its object is gone; the database's own.
pub(super) async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
    let proposal = change.proposal.clone().unwrap_or_default();
    let wanted: RevokeRequest =
        serde_json::from_value(proposal).map_err(|error| AppError::Internal { source: Box::new(error) })?;
    condemn(call, tx, &change.object_kind, &change.object_name, wanted).await.map(drop)
}

/// Marks certificates as to be revoked; they are asked for within a second or two.
async fn condemn(
    call: &Call,
    tx: &TenantTx,
    kind: &str,
    name: &ObjectName,
    wanted: RevokeRequest,
) -> Result<u64, AppError> {
    let (whose, kind, id) = match kind {
        "certificate" => {
            let id: CertificateId =
                name.as_str().parse().map_err(|_| AppError::internal("a certificate's id is none"))?;
            tx.listed_certificate_fetch(id).await?;
            (Condemn::Certificate(id), "certificate", id.as_uuid())
        }
        "device" => {
            let id = tx.registered_device_fetch(name).await?.device.id;
            (Condemn::Device(id), "device", id.as_uuid())
        }
        _ => {
            let id = tx.agent_fetch(name).await?.id;
            (Condemn::Agent(id), "agent", id.as_uuid())
        }
    };
    let reason = wanted.reason.into();
    let revocation = Revocation { by_hand: wanted.by_hand, ..Revocation::wanted(reason, call.actor(), call.now) };
    let certificates = tx.revocation_want(whose, &revocation, call.now).await?;
    let detail = json!({ "name": name.as_str(), "reason": reason, "certificates": certificates });
    call.note(tx, "revocation_wanted", kind, id, detail).await?;
    Ok(certificates)
}

fn object_name(id: Uuid) -> Result<ObjectName, Problem> {
    id.to_string().parse().map_err(|_| AppError::internal("an id is no name").into())
}
