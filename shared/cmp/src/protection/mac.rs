//! The password-based MAC of RFC 4211 section 4.4 (P2 to P5).
//!
//! The hash runs over the secret with the salt behind it, then over its own result until the iteration count is
//! reached; the whole result is the HMAC key. Secrets and keys are wiped, comparison takes constant time.

use std::{fmt, ops::RangeInclusive};

use aws_lc_rs::{digest, hmac};
use der::asn1::{Any, ObjectIdentifier, OctetString};
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use crate::{
    codec::{PbmParameter, PkiMessage, oids},
    error::{ConfigurationError, LocalError, MessageError},
};

/// Iterations that we send unless told otherwise: what servers commonly accept, and 5 ms on a slow device.
pub const DEFAULT_ITERATIONS: u32 = 10_000;
/// Iterations that are accepted from peers unless told otherwise (P4). OpenSSL sends 500, RFC 9045 wants 1000 and more;
/// above 100,000 OpenSSL refuses as well.
pub const ACCEPTED_ITERATIONS: RangeInclusive<u32> = 100..=100_000;

/// A hash of owf and HMAC.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// Weak: only where it is allowed explicitly (S8).
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    const fn owf_oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => oids::SHA1,
            Self::Sha256 => oids::SHA256,
            Self::Sha384 => oids::SHA384,
            Self::Sha512 => oids::SHA512,
        }
    }

    const fn hmac_oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => oids::HMAC_SHA1,
            Self::Sha256 => oids::HMAC_WITH_SHA256,
            Self::Sha384 => oids::HMAC_WITH_SHA384,
            Self::Sha512 => oids::HMAC_WITH_SHA512,
        }
    }

    fn from_owf(oid: ObjectIdentifier) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|hash| hash.owf_oid() == oid)
    }

    fn from_hmac(oid: ObjectIdentifier) -> Option<Self> {
        if oid == oids::HMAC_WITH_SHA1 {
            return Some(Self::Sha1);
        }
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|hash| hash.hmac_oid() == oid)
    }
}

/// How our requests are MACed; what is accepted in answers is [`AcceptedMacs`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MacPolicy {
    /// The iterated hash.
    pub owf: Hash,
    /// The HMAC.
    pub hmac: Hash,
    /// How often the hash runs; see [`DEFAULT_ITERATIONS`].
    pub iterations: u32,
    /// SHA-1 may be sent (S8).
    pub weak_allowed: bool,
}

impl MacPolicy {
    /// Both hashes alike, the default iteration count, nothing weak.
    pub const fn of(hash: Hash) -> Self {
        Self { owf: hash, hmac: hash, iterations: DEFAULT_ITERATIONS, weak_allowed: false }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigurationError> {
        if !self.weak_allowed && (self.owf == Hash::Sha1 || self.hmac == Hash::Sha1) {
            return Err(ConfigurationError::WeakMac);
        }
        let (lowest, highest) = (*ACCEPTED_ITERATIONS.start(), *ACCEPTED_ITERATIONS.end());
        if !ACCEPTED_ITERATIONS.contains(&self.iterations) {
            return Err(ConfigurationError::Iterations { got: self.iterations, lowest, highest });
        }
        Ok(())
    }
}

/// Which MACs are accepted from peers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AcceptedMacs {
    /// Accepted iterated hashes.
    pub owf: Vec<Hash>,
    /// Accepted HMACs.
    pub hmac: Vec<Hash>,
}

impl AcceptedMacs {
    /// The SHA-2 family.
    pub fn strong() -> Self {
        let hashes = vec![Hash::Sha256, Hash::Sha384, Hash::Sha512];
        Self { owf: hashes.clone(), hmac: hashes }
    }

    /// SHA-1 as well: some servers answer by HMAC-SHA1 whatever was sent.
    pub fn with_sha1() -> Self {
        let mut accepted = Self::strong();
        accepted.owf.push(Hash::Sha1);
        accepted.hmac.push(Hash::Sha1);
        accepted
    }
}

/// The parameters with the key derived from them and the secret.
pub(crate) struct PbmKey {
    parameters: PbmParameter,
    key: hmac::Key,
}

impl PbmKey {
    /// Derives the key: `iterations` hashes.
    pub(crate) fn derive(policy: &MacPolicy, secret: &[u8], salt: &[u8]) -> Result<Self, LocalError> {
        // without parameters: RFC 5754 section 2 for the hashes, RFC 4231 section 3.1 allows it for the HMACs
        let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
        let parameters = PbmParameter {
            salt: OctetString::new(salt).map_err(LocalError::encoding("a salt"))?,
            owf: plain(policy.owf.owf_oid()),
            iteration_count: policy.iterations,
            mac: plain(policy.hmac.hmac_oid()),
        };
        let key = base_key(policy.owf, secret, salt, policy.iterations);
        Ok(Self { parameters, key: hmac::Key::new(policy.hmac.hmac(), &key) })
    }

    pub(crate) fn algorithm(&self) -> Result<AlgorithmIdentifierOwned, LocalError> {
        let parameters = Any::encode_from(&self.parameters).map_err(LocalError::encoding("PBM parameters"))?;
        Ok(AlgorithmIdentifierOwned { oid: oids::PASSWORD_BASED_MAC, parameters: Some(parameters) })
    }

    pub(crate) fn mac(&self, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.key, message).as_ref().to_vec()
    }
}

/// What a message's PBM was made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedMac {
    pub(crate) owf: Hash,
    pub(crate) hmac: Hash,
    pub(crate) iterations: u32,
}

/// Verifies the MAC of a message with the secret, within bounds (P4, P5).
///
/// The bounds are checked before the first hash is computed.
pub(crate) fn verify(
    message: &PkiMessage,
    secret: &[u8],
    accepted: &AcceptedMacs,
    iterations: &RangeInclusive<u32>,
) -> Result<UsedMac, MessageError> {
    let (Some(algorithm), Some(protection)) = (&message.header.protection_alg, &message.protection) else {
        return Err(MessageError::ProtectionIncomplete);
    };
    let refused = |detail: String| MessageError::Algorithm { detail };
    if algorithm.oid != oids::PASSWORD_BASED_MAC {
        return Err(refused(format!("{} is not the password-based MAC", algorithm.oid)));
    }
    let parameters = algorithm.parameters.as_ref().ok_or_else(|| refused("PBM without parameters".to_owned()))?;
    let parameters: PbmParameter =
        parameters.decode_as().map_err(|error| refused(format!("PBM parameters do not decode: {error}")))?;
    let owf = Hash::from_owf(parameters.owf.oid).filter(|hash| accepted.owf.contains(hash));
    let owf = owf.ok_or_else(|| refused(format!("one-way function {}", parameters.owf.oid)))?;
    let hmac = Hash::from_hmac(parameters.mac.oid).filter(|hash| accepted.hmac.contains(hash));
    let hmac = hmac.ok_or_else(|| refused(format!("MAC {}", parameters.mac.oid)))?;
    if !iterations.contains(&parameters.iteration_count) {
        let (lowest, highest) = (*iterations.start(), *iterations.end());
        return Err(MessageError::Iterations { got: parameters.iteration_count, lowest, highest });
    }
    let key = base_key(owf, secret, parameters.salt.as_bytes(), parameters.iteration_count);
    let covered = message.protected_part().map_err(|error| refused(error.to_string()))?;
    hmac::verify(&hmac::Key::new(hmac.hmac(), &key), &covered, protection).map_err(|_| MessageError::MacMismatch)?;
    Ok(UsedMac { owf, hmac, iterations: parameters.iteration_count })
}

/// RFC 4211 section 4.4: BASEKEY = owf(... owf(secret || salt)).
fn base_key(owf: Hash, secret: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
    let salted = Zeroizing::new([secret, salt].concat());
    let mut key = Zeroizing::new(digest::digest(owf.digest(), &salted).as_ref().to_vec());
    for _ in 1..iterations {
        let next = digest::digest(owf.digest(), &key);
        key.copy_from_slice(next.as_ref());
    }
    key
}

/// Is the message protected by a MAC (P5), going by its algorithm?
pub(crate) fn is_mac(message: &PkiMessage) -> bool {
    message
        .header
        .protection_alg
        .as_ref()
        .is_some_and(|algorithm| [oids::PASSWORD_BASED_MAC, oids::PBMAC1].contains(&algorithm.oid))
}

impl fmt::Debug for PbmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PbmKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PkiBody, PkiHeader, raw::directory_name};

    #[test]
    fn p4_four_thousand_million_iterations_are_refused_without_computing_one() {
        let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
        let parameters = PbmParameter {
            salt: OctetString::new([1; 16]).unwrap(),
            owf: plain(oids::SHA512),
            iteration_count: u32::MAX,
            mac: plain(oids::HMAC_WITH_SHA512),
        };
        let name = directory_name(&[0x30, 0x00]).unwrap();
        let header = PkiHeader {
            pvno: 2,
            sender: name.clone(),
            recipient: name,
            message_time: None,
            protection_alg: Some(AlgorithmIdentifierOwned {
                oid: oids::PASSWORD_BASED_MAC,
                parameters: Some(Any::encode_from(&parameters).unwrap()),
            }),
            sender_kid: None,
            recip_kid: None,
            transaction_id: None,
            sender_nonce: None,
            recip_nonce: None,
            free_text: None,
            general_info: None,
        };
        let mut message = PkiMessage::assemble(header, PkiBody::PkiConf).unwrap();
        message.protection = Some(vec![0; 64]);
        let begin = std::time::Instant::now();
        let error = verify(&message, b"secret", &AcceptedMacs::strong(), &ACCEPTED_ITERATIONS).unwrap_err();
        assert!(matches!(error, MessageError::Iterations { got: u32::MAX, .. }), "{error}");
        assert!(begin.elapsed().as_secs() < 30, "that many would take many minutes");
    }
}
