//! Entities: subjects and alternative names that requests carry (S2).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::entity::EntitySpec;
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::EntityId;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::configured_handlers;
use super::dto::Page;
use super::dto::entity::{EntityBody, EntityCreate, EntityUpdate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{Change, Configured, DbError, TenantTx};
use crate::error::AppError;

configured_handlers!(
    kind: "entity", tag: "Entities", path: "/v1/tenants/{tenant}/entities",
    item: "/v1/tenants/{tenant}/entities/{entity}", segment: "entity",
    operations: ["entity_list", "entity_create", "entity_show", "entity_update", "entity_delete"],
    actions: ["entity_created", "entity_updated", "entity_deleted"],
    object: EntityBody, spec: EntitySpec, bodies: [EntityCreate, EntityUpdate, EntityBody], id: EntityId,
    sql: [entity_insert, entity_fetch, entity_list, entity_update, entity_used_by, entity_delete],
    check: |spec: &EntitySpec, _: bool, violations: &mut Violations| super::check::entity(spec, violations)
);
