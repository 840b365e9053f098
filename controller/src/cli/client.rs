//! HTTP to the controller: the only file of the verbs that names ureq.
//!
//! Redirects are not followed and the token never leaves for another machine in plain text, unless that was asked for.

use std::{fs, path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use trustfleet_model::secret::SecretText;
use ureq::{
    Body,
    http::{Method, Request, Response, StatusCode, header},
    tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};
use url::{Host, Url};

use super::{args::Connection, error::CliError, problem::Problem};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer, bytes: a full page of the largest objects.
const ANSWER_MAX: u64 = 256 * 1024 * 1024;
/// Where Debian and its relatives, then Red Hat's, keep the system's CA certificates.
const SYSTEM_CA_FILES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A connection to one controller with one token.
pub(super) struct Client {
    agent: ureq::Agent,
    base: Url,
    token: Option<SecretText>,
}

/// One request: method, path segments (each is encoded), query, body, extra headers.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, String)],
    pub(super) body: Option<&'a Value>,
    pub(super) headers: &'a [(&'static str, String)],
    /// A body that is no JSON: its media type, and itself.
    pub(super) content: Option<(&'static str, &'a str)>,
}

impl<'a> Call<'a> {
    /// A call without query, body and headers.
    pub(super) const fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: &[], body: None, headers: &[], content: None }
    }
}

impl Client {
    /// Checks URL and trust; nothing is sent yet.
    pub(super) fn new(connection: &Connection, token: Option<SecretText>) -> Result<Self, CliError> {
        let base = check_url(&connection.url, connection.insecure_plaintext)?;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT))
            .user_agent(concat!("trustfleet/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "https" {
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .root_certs(roots(connection.ca_file.as_deref())?)
                .build();
            config = config.tls_config(tls);
        }
        Ok(Self { agent: config.build().into(), base, token })
    }

    /// Sends a call; gives the answer's JSON (null when there is none).
    ///
    /// # Errors
    /// [`CliError::Refused`] with the controller's reasons, or that it cannot be reached.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Value, CliError> {
        let url = self.url(call)?;
        let (status, text, retry_after) = self.exchange(call, &url)?;
        read(&url, status, &text, retry_after)
    }

    /// Sends a call whose answer is a text, such as JSON lines.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(super) fn send_for_text(&self, call: &Call<'_>) -> Result<String, CliError> {
        let url = self.url(call)?;
        let (status, text, retry_after) = self.exchange(call, &url)?;
        if status.is_success() {
            return Ok(text);
        }
        read(&url, status, &text, retry_after).map(|_| String::new())
    }

    /// Copies such a text as it comes, however long it is; one that breaks off is an error.
    ///
    /// # Errors
    /// Refused, unreachable, broken off, or `writer`'s own.
    pub(super) fn copy(&self, call: &Call<'_>, writer: &mut dyn std::io::Write) -> Result<(), CliError> {
        let url = self.url(call)?;
        let mut answer = self.sent(call, &url)?;
        if !answer.status().is_success() {
            let (status, text, retry_after) = self.taken(answer)?;
            return read(&url, status, &text, retry_after).map(drop);
        }
        let mut reader = answer.body_mut().with_config().limit(u64::MAX).reader();
        std::io::copy(&mut reader, writer).map_err(|error| self.unreachable(&error))?;
        Ok(())
    }

    /// One line of such a text.
    ///
    /// # Errors
    /// It is not JSON.
    pub(super) fn line(&self, call: &Call<'_>, line: &str) -> Result<Value, CliError> {
        read(&self.url(call)?, StatusCode::OK, line, None)
    }

    fn sent(&self, call: &Call<'_>, url: &Url) -> Result<Response<Body>, CliError> {
        let mut request = Request::builder().method(call.method.clone()).uri(url.as_str());
        request = request.header(header::ACCEPT, "application/json, application/x-ndjson, application/problem+json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        let body = call.body.map(Value::to_string);
        let media = call.content.map(|(media, _)| media).or_else(|| body.as_ref().map(|_| "application/json"));
        if let Some(media) = media {
            request = request.header(header::CONTENT_TYPE, media);
        }
        let bad = |error: ureq::http::Error| CliError::Usage(format!("the request cannot be built: {error}"));
        let body = body.as_deref().or_else(|| call.content.map(|(_, text)| text));
        let outcome = match body {
            Some(body) => self.agent.run(request.body(body).map_err(bad)?),
            None => self.agent.run(request.body(()).map_err(bad)?),
        };
        outcome.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> CliError {
        let url = self.base.as_str().trim_end_matches('/').to_owned();
        CliError::Unreachable { url, reason: error.to_string() }
    }

    fn exchange(&self, call: &Call<'_>, url: &Url) -> Result<(StatusCode, String, Option<u64>), CliError> {
        self.taken(self.sent(call, url)?)
    }

    fn taken(&self, mut answer: Response<Body>) -> Result<(StatusCode, String, Option<u64>), CliError> {
        let status = answer.status();
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
        Ok((status, text.map_err(|error| self.unreachable(&error))?, retry_after))
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, CliError> {
        let mut url = self.base.clone();
        for segment in call.path {
            // The URL standard would drop these silently, and the call would reach another resource.
            if matches!(*segment, "" | "." | "..") {
                return Err(CliError::Usage(format!("{segment:?} is not a name or id")));
            }
        }
        url.path_segments_mut()
            .map_err(|()| CliError::Usage(format!("{} cannot be a controller's URL", self.base)))?
            .pop_if_empty()
            .extend(call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        Ok(url)
    }
}

/// Takes an answer apart: JSON on success, the controller's reasons on refusal.
fn read(url: &Url, status: StatusCode, text: &str, retry_after: Option<u64>) -> Result<Value, CliError> {
    let strange = |what: String| CliError::NotTrustfleet { url: url.to_string(), what };
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_str(text).map_err(|error| strange(format!("it is not JSON ({error})")));
    }
    match serde_json::from_str::<Problem>(text) {
        Ok(mut problem) => {
            problem.retry_after = retry_after;
            Err(CliError::Refused(Box::new(problem)))
        }
        Err(_) => Err(strange(format!("HTTP {status} without a problem document"))),
    }
}

fn check_url(text: &str, insecure_plaintext: bool) -> Result<Url, CliError> {
    let url = Url::parse(text).map_err(|error| CliError::Usage(format!("--url {text:?} is not a URL: {error}")))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || insecure_plaintext => Ok(url),
        "http" => Err(CliError::Usage(format!(
            "--url {text:?} would send the token in plain text to another machine; use https, or say --insecure-plaintext"
        ))),
        scheme => Err(CliError::Usage(format!("--url {text:?} has the scheme {scheme:?}; give http or https"))),
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCerts, CliError> {
    let path = match ca_file {
        Some(path) => path,
        None => SYSTEM_CA_FILES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
            CliError::Usage("the system's CA certificates were not found; name a PEM file by --ca-file".to_owned())
        })?,
    };
    let pem = fs::read(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(CliError::Usage(format!("{} holds no certificate in PEM", path.display())));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        Client { agent: ureq::Agent::new_with_defaults(), base: Url::parse(url).unwrap(), token: None }
    }

    #[test]
    fn names_are_encoded_and_cannot_leave_their_place_in_the_path() {
        let client = client("http://127.0.0.1:8080/base/");
        let url = client.url(&Call::new(Method::GET, &["v1", "tenants", "a/b?c"])).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:8080/base/v1/tenants/a%2Fb%3Fc");
        for bad in ["", ".", ".."] {
            assert!(client.url(&Call::new(Method::DELETE, &["v1", "devices", bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_not_sent_in_plain_text_to_another_machine() {
        assert!(check_url("http://127.0.0.1:8080", false).is_ok());
        assert!(check_url("http://[::1]:8080", false).is_ok());
        assert!(check_url("https://controller.example", false).is_ok());
        assert!(check_url("http://controller.example", true).is_ok());
        let error = check_url("http://controller.example", false).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("plain text"), "{error}");
    }

    #[test]
    fn an_answer_of_another_service_is_told_from_a_refusal() {
        let url = Url::parse("http://127.0.0.1:1/v1/tenants").unwrap();
        let strange = read(&url, StatusCode::NOT_FOUND, "<html>", None).unwrap_err();
        assert!(matches!(strange, CliError::NotTrustfleet { .. }));
        let json = r#"{"title":"Away","status":503,"code":"unavailable","detail":"the database is away"}"#;
        let refused = read(&url, StatusCode::SERVICE_UNAVAILABLE, json, Some(5)).unwrap_err();
        assert!(refused.screen().contains("in 5 s"), "{}", refused.screen());
    }

    #[test]
    fn a_closed_port_is_told_as_unreachable() {
        let client = client("http://127.0.0.1:1/");
        let error = client.send(&Call::new(Method::GET, &["v1", "tenants"])).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}
