//! CMP policies: the settings of CMP sessions (S1 to S26).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::{ObjectName, Violations};
use trustfleet_model::ids::PolicyId;
use trustfleet_model::policy::PolicySpec;

use super::body::Body;
use super::call::{Call, IfMatch, ListQuery, in_use, name_taken, taken, with_revision};
use super::changes;
use super::configured::configured_handlers;
use super::dto::Page;
use super::dto::policy::{PolicyBody, PolicyCreate, PolicyUpdate};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::db::{Change, Configured, DbError, TenantTx};
use crate::error::AppError;

configured_handlers!(
    kind: "policy", tag: "Policies", path: "/v1/tenants/{tenant}/policies",
    item: "/v1/tenants/{tenant}/policies/{policy}", segment: "policy",
    operations: ["policy_list", "policy_create", "policy_show", "policy_update", "policy_delete"],
    actions: ["policy_created", "policy_updated", "policy_deleted"],
    object: PolicyBody, spec: PolicySpec, bodies: [PolicyCreate, PolicyUpdate, PolicyBody], id: PolicyId,
    sql: [policy_insert, policy_fetch, policy_list, policy_update, policy_used_by, policy_delete],
    check: |spec: &PolicySpec, allow_weak: bool, violations: &mut Violations| spec.check(allow_weak, violations)
);
