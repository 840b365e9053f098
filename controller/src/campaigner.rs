//! Carries out campaigns (S51, S58): finds their members, asks for one wave after the other, and looks what becomes of them.
//!
//! Every replica does it. A campaign's row is locked while it is decided what comes next; members are claimed one by one,
//! each with the id of its job, so that whoever goes on where another one was killed asks for the same job and no second one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    clock::Clock,
    ids::{JobId, TenantId},
};

use crate::{
    actors::Registry,
    audit::Requester,
    campaign::{
        Action, CampaignState, Count, Facts, MemberState, Outcome, Step, Wave, settle, settle_undo, step, wave_ends,
    },
    db::{Campaign, DbError, Member, Note, Store, SystemTx},
    device::Reply,
    entropy,
    error::AppError,
    steady::Steady,
    telemetry::chain,
};

mod ask;

/// Campaigns at a time.
const CAMPAIGNS: i64 = 20;
/// Members at a time.
const BATCH: u16 = 256;
/// How long a member is left to the replica that has taken it.
const CLAIM: SignedDuration = SignedDuration::from_secs(30);
/// How soon a member is looked at again that has yet to tell of its services.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// How long a trustpoint is left alone that has something else under way.
const BUSY: SignedDuration = SignedDuration::from_secs(15);

/// Carries out campaigns.
#[derive(Clone)]
pub struct Campaigner {
    /// The database.
    pub store: Store,
    /// Device actors.
    pub registry: Registry,
    /// The present moment.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Campaigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Campaigner")
    }
}

impl Steady for Campaigner {
    const WHAT: &'static str = "the campaigns";
    type Error = AppError;

    async fn step(&self) -> Result<bool, AppError> {
        let campaigns = self
            .store
            .system_tx("campaigns_at_work", async move |tx| -> Result<Vec<(TenantId, Campaign)>, DbError> {
                tx.campaigns_at_work(CAMPAIGNS).await
            })
            .await?;
        let mut more = false;
        for (tenant, campaign) in campaigns {
            let id = campaign.id;
            match self.advance(tenant, campaign).await {
                Ok(progress) => more |= progress,
                Err(error) => tracing::warn!(campaign.id = %id, error = %chain(&error), "a campaign waits"),
            }
        }
        Ok(more)
    }
}

/// A change of a member.
struct Moved {
    state: MemberState,
    job_id: JobId,
    reason: Option<(String, String)>,
    claimed_until: Option<Timestamp>,
}

impl Campaigner {
    /// Decides what comes next, and deals with members that are due; whether there is more at once.
    async fn advance(&self, tenant: TenantId, campaign: Campaign) -> Result<bool, AppError> {
        let decided = self.decide(tenant, &campaign).await?;
        let now = self.clock.now();
        let again_at = now.checked_add(CLAIM).unwrap_or(now);
        let taking = campaign.clone();
        let members = self
            .store
            .system_tx("campaign_take", async move |tx| -> Result<Vec<Member>, DbError> {
                tx.campaign_take(tenant, &taking, now, again_at, BATCH.into()).await
            })
            .await?;
        let full = members.len() >= usize::from(BATCH);
        for member in members {
            let moved = self.deal_with(&campaign, &member).await?;
            let now = self.clock.now();
            self.store
                .system_tx("campaign_member_set", async move |tx| -> Result<(), DbError> {
                    let Moved { state, job_id, reason, claimed_until } = &moved;
                    tx.campaign_member_set(&member, *state, *job_id, reason.as_ref(), *claimed_until, now).await
                })
                .await?;
        }
        Ok(full || decided)
    }

    /// What a member that was taken comes to.
    async fn deal_with(&self, campaign: &Campaign, member: &Member) -> Result<Moved, AppError> {
        let now = self.clock.now();
        let job_id = member.job_id;
        let stay = |state, wait| Moved { state, job_id, reason: None, claimed_until: now.checked_add(wait).ok() };
        let ended = |state, reason| Moved { state, job_id, reason, claimed_until: None };
        if member.state == MemberState::Asking {
            return Ok(self.ask(campaign, member, now).await);
        }
        if member.state == MemberState::Undoing && member.job.is_none() {
            return Ok(self.undo(campaign, member).await);
        }
        let facts =
            Facts { trustpoint: member.trustpoint.as_ref(), job: member.job.as_ref(), asked_at: member.asked_at };
        if member.state == MemberState::Undoing {
            return Ok(match settle_undo(&facts) {
                Outcome::Ended(state, reason) => ended(state, reason),
                Outcome::Wait | Outcome::Activate => stay(MemberState::Undoing, LOOK_AGAIN),
            });
        }
        let outcome = match settle(&campaign.spec, &facts, now) {
            // Its job was chosen, and not asked for before whoever chose it was gone.
            Outcome::Ended(..)
                if member.state == MemberState::Activating && member.job.is_none() && facts.trustpoint.is_some() =>
            {
                Outcome::Activate
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Wait => Ok(stay(member.state, LOOK_AGAIN)),
            Outcome::Activate if member.state == MemberState::InFlight => {
                let job_id = JobId::fresh(now, entropy::random()?);
                Ok(Moved { job_id, ..stay(MemberState::Activating, SignedDuration::ZERO) })
            }
            Outcome::Activate => Ok(self.activate(campaign, member).await),
            Outcome::Ended(state, reason) => {
                if state == MemberState::Failed {
                    self.put_settings_back(campaign, member).await;
                }
                // Whoever rolls back has not to wait for what was under way.
                let undo = campaign.state == CampaignState::RollingBack && member.before.is_some();
                Ok(ended(if undo { MemberState::ToUndo } else { state }, reason))
            }
        }
    }

    /// Takes the campaign's next step, if nobody else is at it; whether there was one.
    async fn decide(&self, tenant: TenantId, campaign: &Campaign) -> Result<bool, AppError> {
        let now = self.clock.now();
        let jobs =
            (0..BATCH).map(|_| Ok(JobId::fresh(now, entropy::random()?))).collect::<Result<Vec<JobId>, AppError>>()?;
        let id = campaign.id;
        self.store
            .system_tx("campaign_decide", async move |tx| -> Result<bool, DbError> {
                match tx.campaign_lock(tenant, id).await? {
                    None => Ok(false),
                    Some(campaign) => match campaign.state {
                        CampaignState::Preparing => prepare(tx, tenant, campaign, now).await,
                        CampaignState::Running => go_on(tx, tenant, campaign, &jobs, now).await,
                        CampaignState::RollingBack => roll_back(tx, tenant, campaign, &jobs, now).await,
                        _ => Ok(false),
                    },
                }
            })
            .await
            .map_err(Into::into)
    }
}

const AT_WORK: [MemberState; 3] = [MemberState::Asking, MemberState::InFlight, MemberState::Activating];

async fn prepare(tx: &SystemTx, tenant: TenantId, mut campaign: Campaign, now: Timestamp) -> Result<bool, DbError> {
    let size = tx.campaign_size(tenant, campaign.id, &campaign.spec).await?;
    let mut ends = wave_ends(size, &campaign.spec.waves);
    let members = tx.campaign_fill(tenant, campaign.id, &campaign.spec, &ends, now).await?;
    if let Some(last) = ends.last_mut() {
        *last = members;
    }
    campaign.wave_ends = ends;
    let (action, detail) = if members == 0 {
        campaign.state = CampaignState::Completed;
        campaign.reason = Some("there is no trustpoint that it is about".to_owned());
        ("campaign_completed", serde_json::json!({ "name": campaign.name, "members": 0 }))
    } else {
        campaign.state = CampaignState::Running;
        let waves = &campaign.wave_ends;
        ("campaign_started", serde_json::json!({ "name": campaign.name, "members": members, "wave_ends": waves }))
    };
    tx.campaign_set(tenant, &campaign, now).await?;
    note(tx, tenant, &campaign, action, detail, now).await?;
    Ok(true)
}

async fn go_on(
    tx: &SystemTx,
    tenant: TenantId,
    mut campaign: Campaign,
    jobs: &[JobId],
    now: Timestamp,
) -> Result<bool, DbError> {
    let count: Count = tx.campaign_wave(tenant, campaign.id, campaign.wave).await?;
    let waves = u32::try_from(campaign.wave_ends.len()).unwrap_or(u32::MAX);
    let wave = Wave {
        count,
        at_work: tx.campaign_members_in(tenant, campaign.id, &AT_WORK).await?,
        forgiven: campaign.forgiven,
        waived: campaign.waived,
        reached_at: campaign.reached_at,
        is_last: campaign.wave + 1 >= waves,
    };
    let next = step(&campaign.spec, &wave, now);
    let number = campaign.wave + 1;
    let (action, detail) = match next {
        Step::Wait => return Ok(false),
        Step::Ask(most) => {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(jobs.len());
            let chosen = jobs.get(..most).unwrap_or(jobs);
            let claimed = tx.campaign_claim(tenant, &campaign, chosen, now).await?;
            return Ok(claimed > 0);
        }
        Step::Reached => {
            campaign.reached_at = Some(now);
            ("campaign_wave_reached", serde_json::json!({ "name": campaign.name, "wave": number }))
        }
        Step::NextWave => {
            campaign.wave += 1;
            (campaign.reached_at, campaign.forgiven, campaign.waived) = (None, 0, 0);
            ("campaign_wave_done", serde_json::json!({ "name": campaign.name, "wave": number, "of": waves }))
        }
        Step::Stop(reason) => {
            (campaign.state, campaign.state_before) = (CampaignState::Stopped, Some(CampaignState::Running));
            campaign.reason = Some(format!("wave {number}: {reason}"));
            tracing::warn!(campaign.id = %campaign.id, campaign = %campaign.name, wave = number, %reason, "a campaign has stopped");
            (
                "campaign_stopped",
                serde_json::json!({ "name": campaign.name, "wave": number, "reason": reason.to_string() }),
            )
        }
        Step::Complete => {
            campaign.state = CampaignState::Completed;
            ("campaign_completed", serde_json::json!({ "name": campaign.name, "waves": waves }))
        }
    };
    tx.campaign_set(tenant, &campaign, now).await?;
    note(tx, tenant, &campaign, action, detail, now).await?;
    Ok(true)
}

async fn roll_back(
    tx: &SystemTx,
    tenant: TenantId,
    mut campaign: Campaign,
    jobs: &[JobId],
    now: Timestamp,
) -> Result<bool, DbError> {
    const UNDER_WAY: [MemberState; 5] = [
        MemberState::Asking,
        MemberState::InFlight,
        MemberState::Activating,
        MemberState::ToUndo,
        MemberState::Undoing,
    ];
    let undoing = tx.campaign_members_in(tenant, campaign.id, &[MemberState::Undoing]).await?;
    let room = usize::try_from(campaign.spec.max_in_flight.saturating_sub(undoing)).unwrap_or(usize::MAX);
    let chosen = jobs.get(..room.min(jobs.len())).unwrap_or(jobs);
    let claimed = tx.campaign_claim(tenant, &campaign, chosen, now).await?;
    if tx.campaign_members_in(tenant, campaign.id, &UNDER_WAY).await? > 0 {
        return Ok(claimed > 0);
    }
    campaign.state = CampaignState::RolledBack;
    tx.campaign_set(tenant, &campaign, now).await?;
    let detail = serde_json::json!({ "name": campaign.name });
    note(tx, tenant, &campaign, "campaign_rolled_back", detail, now).await?;
    Ok(true)
}

async fn note(
    tx: &SystemTx,
    tenant: TenantId,
    campaign: &Campaign,
    action: &'static str,
    detail: serde_json::Value,
    now: Timestamp,
) -> Result<(), DbError> {
    let requester = Requester::controller();
    tx.audit_note(tenant, &Note::new(now, &requester, action, "campaign", campaign.id.as_uuid(), detail)).await
}

/// Who asks for what a campaign does.
fn requester(campaign: &Campaign) -> Requester {
    Requester::new(format!("campaign:{}", campaign.name), "controller")
}

/// Whether an answer names a job.
const fn has_job(reply: &Reply) -> bool {
    matches!(reply, Reply::Job { .. })
}

/// Whether a campaign's action may leave a trustpoint with settings for which nothing was issued.
const fn moves(action: &Action) -> bool {
    matches!(action, Action::Change { .. })
}
