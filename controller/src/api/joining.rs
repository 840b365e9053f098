//! How agents come in without a token, as operators arrange it: factory CAs, expected serial numbers, applicants.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::device::{Labels, Word};
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{ApplicantId, ExpectedId, FactoryCaId};
use trustfleet_pki::Certificate;
use trustfleet_wire::sign::key_id;

use super::body::Body;
use super::call::{Call, ListQuery, id_bytes, name_taken};
use super::dto::Page;
use super::dto::joining::{ApplicantBody, ExpectedAgentBody, ExpectedAgentCreate, FactoryCaBody, FactoryCaCreate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{ApplicantState, ExpectedAgent, FactoryCa};
use crate::error::AppError;

/// Most anchors of one factory CA.
const ANCHORS_MAX: usize = 16;

/// Lists factory CAs by name.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/factory-cas", tag = "Agents", operation_id = "factory_ca_list",
    summary = "List factory CAs by name", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<FactoryCaBody>)))]
pub async fn factory_ca_list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call
        .tenant_read("factory_ca_list", async |tx| Ok(tx.factory_ca_list(list.after(), list.rows()).await?))
        .await?;
    let page: Page<FactoryCaBody> = list.page(rows, |ca| ca.name.to_string());
    json(StatusCode::OK, &page)
}

/// Registers a factory CA.
///
/// # Errors
/// 409 when the name is taken, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/factory-cas", tag = "Agents", operation_id = "factory_ca_create",
    summary = "Register a CA whose factory identities (IDevID) let agents in", request_body = FactoryCaCreate, responses(
        (status = 201, description = "Registered", body = FactoryCaBody),
        (status = 409, description = "The name is taken", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn factory_ca_create(call: Call, body: Body<FactoryCaCreate>) -> Result<HttpResponse, Problem> {
    let id = FactoryCaId::fresh(call.now, id_bytes()?);
    let ca = body.check(|body, violations| {
        let name = violations.check("name", "name", body.name.parse::<ObjectName>());
        if body.anchors.is_empty() || body.anchors.len() > ANCHORS_MAX {
            let message = format!("has {} certificates; 1 to {ANCHORS_MAX} are allowed", body.anchors.len());
            violations.add("anchors", "count", message);
        }
        for (i, pem) in body.anchors.iter().enumerate() {
            let field = format!("anchors[{i}]");
            if let Some(anchor) = violations.check(&field, "certificate", Certificate::from_pem(pem))
                && !anchor.is_ca()
                && !anchor.is_self_issued()
            {
                violations.add(field, "ca", "is no CA certificate: give the CA that issued the identities");
            }
        }
        let labels = Labels::parse(&body.labels, violations);
        let (serial_from, expected_only, created_at) = (body.serial_from.into(), body.expected_only, call.now);
        Some(FactoryCa { id, name: name?, anchors: body.anchors, serial_from, expected_only, labels, created_at })
    })?;
    call.tenant_tx("factory_ca_create", async |tx| {
        tx.factory_ca_insert(&ca).await.map_err(|error| name_taken(error, "factory CA"))?;
        let after = shown(&FactoryCaBody::from(ca.clone()));
        let object = ("factory_ca", id.as_uuid());
        Ok(call.note_change(tx, "factory_ca_created", object, None, Some(after), json!({})).await?)
    })
    .await?;
    call.created(ca.name.clone().as_str(), &FactoryCaBody::from(ca))
}

/// Shows one factory CA.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/factory-cas/{factory_ca}", tag = "Agents",
    operation_id = "factory_ca_show", summary = "Show a factory CA",
    responses((status = 200, description = "The factory CA", body = FactoryCaBody)))]
pub async fn factory_ca_show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("factory_ca", "factory CA")?;
    let ca = call.tenant_read("factory_ca_show", async |tx| Ok(tx.factory_ca_fetch(&name).await?)).await?;
    json(StatusCode::OK, &FactoryCaBody::from(ca))
}

/// Forgets a factory CA.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/factory-cas/{factory_ca}", tag = "Agents",
    operation_id = "factory_ca_delete", summary = "Forget a factory CA; agents that came in by it stay",
    responses((status = 204, description = "Forgotten")))]
pub async fn factory_ca_delete(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("factory_ca", "factory CA")?;
    call.tenant_tx("factory_ca_delete", async |tx| {
        let present = tx.factory_ca_fetch(&name).await?;
        tx.factory_ca_delete(present.id).await?;
        let object = ("factory_ca", present.id.as_uuid());
        let before = shown(&FactoryCaBody::from(present));
        Ok(call.note_change(tx, "factory_ca_deleted", object, Some(before), None, json!({})).await?)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists expected serial numbers.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/expected-agents", tag = "Agents", operation_id = "expected_agent_list",
    summary = "List the serial numbers whose agents may announce themselves", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<ExpectedAgentBody>)))]
pub async fn expected_list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let rows = call
        .tenant_read("expected_agent_list", async |tx| Ok(tx.expected_agent_list(list.after(), list.rows()).await?))
        .await?;
    let page: Page<ExpectedAgentBody> = list.page(rows, |expected| expected.serial.as_ref().to_owned());
    json(StatusCode::OK, &page)
}

/// Expects a serial number.
///
/// # Errors
/// 409 when it is expected already, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/expected-agents", tag = "Agents",
    operation_id = "expected_agent_create", summary = "Let the agent of a serial number announce itself",
    request_body = ExpectedAgentCreate, responses(
        (status = 201, description = "Expected", body = ExpectedAgentBody),
        (status = 409, description = "It is expected already", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn expected_create(call: Call, body: Body<ExpectedAgentCreate>) -> Result<HttpResponse, Problem> {
    let id = ExpectedId::fresh(call.now, id_bytes()?);
    let expected = body.check(|body, violations| {
        let serial = violations.check("serial", "word", Word::try_from(body.serial));
        let name = body.agent_name.map(|name| violations.check("agent_name", "name", name.parse::<ObjectName>()));
        let labels = Labels::parse(&body.labels, violations);
        Some(ExpectedAgent { id, serial: serial?, agent_name: name.flatten(), labels, created_at: call.now })
    })?;
    call.tenant_tx("expected_agent_create", async |tx| {
        tx.expected_agent_insert(&expected).await.map_err(|error| match error.constraint() {
            Some("expected_agents_pkey") => {
                AppError::Conflict { code: "serial_taken", detail: "this serial number is expected already".to_owned() }
            }
            _ => error.into(),
        })?;
        let after = shown(&ExpectedAgentBody::from(expected.clone()));
        let object = ("expected_agent", id.as_uuid());
        Ok(call.note_change(tx, "expected_agent_created", object, None, Some(after), json!({})).await?)
    })
    .await?;
    call.created(expected.serial.clone().as_ref(), &ExpectedAgentBody::from(expected))
}

/// Expects a serial number no more.
///
/// # Errors
/// 404.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/expected-agents/{serial}", tag = "Agents",
    operation_id = "expected_agent_delete", summary = "Expect a serial number no more; its applicants are forgotten",
    responses((status = 204, description = "Forgotten")))]
pub async fn expected_delete(call: Call) -> Result<HttpResponse, Problem> {
    let text: String = call.segment("serial", "expected agent")?;
    let serial = Word::try_from(text).map_err(|_| Problem::not_found("expected agent"))?;
    call.tenant_tx("expected_agent_delete", async |tx| {
        let present = tx.expected_agent_fetch(&serial).await?;
        tx.expected_agent_delete(&serial).await?;
        let object = ("expected_agent", present.id.as_uuid());
        let before = shown(&ExpectedAgentBody::from(present));
        Ok(call.note_change(tx, "expected_agent_deleted", object, Some(before), None, json!({})).await?)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists applicants.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/applicants", tag = "Agents", operation_id = "applicant_list",
    summary = "List agents that wait for an operator, oldest first", params(ListQuery),
    responses((status = 200, description = "A part of the list", body = Page<ApplicantBody>)))]
pub async fn applicant_list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&[])?;
    let after: Option<ApplicantId> = list.after_as()?;
    let rows = call.tenant_read("applicant_list", async |tx| Ok(tx.applicant_list(after, list.rows()).await?)).await?;
    let page: Page<ApplicantBody> = list.page(rows, |applicant| applicant.id.to_string());
    json(StatusCode::OK, &page)
}

/// Approves an applicant.
///
/// # Errors
/// 404.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/applicants/{applicant}/approve", tag = "Agents",
    operation_id = "applicant_approve", summary = "Let an applicant in: it joins when it asks again",
    responses((status = 200, description = "Approved", body = ApplicantBody)))]
pub async fn approve(call: Call) -> Result<HttpResponse, Problem> {
    decide(&call, ApplicantState::Approved, "applicant_approved").await
}

/// Rejects an applicant.
///
/// # Errors
/// 404.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/applicants/{applicant}/reject", tag = "Agents",
    operation_id = "applicant_reject", summary = "Refuse an applicant's keys",
    responses((status = 200, description = "Rejected", body = ApplicantBody)))]
pub async fn reject(call: Call) -> Result<HttpResponse, Problem> {
    decide(&call, ApplicantState::Rejected, "applicant_rejected").await
}

async fn decide(call: &Call, state: ApplicantState, action: &'static str) -> Result<HttpResponse, Problem> {
    let id: ApplicantId = call.segment("applicant", "applicant")?;
    let decided = call
        .tenant_tx("applicant_decide", async |tx| {
            let decided = tx.applicant_decide(id, state).await?;
            let detail =
                json!({"serial": decided.serial, "name": decided.name.as_str(), "key_id": key_id(&decided.sign_key)});
            call.note(tx, action, "applicant", id.as_uuid(), detail).await?;
            Ok(decided)
        })
        .await?;
    json(StatusCode::OK, &ApplicantBody::from(decided))
}
