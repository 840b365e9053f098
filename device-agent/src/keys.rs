//! Private keys: those of trustpoints, and the agent's own two.
//!
//! A private key is on the disk, mode 0600, before anything that names its public half leaves the device, and it never
//! leaves the device itself. Whoever signs gets a [`Signer`]; only this file reads and writes private bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trustfleet_cmp::key::{KeyError, KeyType, Signer, SoftwareKey};
use trustfleet_wire::seal::{OpeningKey, SealError};
use trustfleet_wire::sign::{SignError, SigningKey};
use zeroize::Zeroizing;

use crate::slots::Slots;
use crate::store::{self, Store, StoreError};

/// A key could not be made, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A trustpoint's key.
    #[error("the private key {path}: {source}")]
    Trustpoint {
        /// Where it is or was to be.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// There is none where one should be.
    #[error("there is no private key {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The agent's signing key.
    #[error("the agent's signing key {path}: {source}")]
    Signing {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: SignError,
    },
    /// The agent's sealing key.
    #[error("the agent's sealing key {path}: {source}")]
    Sealing {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
}

impl KeysError {
    /// Stable code for reports.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Trustpoint { .. } => "key_unusable",
            Self::Missing { .. } => "key_missing",
            Self::Signing { .. } | Self::Sealing { .. } => "agent_key_unusable",
        }
    }
}

/// Where the keys of trustpoints live.
pub trait KeyStore: Send + Sync {
    /// The key of a version: read if it is there already (a start cut off by a restart), made and saved otherwise.
    ///
    /// # Errors
    /// Not made, not saved, or there and unusable.
    fn make(&self, version: &Path, key_type: KeyType) -> Result<Arc<dyn Signer>, KeysError>;

    /// Puts the key of one version into another (an update that keeps its key, S3).
    ///
    /// # Errors
    /// Missing or not saved.
    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError>;

    /// The key of a version.
    ///
    /// # Errors
    /// Missing or unusable.
    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError>;
}

/// Keys as unencrypted PKCS #8 PEM beside their certificates, mode 0600: what services on devices read.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileKeyStore;

impl KeyStore for FileKeyStore {
    fn make(&self, version: &Path, key_type: KeyType) -> Result<Arc<dyn Signer>, KeysError> {
        let path = Slots::key_file(version);
        if path.exists() {
            return self.load(version);
        }
        let key = SoftwareKey::generate(key_type).map_err(unusable(&path))?;
        save(&path, key)
    }

    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        save(&Slots::key_file(to), read(&Slots::key_file(from))?)
    }

    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        Ok(Arc::new(read(&Slots::key_file(version))?))
    }
}

fn save(path: &Path, key: SoftwareKey) -> Result<Arc<dyn Signer>, KeysError> {
    let pem = key.pkcs8_pem().map_err(unusable(path))?;
    store::save(path, pem.as_bytes(), 0o600)?;
    Ok(Arc::new(key))
}

fn read(path: &Path) -> Result<SoftwareKey, KeysError> {
    let missing = || KeysError::Missing { path: path.to_owned() };
    let pem = Zeroizing::new(store::load(path)?.ok_or_else(missing)?);
    store::check_private(path, 0o600)?;
    let text = std::str::from_utf8(&pem).unwrap_or_default();
    SoftwareKey::from_pem(text).map_err(unusable(path))
}

fn unusable(path: &Path) -> impl FnOnce(KeyError) -> KeysError {
    move |source| KeysError::Trustpoint { path: path.to_owned(), source }
}

/// The agent's own keys: Ed25519 to prove possession and sign reports, X25519 to receive secrets.
#[derive(Debug)]
pub struct IdentityKeys {
    /// Signs proofs and reports.
    pub sign: SigningKey,
    /// Opens sealed secrets.
    pub open: OpeningKey,
}

impl IdentityKeys {
    /// Reads the keys, making those that are missing. Files that others can read are refused.
    ///
    /// # Errors
    /// The disk's, or a file that holds no key.
    pub fn load_or_make(store: &Store) -> Result<Self, KeysError> {
        let (sign_path, open_path) = (store.keys().join("sign.pk8"), store.keys().join("seal.key"));
        let signing = |source| KeysError::Signing { path: sign_path.clone(), source };
        let sign = match private(&sign_path)? {
            Some(der) => SigningKey::from_pkcs8(&der).map_err(signing)?,
            None => {
                let key = SigningKey::generate().map_err(signing)?;
                store::save(&sign_path, &key.to_pkcs8().map_err(signing)?, 0o600)?;
                key
            }
        };
        let sealing = |source| KeysError::Sealing { path: open_path.clone(), source };
        let open = match private(&open_path)? {
            Some(bytes) => OpeningKey::from_bytes(&bytes).map_err(sealing)?,
            None => {
                let key = OpeningKey::generate();
                store::save(&open_path, key.to_bytes().expose(), 0o600)?;
                key
            }
        };
        Ok(Self { sign, open })
    }
}

fn private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let Some(bytes) = store::load(path)? else { return Ok(None) };
    store::check_private(path, 0o600)?;
    Ok(Some(Zeroizing::new(bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_made_before_a_restart_is_used_again_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileKeyStore.make(dir.path(), KeyType::P256).unwrap();
        let second = FileKeyStore.make(dir.path(), KeyType::P256).unwrap();
        assert_eq!(first.public_key_der(), second.public_key_der());
        let mode = fs::metadata(dir.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        FileKeyStore.make(dir.path(), KeyType::P256).unwrap();
        fs::set_permissions(dir.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = FileKeyStore.load(dir.path()).unwrap_err();
        assert_eq!(error.code(), "files_too_open");
    }

    #[test]
    fn s3_an_update_that_keeps_its_key_gets_a_copy_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&new).unwrap();
        let key = FileKeyStore.make(&old, KeyType::P256).unwrap();
        assert_eq!(FileKeyStore.carry_over(&old, &new).unwrap().public_key_der(), key.public_key_der());
        assert_eq!(FileKeyStore.load(&new).unwrap().public_key_der(), key.public_key_der());
    }

    #[test]
    fn the_agents_own_keys_stay_the_same_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let first = IdentityKeys::load_or_make(&store).unwrap();
        let second = IdentityKeys::load_or_make(&store).unwrap();
        assert_eq!(first.sign.public_key(), second.sign.public_key());
        assert_eq!(first.open.public_key(), second.open.public_key());
        let key = store.keys().join("sign.pk8");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(IdentityKeys::load_or_make(&store).unwrap_err().code(), "files_too_open");
    }
}
