//! Which signatures count in the paths of certificates, in the form in which rustls-webpki wants to be told.
//!
//! The same set as [`crate::PublicKey::verify`] has, and P-521. What rustls-webpki does not bring, issuers whose key is for
//! RSA-PSS alone, is added here; the computing is done by aws-lc-rs.

use std::sync::LazyLock;

use aws_lc_rs::signature::{self, RsaParameters, UnparsedPublicKey};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use webpki::aws_lc_rs as w;

/// The algorithms that are accepted.
pub(crate) static ALGORITHMS: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = LazyLock::new(|| {
    let mut all = COMMON.to_vec();
    all.extend(PSS_KEYS.iter().map(|key| key as &dyn SignatureVerificationAlgorithm));
    if cfg!(feature = "ml-dsa") {
        all.extend([w::ML_DSA_44, w::ML_DSA_65, w::ML_DSA_87]);
    }
    all
});

static COMMON: &[&dyn SignatureVerificationAlgorithm] = &[
    w::ECDSA_P256_SHA256,
    w::ECDSA_P256_SHA384,
    w::ECDSA_P256_SHA512,
    w::ECDSA_P384_SHA256,
    w::ECDSA_P384_SHA384,
    w::ECDSA_P384_SHA512,
    w::ECDSA_P521_SHA256,
    w::ECDSA_P521_SHA384,
    w::ECDSA_P521_SHA512,
    w::ED25519,
    w::RSA_PKCS1_2048_8192_SHA256,
    w::RSA_PKCS1_2048_8192_SHA384,
    w::RSA_PKCS1_2048_8192_SHA512,
    w::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    w::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    w::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    w::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    w::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    w::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// id-RSASSA-PSS without parameters: a key for RSA-PSS with any hash.
const PSS_KEY: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]);

/// Keys for RSA-PSS alone, free or restricted to the very parameters of the signature (RFC 4055 section 3.3).
static PSS_KEYS: [PssKey; 6] = [
    PssKey { key: PSS_KEY, signature: alg_id::RSA_PSS_SHA256, by: &signature::RSA_PSS_2048_8192_SHA256 },
    PssKey { key: PSS_KEY, signature: alg_id::RSA_PSS_SHA384, by: &signature::RSA_PSS_2048_8192_SHA384 },
    PssKey { key: PSS_KEY, signature: alg_id::RSA_PSS_SHA512, by: &signature::RSA_PSS_2048_8192_SHA512 },
    PssKey { key: alg_id::RSA_PSS_SHA256, signature: alg_id::RSA_PSS_SHA256, by: &signature::RSA_PSS_2048_8192_SHA256 },
    PssKey { key: alg_id::RSA_PSS_SHA384, signature: alg_id::RSA_PSS_SHA384, by: &signature::RSA_PSS_2048_8192_SHA384 },
    PssKey { key: alg_id::RSA_PSS_SHA512, signature: alg_id::RSA_PSS_SHA512, by: &signature::RSA_PSS_2048_8192_SHA512 },
];

#[derive(Debug)]
struct PssKey {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    by: &'static RsaParameters,
}

impl SignatureVerificationAlgorithm for PssKey {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(self.by, public_key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}
