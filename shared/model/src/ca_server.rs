//! CA servers: whom requests are addressed to, where they are sent, and what is trusted in the answers (S5, S6, S9, S16, S23).

use serde::{Deserialize, Serialize};
use url::Url;

use crate::field::{Violations, check_text};
use crate::revocation::RevocationRoute;

/// Longest CMP URL, characters.
pub const URL_MAX: usize = 1024;
/// Most certificates in one list of anchors or verification certificates.
pub const CERTIFICATES_MAX: usize = 16;

/// A CA server as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaServerSpec {
    /// Name of the CA, the recipient of requests: `/C=DE/O=X/CN=CA` as written, or RFC 4514; never reordered (S5).
    pub ca_name: String,
    /// CMP URL of the primary server, http or https, query strings allowed (S6, S16).
    pub primary_url: String,
    /// CMP URL of the secondary server, used when the primary cannot be reached (S16).
    #[serde(default)]
    pub secondary_url: Option<String>,
    /// Trust anchors, PEM, one certificate each: issued certificates and signed answers must chain to one of them.
    pub trust_anchors: Vec<String>,
    /// Certificates that verify signed answers, PEM, one each; empty: the chain is built to an anchor (S9, S10).
    #[serde(default)]
    pub verification_certificates: Vec<String>,
    /// What this CA does otherwise than others.
    #[serde(default, skip_serializing_if = "Quirks::is_empty")]
    pub quirks: Quirks,
    /// Who asks this CA to revoke.
    #[serde(default, skip_serializing_if = "RevocationRoute::is_default")]
    pub revocation: RevocationRoute,
}

/// Habits of a CA that change what is right on our side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// It revokes the certificate that an update replaces as soon as it has issued the new one: going back to it would be
    /// wrong, so a certificate that its services do not take stays in use, and the failure says so.
    #[serde(default)]
    pub revokes_on_issue: bool,
    /// It refuses an update of a certificate of which an earlier one is not finished: after an update that may be
    /// unfinished there, the next request is another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_update_at_a_time: bool,
    /// It says `waiting` and does not know pollReq: waiting ends the exchange.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_polling: bool,
    /// It wants the root of the signing certificate among extraCerts (X2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_in_extra_certs: bool,
    /// It answers with HMAC-SHA1, whatever the request is protected by (S8).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_by_sha1: bool,
}

impl Quirks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CaServerSpec {
    /// Checks lengths, counts and URLs; DNs and certificates are for the PKI crate.
    pub fn check(&self, violations: &mut Violations) {
        violations.check("ca_name", "S5", check_text(&self.ca_name, crate::entity::SUBJECT_MAX));
        violations.check("primary_url", "S6", check_cmp_url(&self.primary_url));
        if let Some(url) = &self.secondary_url {
            violations.check("secondary_url", "S16", check_cmp_url(url));
        }
        self.revocation.check(violations);
        if self.trust_anchors.is_empty() {
            violations.add("trust_anchors", "S10", "is empty; give at least one CA certificate in PEM");
        }
        for (field, list) in
            [("trust_anchors", &self.trust_anchors), ("verification_certificates", &self.verification_certificates)]
        {
            if list.len() > CERTIFICATES_MAX {
                let message = format!("has {} certificates; at most {CERTIFICATES_MAX} are allowed", list.len());
                violations.add(field, "S10", message);
            }
        }
    }
}

/// Whose budget an exchange with this URL counts for: `host:port`, in lower case. None: it is no URL of a CMP server.
pub fn endpoint_of(url: &str) -> Option<String> {
    let url = check_cmp_url(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// Why a CMP URL was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Too long.
    #[error("has more than {URL_MAX} characters")]
    TooLong,
    /// Not a URL.
    #[error("is not a URL ({0}); give for example http://ca.example:8080/pkix/")]
    Unparsable(String),
    /// Neither http nor https.
    #[error("has the scheme {0:?}; CMP goes over http or https")]
    Scheme(String),
    /// No host.
    #[error("has no host")]
    NoHost,
    /// User, password or fragment.
    #[error("must not carry a user name, a password or a fragment")]
    Extra,
}

/// Checks the URL of a CMP server (S6, S23).
///
/// # Errors
/// The rule that is broken.
pub fn check_cmp_url(text: &str) -> Result<Url, UrlError> {
    if text.chars().count() > URL_MAX {
        return Err(UrlError::TooLong);
    }
    let url = Url::parse(text).map_err(|error| UrlError::Unparsable(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme(url.scheme().to_owned()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::NoHost);
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(UrlError::Extra);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_a_cmp_url_may_have_a_query_but_no_credentials() {
        assert!(check_cmp_url("http://ca.example:8080/cmp?profile=ap").is_ok());
        assert_eq!(check_cmp_url("http://user:pw@ca.example/"), Err(UrlError::Extra));
        assert_eq!(check_cmp_url("ftp://ca.example/"), Err(UrlError::Scheme("ftp".to_owned())));
        assert!(matches!(check_cmp_url("ca.example/pkix"), Err(UrlError::Unparsable(_))));
    }

    #[test]
    fn s23_a_ca_is_reached_by_http_or_https_and_nothing_else() {
        assert!(check_cmp_url("http://ca.example/").is_ok() && check_cmp_url("HTTPS://ca.example/").is_ok());
        for scheme in ["ldap", "cmp", "file", "https+unix"] {
            let refused = check_cmp_url(&format!("{scheme}://ca.example/"));
            assert_eq!(refused, Err(UrlError::Scheme(scheme.to_owned())));
        }
    }

    #[test]
    fn an_endpoint_is_a_host_with_its_port_whatever_the_path() {
        let of = |url| endpoint_of(url).unwrap();
        assert_eq!(of("http://CA.example/pkix/?profile=ap"), "ca.example:80");
        assert_eq!(of("https://ca.example/other"), "ca.example:443");
        assert_eq!(of("http://[2001:DB8::1]:8080/"), "[2001:db8::1]:8080");
        assert_eq!(endpoint_of("ldap://ca.example/"), None);
    }

    #[test]
    fn s10_a_ca_server_without_an_anchor_is_refused() {
        let spec = CaServerSpec {
            ca_name: "CN=CA".to_owned(),
            primary_url: "http://ca.example/".to_owned(),
            secondary_url: None,
            trust_anchors: Vec::new(),
            verification_certificates: Vec::new(),
            quirks: Quirks::default(),
            revocation: RevocationRoute::default(),
        };
        let mut violations = Violations::new();
        spec.check(&mut violations);
        assert_eq!(violations.as_slice()[0].field, "trust_anchors");
    }
}
