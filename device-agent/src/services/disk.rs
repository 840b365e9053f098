//! What an activation does on the disk: each function is one step that can be repeated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trustfleet_model::ids::JobId;

use super::claim;
use super::config::Service;
use super::export::{self, Written};
use super::journal::Journal;
use super::material::Material;
use crate::activation::ActivationError;
use crate::order::Place;
use crate::slots::{Slot, Slots};
use crate::store::{self, Store, StoreError};

/// The version with this certificate: the staged one, or the one in use.
pub(super) fn wanted(slots: &Slots, serial: &str) -> Result<JobId, ActivationError> {
    let staged = slots.certificate(Slot::Staged)?.map(|(certificate, _)| certificate.serial_hex());
    let current = slots.certificate(Slot::Current)?.map(|(certificate, _)| certificate.serial_hex());
    let slot = match (&staged, &current) {
        (Some(staged), _) if staged == serial => Slot::Staged,
        (_, Some(current)) if current == serial => Slot::Current,
        (Some(staged), _) => {
            return Err(ActivationError::OtherStaged { wanted: serial.to_owned(), staged: staged.clone() });
        }
        (None, _) => return Err(ActivationError::NothingStaged { wanted: serial.to_owned() }),
    };
    slots.job(slot).ok_or_else(|| ActivationError::NothingStaged { wanted: serial.to_owned() })
}

/// Puts the certificate into use, as far as links go.
pub(super) fn swap(slots: &Slots, journal: &Journal) -> Result<(), StoreError> {
    if journal.current != Some(journal.to) {
        if journal.current.is_some() {
            slots.point(Slot::Previous, journal.current)?;
        }
        slots.point(Slot::Current, Some(journal.to))?;
    }
    if journal.was_staged { slots.point(Slot::Staged, None) } else { Ok(()) }
}

/// Links, and what is known of copies, as they were. The staged link first: a certificate is never without one that names it.
pub(super) fn put_back(slots: &Slots, journal: &Journal) -> Result<(), StoreError> {
    if journal.was_staged {
        slots.point(Slot::Staged, Some(journal.to))?;
    }
    slots.point(Slot::Current, journal.current)?;
    slots.point(Slot::Previous, journal.previous)?;
    save_written(slots, &journal.written)
}

/// Writes all copies of a service for the certificate in use; how many, or a sentence.
pub(super) fn write_copies(
    store: &Store,
    place: &Place,
    service: &Service,
    before: &[Written],
) -> Result<usize, String> {
    let text = |error: StoreError| error.to_string();
    let slots = &Slots::new(store.trustpoint(&place.device, &place.trustpoint));
    let material = Material::read(slots, Slot::Current).map_err(text)?;
    let copies = export::copies(service, place, &material, before)?;
    let paths: Vec<&Path> = copies.iter().map(|copy| copy.path.as_path()).collect();
    claim::take(store, place, &paths)?;
    let mine = |file: &&Written| file.service == service.name.as_str();
    let kept = |path: &PathBuf| copies.iter().any(|copy| copy.path == *path);
    let gone: Vec<PathBuf> =
        before.iter().filter(mine).map(|file| file.path.clone()).filter(|path| !kept(path)).collect();
    // Known before they are there: what is written and not known would be nobody's when the agent dies in between.
    let mut all = written(slots).map_err(text)?;
    all.retain(|file| file.service != service.name.as_str());
    all.extend(export::written(service, &copies));
    save_written(slots, &all).map_err(text)?;
    export::write(&copies, &gone).map_err(text)?;
    Ok(copies.len())
}

/// What was written at the last activation, for all services.
pub(super) fn written(slots: &Slots) -> Result<Vec<Written>, StoreError> {
    Ok(store::load_json(&slots.exports_file())?.unwrap_or_default())
}

/// Keeps what was written.
pub(super) fn save_written(slots: &Slots, files: &[Written]) -> Result<(), StoreError> {
    if files.is_empty() {
        return store::remove(&slots.exports_file());
    }
    store::save_json(&slots.exports_file(), &files)
}

/// Those of these services.
pub(super) fn of_services(files: &[Written], services: &[Arc<Service>]) -> Vec<Written> {
    let mine = |file: &&Written| services.iter().any(|service| service.name.as_str() == file.service);
    files.iter().filter(mine).cloned().collect()
}
