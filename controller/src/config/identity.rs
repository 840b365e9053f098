//! Identity providers whose JWTs open the API.

use std::path::PathBuf;

use serde::Deserialize;
use trustfleet_model::field::ObjectName;
use url::{Host, Url};

use super::{Config, ConfigError, range};

/// One identity provider (OpenID Connect), as `[[oidc]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Its `iss`, character by character; its discovery document is below it.
    pub issuer: String,
    /// What a token's `aud` must name.
    pub audience: String,
    /// Signature algorithms that are accepted.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// What its tokens may; a token without any may nothing.
    pub grants: Vec<OidcGrant>,
    /// How far its clock and ours may be apart, seconds, 0 to 300.
    #[serde(default = "default_clock_skew_s")]
    pub clock_skew_s: u32,
    /// Its keys are fetched again when they are older, seconds, 60 to 86,400.
    #[serde(default = "default_keys_max_age_s")]
    pub keys_max_age_s: u32,
    /// PEM file with the roots that verify its server; default: the system's.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Allow `http://` beyond loopback: whoever is in between can be anybody.
    #[serde(default)]
    pub insecure_plaintext: bool,
}

/// What a claim of a token gives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcGrant {
    /// Name of the claim, with dots for claims inside of claims: `groups`, `realm_access.roles`.
    pub claim: String,
    /// The claim's value, or one of its values.
    pub value: String,
    /// The role that it gives.
    pub role: GrantedRole,
    /// The tenant in which it gives the role; none for `platform_admin`, which is above them.
    #[serde(default)]
    pub tenant: Option<ObjectName>,
}

/// A role in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the roles are described where they are compared")]
pub enum GrantedRole {
    Viewer,
    Operator,
    Admin,
    PlatformAdmin,
}

/// Signature algorithms of JWTs (RFC 7518, RFC 8037) by which anybody can verify: no shared secrets, no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "RFC 7518 section 3.1 and RFC 8037 section 3.1 describe them")]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

fn default_algorithms() -> Vec<JwtAlgorithm> {
    vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256]
}
const fn default_clock_skew_s() -> u32 {
    60
}
const fn default_keys_max_age_s() -> u32 {
    3_600
}

impl OidcConfig {
    /// Whether it may be asked at this URL.
    pub fn allows(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.scheme() == "http" && (is_loopback(url) || self.insecure_plaintext)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Config {
    /// Checks the identity providers.
    pub(super) fn check_oidc(&self) -> Result<(), ConfigError> {
        let wrong = |key, message: String| Err(ConfigError::Value { key, message });
        for (i, issuer) in self.oidc.iter().enumerate() {
            match Url::parse(&issuer.issuer) {
                Ok(url) if url.query().is_none() && url.fragment().is_none() && issuer.allows(&url) => {}
                _ => {
                    let message =
                        "must be an https:// URL without query (http:// on loopback, or with insecure_plaintext)";
                    return wrong("oidc.issuer", message.to_owned());
                }
            }
            if self.oidc[..i].iter().any(|other| other.issuer == issuer.issuer) {
                return wrong("oidc.issuer", format!("names {} twice", issuer.issuer));
            }
            if issuer.audience.is_empty() {
                return wrong("oidc.audience", "must not be empty".to_owned());
            }
            if issuer.algorithms.is_empty() {
                return wrong("oidc.algorithms", "must name at least one".to_owned());
            }
            for grant in &issuer.grants {
                if (grant.role == GrantedRole::PlatformAdmin) != grant.tenant.is_none() {
                    let message = "must be there for every role but platform_admin, and not for that one";
                    return wrong("oidc.grants.tenant", message.to_owned());
                }
                if grant.claim.is_empty() || grant.value.is_empty() {
                    return wrong("oidc.grants.claim", "and value must not be empty".to_owned());
                }
            }
            range("oidc.clock_skew_s", issuer.clock_skew_s, 0, 300)?;
            range("oidc.keys_max_age_s", issuer.keys_max_age_s, 60, 86_400)?;
        }
        Ok(())
    }

    /// Which identity providers are asked in plain text beyond loopback.
    pub(super) fn insecure_oidc(&self) -> Vec<String> {
        let insecure =
            |oidc: &&OidcConfig| Url::parse(&oidc.issuer).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url));
        let told = |oidc: &OidcConfig| {
            format!("oidc.insecure_plaintext is on: the keys of {} come in plain text", oidc.issuer)
        };
        self.oidc.iter().filter(insecure).map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::SAMPLE;
    use super::*;

    fn refused(more: &str) -> String {
        let text = format!("{SAMPLE}\n[[oidc]]\nissuer = \"https://idp.example\"\naudience = \"trustfleet\"\n{more}\n");
        Config::from_toml(&text).unwrap_err().to_string()
    }

    #[test]
    fn a_provider_has_only_algorithms_by_which_anybody_can_verify() {
        for algorithm in ["HS256", "none", "RS1"] {
            let error = refused(&format!("algorithms = [\"{algorithm}\"]\ngrants = []"));
            assert!(error.contains(algorithm), "{error}");
        }
    }

    #[test]
    fn a_role_has_a_tenant_unless_it_is_above_them() {
        for grant in ["role = \"admin\"", "role = \"platform_admin\"\ntenant = \"acme\""] {
            let error = refused(&format!("[[oidc.grants]]\nclaim = \"groups\"\nvalue = \"x\"\n{grant}"));
            assert!(error.contains("oidc.grants.tenant"), "{error}");
        }
    }

    #[test]
    fn a_provider_in_plain_text_beyond_loopback_needs_the_switch_and_is_told() {
        let sample = |issuer: &str, switch| {
            format!(
                "{SAMPLE}\n[[oidc]]\nissuer = \"{issuer}\"\naudience = \"a\"\ngrants = []\ninsecure_plaintext = {switch}"
            )
        };
        assert!(Config::from_toml(&sample("http://idp.example", false)).is_err());
        let config = Config::from_toml(&sample("http://idp.example", true)).unwrap();
        assert_eq!(config.insecure_oidc().len(), 1);
        let config = Config::from_toml(&sample("http://127.0.0.1:1/x", false)).unwrap();
        assert!(config.insecure_oidc().is_empty());
    }
}
