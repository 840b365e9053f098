//! Bytes to the CA and back over HTTP (RFC 9811): POST, bounded in size and time, no redirects.
//!
//! It never looks into a message beyond asking whether it is one, and what HTTP says never changes a transaction (T4):
//! a status code only decides whether there is an answer at all.

mod resolver;
mod source;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;
use trustfleet_cmp::codec::PkiMessage;
use trustfleet_cmp::text::sanitise;
use trustfleet_telemetry::{in_trace, record_error, trace_span};
use ureq::Proxy;
use ureq::tls::{ClientCert, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use url::Url;

use self::resolver::NamesOnly;
pub use self::source::{Source, SourceError};
use crate::ca_tls::{ClientFiles, Stamp};
use crate::tls_roots::TlsRoots;

/// Longest answer that is read, bytes (T9).
pub const ANSWER_MAX: u64 = 1024 * 1024;
/// Longest time to connect; a server that takes longer counts as unreachable (T9).
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Of a connection, in each direction, bytes: a CMP message has some thousand. The library's own 128 KB would stay in the
/// allocator's hands afterwards.
pub(crate) const BUFFER: usize = 16 * 1024;
const CMP: &str = "application/pkixcmp";

/// No CMP message came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No byte of the request has left: another server may be tried (T5).
    #[error("{url} cannot be reached: {detail}")]
    NotConnected {
        /// The server.
        url: String,
        /// Why.
        detail: String,
    },
    /// The request may have arrived, no answer came: the same bytes may be sent again (T5).
    #[error("no answer from {url}: {detail}")]
    NoAnswer {
        /// The server.
        url: String,
        /// Why.
        detail: String,
    },
    /// HTTP answered, but not with a CMP message (T2).
    #[error(
        "{url} answered HTTP status {status} without a CMP message: {text:?}: check the URL and whether the server speaks CMP"
    )]
    NotCmp {
        /// The server.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said: untrusted, cleaned and cut.
        text: String,
    },
    /// A redirect: not followed (T3).
    #[error(
        "{url} redirects (HTTP status {status}) to {location:?}: redirects are not followed; configure the final URL"
    )]
    Redirect {
        /// The server.
        url: String,
        /// HTTP status.
        status: u16,
        /// Where to: untrusted, cleaned and cut.
        location: String,
    },
    /// The answer is too long.
    #[error("{url} answered with more than {ANSWER_MAX} bytes")]
    TooLong {
        /// The server.
        url: String,
    },
}

impl HttpError {
    /// Stable code for reports.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "ca_unreachable",
            Self::NoAnswer { .. } => "ca_no_answer",
            Self::NotCmp { .. } => "ca_not_cmp",
            Self::Redirect { .. } => "ca_redirects",
            Self::TooLong { .. } => "ca_answer_too_long",
        }
    }

    /// Whether the server may have taken the request.
    pub const fn request_may_have_arrived(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Redirect { .. } => false,
            Self::NotCmp { status, .. } => *status >= 500 || *status < 300,
            Self::NoAnswer { .. } | Self::TooLong { .. } => true,
        }
    }

    /// Whether sending the same bytes again can help.
    pub const fn is_worth_a_repeat(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::NoAnswer { .. } => true,
            Self::NotCmp { status, .. } => matches!(*status, 429 | 502 | 503 | 504),
            Self::Redirect { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// How servers are reached.
#[derive(Debug)]
pub struct Reach {
    /// Roots that verify https servers.
    pub roots: RootCerts,
    /// Our certificate for https.
    pub client: Option<ClientCert>,
    /// An HTTP proxy, reached by CONNECT for http and https alike.
    pub proxy: Option<Proxy>,
    /// Where connections come from (S7).
    pub source: Source,
}

impl From<RootCerts> for Reach {
    fn from(roots: RootCerts) -> Self {
        Self { roots, client: None, proxy: None, source: Source::default() }
    }
}

/// The one HTTP client for CMP.
#[derive(Clone, Debug)]
pub struct CmpHttp {
    agent: ureq::Agent,
    https: Option<Arc<Https>>,
    source: Source,
}

/// The client for https, made with the first such server, and anew when one of its files has changed.
#[derive(Debug)]
struct Https {
    roots: TlsRoots,
    client: Option<ClientFiles>,
    made: Mutex<Option<(Stamp, ureq::Agent)>>,
}

impl Https {
    fn agent(&self) -> Result<ureq::Agent, String> {
        let files = self.client.iter().flat_map(ClientFiles::paths);
        let stamp = Stamp::of(self.roots.path().into_iter().chain(files));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, agent)) = made.as_ref()
            && *of == stamp
        {
            return Ok(agent.clone());
        }
        let roots = self.roots.http().map_err(|error| error.to_string())?;
        let client = self.client.as_ref().map(ClientFiles::read).transpose().map_err(|error| error.to_string())?;
        let agent = CmpHttp::reaching(Reach { client, ..Reach::from(roots) }).agent;
        *made = Some((stamp, agent.clone()));
        Ok(agent)
    }
}

impl CmpHttp {
    /// A client; `roots` verify https servers, `client` shows them who we are. Both are read for the first of them. Connections come
    /// from `source`, where no order says otherwise.
    pub fn new(roots: TlsRoots, client: Option<ClientFiles>, source: Source) -> Self {
        let plain = Self::reaching(Reach { source, ..Reach::from(RootCerts::from(Vec::new())) });
        Self { https: Some(Arc::new(Https { roots, client, made: Mutex::new(None) })), ..plain }
    }

    /// A client that reaches servers in its own way. The proxy of the environment is never used.
    pub fn reaching(reach: Reach) -> Self {
        let Reach { roots, client, proxy, source } = reach;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).client_cert(client);
        let config = ureq::Agent::config_builder()
            .tls_config(tls.unversioned_rustls_crypto_provider(provider).build())
            .proxy(proxy)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // A kept connection that the server has closed meanwhile could not be told from a lost request.
            .max_idle_connections(0)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_resolve(Some(CONNECT_MAX))
            .user_agent(concat!("trustfleet-agent/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: client_from(config, &source), https: None, source }
    }

    /// The same client, whose connections come from a local address or through an interface (S7); without either they come from
    /// where this one's do.
    #[must_use]
    pub fn coming_from(&self, source: &Source) -> Self {
        if *source == Source::default() || *source == self.source {
            return self.clone();
        }
        let agent = client_from(self.agent.config().clone(), source);
        Self { agent, https: self.https.clone(), source: source.clone() }
    }

    /// Whether this device has what connections are to come from: what was ordered, or else what this client has itself (S7).
    ///
    /// # Errors
    /// What is missing, and what there is instead.
    pub fn check_source(&self, ordered: &Source) -> Result<(), SourceError> {
        if *ordered == Source::default() { self.source.check() } else { ordered.check() }
    }

    /// Whether a server can be connected to at all: nothing is sent, and a connection that comes about is closed at once
    /// (S31a). Through a proxy nothing can be said beforehand.
    ///
    /// # Errors
    /// [`HttpError::NotConnected`].
    pub fn reach(&self, url: &str) -> Result<(), HttpError> {
        if self.agent.config().proxy().is_some() {
            return Ok(());
        }
        let not_there = |detail: String| HttpError::NotConnected { url: url.to_owned(), detail };
        let parsed = Url::parse(url).map_err(|error| not_there(error.to_string()))?;
        let addresses = parsed.socket_addrs(|| None).map_err(|error| not_there(error.to_string()))?;
        self.source.reach(&addresses, CONNECT_MAX).map_err(|error| not_there(error.to_string()))
    }

    /// Posts a message and reads the answer. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// No CMP message came back.
    pub fn post(&self, url: &str, message: &[u8], timeout: Duration) -> Result<Vec<u8>, HttpError> {
        let span = span(url, message);
        let answer = span.in_scope(|| self.send(url, message, timeout, &span));
        match &answer {
            Ok(answer) => note_answer(&span, answer),
            Err(error) => record_error(&span, error.code(), true),
        }
        answer
    }

    /// The client for a URL.
    fn agent(&self, url: &str) -> Result<ureq::Agent, HttpError> {
        let https = self.https.as_ref().filter(|_| Url::parse(url).is_ok_and(|url| url.scheme() == "https"));
        let Some(https) = https else { return Ok(self.agent.clone()) };
        let not_ready = |detail| HttpError::NotConnected { url: url.to_owned(), detail };
        let agent = https.agent().map_err(not_ready)?;
        if self.source == Source::default() {
            return Ok(agent);
        }
        Ok(client_from(agent.config().clone(), &self.source))
    }

    fn send(&self, url: &str, message: &[u8], timeout: Duration, span: &Span) -> Result<Vec<u8>, HttpError> {
        let sent = self
            .agent(url)?
            .post(url)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("content-type", CMP)
            .header("accept", CMP)
            // Said, because it is so: OpenSSL's server forgets the transaction when a kept connection ends unannounced.
            .header("connection", "close")
            .send(message);
        let mut response = sent.map_err(|error| classify(url, &error))?;
        let status = response.status().as_u16();
        span.record("http.response.status_code", i64::from(status));
        if (300..400).contains(&status) {
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let location = sanitise(location.unwrap_or_default());
            return Err(HttpError::Redirect { url: url.to_owned(), status, location });
        }
        let body = match response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec() {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(HttpError::TooLong { url: url.to_owned() }),
            Err(error) => return Err(HttpError::NoAnswer { url: url.to_owned(), detail: error.to_string() }),
        };
        // T2, T8: the content decides, not the status and not the content type, which some servers leave out.
        if (200..300).contains(&status) && !body.is_empty() || PkiMessage::from_der(&body).is_ok() {
            return Ok(body);
        }
        let text = sanitise(&String::from_utf8_lossy(&body[..body.len().min(1024)]));
        Err(HttpError::NotCmp { url: url.to_owned(), status, text })
    }

    /// Gets a file: a CRL of a distribution point. Blocks for at most `timeout`; redirects are not followed.
    ///
    /// # Errors
    /// There is none, or it has more than [`ANSWER_MAX`] bytes.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<Vec<u8>, HttpError> {
        let got = self.agent(url)?.get(url).config().timeout_global(Some(timeout)).build().call();
        let mut response = got.map_err(|error| classify(url, &error))?;
        let status = response.status().as_u16();
        let body = match response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec() {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(HttpError::TooLong { url: url.to_owned() }),
            Err(error) => return Err(HttpError::NoAnswer { url: url.to_owned(), detail: error.to_string() }),
        };
        if status == 200 {
            return Ok(body);
        }
        let detail = format!("HTTP status {status}");
        Err(HttpError::NoAnswer { url: url.to_owned(), detail })
    }

    /// Posts without caring for the answer (an error message to the CA, E1).
    pub fn tell(&self, url: &str, message: &[u8], timeout: Duration) {
        if let Err(error) = self.post(url, message, timeout) {
            tracing::debug!(%error, "the ca did not take our error message");
        }
    }
}

/// A client whose connections come from `source`.
pub(crate) fn client_from(config: ureq::config::Config, source: &Source) -> ureq::Agent {
    if *source == Source::default() {
        return ureq::Agent::with_parts(config, DefaultConnector::default(), NamesOnly::default());
    }
    ureq::Agent::with_parts(config, source::connector(source.clone()), NamesOnly::default())
}

/// The span of one request to a CA. The CA is told nothing of it: no `traceparent` leaves the house.
fn span(url: &str, message: &[u8]) -> Span {
    if !in_trace() {
        return Span::none();
    }
    let (kind, transaction) = described(message);
    let server = Url::parse(url).ok();
    let server = server.as_ref();
    trace_span!(
        "client",
        format_args!("POST {kind}"),
        http.request.method = "POST",
        http.response.status_code = Empty,
        server.address = server.and_then(Url::host_str),
        server.port = server.and_then(Url::port_or_known_default).map(i64::from),
        trustfleet.cmp.request = kind,
        trustfleet.cmp.response = Empty,
        trustfleet.cmp.transaction_id = transaction,
    )
}

fn note_answer(span: &Span, answer: &[u8]) {
    if !span.is_disabled() {
        span.record("trustfleet.cmp.response", described(answer).0);
    }
}

/// Kind and transactionID of a message, nothing else of it.
fn described(message: &[u8]) -> (&'static str, Option<String>) {
    PkiMessage::from_der(message).map_or(("unreadable", None), |message| {
        (message.body.kind().name(), message.header.transaction_id.as_ref().map(|id| hex::encode(id.as_bytes())))
    })
}

/// Only errors that come before the first byte of the request say that nothing has left.
fn classify(url: &str, error: &ureq::Error) -> HttpError {
    use ureq::Timeout;
    let (url, detail) = (url.to_owned(), error.to_string());
    let before = match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::BadUri(_)
        | ureq::Error::Tls(_)
        | ureq::Error::TlsRequired
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::Io(error) => {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    | io::ErrorKind::AddrNotAvailable
            ) || error.get_ref().and_then(|below| below.downcast_ref()).is_some_and(ends_the_handshake)
        }
        _ => false,
    };
    if before { HttpError::NotConnected { url, detail } } else { HttpError::NoAnswer { url, detail } }
}

/// We do not take the server's certificate, or speak no common TLS: that is known before the first byte of a request.
const fn ends_the_handshake(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::PeerIncompatible(_))
}

/// The client that everything in the agent shares.
pub type SharedHttp = Arc<CmpHttp>;
