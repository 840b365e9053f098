//! SQL of table `entities`: subjects and alternative names (S2).

use jiff::Timestamp;
use trustfleet_model::entity::EntitySpec;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::EntityId;

use super::DbError;
use super::column::{Columns, to_json};
use super::configured::{Configured, UsedBy, configured_table};
use super::tx::Id;

configured_table!(
    "entities",
    "entity",
    "entity_id",
    EntityId,
    EntitySpec,
    entity_insert,
    entity_fetch,
    entity_list,
    entity_update,
    entity_used_by,
    entity_delete
);
