//! From configuration to an order for the agent, with every condition checked first (S32).

use jiff::Timestamp;
use trustfleet_model::{
    certificate::CertificateFacts,
    device::Duty,
    entity::{ResolvedEntity, fill},
    field::Violations,
    ids::AgentId,
    job::{EnrollmentOrder, RequestKind},
    policy::OriginAuthentication,
    trustpoint::Trustpoint,
};
use trustfleet_pki::{name::Name, san::San};

use super::{DeviceState, Rejection, mac_credentials};
use crate::device::EnrollContext;

/// The agent and the order, or everything that is missing.
pub(super) fn enrollment(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    request: RequestKind,
    context: &EnrollContext,
    now: Timestamp,
) -> Result<(AgentId, EnrollmentOrder), Violations> {
    let mut violations = Violations::new();
    if state.device.agent_id.is_none() {
        no_agent(state, &mut violations);
    }
    if state.device.duty() == Duty::Standby {
        let message =
            "is set: the standby of a pair never applies for a certificate; switch over first, or ask its peer";
        violations.add("device.standby", "S47", message);
    }
    let entity = match context.entity.resolve(&state.device) {
        Ok(entity) => {
            check_names(&entity, &mut violations);
            Some(entity)
        }
        Err(found) => {
            for violation in found.into_vec() {
                violations.add(violation.field, violation.rule, violation.message);
            }
            None
        }
    };
    violations.check("ca_server.ca_name", "S5", Name::parse(&context.ca_server.ca_name));
    if context.ca_server.trust_anchors.is_empty() {
        violations.add("ca_server.trust_anchors", "S10", "is empty: give the CA server at least one trust anchor");
    }
    let mac = match request {
        RequestKind::Ir | RequestKind::Cr => match context.policy.origin_authentication {
            OriginAuthentication::MessageAuthenticationCode => {
                let mac = mac_credentials(trustpoint);
                // RFC 9483 section 4.1.2: a certificate in use may sign the request for another one. The secret that was good
                // for the first one alone is gone by then.
                let may_sign = request == RequestKind::Cr && can_sign(trustpoint, now);
                if mac.is_none() && !may_sign {
                    let message = "is missing: the policy proves the request's origin by MAC, so give the trustpoint \
                                   a reference and a secret";
                    violations.add("trustpoint.mac", "S12", message);
                }
                mac
            }
            // Whether the device has the identity, it says itself.
            OriginAuthentication::Signature => None,
        },
        RequestKind::Kur => {
            match &trustpoint.active {
                None => {
                    let message =
                        "is missing: an update is signed with the certificate in use, so enroll with ir first";
                    violations.add("trustpoint.active", "S30", message);
                }
                Some(active) if active.is_given_up() => {
                    let message = "is revoked, or about to be: it cannot sign an update; enroll with ir";
                    violations.add("trustpoint.active", "S30", message);
                }
                Some(active) if active.not_after <= now => {
                    let message =
                        format!("ended at {}: an expired certificate cannot sign an update", active.not_after);
                    violations.add("trustpoint.active", "S30", message);
                }
                Some(_) if update_is_held_back(trustpoint, context) => {
                    let message = "may be unfinished at the CA, which takes one update of a certificate at a time \
                                   (quirk one_update_at_a_time): ask by cr or ir, or have it ended at the CA and take the quirk away \
                                   until the certificate is replaced";
                    violations.add("trustpoint.unfinished_update", "one_update_at_a_time", message);
                }
                Some(active) if entity.as_ref().is_some_and(|entity| is_anothers(active, entity)) => {
                    let message = format!(
                        "is another one than the certificate in use has, {}: no update changes a subject; ask by cr or ir",
                        active.subject
                    );
                    violations.add("entity.subject", "S30", message);
                }
                Some(_) => {}
            }
            None
        }
    };
    let mut name = |field, rule, text: &Option<String>| {
        let filled = violations.check(field, "placeholder", fill(text.as_ref()?, &state.device))?;
        violations.check(field, rule, Name::parse(&filled)).map(|_| filled)
    };
    let sender = name("policy.sender", "S19", &context.policy.sender);
    let recipient = name("policy.recipient", "S20", &context.policy.recipient);
    violations.into_result()?;
    match (state.device.agent_id, entity) {
        (Some(agent_id), Some(entity)) => Ok((
            agent_id,
            EnrollmentOrder {
                kind: request,
                entity,
                ca_server: context.ca_server.clone(),
                policy: context.policy.clone(),
                policy_revision: context.policy_revision,
                mac,
                signed_by_current: false,
                sender,
                recipient,
                services: trustpoint.services.clone(),
                automatic: false,
                replaces: None,
                agent_key_sha256: None,
            },
        )),
        // Both were noted above, so this is never reached with an empty list.
        _ => Err(Violations::new()),
    }
}

/// Whether an earlier update of the certificate in use stands in the way of another one, at a CA that takes one at a time.
fn update_is_held_back(trustpoint: &Trustpoint, context: &EnrollContext) -> bool {
    let of = trustpoint.unfinished_update.as_deref();
    let active = trustpoint.active.as_ref().map(|active| active.serial.as_str());
    context.ca_server.quirks.one_update_at_a_time && of.is_some() && of == active
}

/// Whether the certificate has another subject than the entity gives by now; the same rule as the agent's own. A CA that
/// grants another subject than it was asked for has the same effect.
fn is_anothers(active: &CertificateFacts, entity: &ResolvedEntity) -> bool {
    let (Ok(wanted), held) = (Name::parse(&entity.subject), Name::parse(&active.subject)) else { return false };
    let is_same = wanted.to_string() == active.subject || held.is_ok_and(|held| held.says_the_same_as(&wanted));
    !wanted.is_null() && !is_same
}

/// Whether the certificate in use can sign anything.
fn can_sign(trustpoint: &Trustpoint, now: Timestamp) -> bool {
    trustpoint.active.as_ref().is_some_and(|active| !active.is_given_up() && active.not_after > now)
}

/// The order by which a certificate in use is renewed: a key update; or a certification request where an update cannot be,
/// because an earlier one stands in the way or the subject is another one by now (S30).
pub(super) fn renewal(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    context: &EnrollContext,
    now: Timestamp,
) -> Result<(AgentId, EnrollmentOrder), Violations> {
    let entity = context.entity.resolve(&state.device).ok();
    let other_subject =
        trustpoint.active.as_ref().zip(entity.as_ref()).is_some_and(|(active, to)| is_anothers(active, to));
    let cannot_be = other_subject || update_is_held_back(trustpoint, context);
    if cannot_be && can_sign(trustpoint, now) {
        signed_cr(state, trustpoint, context, now)
    } else {
        enrollment(state, trustpoint, RequestKind::Kur, context, now)
    }
}

/// The order of a certification request that the certificate in use signs, as it would an update: a secret for the first
/// request may be used up, and an identity from elsewhere be gone. Where it can sign nothing, the policy says how.
pub(super) fn signed_cr(
    state: &DeviceState,
    trustpoint: &Trustpoint,
    context: &EnrollContext,
    now: Timestamp,
) -> Result<(AgentId, EnrollmentOrder), Violations> {
    let (agent_id, mut order) = enrollment(state, trustpoint, RequestKind::Cr, context, now)?;
    if can_sign(trustpoint, now) {
        (order.mac, order.signed_by_current) = (None, true);
    }
    Ok((agent_id, order))
}

/// The refusal of what needs nothing but an agent.
pub(super) fn agent_missing(state: &DeviceState) -> Rejection {
    let mut violations = Violations::new();
    no_agent(state, &mut violations);
    Rejection::NotReady(violations)
}

pub(super) fn no_agent(state: &DeviceState, violations: &mut Violations) {
    let message = format!("is missing: tell which agent is in front of device {}", state.device.name);
    violations.add("device.agent", "agent", message);
}

fn check_names(entity: &ResolvedEntity, violations: &mut Violations) {
    violations.check("entity.subject", "S18", Name::parse(&entity.subject));
    for (i, san) in entity.sans.iter().enumerate() {
        violations.check(&format!("entity.sans[{i}].value"), "S22", San::parse(san.kind.as_str(), &san.value));
    }
}
