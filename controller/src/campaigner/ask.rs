//! What a campaign asks of one member, and what the answer makes of it.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{job::RequestKind, revocation::RevocationReason};

use super::{BUSY, Campaigner, LOOK_AGAIN, Moved, has_job, moves, requester};
use crate::{
    campaign::{Action, Before, MemberState},
    db::{Campaign, Member, Rollover, ToRevoke},
    device::{Activate, Command, Enroll, EnrollContext, PutBack, Reissue, Rejection, Reply, Revoke},
    entropy,
    error::AppError,
    roller,
    telemetry::chain,
};

/// Why a member was not asked for.
fn because(code: &str, reason: impl Into<String>) -> Option<(String, String)> {
    Some((code.to_owned(), reason.into()))
}

/// Whether a member has another certificate than when the campaign came to it, and not by the campaign's own job.
fn was_renewed(member: &Member) -> bool {
    let was = member.before.as_ref().and_then(|before| before.serial.as_ref());
    let is = member.trustpoint.as_ref().and_then(|trustpoint| trustpoint.active.as_ref()).map(|active| &active.serial);
    member.job.is_none() && was != is
}

impl Campaigner {
    /// Asks for what the campaign is about.
    pub(super) async fn ask(&self, campaign: &Campaign, member: &Member, now: Timestamp) -> Moved {
        let job_id = member.job_id;
        let ended = |state, reason| Moved { state, job_id, reason, claimed_until: None };
        if member.trustpoint.is_none() {
            return ended(MemberState::Skipped, because("trustpoint_removed", "the trustpoint was removed meanwhile"));
        }
        if matches!(campaign.spec.action, Action::Renew { .. }) && was_renewed(member) {
            let reason = "it was renewed by itself, or by hand, since the campaign came to it";
            return ended(MemberState::Skipped, because("renewed_meanwhile", reason));
        }
        let patience = SignedDuration::from_secs(campaign.spec.patience_s.into());
        match self.command(campaign, member, now).await {
            // One that was told before has a job of its own.
            Ok(Reply::Job { job_id }) => {
                Moved { state: MemberState::InFlight, job_id, reason: None, claimed_until: None }
            }
            Ok(_) => ended(MemberState::Verified, None),
            Err(AppError::Rejected(
                busy @ (Rejection::RequestUnderWay { .. } | Rejection::Outdated | Rejection::ReissueFloor(_)),
            )) => {
                let reason = because(busy.code(), format!("it is asked for later: {busy}"));
                if now.duration_since(member.asked_at) >= patience {
                    return ended(MemberState::Unreachable, reason);
                }
                Moved { state: MemberState::Pending, job_id, reason, claimed_until: now.checked_add(BUSY).ok() }
            }
            Err(AppError::Rejected(Rejection::AlreadyRevoked)) => {
                ended(MemberState::Skipped, because("already_revoked", "it is revoked already"))
            }
            Err(AppError::Rejected(Rejection::NothingStaged)) => {
                ended(MemberState::Skipped, because("nothing_staged", "nothing is staged any more"))
            }
            Err(AppError::Rejected(rejection)) => {
                ended(MemberState::Failed, because(rejection.code(), rejection.to_string()))
            }
            Err(AppError::NotFound { kind: "trustpoint" | "device" | "certificate" }) => {
                ended(MemberState::Skipped, because("trustpoint_removed", "the trustpoint was removed meanwhile"))
            }
            Err(AppError::NotFound { kind }) => {
                ended(MemberState::Failed, because("unknown_reference", format!("the {kind} of the campaign is gone")))
            }
            Err(error) => {
                tracing::warn!(trustpoint.id = %member.trustpoint_id, error = %chain(&error), "a member of a campaign is put off");
                Moved {
                    state: MemberState::Asking,
                    job_id,
                    reason: None,
                    claimed_until: now.checked_add(LOOK_AGAIN).ok(),
                }
            }
        }
    }

    async fn command(&self, campaign: &Campaign, member: &Member, now: Timestamp) -> Result<Reply, AppError> {
        match &campaign.spec.action {
            Action::Renew { .. } | Action::Rekey { .. } | Action::Change { .. } => self.reissue(campaign, member).await,
            Action::Activate => self.ask_to_activate(campaign, member).await,
            Action::Anchors => self.distribute(campaign, member).await,
            Action::Revoke { reason } => self.revoke(campaign, member, *reason, now).await,
        }
    }

    async fn reissue(&self, campaign: &Campaign, member: &Member) -> Result<Reply, AppError> {
        let (Some(before), Some(name)) = (&member.before, member.name()) else {
            return Err(AppError::NotFound { kind: "trustpoint" });
        };
        let (ca_server_id, policy_id, request) = match &campaign.spec.action {
            Action::Change { policy, ca_server, request, .. } => (
                ca_server.as_ref().map_or(before.ca_server_id, |named| named.id),
                policy.as_ref().map_or(before.policy_id, |named| named.id),
                *request,
            ),
            _ => (before.ca_server_id, before.policy_id, RequestKind::Kur),
        };
        let (device, asked) = (member.device_id, name.clone());
        let context: EnrollContext = self
            .store
            .tenant_tx(member.tenant_id, "reissue_context", async move |tx| -> Result<_, AppError> {
                Ok(tx.reissue_context(device, &asked, ca_server_id, policy_id).await?)
            })
            .await?;
        let enroll = Enroll {
            trustpoint: name.clone(),
            request,
            job_id: member.job_id,
            request_key: None,
            requested_by: requester(campaign),
            past_floor: false,
            traceparent: None,
            context,
        };
        let command = Reissue {
            ca_server_id,
            policy_id,
            new_key: matches!(campaign.spec.action, Action::Rekey { .. }),
            activates: !campaign.spec.action.stages_only(),
            urgent: campaign.spec.urgent,
            enroll,
        };
        self.registry.ask(member.tenant_id, member.device_id, Command::Reissue(Box::new(command))).await
    }

    async fn ask_to_activate(&self, campaign: &Campaign, member: &Member) -> Result<Reply, AppError> {
        let Some(trustpoint) = &member.trustpoint else { return Err(AppError::NotFound { kind: "trustpoint" }) };
        if trustpoint.staged.is_none() && trustpoint.request.job_id() != Some(member.job_id) {
            return Err(AppError::Rejected(Rejection::NothingStaged));
        }
        let command = Activate {
            trustpoint: trustpoint.name.clone(),
            replaced_is_revoked: self.revokes_on_issue(member).await?,
            job_id: member.job_id,
            requested_by: requester(campaign),
            traceparent: None,
        };
        self.registry.ask(member.tenant_id, member.device_id, Command::Activate(command)).await
    }

    /// Tells a member of the next anchors of its CA server's roll-over.
    async fn distribute(&self, campaign: &Campaign, member: &Member) -> Result<Reply, AppError> {
        let Some(before) = &member.before else { return Err(AppError::NotFound { kind: "trustpoint" }) };
        let ca_server = before.ca_server_id;
        let rollover: Option<Rollover> = self
            .store
            .tenant_tx(member.tenant_id, "rollover_last", async move |tx| -> Result<_, AppError> {
                Ok(tx.rollover_last(ca_server).await?)
            })
            .await?;
        let open = rollover.filter(|rollover| rollover.phase.is_open());
        let open = open.ok_or(AppError::NotFound { kind: "roll-over" })?;
        let mut command = roller::distribute(&open, member.trustpoint_id, self.clock.now(), entropy::random())?;
        if let Command::DistributeAnchors(order) = &mut command {
            order.job_id = member.job_id;
            order.requested_by = requester(campaign);
        }
        self.registry.ask(member.tenant_id, member.device_id, command).await
    }

    /// Whether the member's CA revokes what it replaces.
    async fn revokes_on_issue(&self, member: &Member) -> Result<bool, AppError> {
        let Some(name) = member.name().cloned() else { return Ok(false) };
        let device = member.device_id;
        self.store
            .tenant_tx(member.tenant_id, "enrollment_context", async move |tx| -> Result<_, AppError> {
                Ok(tx.enrollment_context(device, &name, None).await?.ca_server.quirks.revokes_on_issue)
            })
            .await
    }

    async fn revoke(
        &self,
        campaign: &Campaign,
        member: &Member,
        reason: RevocationReason,
        now: Timestamp,
    ) -> Result<Reply, AppError> {
        let Some(id) = member.certificate() else { return Err(AppError::NotFound { kind: "certificate" }) };
        let found: Option<ToRevoke> = self
            .store
            .tenant_tx(member.tenant_id, "revocation_context", async move |tx| -> Result<_, AppError> {
                Ok(tx.revocation_context(id, now).await?)
            })
            .await?;
        let found = found.ok_or(AppError::NotFound { kind: "trustpoint" })?;
        let command = Command::Revoke(Box::new(Revoke {
            trustpoint_id: found.trustpoint_id,
            certificate: found.facts,
            reason,
            by_hand: false,
            unattended: false,
            job_id: member.job_id,
            requested_by: requester(campaign),
            traceparent: None,
            context: found.context,
        }));
        self.registry.ask(member.tenant_id, member.device_id, command).await
    }

    /// Puts what is staged into use.
    pub(super) async fn activate(&self, campaign: &Campaign, member: &Member) -> Moved {
        let now = self.clock.now();
        let job_id = member.job_id;
        let later = |wait: SignedDuration| Moved {
            state: MemberState::Activating,
            job_id,
            reason: None,
            claimed_until: now.checked_add(wait).ok(),
        };
        match self.ask_to_activate(campaign, member).await {
            Ok(_) => later(SignedDuration::ZERO),
            Err(AppError::Rejected(Rejection::RequestUnderWay { .. })) => later(BUSY),
            Err(AppError::Rejected(rejection)) => {
                let reason = because(rejection.code(), rejection.to_string());
                Moved { state: MemberState::Failed, job_id, reason, claimed_until: None }
            }
            Err(error) => {
                tracing::warn!(trustpoint.id = %member.trustpoint_id, error = %chain(&error), "an activation is put off");
                later(LOOK_AGAIN)
            }
        }
    }

    /// Takes back what was done to a member.
    pub(super) async fn undo(&self, campaign: &Campaign, member: &Member) -> Moved {
        let now = self.clock.now();
        let job_id = member.job_id;
        let ended = |state, reason| Moved { state, job_id, reason, claimed_until: None };
        let (Some(before), true) = (&member.before, member.trustpoint.is_some()) else {
            return ended(MemberState::Skipped, because("trustpoint_removed", "the trustpoint was removed meanwhile"));
        };
        let undone = async {
            let replaced_is_revoked = self.revokes_on_issue(member).await?;
            self.put_back(campaign, member, before, before.serial.clone(), replaced_is_revoked).await
        };
        match undone.await {
            Ok(Some(reply)) if has_job(&reply) => Moved {
                state: MemberState::Undoing,
                job_id,
                reason: None,
                claimed_until: now.checked_add(LOOK_AGAIN).ok(),
            },
            Ok(_) => ended(MemberState::Undone, None),
            Err(AppError::Rejected(Rejection::RequestUnderWay { .. })) => {
                Moved { state: MemberState::ToUndo, job_id, reason: None, claimed_until: now.checked_add(BUSY).ok() }
            }
            Err(AppError::Rejected(rejection)) => {
                ended(MemberState::UndoFailed, because(rejection.code(), rejection.to_string()))
            }
            Err(AppError::NotFound { .. }) => {
                ended(MemberState::Skipped, because("trustpoint_removed", "the trustpoint was removed meanwhile"))
            }
            Err(error) => {
                tracing::warn!(trustpoint.id = %member.trustpoint_id, error = %chain(&error), "a roll-back is put off");
                Moved {
                    state: MemberState::Undoing,
                    job_id,
                    reason: None,
                    claimed_until: now.checked_add(LOOK_AGAIN).ok(),
                }
            }
        }
    }

    async fn put_back(
        &self,
        campaign: &Campaign,
        member: &Member,
        before: &Before,
        serial: Option<String>,
        replaced_is_revoked: bool,
    ) -> Result<Option<Reply>, AppError> {
        let Some(name) = member.name() else { return Ok(None) };
        let command = PutBack {
            trustpoint: name.clone(),
            ca_server_id: before.ca_server_id,
            policy_id: before.policy_id,
            serial,
            replaced_is_revoked,
            job_id: member.job_id,
            requested_by: requester(campaign),
        };
        self.registry.ask(member.tenant_id, member.device_id, Command::PutBack(Box::new(command))).await.map(Some)
    }

    /// A trustpoint that got nothing by its new settings goes on with the former ones: its certificate is of these.
    pub(super) async fn put_settings_back(&self, campaign: &Campaign, member: &Member) {
        let (Some(before), Some(trustpoint)) = (&member.before, &member.trustpoint) else { return };
        let in_use = trustpoint.active.as_ref().map(|active| &active.serial);
        if !moves(&campaign.spec.action) || in_use != before.serial.as_ref() || trustpoint.staged.is_some() {
            return;
        }
        if let Err(error) = self.put_back(campaign, member, before, None, false).await {
            tracing::warn!(trustpoint.id = %member.trustpoint_id, error = %chain(&error),
                "settings of a campaign stay at a trustpoint that got nothing by them");
        }
    }
}
