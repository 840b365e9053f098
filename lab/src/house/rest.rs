//! A client of the public REST API: JSON in, JSON out, status codes left to the caller.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

/// A credential at a controller.
#[derive(Clone)]
pub struct Rest {
    base: Url,
    token: Option<String>,
    agent: ureq::Agent,
}

/// What came back: any status.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type, without parameters.
    pub content_type: String,
    /// The body as JSON; `Null` when it is empty, a string when it is not JSON.
    pub body: Value,
}

/// The controller could not be reached, or said something else than expected.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No answer.
    #[error("{method} {url} got no answer")]
    NoAnswer {
        /// HTTP method.
        method: String,
        /// The whole URL.
        url: String,
        /// The client's reason.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Not a 2xx status.
    #[error("{method} {url} was answered with {status}: {body}")]
    Refused {
        /// HTTP method.
        method: String,
        /// The whole URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// The problem.
        body: Value,
    },
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Rest {
    /// A client at `base` that shows `token`, or no credential.
    pub fn new(base: Url, token: Option<String>) -> Self {
        Self::with_tls(base, token, TlsConfig::default())
    }

    /// The same for a controller at https, verified by the roots in `ca_file`.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn trusting(base: Url, token: Option<String>, ca_file: &Path) -> io::Result<Self> {
        let root = Certificate::from_pem(&fs::read(ca_file)?).map_err(io::Error::other)?;
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[root]))
            .build();
        Ok(Self::with_tls(base, token, tls))
    }

    fn with_tls(base: Url, token: Option<String>, tls: TlsConfig) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .tls_config(tls)
            .build();
        Self { base, token, agent: config.into() }
    }

    /// The same client with another credential.
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// The same client at another replica.
    pub fn at(&self, base: Url) -> Self {
        Self { base, ..self.clone() }
    }

    /// The controller's URL.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// One request with any method and headers; any status is an answer.
    ///
    /// # Errors
    /// [`RestError::NoAnswer`].
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, RestError> {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let no_answer = |source: ureq::Error| RestError::NoAnswer {
            method: method.to_owned(),
            url: url.clone(),
            source: Box::new(source),
        };
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let text = body.map(Value::to_string);
        if text.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(text.unwrap_or_default()).map_err(|error| no_answer(error.into()))?;
        let mut response = self.agent.run(request).map_err(no_answer)?;
        let content_type = response.body().mime_type().unwrap_or_default().to_owned();
        let text = response.body_mut().read_to_string().map_err(no_answer)?;
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        Ok(Answer { status: response.status().as_u16(), content_type, body })
    }

    /// GET, expected to succeed.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn get(&self, path: &str) -> Result<Value, RestError> {
        self.expect("GET", path, None)
    }

    /// POST, expected to succeed.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, RestError> {
        self.expect("POST", path, Some(body))
    }

    /// PUT, expected to succeed.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn put(&self, path: &str, body: &Value) -> Result<Value, RestError> {
        self.expect("PUT", path, Some(body))
    }

    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, RestError> {
        let answer = self.send(method, path, &[], body)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        Err(RestError::Refused { method: method.to_owned(), url, status: answer.status, body: answer.body })
    }
}
