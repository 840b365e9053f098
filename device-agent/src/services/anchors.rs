//! Are trust anchors loaded by the services that rely on them (S57)? Asked after these have their copies and were reloaded.

use std::time::Instant;

use trustfleet_model::service::ServiceResult;
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{ServiceOutcome, ServiceStep};

use super::act::step;
use super::activate::Giving;
use super::config::{Content, Service, What};
use super::probe::Wanted;
use crate::exchange::Halt;

/// What was seen of services.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those that rely on the anchors, each with what was seen.
    pub services: Vec<ServiceOutcome>,
    /// How.
    pub steps: Vec<ServiceStep>,
}

impl Giving<'_> {
    /// Looks whether the services have loaded `trusted` and none of `retired`. One that gets no copies of CA certificates and
    /// has no probe for them does not rely on them, and is left out.
    ///
    /// # Errors
    /// The agent stops.
    pub async fn anchors_seen(&self, trusted: &[Certificate], retired: &[Certificate]) -> Result<Seen, Halt> {
        let held = self.held(&self.services).await?;
        let mut seen = Seen::default();
        for service in held.services.iter().filter(|service| relies(service)) {
            let begun = Instant::now();
            let (result, detail) = match &service.anchors_probe {
                None => (
                    ServiceResult::Unverifiable,
                    "it was reloaded with them, and has no anchors_probe that could tell more".to_owned(),
                ),
                Some(how) => {
                    let wanted = Wanted::Anchors { trusted: trusted.to_vec(), retired: retired.to_vec() };
                    match self.probe(service, how, &wanted).await? {
                        Ok(detail) => (ServiceResult::Verified, detail),
                        Err(detail) => (ServiceResult::Unverifiable, detail),
                    }
                }
            };
            let is_seen = result == ServiceResult::Verified;
            seen.steps.push(step(service, "anchors", is_seen, begun, detail));
            let service = service.name.to_string();
            seen.services.push(ServiceOutcome { service, result: result.as_str().to_owned() });
        }
        Ok(seen)
    }
}

/// Whether a service relies on trust anchors, as far as its configuration tells.
fn relies(service: &Service) -> bool {
    let has_cas = |what: &What| match what {
        What::Folder(_) => true,
        What::File { content, .. } => matches!(content, Content::Ca | Content::Pkcs12 { .. }),
    };
    service.anchors_probe.is_some() || service.exports.iter().any(|export| has_cas(&export.what))
}
