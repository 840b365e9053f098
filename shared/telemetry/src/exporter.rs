//! OTLP over HTTP with protobuf, by the house's HTTP client. It blocks, which is right here: the queue behind it has a
//! thread of its own.

use std::{fmt, sync::Arc, time::Duration};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use url::Url;

use crate::config::{TracesConfig, TracesError, read};

/// Longest time for one batch; none is sent twice.
const EXPORT_MAX: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest answer of a receiver that is read, bytes.
const ANSWER_MAX: u64 = 64 * 1024;
/// Bundles of roots that distributions install.
const SYSTEM_CA_FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The exporter to the configured receiver; connects to nobody yet.
pub(crate) fn exporter(config: &TracesConfig, endpoint: &Url) -> Result<SpanExporter, TracesError> {
    let headers = config.headers()?;
    SpanExporter::builder()
        .with_http()
        .with_http_client(UreqClient::new(config, endpoint)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(TracesConfig::traces_url(endpoint))
        .with_timeout(EXPORT_MAX)
        // A batch that is not taken is lost and counted: a receiver that is away must not hold up the next one.
        .with_retry_policy(RetryPolicy::disabled())
        .with_headers(headers.into_iter().map(|(name, value)| (name, value.to_string())).collect())
        .build()
        .map_err(|error| TracesError::Exporter(error.to_string()))
}

struct UreqClient {
    agent: ureq::Agent,
}

impl fmt::Debug for UreqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UreqClient")
    }
}

impl UreqClient {
    fn new(config: &TracesConfig, endpoint: &Url) -> Result<Self, TracesError> {
        let mut agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_resolve(Some(CONNECT_MAX))
            .timeout_global(Some(EXPORT_MAX))
            .user_agent(concat!("trustfleet/", env!("CARGO_PKG_VERSION")));
        if endpoint.scheme() == "https" {
            let tls = TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .root_certs(roots(config)?)
                .build();
            agent = agent.tls_config(tls);
        }
        Ok(Self { agent: agent.build().new_agent() })
    }

    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let mut response = self.agent.run(Request::from_parts(parts, body.as_ref()))?;
        let bytes = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec()?;
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, Bytes::from(bytes)))
    }
}

#[async_trait::async_trait]
impl HttpClient for UreqClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.post(request)
    }
}

fn roots(config: &TracesConfig) -> Result<RootCerts, TracesError> {
    const KEY: &str = "traces.tls_ca_file";
    let wrong = |message: &str| TracesError::Value { key: KEY, message: message.to_owned() };
    let found = || SYSTEM_CA_FILES.iter().map(Into::into).find(|path: &std::path::PathBuf| path.exists());
    let path = config.tls_ca_file.clone().or_else(found);
    let path = path.ok_or_else(|| wrong("must name a PEM file with roots: this system has none"))?;
    let pem = read(KEY, &path)?;
    let certificates: Vec<_> = parse_pem(pem.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(wrong("names a file without a certificate in PEM"));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
