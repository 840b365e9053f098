//! PBMAC1 (RFC 8018 section 7.1) as RFC 9481 section 6.1.2 takes it into CMP, by the rules of RFC 9579.
//!
//! The key is made by PBKDF2 with an HMAC; its length stands in the parameters. An absent prf means HMAC-SHA1 and is
//! refused unless that is accepted.

use std::{num::NonZeroU32, ops::RangeInclusive};

use aws_lc_rs::pbkdf2;
use der::asn1::{Any, Null, OctetString};
use spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use super::{Hash, MacScheme, Recipe};
use crate::codec::{Pbkdf2Params, Pbmac1Params, oids, pbmac1::absent_or_null};

/// Octets of the key that are accepted: RFC 9579 section 9 advises against fewer than 20, and beyond the block of
/// SHA-512 HMAC would only hash it.
const KEY_LENGTHS: RangeInclusive<usize> = 20..=128;

/// Shortest salt, in octets (RFC 8018 section 4.1).
const MIN_SALT_BYTES: usize = 8;

pub(super) fn encode(recipe: &Recipe) -> der::Result<AlgorithmIdentifierOwned> {
    // NULL as in RFC 8018 appendix B.1, and under the names of PKCS #5 also for SHA-1
    let hmac = |hash| AlgorithmIdentifierOwned { oid: oid(hash), parameters: Some(Any::from(Null)) };
    let derivation = Pbkdf2Params {
        salt: OctetString::new(recipe.salt.as_slice())?,
        iteration_count: recipe.iterations,
        key_length: Some(u32::try_from(recipe.key_length).map_err(|_| der::Tag::Integer.value_error())?),
        prf: (recipe.owf != Hash::Sha1).then(|| hmac(recipe.owf)), // DER leaves the default out
    };
    let parameters = Pbmac1Params {
        key_derivation_func: AlgorithmIdentifierOwned {
            oid: oids::PBKDF2,
            parameters: Some(Any::encode_from(&derivation)?),
        },
        message_auth_scheme: hmac(recipe.hmac),
    };
    Ok(AlgorithmIdentifierOwned { oid: oids::PBMAC1, parameters: Some(Any::encode_from(&parameters)?) })
}

pub(super) fn read(parameters: &Any) -> Result<Recipe, String> {
    let outer: Pbmac1Params =
        parameters.decode_as().map_err(|error| format!("PBMAC1 parameters do not decode: {error}"))?;
    let derivation = &outer.key_derivation_func;
    if derivation.oid != oids::PBKDF2 {
        return Err(format!("PBMAC1 with key derivation {}: only PBKDF2 is known", derivation.oid));
    }
    let inner = derivation.parameters.as_ref().ok_or("PBKDF2 without parameters")?;
    let inner: Pbkdf2Params = inner.decode_as().map_err(|error| format!("PBKDF2 parameters do not decode: {error}"))?;
    let owf = inner.prf.as_ref().map_or(Ok(Hash::Sha1), hmac)?;
    let length = inner.key_length.ok_or("PBMAC1 without keyLength")?;
    let key_length = usize::try_from(length).ok().filter(|length| KEY_LENGTHS.contains(length));
    let key_length = key_length.ok_or_else(|| {
        format!("PBMAC1 with a key of {length} octets: {} to {} are taken", KEY_LENGTHS.start(), KEY_LENGTHS.end())
    })?;
    let salt = inner.salt.into_bytes();
    if salt.len() < MIN_SALT_BYTES {
        return Err(format!("PBMAC1 with a salt of {} octets: at least {MIN_SALT_BYTES} are wanted", salt.len()));
    }
    let hmac = hmac(&outer.message_auth_scheme)?;
    Ok(Recipe { scheme: MacScheme::Pbmac1, owf, hmac, iterations: inner.iteration_count, salt, key_length })
}

pub(super) fn key(recipe: &Recipe, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; recipe.key_length]);
    let iterations = NonZeroU32::new(recipe.iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(recipe.owf.pbkdf2(), iterations, &recipe.salt, secret, &mut key);
    key
}

fn hmac(algorithm: &AlgorithmIdentifierOwned) -> Result<Hash, String> {
    let hash = Hash::from_hmac(algorithm.oid).filter(|_| absent_or_null(algorithm));
    hash.ok_or_else(|| format!("PBMAC1 with {}", algorithm.oid))
}

const fn oid(hash: Hash) -> der::asn1::ObjectIdentifier {
    match hash {
        Hash::Sha1 => oids::HMAC_WITH_SHA1,
        Hash::Sha256 | Hash::Sha384 | Hash::Sha512 => hash.hmac_oid(),
    }
}
