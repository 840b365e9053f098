//! Recovery of trustpoints whose certificate has ended while the device was away: armed and disarmed by operators.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use trustfleet_model::recovery::{RecoveryBy, check_until};
use trustfleet_model::trustpoint::secret_warning;

use super::body::Body;
use super::call::Call;
use super::dto::recovery::{RecoveryArm, RecoveryByBody};
use super::dto::trustpoint::TrustpointBody;
use super::mac::{check_mac, drop_unused, store_secret};
use super::problem::{Problem, ProblemBody, json};
use super::trustpoints::{ask, find, find_listed};
use crate::device::{ArmRecovery, Command, DisarmRecovery};

/// Arms a recovery; what was armed before is replaced.
///
/// # Errors
/// 404; 409 while the job of the former one is under way; 422 with everything that is wrong, or without an agent.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/recovery", tag = "Trustpoints",
    operation_id = "trustpoint_recovery_arm", request_body = RecoveryArm,
    summary = "Arm what a certificate is asked for by, once, when the one in use has ended while the device was away", responses(
        (status = 200, description = "Armed, for the agent's present key", body = TrustpointBody),
        (status = 409, description = "The job of the former one is under way", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn arm(call: Call, body: Body<RecoveryArm>) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let wanted = body.check(|body, violations| {
        check_until("until", body.until, call.now, violations);
        match (&body.mac, body.by) {
            (Some(mac), RecoveryByBody::Mac) => check_mac("mac.", mac, violations),
            (None, RecoveryByBody::Mac) => {
                violations.add(
                    "mac",
                    "S12",
                    "is missing: give the reference and the secret that the CA knows for this",
                );
            }
            (Some(_), RecoveryByBody::FactoryIdentity) => {
                violations.add("mac", "recovery", "does not go with factory_identity: leave it out");
            }
            (None, RecoveryByBody::FactoryIdentity) => {}
        }
        Some(body)
    })?;
    let context = call
        .tenant_tx("enrollment_context", async |tx| Ok(tx.enrollment_context(device, &trustpoint, None).await?))
        .await?;
    let warning = wanted.mac.as_ref().and_then(|mac| secret_warning(mac.secret.expose()));
    let with = match wanted.mac {
        Some(mac) => RecoveryBy::Mac { mac: store_secret(&call, mac).await? },
        None => RecoveryBy::FactoryIdentity,
    };
    let secret = with.secret_id();
    let command = Command::ArmRecovery(Box::new(ArmRecovery {
        trustpoint,
        with,
        until: wanted.until,
        agent_key_sha256: context.agent_key_sha256,
        requested_by: call.requester(),
    }));
    if let Err(error) = ask(&call, device, command).await {
        if let Some(secret) = secret {
            drop_unused(&call, secret, &error).await;
        }
        return Err(error.into());
    }
    let (_, armed) = find_listed(&call).await?;
    let mut shown = TrustpointBody::from(armed);
    shown.warnings.extend(warning);
    json(StatusCode::OK, &shown)
}

/// Disarms a recovery; its secret is deleted.
///
/// # Errors
/// 404; 409 while its job is under way.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/recovery", tag = "Trustpoints",
    operation_id = "trustpoint_recovery_disarm", summary = "Disarm a recovery; its secret is deleted", responses(
        (status = 204, description = "Nothing is armed"),
        (status = 409, description = "Its job is under way", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn disarm(call: Call) -> Result<HttpResponse, Problem> {
    let (device, trustpoint) = find(&call).await?;
    let requested_by = call.requester();
    ask(&call, device, Command::DisarmRecovery(DisarmRecovery { trustpoint, only_when_over: false, requested_by }))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}
