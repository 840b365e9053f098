//! Bindings: trustpoints by label, also for devices that come later.

use serde_json::{Value, json};

use crate::{api_house::House, support::until};

const BINDINGS: &str = "/v1/tenants/acme/bindings";

async fn binding(house: &House, admin: &str, more: Value) -> crate::api_house::Answer {
    let mut body = json!({
        "name": "berlin", "selector": {"site": "berlin"}, "trustpoint": "dot1x", "entity": "default",
        "ca_server": "default", "policy": "default"
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    house.post(BINDINGS, admin, body).await
}

async fn bound(house: &House, token: &str, device: &str) -> Value {
    let path = format!("/v1/tenants/acme/devices/{device}/trustpoints/dot1x");
    until(&format!("{device} has its trustpoint"), async || {
        let answer = house.get(&path, token).await;
        (answer.status == 200).then_some(answer.body)
    })
    .await
}

#[actix::test]
async fn s51_a_binding_gives_its_trustpoint_to_the_devices_with_its_labels_also_to_those_that_come_later() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let device = async |name: &str, site: &str| {
        let body = json!({"name": name, "agent": "site-1", "labels": {"site": site}});
        house.post("/v1/tenants/acme/devices", &operator, body).await.expect(201);
    };
    device("ap-2", "hamburg").await;

    let made = binding(&house, &admin, json!({})).await.expect(201);
    assert_eq!((&made.body["devices"], &made.body["name_taken"]), (&json!(1), &json!(0)), "{}", made.text);
    let trustpoint = bound(&house, &viewer, "ap-1").await;
    assert_eq!((&trustpoint["binding_id"], &trustpoint["policy"]), (&made.body["id"], &json!("default")));
    device("ap-3", "berlin").await;
    bound(&house, &viewer, "ap-3").await;
    let moved = json!({"agent": "site-1", "labels": {"site": "berlin"}});
    house.call("PUT", "/v1/tenants/acme/devices/ap-2", Some(&operator), Some(moved)).await.expect(200);
    bound(&house, &viewer, "ap-2").await;

    let shown = house.get(&format!("{BINDINGS}/berlin"), &viewer).await.expect(200);
    assert_eq!((&shown.body["trustpoints"], &shown.body["active"]), (&json!(3), &json!(0)), "{}", shown.text);
    // What it uses cannot go; another tenant does not see it.
    house.call("DELETE", "/v1/tenants/acme/policies/default", Some(&admin), None).await.expect(409);
    let [_, _, other] = house.tenant("other").await;
    house.get(&format!("{BINDINGS}/berlin"), &other).await.expect(404);
    house.close().await;
}

#[actix::test]
async fn removing_a_binding_says_beforehand_what_becomes_of_its_trustpoints_and_does_that() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    for leaving in ["keep", "delete"] {
        binding(&house, &admin, json!({})).await.expect(201);
        bound(&house, &viewer, "ap-1").await;
        let path = format!("{BINDINGS}/berlin");
        let unsaid = house.call("DELETE", &path, Some(&admin), None).await.expect(422);
        assert_eq!(unsaid.violations(), ["certificates choice"]);
        let left =
            house.call("DELETE", &format!("{path}?certificates={leaving}"), Some(&admin), None).await.expect(202);
        assert_eq!((left.str("/leaving"), &left.body["trustpoints"]), (leaving, &json!(1)), "{}", left.text);
        until("the binding is gone", async || (house.get(&path, &viewer).await.status == 404).then_some(())).await;
        let trustpoint = house.get("/v1/tenants/acme/devices/ap-1/trustpoints/dot1x", &viewer).await;
        if leaving == "keep" {
            assert_eq!(trustpoint.expect(200).body["binding_id"], Value::Null);
            let path = "/v1/tenants/acme/devices/ap-1/trustpoints/dot1x";
            house.call("DELETE", path, Some(&admin), None).await.expect(204);
        } else {
            trustpoint.expect(404);
        }
    }
    let log = house.get("/v1/tenants/acme/audit?limit=1000", &viewer).await.expect(200).text;
    for action in ["binding_created", "binding_leaves", "trustpoint_unbound", "binding_deleted"] {
        assert!(log.contains(action), "{action} is not in the audit log");
    }
    house.close().await;
}

#[actix::test]
async fn everything_wrong_with_a_binding_is_told_at_once_and_a_taken_name_is_counted() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let wrong = json!({"name": "a b", "selector": {}, "trustpoint": "x".repeat(33), "policy": "nobody"});
    let refused = binding(&house, &admin, wrong).await.expect(422);
    assert_eq!(refused.violations(), ["name S1", "trustpoint S17", "selector selector", "policy unknown_reference"]);
    let spare = json!({"name": "spare", "key": {"algorithm": "ecdsa-p256"}});
    house.post("/v1/tenants/acme/policies", &admin, spare).await.expect(201);
    let taken = binding(&house, &admin, json!({"trustpoint": "mgmt", "policy": "spare"})).await.expect(201);
    assert_eq!((&taken.body["devices"], &taken.body["name_taken"]), (&json!(1), &json!(1)), "{}", taken.text);
    let used = house.call("DELETE", "/v1/tenants/acme/policies/spare", Some(&admin), None).await.expect(409);
    assert_eq!(used.str("/code"), "in_use");
    house.close().await;
}

#[actix::test]
async fn a_bound_trustpoint_asks_for_its_first_certificate_when_it_has_its_secret() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    binding(&house, &admin, json!({"enroll": true})).await.expect(201);
    bound(&house, &viewer, "ap-1").await;
    let jobs = async || {
        house.get("/v1/tenants/acme/jobs", &viewer).await.expect(200).body["items"].as_array().unwrap().clone()
    };
    assert!(jobs().await.is_empty(), "asked without a secret");
    let mac = json!({"reference": "ref-2", "secret": "secret-2"});
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/dot1x/mac";
    house.call("PUT", path, Some(&operator), Some(mac)).await.expect(200);
    let job = until("it is asked for", async || jobs().await.first().cloned()).await;
    assert_eq!(
        (&job["kind"], &job["trustpoint"], &job["requested_by"]),
        (&json!("ir"), &json!("dot1x"), &json!("controller"))
    );
    house.close().await;
}

#[actix::test]
async fn s47_a_standby_is_refused_and_asks_by_itself_after_the_switch_over() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let devices = "/v1/tenants/acme/devices";
    let node = |name: &str, standby: bool| json!({"name": name, "agent": "site-1", "pair": "gw", "standby": standby});
    house.post(devices, &operator, node("gw-a", false)).await.expect(201);
    let second = house.post(devices, &operator, node("gw-b", false)).await.expect(409);
    assert!(second.str("/code") == "pair_has_active" && second.str("/detail").contains("gw-a"), "{}", second.text);
    let alone = json!({"name": "gw-c", "agent": "site-1", "standby": true});
    assert_eq!(house.post(devices, &operator, alone).await.expect(422).violations(), ["standby S47"]);
    house.post(devices, &operator, node("gw-b", true)).await.expect(201);

    let trustpoint = json!({"name": "ike", "entity": "default", "ca_server": "default", "policy": "default",
                            "mac": {"reference": "gw", "secret": "gw-secret"}});
    for name in ["gw-a", "gw-b"] {
        house.post(&format!("{devices}/{name}/trustpoints"), &operator, trustpoint.clone()).await.expect(201);
    }
    let enroll = format!("{devices}/gw-b/trustpoints/ike/enroll");
    let refused = house.post(&enroll, &operator, json!({"request": "ir"})).await.expect(422);
    assert_eq!(refused.violations(), ["device.standby S47"]);
    let kinds = async |device: &str| {
        let jobs = house.get(&format!("/v1/tenants/acme/jobs?device={device}"), &viewer).await.expect(200);
        jobs.body["items"].as_array().unwrap().iter().map(|job| job["kind"].clone()).collect::<Vec<_>>()
    };
    until("the active node asks by itself", async || (kinds("gw-a").await == ["ir"]).then_some(())).await;
    assert!(kinds("gw-b").await.is_empty());

    house.post(&format!("{devices}/ap-1/switch-over"), &operator, json!({})).await.expect(409);
    house.post(&format!("{devices}/gw-b/switch-over"), &viewer, json!({})).await.expect(403);
    let active = house.post(&format!("{devices}/gw-b/switch-over"), &operator, json!({})).await.expect(200);
    assert_eq!(active.body["standby"], false);
    assert_eq!(house.get(&format!("{devices}/gw-a"), &viewer).await.expect(200).body["standby"], true);
    until("the new active node asks by itself", async || (kinds("gw-b").await == ["ir"]).then_some(())).await;
    let log = house.get("/v1/tenants/acme/audit?limit=1000", &admin).await.expect(200).text;
    assert!(log.contains("device_switched_over"), "{log}");
    house.close().await;
}

#[actix::test]
async fn a_binding_stops_at_the_tenants_quota_holds_up_no_other_tenant_and_goes_on_when_there_is_room() {
    let house = House::open().await;
    let [viewer, _, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let quota = "/v1/tenants/acme/quota";
    let set =
        async |most: u32| house.call("PUT", quota, Some(&house.platform), Some(json!({"trustpoints": most}))).await;
    set(1).await.expect(200);
    binding(&house, &admin, json!({})).await.expect(201);

    let [other, _, other_admin] = house.tenant("other").await;
    house.furnish("other", "s").await;
    let body = json!({"name": "berlin", "selector": {"site": "berlin"}, "trustpoint": "dot1x", "entity": "default",
                      "ca_server": "default", "policy": "default"});
    house.post("/v1/tenants/other/bindings", &other_admin, body).await.expect(201);
    let path = "/v1/tenants/other/devices/ap-1/trustpoints/dot1x";
    until("the other tenant's device is bound", async || (house.get(path, &other).await.status == 200).then_some(()))
        .await;
    let shown = house.get(&format!("{BINDINGS}/berlin"), &viewer).await.expect(200);
    assert_eq!((&shown.body["devices"], &shown.body["trustpoints"]), (&json!(1), &json!(0)), "{}", shown.text);

    set(2).await.expect(200);
    bound(&house, &viewer, "ap-1").await;
    house.close().await;
}

async fn shown(house: &House, token: &str) -> Value {
    house.get(&format!("{BINDINGS}/berlin"), token).await.expect(200).body
}

/// What a binding can be changed to, beginning with what it is.
fn changed_to(binding: &Value, more: &Value) -> Value {
    let mut body = json!({});
    for field in ["selector", "entity", "ca_server", "policy", "services", "enroll"] {
        body[field] = binding[field].clone();
    }
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[actix::test]
async fn s51_the_trustpoints_of_a_changed_binding_follow_it_when_nothing_is_under_way_and_a_dry_run_says_so_before() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let spare = json!({"name": "spare", "key": {"algorithm": "ecdsa-p384"}});
    house.post("/v1/tenants/acme/policies", &admin, spare).await.expect(201);
    for name in ["ap-2", "ap-3"] {
        let body = json!({"name": name, "agent": "site-1", "labels": {"site": "berlin"}});
        house.post("/v1/tenants/acme/devices", &operator, body).await.expect(201);
    }
    let made = binding(&house, &admin, json!({"services": ["web"]})).await.expect(201);
    assert_eq!((&made.body["revision"], &made.body["behind"]), (&json!(1), &json!(0)), "{}", made.text);
    for device in ["ap-1", "ap-2", "ap-3"] {
        assert_eq!(bound(&house, &viewer, device).await["services"], json!(["web"]));
    }
    // One has something under way, one gets another service that takes the place of the new one.
    let at = |device: &str, what: &str| format!("/v1/tenants/acme/devices/{device}/trustpoints/{what}");
    let mac = json!({"reference": "ref-2", "secret": "secret-2"});
    house.call("PUT", &at("ap-2", "dot1x/mac"), Some(&operator), Some(mac)).await.expect(200);
    let job = house.post(&at("ap-2", "dot1x/enroll"), &operator, json!({"request": "ir"})).await.expect(202);
    let other =
        json!({"name": "mail", "entity": "default", "ca_server": "default", "policy": "default", "services": ["imap"]});
    house.post("/v1/tenants/acme/devices/ap-3/trustpoints", &operator, other).await.expect(201);

    let wanted = changed_to(
        &made.body,
        &json!({"selector": {"site": "berlin"}, "policy": "spare", "services": ["imap", "web"]}),
    );
    let dry = house.post(&format!("{BINDINGS}/berlin/dry-run"), &operator, wanted.clone()).await.expect(200);
    assert_eq!((&dry.body["before"]["policy"], &dry.body["after"]["policy"]), (&json!("default"), &json!("spare")));
    assert_eq!(dry.body["after"].get("selector"), None, "what stays is not told: {}", dry.text);
    for (field, number) in [
        ("devices", 3),
        ("gain", 0),
        ("name_taken", 0),
        ("service_taken", 1),
        ("follow", 3),
        ("left_behind", 0),
        ("to_enroll_anew", 0),
    ] {
        assert_eq!(dry.body[field], number, "{field}: {}", dry.text);
    }
    assert_eq!(shown(&house, &viewer).await["policy"], "default", "nothing is changed");

    let path = format!("{BINDINGS}/berlin");
    let put = async |revision: u32, body: Value| {
        let if_match = format!("\"{revision}\"");
        house.raw("PUT", &path, Some(&admin), &[("if-match", &if_match)], Some(body.to_string().into_bytes())).await
    };
    assert_eq!(put(7, wanted.clone()).await.expect(412).str("/code"), "precondition_failed");
    let changed = put(1, wanted.clone()).await.expect(200);
    assert_eq!((&changed.body["revision"], &changed.body["service_taken"]), (&json!(2), &json!(1)), "{}", changed.text);
    assert_eq!(put(1, wanted).await.expect(412).body["code"], "precondition_failed");
    let policy = async |device: &str| house.get(&at(device, "dot1x"), &viewer).await.expect(200).body["policy"].clone();
    until("the first one follows", async || (policy("ap-1").await == "spare").then_some(())).await;
    assert_eq!(house.get(&at("ap-1", "dot1x"), &viewer).await.body["services"], json!(["imap", "web"]));
    assert_eq!((policy("ap-2").await, policy("ap-3").await), (json!("default"), json!("default")));
    assert_eq!(shown(&house, &viewer).await["behind"], 2);

    let stop = format!("/v1/tenants/acme/jobs/{}/stop", job.str("/id"));
    house.call("POST", &stop, Some(&operator), None).await;
    until("the second one follows", async || (policy("ap-2").await == "spare").then_some(())).await;
    let none = json!({"services": []});
    house.call("PUT", &at("ap-3", "mail/services"), Some(&operator), Some(none)).await.expect(200);
    until("the third one follows", async || (policy("ap-3").await == "spare").then_some(())).await;
    assert_eq!(shown(&house, &viewer).await["behind"], 0);
    let log = house.get("/v1/tenants/acme/audit?limit=1000", &viewer).await.expect(200).text;
    assert!(log.contains("binding_updated") && log.contains("trustpoint_rebound"), "{log}");
    house.close().await;
}

#[actix::test]
async fn a_change_of_a_binding_names_everything_that_is_wrong_and_one_that_leaves_is_changed_no_more() {
    let house = House::open().await;
    let [_, operator, admin] = house.tenant("acme").await;
    house.furnish("acme", "s").await;
    let made = binding(&house, &admin, json!({})).await.expect(201);
    let path = format!("{BINDINGS}/berlin");
    let wrong = changed_to(&made.body, &json!({"selector": {}, "services": ["a b"], "entity": "nobody"}));
    for (method, path, token) in [("PUT", path.clone(), &admin), ("POST", format!("{path}/dry-run"), &operator)] {
        let refused = house.call(method, &path, Some(token), Some(wrong.clone())).await.expect(422);
        assert_eq!(
            refused.violations(),
            ["selector selector", "services[0] S1", "entity unknown_reference"],
            "{method}"
        );
    }
    house.call("PUT", &path, Some(&operator), Some(changed_to(&made.body, &json!({})))).await.expect(403);
    house.place.admin().await.execute("UPDATE bindings SET leaving = 'keep'", &[]).await.unwrap();
    let late = house.call("PUT", &path, Some(&admin), Some(changed_to(&made.body, &json!({})))).await;
    // The binder may have taken it away meanwhile.
    assert!([404, 409].contains(&late.status), "{}", late.text);
    house.close().await;
}

#[actix::test]
async fn what_removing_a_binding_would_touch_is_told_before_and_one_that_revokes_takes_two_where_four_eyes_are_wanted()
{
    let house = House::open().await;
    let body = json!({"name": "acme", "four_eyes": true});
    house.post("/v1/tenants", &house.platform, body).await.expect(201);
    let (one, two) = (house.token("acme", "admin").await.1, house.token("acme", "admin").await.1);
    let settings = |four_eyes| json!({"display_name": "x", "allow_weak_algorithms": false, "four_eyes": four_eyes});
    let tenant = "/v1/tenants/acme";
    house.call("PUT", tenant, Some(&house.platform), Some(settings(false))).await.expect(200);
    house.furnish("acme", "s").await;
    house.call("PUT", tenant, Some(&house.platform), Some(settings(true))).await.expect(200);
    binding(&house, &one, json!({})).await.expect(201);
    bound(&house, &one, "ap-1").await;
    let mac = json!({"reference": "ref-2", "secret": "secret-2"});
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/dot1x/mac";
    house.call("PUT", path, Some(&one), Some(mac)).await.expect(200);
    let touched = house.get(&format!("{BINDINGS}/berlin/removal"), &one).await.expect(200);
    let told = json!({"trustpoints": 1, "under_way": 0, "in_use": 0, "staged": 0, "to_revoke": 0, "secrets": 1});
    assert_eq!(touched.body, told);

    let gone = format!("{BINDINGS}/berlin?certificates=revoke");
    let change = house.call("DELETE", &gone, Some(&one), None).await.expect(202);
    assert_eq!((change.str("/state"), change.str("/operation")), ("pending", "binding_delete"));
    assert_eq!(shown(&house, &one).await["leaving"], Value::Null);
    let approve = format!("/v1/tenants/acme/changes/{}/approve", change.str("/id"));
    assert_eq!(house.call("POST", &approve, Some(&one), None).await.expect(403).str("/code"), "own_change");
    house.call("POST", &approve, Some(&two), None).await.expect(200);
    let path = format!("{BINDINGS}/berlin");
    until("the binding is gone", async || (house.get(&path, &one).await.status == 404).then_some(())).await;
    let left = house.get("/v1/tenants/acme/devices/ap-1/trustpoints/dot1x", &one).await.expect(200);
    assert_eq!(left.body["binding_id"], Value::Null);
    // Without revocation one administrator is enough.
    binding(&house, &one, json!({"trustpoint": "other"})).await.expect(201);
    let kept =
        house.call("DELETE", &format!("{BINDINGS}/berlin?certificates=keep"), Some(&one), None).await.expect(202);
    assert_eq!(kept.str("/leaving"), "keep");
    house.close().await;
}
