//! The certificate of the API's listener, swapped while connections go on: each handshake takes the one in use.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use trustfleet_pki::certificate::Certificate;

use super::{
    TlsError, provider,
    watched::{Look, Watched},
};
use crate::metrics::Metrics;

const CERT_KEY: &str = "http.tls_cert_file";
const KEY_KEY: &str = "http.tls_key_file";
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The API's certificate and key.
pub struct ServerTls {
    watched: Watched<Identity>,
}

struct Identity {
    config: Arc<ServerConfig>,
    not_after: Timestamp,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls(until {})", self.not_after())
    }
}

impl ServerTls {
    /// Reads both files.
    ///
    /// # Errors
    /// A file cannot be read, or key and certificate do not fit.
    pub fn new(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let (cert_file, key_file) = (cert_file.to_owned(), key_file.to_owned());
        let paths = vec![cert_file.clone(), key_file.clone()];
        Ok(Self { watched: Watched::new(paths, move || identity(&cert_file, &key_file))? })
    }

    /// For the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.watched.value().config)
    }

    /// When the certificate in use ends.
    pub fn not_after(&self) -> Timestamp {
        self.watched.value().not_after
    }

    /// What an operator must know: new files that were refused, a certificate that has ended.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let refused = self.watched.is_refused().then(|| {
            "the API's new certificate was refused, the former one is still in use; the log says why".to_owned()
        });
        let not_after = self.not_after();
        let ended = (not_after <= now).then(|| format!("the API's certificate ended at {not_after}"));
        refused.into_iter().chain(ended).collect()
    }

    /// Looks at the files once; tells the log and the metrics.
    fn look(&self, metrics: &Metrics) {
        match self.watched.look() {
            Look::Same => {}
            Look::Taken => tracing::info!(not_after = %self.not_after(), "the api's new certificate is in use"),
            Look::Refused(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::error!(error = %reason, "the api's new certificate refused, the former one stays in use");
            }
        }
        metrics.set_api_certificate(Some(self.not_after()), self.watched.is_refused());
    }
}

/// Looks at the files every few seconds, and at once at SIGHUP, until `shutdown`.
pub(crate) async fn keep(
    tls: Option<Arc<ServerTls>>,
    metrics: Arc<Metrics>,
    mut hangup: Signal,
    shutdown: CancellationToken,
) {
    loop {
        match &tls {
            Some(tls) => tls.look(&metrics),
            None => metrics.set_api_certificate(None, false),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Caught without TLS as well: it would end the process otherwise.
            _ = hangup.recv() => tracing::info!("told to look at the certificate's files again"),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn identity(cert_file: &Path, key_file: &Path) -> Result<Identity, TlsError> {
    let wrong = |key, path: &Path, what: String| TlsError::Wrong { key, path: PathBuf::from(path), what };
    let read = |key, path: &Path| {
        fs::read(path).map(zeroize::Zeroizing::new).map_err(|source| TlsError::Unreadable {
            key,
            path: path.to_owned(),
            source,
        })
    };
    let pem = read(CERT_KEY, cert_file)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(CERT_KEY, cert_file, format!("is not PEM: {error}")))?;
    let first = chain.first().ok_or_else(|| wrong(CERT_KEY, cert_file, "holds no certificate in PEM".to_owned()))?;
    let not_after = Certificate::from_der(first)
        .map_err(|error| wrong(CERT_KEY, cert_file, format!("holds a certificate that cannot be read: {error}")))?
        .not_after();
    let key = PrivateKeyDer::from_pem_slice(&read(KEY_KEY, key_file)?)
        .map_err(|_| wrong(KEY_KEY, key_file, "holds no private key in PEM".to_owned()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(KEY_KEY, key_file, format!("does not fit the certificate: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), not_after })
}
