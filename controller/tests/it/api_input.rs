//! Bad input: everything that is wrong is named at once, and every error is a problem document.

use serde_json::json;

use crate::{
    api_house::House,
    fixture::certificate,
    support::{connect, variable},
};

#[actix::test]
async fn all_invalid_fields_are_named_at_once_for_every_kind_of_object() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let long = "x".repeat(600);
    let cases = [
        (
            "entities",
            json!({"name": "a/b", "subject": long, "colour": 1,
                   "sans": [{"kind": "ip", "value": "300.1.1.1"}, {"kind": "shoe", "value": "x"}, {"kind": "dns"}]}),
            vec![
                "colour unknown_field",
                "name S1",
                "sans[0].value S22",
                "sans[1].kind choice",
                "sans[2].value required",
                "subject S18",
            ],
        ),
        (
            "ca-servers",
            json!({"name": "", "ca_name": "no dn", "primary_url": "ftp://x", "secondary_url": "x", "trust_anchors": ["x"],
                   "verification_certificates": 7, "quirks": {"answers_by_sha1": true, "no_polling": 1, "pale": true}}),
            vec![
                "ca_name S5",
                "name S1",
                "primary_url S6",
                "quirks.answers_by_sha1 S8",
                "quirks.no_polling type",
                "quirks.pale unknown_field",
                "secondary_url S16",
                "trust_anchors[0] S10",
                "verification_certificates type",
            ],
        ),
        (
            "policies",
            json!({"name": "p", "key": {"algorithm": "rsa-1024", "size": 1}, "mac": {"algorithm": "hmac-sha1", "iterations": 1},
                   "activation": "perhaps", "message_timeout_s": 0, "total_timeout_s": "x",
                   "source": {"interface": "../eth0", "address": "here", "port": 1}}),
            vec![
                "activation choice",
                "key.algorithm choice",
                "key.size unknown_field",
                "mac.algorithm S8",
                "mac.iterations range",
                "message_timeout_s range",
                "source.address S7",
                "source.interface S7",
                "source.port unknown_field",
                "total_timeout_s type",
            ],
        ),
        (
            "devices",
            json!({"name": "ä", "agent": "nobody", "serial": "a b", "mac": 5, "labels": {"ok": "x,CN=root"}, "x": 1}),
            vec![
                "agent unknown_reference",
                "labels.ok label_value",
                "mac type",
                "name name",
                "serial word",
                "x unknown_field",
            ],
        ),
        (
            "devices/ap-1/trustpoints",
            json!({"name": "x".repeat(33), "entity": "nope", "ca_server": "a/b", "policy": "nope",
                   "mac": {"reference": "a?b", "secret": "s".repeat(129)}}),
            vec![
                "ca_server name",
                "entity unknown_reference",
                "mac.reference S12",
                "mac.secret S13",
                "name S17",
                "policy unknown_reference",
            ],
        ),
        (
            "tokens",
            json!({"role": "platform_admin", "description": "", "valid_for_s": 1}),
            vec!["description text", "role choice", "valid_for_s range"],
        ),
        (
            "join-tokens",
            json!({"agent_name": ".", "uses": 0, "valid_for_s": 1}),
            vec!["agent_name name", "uses range", "valid_for_s range"],
        ),
        (
            "devices/ap-1/trustpoints/mgmt/enroll",
            json!({"request": "xx", "y": 1}),
            vec!["request choice", "y unknown_field"],
        ),
    ];
    for (path, body, expected) in cases {
        let answer = house.post(&format!("/v1/tenants/acme/{path}"), &admin, body).await.expect(422);
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.str("/type"), "urn:trustfleet:error:invalid");
        let mut found = answer.violations();
        found.sort();
        assert_eq!(found, expected, "{path}: {}", answer.text);
    }
    house.close().await;
}

#[actix::test]
async fn s5_a_ca_name_in_the_wrong_order_is_refused_with_the_right_one() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let (anchor, _) = certificate("Root/O=Acme/C=DE");
    let body = json!({
        "name": "ca", "ca_name": "/C=DE/O=Acme/CN=Root", "primary_url": "http://ca.example/", "trust_anchors": [anchor]
    });
    let answer = house.post("/v1/tenants/acme/ca-servers", &admin, body).await.expect(422);
    assert_eq!(answer.violations(), ["ca_name S5"]);
    assert!(answer.text.contains("/CN=Root/O=Acme/C=DE"), "{}", answer.text);
    house.close().await;
}

#[actix::test]
async fn every_error_is_a_problem_document() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    let entities = "/v1/tenants/acme/entities";
    let too_long = format!("{{\"name\":\"{}\"}}", "x".repeat(300 * 1024)).into_bytes();
    let plain = [("content-type", "text/plain")];
    let answers = [
        (404, "unknown_path", house.get("/nothing/here", &admin).await),
        (404, "not_found", house.get("/v1/tenants/acme/entities/none", &admin).await),
        (405, "method_not_allowed", house.call("DELETE", entities, Some(&admin), None).await),
        (405, "method_not_allowed", house.call("PUT", "/healthz", None, None).await),
        (401, "unauthenticated", house.call("GET", entities, None, None).await),
        (401, "unauthenticated", house.get(entities, "tft1_unknown").await),
        (403, "forbidden", house.post(entities, &viewer, json!({})).await),
        (400, "malformed", house.raw("POST", entities, Some(&admin), &[], Some(b"{\"name\":".to_vec())).await),
        (400, "malformed", house.raw("POST", entities, Some(&admin), &[], Some(Vec::new())).await),
        (413, "body_too_long", house.raw("POST", entities, Some(&admin), &[], Some(too_long)).await),
        (415, "unsupported_media_type", house.raw("POST", entities, Some(&admin), &plain, Some(b"{}".to_vec())).await),
        (422, "invalid", house.post(entities, &admin, json!([])).await),
        (422, "invalid", house.get("/v1/tenants/acme/entities?limit=0&sort=up", &admin).await),
        (422, "invalid", house.get("/v1/tenants/acme/jobs?state=sleeping", &admin).await),
        (422, "invalid", house.get("/v1/tenants/acme/certificates?after=zzz", &admin).await),
    ];
    for (status, code, answer) in answers {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.content_type, "application/problem+json", "{}", answer.text);
        assert_eq!(answer.str("/code"), code);
        assert_eq!(answer.str("/type"), format!("urn:trustfleet:error:{code}"));
        assert_eq!(answer.body["status"], status);
        assert!(!answer.str("/title").is_empty() && !answer.str("/detail").is_empty());
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    house.close().await;
}

#[actix::test]
async fn without_the_database_the_client_is_told_to_come_back() {
    let house = House::open().await;
    let admin = connect(&variable("TRUSTFLEET_PG_ADMIN_URL")).await;
    let name = &house.place.name;
    // As when the server goes away: no new connection, and the ones that are open end.
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
    admin.query(sql, &[name]).await.unwrap();
    let answer = house.get("/v1/tenants", &house.platform).await.expect(503);
    assert_eq!(answer.content_type, "application/problem+json");
    assert!(answer.headers.contains_key("retry-after"));
    let answer = house.call("GET", "/readyz", None, None).await.expect(503);
    assert!(answer.str("/detail").contains("the database"), "{}", answer.text);
    house.call("GET", "/healthz", None, None).await.expect(200);
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    house.get("/v1/tenants", &house.platform).await.expect(200);
    house.close().await;
}
