//! Rows into domain types and back; a row that cannot be read names its table, column and id.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use trustfleet_model::{
    device::{Device, Labels, Word},
    field::ObjectName,
    ids::{AgentId, DeviceId, TenantId, TrustpointId},
    trustpoint::Trustpoint,
};

use super::{DbError, tx::Id};

/// Column `trustpoints.state`, version 1.
#[derive(Serialize, Deserialize)]
struct StoredTrustpoint<T> {
    v: u16,
    trustpoint: T,
}

const STATE_VERSION: u16 = 1;

/// A trustpoint as column `state` holds it, tagged with its version.
pub(crate) fn stored_trustpoint(trustpoint: &Trustpoint) -> Result<serde_json::Value, DbError> {
    serde_json::to_value(StoredTrustpoint { v: STATE_VERSION, trustpoint })
        .map_err(|error| DbError::inconsistent("trustpoints", "state", trustpoint.id, error))
}

/// The trustpoint in columns `trustpoint_id` and `state`.
pub(in crate::db) fn trustpoint(row: &Row) -> Result<Trustpoint, DbError> {
    let Id(id): Id<TrustpointId> = row.try_get("trustpoint_id")?;
    let state: serde_json::Value = row.try_get("state")?;
    let wrong = |error: serde_json::Error| DbError::inconsistent("trustpoints", "state", id, error);
    let version = state.get("v").and_then(serde_json::Value::as_u64);
    if version != Some(STATE_VERSION.into()) {
        let text = format!("version {version:?} is unknown to this program: update it");
        return Err(DbError::inconsistent("trustpoints", "state", id, text));
    }
    let stored: StoredTrustpoint<Trustpoint> = serde_json::from_value(state).map_err(wrong)?;
    if stored.trustpoint.id != id {
        return Err(DbError::inconsistent("trustpoints", "state", id, "it holds another trustpoint"));
    }
    Ok(stored.trustpoint)
}

/// The device in columns `device_id`, `name`, `agent_id`, `serial`, `mac`, `labels`, `pair` and `standby`.
pub(in crate::db) fn device(row: &Row, tenant_id: TenantId) -> Result<Device, DbError> {
    let Id(id): Id<DeviceId> = row.try_get("device_id")?;
    let name: String = row.try_get("name")?;
    let name: ObjectName =
        name.parse().map_err(|error| DbError::inconsistent("devices", "name", id, Box::new(error)))?;
    let agent_id: Option<Id<AgentId>> = row.try_get("agent_id")?;
    let word = |column| -> Result<Option<Word>, DbError> {
        let text: Option<String> = row.try_get(column)?;
        text.map(Word::try_from).transpose().map_err(|error| DbError::inconsistent("devices", column, id, error))
    };
    let labels: serde_json::Value = row.try_get("labels")?;
    let labels: Labels =
        serde_json::from_value(labels).map_err(|error| DbError::inconsistent("devices", "labels", id, error))?;
    Ok(Device {
        tenant_id,
        id,
        name,
        agent_id: agent_id.map(|Id(agent)| agent),
        serial: word("serial")?,
        mac: word("mac")?,
        labels,
        pair: word("pair")?,
        standby: row.try_get("standby")?,
    })
}
