//! Hashes, and which of them belongs to a signature algorithm (certHash, RFC 9810 section 5.3.18; client rule C3).

use aws_lc_rs::digest;
use der::asn1::ObjectIdentifier;
use spki::AlgorithmIdentifierOwned;

use crate::public_key::{algorithms, pss_hash};

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
    let hash = match algorithm.oid {
        algorithms::RSA_SHA1 | algorithms::ECDSA_SHA1 => HashAlgorithm::Sha1,
        algorithms::RSA_SHA256 | algorithms::ECDSA_SHA256 => HashAlgorithm::Sha256,
        algorithms::RSA_SHA384 | algorithms::ECDSA_SHA384 => HashAlgorithm::Sha384,
        algorithms::RSA_SHA512 | algorithms::ECDSA_SHA512 | algorithms::ED25519 => HashAlgorithm::Sha512,
        algorithms::RSA_PSS => match pss_hash(algorithm) {
            Some(hash) => hash,
            None => return Err(DigestError { algorithm: algorithm.oid }),
        },
        oid => return Err(DigestError { algorithm: oid }),
    };
    Ok(hash)
}

/// The signature algorithm names no known hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature algorithm {algorithm} names no hash that is known here: certConf needs an explicit hashAlg")]
pub struct DigestError {
    /// The signature algorithm.
    pub algorithm: ObjectIdentifier,
}
