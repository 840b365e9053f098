//! From staged to current: the moment at which a certificate takes effect (S33, S34).

use trustfleet_model::ids::JobId;
use trustfleet_wire::v1::Failed;

use crate::outcome;
use crate::slots::{Slot, Slots};
use crate::store::StoreError;

/// Why a certificate was not put into use.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing waits for its activation.
    #[error("no certificate is staged, wanted is serial {wanted}: enrol first")]
    NothingStaged {
        /// Serial number that was to be activated.
        wanted: String,
    },
    /// Another certificate is staged.
    #[error("the staged certificate has serial {staged}, wanted is {wanted}: look at the trustpoint again")]
    OtherStaged {
        /// Serial number that was to be activated.
        wanted: String,
        /// Serial number of the staged certificate.
        staged: String,
    },
}

impl ActivationError {
    /// As it is reported.
    pub fn failed(&self) -> Box<Failed> {
        match self {
            Self::Store(error) => outcome::of_store(error, false),
            Self::NothingStaged { .. } => outcome::of_configuration("nothing_staged", &self.to_string()),
            Self::OtherStaged { .. } => outcome::of_configuration("other_certificate_staged", &self.to_string()),
        }
    }
}

/// Puts the staged certificate with this serial number into use and says in which file it is. Done already: says so
/// again. Versions that nothing needs any more are cleared away, `keep` excepted.
///
/// # Errors
/// It is not staged, or the disk's.
pub fn activate(slots: &Slots, serial: &str, keep: &[JobId]) -> Result<String, ActivationError> {
    match slots.certificate(Slot::Staged)? {
        Some((staged, _)) if staged.serial_hex() == serial => slots.activate()?,
        staged => {
            let in_use = slots.certificate(Slot::Current)?.is_some_and(|(current, _)| current.serial_hex() == serial);
            let wanted = serial.to_owned();
            match staged {
                _ if in_use => {}
                Some((staged, _)) => return Err(ActivationError::OtherStaged { wanted, staged: staged.serial_hex() }),
                None => return Err(ActivationError::NothingStaged { wanted }),
            }
        }
    }
    if let Err(error) = slots.prune(keep) {
        tracing::warn!(%error, "old versions are not cleared away");
    }
    let (_, file) = slots
        .certificate(Slot::Current)?
        .ok_or_else(|| ActivationError::NothingStaged { wanted: serial.to_owned() })?;
    Ok(file.display().to_string())
}
