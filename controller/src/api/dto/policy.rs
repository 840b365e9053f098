//! CMP policies (S1 to S26, as far as they exist).

use trustfleet_model::ids::PolicyId;
use trustfleet_model::policy::{
    Activation, ActivationByKind, FileFormat, KeyAlgorithm, KeySpec, MacAlgorithm, MacSettings, OriginAuthentication,
    PolicySpec, SourceSpec, UpkeepSpec,
};
use trustfleet_model::reissue::ReissueFloor;
use trustfleet_model::renewal::AutoUpdate;

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
        /// Signature by an identity that somebody else has issued to the device (S14, S28, S29).
        Signature = "signature",
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
        /// What was asked for by hand only on command, what was renewed by itself at once, as routers do it.
        Router = "router",
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

/// Whether a certificate takes effect by itself, for single kinds of requests, over `activation`; left out: as that says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PolicyActivationByKind)]
pub struct ActivationByKindBody {
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

/// Whether and when certificates are renewed by themselves (S31, S41, S43).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PolicyAutoUpdate)]
pub struct AutoUpdateBody {
    /// Renew by key update request, or by a signed cr where that cannot be; default false.
    pub enabled: bool,
    /// Begin of the safe window: elapsed part of the validity period, percent; 50 where neither this nor
    /// `days_before_expiry` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 95)]
    pub elapsed_percent: Option<u8>,
    /// Begin of the safe window, the other way: days before the certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 365)]
    pub days_before_expiry: Option<u16>,
    /// End of the safe window, percent elapsed; default 80. Each trustpoint has its own moment in the window.
    #[schema(minimum = 1, maximum = 99)]
    pub latest_percent: u8,
    /// Emergency mark, percent elapsed, `latest_percent` to 99: from then on an agent that is cut off from the controller
    /// renews by itself; null: half of what is left after the safe window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 99)]
    pub emergency_percent: Option<u8>,
    /// How long an agent may renew by itself after the controller last said so, seconds: 0 (never), or 10 to 31,622,400;
    /// default 30 days.
    #[schema(maximum = 31_622_400)]
    pub lease_s: u32,
}

impl Default for AutoUpdateBody {
    fn default() -> Self {
        AutoUpdate::default().into()
    }
}

impl From<AutoUpdate> for AutoUpdateBody {
    fn from(auto: AutoUpdate) -> Self {
        let AutoUpdate { enabled, elapsed_percent, days_before_expiry, latest_percent, emergency_percent, lease_s } =
            auto;
        Self { enabled, elapsed_percent, days_before_expiry, latest_percent, emergency_percent, lease_s }
    }
}

/// What of the CA is kept fresh on the device, beside the certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PolicyUpkeep)]
pub struct UpkeepBody {
    /// CA certificates, by genm; default false.
    pub ca_certs: bool,
    /// The CRL of the certificate's CA, by its distribution points and by genm; default false.
    pub crls: bool,
    /// Roots that follow the CA server's trust anchors, by genm: offered there, and trusted by nobody before an operator
    /// takes them; default false.
    pub roots: bool,
    /// Seconds between two times, 10 to 2,592,000; default a day. A CRL is asked for earlier where it ends before.
    #[schema(minimum = 10, maximum = 2_592_000)]
    pub every_s: u32,
}

impl Default for UpkeepBody {
    fn default() -> Self {
        UpkeepSpec::default().into()
    }
}

impl From<UpkeepBody> for UpkeepSpec {
    fn from(upkeep: UpkeepBody) -> Self {
        let UpkeepBody { ca_certs, crls, roots, every_s } = upkeep;
        Self { ca_certs, crls, roots, every_s }
    }
}

impl From<UpkeepSpec> for UpkeepBody {
    fn from(upkeep: UpkeepSpec) -> Self {
        let UpkeepSpec { ca_certs, crls, roots, every_s } = upkeep;
        Self { ca_certs, crls, roots, every_s }
    }
}

/// The floor under re-issue.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = ReissueFloor)]
pub struct ReissueBody {
    /// How many certificates a trustpoint may get in that time, up to 32; 0: any number; default 10.
    #[schema(maximum = 32, default = 10)]
    pub most: u32,
    /// In what time, seconds, up to 30 days; in the life of its certificate where that is shorter; default 3600.
    #[schema(minimum = 1, maximum = 2_592_000, default = 3600)]
    pub within_s: u32,
}

impl Default for ReissueBody {
    fn default() -> Self {
        ReissueFloor::default().into()
    }
}

impl From<ReissueBody> for ReissueFloor {
    fn from(floor: ReissueBody) -> Self {
        let ReissueBody { most, within_s } = floor;
        Self { most, within_s }
    }
}

impl From<ReissueFloor> for ReissueBody {
    fn from(floor: ReissueFloor) -> Self {
        let ReissueFloor { most, within_s } = floor;
        Self { most, within_s }
    }
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
        /// PKI domain of the device whose identity signs the first request; null: `default`, its factory identity
        /// (S14, S39).
        #[serde(default)]
        #[schema(max_length = 63)]
        authentication_domain: Option<String>,
        /// Sender DN of MAC-protected requests, with placeholders; null: the reference value as a common name (S19).
        #[serde(default)]
        #[schema(max_length = 512)]
        sender: Option<String>,
        /// Recipient DN, where it is another one than the CA's name; placeholders are filled (S20).
        #[serde(default)]
        #[schema(max_length = 512)]
        recipient: Option<String>,
        /// MAC of requests (S8).
        #[serde(default)]
        mac: MacBody,
        /// Ask the CA to do without certConf.
        #[serde(default)]
        implicit_confirm: bool,
        /// Whether an issued certificate takes effect by itself (S33, S34).
        #[serde(default = "activation")]
        activation: ActivationBody,
        /// The same for single kinds of requests, over `activation`.
        #[serde(default)]
        activation_by_kind: ActivationByKindBody,
        /// Whether and when certificates are renewed by themselves (S31, S41, S43).
        #[serde(default)]
        auto_update: AutoUpdateBody,
        /// The floor under re-issue: how many certificates a trustpoint may get in a time, whoever asks.
        #[serde(default)]
        reissue: ReissueBody,
        /// How certificates are written on the device (S15).
        #[serde(default = "file_format")]
        file_format: FileFormatBody,
        /// Where connections to the CA come from on the device; by default its routes decide (S7).
        #[serde(default)]
        source: SourceBody,
        /// What of the CA is kept fresh on the device, beside the certificate; by default nothing.
        #[serde(default)]
        upkeep: UpkeepBody,
        /// Believe the time in verified answers of the CA, on a device without a clock of its own that has not heard the
        /// controller's time yet; default false (V13).
        #[serde(default)]
        ca_time: bool,
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
            authentication_domain: self.authentication_domain,
            sender: self.sender,
            recipient: self.recipient,
            mac: MacSettings {
                algorithm: self.mac.algorithm.into(),
                iterations: self.mac.iterations,
                accept_sha1_answers: self.mac.accept_sha1_answers,
            },
            implicit_confirm: self.implicit_confirm,
            activation: self.activation.into(),
            activation_by_kind: ActivationByKind {
                ir: self.activation_by_kind.ir,
                cr: self.activation_by_kind.cr,
                kur: self.activation_by_kind.kur,
                automatic_kur: self.activation_by_kind.automatic_kur,
            },
            auto_update: AutoUpdate {
                enabled: self.auto_update.enabled,
                elapsed_percent: self.auto_update.elapsed_percent,
                days_before_expiry: self.auto_update.days_before_expiry,
                latest_percent: self.auto_update.latest_percent,
                emergency_percent: self.auto_update.emergency_percent,
                lease_s: self.auto_update.lease_s,
            },
            reissue: self.reissue.into(),
            file_format: self.file_format.into(),
            upkeep: self.upkeep.into(),
            ca_time: self.ca_time,
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
            authentication_domain: spec.authentication_domain,
            sender: spec.sender,
            recipient: spec.recipient,
            mac: spec.mac.into(),
            implicit_confirm: spec.implicit_confirm,
            activation: spec.activation.into(),
            activation_by_kind: ActivationByKindBody {
                ir: spec.activation_by_kind.ir,
                cr: spec.activation_by_kind.cr,
                kur: spec.activation_by_kind.kur,
                automatic_kur: spec.activation_by_kind.automatic_kur,
            },
            auto_update: spec.auto_update.into(),
            reissue: spec.reissue.into(),
            file_format: spec.file_format.into(),
            upkeep: spec.upkeep.into(),
            ca_time: spec.ca_time,
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
