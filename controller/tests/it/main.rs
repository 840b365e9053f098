//! The controller against a real PostgreSQL and RabbitMQ: a database and a virtual host for each test.
//!
//! Run inside `trustfleet-lab stack -- cargo nextest run -p trustfleet-controller`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod admission;
mod agents_doors;
mod agents_out;
mod announcing;
mod api_access;
mod api_agents;
mod api_changes;
mod api_house;
mod api_identity;
mod api_input;
mod api_objects;
mod api_oidc;
mod api_tenants;
mod audit;
mod audit_chain;
mod bindings;
mod blocked_subjects;
mod certificates;
mod dead_letters;
mod endurance;
mod every_door;
mod fixture;
mod forecast;
mod group_commit;
mod housekeeping;
mod http_door;
mod idp;
mod key_rotation;
mod leases;
mod mac_import;
mod metrics;
mod offline;
mod outbox;
mod quotas;
mod renewal;
mod reports;
mod revocation;
mod rollovers;
mod roots;
mod running;
mod same_statements;
mod schema;
mod search;
mod statistics;
mod stopping;
mod storms;
mod support;
mod transcripts;
mod transfer;
mod walls;
