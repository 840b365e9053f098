//! Nodes of hot-standby pairs, as a hello tells of them (S47).

use jiff::Timestamp;
use trustfleet_model::{
    field::ObjectName,
    ids::{AgentId, TenantId},
};
use trustfleet_wire::v1::NodeSeen;

use super::Inbox;
use crate::{
    audit::Requester,
    db::{DbError, Note, TenantTx},
    nodes::{NodeStep, node_step},
};

/// Most nodes of one hello that are looked at.
const NODES_MAX: usize = 64;

impl Inbox {
    /// Makes devices the active nodes of their pairs that have become so.
    pub(super) async fn nodes(
        &self,
        tenant: TenantId,
        agent: AgentId,
        told: (Vec<NodeSeen>, Timestamp),
    ) -> Result<(), DbError> {
        let now = self.clock.now();
        let (nodes, told_at) = told;
        for node in nodes.into_iter().take(NODES_MAX) {
            let Ok(name) = node.device.parse::<ObjectName>() else { continue };
            let (active, since) = (node.active, node.since);
            let device = name.clone();
            let step = self
                .store
                .tenant_tx(tenant, "node_told", async move |tx| -> Result<Option<NodeStep>, DbError> {
                    take(tx, agent, &name, (active, since), (told_at, now)).await
                })
                .await?;
            match step {
                Some(NodeStep::SwitchOver) => {
                    tracing::info!(%device, agent.id = %agent, "its agent saw it become active")
                }
                Some(NodeStep::Wait) => {
                    tracing::info!(%device, agent.id = %agent, "its pair rests before it changes again")
                }
                Some(NodeStep::Nothing | NodeStep::Note) => {}
                None => {
                    tracing::warn!(%device, agent.id = %agent, "an agent tells of a device that it is not in front of")
                }
            }
        }
        Ok(())
    }
}

/// What became of it; none: the agent has no such device.
async fn take(
    tx: &TenantTx,
    agent: AgentId,
    name: &ObjectName,
    said: (bool, Timestamp),
    (told_at, now): (Timestamp, Timestamp),
) -> Result<Option<NodeStep>, DbError> {
    let Some(row) = tx.node_lock(agent, name).await? else { return Ok(None) };
    let step = node_step(&row.known, said.0, said.1, told_at, now);
    match (step, &row.pair) {
        (NodeStep::SwitchOver, Some(pair)) => {
            let others = tx.pair_switch(pair, row.id, now).await?;
            tx.node_note(row.id, said, told_at, Some(now)).await?;
            let requester = Requester::new(format!("agent:{agent}"), "agent");
            let detail = serde_json::json!({
                "name": name.as_str(), "pair": pair.as_ref(), "standing_by": others, "active_since": said.1,
            });
            let note = Note::new(now, &requester, "device_switched_over", "device", row.id.as_uuid(), detail);
            tx.audit_note(&note).await?;
        }
        (NodeStep::Note, _) => tx.node_note(row.id, said, told_at, None).await?,
        _ => {}
    }
    Ok(Some(step))
}
