//! Trust anchors that a trustpoint was told of between two certificates (S57).
//!
//! A certificate's version holds the anchors of its own order. A roll-over changes what is trusted before the next certificate
//! comes, and lays that beside the versions. It counts for the versions that were asked for before, and for those that were made
//! by a lease, whose anchors can be as old as the lease; a later order knows better by itself.

use serde::{Deserialize, Serialize};
use trustfleet_model::ids::JobId;
use trustfleet_pki::Certificate;
use trustfleet_wire::v1::Blob;

use crate::slots::Slots;
use crate::store::{self, StoreError};

/// The only version of the file's form.
const VERSION: u16 = 1;
/// Most versions made by leases that are remembered: as many as can lie in slots, and some under way.
const ALSO_MAX: usize = 16;

/// What is trusted otherwise than the versions say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    version: u16,
    /// The job that said so.
    pub job_id: JobId,
    /// All anchors that are trusted, DER.
    trusted: Vec<Blob>,
    /// Those that are trusted no more, DER.
    retired: Vec<Blob>,
    /// Later versions that it counts for all the same: those made by leases.
    #[serde(default)]
    also: Vec<JobId>,
    /// What there was before, until the services have taken this.
    #[serde(default)]
    former: Option<Box<Self>>,
}

impl Overlay {
    /// What a job says, on top of what there is.
    pub fn new(job_id: JobId, trusted: &[Blob], retired: &[Blob], former: Option<Self>) -> Self {
        let also = former.as_ref().map(|former| former.also.clone()).unwrap_or_default();
        let former = former.map(|former| Box::new(Self { former: None, ..former }));
        Self { version: VERSION, job_id, trusted: trusted.to_vec(), retired: retired.to_vec(), also, former }
    }

    /// Reads that of a trustpoint.
    ///
    /// # Errors
    /// The disk's, or a file of another form.
    pub fn load(slots: &Slots) -> Result<Option<Self>, StoreError> {
        let path = slots.overlay_file();
        let overlay: Option<Self> = store::load_json(&path)?;
        match overlay {
            Some(other) if other.version != VERSION => {
                let detail = format!("it has version {}; this release reads version {VERSION}", other.version);
                Err(StoreError::Corrupt { path, detail })
            }
            overlay => Ok(overlay),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, slots: &Slots) -> Result<(), StoreError> {
        slots.make_root()?;
        store::save_json(&slots.overlay_file(), self)
    }

    /// The services have taken it: there is no way back any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle(self, slots: &Slots) -> Result<(), StoreError> {
        Self { former: None, ..self }.save(slots)
    }

    /// A service did not take it: what there was before counts again.
    ///
    /// # Errors
    /// The disk's.
    pub fn withdraw(self, slots: &Slots) -> Result<(), StoreError> {
        match self.former {
            Some(former) => former.save(slots),
            None => store::remove(&slots.overlay_file()),
        }
    }

    /// A version was made by a lease: its anchors may be older than this.
    ///
    /// # Errors
    /// The disk's.
    pub fn note_leased(slots: &Slots, version: JobId) -> Result<(), StoreError> {
        let Some(mut overlay) = Self::load(slots)? else { return Ok(()) };
        if overlay.also.contains(&version) {
            return Ok(());
        }
        overlay.also.push(version);
        let first = overlay.also.len().saturating_sub(ALSO_MAX);
        overlay.also.drain(..first);
        overlay.save(slots)
    }

    /// The anchors of a version as they are to be trusted: its own, those that were told of since, without the retired.
    pub fn applied(&self, version: Option<JobId>, own: Vec<Certificate>) -> Vec<Certificate> {
        let counts = version.is_none_or(|version| version < self.job_id || self.also.contains(&version));
        if !counts {
            return own;
        }
        let told = self.trusted.iter().filter_map(|der| Certificate::from_der(&der.0).ok());
        let mut all: Vec<Certificate> = Vec::new();
        for anchor in own.into_iter().chain(told) {
            let is_retired = self.retired.iter().any(|der| der.0 == anchor.as_der());
            if !is_retired && !all.contains(&anchor) {
                all.push(anchor);
            }
        }
        all
    }

    /// Whether a CA certificate is to be given to nobody any more.
    pub fn retires(&self, certificate: &Certificate) -> bool {
        self.retired.iter().any(|der| der.0 == certificate.as_der())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = include_str!("../tests/data/old-root.pem");
    const NEXT: &str = include_str!("../tests/data/next-root.pem");

    fn job(n: u128) -> JobId {
        uuid::Uuid::from_u128(n).into()
    }

    fn root(pem: &str) -> Certificate {
        Certificate::from_pem(pem).unwrap()
    }

    fn blob(pem: &str) -> Blob {
        Blob(root(pem).as_der().to_vec())
    }

    #[test]
    fn s57_anchors_told_of_count_for_certificates_asked_for_before_and_for_leases_and_no_others() {
        let add = Overlay::new(job(5), &[blob(OLD), blob(NEXT)], &[], None);
        assert_eq!(add.applied(Some(job(4)), vec![root(OLD)]), [root(OLD), root(NEXT)]);
        assert_eq!(add.applied(Some(job(6)), vec![root(OLD)]), [root(OLD)], "its own order is newer");
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path().join("ap-1/dot1x"));
        Overlay::note_leased(&slots, job(6)).unwrap();
        assert!(Overlay::load(&slots).unwrap().is_none());
        add.save(&slots).unwrap();
        Overlay::note_leased(&slots, job(6)).unwrap();
        let leased = Overlay::load(&slots).unwrap().unwrap();
        assert_eq!(leased.applied(Some(job(6)), vec![root(OLD)]), [root(OLD), root(NEXT)]);
    }

    #[test]
    fn s57_a_retired_anchor_is_given_to_nobody_and_what_was_before_comes_back_where_a_service_does_not_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path().join("ap-1/dot1x"));
        let add = Overlay::new(job(5), &[blob(OLD), blob(NEXT)], &[], None);
        add.clone().settle(&slots).unwrap();
        let remove = Overlay::new(job(7), &[blob(NEXT)], &[blob(OLD)], Overlay::load(&slots).unwrap());
        remove.save(&slots).unwrap();
        assert_eq!(remove.applied(Some(job(4)), vec![root(OLD)]), [root(NEXT)]);
        assert!(remove.retires(&root(OLD)) && !remove.retires(&root(NEXT)));
        remove.clone().withdraw(&slots).unwrap();
        assert_eq!(Overlay::load(&slots).unwrap(), Some(add.clone()));
        Overlay::new(job(7), &[], &[], None).withdraw(&slots).unwrap();
        assert_eq!(Overlay::load(&slots).unwrap(), None);
        remove.settle(&slots).unwrap();
        assert_eq!(Overlay::load(&slots).unwrap().unwrap().former, None);
    }
}
