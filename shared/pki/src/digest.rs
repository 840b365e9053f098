//! Hashes, and which of them belongs to a signature algorithm (certHash, RFC 9810 section 5.3.18; client rule C3).

use aws_lc_rs::digest;
use der::asn1::ObjectIdentifier;
use spki::AlgorithmIdentifierOwned;

use crate::{
    public_key::algorithms,
    signature::{PssParameters, SignatureAlgorithm},
};

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA-1: only ever to compute a certHash for a certificate whose signature already uses it.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlgorithm {
    /// The hash of `data`.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    /// Octets of its result.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Its object identifier (RFC 8017 appendix B.1, RFC 5754).
    pub const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => algorithms::SHA1,
            Self::Sha256 => algorithms::SHA256,
            Self::Sha384 => algorithms::SHA384,
            Self::Sha512 => algorithms::SHA512,
        }
    }

    /// By its object identifier.
    pub fn from_oid(oid: ObjectIdentifier) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|hash| hash.oid() == oid)
    }
}

/// The hash that a certHash is made with for a certificate with this signature algorithm: the one named in the
/// algorithm, and SHA-512 for Ed25519 (RFC 9481 section 3.3).
///
/// # Errors
/// When the algorithm names no hash that is known here: then certConf must say `hashAlg` itself (rule C4).
pub fn digest_for_signature(algorithm: &AlgorithmIdentifierOwned) -> Result<HashAlgorithm, DigestError> {
    let unknown = DigestError { algorithm: algorithm.oid };
    match algorithm.oid {
        algorithms::RSA_SHA1 | algorithms::ECDSA_SHA1 => Ok(HashAlgorithm::Sha1),
        // whatever its salt: it is only about the hash
        algorithms::RSA_PSS => {
            let parameters = algorithm.parameters.as_ref().and_then(PssParameters::read);
            parameters.map(|parameters| parameters.hash).ok_or(unknown)
        }
        oid => {
            let known = SignatureAlgorithm::ALL.into_iter().find(|known| known.oid() == oid);
            known.and_then(SignatureAlgorithm::hash).ok_or(unknown)
        }
    }
}

/// The signature algorithm names no known hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature algorithm {algorithm} names no hash that is known here: certConf needs an explicit hashAlg")]
pub struct DigestError {
    /// The signature algorithm.
    pub algorithm: ObjectIdentifier,
}
