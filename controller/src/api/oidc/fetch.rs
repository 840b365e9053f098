//! A provider's keys over HTTP: discovery, then the key set, both within limits and without redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig, parse_pem};
use url::Url;

use crate::config::OidcConfig;
use crate::telemetry::chain;
use crate::tls::TlsError;

const CONNECT_MAX: Duration = Duration::from_secs(3);
const CALL_MAX: Duration = Duration::from_secs(5);
/// Longest document that is read, bytes.
const DOCUMENT_MAX: u64 = 256 * 1024;
/// Most keys of a provider.
const KEYS_MAX: usize = 100;
const KEY: &str = "oidc.tls_ca_file";

/// Asks one provider.
pub(super) struct Fetcher {
    agent: ureq::Agent,
    config: OidcConfig,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({})", self.config.issuer)
    }
}

/// The part of a discovery document that matters (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

/// A key set (RFC 7517 section 5), its keys one by one: one that is strange must not spoil the others.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Fetcher {
    /// Nobody is asked yet.
    pub(super) fn new(config: &OidcConfig) -> Result<Self, TlsError> {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(roots(config.tls_ca_file.as_deref())?)
            .build();
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_resolve(Some(CONNECT_MAX))
            .timeout_global(Some(CALL_MAX))
            .user_agent(concat!("trustfleet/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Ok(Self { agent: agent.new_agent(), config: config.clone() })
    }

    /// The keys that verify signatures. Blocks.
    pub(super) fn keys(&self) -> Result<Vec<Jwk>, String> {
        let discovery = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let discovery: Discovery = self.get(&discovery)?;
        if discovery.issuer != self.config.issuer {
            return Err(format!("its discovery document is of the issuer {}", discovery.issuer));
        }
        if !self.config.allows(&discovery.jwks_uri) {
            return Err(format!("its keys are at {}, which is not encrypted", discovery.jwks_uri));
        }
        let set: KeySet = self.get(discovery.jwks_uri.as_str())?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys; at most {KEYS_MAX} are read", set.keys.len()));
        }
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let signs = |key: &Jwk| matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let keys: Vec<Jwk> = keys.filter(signs).collect();
        if keys.is_empty() { Err("it has no key that verifies signatures".to_owned()) } else { Ok(keys) }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let failed = |error: ureq::Error| format!("{url}: {}", chain(&error));
        let mut response = self.agent.get(url).header("accept", "application/json").call().map_err(failed)?;
        if response.status() != 200 {
            return Err(format!("{url}: HTTP status {}", response.status().as_u16()));
        }
        let text = response.body_mut().with_config().limit(DOCUMENT_MAX).read_to_string().map_err(failed)?;
        serde_json::from_str(&text).map_err(|error| format!("{url}: {error}"))
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCerts, TlsError> {
    let certificates: Vec<Certificate<'static>> = match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|source| TlsError::Unreadable {
                key: KEY,
                path: path.to_owned(),
                source,
            })?;
            let found = parse_pem(&pem).filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                let what = "holds no certificate in PEM".to_owned();
                return Err(TlsError::Wrong { key: KEY, path: path.to_owned(), what });
            }
            found
        }
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            system.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        }
    };
    Ok(RootCerts::new_with_certs(&certificates))
}
