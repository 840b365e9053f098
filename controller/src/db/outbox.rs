//! The outbox: claimed by any replica for a bounded time, emptied when the broker has confirmed.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::{
    ids::{AgentId, DeviceId, JobId, TenantId, TrustpointId},
    job::JobTask,
};

use super::{DbError, SystemTx, freeze::HELD, tx::Id};
use crate::telemetry::chain;

/// One claim of one row: a replica that comes late with its word about an older claim touches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The row's tenant.
    pub tenant_id: TenantId,
    /// The row, and the message's sequence.
    pub outbox_id: i64,
    /// How often the row was claimed, this time included.
    pub attempt: i32,
}

/// A row of the outbox with everything that its message needs.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    /// The claim.
    pub claim: Claim,
    /// The job.
    pub job_id: JobId,
    /// Whether the job has ended meanwhile: then there is nothing to publish, unless it is to be stopped.
    pub finished: bool,
    /// Whether its agent is to be told to stop it.
    pub stop: bool,
    /// Its device.
    pub device_id: DeviceId,
    /// The device's name.
    pub device: String,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// The trustpoint's name; none: it was removed.
    pub trustpoint: Option<String>,
    /// The agent it is for.
    pub agent_id: AgentId,
    /// The agent's X25519 key.
    pub seal_key: Vec<u8>,
    /// SHA-256 of its registered signing key, lower-case hex.
    pub agent_key_sha256: String,
    /// Whether the agent is in quarantine: then it gets nothing.
    pub agent_quarantined: bool,
    /// Whether the agent was not heard of for half an hour: it is not there, and its next hello asks for its jobs.
    pub agent_silent: bool,
    /// Whether its exchange counts for a CA endpoint's budget.
    pub has_budget: bool,
    /// What the agent is to do.
    pub task: JobTask,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The MAC secret as it is stored: id of the key-encryption key, ciphertext.
    pub secret: Option<(String, Vec<u8>)>,
}

impl SystemTx {
    /// Claims up to `limit` rows that wait for no CA's budget, of tenants that are neither suspended nor deleted, for
    /// `claim_s` seconds of the database's clock, oldest first: activations, and orders to stop a job. A row that cannot be
    /// read is logged and left out, and stays claimed meanwhile: it must not hold up the others.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_claim(&self, limit: u16, claim_s: u32) -> Result<Vec<ClaimedJob>, DbError> {
        let sql = format!(
            "/* outbox_claim */ WITH free AS (
                 SELECT o.tenant_id, o.outbox_id FROM outbox o JOIN tenants t ON t.tenant_id = o.tenant_id
                 WHERE o.endpoint IS NULL AND o.held_until IS NULL
                   AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp()) AND t.state = 'active'
                   AND NOT {HELD}
                 ORDER BY o.outbox_id LIMIT $1 FOR UPDATE OF o SKIP LOCKED
             ), stopped AS (
                 SELECT o.tenant_id, o.outbox_id
                 FROM jobs j JOIN outbox o ON o.tenant_id = j.tenant_id AND o.job_id = j.job_id
                 JOIN tenants t ON t.tenant_id = o.tenant_id
                 WHERE j.stop_pending AND o.endpoint IS NOT NULL
                   AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp()) AND t.state = 'active'
                 LIMIT $1 FOR UPDATE OF o SKIP LOCKED
             ), c AS (SELECT * FROM free UNION ALL SELECT * FROM stopped), {CLAIMED}"
        );
        Ok(claimed_jobs(&self.query(&sql, &[&i64::from(limit), &f64::from(claim_s)]).await?))
    }

    /// Removes rows that the broker has confirmed, and notes the publication on their jobs. Also when the claim ran out
    /// meanwhile: the message is in its queue. Jobs are waited for in the order in which a group commit waits for them, so that the
    /// two cannot wait for each other.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_mark_published(&self, claims: &[Claim], now: Timestamp) -> Result<u64, DbError> {
        let (tenants, outbox_ids, _) = columns(claims);
        self.execute(
            "/* outbox_mark_published */ WITH p AS (
                 SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS p(tenant_id, outbox_id)
             ), held AS (
                 SELECT o.tenant_id, o.outbox_id FROM p JOIN outbox o USING (tenant_id, outbox_id)
                 JOIN jobs j ON j.tenant_id = o.tenant_id AND j.job_id = o.job_id
                 ORDER BY j.tenant_id, j.job_id FOR NO KEY UPDATE OF j
             ), gone AS (
                 DELETE FROM outbox o USING held WHERE o.tenant_id = held.tenant_id AND o.outbox_id = held.outbox_id
                 RETURNING o.tenant_id, o.outbox_id, o.job_id
             )
             UPDATE jobs j SET published_at = $3, sequence = gone.outbox_id, updated_at = $3,
                    state = CASE j.state WHEN 'awaiting_publish' THEN 'awaiting_agent' ELSE j.state END
             FROM gone WHERE j.tenant_id = gone.tenant_id AND j.job_id = gone.job_id",
            &[&tenants, &outbox_ids, &now],
        )
        .await
    }

    /// Puts jobs into the outbox again whose own message was on its way while somebody wanted them to stop: that order found
    /// their row taken. Returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_offer_stops(&self, published: &[(TenantId, JobId)], now: Timestamp) -> Result<u64, DbError> {
        let (tenants, jobs): (Vec<_>, Vec<_>) =
            published.iter().map(|(tenant, job)| (tenant.as_uuid(), job.as_uuid())).unzip();
        self.execute(
            "/* outbox_offer_stops */ INSERT INTO outbox (tenant_id, job_id, created_at)
             SELECT j.tenant_id, j.job_id, $3 FROM jobs j
             JOIN unnest($1::uuid[], $2::uuid[]) AS p(tenant_id, job_id) USING (tenant_id, job_id)
             WHERE j.stop_pending
             ON CONFLICT (tenant_id, job_id) DO NOTHING",
            &[&tenants, &jobs, &now],
        )
        .await
    }

    /// Removes rows whose message no queue took, or whose job has ended: a hello of the agent brings back what is open.
    /// A row whose claim is gone stays: the hello came in between, or another replica has it by now.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_remove(&self, claims: &[Claim]) -> Result<u64, DbError> {
        let (tenants, outbox_ids, attempts) = columns(claims);
        self.execute(
            "/* outbox_remove */ DELETE FROM outbox o
             USING unnest($1::uuid[], $2::bigint[], $3::int[]) AS p(tenant_id, outbox_id, attempt)
             WHERE o.tenant_id = p.tenant_id AND o.outbox_id = p.outbox_id AND o.attempts = p.attempt
                   AND o.claimed_until IS NOT NULL",
            &[&tenants, &outbox_ids, &attempts],
        )
        .await
    }

    /// Gives claims back, so that whoever has a broker may publish at once.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_release(&self, claims: &[Claim]) -> Result<u64, DbError> {
        let (tenants, outbox_ids, attempts) = columns(claims);
        self.execute(
            "/* outbox_release */ UPDATE outbox o SET claimed_until = NULL
             FROM unnest($1::uuid[], $2::bigint[], $3::int[]) AS p(tenant_id, outbox_id, attempt)
             WHERE o.tenant_id = p.tenant_id AND o.outbox_id = p.outbox_id AND o.attempts = p.attempt",
            &[&tenants, &outbox_ids, &attempts],
        )
        .await
    }

    /// Puts every unfinished job of an agent into the outbox, and ends the claims of those that are there: a message on
    /// its way right now may have missed the agent's queue by a moment. Returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_offer_again(&self, tenant: TenantId, agent: AgentId, now: Timestamp) -> Result<u64, DbError> {
        // What an agent began by itself is never sent to it. One that it should have ended long ago it has lost: told to stop
        // it, it says so.
        self.execute(
            "/* outbox_offer_again: lost */ UPDATE jobs SET stop_pending = true, stop_requested_at = $3
             WHERE tenant_id = $1 AND agent_id = $2 AND lease_id IS NOT NULL AND finished_at IS NULL
               AND NOT stop_pending AND (task ->> 'ends_by')::timestamptz < $3",
            &[&Id(tenant), &Id(agent), &now],
        )
        .await?;
        self.execute(
            "/* outbox_offer_again */ INSERT INTO outbox (tenant_id, job_id, created_at, endpoint, deadline)
             SELECT tenant_id, job_id, $3, CASE WHEN NOT stop_pending THEN endpoint END, deadline FROM jobs
             WHERE tenant_id = $1 AND agent_id = $2
               AND (finished_at IS NULL AND lease_id IS NULL OR stop_pending) ORDER BY job_id
             ON CONFLICT (tenant_id, job_id) DO UPDATE SET claimed_until = NULL",
            &[&Id(tenant), &Id(agent), &now],
        )
        .await
    }

    /// Puts the jobs of an agent into the outbox that no queue has taken: a message that came back was removed from it.
    /// What the agent has, and what is there already, is left alone. Returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn outbox_offer_returned(
        &self,
        tenant: TenantId,
        agent: AgentId,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        self.execute(
            "/* outbox_offer_returned */ INSERT INTO outbox (tenant_id, job_id, created_at, endpoint, deadline)
             SELECT tenant_id, job_id, $3, endpoint, deadline FROM jobs
             WHERE tenant_id = $1 AND agent_id = $2 AND finished_at IS NULL AND state = 'awaiting_publish'
             ORDER BY job_id
             ON CONFLICT (tenant_id, job_id) DO NOTHING",
            &[&Id(tenant), &Id(agent), &now],
        )
        .await
    }
}

/// Claims the rows in `c` for `$2` seconds, with everything that their messages need.
pub(super) const CLAIMED: &str = "m AS (
                 UPDATE outbox o SET claimed_until = clock_timestamp() + make_interval(secs => $2),
                                     attempts = o.attempts + 1
                 FROM c WHERE o.tenant_id = c.tenant_id AND o.outbox_id = c.outbox_id
                 RETURNING o.tenant_id, o.outbox_id, o.attempts, o.job_id
             )
             SELECT m.tenant_id, m.outbox_id, m.attempts, m.job_id, j.finished_at IS NOT NULL AS finished,
                    j.stop_pending, j.device_id, j.endpoint IS NOT NULL AS has_budget,
                    d.name AS device, j.trustpoint_id, t.name AS trustpoint, j.agent_id, a.seal_key,
                    encode(sha256(a.sign_key), 'hex') AS agent_key, a.quarantined_at IS NOT NULL AS agent_quarantined,
                    a.last_seen_at < clock_timestamp() - interval '30 minutes' AS agent_silent, j.task,
                    j.traceparent, s.kek_id, s.ciphertext
             FROM m
             JOIN jobs j ON j.tenant_id = m.tenant_id AND j.job_id = m.job_id
             JOIN devices d ON d.tenant_id = j.tenant_id AND d.device_id = j.device_id
             JOIN agents a ON a.tenant_id = j.tenant_id AND a.agent_id = j.agent_id
             LEFT JOIN trustpoints t ON t.tenant_id = j.tenant_id AND t.trustpoint_id = j.trustpoint_id
             LEFT JOIN secrets s ON s.tenant_id = j.tenant_id
                  AND s.secret_id = CASE WHEN j.task #>> '{mac,secret_id}'
                          ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                      THEN (j.task #>> '{mac,secret_id}')::uuid END
             ORDER BY m.outbox_id";

/// Claimed rows; one that cannot be read is logged and left out.
pub(super) fn claimed_jobs(rows: &[Row]) -> Vec<ClaimedJob> {
    let readable = |row| {
        claimed_job(row)
            .inspect_err(|error| tracing::error!(error = %chain(error), "a job in the outbox cannot be read"))
            .ok()
    };
    rows.iter().filter_map(readable).collect()
}

fn columns(claims: &[Claim]) -> (Vec<uuid::Uuid>, Vec<i64>, Vec<i32>) {
    claims.iter().map(|claim| (claim.tenant_id.as_uuid(), claim.outbox_id, claim.attempt)).collect()
}

fn claimed_job(row: &Row) -> Result<ClaimedJob, DbError> {
    let Id(tenant_id) = row.try_get("tenant_id")?;
    let Id(job_id): Id<JobId> = row.try_get("job_id")?;
    let Id(device_id) = row.try_get("device_id")?;
    let Id(trustpoint_id) = row.try_get("trustpoint_id")?;
    let Id(agent_id) = row.try_get("agent_id")?;
    let task: serde_json::Value = row.try_get("task")?;
    let kek_id: Option<String> = row.try_get("kek_id")?;
    let ciphertext: Option<Vec<u8>> = row.try_get("ciphertext")?;
    Ok(ClaimedJob {
        claim: Claim { tenant_id, outbox_id: row.try_get("outbox_id")?, attempt: row.try_get("attempts")? },
        job_id,
        finished: row.try_get("finished")?,
        stop: row.try_get("stop_pending")?,
        device_id,
        device: row.try_get("device")?,
        trustpoint_id,
        trustpoint: row.try_get("trustpoint")?,
        agent_id,
        seal_key: row.try_get("seal_key")?,
        agent_key_sha256: row.try_get("agent_key")?,
        agent_quarantined: row.try_get("agent_quarantined")?,
        agent_silent: row.try_get("agent_silent")?,
        has_budget: row.try_get("has_budget")?,
        task: serde_json::from_value(task).map_err(|error| DbError::inconsistent("jobs", "task", job_id, error))?,
        traceparent: row.try_get("traceparent")?,
        secret: kek_id.zip(ciphertext),
    })
}
