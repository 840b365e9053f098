//! CMP policies: the settings of CMP sessions (S1 to S26).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::device::Device;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::PolicyId;
use trustfleet_model::policy::PolicySpec;
use trustfleet_model::trustpoint::Trustpoint;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, Reason, bound, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::{Author, DRY_RUN_PART, configured_handlers};
use super::dto::Page;
use super::dto::policy::{PolicyBody, PolicyCreate, PolicyUpdate};
use super::dto::revision::{DryRunBody, RevisionBody};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::{differences, shown};
use crate::db::{Change, Configured, DbError, Reference, TenantTx};
use crate::error::AppError;
use crate::preview::Preview;

configured_handlers!(
    kind: "policy", tag: "Policies", path: "/v1/tenants/{tenant}/policies",
    item: "/v1/tenants/{tenant}/policies/{policy}", segment: "policy",
    revisions: "/v1/tenants/{tenant}/policies/{policy}/revisions",
    dry_run: "/v1/tenants/{tenant}/policies/{policy}/dry-run", reference: Reference::Policy,
    operations: ["policy_list", "policy_create", "policy_show", "policy_update", "policy_delete",
        "policy_revisions", "policy_dry_run"],
    actions: ["policy_created", "policy_updated", "policy_deleted"],
    object: PolicyBody, spec: PolicySpec, bodies: [PolicyCreate, PolicyUpdate, PolicyBody], id: PolicyId,
    sql: [policy_insert, policy_fetch, policy_list, policy_update, policy_used_by, policy_delete],
    check: super::check::policy,
    guard: super::configured::unguarded,
    preview: |preview: &mut Preview, trustpoint: &Trustpoint, device: &Device, specs: (&PolicySpec, &PolicySpec), now| preview.renewal(trustpoint, device.duty(), specs, now)
);
