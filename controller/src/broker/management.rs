//! RabbitMQ's management API, for the one thing that AMQP cannot do: to close somebody else's connection.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use trustfleet_model::secret::SecretText;
use ureq::{
    http::{Method, Request, StatusCode, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};
use url::Url;

use super::BrokerError;
use crate::config::BrokerConfig;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest list of one agent's connections, bytes.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// An administrator's access to the management API. Its calls block.
#[derive(Clone)]
pub struct Management {
    base: Url,
    authorization: SecretText,
    ca_file: Option<PathBuf>,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Management({})", self.base)
    }
}

/// A connection in the list; everything else about it does not matter here.
#[derive(Deserialize)]
struct Listed {}

impl Management {
    /// The access that is configured, if any is.
    pub fn of(config: &BrokerConfig) -> Option<Self> {
        let url = config.management_url.as_ref()?.expose();
        let decode = |text: &str| percent_decoded(text);
        let credentials = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
        let authorization = SecretText::new(format!("Basic {}", STANDARD.encode(credentials)));
        let mut base = url.clone();
        // A URL with a host takes both.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        Some(Self { base, authorization, ca_file: config.tls_ca_file.clone() })
    }

    /// Closes all connections of a user, on all nodes; returns how many there were.
    ///
    /// # Errors
    /// The management API cannot be reached or refused.
    pub fn close_connections(&self, user: &str, reason: &str) -> Result<usize, BrokerError> {
        let agent = self.agent()?;
        let open: Vec<Listed> = match self.call(&agent, Method::GET, user, reason)? {
            Some(text) => serde_json::from_str(&text).map_err(failed)?,
            None => Vec::new(),
        };
        if !open.is_empty() {
            self.call(&agent, Method::DELETE, user, reason)?;
        }
        Ok(open.len())
    }

    /// `None`: there is nobody of that name.
    fn call(
        &self,
        agent: &ureq::Agent,
        method: Method,
        user: &str,
        reason: &str,
    ) -> Result<Option<String>, BrokerError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| failed("broker.management_url cannot have a path"))?
            .pop_if_empty()
            .extend(["api", "connections", "username", user]);
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, self.authorization.expose())
            .header("X-Reason", reason)
            .body(())
            .map_err(failed)?;
        let mut answer = agent.run(request).map_err(failed)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string().map_err(failed)?;
                Ok(Some(text))
            }
            status => Err(failed(format!("the broker's management answered {status}"))),
        }
    }

    fn agent(&self) -> Result<ureq::Agent, BrokerError> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT));
        if self.base.scheme() == "https" {
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .root_certs(self.roots()?)
                .build();
            config = config.tls_config(tls);
        }
        Ok(config.build().into())
    }

    /// Read for each call: there are few, and the file may have changed.
    fn roots(&self) -> Result<RootCerts, BrokerError> {
        let certificates: Vec<Certificate<'static>> = match &self.ca_file {
            Some(path) => {
                let pem = fs::read(path).map_err(failed)?;
                let items = parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                items.collect()
            }
            None => rustls_native_certs::load_native_certs()
                .certs
                .iter()
                .map(|der| Certificate::from_der(der).to_owned())
                .collect(),
        };
        Ok(RootCerts::new_with_certs(&certificates))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
    BrokerError::Refused { source: error.into() }
}

/// User and password as they are, not as URLs spell them.
fn percent_decoded(text: &str) -> String {
    let encoded = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(encoded.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_sent_as_it_is_and_never_shown() {
        let url: Url = "http://admin:a%40b+c%25@127.0.0.1:15672/".parse().unwrap();
        let config = serde_json::json!({
            "url": "amqp://127.0.0.1/%2f", "agent_url": "amqp://127.0.0.1/%2f", "management_url": url
        });
        let management = Management::of(&serde_json::from_value(config).unwrap()).unwrap();
        let sent = management.authorization.expose().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(sent).unwrap(), b"admin:a@b+c%");
        let shown = format!("{management:?}");
        assert!(!shown.contains("a%40b") && !shown.contains(sent), "{shown}");
    }
}
