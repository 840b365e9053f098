//! SQL of what agents see of the nodes of hot-standby pairs (S47).

use jiff::Timestamp;
use trustfleet_model::device::Word;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{AgentId, DeviceId};

use super::column::Columns;
use super::{DbError, TenantTx, tx::Id};
use crate::nodes::KnownNode;

/// A device that an agent has told of.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// The device.
    pub id: DeviceId,
    /// Its pair.
    pub pair: Option<Word>,
    /// What is known of it.
    pub known: KnownNode,
}

impl TenantTx {
    /// A device of an agent as a node of its pair, locked until the transaction ends; none: the agent has no such device.
    ///
    /// # Errors
    /// The database's own.
    pub async fn node_lock(&self, agent: AgentId, name: &ObjectName) -> Result<Option<NodeRow>, DbError> {
        let sql = "/* node_lock */ SELECT d.device_id, d.pair, d.standby, d.node_active, d.node_since, d.node_told_at, \
                   (SELECT max(p.switched_at) FROM devices p WHERE p.tenant_id = d.tenant_id AND p.pair = d.pair) \
                   AS pair_switched_at \
                   FROM devices d WHERE d.tenant_id = $1 AND d.agent_id = $2 AND d.name = $3 FOR UPDATE OF d";
        let Some(row) = self.query_opt(sql, &[&Id(agent), &name.as_str()]).await? else { return Ok(None) };
        let columns = Columns::new(&row, "devices", "device_id");
        let pair: Option<Word> = columns.parse_opt::<String, _>("pair")?;
        let said: (Option<bool>, Option<Timestamp>) = (columns.read("node_active")?, columns.read("node_since")?);
        Ok(Some(NodeRow {
            id: columns.read::<Id<DeviceId>>("device_id")?.0,
            known: KnownNode {
                paired: pair.is_some(),
                standby: columns.read("standby")?,
                said: said.0.zip(said.1),
                told_at: columns.read("node_told_at")?,
                pair_switched_at: columns.read("pair_switched_at")?,
            },
            pair,
        }))
    }

    /// Takes note of what an agent said of a node; `switched_at`: it was made the active one for that.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn node_note(
        &self,
        device: DeviceId,
        (active, since): (bool, Timestamp),
        told_at: Timestamp,
        switched_at: Option<Timestamp>,
    ) -> Result<(), DbError> {
        let sql = "/* node_note */ UPDATE devices SET node_active = $3, node_since = $4, node_told_at = $5, \
                   switched_at = coalesce($6, switched_at) WHERE tenant_id = $1 AND device_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(device), &active, &since, &told_at, &switched_at]).await?, "device")
    }
}
