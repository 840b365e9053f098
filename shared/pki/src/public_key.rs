//! The public side of keys: what kind it is, its fingerprint, and verification of signatures.
//!
//! Verification is done by aws-lc-rs; nothing here computes with a key itself. SHA-1 and MD5 signatures are never
//! accepted.

use std::{fmt, hash, ops::RangeInclusive};

use aws_lc_rs::signature::{self as by, UnparsedPublicKey, VerificationAlgorithm};
use der::{
    Any, Decode, Encode, Tag,
    asn1::{BitString, Null, ObjectIdentifier, UintRef},
};
use rsa::pkcs1;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::{
    bounds::{self, BoundsError},
    digest::sha256,
    raw,
    signature::{PssParameters, SignatureAlgorithm, SignatureError},
};

/// Longest SubjectPublicKeyInfo that is read, in bytes.
pub const MAX_SPKI_BYTES: usize = 16 * 1024;

/// Lengths of RSA keys whose signatures are accepted, in bits of the modulus.
pub const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// Object identifiers of keys, signatures and hashes (RFC 3279, 4055, 5480, 5758, 8410, 9881).
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
    pub const ML_DSA_44: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.17");
    pub const ML_DSA_65: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.18");
    pub const ML_DSA_87: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.19");
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
    /// RSA for RSA-PSS alone (id-RSASSA-PSS, RFC 4055 section 1.2), with a modulus of so many bits.
    RsaPss {
        /// Length of the modulus.
        bits: usize,
    },
    /// The curve P-256 (secp256r1).
    EcP256,
    /// The curve P-384 (secp384r1).
    EcP384,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44 (FIPS 204, RFC 9881).
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
    /// Anything else, by the algorithm's (or the curve's) object identifier.
    Other(ObjectIdentifier),
}

impl KeyKind {
    /// Kind and size in one word, as policies spell them: `rsa-2048`, `ecdsa-p256`, `ed25519`; of a kind without a name its
    /// object identifier.
    pub fn word(&self) -> String {
        match self {
            Self::Rsa { bits } => format!("rsa-{bits}"),
            Self::RsaPss { bits } => format!("rsa-pss-{bits}"),
            Self::EcP256 => "ecdsa-p256".to_owned(),
            Self::EcP384 => "ecdsa-p384".to_owned(),
            Self::Ed25519 => "ed25519".to_owned(),
            Self::MlDsa44 => "ml-dsa-44".to_owned(),
            Self::MlDsa65 => "ml-dsa-65".to_owned(),
            Self::MlDsa87 => "ml-dsa-87".to_owned(),
            Self::Other(oid) => oid.to_string(),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::RsaPss { bits } => write!(f, "RSA-PSS {bits}"),
            Self::EcP256 => f.write_str("EC P-256"),
            Self::EcP384 => f.write_str("EC P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::MlDsa44 => f.write_str("ML-DSA-44"),
            Self::MlDsa65 => f.write_str("ML-DSA-65"),
            Self::MlDsa87 => f.write_str("ML-DSA-87"),
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
        bounds::check(der)?;
        let info = SubjectPublicKeyInfoOwned::from_der(der)?;
        let kind = kind_of(&info)?;
        Ok(Self { der: der.to_vec(), info, kind })
    }

    /// An RSA key of its numbers, big-endian.
    ///
    /// # Errors
    /// When they are no key.
    pub fn of_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, PublicKeyError> {
        let (modulus, public_exponent) = (UintRef::new(modulus)?, UintRef::new(exponent)?);
        let bits = pkcs1::RsaPublicKey { modulus, public_exponent }.to_der()?;
        Self::assemble(algorithms::RSA, Any::from(Null), &bits)
    }

    /// A key on a named curve, of its point in the form of SEC 1 section 2.3.3.
    ///
    /// # Errors
    /// When it cannot be encoded; whether it is on the curve is seen when it verifies.
    pub fn of_point(curve: ObjectIdentifier, point: &[u8]) -> Result<Self, PublicKeyError> {
        Self::assemble(algorithms::EC, Any::from(curve), point)
    }

    fn assemble(oid: ObjectIdentifier, parameters: Any, bits: &[u8]) -> Result<Self, PublicKeyError> {
        let algorithm = AlgorithmIdentifierOwned { oid, parameters: Some(parameters) };
        let subject_public_key = BitString::from_bytes(bits)?;
        Self::from_spki_der(&SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der()?)
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
    /// Accepted is what [`SignatureAlgorithm`] has: RSA PKCS #1 v1.5 and RSA-PSS with keys of 2048 to 8192 bits, ECDSA on
    /// P-256 and P-384, Ed25519, and ML-DSA with the feature of that name; parameters as [`SignatureAlgorithm::of`] says
    /// (rule P6), and as a key for RSA-PSS alone restricts them.
    ///
    /// # Errors
    /// The algorithm is refused, does not fit the key, or the signature is not the key's over this message.
    pub fn verify(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let known = SignatureAlgorithm::of(algorithm)?;
        let mismatch = SignatureError::KeyMismatch { algorithm: algorithm.oid, key: self.kind };
        if let KeyKind::Rsa { bits } | KeyKind::RsaPss { bits } = self.kind
            && !RSA_BITS.contains(&bits)
        {
            return Err(SignatureError::KeySize { bits });
        }
        if !known.is_available() {
            return Err(SignatureError::Refused { algorithm: algorithm.oid });
        }
        if !known.fits(self.kind) {
            return Err(mismatch);
        }
        if !self.restriction_allows(known) {
            return Err(SignatureError::Parameters { algorithm: algorithm.oid });
        }
        let key = self.info.subject_public_key.as_bytes().ok_or(mismatch)?;
        UnparsedPublicKey::new(self.verifier(known), key)
            .verify(message, signature)
            .map_err(|_| SignatureError::Invalid)
    }

    /// The parameters of a key for RSA-PSS alone, where there are any, fix the hash and the least salt (RFC 4055
    /// section 3.3).
    fn restriction_allows(&self, algorithm: SignatureAlgorithm) -> bool {
        match (self.kind, &self.info.algorithm.parameters) {
            (KeyKind::RsaPss { .. }, Some(parameters)) => {
                let restriction = PssParameters::read(parameters);
                restriction
                    .zip(PssParameters::of(algorithm))
                    .is_some_and(|(restriction, used)| restriction.hash == used.hash && restriction.salt <= used.salt)
            }
            _ => true,
        }
    }

    const fn verifier(&self, algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
        use SignatureAlgorithm as S;
        let p384 = matches!(self.kind, KeyKind::EcP384);
        match algorithm {
            S::RsaSha256 => &by::RSA_PKCS1_2048_8192_SHA256,
            S::RsaSha384 => &by::RSA_PKCS1_2048_8192_SHA384,
            S::RsaSha512 => &by::RSA_PKCS1_2048_8192_SHA512,
            S::RsaPssSha256 => &by::RSA_PSS_2048_8192_SHA256,
            S::RsaPssSha384 => &by::RSA_PSS_2048_8192_SHA384,
            S::RsaPssSha512 => &by::RSA_PSS_2048_8192_SHA512,
            S::EcdsaSha256 if p384 => &by::ECDSA_P384_SHA256_ASN1,
            S::EcdsaSha384 if p384 => &by::ECDSA_P384_SHA384_ASN1,
            S::EcdsaSha512 if p384 => &by::ECDSA_P384_SHA512_ASN1,
            S::EcdsaSha256 => &by::ECDSA_P256_SHA256_ASN1,
            S::EcdsaSha384 => &by::ECDSA_P256_SHA384_ASN1,
            S::EcdsaSha512 => &by::ECDSA_P256_SHA512_ASN1,
            S::Ed25519 => &by::ED25519,
            S::MlDsa44 => &by::ML_DSA_44,
            S::MlDsa65 => &by::ML_DSA_65,
            S::MlDsa87 => &by::ML_DSA_87,
        }
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
    /// Lengths that promise more than is there, or too many values.
    #[error("public key: {0}")]
    Bounds(#[from] BoundsError),
    /// Not the DER of a SubjectPublicKeyInfo.
    #[error("not the DER of a SubjectPublicKeyInfo")]
    Der(#[from] der::Error),
    /// The algorithm says RSA, the bits say otherwise.
    #[error("the public key says that it is RSA, but holds no RSA key")]
    Rsa,
}

fn kind_of(info: &SubjectPublicKeyInfoOwned) -> Result<KeyKind, PublicKeyError> {
    let oid = info.algorithm.oid;
    Ok(match oid {
        algorithms::RSA | algorithms::RSA_PSS => {
            let bits = info.subject_public_key.as_bytes().ok_or(PublicKeyError::Rsa)?;
            let numbers = raw::children(bits, Tag::Sequence).map_err(|_| PublicKeyError::Rsa)?;
            let modulus = numbers.first().and_then(|first| raw::content(first, Tag::Integer).ok());
            let bits = modulus.and_then(bit_length).ok_or(PublicKeyError::Rsa)?;
            if oid == algorithms::RSA { KeyKind::Rsa { bits } } else { KeyKind::RsaPss { bits } }
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
        algorithms::ML_DSA_44 => KeyKind::MlDsa44,
        algorithms::ML_DSA_65 => KeyKind::MlDsa65,
        algorithms::ML_DSA_87 => KeyKind::MlDsa87,
        other => KeyKind::Other(other),
    })
}

fn bit_length(integer: &[u8]) -> Option<usize> {
    let first = integer.iter().position(|&byte| byte != 0)?;
    let leading = usize::try_from(integer[first].leading_zeros()).ok()?;
    Some((integer.len() - first) * 8 - leading)
}
