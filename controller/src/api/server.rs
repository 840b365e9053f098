//! Puts the route table behind actix-web: guards, 404 and 405 answers, time limits, graceful stop.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::Method;
use actix_web::middleware::{NormalizePath, TrailingSlash, from_fn};
use actix_web::{App, HttpRequest, HttpServer, web};

use super::auth::{Api, guard};
use super::problem::{Problem, unknown_path};
use super::timing::timed;
use super::trace::traced;
use super::{ROUTES, openapi};
use crate::app::Services;

/// How long a client may take for its request's head, and a finished connection may stay open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long running requests are waited for at the end, seconds.
const SHUTDOWN_TIMEOUT_S: u64 = 10;

/// The HTTP server on a bound listener. It does not listen to signals: `handle().stop(true)` ends it gracefully.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(services: Services, listener: TcpListener) -> io::Result<Server> {
    let workers = services.config.http.workers;
    services.metrics.expect_operations(ROUTES.iter().map(|route| route.operation));
    let api = web::Data::new(Api::new(services));
    let app = move || {
        // The last one wraps all others: paths are normalized before anybody looks at them.
        App::new()
            .app_data(api.clone())
            .wrap(from_fn(timed))
            .wrap(NormalizePath::new(TrailingSlash::MergeOnly))
            .configure(configure)
    };
    let mut server = HttpServer::new(app)
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .disable_signals();
    if let Some(workers) = workers {
        server = server.workers(workers);
    }
    Ok(server.listen(listener)?.run())
}

/// Registers the table, the browsable documentation, and answers for everything else.
pub fn configure(config: &mut web::ServiceConfig) {
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        let mut resource = web::resource(path);
        let mut methods = Vec::new();
        for route in ROUTES.iter().filter(|route| route.path == path) {
            let access = route.access;
            let guarded = (route.handler)().wrap(from_fn(move |request, next| guard(access, request, next)));
            resource = resource.route(guarded.wrap(from_fn(move |request, next| traced(route, request, next))));
            methods.extend(Method::from_bytes(route.method.as_bytes()));
        }
        let refuse = move |_: HttpRequest| {
            let problem = Problem::method_not_allowed(&methods);
            async move { Err::<actix_web::HttpResponse, _>(problem) }
        };
        config.service(resource.default_service(web::to(refuse)));
    }
    config.service(web::redirect("/docs", "/docs/"));
    config.service(openapi::browsable());
    config.default_service(web::to(unknown_path));
}
