//! What the inbox must know about the sender of a message before it believes a word of it.

use jiff::Timestamp;
use trustfleet_model::ids::{AgentId, JobId, TenantId, TrustpointId};

use super::{DbError, SystemTx, tx::Id};
use crate::device::{JobFacts, JobKind};

/// An agent, and the job that its message names.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Ed25519 key that its messages must verify with.
    pub sign_key: Vec<u8>,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// Whether it is in quarantine: then nothing that it says counts.
    pub quarantined: bool,
    /// The job, where the agent's tenant has one of that id.
    pub job: Option<JobFacts>,
    /// Whether the job has ended.
    pub finished: bool,
    /// Sequence of the job's last publication.
    pub sequence: Option<i64>,
    /// Whether the job waits to be published.
    pub in_outbox: bool,
    /// The CA endpoint that the job's exchange counts for, and whether that has given no answer lately.
    pub endpoint: Option<(String, bool)>,
}

impl SystemTx {
    /// The agent that a message claims to be from, and the job that it names; none: no such agent.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn sender_fetch(
        &self,
        tenant: TenantId,
        agent: AgentId,
        job: Option<JobId>,
    ) -> Result<Option<Sender>, DbError> {
        let row = self
            .query_opt(
                "/* sender_fetch */ SELECT a.sign_key, a.last_seen_at,
                        a.quarantined_at IS NOT NULL AS quarantined, j.job_id, j.agent_id, j.device_id,
                        j.trustpoint_id, j.kind, j.sequence, j.endpoint,
                        EXISTS (SELECT FROM ca_endpoints e WHERE e.endpoint = j.endpoint AND e.failures > 0) AS is_ill,
                        j.finished_at IS NOT NULL AS finished,
                        EXISTS (SELECT FROM outbox o WHERE o.tenant_id = j.tenant_id AND o.job_id = j.job_id)
                            AS in_outbox
                 FROM agents a LEFT JOIN jobs j ON j.tenant_id = a.tenant_id AND j.job_id = $3
                 WHERE a.tenant_id = $1 AND a.agent_id = $2",
                &[&Id(tenant), &Id(agent), &job.map(|job| job.as_uuid())],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let found: Option<Id<JobId>> = row.try_get("job_id")?;
        let job = match found {
            None => None,
            Some(Id(job_id)) => {
                let Id(agent_id) = row.try_get("agent_id")?;
                let Id(device_id) = row.try_get("device_id")?;
                let Id(trustpoint_id) = row.try_get("trustpoint_id")?;
                let kind: &str = row.try_get("kind")?;
                let kind = JobKind::from_word(kind)
                    .ok_or_else(|| DbError::inconsistent("jobs", "kind", job_id, format!("{kind:?} is unknown")))?;
                Some(JobFacts { agent_id, device_id, trustpoint_id, kind })
            }
        };
        Ok(Some(Sender {
            sign_key: row.try_get("sign_key")?,
            last_seen_at: row.try_get("last_seen_at")?,
            quarantined: row.try_get("quarantined")?,
            job,
            finished: row.try_get("finished")?,
            sequence: row.try_get("sequence")?,
            in_outbox: row.try_get("in_outbox")?,
            endpoint: row.try_get::<_, Option<String>>("endpoint")?.zip(Some(row.try_get("is_ill")?)),
        }))
    }

    /// Another trustpoint of the tenant whose certificate or request under way has this public key, as DEVICE/TRUSTPOINT
    /// (S4). The devices of a hot-standby pair may share one (S47).
    ///
    /// # Errors
    /// The database's own.
    pub async fn key_holder(
        &self,
        tenant: TenantId,
        trustpoint: TrustpointId,
        public_key_sha256: &str,
    ) -> Result<Option<String>, DbError> {
        let sql = "/* key_holder */ WITH held AS (
                 SELECT device_id, trustpoint_id FROM certificates
                 WHERE tenant_id = $1 AND public_key_sha256 = $3 AND slot IN ('active', 'staged')
                 UNION ALL
                 SELECT device_id, trustpoint_id FROM jobs
                 WHERE tenant_id = $1 AND public_key_sha256 = $3 AND finished_at IS NULL
             )
             SELECT d.name || '/' || t.name FROM held h
             JOIN trustpoints t ON t.tenant_id = $1 AND t.trustpoint_id = h.trustpoint_id
             JOIN devices d ON d.tenant_id = $1 AND d.device_id = h.device_id
             WHERE h.trustpoint_id <> $2 AND NOT EXISTS (
                 SELECT FROM trustpoints m JOIN devices o ON o.tenant_id = m.tenant_id AND o.device_id = m.device_id
                 WHERE m.tenant_id = $1 AND m.trustpoint_id = $2 AND o.pair = d.pair)
             ORDER BY d.name LIMIT 1";
        let row = self.query_opt(sql, &[&Id(tenant), &Id(trustpoint), &public_key_sha256]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Notes that an agent was heard of, and its software's version where it told.
    ///
    /// # Errors
    /// The database's own; no such agent.
    pub async fn sender_seen(
        &self,
        tenant: TenantId,
        agent: AgentId,
        software: Option<&str>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let count = self
            .execute(
                "/* sender_seen */ UPDATE agents
                 SET last_seen_at = greatest(last_seen_at, $3), software = coalesce($4, software)
                 WHERE tenant_id = $1 AND agent_id = $2",
                &[&Id(tenant), &Id(agent), &now, &software],
            )
            .await?;
        DbError::one_row(count, "agent")
    }
}
