//! What an activation with services has changed so far, kept beside the slots until its end is told: where it is cut off
//! it goes on, and the way back is known.

use serde::{Deserialize, Serialize};
use trustfleet_model::ids::JobId;
use trustfleet_wire::v1::InService;

use super::export::{Before, Written};
use crate::slots::Slots;
use crate::store::{self, StoreError};

/// The only version of the journal's form.
const VERSION: u16 = 1;

/// An activation that has begun. It holds what was in exported files, keys among them, and is as private as a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    /// Form of the journal.
    pub version: u16,
    /// The job.
    pub job_id: JobId,
    /// Serial number of the certificate, upper-case hex.
    pub serial: String,
    /// Version that is put into use.
    pub to: JobId,
    /// Whether it was the staged one.
    pub was_staged: bool,
    /// Version that was in use.
    pub current: Option<JobId>,
    /// Version that was in use before that.
    pub previous: Option<JobId>,
    /// Services of the job.
    pub services: Vec<String>,
    /// What was in the places of exported files.
    pub before: Vec<Before>,
    /// What was known of exported files.
    pub written: Vec<Written>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// How far it has come.
    pub phase: Phase,
}

/// How far an activation has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Phase {
    /// Links, exports and services are being changed.
    Changing,
    /// A service did not take it: everything is being put back.
    GoingBack {
        /// Why.
        failure: Failure,
    },
    /// It has ended, and is to be told.
    Ended {
        /// Why it failed, if it did.
        failure: Option<Failure>,
        /// What became of the services.
        in_service: InService,
    },
}

/// Why an activation failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// Stable code.
    pub code: String,
    /// What was wrong, as a sentence without its end.
    pub message: String,
    /// What was done until then.
    pub done: InService,
    /// The new certificate stays in use: the one before is revoked.
    pub kept: bool,
}

impl Journal {
    /// A journal that begins now.
    pub(super) fn begin(job_id: JobId, serial: String, to: JobId, slots: &Slots, services: Vec<String>) -> Self {
        use crate::slots::Slot;
        Self {
            version: VERSION,
            job_id,
            serial,
            to,
            was_staged: slots.job(Slot::Staged) == Some(to),
            current: slots.job(Slot::Current),
            previous: slots.job(Slot::Previous),
            services,
            before: Vec::new(),
            written: Vec::new(),
            warnings: Vec::new(),
            phase: Phase::Changing,
        }
    }

    /// The one that is there, if any.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn load(slots: &Slots) -> Result<Option<Self>, StoreError> {
        store::load_json(&slots.journal_file())
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn save(&self, slots: &Slots) -> Result<(), StoreError> {
        store::save_json(&slots.journal_file(), self)
    }

    /// Its end is told: it goes.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn remove(slots: &Slots) -> Result<(), StoreError> {
        store::remove(&slots.journal_file())
    }
}
