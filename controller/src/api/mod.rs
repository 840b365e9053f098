//! The REST API: the route table, and nothing else.
//!
//! Every path, its method, who may use it and its handler stand here once; the guard, the 405 answers, the OpenAPI
//! document's test and the test with a foreign token all go by this table.

pub mod access;
pub mod agent_door;
pub mod agents;
pub mod auth;
pub mod body;
pub mod ca_servers;
pub mod call;
pub mod certificates;
pub mod check;
mod configured;
pub mod devices;
pub mod dto;
pub mod entities;
pub mod first_token;
pub mod health;
pub mod jobs;
pub mod metrics;
pub mod openapi;
pub mod policies;
pub mod problem;
pub mod server;
pub mod tenants;
pub mod tokens;
pub mod trustpoints;

use actix_web::web::{delete, get, post, put};

pub use self::first_token::ensure_first_token;
pub use self::server::{configure, serve};
use access::Access::{self, Platform, Public, Tenant};
use access::Role::{Admin, Operator, Viewer};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// The path; parts in braces are names.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// The handler, with its method.
    pub handler: fn() -> actix_web::Route,
}

const fn route(method: &'static str, path: &'static str, access: Access, handler: fn() -> actix_web::Route) -> Route {
    Route { method, path, access, handler }
}

const TENANTS: &str = "/v1/tenants";
const TENANT: &str = "/v1/tenants/{tenant}";
const TOKENS: &str = "/v1/tenants/{tenant}/tokens";
const TOKEN: &str = "/v1/tenants/{tenant}/tokens/{token}";
const JOIN_TOKENS: &str = "/v1/tenants/{tenant}/join-tokens";
const AGENTS: &str = "/v1/tenants/{tenant}/agents";
const AGENT: &str = "/v1/tenants/{tenant}/agents/{agent}";
const ENTITIES: &str = "/v1/tenants/{tenant}/entities";
const ENTITY: &str = "/v1/tenants/{tenant}/entities/{entity}";
const CA_SERVERS: &str = "/v1/tenants/{tenant}/ca-servers";
const CA_SERVER: &str = "/v1/tenants/{tenant}/ca-servers/{ca_server}";
const POLICIES: &str = "/v1/tenants/{tenant}/policies";
const POLICY: &str = "/v1/tenants/{tenant}/policies/{policy}";
const DEVICES: &str = "/v1/tenants/{tenant}/devices";
const DEVICE: &str = "/v1/tenants/{tenant}/devices/{device}";
const DEVICE_TRUSTPOINTS: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints";
const TRUSTPOINT: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}";
const ENROLL: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/enroll";
const ACTIVATE: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/activate";
const TRUSTPOINTS: &str = "/v1/tenants/{tenant}/trustpoints";
const JOBS: &str = "/v1/tenants/{tenant}/jobs";
const JOB: &str = "/v1/tenants/{tenant}/jobs/{job}";
const CERTIFICATES: &str = "/v1/tenants/{tenant}/certificates";
const CERTIFICATE: &str = "/v1/tenants/{tenant}/certificates/{certificate}";

/// The table.
pub const ROUTES: &[Route] = &[
    route("GET", TENANTS, Platform, || get().to(tenants::list)),
    route("POST", TENANTS, Platform, || post().to(tenants::create)),
    route("GET", TENANT, Tenant(Viewer), || get().to(tenants::show)),
    route("GET", TOKENS, Tenant(Admin), || get().to(tokens::list)),
    route("POST", TOKENS, Tenant(Admin), || post().to(tokens::create)),
    route("DELETE", TOKEN, Tenant(Admin), || delete().to(tokens::revoke)),
    route("POST", JOIN_TOKENS, Tenant(Admin), || post().to(tokens::create_join_token)),
    route("GET", AGENTS, Tenant(Viewer), || get().to(agents::list)),
    route("GET", AGENT, Tenant(Viewer), || get().to(agents::show)),
    route("GET", ENTITIES, Tenant(Viewer), || get().to(entities::list)),
    route("POST", ENTITIES, Tenant(Admin), || post().to(entities::create)),
    route("GET", ENTITY, Tenant(Viewer), || get().to(entities::show)),
    route("PUT", ENTITY, Tenant(Admin), || put().to(entities::update)),
    route("DELETE", ENTITY, Tenant(Admin), || delete().to(entities::remove)),
    route("GET", CA_SERVERS, Tenant(Viewer), || get().to(ca_servers::list)),
    route("POST", CA_SERVERS, Tenant(Admin), || post().to(ca_servers::create)),
    route("GET", CA_SERVER, Tenant(Viewer), || get().to(ca_servers::show)),
    route("PUT", CA_SERVER, Tenant(Admin), || put().to(ca_servers::update)),
    route("DELETE", CA_SERVER, Tenant(Admin), || delete().to(ca_servers::remove)),
    route("GET", POLICIES, Tenant(Viewer), || get().to(policies::list)),
    route("POST", POLICIES, Tenant(Admin), || post().to(policies::create)),
    route("GET", POLICY, Tenant(Viewer), || get().to(policies::show)),
    route("PUT", POLICY, Tenant(Admin), || put().to(policies::update)),
    route("DELETE", POLICY, Tenant(Admin), || delete().to(policies::remove)),
    route("GET", DEVICES, Tenant(Viewer), || get().to(devices::list)),
    route("POST", DEVICES, Tenant(Operator), || post().to(devices::create)),
    route("GET", DEVICE, Tenant(Viewer), || get().to(devices::show)),
    route("PUT", DEVICE, Tenant(Operator), || put().to(devices::update)),
    route("DELETE", DEVICE, Tenant(Operator), || delete().to(devices::remove)),
    route("GET", DEVICE_TRUSTPOINTS, Tenant(Viewer), || get().to(trustpoints::list_of_device)),
    route("POST", DEVICE_TRUSTPOINTS, Tenant(Operator), || post().to(trustpoints::create)),
    route("GET", TRUSTPOINT, Tenant(Viewer), || get().to(trustpoints::show)),
    route("DELETE", TRUSTPOINT, Tenant(Operator), || delete().to(trustpoints::remove)),
    route("POST", ENROLL, Tenant(Operator), || post().to(trustpoints::enroll)),
    route("POST", ACTIVATE, Tenant(Operator), || post().to(trustpoints::activate)),
    route("GET", TRUSTPOINTS, Tenant(Viewer), || get().to(trustpoints::list)),
    route("GET", JOBS, Tenant(Viewer), || get().to(jobs::list)),
    route("GET", JOB, Tenant(Viewer), || get().to(jobs::show)),
    route("GET", CERTIFICATES, Tenant(Viewer), || get().to(certificates::list)),
    route("GET", CERTIFICATE, Tenant(Viewer), || get().to(certificates::show)),
    route("POST", "/agent/v1/join", Public, || post().to(agent_door::join)),
    route("POST", "/agent/v1/challenge", Public, || post().to(agent_door::challenge)),
    route("POST", "/agent/v1/session", Public, || post().to(agent_door::session)),
    route("GET", "/healthz", Public, || get().to(health::healthz)),
    route("GET", "/readyz", Public, || get().to(health::readyz)),
    route("GET", "/metrics", Public, || get().to(metrics::metrics)),
    route("GET", "/openapi.json", Public, || get().to(openapi::document)),
];
