//! Entities: subjects and alternative names that requests carry (S2).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::device::Device;
use trustfleet_model::entity::EntitySpec;
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::EntityId;
use trustfleet_model::trustpoint::Trustpoint;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, Reason, bound, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::{Author, DRY_RUN_PART, configured_handlers};
use super::dto::Page;
use super::dto::entity::{EntityBody, EntityCreate, EntityUpdate};
use super::dto::revision::{DryRunBody, RevisionBody};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{differences, shown};
use crate::db::{Change, Configured, DbError, Reference, TenantTx};
use crate::error::AppError;
use crate::preview::Preview;

configured_handlers!(
    kind: "entity", tag: "Entities", path: "/v1/tenants/{tenant}/entities",
    item: "/v1/tenants/{tenant}/entities/{entity}", segment: "entity",
    revisions: "/v1/tenants/{tenant}/entities/{entity}/revisions",
    dry_run: "/v1/tenants/{tenant}/entities/{entity}/dry-run", reference: Reference::Entity,
    operations: ["entity_list", "entity_create", "entity_show", "entity_update", "entity_delete",
        "entity_revisions", "entity_dry_run"],
    actions: ["entity_created", "entity_updated", "entity_deleted"],
    object: EntityBody, spec: EntitySpec, bodies: [EntityCreate, EntityUpdate, EntityBody], id: EntityId,
    sql: [entity_insert, entity_fetch, entity_list, entity_update, entity_used_by, entity_delete],
    check: |spec: &EntitySpec, _: bool, violations: &mut Violations| super::check::entity(spec, violations),
    guard: super::configured::unguarded,
    preview: |preview: &mut Preview, trustpoint: &Trustpoint, device: &Device, (_, after): (&EntitySpec, &EntitySpec), _| preview.names(trustpoint, device, after)
);
