//! What jobs may order on this device: a wall of its own, which no controller can open.
//!
//! Whoever takes over a controller, or its signing key, could order a certificate of another CA, or send requests with
//! their MACs to another server. Where the device's configuration lists servers and anchors, an order that names any
//! other is refused before anything is sent. It decides from values alone; files are read once, at the start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trustfleet_model::field::Violations;
use trustfleet_pki::Certificate;
use trustfleet_pki::digest::sha256;
use ureq::http::Uri;
use url::Url;

use crate::order::Talk;

/// Section `accept` of the configuration; what is left out is not restricted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptConfig {
    /// Servers: scheme, host, port, and a path that covers everything below it.
    #[serde(default)]
    pub ca_urls: Option<Vec<Url>>,
    /// SHA-256 fingerprints of trust anchors, hexadecimal, with colons or without.
    #[serde(default)]
    pub anchor_fingerprints: Option<Vec<String>>,
    /// PEM files with trust anchors.
    #[serde(default)]
    pub anchor_files: Option<Vec<PathBuf>>,
}

/// An entry of the configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}{entry}: {what}")]
pub struct AcceptError {
    /// Which key.
    key: &'static str,
    /// Which of its entries, as text; empty for all of it.
    entry: String,
    /// What is wrong, and what to do.
    what: String,
}

/// What is accepted.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    servers: Option<Vec<Url>>,
    anchors: Option<BTreeSet<[u8; 32]>>,
}

const URLS: &str = "accept.ca_urls";
const FINGERPRINTS: &str = "accept.anchor_fingerprints";
const FILES: &str = "accept.anchor_files";

impl Accept {
    /// Reads the section and the files that it names.
    ///
    /// # Errors
    /// The first entry that cannot be used: an agent does not run with half a wall.
    pub fn of(config: &AcceptConfig) -> Result<Self, AcceptError> {
        let lists = [
            (URLS, config.ca_urls.as_ref().map(Vec::len)),
            (FINGERPRINTS, config.anchor_fingerprints.as_ref().map(Vec::len)),
            (FILES, config.anchor_files.as_ref().map(Vec::len)),
        ];
        if let Some((key, _)) = lists.into_iter().find(|(_, length)| *length == Some(0)) {
            let what = "is empty, so that no job could ever run: list something, or leave the key out".to_owned();
            return Err(AcceptError { key, entry: String::new(), what });
        }
        for url in config.ca_urls.iter().flatten() {
            check_server(url).map_err(|what| wrong(URLS, url.as_str(), what))?;
        }
        let mut anchors = None::<BTreeSet<[u8; 32]>>;
        for text in config.anchor_fingerprints.iter().flatten() {
            let fingerprint = fingerprint(text).ok_or_else(|| {
                wrong(FINGERPRINTS, text, "is no SHA-256 fingerprint: give its 64 hexadecimal digits, as openssl x509 -noout -fingerprint -sha256 prints them")
            })?;
            anchors.get_or_insert_default().insert(fingerprint);
        }
        for path in config.anchor_files.iter().flatten() {
            let certificates = read(path).map_err(|what| wrong(FILES, &path.display().to_string(), what))?;
            anchors.get_or_insert_default().extend(certificates.iter().map(|anchor| sha256(anchor.as_der())));
        }
        Ok(Self { servers: config.ca_urls.clone(), anchors })
    }

    /// Whether a URL may be called at all.
    pub fn covers(&self, url: &str) -> bool {
        self.servers.as_ref().is_none_or(|servers| servers.iter().any(|on| covers(on, url)))
    }

    /// Whether an order stays inside; everything that does not is named, with the key that it offends.
    ///
    /// # Errors
    /// What was ordered beyond.
    pub fn check(&self, talk: &Talk) -> Result<(), Violations> {
        let mut violations = Violations::new();
        if let Some(servers) = &self.servers {
            for (i, url) in talk.urls.iter().enumerate().filter(|(_, url)| !servers.iter().any(|on| covers(on, url))) {
                violations.add(format!("urls[{i}]"), URLS, format!("{url} is none of the servers listed there"));
            }
        }
        let acceptance = &talk.acceptance;
        self.refuse_unlisted(&acceptance.anchors, &mut violations);
        if let Some(listed) = &self.anchors {
            let listed = |certificate: &Certificate| listed.contains(&sha256(certificate.as_der()));
            let rule = format!("{FINGERPRINTS}, {FILES}");
            // A pinned signer is trusted as it is: it must be listed itself, or be a listed anchor's own.
            let anchors: Vec<_> = acceptance.anchors.iter().filter(|anchor| listed(anchor)).collect();
            let vouched = |signer: &Certificate| {
                let issued = |by: &&Certificate| by.is_ca() && by.subject() == signer.issuer();
                anchors.iter().any(|by| issued(by) && signer.verify_signed_by(&by.public_key()).is_ok())
            };
            let pinned = acceptance.verification_certificates.iter().enumerate();
            for (i, signer) in pinned.filter(|(_, signer)| !listed(signer) && !vouched(signer)) {
                violations.add(format!("verification_certificates[{i}]"), rule.as_str(), unlisted(signer));
            }
        }
        violations.into_result()
    }

    /// Whether anchors that are to be trusted are all listed.
    ///
    /// # Errors
    /// Those that are not.
    pub fn check_anchors(&self, anchors: &[Certificate]) -> Result<(), Violations> {
        let mut violations = Violations::new();
        self.refuse_unlisted(anchors, &mut violations);
        violations.into_result()
    }

    fn refuse_unlisted(&self, anchors: &[Certificate], violations: &mut Violations) {
        let Some(listed) = &self.anchors else { return };
        let unlisted_ones = anchors.iter().enumerate().filter(|(_, anchor)| !listed.contains(&sha256(anchor.as_der())));
        for (i, anchor) in unlisted_ones {
            violations.add(format!("trust_anchors[{i}]"), format!("{FINGERPRINTS}, {FILES}"), unlisted(anchor));
        }
    }
}

fn unlisted(certificate: &Certificate) -> String {
    let fingerprint = hex::encode(sha256(certificate.as_der()));
    format!("{} with the SHA-256 fingerprint {fingerprint} is not listed there", certificate.subject())
}

fn wrong(key: &'static str, entry: &str, what: impl Into<String>) -> AcceptError {
    AcceptError { key, entry: format!(" {entry}"), what: what.into() }
}

fn check_server(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("must begin with http:// or https:// and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path: no user, password, query or fragment");
    }
    Ok(())
}

/// Whether a listed server covers a URL, as the HTTP client will read it. A spelling on which two readers differ is
/// covered by nothing.
fn covers(listed: &Url, asked: &str) -> bool {
    let (Ok(url), Ok(uri)) = (Url::parse(asked), asked.parse::<Uri>()) else { return false };
    let one_reading = uri.host().zip(url.host_str()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        && uri.path() == url.path()
        && uri.port_u16().or_else(|| url.port_or_known_default()) == url.port_or_known_default();
    let same_server = url.scheme() == listed.scheme()
        && url.host_str() == listed.host_str()
        && url.port_or_known_default() == listed.port_or_known_default();
    let base = listed.path();
    let below = url
        .path()
        .strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || base.ends_with('/') || rest.starts_with('/'));
    one_reading && same_server && below
}

fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|character| *character != ':').collect();
    hex::decode(digits).ok()?.try_into().ok()
}

fn read(path: &Path) -> Result<Vec<Certificate>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let certificates = Certificate::pem_bundle(&text).map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(listed: &str, asked: &str) -> bool {
        covers(&listed.parse().unwrap(), asked)
    }

    #[test]
    fn a_listed_server_covers_what_is_below_its_path_and_nothing_else() {
        for asked in ["http://ca.example/pkix/", "http://CA.example:80/pkix/a?profile=x"] {
            assert!(covered("http://ca.example/pkix/", asked), "{asked}");
        }
        assert!(
            covered("https://ca.example", "https://ca.example/any/path")
                && covered("http://ca.example/pkix", "http://ca.example/pkix")
        );
        assert!(covered("http://[::1]:8080/", "http://[::1]:8080/x"));
        for asked in [
            "https://ca.example/pkix/",
            "http://ca.example:8080/pkix/",
            "http://ca.example.evil/pkix/",
            "http://evil/pkix/",
            "http://ca.example/",
            "http://ca.example/pkixel",
            "http://ca.example/pkix",
        ] {
            assert!(!covered("http://ca.example/pkix/", asked), "{asked}");
        }
        assert!(!covered("http://ca.example/pkix", "http://ca.example/pkixel"));
    }

    #[test]
    fn a_url_that_two_readers_take_for_different_ones_is_covered_by_nothing() {
        for asked in [
            "http://ca.example\\@evil/pkix/",
            "http://ca.example/pkix/../other",
            "http://ca.example/pkix/%2e%2e/other",
            "http://ca.ex\tample/pkix/",
            "http:ca.example/pkix/",
            "http://ca。example/pkix/",
            "no url",
        ] {
            assert!(!covered("http://ca.example/pkix/", asked), "{asked}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_used_stops_the_agent_and_names_its_key() {
        let error = |text: &str| Accept::of(&toml::from_str(text).unwrap()).unwrap_err().to_string();
        assert!(error("ca_urls = []").contains("accept.ca_urls"));
        assert!(error("ca_urls = [\"http://ca/?x\"]").contains("no user, password, query"));
        assert!(error("ca_urls = [\"ftp://ca/\"]").contains("http://"));
        assert!(error("anchor_fingerprints = [\"ab:cd\"]").contains("64 hexadecimal digits"));
        assert!(error("anchor_files = [\"/nowhere/ca.pem\"]").contains("accept.anchor_files /nowhere/ca.pem"));
        assert!(toml::from_str::<AcceptConfig>("ca_url = []").is_err(), "unknown keys are refused");
        let upper = format!("anchor_fingerprints = [\"{}\"]", ["AB"; 32].join(":"));
        assert_eq!(Accept::of(&toml::from_str(&upper).unwrap()).unwrap().anchors, Some(BTreeSet::from([[0xab; 32]])));
    }
}
