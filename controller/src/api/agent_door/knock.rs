//! Who knocks at the agents' doors, and what a refusal leaves behind: a number and a line of the audit log.

use std::net::IpAddr;

use actix_web::HttpRequest;
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
    /// Somebody at a door; `action` is what a refusal is called in the audit log.
    pub(super) fn at(services: &'a Services, request: &'a HttpRequest, action: &'static str) -> Self {
        let address = request.peer_addr().map(|peer| peer.ip().to_canonical());
        Self { services, request, address, action, now: services.clock.now() }
    }

    /// Where the request came from.
    pub(super) fn address(&self) -> Option<String> {
        self.address.map(|address| address.to_string())
    }

    /// Who knocks, for the audit log.
    pub(super) fn requester(&self, actor: String) -> Requester {
        requester(actor, "agent", self.request, None)
    }

    /// The answer to an attempt that was refused.
    pub(super) fn refuse(&self, refused: Refused) -> Problem {
        let Refused { reason, code, about, problem } = refused;
        self.services.metrics.door_refused(reason);
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
