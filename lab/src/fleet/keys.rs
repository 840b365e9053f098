//! Keys of devices that were made beforehand: to make an RSA key takes the machine a hundred times as long as all the rest of
//! a renewal, and no fleet's devices make theirs on one machine.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use trustfleet_agent::{
    keys::{FileKeyStore, KeyStore, KeysError},
    slots::Slots,
};
use trustfleet_cmp::key::{KeyType, Signer, SoftwareKey};
use zeroize::Zeroizing;

/// A store of files whose new keys come out of a pool, in turn; the pool begins anew when it is used up.
pub(super) struct Pool {
    key_type: KeyType,
    keys: Vec<Zeroizing<String>>,
    next: AtomicUsize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} keys)", self.keys.len())
    }
}

impl Pool {
    /// Makes the keys.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn make(key_type: KeyType, count: usize) -> Result<Arc<Self>, trustfleet_cmp::key::KeyError> {
        let keys: Result<Vec<_>, _> =
            (0..count).map(|_| SoftwareKey::generate(key_type).and_then(|key| key.pkcs8_pem())).collect();
        Ok(Arc::new(Self { key_type, keys: keys?, next: AtomicUsize::new(0) }))
    }
}

impl KeyStore for Pool {
    fn make(&self, version: &Path, key_type: KeyType) -> Result<Arc<dyn Signer>, KeysError> {
        let path = Slots::key_file(version);
        if key_type == self.key_type
            && !path.exists()
            && let Some(pem) = self.keys.get(self.next.fetch_add(1, Ordering::Relaxed) % self.keys.len().max(1))
        {
            // Where it cannot be written, the store below says why.
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let _ = file.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
        }
        FileKeyStore.make(version, key_type)
    }

    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        FileKeyStore.carry_over(from, to)
    }

    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        FileKeyStore.load(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_pool_once_for_each_version_and_of_another_kind_are_made() {
        let pool = Pool::make(KeyType::P256, 2).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let version = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (one, two, three) = (version("1"), version("2"), version("3"));
        let key = |path: &Path, key_type| pool.make(path, key_type).unwrap().public_key_der().to_vec();
        let first = key(&one, KeyType::P256);
        assert_eq!(key(&one, KeyType::P256), first, "the key of a version stays");
        assert_ne!(key(&two, KeyType::P256), first);
        assert_eq!(key(&three, KeyType::P384).len(), 120, "not of the pool's kind: made");
    }
}
