//! Keys: the trait by which messages are signed, and keys held in memory.
//!
//! Every private operation and key generation is done by aws-lc-rs. Private keys are wiped when dropped and never
//! appear in `Debug` output.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use der::asn1::{Any, Null};
use pkcs8::{LineEnding, PrivateKeyInfo, SecretDocument};
use serde::{Deserialize, Serialize};
use spki::AlgorithmIdentifierOwned;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::codec::oids;

/// A private key that can sign; the key itself may live in a file, in memory or in a token.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The signature algorithm with its parameters as they are sent (P6).
    fn algorithm(&self) -> AlgorithmIdentifierOwned;

    /// Signs the message, which is hashed by the algorithm's own hash.
    ///
    /// # Errors
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The public key as DER SubjectPublicKeyInfo.
    fn public_key_der(&self) -> &[u8];
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
    #[error("private keys of algorithm {0} are not supported: use RSA of 2048 bits or more, or P-256")]
    Unsupported(String),
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
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p-256",
        })
    }
}

/// A private key held in memory.
pub struct SoftwareKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

const RSA_ENCRYPTION: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

impl SoftwareKey {
    /// Makes a new key; an RSA key of 2048 bits takes about 0.1 s, one of 4096 bits seconds.
    ///
    /// # Errors
    /// When aws-lc-rs fails.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Generation(key_type);
        let pair = match key_type {
            KeyType::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            KeyType::Rsa3072 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?),
            KeyType::Rsa4096 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
            KeyType::P256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?),
        };
        Self::from_pair(pair).map_err(|_| KeyError::Generation(key_type))
    }

    /// Reads a private key from DER: PKCS #8, or an RSA key in PKCS #1.
    ///
    /// # Errors
    /// When it is none, or of an algorithm that is not supported.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |error: &dyn fmt::Display| KeyError::Unreadable(error.to_string());
        let pair = match PrivateKeyInfo::try_from(der) {
            Ok(info) if info.algorithm.oid == RSA_ENCRYPTION => {
                Pair::Rsa(RsaKeyPair::from_pkcs8(der).map_err(|error| unreadable(&error))?)
            }
            Ok(info) if info.algorithm.oid == EC_PUBLIC_KEY => Pair::P256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|error| unreadable(&error))?,
            ),
            Ok(info) => return Err(KeyError::Unsupported(info.algorithm.oid.to_string())),
            Err(_) => Pair::Rsa(RsaKeyPair::from_der(der).map_err(|error| unreadable(&error))?),
        };
        Self::from_pair(pair)
    }

    /// Reads a private key from PEM (`PRIVATE KEY` or `RSA PRIVATE KEY`), unencrypted.
    ///
    /// # Errors
    /// When it is none, or of an algorithm that is not supported.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let (label, document) =
            SecretDocument::from_pem(pem).map_err(|error| KeyError::Unreadable(error.to_string()))?;
        if !matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY") {
            return Err(KeyError::Unreadable(format!("PEM label {label:?}")));
        }
        Self::from_der(document.as_bytes())
    }

    /// The private key as PKCS #8 DER.
    pub fn pkcs8_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// The private key as PKCS #8 PEM.
    ///
    /// # Errors
    /// When PEM encoding fails.
    pub fn pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let document =
            SecretDocument::try_from(self.pkcs8.as_slice()).map_err(|error| KeyError::Unreadable(error.to_string()))?;
        document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| KeyError::Unreadable(error.to_string()))
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Unreadable("aws-lc-rs does not encode it".to_owned());
        let (pkcs8, spki) = match &pair {
            Pair::Rsa(key) => {
                let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(failed)?;
                (pkcs8.as_ref().to_vec(), spki.as_ref().to_vec())
            }
            Pair::P256(key) => {
                let pkcs8 = key.to_pkcs8v1().map_err(failed)?;
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(failed)?;
                (pkcs8.as_ref().to_vec(), spki.as_ref().to_vec())
            }
        };
        Ok(Self { pkcs8: Zeroizing::new(pkcs8), spki, pair })
    }
}

impl Signer for SoftwareKey {
    fn algorithm(&self) -> AlgorithmIdentifierOwned {
        match self.pair {
            Pair::Rsa(_) => AlgorithmIdentifierOwned { oid: oids::SHA256_WITH_RSA, parameters: Some(Any::from(Null)) },
            Pair::P256(_) => AlgorithmIdentifierOwned { oid: oids::ECDSA_WITH_SHA256, parameters: None },
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        let failed = |_| SignError("aws-lc-rs refused".to_owned());
        match &self.pair {
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::P256(key) => Ok(key.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
        }
    }

    fn public_key_der(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.pair {
            Pair::Rsa(_) => "RSA",
            Pair::P256(_) => "P-256",
        };
        write!(f, "SoftwareKey({kind}, redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_form_and_stays_out_of_debug_output() {
        for key_type in [KeyType::P256, KeyType::Rsa2048] {
            let key = SoftwareKey::generate(key_type).unwrap();
            let again = SoftwareKey::from_pem(&key.pkcs8_pem().unwrap()).unwrap();
            assert_eq!(again.public_key_der(), key.public_key_der());
            assert!(format!("{key:?}").ends_with("redacted)"));
        }
    }

    #[test]
    fn p6_rsa_signatures_name_null_parameters_and_ecdsa_none() {
        let rsa = SoftwareKey::generate(KeyType::Rsa2048).unwrap().algorithm();
        assert!(rsa.parameters.unwrap().is_null());
        assert!(SoftwareKey::generate(KeyType::P256).unwrap().algorithm().parameters.is_none());
    }

    #[test]
    fn other_keys_are_refused_by_name() {
        let error = SoftwareKey::from_pem(
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
        );
        assert_eq!(error.unwrap_err(), KeyError::Unsupported("1.3.101.112".to_owned()));
        assert!(SoftwareKey::from_der(b"nonsense").is_err());
    }
}
