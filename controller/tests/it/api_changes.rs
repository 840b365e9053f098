//! Four eyes: what decides whom devices trust takes two people, and happens exactly as it was proposed.

use serde_json::{Value, json};

use crate::api_house::House;
use crate::fixture::certificate;

/// A tenant with four eyes, with the tokens of two administrators that the platform made.
async fn two_administrators(house: &House) -> (String, String) {
    let body = json!({"name": "acme", "four_eyes": true});
    house.post("/v1/tenants", &house.platform, body).await.expect(201);
    (house.token("acme", "admin").await.1, house.token("acme", "admin").await.1)
}

fn server(anchor: &str, url: &str) -> Value {
    json!({"ca_name": "/CN=Test CA", "primary_url": url, "trust_anchors": [anchor]})
}

const SERVERS: &str = "/v1/tenants/acme/ca-servers";

async fn decide(house: &House, token: &str, id: &str, verb: &str) -> crate::api_house::Answer {
    let body = (verb == "reject").then(|| json!({"reason": "not this one"}));
    house.call("POST", &format!("/v1/tenants/acme/changes/{id}/{verb}"), Some(token), body).await
}

#[actix::test]
async fn a_ca_server_is_made_changed_and_deleted_only_when_another_administrator_approves() {
    let house = House::open().await;
    let (one, two) = two_administrators(&house).await;
    let (anchor, _) = certificate("Test CA");
    let mut body = server(&anchor, "http://127.0.0.1:9/pkix/");
    body["name"] = json!("issuing");

    let change = house.post(SERVERS, &one, body.clone()).await.expect(202);
    assert_eq!((change.str("/state"), change.str("/operation")), ("pending", "ca_server_create"));
    let id = change.str("/id").to_owned();
    house.get(&format!("{SERVERS}/issuing"), &one).await.expect(404);
    assert_eq!(decide(&house, &one, &id, "approve").await.expect(403).str("/code"), "own_change");
    let approved = decide(&house, &two, &id, "approve").await.expect(200);
    assert_eq!(approved.str("/state"), "approved");
    let made = house.get(&format!("{SERVERS}/issuing"), &one).await.expect(200);
    assert_eq!(made.body["trust_anchors"], json!([anchor]));
    assert_eq!(decide(&house, &two, &id, "approve").await.expect(409).str("/code"), "change_decided");
    house.post(SERVERS, &one, body).await.expect(409);

    let path = format!("{SERVERS}/issuing");
    let wanted = server(&anchor, "http://127.0.0.1:9/other/");
    let update = house.call("PUT", &path, Some(&two), Some(wanted)).await.expect(202).str("/id").to_owned();
    assert_eq!(house.get(&path, &one).await.body["revision"], 1);
    decide(&house, &one, &update, "approve").await.expect(200);
    let changed = house.get(&path, &one).await.expect(200);
    assert_eq!((changed.str("/primary_url"), &changed.body["revision"]), ("http://127.0.0.1:9/other/", &json!(2)));

    let gone = house.call("DELETE", &path, Some(&one), None).await.expect(202).str("/id").to_owned();
    house.get(&path, &one).await.expect(200);
    decide(&house, &two, &gone, "approve").await.expect(200);
    house.get(&path, &one).await.expect(404);

    // What is no matter of trust needs one administrator, and both log lines name both of them.
    house.post("/v1/tenants/acme/entities", &one, json!({"name": "e", "subject": "CN=x"})).await.expect(201);
    let lines: Vec<String> = house
        .place
        .admin()
        .await
        .query("SELECT action FROM audit WHERE object_kind = 'change' ORDER BY audit_id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(lines, ["change_proposed", "change_approved"].repeat(3));
    house.close().await;
}

#[actix::test]
async fn a_change_takes_effect_only_on_the_revision_that_its_proposer_saw_and_only_in_time() {
    let house = House::open().await;
    let (one, two) = two_administrators(&house).await;
    let (anchor, _) = certificate("Test CA");
    let mut body = server(&anchor, "http://127.0.0.1:9/pkix/");
    body["name"] = json!("issuing");
    let made = house.post(SERVERS, &one, body).await.expect(202).str("/id").to_owned();
    decide(&house, &two, &made, "approve").await.expect(200);

    let path = format!("{SERVERS}/issuing");
    let propose = async |url: &str| {
        let body = server(&anchor, url);
        house.call("PUT", &path, Some(&one), Some(body)).await.expect(202).str("/id").to_owned()
    };
    let (first, second) = (propose("http://127.0.0.1:9/a/").await, propose("http://127.0.0.1:9/b/").await);
    decide(&house, &two, &first, "approve").await.expect(200);
    let late = decide(&house, &two, &second, "approve").await.expect(409);
    assert_eq!(late.str("/code"), "changed_meanwhile");
    assert_eq!(house.get(&path, &one).await.str("/primary_url"), "http://127.0.0.1:9/a/");
    // Refused is not decided: it can be rejected, by whoever proposed it, too.
    decide(&house, &one, &second, "reject").await.expect(200);
    decide(&house, &two, &second, "approve").await.expect(409);

    let expired = propose("http://127.0.0.1:9/c/").await;
    let database = house.place.admin().await;
    database.batch_execute("UPDATE changes SET expires_at = now() WHERE state = 'pending'").await.unwrap();
    assert_eq!(decide(&house, &two, &expired, "approve").await.expect(409).str("/code"), "change_expired");
    let list = house.get("/v1/tenants/acme/changes?state=expired", &two).await.expect(200);
    assert_eq!(list.str("/items/0/id"), expired);
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    house.get("/v1/tenants/acme/changes?state=lost", &two).await.expect(422);

    // An outdated If-Match is told at once.
    let stale = serde_json::to_vec(&server(&anchor, "http://127.0.0.1:9/d/")).unwrap();
    house.raw("PUT", &path, Some(&one), &[("if-match", "\"1\"")], Some(stale)).await.expect(412);
    house.close().await;
}

#[actix::test]
async fn a_token_that_the_proposer_made_is_no_second_pair_of_eyes() {
    let house = House::open().await;
    let (one, two) = two_administrators(&house).await;
    let make = async |by: &str| {
        let body = json!({"role": "admin", "description": "second"});
        house.post("/v1/tenants/acme/tokens", by, body).await.expect(201).str("/token").to_owned()
    };
    let child = make(&one).await;
    let grandchild = make(&child).await;
    let (anchor, _) = certificate("Test CA");
    let mut body = server(&anchor, "http://127.0.0.1:9/pkix/");
    body["name"] = json!("issuing");
    let id = house.post(SERVERS, &one, body.clone()).await.expect(202).str("/id").to_owned();
    for own in [&one, &child, &grandchild] {
        decide(&house, own, &id, "approve").await.expect(403);
    }
    // Nor the other way round.
    body["name"] = json!("second");
    let of_child = house.post(SERVERS, &grandchild, body).await.expect(202).str("/id").to_owned();
    decide(&house, &one, &of_child, "approve").await.expect(403);
    decide(&house, &two, &of_child, "approve").await.expect(200);
    // A tenant's administrator cannot switch it off.
    let settings = json!({"display_name": "x", "allow_weak_algorithms": false, "four_eyes": false});
    house.call("PUT", "/v1/tenants/acme", Some(&one), Some(settings)).await.expect(403);
    house.close().await;
}
