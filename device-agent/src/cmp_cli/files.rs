//! Files that options name: certificates and keys in, certificates and keys out.
//!
//! A file is replaced in one step or not at all. A private key is written with mode 0600 and never over another key
//! unless that is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trustfleet_cmp::SoftwareKey;
use trustfleet_pki::certificate::Certificate;
use zeroize::Zeroizing;

use super::exit::Exit;
use super::fault::Fault;
use super::secret::Given;
use crate::store;

/// Longest file that is read, bytes.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// Reads a file whole.
///
/// # Errors
/// It is not there, too long, or cannot be read.
pub(super) fn read(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let wrong = |why: String| Fault::usage(format!("{option} {}: {why}", path.display()));
    let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > FILE_MAX {
        return Err(wrong(format!("{length} bytes, at most {FILE_MAX} are read")));
    }
    fs::read(path).map(Zeroizing::new).map_err(|error| wrong(error.to_string()))
}

/// PEM text, or `None` for anything else.
pub(super) fn pem(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN "))
}

/// All certificates of a file, PEM or DER.
///
/// # Errors
/// There is none, or one that cannot be read.
pub(super) fn certificates(option: &str, path: &Path) -> Result<Vec<Certificate>, Fault> {
    let bytes = read(option, path)?;
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("{option} {}: {why}", path.display()));
    let found = match pem(&bytes) {
        Some(text) => Certificate::pem_bundle(text).map_err(|error| wrong(&error))?,
        None => vec![Certificate::from_der(&bytes).map_err(|error| wrong(&error))?],
    };
    if found.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(found) }
}

/// The certificates of several files.
///
/// # Errors
/// As [`certificates`].
pub(super) fn all_certificates(option: &str, paths: &[PathBuf]) -> Result<Vec<Certificate>, Fault> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(certificates(option, path)?);
    }
    Ok(all)
}

/// The first certificate of a file.
///
/// # Errors
/// As [`certificates`].
pub(super) fn certificate(option: &str, path: &Path) -> Result<Certificate, Fault> {
    let found = certificates(option, path)?.into_iter().next();
    found.ok_or_else(|| Fault::usage(format!("{option} {}: there is no certificate in it", path.display())))
}

/// A private key, PEM or DER, perhaps encrypted.
///
/// # Errors
/// It cannot be read or used.
pub(super) fn key(option: &str, path: &Path, passphrase: Option<&Given>) -> Result<Arc<SoftwareKey>, Fault> {
    let bytes = read(option, path)?;
    let made = match (pem(&bytes), passphrase) {
        (Some(text), Some(given)) if text.contains("ENCRYPTED PRIVATE KEY") => {
            SoftwareKey::from_encrypted_pem(text, &given.bytes)
        }
        (Some(text), _) => SoftwareKey::from_pem(text),
        (None, _) => SoftwareKey::from_der(&bytes),
    };
    made.map(Arc::new).map_err(|error| {
        Fault::usage(format!("{option} {}: {error}", path.display()))
            .and("a key of another form becomes one by: openssl pkey -in OLD -out NEW")
    })
}

/// Looks whether a file can be written later: its folder is there, and it would replace no private key by accident.
///
/// # Errors
/// It cannot, and nothing has been sent yet.
pub(super) fn check_target(option: &str, path: &Path) -> Result<(), Fault> {
    let wrong = |why: &str| Err(Fault::usage(format!("{option} {}: {why}", path.display())));
    if path.is_dir() {
        return wrong("it is a folder");
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return wrong("its folder does not exist");
    }
    let holds_key = fs::read(path).is_ok_and(|bytes| pem(&bytes).is_some_and(|text| text.contains("PRIVATE KEY")));
    if holds_key { wrong("there is a private key in it, it is not overwritten") } else { Ok(()) }
}

/// Writes a file in one step.
///
/// # Errors
/// The disk's.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    store::save(&placed(path), bytes, mode).map_err(|error| Fault::of_store(&error))
}

/// A bare name has no folder in its path, but the folder has a name.
pub(super) fn placed(path: &Path) -> PathBuf {
    if path.parent().is_none_or(|folder| folder.as_os_str().is_empty()) {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    }
}

/// Writes a new private key, mode 0600, encrypted where there is a passphrase; over an existing file only by `force`.
///
/// # Errors
/// The file is there, or the disk's.
pub(super) fn write_key(path: &Path, key: &SoftwareKey, passphrase: Option<&Given>, force: bool) -> Result<(), Fault> {
    if path.exists() && !force {
        let text = format!("--newkeyout {}: the file exists and may hold a key that is in use", path.display());
        return Err(Fault::usage(text).and("name another file, use its key by --newkey, or overwrite it by --force"));
    }
    let pem = match passphrase {
        Some(given) => key.pkcs8_encrypted_pem(&given.bytes),
        None => key.pkcs8_pem(),
    };
    let pem = pem.map_err(|error| Fault::new(Exit::Local, "key_unusable", error.to_string()))?;
    write(path, pem.as_bytes(), 0o600)
}
