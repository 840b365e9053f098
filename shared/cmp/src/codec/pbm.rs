//! The parameters of the password-based MAC.

use der::{Sequence, asn1::OctetString};
use spki::AlgorithmIdentifierOwned;

/// RFC 4211 section 4.4.
///
/// ```text
/// PBMParameter ::= SEQUENCE {
///     salt                OCTET STRING,
///     owf                 AlgorithmIdentifier{DIGEST-ALGORITHM, {DigestAlgorithms}},
///     iterationCount      INTEGER,
///     mac                 AlgorithmIdentifier{MAC-ALGORITHM, {MACAlgorithms}} }
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub struct PbmParameter {
    /// Appended to the secret before the first hash.
    pub salt: OctetString,
    /// The hash that is iterated.
    pub owf: AlgorithmIdentifierOwned,
    /// How often, the first hash included.
    pub iteration_count: u32,
    /// The MAC made with the resulting key.
    pub mac: AlgorithmIdentifierOwned,
}
