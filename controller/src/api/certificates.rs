//! Certificates issued to devices, the one that ends first leading.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use jiff::Timestamp;
use trustfleet_model::certificate::Slot;
use trustfleet_model::ids::CertificateId;
use trustfleet_model::revocation::RevocationState;
use utoipa::IntoParams;

use super::call::{Call, List, ListQuery};
use super::dto::Page;
use super::dto::certificate::{CertificateBody, CertificateWithPemBody};
use super::problem::{Problem, json};
use crate::db::CertificateFilter;

/// Filters of the list of certificates.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct CertificateQuery {
    /// Only of the device of this name.
    device: Option<String>,
    /// Only of trustpoints of this name.
    trustpoint: Option<String>,
    /// Only in this slot: `active`, `staged`, `previous` or `retired`.
    slot: Option<String>,
    /// Only with a revocation in this state: `wanted`, `requested`, `revoked` or `failed`.
    revocation: Option<String>,
}

/// Lists certificates by their end.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/certificates", tag = "Certificates", operation_id = "certificate_list",
    summary = "List certificates, the one that ends first leading", params(ListQuery, CertificateQuery),
    responses((status = 200, description = "A part of the list", body = Page<CertificateBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["device", "trustpoint", "slot", "revocation"])?;
    let slot = list.filter("slot");
    if slot.is_some_and(|slot| !Slot::ALL.iter().any(|known| known.as_str() == slot)) {
        let known = Slot::ALL.map(Slot::as_str).join(", ");
        return Err(Problem::invalid("slot", "choice", format!("must be one of {known}")));
    }
    let revocation = list.filter("revocation");
    if revocation.is_some_and(|state| !RevocationState::ALL.iter().any(|known| known.as_str() == state)) {
        let known = RevocationState::ALL.map(RevocationState::as_str).join(", ");
        return Err(Problem::invalid("revocation", "choice", format!("must be one of {known}")));
    }
    let filter = CertificateFilter {
        device: list.filter("device"),
        trustpoint: list.filter("trustpoint"),
        slot,
        revocation,
        after: after(&list)?,
    };
    let rows = call
        .tenant_tx("certificate_list", async |tx| Ok(tx.listed_certificate_list(filter, list.rows()).await?))
        .await?;
    let page: Page<CertificateBody> = list.page(rows, |row| format!("{} {}", row.facts.not_after, row.facts.id));
    json(StatusCode::OK, &page)
}

fn after(list: &List) -> Result<Option<(Timestamp, CertificateId)>, Problem> {
    let Some(text) = list.after() else { return Ok(None) };
    let (ends, id) = text.split_once(' ').unwrap_or_default();
    match (ends.parse(), id.parse()) {
        (Ok(ends), Ok(id)) => Ok(Some((ends, id))),
        _ => Err(Problem::invalid("after", "cursor", "must be the `next` of an earlier answer")),
    }
}

/// Shows one certificate with its bytes.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/certificates/{certificate}", tag = "Certificates",
    operation_id = "certificate_show", summary = "Show a certificate, as PEM too",
    responses((status = 200, description = "The certificate", body = CertificateWithPemBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let id: CertificateId = call.segment("certificate", "certificate")?;
    let found = call.tenant_tx("certificate_show", async |tx| Ok(tx.listed_certificate_fetch(id).await?)).await?;
    json(StatusCode::OK, &CertificateWithPemBody::new(found)?)
}
