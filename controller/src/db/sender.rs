//! What the inbox must know about the sender of a message before it believes a word of it.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::contact::Rhythm;
use trustfleet_model::ids::{AgentId, DeviceId, JobId, LeaseId, TenantId, TrustpointId};
use uuid::Uuid;

use super::{DbError, SystemTx, tx::Id};
use crate::device::{JobFacts, JobKind};

/// An agent, and the job that its message names.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Ed25519 key that its messages must verify with.
    pub sign_key: Vec<u8>,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// How often it was heard of until then; none: nothing is known of that.
    pub rhythm: Option<Rhythm>,
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
    /// Whether its agent had begun it by itself.
    pub autonomous: bool,
    /// The lease that the message names, where the agent's tenant has given one of that id.
    pub lease: Option<LeaseFacts>,
    /// Who else has the key that the message names, as DEVICE/TRUSTPOINT.
    pub key_held_by: Option<String>,
}

/// What a message says of its sender before it is believed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The tenant.
    pub tenant: TenantId,
    /// The agent.
    pub agent: AgentId,
    /// The job.
    pub job: Option<JobId>,
    /// The lease.
    pub lease: Option<LeaseId>,
    /// The key that is about to be certified, by its fingerprint, and for which trustpoint.
    pub key: Option<(TrustpointId, String)>,
}

impl Sender {
    /// How often it was heard of, with `now`.
    pub fn rhythm_at(&self, now: Timestamp) -> Rhythm {
        self.rhythm.unwrap_or_default().after(now.duration_since(self.last_seen_at))
    }
}

/// What a lease says of who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// The agent that has it, or had it.
    pub agent_id: AgentId,
    /// Its device.
    pub device_id: DeviceId,
    /// Its trustpoint.
    pub trustpoint_id: TrustpointId,
    /// When it ended, or will.
    pub ends_at: Timestamp,
}

impl SystemTx {
    /// The agents that messages claim to be from, and the jobs and leases that these name, in their order; none: no such agent. A
    /// key that is named is looked for at other trustpoints of the tenant, in certificates and in requests under way (S4); the
    /// devices of a hot-standby pair may share one (S47).
    ///
    /// # Errors
    /// The database's own; a row that cannot be read is its own message's error.
    pub async fn senders_fetch(&self, claims: &[Claimed]) -> Result<Vec<Result<Option<Sender>, DbError>>, DbError> {
        let sql = "/* senders_fetch */ SELECT i.n, a.sign_key, a.last_seen_at, a.gap_mean_s, a.gap_most_s,
                 a.quarantined_at IS NOT NULL AS quarantined, j.job_id, j.agent_id, j.device_id,
                 j.trustpoint_id, j.kind, j.sequence, j.endpoint, j.lease_id IS NOT NULL AS autonomous,
                 EXISTS (SELECT FROM ca_endpoints e WHERE e.endpoint = j.endpoint AND e.failures > 0) AS is_ill,
                 l.agent_id AS lease_agent, l.device_id AS lease_device, l.trustpoint_id AS lease_trustpoint,
                 least(l.expires_at, l.ended_at) AS lease_ends_at,
                 j.finished_at IS NOT NULL AS finished,
                 EXISTS (SELECT FROM outbox o WHERE o.tenant_id = j.tenant_id AND o.job_id = j.job_id) AS in_outbox,
                 k.holder AS key_held_by
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[])
                 WITH ORDINALITY AS i(tenant_id, agent_id, job_id, lease_id, trustpoint_id, key, n)
             JOIN agents a ON a.tenant_id = i.tenant_id AND a.agent_id = i.agent_id
             LEFT JOIN jobs j ON j.tenant_id = i.tenant_id AND j.job_id = i.job_id
             LEFT JOIN LATERAL (
                 /* hardly any message names one: then nothing is looked for */
                 SELECT * FROM leases l WHERE i.lease_id IS NOT NULL AND l.tenant_id = i.tenant_id AND l.lease_id = i.lease_id
                 LIMIT 1
             ) l ON true
             LEFT JOIN LATERAL (
                 SELECT d.name || '/' || t.name AS holder FROM (
                     SELECT c.device_id, c.trustpoint_id FROM certificates c
                     WHERE c.tenant_id = i.tenant_id AND c.public_key_sha256 = i.key AND c.slot IN ('active', 'staged')
                     UNION ALL
                     SELECT o.device_id, o.trustpoint_id FROM jobs o
                     WHERE o.tenant_id = i.tenant_id AND o.public_key_sha256 = i.key AND o.finished_at IS NULL
                 ) h
                 JOIN trustpoints t ON t.tenant_id = i.tenant_id AND t.trustpoint_id = h.trustpoint_id
                 JOIN devices d ON d.tenant_id = i.tenant_id AND d.device_id = h.device_id
                 WHERE h.trustpoint_id <> i.trustpoint_id AND NOT EXISTS (
                     SELECT FROM trustpoints m JOIN devices o ON o.tenant_id = m.tenant_id AND o.device_id = m.device_id
                     WHERE m.tenant_id = i.tenant_id AND m.trustpoint_id = i.trustpoint_id AND o.pair = d.pair)
                 ORDER BY d.name LIMIT 1
             ) k ON i.key IS NOT NULL";
        let column = |of: fn(&Claimed) -> Option<Uuid>| claims.iter().map(of).collect::<Vec<_>>();
        let keys: Vec<_> = claims.iter().map(|claim| claim.key.as_ref().map(|(_, key)| key.as_str())).collect();
        let rows = self
            .query(
                sql,
                &[
                    &column(|claim| Some(claim.tenant.as_uuid())),
                    &column(|claim| Some(claim.agent.as_uuid())),
                    &column(|claim| claim.job.map(|job| job.as_uuid())),
                    &column(|claim| claim.lease.map(|lease| lease.as_uuid())),
                    &column(|claim| claim.key.as_ref().map(|(trustpoint, _)| trustpoint.as_uuid())),
                    &keys,
                ],
            )
            .await?;
        let mut found: Vec<_> = claims.iter().map(|_| Ok(None)).collect();
        for row in &rows {
            let n: i64 = row.try_get("n")?;
            if let Some(place) = usize::try_from(n - 1).ok().and_then(|n| found.get_mut(n)) {
                *place = sender(row).map(Some);
            }
        }
        Ok(found)
    }

    /// Notes that an agent was heard of, and what it told of itself in a hello: its software's version, and whether it
    /// takes leases; `rhythm`: how often it was heard of, with this time. Returns whether what it told is news.
    ///
    /// # Errors
    /// The database's own; no such agent.
    pub async fn sender_seen(
        &self,
        tenant: TenantId,
        agent: AgentId,
        software: Option<&str>,
        leases: Option<bool>,
        rhythm: Rhythm,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let row = self
            .query_opt(
                "/* sender_seen */ WITH old AS (
                     SELECT takes_leases FROM agents WHERE tenant_id = $1 AND agent_id = $2 FOR UPDATE
                 ) UPDATE agents a
                 SET last_seen_at = greatest(last_seen_at, $3), software = coalesce($4, software),
                     takes_leases = coalesce($5, a.takes_leases), gap_mean_s = $6, gap_most_s = $7
                 FROM old WHERE tenant_id = $1 AND agent_id = $2
                 RETURNING coalesce($5, old.takes_leases) <> old.takes_leases AS news",
                &[&Id(tenant), &Id(agent), &now, &software, &leases, &rhythm.mean_s, &rhythm.most_s],
            )
            .await?;
        Ok(row.ok_or(DbError::NotFound { kind: "agent" })?.try_get("news")?)
    }
}

impl SystemTx {
    /// Notes how far an agent's device's clock is off, where that is news.
    ///
    /// # Errors
    /// The database's own.
    pub async fn sender_clock(
        &self,
        tenant: TenantId,
        agent: AgentId,
        clock_off_s: Option<i64>,
    ) -> Result<(), DbError> {
        let sql = "/* sender_clock */ UPDATE agents SET clock_off_s = $3
             WHERE tenant_id = $1 AND agent_id = $2 AND clock_off_s IS DISTINCT FROM $3";
        self.execute(sql, &[&Id(tenant), &Id(agent), &clock_off_s]).await.map(drop)
    }
}

fn sender(row: &Row) -> Result<Sender, DbError> {
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
    let lease = lease_facts(row)?;
    Ok(Sender {
        sign_key: row.try_get("sign_key")?,
        last_seen_at: row.try_get("last_seen_at")?,
        rhythm: row
            .try_get::<_, Option<f64>>("gap_mean_s")?
            .zip(row.try_get("gap_most_s")?)
            .map(|(mean_s, most_s)| Rhythm { mean_s, most_s }),
        quarantined: row.try_get("quarantined")?,
        job,
        finished: row.try_get("finished")?,
        sequence: row.try_get("sequence")?,
        in_outbox: row.try_get("in_outbox")?,
        endpoint: row.try_get::<_, Option<String>>("endpoint")?.zip(Some(row.try_get("is_ill")?)),
        autonomous: row.try_get("autonomous")?,
        lease,
        key_held_by: row.try_get("key_held_by")?,
    })
}

fn lease_facts(row: &Row) -> Result<Option<LeaseFacts>, DbError> {
    let agent: Option<Id<AgentId>> = row.try_get("lease_agent")?;
    let Some(Id(agent_id)) = agent else { return Ok(None) };
    let (Id(device_id), Id(trustpoint_id)) = (row.try_get("lease_device")?, row.try_get("lease_trustpoint")?);
    Ok(Some(LeaseFacts { agent_id, device_id, trustpoint_id, ends_at: row.try_get("lease_ends_at")? }))
}
