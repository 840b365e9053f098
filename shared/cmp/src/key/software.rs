//! Keys held in memory: made, used and encoded by aws-lc-rs, wiped when dropped.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::{self, SystemRandom},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair,
        PqdsaSigningAlgorithm, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaSignatureEncoding,
    },
};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument, pkcs5};
use trustfleet_pki::{public_key::algorithms, signature::SignatureAlgorithm};
use zeroize::Zeroizing;

use super::{KeyError, KeyType, SignError, Signer};

/// A private key held in memory.
pub struct SoftwareKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair, SignatureAlgorithm),
    Ed25519(Ed25519KeyPair),
    MlDsa(PqdsaKeyPair, SignatureAlgorithm),
}

/// Cost of opening an encrypted key: 16 MiB and some tens of milliseconds, as OpenSSL's.
const SCRYPT: (u8, u32, u32) = (14, 8, 1);

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

impl SoftwareKey {
    /// Makes a new key; an RSA key of 2048 bits takes about 0.1 s, one of 4096 bits seconds.
    ///
    /// # Errors
    /// When aws-lc-rs fails, or the kind belongs to a feature that is off.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Generation(key_type);
        let algorithm = key_type.signature_algorithm();
        if !algorithm.is_available() {
            return Err(KeyError::Unsupported(key_type.to_string()));
        }
        let rsa = |size| RsaKeyPair::generate(size).map(Pair::Rsa);
        let pair = match key_type {
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
            KeyType::P256 | KeyType::P384 => {
                EcdsaKeyPair::generate(ecdsa(algorithm)).map(|pair| Pair::Ecdsa(pair, algorithm))
            }
            KeyType::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87 => {
                PqdsaKeyPair::generate(ml_dsa(algorithm)).map(|pair| Pair::MlDsa(pair, algorithm))
            }
        };
        Self::from_pair(pair.map_err(failed)?).map_err(|_| KeyError::Generation(key_type))
    }

    /// Reads a private key from DER: PKCS #8, or an RSA key in PKCS #1.
    ///
    /// # Errors
    /// When it is none, or of an algorithm that is not supported.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |error: &dyn fmt::Display| KeyError::Unreadable(error.to_string());
        let Ok(info) = PrivateKeyInfo::try_from(der) else {
            return Self::from_pair(Pair::Rsa(RsaKeyPair::from_der(der).map_err(|error| unreadable(&error))?));
        };
        let pair = match kind(&info)? {
            Kind::Rsa => RsaKeyPair::from_pkcs8(der).map(Pair::Rsa),
            Kind::Ecdsa(algorithm) => {
                EcdsaKeyPair::from_pkcs8(ecdsa(algorithm), der).map(|pair| Pair::Ecdsa(pair, algorithm))
            }
            // without the public key, which OpenSSL leaves out, there is nothing to check it against
            Kind::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Pair::Ed25519),
            Kind::MlDsa(algorithm) => {
                PqdsaKeyPair::from_pkcs8(ml_dsa(algorithm), der).map(|pair| Pair::MlDsa(pair, algorithm))
            }
        };
        Self::from_pair(pair.map_err(|error| unreadable(&error))?)
    }

    /// Reads a private key from PEM (`PRIVATE KEY` or `RSA PRIVATE KEY`), unencrypted.
    ///
    /// # Errors
    /// When it is none, is encrypted, or of an algorithm that is not supported.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let (label, document) = secret(pem)?;
        match label {
            "PRIVATE KEY" | "RSA PRIVATE KEY" => Self::from_der(document.as_bytes()),
            ENCRYPTED => Err(KeyError::Encryption("encrypted: a passphrase is needed")),
            other => Err(KeyError::Unreadable(format!("PEM label {other:?}"))),
        }
    }

    /// Reads a private key from PEM (`ENCRYPTED PRIVATE KEY`: PKCS #8 by PBES2 with scrypt or PBKDF2, and AES).
    ///
    /// # Errors
    /// When it is none, is not encrypted, does not open, or is of an algorithm that is not supported.
    pub fn from_encrypted_pem(pem: &str, passphrase: &[u8]) -> Result<Self, KeyError> {
        let (label, document) = secret(pem)?;
        if label != ENCRYPTED {
            return Err(KeyError::Encryption("not encrypted, although a passphrase is configured"));
        }
        let unreadable = |error: pkcs8::Error| KeyError::Unreadable(error.to_string());
        let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(unreadable)?;
        let opened = info.decrypt(passphrase).map_err(|_| KeyError::Passphrase)?;
        Self::from_der(opened.as_bytes())
    }

    /// The private key as PKCS #8 DER.
    pub const fn pkcs8_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// The private key as PKCS #8 PEM.
    ///
    /// # Errors
    /// When PEM encoding fails.
    pub fn pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        pem(SecretDocument::try_from(self.pkcs8.as_slice()), "PRIVATE KEY")
    }

    /// The private key as PKCS #8 PEM, encrypted by PBES2 with scrypt and AES-256.
    ///
    /// # Errors
    /// When there is no randomness, or encoding fails.
    pub fn pkcs8_encrypted_pem(&self, passphrase: &[u8]) -> Result<Zeroizing<String>, KeyError> {
        let failed = |error: &dyn fmt::Display| KeyError::Unreadable(error.to_string());
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        rand::fill(&mut salt).and_then(|()| rand::fill(&mut iv)).map_err(|error| failed(&error))?;
        let (log_n, r, p) = SCRYPT;
        let cost = pkcs5::scrypt::Params::new(log_n, r, p, 32).map_err(|error| failed(&error))?;
        let scheme = pkcs5::pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv).map_err(|error| failed(&error))?;
        let info = PrivateKeyInfo::try_from(self.pkcs8.as_slice()).map_err(|error| failed(&error))?;
        pem(info.encrypt_with_params(scheme, passphrase), ENCRYPTED)
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Unreadable("aws-lc-rs does not encode it".to_owned());
        let spki: PublicKeyX509Der<'_> = match &pair {
            Pair::Rsa(key) => key.public_key().as_der(),
            Pair::Ecdsa(key, _) => key.public_key().as_der(),
            Pair::Ed25519(key) => key.public_key().as_der(),
            Pair::MlDsa(key, _) => key.public_key().as_der(),
        }
        .map_err(failed)?;
        let pkcs8 = match &pair {
            Pair::Rsa(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(key).map(|der| der.as_ref().to_vec()),
            Pair::Ecdsa(key, _) => key.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Pair::Ed25519(key) => key.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Pair::MlDsa(key, _) => key.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        };
        Ok(Self { pkcs8: Zeroizing::new(pkcs8.map_err(failed)?), spki: spki.as_ref().to_vec(), pair })
    }
}

impl Signer for SoftwareKey {
    fn signature_algorithm(&self) -> SignatureAlgorithm {
        match self.pair {
            Pair::Rsa(_) => SignatureAlgorithm::RsaSha256,
            Pair::Ecdsa(_, algorithm) | Pair::MlDsa(_, algorithm) => algorithm,
            Pair::Ed25519(_) => SignatureAlgorithm::Ed25519,
        }
    }

    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        let failed = |_| SignError("aws-lc-rs refused".to_owned());
        match (&self.pair, rsa(algorithm)) {
            (Pair::Rsa(key), Some(encoding)) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            (Pair::Ecdsa(key, own), _) if *own == algorithm => {
                Ok(key.sign(&random, message).map_err(failed)?.as_ref().to_vec())
            }
            (Pair::Ed25519(key), _) if algorithm == SignatureAlgorithm::Ed25519 => {
                Ok(key.try_sign(message).map_err(failed)?.as_ref().to_vec())
            }
            (Pair::MlDsa(key, own), _) if *own == algorithm => {
                let mut signature = vec![0; key.algorithm().signature_len()];
                key.sign(message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            _ => Err(SignError(format!("this key signs by {}, not by {algorithm}", self.signature_algorithm()))),
        }
    }

    fn public_key_der(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareKey({}, redacted)", self.signature_algorithm())
    }
}

enum Kind {
    Rsa,
    Ecdsa(SignatureAlgorithm),
    Ed25519,
    MlDsa(SignatureAlgorithm),
}

fn kind(info: &PrivateKeyInfo<'_>) -> Result<Kind, KeyError> {
    let oid = info.algorithm.oid;
    let curve = info.algorithm.parameters_oid().ok();
    let kind = match (oid, curve) {
        (algorithms::RSA, _) => Some(Kind::Rsa),
        (algorithms::EC, Some(algorithms::P256)) => Some(Kind::Ecdsa(SignatureAlgorithm::EcdsaSha256)),
        (algorithms::EC, Some(algorithms::P384)) => Some(Kind::Ecdsa(SignatureAlgorithm::EcdsaSha384)),
        (algorithms::ED25519, _) => Some(Kind::Ed25519),
        (algorithms::ML_DSA_44, _) => Some(Kind::MlDsa(SignatureAlgorithm::MlDsa44)),
        (algorithms::ML_DSA_65, _) => Some(Kind::MlDsa(SignatureAlgorithm::MlDsa65)),
        (algorithms::ML_DSA_87, _) => Some(Kind::MlDsa(SignatureAlgorithm::MlDsa87)),
        _ => None,
    };
    let available = |kind: &Kind| !matches!(kind, Kind::MlDsa(algorithm) if !algorithm.is_available());
    let named = curve.filter(|_| oid == algorithms::EC).unwrap_or(oid);
    kind.filter(available).ok_or_else(|| KeyError::Unsupported(named.to_string()))
}

const fn ecdsa(algorithm: SignatureAlgorithm) -> &'static EcdsaSigningAlgorithm {
    match algorithm {
        SignatureAlgorithm::EcdsaSha384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

const fn ml_dsa(algorithm: SignatureAlgorithm) -> &'static PqdsaSigningAlgorithm {
    match algorithm {
        SignatureAlgorithm::MlDsa44 => &ML_DSA_44_SIGNING,
        SignatureAlgorithm::MlDsa65 => &ML_DSA_65_SIGNING,
        _ => &ML_DSA_87_SIGNING,
    }
}

const fn rsa(algorithm: SignatureAlgorithm) -> Option<&'static RsaSignatureEncoding> {
    Some(match algorithm {
        SignatureAlgorithm::RsaSha256 => &RSA_PKCS1_SHA256,
        SignatureAlgorithm::RsaSha384 => &RSA_PKCS1_SHA384,
        SignatureAlgorithm::RsaSha512 => &RSA_PKCS1_SHA512,
        SignatureAlgorithm::RsaPssSha256 => &RSA_PSS_SHA256,
        SignatureAlgorithm::RsaPssSha384 => &RSA_PSS_SHA384,
        SignatureAlgorithm::RsaPssSha512 => &RSA_PSS_SHA512,
        _ => return None,
    })
}

fn secret(pem: &str) -> Result<(&str, SecretDocument), KeyError> {
    SecretDocument::from_pem(pem).map_err(|error| KeyError::Unreadable(error.to_string()))
}

fn pem<E: fmt::Display>(
    document: Result<SecretDocument, E>,
    label: &'static str,
) -> Result<Zeroizing<String>, KeyError> {
    let document = document.map_err(|error| KeyError::Unreadable(error.to_string()))?;
    document.to_pem(label, LineEnding::LF).map_err(|error| KeyError::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use trustfleet_pki::PublicKey;

    use super::*;

    /// One of each kind that is quickly made, with the algorithms that it signs by.
    fn keys() -> Vec<(SoftwareKey, Vec<SignatureAlgorithm>)> {
        use SignatureAlgorithm as S;
        let rsa = vec![S::RsaSha256, S::RsaSha384, S::RsaSha512, S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512];
        let own = |kind: KeyType| vec![kind.signature_algorithm()];
        KeyType::ALL
            .into_iter()
            .filter(|kind| !matches!(kind, KeyType::Rsa3072 | KeyType::Rsa4096))
            .map(|kind| {
                let signs_by = if kind == KeyType::Rsa2048 { rsa.clone() } else { own(kind) };
                (SoftwareKey::generate(kind).unwrap(), signs_by)
            })
            .collect()
    }

    #[test]
    fn a_key_survives_its_pem_forms_and_stays_out_of_debug_output() {
        for (key, _) in keys() {
            let again = SoftwareKey::from_pem(&key.pkcs8_pem().unwrap()).unwrap();
            assert_eq!(again.public_key_der(), key.public_key_der());
            assert!(format!("{key:?}").ends_with("redacted)"));
            let encrypted = key.pkcs8_encrypted_pem(b"a passphrase").unwrap();
            let again = SoftwareKey::from_encrypted_pem(&encrypted, b"a passphrase").unwrap();
            assert_eq!(again.public_key_der(), key.public_key_der());
        }
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_alone() {
        let key = SoftwareKey::generate(KeyType::P256).unwrap();
        let encrypted = key.pkcs8_encrypted_pem(b"right").unwrap();
        assert_eq!(SoftwareKey::from_encrypted_pem(&encrypted, b"wrong").unwrap_err(), KeyError::Passphrase);
        assert!(matches!(SoftwareKey::from_pem(&encrypted), Err(KeyError::Encryption(_))));
        let plain = key.pkcs8_pem().unwrap();
        assert!(matches!(SoftwareKey::from_encrypted_pem(&plain, b"right"), Err(KeyError::Encryption(_))));
    }

    #[test]
    fn p6_every_kind_of_key_signs_by_its_algorithms_and_by_no_other() {
        for (key, signs_by) in keys() {
            let public = PublicKey::from_spki_der(key.public_key_der()).unwrap();
            for algorithm in SignatureAlgorithm::ALL {
                let signed = key.sign_with(algorithm, b"message");
                assert_eq!(signed.is_ok(), signs_by.contains(&algorithm), "{key:?} by {algorithm}");
                if let Ok(signature) = signed {
                    let identifier = algorithm.identifier();
                    assert_eq!(public.verify(&identifier, b"message", &signature), Ok(()), "{key:?} by {algorithm}");
                    assert!(public.verify(&identifier, b"Message", &signature).is_err(), "{key:?} by {algorithm}");
                }
            }
        }
    }

    #[test]
    fn p6_rsa_signatures_name_null_parameters_and_the_others_none() {
        for (key, _) in keys() {
            let parameters = key.algorithm().parameters;
            assert_eq!(parameters.is_some_and(|any| any.is_null()), matches!(key.pair, Pair::Rsa(_)), "{key:?}");
        }
    }

    #[test]
    fn keys_of_3072_and_4096_bits_are_made() {
        for (kind, bits) in [(KeyType::Rsa3072, 3072), (KeyType::Rsa4096, 4096)] {
            let key = SoftwareKey::generate(kind).unwrap();
            let public = PublicKey::from_spki_der(key.public_key_der()).unwrap();
            assert_eq!(public.algorithm(), trustfleet_pki::KeyKind::Rsa { bits });
        }
    }

    #[test]
    fn other_keys_are_refused_by_name() {
        // made by `openssl genpkey -algorithm X25519`
        let x25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIFgaU7XMiXjdVT8P5mQZl8DwmfJoGpNHwVgjiOEcJGxT\n-----END PRIVATE KEY-----\n";
        assert_eq!(SoftwareKey::from_pem(x25519).unwrap_err(), KeyError::Unsupported("1.3.101.110".to_owned()));
        assert!(SoftwareKey::from_der(b"nonsense").is_err());
    }
}
