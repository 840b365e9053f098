//! Campaigns: one change of many trustpoints, in waves (S51, S58).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trustfleet_model::ids::{CampaignId, JobId, TrustpointId};
use utoipa::ToSchema;

use super::job::RequestKindBody;
use super::revocation::RevocationReasonBody;
use crate::campaign::{Action, CampaignSpec, MemberState, Selector};
use crate::db::{Campaign, CampaignReach, ListedMember, MemberCount};

/// Which trustpoints a campaign is about: those for which everything holds that is said; at least one thing must be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CampaignSelector {
    /// Labels that the device must have, all of them.
    pub labels: BTreeMap<String, String>,
    /// Name of the trustpoint.
    pub trustpoint: Option<String>,
    /// Name of its CA server.
    pub ca_server: Option<String>,
    /// Name of its policy.
    pub policy: Option<String>,
    /// Issuer of the certificate in use, exactly as lists of certificates show it.
    pub issuer: Option<String>,
    /// Kind of the key of the certificate in use, as lists of certificates show it.
    pub key: Option<String>,
    /// The certificate in use ends before this moment.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_before: Option<Timestamp>,
}

/// What a campaign does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CampaignAction {
    /// A new certificate by key update.
    Renew,
    /// The same, with a new key in any case.
    Rekey,
    /// Another policy or CA server, and a new certificate by it.
    Change,
    /// What is staged is put into use.
    Activate,
    /// The next anchors of the CA server's roll-over go to the devices and their services.
    Anchors,
    /// The certificate in use is revoked by its CA.
    Revoke,
}

impl From<&Action> for CampaignAction {
    fn from(action: &Action) -> Self {
        match action {
            Action::Renew { .. } => Self::Renew,
            Action::Rekey { .. } => Self::Rekey,
            Action::Change { .. } => Self::Change,
            Action::Activate => Self::Activate,
            Action::Anchors => Self::Anchors,
            Action::Revoke { .. } => Self::Revoke,
        }
    }
}

/// What makes a campaign.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CampaignCreate {
    /// Its name, unique in the tenant: 1 to 63 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Which trustpoints.
    pub select: CampaignSelector,
    /// What is done to them.
    pub action: CampaignAction,
    /// With `change`: name of the new policy.
    #[serde(default)]
    pub policy: Option<String>,
    /// With `change`: name of the new CA server.
    #[serde(default)]
    pub ca_server: Option<String>,
    /// With `change`: the request; default `kur`, and `cr` where there is a new CA server, to which no update leads.
    #[serde(default)]
    pub request: Option<RequestKindBody>,
    /// With `revoke`: why.
    #[serde(default)]
    pub reason: Option<RevocationReasonBody>,
    /// With `renew`, `rekey` and `change`: the certificates stay staged, for another campaign that activates them.
    #[serde(default)]
    pub stage_only: bool,
    /// Sizes of the first waves, such as `["1", "5%", "25%"]`; all that is left is the last one. Default: one wave.
    #[serde(default)]
    #[schema(max_items = 19)]
    pub waves: Vec<String>,
    /// Most members at work at a time, 1 to 10000; default 100.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_in_flight: Option<u32>,
    /// So many of a wave, percent, must be seen in service before the next one begins; default 95.
    #[serde(default)]
    #[schema(maximum = 100)]
    pub success_percent: Option<u8>,
    /// So many of a wave may fail, such as `5%` or `3`; one more stops the campaign; default 5%.
    #[serde(default)]
    pub failures_allowed: Option<String>,
    /// Count what nobody can see in service (no service bound, or none with a probe) as seen; default false.
    #[serde(default)]
    pub accept_unverifiable: bool,
    /// How long a wave is watched after it has come to its threshold, seconds; default 0.
    #[serde(default)]
    #[schema(maximum = 2592000)]
    pub soak_s: u32,
    /// How long a member may take before it counts as out of reach, seconds, 60 to 2592000; default 86400.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 2592000)]
    pub patience_s: Option<u32>,
    /// Go before everything else at the CA, and through freeze windows; default false.
    #[serde(default)]
    pub urgent: bool,
}

/// What a campaign would touch; nothing is done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CampaignPreview)]
pub struct CampaignPreviewBody {
    /// Trustpoints that it is about.
    pub trustpoints: u64,
    /// Members of each wave.
    pub waves: Vec<u32>,
    /// Of the trustpoints, the ones without a service: nobody can see whether they use the certificate.
    pub without_service: u64,
    /// Of the trustpoints, the ones whose device has no agent: they would fail.
    pub without_agent: u64,
    /// Of the trustpoints, the ones whose agent was not heard of for half an hour: they come late, or not in time.
    pub silent: u64,
    /// Of the trustpoints, the ones with something under way: they come later.
    pub under_way: u64,
    /// Of the trustpoints, the ones that came by a binding: after `change`, change the binding too.
    pub bound: u64,
    /// Of the trustpoints, the ones on the standby of a pair, which never asks: they would fail.
    pub standby: u64,
    /// Of the trustpoints, the ones that a freeze window holds at present.
    pub frozen: u64,
}

impl CampaignPreviewBody {
    /// With the waves that it would have.
    pub fn new(reach: CampaignReach, waves: Vec<u32>) -> Self {
        let CampaignReach { trustpoints, without_service, without_agent, silent, under_way, bound, standby, frozen } =
            reach;
        Self { trustpoints, waves, without_service, without_agent, silent, under_way, bound, standby, frozen }
    }
}

/// What lets a paused or stopped campaign go on.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CampaignResume {
    /// Ask once more for members that failed or were out of reach; otherwise they stay so, and are not counted against
    /// the campaign any more.
    pub retry: bool,
}

/// Members of a wave that share a reason.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CampaignReason {
    /// How far they are: `failed`, `unreachable`, …
    pub state: &'static str,
    /// The reason in one word.
    pub code: String,
    /// The reason as one of them says it.
    pub reason: String,
    /// How many they are.
    pub members: u64,
}

/// How far one wave is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CampaignWave {
    /// Its number, from 1.
    pub wave: u32,
    /// Its members.
    pub members: u64,
    /// How many of them are in each state that any is in: `pending`, `asking`, `in_flight`, `activating`, `verified`,
    /// `unverifiable`, `failed`, `unreachable`, `skipped`, `cancelled`, `to_undo`, `undoing`, `undone`, `undo_failed`.
    pub states: BTreeMap<&'static str, u64>,
    /// Why, the most frequent first; at most 20.
    pub reasons: Vec<CampaignReason>,
}

/// A campaign.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct CampaignBody {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: CampaignId,
    /// Its name.
    pub name: String,
    /// `preparing`, `running`, `paused`, `stopped` (by failures: an operator decides), `completed`, `cancelled`,
    /// `rolling_back` or `rolled_back`.
    pub state: &'static str,
    /// Why it is paused, stopped or cancelled.
    #[schema(required)]
    pub state_reason: Option<String>,
    /// The wave at work, from 1; null: its members are not found yet.
    #[schema(required)]
    pub wave: Option<u32>,
    /// Members of all waves; null: they are not found yet.
    #[schema(required)]
    pub members: Option<u32>,
    /// How far each wave is; only where one campaign is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Vec<CampaignWave>>,
    /// Which trustpoints.
    pub select: CampaignSelector,
    /// What is done to them.
    pub action: CampaignAction,
    /// The new policy.
    #[schema(required)]
    pub policy: Option<String>,
    /// The new CA server.
    #[schema(required)]
    pub ca_server: Option<String>,
    /// The request of a `change`.
    #[schema(required)]
    pub request: Option<RequestKindBody>,
    /// Why certificates are revoked.
    #[schema(required)]
    pub reason: Option<RevocationReasonBody>,
    /// Whether the certificates stay staged.
    pub stage_only: bool,
    /// Sizes of the first waves.
    pub waves: Vec<String>,
    /// Most members at work at a time.
    pub max_in_flight: u32,
    /// So many of a wave, percent, must be seen in service.
    pub success_percent: u8,
    /// So many of a wave may fail.
    pub failures_allowed: String,
    /// Whether what nobody can see counts as seen.
    pub accept_unverifiable: bool,
    /// How long a wave is watched, seconds.
    pub soak_s: u32,
    /// How long a member may take, seconds.
    pub patience_s: u32,
    /// Whether it goes before everything else.
    pub urgent: bool,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub finished_at: Option<Timestamp>,
}

/// Most reasons of one wave.
const REASONS_MAX: usize = 20;

impl From<&Selector> for CampaignSelector {
    fn from(select: &Selector) -> Self {
        Self {
            labels: select.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            trustpoint: select.trustpoint.as_ref().map(ToString::to_string),
            ca_server: select.ca_server.as_ref().map(|named| named.name.to_string()),
            policy: select.policy.as_ref().map(|named| named.name.to_string()),
            issuer: select.issuer.clone(),
            key: select.key.clone(),
            expires_before: select.expires_before,
        }
    }
}

impl From<Campaign> for CampaignBody {
    fn from(campaign: Campaign) -> Self {
        let CampaignSpec { select, action, waves, .. } = &campaign.spec;
        let (mut policy, mut ca_server, mut request, mut reason) = (None, None, None, None);
        match action {
            Action::Change { policy: to, ca_server: at, request: by, .. } => {
                policy = to.as_ref().map(|named| named.name.to_string());
                ca_server = at.as_ref().map(|named| named.name.to_string());
                request = Some((*by).into());
            }
            Action::Revoke { reason: why } => reason = Some((*why).into()),
            _ => {}
        }
        let is_prepared = !campaign.wave_ends.is_empty();
        Self {
            id: campaign.id,
            name: campaign.name.to_string(),
            state: campaign.state.as_str(),
            state_reason: campaign.reason,
            wave: is_prepared.then_some(campaign.wave + 1),
            members: campaign.wave_ends.last().copied(),
            progress: None,
            select: select.into(),
            action: action.into(),
            policy,
            ca_server,
            request,
            reason,
            stage_only: action.stages_only(),
            waves: waves.iter().map(ToString::to_string).collect(),
            max_in_flight: campaign.spec.max_in_flight,
            success_percent: campaign.spec.success_percent,
            failures_allowed: campaign.spec.failures_allowed.to_string(),
            accept_unverifiable: campaign.spec.accept_unverifiable,
            soak_s: campaign.spec.soak_s,
            patience_s: campaign.spec.patience_s,
            urgent: campaign.spec.urgent,
            created_by: campaign.created_by,
            created_at: campaign.created_at,
            updated_at: campaign.updated_at,
            finished_at: campaign.finished_at,
        }
    }
}

impl CampaignBody {
    /// With how far its waves are.
    #[must_use]
    pub fn with(self, counts: Vec<MemberCount>) -> Self {
        let mut waves: BTreeMap<u32, CampaignWave> = BTreeMap::new();
        for found in counts {
            let wave = waves.entry(found.wave).or_insert_with(|| CampaignWave {
                wave: found.wave + 1,
                members: 0,
                states: BTreeMap::new(),
                reasons: Vec::new(),
            });
            wave.members += found.count;
            *wave.states.entry(found.state.as_str()).or_default() += found.count;
            if let (Some(code), true) = (found.code, wave.reasons.len() < REASONS_MAX) {
                let (state, reason) = (found.state.as_str(), found.reason.unwrap_or_default());
                wave.reasons.push(CampaignReason { state, code, reason, members: found.count });
            }
        }
        Self { progress: Some(waves.into_values().collect()), ..self }
    }
}

/// One trustpoint of a campaign.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = CampaignMember)]
pub struct CampaignMemberBody {
    /// The trustpoint.
    #[schema(value_type = uuid::Uuid)]
    pub trustpoint_id: TrustpointId,
    /// Name of its device; null: it is gone.
    #[schema(required)]
    pub device: Option<String>,
    /// Its name; null: it is gone.
    #[schema(required)]
    pub trustpoint: Option<String>,
    /// Its wave, from 1.
    pub wave: u32,
    /// How far it is.
    pub state: &'static str,
    /// Why, in one word.
    #[schema(required)]
    pub code: Option<String>,
    /// Why, as a sentence.
    #[schema(required)]
    pub reason: Option<String>,
    /// The job that does it.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    pub job_id: Option<JobId>,
    /// When it was asked for.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub asked_at: Option<Timestamp>,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<ListedMember> for CampaignMemberBody {
    fn from(member: ListedMember) -> Self {
        let has_job = !matches!(member.state, MemberState::Pending | MemberState::Cancelled | MemberState::ToUndo);
        Self {
            trustpoint_id: member.trustpoint_id,
            device: member.device.map(Into::into),
            trustpoint: member.trustpoint.map(Into::into),
            wave: member.wave + 1,
            state: member.state.as_str(),
            code: member.code,
            reason: member.reason,
            // Before it is asked for its id is nothing that can be looked at.
            job_id: member.job_id.filter(|_| has_job),
            asked_at: member.asked_at,
            updated_at: member.updated_at,
        }
    }
}
