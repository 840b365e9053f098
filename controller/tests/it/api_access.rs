//! Who may what: tenants do not exist for each other, roles have their limits, tokens end.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use trustfleet_controller::api::{ROUTES, access::Access, access::Role, ensure_first_token};

use crate::api_house::{Answer, House};
use crate::fixture::certificate;

/// A path of the route table with these values; a part that nobody thought of fails the test.
pub fn fill(path: &str, values: &BTreeMap<&str, String>) -> String {
    let part = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => values.get(name).unwrap_or_else(|| panic!("a new kind of object: {name}; add it here")).clone(),
        None => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Kinds of objects that are named by an id.
pub const IDS: [&str; 7] = ["token", "job", "certificate", "change", "applicant", "block", "letter"];

/// One object of each kind in tenant `acme`.
pub async fn objects(house: &House) -> BTreeMap<&'static str, String> {
    house.furnish("acme", "s").await;
    let (token, _) = house.token("acme", "viewer").await;
    let enroll = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt/enroll";
    let job = house.post(enroll, &house.platform, json!({"request": "ir"})).await.expect(202).str("/id").to_owned();
    let admin = house.place.admin().await;
    let (_, der) = certificate("ap-1");
    let sql = "INSERT INTO certificates SELECT tenant_id, gen_random_uuid(), device_id, trustpoint_id, job_id, 'active', \
               '01', 'CN=ap-1', 'CN=CA', now(), now(), '', '', null, $1::bytea, ARRAY[$1::bytea], now() FROM jobs RETURNING certificate_id";
    let row = admin.query_one(sql, &[&der]).await.unwrap();
    let certificate: uuid::Uuid = row.get(0);
    let sql = "INSERT INTO changes SELECT tenant_id, gen_random_uuid(), 'ca_server_delete', 'ca_server', 'default', 1, null, \
               'pending', 'x', 'x', now(), now() + interval '1 day' FROM tenants WHERE name = 'acme' RETURNING change_id";
    let change: uuid::Uuid = admin.query_one(sql, &[]).await.unwrap().get(0);
    let (anchor, _) = crate::fixture::certificate("Factory CA");
    let ca = json!({"name": "maker", "anchors": [anchor], "serial_from": "subject_serial_number"});
    house.post("/v1/tenants/acme/factory-cas", &house.platform, ca).await.expect(201);
    house.post("/v1/tenants/acme/expected-agents", &house.platform, json!({"serial": "SN-1"})).await.expect(201);
    let binding = json!({"name": "nowhere", "selector": {"site": "nowhere"}, "trustpoint": "dot1x", "entity": "default",
        "ca_server": "default", "policy": "default", "enroll": false});
    house.post("/v1/tenants/acme/bindings", &house.platform, binding).await.expect(201);
    let sql = "INSERT INTO agent_applicants SELECT tenant_id, gen_random_uuid(), serial, 'ap-9', ''::bytea, ''::bytea, '', null, \
               'pending', now(), now() FROM expected_agents RETURNING applicant_id";
    let applicant: uuid::Uuid = admin.query_one(sql, &[]).await.unwrap().get(0);
    let sql = "INSERT INTO blocked_subjects SELECT tenant_id, gen_random_uuid(), 'https://idp.example', 'x', 'x', 'x', now() \
               FROM tenants WHERE name = 'acme' RETURNING block_id";
    let block: uuid::Uuid = admin.query_one(sql, &[]).await.unwrap().get(0);
    let campaign = json!({"name": "none", "action": "renew", "select": {"trustpoint": "nothing"}});
    house.post("/v1/tenants/acme/campaigns", &house.platform, campaign).await.expect(201);
    let freeze = json!({"name": "winter", "cron": "0 0 24 12 *", "duration_s": 86_400});
    house.post("/v1/tenants/acme/freezes", &house.platform, freeze).await.expect(201);
    let sql = "INSERT INTO dead_letters SELECT tenant_id, gen_random_uuid(), agent_id, 'agent.' || agent_id || '.r0', \
               'unreadable', 'x', ''::bytea, 0, ''::bytea, 1, now(), now() FROM agents LIMIT 1 RETURNING dead_letter_id";
    let letter: uuid::Uuid = admin.query_one(sql, &[]).await.unwrap().get(0);
    let (next_root, _) = crate::fixture::certificate("Test CA");
    let sql = "INSERT INTO offered_roots SELECT tenant_id, ca_server_id, $1, $2, '', gen_random_uuid(), now(), now() FROM ca_servers";
    let root = "ab".repeat(32);
    admin.execute(sql, &[&root, &next_root]).await.unwrap();
    let sql = "INSERT INTO rollovers SELECT tenant_id, gen_random_uuid(), ca_server_id, 'cancelled', $1, '[]', 'x', now() FROM ca_servers";
    let rollover = json!({"next_anchors": [], "required_percent": 100, "counts": "loaded", "issuer": {}});
    admin.execute(sql, &[&rollover]).await.unwrap();
    BTreeMap::from([
        ("root", root),
        ("campaign", "none".to_owned()),
        ("freeze", "winter".to_owned()),
        ("block", block.to_string()),
        ("letter", letter.to_string()),
        ("endpoint", "ca.example:80".to_owned()),
        ("factory_ca", "maker".to_owned()),
        ("serial", "SN-1".to_owned()),
        ("applicant", applicant.to_string()),
        ("tenant", "acme".to_owned()),
        ("token", token),
        ("agent", "site-1".to_owned()),
        ("entity", "default".to_owned()),
        ("ca_server", "default".to_owned()),
        ("policy", "default".to_owned()),
        ("device", "ap-1".to_owned()),
        ("trustpoint", "mgmt".to_owned()),
        ("binding", "nowhere".to_owned()),
        ("job", job),
        ("certificate", certificate.to_string()),
        ("change", change.to_string()),
    ])
}

fn same(one: &Answer, other: &Answer, what: &str) {
    assert_eq!((one.status, &one.content_type, &one.text), (other.status, &other.content_type, &other.text), "{what}");
}

#[actix::test]
async fn another_tenants_objects_look_exactly_like_unknown_ones_on_every_route() {
    let house = House::open().await;
    house.tenant("acme").await;
    let [_, _, foreign] = house.tenant("other").await;
    let objects = objects(&house).await;
    let unknown: BTreeMap<&str, String> = objects
        .keys()
        .map(|kind| {
            let is_id = IDS.contains(kind);
            (*kind, if is_id { uuid::Uuid::nil().to_string() } else { "unknown".to_owned() })
        })
        .collect();
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/v1/tenants/{tenant}")) {
        let name = format!("{} {}", route.method, route.path);
        let body = || ["POST", "PUT"].contains(&route.method).then(|| json!({}));

        // The tenant itself, which is there, and one that is not.
        let seen = house.call(route.method, &fill(route.path, &objects), Some(&foreign), body()).await;
        let never = house.call(route.method, &fill(route.path, &unknown), Some(&foreign), body()).await;
        assert_eq!(seen.status, 404, "{name}: {}", seen.text);
        same(&seen, &never, &name);

        // Its objects, asked for in the own tenant.
        if route.path.matches('{').count() > 1 {
            let mut own_path = objects.clone();
            own_path.insert("tenant", "other".to_owned());
            let seen = house.call(route.method, &fill(route.path, &own_path), Some(&foreign), body()).await;
            let mut own_unknown = unknown.clone();
            own_unknown.insert("tenant", "other".to_owned());
            let never = house.call(route.method, &fill(route.path, &own_unknown), Some(&foreign), body()).await;
            assert_eq!(seen.status, 404, "{name}: {}", seen.text);
            same(&seen, &never, &name);
        }
    }
    // They were all there: their own tenant's administrator finds each of them.
    let (_, own) = house.token("acme", "admin").await;
    for route in ROUTES.iter().filter(|route| route.method == "GET" && route.path.starts_with("/v1/tenants/{tenant}")) {
        house.get(&fill(route.path, &objects), &own).await.expect(200);
    }
    house.close().await;
}

#[actix::test]
async fn foreign_lists_are_empty_and_foreign_names_no_reference() {
    let house = House::open().await;
    house.tenant("acme").await;
    let [_, _, other] = house.tenant("other").await;
    objects(&house).await;
    for list in ["agents", "entities", "ca-servers", "policies", "devices", "trustpoints", "jobs", "certificates"] {
        let answer = house.get(&format!("/v1/tenants/other/{list}"), &other).await.expect(200);
        assert_eq!(answer.body, json!({"items": [], "next": null}), "{list}");
    }
    let body = json!({"name": "ap-1", "agent": "site-1"});
    let answer = house.post("/v1/tenants/other/devices", &other, body).await.expect(422);
    assert_eq!(answer.violations(), ["agent unknown_reference"]);
    house.close().await;
}

#[actix::test]
async fn a_role_may_what_the_route_table_says_and_no_more() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    let mut objects = objects(&house).await;
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/v1/")) {
        let name = format!("{} {}", route.method, route.path);
        let needed = match route.access {
            Access::Tenant(role) => role,
            Access::Platform => Role::PlatformAdmin,
            Access::Public => panic!("{name} must not be open to all"),
        };
        if route.method != "GET" {
            assert!(needed >= Role::Operator, "{name}: a viewer must not write");
        }
        for (role, token) in [(Role::Viewer, &viewer), (Role::Operator, &operator), (Role::Admin, &admin)] {
            let path = fill(route.path, &objects);
            if role >= needed && route.method != "GET" {
                continue;
            }
            let answer = house.call(route.method, &path, Some(token), (route.method != "GET").then(|| json!({}))).await;
            let expected = if role >= needed { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{name} as {role}: {}", answer.text);
        }
        let answer = house.call(route.method, &fill(route.path, &objects), None, None).await;
        assert_eq!(answer.status, 401, "{name} without a token");
    }
    // What a role may do, it can.
    objects.insert("device", "ap-2".to_owned());
    house.post("/v1/tenants/acme/devices", &operator, json!({"name": "ap-2"})).await.expect(201);
    house.post("/v1/tenants/acme/entities", &admin, json!({"name": "e2", "subject": "CN=x"})).await.expect(201);
    house
        .call("DELETE", &fill("/v1/tenants/{tenant}/devices/{device}", &objects), Some(&operator), None)
        .await
        .expect(204);
    house.close().await;
}

#[actix::test]
async fn a_revoked_or_expired_token_opens_nothing() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let (id, token) = house.token("acme", "viewer").await;
    house.get("/v1/tenants/acme", &token).await.expect(200);
    house.call("DELETE", &format!("/v1/tenants/acme/tokens/{id}"), Some(&admin), None).await.expect(204);
    house.get("/v1/tenants/acme", &token).await.expect(401);
    house.call("DELETE", &format!("/v1/tenants/acme/tokens/{id}"), Some(&admin), None).await.expect(404);

    let (id, token) = house.token("acme", "viewer").await;
    let database = house.place.admin().await;
    let sql = "UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE token_id::text = $1";
    assert_eq!(database.execute(sql, &[&id]).await.unwrap(), 1);
    house.get("/v1/tenants/acme", &token).await.expect(401);

    let list = house.get("/v1/tenants/acme/tokens", &admin).await.expect(200);
    let items: Vec<Value> = list.body["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 5);
    assert!(items.iter().any(|item| !item["revoked_at"].is_null()));
    // Only hashes are stored.
    let stored: i64 = database
        .query_one("SELECT count(*) FROM api_tokens WHERE encode(token_hash, 'escape') LIKE '%tft1_%'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, 0);
    house.close().await;
}

#[actix::test]
async fn the_first_token_is_made_once_and_for_its_owner_alone() {
    let house = House::open().await;
    let mode = std::fs::metadata(&house.token_file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    ensure_first_token(house.services()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&house.token_file).unwrap().trim(), house.platform);
    let count: i64 = house.place.admin().await.query_one("SELECT count(*) FROM api_tokens", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    house.close().await;
}
