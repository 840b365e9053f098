//! A person of an identity provider is put out before the token ends: in a tenant or everywhere, at every replica.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    api_identity::ask,
    api_oidc::{claims, house, oidc},
    idp::{Idp, Key},
};

const BLOCKED: &str = "/v1/tenants/acme/blocked-subjects";

/// Asks again on the same connection until the status is this one; within five seconds.
async fn until_status(stream: &mut TcpStream, token: &str, status: u16) {
    let begun = Instant::now();
    loop {
        let answered = ask(stream, token).await;
        if answered == status {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "still answered {answered}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[actix::test]
async fn a_blocked_subject_is_refused_by_every_replica_within_five_seconds_on_an_open_connection() {
    let key = Key::fresh("k1", Algorithm::ES256);
    let idp = Idp::open(&[&key]).await;
    let house = house(&idp).await;
    let second = house.second_with(|config| config.oidc = vec![oidc(&idp)]).await;
    let token = key.sign(&claims(&idp, json!({})));
    let other = key.sign(&claims(&idp, json!({"sub": "max"})));
    let mut here = TcpStream::connect(house.address()).await.unwrap();
    let mut there = TcpStream::connect(second.address()).await.unwrap();
    assert_eq!((ask(&mut here, &token).await, ask(&mut there, &token).await), (200, 200));

    // In one tenant, by its administrator: the tenant does not exist for the subject any more.
    let (_, admin) = house.token("acme", "admin").await;
    let body = json!({"issuer": idp.issuer, "subject": "erika", "reason": "has left"});
    let made = house.post(BLOCKED, &admin, body.clone()).await.expect(201);
    assert_eq!(ask(&mut here, &token).await, 404, "where it was blocked at once");
    until_status(&mut there, &token, 404).await;
    assert_eq!((ask(&mut here, &other).await, ask(&mut there, &other).await), (200, 200), "nobody else is");
    assert_eq!(house.post(BLOCKED, &admin, body.clone()).await.expect(409).str("/code"), "blocked_already");
    let listed = house.get(BLOCKED, &admin).await.expect(200);
    assert_eq!((listed.str("/items/0/subject"), listed.str("/items/0/reason")), ("erika", "has left"));
    let at = format!("{BLOCKED}/{}", made.str("/id"));
    house.call("DELETE", &at, Some(&admin), None).await.expect(204);
    house.call("DELETE", &at, Some(&admin), None).await.expect(404);
    until_status(&mut there, &token, 200).await;

    // Everywhere, by a platform administrator.
    let made = house.post("/v1/blocked-subjects", &house.platform, body).await.expect(201);
    assert_eq!(ask(&mut here, &token).await, 401);
    until_status(&mut there, &token, 401).await;
    // It is none of the tenant's, and a tenant cannot lift it.
    assert_eq!(house.get(BLOCKED, &admin).await.expect(200).body["items"], json!([]));
    house.call("DELETE", &format!("{BLOCKED}/{}", made.str("/id")), Some(&admin), None).await.expect(404);
    let refused = crate::support::until("the refusal to be noted", async || {
        let sql = "SELECT actor FROM audit WHERE action = 'access_refused' AND actor LIKE 'oidc:erika%' \
                   AND detail->>'status' = '401'";
        house.place.admin().await.query_opt(sql, &[]).await.unwrap()
    });
    refused.await;
    house
        .call("DELETE", &format!("/v1/blocked-subjects/{}", made.str("/id")), Some(&house.platform), None)
        .await
        .expect(204);
    until_status(&mut there, &token, 200).await;
    let sql = "SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit WHERE object_kind = 'blocked_subject'";
    let noted: String = house.place.admin().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(noted, "subject_blocked subject_unblocked subject_blocked subject_unblocked");
    second.close().await;
    house.close().await;
}

#[actix::test]
async fn a_tenant_cannot_put_out_the_platform_and_a_misspelt_issuer_is_refused() {
    let key = Key::fresh("k1", Algorithm::ES256);
    let idp = Idp::open(&[&key]).await;
    let house = house(&idp).await;
    let (_, admin) = house.token("acme", "admin").await;
    let platform = key.sign(&claims(&idp, json!({"groups": "platform", "sub": "root"})));
    let body = |subject: &str| json!({"issuer": idp.issuer, "subject": subject, "reason": "no"});
    house.post(BLOCKED, &admin, body("root")).await.expect(201);
    house.get("/v1/tenants/acme", &platform).await.expect(200);
    house.post("/v1/blocked-subjects", &admin, body("root")).await.expect(403);
    house.post("/v1/blocked-subjects", &house.platform, body("root")).await.expect(201);
    house.get("/v1/tenants/acme", &platform).await.expect(401);
    let wrong = json!({"issuer": format!("{}/", idp.issuer), "subject": "", "reason": "x".repeat(201)});
    let mut found = house.post(BLOCKED, &admin, wrong).await.expect(422).violations();
    found.sort();
    assert_eq!(found, ["issuer unknown_reference", "reason text", "subject text"]);
    // Also where nothing else can be changed: somebody must be kept out.
    house.post("/v1/tenants/acme/suspend", &house.platform, json!({"reason": "x"})).await.expect(200);
    house.post(BLOCKED, &admin, body("erika")).await.expect(201);
    assert_eq!(
        house.get("/v1/tenants/acme", &key.sign(&claims(&idp, Value::Object(Default::default())))).await.status,
        404
    );
    house.close().await;
}
