//! Which connections are encrypted, and which plaintext is allowed: read from URLs and switches alone.
//!
//! Whatever is encrypted is verified in full (chain and name); there is no half-way. Plaintext leaves the machine only by
//! an explicit switch, and then [`Config::insecure`] tells so.

use std::net::IpAddr;

use url::{Host, Url};

use super::{BrokerConfig, Config, ConfigError, DatabaseConfig, SecretUrl};

impl Config {
    /// What is not encrypted although it leaves the machine, as sentences for the log and for `/readyz`.
    pub fn insecure(&self) -> Vec<String> {
        let mut found = Vec::new();
        let http = &self.http;
        if http.tls_cert_file.is_none() && !http.listen.ip().is_loopback() {
            found
                .push("http.insecure_plaintext is on: the API answers in plain text on other than loopback".to_owned());
        }
        let database = &self.database;
        let urls = [Some(&database.api_url), Some(&database.system_url), database.owner_url.as_ref()];
        if urls.into_iter().flatten().any(|url| !is_local(url.expose()) && !database.is_encrypted(url)) {
            found.push("database.insecure_plaintext is on: the connection to PostgreSQL is not encrypted".to_owned());
        }
        let plain = |url: &Url| url.scheme() == "amqp" && !is_local(url);
        let manages_plainly = |url: &SecretUrl| url.expose().scheme() == "http" && !is_local(url.expose());
        if plain(self.broker.url.expose())
            || plain(&self.broker.agent_url)
            || self.broker.log_url.as_ref().is_some_and(|url| plain(url.expose()))
            || self.broker.management_url.as_ref().is_some_and(manages_plainly)
        {
            found.push("broker.insecure_plaintext is on: a connection to the broker is not encrypted".to_owned());
        }
        found.extend(self.insecure_oidc());
        found
    }

    /// Refuses plaintext beyond loopback that was not switched on.
    pub(super) fn check_transport(&self) -> Result<(), ConfigError> {
        let database = &self.database;
        for (key, url) in [
            ("database.api_url", Some(&database.api_url)),
            ("database.system_url", Some(&database.system_url)),
            ("database.owner_url", database.owner_url.as_ref()),
        ] {
            let Some(url) = url else { continue };
            check_sslmode(key, url.expose())?;
            if !database.is_encrypted(url) {
                plaintext(url.expose(), "database.insecure_plaintext", database.insecure_plaintext)?;
            }
        }
        let log_url = self.broker.log_url.as_ref().map(SecretUrl::expose);
        for (key, url) in [
            ("broker.url", Some(self.broker.url.expose())),
            ("broker.agent_url", Some(&self.broker.agent_url)),
            ("broker.log_url", log_url),
        ] {
            let Some(url) = url else { continue };
            match url.scheme() {
                "amqps" => {}
                "amqp" => plaintext(url, "broker.insecure_plaintext", self.broker.insecure_plaintext)?,
                _ => return Err(ConfigError::Value { key, message: "must begin with amqp:// or amqps://".to_owned() }),
            }
        }
        if let Some(url) = self.broker.management_url.as_ref().map(SecretUrl::expose) {
            const KEY: &str = "broker.management_url";
            match url.scheme() {
                "https" => {}
                "http" => plaintext(url, "broker.insecure_plaintext", self.broker.insecure_plaintext)?,
                _ => {
                    let message = "must begin with http:// or https://".to_owned();
                    return Err(ConfigError::Value { key: KEY, message });
                }
            }
            if url.username().is_empty() || url.password().is_none() {
                let message = "must carry the user and the password of an administrator of RabbitMQ".to_owned();
                return Err(ConfigError::Value { key: KEY, message });
            }
        }
        let http = &self.http;
        if http.tls_cert_file.is_some() != http.tls_key_file.is_some() {
            let message = "and http.tls_key_file belong together: set both, or none".to_owned();
            return Err(ConfigError::Value { key: "http.tls_cert_file", message });
        }
        if http.tls_cert_file.is_none() && !http.insecure_plaintext && !http.listen.ip().is_loopback() {
            let message = "must be set, and http.tls_key_file, to listen outside of loopback; or set \
                           http.insecure_plaintext to true, but only behind something that ends TLS";
            return Err(ConfigError::Value { key: "http.tls_cert_file", message: message.to_owned() });
        }
        Ok(())
    }
}

impl DatabaseConfig {
    /// Whether connections of this URL are encrypted. Its `sslmode` decides: `disable` is plaintext; `require`,
    /// `verify-ca` and `verify-full` are one and the same here, encrypted and verified in full. Without it everything is
    /// encrypted but loopback, and where `insecure_plaintext` allows it not to be; with `tls_ca_file` everything is.
    pub fn is_encrypted(&self, url: &SecretUrl) -> bool {
        match sslmode(url.expose()).as_deref() {
            Some("disable") => false,
            Some(_) => true,
            None => self.tls_ca_file.is_some() || !(self.insecure_plaintext || is_local(url.expose())),
        }
    }

    /// Whether any connection is.
    pub fn encrypts_any(&self) -> bool {
        self.is_encrypted(&self.api_url) || self.is_encrypted(&self.system_url)
    }
}

impl BrokerConfig {
    /// What an operator should know although everything works.
    pub fn warnings(&self) -> Option<&'static str> {
        const UNMANAGED: &str =
            "broker.management_url is not set: the connection of an agent in quarantine lasts until its token ends";
        self.management_url.is_none().then_some(UNMANAGED)
    }

    /// Whether the controller's own connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.url.expose().scheme() == "amqps"
            || self.log_url.as_ref().is_some_and(|url| url.expose().scheme() == "amqps")
    }
}

fn sslmode(url: &Url) -> Option<String> {
    url.query_pairs().filter(|(key, _)| key == "sslmode").last().map(|(_, value)| value.into_owned())
}

fn check_sslmode(key: &'static str, url: &Url) -> Result<(), ConfigError> {
    match sslmode(url).as_deref() {
        None | Some("disable" | "require" | "verify-ca" | "verify-full") => Ok(()),
        Some(_) => Err(ConfigError::Value {
            key,
            message:
                "has an sslmode that is not spoken here: use verify-full (or require, which is verified in full as \
                      well), or disable; what would fall back to plaintext is no protection"
                    .to_owned(),
        }),
    }
}

fn plaintext(url: &Url, key: &'static str, allowed: bool) -> Result<(), ConfigError> {
    if allowed || is_local(url) {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default();
    let message = format!("must be set to true to speak without encryption to {host}, which is not loopback");
    Err(ConfigError::Value { key, message })
}

/// Whether every host that the URL names is this machine: loopback, or a socket file. PostgreSQL's URLs may name hosts in
/// their parameters, too.
fn is_local(url: &Url) -> bool {
    let authority = match url.host() {
        Some(Host::Domain(name)) => is_local_name(name),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => true,
    };
    let named = |key: &str| matches!(key, "host" | "hostaddr");
    authority && url.query_pairs().filter(|(key, _)| named(key)).all(|(_, hosts)| hosts.split(',').all(is_local_name))
}

fn is_local_name(name: &str) -> bool {
    let socket = name.starts_with('/') || name.to_ascii_lowercase().starts_with("%2f");
    let ip = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name.is_empty() || name == "localhost" || socket || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::SAMPLE, *};

    fn refused(text: &str) -> String {
        let error = Config::from_toml(text).unwrap_err().to_string();
        assert!(!error.contains("secret-word"), "{error}");
        error
    }

    #[test]
    fn plaintext_leaves_the_machine_only_by_an_explicit_switch_and_is_told() {
        assert!(Config::from_toml(SAMPLE).unwrap().insecure().is_empty());
        let far = SAMPLE.replace("u:secret-word@127.0.0.1", "u:secret-word@broker.example");
        assert!(refused(&far).contains("broker.insecure_plaintext"));
        let allowed = Config::from_toml(&far.replace("[broker]", "[broker]\ninsecure_plaintext = true")).unwrap();
        assert!(allowed.insecure()[0].contains("broker.insecure_plaintext"));
        assert!(Config::from_toml(&far.replace("url = \"amqp:", "url = \"amqps:")).unwrap().insecure().is_empty());
        // What agents are told is no exception.
        let told = SAMPLE.replace("agent_url = \"amqp://127.0.0.1", "agent_url = \"amqp://broker.example");
        assert!(refused(&told).contains("broker.insecure_plaintext"));
        assert!(Config::from_toml(&told.replace("agent_url = \"amqp:", "agent_url = \"https:")).is_err());
    }

    #[test]
    fn the_api_listens_beyond_loopback_with_a_certificate_or_by_an_explicit_switch() {
        let wide = format!("{SAMPLE}\n[http]\nlisten = \"0.0.0.0:80\"\n");
        assert!(refused(&wide).contains("http.tls_cert_file must be set"));
        let tls = format!("{wide}tls_cert_file = \"c\"\ntls_key_file = \"k\"\n");
        assert!(Config::from_toml(&tls).unwrap().insecure().is_empty());
        assert!(refused(&format!("{wide}tls_cert_file = \"c\"\n")).contains("belong together"));
        let plain = Config::from_toml(&format!("{wide}insecure_plaintext = true\n")).unwrap();
        assert!(plain.insecure()[0].contains("http.insecure_plaintext"));
    }

    #[test]
    fn the_brokers_management_is_reached_with_an_account_and_in_plaintext_only_by_the_switch() {
        let with = |url: &str| SAMPLE.replace("[broker]", &format!("[broker]\nmanagement_url = \"{url}\""));
        assert!(Config::from_toml(&with("http://u:secret-word@127.0.0.1:15672")).is_ok());
        assert!(Config::from_toml(&with("https://u:secret-word@broker.example")).unwrap().insecure().is_empty());
        assert!(refused(&with("http://u:secret-word@broker.example")).contains("broker.insecure_plaintext"));
        assert!(refused(&with("http://127.0.0.1:15672")).contains("broker.management_url"));
        assert!(refused(&with("amqp://u:secret-word@127.0.0.1")).contains("http:// or https://"));
    }

    #[test]
    fn a_database_elsewhere_is_encrypted_unless_that_is_switched_off() {
        let encrypted = |more: &str, api_url: &str| {
            let text = SAMPLE.replace("[database]", &format!("[database]\n{more}"));
            let config = Config::from_toml(&text.replace("postgres://a@127.0.0.1/t", api_url)).unwrap();
            (config.database.is_encrypted(&config.database.api_url), !config.insecure().is_empty())
        };
        let (far, near) = ("postgres://a@db.example/t", "postgres://a@127.0.0.1/t");
        assert_eq!(encrypted("", near), (false, false));
        assert_eq!(encrypted("", far), (true, false));
        assert_eq!(encrypted("tls_ca_file = \"ca.pem\"", near), (true, false));
        assert_eq!(encrypted("insecure_plaintext = true", far), (false, true));
        assert_eq!(encrypted("insecure_plaintext = true", &format!("{far}?sslmode=disable")), (false, true));
        for mode in ["require", "verify-ca", "verify-full"] {
            assert_eq!(
                encrypted("insecure_plaintext = true", &format!("{far}?sslmode={mode}")),
                (true, false),
                "{mode}"
            );
            assert_eq!(encrypted("", &format!("{near}?sslmode={mode}")), (true, false), "{mode}");
        }
    }

    #[test]
    fn no_way_of_naming_a_host_gets_around_the_switch() {
        let with = |url: &str| SAMPLE.replace("postgres://a@127.0.0.1/t", url);
        for far in [
            "postgres://a@db.example/t?sslmode=disable",
            "postgres://a@127.0.0.1/t?sslmode=disable&host=db.example",
            "postgres://a@127.0.0.1/t?sslmode=disable&hostaddr=10.0.0.1",
            "postgres://a@localhost.example/t?sslmode=disable",
        ] {
            assert!(refused(&with(far)).contains("database.insecure_plaintext"), "{far}");
        }
        let owner =
            SAMPLE.replace("[database]", "[database]\nowner_url = \"postgres://o@db.example/t?sslmode=disable\"");
        assert!(refused(&owner).contains("database.insecure_plaintext"));
        for near in ["postgres://a@[::1]/t", "postgres:///t?host=/run/postgresql", "postgres://a@localhost/t"] {
            assert!(Config::from_toml(&with(near)).is_ok(), "{near}");
        }
        for weak in ["prefer", "allow", "Require"] {
            assert!(refused(&with(&format!("postgres://a@127.0.0.1/t?sslmode={weak}"))).contains("sslmode"), "{weak}");
        }
    }
}
