//! SQL of revocations: which certificates are to be revoked, and what asking for it needs.

use jiff::Timestamp;
use trustfleet_model::ca_server::CaServerSpec;
use trustfleet_model::certificate::CertificateFacts;
use trustfleet_model::ids::{AgentId, BindingId, CertificateId, DeviceId, TenantId, TrustpointId};
use trustfleet_model::revocation::{Revocation, Signer};
use trustfleet_pki::certificate::Certificate;

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx, row};
use crate::device::RevokeContext;
use crate::telemetry::chain;

/// Whose certificates are to be revoked.
#[derive(Clone, Copy, Debug)]
pub enum Condemn {
    /// This one.
    Certificate(CertificateId),
    /// All valid ones of a device.
    Device(DeviceId),
    /// All valid ones of the devices that an agent is in front of.
    Agent(AgentId),
    /// All valid ones of the trustpoints that came by a binding.
    Binding(BindingId),
}

/// A certificate with everything that asking for its revocation needs.
#[derive(Clone, Debug)]
pub struct ToRevoke {
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The certificate.
    pub facts: CertificateFacts,
    /// Who asks, and how.
    pub context: RevokeContext,
}

/// A wanted revocation whose moment has come.
#[derive(Clone, Debug)]
pub struct DueRevocation {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// The certificate.
    pub certificate_id: CertificateId,
    /// How far it is.
    pub revocation: Revocation,
}

const OF_BINDING: &str =
    "c.trustpoint_id IN (SELECT t.trustpoint_id FROM trustpoints t WHERE t.tenant_id = $1 AND t.binding_id = $2)";

/// Marks the valid ones of these certificates that are neither revoked nor about to be.
fn want(scope: &str) -> String {
    format!(
        "/* revocation_want */ UPDATE certificates c SET revocation = $3, revocation_due_at = $4
         WHERE c.tenant_id = $1 AND {scope} AND c.not_after > $4
           AND (c.revocation IS NULL OR c.revocation ->> 'state' = 'failed')"
    )
}

impl TenantTx {
    /// Marks certificates as to be revoked that are valid at `now` and neither revoked nor about to be. Returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revocation_want(
        &self,
        whose: Condemn,
        revocation: &Revocation,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let (scope, id) = match whose {
            Condemn::Certificate(id) => ("c.certificate_id = $2", id.as_uuid()),
            Condemn::Device(id) => ("c.device_id = $2", id.as_uuid()),
            Condemn::Agent(id) => (
                "c.device_id IN (SELECT d.device_id FROM devices d WHERE d.tenant_id = $1 AND d.agent_id = $2)",
                id.as_uuid(),
            ),
            Condemn::Binding(id) => (OF_BINDING, id.as_uuid()),
        };
        let stored = serde_json::to_value(revocation)
            .map_err(|error| DbError::inconsistent("certificates", "revocation", id, error))?;
        self.execute(&want(scope), &[&id, &stored, &now]).await
    }

    /// What asking for the revocation of a certificate needs, as of `now`; none: its trustpoint is gone, and with it whom to
    /// ask.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; rows that cannot be read.
    pub async fn revocation_context(&self, id: CertificateId, now: Timestamp) -> Result<Option<ToRevoke>, DbError> {
        let found = self.listed_certificate_fetch(id).await?;
        let certificate = Certificate::from_der(&found.der);
        let certificate_pem =
            certificate.map_err(|error| DbError::inconsistent("certificates", "der", id, error))?.to_pem();
        let sql = "/* revocation_context */ SELECT c.certificate_id, c.device_id, c.trustpoint_id, t.policy_id, s.spec AS ca_server,
                          p.spec AS policy, p.revision, d.agent_id, a.quarantined_at IS NOT NULL AS quarantined
                   FROM certificates c
                   JOIN trustpoints t ON t.tenant_id = c.tenant_id AND t.trustpoint_id = c.trustpoint_id
                   JOIN ca_servers s ON s.tenant_id = t.tenant_id AND s.ca_server_id = t.ca_server_id
                   JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
                   JOIN devices d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id
                   LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id
                   WHERE c.tenant_id = $1 AND c.certificate_id = $2";
        let Some(row) = self.query_opt(sql, &[&Id(id)]).await? else { return Ok(None) };
        let columns = Columns::new(&row, "certificates", "certificate_id");
        let ca_server: CaServerSpec = columns.json("ca_server")?;
        let agent: Option<Id<AgentId>> = columns.read("agent_id")?;
        let context = RevokeContext {
            certificate_pem,
            policy: columns.json("policy")?,
            policy_revision: columns.parse::<i32, _>("revision")?,
            agent_id: agent.map(|Id(agent)| agent),
            agent_quarantined: columns.read("quarantined")?,
            signer_in_use: false,
            ca_server,
        };
        let context = match context.ca_server.revocation.signer().cloned() {
            Some(signer) => self.signed_by(context, &signer, now).await?,
            None => context,
        };
        Ok(Some(ToRevoke {
            device_id: columns.read::<Id<DeviceId>>("device_id")?.0,
            trustpoint_id: columns.read::<Id<TrustpointId>>("trustpoint_id")?.0,
            facts: found.listed.facts,
            context,
        }))
    }

    /// The same, asked for by a registration authority: its agent, its policy.
    async fn signed_by(
        &self,
        context: RevokeContext,
        signer: &Signer,
        now: Timestamp,
    ) -> Result<RevokeContext, DbError> {
        let sql =
            "/* revocation_signer */ SELECT t.trustpoint_id, t.state, p.policy_id, p.spec, p.revision, d.agent_id,
                          a.quarantined_at IS NOT NULL AS quarantined
                   FROM devices d
                   JOIN trustpoints t ON t.tenant_id = d.tenant_id AND t.device_id = d.device_id
                   JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
                   LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id
                   WHERE d.tenant_id = $1 AND d.name = $2 AND t.name = $3";
        let Some(row) = self.query_opt(sql, &[&signer.device, &signer.trustpoint]).await? else {
            return Ok(RevokeContext { agent_id: None, ..context });
        };
        let columns = Columns::new(&row, "policies", "policy_id");
        let agent: Option<Id<AgentId>> = columns.read("agent_id")?;
        let active = row::trustpoint(&row)?.active;
        Ok(RevokeContext {
            policy: columns.json("spec")?,
            policy_revision: columns.parse::<i32, _>("revision")?,
            agent_id: agent.map(|Id(agent)| agent),
            agent_quarantined: columns.read("quarantined")?,
            signer_in_use: active.is_some_and(|active| active.not_after > now && !active.is_given_up()),
            ..context
        })
    }
}

impl SystemTx {
    /// Claims up to `limit` revocations of active tenants that are due at `now`, those that wait longest first: no other
    /// replica finds them before `again_at`. One that cannot be read is logged and left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revocations_due(
        &self,
        now: Timestamp,
        again_at: Timestamp,
        limit: i64,
    ) -> Result<Vec<DueRevocation>, DbError> {
        let sql = "/* revocations_due */ WITH due AS (
                 SELECT c.tenant_id, c.certificate_id FROM certificates c JOIN tenants o ON o.tenant_id = c.tenant_id
                 WHERE c.revocation_due_at <= $1 AND o.state = 'active'
                 ORDER BY c.revocation_due_at LIMIT $3 FOR UPDATE OF c SKIP LOCKED
             )
             UPDATE certificates c SET revocation_due_at = $2 FROM due
             WHERE c.tenant_id = due.tenant_id AND c.certificate_id = due.certificate_id
             RETURNING c.tenant_id, c.certificate_id, c.revocation";
        let rows = self.query(sql, &[&now, &again_at, &limit]).await?;
        let read = |row| {
            due(row).inspect_err(|error| tracing::error!(error = %chain(error), "a revocation cannot be read")).ok()
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Marks certificates of a binding's trustpoints as to be revoked that came after the rest of them were: see
    /// [`TenantTx::revocation_want`]. What failed meanwhile stays so.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revocation_want_late(
        &self,
        tenant: TenantId,
        binding: BindingId,
        revocation: &Revocation,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let stored = serde_json::to_value(revocation)
            .map_err(|error| DbError::inconsistent("certificates", "revocation", binding, error))?;
        let sql = want(&format!("{OF_BINDING} AND c.revocation IS NULL"));
        self.execute(&sql, &[&Id(tenant), &Id(binding), &stored, &now]).await
    }

    /// Writes how a revocation ended that no device could be asked about.
    ///
    /// # Errors
    /// The database's own.
    pub async fn revocation_settle(
        &self,
        tenant: TenantId,
        id: CertificateId,
        revocation: &Revocation,
    ) -> Result<(), DbError> {
        let stored = serde_json::to_value(revocation)
            .map_err(|error| DbError::inconsistent("certificates", "revocation", id, error))?;
        let sql = "/* revocation_settle */ UPDATE certificates SET revocation = $3, revocation_due_at = NULL
             WHERE tenant_id = $1 AND certificate_id = $2 AND revocation ->> 'state' = 'wanted'";
        self.execute(sql, &[&Id(tenant), &Id(id), &stored]).await.map(drop)
    }
}

fn due(row: &tokio_postgres::Row) -> Result<DueRevocation, DbError> {
    let columns = Columns::new(row, "certificates", "certificate_id");
    Ok(DueRevocation {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        certificate_id: columns.read::<Id<CertificateId>>("certificate_id")?.0,
        revocation: columns.json("revocation")?,
    })
}
