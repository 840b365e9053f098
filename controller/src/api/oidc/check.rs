//! Whether a JWT is good, and what its claims give. Pure: token, key, configuration and the present moment go in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use trustfleet_model::field::ObjectName;

use crate::api::access::Role;
use crate::config::{GrantedRole, JwtAlgorithm, OidcConfig, OidcGrant};

/// Longest `sub`, characters (OpenID Connect Core 1.0, section 2: 255 ASCII characters).
const SUBJECT_MAX: usize = 255;

/// Why a JWT opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not good; the reason is for the log.
    Wrong(&'static str),
    /// The provider's keys cannot be had.
    Away,
}

/// A JWT that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Verified {
    /// Its issuer.
    pub(in crate::api) issuer: String,
    /// Its subject.
    pub(in crate::api) subject: String,
    /// When it ends, the clock's skew included.
    pub(in crate::api) expires_at: Timestamp,
    /// Whether it is a platform administrator's.
    pub(in crate::api) platform: bool,
    /// Roles in tenants: one for each tenant, the highest.
    pub(in crate::api) tenants: Vec<(ObjectName, Role)>,
}

/// How a JWT says that it is signed.
#[derive(Clone, Debug)]
pub(super) struct Head {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Head {
    /// The key that it names, or the only one that fits.
    pub(super) fn choose<'a>(&self, keys: &'a [Jwk]) -> Option<&'a Jwk> {
        let mut fitting = keys.iter().filter(|key| fits(key, self.algorithm));
        match &self.key_id {
            Some(id) => fitting.find(|key| key.common.key_id.as_ref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

/// Whether a key is one for this algorithm, by its kind and by what it says itself.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let by_kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (AlgorithmParameters::EllipticCurve(point), ES256) => point.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(point), ES384) => point.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(pair), EdDSA) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let named = key.common.key_algorithm.map(|named| named.to_string());
    by_kind && named.is_none_or(|named| named == format!("{algorithm:?}"))
}

const fn algorithm(allowed: JwtAlgorithm) -> Algorithm {
    match allowed {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// Who a token says has issued it: only to find whose keys must verify it.
pub(super) fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts[..] else { return None };
    serde_json::from_slice::<Claims>(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok().map(|claims| claims.iss)
}

/// The token's head, when its algorithm is one of those allowed.
pub(super) fn head(token: &str, config: &OidcConfig) -> Result<Head, Refusal> {
    let head = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Wrong("its head cannot be read"))?;
    if !config.algorithms.iter().any(|allowed| algorithm(*allowed) == head.alg) {
        return Err(Refusal::Wrong("its algorithm is not allowed"));
    }
    // Nothing here knows an extension that a token may call critical (RFC 7515 section 4.1.11).
    if head.crit.is_some() {
        return Err(Refusal::Wrong("it demands an extension"));
    }
    Ok(Head { algorithm: head.alg, key_id: head.kid })
}

/// Verifies signature, issuer, audience and times, and reads what the claims give.
pub(super) fn verified(
    token: &str,
    head: &Head,
    key: &Jwk,
    config: &OidcConfig,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    let key = DecodingKey::from_jwk(key).map_err(|_| Refusal::Wrong("its key cannot be used"))?;
    let mut validation = Validation::new(head.algorithm);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    validation.set_issuer(&[&config.issuer]);
    validation.set_audience(&[&config.audience]);
    // By the clock that is given, below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation)
        .map_err(|_| Refusal::Wrong("its signature, issuer or audience is wrong, or a claim is missing"))?
        .claims;
    let expires_at = check_times(&claims, now, config.clock_skew_s)?;
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if subject.is_empty() || subject.chars().count() > SUBJECT_MAX || subject.chars().any(char::is_control) {
        return Err(Refusal::Wrong("its subject is empty, too long or holds control characters"));
    }
    let (platform, tenants) = granted(&claims, &config.grants);
    Ok(Verified { issuer: config.issuer.clone(), subject: subject.to_owned(), expires_at, platform, tenants })
}

/// When the token ends, if it is valid now.
fn check_times(claims: &Map<String, Value>, now: Timestamp, skew_s: u32) -> Result<Timestamp, Refusal> {
    let (now, skew) = (now.as_second() as f64, f64::from(skew_s));
    let time = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Refusal::Wrong("one of its times is no number")),
    };
    let end = time("exp")?.ok_or(Refusal::Wrong("it never expires"))?;
    if end + skew <= now {
        return Err(Refusal::Wrong("it has expired"));
    }
    for begin in [time("nbf")?, time("iat")?].into_iter().flatten() {
        if begin - skew > now {
            return Err(Refusal::Wrong("it is not valid yet"));
        }
    }
    // Whatever is later than time itself is late enough.
    Ok(Timestamp::from_second((end + skew) as i64).unwrap_or(Timestamp::MAX))
}

/// What the claims give: whether all of the platform, and the highest role in each tenant.
fn granted(claims: &Map<String, Value>, grants: &[OidcGrant]) -> (bool, Vec<(ObjectName, Role)>) {
    let mut platform = false;
    let mut tenants: Vec<(ObjectName, Role)> = Vec::new();
    for grant in grants.iter().filter(|grant| has(claims, &grant.claim, &grant.value)) {
        let role = match grant.role {
            GrantedRole::Viewer => Role::Viewer,
            GrantedRole::Operator => Role::Operator,
            GrantedRole::Admin => Role::Admin,
            GrantedRole::PlatformAdmin => {
                platform = true;
                continue;
            }
        };
        let Some(tenant) = &grant.tenant else { continue };
        match tenants.iter_mut().find(|(known, _)| known == tenant) {
            Some((_, known)) => *known = role.max(*known),
            None => tenants.push((tenant.clone(), role)),
        }
    }
    (platform, tenants)
}

/// Whether a claim (dots lead into claims; a claim's own name may hold dots, too) is this value or has it in its list.
fn has(claims: &Map<String, Value>, path: &str, wanted: &str) -> bool {
    let found = claims.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    });
    match found {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn times_are_judged_by_the_given_clock_and_within_the_skew() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let check = |value| check_times(&claims(value), now, 60).map(|end| end.as_second());
        assert_eq!(check(json!({"exp": 1_000_001})), Ok(1_000_061));
        assert_eq!(check(json!({"exp": 999_941})), Ok(1_000_001), "within the skew");
        assert_eq!(check(json!({"exp": 999_940})), Err(Refusal::Wrong("it has expired")));
        assert_eq!(check(json!({"exp": 2_000_000, "nbf": 1_000_060})), Ok(2_000_060));
        assert_eq!(check(json!({"exp": 2_000_000, "nbf": 1_000_061})), Err(Refusal::Wrong("it is not valid yet")));
        assert_eq!(check(json!({"exp": 2_000_000, "iat": 1_000_061})), Err(Refusal::Wrong("it is not valid yet")));
        for bad in [json!({}), json!({"exp": "2000000"}), json!({"exp": null}), json!({"exp": 2e6, "nbf": true})] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn claims_give_the_highest_role_in_each_tenant_and_nothing_that_no_grant_names() {
        let grant = |claim: &str, value: &str, role, tenant: Option<&str>| OidcGrant {
            claim: claim.to_owned(),
            value: value.to_owned(),
            role,
            tenant: tenant.map(|name| name.parse().unwrap()),
        };
        let grants = [
            grant("groups", "all", GrantedRole::Viewer, Some("acme")),
            grant("realm_access.roles", "ops", GrantedRole::Operator, Some("acme")),
            grant("https://x.example/role", "boss", GrantedRole::PlatformAdmin, None),
            grant("department", "it", GrantedRole::Admin, Some("other")),
        ];
        let given = |value| granted(&claims(value), &grants);
        let acme = |role| vec![("acme".parse::<ObjectName>().unwrap(), role)];
        assert_eq!(given(json!({"groups": ["x", "all"]})), (false, acme(Role::Viewer)));
        let both = json!({"groups": "all", "realm_access": {"roles": ["ops"]}});
        assert_eq!(given(both), (false, acme(Role::Operator)));
        assert_eq!(given(json!({"https://x.example/role": "boss"})), (true, vec![]));
        assert_eq!(given(json!({"groups": {"all": true}, "department": "it2", "roles": ["ops"]})), (false, vec![]));
    }

    #[test]
    fn a_key_is_only_for_algorithms_of_its_own_kind() {
        let rsa: Jwk = serde_json::from_value(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"})).unwrap();
        let named: Jwk =
            serde_json::from_value(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS512"})).unwrap();
        let secret: Jwk = serde_json::from_value(json!({"kty": "oct", "k": "AQAB"})).unwrap();
        assert!(fits(&rsa, Algorithm::RS256) && fits(&rsa, Algorithm::PS256) && !fits(&rsa, Algorithm::ES256));
        assert!(fits(&named, Algorithm::RS512) && !fits(&named, Algorithm::RS256));
        assert!(!fits(&secret, Algorithm::HS256) && !fits(&rsa, Algorithm::HS256));
    }
}
