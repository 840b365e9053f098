//! Devices as their actors load them.

use std::collections::BTreeMap;

use trustfleet_model::ids::{AgentId, CertificateId, DeviceId, JobId, TrustpointId};

use super::{DbError, TenantTx, row, tx::Id};
use crate::device::{Condemned, DeviceState, JobKind, OpenJob};

impl TenantTx {
    /// A device with its trustpoints and open jobs, as of one snapshot.
    ///
    /// # Errors
    /// No such device in this tenant; rows that cannot be read.
    pub async fn device_state_fetch(&self, device: DeviceId) -> Result<DeviceState, DbError> {
        let id = Id(device);
        let found = self
            .query_opt(
                "/* device_state_fetch: device */ SELECT device_id, name, agent_id, serial, mac, labels, pair, standby, version
                 FROM devices WHERE tenant_id = $1 AND device_id = $2",
                &[&id],
            )
            .await?
            .ok_or(DbError::NotFound { kind: "device" })?;
        let trustpoints = self
            .query(
                "/* device_state_fetch: trustpoints */ SELECT trustpoint_id, state FROM trustpoints
                 WHERE tenant_id = $1 AND device_id = $2",
                &[&id],
            )
            .await?;
        let open_jobs = self
            .query(
                "/* device_state_fetch: jobs */ SELECT j.job_id, j.trustpoint_id, j.agent_id, j.kind, j.public_key_sha256,
                        j.stop_pending, j.started_at IS NOT NULL AS started, j.finished_at IS NOT NULL AS finished,
                        c.certificate_id, c.not_after, c.revocation
                 FROM jobs j LEFT JOIN certificates c ON c.tenant_id = j.tenant_id AND c.certificate_id = j.certificate_id
                 WHERE j.tenant_id = $1 AND j.device_id = $2 AND (j.finished_at IS NULL OR j.stop_pending)",
                &[&id],
            )
            .await?;
        let mut stopped_jobs = BTreeMap::new();
        let mut unfinished = BTreeMap::new();
        for row in &open_jobs {
            let (job_id, job) = open_job(row)?;
            if row.try_get("finished")? {
                stopped_jobs.insert(job_id, job);
            } else {
                unfinished.insert(job_id, job);
            }
        }
        Ok(DeviceState {
            device: row::device(&found, self.tenant_id())?,
            version: found.try_get("version")?,
            trustpoints: trustpoints
                .iter()
                .map(|row| row::trustpoint(row).map(|trustpoint| (trustpoint.id, trustpoint)))
                .collect::<Result<_, _>>()?,
            open_jobs: unfinished,
            stopped_jobs,
        })
    }

    /// The present version of a device's row; none: there is no such device.
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_version(&self, device: DeviceId) -> Result<Option<i64>, DbError> {
        let sql = "/* device_version */ SELECT version FROM devices WHERE tenant_id = $1 AND device_id = $2";
        match self.query_opt(sql, &[&Id(device)]).await? {
            Some(row) => Ok(Some(row.try_get(0)?)),
            None => Ok(None),
        }
    }
}

fn open_job(row: &tokio_postgres::Row) -> Result<(JobId, OpenJob), DbError> {
    let Id(job_id): Id<JobId> = row.try_get("job_id")?;
    let Id(trustpoint_id): Id<TrustpointId> = row.try_get("trustpoint_id")?;
    let Id(agent_id): Id<AgentId> = row.try_get("agent_id")?;
    let kind: &str = row.try_get("kind")?;
    let kind = JobKind::from_word(kind)
        .ok_or_else(|| DbError::inconsistent("jobs", "kind", job_id, format!("the kind {kind:?} is unknown")))?;
    let public_key_sha256 = row.try_get("public_key_sha256")?;
    let (started, stop_requested) = (row.try_get("started")?, row.try_get("stop_pending")?);
    let condemned = condemned(row)?;
    let job = OpenJob { trustpoint_id, agent_id, kind, public_key_sha256, started, stop_requested, condemned };
    Ok((job_id, job))
}

fn condemned(row: &tokio_postgres::Row) -> Result<Option<Condemned>, DbError> {
    let certificate: Option<Id<CertificateId>> = row.try_get("certificate_id")?;
    let revocation: Option<serde_json::Value> = row.try_get("revocation")?;
    let Some((Id(id), revocation)) = certificate.zip(revocation) else { return Ok(None) };
    let revocation = serde_json::from_value(revocation)
        .map_err(|error| DbError::inconsistent("certificates", "revocation", id, error))?;
    Ok(Some(Condemned { id, not_after: row.try_get("not_after")?, revocation }))
}
