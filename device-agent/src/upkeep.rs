//! CA certificates and CRLs of trustpoints, kept fresh beside their certificates.
//!
//! The policy says what and how often; what is needed for it lies in a file for each trustpoint, as its last order or lease had
//! it. CA certificates are asked for by genm, CRLs by the distribution points of the certificate in use and by genm where
//! these give none. Nothing counts that does not lead to a configured anchor; what changed is written beside the slots, and
//! the trustpoint's services are given their copies anew. No anchor is ever added or replaced: a root that follows one is
//! told to the controller.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;
use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::{JobId, TrustpointId};
use trustfleet_pki::Certificate;

use self::asking::Asking;
pub use self::record::Upkeep;
use self::record::{Done, Record, VERSION, due_at, plus};
use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::order::Place;
use crate::services::{Given, Giving};
use crate::slots::{Slot, Slots};
use crate::store::{self, StoreError};

mod asking;
mod record;

/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks after all trustpoints until the agent stops, one after the other.
pub async fn keep(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = core.stopping() => return,
        }
        let now = core.identity.clock.now();
        let due: Vec<TrustpointId> =
            core.upkeep.due().iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            match look(&core, id).await {
                Ok(Some(next)) => {
                    core.upkeep.due().insert(id, next);
                }
                Ok(None) => {
                    core.upkeep.due().remove(&id);
                }
                Err(Halt::Stopping | Halt::Ordered) => return,
                Err(Halt::Failed(failed)) => {
                    tracing::warn!(trustpoint.id = %id, "not looked after: {}", failed.message)
                }
            }
        }
    }
}

/// Looks after one trustpoint, if that is due; says when to look again. None: there is nothing to look after any more.
async fn look(core: &Arc<Core>, id: TrustpointId) -> Result<Option<Timestamp>, Halt> {
    let path = core.upkeep.store.upkeep_file(id);
    let file = path.clone();
    let record = blocking(move || store::load_json::<Record>(&file)).await?;
    let mut record = match record {
        Ok(Some(record)) if record.version == VERSION => record,
        Ok(None) => {
            core.identity.roots.set(id, Vec::new());
            return Ok(None);
        }
        Ok(Some(_)) | Err(_) => {
            tracing::error!(trustpoint.id = %id, "what to look after cannot be read; it waits for the next order");
            return Ok(None);
        }
    };
    let Some(settings) = record.enroll.upkeep.clone() else { return Ok(None) };
    core.identity.roots.set(id, record.untrusted());
    let now = core.identity.clock.now();
    let due = due_at(&record.done, settings.every_s, id, now);
    if due > now && !record.to_give {
        return Ok(Some(due));
    }
    let outcome = if due > now { Ok(()) } else { refresh(core, id, &mut record, now).await? };
    match outcome {
        Ok(()) => {}
        Err(reason) => {
            record.done.failures = record.done.failures.saturating_add(1);
            record.done.failed_at = Some(now);
            tracing::warn!(device = %record.device, trustpoint = %record.trustpoint, reason, "CA certificates or CRLs are not fresh");
        }
    }
    core.identity.roots.set(id, record.untrusted());
    // Before the services: what is cut off from here on is given after the restart.
    save(&path, &record).await?;
    if record.to_give && give(core, &record).await? {
        record.to_give = false;
        save(&path, &record).await?;
    }
    let next = due_at(&record.done, settings.every_s, id, now);
    Ok(Some(next.max(plus(now, SignedDuration::from_secs(10)))))
}

async fn save(path: &std::path::Path, record: &Record) -> Result<(), Halt> {
    let (path, record) = (path.to_owned(), record.clone());
    if let Err(error) = blocking(move || store::save_json(&path, &record)).await? {
        tracing::warn!(%error, "what was looked after is not noted on the disk");
    }
    Ok(())
}

/// Asks for everything that the policy wants; what changed is on the disk then.
async fn refresh(
    core: &Arc<Core>,
    id: TrustpointId,
    record: &mut Record,
    now: Timestamp,
) -> Result<Result<(), String>, Halt> {
    let Some(settings) = record.enroll.upkeep.clone() else { return Ok(Ok(())) };
    let asking = match Asking::of(core, record) {
        Ok(Some(asking)) => asking,
        Ok(None) => return Ok(Err("there is no certificate in use to ask with".to_owned())),
        Err(reason) => return Ok(Err(reason)),
    };
    let Ok(place) = Place::named(&record.device, &record.trustpoint) else { return Ok(Ok(())) };
    let slots = core.slots(&place);
    let (mut troubles, mut changed) = (Vec::new(), false);
    if settings.ca_certs {
        match asking.ca_certificates(now).await? {
            Ok(found) => changed |= write(&slots, &slots.ca_file(), bundle(&found)).await?,
            Err(reason) => troubles.push(format!("CA certificates: {reason}")),
        }
    }
    if settings.crls {
        let held = record.done.crl.map(|(this_update, _)| this_update);
        match asking.crl(&slots, held, now).await? {
            Ok(Some((crl, dates))) => {
                record.done.crl = Some(dates);
                changed |= write(&slots, &slots.crl_file(), crl.as_der().to_vec()).await?;
            }
            // There is none that is newer.
            Ok(None) => {}
            Err(reason) => troubles.push(format!("CRL: {reason}")),
        }
    }
    if settings.roots {
        match asking.following(id).await? {
            Ok(found) => record.offered = found,
            Err(reason) => troubles.push(format!("roots: {reason}")),
        }
    }
    record.to_give |= changed && !record.services.is_empty();
    if changed {
        tracing::info!(device = %record.device, trustpoint = %record.trustpoint, "CA certificates or CRL renewed");
    }
    if troubles.is_empty() {
        record.done = Done { at: Some(now), failures: 0, failed_at: None, ..record.done };
        Ok(Ok(()))
    } else {
        Ok(Err(troubles.join("; ")))
    }
}

fn bundle(certificates: &[Certificate]) -> Vec<u8> {
    certificates.iter().map(Certificate::to_pem).collect::<String>().into_bytes()
}

/// Writes a file that differs; says whether it did.
async fn write(slots: &Slots, path: &std::path::Path, bytes: Vec<u8>) -> Result<bool, Halt> {
    let (slots, path) = (slots.clone(), path.to_owned());
    let written = blocking(move || {
        if store::load(&path)?.as_deref() == Some(bytes.as_slice()) {
            return Ok(false);
        }
        slots.make_root()?;
        store::save(&path, &bytes, 0o644).map(|()| true)
    });
    Ok(written.await?.unwrap_or_else(|error: StoreError| {
        tracing::warn!(%error, "what is fresh cannot be written");
        false
    }))
}

/// Gives the trustpoint's services their copies anew; whether that is done with, well or badly.
async fn give(core: &Arc<Core>, record: &Record) -> Result<bool, Halt> {
    let Ok(place) = Place::named(&record.device, &record.trustpoint) else { return Ok(true) };
    // A job of the trustpoint has the turn, and gives them what is fresh by itself.
    let Ok(_turn) = core.lock_of(&place).try_lock_owned() else { return Ok(false) };
    let slots = core.slots(&place);
    let Ok(Some((certificate, _))) = slots.certificate(Slot::Current) else { return Ok(true) };
    let giving = Giving {
        core,
        job_id: JobId::fresh(core.identity.clock.now(), core.identity.random_id()),
        place: &place,
        serial: certificate.serial_hex(),
        services: record.services.clone(),
        replaced_is_revoked: false,
    };
    let given = giving.give().await;
    giving.told().await;
    match given {
        Ok(Given::InUse { .. }) => {
            tracing::info!(device = %record.device, trustpoint = %record.trustpoint, "services have what is fresh");
            Ok(true)
        }
        Ok(Given::Failed(failed)) | Err(Halt::Failed(failed)) => {
            tracing::error!(device = %record.device, trustpoint = %record.trustpoint, "services did not take what is fresh: {}", failed.message);
            Ok(true)
        }
        Err(halt) => Err(halt),
    }
}
