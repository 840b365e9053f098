//! SQL of table `ca_servers`: CA servers (S5, S6, S16).

use jiff::Timestamp;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::CaServerId;

use super::DbError;
use super::column::{Columns, to_json};
use super::configured::{Configured, UsedBy, configured_table};
use super::tx::Id;

configured_table!(
    "ca_servers",
    "CA server",
    "ca_server_id",
    CaServerId,
    CaServerSpec,
    ca_server_insert,
    ca_server_fetch,
    ca_server_list,
    ca_server_update,
    ca_server_used_by,
    ca_server_delete
);
