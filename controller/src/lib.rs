//! The Trustfleet controller: one actor per device over PostgreSQL, jobs and reports over RabbitMQ, REST for operators.
//!
//! Who may know whom: `api -> actors -> device`, `actors -> commit -> db`; read handlers may call `db`; `db` and
//! `broker` know `device` and the shared crates, never `actors` or `api`; only [`app`] knows everyone. `device` is pure.
//!
//! What handlers work with is [`app::Services`]:
//! * `services.store.tenant_tx(tenant, "device_list", async |tx| tx.device_list(..).await)`: reads and plain changes of
//!   one tenant; SQL methods are written on [`db::TenantTx`], one file of `db/` per table;
//! * `services.store.system_tx("purge", async |tx| ..)`: the short door across tenants, [`db::SystemTx`]; `system_read` for one
//!   statement that only reads;
//! * `services.registry.ask(tenant, device, command)`: everything that changes a trustpoint, [`device::Command`];
//! * `services.keys`: signing key, the broker's token key, encryption of secrets at rest;
//! * `services.broker.declare_agent_queue(agent)` and `.is_ready()`.

pub mod actors;
pub mod admission;
pub mod api;
pub mod app;
pub mod audit;
pub mod binder;
pub mod bounds;
pub mod broker;
pub mod campaign;
pub mod campaigner;
pub mod cli;
pub mod commit;
pub mod config;
pub mod cut_off;
pub mod db;
pub mod dead_letters;
pub mod denials;
pub mod device;
pub mod entropy;
pub mod error;
pub mod factory;
pub mod freeze;
pub mod freezer;
mod gather;
pub mod gauges;
pub mod housekeeping;
pub mod inbox;
pub mod keys;
pub mod leases;
pub mod leaver;
pub mod load;
pub mod metrics;
pub mod nodes;
pub mod outbox;
pub mod preview;
pub mod program;
pub mod purge;
pub mod quota;
pub mod renewal;
pub mod revoker;
pub mod roller;
pub mod rotation;
pub mod secrets;
pub mod spreader;
pub mod steady;
pub mod telemetry;
pub mod tls;
