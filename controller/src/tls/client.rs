//! How servers are verified: their chain up to one of the roots, and their name. There is no weaker way.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{
    TlsError, provider,
    watched::{Look, Watched},
};

/// Roots for connections to one kind of server.
pub struct ClientTls {
    key: &'static str,
    watched: Watched<Arc<ClientConfig>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({})", self.key)
    }
}

impl ClientTls {
    /// The roots in `ca_file` and no others; the system's where there is none. `key` is what the configuration calls it.
    ///
    /// # Errors
    /// No file, or no root in it.
    pub fn new(key: &'static str, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let path: Option<PathBuf> = ca_file.map(Path::to_owned);
        let paths = path.iter().cloned().collect();
        let watched = Watched::new(paths, move || {
            let roots = match &path {
                Some(path) => roots_of(key, path)?,
                None => roots_of_the_system(key)?,
            };
            client_config(roots)
        })?;
        Ok(Self { key, watched })
    }

    /// For the next connection. A file that has changed is read again; a bad one is told in the log, and the roots from
    /// before stay in use.
    pub fn config(&self) -> Arc<ClientConfig> {
        match self.watched.look() {
            Look::Same => {}
            Look::Taken => tracing::info!(key = self.key, "new roots are in use"),
            Look::Refused(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::error!(key = self.key, error = %reason, "new roots refused, the former ones stay in use");
            }
        }
        Arc::clone(&self.watched.value())
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots_of(key: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = fs::read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_owned(), source })?;
    let wrong = |what: String| TlsError::Wrong { key, path: path.to_owned(), what };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(format!("is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("holds a certificate that cannot be a root: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

fn roots_of_the_system(key: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's bundle may be too old to be read; the others count.
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TlsError::NoSystemRoots { key }) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_roots_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let error = ClientTls::new("broker.tls_ca_file", Some(&path)).unwrap_err().to_string();
        assert!(error.contains("broker.tls_ca_file") && error.contains("cannot be read"), "{error}");
        fs::write(&path, "no certificate").unwrap();
        let error = ClientTls::new("broker.tls_ca_file", Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem (broker.tls_ca_file) holds no certificate"), "{error}");
    }
}
