//! The lab CA's HTTP door: CMP at any path (RFC 9811), and `/lab/*` for tests.
//!
//! Listens on 127.0.0.1 only.

use std::{
    net::TcpListener,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    body::{BodySize, MessageBody},
    dev::Server,
    http::{Method, header},
    web,
};
use rustls::ServerConfig;
use serde::Deserialize;
use serde_json::json;

use trustfleet_model::clock::{Clock, SystemClock};

use super::{CaError, exchange::Ca, faults::Fault, options::Credential};

/// RFC 9811 section 3.2.
const PKIXCMP: &str = "application/pkixcmp";

/// Longest CMP message that is read, in bytes.
const MAX_MESSAGE: usize = 256 * 1024;

/// A server that answers for `ca` on `listener`, not running yet.
pub(super) fn server(
    ca: Arc<Ca>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    manners: Manners,
) -> Result<Server, CaError> {
    let data = web::Data::from(ca);
    let manners = web::Data::new(manners);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(manners.clone())
            .app_data(web::PayloadConfig::new(MAX_MESSAGE))
            .route("/lab/issued", web::get().to(issued))
            .route("/lab/stats", web::get().to(stats))
            .route("/lab/waiting", web::get().to(waiting))
            .route("/lab/crl", web::get().to(crl))
            .route("/lab/approve", web::post().to(approve))
            .route("/lab/deny", web::post().to(deny))
            .route("/lab/secrets", web::post().to(add_secret))
            .route("/lab/revoke", web::post().to(revoke))
            .default_service(web::to(cmp))
    })
    .workers(2)
    .disable_signals()
    .shutdown_timeout(2);
    let server = match tls {
        None => server.listen(listener),
        Some(tls) => server.listen_rustls_0_23(listener, tls),
    };
    Ok(server.map_err(CaError::Listen)?.run())
}

/// How its door behaves.
pub(super) struct Manners {
    /// How long each answer is held back.
    pub(super) hold: Duration,
    pub(super) faults: Vec<Fault>,
}

async fn cmp(request: HttpRequest, message: web::Bytes, ca: web::Data<Ca>, door: web::Data<Manners>) -> HttpResponse {
    if request.method() != Method::POST {
        return HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "POST")).finish();
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.split(';').next().unwrap_or(kind).trim().eq_ignore_ascii_case(PKIXCMP)) {
        return HttpResponse::UnsupportedMediaType().body(format!("expected content of type {PKIXCMP}\n"));
    }
    if !door.hold.is_zero() {
        tokio::time::sleep(door.hold).await;
    }
    let has = |fault| door.faults.contains(&fault);
    if has(Fault::Http500) {
        return HttpResponse::InternalServerError().content_type("text/plain").body("the CA has no time for you\n");
    }
    if has(Fault::Redirect) {
        return HttpResponse::Found().insert_header((header::LOCATION, "/elsewhere/")).finish();
    }
    match web::block(move || ca.answer(&message)).await {
        Ok(Ok(answer)) if has(Fault::CutBody) => {
            HttpResponse::Ok().content_type(PKIXCMP).body(Cut { claimed: answer.len(), left: Some(answer) })
        }
        Ok(Ok(answer)) if has(Fault::WrongContentType) => HttpResponse::Ok().content_type("text/html").body(answer),
        Ok(Ok(answer)) => HttpResponse::Ok().content_type(PKIXCMP).body(answer),
        Ok(Err(error)) => HttpResponse::BadRequest().body(format!("{error}\n")),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

/// A body that ends before its Content-Length: the connection is closed then.
struct Cut {
    claimed: usize,
    left: Option<Vec<u8>>,
}

impl MessageBody for Cut {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.claimed as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        match self.left.take() {
            Some(mut bytes) => {
                bytes.truncate(self.claimed / 2);
                Poll::Ready(Some(Ok(bytes.into())))
            }
            None => Poll::Ready(None),
        }
    }
}

async fn waiting(ca: web::Data<Ca>) -> HttpResponse {
    HttpResponse::Ok().json(ca.waiting())
}

async fn crl(ca: web::Data<Ca>) -> HttpResponse {
    match ca.crl(SystemClock.now()) {
        Ok(crl) => HttpResponse::Ok().content_type("application/pkix-crl").body(crl),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(rename = "transactionID")]
    transaction_id: Option<String>,
}

async fn approve(which: web::Json<Which>, ca: web::Data<Ca>) -> HttpResponse {
    decided(ca.approve(which.transaction_id.as_deref(), true))
}

async fn deny(which: web::Json<Which>, ca: web::Data<Ca>) -> HttpResponse {
    decided(ca.approve(which.transaction_id.as_deref(), false))
}

fn decided(count: usize) -> HttpResponse {
    if count == 0 {
        return HttpResponse::NotFound().json(json!({ "error": "nothing of that kind waits for approval" }));
    }
    HttpResponse::Ok().json(json!({ "decided": count }))
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
