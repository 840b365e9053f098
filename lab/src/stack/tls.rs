//! A certification authority for the TLS of a private stack, made anew for each one: never used with anything real.
//!
//! It has nothing to do with the lab CA that issues devices' certificates over CMP.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{StackError, keys::write_private};

/// Names of everything in a stack.
pub const LOOPBACK_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// Last year of everything that is issued here: far enough for a throw-away stack.
const LAST_YEAR: i32 = 2049;

/// A server's certificate and key, and the root that verifies it, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The root.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// An authority for servers' certificates.
pub struct TlsAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for TlsAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAuthority")
    }
}

impl TlsAuthority {
    /// A new one with a key of its own.
    ///
    /// # Errors
    /// [`StackError::Certificate`].
    pub fn new(name: &str) -> Result<Self, StackError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_after = date_time_ymd(LAST_YEAR, 12, 31);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for `names` (DNS names and addresses) until the end of `last_year`, and its key, both PEM.
    ///
    /// # Errors
    /// [`StackError::Certificate`].
    pub fn issue(&self, names: &[&str], last_year: i32) -> Result<(String, String), StackError> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = common_name(names.first().copied().unwrap_or("nobody"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_after = date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// The same in files of `dir`: `NAME-ca.pem`, `NAME.pem` and `NAME.key`.
    ///
    /// # Errors
    /// [`StackError::Certificate`] or [`StackError::Io`].
    pub fn write(&self, dir: &Path, name: &str, names: &[&str]) -> Result<TlsFiles, StackError> {
        fs::create_dir_all(dir).map_err(StackError::io(format!("creating {}", dir.display())))?;
        let files = TlsFiles {
            ca: dir.join(format!("{name}-ca.pem")),
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        let (certificate, key) = self.issue(names, LAST_YEAR)?;
        write_private(&files.ca, &self.pem())?;
        write_private(&files.certificate, &certificate)?;
        write_private(&files.key, &key)?;
        Ok(files)
    }
}

impl TlsFiles {
    /// What verifies a server by the root and nothing else.
    ///
    /// # Errors
    /// [`StackError::Io`].
    pub fn client_config(&self) -> Result<ClientConfig, StackError> {
        let failed = StackError::io(format!("reading {}", self.ca.display()));
        let wrong = |error: &dyn std::error::Error| std::io::Error::other(error.to_string());
        let read = || {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_file(&self.ca).map_err(|error| wrong(&error))?;
            roots.add(root).map_err(|error| wrong(&error))?;
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&error))?;
            Ok(config.with_root_certificates(roots).with_no_client_auth())
        };
        read().map_err(failed)
    }
}

/// What serves with a certificate and its key, both PEM files.
///
/// # Errors
/// [`StackError::Io`].
pub fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, StackError> {
    let failed = StackError::io(format!("reading {} and {}", certificate.display(), key.display()));
    let wrong = |error: &dyn std::error::Error| std::io::Error::other(error.to_string());
    let read = || {
        let certificate = CertificateDer::from_pem_file(certificate).map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(|error| wrong(&error))
    };
    read().map_err(failed)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut found = DistinguishedName::new();
    found.push(DnType::OrganizationName, "Trustfleet Lab");
    found.push(DnType::CommonName, name);
    found
}
