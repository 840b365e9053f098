//! Whether an agent may renew a trustpoint by itself: who gets a lease, until when, and when it ends.
//!
//! Pure. A lease is wanted for what would be renewed by itself and takes effect by itself; anything that ends the one ends
//! the other.

use jiff::{SignedDuration, Timestamp};
use trustfleet_model::{
    autonomy::{Held, emergency_moment},
    ids::{AgentId, LeaseId},
    job::{EnrollmentOrder, RequestKind},
    trustpoint::Trustpoint,
};

use super::{DeviceState, order::enrollment};
use crate::device::EnrollContext;

/// What is known of a trustpoint's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The lease.
    pub lease_id: LeaseId,
    /// Who has it.
    pub agent_id: AgentId,
    /// What was given.
    pub content: String,
    /// When.
    pub given_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// It was ended before that.
    pub ended: bool,
    /// The last message about it may be lost.
    pub offer_again: bool,
}

/// The agent in front of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The agent.
    pub agent_id: AgentId,
    /// It takes leases.
    pub takes_leases: bool,
    /// It is in quarantine.
    pub quarantined: bool,
}

/// A trustpoint with all that a lease of it depends on.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its tenant is neither suspended nor deleted.
    pub tenant_active: bool,
    /// Its device, with the trustpoint among its others or alone.
    pub device: &'a DeviceState,
    /// The trustpoint.
    pub trustpoint: &'a Trustpoint,
    /// Its configuration.
    pub context: &'a EnrollContext,
    /// The agent in front of the device.
    pub keeper: Option<Keeper>,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLease {
    /// The trustpoint is gone.
    TrustpointRemoved,
    /// The tenant is suspended or deleted.
    TenantSuspended,
    /// It is not renewed by itself.
    AutoUpdateOff,
    /// The policy gives none.
    PolicyGivesNone,
    /// What is renewed by itself waits for a command: nobody could give that.
    ActivationByHand,
    /// There is no valid certificate in use.
    NoCertificate,
    /// A condition of an update is missing; the node of a pair that stands by is one (S47).
    NotReady,
    /// The device has no agent.
    NoAgent,
    /// The device has another agent by now.
    OtherAgent,
    /// The agent takes none: it is older, or configured so.
    AgentTakesNone,
    /// The agent is in quarantine.
    Quarantine,
}

impl NoLease {
    /// The word in SQL, on the wire and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrustpointRemoved => "trustpoint_removed",
            Self::TenantSuspended => "tenant_suspended",
            Self::AutoUpdateOff => "auto_update_off",
            Self::PolicyGivesNone => "policy_gives_none",
            Self::ActivationByHand => "activation_by_hand",
            Self::NoCertificate => "no_certificate",
            Self::NotReady => "not_ready",
            Self::NoAgent => "no_agent",
            Self::OtherAgent => "other_agent",
            Self::AgentTakesNone => "agent_takes_none",
            Self::Quarantine => "quarantine",
        }
    }
}

/// What is to be done about a trustpoint's lease.
#[derive(Clone, Debug)]
pub enum LeaseStep {
    /// Nothing; look again then, if nothing changes before.
    Nothing {
        /// When.
        look_at: Option<Timestamp>,
    },
    /// Give it, anew or for longer.
    Give(Box<Give>),
    /// End it, and tell the agent that has it.
    End {
        /// Why.
        why: NoLease,
        /// Look again at once: another agent is to get it.
        again: bool,
    },
    /// It has ended; the agent learns of it where it is let in no more.
    Close {
        /// Why.
        why: NoLease,
    },
}

/// A lease to be given.
#[derive(Clone, Debug)]
pub struct Give {
    /// To whom.
    pub agent_id: AgentId,
    /// The lease that it has, to be continued; none: a new one.
    pub lease_id: Option<LeaseId>,
    /// The update.
    pub order: EnrollmentOrder,
    /// Emergency mark, percent elapsed.
    pub emergency_percent: u8,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// When it is to be given for longer.
    pub look_at: Timestamp,
}

/// A lease's content, to be told from another: the same text for the same content.
pub type Digest = fn(&EnrollmentOrder, u8, u32, &DeviceState, &Trustpoint) -> String;

/// Decides on a trustpoint's lease; `subject`: none, the trustpoint is gone. A lease is given for longer when a third of its
/// life has passed, so that an agent that is heard of at all holds two thirds of it.
pub fn lease_step(subject: Option<&Subject<'_>>, given: Option<&Given>, digest: Digest, now: Timestamp) -> LeaseStep {
    let open = given.filter(|given| !given.ended && given.expires_at > now);
    let wanted = subject.ok_or(NoLease::TrustpointRemoved).and_then(|subject| wanted(subject, now));
    let (agent_id, order) = match wanted {
        Ok(wanted) => wanted,
        Err(why) => {
            let told_already = given.is_some_and(|given| given.ended && given.offer_again);
            return match open {
                Some(_) if why == NoLease::Quarantine => LeaseStep::Close { why },
                Some(_) => LeaseStep::End { why, again: false },
                None if told_already => LeaseStep::End { why, again: false },
                None => LeaseStep::Nothing { look_at: None },
            };
        }
    };
    if open.is_some_and(|open| open.agent_id != agent_id) {
        return LeaseStep::End { why: NoLease::OtherAgent, again: true };
    }
    let Some(subject) = subject else { return LeaseStep::Nothing { look_at: None } };
    let auto_update = &subject.context.policy.auto_update;
    let (emergency_percent, lease_s) = (auto_update.emergency(), auto_update.lease_s);
    let life = SignedDuration::from_secs(lease_s.into());
    let content = digest(&order, emergency_percent, lease_s, subject.device, subject.trustpoint);
    if let Some(open) = open.filter(|open| open.content == content && !open.offer_again) {
        let refresh_at = plus(open.given_at, life / 3);
        if refresh_at > now {
            return LeaseStep::Nothing { look_at: Some(refresh_at) };
        }
    }
    LeaseStep::Give(Box::new(Give {
        agent_id,
        lease_id: given.filter(|given| given.agent_id == agent_id).map(|given| given.lease_id),
        order,
        emergency_percent,
        expires_at: plus(now, life),
        look_at: plus(now, life / 3),
    }))
}

fn wanted(subject: &Subject<'_>, now: Timestamp) -> Result<(AgentId, EnrollmentOrder), NoLease> {
    let Subject { tenant_active, device, trustpoint, context, keeper } = subject;
    if !tenant_active {
        return Err(NoLease::TenantSuspended);
    }
    let policy = &context.policy;
    if !trustpoint.auto_update.unwrap_or(policy.auto_update.enabled) {
        return Err(NoLease::AutoUpdateOff);
    }
    if policy.auto_update.lease_s == 0 {
        return Err(NoLease::PolicyGivesNone);
    }
    if !policy.activates(RequestKind::Kur, true) {
        return Err(NoLease::ActivationByHand);
    }
    let keeper = keeper.ok_or(NoLease::NoAgent)?;
    if keeper.quarantined {
        return Err(NoLease::Quarantine);
    }
    if !keeper.takes_leases {
        return Err(NoLease::AgentTakesNone);
    }
    if trustpoint.active.as_ref().is_none_or(|active| active.not_after <= now) {
        return Err(NoLease::NoCertificate);
    }
    let (agent_id, mut order) =
        enrollment(device, trustpoint, RequestKind::Kur, context, now).map_err(|_| NoLease::NotReady)?;
    order.automatic = true;
    Ok((agent_id, order))
}

/// When an agent that is cut off renews a trustpoint's certificate in use by itself, if it has a lease by then.
pub fn emergency_at(trustpoint: &Trustpoint, emergency_percent: u8) -> Option<Timestamp> {
    let active = trustpoint.active.as_ref()?;
    let held = Held { not_before: active.not_before, not_after: active.not_after, sha256: &active.sha256 };
    Some(emergency_moment(emergency_percent, trustpoint.id, held))
}

fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
    moment.checked_add(more).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, id, in_use, mgmt, now};
    use super::*;

    const ON: &str = r#"{"key":{"algorithm":"rsa-2048"},"auto_update":{"enabled":true}}"#;

    fn digest(order: &EnrollmentOrder, percent: u8, lease_s: u32, _: &DeviceState, _: &Trustpoint) -> String {
        format!("{} {percent} {lease_s} {}", order.policy_revision, order.ca_server.primary_url)
    }

    fn with(policy: &str) -> EnrollContext {
        EnrollContext { policy: serde_json::from_str(policy).unwrap(), ..context() }
    }

    fn step(state: &DeviceState, context: &EnrollContext, keeper: Keeper, given: Option<&Given>) -> LeaseStep {
        let subject =
            Subject { tenant_active: true, device: state, trustpoint: mgmt(state), context, keeper: Some(keeper) };
        lease_step(Some(&subject), given, digest, now())
    }

    fn keeper(state: &DeviceState) -> Keeper {
        Keeper { agent_id: state.device.agent_id.unwrap(), takes_leases: true, quarantined: false }
    }

    fn given(give: &Give, lease_id: LeaseId, policy: &str) -> Given {
        let auto = &with(policy).policy.auto_update;
        Given {
            lease_id,
            agent_id: give.agent_id,
            content: digest(&give.order, auto.emergency(), auto.lease_s, &in_use(), mgmt(&in_use())),
            given_at: now(),
            expires_at: give.expires_at,
            ended: false,
            offer_again: false,
        }
    }

    fn give(step: LeaseStep) -> Box<Give> {
        match step {
            LeaseStep::Give(give) => give,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_is_given_for_thirty_days_and_again_when_a_third_of_them_has_passed_or_its_content_changes() {
        let (state, on) = (in_use(), with(ON));
        let keeper = keeper(&state);
        let first = give(step(&state, &on, keeper, None));
        assert_eq!(first.expires_at, now() + SignedDuration::from_hours(30 * 24));
        assert!(first.order.mac.is_none() && first.order.automatic && first.order.kind == RequestKind::Kur);
        let held = given(&first, id(80), ON);
        assert!(
            matches!(step(&state, &on, keeper, Some(&held)), LeaseStep::Nothing { look_at } if look_at == Some(first.look_at))
        );

        let older = Given { given_at: now() - SignedDuration::from_hours(10 * 24), ..held.clone() };
        assert_eq!(give(step(&state, &on, keeper, Some(&older))).lease_id, Some(id(80)), "the same lease, for longer");
        let lost = Given { offer_again: true, ..held.clone() };
        assert!(matches!(step(&state, &on, keeper, Some(&lost)), LeaseStep::Give(_)));
        let mut moved = on.clone();
        moved.ca_server.primary_url = "http://other.example/pkix/".to_owned();
        assert!(matches!(step(&state, &moved, keeper, Some(&held)), LeaseStep::Give(_)));
    }

    #[test]
    fn whatever_ends_automatic_renewal_ends_the_lease_and_the_agent_is_told() {
        let state = in_use();
        let on = with(ON);
        let keeper = keeper(&state);
        let held = given(&give(step(&state, &on, keeper, None)), id(80), ON);
        let why = |step: LeaseStep| match step {
            LeaseStep::End { why, again } => (why.as_str(), again),
            other => panic!("{other:?}"),
        };
        for (policy, reason) in [
            (r#"{"key":{"algorithm":"rsa-2048"}}"#, "auto_update_off"),
            (r#"{"key":{"algorithm":"rsa-2048"},"auto_update":{"enabled":true,"lease_s":0}}"#, "policy_gives_none"),
            (
                r#"{"key":{"algorithm":"rsa-2048"},"activation":"manual","auto_update":{"enabled":true}}"#,
                "activation_by_hand",
            ),
        ] {
            assert_eq!(why(step(&state, &with(policy), keeper, Some(&held))), (reason, false));
        }
        let mut standby = state.clone();
        (standby.device.pair, standby.device.standby) = ("fw".to_owned().try_into().ok(), true);
        assert_eq!(why(step(&standby, &on, keeper, Some(&held))), ("not_ready", false), "S47");
        let elsewhere = Given { agent_id: id(99), ..held.clone() };
        assert_eq!(why(step(&state, &on, keeper, Some(&elsewhere))), ("other_agent", true));
        let older = Keeper { takes_leases: false, ..keeper };
        assert_eq!(why(step(&state, &on, older, Some(&held))), ("agent_takes_none", false));
        assert_eq!(why(lease_step(None, Some(&held), digest, now())), ("trustpoint_removed", false));

        let suspended = Subject {
            tenant_active: false,
            device: &state,
            trustpoint: mgmt(&state),
            context: &on,
            keeper: Some(keeper),
        };
        assert_eq!(why(lease_step(Some(&suspended), Some(&held), digest, now())), ("tenant_suspended", false));
        let out = Keeper { quarantined: true, ..keeper };
        assert!(matches!(step(&state, &on, out, Some(&held)), LeaseStep::Close { why: NoLease::Quarantine }));
    }

    #[test]
    fn what_has_ended_is_told_of_again_only_where_the_message_may_be_lost_and_can_be_given_anew() {
        let (state, on) = (in_use(), with(ON));
        let keeper = keeper(&state);
        let held = given(&give(step(&state, &on, keeper, None)), id(80), ON);
        let ended = Given { ended: true, ..held };
        let off = with(r#"{"key":{"algorithm":"rsa-2048"}}"#);
        assert!(matches!(step(&state, &off, keeper, Some(&ended)), LeaseStep::Nothing { look_at: None }));
        let lost = Given { offer_again: true, ..ended.clone() };
        assert!(matches!(step(&state, &off, keeper, Some(&lost)), LeaseStep::End { .. }));
        assert!(matches!(step(&state, &on, keeper, Some(&ended)), LeaseStep::Give(_)));
    }
}
