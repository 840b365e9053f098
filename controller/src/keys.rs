//! The controller's three keys: read at the start, made by `trustfleet keys init`, never printed; and the file of a first
//! token made beforehand.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::EncodingKey;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use trustfleet_model::secret::SecretText;
use trustfleet_wire::sign::SigningKey;
use zeroize::Zeroizing;

use crate::{
    config::KeysConfig,
    entropy,
    secrets::{AtRestKey, KEY_LEN, KeyEncryptionKey, KeyRing},
};

/// Key id of the broker's tokens, as in RabbitMQ's `auth_oauth2.signing_keys.k1`.
pub const BROKER_TOKEN_KEY_ID: &str = "k1";

/// The controller's keys.
pub struct Keys {
    /// Ed25519: signs jobs, receipts, challenges and the answers of the agents' doors.
    pub signing: SigningKey,
    /// RSA: signs the agents' broker tokens (RS256, key id [`BROKER_TOKEN_KEY_ID`]).
    pub broker_token: EncodingKey,
    /// Encrypt secrets at rest.
    pub at_rest: KeyRing,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("signing", &self.signing).field("at_rest", &self.at_rest).finish_non_exhaustive()
    }
}

/// A key file could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file {} cannot be read; `trustfleet keys init --dir DIR` makes all of them", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("the key file {} does not hold {expected}", path.display())]
    Wrong {
        /// The path.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A key could not be made.
    #[error("{what} could not be made")]
    Generate {
        /// Which key.
        what: &'static str,
    },
    /// The file is there already, or cannot be written.
    #[error("{} cannot be written; nothing is overwritten: remove it first if it is not needed", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Keys {
    /// Reads all key files.
    ///
    /// # Errors
    /// The first file that cannot be read or does not hold its key.
    pub fn load(config: &KeysConfig) -> Result<Self, KeyError> {
        let path = &config.signing_key_file;
        let wrong = || KeyError::Wrong { path: path.clone(), expected: "an Ed25519 private key (PKCS#8 PEM)" };
        let pem = read(path)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
        let signing = SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| wrong())?;

        let path = &config.broker_token_key_file;
        let wrong = || KeyError::Wrong { path: path.clone(), expected: "an RSA private key (PKCS#8 PEM)" };
        let broker_token = EncodingKey::from_rsa_pem(&read(path)?).map_err(|_| wrong())?;

        Ok(Self { signing, broker_token, at_rest: Self::ring(config)? })
    }

    /// Reads the key-encryption keys alone.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn ring(config: &KeysConfig) -> Result<KeyRing, KeyError> {
        let first = source(&config.key_encryption_key_file).load()?;
        let further = config.further_key_encryption_key_files.iter().map(|path| source(path).load());
        Ok(KeyRing::new(first, further.collect::<Result<_, _>>()?))
    }
}

/// Where a key-encryption key comes from. A key-management service is one more of these, whose key encrypts over there.
pub trait KeySource {
    /// The key.
    ///
    /// # Errors
    /// It cannot be read, or is no key.
    fn load(&self) -> Result<Arc<dyn KeyEncryptionKey>, KeyError>;
}

/// What a configured path names: a file, or after `env:` a variable of the environment.
pub fn source(path: &Path) -> Box<dyn KeySource> {
    match path.to_str().and_then(|text| text.strip_prefix("env:")) {
        Some(variable) => Box::new(VariableSource(variable.to_owned())),
        None => Box::new(FileSource(path.to_owned())),
    }
}

/// A file with 32 bytes in base64.
struct FileSource(PathBuf);

impl KeySource for FileSource {
    fn load(&self) -> Result<Arc<dyn KeyEncryptionKey>, KeyError> {
        decode(&read(&self.0)?, &self.0)
    }
}

/// A variable with 32 bytes in base64.
struct VariableSource(String);

impl KeySource for VariableSource {
    fn load(&self) -> Result<Arc<dyn KeyEncryptionKey>, KeyError> {
        let path = || PathBuf::from(format!("env:{}", self.0));
        let missing = |error| KeyError::Unreadable { path: path(), source: std::io::Error::other(error) };
        let text = Zeroizing::new(std::env::var(&self.0).map_err(missing)?);
        decode(text.as_bytes(), &path())
    }
}

fn decode(text: &[u8], path: &Path) -> Result<Arc<dyn KeyEncryptionKey>, KeyError> {
    let wrong = || KeyError::Wrong { path: path.to_owned(), expected: "32 bytes in base64 on one line" };
    let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).map_err(|_| wrong())?);
    Ok(Arc::new(AtRestKey::new(&bytes).map_err(|_| wrong())?))
}

/// Makes a further key-encryption key in a new file that only its owner may read; returns its id.
///
/// # Errors
/// A file that is there already, or cannot be written, or a key that cannot be made.
pub fn add(path: &Path) -> Result<String, KeyError> {
    write_kek(path)?;
    Ok(source(path).load()?.id().to_owned())
}

fn write_kek(path: &Path) -> Result<(), KeyError> {
    let bytes = Zeroizing::new(
        entropy::random::<KEY_LEN>().map_err(|_| KeyError::Generate { what: "the key-encryption key" })?,
    );
    write_new(path, &Zeroizing::new(format!("{}\n", *Zeroizing::new(STANDARD.encode(*bytes)))))
}

/// The id of the signing key in a file, by which agents know their controller.
///
/// # Errors
/// The file cannot be read, or holds no such key.
pub fn signing_key_id(path: &Path) -> Result<String, KeyError> {
    let wrong = || KeyError::Wrong { path: path.to_owned(), expected: "an Ed25519 private key (PKCS#8 PEM)" };
    let pem = read(path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
    let key = SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| wrong())?;
    Ok(trustfleet_wire::sign::key_id(&key.public_key()))
}

/// Makes `kek.key`, `controller-signing.pem`, `broker-token.pem` and `broker-token.pub.pem` in `dir`, readable by their
/// owner alone; the last one is the public key for RabbitMQ's configuration.
///
/// # Errors
/// A file that is there already, or cannot be written, or a key that cannot be made.
pub fn init(dir: &Path) -> Result<Vec<PathBuf>, KeyError> {
    fs::create_dir_all(dir).map_err(|source| KeyError::Write { path: dir.to_owned(), source })?;
    let paths = ["kek.key", "controller-signing.pem", "broker-token.pem", "broker-token.pub.pem"].map(|n| dir.join(n));
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        return Err(KeyError::Write { path: path.clone(), source: std::io::ErrorKind::AlreadyExists.into() });
    }
    let [kek, signing, broker_token, broker_token_public] = &paths;

    write_kek(kek)?;

    let failed = |_| KeyError::Generate { what: "the signing key" };
    let der = SigningKey::generate().and_then(|key| key.to_pkcs8()).map_err(failed)?;
    write_new(signing, &pem("PRIVATE KEY", &der))?;

    let failed = |_| KeyError::Generate { what: "the broker's token key" };
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    let private: Pkcs8V1Der<'_> = rsa.as_der().map_err(failed)?;
    write_new(broker_token, &pem("PRIVATE KEY", private.as_ref()))?;
    let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().map_err(failed)?;
    write_new(broker_token_public, &pem("PUBLIC KEY", public.as_ref()))?;
    Ok(paths.to_vec())
}

/// Writes a token that nobody knows yet into a new file that only its owner may read: what `first_token_file` names at a
/// start that finds no platform token in force.
///
/// # Errors
/// A file that is there already, or cannot be written.
pub fn write_token(path: &Path, token: &SecretText) -> Result<(), KeyError> {
    write_new(path, &Zeroizing::new(format!("{}\n", token.expose())))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        tracing::warn!(file = %path.display(), "key file can be used by every user of this machine: chmod o-rwx it");
    }
    fs::read(path).map(Zeroizing::new).map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })
}

fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|source| KeyError::Write { path: path.to_owned(), source })
}

/// RFC 7468 text: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / 64 + 80));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_made_can_be_read_and_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let paths = init(dir.path()).unwrap();
        for path in &paths {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        let config = KeysConfig {
            signing_key_file: dir.path().join("controller-signing.pem"),
            broker_token_key_file: dir.path().join("broker-token.pem"),
            key_encryption_key_file: dir.path().join("kek.key"),
            further_key_encryption_key_files: Vec::new(),
        };
        Keys::load(&config).unwrap();
        assert!(matches!(init(dir.path()), Err(KeyError::Write { .. })));

        fs::write(&config.key_encryption_key_file, "c2hvcnQ=").unwrap();
        let error = Keys::load(&config).unwrap_err();
        assert!(error.to_string().contains("kek.key does not hold 32 bytes in base64"), "{error}");
    }

    #[test]
    fn a_further_key_joins_the_ring_and_one_may_come_from_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let second = dir.path().join("kek-2.key");
        let id = add(&second).unwrap();
        assert_eq!(fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(add(&second), Err(KeyError::Write { .. })));
        let config = KeysConfig {
            signing_key_file: dir.path().join("controller-signing.pem"),
            broker_token_key_file: dir.path().join("broker-token.pem"),
            key_encryption_key_file: dir.path().join("kek.key"),
            further_key_encryption_key_files: vec![second],
        };
        let ring = Keys::load(&config).unwrap().at_rest;
        assert_eq!((ring.ids().len(), ring.ids()[1]), (2, id.as_str()));
        let missing = source(Path::new("env:TRUSTFLEET_NO_SUCH_KEY")).load().unwrap_err();
        assert!(missing.to_string().contains("env:TRUSTFLEET_NO_SUCH_KEY"), "{missing}");
        // A variable that is there in every test run, and no key.
        let wrong = source(Path::new("env:PATH")).load().unwrap_err();
        assert!(wrong.to_string().contains("32 bytes in base64"), "{wrong}");
    }

    #[test]
    fn a_token_made_beforehand_is_its_owners_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("platform.token");
        let token = SecretText::new("tft1_word".to_owned());
        write_token(&path, &token).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_token(&path, &SecretText::new("other".to_owned())), Err(KeyError::Write { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), token.expose());
    }
}
