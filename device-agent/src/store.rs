//! Files that survive a power cut: every write is temp file, fsync, rename, fsync of the folder.
//!
//! Why it exists: an answer is given to the broker or the CA only after what it depends on lies safely on the disk. It
//! must never follow a name that was not checked by its type, never leave a half-written file under a final name, and
//! never write anything that others on the machine can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::{JobId, TrustpointId};

/// Longest file that is read, bytes: a record holds a job message and some certificates.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// The disk did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left, or quota used up.
    #[error("the disk is full: {doing} {path}")]
    Full {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The file system or folder takes no writes.
    #[error("the disk is read-only or the folder not writable: {doing} {path}")]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{doing} {path} failed: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others on the machine could read keys or records.
    #[error(
        "{path} has mode {mode:04o}, others could get at it: run chmod {wanted:04o} {path}, and think about who may have read it"
    )]
    TooOpen {
        /// Which file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it should be.
        wanted: u32,
    },
    /// A file of ours cannot be read back.
    #[error("{path} cannot be read back: {detail}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// Another agent works in this folder.
    #[error("another trustfleet-agent is running with the state folder {path}")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

impl StoreError {
    /// Stable code for reports.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "disk_full",
            Self::ReadOnly { .. } => "disk_read_only",
            Self::Io { .. } => "disk_error",
            Self::TooOpen { .. } => "files_too_open",
            Self::Corrupt { .. } => "file_corrupt",
            Self::Locked { .. } => "state_locked",
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { doing, path },
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { doing, path },
                _ => Self::Io { doing, path, source },
            }
        }
    }
}

/// The agent's state folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// Held while the agent runs, so that no second one works in the same folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// Makes the folders where they are missing, and refuses folders that others can get at.
    ///
    /// # Errors
    /// Not writable, or too open.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned() };
        for folder in [
            root.to_owned(),
            store.keys(),
            store.jobs(),
            store.devices(),
            store.exports(),
            store.leases(),
            store.upkeep(),
        ] {
            make_folder(&folder)?;
            check_private(&folder, 0o700)?;
        }
        Ok(store)
    }

    /// The same folder for reading only: nothing is made or checked.
    pub fn read_only(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Takes the folder for this process; given up when dropped or when the process dies.
    ///
    /// # Errors
    /// Another agent holds it.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("opening", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: self.root.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(StoreError::io("locking", &path)(source)),
        }
    }

    /// Removes what a process left that was killed while it wrote: such a file may hold a private key that nothing names,
    /// and a later process can have the same id and so want the same name. Only while the folder is held by
    /// [`Store::lock`]. Says how many there were.
    ///
    /// # Errors
    /// The disk's.
    pub fn clear_unfinished(&self, _held: &Lock) -> Result<usize, StoreError> {
        // Only what is ours: the root of a file system has a folder that nobody may look into (lost+found).
        let flat = [self.root.clone(), self.keys(), self.jobs(), self.exports(), self.leases(), self.upkeep()];
        let cleared: Result<usize, StoreError> = flat.iter().map(|folder| clear_unfinished(folder, false)).sum();
        Ok(cleared? + clear_unfinished(&self.devices(), true)?)
    }

    /// Whether an agent runs with this folder.
    pub fn is_locked(&self) -> bool {
        let file = File::open(self.root.join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Folder of the agent's own keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Folder of job records.
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// Folder of what is kept fresh.
    pub fn upkeep(&self) -> PathBuf {
        self.root.join("upkeep")
    }

    /// File of what is kept fresh of a trustpoint.
    pub fn upkeep_file(&self, trustpoint: TrustpointId) -> PathBuf {
        self.upkeep().join(format!("{trustpoint}.json"))
    }

    /// File of a moment that was right.
    pub fn clock_file(&self) -> PathBuf {
        self.root.join("clock.json")
    }

    /// File of which nodes of pairs are active.
    pub fn nodes_file(&self) -> PathBuf {
        self.root.join("nodes.json")
    }

    /// Folder of leases.
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// File of a trustpoint's lease.
    pub fn lease_file(&self, trustpoint: TrustpointId) -> PathBuf {
        self.leases().join(format!("{trustpoint}.json"))
    }

    /// Folder of all devices.
    pub fn devices(&self) -> PathBuf {
        self.root.join("devices")
    }

    /// Folder of PKI domains: identities that others have issued to the device.
    pub fn domains(&self) -> PathBuf {
        self.root.join("domains")
    }

    /// File of what the controller said when the agent joined.
    pub fn agent_file(&self) -> PathBuf {
        self.root.join("agent.json")
    }

    /// Record of one job.
    pub fn job_file(&self, job: JobId) -> PathBuf {
        self.jobs().join(format!("{job}.json"))
    }

    /// Folder of one trustpoint: the names are safe by their types.
    pub fn trustpoint(&self, device: &ObjectName, trustpoint: &TrustpointName) -> PathBuf {
        self.devices().join(device.as_str()).join(trustpoint.as_str())
    }

    /// Folder of what says whose an exported file is.
    pub fn exports(&self) -> PathBuf {
        self.root.join("exports")
    }

    /// File that says which trustpoint has an exported file: a name that follows from the file's path.
    pub fn claim_file(&self, path: &Path) -> PathBuf {
        let name = hex::encode(trustfleet_pki::digest::sha256(path.as_os_str().as_encoded_bytes()));
        self.exports().join(format!("{name}.json"))
    }

    /// Ids of all job records.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn job_ids(&self) -> Result<Vec<JobId>, StoreError> {
        ids_in(&self.jobs())
    }

    /// Trustpoints of which there is a lease, or was one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn lease_ids(&self) -> Result<Vec<TrustpointId>, StoreError> {
        ids_in(&self.leases())
    }

    /// Trustpoints of which something is kept fresh.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn upkeep_ids(&self) -> Result<Vec<TrustpointId>, StoreError> {
        ids_in(&self.upkeep())
    }
}

/// The ids that the JSON files of a folder are named after, in their order.
fn ids_in<T: std::str::FromStr + Ord>(folder: &Path) -> Result<Vec<T>, StoreError> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("reading", folder))? {
        let name = entry.map_err(StoreError::io("reading", folder))?.file_name();
        let id: Option<T> = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|id| id.parse().ok());
        ids.extend(id);
    }
    ids.sort();
    Ok(ids)
}

/// Reads a private file of ours as JSON; `None` when there is none.
///
/// # Errors
/// Too open, unreadable, or not what it should be.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = load(path)? else { return Ok(None) };
    let corrupt = |error: serde_json::Error| StoreError::Corrupt { path: path.to_owned(), detail: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
}

/// Writes a private file of ours as JSON, atomically.
///
/// # Errors
/// The disk's.
pub fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let corrupt = |error: serde_json::Error| StoreError::Corrupt { path: path.to_owned(), detail: error.to_string() };
    save(path, &serde_json::to_vec(value).map_err(corrupt)?, 0o600)
}

/// Reads a private file; `None` when there is none.
///
/// # Errors
/// Too open, too long, or unreadable.
pub fn load(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("reading", path)(error)),
        Ok(meta) if meta.len() > FILE_MAX => {
            let detail = format!("it has {} bytes, at most {FILE_MAX} are read", meta.len());
            return Err(StoreError::Corrupt { path: path.to_owned(), detail });
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(StoreError::io("reading", path))
}

/// Replaces a file atomically: afterwards it holds the old bytes or the new ones, also after a power cut.
///
/// # Errors
/// The disk's; the old file is untouched then.
pub fn save(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    replace(path, bytes, mode)?;
    sync_folder(parent(path))
}

/// Replaces files of one folder, each atomically, in their order, and syncs the folder once: for files that count only when something
/// that is written later names them.
///
/// # Errors
/// The disk's; the former ones may be new then.
pub fn save_all(folder: &Path, files: &[(&str, Vec<u8>)], mode: u32) -> Result<(), StoreError> {
    for (name, bytes) in files {
        replace(&folder.join(name), bytes, mode)?;
    }
    sync_folder(folder)
}

/// Replaces a file; its folder is still to be synced.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let temporary = temporary(path);
    let write = || -> Result<(), StoreError> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&temporary)
            .map_err(StoreError::io("making", &temporary))?;
        file.write_all(bytes).map_err(StoreError::io("writing", path))?;
        file.sync_all().map_err(StoreError::io("syncing", path))?;
        fs::rename(&temporary, path).map_err(StoreError::io("replacing", path))
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Points the link at `path` to `target`, atomically.
///
/// # Errors
/// The disk's; the old link is untouched then.
pub fn replace_link(path: &Path, target: &Path) -> Result<(), StoreError> {
    let temporary = temporary(path);
    let write = || -> Result<(), StoreError> {
        symlink(target, &temporary).map_err(StoreError::io("linking", path))?;
        fs::rename(&temporary, path).map_err(StoreError::io("replacing", path))?;
        sync_folder(parent(path))
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Removes a file or link, if there is one.
///
/// # Errors
/// The disk's.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("removing", path)(error)),
        Ok(()) => sync_folder(parent(path)),
    }
}

/// Removes a folder with everything in it, if there is one.
///
/// # Errors
/// The disk's.
pub fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("removing", path)(error)),
        Ok(()) => sync_folder(parent(path)),
    }
}

/// Makes a folder with mode 0700, and those above it, each synced into the one above.
///
/// # Errors
/// The disk's.
pub fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if !above.as_os_str().is_empty() {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("making", path)(error)),
        Ok(()) => sync_folder(above),
    }
}

/// Refuses a file or folder that anybody but its owner can get at.
///
/// # Errors
/// [`StoreError::TooOpen`], or it is not there.
pub fn check_private(path: &Path, wanted: u32) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(StoreError::io("looking at", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// In a folder, or in all below it too; links are not followed.
fn clear_unfinished(folder: &Path, below: bool) -> Result<usize, StoreError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(StoreError::io("reading", folder))? {
        let entry = entry.map_err(StoreError::io("reading", folder))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(StoreError::io("looking at", folder))?);
        if kind.is_dir() {
            removed += if below { clear_unfinished(&path, true)? } else { 0 };
        } else if is_temporary(&entry.file_name().to_string_lossy()) {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A name that [`temporary`] makes: `.NAME.PID.COUNT.tmp`.
fn is_temporary(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")) else { return false };
    let mut numbers = rest.rsplitn(3, '.');
    let number = |text: Option<&str>| text.is_some_and(|text| text.parse::<u64>().is_ok());
    number(numbers.next()) && number(numbers.next()) && numbers.next().is_some_and(|name| !name.is_empty())
}

/// A name beside the final one that no other write uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{count}.tmp", std::process::id()))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("syncing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folders_are_0700_and_files_0600_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        for folder in [store.keys(), store.jobs(), store.devices(), dir.path().join("state")] {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        }
        save_json(&store.agent_file(), &1).unwrap();
        assert_eq!(mode(&store.agent_file()), 0o600);
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        fs::set_permissions(store.keys(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = Store::open(&dir.path().join("state")).unwrap_err().to_string();
        assert!(error.contains("0750") && error.contains("chmod 0700"), "{error}");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("record.json");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("inside"), b"old").unwrap();
        assert!(save(&blocked, b"new", 0o600).is_err());
        assert_eq!(fs::read(blocked.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_did_not_finish_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let lock = store.lock().unwrap();
        let version = store.devices().join("ap.1/radius/versions/x");
        make_folder(&version).unwrap();
        let unfinished = [version.join(".key.pem.1.0.tmp"), store.jobs().join(".x.json.77.12.tmp")];
        fs::create_dir(dir.path().join("s/lost+found")).unwrap();
        let foreign = dir.path().join("s/lost+found/.x.1.1.tmp");
        let kept =
            [foreign, version.join("key.pem"), version.join(".key.pem.tmp"), store.jobs().join(".x.json.a.1.tmp")];
        for path in unfinished.iter().chain(&kept) {
            fs::write(path, b"").unwrap();
        }
        symlink("versions/x", store.devices().join("ap.1/radius/.current.1.3.tmp")).unwrap();
        symlink(dir.path(), store.devices().join("ap.1/radius/current")).unwrap();
        fs::write(dir.path().join(".not-ours.1.1.tmp"), b"").unwrap();
        assert_eq!(store.clear_unfinished(&lock).unwrap(), 3);
        assert!(unfinished.iter().all(|path| !path.exists()) && kept.iter().all(|path| path.exists()));
        assert!(dir.path().join(".not-ours.1.1.tmp").exists(), "no link was followed");
        assert_eq!(temporary(&kept[1]).file_name().map(|name| is_temporary(&name.to_string_lossy())), Some(true));
    }

    #[test]
    fn a_link_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        for target in ["versions/1", "versions/2"] {
            replace_link(&link, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
    }

    #[test]
    fn two_agents_cannot_share_a_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("s").as_path()).unwrap();
        assert!(!store.is_locked());
        let lock = store.lock().unwrap();
        assert!(matches!(store.lock(), Err(StoreError::Locked { .. })) && store.is_locked());
        drop(lock);
        assert!(store.lock().is_ok());
    }

    #[test]
    fn a_full_disk_has_a_code_of_its_own() {
        let full = StoreError::io("writing", Path::new("/x"))(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code(), "disk_full");
        let read_only = StoreError::io("writing", Path::new("/x"))(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        assert_eq!(read_only.code(), "disk_read_only");
    }
}
