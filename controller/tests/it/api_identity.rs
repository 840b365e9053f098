//! Credentials: scopes, makers, the last use, the end of a token at every replica, and how often one may be used.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api_house::House;
use crate::support::until;

#[actix::test]
async fn a_token_with_scopes_may_do_what_they_name_and_nothing_else_of_its_role() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let body = json!({"role": "operator", "description": "inventory", "scopes": ["devices:write", "jobs:read"]});
    let made = house.post("/v1/tenants/acme/tokens", &admin, body).await.expect(201);
    assert_eq!(made.body["scopes"], json!(["devices:write", "jobs:read"]));
    let token = made.str("/token");
    house.post("/v1/tenants/acme/devices", token, json!({"name": "ap-1"})).await.expect(201);
    house.get("/v1/tenants/acme/devices/ap-1", token).await.expect(200);
    house.get("/v1/tenants/acme/jobs", token).await.expect(200);
    for path in ["/v1/tenants/acme", "/v1/tenants/acme/policies", "/v1/tenants/acme/devices/ap-1/trustpoints"] {
        let refused = house.get(path, token).await.expect(403);
        assert_eq!(refused.str("/code"), "missing_scope", "{path}");
    }
    // The role still counts, and another tenant does not exist.
    assert_eq!(house.get("/v1/tenants/acme/tokens", token).await.expect(403).str("/code"), "forbidden");
    house.get("/v1/tenants/other/devices", token).await.expect(404);

    let bad = json!({"role": "viewer", "description": "x", "scopes": ["devices:read", "colours:read", "devices"]});
    let bad = house.post("/v1/tenants/acme/tokens", &admin, bad).await.expect(422);
    assert_eq!(bad.violations(), ["scopes[1] scope", "scopes[2] scope"]);
    house.close().await;
}

#[actix::test]
async fn a_token_with_scopes_makes_no_token_that_may_more_than_itself() {
    let house = House::open().await;
    house.tenant("acme").await;
    let body = json!({"role": "admin", "description": "desk", "scopes": ["tokens:write", "devices:read"]});
    let desk = house.post("/v1/tenants/acme/tokens", &house.platform, body).await.expect(201).str("/token").to_owned();
    let ask = async |scopes: Value| {
        let body = json!({"role": "viewer", "description": "x", "scopes": scopes});
        house.post("/v1/tenants/acme/tokens", &desk, body).await
    };
    for more in [json!([]), json!(["devices:write"]), json!(["devices:read", "jobs:read"])] {
        assert_eq!(ask(more).await.expect(422).violations(), ["scopes exceeds"]);
    }
    let id = ask(json!(["devices:read"])).await.expect(201).str("/id").to_owned();
    let list = house.get("/v1/tenants/acme/tokens", &desk).await.expect(200);
    let made = list.body["items"].as_array().unwrap().iter().find(|item| item["id"] == id.as_str()).unwrap().clone();
    assert!(made["created_by"].as_str().unwrap().contains("(desk)"), "{made}");
    house.close().await;
}

#[actix::test]
async fn platform_tokens_are_made_listed_and_taken_back_but_for_the_last_one() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    for (method, path) in [("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/x")] {
        house.call(method, path, Some(&admin), (method == "POST").then(|| json!({}))).await.expect(403);
    }
    let first = house.get("/v1/tokens", &house.platform).await.expect(200).str("/items/0/id").to_owned();
    let last = house.call("DELETE", &format!("/v1/tokens/{first}"), Some(&house.platform), None).await.expect(409);
    assert_eq!(last.str("/code"), "last_platform_token");
    house.get("/v1/tenants", &house.platform).await.expect(200);

    let body = json!({"description": "second", "scopes": ["tenants:read", "tokens:write"]});
    let second = house.post("/v1/tokens", &house.platform, body).await.expect(201).str("/token").to_owned();
    house.get("/v1/tenants", &second).await.expect(200);
    house.post("/v1/tenants", &second, json!({"name": "x"})).await.expect(403);
    house.call("DELETE", &format!("/v1/tokens/{first}"), Some(&second), None).await.expect(204);
    house.get("/v1/tenants", &house.platform).await.expect(401);
    // A token of a tenant is not found among them.
    let tokens = house.get("/v1/tenants/acme/tokens", &second).await.expect(200);
    let of_tenant = tokens.str("/items/0/id");
    house.call("DELETE", &format!("/v1/tokens/{of_tenant}"), Some(&second), None).await.expect(404);
    house.close().await;
}

#[actix::test]
async fn the_last_use_of_a_token_is_written_once_a_minute_and_the_request_does_not_wait_for_it() {
    let house = House::open().await;
    house.tenant("acme").await;
    let (id, token) = house.token("acme", "viewer").await;
    let database = house.place.admin().await;
    let sql = "SELECT last_used_at::text FROM api_tokens WHERE token_id::text = $1";
    let used = async || database.query_one(sql, &[&id]).await.unwrap().get::<_, Option<String>>(0);
    assert_eq!(used().await, None);
    // Somebody holds the row: the request is answered all the same.
    let holder = house.place.admin().await;
    holder.batch_execute("BEGIN").await.unwrap();
    holder.execute("UPDATE api_tokens SET description = description WHERE token_id::text = $1", &[&id]).await.unwrap();
    house.get("/v1/tenants/acme", &token).await.expect(200);
    holder.batch_execute("COMMIT").await.unwrap();
    let first = until("the use to be noted", used).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    house.get("/v1/tenants/acme", &token).await.expect(200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(used().await, Some(first), "written again within the minute");
    house.close().await;
}

/// One request on a connection that stays open; its status.
pub async fn ask(stream: &mut TcpStream, token: &str) -> u16 {
    let request = format!("GET /v1/tenants/acme HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the connection was closed");
        said.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&said);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let announced: usize =
            lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        if body.len() >= announced {
            return head.split(' ').nth(1).unwrap().parse().unwrap();
        }
    }
}

#[actix::test]
async fn a_token_that_one_replica_took_back_is_refused_by_the_other_within_five_seconds_on_an_open_connection() {
    let house = House::open().await;
    house.tenant("acme").await;
    let second = house.second().await;
    let (id, token) = house.token("acme", "viewer").await;
    let mut there = TcpStream::connect(second.address()).await.unwrap();
    let mut here = TcpStream::connect(house.address()).await.unwrap();
    assert_eq!((ask(&mut there, &token).await, ask(&mut here, &token).await), (200, 200));
    house.call("DELETE", &format!("/v1/tenants/acme/tokens/{id}"), Some(&house.platform), None).await.expect(204);
    let revoked = Instant::now();
    assert_eq!(ask(&mut here, &token).await, 401, "where it was taken back it opens nothing any more");
    while ask(&mut there, &token).await != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(5), "still let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    second.close().await;
    house.close().await;
}

#[actix::test]
async fn a_credential_over_its_rate_is_told_when_to_come_back_while_others_are_served() {
    let house = House::open_with(|config| {
        config.http.rate_limit_per_s = 1;
        config.http.rate_limit_burst = 20;
    })
    .await;
    let [viewer, operator, _] = house.tenant("acme").await;
    let mut refused = None;
    for _ in 0..60 {
        let answer = house.get("/v1/tenants/acme", &viewer).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("sixty requests at once were let through");
    assert_eq!(refused.str("/code"), "too_many_requests");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    house.get("/v1/tenants/acme", &operator).await.expect(200);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    house.get("/v1/tenants/acme", &viewer).await.expect(200);
    house.close().await;
}

#[actix::test]
async fn an_address_that_guesses_waits_at_every_door_and_whoever_is_in_stays_in() {
    let house = House::open_with(|config| config.http.failed_limit_per_min = 5).await;
    let [viewer, ..] = house.tenant("acme").await;
    house.get("/v1/tenants/acme", &viewer).await.expect(200);
    let guess = format!("tft1_{}", "A".repeat(43));
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(house.get("/v1/tenants/acme", &guess).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 401, 429, 429]);
    let door = json!({"agent_id": "018f0000-0000-7000-8000-0000000000a1"});
    house.call("POST", "/agent/v1/challenge", None, Some(door)).await.expect(429);
    house.get("/v1/tenants/acme", &viewer).await.expect(200);
    house.get("/v1/tenants/acme", "no token at all").await.expect(429);
    house.call("GET", "/healthz", None, None).await.expect(200);
    house.close().await;
}
