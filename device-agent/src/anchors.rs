//! Other trust anchors for a trustpoint (S57): laid beside its certificate, given to its services, and told of as each service
//! that relies on them is seen to have loaded them. No CA is asked.
//!
//! Every step can be repeated: what is cut off goes on after the restart, and comes to the same end.

use std::sync::Arc;

use trustfleet_model::field::Violations;
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{Anchors, Blob, Event, InService, Job, Task};

use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::jobs::Entry;
use crate::order::Place;
use crate::outcome;
use crate::overlay::Overlay;
use crate::record::{Outcome, State};
use crate::services::{Given, Giving, Seen};
use crate::slots::Slot;
use crate::store::StoreError;
use crate::worker::fail;

/// Most certificates in one list of a job.
const LIST_MAX: usize = 64;

/// Anchors of a job, read.
#[derive(Clone, Debug)]
struct Wanted {
    trusted: Vec<Certificate>,
    retired: Vec<Certificate>,
}

/// Trusts the anchors of a job, and tells what became of the services.
///
/// # Errors
/// The agent stops, or the job has failed and nothing is changed.
pub async fn run(core: &Arc<Core>, entry: &Entry, job: &Job, place: &Place) -> Result<(), Halt> {
    let Task::Anchors(anchors) = &job.task else { return Ok(()) };
    let wanted = Wanted::of(anchors).map_err(|wrong| outcome::of_order(&wrong))?;
    core.accept.check_anchors(&wanted.trusted).map_err(|beyond| outcome::of_unaccepted(&beyond, false))?;
    let store_failed = |error: StoreError| outcome::of_store(&error, false);
    let slots = core.slots(place);
    let current = slots.certificate(Slot::Current).map_err(store_failed)?.map(|(certificate, _)| certificate);
    let serial = current.map(|certificate| certificate.serial_hex()).filter(|_| !job.services.is_empty());
    if let Some(serial) = &serial {
        // It has begun: what is cut off from here on must go on, whatever its permit says.
        let begun = State::Activation { serial: serial.clone() };
        core.commit(entry, begun, Vec::new()).await.map_err(store_failed)?;
    }
    let (id, anchors) = (job.job_id, anchors.clone());
    let laying = slots.clone();
    let overlay = blocking(move || {
        let former = Overlay::load(&laying)?;
        if let Some(begun) = former.as_ref().filter(|former| former.job_id == id) {
            return Ok(begun.clone()); // repeated after a restart: what was before it is in it
        }
        let overlay = Overlay::new(id, &anchors.trusted, &anchors.retired, former);
        overlay.save(&laying).map(|()| overlay)
    });
    let overlay = overlay.await?.map_err(store_failed)?;
    let Some(serial) = serial else {
        blocking(move || overlay.settle(&slots)).await?.map_err(store_failed)?;
        tracing::info!(job.id = %id, "trust anchors are on the device, no service has to load them");
        let event = Event::Anchors { in_service: Box::default() };
        core.settle(entry, State::Nothing { outcome: Outcome::Succeeded }, vec![event]).await;
        return Ok(());
    };
    let giving = Giving {
        core,
        job_id: id,
        place,
        serial,
        services: job.services.clone(),
        // Nothing is replaced but anchors: when a service does not take them everything goes back.
        replaced_is_revoked: false,
    };
    let given = match giving.give().await {
        // The services are unknown, or the disk: nothing was given.
        Err(Halt::Failed(failed)) => {
            withdraw(core, place, overlay).await?;
            return Err(Halt::Failed(failed));
        }
        other => other?,
    };
    match given {
        Given::Failed(failed) => {
            withdraw(core, place, overlay).await?;
            fail(core, entry, failed).await;
        }
        Given::InUse { in_service, .. } => {
            let Seen { services, steps } = giving.anchors_seen(&wanted.trusted, &wanted.retired).await?;
            blocking(move || overlay.settle(&slots)).await?.map_err(store_failed)?;
            let InService { steps: mut done, warnings, .. } = *in_service;
            done.extend(steps);
            tracing::info!(job.id = %id, services = services.len(), "services were given other trust anchors");
            let event = Event::Anchors { in_service: Box::new(InService { services, steps: done, warnings }) };
            core.settle(entry, State::Nothing { outcome: Outcome::Succeeded }, vec![event]).await;
        }
    }
    giving.told().await;
    Ok(())
}

async fn withdraw(core: &Arc<Core>, place: &Place, overlay: Overlay) -> Result<(), Halt> {
    let slots = core.slots(place);
    if let Err(error) = blocking(move || overlay.withdraw(&slots)).await? {
        tracing::error!(device = %place.device, trustpoint = %place.trustpoint, %error, "anchors that no service has taken are still noted; they go with the next order");
    }
    Ok(())
}

impl Wanted {
    fn of(anchors: &Anchors) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let trusted = read("trusted", &anchors.trusted, &mut violations);
        let retired = read("retired", &anchors.retired, &mut violations);
        if anchors.trusted.is_empty() {
            violations.add("trusted", "S10", "is empty: at least one anchor must stay trusted");
        }
        if trusted.iter().any(|anchor| retired.contains(anchor)) {
            violations.add("retired", "S57", "names an anchor that is to be trusted as well");
        }
        violations.into_result()?;
        Ok(Self { trusted, retired })
    }
}

fn read(field: &str, list: &[Blob], violations: &mut Violations) -> Vec<Certificate> {
    if list.len() > LIST_MAX {
        violations.add(field, "limit", format!("has {} entries; at most {LIST_MAX} are allowed", list.len()));
        return Vec::new();
    }
    let mut one =
        |(i, der): (usize, &Blob)| violations.check(&format!("{field}[{i}]"), "S10", Certificate::from_der(&der.0));
    list.iter().enumerate().filter_map(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s57_an_order_of_anchors_is_refused_with_everything_that_is_wrong_with_it() {
        let pem = include_str!("../tests/data/old-root.pem");
        let good = Blob(Certificate::from_pem(pem).unwrap().as_der().to_vec());
        let wrong = Wanted::of(&Anchors { trusted: Vec::new(), retired: vec![Blob(vec![1])] }).unwrap_err().to_string();
        assert!(wrong.contains("trusted: is empty") && wrong.contains("retired[0]"), "{wrong}");
        let both = Anchors { trusted: vec![good.clone()], retired: vec![good.clone()] };
        assert!(Wanted::of(&both).unwrap_err().to_string().contains("as well"));
        assert!(Wanted::of(&Anchors { trusted: vec![good.clone(); 65], retired: Vec::new() }).is_err());
        assert_eq!(Wanted::of(&Anchors { trusted: vec![good], retired: Vec::new() }).unwrap().trusted.len(), 1);
    }
}
