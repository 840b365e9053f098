//! CA servers: their names, endpoints and anchors (S5, S6, S16).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::CaServerId;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::configured_handlers;
use super::dto::Page;
use super::dto::ca_server::{CaServerBody, CaServerCreate, CaServerUpdate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{Change, Configured, DbError, TenantTx};
use crate::error::AppError;

configured_handlers!(
    kind: "CA server", tag: "CA servers", path: "/v1/tenants/{tenant}/ca-servers",
    item: "/v1/tenants/{tenant}/ca-servers/{ca_server}", segment: "ca_server",
    operations: ["ca_server_list", "ca_server_create", "ca_server_show", "ca_server_update", "ca_server_delete"],
    actions: ["ca_server_created", "ca_server_updated", "ca_server_deleted"],
    object: CaServerBody, spec: CaServerSpec, bodies: [CaServerCreate, CaServerUpdate, CaServerBody], id: CaServerId,
    sql: [ca_server_insert, ca_server_fetch, ca_server_list, ca_server_update, ca_server_used_by, ca_server_delete],
    check: super::check::ca_server
);
