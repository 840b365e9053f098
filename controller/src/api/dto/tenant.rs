//! Tenants, and the two kinds of tokens made for them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{TenantId, TokenId};
use utoipa::ToSchema;

use crate::api::access::Role;
use crate::db::Keeps;

/// What makes a new tenant.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    /// Its name in URLs: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Its name for people, at most 128 characters; default: the name.
    #[serde(default)]
    #[schema(max_length = 128)]
    pub display_name: Option<String>,
    /// HMAC-SHA1 and the like may be configured (S8); default false.
    #[serde(default)]
    pub allow_weak_algorithms: bool,
    /// Changes of CA servers and their anchors need another administrator's approval; default false.
    #[serde(default)]
    pub four_eyes: bool,
    /// Days that transcripts of exchanges are kept after the end of their job; default 90.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3653)]
    pub transcript_days: Option<u16>,
    /// Days that jobs are kept after their end; default 730.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub job_days: Option<u16>,
    /// Days that certificates are kept after their end; default 730.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub certificate_days: Option<u16>,
    /// Days that join tokens, rejected applicants and leases are kept when they are over; default 90.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub join_days: Option<u16>,
    /// Days that rows of the audit log are kept, 2 to 3653, where that is shorter than the configuration says; 0: as it
    /// says. Default 0.
    #[serde(default)]
    #[schema(maximum = 3653)]
    pub audit_days: Option<u16>,
}

/// What changes a tenant: all of it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantUpdate {
    /// Its name for people, at most 128 characters.
    #[schema(min_length = 1, max_length = 128)]
    pub display_name: String,
    /// HMAC-SHA1 and the like may be configured (S8).
    pub allow_weak_algorithms: bool,
    /// Changes of CA servers and their anchors need another administrator's approval.
    pub four_eyes: bool,
    /// Days that transcripts of exchanges are kept after the end of their job; left out or null: as it is.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3653)]
    pub transcript_days: Option<u16>,
    /// Days that jobs are kept after their end; left out or null: as it is.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub job_days: Option<u16>,
    /// Days that certificates are kept after their end; left out or null: as it is.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub certificate_days: Option<u16>,
    /// Days that join tokens, rejected applicants and leases are kept when they are over; left out or null: as it is.
    #[serde(default)]
    #[schema(minimum = 7, maximum = 3653)]
    pub join_days: Option<u16>,
    /// Days that rows of the audit log are kept, 2 to 3653, where that is shorter than the configuration says; 0: as it
    /// says. Left out or null: as it is.
    #[serde(default)]
    #[schema(maximum = 3653)]
    pub audit_days: Option<u16>,
}

/// The days of a body, by field.
macro_rules! days {
    ($name:ident) => {
        impl $name {
            /// Days that things are kept, by field, with the shortest that there may be.
            pub const fn days(&self) -> [(&'static str, Option<u16>, u16); 5] {
                [
                    ("transcript_days", self.transcript_days, 1),
                    ("job_days", self.job_days, 7),
                    ("certificate_days", self.certificate_days, 7),
                    ("join_days", self.join_days, 7),
                    ("audit_days", self.audit_days, 2),
                ]
            }

            /// What it says of how long things are kept; otherwise as `before`.
            pub fn keeps(&self, before: Keeps) -> Keeps {
                Keeps {
                    jobs: self.job_days.unwrap_or(before.jobs),
                    certificates: self.certificate_days.unwrap_or(before.certificates),
                    joining: self.join_days.unwrap_or(before.joining),
                    audit: self.audit_days.unwrap_or(before.audit),
                }
            }
        }
    };
}
days!(TenantCreate);
days!(TenantUpdate);

/// Why something is done to a tenant.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantReason {
    /// The reason, 1 to 200 characters: whoever is refused reads it.
    #[schema(min_length = 1, max_length = 200)]
    pub reason: String,
}

/// How much a tenant may have; what is left out or null is not limited.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaUpdate {
    /// Devices.
    #[serde(default)]
    #[schema(maximum = 1_000_000_000)]
    pub devices: Option<u32>,
    /// Trustpoints.
    #[serde(default)]
    #[schema(maximum = 1_000_000_000)]
    pub trustpoints: Option<u32>,
    /// Jobs asked for within an hour.
    #[serde(default)]
    #[schema(maximum = 1_000_000_000)]
    pub jobs_per_hour: Option<u32>,
    /// Jobs under way.
    #[serde(default)]
    #[schema(maximum = 1_000_000_000)]
    pub jobs_in_flight: Option<u32>,
    /// Its share of a CA's budget while several tenants wait for it, 1 to 100; default 1.
    #[serde(default = "default_ca_weight")]
    #[schema(minimum = 1, maximum = 100)]
    pub ca_weight: u8,
}

const fn default_ca_weight() -> u8 {
    1
}

/// How much a tenant may have and has; null: not limited.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
pub struct QuotaBody {
    /// Devices.
    #[schema(required)]
    pub devices: Option<u32>,
    /// Trustpoints.
    #[schema(required)]
    pub trustpoints: Option<u32>,
    /// Jobs asked for within an hour.
    #[schema(required)]
    pub jobs_per_hour: Option<u32>,
    /// Jobs under way.
    #[schema(required)]
    pub jobs_in_flight: Option<u32>,
    /// Its share of a CA's budget while several tenants wait for it.
    pub ca_weight: u8,
    /// What it has, each counted up to a million.
    pub used: UsageBody,
}

/// What a tenant has.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageBody {
    /// Devices.
    pub devices: u32,
    /// Trustpoints.
    pub trustpoints: u32,
    /// Jobs asked for within the last hour.
    pub jobs_per_hour: u32,
    /// Jobs under way.
    pub jobs_in_flight: u32,
}

/// Who shares this installation without seeing each other.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TenantId,
    /// Its name in URLs.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// HMAC-SHA1 and the like may be configured (S8).
    pub allow_weak_algorithms: bool,
    /// Changes of CA servers and their anchors need another administrator's approval.
    pub four_eyes: bool,
    /// Days that transcripts of exchanges are kept after the end of their job.
    pub transcript_days: u16,
    /// Days that jobs are kept after their end; one that brought a certificate as long as that.
    pub job_days: u16,
    /// Days that certificates are kept after their end, when they are of no use on a trustpoint any more.
    pub certificate_days: u16,
    /// Days that join tokens, rejected applicants and leases are kept when they are over.
    pub join_days: u16,
    /// Days that rows of the audit log are kept, where that is shorter than the configuration says; 0: as it says.
    pub audit_days: u16,
    /// `active`; `suspended`: it can be read, nothing changed or published; `deleted`: only the platform sees it.
    pub state: &'static str,
    /// Why it is suspended.
    #[schema(required)]
    pub state_reason: Option<String>,
    /// Since when it is in this state; null: it was never in another one.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub state_since: Option<Timestamp>,
    /// Until when a deleted tenant can be restored; then it is purged.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub purge_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<crate::db::Tenant> for TenantBody {
    fn from(tenant: crate::db::Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name.into(),
            display_name: tenant.display_name,
            allow_weak_algorithms: tenant.allow_weak_algorithms,
            four_eyes: tenant.four_eyes,
            transcript_days: tenant.transcript_days,
            job_days: tenant.keeps.jobs,
            certificate_days: tenant.keeps.certificates,
            join_days: tenant.keeps.joining,
            audit_days: tenant.keeps.audit,
            state: tenant.state.as_str(),
            state_reason: tenant.state_reason,
            state_since: tenant.state_since,
            purge_at: tenant.purge_at,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}

/// Role of a tenant's token: each may what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Role)]
pub enum TenantRole {
    /// Reads.
    Viewer,
    /// Enrols, activates, registers devices and trustpoints.
    Operator,
    /// Everything in its tenant.
    Admin,
}

impl From<TenantRole> for Role {
    fn from(role: TenantRole) -> Self {
        match role {
            TenantRole::Viewer => Self::Viewer,
            TenantRole::Operator => Self::Operator,
            TenantRole::Admin => Self::Admin,
        }
    }
}

/// What makes a new API token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What it may do.
    pub role: TenantRole,
    /// What of its role it may use, such as `devices:read` or `trustpoints:write` (which includes reading); default: all.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub scopes: Vec<String>,
    /// What it is for, 1 to 200 characters; it appears in the audit log.
    #[schema(min_length = 1, max_length = 200)]
    pub description: String,
    /// How long it is valid, seconds, 60 to 315,360,000 (ten years); default: for ever.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 315_360_000)]
    pub valid_for_s: Option<u32>,
}

/// What makes a new token of a platform administrator.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlatformTokenCreate {
    /// What of its role it may use, such as `tenants:read`; default: all.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub scopes: Vec<String>,
    /// What it is for, 1 to 200 characters; it appears in the audit log.
    #[schema(min_length = 1, max_length = 200)]
    pub description: String,
    /// How long it is valid, seconds, 60 to 315,360,000 (ten years); default: for ever.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 315_360_000)]
    pub valid_for_s: Option<u32>,
}

/// A new API token: the only answer that holds the token itself.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenCreated)]
pub struct TokenCreatedBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TokenId,
    /// The token, for the Authorization header; it is shown only here.
    pub token: String,
    /// What it may do.
    pub role: String,
    /// What of its role it may use; empty: all.
    pub scopes: Vec<String>,
    /// What it is for.
    pub description: String,
    /// When it ends; null: never.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub expires_at: Option<Timestamp>,
}

/// An API token, without the token.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TokenId,
    /// What it may do.
    pub role: String,
    /// What of its role it may use; empty: all.
    pub scopes: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends; null: never.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub last_used_at: Option<Timestamp>,
    /// When it was taken back.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub revoked_at: Option<Timestamp>,
}

impl From<crate::db::ApiToken> for TokenBody {
    fn from(token: crate::db::ApiToken) -> Self {
        Self {
            id: token.id,
            role: token.role,
            scopes: token.scopes,
            description: token.description,
            created_by: token.created_by,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
        }
    }
}

/// What makes a new join token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenCreate {
    /// Name that the agent must take; default: its own choice.
    #[serde(default)]
    #[schema(max_length = 63)]
    pub agent_name: Option<String>,
    /// Labels that the agent gets, at most 32 pairs of words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many agents may join with it, 1 to 1000; default 1. More than one needs `agent_name` left out.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000)]
    pub uses: u32,
    /// How long it is valid, seconds, 60 to 2,592,000 (30 days); default one hour.
    #[serde(default = "one_hour")]
    #[schema(minimum = 60, maximum = 2_592_000)]
    pub valid_for_s: u32,
}

const fn one() -> u32 {
    1
}

const fn one_hour() -> u32 {
    3600
}

/// A new join token: the only answer that holds the token itself.
#[derive(Serialize, ToSchema)]
#[schema(as = JoinTokenCreated)]
pub struct JoinTokenCreatedBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TokenId,
    /// The token, for the agent's configuration; it is shown only here.
    pub token: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// How many agents may still join with it.
    pub uses_left: u32,
}
