//! The password-based MAC of RFC 4211 section 4.4.
//!
//! The hash runs over the secret with the salt behind it, then over its own result until the iteration count is
//! reached; the whole result is the HMAC key (P2).

use aws_lc_rs::digest;
use der::asn1::{Any, OctetString};
use spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::{Hash, MacScheme, Recipe};
use crate::codec::{PbmParameter, oids, pbmac1::absent_or_null};

pub(super) fn encode(recipe: &Recipe) -> der::Result<AlgorithmIdentifierOwned> {
    // without parameters: RFC 5754 section 2 for the hashes, RFC 4231 section 3.1 allows it for the HMACs
    let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
    let parameters = PbmParameter {
        salt: OctetString::new(recipe.salt.as_slice())?,
        owf: plain(recipe.owf.owf_oid()),
        iteration_count: recipe.iterations,
        mac: plain(recipe.hmac.hmac_oid()),
    };
    Ok(AlgorithmIdentifierOwned { oid: oids::PASSWORD_BASED_MAC, parameters: Some(Any::encode_from(&parameters)?) })
}

pub(super) fn read(parameters: &Any) -> Result<Recipe, String> {
    let parameters: PbmParameter =
        parameters.decode_as().map_err(|error| format!("PBM parameters do not decode: {error}"))?;
    let owf = Hash::from_owf(parameters.owf.oid).filter(|_| absent_or_null(&parameters.owf));
    let owf = owf.ok_or_else(|| format!("one-way function {}", parameters.owf.oid))?;
    let hmac = Hash::from_hmac(parameters.mac.oid).filter(|_| absent_or_null(&parameters.mac));
    let hmac = hmac.ok_or_else(|| format!("MAC {}", parameters.mac.oid))?;
    Ok(Recipe {
        scheme: MacScheme::Pbm,
        owf,
        hmac,
        iterations: parameters.iteration_count,
        salt: parameters.salt.into_bytes(),
        key_length: owf.length(),
    })
}

/// RFC 4211 section 4.4: BASEKEY = owf(... owf(secret || salt)).
pub(super) fn key(recipe: &Recipe, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let owf = recipe.owf.digest();
    let salted = Zeroizing::new([secret, &recipe.salt].concat());
    let mut key = Zeroizing::new(digest::digest(owf, &salted).as_ref().to_vec());
    for _ in 1..recipe.iterations {
        let next = digest::digest(owf, &key);
        key.copy_from_slice(next.as_ref());
    }
    key
}
