//! Many MAC references and secrets at once: line by line, and nothing secret comes back.

use serde_json::{Value, json};

use crate::api_house::{Answer, House};

const PATH: &str = "/v1/tenants/acme/trustpoints/mac-import";

async fn import(house: &House, token: &str, media: &str, query: &str, lines: &str) -> Answer {
    let body = Some(lines.as_bytes().to_vec());
    house.raw("POST", &format!("{PATH}{query}"), Some(token), &[("content-type", media)], body).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.content_type, "application/x-ndjson");
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[actix::test]
async fn s13_many_secrets_are_imported_line_by_line_and_nothing_of_a_refused_line_is_applied_or_repeated() {
    let house = House::open().await;
    let [viewer, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "melon-first").await;
    let trustpoint = json!({"name": "dot1x", "entity": "default", "ca_server": "default", "policy": "default"});
    house.post("/v1/tenants/acme/devices/ap-1/trustpoints", &operator, trustpoint).await.expect(201);
    let [_, _, foreign] = house.tenant("other").await;
    import(&house, &viewer, "text/csv", "", "").await.expect(403);
    import(&house, &foreign, "text/csv", "", "").await.expect(404);

    let csv = "device,trustpoint,reference,secret,one_time\n\
               ap-1,mgmt,ref-2,melon-4711,\n\
               ap-1,dot1x,what?,melon-4712,\n\
               ap-1,nothing,ref,melon-4713,\n\
               ap-1,mgmt,ref-3,melon-4714,\n\
               melon-4715,mgmt,ref\n\
               melon/4716,mgmt,ref,x,false\n";
    let answer = import(&house, &operator, "text/csv; charset=utf-8", "?one_time=true", csv).await.expect(200);
    let told = lines(&answer);
    let facts = |line: &Value| (line["line"].as_u64().unwrap(), line["taken"].as_bool().unwrap(), line["code"].clone());
    let facts: Vec<_> = told.iter().map(facts).collect();
    let expected = [
        (2, true, Value::Null),
        (3, false, json!("invalid")),
        (4, false, json!("not_found")),
        (5, false, json!("malformed")),
        (6, false, json!("malformed")),
        (7, false, json!("not_found")),
    ];
    assert_eq!(facts, expected, "{}", answer.text);
    assert!(told[0]["warnings"][0].as_str().unwrap().contains("less than 128"), "{}", told[0]);
    assert!(told[1]["detail"].as_str().unwrap().contains("S12"), "{}", told[1]);
    assert!(!answer.text.contains("melon"), "{}", answer.text);
    let shown = async |name: &str| {
        let shown = house.get(&format!("/v1/tenants/acme/devices/ap-1/trustpoints/{name}"), &viewer).await.expect(200);
        (
            shown.body["mac_reference"].clone(),
            shown.body["mac_secret_stored"].clone(),
            shown.body["mac_one_time"].clone(),
        )
    };
    assert_eq!(shown("mgmt").await, (json!("ref-2"), json!(true), json!(true)));
    assert_eq!(shown("dot1x").await.1, json!(false));

    let json_lines = "{\"device\":\"ap-1\",\"trustpoint\":\"dot1x\",\"reference\":\"r\",\"secret\":\"0123456789abcdefghijklmn\"}\n\
                      \n{\"device\":\"ap-1\",\"secret\":\"melon-4717\"}\n";
    let told = lines(&import(&house, &operator, "application/x-ndjson", "", json_lines).await.expect(200));
    assert_eq!((told.len(), &told[0]["taken"], &told[1]["line"]), (2, &json!(true), &json!(3)));
    assert_eq!(shown("dot1x").await, (json!("r"), json!(true), json!(false)));
    // Each trustpoint has one, and each taken line is in the audit log.
    let database = house.place.admin().await;
    let count = async |sql: &str| -> i64 { database.query_one(sql, &[]).await.unwrap().get(0) };
    assert_eq!(count("SELECT count(*) FROM secrets").await, 2);
    assert_eq!(count("SELECT count(*) FROM audit WHERE action = 'trustpoint_mac_set'").await, 2);
    house.close().await;
}

#[actix::test]
async fn an_import_has_its_bounds_and_is_refused_as_a_whole_where_its_lines_cannot_be_told() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    let headless = import(&house, &operator, "text/csv", "", "ap-1,mgmt,r,melon-1\n").await.expect(422);
    assert_eq!(headless.violations(), ["headings required"]);
    assert!(!headless.text.contains("melon"), "{}", headless.text);
    let many = "{}\n".repeat(1001);
    let many = import(&house, &operator, "application/x-ndjson", "", &many).await.expect(422);
    assert_eq!(many.violations(), ["lines count"]);
    let long = "x".repeat(512 * 1024 + 1);
    assert_eq!(import(&house, &operator, "text/csv", "", &long).await.expect(413).str("/code"), "body_too_long");
    for media in ["application/json", "text/plain", "text/csvx"] {
        import(&house, &operator, media, "", "{}").await.expect(415);
    }
    let unclear = import(&house, &operator, "text/csv", "?one_time=yes", "device,trustpoint,reference,secret\n").await;
    assert_eq!(unclear.expect(422).violations(), ["one_time choice"]);
    let nothing = import(&house, &operator, "text/csv", "", "device,trustpoint,reference,secret\n").await.expect(200);
    assert_eq!(nothing.text, "");
    house.close().await;
}
