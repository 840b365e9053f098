//! A value read from files, and read again when one of them changes.
//!
//! Whether a file has changed is told by what its path leads to (device, inode, size, time of change), so that a swapped
//! link counts, and a file written in place as well.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::TlsError;

/// What a look at the files found.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing has changed.
    Same,
    /// What they hold now is in use.
    Taken,
    /// They cannot be used; what was read before stays in use.
    Refused(TlsError),
}

type Read<T> = dyn Fn() -> Result<T, TlsError> + Send + Sync;

/// The value as it was last read well.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    read: Box<Read<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    seen: Vec<Option<Stamp>>,
    refused: bool,
}

/// Tells one content of a path from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl<T> Watched<T> {
    /// Reads for the first time.
    ///
    /// # Errors
    /// What `read` found wrong.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Taken before the files are read: a change meanwhile shows at the next look.
        let seen = stamps(&paths);
        let value = Arc::new(read()?);
        Ok(Self { paths, read: Box::new(read), state: Mutex::new(State { value, seen, refused: false }) })
    }

    /// Looks whether the files have changed, and reads them again if so.
    pub(super) fn look(&self) -> Look {
        let now = stamps(&self.paths);
        let mut state = self.state();
        if state.seen == now {
            return Look::Same;
        }
        state.seen = now;
        match (self.read)() {
            Ok(value) => {
                state.value = Arc::new(value);
                state.refused = false;
                Look::Taken
            }
            Err(error) => {
                state.refused = true;
                Look::Refused(error)
            }
        }
    }

    /// What is in use.
    pub(super) fn value(&self) -> Arc<T> {
        Arc::clone(&self.state().value)
    }

    /// Whether the files as they are now cannot be used.
    pub(super) fn is_refused(&self) -> bool {
        self.state().refused
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// None for a path that leads nowhere.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some(Stamp { device: found.dev(), inode: found.ino(), size: found.size(), changed })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn number(path: PathBuf) -> Watched<u32> {
        Watched::new(vec![path.clone()], move || {
            let wrong = |what: String| TlsError::Wrong { key: "test", path: path.clone(), what };
            let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
            text.trim().parse().map_err(|_| wrong("holds no number".to_owned()))
        })
        .unwrap()
    }

    #[test]
    fn a_changed_file_is_taken_and_a_bad_one_leaves_the_former_value_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "1").unwrap();
        let watched = number(path.clone());
        assert!(matches!(watched.look(), Look::Same));
        fs::write(&path, "22").unwrap();
        assert!(matches!(watched.look(), Look::Taken));
        assert_eq!((*watched.value(), watched.is_refused()), (22, false));
        fs::write(&path, "rubbish").unwrap();
        assert!(matches!(watched.look(), Look::Refused(_)));
        assert!(matches!(watched.look(), Look::Same), "one change is told once");
        assert_eq!(*watched.value(), 22);
        assert!(watched.is_refused());
        fs::remove_file(&path).unwrap();
        assert!(matches!(watched.look(), Look::Refused(_)));
        fs::write(&path, "3").unwrap();
        assert!(matches!(watched.look(), Look::Taken));
        assert_eq!((*watched.value(), watched.is_refused()), (3, false));
    }

    #[test]
    fn links_that_are_swapped_as_kubernetes_does_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("..1", "1"), ("..2", "2")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("tls.crt"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let watched = number(at("tls.crt"));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(matches!(watched.look(), Look::Taken));
        assert_eq!(*watched.value(), 2);
    }
}
