//! Private keys: those of trustpoints, and the agent's own two.
//!
//! A private key is on the disk, mode 0600, before anything that names its public half leaves the device, and it never
//! leaves the device itself. Whoever signs gets a [`Signer`]; only this file reads and writes private bytes, and with a
//! token ([`token`]) nobody does.

pub mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::token::{TokenError, TokenKeyStore};
use crate::config::KeysConfig;
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
    /// A token that holds the keys of trustpoints.
    #[error(transparent)]
    Token(#[from] TokenError),
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
            Self::Token(_) => "token_unusable",
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

    /// Removes keys that no version below `devices` names any more; those in files went with their folders.
    ///
    /// # Errors
    /// The token's.
    fn sweep(&self, _devices: &Path) -> Result<usize, KeysError> {
        Ok(0)
    }
}

/// The store that the configuration asks for; in a token the agent's keys bear the mark of its own signing key.
///
/// # Errors
/// A passphrase or PIN that cannot be read, or a token that does not answer.
pub fn open(config: &KeysConfig, identity: &IdentityKeys) -> Result<Arc<dyn KeyStore>, KeysError> {
    if let (Some(module), Some(token), Some(pin)) =
        (&config.pkcs11_module, &config.pkcs11_token, &config.pkcs11_pin_file)
    {
        let owner = format!("trustfleet agent {}", hex::encode(&identity.sign.public_key()[..8]));
        return Ok(Arc::new(TokenKeyStore::open(module, token, &private_line(pin)?, owner)?));
    }
    Ok(match &config.passphrase_file {
        Some(file) => Arc::new(EncryptedKeyStore::new(file)?),
        None => Arc::new(FileKeyStore),
    })
}

/// Removes keys that nothing names any more; what hinders that is only logged.
pub fn sweep(keys: &dyn KeyStore, store: &Store) {
    match keys.sweep(&store.devices()) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "keys that nothing uses are removed from the token"),
        Err(error) => tracing::warn!(%error, "old keys are not cleared away"),
    }
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
        save(&path, key, None)
    }

    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        save(&Slots::key_file(to), read(&Slots::key_file(from), None)?, None)
    }

    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        Ok(Arc::new(read(&Slots::key_file(version), None)?))
    }
}

/// The same, encrypted (PKCS #8 by PBES2): for services that are given the passphrase as well.
#[derive(Clone)]
pub struct EncryptedKeyStore {
    passphrase: Zeroizing<Vec<u8>>,
}

impl EncryptedKeyStore {
    /// Takes the passphrase, without the line's end, from a file that only the agent can read.
    ///
    /// # Errors
    /// There is none, it is empty, or others can read it.
    pub fn new(passphrase_file: &Path) -> Result<Self, KeysError> {
        Ok(Self { passphrase: Zeroizing::new(private_line(passphrase_file)?.as_bytes().to_vec()) })
    }
}

impl std::fmt::Debug for EncryptedKeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncryptedKeyStore(redacted)")
    }
}

impl KeyStore for EncryptedKeyStore {
    fn make(&self, version: &Path, key_type: KeyType) -> Result<Arc<dyn Signer>, KeysError> {
        let path = Slots::key_file(version);
        if path.exists() {
            return self.load(version);
        }
        save(&path, SoftwareKey::generate(key_type).map_err(unusable(&path))?, Some(&self.passphrase))
    }

    /// A key from the time before the passphrase is encrypted when it is carried over.
    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        save(&Slots::key_file(to), read(&Slots::key_file(from), Some(&self.passphrase))?, Some(&self.passphrase))
    }

    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        Ok(Arc::new(read(&Slots::key_file(version), Some(&self.passphrase))?))
    }
}

fn save(path: &Path, key: SoftwareKey, passphrase: Option<&[u8]>) -> Result<Arc<dyn Signer>, KeysError> {
    let pem = match passphrase {
        Some(passphrase) => key.pkcs8_encrypted_pem(passphrase),
        None => key.pkcs8_pem(),
    };
    store::save(path, pem.map_err(unusable(path))?.as_bytes(), 0o600)?;
    Ok(Arc::new(key))
}

/// With a passphrase, a key that is not encrypted is read too: it may be older than the passphrase.
fn read(path: &Path, passphrase: Option<&[u8]>) -> Result<SoftwareKey, KeysError> {
    let missing = || KeysError::Missing { path: path.to_owned() };
    let pem = Zeroizing::new(store::load(path)?.ok_or_else(missing)?);
    store::check_private(path, 0o600)?;
    let text = std::str::from_utf8(&pem).unwrap_or_default();
    let key = match passphrase {
        Some(passphrase) if text.contains("ENCRYPTED") => SoftwareKey::from_encrypted_pem(text, passphrase),
        _ => SoftwareKey::from_pem(text),
    };
    key.map_err(unusable(path))
}

/// The text of a file that only the agent can read, without the line's end.
fn private_line(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    let bytes = private(path)?.ok_or_else(|| KeysError::Missing { path: path.to_owned() })?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        let detail = "it is empty or no text".to_owned();
        return Err(StoreError::Corrupt { path: path.to_owned(), detail }.into());
    }
    Ok(Zeroizing::new(text.to_owned()))
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
                let key = OpeningKey::generate().map_err(sealing)?;
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
    fn with_a_passphrase_keys_are_kept_encrypted_and_older_ones_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = dir.path().join("passphrase");
        store::save(&passphrase, b"a long passphrase\n", 0o600).unwrap();
        let keys = EncryptedKeyStore::new(&passphrase).unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir(&old).unwrap();
        fs::create_dir(&new).unwrap();
        let key = FileKeyStore.make(&old, KeyType::P384).unwrap();
        assert_eq!(keys.carry_over(&old, &new).unwrap().public_key_der(), key.public_key_der());
        let text = fs::read_to_string(new.join("key.pem")).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
        assert_eq!(
            keys.make(&new, KeyType::P256).unwrap().public_key_der(),
            key.public_key_der(),
            "read, not replaced"
        );
        assert_eq!(FileKeyStore.load(&new).unwrap_err().code(), "key_unusable");
        store::save(&passphrase, b"another\n", 0o600).unwrap();
        let error = EncryptedKeyStore::new(&passphrase).unwrap().load(&new).unwrap_err();
        assert!(error.to_string().contains("does not open with this passphrase"), "{error}");
        store::save(&passphrase, b"\n", 0o600).unwrap();
        assert!(EncryptedKeyStore::new(&passphrase).is_err());
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(EncryptedKeyStore::new(&passphrase).unwrap_err().code(), "files_too_open");
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
