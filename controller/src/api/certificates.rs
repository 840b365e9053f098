//! Certificates issued to devices, the one that ends first leading.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, VARY};
use jiff::Timestamp;
use trustfleet_model::certificate::Slot;
use trustfleet_model::ids::CertificateId;
use trustfleet_model::revocation::RevocationState;
use utoipa::IntoParams;

use super::accept;
use super::call::{Call, List, ListQuery};
use super::dto::Page;
use super::dto::certificate::{CertificateBody, CertificateWithPemBody};
use super::problem::{Problem, ProblemBody, json};
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
    /// Only of devices with all of these labels: `KEY=VALUE`, several with commas between them.
    #[param(example = "site=berlin,role=edge")]
    selector: Option<String>,
    /// Only those that end at or after this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    expires_after: Option<String>,
    /// Only those that end before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    expires_before: Option<String>,
    /// Only of this issuer, character by character as certificates show it.
    issuer: Option<String>,
    /// Only of trustpoints that have the CA server of this name now.
    ca_server: Option<String>,
    /// Only with a key of this kind and size, as policies spell it: `rsa-2048`, `ecdsa-p256` and so on.
    #[param(example = "rsa-2048")]
    key: Option<String>,
}

const FILTERS: [&str; 10] = [
    "device",
    "trustpoint",
    "slot",
    "revocation",
    "selector",
    "expires_after",
    "expires_before",
    "issuer",
    "ca_server",
    "key",
];

/// Lists certificates by their end.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/certificates", tag = "Certificates", operation_id = "certificate_list",
    summary = "List certificates, the one that ends first leading", params(ListQuery, CertificateQuery),
    responses((status = 200, description = "A part of the list", body = Page<CertificateBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&FILTERS)?;
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
        device: list.owned("device"),
        trustpoint: list.owned("trustpoint"),
        labels: list.selector()?,
        slot: list.owned("slot"),
        revocation: list.owned("revocation"),
        expires_after: list.moment("expires_after")?,
        expires_before: list.moment("expires_before")?,
        issuer: list.owned("issuer"),
        ca_server: list.owned("ca_server"),
        key: list.owned("key"),
        after: after(&list)?,
    };
    let rows =
        call.tenant_tx("certificate_list", async |tx| Ok(tx.certificate_search(&filter, list.rows()).await?)).await?;
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

/// What is wanted of one certificate.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct CertificateForm {
    /// With the CA certificates that came with it behind it, as PEM only; default false.
    chain: Option<bool>,
}

/// Shows one certificate: what can be read in it, or by the `Accept` header its bytes alone.
///
/// # Errors
/// 404; 406 for other forms, 422 for a chain in DER.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/certificates/{certificate}", tag = "Certificates",
    operation_id = "certificate_show", summary = "Show a certificate: as JSON, or by Accept its PEM or DER alone",
    params(CertificateForm), responses(
        (status = 200, description = "The certificate", content(
            (CertificateWithPemBody = "application/json"),
            (String = "application/x-pem-file"),
            (String = "application/pkix-cert"))),
        (status = 406, description = "It is to be had as JSON, PEM and DER alone", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let id: CertificateId = call.segment("certificate", "certificate")?;
    let found = call.tenant_read("certificate_show", async |tx| Ok(tx.listed_certificate_fetch(id).await?)).await?;
    let with_chain = match call.query("chain").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("chain", "choice", "must be true or false")),
    };
    let media = accept::choose(call.header("accept"), &[accept::JSON, accept::PEM, accept::PKIX_CERT]);
    let media = media.ok_or_else(|| {
        let detail = "a certificate is to be had as application/json, application/x-pem-file and application/pkix-cert";
        Problem::http(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
    })?;
    let mut response = match media {
        accept::PKIX_CERT if with_chain => {
            let message = "is to be had as PEM only: application/pkix-cert is one certificate";
            return Err(Problem::invalid("chain", "choice", message));
        }
        accept::PKIX_CERT => bytes(media, found.der),
        accept::PEM => {
            let shown = CertificateWithPemBody::new(found)?;
            bytes(media, if with_chain { shown.pem + &shown.chain_pem } else { shown.pem })
        }
        _ => json(StatusCode::OK, &CertificateWithPemBody::new(found)?)?,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn bytes(media: &'static str, body: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, media)).body(body)
}
