//! MACs by a shared secret: the password-based MAC of RFC 4211 and PBMAC1 of RFC 8018 (P2 to P5).
//!
//! Both make a key out of the secret and end in an HMAC. What is sent is [`MacPolicy`], what is accepted
//! [`AcceptedMacs`] with bounds that are checked before anything is computed. Secrets and keys are wiped, comparison
//! takes constant time (aws-lc-rs).

mod pbm;
mod pbmac1;

use std::{fmt, ops::RangeInclusive};

use aws_lc_rs::{digest, hmac, pbkdf2};
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;

use crate::{
    codec::{PkiMessage, oids},
    error::{ConfigurationError, LocalError, MessageError},
};

/// Iterations that we send unless told otherwise: what servers commonly accept, and 5 ms on a slow device.
pub const DEFAULT_ITERATIONS: u32 = 10_000;
/// Iterations that are accepted from peers unless told otherwise (P4). OpenSSL sends 500, RFC 9045 wants 1000 and more;
/// above 100,000 OpenSSL refuses as well.
pub const ACCEPTED_ITERATIONS: RangeInclusive<u32> = 100..=100_000;
/// Rounds of PBKDF2 that are accepted from peers unless told otherwise (P4): RFC 8018 section 4.2 wants 1000 and more,
/// and the highest is what is commonly advised for passwords, half a second on a slow device.
pub const ACCEPTED_PBKDF2_ITERATIONS: RangeInclusive<u32> = 1_000..=600_000;
/// Longest salt that is taken from peers, in bytes. OpenSSL sends 16.
pub const MAX_SALT_BYTES: usize = 1024;

/// How the MAC key is made of the secret.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MacScheme {
    /// The password-based MAC of RFC 4211 section 4.4: what every server knows.
    #[default]
    Pbm,
    /// PBMAC1 of RFC 8018 section 7.1 with PBKDF2, by the rules of RFC 9579.
    Pbmac1,
}

impl MacScheme {
    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    const fn is_pbm(&self) -> bool {
        matches!(self, Self::Pbm)
    }
}

impl fmt::Display for MacScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pbm => "PBM",
            Self::Pbmac1 => "PBMAC1",
        })
    }
}

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

    const fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    /// Octets of its result.
    const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
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
    /// How the key is made; left out of records for the one that there was before.
    #[serde(default, skip_serializing_if = "MacScheme::is_pbm")]
    pub scheme: MacScheme,
    /// The iterated hash; in PBMAC1 that of the pseudo-random function.
    pub owf: Hash,
    /// The HMAC.
    pub hmac: Hash,
    /// How often the hash (PBM) or the function (PBMAC1) runs; see [`DEFAULT_ITERATIONS`].
    pub iterations: u32,
    /// SHA-1 may be sent (S8).
    pub weak_allowed: bool,
}

impl MacPolicy {
    /// The password-based MAC, both hashes alike, the default iteration count, nothing weak.
    pub const fn of(hash: Hash) -> Self {
        Self { scheme: MacScheme::Pbm, owf: hash, hmac: hash, iterations: DEFAULT_ITERATIONS, weak_allowed: false }
    }

    /// The same by PBMAC1.
    pub const fn pbmac1(hash: Hash) -> Self {
        Self { scheme: MacScheme::Pbmac1, ..Self::of(hash) }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigurationError> {
        if !self.weak_allowed && (self.owf == Hash::Sha1 || self.hmac == Hash::Sha1) {
            return Err(ConfigurationError::WeakMac);
        }
        let sensible = match self.scheme {
            MacScheme::Pbm => ACCEPTED_ITERATIONS,
            MacScheme::Pbmac1 => ACCEPTED_PBKDF2_ITERATIONS,
        };
        if !sensible.contains(&self.iterations) {
            let (lowest, highest) = (*sensible.start(), *sensible.end());
            return Err(ConfigurationError::Iterations { got: self.iterations, lowest, highest });
        }
        Ok(())
    }
}

/// Which MACs are accepted from peers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AcceptedMacs {
    /// Accepted ways to make the key.
    pub schemes: Vec<MacScheme>,
    /// Accepted iterated hashes, in PBMAC1 those of the pseudo-random function.
    pub owf: Vec<Hash>,
    /// Accepted HMACs.
    pub hmac: Vec<Hash>,
}

impl AcceptedMacs {
    /// Both schemes with the SHA-2 family.
    pub fn strong() -> Self {
        let hashes = vec![Hash::Sha256, Hash::Sha384, Hash::Sha512];
        Self { schemes: vec![MacScheme::Pbm, MacScheme::Pbmac1], owf: hashes.clone(), hmac: hashes }
    }

    /// SHA-1 as well: some servers answer by HMAC-SHA1 whatever was sent.
    pub fn with_sha1() -> Self {
        let mut accepted = Self::strong();
        accepted.owf.push(Hash::Sha1);
        accepted.hmac.push(Hash::Sha1);
        accepted
    }

    /// `Err`: what is not accepted.
    fn check(&self, scheme: MacScheme, owf: Hash, hmac: Hash) -> Result<(), String> {
        if !self.schemes.contains(&scheme) {
            return Err(format!("{scheme} is not among those configured"));
        }
        if !self.owf.contains(&owf) {
            return Err(format!("{scheme} with {owf}"));
        }
        if self.hmac.contains(&hmac) { Ok(()) } else { Err(format!("HMAC with {hmac}")) }
    }
}

/// The bounds of what a peer may let us compute (P4), checked before the first hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iterations<'a> {
    pub(crate) pbm: &'a RangeInclusive<u32>,
    pub(crate) pbkdf2: &'a RangeInclusive<u32>,
}

/// How a key is made of a secret: what the parameters of either scheme say.
pub(crate) struct Recipe {
    pub(crate) scheme: MacScheme,
    pub(crate) owf: Hash,
    pub(crate) hmac: Hash,
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    /// Octets of the key; PBM has no choice there.
    pub(crate) key_length: usize,
}

impl Recipe {
    fn encode(&self) -> der::Result<AlgorithmIdentifierOwned> {
        match self.scheme {
            MacScheme::Pbm => pbm::encode(self),
            MacScheme::Pbmac1 => pbmac1::encode(self),
        }
    }

    /// `Err`: what is not acceptable about the algorithm.
    fn read(algorithm: &AlgorithmIdentifierOwned) -> Result<Self, String> {
        let parameters = algorithm.parameters.as_ref();
        let recipe = match algorithm.oid {
            oids::PASSWORD_BASED_MAC => pbm::read(parameters.ok_or("PBM without parameters")?)?,
            oids::PBMAC1 => pbmac1::read(parameters.ok_or("PBMAC1 without parameters")?)?,
            other => return Err(format!("{other} is not a password-based MAC")),
        };
        if recipe.salt.len() > MAX_SALT_BYTES {
            return Err(format!("a salt of {} bytes, at most {MAX_SALT_BYTES} are taken", recipe.salt.len()));
        }
        Ok(recipe)
    }

    /// How often the function runs for the whole key: PBKDF2 begins anew for each block of it (RFC 8018 section 5.2).
    fn rounds(&self) -> u32 {
        let blocks = match self.scheme {
            MacScheme::Pbm => 1,
            MacScheme::Pbmac1 => self.key_length.div_ceil(self.owf.length()),
        };
        u32::try_from(blocks).unwrap_or(u32::MAX).saturating_mul(self.iterations)
    }

    fn key(&self, secret: &[u8]) -> hmac::Key {
        let key = match self.scheme {
            MacScheme::Pbm => pbm::key(self, secret),
            MacScheme::Pbmac1 => pbmac1::key(self, secret),
        };
        hmac::Key::new(self.hmac.hmac(), &key)
    }
}

/// The parameters with the key derived from them and the secret, of either scheme.
pub(crate) struct PbmKey {
    recipe: Recipe,
    key: hmac::Key,
}

impl PbmKey {
    /// Derives the key, as often hashed as the policy says.
    pub(crate) fn derive(policy: &MacPolicy, secret: &[u8], salt: &[u8]) -> Result<Self, LocalError> {
        let recipe = Recipe {
            scheme: policy.scheme,
            owf: policy.owf,
            hmac: policy.hmac,
            iterations: policy.iterations,
            salt: salt.to_vec(),
            key_length: policy.hmac.length(),
        };
        let key = recipe.key(secret);
        Ok(Self { recipe, key })
    }

    pub(crate) fn algorithm(&self) -> Result<AlgorithmIdentifierOwned, LocalError> {
        self.recipe.encode().map_err(LocalError::encoding("MAC parameters"))
    }

    pub(crate) fn mac(&self, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.key, message).as_ref().to_vec()
    }
}

/// Verifies the MAC of a message with the secret, within bounds (P4, P5), and says what it was made with.
///
/// The bounds are checked before the first hash is computed; aws-lc-rs compares in constant time.
pub(crate) fn verify(
    message: &PkiMessage,
    secret: &[u8],
    accepted: &AcceptedMacs,
    iterations: Iterations<'_>,
) -> Result<MacPolicy, MessageError> {
    let (Some(algorithm), Some(protection)) = (&message.header.protection_alg, &message.protection) else {
        return Err(MessageError::ProtectionIncomplete);
    };
    let refused = |detail: String| MessageError::Algorithm { detail };
    let recipe = Recipe::read(algorithm).map_err(refused)?;
    let Recipe { scheme, owf, hmac, iterations: got, .. } = recipe;
    accepted.check(scheme, owf, hmac).map_err(refused)?;
    let bounds = match scheme {
        MacScheme::Pbm => iterations.pbm,
        MacScheme::Pbmac1 => iterations.pbkdf2,
    };
    let (lowest, highest) = (*bounds.start(), *bounds.end());
    if !bounds.contains(&got) {
        return Err(MessageError::Iterations { got, lowest, highest });
    }
    if recipe.rounds() > highest {
        return Err(MessageError::Iterations { got: recipe.rounds(), lowest, highest });
    }
    let covered = message.protected_part().map_err(|error| refused(error.to_string()))?;
    hmac::verify(&recipe.key(secret), &covered, protection).map_err(|_| MessageError::MacMismatch)?;
    let weak_allowed = owf == Hash::Sha1 || hmac == Hash::Sha1;
    Ok(MacPolicy { scheme, owf, hmac, iterations: got, weak_allowed })
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
mod tests;
