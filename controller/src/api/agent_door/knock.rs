//! Who knocks at the agents' doors, and what a refusal leaves behind: a number, a line of the audit log, less patience.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use trustfleet_model::ids::TenantId;

use crate::api::problem::Problem;
use crate::api::requester::requester;
use crate::app::Services;
use crate::audit::{Attempt, Requester};
use crate::metrics::DoorRefusal;

/// An attempt that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why.
    pub(super) reason: DoorRefusal,
    /// The same more closely, for the audit log.
    pub(super) code: &'static str,
    /// Whose it was, where that is known: tenant, kind and id.
    pub(super) about: Option<(TenantId, &'static str, uuid::Uuid)>,
    /// The answer.
    pub(super) problem: Problem,
}

impl Refused {
    /// A refusal of nobody that is known.
    pub(super) const fn unknown(reason: DoorRefusal, problem: Problem) -> Self {
        Self { reason, code: reason.as_str(), about: None, problem }
    }
}

/// Somebody at a door.
pub(super) struct Knock<'a> {
    services: &'a Services,
    request: &'a HttpRequest,
    address: Option<IpAddr>,
    action: &'static str,
    /// When.
    pub(super) now: Timestamp,
}

impl<'a> Knock<'a> {
    /// Lets a request come to a door; `action` is what a refusal is called in the audit log.
    ///
    /// # Errors
    /// 429 for an address that was refused too often.
    pub(super) fn at(services: &'a Services, request: &'a HttpRequest, action: &'static str) -> Result<Self, Problem> {
        let (now, address) = (services.clock.now(), request.peer_addr().map(|peer| peer.ip()));
        if services.agent_bounds.may_knock(address, now) {
            return Ok(Self { services, request, address, action, now });
        }
        services.metrics.door_refused(DoorRefusal::TooMany);
        let detail = "too many attempts from this address were refused: repeat the request in a minute";
        Err(Problem::http(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail))
    }

    /// Who knocks, for the audit log.
    pub(super) fn requester(&self, actor: String) -> Requester {
        requester(actor, "agent", self.request, None)
    }

    /// The answer to an attempt that was refused.
    pub(super) fn refuse(&self, refused: Refused) -> Problem {
        let Refused { reason, code, about, problem } = refused;
        self.services.metrics.door_refused(reason);
        // Who is in quarantine has proven who it is, and knocks on; its neighbours must not suffer for it.
        if reason != DoorRefusal::Quarantined {
            self.services.agent_bounds.refused(self.address, self.now);
        }
        let address = self.address.map(|address| address.to_string());
        tracing::info!(action = self.action, reason = reason.as_str(), code, address, "an agent is not let in");
        if let Some((tenant, kind, id)) = about {
            self.services.refusals.note(Attempt {
                tenant,
                at: self.now,
                requester: self.requester(format!("{kind}:{id}")),
                action: self.action,
                object_kind: kind,
                object_id: id,
                detail: json!({ "code": code }),
            });
        }
        problem
    }
}
