//! Devices as their actors load them.

use std::collections::{BTreeMap, HashMap};

use trustfleet_model::ids::{AgentId, CertificateId, DeviceId, JobId, TenantId, TrustpointId};

use super::{DbError, SystemTx, TenantTx, row, tx::Id};
use crate::device::{Condemned, DeviceState, JobKind, OpenJob};

/// Which device.
pub type DeviceKey = (TenantId, DeviceId);
/// Devices by their keys, each as it was read.
pub type DeviceStates = HashMap<DeviceKey, Result<DeviceState, DbError>>;

impl SystemTx {
    /// Devices with their trustpoints and open jobs; those that are not there are left out. One that cannot be read is an
    /// error of its own. Of one snapshot only where the transaction sees one ([`super::Store::snapshot_tx`]).
    ///
    /// # Errors
    /// The database's own.
    pub async fn device_states_fetch(&self, wanted: &[DeviceKey]) -> Result<DeviceStates, DbError> {
        let tenants: Vec<_> = wanted.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
        let devices: Vec<_> = wanted.iter().map(|(_, device)| device.as_uuid()).collect();
        let found = self
            .query(
                "/* device_states_fetch: devices */ SELECT d.tenant_id, d.device_id, d.name, d.agent_id, d.serial, d.mac, d.labels,
                        d.pair, d.standby, d.version
                 FROM unnest($1::uuid[], $2::uuid[]) AS i(tenant_id, device_id) JOIN devices d USING (tenant_id, device_id)",
                &[&tenants, &devices],
            )
            .await?;
        let trustpoints = self
            .query(
                "/* device_states_fetch: trustpoints */ SELECT t.tenant_id, t.device_id, t.trustpoint_id, t.state
                 FROM unnest($1::uuid[], $2::uuid[]) AS i(tenant_id, device_id)
                 JOIN trustpoints t USING (tenant_id, device_id)",
                &[&tenants, &devices],
            )
            .await?;
        let open_jobs = self
            .query(
                "/* device_states_fetch: jobs */ SELECT j.tenant_id, j.device_id, j.job_id, j.trustpoint_id, j.agent_id, j.kind,
                        j.public_key_sha256, j.stop_pending, j.started_at IS NOT NULL AS started,
                        j.finished_at IS NOT NULL AS finished, c.certificate_id, c.not_after, c.revocation
                 FROM unnest($1::uuid[], $2::uuid[]) AS i(tenant_id, device_id)
                 JOIN jobs j USING (tenant_id, device_id)
                 LEFT JOIN certificates c ON c.tenant_id = j.tenant_id AND c.certificate_id = j.certificate_id
                 WHERE j.finished_at IS NULL OR j.stop_pending",
                &[&tenants, &devices],
            )
            .await?;
        let mut states = DeviceStates::new();
        for row in &found {
            let key = key(row)?;
            states.insert(key, empty(row, key.0));
        }
        for row in &trustpoints {
            fill(&mut states, row, |state| {
                let trustpoint = row::trustpoint(row)?;
                state.trustpoints.insert(trustpoint.id, trustpoint);
                Ok(())
            })?;
        }
        for row in &open_jobs {
            fill(&mut states, row, |state| {
                let (job_id, job) = open_job(row)?;
                let jobs = if row.try_get("finished")? { &mut state.stopped_jobs } else { &mut state.open_jobs };
                jobs.insert(job_id, job);
                Ok(())
            })?;
        }
        Ok(states)
    }
}

fn key(row: &tokio_postgres::Row) -> Result<DeviceKey, DbError> {
    let (Id(tenant), Id(device)) = (row.try_get("tenant_id")?, row.try_get("device_id")?);
    Ok((tenant, device))
}

fn empty(row: &tokio_postgres::Row, tenant: TenantId) -> Result<DeviceState, DbError> {
    Ok(DeviceState {
        device: row::device(row, tenant)?,
        version: row.try_get("version")?,
        trustpoints: BTreeMap::new(),
        open_jobs: BTreeMap::new(),
        stopped_jobs: BTreeMap::new(),
    })
}

/// Adds what a row says to its device, which fails by itself when the row cannot be read.
fn fill(
    states: &mut DeviceStates,
    row: &tokio_postgres::Row,
    add: impl FnOnce(&mut DeviceState) -> Result<(), DbError>,
) -> Result<(), DbError> {
    if let Some(found) = states.get_mut(&key(row)?)
        && let Ok(state) = found
        && let Err(error) = add(state)
    {
        *found = Err(error);
    }
    Ok(())
}

impl TenantTx {
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
