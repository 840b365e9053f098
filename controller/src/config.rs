//! The controller's configuration: one typed tree, read once at the start; unknown keys are refused.
//!
//! A TOML file, then environment variables `TRUSTFLEET__SECTION__KEY` over it. Units are in the names. Passwords are
//! parts of URLs here and never printed.
//!
//! ```
//! let text = r#"
//! first_token_file = "/var/lib/trustfleet/platform.token"
//! [http]
//! listen = "127.0.0.1:8080"
//! [database]
//! api_url = "postgres://trustfleet_api@127.0.0.1/trustfleet"
//! system_url = "postgres://trustfleet_system@127.0.0.1/trustfleet"
//! owner_url = "postgres://trustfleet_owner@127.0.0.1/trustfleet"
//! [broker]
//! url = "amqp://user:pass@127.0.0.1:5672/%2f"
//! agent_url = "amqp://127.0.0.1:5672/%2f"
//! [keys]
//! signing_key_file = "/etc/trustfleet/controller-signing.pem"
//! broker_token_key_file = "/etc/trustfleet/broker-token.pem"
//! key_encryption_key_file = "/etc/trustfleet/kek.key"
//! "#;
//! let config = trustfleet_controller::config::Config::from_toml(text).unwrap();
//! assert_eq!(config.broker.token_lifetime_s, 900);
//! assert!(!format!("{config:?}").contains("pass@"));
//! ```

mod identity;
mod jobs;
mod retention;
mod transport;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format as _, Toml},
};
use serde::Deserialize;
use trustfleet_telemetry::{TracesConfig, TracesError};
use url::Url;

pub use self::identity::{GrantedRole, JwtAlgorithm, OidcConfig, OidcGrant};
pub use self::jobs::{CaBudgetConfig, OutboxConfig};
pub use self::retention::RetentionConfig;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the first platform token is written (mode 0600) when there is none yet.
    #[serde(default)]
    pub first_token_file: Option<PathBuf>,
    /// The REST API and the agents' doors.
    #[serde(default)]
    pub http: HttpConfig,
    /// Identity providers whose JWTs open the API.
    #[serde(default)]
    pub oidc: Vec<OidcConfig>,
    /// The life of tenants.
    #[serde(default)]
    pub tenants: TenantsConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// RabbitMQ.
    pub broker: BrokerConfig,
    /// Key files.
    pub keys: KeysConfig,
    /// Bounds on what agents may send.
    #[serde(default)]
    pub agents: AgentsConfig,
    /// Publication of jobs.
    #[serde(default)]
    pub outbox: OutboxConfig,
    /// What the server of a CA may be burdened with that has no budget of its own.
    #[serde(default)]
    pub ca_budget: CaBudgetConfig,
    /// Device actors.
    #[serde(default)]
    pub actors: ActorsConfig,
    /// Metrics.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditConfig,
    /// How long what is over is kept.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// Traces.
    #[serde(default)]
    pub traces: TracesConfig,
}

/// The REST API and the agents' doors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Threads that serve requests; default: one per core.
    #[serde(default)]
    pub workers: Option<usize>,
    /// Most connections of each of these threads at a time, 1 to 100,000; further ones wait to be accepted.
    #[serde(default = "default_http_connections")]
    pub max_connections: usize,
    /// Longest time from a request's first byte to its answer's last, seconds, 2 to 600.
    #[serde(default = "default_request_timeout_s")]
    pub request_timeout_s: u32,
    /// Requests a second of one credential in each replica, 0 to 100,000; 0 is no limit.
    #[serde(default = "default_rate_limit_per_s")]
    pub rate_limit_per_s: u32,
    /// Requests that one credential may make at once, 0 to 1,000,000; never less than those of a second.
    #[serde(default = "default_rate_limit_burst")]
    pub rate_limit_burst: u32,
    /// Wrong credentials a minute from one address in each replica, 0 to 100,000; 0 is no limit.
    #[serde(default = "default_failed_limit_per_min")]
    pub failed_limit_per_min: u32,
    /// The server's certificate and those that lead to its root, PEM; read again when the file changes, and at SIGHUP.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
    /// Allow plain HTTP on an address that is not loopback: only behind something that ends TLS.
    #[serde(default)]
    pub insecure_plaintext: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            workers: None,
            max_connections: default_http_connections(),
            request_timeout_s: default_request_timeout_s(),
            rate_limit_per_s: default_rate_limit_per_s(),
            rate_limit_burst: default_rate_limit_burst(),
            failed_limit_per_min: default_failed_limit_per_min(),
            tls_cert_file: None,
            tls_key_file: None,
            insecure_plaintext: false,
        }
    }
}

/// PostgreSQL, by three roles.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// As role `trustfleet_api`: one tenant at a time, by row level security.
    pub api_url: SecretUrl,
    /// As role `trustfleet_system`: group commit, outbox, inbox, token look-up.
    pub system_url: SecretUrl,
    /// As the owner of the tables; only `migrate` uses it.
    #[serde(default)]
    pub owner_url: Option<SecretUrl>,
    /// Most connections of each of the two roles.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// PEM file with the roots that verify the server; default: the system's. With it every connection is encrypted.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Allow plaintext to a server that is not on loopback.
    #[serde(default)]
    pub insecure_plaintext: bool,
}

/// RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// The controller's own account, `amqp://` or `amqps://`.
    pub url: SecretUrl,
    /// What agents are told, without credentials; its path names the virtual host.
    pub agent_url: Url,
    /// How long an agent's broker token is valid, seconds, 60 to 86,400.
    #[serde(default = "default_token_lifetime_s")]
    pub token_lifetime_s: u32,
    /// PEM file with the roots that verify the broker; default: the system's.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Allow `amqp://` to a broker that is not on loopback, for the controller and for agents.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// RabbitMQ's management API, `http://` or `https://`, with an account tagged `administrator`: by it the connections of
    /// agents in quarantine are closed. Without it they last until their token ends.
    #[serde(default)]
    pub management_url: Option<SecretUrl>,
    /// Where RabbitMQ publishes its log (`log.exchange = true`): the controller's account on that virtual host. What the broker
    /// denies to agents is counted and noted from it.
    #[serde(default)]
    pub log_url: Option<SecretUrl>,
}

/// Bounds on what agents may send.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentsConfig {
    /// Messages of one agent that a replica works on in a second, ten times as many at once, 1 to 100,000; what comes beyond
    /// is dropped, and its agent repeats it.
    #[serde(default = "default_messages_per_s")]
    pub messages_per_s: u32,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self { messages_per_s: default_messages_per_s() }
    }
}

/// Key files; `trustfleet keys init --dir D` makes them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Ed25519, PKCS#8 PEM: signs jobs and the answers of the agents' doors.
    pub signing_key_file: PathBuf,
    /// RSA, PKCS#8 PEM: signs the agents' broker tokens.
    pub broker_token_key_file: PathBuf,
    /// 32 bytes in base64: encrypts secrets at rest. `env:NAME` is the variable NAME instead of a file.
    pub key_encryption_key_file: PathBuf,
    /// Further keys of that kind, under which secrets are read but not written: those of before, or the next one.
    #[serde(default)]
    pub further_key_encryption_key_files: Vec<PathBuf>,
}

/// Device actors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorsConfig {
    /// Threads that run actors, 1 to 64.
    #[serde(default = "default_actor_threads")]
    pub threads: usize,
    /// Commands that may wait for one device, 1 to 10,000; one more is answered 503.
    #[serde(default = "default_mailbox")]
    pub mailbox: usize,
    /// An actor without commands for so long is dropped from memory, seconds, 1 to 86,400.
    #[serde(default = "default_idle_s")]
    pub idle_s: u32,
}

impl Default for ActorsConfig {
    fn default() -> Self {
        Self { threads: default_actor_threads(), mailbox: default_mailbox(), idle_s: default_idle_s() }
    }
}

/// The life of tenants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsConfig {
    /// How long a deleted tenant can be restored before it is purged, seconds, 60 to 31,536,000 (a year).
    #[serde(default = "default_delete_grace_s")]
    pub delete_grace_s: u32,
}

impl Default for TenantsConfig {
    fn default() -> Self {
        Self { delete_grace_s: default_delete_grace_s() }
    }
}

/// Metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Tenants that have series of their own, 0 to 1,000: the oldest; all others are counted together.
    #[serde(default = "default_tenants_max")]
    pub tenants_max: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { tenants_max: default_tenants_max() }
    }
}

/// The audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// How long a chained row may wait for a signature over it, seconds, 1 to 3600.
    #[serde(default = "default_checkpoint_s")]
    pub checkpoint_s: u32,
    /// How long rows are kept, days, 2 to 36,500; whole signed segments are dropped. 0: for ever.
    #[serde(default)]
    pub retention_days: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { checkpoint_s: default_checkpoint_s(), retention_days: 0 }
    }
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Lines for people or objects for machines.
    #[serde(default)]
    pub format: LogFormat,
    /// Filter such as `info` or `trustfleet_controller=debug,info`; default `info`.
    #[serde(default)]
    pub filter: Option<String>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

const fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080)
}
const fn default_http_connections() -> usize {
    1_000
}
const fn default_request_timeout_s() -> u32 {
    60
}
const fn default_rate_limit_per_s() -> u32 {
    100
}
const fn default_rate_limit_burst() -> u32 {
    1_000
}
const fn default_failed_limit_per_min() -> u32 {
    60
}
const fn default_max_connections() -> usize {
    16
}
const fn default_token_lifetime_s() -> u32 {
    900
}
const fn default_messages_per_s() -> u32 {
    200
}
/// One for each core.
fn default_actor_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().min(64))
}
const fn default_mailbox() -> usize {
    64
}
const fn default_idle_s() -> u32 {
    300
}
const fn default_checkpoint_s() -> u32 {
    60
}
const fn default_delete_grace_s() -> u32 {
    2_592_000
}
const fn default_tenants_max() -> usize {
    100
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("the configuration file {} cannot be read: give its path with --config", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Unknown or missing keys, wrong types.
    #[error("the configuration is wrong: {0}")]
    Wrong(Box<figment::Error>),
    /// Traces cannot be sent as configured.
    #[error("the configuration is wrong: {0}")]
    Traces(TracesError),
    /// A value outside its limits.
    #[error("the configuration is wrong: {key} {message}")]
    Value {
        /// Path of the key.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads the file, then the environment over it.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key's path.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::NoFile { path: path.to_owned(), source })?;
        let figment = Figment::from(Toml::string(&text)).merge(Env::prefixed("TRUSTFLEET__").split("__"));
        Self::extract(&figment)
    }

    /// Reads a TOML text alone.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::extract(&Figment::from(Toml::string(text)))
    }

    fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        let config: Self = figment.extract().map_err(|error| ConfigError::Wrong(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.traces.check().map_err(ConfigError::Traces)?;
        self.check_transport()?;
        self.check_oidc()?;
        if !self.broker.agent_url.username().is_empty() || self.broker.agent_url.password().is_some() {
            let message = "must not carry credentials: agents get a token of their own".to_owned();
            return Err(ConfigError::Value { key: "broker.agent_url", message });
        }
        range("broker.token_lifetime_s", self.broker.token_lifetime_s, 60, 86_400)?;
        range("agents.messages_per_s", self.agents.messages_per_s, 1, 100_000)?;
        range("outbox.claim_s", self.outbox.claim_s, 1, 5)?;
        range("outbox.permit_s", self.outbox.permit_s, 10, 604_800)?;
        self.ca_budget.check()?;
        self.retention.check()?;
        range("actors.idle_s", self.actors.idle_s, 1, 86_400)?;
        range("actors.mailbox", self.actors.mailbox, 1, 10_000)?;
        range("actors.threads", self.actors.threads, 1, 64)?;
        range("audit.checkpoint_s", self.audit.checkpoint_s, 1, 3_600)?;
        if self.audit.retention_days != 0 {
            range("audit.retention_days", self.audit.retention_days, 2, 36_500)?;
        }
        range("tenants.delete_grace_s", self.tenants.delete_grace_s, 60, 31_536_000)?;
        range("metrics.tenants_max", self.metrics.tenants_max, 0, 1_000)?;
        range("database.max_connections", self.database.max_connections, 2, 1_000)?;
        range("http.max_connections", self.http.max_connections, 1, 100_000)?;
        range("http.request_timeout_s", self.http.request_timeout_s, 2, 600)?;
        range("http.rate_limit_per_s", self.http.rate_limit_per_s, 0, 100_000)?;
        range("http.rate_limit_burst", self.http.rate_limit_burst, 0, 1_000_000)?;
        range("http.failed_limit_per_min", self.http.failed_limit_per_min, 0, 100_000)?;
        range("http.workers", self.http.workers.unwrap_or(1), 1, 256)
    }
}

fn range<T: PartialOrd + fmt::Display>(key: &'static str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ConfigError::Value { key, message: format!("is {value}; allowed are {least} to {most}") })
}

/// A URL that may carry a password, which is never printed.
#[derive(Clone)]
pub struct SecretUrl(Url);

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The URL's own reader would quote the text, password and all.
        let text = trustfleet_model::secret::SecretText::deserialize(deserializer)?;
        Url::parse(text.expose()).map(Self).map_err(|error| serde::de::Error::custom(format!("not a URL: {error}")))
    }
}

impl SecretUrl {
    /// The URL with its password.
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl From<Url> for SecretUrl {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
            return f.write_str("redacted");
        }
        f.write_str(url.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SAMPLE: &str = r#"
        [database]
        api_url = "postgres://a@127.0.0.1/t"
        system_url = "postgres://s:secret-word@127.0.0.1/t"
        [broker]
        url = "amqp://u:secret-word@127.0.0.1:5672/%2f"
        agent_url = "amqp://127.0.0.1:5672/%2f"
        [keys]
        signing_key_file = "a"
        broker_token_key_file = "b"
        key_encryption_key_file = "c"
    "#;

    #[test]
    fn an_unknown_key_is_named_when_it_is_refused() {
        let error = Config::from_toml(&SAMPLE.replace("[keys]", "[keys]\ncolour = 1")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn passwords_do_not_show_in_debug_output() {
        let config = Config::from_toml(SAMPLE).unwrap();
        assert!(!format!("{config:?}").contains("secret-word"));
        let error = Config::from_toml(&SAMPLE.replace("amqp://u:", "amqp//u:")).unwrap_err();
        assert!(error.to_string().contains("not a URL"), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret-word"), "{error:?}");
    }

    #[test]
    fn a_value_outside_its_limits_is_named() {
        let error = Config::from_toml(&format!("{SAMPLE}\n[outbox]\nclaim_s = 0")).unwrap_err();
        assert_eq!(error.to_string(), "the configuration is wrong: outbox.claim_s is 0; allowed are 1 to 5");
    }
}
