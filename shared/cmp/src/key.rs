//! Keys: the trait by which messages are signed, the kinds of keys, and keys held in memory.
//!
//! Every private operation and key generation is done by aws-lc-rs or by whatever stands behind [`Signer`], a token for
//! instance. Private keys never appear in `Debug` output.

mod software;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;
use thiserror::Error;
use trustfleet_pki::signature::SignatureAlgorithm;

pub use self::software::SoftwareKey;

/// A private key that can sign; the key itself may live in a file, in memory or in a token, and need not ever be seen.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The signature algorithm that is used unless another is asked for.
    fn signature_algorithm(&self) -> SignatureAlgorithm;

    /// Signs the message, which is hashed by the algorithm's own hash.
    ///
    /// # Errors
    /// When the key cannot be used, or cannot make such signatures.
    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The public key as DER SubjectPublicKeyInfo.
    fn public_key_der(&self) -> &[u8];

    /// The usual signature algorithm with its parameters as they are sent (P6).
    fn algorithm(&self) -> AlgorithmIdentifierOwned {
        self.signature_algorithm().identifier()
    }

    /// Signs by the usual algorithm.
    ///
    /// # Errors
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.sign_with(self.signature_algorithm(), message)
    }
}

/// A key that signs by another algorithm than it would by itself: an RSA key by RSA-PSS, say.
#[derive(Clone, Debug)]
pub struct Using {
    /// The key.
    pub signer: Arc<dyn Signer>,
    /// Its algorithm from now on.
    pub algorithm: SignatureAlgorithm,
}

impl Signer for Using {
    fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signer.sign_with(algorithm, message)
    }

    fn public_key_der(&self) -> &[u8] {
        self.signer.public_key_der()
    }
}

/// A key did not sign.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the key did not sign: {0}")]
pub struct SignError(pub String);

/// A key that cannot be made or read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// Key generation failed.
    #[error("making a {0} key failed")]
    Generation(KeyType),
    /// Not a private key in PKCS #8 (or an RSA key in PKCS #1).
    #[error("not a private key that can be used: {0}")]
    Unreadable(String),
    /// A key of another kind.
    #[error("private keys of algorithm {0} are not supported: use RSA of 2048 bits or more, P-256, P-384 or Ed25519")]
    Unsupported(String),
    /// It is encrypted and no passphrase is given, or the other way round.
    #[error("the private key is {0}")]
    Encryption(&'static str),
    /// It does not open.
    #[error("the private key does not open with this passphrase")]
    Passphrase,
}

/// The kinds of keys that can be made.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum KeyType {
    /// RSA of 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA of 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    /// RSA of 4096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
    /// ECDSA on P-256.
    #[serde(rename = "p-256")]
    P256,
    /// ECDSA on P-384.
    #[serde(rename = "p-384")]
    P384,
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ML-DSA-44 (only with the feature `ml-dsa`).
    #[serde(rename = "ml-dsa-44")]
    MlDsa44,
    /// ML-DSA-65 (only with the feature `ml-dsa`).
    #[serde(rename = "ml-dsa-65")]
    MlDsa65,
    /// ML-DSA-87 (only with the feature `ml-dsa`).
    #[serde(rename = "ml-dsa-87")]
    MlDsa87,
}

impl KeyType {
    /// All of them, those of features that are off included.
    pub const ALL: [Self; 9] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
        Self::Ed25519,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// Its name in configuration and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }

    /// The signature algorithm that such a key uses by itself.
    pub const fn signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => SignatureAlgorithm::RsaSha256,
            Self::P256 => SignatureAlgorithm::EcdsaSha256,
            Self::P384 => SignatureAlgorithm::EcdsaSha384,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
            Self::MlDsa44 => SignatureAlgorithm::MlDsa44,
            Self::MlDsa65 => SignatureAlgorithm::MlDsa65,
            Self::MlDsa87 => SignatureAlgorithm::MlDsa87,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyType {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| KeyError::Unsupported(text.to_owned()))
    }
}
