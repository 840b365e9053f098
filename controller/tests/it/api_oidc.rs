//! JWTs of an identity provider at the API's door: what is let in, as whom, and everything that is not.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use trustfleet_controller::config::{GrantedRole, JwtAlgorithm, OidcConfig, OidcGrant};
use trustfleet_model::clock::{Clock as _, SystemClock};

use crate::api_house::House;
use crate::idp::{Idp, Key};

fn grant(claim: &str, value: &str, role: GrantedRole, tenant: Option<&str>) -> OidcGrant {
    let tenant = tenant.map(|name| name.parse().unwrap());
    OidcGrant { claim: claim.to_owned(), value: value.to_owned(), role, tenant }
}

/// What a configuration says of a provider.
pub fn oidc(idp: &Idp) -> OidcConfig {
    OidcConfig {
        issuer: idp.issuer.clone(),
        audience: "trustfleet".to_owned(),
        algorithms: vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256],
        grants: vec![
            grant("groups", "acme-viewers", GrantedRole::Viewer, Some("acme")),
            grant("realm_access.roles", "acme-admin", GrantedRole::Admin, Some("acme")),
            grant("groups", "other-operators", GrantedRole::Operator, Some("other")),
            grant("groups", "platform", GrantedRole::PlatformAdmin, None),
        ],
        clock_skew_s: 5,
        keys_max_age_s: 3600,
        tls_ca_file: Some(idp.ca_file.clone()),
        insecure_plaintext: false,
    }
}

/// A house that believes a provider.
pub async fn house(idp: &Idp) -> House {
    let house = House::open_with(|config| config.oidc = vec![oidc(idp)]).await;
    house.tenant("acme").await;
    house.tenant("other").await;
    house
}

/// Good claims of a viewer, with some of them replaced (null: left out).
pub fn claims(idp: &Idp, change: Value) -> Value {
    let now = SystemClock.now().as_second();
    let mut claims = json!({
        "iss": idp.issuer, "aud": ["someone", "trustfleet"], "sub": "erika", "iat": now, "exp": now + 300,
        "groups": ["acme-viewers"],
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[actix::test]
async fn a_jwt_opens_what_its_claims_give_in_each_tenant_and_no_more() {
    let (rsa, ec) = (Key::fresh("r1", Algorithm::RS256), Key::fresh("e1", Algorithm::ES256));
    let idp = Idp::open(&[&rsa, &ec]).await;
    // Keys that nobody here can use do not spoil the set.
    idp.publish_also(json!({"kty": "dragon", "kid": "d1"}));
    let house = house(&idp).await;
    let token = |key: &Key, change| key.sign(&claims(&idp, change));
    for key in [&rsa, &ec] {
        let viewer = token(key, json!({}));
        house.get("/v1/tenants/acme", &viewer).await.expect(200);
        house.post("/v1/tenants/acme/devices", &viewer, json!({"name": "x"})).await.expect(403);
        house.get("/v1/tenants/other", &viewer).await.expect(404);
        house.get("/v1/tenants", &viewer).await.expect(403);
    }
    let both =
        token(&ec, json!({"groups": ["other-operators"], "realm_access": {"roles": ["acme-admin"]}, "sub": "max"}));
    house.post("/v1/tenants/acme/entities", &both, json!({"name": "e", "subject": "CN=x"})).await.expect(201);
    house.post("/v1/tenants/other/devices", &both, json!({"name": "d"})).await.expect(201);
    house.post("/v1/tenants/other/entities", &both, json!({"name": "e", "subject": "CN=x"})).await.expect(403);
    let platform = token(&rsa, json!({"groups": "platform", "aud": "trustfleet"}));
    house.post("/v1/tenants", &platform, json!({"name": "third"})).await.expect(201);
    house.get("/v1/tenants/third/devices", &platform).await.expect(200);
    // In, but without any role anywhere.
    let nobody = token(&rsa, json!({"groups": ["cooks"]}));
    house.get("/v1/tenants/acme", &nobody).await.expect(404);
    assert!(house.get("/v1/tenants", &nobody).await.expect(403).str("/detail").contains("none"));
    // The audit tells who it was.
    let actor: String = house
        .place
        .admin()
        .await
        .query_one("SELECT actor FROM audit WHERE action = 'entity_created'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(actor.starts_with("oidc:max (https://localhost:"), "{actor}");
    house.close().await;
}

#[actix::test]
async fn a_jwt_that_is_wrong_in_any_way_opens_nothing() {
    let (rsa, ec) = (Key::fresh("r1", Algorithm::RS256), Key::fresh("e1", Algorithm::ES256));
    let stranger = Key::fresh("r1", Algorithm::RS256);
    let idp = Idp::open(&[&rsa, &ec]).await;
    let house = house(&idp).await;
    let now = SystemClock.now().as_second();
    let good = claims(&idp, json!({}));
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |head: Value| format!("{}.{}.", encode(&head), encode(&good));
    let hs256 = |secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("r1".to_owned());
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let modulus = rsa.public()["n"].as_str().unwrap().to_owned();
    let mut changed: Vec<String> = rsa.sign(&good).split('.').map(str::to_owned).collect();
    changed[1] = encode(&claims(&idp, json!({"groups": ["platform"]})));

    let critical = {
        let head = json!({"alg": "RS256", "kid": "r1", "crit": ["b64"], "b64": true});
        let message = format!("{}.{}", encode(&head), encode(&good));
        let key = EncodingKey::from_rsa_pem(rsa.pem.as_bytes()).unwrap();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::RS256).unwrap();
        format!("{message}.{signature}")
    };
    for (what, token) in [
        ("the wrong audience", rsa.sign(&claims(&idp, json!({"aud": "somebody-else"})))),
        ("no audience", rsa.sign(&claims(&idp, json!({"aud": null})))),
        ("an unknown issuer", rsa.sign(&claims(&idp, json!({"iss": "https://evil.example"})))),
        ("an issuer that only begins like ours", rsa.sign(&claims(&idp, json!({"iss": format!("{}/", idp.issuer)})))),
        ("no issuer", rsa.sign(&claims(&idp, json!({"iss": null})))),
        ("no subject", rsa.sign(&claims(&idp, json!({"sub": null})))),
        ("an empty subject", rsa.sign(&claims(&idp, json!({"sub": ""})))),
        ("expired", rsa.sign(&claims(&idp, json!({"exp": now - 10})))),
        ("without end", rsa.sign(&claims(&idp, json!({"exp": null})))),
        ("not valid yet", rsa.sign(&claims(&idp, json!({"nbf": now + 60})))),
        ("from the future", rsa.sign(&claims(&idp, json!({"iat": now + 60})))),
        ("unsigned", unsigned(json!({"alg": "none", "typ": "JWT"}))),
        ("unsigned but for the name of an algorithm", unsigned(json!({"alg": "RS256", "kid": "r1"}))),
        ("HS256 with the public key in PEM as the secret", hs256(rsa.public_pem().as_bytes())),
        ("HS256 with the modulus as the secret", hs256(modulus.as_bytes())),
        ("HS256 with the decoded modulus as the secret", hs256(&URL_SAFE_NO_PAD.decode(&modulus).unwrap())),
        ("an algorithm that is not allowed", rsa.sign_as(Algorithm::RS512, Some("r1"), &good)),
        ("PSS where PKCS #1 is allowed", rsa.sign_as(Algorithm::PS256, Some("r1"), &good)),
        ("the other key's name", rsa.sign_as(Algorithm::RS256, Some("e1"), &good)),
        ("an unknown key", rsa.sign_as(Algorithm::RS256, Some("r9"), &good)),
        ("a stranger's key of the same name", stranger.sign(&good)),
        ("changed claims", changed.join(".")),
        ("a critical extension", critical),
        ("no JWT", "a.b.c".to_owned()),
        ("five parts", format!("{}.x.y", rsa.sign(&good))),
    ] {
        let answer = house.get("/v1/tenants/acme", &token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    }
    // Without a key id the only fitting key is taken.
    house.get("/v1/tenants/acme", &rsa.sign_as(Algorithm::RS256, None, &good)).await.expect(200);
    house.get("/v1/tenants/acme", &rsa.sign(&good)).await.expect(200);
    assert!(idp.asked() <= 2, "unknown keys made {} questions", idp.asked());
    house.close().await;
}

#[actix::test]
async fn a_new_key_is_found_and_an_old_one_forgotten_when_the_provider_rotates_them() {
    let (old, new) = (Key::fresh("k1", Algorithm::ES256), Key::fresh("k2", Algorithm::ES256));
    let idp = Idp::open(&[&old]).await;
    let house = house(&idp).await;
    let good = claims(&idp, json!({}));
    house.get("/v1/tenants/acme", &old.sign(&good)).await.expect(200);
    idp.publish(&[&new]);
    let started = Instant::now();
    let token = new.sign(&good);
    while house.get("/v1/tenants/acme", &token).await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(25), "the new key was not found");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Another token than the one that may still be remembered.
    let late = old.sign(&claims(&idp, json!({"jti": "2"})));
    house.get("/v1/tenants/acme", &late).await.expect(401);
    house.close().await;
}

#[actix::test]
async fn while_the_provider_is_away_its_tokens_wait_and_our_own_go_on() {
    let key = Key::fresh("k1", Algorithm::ES256);
    let mut idp = Idp::open(&[&key]).await;
    // Nobody listens on it any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    idp.issuer = format!("https://localhost:{port}");
    let house = house(&idp).await;
    let answer = house.get("/v1/tenants/acme", &key.sign(&claims(&idp, json!({})))).await.expect(503);
    assert!(answer.str("/detail").contains("identity provider") && answer.headers.contains_key("retry-after"));
    house.get("/v1/tenants/acme", &house.platform).await.expect(200);
    house.close().await;
}
