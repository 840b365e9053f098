//! Carries out bindings (S51): gives devices the trustpoints that their labels ask for, and takes leave of bindings that are
//! removed. Every replica does it; what two of them do at once, the device's own decision makes once.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use serde_json::json;
use trustfleet_model::{
    binding::Leaving,
    clock::Clock,
    ids::{BindingId, TenantId, TrustpointId},
    revocation::{Revocation, RevocationReason},
};

use crate::{
    actors::Registry,
    audit::Requester,
    db::{ChangedBinding, Counted, DbError, InForce, LeavingBinding, Note, Store, SystemTx, Unbound},
    device::{AddTrustpoint, Bound, Command, Rebind, Rejection, RemoveTrustpoint, Unbind},
    entropy,
    error::AppError,
    quota::{EXCEEDED, Limit},
    steady::Steady,
    telemetry::chain,
};

/// Devices or trustpoints at a time.
const BATCH: i64 = 100;

/// Carries out bindings.
#[derive(Clone)]
pub struct Binder {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Binder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binder")
    }
}

impl Steady for Binder {
    const WHAT: &'static str = "binding";
    type Error = AppError;

    async fn step(&self) -> Result<bool, AppError> {
        let unbound = self
            .store
            .system_tx("devices_to_bind", async move |tx| -> Result<Vec<Unbound>, DbError> {
                tx.devices_to_bind(BATCH).await
            })
            .await?;
        let mut progress = false;
        let mut full = HashSet::new();
        for device in unbound {
            if full.contains(&device.tenant_id) {
                continue;
            }
            if self.is_full(&device).await? {
                // The binding shows how far it has come; it goes on when there is room.
                full.insert(device.tenant_id);
                continue;
            }
            progress |= self.bind(device).await?;
        }
        let changed = self
            .store
            .system_tx("bindings_changed", async move |tx| -> Result<Vec<ChangedBinding>, DbError> {
                tx.bindings_changed(BATCH).await
            })
            .await?;
        for binding in changed {
            progress |= self.follow(binding).await?;
        }
        let leaving = self
            .store
            .system_tx("bindings_leaving", async move |tx| -> Result<Vec<LeavingBinding>, DbError> {
                tx.bindings_leaving(BATCH).await
            })
            .await?;
        for binding in leaving {
            progress |= self.leave(binding).await?;
        }
        Ok(progress)
    }
}

impl Binder {
    /// Whether the tenant has as many trustpoints as its quota allows.
    async fn is_full(&self, unbound: &Unbound) -> Result<bool, DbError> {
        let Some(most) = unbound.max_trustpoints else { return Ok(false) };
        let now = self.clock.now();
        let used = self
            .store
            .tenant_tx(unbound.tenant_id, "quota_used", async move |tx| -> Result<u32, DbError> {
                tx.quota_used(Counted::Trustpoints, most, now).await
            })
            .await?;
        Ok(used >= most)
    }

    /// Gives a device what it lacks; whether it is done with.
    async fn bind(&self, unbound: Unbound) -> Result<bool, AppError> {
        let tenant = unbound.tenant_id;
        let bindings = self
            .store
            .system_tx("bindings_in_force", async move |tx| -> Result<Vec<InForce>, DbError> {
                tx.bindings_in_force(tenant).await
            })
            .await?;
        for binding in bindings {
            if !binding.spec.selects(&unbound.labels) {
                continue;
            }
            let bound = binding.bound();
            let add = AddTrustpoint {
                id: TrustpointId::fresh(self.clock.now(), entropy::random()?),
                name: binding.spec.trustpoint,
                entity_id: binding.spec.entity_id,
                ca_server_id: binding.spec.ca_server_id,
                policy_id: binding.spec.policy_id,
                mac: None,
                mac_one_time: false,
                services: binding.spec.services,
                binding: Some(bound),
                requested_by: Requester::controller(),
            };
            let limit = |most| Limit { counted: Counted::Trustpoints, most };
            let limits = unbound.max_trustpoints.map(limit).into_iter().collect();
            let command = Command::AddTrustpoint(Box::new(add));
            match self.registry.ask_within(tenant, unbound.device_id, command, limits).await {
                Ok(_) | Err(AppError::NotFound { .. }) => {}
                // One of that name is there, by this binding or otherwise, or has a service of it: the binding tells how many.
                Err(AppError::Rejected(
                    Rejection::NameTaken | Rejection::ServiceTaken { .. } | Rejection::TooManyTrustpoints,
                )) => {}
                // The binding shows how far it has come; it goes on when there is room.
                Err(error) if error.code() == EXCEEDED => return Ok(false),
                Err(error) => {
                    tracing::warn!(device.id = %unbound.device_id, error = %chain(&error), "a device could not be bound");
                    return Ok(false);
                }
            }
        }
        self.store
            .system_tx("device_bound", async move |tx| -> Result<(), DbError> { tx.device_bound(&unbound).await })
            .await?;
        Ok(true)
    }

    /// Has one batch of trustpoints follow their binding, which was changed; whether there was progress.
    async fn follow(&self, changed: ChangedBinding) -> Result<bool, AppError> {
        let ChangedBinding { tenant_id: tenant, binding, trustpoints } = changed;
        if trustpoints.is_empty() {
            let (id, revision) = (binding.id, binding.revision);
            self.store
                .system_tx("binding_followed", async move |tx| -> Result<(), DbError> {
                    tx.binding_followed(tenant, id, revision).await
                })
                .await?;
            return Ok(true);
        }
        let mut progress = false;
        for (device, trustpoint) in trustpoints {
            let rebind = Rebind {
                trustpoint,
                bound: binding.bound(),
                entity_id: binding.spec.entity_id,
                ca_server_id: binding.spec.ca_server_id,
                policy_id: binding.spec.policy_id,
                services: binding.spec.services.clone(),
                requested_by: Requester::controller(),
            };
            match self.registry.ask(tenant, device, Command::Rebind(Box::new(rebind))).await {
                Ok(_) => progress = true,
                // Something is under way, or another trustpoint has a service: later; the binding tells how many.
                Err(AppError::Rejected(_) | AppError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(device.id = %device, error = %chain(&error), "a trustpoint stays behind"),
            }
        }
        Ok(progress)
    }

    /// Takes leave of one batch of a binding's trustpoints; whether there was progress.
    async fn leave(&self, binding: LeavingBinding) -> Result<bool, AppError> {
        let (tenant, id) = (binding.tenant_id, binding.id);
        if binding.leaving == Leaving::Revoke {
            // Whatever came since the removal was asked for; a trustpoint stays until nothing more can come.
            let now = self.clock.now();
            let actor = Requester::controller().actor;
            let revocation = Revocation::wanted(RevocationReason::CessationOfOperation, actor, now);
            self.store
                .system_tx("revocation_want_late", async move |tx| -> Result<u64, DbError> {
                    tx.revocation_want_late(tenant, id, &revocation, now).await
                })
                .await?;
        }
        let mut progress = false;
        for (device, trustpoint) in binding.trustpoints {
            let requested_by = Requester::controller();
            let command = match binding.leaving {
                Leaving::Keep | Leaving::Revoke => {
                    let when_idle = binding.leaving == Leaving::Revoke;
                    Command::Unbind(Unbind { trustpoint, binding_id: id, when_idle, requested_by })
                }
                Leaving::Delete => Command::RemoveTrustpoint(RemoveTrustpoint { trustpoint, requested_by }),
            };
            match self.registry.ask(tenant, device, command).await {
                Ok(_) => progress = true,
                // Under way: later.
                Err(AppError::Rejected(_) | AppError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(device.id = %device, error = %chain(&error), "a trustpoint stays bound"),
            }
        }
        Ok(self.forget(tenant, binding.leaving, id).await? || progress)
    }

    async fn forget(&self, tenant: TenantId, leaving: Leaving, id: BindingId) -> Result<bool, DbError> {
        let now = self.clock.now();
        self.store.system_tx("binding_delete", async move |tx| forget_in(tx, tenant, leaving, id, now).await).await
    }
}

impl InForce {
    /// What a trustpoint that comes by it is told.
    fn bound(&self) -> Bound {
        Bound { id: self.id, revision: self.revision, enroll: self.spec.enroll }
    }
}

async fn forget_in(
    tx: &SystemTx,
    tenant: TenantId,
    leaving: Leaving,
    id: BindingId,
    now: Timestamp,
) -> Result<bool, DbError> {
    if !tx.binding_delete(tenant, id).await? {
        return Ok(false);
    }
    let requester = Requester::controller();
    let detail = json!({ "certificates": leaving.as_str() });
    tx.audit_note(tenant, &Note::new(now, &requester, "binding_deleted", "binding", id.as_uuid(), detail)).await?;
    Ok(true)
}
