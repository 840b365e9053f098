//! The REST API: the route table, and nothing else.
//!
//! Every path, its method, who may use it and its handler stand here once; the guard, the 405 answers, the OpenAPI
//! document's test and the test with a foreign token all go by this table.

mod accept;
pub mod access;
pub mod agent_door;
pub mod agents;
pub mod at_risk;
pub mod audit;
pub mod auth;
pub mod bindings;
pub mod blocked_subjects;
pub mod body;
mod bounds;
pub mod ca_endpoints;
pub mod ca_servers;
pub mod call;
pub mod campaigns;
pub mod certificates;
pub mod changes;
pub mod check;
mod configured;
pub mod dead_letters;
pub mod devices;
mod door;
pub mod dry_runs;
pub mod dto;
pub mod entities;
pub mod first_token;
pub mod forecasts;
pub mod freezes;
mod guarded;
pub mod health;
pub mod history;
pub mod jobs;
pub mod joining;
mod json;
mod limits;
pub mod mac;
pub mod metrics;
mod oidc;
pub mod openapi;
pub mod platform_tokens;
pub mod policies;
pub mod problem;
pub mod recoveries;
mod requester;
pub mod revocations;
pub mod rollovers;
pub mod scope;
pub mod server;
pub mod statistics;
pub mod tenants;
pub mod timing;
pub mod tokens;
pub mod trace;
pub mod transfer;
pub mod trustpoints;

use actix_web::web::{delete, get, post, put};

pub use self::agent_door::virtual_host;
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
    /// What it is called in the OpenAPI document and in metrics.
    pub operation: &'static str,
    /// The handler, with its method.
    pub handler: fn() -> actix_web::Route,
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    operation: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    Route { method, path, access, operation, handler }
}

const TENANTS: &str = "/v1/tenants";
const TENANT: &str = "/v1/tenants/{tenant}";
const SUSPEND: &str = "/v1/tenants/{tenant}/suspend";
const RESUME: &str = "/v1/tenants/{tenant}/resume";
const RESTORE: &str = "/v1/tenants/{tenant}/restore";
const QUOTA: &str = "/v1/tenants/{tenant}/quota";
const TOKENS: &str = "/v1/tenants/{tenant}/tokens";
const TOKEN: &str = "/v1/tenants/{tenant}/tokens/{token}";
const PLATFORM_TOKENS: &str = "/v1/tokens";
const PLATFORM_TOKEN: &str = "/v1/tokens/{token}";
const JOIN_TOKENS: &str = "/v1/tenants/{tenant}/join-tokens";
const AGENTS: &str = "/v1/tenants/{tenant}/agents";
const AGENT: &str = "/v1/tenants/{tenant}/agents/{agent}";
const AGENT_QUARANTINE: &str = "/v1/tenants/{tenant}/agents/{agent}/quarantine";
const AGENT_RELEASE: &str = "/v1/tenants/{tenant}/agents/{agent}/release";
const AGENT_REJOIN: &str = "/v1/tenants/{tenant}/agents/{agent}/rejoin";
const FACTORY_CAS: &str = "/v1/tenants/{tenant}/factory-cas";
const FACTORY_CA: &str = "/v1/tenants/{tenant}/factory-cas/{factory_ca}";
const EXPECTED_AGENTS: &str = "/v1/tenants/{tenant}/expected-agents";
const EXPECTED_AGENT: &str = "/v1/tenants/{tenant}/expected-agents/{serial}";
const APPLICANTS: &str = "/v1/tenants/{tenant}/applicants";
const APPLICANT_APPROVE: &str = "/v1/tenants/{tenant}/applicants/{applicant}/approve";
const APPLICANT_REJECT: &str = "/v1/tenants/{tenant}/applicants/{applicant}/reject";
const BLOCKED: &str = "/v1/tenants/{tenant}/blocked-subjects";
const PLATFORM_BLOCKED: &str = "/v1/blocked-subjects";
const ENTITIES: &str = "/v1/tenants/{tenant}/entities";
const ENTITY: &str = "/v1/tenants/{tenant}/entities/{entity}";
const CA_SERVERS: &str = "/v1/tenants/{tenant}/ca-servers";
const CA_SERVER: &str = "/v1/tenants/{tenant}/ca-servers/{ca_server}";
const POLICIES: &str = "/v1/tenants/{tenant}/policies";
const POLICY: &str = "/v1/tenants/{tenant}/policies/{policy}";
const CHANGES: &str = "/v1/tenants/{tenant}/changes";
const CHANGE: &str = "/v1/tenants/{tenant}/changes/{change}";
const APPROVE: &str = "/v1/tenants/{tenant}/changes/{change}/approve";
const REJECT: &str = "/v1/tenants/{tenant}/changes/{change}/reject";
const DEVICES: &str = "/v1/tenants/{tenant}/devices";
const DEVICE: &str = "/v1/tenants/{tenant}/devices/{device}";
const DEVICE_TRUSTPOINTS: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints";
const TRUSTPOINT: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}";
const TRUSTPOINT_MAC: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/mac";
const SWITCH_OVER: &str = "/v1/tenants/{tenant}/devices/{device}/switch-over";
const TRUSTPOINT_SERVICES: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/services";
const RECOVERY: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/recovery";
const ROLLOVER: &str = "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover";
const BINDINGS: &str = "/v1/tenants/{tenant}/bindings";
const BINDING: &str = "/v1/tenants/{tenant}/bindings/{binding}";
const CAMPAIGNS: &str = "/v1/tenants/{tenant}/campaigns";
const CAMPAIGN: &str = "/v1/tenants/{tenant}/campaigns/{campaign}";
const FREEZES: &str = "/v1/tenants/{tenant}/freezes";
const FREEZE: &str = "/v1/tenants/{tenant}/freezes/{freeze}";
const AUTO_UPDATE: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/auto-update";
const ENROLL: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/enroll";
const ACTIVATE: &str = "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/activate";
const TRUSTPOINTS: &str = "/v1/tenants/{tenant}/trustpoints";
const JOBS: &str = "/v1/tenants/{tenant}/jobs";
const JOB: &str = "/v1/tenants/{tenant}/jobs/{job}";
const CERTIFICATES: &str = "/v1/tenants/{tenant}/certificates";
const CERTIFICATE: &str = "/v1/tenants/{tenant}/certificates/{certificate}";
const DEAD_LETTERS: &str = "/v1/dead-letters";
const DEAD_LETTER: &str = "/v1/dead-letters/{letter}";
const AUDIT: &str = "/v1/tenants/{tenant}/audit";

/// The table.
pub const ROUTES: &[Route] = &[
    route("GET", TENANTS, Platform, "tenant_list", || get().to(tenants::list)),
    route("POST", TENANTS, Platform, "tenant_create", || post().to(tenants::create)),
    route("GET", TENANT, Tenant(Viewer), "tenant_show", || get().to(tenants::show)),
    route("PUT", TENANT, Platform, "tenant_update", || put().to(tenants::update)),
    route("DELETE", TENANT, Platform, "tenant_delete", || delete().to(tenants::remove)),
    route("POST", SUSPEND, Platform, "tenant_suspend", || post().to(tenants::suspend)),
    route("POST", RESUME, Platform, "tenant_resume", || post().to(tenants::resume)),
    route("POST", RESTORE, Platform, "tenant_restore", || post().to(tenants::restore)),
    route("GET", QUOTA, Tenant(Viewer), "tenant_quota_show", || get().to(tenants::show_quota)),
    route("PUT", QUOTA, Platform, "tenant_quota_update", || put().to(tenants::update_quota)),
    route("GET", TOKENS, Tenant(Admin), "token_list", || get().to(tokens::list)),
    route("POST", TOKENS, Tenant(Admin), "token_create", || post().to(tokens::create)),
    route("DELETE", TOKEN, Tenant(Admin), "token_delete", || delete().to(tokens::revoke)),
    route("GET", PLATFORM_TOKENS, Platform, "platform_token_list", || get().to(platform_tokens::list)),
    route("POST", PLATFORM_TOKENS, Platform, "platform_token_create", || post().to(platform_tokens::create)),
    route("DELETE", PLATFORM_TOKEN, Platform, "platform_token_delete", || delete().to(platform_tokens::revoke)),
    route("GET", BLOCKED, Tenant(Admin), "blocked_subject_list", || get().to(blocked_subjects::list)),
    route("POST", BLOCKED, Tenant(Admin), "blocked_subject_create", || post().to(blocked_subjects::create)),
    route("DELETE", "/v1/tenants/{tenant}/blocked-subjects/{block}", Tenant(Admin), "blocked_subject_delete", || {
        delete().to(blocked_subjects::remove)
    }),
    route("GET", PLATFORM_BLOCKED, Platform, "platform_blocked_subject_list", || {
        get().to(blocked_subjects::platform_list)
    }),
    route("POST", PLATFORM_BLOCKED, Platform, "platform_blocked_subject_create", || {
        post().to(blocked_subjects::platform_create)
    }),
    route("DELETE", "/v1/blocked-subjects/{block}", Platform, "platform_blocked_subject_delete", || {
        delete().to(blocked_subjects::platform_remove)
    }),
    route("POST", JOIN_TOKENS, Tenant(Admin), "join_token_create", || post().to(tokens::create_join_token)),
    route("GET", AGENTS, Tenant(Viewer), "agent_list", || get().to(agents::list)),
    route("GET", AGENT, Tenant(Viewer), "agent_show", || get().to(agents::show)),
    route("DELETE", AGENT, Tenant(Admin), "agent_delete", || delete().to(agents::remove)),
    route("POST", AGENT_QUARANTINE, Tenant(Operator), "agent_quarantine", || post().to(agents::quarantine)),
    route("POST", AGENT_RELEASE, Tenant(Admin), "agent_release", || post().to(agents::release)),
    route("POST", "/v1/tenants/{tenant}/agents/{agent}/revoke", Tenant(Operator), "agent_revoke", || {
        post().to(revocations::agent)
    }),
    route("POST", AGENT_REJOIN, Tenant(Admin), "agent_rejoin", || post().to(agents::rejoin)),
    route("GET", FACTORY_CAS, Tenant(Viewer), "factory_ca_list", || get().to(joining::factory_ca_list)),
    route("POST", FACTORY_CAS, Tenant(Admin), "factory_ca_create", || post().to(joining::factory_ca_create)),
    route("GET", FACTORY_CA, Tenant(Viewer), "factory_ca_show", || get().to(joining::factory_ca_show)),
    route("DELETE", FACTORY_CA, Tenant(Admin), "factory_ca_delete", || delete().to(joining::factory_ca_delete)),
    route("GET", EXPECTED_AGENTS, Tenant(Viewer), "expected_agent_list", || get().to(joining::expected_list)),
    route("POST", EXPECTED_AGENTS, Tenant(Admin), "expected_agent_create", || post().to(joining::expected_create)),
    route("DELETE", EXPECTED_AGENT, Tenant(Admin), "expected_agent_delete", || delete().to(joining::expected_delete)),
    route("GET", APPLICANTS, Tenant(Viewer), "applicant_list", || get().to(joining::applicant_list)),
    route("POST", APPLICANT_APPROVE, Tenant(Admin), "applicant_approve", || post().to(joining::approve)),
    route("POST", APPLICANT_REJECT, Tenant(Admin), "applicant_reject", || post().to(joining::reject)),
    route("GET", ENTITIES, Tenant(Viewer), "entity_list", || get().to(entities::list)),
    route("POST", ENTITIES, Tenant(Admin), "entity_create", || post().to(entities::create)),
    route("GET", ENTITY, Tenant(Viewer), "entity_show", || get().to(entities::show)),
    route("PUT", ENTITY, Tenant(Admin), "entity_update", || put().to(entities::update)),
    route("DELETE", ENTITY, Tenant(Admin), "entity_delete", || delete().to(entities::remove)),
    route("GET", "/v1/tenants/{tenant}/entities/{entity}/revisions", Tenant(Viewer), "entity_revisions", || {
        get().to(entities::revisions)
    }),
    route("POST", "/v1/tenants/{tenant}/entities/{entity}/dry-run", Tenant(Operator), "entity_dry_run", || {
        post().to(entities::dry_run)
    }),
    route("GET", CA_SERVERS, Tenant(Viewer), "ca_server_list", || get().to(ca_servers::list)),
    route("POST", CA_SERVERS, Tenant(Admin), "ca_server_create", || post().to(ca_servers::create)),
    route("GET", CA_SERVER, Tenant(Viewer), "ca_server_show", || get().to(ca_servers::show)),
    route("PUT", CA_SERVER, Tenant(Admin), "ca_server_update", || put().to(ca_servers::update)),
    route("DELETE", CA_SERVER, Tenant(Admin), "ca_server_delete", || delete().to(ca_servers::remove)),
    route(
        "GET",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/revisions",
        Tenant(Viewer),
        "ca_server_revisions",
        || get().to(ca_servers::revisions),
    ),
    route(
        "GET",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/offered-roots",
        Tenant(Viewer),
        "ca_server_offered_roots",
        || get().to(ca_servers::offered_roots),
    ),
    route(
        "POST",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/offered-roots/{root}/take",
        Tenant(Admin),
        "ca_server_take_root",
        || post().to(ca_servers::take_root),
    ),
    route("GET", ROLLOVER, Tenant(Viewer), "rollover_show", || get().to(rollovers::show)),
    route("POST", ROLLOVER, Tenant(Admin), "rollover_start", || post().to(rollovers::start)),
    route(
        "GET",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/missing",
        Tenant(Viewer),
        "rollover_missing",
        || get().to(rollovers::missing),
    ),
    route(
        "POST",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/switch",
        Tenant(Admin),
        "rollover_switch",
        || post().to(rollovers::switch),
    ),
    route(
        "POST",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/finish",
        Tenant(Admin),
        "rollover_finish",
        || post().to(rollovers::finish),
    ),
    route(
        "POST",
        "/v1/tenants/{tenant}/ca-servers/{ca_server}/rollover/cancel",
        Tenant(Admin),
        "rollover_cancel",
        || post().to(rollovers::cancel),
    ),
    route("POST", "/v1/tenants/{tenant}/ca-servers/{ca_server}/dry-run", Tenant(Operator), "ca_server_dry_run", || {
        post().to(ca_servers::dry_run)
    }),
    route("GET", "/v1/tenants/{tenant}/ca-servers/{ca_server}/forecast", Tenant(Viewer), "ca_server_forecast", || {
        get().to(forecasts::of_ca_server)
    }),
    route("GET", POLICIES, Tenant(Viewer), "policy_list", || get().to(policies::list)),
    route("POST", POLICIES, Tenant(Admin), "policy_create", || post().to(policies::create)),
    route("GET", POLICY, Tenant(Viewer), "policy_show", || get().to(policies::show)),
    route("PUT", POLICY, Tenant(Admin), "policy_update", || put().to(policies::update)),
    route("DELETE", POLICY, Tenant(Admin), "policy_delete", || delete().to(policies::remove)),
    route("GET", "/v1/tenants/{tenant}/policies/{policy}/revisions", Tenant(Viewer), "policy_revisions", || {
        get().to(policies::revisions)
    }),
    route("POST", "/v1/tenants/{tenant}/policies/{policy}/dry-run", Tenant(Operator), "policy_dry_run", || {
        post().to(policies::dry_run)
    }),
    route("GET", BINDINGS, Tenant(Viewer), "binding_list", || get().to(bindings::list)),
    route("POST", BINDINGS, Tenant(Admin), "binding_create", || post().to(bindings::create)),
    route("GET", BINDING, Tenant(Viewer), "binding_show", || get().to(bindings::show)),
    route("PUT", BINDING, Tenant(Admin), "binding_update", || put().to(bindings::update)),
    route("POST", "/v1/tenants/{tenant}/bindings/{binding}/dry-run", Tenant(Operator), "binding_dry_run", || {
        post().to(bindings::dry_run)
    }),
    route("GET", "/v1/tenants/{tenant}/bindings/{binding}/removal", Tenant(Viewer), "binding_removal", || {
        get().to(bindings::removal)
    }),
    route("DELETE", BINDING, Tenant(Admin), "binding_delete", || delete().to(bindings::remove)),
    route("GET", CAMPAIGNS, Tenant(Viewer), "campaign_list", || get().to(campaigns::list)),
    route("POST", CAMPAIGNS, Tenant(Operator), "campaign_create", || post().to(campaigns::create)),
    route("GET", CAMPAIGN, Tenant(Viewer), "campaign_show", || get().to(campaigns::show)),
    route("DELETE", CAMPAIGN, Tenant(Operator), "campaign_delete", || delete().to(campaigns::remove)),
    route("GET", "/v1/tenants/{tenant}/campaigns/{campaign}/members", Tenant(Viewer), "campaign_member_list", || {
        get().to(campaigns::members)
    }),
    route("POST", "/v1/tenants/{tenant}/campaigns/{campaign}/pause", Tenant(Operator), "campaign_pause", || {
        post().to(campaigns::pause)
    }),
    route("POST", "/v1/tenants/{tenant}/campaigns/{campaign}/resume", Tenant(Operator), "campaign_resume", || {
        post().to(campaigns::resume)
    }),
    route("POST", "/v1/tenants/{tenant}/campaigns/{campaign}/cancel", Tenant(Operator), "campaign_cancel", || {
        post().to(campaigns::cancel)
    }),
    route(
        "POST",
        "/v1/tenants/{tenant}/campaigns/{campaign}/roll-back",
        Tenant(Operator),
        "campaign_roll_back",
        || post().to(campaigns::roll_back),
    ),
    route("GET", FREEZES, Tenant(Viewer), "freeze_list", || get().to(freezes::list)),
    route("POST", FREEZES, Tenant(Admin), "freeze_create", || post().to(freezes::create)),
    route("GET", FREEZE, Tenant(Viewer), "freeze_show", || get().to(freezes::show)),
    route("DELETE", FREEZE, Tenant(Admin), "freeze_delete", || delete().to(freezes::remove)),
    route("GET", CHANGES, Tenant(Viewer), "change_list", || get().to(changes::list)),
    route("GET", CHANGE, Tenant(Viewer), "change_show", || get().to(changes::show)),
    route("POST", APPROVE, Tenant(Admin), "change_approve", || post().to(changes::approve)),
    route("POST", REJECT, Tenant(Admin), "change_reject", || post().to(changes::reject)),
    route("GET", DEVICES, Tenant(Viewer), "device_list", || get().to(devices::list)),
    route("POST", DEVICES, Tenant(Operator), "device_create", || post().to(devices::create)),
    // Before the devices themselves, none of which can have these names.
    route("POST", "/v1/tenants/{tenant}/devices/import", Tenant(Operator), "device_import", || {
        post().to(transfer::devices::import)
    }),
    route("GET", "/v1/tenants/{tenant}/devices/export", Tenant(Viewer), "device_export", || {
        get().to(transfer::devices::export)
    }),
    route("GET", "/v1/tenants/{tenant}/devices/at-risk", Tenant(Viewer), "device_at_risk", || get().to(at_risk::list)),
    route("GET", DEVICE, Tenant(Viewer), "device_show", || get().to(devices::show)),
    route("PUT", DEVICE, Tenant(Operator), "device_update", || put().to(devices::update)),
    route("DELETE", DEVICE, Tenant(Operator), "device_delete", || delete().to(devices::remove)),
    route("POST", SWITCH_OVER, Tenant(Operator), "device_switch_over", || post().to(devices::switch_over)),
    route("POST", "/v1/tenants/{tenant}/devices/{device}/revoke", Tenant(Operator), "device_revoke", || {
        post().to(revocations::device)
    }),
    route("GET", DEVICE_TRUSTPOINTS, Tenant(Viewer), "device_trustpoint_list", || {
        get().to(trustpoints::list_of_device)
    }),
    route("POST", DEVICE_TRUSTPOINTS, Tenant(Operator), "trustpoint_create", || post().to(trustpoints::create)),
    route("GET", TRUSTPOINT, Tenant(Viewer), "trustpoint_show", || get().to(trustpoints::show)),
    route("DELETE", TRUSTPOINT, Tenant(Operator), "trustpoint_delete", || delete().to(trustpoints::remove)),
    route("PUT", TRUSTPOINT_MAC, Tenant(Operator), "trustpoint_mac_set", || put().to(mac::set)),
    route("PUT", TRUSTPOINT_SERVICES, Tenant(Operator), "trustpoint_services_set", || {
        put().to(trustpoints::set_services)
    }),
    route("PUT", AUTO_UPDATE, Tenant(Operator), "trustpoint_auto_update_set", || {
        put().to(trustpoints::set_auto_update)
    }),
    route("PUT", RECOVERY, Tenant(Operator), "trustpoint_recovery_arm", || put().to(recoveries::arm)),
    route("DELETE", RECOVERY, Tenant(Operator), "trustpoint_recovery_disarm", || delete().to(recoveries::disarm)),
    route("POST", ENROLL, Tenant(Operator), "trustpoint_enroll", || post().to(trustpoints::enroll)),
    route(
        "POST",
        "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/dry-run",
        Tenant(Operator),
        "trustpoint_dry_run",
        || post().to(dry_runs::trustpoint),
    ),
    route("POST", ACTIVATE, Tenant(Operator), "trustpoint_activate", || post().to(trustpoints::activate)),
    route("POST", "/v1/tenants/{tenant}/trustpoints/mac-import", Tenant(Operator), "trustpoint_mac_import", || {
        post().to(mac::import)
    }),
    route("POST", "/v1/tenants/{tenant}/trustpoints/import", Tenant(Operator), "trustpoint_import", || {
        post().to(transfer::trustpoints::import)
    }),
    route("GET", "/v1/tenants/{tenant}/trustpoints/export", Tenant(Viewer), "trustpoint_export", || {
        get().to(transfer::trustpoints::export)
    }),
    route("GET", TRUSTPOINTS, Tenant(Viewer), "trustpoint_list", || get().to(trustpoints::list)),
    route(
        "GET",
        "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/history",
        Tenant(Viewer),
        "trustpoint_history",
        || get().to(history::of_trustpoint),
    ),
    route("GET", "/v1/tenants/{tenant}/statistics", Tenant(Viewer), "tenant_statistics", || {
        get().to(statistics::of_tenant)
    }),
    route("GET", "/v1/tenants/{tenant}/policies/{policy}/statistics", Tenant(Viewer), "policy_statistics", || {
        get().to(statistics::of_policy)
    }),
    route("GET", "/v1/tenants/{tenant}/devices/{device}/statistics", Tenant(Viewer), "device_statistics", || {
        get().to(statistics::of_device)
    }),
    route(
        "POST",
        "/v1/tenants/{tenant}/devices/{device}/statistics/reset",
        Tenant(Operator),
        "device_statistics_reset",
        || post().to(statistics::reset_device),
    ),
    route(
        "GET",
        "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/statistics",
        Tenant(Viewer),
        "trustpoint_statistics",
        || get().to(statistics::of_trustpoint),
    ),
    route(
        "POST",
        "/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/statistics/reset",
        Tenant(Operator),
        "trustpoint_statistics_reset",
        || post().to(statistics::reset_trustpoint),
    ),
    route("GET", JOBS, Tenant(Viewer), "job_list", || get().to(jobs::list)),
    route("GET", JOB, Tenant(Viewer), "job_show", || get().to(jobs::show)),
    route("GET", "/v1/tenants/{tenant}/jobs/{job}/transcript", Tenant(Viewer), "job_transcript", || {
        get().to(jobs::transcript)
    }),
    route("POST", "/v1/tenants/{tenant}/jobs/{job}/stop", Tenant(Operator), "job_stop", || post().to(jobs::stop)),
    route("GET", CERTIFICATES, Tenant(Viewer), "certificate_list", || get().to(certificates::list)),
    route("GET", CERTIFICATE, Tenant(Viewer), "certificate_show", || get().to(certificates::show)),
    route(
        "POST",
        "/v1/tenants/{tenant}/certificates/{certificate}/revoke",
        Tenant(Operator),
        "certificate_revoke",
        || post().to(revocations::certificate),
    ),
    route("GET", AUDIT, Tenant(Viewer), "audit_list", || get().to(audit::list)),
    route("GET", "/v1/tenants/{tenant}/audit/heads", Tenant(Viewer), "audit_heads", || get().to(audit::heads)),
    route("GET", "/v1/tenants/{tenant}/audit/export", Tenant(Viewer), "audit_export", || get().to(audit::export)),
    route("GET", "/v1/ca-endpoints", Platform, "ca_endpoint_list", || get().to(ca_endpoints::list)),
    route("POST", "/v1/ca-endpoints/respread", Platform, "ca_endpoint_respread", || post().to(forecasts::respread)),
    route("PUT", "/v1/ca-endpoints/{endpoint}", Platform, "ca_endpoint_update", || put().to(ca_endpoints::update)),
    route("DELETE", "/v1/ca-endpoints/{endpoint}", Platform, "ca_endpoint_delete", || delete().to(ca_endpoints::reset)),
    route("GET", DEAD_LETTERS, Platform, "dead_letter_list", || get().to(dead_letters::list)),
    route("DELETE", DEAD_LETTERS, Platform, "dead_letter_drop_all", || delete().to(dead_letters::drop_all)),
    route("GET", DEAD_LETTER, Platform, "dead_letter_show", || get().to(dead_letters::show)),
    route("DELETE", DEAD_LETTER, Platform, "dead_letter_drop", || delete().to(dead_letters::drop_one)),
    route("POST", "/v1/dead-letters/{letter}/retry", Platform, "dead_letter_retry", || post().to(dead_letters::retry)),
    route("GET", "/v1/audit", Platform, "platform_audit_list", || get().to(audit::platform_list)),
    route("GET", "/v1/audit/heads", Platform, "platform_audit_heads", || get().to(audit::platform_heads)),
    route("GET", "/v1/audit/export", Platform, "platform_audit_export", || get().to(audit::platform_export)),
    route("POST", "/agent/v1/join", Public, "agent_join", || post().to(agent_door::join)),
    route("POST", "/agent/v1/announce", Public, "agent_announce", || post().to(agent_door::announce)),
    route("POST", "/agent/v1/challenge", Public, "agent_challenge", || post().to(agent_door::challenge)),
    route("POST", "/agent/v1/session", Public, "agent_session", || post().to(agent_door::session)),
    route("GET", "/healthz", Public, "healthz", || get().to(health::healthz)),
    route("GET", "/readyz", Public, "readyz", || get().to(health::readyz)),
    route("GET", "/metrics", Public, "metrics", || get().to(metrics::metrics)),
    route("GET", "/openapi.json", Public, "openapi", || get().to(openapi::document)),
];
