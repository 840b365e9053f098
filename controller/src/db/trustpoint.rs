//! What an enrolment needs to know, read in one transaction.

use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use trustfleet_model::{
    field::TrustpointName,
    ids::{DeviceId, JobId, TrustpointId},
};

use super::{DbError, TenantTx, tx::Id};
use crate::device::EnrollContext;

impl TenantTx {
    /// Entity, CA server and policy of a trustpoint, and the job that the client's idempotency key led to before.
    ///
    /// # Errors
    /// No such trustpoint on that device in this tenant; rows that cannot be read.
    pub async fn enrollment_context(
        &self,
        device: DeviceId,
        trustpoint: &TrustpointName,
        request_key: Option<&str>,
    ) -> Result<EnrollContext, DbError> {
        let row = self
            .query_opt(
                "/* enrollment_context */ SELECT t.trustpoint_id, e.spec AS entity, c.spec AS ca_server,
                        p.spec AS policy, p.revision AS policy_revision, j.job_id AS known_job,
                        encode(sha256(a.sign_key), 'hex') AS agent_key
                 FROM trustpoints t
                 JOIN entities e ON e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id
                 JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id
                 JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
                 JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
                 LEFT JOIN agents a ON a.tenant_id = d.tenant_id AND a.agent_id = d.agent_id
                 LEFT JOIN jobs j ON j.tenant_id = t.tenant_id AND j.trustpoint_id = t.trustpoint_id
                      AND j.request_key = $4
                 WHERE t.tenant_id = $1 AND t.device_id = $2 AND t.name = $3",
                &[&Id(device), &trustpoint.as_str(), &request_key],
            )
            .await?
            .ok_or(DbError::NotFound { kind: "trustpoint" })?;
        let Id(trustpoint_id): Id<TrustpointId> = row.try_get("trustpoint_id")?;
        let revision: i32 = row.try_get("policy_revision")?;
        let known_job: Option<Id<JobId>> = row.try_get("known_job")?;
        Ok(EnrollContext {
            trustpoint_id,
            entity: spec(&row, "entities", "entity", trustpoint_id)?,
            ca_server: spec(&row, "ca_servers", "ca_server", trustpoint_id)?,
            policy: spec(&row, "policies", "policy", trustpoint_id)?,
            policy_revision: revision
                .try_into()
                .map_err(|error| DbError::inconsistent("policies", "revision", trustpoint_id, Box::new(error)))?,
            known_job: known_job.map(|Id(job)| job),
            agent_key_sha256: row.try_get("agent_key")?,
        })
    }
}

fn spec<T: DeserializeOwned>(
    row: &Row,
    table: &'static str,
    column: &str,
    trustpoint: TrustpointId,
) -> Result<T, DbError> {
    let value: serde_json::Value = row.try_get(column)?;
    serde_json::from_value(value)
        .map_err(|error| DbError::inconsistent(table, "spec", format!("of trustpoint {trustpoint}"), error))
}
