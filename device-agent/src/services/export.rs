//! Copies of a certificate, its key and its CA certificates where services look for them.
//!
//! A set of files is prepared completely beside its places, then renamed into them one after the other; whoever is cut
//! off in between goes on with it, or puts back what was there, at the next start ([`super::journal`]). So at any rest
//! the whole set is the new one or the old one (S45).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trustfleet_pki::digest::sha256;
use trustfleet_wire::v1::Blob;
use zeroize::Zeroizing;

use super::config::{Content, Service, What};
use super::material::{Material, certificate};
use super::names;
use crate::order::Place;
use crate::store::StoreError;

/// Largest file that is kept for the way back, bytes.
const BEFORE_MAX: u64 = 1024 * 1024;

/// A file to be written.
pub(super) struct Copy {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub bytes: Zeroizing<Vec<u8>>,
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
    /// Which CA's certificate it holds, for a generated name.
    ca: Option<String>,
}

/// A file that was written at the last activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// Which service it is for.
    pub service: String,
    /// Where.
    pub path: PathBuf,
    /// SHA-256 of it, lower-case hex.
    pub sha256: String,
    /// Subject of the CA whose certificate it holds, for a generated name: that CA keeps the name (S46).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// What was in a place before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    /// The place.
    pub path: PathBuf,
    /// What was there; nothing if none.
    pub was: Option<Was>,
}

/// A file or a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Was {
    /// A file.
    File {
        /// Its content.
        bytes: Blob,
        /// Its mode.
        mode: u32,
        /// Its user.
        owner: u32,
        /// Its group.
        group: u32,
    },
    /// A link.
    Link {
        /// Where it led.
        target: PathBuf,
    },
}

/// All files of a service for a certificate. `written`: those of the last time, so that CAs keep their names.
///
/// # Errors
/// A sentence.
pub(super) fn copies(
    service: &Service,
    place: &Place,
    material: &Material,
    written: &[Written],
) -> Result<Vec<Copy>, String> {
    let mut all = Vec::new();
    for export in &service.exports {
        let copy =
            |path, bytes, ca| Copy { path, bytes, mode: export.mode, owner: export.owner, group: export.group, ca };
        match &export.what {
            // The one that is kept fresh comes later, and is given then.
            What::File { content: Content::Crl, .. } if material.crl.is_none() => {}
            What::File { path, content } => {
                let path = PathBuf::from(path.fill(place));
                let bytes = material.render(content, export.format);
                let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
                if bytes.is_empty() && !matches!(content, Content::Chain) {
                    return Err(format!(
                        "{}: there is nothing to write: the CA sent no such certificates",
                        path.display()
                    ));
                }
                all.push(copy(path, bytes, None));
            }
            What::Folder(folder) => {
                let folder = PathBuf::from(folder.fill(place));
                let name = place.trustpoint.as_str();
                let path = folder.join(names::certificate(name));
                all.push(copy(path, certificate(&material.certificate, export.format), None));
                let cas = material.ca_certificates();
                let subjects: Vec<String> = cas.iter().map(|ca| ca.subject().to_string()).collect();
                for (n, ca) in names::numbers(&subjects, &known(written, service, &folder, name)).into_iter().zip(cas) {
                    let path = folder.join(names::ca(name, n));
                    all.push(copy(path, certificate(ca, export.format), Some(ca.subject().to_string())));
                }
            }
        }
    }
    Ok(all)
}

/// Numbers of a folder's generated CA files with the CAs that have them.
fn known(written: &[Written], service: &Service, folder: &Path, name: &str) -> Vec<(usize, String)> {
    let mine = written.iter().filter(|file| file.service == service.name.as_str());
    let here = mine.filter(|file| file.path.parent() == Some(folder));
    here.filter_map(|file| {
        let number = names::number_of(name, file.path.file_name()?.to_str()?)?;
        Some((number, file.ca.clone()?))
    })
    .collect()
}

/// What was written, for the next time.
pub(super) fn written(service: &Service, copies: &[Copy]) -> Vec<Written> {
    let one = |copy: &Copy| Written {
        service: service.name.to_string(),
        path: copy.path.clone(),
        sha256: hex::encode(sha256(&copy.bytes)),
        ca: copy.ca.clone(),
    };
    copies.iter().map(one).collect()
}

/// What somebody has done to files of the last time (S46), as sentences.
pub(super) fn disturbed(written: &[Written]) -> Vec<String> {
    let told = written.iter().filter_map(|file| {
        let path = file.path.display();
        match fs::read(&file.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!(
                "{path} was removed or renamed since it was written; the whole set is written anew under its own names, and a \
                 renamed copy is not kept up to date"
            )),
            Ok(bytes) if hex::encode(sha256(&bytes)) != file.sha256 => {
                Some(format!("{path} was changed by somebody else since it was written; it is written anew"))
            }
            _ => None,
        }
    });
    told.collect()
}

/// What is in a place now, for the way back.
///
/// # Errors
/// It is something else than a file or a link, too large, or cannot be read.
pub(super) fn before(path: &Path) -> Result<Before, StoreError> {
    let corrupt = |detail: String| StoreError::Corrupt { path: path.to_owned(), detail };
    let read = |error: io::Error| StoreError::io("reading", path)(error);
    let was = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(read(error)),
        Ok(meta) if meta.is_symlink() => Some(Was::Link { target: fs::read_link(path).map_err(read)? }),
        Ok(meta) if meta.is_file() && meta.len() <= BEFORE_MAX => {
            let file = File::open(path).map_err(read)?;
            let meta = file.metadata().map_err(read)?;
            let mut bytes = Vec::new();
            file.take(BEFORE_MAX).read_to_end(&mut bytes).map_err(read)?;
            let (mode, owner, group) = (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid());
            Some(Was::File { bytes: Blob(bytes), mode, owner, group })
        }
        Ok(meta) if meta.is_file() => {
            return Err(corrupt(format!("it has {} bytes, and is no certificate", meta.len())));
        }
        Ok(_) => return Err(corrupt("it is neither a file nor a link".to_owned())),
    };
    Ok(Before { path: path.to_owned(), was })
}

/// Writes a set of files: first all of them beside their places, then into them. `gone`: files of the last time that are
/// no part of the set any more.
///
/// # Errors
/// The disk's; when it could not prepare the set, nothing has changed.
pub(super) fn write(copies: &[Copy], gone: &[PathBuf]) -> Result<(), StoreError> {
    let prepared = copies.iter().try_for_each(|copy| {
        let owned = (copy.owner, copy.group);
        prepare(&copy.path, &copy.bytes, copy.mode, owned)
    });
    if let Err(error) = prepared {
        for copy in copies {
            let _ = fs::remove_file(beside(&copy.path));
        }
        return Err(error);
    }
    copies.iter().try_for_each(|copy| take_place(&copy.path))?;
    gone.iter().try_for_each(|path| crate::store::remove(path))
}

/// Puts back what was there.
///
/// # Errors
/// The disk's.
pub(super) fn restore(before: &[Before]) -> Result<(), StoreError> {
    for place in before {
        let path = &place.path;
        let _ = fs::remove_file(beside(path));
        match &place.was {
            None => crate::store::remove(path)?,
            Some(Was::File { bytes, mode, owner, group }) => {
                prepare(path, &bytes.0, *mode, (Some(*owner), Some(*group)))?;
                take_place(path)?;
            }
            Some(Was::Link { target }) => {
                symlink(target, beside(path)).map_err(StoreError::io("linking", path))?;
                take_place(path)?;
            }
        }
    }
    Ok(())
}

fn prepare(path: &Path, bytes: &[u8], mode: u32, owned: (Option<u32>, Option<u32>)) -> Result<(), StoreError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(StoreError::io("making", folder))?;
    }
    let new = beside(path);
    // Left by a life that was cut off, or put there by somebody else: either way not ours to write into.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io("removing", &new)(error)),
        _ => {}
    }
    // Nobody else can open it until it has its owner; the mode comes last, whatever the umask.
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new);
    let mut file = file.map_err(StoreError::io("making", &new))?;
    if owned != (None, None) {
        fchown(&file, owned.0, owned.1).map_err(StoreError::io("giving its owner to", path))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(StoreError::io("giving its mode to", path))?;
    file.write_all(bytes).map_err(StoreError::io("writing", path))?;
    file.sync_all().map_err(StoreError::io("syncing", path))
}

fn take_place(path: &Path) -> Result<(), StoreError> {
    fs::rename(beside(path), path).map_err(StoreError::io("replacing", path))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("syncing", folder))
}

/// Where a file waits for its place: one name for each, so that nothing piles up.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.trustfleet-new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(path: PathBuf, text: &str) -> Copy {
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        Copy { path, bytes, mode: 0o640, owner: None, group: None, ca: None }
    }

    #[test]
    fn s45_a_set_that_cannot_be_prepared_as_a_whole_leaves_the_old_one_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a/cert.pem"), dir.path().join("a/ca.pem"));
        write(&[copy(first.clone(), "old"), copy(second.clone(), "old ca")], &[]).unwrap();
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o7777, 0o640);
        // The last of the new set has no place: a file is where its folder should be.
        let impossible = first.join("x.pem");
        write(&[copy(first.clone(), "new"), copy(second.clone(), "new ca"), copy(impossible, "x")], &[]).unwrap_err();
        assert_eq!((fs::read(&first).unwrap(), fs::read(&second).unwrap()), (b"old".to_vec(), b"old ca".to_vec()));
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 2, "something is left beside them");
    }

    #[test]
    fn what_was_there_comes_back_with_its_mode_and_what_was_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, none) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("none"));
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        symlink("file", &link).unwrap();
        let places = [&file, &link, &none].map(|path| before(path).unwrap());
        write(&[&file, &link, &none].map(|path| copy(path.clone(), "new")), &[]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file(), "a link is replaced and not followed");
        restore(&places).unwrap();
        restore(&places).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"before");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o604);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
        assert!(!none.exists());
        assert!(before(dir.path()).is_err(), "a folder is no file");
    }

    #[test]
    fn s46_a_renamed_file_and_a_changed_one_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["t_ir.cer", "t_ca0.cer", "t_ca1.cer"].map(|name| dir.path().join(name));
        let copies: Vec<Copy> = files.iter().map(|path| copy(path.clone(), "x")).collect();
        write(&copies, &[]).unwrap();
        let config = "[s]\n[[s.exports]]\nfolder = \"/x\"\n";
        let services = super::super::config::read(
            &toml::from_str(config).unwrap(),
            &crate::config::KeysConfig::default(),
            &super::super::accounts::Accounts::default(),
        );
        let written = written(&services.unwrap()[0], &copies);
        assert_eq!(disturbed(&written), [""; 0]);
        fs::rename(&files[1], dir.path().join("mine.cer")).unwrap();
        fs::write(&files[2], "y").unwrap();
        let told = disturbed(&written);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("t_ca0.cer was removed or renamed") && told[1].contains("t_ca1.cer was changed"));
    }
}
