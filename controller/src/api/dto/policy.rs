//! CMP policies (S1 to S26, as far as they exist).

use trustfleet_model::ids::PolicyId;
use trustfleet_model::policy::{
    Activation, FileFormat, KeyAlgorithm, KeySpec, MacAlgorithm, MacSettings, OriginAuthentication, PolicySpec,
    SourceSpec,
};

use super::{configured, words};
use crate::db::Configured;

words! {
    /// Kind and size of a key (S25).
    KeyAlgorithmBody mirrors KeyAlgorithm {
        /// RSA, 2048 bits.
        Rsa2048 = "rsa-2048",
        /// RSA, 3072 bits.
        Rsa3072 = "rsa-3072",
        /// RSA, 4096 bits.
        Rsa4096 = "rsa-4096",
        /// ECDSA on P-256.
        EcdsaP256 = "ecdsa-p256",
        /// ECDSA on P-384.
        EcdsaP384 = "ecdsa-p384",
        /// Ed25519.
        Ed25519 = "ed25519",
    }
}

words! {
    /// How requests prove where they come from (S11).
    OriginAuthenticationBody mirrors OriginAuthentication {
        /// Password-based MAC with reference and secret (S12, S13).
        MessageAuthenticationCode = "message_authentication_code",
    }
}

words! {
    /// Algorithms of the password-based MAC (S8).
    MacAlgorithmBody mirrors MacAlgorithm {
        /// HMAC with SHA-256.
        HmacSha256 = "hmac-sha256",
        /// HMAC with SHA-384.
        HmacSha384 = "hmac-sha384",
        /// HMAC with SHA-512.
        HmacSha512 = "hmac-sha512",
        /// PBMAC1 with HMAC-SHA256.
        Pbmac1Sha256 = "pbmac1-sha256",
        /// PBMAC1 with HMAC-SHA384.
        Pbmac1Sha384 = "pbmac1-sha384",
        /// PBMAC1 with HMAC-SHA512.
        Pbmac1Sha512 = "pbmac1-sha512",
        /// HMAC with SHA-1: weak, only where the tenant allows it.
        HmacSha1 = "hmac-sha1",
    }
}

words! {
    /// Whether an issued certificate takes effect by itself (S33, S34).
    ActivationBody mirrors Activation {
        /// As soon as it is confirmed.
        Automatic = "automatic",
        /// Only on command; until then it is staged.
        Manual = "manual",
    }
}

words! {
    /// How certificates are written on the device (S15).
    FileFormatBody mirrors FileFormat {
        /// Base64 between BEGIN and END lines.
        Pem = "pem",
        /// Binary.
        Der = "der",
    }
}

/// Key pair of a trustpoint (S3, S25).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PolicyKey)]
pub struct KeyBody {
    /// Kind and size of the key.
    pub algorithm: KeyAlgorithmBody,
    /// A new key with every update; otherwise updates keep the key.
    #[serde(default = "yes")]
    pub regenerate: bool,
}

const fn yes() -> bool {
    true
}

/// MAC of requests (S8).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PolicyMac)]
pub struct MacBody {
    /// Algorithm of requests.
    pub algorithm: MacAlgorithmBody,
    /// Iterations of the one-way function in requests, 500 to 100,000.
    #[schema(minimum = 500, maximum = 100_000)]
    pub iterations: u32,
    /// Accept HMAC-SHA1 in answers, whatever was sent.
    pub accept_sha1_answers: bool,
}

impl Default for MacBody {
    fn default() -> Self {
        MacSettings::default().into()
    }
}

impl From<MacSettings> for MacBody {
    fn from(mac: MacSettings) -> Self {
        Self {
            algorithm: mac.algorithm.into(),
            iterations: mac.iterations,
            accept_sha1_answers: mac.accept_sha1_answers,
        }
    }
}

/// Where connections to the CA come from on the device (S7); with both, the address must be one of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PolicySource)]
pub struct SourceBody {
    /// IP address of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("10.20.0.7"))]
    pub address: Option<String>,
    /// Network interface of the device: it must exist there, be a layer-3 interface and carry an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 15, examples("eth0"))]
    pub interface: Option<String>,
}

fn origin_authentication() -> OriginAuthenticationBody {
    OriginAuthentication::default().into()
}

fn activation() -> ActivationBody {
    Activation::default().into()
}

fn file_format() -> FileFormatBody {
    FileFormat::default().into()
}

const fn message_timeout_s() -> u32 {
    30
}

const fn total_timeout_s() -> u32 {
    86_400
}

configured! {
    /// The settings of CMP sessions, shared by many trustpoints.
    PolicyBody (PolicyCreate, PolicyUpdate) of PolicyId {
        /// Key pair of the trustpoint (S3, S25).
        key: KeyBody,
        /// How the first request proves where it comes from (S11).
        #[serde(default = "origin_authentication")]
        origin_authentication: OriginAuthenticationBody,
        /// MAC of requests (S8).
        #[serde(default)]
        mac: MacBody,
        /// Ask the CA to do without certConf.
        #[serde(default)]
        implicit_confirm: bool,
        /// Whether an issued certificate takes effect by itself (S33, S34).
        #[serde(default = "activation")]
        activation: ActivationBody,
        /// How certificates are written on the device (S15).
        #[serde(default = "file_format")]
        file_format: FileFormatBody,
        /// Where connections to the CA come from on the device; by default its routes decide (S7).
        #[serde(default)]
        source: SourceBody,
        /// Longest time for one request and its answer, seconds, 1 to 600; default 30.
        #[serde(default = "message_timeout_s")]
        #[schema(minimum = 1, maximum = 600)]
        message_timeout_s: u32,
        /// Longest time for the whole transaction with all polling, seconds, up to 30 days; default one day.
        #[serde(default = "total_timeout_s")]
        #[schema(minimum = 1, maximum = 2_592_000)]
        total_timeout_s: u32,
    }
}

impl PolicyUpdate {
    /// The domain's value; nothing of it is checked yet.
    pub fn into_spec(self) -> PolicySpec {
        PolicySpec {
            key: KeySpec { algorithm: self.key.algorithm.into(), regenerate: self.key.regenerate },
            origin_authentication: self.origin_authentication.into(),
            mac: MacSettings {
                algorithm: self.mac.algorithm.into(),
                iterations: self.mac.iterations,
                accept_sha1_answers: self.mac.accept_sha1_answers,
            },
            implicit_confirm: self.implicit_confirm,
            activation: self.activation.into(),
            file_format: self.file_format.into(),
            source: SourceSpec { address: self.source.address, interface: self.source.interface },
            message_timeout_s: self.message_timeout_s,
            total_timeout_s: self.total_timeout_s,
        }
    }
}

impl From<Configured<PolicyId, PolicySpec>> for PolicyBody {
    fn from(policy: Configured<PolicyId, PolicySpec>) -> Self {
        let spec = policy.spec;
        Self {
            id: policy.id,
            name: policy.name.into(),
            revision: policy.revision,
            created_at: policy.created_at,
            updated_at: policy.updated_at,
            key: KeyBody { algorithm: spec.key.algorithm.into(), regenerate: spec.key.regenerate },
            origin_authentication: spec.origin_authentication.into(),
            mac: spec.mac.into(),
            implicit_confirm: spec.implicit_confirm,
            activation: spec.activation.into(),
            file_format: spec.file_format.into(),
            source: SourceBody { address: spec.source.address, interface: spec.source.interface },
            message_timeout_s: spec.message_timeout_s,
            total_timeout_s: spec.total_timeout_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_api_are_the_defaults_of_the_domain() {
        let text = r#"{"key":{"algorithm":"rsa-2048"}}"#;
        let body: PolicyUpdate = serde_json::from_str(text).unwrap();
        assert_eq!(body.into_spec(), serde_json::from_str::<PolicySpec>(text).unwrap());
    }
}
