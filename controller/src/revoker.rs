//! Asks for revocations that are wanted: those of many certificates at once, those that waited for approval, and those
//! that are tried again. Any replica does it; a certificate that is due is claimed for a minute.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    clock::Clock,
    ids::JobId,
    job::{Culprit, Failure},
};

use crate::{
    actors::Registry,
    audit::Requester,
    db::{DbError, DueRevocation, Store, ToRevoke},
    device::{Command, Rejection, Reply, Revoke},
    entropy,
    error::AppError,
    steady::Steady,
    telemetry::chain,
};

/// Certificates at a time.
const BATCH: i64 = 256;
/// How long a certificate is left alone when nothing came of it.
const CLAIM: SignedDuration = SignedDuration::from_secs(60);

/// Asks for revocations that are wanted.
#[derive(Clone)]
pub struct Revoker {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Revoker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revoker")
    }
}

impl Steady for Revoker {
    const WHAT: &'static str = "revocation";
    type Error = DbError;

    async fn step(&self) -> Result<bool, DbError> {
        let now = self.clock.now();
        let again_at = now.checked_add(CLAIM).unwrap_or(now);
        let due: Vec<DueRevocation> = self
            .store
            .system_tx("revocations_due", async move |tx| tx.revocations_due(now, again_at, BATCH).await)
            .await?;
        let full = i64::try_from(due.len()).is_ok_and(|rows| rows >= BATCH);
        for due in due {
            let (tenant, id) = (due.tenant_id, due.certificate_id);
            match self.ask(&due, now).await {
                Ok(Some(reply)) => {
                    tracing::info!(tenant.id = %tenant, certificate.id = %id, ?reply, "revocation asked for")
                }
                Ok(None) | Err(AppError::NotFound { .. } | AppError::Rejected(Rejection::NoTrustpoint)) => {
                    self.give_up(due, now).await?;
                }
                Err(error) => {
                    tracing::warn!(tenant.id = %tenant, certificate.id = %id, error = %chain(&error), "revocation put off");
                }
            }
        }
        Ok(full)
    }
}

impl Revoker {
    /// None: there is nobody to ask.
    async fn ask(&self, due: &DueRevocation, now: Timestamp) -> Result<Option<Reply>, AppError> {
        let id = due.certificate_id;
        let found: Result<Option<ToRevoke>, DbError> = self
            .store
            .tenant_tx(due.tenant_id, "revocation_context", async move |tx| tx.revocation_context(id, now).await)
            .await;
        let Some(found) = found? else { return Ok(None) };
        let device = found.device_id;
        let command = Command::Revoke(Box::new(Revoke {
            trustpoint_id: found.trustpoint_id,
            certificate: found.facts,
            reason: due.revocation.reason,
            by_hand: due.revocation.by_hand,
            unattended: true,
            job_id: JobId::fresh(now, entropy::random()?),
            requested_by: Requester::controller(),
            traceparent: None,
            context: found.context,
        }));
        self.registry.ask(due.tenant_id, device, command).await.map(Some)
    }

    async fn give_up(&self, due: DueRevocation, now: Timestamp) -> Result<(), DbError> {
        let failure = Failure {
            culprit: Culprit::Configuration,
            code: "trustpoint_removed".to_owned(),
            message: "the revocation was not asked for, the certificate's trustpoint is gone: revoke it at its CA"
                .to_owned(),
            pki_status: None,
            fail_info: Vec::new(),
            status_string: None,
            maybe_issued: false,
        };
        let (tenant, id) = (due.tenant_id, due.certificate_id);
        // It is no fault of the way to the CA: it is not tried again.
        let (failed, _) = due.revocation.failed(failure, now, now);
        self.store.system_tx("revocation_settle", async move |tx| tx.revocation_settle(tenant, id, &failed).await).await
    }
}
