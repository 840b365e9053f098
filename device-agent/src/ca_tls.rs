//! The certificate by which the agent shows itself to https CAs, for those that ask for one.
//!
//! It is the agent's own matter: no job names a file of the device. The files may be those of a trustpoint
//! (`STATE_DIR/devices/DEVICE/TRUSTPOINT/current/…`): a certificate that was renewed meanwhile counts without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use trustfleet_pki::certificate::Certificate;
use ureq::tls::{Certificate as TlsCertificate, ClientCert, PrivateKey};
use zeroize::Zeroizing;

/// Section `ca_tls` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaTlsConfig {
    /// PEM file with the certificate, and after it those that lead to its CA.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file with its private key, not encrypted.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// Where our certificate for https CAs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    cert: PathBuf,
    key: PathBuf,
}

/// Our certificate for https CAs cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {path}: {detail}")]
pub struct ClientError {
    key: &'static str,
    path: PathBuf,
    detail: String,
}

impl ClientFiles {
    /// The files; `None`: we show no certificate.
    ///
    /// # Errors
    /// Only one of the two is set.
    pub fn of(config: &CaTlsConfig) -> Result<Option<Self>, &'static str> {
        match (&config.cert_file, &config.key_file) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(Self { cert: cert.clone(), key: key.clone() })),
            _ => Err("ca_tls.cert_file and ca_tls.key_file belong together; set both or none"),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn read(&self) -> Result<ClientCert, ClientError> {
        let wrong = |key, path: &Path, detail: String| ClientError { key, path: path.to_owned(), detail };
        let in_cert = |detail: String| wrong("ca_tls.cert_file", &self.cert, detail);
        let in_key = |detail: String| wrong("ca_tls.key_file", &self.key, detail);
        let chain = fs::read_to_string(&self.cert).map_err(|error| in_cert(error.to_string()))?;
        let chain = Certificate::pem_bundle(&chain).map_err(|error| in_cert(error.to_string()))?;
        let key = Zeroizing::new(fs::read(&self.key).map_err(|error| in_key(error.to_string()))?);
        client_cert(&chain, &key).map_err(|error| in_key(error.to_string()))
    }

    /// The two files.
    pub fn paths(&self) -> [&Path; 2] {
        [&self.cert, &self.key]
    }
}

/// A chain and its key, as the HTTP client wants them.
///
/// # Errors
/// The key is no private key in PEM.
pub fn client_cert(chain: &[Certificate], key_pem: &[u8]) -> Result<ClientCert, ureq::Error> {
    let chain: Vec<_> = chain.iter().map(|one| TlsCertificate::from_der(one.as_der()).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, PrivateKey::from_pem(key_pem)?))
}

/// When files were changed last, and their sizes: equal stamps, equal contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    /// Of these files, links followed; one that cannot be read has none.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let of = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self(paths.into_iter().map(of).collect())
    }
}
