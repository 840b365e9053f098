//! Where traces go: the section `[traces]` of both programs' configuration.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

/// Longest file with headers, bytes.
const HEADERS_MAX: usize = 16 * 1024;

/// Where traces go. Without an endpoint there are none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Base URL of an OTLP receiver over HTTP with protobuf, such as `http://127.0.0.1:4318`; spans go to `v1/traces`
    /// below it. None: no traces.
    #[serde(default)]
    pub endpoint: Option<Url>,
    /// Share of the traces begun here that are recorded, 0 to 1. What a caller's trace context says goes before it.
    #[serde(default = "default_sample_ratio")]
    pub sample_ratio: f64,
    /// Allow `http://` to a receiver that is not on loopback.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// File with lines `Name: value`, sent with every request: a vendor's token.
    #[serde(default)]
    pub headers_file: Option<PathBuf>,
    /// PEM file with the roots for an `https://` receiver; by default the system's bundle.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: default_sample_ratio(),
            insecure_plaintext: false,
            headers_file: None,
            tls_ca_file: None,
        }
    }
}

const fn default_sample_ratio() -> f64 {
    1.0
}

/// Why traces cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A value that cannot be.
    #[error("{key} {message}")]
    Value {
        /// Path of the key.
        key: &'static str,
        /// What is wrong and what would be right, without the value where it may be a secret.
        message: String,
    },
    /// A file that cannot be read.
    #[error("{key}: {} cannot be read", path.display())]
    File {
        /// Path of the key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The exporter refused to be made.
    #[error("traces: the exporter cannot be made: {0}")]
    Exporter(String),
}

impl TracesConfig {
    /// Checks what can be checked without touching a file; both programs do it when they read their configuration.
    ///
    /// # Errors
    /// The key that is wrong, and what would be right.
    pub fn check(&self) -> Result<(), TracesError> {
        let wrong = |key, message: String| Err(TracesError::Value { key, message });
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return wrong("traces.sample_ratio", format!("is {}; allowed are 0 to 1", self.sample_ratio));
        }
        let Some(url) = &self.endpoint else { return Ok(()) };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            let message = "must be a base URL without credentials, query and fragment: a token belongs into \
                           traces.headers_file";
            return wrong("traces.endpoint", message.to_owned());
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.insecure_plaintext || is_loopback(url) => Ok(()),
            "http" => {
                let host = url.host_str().unwrap_or_default();
                let message =
                    format!("must be set to true to send traces without encryption to {host}, which is not loopback");
                wrong("traces.insecure_plaintext", message)
            }
            _ => wrong("traces.endpoint", "must begin with http:// or https://".to_owned()),
        }
    }

    /// The URL that spans are posted to.
    pub(crate) fn traces_url(endpoint: &Url) -> String {
        format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
    }

    /// The headers of the file, none without a file. Their values are secrets.
    pub(crate) fn headers(&self) -> Result<Vec<(String, Zeroizing<String>)>, TracesError> {
        const KEY: &str = "traces.headers_file";
        let Some(path) = &self.headers_file else { return Ok(Vec::new()) };
        let text = Zeroizing::new(read(KEY, path)?);
        let wrong = |message: String| TracesError::Value { key: KEY, message };
        if text.len() > HEADERS_MAX {
            return Err(wrong(format!("has {} bytes; at most {HEADERS_MAX} are read", text.len())));
        }
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(number, line)| {
                // The line itself is not repeated: it holds the token.
                let (name, value) =
                    line.split_once(':').ok_or_else(|| wrong(format!("line {} must be `Name: value`", number + 1)))?;
                Ok((name.trim().to_owned(), Zeroizing::new(value.trim().to_owned())))
            })
            .collect()
    }
}

pub(crate) fn read(key: &'static str, path: &Path) -> Result<String, TracesError> {
    fs::read_to_string(path).map_err(|source| TracesError::File { key, path: path.to_owned(), source })
}

/// Only addresses and the one name that never leave the machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: TracesConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn traces_leave_the_machine_unencrypted_only_by_an_explicit_switch() {
        for good in [
            "",
            "sample_ratio = 1",
            "endpoint = \"http://127.0.0.1:4318\"",
            "endpoint = \"https://otel.example/base/\"",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let far = "endpoint = \"http://otel.example:4318\"";
        assert!(check(far).unwrap_err().contains("traces.insecure_plaintext"));
        assert_eq!(check(&format!("{far}\ninsecure_plaintext = true")), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(check("sample_ratio = 1.5").unwrap_err().contains("traces.sample_ratio"));
        assert!(check("sample_ratio = nan").unwrap_err().contains("traces.sample_ratio"));
        assert!(check("endpoint = \"grpc://127.0.0.1:4317\"").unwrap_err().contains("traces.endpoint"));
        assert!(check("colour = 1").unwrap_err().contains("colour"));
        let error = check("endpoint = \"https://u:geheim@otel.example\"").unwrap_err();
        assert!(error.contains("traces.headers_file") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn headers_come_from_a_file_and_a_wrong_line_is_named_by_its_number_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        fs::write(&path, "Authorization: Bearer a:b\n\nX-Scope: one\n").unwrap();
        let config = TracesConfig { headers_file: Some(path.clone()), ..TracesConfig::default() };
        let headers = config.headers().unwrap();
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("Authorization", "Bearer a:b"), ("X-Scope", "one")]);
        fs::write(&path, "X-Scope: one\ngeheim").unwrap();
        let error = config.headers().unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn spans_go_below_the_base_url() {
        let url = |text: &str| TracesConfig::traces_url(&text.parse().unwrap());
        assert_eq!(url("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("https://otel.example/base/"), "https://otel.example/base/v1/traces");
    }
}
