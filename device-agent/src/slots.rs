//! The certificate slots of one trustpoint on the disk.
//!
//! ```text
//! devices/DEVICE/TRUSTPOINT/versions/JOB ID/{key.pem, certificate.pem or .der, chain.pem, anchors.pem}
//!                           staged   -> versions/…   issued and confirmed, not in use yet
//!                           current  -> versions/…   in use
//!                           previous -> versions/…   was in use before
//!                           exports.json             copies for services, as they were last written
//!                           activation.json          only while services are given a certificate
//!                           ca.pem, crl.der          kept fresh, where the policy says so
//!                           anchors.json             trust anchors that were told of between two certificates
//! ```
//! A key and its certificate share a folder, so that one link moves both at once. Links are replaced atomically; every
//! function can be repeated after a crash at any point and comes to the same end.

use std::fs;
use std::path::{Path, PathBuf};

use trustfleet_model::ids::JobId;
use trustfleet_pki::Certificate;

use crate::store::{self, StoreError};

/// A link of a trustpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Issued, not in use yet (S33).
    Staged,
    /// In use.
    Current,
    /// Was in use before.
    Previous,
}

impl Slot {
    /// All slots.
    pub const ALL: [Self; 3] = [Self::Staged, Self::Current, Self::Previous];

    /// Name of the link.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// How the certificate's file is written (S15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// `certificate.pem`.
    Pem,
    /// `certificate.der`.
    Der,
}

impl FileFormat {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Pem => "certificate.pem",
            Self::Der => "certificate.der",
        }
    }
}

/// The folder of one trustpoint.
#[derive(Clone, Debug)]
pub struct Slots {
    root: PathBuf,
}

impl Slots {
    /// The slots below `root`, a folder from [`crate::store::Store::trustpoint`].
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Folder of the version that a job makes.
    pub fn version(&self, job: JobId) -> PathBuf {
        self.root.join("versions").join(job.to_string())
    }

    /// File of a version's private key.
    pub fn key_file(version: &Path) -> PathBuf {
        version.join("key.pem")
    }

    /// Makes the folder of a version.
    ///
    /// # Errors
    /// The disk's.
    pub fn make_version(&self, job: JobId) -> Result<PathBuf, StoreError> {
        let version = self.version(job);
        store::make_folder(&version)?;
        Ok(version)
    }

    /// Writes the certificate and its chain beside their key, and the trust anchors of its order: what services need to verify
    /// others of the same CA.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_certificate(
        &self,
        job: JobId,
        format: FileFormat,
        certificate: &Certificate,
        chain: &[Certificate],
        anchors: &[Certificate],
    ) -> Result<(), StoreError> {
        let version = self.make_version(job)?;
        let bytes = match format {
            FileFormat::Pem => certificate.to_pem().into_bytes(),
            FileFormat::Der => certificate.as_der().to_vec(),
        };
        let pem = |all: &[Certificate]| all.iter().map(Certificate::to_pem).collect::<String>().into_bytes();
        let mut files = vec![(format.file_name(), bytes), ("anchors.pem", pem(anchors))];
        if !chain.is_empty() {
            files.push(("chain.pem", pem(chain)));
        }
        // A device that dies often gets on: what is there already is not written again.
        let mut missing = Vec::new();
        for (name, bytes) in files {
            if store::load(&version.join(name)).ok().flatten().as_ref() != Some(&bytes) {
                missing.push((name, bytes));
            }
        }
        // Also without any: whoever died before the folder was synced has not done that.
        store::save_all(&version, &missing, 0o644)
    }

    /// Makes a job's version the staged one.
    ///
    /// # Errors
    /// The disk's.
    pub fn stage(&self, job: JobId) -> Result<(), StoreError> {
        let current = self.target(Slot::Current);
        let version = relative(job);
        if current.as_deref() == Some(version.as_path()) {
            return Ok(()); // repeated after its activation
        }
        store::replace_link(&self.root.join(Slot::Staged.as_str()), &version)
    }

    /// Stages the version that was in use before, where its certificate is the one that is wanted: the way back. What is staged
    /// or in use with that serial number already stays as it is.
    ///
    /// # Errors
    /// The disk's; a certificate that cannot be read.
    pub fn stage_former(&self, serial: &str) -> Result<(), StoreError> {
        let has = |slot| -> Result<bool, StoreError> {
            Ok(self.certificate(slot)?.is_some_and(|(certificate, _)| certificate.serial_hex() == serial))
        };
        if has(Slot::Staged)? || has(Slot::Current)? || !has(Slot::Previous)? {
            return Ok(());
        }
        match self.target(Slot::Previous) {
            Some(target) => store::replace_link(&self.root.join(Slot::Staged.as_str()), &target),
            None => Ok(()),
        }
    }

    /// Puts the staged version into use; the former one becomes the previous one.
    ///
    /// # Errors
    /// Nothing is staged, or the disk's.
    pub fn activate(&self) -> Result<(), StoreError> {
        let staged = self.root.join(Slot::Staged.as_str());
        let Some(target) = self.target(Slot::Staged) else {
            return Err(StoreError::Corrupt { path: staged, detail: "nothing is staged".to_owned() });
        };
        if let Some(former) = self.target(Slot::Current).filter(|former| *former != target) {
            store::replace_link(&self.root.join(Slot::Previous.as_str()), &former)?;
        }
        store::replace_link(&self.root.join(Slot::Current.as_str()), &target)?;
        store::remove(&staged)
    }

    /// File of a certificate that may be valid at the CA and must not be used: for whoever revokes it (C7).
    pub fn orphan_file(&self, job: JobId) -> PathBuf {
        self.version(job).join("orphan.pem")
    }

    /// Removes versions that no link points to, except `keep` (those of unfinished jobs) and those with an orphan.
    ///
    /// # Errors
    /// The disk's.
    pub fn prune(&self, keep: &[JobId]) -> Result<(), StoreError> {
        let mut kept: Vec<PathBuf> = Slot::ALL.iter().filter_map(|slot| self.target(*slot)).collect();
        kept.extend(keep.iter().map(|job| relative(*job)));
        let Ok(entries) = fs::read_dir(self.root.join("versions")) else { return Ok(()) };
        for entry in entries.flatten() {
            let version = Path::new("versions").join(entry.file_name());
            let folder = self.root.join(&version);
            if !kept.contains(&version) && !folder.join("orphan.pem").exists() {
                store::remove_folder(&folder)?;
            }
        }
        Ok(())
    }

    /// Removes the version of a job that came to nothing, unless a link points to it or it holds a certificate.
    ///
    /// # Errors
    /// The disk's.
    pub fn discard(&self, job: JobId) -> Result<(), StoreError> {
        let version = self.version(job);
        let linked = Slot::ALL.iter().any(|slot| self.target(*slot).is_some_and(|target| target == relative(job)));
        let certified = [FileFormat::Pem, FileFormat::Der].iter().any(|form| version.join(form.file_name()).exists());
        if linked || certified { Ok(()) } else { store::remove_folder(&version) }
    }

    /// Folder that a slot's link points to, absolute.
    pub fn folder(&self, slot: Slot) -> Option<PathBuf> {
        self.target(slot).map(|target| self.root.join(target))
    }

    /// The certificate in a slot with its file: the path goes through the link.
    ///
    /// # Errors
    /// The file cannot be read or is no certificate.
    pub fn certificate(&self, slot: Slot) -> Result<Option<(Certificate, PathBuf)>, StoreError> {
        if self.target(slot).is_none() {
            return Ok(None);
        }
        for format in [FileFormat::Pem, FileFormat::Der] {
            let path = self.root.join(slot.as_str()).join(format.file_name());
            let Some(bytes) = store::load(&path)? else { continue };
            let read = match format {
                FileFormat::Pem => Certificate::from_pem(&String::from_utf8_lossy(&bytes)),
                FileFormat::Der => Certificate::from_der(&bytes),
            };
            let corrupt = |detail: String| StoreError::Corrupt { path: path.clone(), detail };
            return read
                .map(|certificate| Some((certificate, path.clone())))
                .map_err(|error| corrupt(error.to_string()));
        }
        let path = self.root.join(slot.as_str());
        Err(StoreError::Corrupt { path, detail: "it holds no certificate".to_owned() })
    }

    /// The chain in a slot, as far as it was saved.
    pub fn chain(&self, slot: Slot) -> Vec<Certificate> {
        self.bundle(slot, "chain.pem")
    }

    /// The trust anchors in a slot; none in versions of an older agent.
    pub fn anchors(&self, slot: Slot) -> Vec<Certificate> {
        self.bundle(slot, "anchors.pem")
    }

    fn bundle(&self, slot: Slot, name: &str) -> Vec<Certificate> {
        let text = store::load(&self.link(slot).join(name)).ok().flatten().unwrap_or_default();
        Certificate::pem_bundle(&String::from_utf8_lossy(&text)).unwrap_or_default()
    }

    /// A slot's link.
    pub fn link(&self, slot: Slot) -> PathBuf {
        self.root.join(slot.as_str())
    }

    /// The job whose version is in a slot.
    pub fn job(&self, slot: Slot) -> Option<JobId> {
        self.target(slot)?.file_name()?.to_str()?.parse().ok()
    }

    /// Points a slot to the version of a job, or to none.
    ///
    /// # Errors
    /// The disk's.
    pub fn point(&self, slot: Slot, job: Option<JobId>) -> Result<(), StoreError> {
        match job {
            Some(job) if self.job(slot) == Some(job) => Ok(()),
            Some(job) => store::replace_link(&self.link(slot), &relative(job)),
            None => store::remove(&self.link(slot)),
        }
    }

    /// File of CA certificates that the CA named since, PEM ([`crate::upkeep`]).
    pub fn ca_file(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    /// File of the CRL of the CA that issued the certificate in use, DER.
    pub fn crl_file(&self) -> PathBuf {
        self.root.join("crl.der")
    }

    /// File of trust anchors that were told of between two certificates ([`crate::overlay`]).
    pub fn overlay_file(&self) -> PathBuf {
        self.root.join("anchors.json")
    }

    /// Makes the trustpoint's folder.
    ///
    /// # Errors
    /// The disk's.
    pub fn make_root(&self) -> Result<(), StoreError> {
        store::make_folder(&self.root)
    }

    /// File of an activation's journal ([`crate::services`]).
    pub fn journal_file(&self) -> PathBuf {
        self.root.join("activation.json")
    }

    /// File of what is known of exported files.
    pub fn exports_file(&self) -> PathBuf {
        self.root.join("exports.json")
    }

    /// Target of a slot's link as written: `versions/JOB ID`. A link that points anywhere else is not ours.
    fn target(&self, slot: Slot) -> Option<PathBuf> {
        let target = fs::read_link(self.root.join(slot.as_str())).ok()?;
        let name = target.strip_prefix("versions").ok()?.to_str()?;
        name.parse::<JobId>().ok().map(|_| target)
    }
}

fn relative(job: JobId) -> PathBuf {
    Path::new("versions").join(job.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn job(n: u128) -> JobId {
        JobId::from(uuid::Uuid::from_u128(n))
    }

    fn slots() -> (tempfile::TempDir, Slots) {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path().join("ap-1").join("dot1x"));
        (dir, slots)
    }

    fn targets(slots: &Slots) -> [Option<PathBuf>; 3] {
        Slot::ALL.map(|slot| slots.target(slot))
    }

    #[test]
    fn s33_an_activated_version_moves_the_former_one_to_previous() {
        let (_dir, slots) = slots();
        for n in 1..=3 {
            slots.make_version(job(n)).unwrap();
            slots.stage(job(n)).unwrap();
            slots.activate().unwrap();
        }
        assert_eq!(targets(&slots), [None, Some(relative(job(3))), Some(relative(job(2)))]);
        slots.make_version(job(4)).unwrap();
        store::save(&slots.orphan_file(job(4)), b"to be revoked", 0o600).unwrap();
        slots.prune(&[]).unwrap();
        assert!(slots.version(job(4)).exists(), "an orphan is kept");
        assert!(!slots.version(job(1)).exists() && slots.version(job(2)).exists());
    }

    #[test]
    fn an_activation_cut_off_at_any_point_ends_the_same_when_repeated() {
        // What activate() does, step by step; after each step the power goes.
        type Step = fn(&Slots) -> Result<(), StoreError>;
        let steps: [Step; 3] = [
            |s| store::replace_link(&s.root.join("previous"), &relative(job(1))),
            |s| store::replace_link(&s.root.join("current"), &relative(job(2))),
            |s| store::remove(&s.root.join("staged")),
        ];
        for done in 0..steps.len() {
            let (_dir, slots) = slots();
            for n in 1..=2 {
                slots.make_version(job(n)).unwrap();
                slots.stage(job(n)).unwrap();
                if n == 1 {
                    slots.activate().unwrap();
                }
            }
            for step in &steps[..done] {
                step(&slots).unwrap();
            }
            slots.stage(job(2)).unwrap();
            if slots.target(Slot::Staged).is_some() {
                slots.activate().unwrap();
            }
            assert_eq!(targets(&slots), [None, Some(relative(job(2))), Some(relative(job(1)))], "after {done} steps");
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_not_followed() {
        let (_dir, slots) = slots();
        store::make_folder(&slots.root).unwrap();
        for target in ["/etc", "../../other", "versions/../../x", "versions/plain"] {
            store::replace_link(&slots.root.join("current"), Path::new(target)).unwrap();
            assert_eq!(slots.folder(Slot::Current), None, "{target}");
        }
    }

    #[test]
    fn nothing_staged_means_nothing_to_activate() {
        let (_dir, slots) = slots();
        assert!(slots.activate().unwrap_err().to_string().contains("nothing is staged"));
    }
}
