//! Roll-overs of trust anchors: the gate before the switch, what goes round it, and four eyes.

use serde_json::{Value, json};

use crate::{api_access::objects, api_house::House, fixture::certificate};

const ROLLOVER: &str = "/v1/tenants/acme/ca-servers/default/rollover";
const SERVER: &str = "/v1/tenants/acme/ca-servers/default";

/// What a PUT of the CA server holds.
async fn settings(house: &House, token: &str) -> Value {
    let mut server = house.get(SERVER, token).await.expect(200).body;
    for field in ["id", "name", "revision", "created_at", "updated_at"] {
        server.as_object_mut().unwrap().remove(field);
    }
    server
}

/// A trustpoint whose certificate in use has yet a month, of a CA server without any roll-over.
async fn in_use(house: &House) {
    house.place.admin().await.batch_execute("DELETE FROM rollovers").await.unwrap();
    let sql = "UPDATE trustpoints SET not_after = now() + interval '30 days', status = 'active'";
    assert_eq!(house.place.admin().await.execute(sql, &[]).await.unwrap(), 1);
}

#[actix::test]
async fn s57_the_switch_is_refused_with_the_names_of_the_missing_and_forced_only_with_a_reason_that_is_kept() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    objects(&house).await;
    in_use(&house).await;
    house.get(ROLLOVER, &viewer).await.expect(404);
    let (next, _) = certificate("Next CA");
    let issuer = json!({"ca_name": "/CN=Next CA", "primary_url": "http://127.0.0.1:9/next/"});
    let body = json!({"next_anchors": [next], "issuer": issuer});
    house.post(ROLLOVER, &operator, body.clone()).await.expect(403);
    let wrong = json!({"next_anchors": [], "required_percent": 0, "issuer_of": "nobody"});
    let refused = house.post(ROLLOVER, &admin, wrong).await.expect(422);
    assert!(refused.text.contains("next_anchors") && refused.text.contains("required_percent"), "{}", refused.text);
    let refused =
        house.post(ROLLOVER, &admin, json!({"next_anchors": [next], "issuer_of": "nobody"})).await.expect(422);
    assert!(refused.text.contains("issuer_of"), "{}", refused.text);

    let before = settings(&house, &admin).await;
    let begun = house.post(ROLLOVER, &admin, body.clone()).await.expect(201);
    assert_eq!((begun.str("/phase"), &begun.body["trustpoints"]), ("distributing", &json!(1)), "{}", begun.text);
    assert_eq!((&begun.body["pending"], &begun.body["may_switch"]), (&json!(1), &json!(false)));
    let during = settings(&house, &admin).await;
    assert_eq!(during["trust_anchors"].as_array().unwrap().len(), 2, "both sides are anchors");
    assert_eq!(during["primary_url"], before["primary_url"], "the issuer is the former one");
    assert_eq!(house.post(ROLLOVER, &admin, body).await.expect(409).str("/code"), "rollover_open");
    // Nor the switch, nor the loss of an anchor, behind its back; all else can be changed.
    let mut other = during.clone();
    other["primary_url"] = json!("http://127.0.0.1:9/next/");
    assert_eq!(house.call("PUT", SERVER, Some(&admin), Some(other)).await.expect(409).str("/code"), "rollover_open");
    assert_eq!(house.call("PUT", SERVER, Some(&admin), Some(before)).await.expect(409).str("/code"), "rollover_open");
    let mut quirk = during.clone();
    quirk["quirks"]["no_polling"] = json!(true);
    house.call("PUT", SERVER, Some(&admin), Some(quirk)).await.expect(200);

    let switch = format!("{ROLLOVER}/switch");
    house.post(&switch, &operator, json!({})).await.expect(403);
    let refused = house.post(&switch, &admin, json!({})).await.expect(409);
    assert_eq!(refused.str("/code"), "anchors_missing");
    assert!(refused.text.contains("0 of 1") && refused.text.contains("ap-1/mgmt (pending"), "{}", refused.text);
    let missing = house.get(&format!("{ROLLOVER}/missing?limit=1"), &viewer).await.expect(200);
    assert_eq!((missing.str("/items/0/trustpoint"), &missing.body["next"]), ("mgmt", &Value::Null));
    assert!(missing.body["items"][0]["reason"].is_string(), "{}", missing.text);
    house.get(&format!("{ROLLOVER}/missing?state=lost"), &viewer).await.expect(422);
    house.post(&switch, &admin, json!({"force": true})).await.expect(422);
    assert_eq!(
        house.post(&format!("{ROLLOVER}/finish"), &admin, json!({})).await.expect(409).str("/code"),
        "rollover_phase"
    );
    let forced = json!({"force": true, "reason": "the old root ends tonight"});
    let switched = house.post(&switch, &admin, forced).await.expect(200);
    assert_eq!((switched.str("/phase"), switched.str("/forced_reason")), ("switched", "the old root ends tonight"));
    let after = settings(&house, &admin).await;
    assert_eq!((&after["primary_url"], &after["ca_name"]), (&json!("http://127.0.0.1:9/next/"), &json!("/CN=Next CA")));
    assert_eq!(after["trust_anchors"].as_array().unwrap().len(), 2);
    assert_eq!(
        house.post(&format!("{ROLLOVER}/cancel"), &admin, json!({})).await.expect(409).str("/code"),
        "rollover_phase"
    );
    let ended = house.post(&format!("{ROLLOVER}/finish"), &admin, json!({})).await.expect(200);
    assert_eq!(ended.str("/phase"), "finished");
    assert_eq!(settings(&house, &admin).await["trust_anchors"], json!([next]));
    let sql = "SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit WHERE object_kind = 'rollover'";
    let actions: String = house.place.admin().await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(actions, "rollover_started rollover_switch_forced rollover_finished");
    house.close().await;
}

#[actix::test]
async fn s57_each_step_of_a_roll_over_takes_two_administrators_where_the_tenant_wants_it_and_the_gate_stands_for_both()
{
    let house = House::open().await;
    house.tenant("acme").await;
    objects(&house).await;
    in_use(&house).await;
    let four_eyes = json!({"display_name": "acme", "allow_weak_algorithms": false, "four_eyes": true});
    house.call("PUT", "/v1/tenants/acme", Some(&house.platform), Some(four_eyes)).await.expect(200);
    let (one, two) = (house.token("acme", "admin").await.1, house.token("acme", "admin").await.1);
    let approve = async |id: &str, code: u16| {
        let path = format!("/v1/tenants/acme/changes/{id}/approve");
        house.call("POST", &path, Some(&two), None).await.expect(code)
    };
    let (next, _) = certificate("Next CA");
    let started =
        house.post(ROLLOVER, &one, json!({"next_anchors": [next], "required_percent": 100})).await.expect(202);
    assert_eq!((started.str("/operation"), started.str("/object_kind")), ("rollover_start", "rollover"));
    house.get(ROLLOVER, &one).await.expect(404);
    approve(started.str("/id"), 200).await;
    assert_eq!(house.get(ROLLOVER, &one).await.expect(200).str("/phase"), "distributing");

    let switch = format!("{ROLLOVER}/switch");
    house.post(&switch, &one, json!({})).await.expect(409);
    // It is gone when the switch is proposed, and back when it is approved.
    let set = |word: &str| format!("UPDATE trustpoints SET not_after = now() {word} interval '30 days'");
    let database = house.place.admin().await;
    database.batch_execute(&set("-")).await.unwrap();
    let proposed = house.post(&switch, &one, json!({})).await.expect(202).str("/id").to_owned();
    database.batch_execute(&set("+")).await.unwrap();
    assert_eq!(approve(&proposed, 409).await.str("/code"), "anchors_missing");
    database.batch_execute(&set("-")).await.unwrap();
    approve(&proposed, 200).await;
    let finish = house.post(&format!("{ROLLOVER}/finish"), &one, json!({})).await.expect(202);
    approve(finish.str("/id"), 200).await;
    assert_eq!(house.get(ROLLOVER, &one).await.expect(200).str("/phase"), "finished");
    house.close().await;
}
