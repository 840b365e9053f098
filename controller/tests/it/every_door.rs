//! Every operation of the served OpenAPI document against everybody who must not get in: an operation that is in no case
//! here fails the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trustfleet_controller::api::access::Role;

use crate::api_access::{IDS, fill, objects};
use crate::api_house::{Answer, House};

/// Operations without a token, and what whoever shows nothing gets from them. Those of agents have all their cases in
/// `agents_doors`.
const PUBLIC: [(&str, u16); 8] = [
    ("agent_join", 422),
    ("agent_announce", 422),
    ("agent_challenge", 422),
    ("agent_session", 422),
    ("healthz", 200),
    ("readyz", 200),
    ("metrics", 200),
    ("openapi", 200),
];
/// What is done in a suspended tenant all the same: to keep somebody out.
const GOES_ON: [&str; 3] = ["token_delete", "blocked_subject_create", "agent_quarantine"];

/// One operation of the document.
#[derive(Clone, Debug)]
struct Operation {
    id: String,
    method: String,
    path: String,
    role: Option<Role>,
    scope: String,
    has_body: bool,
}

impl Operation {
    fn is_of_a_tenant(&self) -> bool {
        self.path.contains("{tenant}")
    }

    fn writes(&self) -> bool {
        self.method != "GET"
    }
}

/// What the controller serves, as it serves it.
async fn operations(house: &House) -> Vec<Operation> {
    let document = house.call("GET", "/openapi.json", None, None).await.expect(200).body;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let text = |key: &str| operation[key].as_str().unwrap_or_default().to_owned();
            let secured = operation["security"] != json!([]);
            let role = Role::from_word(&text("x-role"));
            assert_eq!(role.is_some(), secured, "{method} {path} says who may use it");
            found.push(Operation {
                id: text("operationId"),
                method: method.to_ascii_uppercase(),
                path: path.clone(),
                role,
                scope: text("x-scope"),
                has_body: operation.get("requestBody").is_some(),
            });
        }
    }
    assert!(found.len() > 50, "only {} operations are served", found.len());
    found
}

/// Two tenants, one of each kind of object in `acme`, and every kind of credential.
struct Doors {
    house: House,
    operations: Vec<Operation>,
    objects: BTreeMap<&'static str, String>,
    /// By role, of `acme`.
    tokens: BTreeMap<Role, String>,
    /// An administrator of `other`.
    foreign: String,
}

impl Doors {
    async fn open() -> Self {
        let house = House::open().await;
        let [viewer, operator, admin] = house.tenant("acme").await;
        let [_, _, foreign] = house.tenant("other").await;
        let objects = objects(&house).await;
        let operations = operations(&house).await;
        let platform = house.platform.clone();
        let tokens = BTreeMap::from([
            (Role::Viewer, viewer),
            (Role::Operator, operator),
            (Role::Admin, admin),
            (Role::PlatformAdmin, platform),
        ]);
        Self { house, operations, objects, tokens, foreign }
    }

    /// Operations that need a token.
    fn secured(&self) -> impl Iterator<Item = (&Operation, Role)> {
        self.operations.iter().filter_map(|operation| Some((operation, operation.role?)))
    }

    /// Names and ids that nothing has, in this tenant.
    fn unknown(&self, tenant: &str) -> BTreeMap<&'static str, String> {
        let name = |kind: &&'static str| {
            let unknown = if IDS.contains(kind) { uuid::Uuid::nil().to_string() } else { "unknown".to_owned() };
            (*kind, if *kind == "tenant" { tenant.to_owned() } else { unknown })
        };
        self.objects.keys().map(name).collect()
    }

    /// The operation on these objects, with a body that is nothing at all: who is not let in must not learn what is wrong
    /// with it.
    async fn ask(&self, operation: &Operation, values: &BTreeMap<&str, String>, token: Option<&str>) -> Answer {
        let body = operation.has_body.then(|| json!({"nonsense": true}));
        self.house.call(&operation.method, &fill(&operation.path, values), token, body).await
    }

    async fn scoped(&self, role: Role, scope: &str) -> String {
        let (path, body) = match role {
            Role::PlatformAdmin => ("/v1/tokens", json!({"description": "scoped", "scopes": [scope]})),
            role => {
                let body = json!({"role": role.as_str(), "description": "scoped", "scopes": [scope]});
                ("/v1/tenants/acme/tokens", body)
            }
        };
        self.house.post(path, &self.house.platform, body).await.expect(201).str("/token").to_owned()
    }
}

fn same(one: &Answer, other: &Answer, what: &str) {
    assert_eq!((one.status, &one.content_type, &one.text), (other.status, &other.content_type, &other.text), "{what}");
}

#[actix::test]
async fn every_operation_refuses_no_credential_a_wrong_one_an_expired_one_and_a_revoked_one() {
    let doors = Doors::open().await;
    let house = &doors.house;
    let database = house.place.admin().await;
    let mut gone = Vec::new();
    for (column, role) in [("expires_at", "admin"), ("revoked_at", "admin")] {
        let (id, token) = house.token("acme", role).await;
        let sql = format!("UPDATE api_tokens SET {column} = now() - interval '1 second' WHERE token_id::text = $1");
        assert_eq!(database.execute(&sql, &[&id]).await.unwrap(), 1);
        gone.push((column, token));
    }
    let invented = format!("tft1_{}", "A".repeat(43));
    for (operation, _) in doors.secured() {
        let shown = |token: Option<String>, what: &'static str| (what, token);
        let mut attempts = vec![shown(None, "no credential"), shown(Some(invented.clone()), "an invented one")];
        attempts.extend(gone.iter().map(|(what, token)| shown(Some(token.clone()), what)));
        for (what, token) in attempts {
            let answer = doors.ask(operation, &doors.objects, token.as_deref()).await;
            assert_eq!(answer.status, 401, "{} with {what}: {}", operation.id, answer.text);
            assert!(answer.headers.contains_key("www-authenticate"), "{}", operation.id);
        }
    }
    let public: BTreeSet<&str> =
        doors.operations.iter().filter(|one| one.role.is_none()).map(|one| one.id.as_str()).collect();
    assert_eq!(public, PUBLIC.map(|(id, _)| id).into(), "operations without a token have their case in PUBLIC");
    for operation in doors.operations.iter().filter(|operation| operation.role.is_none()) {
        let expected = PUBLIC.iter().find(|(id, _)| *id == operation.id).unwrap().1;
        let answer = doors.ask(operation, &doors.objects, None).await;
        assert_eq!(answer.status, expected, "{}: {}", operation.id, answer.text);
    }
    doors.house.close().await;
}

#[actix::test]
async fn every_operation_answers_another_tenants_administrator_as_if_there_were_nothing() {
    let doors = Doors::open().await;
    for (operation, _) in doors.secured() {
        let name = &operation.id;
        if !operation.is_of_a_tenant() {
            let answer = doors.ask(operation, &doors.objects, Some(&doors.foreign)).await;
            assert_eq!(answer.status, 403, "{name}: {}", answer.text);
            continue;
        }
        let seen = doors.ask(operation, &doors.objects, Some(&doors.foreign)).await;
        let never = doors.ask(operation, &doors.unknown("unknown"), Some(&doors.foreign)).await;
        assert_eq!(seen.status, 404, "{name}: {}", seen.text);
        same(&seen, &never, name);
        // Objects of the other tenant, asked for in the own one.
        if operation.path.matches('{').count() > 1 {
            let mut own = doors.objects.clone();
            own.insert("tenant", "other".to_owned());
            let seen = doors.ask(operation, &own, Some(&doors.foreign)).await;
            let never = doors.ask(operation, &doors.unknown("other"), Some(&doors.foreign)).await;
            assert_eq!(seen.status, 404, "{name}: {}", seen.text);
            same(&seen, &never, name);
        }
    }
    doors.house.close().await;
}

#[actix::test]
async fn every_operation_refuses_too_low_a_role_and_a_missing_scope_before_it_looks_at_anything_else() {
    let doors = Doors::open().await;
    let mut scoped = BTreeMap::new();
    for (operation, needed) in doors.secured() {
        let name = &operation.id;
        for (role, token) in doors.tokens.iter().filter(|(role, _)| **role < needed) {
            for values in [&doors.objects, &doors.unknown("acme")] {
                let answer = doors.ask(operation, values, Some(token)).await;
                assert_eq!((answer.status, answer.str("/code")), (403, "forbidden"), "{name} as {role}");
            }
        }
        // The right role, and the scope of something else.
        let other = if operation.scope.starts_with("jobs:") { "policies:write" } else { "jobs:write" };
        for (scope, is_right) in [(other, false), (operation.scope.as_str(), true)] {
            let key = (needed, scope.to_owned());
            let token = match scoped.get(&key) {
                Some(token) => String::clone(token),
                None => {
                    let token = doors.scoped(needed, scope).await;
                    scoped.insert(key, token.clone());
                    token
                }
            };
            // What a platform administrator may do would be done: to nobody.
            let is_done = is_right && needed == Role::PlatformAdmin;
            let values = doors.unknown(if is_done { "unknown" } else { "acme" });
            let answer = doors.ask(operation, &values, Some(&token)).await;
            if is_right {
                assert!(![401, 403].contains(&answer.status), "{name} with {scope}: {}", answer.text);
            } else {
                assert_eq!((answer.status, answer.str("/code")), (403, "missing_scope"), "{name} with {scope}");
            }
        }
        if operation.writes() && operation.scope.ends_with(":write") {
            let reads = doors.scoped(needed, &operation.scope.replace(":write", ":read")).await;
            let answer = doors.ask(operation, &doors.unknown("acme"), Some(&reads)).await;
            assert_eq!(answer.status, 403, "{name} with a scope for reading");
        }
    }
    doors.house.close().await;
}

#[actix::test]
async fn every_operation_that_changes_something_is_refused_in_a_suspended_tenant_and_every_other_one_works() {
    let doors = Doors::open().await;
    let reason = json!({"reason": "test"});
    doors.house.post("/v1/tenants/acme/suspend", &doors.house.platform, reason).await.expect(200);
    for (operation, needed) in doors.secured().filter(|(operation, _)| operation.is_of_a_tenant()) {
        let name = &operation.id;
        if needed == Role::PlatformAdmin {
            // These are how a tenant's life goes on; their own tests say what they do.
            continue;
        }
        for token in [&doors.tokens[&Role::Admin], &doors.house.platform] {
            let values = if GOES_ON.contains(&name.as_str()) { &doors.unknown("acme") } else { &doors.objects };
            let answer = doors.ask(operation, values, Some(token)).await;
            if GOES_ON.contains(&name.as_str()) {
                // Nobody of that name is there, or the body is nonsense: it was looked at.
                assert!([404, 422].contains(&answer.status), "{name} goes on: {}", answer.text);
            } else if operation.writes() {
                assert_eq!((answer.status, answer.str("/code")), (409, "tenant_suspended"), "{name}");
            } else {
                assert_eq!(answer.status, 200, "{name}: {}", answer.text);
            }
        }
    }
    // Deleted, it is gone for everybody but the platform.
    doors.house.call("DELETE", "/v1/tenants/acme", Some(&doors.house.platform), None).await.expect(200);
    for (operation, _) in doors.secured().filter(|(operation, _)| operation.is_of_a_tenant()) {
        let answer = doors.ask(operation, &doors.objects, Some(&doors.tokens[&Role::Admin])).await;
        assert_eq!(answer.status, 401, "{}: {}", operation.id, answer.text);
    }
    doors.house.close().await;
}

/// A product once checked the tenant when a certificate was asked for, and not when it was renewed or revoked.
#[actix::test]
async fn a_renewal_is_held_to_the_same_checks_as_the_first_enrolment() {
    let doors = Doors::open().await;
    let house = &doors.house;
    let enroll = fill("/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}/enroll", &doors.objects);
    let own = enroll.replace("acme", "other");
    let narrow = doors.scoped(Role::Operator, "devices:write").await;
    let statuses = async |request: &str| -> Vec<(u16, Value)> {
        let mut found = Vec::new();
        for (path, token) in [
            (&enroll, None),
            (&enroll, Some(&doors.foreign)),
            (&own, Some(&doors.foreign)),
            (&enroll, Some(&doors.tokens[&Role::Viewer])),
            (&enroll, Some(&narrow)),
        ] {
            let answer = house.call("POST", path, token.map(String::as_str), Some(json!({"request": request}))).await;
            found.push((answer.status, answer.body["code"].clone()));
        }
        found
    };
    let first = statuses("ir").await;
    assert_eq!(first.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [401, 404, 404, 403, 403]);
    for request in ["cr", "kur", "rr", "p10cr"] {
        assert_eq!(statuses(request).await, first, "{request}");
    }
    doors.house.close().await;
}
