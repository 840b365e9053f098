//! The public side of keys: what kind it is, its fingerprint, and verification of signatures.
//!
//! Verification is done by aws-lc-rs; nothing here computes with a key itself. SHA-1 and MD5 signatures are never
//! accepted.

use std::{fmt, hash, ops::RangeInclusive};

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use der::{Decode, Tag, Tagged, asn1::ObjectIdentifier};
use rsa::pkcs1;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::{
    digest::{HashAlgorithm, sha256},
    raw,
};

/// Longest SubjectPublicKeyInfo that is read, in bytes.
pub const MAX_SPKI_BYTES: usize = 16 * 1024;

/// Lengths of RSA keys whose signatures are accepted, in bits of the modulus.
pub const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// Object identifiers of keys, signatures and hashes (RFC 3279, 4055, 5480, 5758, 8410).
pub mod algorithms {
    #![allow(missing_docs)] // the names say it
    use der::asn1::ObjectIdentifier;

    const fn oid(text: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(text)
    }

    pub const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
    pub const RSA_SHA1: ObjectIdentifier = oid("1.2.840.113549.1.1.5");
    pub const RSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
    pub const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
    pub const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
    pub const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
    pub const EC: ObjectIdentifier = oid("1.2.840.10045.2.1");
    pub const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
    pub const P384: ObjectIdentifier = oid("1.3.132.0.34");
    pub const ECDSA_SHA1: ObjectIdentifier = oid("1.2.840.10045.4.1");
    pub const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
    pub const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
    pub const ECDSA_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");
    pub const ED25519: ObjectIdentifier = oid("1.3.101.112");
    pub const MGF1: ObjectIdentifier = oid("1.2.840.113549.1.1.8");
    pub const SHA1: ObjectIdentifier = oid("1.3.14.3.2.26");
    pub const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
    pub const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
    pub const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Length of the modulus.
        bits: usize,
    },
    /// The curve P-256 (secp256r1).
    EcP256,
    /// The curve P-384 (secp384r1).
    EcP384,
    /// Ed25519.
    Ed25519,
    /// Anything else, by the algorithm's (or the curve's) object identifier.
    Other(ObjectIdentifier),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::EcP256 => f.write_str("EC P-256"),
            Self::EcP384 => f.write_str("EC P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "{oid}"),
        }
    }
}

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), its DER kept as it came. Equal by that DER.
#[derive(Clone)]
pub struct PublicKey {
    der: Vec<u8>,
    info: SubjectPublicKeyInfoOwned,
    kind: KeyKind,
}

impl PublicKey {
    /// Takes the DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is none, longer than [`MAX_SPKI_BYTES`], or says RSA and holds no RSA key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, PublicKeyError> {
        if der.len() > MAX_SPKI_BYTES {
            return Err(PublicKeyError::TooLong { bytes: der.len() });
        }
        let info = SubjectPublicKeyInfoOwned::from_der(der)?;
        let kind = kind_of(&info)?;
        Ok(Self { der: der.to_vec(), info, kind })
    }

    /// The DER as it came.
    pub fn spki_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the SubjectPublicKeyInfo: *the* public-key fingerprint everywhere in Trustfleet.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// A key identifier for new certificates: the leftmost 160 bits of SHA-256 over the key's bits (RFC 7093
    /// section 2, method 1).
    pub fn key_identifier(&self) -> [u8; 20] {
        let mut id = [0; 20];
        id.copy_from_slice(&sha256(self.info.subject_public_key.raw_bytes())[..20]);
        id
    }

    /// What kind of key it is.
    pub const fn algorithm(&self) -> KeyKind {
        self.kind
    }

    /// Verifies `signature` over `message`.
    ///
    /// Accepted: RSA PKCS#1 v1.5 and RSA-PSS (salt as long as the hash) with SHA-256, 384, 512 and keys of 2048 to
    /// 8192 bits; ECDSA on P-256 and P-384 with SHA-256 and SHA-384; Ed25519. RSA parameters may be NULL or absent
    /// (old OpenSSL leaves them out), the others' must be absent (rule P6).
    ///
    /// # Errors
    /// The algorithm is refused, does not fit the key, or the signature is not the key's over this message.
    pub fn verify(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let key = self
            .info
            .subject_public_key
            .as_bytes()
            .ok_or(SignatureError::KeyMismatch { algorithm: algorithm.oid, key: self.kind })?;
        UnparsedPublicKey::new(self.verifier(algorithm)?, key)
            .verify(message, signature)
            .map_err(|_| SignatureError::Invalid)
    }

    fn verifier(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
    ) -> Result<&'static dyn VerificationAlgorithm, SignatureError> {
        use algorithms as a;
        let absent = algorithm.parameters.is_none();
        let null = algorithm.parameters.as_ref().is_some_and(|any| any.tag() == Tag::Null && any.value().is_empty());
        let oid = algorithm.oid;
        match oid {
            a::RSA_SHA256 | a::RSA_SHA384 | a::RSA_SHA512 if !(absent || null) => {
                return Err(SignatureError::Parameters { algorithm: oid });
            }
            a::ECDSA_SHA256 | a::ECDSA_SHA384 | a::ED25519 if !absent => {
                return Err(SignatureError::Parameters { algorithm: oid });
            }
            _ => {}
        }
        if let KeyKind::Rsa { bits } = self.kind
            && !RSA_BITS.contains(&bits)
        {
            return Err(SignatureError::KeySize { bits });
        }
        let verifier: &'static dyn VerificationAlgorithm = match (oid, self.kind) {
            (a::RSA_SHA256, KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (a::RSA_SHA384, KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (a::RSA_SHA512, KeyKind::Rsa { .. }) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (a::RSA_PSS, KeyKind::Rsa { .. }) => match pss_hash(algorithm) {
                Some(HashAlgorithm::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
                Some(HashAlgorithm::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
                Some(HashAlgorithm::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
                Some(HashAlgorithm::Sha1) | None => return Err(SignatureError::Parameters { algorithm: oid }),
            },
            (a::ECDSA_SHA256, KeyKind::EcP256) => &signature::ECDSA_P256_SHA256_ASN1,
            (a::ECDSA_SHA384, KeyKind::EcP256) => &signature::ECDSA_P256_SHA384_ASN1,
            (a::ECDSA_SHA256, KeyKind::EcP384) => &signature::ECDSA_P384_SHA256_ASN1,
            (a::ECDSA_SHA384, KeyKind::EcP384) => &signature::ECDSA_P384_SHA384_ASN1,
            (a::ED25519, KeyKind::Ed25519) => &signature::ED25519,
            (
                a::RSA_SHA256
                | a::RSA_SHA384
                | a::RSA_SHA512
                | a::RSA_PSS
                | a::ECDSA_SHA256
                | a::ECDSA_SHA384
                | a::ED25519,
                key,
            ) => {
                return Err(SignatureError::KeyMismatch { algorithm: oid, key });
            }
            _ => return Err(SignatureError::Refused { algorithm: oid }),
        };
        Ok(verifier)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl hash::Hash for PublicKey {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, sha256 {})", self.kind, hex::encode(self.fingerprint()))
    }
}

/// Why a public key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// More than [`MAX_SPKI_BYTES`].
    #[error("public key has {bytes} bytes, at most {MAX_SPKI_BYTES} are allowed")]
    TooLong {
        /// How many bytes there were.
        bytes: usize,
    },
    /// Not the DER of a SubjectPublicKeyInfo.
    #[error("not the DER of a SubjectPublicKeyInfo")]
    Der(#[from] der::Error),
    /// The algorithm says RSA, the bits say otherwise.
    #[error("the public key says that it is RSA, but holds no RSA key")]
    Rsa,
}

/// Why a signature was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// An algorithm that is too weak (SHA-1, MD5) or unknown.
    #[error("signature algorithm {algorithm} is not accepted: SHA-256 or stronger with RSA, ECDSA or Ed25519 is")]
    Refused {
        /// The signature algorithm.
        algorithm: ObjectIdentifier,
    },
    /// The algorithm's parameters are not those that its RFC allows.
    #[error("parameters of the signature algorithm {algorithm} are not allowed")]
    Parameters {
        /// The signature algorithm.
        algorithm: ObjectIdentifier,
    },
    /// Algorithm and key do not belong together.
    #[error("signature algorithm {algorithm} does not fit a key of kind {key}")]
    KeyMismatch {
        /// The signature algorithm.
        algorithm: ObjectIdentifier,
        /// The kind of the key.
        key: KeyKind,
    },
    /// An RSA key that is too short to be trusted, or absurdly long.
    #[error("RSA keys of {} to {} bits are accepted, this one has {bits}", RSA_BITS.start(), RSA_BITS.end())]
    KeySize {
        /// Length of the modulus.
        bits: usize,
    },
    /// The signature is not this key's over these bytes.
    #[error("signature does not verify")]
    Invalid,
}

/// The hash of RSASSA-PSS-params (RFC 4055 section 3.1) when they are of the only shape accepted here: the mask with
/// the same hash, the salt as long as the hash. Read by hand, because absent fields mean SHA-1 there.
pub(crate) fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<HashAlgorithm> {
    let parameters = algorithm.parameters.as_ref()?.decode_as::<pkcs1::RsaPssParams<'_>>().ok()?;
    let hash = HashAlgorithm::from_oid(parameters.hash.oid)?;
    let mask = parameters.mask_gen.parameters.map(|inner| inner.oid);
    let length = match hash {
        HashAlgorithm::Sha1 => 20,
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha384 => 48,
        HashAlgorithm::Sha512 => 64,
    };
    (parameters.mask_gen.oid == algorithms::MGF1 && mask == Some(hash.oid()) && parameters.salt_len == length)
        .then_some(hash)
}

fn kind_of(info: &SubjectPublicKeyInfoOwned) -> Result<KeyKind, PublicKeyError> {
    let oid = info.algorithm.oid;
    Ok(match oid {
        algorithms::RSA => {
            let bits = info.subject_public_key.as_bytes().ok_or(PublicKeyError::Rsa)?;
            let numbers = raw::children(bits, Tag::Sequence).map_err(|_| PublicKeyError::Rsa)?;
            let modulus = numbers.first().and_then(|first| raw::content(first, Tag::Integer).ok());
            KeyKind::Rsa { bits: modulus.and_then(bit_length).ok_or(PublicKeyError::Rsa)? }
        }
        algorithms::EC => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
            match curve {
                Some(algorithms::P256) => KeyKind::EcP256,
                Some(algorithms::P384) => KeyKind::EcP384,
                Some(other) => KeyKind::Other(other),
                None => KeyKind::Other(oid),
            }
        }
        algorithms::ED25519 => KeyKind::Ed25519,
        other => KeyKind::Other(other),
    })
}

fn bit_length(integer: &[u8]) -> Option<usize> {
    let first = integer.iter().position(|&byte| byte != 0)?;
    let leading = usize::try_from(integer[first].leading_zeros()).ok()?;
    Some((integer.len() - first) * 8 - leading)
}
