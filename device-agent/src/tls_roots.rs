//! Roots for TLS, read from their file when a connection needs them and not before.
//!
//! A system's bundle is 140 certificates and, read, half a megabyte of memory: more than all else that an agent keeps
//! for its device. Read anew with each session, a file that was replaced meanwhile counts without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::config::{Config, ConfigError};

/// Where the roots are that verify controller, broker and https CAs: in these, and in nothing else, TLS trusts.
#[derive(Clone, Debug, Default)]
pub struct TlsRoots(Option<PathBuf>);

/// The roots cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// There is no file with roots.
    #[error("TLS needs roots, and this system has none: set tls_ca_file")]
    None,
    /// The file cannot be read.
    #[error("the TLS roots {path} cannot be read: {detail}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// There is no usable certificate in it.
    #[error("the TLS roots {path} hold no certificate in PEM that could be a root")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The TLS library refuses.
    #[error("the TLS library: {0}")]
    Library(String),
}

impl TlsRoots {
    /// The configured file, which is looked into once, or the system's bundle, which is not.
    ///
    /// # Errors
    /// The configured file cannot serve, or there is none and the controller's URL needs one.
    pub fn of(config: &Config) -> Result<Self, TlsRootsError> {
        match config.tls_roots() {
            Ok(path) => {
                let roots = Self::file(path);
                if config.tls_ca_file.is_some() {
                    roots.http()?;
                }
                Ok(roots)
            }
            // Everything must be plaintext on loopback then, which the configuration has checked.
            Err(_) if config.controller_url.scheme() == "http" => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Roots in a PEM file.
    pub const fn file(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// For HTTP.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn http(&self) -> Result<RootCerts, RootsError> {
        let (path, pem) = self.read()?;
        let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() { Err(RootsError::Empty { path: path.to_owned() }) } else { Ok(certificates.into()) }
    }

    /// For the broker.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn broker(&self) -> Result<Arc<rustls::ClientConfig>, RootsError> {
        let (path, pem) = self.read()?;
        let mut store = rustls::RootCertStore::empty();
        if store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok)).0 == 0 {
            return Err(RootsError::Empty { path: path.to_owned() });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RootsError::Library(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    /// The file.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    fn read(&self) -> Result<(&Path, Vec<u8>), RootsError> {
        let path = self.path().ok_or(RootsError::None)?;
        let unreadable =
            |error: std::io::Error| RootsError::Unreadable { path: path.to_owned(), detail: error.to_string() };
        Ok((path, fs::read(path).map_err(unreadable)?))
    }
}

/// Why an agent cannot begin with its TLS roots.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootsError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tls_ca_file: &Path) -> Config {
        let text = format!(
            "controller_url = \"https://c.example\"\nstate_dir = \"/var/lib/tfa\"\nname = \"ap-1\"\ntls_ca_file = {:?}\n",
            tls_ca_file.display().to_string()
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_configured_file_that_cannot_serve_is_named_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let error = TlsRoots::of(&config(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("cannot be read"), "{error}");
        fs::write(&path, "no certificate").unwrap();
        let error = TlsRoots::of(&config(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("no certificate"), "{error}");
    }

    #[test]
    fn without_roots_nothing_is_trusted() {
        assert_eq!(TlsRoots::default().http().unwrap_err(), RootsError::None);
        assert_eq!(TlsRoots::default().broker().unwrap_err(), RootsError::None);
    }
}
