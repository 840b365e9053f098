//! The parameters of PBMAC1, the password-based MAC of PKCS #5.

use der::{
    Sequence,
    asn1::{Any, OctetString},
};
use spki::AlgorithmIdentifierOwned;

/// RFC 8018 appendix A.5.
///
/// ```text
/// PBMAC1-params ::= SEQUENCE {
///     keyDerivationFunc   AlgorithmIdentifier {{PBMAC1-KDFs}},
///     messageAuthScheme   AlgorithmIdentifier {{PBMAC1-MACs}} }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct Pbmac1Params {
    /// How the key is made: PBKDF2 with [`Pbkdf2Params`].
    pub key_derivation_func: AlgorithmIdentifierOwned,
    /// The MAC made with that key.
    pub message_auth_scheme: AlgorithmIdentifierOwned,
}

/// RFC 8018 appendix A.2.
///
/// ```text
/// PBKDF2-params ::= SEQUENCE {
///     salt CHOICE {
///         specified       OCTET STRING,
///         otherSource     AlgorithmIdentifier {{PBKDF2-SaltSources}} },
///     iterationCount      INTEGER (1..MAX),
///     keyLength           INTEGER (1..MAX) OPTIONAL,
///     prf                 AlgorithmIdentifier {{PBKDF2-PRFs}} DEFAULT algid-hmacWithSHA1 }
/// ```
///
/// No salt source is defined anywhere, so that a salt of the other kind does not decode.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct Pbkdf2Params {
    /// The salt.
    pub salt: OctetString,
    /// Rounds of the function.
    pub iteration_count: u32,
    /// Octets of the key; must be there in PBMAC1 (RFC 9579 section 4).
    pub key_length: Option<u32>,
    /// The pseudo-random function; absent: HMAC-SHA1.
    pub prf: Option<AlgorithmIdentifierOwned>,
}

/// Parameters of a hash or HMAC: none, or NULL.
pub(crate) fn absent_or_null(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.parameters.as_ref().is_none_or(Any::is_null)
}
