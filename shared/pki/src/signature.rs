//! Signature algorithms: which there are, how they stand on the wire (rule P6), and which keys make them.
//!
//! SHA-1 and MD5 have no entry here. What a caller accepts may be less than what is known.

use std::{fmt, str::FromStr};

use der::{
    Any, AnyRef, Encode,
    asn1::{Null, ObjectIdentifier, Uint},
};
use rsa::pkcs1::{RsaPssParams, TrailerField};
use spki::{AlgorithmIdentifier, AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

use crate::{
    digest::HashAlgorithm,
    public_key::{KeyKind, RSA_BITS, algorithms as a},
};

/// A signature algorithm with its hash and parameters (RFC 9481 section 3; ML-DSA: RFC 9881).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaSha256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RsaSha384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RsaSha512,
    /// RSA-PSS with SHA-256, for the mask too, and a salt of 32 octets.
    RsaPssSha256,
    /// RSA-PSS with SHA-384, for the mask too, and a salt of 48 octets.
    RsaPssSha384,
    /// RSA-PSS with SHA-512, for the mask too, and a salt of 64 octets.
    RsaPssSha512,
    /// ECDSA with SHA-256; the key says on which curve.
    EcdsaSha256,
    /// ECDSA with SHA-384.
    EcdsaSha384,
    /// ECDSA with SHA-512.
    EcdsaSha512,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44 (only with the feature `ml-dsa`).
    MlDsa44,
    /// ML-DSA-65 (only with the feature `ml-dsa`).
    MlDsa65,
    /// ML-DSA-87 (only with the feature `ml-dsa`).
    MlDsa87,
}

impl SignatureAlgorithm {
    /// All of them, those of features that are off included.
    pub const ALL: [Self; 13] = [
        Self::RsaSha256,
        Self::RsaSha384,
        Self::RsaSha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Ed25519,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// Its name in configuration and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaSha384 => "rsa-sha384",
            Self::RsaSha512 => "rsa-sha512",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::RsaPssSha384 => "rsa-pss-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::EcdsaSha256 => "ecdsa-sha256",
            Self::EcdsaSha384 => "ecdsa-sha384",
            Self::EcdsaSha512 => "ecdsa-sha512",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }

    /// Whether this build can make and verify it.
    pub const fn is_available(self) -> bool {
        !matches!(self, Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87) || cfg!(feature = "ml-dsa")
    }

    /// What an AlgorithmIdentifier says (rule P6).
    ///
    /// RSA PKCS #1 v1.5 parameters may be NULL or absent (old OpenSSL leaves them out); RSA-PSS parameters must name
    /// the same hash twice and a salt as long as it; the others' must be absent.
    ///
    /// # Errors
    /// [`SignatureError::Refused`] for an algorithm that is unknown or too weak, [`SignatureError::Parameters`].
    pub fn of(identifier: &AlgorithmIdentifierOwned) -> Result<Self, SignatureError> {
        let oid = identifier.oid;
        let wrong = Err(SignatureError::Parameters { algorithm: oid });
        if oid == a::RSA_PSS {
            return Self::of_pss(identifier.parameters.as_ref()).map_or(wrong, Ok);
        }
        let algorithm = Self::ALL.into_iter().find(|algorithm| algorithm.oid() == oid);
        let algorithm = algorithm.ok_or(SignatureError::Refused { algorithm: oid })?;
        let rsa = matches!(algorithm, Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512);
        let allowed = match &identifier.parameters {
            None => true,
            Some(parameters) => rsa && parameters.is_null() && parameters.value().is_empty(),
        };
        if allowed { Ok(algorithm) } else { wrong }
    }

    fn of_pss(parameters: Option<&Any>) -> Option<Self> {
        let parameters = PssParameters::read(parameters?)?;
        let pss = [Self::RsaPssSha256, Self::RsaPssSha384, Self::RsaPssSha512];
        pss.into_iter().find(|algorithm| PssParameters::of(*algorithm).as_ref() == Some(&parameters))
    }

    /// The AlgorithmIdentifier as it is sent: NULL parameters for RSA PKCS #1 v1.5, none for ECDSA, EdDSA and ML-DSA.
    pub fn identifier(self) -> AlgorithmIdentifierOwned {
        let parameters = match self {
            Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512 => Some(Any::from(Null)),
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512 => {
                let inner = AlgorithmIdentifierRef { oid: self.hash_named().oid(), parameters: Some(AnyRef::NULL) };
                let parameters = RsaPssParams {
                    hash: inner,
                    mask_gen: AlgorithmIdentifier { oid: a::MGF1, parameters: Some(inner) },
                    salt_len: self.hash_named().length() as u8,
                    trailer_field: TrailerField::BC,
                };
                Any::encode_from(&parameters).ok() // constants: it does not fail
            }
            _ => None,
        };
        AlgorithmIdentifierOwned { oid: self.oid(), parameters }
    }

    /// Its object identifier; the three of RSA-PSS have one together.
    pub const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::RsaSha256 => a::RSA_SHA256,
            Self::RsaSha384 => a::RSA_SHA384,
            Self::RsaSha512 => a::RSA_SHA512,
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512 => a::RSA_PSS,
            Self::EcdsaSha256 => a::ECDSA_SHA256,
            Self::EcdsaSha384 => a::ECDSA_SHA384,
            Self::EcdsaSha512 => a::ECDSA_SHA512,
            Self::Ed25519 => a::ED25519,
            Self::MlDsa44 => a::ML_DSA_44,
            Self::MlDsa65 => a::ML_DSA_65,
            Self::MlDsa87 => a::ML_DSA_87,
        }
    }

    /// The hash for a certHash of a certificate signed by it: its own, SHA-512 for Ed25519 (RFC 9481 section 3.3); `None`
    /// for ML-DSA, where certConf must name one (rule C4).
    pub const fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => None,
            _ => Some(self.hash_named()),
        }
    }

    const fn hash_named(self) -> HashAlgorithm {
        match self {
            Self::RsaSha256 | Self::RsaPssSha256 | Self::EcdsaSha256 => HashAlgorithm::Sha256,
            Self::RsaSha384 | Self::RsaPssSha384 | Self::EcdsaSha384 => HashAlgorithm::Sha384,
            _ => HashAlgorithm::Sha512,
        }
    }

    /// Whether keys of this kind make such signatures.
    pub fn fits(self, key: KeyKind) -> bool {
        match self {
            Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512 => matches!(key, KeyKind::Rsa { .. }),
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512 => {
                matches!(key, KeyKind::Rsa { .. } | KeyKind::RsaPss { .. })
            }
            Self::EcdsaSha256 | Self::EcdsaSha384 | Self::EcdsaSha512 => {
                matches!(key, KeyKind::EcP256 | KeyKind::EcP384)
            }
            Self::Ed25519 => key == KeyKind::Ed25519,
            Self::MlDsa44 => key == KeyKind::MlDsa44,
            Self::MlDsa65 => key == KeyKind::MlDsa65,
            Self::MlDsa87 => key == KeyKind::MlDsa87,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        found.ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

/// ECDSA-Sig-Value (RFC 3279 section 2.2.3) of the two numbers one behind the other, as tokens give them.
///
/// # Errors
/// When there are not two numbers of the same length.
pub fn ecdsa_signature(numbers: &[u8]) -> der::Result<Vec<u8>> {
    let (r, s) = numbers.split_at(numbers.len() / 2);
    if r.is_empty() || r.len() != s.len() {
        return Err(der::Tag::Integer.value_error());
    }
    vec![Uint::new(r)?, Uint::new(s)?].to_der()
}

/// A name that no [`SignatureAlgorithm`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature algorithm {0:?} is not known: rsa-sha256, rsa-pss-sha256, ecdsa-sha256, ed25519, ... are")]
pub struct UnknownAlgorithm(String);

/// RSASSA-PSS-params (RFC 4055 section 3.1) with one hash for both purposes. Absent fields mean SHA-1 there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PssParameters {
    pub(crate) hash: HashAlgorithm,
    pub(crate) salt: usize,
}

impl PssParameters {
    /// `None`: two hashes, another mask, odd parameters of the hashes, or nothing that decodes.
    pub(crate) fn read(parameters: &Any) -> Option<Self> {
        let parameters = parameters.decode_as::<RsaPssParams<'_>>().ok()?;
        let plain = |inner: &AlgorithmIdentifierRef<'_>| inner.parameters.is_none_or(|any| any == AnyRef::NULL);
        let mask = parameters.mask_gen.parameters.filter(|_| parameters.mask_gen.oid == a::MGF1)?;
        let hash = HashAlgorithm::from_oid(parameters.hash.oid)?;
        let consistent = mask.oid == parameters.hash.oid && plain(&mask) && plain(&parameters.hash);
        consistent.then_some(Self { hash, salt: usize::from(parameters.salt_len) })
    }

    /// What the algorithm's own parameters say.
    pub(crate) fn of(algorithm: SignatureAlgorithm) -> Option<Self> {
        let hash = algorithm.hash()?;
        (algorithm.oid() == a::RSA_PSS).then(|| Self { hash, salt: hash.length() })
    }
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
    /// The algorithm's parameters are not those that its RFC, or the key, allows.
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
