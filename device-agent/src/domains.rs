//! PKI domains: identities that others have issued to the device, and their CAs (S14, S38, S39).
//!
//! ```text
//! domains/NAME -> .NAME.N/{identity.pem, key.pem, ca.pem}
//! ```
//! By such an identity a first certificate can be asked for without a secret. The domain `default` is the factory
//! identity: it is named in the configuration and cannot be imported over. Key and certificate go into a new folder, to
//! which the link is moved at once, so that they are never out of step.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trustfleet_cmp::key::{Signer as _, SoftwareKey};
use trustfleet_model::field::ObjectName;
use trustfleet_pki::Certificate;
use zeroize::Zeroizing;

use crate::store::{self, Store, StoreError};

/// Name of the domain that holds the factory identity (S39).
pub const DEFAULT_DOMAIN: &str = "default";
const WEAK_SIGNATURES: [&str; 3] = ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"]; // MD5, SHA-1 with RSA, SHA-1 with ECDSA

/// Section `factory_identity` of the configuration file: what the domain `default` holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactoryIdentityConfig {
    /// PEM file with the device's certificate, and after it those that lead to its CA.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// PEM file with CA certificates of the factory.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl FactoryIdentityConfig {
    /// What does not go together.
    ///
    /// # Errors
    /// Only one of certificate and key is set.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.certificate_file.is_some() == self.key_file.is_some() {
            return Ok(());
        }
        Err("factory_identity.certificate_file and factory_identity.key_file belong together; set both or none")
    }
}

/// An identity with its key.
#[derive(Debug)]
pub struct Identity {
    /// The device's certificate.
    pub certificate: Certificate,
    /// Those that lead to its CA.
    pub chain: Vec<Certificate>,
    /// Its private key.
    pub key: SoftwareKey,
}

/// Why a domain cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// There is none of that name, or it holds no identity.
    #[error(
        "the domain {name} holds no identity on this device: {how}",
        how = if name == DEFAULT_DOMAIN {
            "set factory_identity.certificate_file and key_file in the agent's configuration"
        } else {
            "import one with `trustfleet-agent domain import`"
        }
    )]
    Empty {
        /// Its name.
        name: String,
    },
    /// The factory identity is not to be imported over.
    #[error("the domain default is the factory identity, which the configuration names: choose another name")]
    Reserved,
    /// A file does not hold what it should.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is imported.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// PEM file with the certificate, and after it those that lead to its CA.
    pub certificate: &'a Path,
    /// PEM file with its private key.
    pub key: &'a Path,
    /// PEM files with CA certificates.
    pub ca: &'a [PathBuf],
    /// Take certificates that are signed with MD5 or SHA-1 (S26).
    pub allow_weak: bool,
}

/// A domain as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Subject of the identity, RFC 4514.
    pub subject: Option<String>,
    /// Its issuer.
    pub issuer: Option<String>,
    /// Its serial number, upper-case hex.
    pub serial: Option<String>,
    /// Last moment of its validity.
    pub not_after: Option<jiff::Timestamp>,
    /// Subjects of the CA certificates.
    pub ca: Vec<String>,
    /// What cannot be read.
    pub problem: Option<String>,
}

/// The domains of a device.
#[derive(Clone, Debug)]
pub struct Domains {
    root: PathBuf,
    factory: FactoryIdentityConfig,
}

impl Domains {
    /// Those in a state folder, and the factory identity of the configuration.
    pub fn new(store: &Store, factory: &FactoryIdentityConfig) -> Self {
        Self { root: store.domains(), factory: factory.clone() }
    }

    /// The identity of a domain, read anew.
    ///
    /// # Errors
    /// [`DomainError`].
    pub fn identity(&self, name: &ObjectName) -> Result<Identity, DomainError> {
        let empty = || DomainError::Empty { name: name.to_string() };
        let (certificate, key) = self.files(name).ok_or_else(empty)?;
        if !certificate.exists() {
            return Err(empty());
        }
        read_identity(&certificate, &key)
    }

    /// Lays an identity and CA certificates into a domain; what was there before goes.
    ///
    /// # Errors
    /// [`DomainError`]; nothing has changed then.
    pub fn import(&self, name: &ObjectName, import: &Import<'_>) -> Result<Shown, DomainError> {
        if name.as_str() == DEFAULT_DOMAIN {
            return Err(DomainError::Reserved);
        }
        let identity = read_identity(import.certificate, import.key)?;
        let mut ca = Vec::new();
        for path in import.ca {
            ca.extend(bundle(path)?);
        }
        if !import.allow_weak {
            let own = std::iter::once(&identity.certificate).chain(&identity.chain);
            if let Some(certificate) = own.chain(&ca).find(|certificate| is_weak(certificate)) {
                let detail = format!(
                    "{} is signed with MD5 or SHA-1 (S26): say --allow-weak if it must be",
                    certificate.subject()
                );
                return Err(DomainError::File { path: import.certificate.to_owned(), detail });
            }
        }
        let link = self.root.join(name.as_str());
        let former = fs::read_link(&link).ok().map(|target| self.root.join(target));
        let free = (0_u64..).map(|n| format!(".{name}.{n}")).find(|version| !self.root.join(version).exists());
        let version = free.unwrap_or_default();
        let new = self.root.join(&version);
        store::make_folder(&new)?;
        let pem = |certificates: &[Certificate]| certificates.iter().map(Certificate::to_pem).collect::<String>();
        let key = identity.key.pkcs8_pem().map_err(|error| file(import.key, error.to_string()))?;
        store::save(&new.join("key.pem"), key.as_bytes(), 0o600)?;
        let own = identity.certificate.to_pem() + &pem(&identity.chain);
        store::save(&new.join("identity.pem"), own.as_bytes(), 0o644)?;
        store::save(&new.join("ca.pem"), pem(&ca).as_bytes(), 0o644)?;
        store::replace_link(&link, Path::new(&version))?;
        if let Some(former) = former {
            store::remove_folder(&former)?;
        }
        Ok(self.show(name))
    }

    /// Removes a domain with its key.
    ///
    /// # Errors
    /// [`DomainError`].
    pub fn remove(&self, name: &ObjectName) -> Result<(), DomainError> {
        if name.as_str() == DEFAULT_DOMAIN {
            return Err(DomainError::Reserved);
        }
        let link = self.root.join(name.as_str());
        let Ok(version) = fs::read_link(&link) else { return Err(DomainError::Empty { name: name.to_string() }) };
        store::remove(&link)?;
        Ok(store::remove_folder(&self.root.join(version))?)
    }

    /// CA certificates of all domains; what cannot be read is left out.
    pub fn all_cas(&self) -> Vec<Certificate> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path().join("ca.pem")).chain(self.factory.ca_file.clone());
        files.filter(|path| path.exists()).filter_map(|path| bundle(&path).ok()).flatten().collect()
    }

    /// All domains, the default one first.
    pub fn list(&self) -> Vec<Shown> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut names: Vec<ObjectName> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        let default = DEFAULT_DOMAIN.parse().ok().filter(|_| self.factory.certificate_file.is_some());
        default.into_iter().chain(names).map(|name| self.show(&name)).collect()
    }

    /// One domain; what cannot be read is told in it.
    pub fn show(&self, name: &ObjectName) -> Shown {
        let ca = match name.as_str() {
            DEFAULT_DOMAIN => self.factory.ca_file.clone(),
            other => Some(self.root.join(other).join("ca.pem")),
        };
        let ca = ca.filter(|path| path.exists()).map(|path| bundle(&path)).transpose();
        let (ca, ca_problem) = ca.map_or_else(|error| (None, Some(error.to_string())), |ca| (ca, None));
        let ca = ca.unwrap_or_default().iter().map(|certificate| certificate.subject().to_string()).collect();
        let name_text = name.to_string();
        match self.identity(name) {
            Ok(Identity { certificate, .. }) => Shown {
                name: name_text,
                subject: Some(certificate.subject().to_string()),
                issuer: Some(certificate.issuer().to_string()),
                serial: Some(certificate.serial_hex()),
                not_after: Some(certificate.not_after()),
                ca,
                problem: ca_problem,
            },
            Err(error) => Shown {
                name: name_text,
                subject: None,
                issuer: None,
                serial: None,
                not_after: None,
                ca,
                problem: Some(error.to_string()),
            },
        }
    }

    fn files(&self, name: &ObjectName) -> Option<(PathBuf, PathBuf)> {
        if name.as_str() == DEFAULT_DOMAIN {
            return self.factory.certificate_file.clone().zip(self.factory.key_file.clone());
        }
        let folder = self.root.join(name.as_str());
        Some((folder.join("identity.pem"), folder.join("key.pem")))
    }
}

fn read_identity(certificate: &Path, key: &Path) -> Result<Identity, DomainError> {
    let mut own = bundle(certificate)?;
    if own.is_empty() {
        return Err(file(certificate, "it holds no certificate".to_owned()));
    }
    let chain = own.split_off(1);
    let pem = fs::read_to_string(key).map_err(|error| file(key, error.to_string()))?;
    let signer = SoftwareKey::from_pem(&Zeroizing::new(pem)).map_err(|error| file(key, error.to_string()))?;
    let [leaf] = own.as_slice() else { return Err(file(certificate, "it holds no certificate".to_owned())) };
    if signer.public_key_der() != leaf.spki_der() {
        let detail = format!("it is not the key of the first certificate in {}", certificate.display());
        return Err(file(key, detail));
    }
    Ok(Identity { certificate: leaf.clone(), chain, key: signer })
}

fn bundle(path: &Path) -> Result<Vec<Certificate>, DomainError> {
    let text = fs::read_to_string(path).map_err(|error| file(path, error.to_string()))?;
    Certificate::pem_bundle(&text).map_err(|error| file(path, error.to_string()))
}

fn is_weak(certificate: &Certificate) -> bool {
    !certificate.is_self_issued()
        && WEAK_SIGNATURES.contains(&certificate.signature_algorithm().oid.to_string().as_str())
}

fn file(path: &Path, detail: String) -> DomainError {
    DomainError::File { path: path.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A self-signed certificate with its key, made by openssl; returns the two files.
    fn identity(dir: &Path, name: &str, digest: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        // Not self-issued, so that its signature counts: issued by a CA of its own.
        let run = |args: &[&str]| {
            let made = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        run(&[&["req", "-x509", "-subj", "/CN=Factory CA", "-keyout", "ca.key", "-out", "ca.pem"][..], &ec].concat());
        let csr = format!("{name}.csr");
        let subject = format!("/CN={name}");
        run(&[&["req", "-subj", &subject, "-keyout", key.to_str().unwrap(), "-out", &csr][..], &ec].concat());
        let out = certificate.to_str().unwrap();
        run(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            digest,
            "-out",
            out,
        ]);
        (certificate, key)
    }

    fn domains(dir: &Path) -> Domains {
        Domains::new(&Store::read_only(&dir.join("state")), &FactoryIdentityConfig::default())
    }

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    #[test]
    fn s38_an_identity_and_its_cas_are_imported_shown_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let domains = domains(dir.path());
        let ca = [dir.path().join("ca.pem")];
        for serial in ["sn-1", "sn-2"] {
            let (certificate, key) = identity(dir.path(), serial, "-sha256");
            let import = Import { certificate: &certificate, key: &key, ca: &ca, allow_weak: false };
            let shown = domains.import(&name("lab"), &import).unwrap();
            assert_eq!((shown.subject.as_deref(), shown.ca.len()), (Some(format!("CN={serial}").as_str()), 1));
            assert_eq!(
                domains.identity(&name("lab")).unwrap().certificate.subject().to_string(),
                format!("CN={serial}")
            );
        }
        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::metadata(dir.path().join("state/domains/lab").join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode("key.pem"), 0o600);
        assert_eq!(domains.list().len(), 1);
        domains.remove(&name("lab")).unwrap();
        assert!(domains.list().is_empty() && domains.remove(&name("lab")).is_err());
    }

    #[test]
    fn s39_the_default_domain_is_the_factory_identity_and_cannot_be_imported_over() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = identity(dir.path(), "idevid", "-sha256");
        let import = Import { certificate: &certificate, key: &key, ca: &[], allow_weak: false };
        assert!(matches!(domains(dir.path()).import(&name("default"), &import), Err(DomainError::Reserved)));
        let missing = domains(dir.path()).identity(&name("default")).unwrap_err().to_string();
        assert!(missing.contains("factory_identity"), "{missing}");
        let factory = FactoryIdentityConfig {
            certificate_file: Some(certificate),
            key_file: Some(key),
            ca_file: Some(dir.path().join("ca.pem")),
        };
        let preset = Domains::new(&Store::read_only(&dir.path().join("state")), &factory);
        let shown = &preset.list()[0];
        assert_eq!((shown.name.as_str(), shown.subject.as_deref()), ("default", Some("CN=idevid")));
        assert_eq!(shown.ca, ["CN=Factory CA"]);
    }

    #[test]
    fn s26_a_certificate_signed_with_sha_1_is_refused_on_import_unless_it_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = identity(dir.path(), "old", "-sha1");
        let domains = domains(dir.path());
        let import = |allow_weak| {
            domains.import(&name("old"), &Import { certificate: &certificate, key: &key, ca: &[], allow_weak })
        };
        let refused = import(false).unwrap_err().to_string();
        assert!(refused.contains("SHA-1"), "{refused}");
        assert!(domains.list().is_empty(), "nothing is half imported");
        import(true).unwrap();
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_former_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (one, key) = identity(dir.path(), "one", "-sha256");
        let (two, _) = identity(dir.path(), "two", "-sha256");
        let domains = domains(dir.path());
        let import =
            |certificate| domains.import(&name("lab"), &Import { certificate, key: &key, ca: &[], allow_weak: false });
        import(&one).unwrap();
        assert!(import(&two).unwrap_err().to_string().contains("not the key"));
        assert_eq!(domains.identity(&name("lab")).unwrap().certificate.subject().to_string(), "CN=one");
    }
}
