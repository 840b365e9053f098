//! SQL of campaigns as operators see them.

use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use trustfleet_model::{
    field::{ObjectName, TrustpointName},
    ids::{CampaignId, JobId, TrustpointId},
};

use super::{
    DbError, TenantTx,
    column::{Columns, to_json},
    tx::Id,
};
use crate::campaign::{Action, CampaignSpec, CampaignState, MemberState, Selector};

/// Most campaigns of a tenant that have not ended.
pub const CAMPAIGNS_MAX: i64 = 50;

/// A campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// Its name.
    pub name: ObjectName,
    /// What it is about.
    pub spec: CampaignSpec,
    /// How far it is.
    pub state: CampaignState,
    /// What it goes on with when it is resumed.
    pub state_before: Option<CampaignState>,
    /// Why it is paused, stopped or cancelled.
    pub reason: Option<String>,
    /// The wave that is at work, from 0.
    pub wave: u32,
    /// How many members there are up to the end of each wave.
    pub wave_ends: Vec<u32>,
    /// When the wave came to its threshold.
    pub reached_at: Option<Timestamp>,
    /// Failures of the wave that an operator has seen.
    pub forgiven: u32,
    /// Members of the wave that are not asked to be seen in service any more.
    pub waived: u32,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// How many members of a wave are how far, for one reason.
#[derive(Clone, Debug)]
pub struct MemberCount {
    /// The wave, from 0.
    pub wave: u32,
    /// How far they are.
    pub state: MemberState,
    /// Why, in one word.
    pub code: Option<String>,
    /// Why, as one of them says it.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}

/// A member with the names of what it refers to.
#[derive(Clone, Debug)]
pub struct ListedMember {
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Name of its device; none: it is gone.
    pub device: Option<ObjectName>,
    /// Its name; none: it is gone.
    pub trustpoint: Option<TrustpointName>,
    /// Its wave, from 0.
    pub wave: u32,
    /// How far it is.
    pub state: MemberState,
    /// Why, in one word.
    pub code: Option<String>,
    /// Why, as a sentence.
    pub reason: Option<String>,
    /// The job that does it.
    pub job_id: Option<JobId>,
    /// When it was asked for.
    pub asked_at: Option<Timestamp>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Which members are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberFilter<'a> {
    /// Only of this wave, from 0.
    pub wave: Option<i32>,
    /// Only in this state.
    pub state: Option<&'a str>,
    /// Only for this reason.
    pub code: Option<&'a str>,
    /// After this one.
    pub after: Option<TrustpointId>,
}

/// What a campaign would touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CampaignReach {
    /// Trustpoints.
    pub trustpoints: u64,
    /// Of those, the ones without a service, of which nobody can see whether the certificate is used.
    pub without_service: u64,
    /// Of those, the ones of devices without an agent.
    pub without_agent: u64,
    /// Of those, the ones whose agent was not heard of for half an hour.
    pub silent: u64,
    /// Of those, the ones with a request under way: they come later.
    pub under_way: u64,
    /// Of those, the ones that came by a binding, whose settings say otherwise after a change.
    pub bound: u64,
    /// Of those, the ones on the standby of a pair, which never asks.
    pub standby: u64,
    /// Of those, the ones that a freeze window holds at present.
    pub frozen: u64,
}

pub(super) const CAMPAIGN: &str =
    "c.tenant_id, c.campaign_id, c.name, c.spec, c.state, c.state_before, c.reason, c.wave,
    c.wave_ends, c.reached_at, c.forgiven, c.waived, c.created_by, c.created_at, c.updated_at, c.finished_at";

/// Reads the columns of [`CAMPAIGN`].
pub(super) fn read(row: &Row) -> Result<Campaign, DbError> {
    let columns = Columns::new(row, "campaigns", "campaign_id");
    let state = |column| -> Result<Option<CampaignState>, DbError> {
        let word: Option<&str> = columns.read(column)?;
        let known =
            |word| CampaignState::from_word(word).ok_or_else(|| columns.wrong(column, format!("{word:?} is unknown")));
        word.map(known).transpose()
    };
    Ok(Campaign {
        id: columns.read::<Id<CampaignId>>("campaign_id")?.0,
        name: columns.parse::<String, _>("name")?,
        spec: columns.json("spec")?,
        state: state("state")?.ok_or_else(|| columns.wrong("state", "null"))?,
        state_before: state("state_before")?,
        reason: columns.read("reason")?,
        wave: columns.parse::<i32, _>("wave")?,
        wave_ends: columns.json("wave_ends")?,
        reached_at: columns.read("reached_at")?,
        forgiven: columns.parse::<i32, _>("forgiven")?,
        waived: columns.parse::<i32, _>("waived")?,
        created_by: columns.read("created_by")?,
        created_at: columns.read("created_at")?,
        updated_at: columns.read("updated_at")?,
        finished_at: columns.read("finished_at")?,
    })
}

pub(super) fn member_state(columns: &Columns<'_>) -> Result<MemberState, DbError> {
    let word: &str = columns.read("state")?;
    MemberState::from_word(word).ok_or_else(|| columns.wrong("state", format!("{word:?} is unknown")))
}

/// The trustpoints `t` of devices `d` that a campaign is about; `$1` is the tenant, `$2` to `$8` are of [`Chosen`].
pub(super) fn chosen(action: &Action) -> String {
    let has = match action {
        Action::Renew { .. } | Action::Rekey { .. } | Action::Anchors | Action::Revoke { .. } => {
            "t.not_after IS NOT NULL"
        }
        Action::Activate => "t.state #> '{trustpoint,staged}' <> 'null'::jsonb",
        Action::Change { .. } => "true",
    };
    format!(
        "FROM trustpoints t JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
         WHERE t.tenant_id = $1 AND {has} AND d.labels @> $2 AND ($3::text IS NULL OR t.name = $3)
           AND ($4::uuid IS NULL OR t.ca_server_id = $4) AND ($5::uuid IS NULL OR t.policy_id = $5)
           AND ($6::text IS NULL OR t.state #>> '{{trustpoint,active,issuer}}' = $6)
           AND ($7::text IS NULL OR EXISTS (SELECT FROM certificates k WHERE k.tenant_id = t.tenant_id
                AND k.trustpoint_id = t.trustpoint_id AND k.slot = 'active' AND k.key_type = $7))
           AND ($8::timestamptz IS NULL OR t.not_after < $8)"
    )
}

/// Values of the parameters of [`chosen`].
pub(super) struct Chosen {
    labels: serde_json::Value,
    trustpoint: Option<String>,
    ca_server: Option<uuid::Uuid>,
    policy: Option<uuid::Uuid>,
    issuer: Option<String>,
    key: Option<String>,
    expires_before: Option<Timestamp>,
}

impl Chosen {
    pub(super) fn new(id: CampaignId, select: &Selector) -> Result<Self, DbError> {
        Ok(Self {
            labels: to_json("campaigns", "spec", id, &select.labels)?,
            trustpoint: select.trustpoint.as_ref().map(ToString::to_string),
            ca_server: select.ca_server.as_ref().map(|named| named.id.as_uuid()),
            policy: select.policy.as_ref().map(|named| named.id.as_uuid()),
            issuer: select.issuer.clone(),
            key: select.key.clone(),
            expires_before: select.expires_before,
        })
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 7] {
        let Self { labels, trustpoint, ca_server, policy, issuer, key, expires_before } = self;
        [labels, trustpoint, ca_server, policy, issuer, key, expires_before]
    }
}

/// Writes how far a campaign is; `$1` is the tenant, the others are of [`Stored`].
pub(super) const SET: &str =
    "/* campaign_set */ UPDATE campaigns SET state = $3, state_before = $4, reason = $5, wave = $6,
    wave_ends = $7, reached_at = $8, forgiven = $9, waived = $10, updated_at = $11, finished_at = $12
    WHERE tenant_id = $1 AND campaign_id = $2";

/// Values of the parameters of [`SET`].
pub(super) struct Stored<'a> {
    id: Id<CampaignId>,
    state: &'static str,
    state_before: Option<&'static str>,
    reason: &'a Option<String>,
    wave: i32,
    wave_ends: serde_json::Value,
    reached_at: &'a Option<Timestamp>,
    forgiven: i32,
    waived: i32,
    now: Timestamp,
    finished_at: Option<Timestamp>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(campaign: &'a Campaign, now: Timestamp) -> Result<Self, DbError> {
        Ok(Self {
            id: Id(campaign.id),
            state: campaign.state.as_str(),
            state_before: campaign.state_before.map(CampaignState::as_str),
            reason: &campaign.reason,
            wave: number(campaign.wave),
            wave_ends: to_json("campaigns", "wave_ends", campaign.id, &campaign.wave_ends)?,
            reached_at: &campaign.reached_at,
            forgiven: number(campaign.forgiven),
            waived: number(campaign.waived),
            now,
            finished_at: campaign.state.is_final().then_some(now),
        })
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 11] {
        let Self { id, state, state_before, reason, wave, wave_ends, reached_at, forgiven, waived, now, finished_at } =
            self;
        [id, state, state_before, *reason, wave, wave_ends, *reached_at, forgiven, waived, now, finished_at]
    }
}

/// A number as a column holds it.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl TenantTx {
    /// Makes a campaign; its members are found by whichever replica comes first.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn campaign_insert(
        &self,
        id: CampaignId,
        name: &ObjectName,
        spec: &CampaignSpec,
        created_by: &str,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "/* campaign_insert */ INSERT INTO campaigns (tenant_id, campaign_id, name, spec, state, created_by, created_at,
                 updated_at) VALUES ($1, $2, $3, $4, 'preparing', $5, $6, $6)";
        let spec = to_json("campaigns", "spec", id, spec)?;
        self.execute(sql, &[&Id(id), &name.as_str(), &spec, &created_by, &now]).await.map(drop)
    }

    /// How many campaigns have not ended.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_count(&self) -> Result<i64, DbError> {
        let sql = "/* campaign_count */ SELECT count(*) FROM campaigns WHERE tenant_id = $1 AND finished_at IS NULL";
        let row = self.query_opt(sql, &[]).await?.ok_or(DbError::NotFound { kind: "campaign" })?;
        Ok(row.try_get(0)?)
    }

    /// What a campaign would touch.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_reach(&self, spec: &CampaignSpec) -> Result<CampaignReach, DbError> {
        let sql = format!(
            "/* campaign_reach */ WITH m AS (SELECT t.tenant_id, t.status, t.state, t.binding_id, d.agent_id, d.labels,
                 d.pair IS NOT NULL AND d.standby AS standby {})
             SELECT count(*) AS trustpoints,
                 count(*) FILTER (WHERE coalesce(jsonb_array_length(m.state #> '{{trustpoint,services}}'), 0) = 0) AS without_service,
                 count(*) FILTER (WHERE m.agent_id IS NULL) AS without_agent,
                 count(*) FILTER (WHERE a.last_seen_at < clock_timestamp() - interval '30 minutes') AS silent,
                 count(*) FILTER (WHERE m.status = 'requesting') AS under_way,
                 count(*) FILTER (WHERE m.binding_id IS NOT NULL) AS bound,
                 count(*) FILTER (WHERE m.standby) AS standby,
                 count(*) FILTER (WHERE {} AND EXISTS (SELECT FROM freezes f WHERE f.tenant_id = m.tenant_id
                     AND f.active_until > clock_timestamp() AND m.labels @> f.labels)) AS frozen
             FROM m LEFT JOIN agents a ON a.tenant_id = m.tenant_id AND a.agent_id = m.agent_id",
            chosen(&spec.action),
            spec.can_be_frozen(),
        );
        let chosen = Chosen::new(CampaignId::nil(), &spec.select)?;
        let row = self.query_opt(&sql, &chosen.params()).await?.ok_or(DbError::NotFound { kind: "campaign" })?;
        let number = |column| -> Result<u64, DbError> { Ok(row.try_get::<_, i64>(column)?.unsigned_abs()) };
        Ok(CampaignReach {
            trustpoints: number("trustpoints")?,
            without_service: number("without_service")?,
            without_agent: number("without_agent")?,
            silent: number("silent")?,
            under_way: number("under_way")?,
            bound: number("bound")?,
            standby: number("standby")?,
            frozen: number("frozen")?,
        })
    }

    /// The campaign of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn campaign_fetch(&self, name: &ObjectName) -> Result<Campaign, DbError> {
        let sql =
            format!("/* campaign_fetch */ SELECT {CAMPAIGN} FROM campaigns c WHERE c.tenant_id = $1 AND c.name = $2");
        let row = self.query_opt(&sql, &[&name.as_str()]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "campaign" })?)
    }

    /// The same, which nobody else changes until the transaction ends.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn campaign_fetch_locked(&self, name: &ObjectName) -> Result<Campaign, DbError> {
        let sql = format!(
            "/* campaign_fetch_locked */ SELECT {CAMPAIGN} FROM campaigns c WHERE c.tenant_id = $1 AND c.name = $2 FOR UPDATE"
        );
        let row = self.query_opt(&sql, &[&name.as_str()]).await?;
        read(&row.ok_or(DbError::NotFound { kind: "campaign" })?)
    }

    /// At most `limit` campaigns, the newest first, in `state` where that is said.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn campaign_list(
        &self,
        state: Option<&str>,
        before: Option<CampaignId>,
        limit: i64,
    ) -> Result<Vec<Campaign>, DbError> {
        let sql = format!(
            "/* campaign_list */ SELECT {CAMPAIGN} FROM campaigns c WHERE c.tenant_id = $1
               AND ($2::text IS NULL OR c.state = $2) AND ($3::uuid IS NULL OR c.campaign_id < $3)
             ORDER BY c.campaign_id DESC LIMIT $4"
        );
        let before = before.map(|id| id.as_uuid());
        self.query(&sql, &[&state, &before, &limit]).await?.iter().map(read).collect()
    }

    /// How many members of each wave are how far, grouped by reason.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_progress(&self, id: CampaignId) -> Result<Vec<MemberCount>, DbError> {
        let sql = "/* campaign_progress */ SELECT m.campaign_id, m.wave, m.state, m.code, min(m.reason) AS reason, count(*) AS count
             FROM campaign_members m WHERE m.tenant_id = $1 AND m.campaign_id = $2 GROUP BY 1, 2, 3, 4 ORDER BY 2, 6 DESC, 3, 4";
        let read = |row: &Row| {
            let columns = Columns::new(row, "campaign_members", "campaign_id");
            Ok(MemberCount {
                wave: columns.parse::<i32, _>("wave")?,
                state: member_state(&columns)?,
                code: columns.read("code")?,
                reason: columns.read("reason")?,
                count: columns.read::<i64>("count")?.unsigned_abs(),
            })
        };
        self.query(sql, &[&Id(id)]).await?.iter().map(read).collect()
    }

    /// At most `limit` members.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn campaign_member_list(
        &self,
        id: CampaignId,
        filter: MemberFilter<'_>,
        limit: i64,
    ) -> Result<Vec<ListedMember>, DbError> {
        let sql = "/* campaign_member_list */ SELECT m.trustpoint_id, d.name AS device, t.name AS trustpoint, m.wave, m.state,
                 m.code, m.reason, m.job_id, m.asked_at, m.updated_at
             FROM campaign_members m
             LEFT JOIN trustpoints t ON t.tenant_id = m.tenant_id AND t.trustpoint_id = m.trustpoint_id
             LEFT JOIN devices d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id
             WHERE m.tenant_id = $1 AND m.campaign_id = $2 AND ($3::int IS NULL OR m.wave = $3)
               AND ($4::text IS NULL OR m.state = $4) AND ($5::text IS NULL OR m.code = $5)
               AND ($6::uuid IS NULL OR m.trustpoint_id > $6)
             ORDER BY m.trustpoint_id LIMIT $7";
        let MemberFilter { wave, state, code, after } = filter;
        let after = after.map(|id| id.as_uuid());
        let read = |row: &Row| {
            let columns = Columns::new(row, "campaign_members", "trustpoint_id");
            Ok(ListedMember {
                trustpoint_id: columns.read::<Id<TrustpointId>>("trustpoint_id")?.0,
                device: columns.parse_opt::<String, _>("device")?,
                trustpoint: columns.parse_opt::<String, _>("trustpoint")?,
                wave: columns.parse::<i32, _>("wave")?,
                state: member_state(&columns)?,
                code: columns.read("code")?,
                reason: columns.read("reason")?,
                job_id: columns.read::<Option<Id<JobId>>>("job_id")?.map(|Id(id)| id),
                asked_at: columns.read("asked_at")?,
                updated_at: columns.read("updated_at")?,
            })
        };
        self.query(sql, &[&Id(id), &wave, &state, &code, &after, &limit]).await?.iter().map(read).collect()
    }

    /// Writes how far a campaign is.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn campaign_set(&self, campaign: &Campaign, now: Timestamp) -> Result<(), DbError> {
        let stored = Stored::new(campaign, now)?;
        DbError::one_row(self.execute(SET, &stored.params()).await?, "campaign")
    }

    /// Puts members that are in one of these states into another one; how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn campaign_members_move(
        &self,
        id: CampaignId,
        from: &[MemberState],
        to: MemberState,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        let sql = "/* campaign_members_move */ UPDATE campaign_members
             SET state = $4, claimed_until = NULL, updated_at = $5, code = CASE WHEN $4 = 'pending' THEN NULL ELSE code END,
                 reason = CASE WHEN $4 = 'pending' THEN NULL ELSE reason END,
                 asked_at = CASE WHEN $4 = 'pending' THEN NULL ELSE asked_at END
             WHERE tenant_id = $1 AND campaign_id = $2 AND state = ANY($3)
               AND ($4 <> 'to_undo' OR before IS NOT NULL)";
        let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
        self.execute(sql, &[&Id(id), &from, &to.as_str(), &now]).await
    }

    /// Forgets a campaign that has ended.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn campaign_delete(&self, id: CampaignId) -> Result<(), DbError> {
        let sql = "/* campaign_delete */ DELETE FROM campaigns WHERE tenant_id = $1 AND campaign_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id)]).await?, "campaign")
    }
}
