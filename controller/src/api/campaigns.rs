//! Campaigns: one change of many trustpoints, in waves (S51, S58). What follows from them is the campaigner's work.

mod read;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::{CampaignId, TrustpointId};
use utoipa::IntoParams;

use super::body::Body;
use super::call::{Call, ListQuery, Reason, name_taken};
use super::changes;
use super::dto::Page;
use super::dto::campaign::{CampaignBody, CampaignCreate, CampaignMemberBody, CampaignPreviewBody, CampaignResume};
use super::problem::{Problem, ProblemBody, json};
use crate::audit::shown;
use crate::campaign::{CampaignSpec, CampaignState, MemberState, wave_ends};
use crate::db::{CAMPAIGNS_MAX, Campaign, Change, MemberFilter, TenantTx};
use crate::error::AppError;

/// Filters of the list of campaigns.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct CampaignQuery {
    /// Only in this state.
    state: Option<String>,
}

/// How a campaign is made.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct CampaignTry {
    /// Only say what it would touch; default false.
    dry_run: Option<bool>,
}

/// Filters of the list of members.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by the OpenAPI document only
pub struct MemberQuery {
    /// Only of this wave, from 1.
    #[param(minimum = 1, maximum = 20)]
    wave: Option<u32>,
    /// Only in this state.
    state: Option<String>,
    /// Only for this reason, in one word.
    code: Option<String>,
}

/// Lists campaigns, the newest first.
///
/// # Errors
/// 422 for unreadable parameters; the database's own.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/campaigns", tag = "Campaigns", operation_id = "campaign_list",
    summary = "List campaigns, newest first", params(ListQuery, CampaignQuery),
    responses((status = 200, description = "A part of the list", body = Page<CampaignBody>)))]
pub async fn list(call: Call) -> Result<HttpResponse, Problem> {
    let list = call.list(&["state"])?;
    let state = list.filter("state");
    if state.is_some_and(|state| CampaignState::from_word(state).is_none()) {
        let known = CampaignState::ALL.map(CampaignState::as_str).join(", ");
        return Err(Problem::invalid("state", "choice", format!("must be one of {known}")));
    }
    let before: Option<CampaignId> = list.after_as()?;
    let rows =
        call.tenant_read("campaign_list", async |tx| Ok(tx.campaign_list(state, before, list.rows()).await?)).await?;
    let page: Page<CampaignBody> = list.page(rows, |row| row.id.to_string());
    json(StatusCode::OK, &page)
}

/// Begins a campaign, or says what it would touch.
///
/// # Errors
/// 409 when the name is taken or there are too many, 422 with everything that is wrong.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/campaigns", tag = "Campaigns", operation_id = "campaign_create",
    summary = "Renew, re-key, move, activate or revoke many trustpoints, in waves", params(CampaignTry, Reason),
    request_body = CampaignCreate, responses(
        (status = 200, description = "With `dry_run`: what it would touch", body = CampaignPreviewBody),
        (status = 201, description = "It begins", body = CampaignBody),
        (status = 202, description = "It begins when another administrator has approved it", body = super::dto::change::ChangeBody),
        (status = 409, description = "The name is taken, or there are too many", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn create(call: Call, body: Body<CampaignCreate>) -> Result<HttpResponse, Problem> {
    let is_dry = match call.query("dry_run").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("dry_run", "type", "must be true or false")),
    };
    let (name, spec) = read::spec(&call, body).await?;
    if is_dry {
        let reach = call.tenant_tx("campaign_reach", async |tx| Ok(tx.campaign_reach(&spec).await?)).await?;
        let size = u32::try_from(reach.trustpoints).unwrap_or(u32::MAX);
        let ends = wave_ends(size, &spec.waves);
        let sizes = ends.iter().scan(0, |before, end| Some(end - std::mem::replace(before, *end))).collect();
        return json(StatusCode::OK, &CampaignPreviewBody::new(reach, sizes));
    }
    if changes::is_held(&call, "campaign_create")? {
        let look = async |tx: &TenantTx| match tx.campaign_fetch(&name).await {
            Ok(_) => Err(super::call::taken("campaign")),
            Err(crate::db::DbError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        };
        return changes::propose(&call, "campaign_create", "campaign", &name, Some(&spec), look).await;
    }
    let why = call.reason()?;
    let made =
        call.tenant_tx("campaign_create", async |tx| begin(&call, tx, &name, &spec, why.as_deref()).await).await?;
    call.created(name.as_str(), &CampaignBody::from(made))
}

/// Begins an approved campaign.
///
/// # Errors
/// The name is taken by now, or there are too many; the database's own.
pub(super) async fn apply(call: &Call, tx: &TenantTx, change: &Change) -> Result<(), AppError> {
    let proposal = change.proposal.clone().unwrap_or_default();
    let spec: CampaignSpec =
        serde_json::from_value(proposal).map_err(|error| AppError::Internal { source: Box::new(error) })?;
    begin(call, tx, &change.object_name, &spec, None).await.map(drop)
}

async fn begin(
    call: &Call,
    tx: &TenantTx,
    name: &ObjectName,
    spec: &CampaignSpec,
    why: Option<&str>,
) -> Result<Campaign, AppError> {
    if tx.campaign_count().await? >= CAMPAIGNS_MAX {
        let detail = format!("the tenant has {CAMPAIGNS_MAX} campaigns that have not ended, and cannot have more");
        return Err(AppError::Conflict { code: "too_many_campaigns", detail });
    }
    let id = call.services().fresh(CampaignId::fresh)?;
    tx.campaign_insert(id, name, spec, &call.actor(), call.now).await.map_err(|error| name_taken(error, "campaign"))?;
    let made = tx.campaign_fetch(name).await?;
    let body = CampaignBody::from(made.clone());
    let detail = json!({ "name": name.as_str(), "reason": why });
    call.note_change(tx, "campaign_created", ("campaign", id.as_uuid()), None, Some(shown(&body)), detail).await?;
    Ok(made)
}

/// Shows a campaign with the progress of its waves.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/campaigns/{campaign}", tag = "Campaigns", operation_id = "campaign_show",
    summary = "Show a campaign, how far each wave is, and why members are not done",
    responses((status = 200, description = "The campaign", body = CampaignBody)))]
pub async fn show(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("campaign", "campaign")?;
    let found = call
        .tenant_tx("campaign_show", async |tx| {
            let found = tx.campaign_fetch(&name).await?;
            let progress = tx.campaign_progress(found.id).await?;
            Ok(CampaignBody::from(found).with(progress))
        })
        .await?;
    json(StatusCode::OK, &found)
}

/// Lists the members of a campaign.
///
/// # Errors
/// 404; 422 for unreadable parameters.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/campaigns/{campaign}/members", tag = "Campaigns",
    operation_id = "campaign_member_list", summary = "List the trustpoints of a campaign, and what became of them",
    params(ListQuery, MemberQuery), responses((status = 200, description = "A part of the list", body = Page<CampaignMemberBody>)))]
pub async fn members(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("campaign", "campaign")?;
    let list = call.list(&["wave", "state", "code"])?;
    let state = list.filter("state");
    if state.is_some_and(|state| MemberState::from_word(state).is_none()) {
        let known = MemberState::ALL.map(MemberState::as_str).join(", ");
        return Err(Problem::invalid("state", "choice", format!("must be one of {known}")));
    }
    let wave = match list.filter("wave").map(str::parse::<i32>) {
        None => None,
        Some(Ok(wave @ 1..=20)) => Some(wave - 1),
        Some(_) => return Err(Problem::invalid("wave", "range", "must be a whole number from 1 to 20")),
    };
    let after: Option<TrustpointId> = list.after_as()?;
    let filter = MemberFilter { wave, state, code: list.filter("code"), after };
    let rows = call
        .tenant_tx("campaign_members", async |tx| {
            let found = tx.campaign_fetch(&name).await?;
            Ok(tx.campaign_member_list(found.id, filter, list.rows()).await?)
        })
        .await?;
    let page: Page<CampaignMemberBody> = list.page(rows, |row| row.trustpoint_id.to_string());
    json(StatusCode::OK, &page)
}

/// Holds a campaign: what is under way goes on, nothing new is asked for.
///
/// # Errors
/// 404; 409 when it has ended or is held already.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/campaigns/{campaign}/pause", tag = "Campaigns",
    operation_id = "campaign_pause", summary = "Hold a campaign: what is under way goes on, nothing new is asked for", params(Reason),
    responses((status = 200, description = "Held", body = CampaignBody),
        (status = 409, description = "It is not at work", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn pause(call: Call) -> Result<HttpResponse, Problem> {
    let why = call.reason()?;
    change(&call, "campaign_paused", async |_, campaign| {
        if !matches!(campaign.state, CampaignState::Preparing | CampaignState::Running | CampaignState::RollingBack) {
            return Err(refused(campaign, "only what is at work can be paused"));
        }
        campaign.state_before = Some(campaign.state);
        campaign.state = CampaignState::Paused;
        campaign.reason.clone_from(&why);
        Ok(())
    })
    .await
}

/// Lets a campaign go on.
///
/// # Errors
/// 404; 409 when it is neither paused nor stopped.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/campaigns/{campaign}/resume", tag = "Campaigns",
    operation_id = "campaign_resume", summary = "Let a campaign go on that is paused or has stopped", request_body = CampaignResume,
    params(Reason), responses((status = 200, description = "It goes on", body = CampaignBody),
        (status = 409, description = "It is neither paused nor stopped", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn resume(call: Call, body: Body<CampaignResume>) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("campaign", "campaign")?;
    call.tenant_read("campaign_show", async |tx| Ok(tx.campaign_fetch(&name).await?)).await?;
    let retry = body.check(|body, _| Some(body.retry))?;
    call.reason()?;
    change(&call, "campaign_resumed", async |tx, campaign| {
        let (CampaignState::Paused | CampaignState::Stopped, Some(before)) = (campaign.state, campaign.state_before)
        else {
            return Err(refused(campaign, "only what is paused or has stopped can be resumed"));
        };
        if retry && before == CampaignState::Running {
            let again = [MemberState::Failed, MemberState::Unreachable];
            tx.campaign_members_move(campaign.id, &again, MemberState::Pending, call.now).await?;
            (campaign.forgiven, campaign.waived) = (0, 0);
        } else if campaign.state == CampaignState::Stopped {
            let_go(campaign, &tx.campaign_progress(campaign.id).await?);
        }
        (campaign.state, campaign.state_before, campaign.reason) = (before, None, None);
        Ok(())
    })
    .await
}

/// What has gone wrong in the wave at work counts no more: an operator has seen it.
fn let_go(campaign: &mut Campaign, counts: &[crate::db::MemberCount]) {
    let of = |state| {
        let here = counts.iter().filter(|count| count.wave == campaign.wave && count.state == state);
        u32::try_from(here.map(|count| count.count).sum::<u64>()).unwrap_or(u32::MAX)
    };
    let (failed, unreachable, unverifiable) =
        (of(MemberState::Failed), of(MemberState::Unreachable), of(MemberState::Unverifiable));
    campaign.forgiven = failed;
    campaign.waived = unreachable + if campaign.spec.accept_unverifiable { 0 } else { unverifiable };
}

/// Ends a campaign: what is under way goes on, what is not asked for yet never is.
///
/// # Errors
/// 404; 409 when it has ended.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/campaigns/{campaign}/cancel", tag = "Campaigns",
    operation_id = "campaign_cancel", summary = "End a campaign; what was done stays, what is under way goes on", params(Reason),
    responses((status = 200, description = "Ended", body = CampaignBody),
        (status = 409, description = "It has ended already", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn cancel(call: Call) -> Result<HttpResponse, Problem> {
    let why = call.reason()?;
    change(&call, "campaign_cancelled", async |tx, campaign| {
        if campaign.state.is_final() {
            return Err(refused(campaign, "it has ended"));
        }
        let waiting = [MemberState::Pending, MemberState::ToUndo];
        tx.campaign_members_move(campaign.id, &waiting, MemberState::Cancelled, call.now).await?;
        (campaign.state, campaign.state_before) = (CampaignState::Cancelled, None);
        campaign.reason.clone_from(&why);
        Ok(())
    })
    .await
}

/// Takes back what a campaign did: settings, and the certificates that were in use before.
///
/// # Errors
/// 404; 409 when that is not possible, or it was done.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/campaigns/{campaign}/roll-back", tag = "Campaigns",
    operation_id = "campaign_roll_back", summary = "Take back what a campaign did, as far as devices keep what was before", params(Reason),
    responses((status = 200, description = "It begins to", body = CampaignBody),
        (status = 409, description = "It cannot be taken back", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn roll_back(call: Call) -> Result<HttpResponse, Problem> {
    let why = call.reason()?;
    change(&call, "campaign_rolling_back", async |tx, campaign| {
        if !campaign.spec.action.can_be_undone() {
            return Err(refused(campaign, "a revocation cannot be taken back, and anchors are by cancelling their roll-over; cancel what has not begun"));
        }
        if matches!(campaign.state, CampaignState::RollingBack | CampaignState::RolledBack | CampaignState::Preparing) {
            return Err(refused(campaign, "there is nothing to take back, or it is being taken back"));
        }
        let done = [MemberState::Verified, MemberState::Unverifiable, MemberState::Failed, MemberState::Unreachable];
        tx.campaign_members_move(campaign.id, &[MemberState::Pending], MemberState::Cancelled, call.now).await?;
        tx.campaign_members_move(campaign.id, &done, MemberState::ToUndo, call.now).await?;
        (campaign.state, campaign.state_before) = (CampaignState::RollingBack, None);
        campaign.reason.clone_from(&why);
        Ok(())
    })
    .await
}

/// Forgets a campaign that has ended.
///
/// # Errors
/// 404; 409 when it has not ended.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/campaigns/{campaign}", tag = "Campaigns", operation_id = "campaign_delete",
    summary = "Forget a campaign that has ended; the audit log keeps what it did", responses(
        (status = 204, description = "Forgotten"),
        (status = 409, description = "It has not ended", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn remove(call: Call) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("campaign", "campaign")?;
    call.tenant_tx("campaign_delete", async |tx| {
        let campaign = tx.campaign_fetch_locked(&name).await?;
        if !campaign.state.is_final() {
            return Err(refused(&campaign, "cancel it first"));
        }
        tx.campaign_delete(campaign.id).await?;
        let detail = json!({ "name": name.as_str(), "state": campaign.state.as_str() });
        call.note(tx, "campaign_deleted", "campaign", campaign.id.as_uuid(), detail).await?;
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Changes the state of the campaign in the path, and answers with it.
async fn change(
    call: &Call,
    action: &'static str,
    what: impl AsyncFn(&TenantTx, &mut Campaign) -> Result<(), AppError>,
) -> Result<HttpResponse, Problem> {
    let name: ObjectName = call.segment("campaign", "campaign")?;
    let why = call.reason()?;
    let changed = call
        .tenant_tx(action, async |tx| {
            let mut campaign = tx.campaign_fetch_locked(&name).await?;
            let before = campaign.state.as_str();
            what(tx, &mut campaign).await?;
            tx.campaign_set(&campaign, call.now).await?;
            let detail = json!({
                "name": name.as_str(), "before": before, "state": campaign.state.as_str(), "reason": why,
            });
            call.note(tx, action, "campaign", campaign.id.as_uuid(), detail).await?;
            let progress = tx.campaign_progress(campaign.id).await?;
            Ok(CampaignBody::from(tx.campaign_fetch(&name).await?).with(progress))
        })
        .await?;
    json(StatusCode::OK, &changed)
}

fn refused(campaign: &Campaign, what: &str) -> AppError {
    let detail = format!("the campaign is {}: {what}", campaign.state.as_str().replace('_', " "));
    AppError::Conflict { code: "campaign_state", detail }
}
