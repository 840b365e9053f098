//! Takes leave of devices: at once, or when the certificates of one are revoked. With a device go its trustpoints and their
//! secrets, its jobs and certificates; with the last one of an agent the agent's queue at the broker.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use trustfleet_model::{
    clock::Clock,
    ids::{AgentId, TenantId},
    revocation::{Revocation, RevocationReason},
};

use crate::{
    actors::Registry,
    audit::Requester,
    broker::BrokerHandle,
    db::{DbError, Gone, InTheWay, LeavingDevice, Note, Store, SystemTx},
    device::{Command, Rejection, RemoveTrustpoint},
    error::AppError,
    steady::Steady,
    telemetry::chain,
};

/// Devices at a time.
const BATCH: i64 = 50;

/// Takes leave of devices.
#[derive(Clone)]
pub struct Leaver {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// RabbitMQ.
    pub broker: BrokerHandle,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Leaver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaver")
    }
}

impl Steady for Leaver {
    const WHAT: &'static str = "the removal of devices";
    type Error = AppError;

    async fn step(&self) -> Result<bool, AppError> {
        let leaving = self
            .store
            .system_tx("devices_leaving", async move |tx| -> Result<Vec<LeavingDevice>, DbError> {
                tx.devices_leaving(BATCH).await
            })
            .await?;
        let mut progress = false;
        for device in leaving {
            match self.leave(&device).await {
                Ok(gone) => progress |= gone,
                Err(error) => {
                    tracing::warn!(tenant.id = %device.tenant_id, device.id = %device.id, error = %chain(&error), "a device stays for now");
                }
            }
        }
        Ok(progress)
    }
}

impl Leaver {
    /// Whether a device that leaves is gone.
    async fn leave(&self, device: &LeavingDevice) -> Result<bool, AppError> {
        let now = self.clock.now();
        let by = Requester::controller().actor;
        let revocation = Revocation::wanted(RevocationReason::CessationOfOperation, by, now);
        let (owned, way) = (device.clone(), now);
        let in_the_way = self
            .store
            .system_tx("device_condemn_late", async move |tx| -> Result<InTheWay, DbError> {
                tx.device_condemn_late(&owned, &revocation, way).await?;
                tx.device_in_the_way(owned.tenant_id, owned.id, way).await
            })
            .await?;
        if in_the_way != (InTheWay { jobs: 0, to_revoke: 0, failed: 0 }) {
            // A revocation that failed is a person's: it stays until that is dealt with.
            return Ok(false);
        }
        let requester = Requester { actor: device.by.clone(), ..Requester::controller() };
        match self.remove(device, &requester, "revoke").await {
            Ok(_) => Ok(true),
            // Under way, or gone by another replica: later.
            Err(AppError::Rejected(_) | AppError::NotFound { .. } | AppError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a device with everything that is its own; `certificates`: what became of them, for the audit log.
    ///
    /// # Errors
    /// 409 while a job is under way; the database's own. What was removed stays so.
    pub async fn remove(
        &self,
        device: &LeavingDevice,
        requester: &Requester,
        certificates: &str,
    ) -> Result<Gone, AppError> {
        for trustpoint in &device.trustpoints {
            let command = Command::RemoveTrustpoint(RemoveTrustpoint {
                trustpoint: trustpoint.clone(),
                requested_by: requester.clone(),
            });
            match self.registry.ask(device.tenant_id, device.id, command).await {
                Ok(_) | Err(AppError::Rejected(Rejection::NoTrustpoint)) => {}
                Err(error) => return Err(error),
            }
        }
        let (now, owned) = (self.clock.now(), device.clone());
        let gone = self
            .store
            .system_tx("device_forget", async move |tx| -> Result<Gone, AppError> { forget_in(tx, &owned, now).await })
            .await?;
        let detail = json!({
            "name": device.name.as_str(), "certificates": certificates, "jobs": gone.jobs,
            "certificates_forgotten": gone.certificates,
        });
        let (id, requester) = (device.id, requester.clone());
        let was_last_of_agent = self
            .store
            .tenant_tx(device.tenant_id, "device_delete", async move |tx| -> Result<bool, DbError> {
                let was_last_of_agent = tx.device_delete(id).await?;
                let note = Note::new(now, &requester, "device_deleted", "device", id.as_uuid(), detail.clone());
                tx.audit_note(&note).await?;
                Ok(was_last_of_agent)
            })
            .await?;
        if let Some(agent) = device.agent_id.filter(|_| was_last_of_agent) {
            self.drop_queue(device.tenant_id, agent).await;
        }
        Ok(gone)
    }

    /// Removes an agent's queue; an agent that lives gets a new one with its next session. What fails is left to the broker,
    /// which removes queues that nobody reads.
    pub async fn drop_queue(&self, tenant: TenantId, agent: AgentId) {
        if let Err(error) = self.broker.delete_agent_queue(agent).await {
            tracing::warn!(tenant.id = %tenant, agent.id = %agent, error = %chain(&error), "an agent's queue stays");
        }
    }
}

/// What has ended; the device itself cannot go while anything else refers to it.
async fn forget_in(tx: &SystemTx, device: &LeavingDevice, now: Timestamp) -> Result<Gone, AppError> {
    let in_the_way = tx.device_in_the_way(device.tenant_id, device.id, now).await?;
    if in_the_way.jobs > 0 {
        let detail = format!("{} job(s) are under way: stop them or wait", in_the_way.jobs);
        return Err(AppError::Conflict { code: "job_under_way", detail });
    }
    Ok(tx.device_forget(device).await?)
}
