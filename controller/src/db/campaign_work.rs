//! SQL of the campaigner: members of campaigns that are due, claimed by any replica for a bounded time.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{Row, types::ToSql};
use trustfleet_model::{
    field::TrustpointName,
    ids::{CampaignId, CertificateId, DeviceId, JobId, TenantId, TrustpointId},
    job::{Failure, JobState, JobTask},
    trustpoint::Trustpoint,
};
use uuid::Uuid;

use super::{
    Campaign, DbError, SystemTx, TenantTx,
    campaign::{CAMPAIGN, Chosen, SET, Stored, chosen, member_state, number, read},
    column::Columns,
    row,
    tx::Id,
};
use crate::{
    campaign::{Before, CampaignSpec, CampaignState, Count, JobFact, MemberState},
    device::EnrollContext,
    telemetry::chain,
};

/// A member that is to be asked for.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its campaign.
    pub campaign_id: CampaignId,
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Its device.
    pub device_id: DeviceId,
    /// How far it is.
    pub state: MemberState,
    /// The trustpoint as it is now; none: it is gone.
    pub trustpoint: Option<Trustpoint>,
    /// The job that does it, or is to.
    pub job_id: JobId,
    /// What it was before.
    pub before: Option<Before>,
    /// When it was first asked for.
    pub asked_at: Timestamp,
    /// The job as it is stored; none: it is not there.
    pub job: Option<JobFact>,
}

impl Member {
    /// The trustpoint's name, while it is there.
    pub fn name(&self) -> Option<&TrustpointName> {
        self.trustpoint.as_ref().map(|trustpoint| &trustpoint.name)
    }

    /// The certificate in use, while there is one.
    pub fn certificate(&self) -> Option<CertificateId> {
        self.trustpoint.as_ref()?.active.as_ref().map(|active| active.id)
    }
}

const MEMBER: &str =
    "m.tenant_id, m.campaign_id, m.trustpoint_id AS member_id, m.device_id, m.state AS member_state, m.job_id,
    m.before, m.asked_at";

fn read_member(row: &Row) -> Result<Member, DbError> {
    let columns = Columns::new(row, "campaign_members", "member_id");
    let word: &str = columns.read("member_state")?;
    let state =
        MemberState::from_word(word).ok_or_else(|| columns.wrong("member_state", format!("{word:?} is unknown")))?;
    let is_there = columns.read::<Option<Id<TrustpointId>>>("trustpoint_id")?.is_some();
    Ok(Member {
        tenant_id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        campaign_id: columns.read::<Id<CampaignId>>("campaign_id")?.0,
        trustpoint_id: columns.read::<Id<TrustpointId>>("member_id")?.0,
        device_id: columns.read::<Id<DeviceId>>("device_id")?.0,
        state,
        trustpoint: if is_there { Some(row::trustpoint(row)?) } else { None },
        job_id: columns.read::<Id<JobId>>("job_id")?.0,
        before: columns.json_opt("before")?,
        asked_at: columns.read("asked_at")?,
        job: job(row)?,
    })
}

/// The job of a member, where the row has one.
fn job(row: &Row) -> Result<Option<JobFact>, DbError> {
    let columns = Columns::new(row, "jobs", "job_id");
    let Some(word) = columns.read::<Option<&str>>("job_state")? else { return Ok(None) };
    let state = JobState::ALL.into_iter().find(|state| state.as_str() == word);
    let state = state.ok_or_else(|| columns.wrong("state", format!("{word:?} is unknown")))?;
    let failure: Option<Failure> = columns.json_opt("failure")?;
    let task: Option<JobTask> = columns.json_opt("task")?;
    let issued: Option<String> = columns.read("issued")?;
    let serial = issued.or(match task {
        Some(JobTask::Activate { serial, .. }) => Some(serial),
        _ => None,
    });
    Ok(Some(JobFact { state, failure, serial }))
}

fn readable(rows: &[Row]) -> Vec<Member> {
    let read = |row| {
        read_member(row)
            .inspect_err(|error| tracing::error!(error = %chain(error), "a member of a campaign cannot be read, and stays as it is"))
            .ok()
    };
    rows.iter().filter_map(read).collect()
}

impl SystemTx {
    /// Up to `limit` campaigns of active tenants for which there is something to do, in any order.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn campaigns_at_work(&self, limit: i64) -> Result<Vec<(TenantId, Campaign)>, DbError> {
        let sql = format!(
            "/* campaigns_at_work */ SELECT {CAMPAIGN} FROM campaigns c JOIN tenants o ON o.tenant_id = c.tenant_id
             WHERE o.state = 'active' AND (c.state IN ('preparing', 'running', 'rolling_back')
                 OR EXISTS (SELECT FROM campaign_members m WHERE m.tenant_id = c.tenant_id AND m.campaign_id = c.campaign_id
                            AND m.state IN ('asking', 'in_flight', 'activating', 'undoing')))
             ORDER BY random() LIMIT $1"
        );
        let of = |row: &Row| Ok((row.try_get::<_, Id<TenantId>>("tenant_id")?.0, read(row)?));
        self.query(&sql, &[&limit]).await?.iter().map(of).collect()
    }

    /// The campaign as it is now, while no other replica and no operator is at it.
    ///
    /// # Errors
    /// The database's own; a row that cannot be read.
    pub async fn campaign_lock(&self, tenant: TenantId, id: CampaignId) -> Result<Option<Campaign>, DbError> {
        let sql = format!(
            "/* campaign_lock */ SELECT {CAMPAIGN} FROM campaigns c WHERE c.tenant_id = $1 AND c.campaign_id = $2
             FOR UPDATE SKIP LOCKED"
        );
        self.query_opt(&sql, &[&Id(tenant), &Id(id)]).await?.as_ref().map(read).transpose()
    }

    /// How many trustpoints a campaign is about at present.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_size(&self, tenant: TenantId, id: CampaignId, spec: &CampaignSpec) -> Result<u32, DbError> {
        let values = Chosen::new(id, &spec.select)?;
        let (tenant, sql) = (Id(tenant), format!("/* campaign_size */ SELECT count(*) {}", chosen(&spec.action)));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&tenant];
        params.extend(values.params());
        let row = self.query_opt(&sql, &params).await?.ok_or(DbError::NotFound { kind: "campaign" })?;
        Ok(u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
    }

    /// Finds the members of a campaign: in an order that has nothing to do with their place or age, so that a wave is a sample of
    /// the whole. How many there are.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_fill(
        &self,
        tenant: TenantId,
        id: CampaignId,
        spec: &CampaignSpec,
        ends: &[u32],
        now: Timestamp,
    ) -> Result<u32, DbError> {
        let sql = format!(
            "/* campaign_fill */ INSERT INTO campaign_members (tenant_id, campaign_id, trustpoint_id, device_id, wave, state, updated_at)
             SELECT $1, $9::uuid, c.trustpoint_id, c.device_id,
                    CASE WHEN cardinality($10::int[]) = 0 THEN 0 ELSE width_bucket((c.place - 1)::int, $10::int[]) END, 'pending', $11
             FROM (SELECT t.trustpoint_id, t.device_id,
                          row_number() OVER (ORDER BY md5($9::uuid::text || t.trustpoint_id::text)) AS place {}) c
             ON CONFLICT DO NOTHING",
            chosen(&spec.action)
        );
        // What came since they were counted belongs to the last wave.
        let inner: Vec<i32> =
            ends.split_last().map_or(&[][..], |(_, inner)| inner).iter().copied().map(number).collect();
        let values = Chosen::new(id, &spec.select)?;
        let (tenant, id) = (Id(tenant), Id(id));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&tenant];
        params.extend(values.params());
        params.extend([&id as &(dyn ToSql + Sync), &inner, &now]);
        Ok(u32::try_from(self.execute(&sql, &params).await?).unwrap_or(u32::MAX))
    }

    /// Writes how far a campaign is.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn campaign_set(&self, tenant: TenantId, campaign: &Campaign, now: Timestamp) -> Result<(), DbError> {
        let (tenant, stored) = (Id(tenant), Stored::new(campaign, now)?);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&tenant];
        params.extend(stored.params());
        DbError::one_row(self.execute(SET, &params).await?, "campaign")
    }

    /// How far the members of a wave are.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn campaign_wave(&self, tenant: TenantId, id: CampaignId, wave: u32) -> Result<Count, DbError> {
        let sql = "/* campaign_wave */ SELECT m.campaign_id, m.state, count(*) AS count FROM campaign_members m
             WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND m.wave = $3 GROUP BY 1, 2";
        let mut count = Count::default();
        for row in self.query(sql, &[&Id(tenant), &Id(id), &number(wave)]).await? {
            let columns = Columns::new(&row, "campaign_members", "campaign_id");
            let members = u32::try_from(columns.read::<i64>("count")?).unwrap_or(u32::MAX);
            let place = match member_state(&columns)? {
                MemberState::Pending => &mut count.pending,
                MemberState::Asking | MemberState::InFlight | MemberState::Activating => &mut count.at_work,
                MemberState::Verified => &mut count.verified,
                MemberState::Unverifiable => &mut count.unverifiable,
                MemberState::Failed => &mut count.failed,
                MemberState::Unreachable => &mut count.unreachable,
                MemberState::Skipped
                | MemberState::Cancelled
                | MemberState::ToUndo
                | MemberState::Undoing
                | MemberState::Undone
                | MemberState::UndoFailed => &mut count.skipped,
            };
            *place = place.saturating_add(members);
        }
        Ok(count)
    }

    /// How many members of a campaign are in one of these states.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_members_in(
        &self,
        tenant: TenantId,
        id: CampaignId,
        states: &[MemberState],
    ) -> Result<u32, DbError> {
        let sql = "/* campaign_members_in */ SELECT count(*) FROM campaign_members
             WHERE tenant_id = $1 AND campaign_id = $2 AND state = ANY($3)";
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let row = self.query_opt(sql, &[&Id(tenant), &Id(id), &states]).await?;
        let row = row.ok_or(DbError::NotFound { kind: "campaign" })?;
        Ok(u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
    }

    /// Claims members: up to `jobs.len()` pending ones of a wave (`to_undo` ones of all waves while it is rolled back), each with
    /// one of these ids for its job, and keeps what they were before. What a freeze window holds is left alone, unless the campaign
    /// is urgent or revokes.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_claim(
        &self,
        tenant: TenantId,
        campaign: &Campaign,
        jobs: &[JobId],
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let undoing = campaign.state == CampaignState::RollingBack;
        let (from, to) = if undoing {
            (MemberState::ToUndo, MemberState::Undoing)
        } else {
            (MemberState::Pending, MemberState::Asking)
        };
        let sql = "/* campaign_claim */ WITH c AS (
                 SELECT x.trustpoint_id, row_number() OVER () AS place FROM (
                     SELECT m.trustpoint_id FROM campaign_members m
                     WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND m.state = $3 AND ($4::int IS NULL OR m.wave = $4)
                       AND (m.claimed_until IS NULL OR m.claimed_until <= $8)
                       AND ($9 OR NOT EXISTS (
                           SELECT FROM freezes f JOIN devices d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id
                           WHERE f.tenant_id = m.tenant_id AND f.active_until > clock_timestamp() AND d.labels @> f.labels))
                     ORDER BY m.trustpoint_id LIMIT $5 FOR UPDATE OF m SKIP LOCKED) x
             )
             UPDATE campaign_members m SET state = $6, job_id = ($7::uuid[])[c.place::int], claimed_until = $8, updated_at = $8,
                 asked_at = CASE WHEN $6 = 'asking' THEN coalesce(m.asked_at, $8) ELSE $8 END, code = NULL, reason = NULL,
                 before = coalesce(m.before, (
                     SELECT jsonb_strip_nulls(jsonb_build_object('ca_server_id', t.ca_server_id, 'policy_id', t.policy_id,
                                'serial', t.state #>> '{trustpoint,active,serial}'))
                     FROM trustpoints t WHERE t.tenant_id = m.tenant_id AND t.trustpoint_id = m.trustpoint_id))
             FROM c WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND m.trustpoint_id = c.trustpoint_id";
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.as_uuid()).collect();
        let wave = (!undoing).then(|| number(campaign.wave));
        let limit = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        let goes_on = !campaign.spec.can_be_frozen();
        let (from, to) = (from.as_str(), to.as_str());
        self.execute(sql, &[&Id(tenant), &Id(campaign.id), &from, &wave, &limit, &to, &ids, &now, &goes_on]).await
    }

    /// Takes up to `limit` members of a campaign that are at work and have something to tell, or whose asking was broken off: no
    /// other replica takes them before `again_at`. Those that have waited longer than `patience_s` are among them.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_take(
        &self,
        tenant: TenantId,
        campaign: &Campaign,
        now: Timestamp,
        again_at: Timestamp,
        limit: i64,
    ) -> Result<Vec<Member>, DbError> {
        let patience = SignedDuration::from_secs(campaign.spec.patience_s.into());
        let too_long = now.checked_sub(patience).unwrap_or(Timestamp::MIN);
        let sql = format!(
            "/* campaign_take */ WITH c AS (
                 SELECT m.trustpoint_id FROM campaign_members m
                 LEFT JOIN jobs j ON j.tenant_id = m.tenant_id AND j.job_id = m.job_id
                 WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND m.state IN ('asking', 'in_flight', 'activating', 'undoing')
                   AND (m.claimed_until IS NULL OR m.claimed_until <= $3)
                   AND (m.state = 'asking' OR j.job_id IS NULL OR j.finished_at IS NOT NULL OR m.asked_at <= $6)
                 ORDER BY m.claimed_until NULLS FIRST LIMIT $5 FOR UPDATE OF m SKIP LOCKED
             ), m AS (
                 UPDATE campaign_members m SET claimed_until = $4 FROM c
                 WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND m.trustpoint_id = c.trustpoint_id RETURNING m.*
             )
             SELECT {MEMBER}, t.trustpoint_id, t.state, j.state AS job_state, j.failure, j.task,
                    (SELECT k.serial FROM certificates k WHERE k.tenant_id = m.tenant_id AND k.trustpoint_id = m.trustpoint_id
                         AND k.job_id = m.job_id ORDER BY k.issued_at DESC LIMIT 1) AS issued
             FROM m
             LEFT JOIN trustpoints t ON t.tenant_id = m.tenant_id AND t.trustpoint_id = m.trustpoint_id
             LEFT JOIN jobs j ON j.tenant_id = m.tenant_id AND j.job_id = m.job_id"
        );
        let rows = self.query(&sql, &[&Id(tenant), &Id(campaign.id), &now, &again_at, &limit, &too_long]).await?;
        Ok(readable(&rows))
    }

    /// Writes how far a member is, if it is still where it was and about the same job.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_member_set(
        &self,
        member: &Member,
        state: MemberState,
        job_id: JobId,
        reason: Option<&(String, String)>,
        claimed_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql =
            "/* campaign_member_set */ UPDATE campaign_members SET state = $5, job_id = $6, code = $7, reason = $8,
                 claimed_until = $9, updated_at = $10
             WHERE tenant_id = $1 AND campaign_id = $2 AND trustpoint_id = $3 AND state = $4 AND job_id = $11";
        let (code, sentence) = reason.map(|(code, reason)| (code.as_str(), reason.as_str())).unzip();
        let (from, to) = (member.state.as_str(), state.as_str());
        self.execute(
            sql,
            &[
                &Id(member.tenant_id),
                &Id(member.campaign_id),
                &Id(member.trustpoint_id),
                &from,
                &to,
                &Id(job_id),
                &code,
                &sentence,
                &claimed_until,
                &now,
                &Id(member.job_id),
            ],
        )
        .await
        .map(drop)
    }
}

impl TenantTx {
    /// Configuration of a new certificate for a trustpoint by a CA server and a policy that it may not have yet.
    ///
    /// # Errors
    /// [`DbError::NotFound`] where one of them is gone.
    pub async fn reissue_context(
        &self,
        device: DeviceId,
        trustpoint: &TrustpointName,
        ca_server: trustfleet_model::ids::CaServerId,
        policy: trustfleet_model::ids::PolicyId,
    ) -> Result<EnrollContext, DbError> {
        let sql =
            "/* reissue_context */ SELECT t.trustpoint_id, e.spec AS entity, c.spec AS ca_server, p.spec AS policy,
                 p.revision AS policy_revision
             FROM trustpoints t
             JOIN entities e ON e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id
             LEFT JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = $4
             LEFT JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = $5
             WHERE t.tenant_id = $1 AND t.device_id = $2 AND t.name = $3";
        let row = self.query_opt(sql, &[&Id(device), &trustpoint.as_str(), &Id(ca_server), &Id(policy)]).await?;
        let row = row.ok_or(DbError::NotFound { kind: "trustpoint" })?;
        let columns = Columns::new(&row, "trustpoints", "trustpoint_id");
        Ok(EnrollContext {
            trustpoint_id: columns.read::<Id<TrustpointId>>("trustpoint_id")?.0,
            entity: columns.json("entity")?,
            ca_server: columns.json_opt("ca_server")?.ok_or(DbError::NotFound { kind: "CA server" })?,
            policy: columns.json_opt("policy")?.ok_or(DbError::NotFound { kind: "policy" })?,
            policy_revision: columns.parse::<i32, _>("policy_revision")?,
            known_job: None,
            agent_key_sha256: None,
        })
    }
}
