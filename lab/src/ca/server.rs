//! The lab CA's HTTP door: CMP at any path (RFC 9811), and `/lab/*` for tests.
//!
//! Listens on 127.0.0.1 only.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::Server,
    http::{Method, header},
    web,
};
use serde::Deserialize;
use serde_json::json;

use super::{CaError, exchange::Ca, options::Credential};

/// RFC 9811 section 3.2.
const PKIXCMP: &str = "application/pkixcmp";

/// Longest CMP message that is read, in bytes.
const MAX_MESSAGE: usize = 256 * 1024;

/// A server that answers for `ca` on `listener`, not running yet.
pub(super) fn server(ca: Arc<Ca>, listener: TcpListener, hold: Duration) -> Result<Server, CaError> {
    let data = web::Data::from(ca);
    Ok(HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(web::Data::new(Hold(hold)))
            .app_data(web::PayloadConfig::new(MAX_MESSAGE))
            .route("/lab/issued", web::get().to(issued))
            .route("/lab/stats", web::get().to(stats))
            .route("/lab/secrets", web::post().to(add_secret))
            .route("/lab/revoke", web::post().to(revoke))
            .default_service(web::to(cmp))
    })
    .workers(2)
    .disable_signals()
    .shutdown_timeout(2)
    .listen(listener)
    .map_err(CaError::Listen)?
    .run())
}

/// How long each answer is held back.
struct Hold(Duration);

async fn cmp(request: HttpRequest, message: web::Bytes, ca: web::Data<Ca>, hold: web::Data<Hold>) -> HttpResponse {
    if request.method() != Method::POST {
        return HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "POST")).finish();
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.split(';').next().unwrap_or(kind).trim().eq_ignore_ascii_case(PKIXCMP)) {
        return HttpResponse::UnsupportedMediaType().body(format!("expected content of type {PKIXCMP}\n"));
    }
    if !hold.0.is_zero() {
        tokio::time::sleep(hold.0).await;
    }
    match web::block(move || ca.answer(&message)).await {
        Ok(Ok(answer)) => HttpResponse::Ok().content_type(PKIXCMP).body(answer),
        Ok(Err(error)) => HttpResponse::BadRequest().body(format!("{error}\n")),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

async fn issued(ca: web::Data<Ca>) -> HttpResponse {
    HttpResponse::Ok().json(ca.issued())
}

async fn stats(ca: web::Data<Ca>) -> HttpResponse {
    HttpResponse::Ok().json(ca.stats())
}

async fn add_secret(credential: web::Json<Credential>, ca: web::Data<Ca>) -> HttpResponse {
    ca.add_secret(credential.into_inner());
    HttpResponse::NoContent().finish()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    serial: String,
}

async fn revoke(revoke: web::Json<Revoke>, ca: web::Data<Ca>) -> HttpResponse {
    if ca.revoke(&revoke.serial) {
        HttpResponse::NoContent().finish()
    } else {
        HttpResponse::NotFound().json(json!({ "error": "no certificate with this serial number was issued here" }))
    }
}
