//! CA servers: their names, endpoints and anchors (S5, S6, S16).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::device::Device;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::CaServerId;
use trustfleet_model::trustpoint::Trustpoint;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, Reason, bound, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::{Author, DRY_RUN_PART, configured_handlers};
use super::dto::Page;
use super::dto::ca_server::{CaServerBody, CaServerCreate, CaServerUpdate};
use super::dto::revision::{DryRunBody, RevisionBody};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{differences, shown};
use crate::db::{Change, Configured, DbError, Reference, TenantTx};
use crate::error::AppError;
use crate::preview::Preview;

configured_handlers!(
    kind: "CA server", tag: "CA servers", path: "/v1/tenants/{tenant}/ca-servers",
    item: "/v1/tenants/{tenant}/ca-servers/{ca_server}", segment: "ca_server",
    revisions: "/v1/tenants/{tenant}/ca-servers/{ca_server}/revisions",
    dry_run: "/v1/tenants/{tenant}/ca-servers/{ca_server}/dry-run", reference: Reference::CaServer,
    operations: ["ca_server_list", "ca_server_create", "ca_server_show", "ca_server_update", "ca_server_delete",
        "ca_server_revisions", "ca_server_dry_run"],
    actions: ["ca_server_created", "ca_server_updated", "ca_server_deleted"],
    object: CaServerBody, spec: CaServerSpec, bodies: [CaServerCreate, CaServerUpdate, CaServerBody], id: CaServerId,
    sql: [ca_server_insert, ca_server_fetch, ca_server_list, ca_server_update, ca_server_used_by, ca_server_delete],
    check: super::check::ca_server,
    preview: |_: &mut Preview, _: &Trustpoint, _: &Device, _: (&CaServerSpec, &CaServerSpec), _| ()
);
