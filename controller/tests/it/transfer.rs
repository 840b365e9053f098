//! Devices and trustpoints in bulk: line by line in, whole out, and the same again in another tenant.

use serde_json::{Value, json};

use crate::api_house::{Answer, House};

const NDJSON: &str = "application/x-ndjson";

async fn import(house: &House, token: &str, path: &str, lines: &str) -> Answer {
    let body = Some(lines.as_bytes().to_vec());
    house.raw("POST", &format!("/v1/tenants/{path}"), Some(token), &[("content-type", NDJSON)], body).await
}

/// What became of each line.
fn results(answer: &Answer) -> Vec<(u64, String)> {
    assert_eq!(answer.content_type, NDJSON);
    let read = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let words = |line: Value| {
        let word = line["code"].as_str().or_else(|| line["result"].as_str()).unwrap().to_owned();
        (line["line"].as_u64().unwrap(), word)
    };
    answer.text.lines().map(|line| words(read(line))).collect()
}

fn expected(words: &[(u64, &str)]) -> Vec<(u64, String)> {
    words.iter().map(|(line, word)| (*line, (*word).to_owned())).collect()
}

#[actix::test]
async fn devices_are_imported_line_by_line_with_what_is_wrong_by_field_and_a_second_time_changes_nothing() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let [_, _, foreign] = house.tenant("other").await;
    let path = "acme/devices/import";
    import(&house, &viewer, path, "").await.expect(403);
    import(&house, &foreign, path, "").await.expect(404);
    house.post("/v1/tenants/acme/devices/import", &operator, json!({})).await.expect(415);

    let lines = "{\"name\":\"b-1\",\"agent\":\"site-1\",\"labels\":{\"site\":\"bonn\"}}\n\
                 \n\
                 {\"name\":\"b-2\",\"agent\":\"nobody\"}\n\
                 {\"name\":\"b 3\",\"serial\":\"?\"}\n\
                 {\"name\":\"b-4\",\"secret\":\"melon-1\"}\n\
                 {\"name\":\"b-5\",\"standby\":\"melon-2\"}\n\
                 melon-3\n\
                 {\"name\":\"b-1\"}\n\
                 {\"name\":\"export\"}\n\
                 {\"name\":\"ap-1\",\"agent\":\"site-1\",\"serial\":\"SN-2\"}\n";
    let words = [
        (1, "created"),
        (3, "invalid"),
        (4, "invalid"),
        (5, "malformed"),
        (6, "malformed"),
        (7, "malformed"),
        (8, "repeated"),
        (9, "invalid"),
        (10, "updated"),
    ];
    let tried = import(&house, &operator, &format!("{path}?dry_run=true"), lines).await.expect(200);
    assert_eq!(results(&tried), expected(&words));
    house.get("/v1/tenants/acme/devices/b-1", &viewer).await.expect(404);
    assert_eq!(house.get("/v1/tenants/acme/devices/ap-1", &viewer).await.expect(200).body["serial"], "SN-1");

    let answer = import(&house, &operator, path, lines).await.expect(200);
    assert_eq!((results(&answer), answer.text.contains("melon")), (expected(&words), false), "{}", answer.text);
    let line: Value = serde_json::from_str(answer.text.lines().nth(2).unwrap()).unwrap();
    let fields: Vec<_> =
        line["violations"].as_array().unwrap().iter().map(|wrong| wrong["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["name", "serial"], "{line}");
    assert_eq!(house.get("/v1/tenants/acme/devices/b-1", &viewer).await.expect(200).body["labels"]["site"], "bonn");
    assert_eq!(house.get("/v1/tenants/acme/devices/ap-1", &viewer).await.expect(200).body["serial"], "SN-2");

    let again = import(&house, &operator, path, lines).await.expect(200);
    assert_eq!((results(&again)[0].1.as_str(), results(&again)[8].1.as_str()), ("unchanged", "unchanged"));
    let many = "{\"name\":\"x\"}\n".repeat(1_001);
    assert_eq!(import(&house, &operator, path, &many).await.expect(422).violations(), ["lines count"]);
    house.close().await;
}

#[actix::test]
async fn an_import_takes_exactly_as_many_as_the_quota_allows_also_when_it_is_only_tried() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let quota = json!({"devices": 3, "trustpoints": 2});
    house.call("PUT", "/v1/tenants/acme/quota", Some(&house.platform), Some(quota)).await.expect(200);
    let lines: String = (1..=4).map(|n| format!("{{\"name\":\"b-{n}\",\"agent\":\"site-1\"}}\n")).collect();
    let words = expected(&[(1, "created"), (2, "created"), (3, "quota_exceeded"), (4, "quota_exceeded")]);
    for query in ["?dry_run=true", ""] {
        let answer = import(&house, &operator, &format!("acme/devices/import{query}"), &lines).await.expect(200);
        assert_eq!(results(&answer), words, "{query}");
    }
    let line = |n: u8| json!({"device": format!("b-{n}"), "name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default"});
    let lines = format!("{}\n{}\n", line(1), line(2));
    let words = expected(&[(1, "created"), (2, "quota_exceeded")]);
    for query in ["?dry_run=true", ""] {
        let answer = import(&house, &operator, &format!("acme/trustpoints/import{query}"), &lines).await.expect(200);
        assert_eq!(results(&answer), words, "{query}");
    }
    house.close().await;
}

#[actix::test]
async fn trustpoints_are_imported_by_the_names_of_what_they_refer_to() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    house
        .post(
            "/v1/tenants/acme/policies",
            &house.platform,
            json!({"name": "other", "key": {"algorithm": "ecdsa-p256"}}),
        )
        .await
        .expect(201);
    let path = "acme/trustpoints/import";
    let line = |name: &str, policy: &str, services: Value| json!({"device": "ap-1", "name": name, "entity": "default", "ca_server": "default", "policy": policy, "services": services});
    let lines = format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n",
        line("dot1x", "default", json!(["radius"])),
        line("mgmt", "default", json!([])),
        line("mgmt2", "nothing", json!([])),
        line("web", "default", json!(["radius"])),
        json!({"device": "unknown", "name": "x", "entity": "default", "ca_server": "default", "policy": "default"}),
        json!({"device": "ap-1", "name": "x", "entity": "default", "ca_server": "default", "policy": "default", "mac": {}}),
    );
    let words =
        [(1, "created"), (2, "unchanged"), (3, "invalid"), (4, "service_taken"), (5, "not_found"), (6, "malformed")];
    let answer = import(&house, &operator, path, &lines).await.expect(200);
    assert_eq!(results(&answer), expected(&words), "{}", answer.text);
    let tried = import(&house, &operator, &format!("{path}?dry_run=true"), &lines).await.expect(200);
    assert_eq!(results(&tried)[0].1, "unchanged");
    assert_eq!(results(&tried)[3].1, "service_taken");

    let other = format!("{}\n", line("mgmt", "other", json!([])));
    assert_eq!(results(&import(&house, &operator, path, &other).await.expect(200)), expected(&[(1, "differs")]));
    let served = format!("{}\n", line("mgmt", "default", json!(["web"])));
    assert_eq!(results(&import(&house, &operator, path, &served).await.expect(200)), expected(&[(1, "updated")]));
    let shown = house.get("/v1/tenants/acme/devices/ap-1/trustpoints/mgmt", &viewer).await.expect(200);
    assert_eq!(shown.body["services"], json!(["web"]));
    house.close().await;
}

#[actix::test]
async fn what_one_tenant_exports_another_one_imports_and_exports_the_same_and_nothing_secret_is_in_it() {
    let house = House::open().await;
    for tenant in ["acme", "other"] {
        house.tenant(tenant).await;
        house.furnish(tenant, "melon-secret").await;
    }
    let lines: String = (0..620)
        .map(|n| json!({"name": format!("d-{n:04}"), "agent": "site-1", "serial": format!("S-{n}"), "labels": {"n": (n % 7).to_string()}}).to_string() + "\n")
        .collect();
    import(&house, &house.platform, "acme/devices/import", &lines).await.expect(200);
    let lines: String = (0..620)
        .step_by(10)
        .map(|n| json!({"device": format!("d-{n:04}"), "name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default"}).to_string() + "\n")
        .collect();
    import(&house, &house.platform, "acme/trustpoints/import", &lines).await.expect(200);

    let export = async |tenant: &str, noun: &str| -> Vec<String> {
        let answer = house.get(&format!("/v1/tenants/{tenant}/{noun}/export"), &house.platform).await.expect(200);
        assert_eq!(answer.content_type, NDJSON);
        assert!(!answer.text.contains("melon"), "a secret is exported");
        let mut lines: Vec<String> = answer.text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (devices, trustpoints) = (export("acme", "devices").await, export("acme", "trustpoints").await);
    assert_eq!((devices.len(), trustpoints.len()), (621, 63));
    let answer = import(&house, &house.platform, "other/devices/import", &devices.join("\n")).await.expect(200);
    assert!(results(&answer).iter().all(|(_, word)| word == "created" || word == "unchanged"), "{}", answer.text);
    let answer = import(&house, &house.platform, "other/trustpoints/import", &trustpoints.join("\n")).await.expect(200);
    assert!(results(&answer).iter().all(|(_, word)| word == "created" || word == "unchanged"), "{}", answer.text);
    assert_eq!((export("other", "devices").await, export("other", "trustpoints").await), (devices, trustpoints));
    let some = house.get("/v1/tenants/acme/devices/export?selector=n=3", &house.platform).await.expect(200);
    assert_eq!(some.text.lines().count(), 89);
    house.close().await;
}
