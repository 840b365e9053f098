//! Revisions of what operators configure, and what a change of it would do.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::problem::ViolationBody;
use crate::db::Revision;
use crate::preview::{Preview, Renewals, Unready};

/// One revision of an entity, a CA server or a policy.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Revision)]
pub struct RevisionBody {
    /// From 1; the greatest is the present one.
    pub revision: u32,
    /// Who made it, in the words of the audit log.
    pub author: String,
    /// Why, in the author's own words; null: nothing was said.
    #[schema(required)]
    pub reason: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// All of the object as it was; settings that were left out have their defaults.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

impl From<Revision> for RevisionBody {
    fn from(revision: Revision) -> Self {
        let Revision { revision, spec, author, reason, created_at } = revision;
        Self { revision, author, reason, created_at, spec }
    }
}

/// What a change would do; nothing is changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DryRun)]
pub struct DryRunBody {
    /// Name of the object.
    pub name: String,
    /// Its present revision, for `If-Match`.
    pub revision: u32,
    /// The fields that would change, as they are.
    #[schema(value_type = Object)]
    pub before: serde_json::Value,
    /// The same, as they would be.
    #[schema(value_type = Object)]
    pub after: serde_json::Value,
    /// Trustpoints that use the object; their next request would be made by the new revision.
    pub trustpoints: u64,
    /// Of those, the ones that have something under way: it goes on as it was asked.
    pub under_way: u64,
    /// What would become of automatic renewals.
    pub renewals: RenewalsBody,
    /// Trustpoints whose next request could not be made, because their device has no value for a placeholder.
    pub unready: u64,
    /// The first of them, at most 20.
    pub unready_examples: Vec<UnreadyBody>,
}

/// What would become of automatic renewals.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = DryRunRenewals)]
pub struct RenewalsBody {
    /// Planned now.
    pub before: u64,
    /// Planned then.
    pub after: u64,
    /// Planned before and after, and sooner then.
    pub sooner: u64,
    /// Planned before and after, and later then.
    pub later: u64,
    /// What the CA would be asked for at once, and is not now.
    pub due_at_once: u64,
}

/// A trustpoint whose next request could not be made.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DryRunUnready)]
pub struct UnreadyBody {
    /// Name of the device.
    pub device: String,
    /// Name of the trustpoint.
    pub trustpoint: String,
    /// What would be missing.
    pub missing: Vec<ViolationBody>,
}

impl From<Renewals> for RenewalsBody {
    fn from(renewals: Renewals) -> Self {
        let Renewals { before, after, sooner, later, due_at_once } = renewals;
        Self { before, after, sooner, later, due_at_once }
    }
}

impl From<Unready> for UnreadyBody {
    fn from(unready: Unready) -> Self {
        let Unready { device, trustpoint, missing } = unready;
        Self { device, trustpoint, missing: missing.into_iter().map(Into::into).collect() }
    }
}

impl DryRunBody {
    /// The answer for a change of these fields.
    pub fn new(name: String, revision: u32, fields: (serde_json::Value, serde_json::Value), preview: Preview) -> Self {
        Self {
            name,
            revision,
            before: fields.0,
            after: fields.1,
            trustpoints: preview.trustpoints,
            under_way: preview.under_way,
            renewals: preview.renewals.into(),
            unready: preview.unready,
            unready_examples: preview.unready_examples.into_iter().map(Into::into).collect(),
        }
    }
}
