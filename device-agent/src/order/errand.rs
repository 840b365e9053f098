//! What a job has the agent say to a CA.

use std::sync::Arc;

use trustfleet_cmp::request::RequestKind;
use trustfleet_model::field::Violations;
use trustfleet_wire::v1::{Job, Task};

use super::{Order, RevocationOrder, Talk};

/// What a job has the agent say to a CA.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Get a certificate.
    Enroll(Arc<Order>),
    /// Have one revoked.
    Revoke(Arc<RevocationOrder>),
}

impl Errand {
    /// The errand of a job; `None` for tasks that say nothing to a CA.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of(job: &Job) -> Result<Option<Self>, Violations> {
        match &job.task {
            Task::Enroll(enroll) => Order::of(enroll).map(|order| Some(Self::Enroll(Arc::new(order)))),
            Task::Revoke(revoke) => RevocationOrder::of(revoke).map(|order| Some(Self::Revoke(Arc::new(order)))),
            Task::Activate { .. } | Task::DryRun(_) | Task::Anchors(_) => Ok(None),
        }
    }

    /// Whom to talk to.
    pub fn talk(&self) -> &Talk {
        match self {
            Self::Enroll(order) => &order.talk,
            Self::Revoke(order) => &order.talk,
        }
    }

    /// The kind of the request.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::Enroll(order) => order.kind,
            Self::Revoke(_) => RequestKind::Rr,
        }
    }

    /// Whether a MAC protects it.
    pub fn is_by_mac(&self) -> bool {
        match self {
            Self::Enroll(order) => order.mac.is_some() && order.kind != RequestKind::Kur,
            Self::Revoke(_) => false,
        }
    }
}
