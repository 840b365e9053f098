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
