//! Puts the route table behind actix-web: guards, 404 and 405 answers.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::Method;
use actix_web::middleware::{NormalizePath, TrailingSlash, from_fn};
use actix_web::{App, HttpRequest, web};

use super::auth::{Api, guard};
use super::bounds::bounded;
use super::problem::{Problem, unknown_path};
use super::requester::identified;
use super::timing::timed;
use super::trace::traced;
use super::{ROUTES, door, openapi};
use crate::app::Services;

/// The HTTP server on a bound listener, with TLS where there is a certificate. It does not listen to signals:
/// `handle().stop(true)` ends it gracefully.
///
/// # Errors
/// The listener cannot be used, or the roots of an identity provider.
pub fn serve(services: Services, listener: TcpListener) -> io::Result<Server> {
    let (config, tls) = (Arc::clone(&services.config), services.tls.clone());
    services.metrics.expect_operations(ROUTES.iter().map(|route| route.operation));
    let api = web::Data::new(Api::new(services).map_err(io::Error::other)?);
    let app = move || {
        // The last one wraps all others: paths are normalized before anybody looks at them.
        App::new()
            .app_data(api.clone())
            .wrap(from_fn(bounded))
            .wrap(from_fn(identified))
            .wrap(from_fn(timed))
            .wrap(NormalizePath::new(TrailingSlash::MergeOnly))
            .configure(configure)
    };
    door::open(listener, &config.http, tls, app)
}

/// Registers the table, the browsable documentation, and answers for everything else.
pub fn configure(config: &mut web::ServiceConfig) {
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        let mut resource = web::resource(path);
        let mut methods = Vec::new();
        for route in ROUTES.iter().filter(|route| route.path == path) {
            let guarded = (route.handler)().wrap(from_fn(move |request, next| guard(route, request, next)));
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
