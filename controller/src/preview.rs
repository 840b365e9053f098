//! What a change of an entity, a CA server or a policy would do to the trustpoints that use it. Pure.

use jiff::Timestamp;
use trustfleet_model::{
    device::{Device, Duty},
    entity::EntitySpec,
    field::Violation,
    policy::PolicySpec,
    renewal::{Due, next_action},
    trustpoint::Trustpoint,
};

/// Most trustpoints of which a preview tells what would be wrong.
const TOLD_MAX: usize = 20;

/// What a change would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Trustpoints that use the object.
    pub trustpoints: u64,
    /// Of those, the ones that have something under way: it goes on as it was asked.
    pub under_way: u64,
    /// What becomes of renewals.
    pub renewals: Renewals,
    /// Trustpoints whose next request could not be made, of all.
    pub unready: u64,
    /// The first of them.
    pub unready_examples: Vec<Unready>,
}

/// What becomes of automatic renewals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewals {
    /// Planned now.
    pub before: u64,
    /// Planned then.
    pub after: u64,
    /// Planned before and after, and sooner then.
    pub sooner: u64,
    /// Planned before and after, and later then.
    pub later: u64,
    /// Due at the moment of the change that are not due now: what the CA would be asked for at once.
    pub due_at_once: u64,
}

/// A trustpoint whose next request could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Name of the device.
    pub device: String,
    /// Name of the trustpoint.
    pub trustpoint: String,
    /// What would be missing.
    pub missing: Vec<Violation>,
}

impl Preview {
    /// Counts a trustpoint that uses the object.
    pub fn count(&mut self, trustpoint: &Trustpoint) {
        self.trustpoints += 1;
        self.under_way += u64::from(trustpoint.request.job_id().is_some());
    }

    /// Counts what a change of its policy would do to a trustpoint's renewal.
    pub fn renewal(
        &mut self,
        trustpoint: &Trustpoint,
        duty: Duty,
        (before, after): (&PolicySpec, &PolicySpec),
        now: Timestamp,
    ) {
        let renewal = |policy: &PolicySpec| {
            next_action(trustpoint, policy, duty, None, now).and_then(|(at, due)| (due == Due::Renew).then_some(at))
        };
        let (before, after) = (renewal(before), renewal(after));
        let renewals = &mut self.renewals;
        renewals.before += u64::from(before.is_some());
        renewals.after += u64::from(after.is_some());
        if let (Some(before), Some(after)) = (before, after) {
            renewals.sooner += u64::from(after < before);
            renewals.later += u64::from(after > before);
        }
        let due = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
        renewals.due_at_once += u64::from(due(after) && !due(before));
    }

    /// Counts a trustpoint whose device has no value for a placeholder of the entity.
    pub fn names(&mut self, trustpoint: &Trustpoint, device: &Device, entity: &EntitySpec) {
        let Err(missing) = entity.resolve(device) else { return };
        self.unready += 1;
        if self.unready_examples.len() < TOLD_MAX {
            self.unready_examples.push(Unready {
                device: device.name.to_string(),
                trustpoint: trustpoint.name.to_string(),
                missing: missing.into_vec(),
            });
        }
    }
}
