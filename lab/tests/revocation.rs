//! Certificates that are revoked at their CA by rr (RFC 9483 sections 4.2 and 5.3.2), with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{Fleet, TENANT},
    testkit::command,
};

const LIMIT: Duration = Duration::from_secs(60);
const AUTHORITY: &str = "/C=DE/O=Trustfleet Lab/CN=ra-1";

/// A device with a certificate in use, and the certificate's id.
async fn in_use(fleet: &Fleet, device: &str) -> String {
    fleet.add_device(device, device).unwrap();
    let trustpoint = fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
    trustpoint["active"]["id"].as_str().unwrap().to_owned()
}

fn revoke(fleet: &Fleet, id: &str, body: &Value) -> Result<Value, trustfleet_lab::house::RestError> {
    fleet.post(&format!("certificates/{id}/revoke"), body)
}

/// The certificate when its revocation has come so far.
async fn becomes(lab: &Lab, fleet: &Fleet, id: &str, state: &str) -> Value {
    lab.eventually(&format!("the revocation is {state}"), || {
        let certificate = fleet.get(&format!("certificates/{id}")).ok()?;
        (certificate["revocation"]["state"] == state).then_some(certificate)
    })
    .await
}

/// What the CA says of the certificate.
fn at_the_ca(lab: &Lab, fleet: &Fleet, serial: &Value) -> Value {
    lab.issued_by_ca(fleet).into_iter().find(|issued| &issued["serial"] == serial).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_has_its_own_certificate_revoked_and_nothing_is_built_on_it_any_more() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    let id = in_use(&fleet, "ap-1").await;

    let asked = revoke(&fleet, &id, &json!({ "reason": "superseded" })).unwrap();
    assert!(asked["revocation"]["job_id"].is_string(), "{asked}");
    let revoked = becomes(&lab, &fleet, &id, "revoked").await;
    assert!(revoked["revocation"]["ended_at"].is_string(), "{revoked}");
    let issued = at_the_ca(&lab, &fleet, &revoked["serial"]);
    assert_eq!((&issued["revoked"], &issued["reason"]), (&json!(true), &json!("superseded")), "{issued}");

    let trustpoint = fleet.trustpoint("ap-1").unwrap();
    assert_eq!((&trustpoint["status"], &trustpoint["next_action_at"]), (&json!("revoked"), &Value::Null));
    let job = fleet.get(&format!("jobs/{}", asked["revocation"]["job_id"].as_str().unwrap())).unwrap();
    assert_eq!((&job["kind"], &job["state"]), (&json!("revoke"), &json!("succeeded")));
    let refused = fleet.enroll("ap-1", "kur").unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains("revoked"), "{refused}");
    let again = revoke(&fleet, &id, &json!({ "reason": "superseded" })).unwrap_err().to_string();
    assert!(again.contains("409") && again.contains("already"), "{again}");
    let counted = fleet.get("devices/ap-1/trustpoints/default/statistics").unwrap();
    assert_eq!((&counted["requests"]["rr"], &counted["responses"]["rp"]), (&json!(1), &json!(1)), "{counted}");
    let transcript = fleet.get(&format!("jobs/{}/transcript", job["id"].as_str().unwrap())).unwrap().to_string();
    assert!(transcript.contains("\"rr\"") && transcript.contains("\"rp\""), "{transcript}");

    let anew = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    assert_eq!(anew["status"], "active");
    assert_eq!(anew["previous"]["revocation"]["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificates_of_a_stolen_agent_are_revoked_by_a_registration_authority_while_it_is_in_quarantine() {
    let lab = Lab::start().await;
    let fleet = Fleet::create_at(&lab.house, &["ra-1", "ap-1", "ap-2"], &policy(), &["--ra", AUTHORITY]).await.unwrap();
    let (_authority, _) = fleet.start_agent("ra-1").await.unwrap();
    let (_stolen, _) = fleet.start_agent("ap-1").await.unwrap();
    let (_other, _) = fleet.start_agent("ap-2").await.unwrap();
    in_use(&fleet, "ra-1").await;
    let (stolen, kept) = (in_use(&fleet, "ap-1").await, in_use(&fleet, "ap-2").await);

    // Without a registration authority there is nobody to ask, and the certificate says so.
    fleet.post("agents/ap-1/quarantine", &json!({ "reason": "stolen" })).unwrap();
    let refused = revoke(&fleet, &stolen, &json!({ "reason": "keyCompromise" })).unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains("registration authority"), "{refused}");
    fleet.post("agents/ap-1/revoke", &json!({ "reason": "keyCompromise" })).unwrap();
    let failed = becomes(&lab, &fleet, &stolen, "failed").await;
    assert!(failed["revocation"]["failure"]["message"].as_str().unwrap().contains("quarantine"), "{failed}");

    let mut server = fleet.get("ca-servers/default").unwrap();
    server["revocation"] = json!({ "by": "registration_authority", "device": "ra-1", "trustpoint": "default" });
    for made in ["id", "name", "revision", "created_at", "updated_at"] {
        server.as_object_mut().unwrap().remove(made);
    }
    fleet.rest.put(&fleet.path("ca-servers/default"), &server).unwrap();
    let mut shell = command("trustfleet").unwrap();
    shell.args(["agent", "quarantine", "ap-1", "--reason", "stolen", "--revoke", "keyCompromise"]);
    shell.env("TRUSTFLEET_URL", lab.house.platform.base().as_str()).env("TRUSTFLEET_TENANT", TENANT);
    let output = shell.env("TRUSTFLEET_TOKEN_FILE", &lab.house.files.first_token).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("certificate list --revocation"), "{said}");

    let revoked = becomes(&lab, &fleet, &stolen, "revoked").await;
    let issued = at_the_ca(&lab, &fleet, &revoked["serial"]);
    assert_eq!((&issued["revoked"], &issued["reason"]), (&json!(true), &json!("keyCompromise")), "{issued}");
    let job = revoked["revocation"]["job_id"].as_str().unwrap();
    assert_eq!(fleet.get(&format!("jobs/{job}")).unwrap()["agent"], "ra-1");
    let other = fleet.get(&format!("certificates/{kept}")).unwrap();
    assert_eq!(other["revocation"], Value::Null, "nobody else's");
    let audit = fleet.get("audit?limit=200").unwrap().to_string();
    for action in ["revocation_wanted", "revocation_failed", "revocation_requested", "certificate_revoked"] {
        assert!(audit.contains(action), "{action} is missing in the audit log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_waits_for_a_second_administrator_where_the_tenant_wants_four_eyes() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    let id = in_use(&fleet, "ap-1").await;
    let settings = json!({ "display_name": "lab", "allow_weak_algorithms": false, "four_eyes": true });
    lab.house.platform.put(fleet.path("").trim_end_matches('/'), &settings).unwrap();
    let change = revoke(&fleet, &id, &json!({ "reason": "keyCompromise" })).unwrap();
    assert_eq!((&change["state"], &change["operation"]), (&json!("pending"), &json!("certificate_revoke")), "{change}");
    let path = format!("changes/{}/approve", change["id"].as_str().unwrap());
    assert!(fleet.post(&path, &json!({})).unwrap_err().to_string().contains("403"), "nobody approves his own");
    assert_eq!(fleet.get(&format!("certificates/{id}")).unwrap()["revocation"], Value::Null);

    lab.house.platform.post(&fleet.path(&path), &json!({})).unwrap();
    let revoked = becomes(&lab, &fleet, &id, "revoked").await;
    assert_eq!(at_the_ca(&lab, &fleet, &revoked["serial"])["reason"], "keyCompromise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_binding_revokes_what_its_trustpoints_have_where_that_is_said_and_leaves_them() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    let kept = in_use(&fleet, "ap-1").await;
    let device = fleet.get("devices/ap-1").unwrap();
    let labelled = json!({ "agent": device["agent"], "labels": { "site": "berlin" } });
    fleet.rest.put(&fleet.path("devices/ap-1"), &labelled).unwrap();
    let binding = json!({
        "name": "berlin", "selector": { "site": "berlin" }, "trustpoint": "web", "entity": "default",
        "ca_server": "default", "policy": "default", "enroll": true,
    });
    fleet.post("bindings", &binding).unwrap();
    let web = |fleet: &Fleet| fleet.get("devices/ap-1/trustpoints/web").ok();
    lab.eventually("the binding has brought its trustpoint", || web(&fleet)).await;
    let mac = json!({ "reference": "ref-ap-1", "secret": "secret-ap-1" });
    fleet.rest.put(&fleet.path("devices/ap-1/trustpoints/web/mac"), &mac).unwrap();
    let id = lab
        .eventually("it has a certificate", || {
            let web = web(&fleet)?;
            [&web["active"], &web["staged"]].into_iter().find_map(|held| held["id"].as_str().map(str::to_owned))
        })
        .await;
    let touched = fleet.get("bindings/berlin/removal").unwrap();
    assert_eq!((&touched["trustpoints"], &touched["to_revoke"]), (&json!(1), &json!(1)), "{touched}");

    let gone = fleet.path("bindings/berlin?certificates=revoke");
    let left = fleet.rest.send("DELETE", &gone, &[], None).unwrap();
    assert_eq!(left.status, 202, "{}", left.body);
    let revoked = becomes(&lab, &fleet, &id, "revoked").await;
    let issued = at_the_ca(&lab, &fleet, &revoked["serial"]);
    assert_eq!((&issued["revoked"], &issued["reason"]), (&json!(true), &json!("cessationOfOperation")), "{issued}");
    lab.eventually("the binding is gone", || fleet.get("bindings/berlin").is_err().then_some(())).await;
    assert_eq!(web(&fleet).unwrap()["binding_id"], Value::Null, "its trustpoint stays");
    let other = fleet.get(&format!("certificates/{kept}")).unwrap();
    assert_eq!(other["revocation"], Value::Null, "nothing else is revoked");
}
