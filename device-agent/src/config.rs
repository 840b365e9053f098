//! The agent's own configuration file: who it is, where its controller is, where it keeps what it must not lose.
//!
//! Whatever the controller sends later can only narrow what stands here, never widen it. Unknown keys are refused, so
//! that a misspelt switch cannot stay without effect unseen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trustfleet_model::field::ObjectName;
use trustfleet_model::policy::check_interface;
use trustfleet_model::secret::SecretText;
use trustfleet_telemetry::{TracesConfig, TracesError};
use trustfleet_wire::join::JOIN_TOKEN_MAX;
use url::{Host, Url};

use crate::accept::{Accept, AcceptConfig, AcceptError};
use crate::ca_tls::{CaTlsConfig, ClientError, ClientFiles};
use crate::cmp_http::Source;
use crate::domains::FactoryIdentityConfig;
use crate::nodes::NodeConfig;
use crate::services::{Accounts, ServiceConfig, Services};

/// The name of the agent, over the one in the file: what makes one file good for many devices.
const NAME_VARIABLE: &str = "TRUSTFLEET_AGENT_NAME";

/// Bundles of TLS roots that distributions install, tried in this order where none is named.
pub(crate) const SYSTEM_CA_FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The agent's configuration, as the TOML file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base URL of the controller's agent doors.
    pub controller_url: Url,
    /// Folder for keys, records and certificates; made with mode 0700.
    pub state_dir: PathBuf,
    /// Name to join with; the environment variable `TRUSTFLEET_AGENT_NAME` goes over it.
    #[serde(default)]
    pub name: Option<ObjectName>,
    /// One-time token, needed until the agent has joined.
    #[serde(default)]
    pub join_token: Option<SecretText>,
    /// File that holds the one-time token.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// How to join without a token.
    #[serde(default)]
    pub announce: Option<AnnounceConfig>,
    /// Allow `http://` and `amqp://` to the controller and the broker beyond loopback. CMP itself may always use
    /// `http://`: its messages carry their own protection.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// PEM file with the roots for TLS; by default the system's own bundle.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Our certificate for https CAs that ask for one.
    #[serde(default)]
    pub ca_tls: CaTlsConfig,
    /// The identity that the factory gave to the device: the PKI domain `default`, by which first certificates can be
    /// asked for without a secret (S39).
    #[serde(default)]
    pub factory_identity: FactoryIdentityConfig,
    /// Where the private keys of trustpoints are kept.
    #[serde(default)]
    pub keys: KeysConfig,
    /// Form of the log on stderr.
    #[serde(default)]
    pub log_format: LogFormat,
    /// Take leases: renew certificates without the controller while it is out of reach and they are past their emergency
    /// mark.
    #[serde(default = "default_autonomy")]
    pub autonomy: bool,
    /// Most exchanges with CAs at the same time, 1 to 64.
    #[serde(default = "default_parallel_exchanges")]
    pub parallel_exchanges: usize,
    /// Seconds after which the agent says hello again, give or take a tenth, 1 to 3600: the controller's "last seen" of an
    /// agent with nothing to do is never much older.
    #[serde(default = "default_hello_s")]
    pub hello_s: u32,
    /// A lost link to the broker is sought again at some moment within so many seconds, 0 to 3600, each agent at its own, and then
    /// once in so many seconds or in growing steps, whichever is longer: a fleet that lost its broker does not come back in one
    /// wave. 0: after a second, then in growing steps.
    #[serde(default)]
    pub reconnect_within_s: u32,
    /// Which address or interface of the device connections come from, to the controller, the broker and those CAs for which no
    /// trustpoint names another one (S7). An interface takes the capability `CAP_NET_RAW`.
    #[serde(default)]
    pub source: Source,
    /// What jobs may order; not restricted where it is left out.
    #[serde(default)]
    pub accept: AcceptConfig,
    /// Traces.
    #[serde(default)]
    pub traces: TracesConfig,
    /// How it is seen which nodes of hot-standby pairs are active, by the names of devices (S47).
    #[serde(default)]
    pub pairs: BTreeMap<ObjectName, NodeConfig>,
    /// Services that use certificates, by the names that jobs call them.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceConfig>,
}

/// How to join without a token: by a factory identity (IDevID), or by a serial number that an operator approves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceConfig {
    /// Name of the tenant to belong to.
    pub tenant: ObjectName,
    /// Id of the controller's signing key, 32 hexadecimal digits: no other controller is believed.
    pub controller_key: String,
    /// Serial number of the device; a factory identity says it itself.
    #[serde(default)]
    pub serial: Option<String>,
    /// PEM file with the factory's certificate of the device, then those that lead to the factory's CA.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

impl AnnounceConfig {
    /// What does not go together.
    fn check(&self) -> Result<(), &'static str> {
        if self.controller_key.len() != 32 || !self.controller_key.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("announce.controller_key must be the 32 hexadecimal digits that `trustfleet keys id` prints");
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return Err("announce.certificate_file and announce.key_file belong together; set both, or none");
        }
        if self.certificate_file.is_none() && self.serial.is_none() {
            return Err("announce needs a serial, or certificate_file and key_file");
        }
        Ok(())
    }
}

/// Where the private keys of trustpoints are kept: in files beside their certificates, or in a token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// File with the passphrase by which keys in files are encrypted.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// PKCS #11 library of the token; with it keys are made in the token and never leave it.
    #[serde(default)]
    pub pkcs11_module: Option<PathBuf>,
    /// Label of the token.
    #[serde(default)]
    pub pkcs11_token: Option<String>,
    /// File with the token's user PIN.
    #[serde(default)]
    pub pkcs11_pin_file: Option<PathBuf>,
}

impl KeysConfig {
    /// What does not go together.
    fn check(&self) -> Result<(), &'static str> {
        let token = [self.pkcs11_module.is_some(), self.pkcs11_token.is_some(), self.pkcs11_pin_file.is_some()];
        if token.contains(&true) && token.contains(&false) {
            return Err(
                "keys.pkcs11_module, keys.pkcs11_token and keys.pkcs11_pin_file belong together; set all of them",
            );
        }
        if token.contains(&true) && self.passphrase_file.is_some() {
            return Err("keys.passphrase_file is for keys in files; with keys.pkcs11_module there are none");
        }
        Ok(())
    }
}

const fn default_autonomy() -> bool {
    true
}
const fn default_parallel_exchanges() -> usize {
    8
}
const fn default_hello_s() -> u32 {
    600
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

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a value of the wrong kind.
    #[error("the configuration file {path} is wrong: {detail}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where and why, without any value of a secret.
        detail: String,
    },
    /// Traces cannot be sent as configured.
    #[error("the configuration file {path} is wrong: {source}")]
    Traces {
        /// The file.
        path: PathBuf,
        /// Which key, and why.
        source: TracesError,
    },
    /// What jobs may order cannot be read.
    #[error("the configuration is wrong: {0}")]
    Accept(#[from] AcceptError),
    /// Our certificate for https CAs cannot be used.
    #[error("the configuration is wrong: {0}")]
    CaTls(#[from] ClientError),
    /// Services that cannot be worked with.
    #[error("the configuration is wrong: {}", .0.join("; "))]
    Services(Vec<String>),
    /// Nobody says how the agent is called.
    #[error("the agent has no name: set name in its configuration file, or the environment variable {NAME_VARIABLE}")]
    NoName,
    /// The name in the environment cannot be one.
    #[error("the environment variable {NAME_VARIABLE} holds no name of an agent: {0}")]
    BadName(String),
    /// Plaintext to another machine.
    #[error(
        "{what} {url} is plaintext to another machine: use {secure}://, or set insecure_plaintext = true if the network is trusted"
    )]
    Plaintext {
        /// Which URL.
        what: &'static str,
        /// The URL without credentials.
        url: String,
        /// The scheme to use.
        secure: &'static str,
    },
    /// A scheme that is not spoken here.
    #[error("{what} {url} must begin with {plain}:// or {secure}://")]
    Scheme {
        /// Which URL.
        what: &'static str,
        /// The URL without credentials.
        url: String,
        /// Plaintext scheme.
        plain: &'static str,
        /// TLS scheme.
        secure: &'static str,
    },
    /// The agent has not joined yet and has no token for it.
    #[error(
        "the agent has not joined yet: set join_token or join_token_file (make one with: trustfleet join-token create), or the section announce"
    )]
    NoJoinToken,
    /// No TLS roots.
    #[error("no TLS roots found: set tls_ca_file to a PEM file with the CA certificates of controller and broker")]
    NoTlsRoots,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// What is wrong, with the place in the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let config = Self::parse(&text, path, std::env::var(NAME_VARIABLE).ok().as_deref())?;
        config.services()?;
        Ok(config)
    }

    /// `name`: what the environment says.
    fn parse(text: &str, path: &Path, name: Option<&str>) -> Result<Self, ConfigError> {
        // `message` leaves out the offending line, which could be the one with the token.
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            ConfigError::Wrong { path: path.to_owned(), detail: format!("line {line}: {}", error.message()) }
        })?;
        let wrong = |detail: &str| ConfigError::Wrong { path: path.to_owned(), detail: detail.to_owned() };
        if config.join_token.is_some() && config.join_token_file.is_some() {
            return Err(wrong("join_token and join_token_file are both set; set one of them"));
        }
        if !config.state_dir.is_absolute() {
            return Err(wrong("state_dir must be an absolute path"));
        }
        if !(1..=64).contains(&config.parallel_exchanges) {
            return Err(wrong("parallel_exchanges must be 1 to 64"));
        }
        if !(1..=3600).contains(&config.hello_s) {
            return Err(wrong("hello_s must be 1 to 3600"));
        }
        if config.reconnect_within_s > 3600 {
            return Err(wrong("reconnect_within_s must be 0 to 3600"));
        }
        if let Some(name) = &config.source.interface {
            check_interface(name).map_err(|error| wrong(&format!("source.interface: {error}")))?;
        }
        config.source.address = config.source.address.map(|address| address.to_canonical());
        if config.source.address.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
            return Err(wrong("source.address is one that no device has"));
        }
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            config.name = Some(name.parse().map_err(|error| ConfigError::BadName(format!("{error}")))?);
        }
        config.name()?;
        config.traces.check().map_err(|source| ConfigError::Traces { path: path.to_owned(), source })?;
        config.keys.check().map_err(wrong)?;
        if let Some(announce) = &config.announce {
            announce.check().map_err(wrong)?;
        }
        ClientFiles::of(&config.ca_tls).map_err(wrong)?;
        config.factory_identity.check().map_err(wrong)?;
        NodeConfig::check(&config.pairs).map_err(|detail| wrong(&detail))?;
        config.check_transport("controller_url", &config.controller_url, "http", "https")?;
        Ok(config)
    }

    /// The name to join with.
    ///
    /// # Errors
    /// [`ConfigError::NoName`].
    pub fn name(&self) -> Result<&ObjectName, ConfigError> {
        self.name.as_ref().ok_or(ConfigError::NoName)
    }

    /// Refuses plaintext to other machines, unless it was switched on.
    ///
    /// # Errors
    /// [`ConfigError::Plaintext`] or [`ConfigError::Scheme`].
    pub fn check_transport(
        &self,
        what: &'static str,
        url: &Url,
        plain: &'static str,
        secure: &'static str,
    ) -> Result<(), ConfigError> {
        let shown = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        if url.scheme() == secure {
            return Ok(());
        }
        if url.scheme() != plain {
            return Err(ConfigError::Scheme { what, url: shown, plain, secure });
        }
        if self.insecure_plaintext || is_loopback(url) {
            return Ok(());
        }
        Err(ConfigError::Plaintext { what, url: shown, secure })
    }

    /// What jobs may order; reads the files that it names.
    ///
    /// # Errors
    /// [`ConfigError::Accept`].
    pub fn accept(&self) -> Result<Accept, ConfigError> {
        Ok(Accept::of(&self.accept)?)
    }

    /// Our certificate for https CAs, looked into once; those of a trustpoint may come later.
    ///
    /// # Errors
    /// [`ConfigError::CaTls`].
    pub fn ca_client(&self) -> Result<Option<ClientFiles>, ConfigError> {
        let Ok(Some(files)) = ClientFiles::of(&self.ca_tls) else { return Ok(None) };
        if files.paths().iter().all(|path| path.starts_with(&self.state_dir)) {
            return Ok(Some(files));
        }
        files.read()?;
        Ok(Some(files))
    }

    /// Services that use certificates, with the users and groups of this machine.
    ///
    /// # Errors
    /// [`ConfigError::Services`]: everything that is wrong with them.
    pub fn services(&self) -> Result<Services, ConfigError> {
        Services::read(&self.services, &self.keys, &Accounts::of_system()).map_err(ConfigError::Services)
    }

    /// The one-time token to join with.
    ///
    /// # Errors
    /// There is none, or its file cannot be read.
    pub fn join_token(&self) -> Result<SecretText, ConfigError> {
        if let Some(token) = &self.join_token {
            return Ok(token.clone());
        }
        let path = self.join_token_file.as_ref().ok_or(ConfigError::NoJoinToken)?;
        let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
        let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
        let token = text.trim();
        if token.is_empty() || token.len() > JOIN_TOKEN_MAX {
            let detail = format!("the token has {} characters; 1 to {JOIN_TOKEN_MAX} are allowed", token.len());
            return Err(ConfigError::Wrong { path: path.clone(), detail });
        }
        Ok(SecretText::new(token.to_owned()))
    }

    /// Whether there is a token to join with.
    pub const fn has_join_token(&self) -> bool {
        self.join_token.is_some() || self.join_token_file.is_some()
    }

    /// The PEM file with the TLS roots.
    ///
    /// # Errors
    /// None is configured, and the system has none.
    pub fn tls_roots(&self) -> Result<PathBuf, ConfigError> {
        let found = || SYSTEM_CA_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        self.tls_ca_file.clone().or_else(found).ok_or(ConfigError::NoTlsRoots)
    }
}

/// Only addresses and the one name that never leave the machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        // A scheme such as amqp: the URL standard leaves its host as text.
        None => false,
    }
}

/// Parses a broker URL; its host is read as an address where it is one (the URL standard does so for http only).
///
/// # Errors
/// Not a URL.
pub fn parse_broker_url(text: &str) -> Result<Url, url::ParseError> {
    let url = Url::parse(text)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let mut read = url.clone();
    if let Ok(ip) = host.parse()
        && read.set_ip_host(ip).is_ok()
    {
        return Ok(read);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml"), None).map_err(|error| error.to_string())
    }

    const GOOD: &str = "controller_url = \"https://c.example\"\nstate_dir = \"/var/lib/tfa\"\nname = \"ap-1\"\n";

    #[test]
    fn a_short_file_gets_safe_defaults() {
        let config = parse(GOOD).unwrap();
        assert!(!config.insecure_plaintext);
        assert_eq!((config.parallel_exchanges, config.hello_s), (8, 600));
        assert!(matches!(config.join_token(), Err(ConfigError::NoJoinToken)));
    }

    #[test]
    fn the_example_is_a_good_configuration_with_the_defaults_it_names() {
        let config = parse(include_str!("../agent.example.toml")).unwrap();
        assert_eq!(config.parallel_exchanges, default_parallel_exchanges());
        assert_eq!(config.hello_s, default_hello_s());
        assert_eq!((config.reconnect_within_s, &config.source), (0, &Source::default()));
        assert_eq!(config.autonomy, default_autonomy());
        assert_eq!(config.log_format, LogFormat::default());
        assert!(!config.insecure_plaintext);
    }

    #[test]
    fn a_certificate_for_https_cas_needs_its_key_and_files_that_can_be_read() {
        let half = parse(&format!("{GOOD}[ca_tls]\ncert_file = \"/nowhere/c.pem\"\n")).unwrap_err();
        assert!(half.contains("ca_tls.key_file belong together"), "{half}");
        let both = |dir: &str| {
            let text = format!("{GOOD}[ca_tls]\ncert_file = \"{dir}/c.pem\"\nkey_file = \"{dir}/k.pem\"\n");
            parse(&text).unwrap().ca_client()
        };
        let missing = both("/nowhere").unwrap_err().to_string();
        assert!(missing.contains("ca_tls.cert_file /nowhere/c.pem"), "{missing}");
        assert!(both("/var/lib/tfa/devices/d/t/current").unwrap().is_some(), "a trustpoint's own may come later");
    }

    #[test]
    fn the_environment_names_the_agent_where_one_file_is_for_many_devices() {
        let named = |text: &str, name| {
            Config::parse(text, Path::new("agent.toml"), Some(name)).map(|config| config.name().unwrap().to_string())
        };
        let without = GOOD.replace("name = \"ap-1\"\n", "");
        assert_eq!(named(&without, "worker-2.example.internal").unwrap(), "worker-2.example.internal");
        assert_eq!(named(GOOD, "worker-2").unwrap(), "worker-2", "it goes over the file");
        assert_eq!(named(GOOD, "").unwrap(), "ap-1", "an empty variable is none");
        assert!(parse(&without).unwrap_err().contains("TRUSTFLEET_AGENT_NAME"));
        assert!(named(GOOD, "no name").unwrap_err().to_string().contains("TRUSTFLEET_AGENT_NAME"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse(&format!("{GOOD}insecure_plain_text = true\n")).unwrap_err();
        assert!(error.contains("line 4") && error.contains("insecure_plain_text"), "{error}");
    }

    #[test]
    fn a_token_never_shows_in_an_error_or_in_debug_output() {
        let error = parse(&format!("{GOOD}join_token = \"tfj1.geheim\n")).unwrap_err();
        assert!(!error.contains("geheim"), "{error}");
        let config = parse(&format!("{GOOD}join_token = \"tfj1.geheim\"\n")).unwrap();
        assert!(!format!("{config:?}").contains("geheim"));
    }

    #[test]
    fn plaintext_goes_only_to_loopback_unless_switched_on() {
        let remote = GOOD.replace("https", "http");
        assert!(parse(&remote).unwrap_err().contains("insecure_plaintext"));
        assert!(parse(&format!("{remote}insecure_plaintext = true\n")).is_ok());
        for host in ["localhost:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:80"] {
            assert!(parse(&GOOD.replace("https://c.example", &format!("http://{host}"))).is_ok(), "{host}");
        }
        for host in ["127.0.0.1.example", "localhost.example", "10.0.0.1"] {
            assert!(parse(&GOOD.replace("https://c.example", &format!("http://{host}"))).is_err(), "{host}");
        }
    }

    #[test]
    fn the_brokers_url_obeys_the_same_rule() {
        let config = parse(GOOD).unwrap();
        let check =
            |text: &str| config.check_transport("broker", &parse_broker_url(text).unwrap(), "amqp", "amqps").is_ok();
        assert!(check("amqp://127.0.0.1:5672/%2f") && check("amqps://b.example/%2f") && check("amqp://[::1]/%2f"));
        assert!(
            !check("amqp://b.example/%2f") && !check("amqp://127.0.0.1.example/%2f") && !check("http://127.0.0.1/")
        );
    }

    #[test]
    fn the_settings_of_a_token_belong_together() {
        let token = "[keys]\npkcs11_module = \"/lib/p.so\"\npkcs11_token = \"t\"\npkcs11_pin_file = \"/pin\"\n";
        assert!(parse(&format!("{GOOD}{token}")).is_ok());
        assert!(parse(&format!("{GOOD}[keys]\npkcs11_token = \"t\"\n")).unwrap_err().contains("belong together"));
        assert!(parse(&format!("{GOOD}{token}passphrase_file = \"/p\"\n")).unwrap_err().contains("passphrase_file"));
    }

    #[test]
    fn where_connections_come_from_must_be_something_that_a_device_can_have() {
        let source = |text: &str| parse(&format!("{GOOD}{text}\n")).map(|config| config.source);
        let mapped = source("source.address = \"::ffff:192.0.2.1\"").unwrap();
        assert_eq!(mapped.address, Some(std::net::IpAddr::from([192, 0, 2, 1])));
        assert_eq!(source("source.interface = \"eth0.17\"").unwrap().interface.as_deref(), Some("eth0.17"));
        for wrong in
            ["address = \"0.0.0.0\"", "address = \"ff02::1\"", "address = \"eth0\"", "interface = \"a/b\"", "port = 7"]
        {
            assert!(source(&format!("source.{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_that_depends_on_where_it_is_started_is_refused() {
        assert!(parse(&GOOD.replace("/var/lib/tfa", "state")).unwrap_err().contains("absolute"));
    }
}
