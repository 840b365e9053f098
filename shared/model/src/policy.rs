//! CMP policies: the settings of a CMP session, shared by many trustpoints (S1 to S26, as far as they exist today).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::entity::{SUBJECT_MAX, placeholders};
use crate::field::{ObjectName, Violations, check_text};
use crate::job::RequestKind;
use crate::reissue::ReissueFloor;
use crate::renewal::AutoUpdate;

/// Settings of a CMP session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// Key pair of the trustpoint (S3, S25).
    pub key: KeySpec,
    /// How the first request proves where it comes from (S11).
    #[serde(default)]
    pub origin_authentication: OriginAuthentication,
    /// PKI domain of the device whose identity signs the first request; none: its factory identity (S14, S39). Only with
    /// `origin_authentication` signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_domain: Option<String>,
    /// Sender DN of MAC-protected requests, with placeholders; none: the reference value as a common name (S19). With a
    /// signature the sender is always the subject of the signing certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Recipient DN, where it is another one than the CA's name: a registration authority (S20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// MAC of requests (S8).
    #[serde(default)]
    pub mac: MacSettings,
    /// Ask the CA to do without certConf.
    #[serde(default)]
    pub implicit_confirm: bool,
    /// Whether an issued certificate takes effect by itself (S33, S34).
    #[serde(default)]
    pub activation: Activation,
    /// The same for single kinds of requests, over `activation`.
    #[serde(default, skip_serializing_if = "ActivationByKind::is_nothing")]
    pub activation_by_kind: ActivationByKind,
    /// Whether and when certificates are renewed by themselves (S31, S41, S43).
    #[serde(default, skip_serializing_if = "AutoUpdate::is_default")]
    pub auto_update: AutoUpdate,
    /// The floor under re-issue.
    #[serde(default, skip_serializing_if = "ReissueFloor::is_default")]
    pub reissue: ReissueFloor,
    /// How certificates are written on the device (S15).
    #[serde(default)]
    pub file_format: FileFormat,
    /// Where connections to the CA come from on the device; not stored where nothing is said (S7).
    #[serde(default, skip_serializing_if = "SourceSpec::is_anywhere")]
    pub source: SourceSpec,
    /// What of the CA is kept fresh on the device, beside the certificate.
    #[serde(default, skip_serializing_if = "UpkeepSpec::is_nothing")]
    pub upkeep: UpkeepSpec,
    /// Believe the time in verified answers of the CA, on a device that knows no better (V13).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ca_time: bool,
    /// Longest time for one request and its answer, seconds, 1 to 600.
    #[serde(default = "default_message_timeout_s")]
    pub message_timeout_s: u32,
    /// Longest time for the whole transaction with all polling, seconds, up to 30 days.
    #[serde(default = "default_total_timeout_s")]
    pub total_timeout_s: u32,
}

const fn default_message_timeout_s() -> u32 {
    30
}

const fn default_total_timeout_s() -> u32 {
    86_400
}

const TOTAL_TIMEOUT_MAX_S: u32 = 30 * 86_400;

/// Key pair of a trustpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// Kind and size of the key (S25).
    pub algorithm: KeyAlgorithm,
    /// A new key with every update; otherwise updates keep the key (S3).
    #[serde(default = "default_regenerate")]
    pub regenerate: bool,
}

const fn default_regenerate() -> bool {
    true
}

/// Kind and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// RSA, 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA, 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    /// RSA, 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
    /// ECDSA on P-256.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA on P-384.
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
}

/// How requests prove where they come from (S11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginAuthentication {
    /// Password-based MAC with reference and secret (S12, S13).
    #[default]
    MessageAuthenticationCode,
    /// Signature by an identity that somebody else has issued to the device (S14, S28, S29).
    Signature,
}

/// Algorithms of the password-based MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MacAlgorithm {
    /// HMAC with SHA-256, over a key made with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384, over a key made with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512, over a key made with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// PBMAC1 (RFC 9481 section 6.1.2) with HMAC-SHA256 for key and MAC.
    #[serde(rename = "pbmac1-sha256")]
    Pbmac1Sha256,
    /// PBMAC1 with HMAC-SHA384.
    #[serde(rename = "pbmac1-sha384")]
    Pbmac1Sha384,
    /// PBMAC1 with HMAC-SHA512.
    #[serde(rename = "pbmac1-sha512")]
    Pbmac1Sha512,
    /// HMAC with SHA-1, over a key made with SHA-1: weak (S8).
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
}

/// Settings of the password-based MAC (RFC 9810 section 5.1.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacSettings {
    /// Algorithm of requests (S8).
    #[serde(default = "default_mac_algorithm")]
    pub algorithm: MacAlgorithm,
    /// Iterations of the one-way function in requests, 500 (PBMAC1: 1000) to 100,000.
    #[serde(default = "default_iterations")]
    pub iterations: u32,
    /// Accept HMAC-SHA1 in answers, whatever was sent: some servers answer so (S8).
    #[serde(default)]
    pub accept_sha1_answers: bool,
}

impl Default for MacSettings {
    fn default() -> Self {
        Self { algorithm: default_mac_algorithm(), iterations: default_iterations(), accept_sha1_answers: false }
    }
}

const fn default_mac_algorithm() -> MacAlgorithm {
    MacAlgorithm::HmacSha256
}

const fn default_iterations() -> u32 {
    10_000
}

/// Whether an issued certificate takes effect by itself (S33, S34).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// As soon as it is confirmed.
    #[default]
    Automatic,
    /// Only on command; until then it is staged.
    Manual,
    /// As routers and firewalls do it: what was asked for by hand (IR, CR, KUR) waits for a command, what was renewed by
    /// itself takes effect by itself.
    Router,
}

/// Whether a certificate takes effect by itself, for single kinds of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationByKind {
    /// After an initialization request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ir: Option<bool>,
    /// After a certification request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cr: Option<bool>,
    /// After a key update request by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kur: Option<bool>,
    /// After an automatic renewal: a key update, or the cr that stands in for one (S34).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_kur: Option<bool>,
}

impl ActivationByKind {
    /// Nothing is said.
    pub const fn is_nothing(&self) -> bool {
        self.ir.is_none() && self.cr.is_none() && self.kur.is_none() && self.automatic_kur.is_none()
    }
}

/// How certificates are written on the device (S15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Base64 between BEGIN and END lines.
    #[default]
    Pem,
    /// Binary.
    Der,
}

/// What of the CA is kept fresh on the device, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepSpec {
    /// CA certificates, by genm (caCerts).
    pub ca_certs: bool,
    /// The CRL of the certificate's CA, by its distribution points and by genm.
    pub crls: bool,
    /// Roots that follow the trust anchors, by genm (rootCaCert): offered to operators.
    pub roots: bool,
    /// Seconds between two times, 10 to 30 days; a CRL is asked for earlier where it ends before.
    pub every_s: u32,
}

impl Default for UpkeepSpec {
    fn default() -> Self {
        Self { ca_certs: false, crls: false, roots: false, every_s: 86_400 }
    }
}

impl UpkeepSpec {
    /// Nothing is kept fresh, as if nothing was said: not stored then, for older replicas.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The local side of the TCP connections to the CA (S7). With both, the address must be one of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// IP address of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Network interface of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl SourceSpec {
    /// Nothing is said: the device's routes decide.
    pub const fn is_anywhere(&self) -> bool {
        self.address.is_none() && self.interface.is_none()
    }

    fn check(&self, violations: &mut Violations) {
        if let Some(text) = &self.address {
            match text.parse::<IpAddr>() {
                Err(_) => violations.add("source.address", "S7", format!("is {text:?}; give an IP address")),
                Ok(address) if address.is_unspecified() || address.is_multicast() => {
                    violations.add("source.address", "S7", format!("is {text}, which no device has"));
                }
                Ok(_) => {}
            }
        }
        if let Some(name) = &self.interface {
            violations.check("source.interface", "S7", check_interface(name));
        }
    }
}

/// Why a text is no name of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no name of a network interface: 1 to 15 letters, digits and signs, without '/', ':' and blanks")]
pub struct InterfaceError;

/// Checks the name of a network interface, as Linux does (S7). It becomes part of a path, and none can be made of it.
///
/// # Errors
/// [`InterfaceError`].
pub fn check_interface(name: &str) -> Result<(), InterfaceError> {
    let good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    let fits = (1..=15).contains(&name.len()) && name.bytes().all(good) && !matches!(name, "." | "..");
    if fits { Ok(()) } else { Err(InterfaceError) }
}

/// The domain of the device's factory identity (S39).
pub const DEFAULT_DOMAIN: &str = "default";

impl PolicySpec {
    /// The PKI domain whose identity signs the first request (S14).
    pub fn domain(&self) -> Option<&str> {
        let signed = self.origin_authentication == OriginAuthentication::Signature;
        signed.then(|| self.authentication_domain.as_deref().unwrap_or(DEFAULT_DOMAIN))
    }

    /// Whether what is asked for takes effect by itself; `automatic`: nobody has asked for it by hand (S33, S34).
    pub fn activates(&self, kind: RequestKind, automatic: bool) -> bool {
        let by_kind = match kind {
            RequestKind::Ir => self.activation_by_kind.ir,
            // A renewal is a cr where an update cannot be.
            RequestKind::Cr | RequestKind::Kur if automatic => self.activation_by_kind.automatic_kur,
            RequestKind::Cr => self.activation_by_kind.cr,
            RequestKind::Kur => self.activation_by_kind.kur,
        };
        by_kind.unwrap_or(match self.activation {
            Activation::Automatic => true,
            Activation::Manual => false,
            Activation::Router => automatic,
        })
    }

    /// Checks all limits; `allow_weak` is the tenant's explicit permission for weak algorithms (S8).
    pub fn check(&self, allow_weak: bool, violations: &mut Violations) {
        if !allow_weak {
            if self.mac.algorithm == MacAlgorithm::HmacSha1 {
                violations.add("mac.algorithm", "S8", "hmac-sha1 is weak: the tenant must allow weak algorithms first");
            }
            if self.mac.accept_sha1_answers {
                let message = "HMAC-SHA1 in answers is weak: the tenant must allow weak algorithms first";
                violations.add("mac.accept_sha1_answers", "S8", message);
            }
        }
        let pbmac1 = matches!(
            self.mac.algorithm,
            MacAlgorithm::Pbmac1Sha256 | MacAlgorithm::Pbmac1Sha384 | MacAlgorithm::Pbmac1Sha512
        );
        // RFC 8018 section 4.2 wants 1000 at least
        let least = if pbmac1 { 1000 } else { 500 };
        range(violations, "mac.iterations", self.mac.iterations, least, 100_000, "iterations");
        if let Some(domain) = &self.authentication_domain {
            violations.check("authentication_domain", "S14", domain.parse::<ObjectName>());
            if self.origin_authentication != OriginAuthentication::Signature {
                let message = "is used by origin_authentication signature only: change that, or leave this out";
                violations.add("authentication_domain", "S14", message);
            }
        }
        for (field, rule, text) in [("sender", "S19", &self.sender), ("recipient", "S20", &self.recipient)] {
            if let Some(text) = text
                && violations.check(field, rule, check_text(text, SUBJECT_MAX)).is_some()
            {
                violations.check(field, "placeholder", placeholders(text));
            }
        }
        self.source.check(violations);
        self.auto_update.check(violations);
        self.reissue.check(violations);
        range(violations, "upkeep.every_s", self.upkeep.every_s, 10, TOTAL_TIMEOUT_MAX_S, "seconds");
        range(violations, "message_timeout_s", self.message_timeout_s, 1, 600, "seconds");
        range(violations, "total_timeout_s", self.total_timeout_s, 1, TOTAL_TIMEOUT_MAX_S, "seconds");
        if self.total_timeout_s < self.message_timeout_s {
            violations.add("total_timeout_s", "timeouts", "is shorter than message_timeout_s");
        }
    }
}

fn range(violations: &mut Violations, field: &str, value: u32, least: u32, most: u32, unit: &str) {
    if !(least..=most).contains(&value) {
        violations.add(field, "range", format!("is {value}; allowed are {least} to {most} {unit}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> PolicySpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn s11_a_first_request_is_proved_by_mac_unless_the_policy_says_signature() {
        let silent = policy(r#"{"key":{"algorithm":"ed25519"}}"#);
        assert_eq!(silent.origin_authentication, OriginAuthentication::MessageAuthenticationCode);
        assert_eq!(silent.domain(), None);
        let signed = policy(r#"{"key":{"algorithm":"ed25519"},"origin_authentication":"signature"}"#);
        assert_eq!(signed.domain(), Some("default"), "with the factory identity, where none is named");
    }

    #[test]
    fn s25_a_policy_cannot_name_a_key_of_fewer_than_2048_bits() {
        for algorithm in ["rsa-512", "rsa-1024", "rsa-2047"] {
            let text = format!(r#"{{"key":{{"algorithm":"{algorithm}"}}}}"#);
            let refused = serde_json::from_str::<PolicySpec>(&text).unwrap_err().to_string();
            assert!(refused.contains("rsa-2048"), "it names what there is: {refused}");
        }
    }

    #[test]
    fn s8_hmac_sha1_needs_the_tenants_permission() {
        let policy = policy(r#"{"key":{"algorithm":"rsa-2048"},"mac":{"algorithm":"hmac-sha1"}}"#);
        let mut violations = Violations::new();
        policy.check(false, &mut violations);
        assert_eq!(violations.as_slice()[0].field, "mac.algorithm");
        let mut violations = Violations::new();
        policy.check(true, &mut violations);
        assert!(violations.is_empty());
    }

    #[test]
    fn p4_pbmac1_wants_more_iterations_than_the_older_mac() {
        for (algorithm, refused) in [("hmac-sha512", 0), ("pbmac1-sha512", 1)] {
            let text = r#"{"key":{"algorithm":"ed25519"},"mac":{"algorithm":"NAME","iterations":999}}"#;
            let mut violations = Violations::new();
            policy(&text.replace("NAME", algorithm)).check(false, &mut violations);
            assert_eq!(violations.as_slice().len(), refused, "{algorithm}");
        }
    }

    #[test]
    fn s3_a_policy_with_only_a_key_gets_the_documented_defaults() {
        let policy = policy(r#"{"key":{"algorithm":"ecdsa-p256"}}"#);
        assert!(policy.key.regenerate);
        assert_eq!(policy.mac.algorithm, MacAlgorithm::HmacSha256);
        assert_eq!(policy.activation, Activation::Automatic);
    }

    #[test]
    fn s7_a_source_is_an_address_or_an_interface_that_a_device_can_have() {
        let broken = |source: &str| {
            let text = format!(r#"{{"key":{{"algorithm":"ed25519"}},"source":{source}}}"#);
            let mut violations = Violations::new();
            policy(&text).check(false, &mut violations);
            violations.into_vec().into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        for good in
            [r#"{"interface":"eth0.17"}"#, r#"{"address":"2001:db8::1"}"#, r#"{"address":"10.0.0.1","interface":"lo"}"#]
        {
            assert!(broken(good).is_empty(), "{good}");
        }
        for bad in ["../../x", "", "a name", "eth0:1", "sixteen-letters-", ".."] {
            assert_eq!(broken(&format!(r#"{{"interface":{bad:?}}}"#)), ["source.interface"], "{bad:?}");
        }
        for bad in ["ap-1", "0.0.0.0", "ff02::1", "10.0.0.1/24"] {
            assert_eq!(broken(&format!(r#"{{"address":{bad:?}}}"#)), ["source.address"], "{bad:?}");
        }
    }

    #[test]
    fn s7_a_policy_that_says_nothing_of_the_source_is_stored_as_ever() {
        let stored = serde_json::to_string(&policy(r#"{"key":{"algorithm":"ed25519"}}"#)).unwrap();
        assert!(!stored.contains("source"), "an older replica would not read it: {stored}");
    }

    #[test]
    fn s14_s19_s20_the_names_of_a_request_and_its_domain_have_their_limits() {
        let broken = |more: &str| {
            let text = format!(r#"{{"key":{{"algorithm":"ed25519"}},{more}}}"#);
            let mut violations = Violations::new();
            policy(&text).check(false, &mut violations);
            violations.into_vec().into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        let long = "x".repeat(513);
        for (more, fields) in [
            (r#""origin_authentication":"signature","authentication_domain":"lab""#.to_owned(), vec![]),
            (r#""sender":"CN={device.name}","recipient":"/O=X/CN=RA""#.to_owned(), vec![]),
            (r#""authentication_domain":"lab""#.to_owned(), vec!["authentication_domain"]),
            (
                r#""origin_authentication":"signature","authentication_domain":"../x""#.to_owned(),
                vec!["authentication_domain"],
            ),
            (format!(r#""sender":"{long}","recipient":"{long}""#), vec!["sender", "recipient"]),
            (r#""sender":"CN={device.colour}""#.to_owned(), vec!["sender"]),
        ] {
            assert_eq!(broken(&more), fields, "{more}");
        }
        let signed = policy(r#"{"key":{"algorithm":"ed25519"},"origin_authentication":"signature"}"#);
        assert_eq!(signed.domain(), Some("default"));
        assert_eq!(policy(r#"{"key":{"algorithm":"ed25519"}}"#).domain(), None);
    }

    #[test]
    fn s33_s34_what_takes_effect_by_itself_follows_the_family_and_the_kind_of_request() {
        use RequestKind::{Cr, Ir, Kur};
        let of = |activation: &str| {
            let text = format!(r#"{{"key":{{"algorithm":"ed25519"}},{activation}}}"#);
            let policy = policy(&text);
            [(Ir, false), (Cr, false), (Kur, false), (Kur, true), (Cr, true)]
                .map(|(kind, by_itself)| policy.activates(kind, by_itself))
        };
        assert_eq!(of(r#""activation":"automatic""#), [true; 5]);
        assert_eq!(of(r#""activation":"manual""#), [false; 5]);
        assert_eq!(of(r#""activation":"router""#), [false, false, false, true, true]);
        let but = r#""activation":"router","activation_by_kind":{"ir":true,"automatic_kur":false}"#;
        assert_eq!(of(but), [true, false, false, false, false]);
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let error = serde_json::from_str::<PolicySpec>(r#"{"key":{"algorithm":"rsa-2048"},"colour":1}"#).unwrap_err();
        assert!(error.to_string().contains("colour"));
    }
}
