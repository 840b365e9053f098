//! Certificates that are renewed by themselves, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::house::Fleet;

const LIMIT: Duration = Duration::from_secs(60);

/// Renewed within seconds, from certificates that are valid for two minutes.
async fn soon(lab: &Lab, policy: &Value) -> Fleet {
    Fleet::create_at(&lab.house, &["ap-1"], policy, &["--validity-seconds", "120"]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s31_s34_s44_a_certificate_is_renewed_by_itself_with_a_new_key_and_takes_effect_although_requests_by_hand_wait_for_a_command()
 {
    let lab = Lab::start().await;
    let mut by_itself = policy();
    by_itself["activation"] = json!("router");
    by_itself["auto_update"] = json!({ "enabled": true, "elapsed_percent": 1, "latest_percent": 5 });
    let fleet = soon(&lab, &by_itself).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();

    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded");
    let staged = fleet.trustpoint("ap-1").unwrap();
    assert_eq!((&staged["status"], &staged["next_action_at"]), (&json!("staged"), &Value::Null), "{staged}");

    let job = fleet.post("devices/ap-1/trustpoints/default/activate", &json!({})).unwrap();
    let first = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    let second = lab
        .eventually("the certificate is renewed", || {
            let trustpoint = fleet.trustpoint("ap-1").ok()?;
            (trustpoint["active"]["serial"] != first["active"]["serial"]).then_some(trustpoint)
        })
        .await;
    assert_eq!(second["previous"]["serial"], first["active"]["serial"]);
    assert_ne!(second["active"]["public_key_sha256"], first["active"]["public_key_sha256"]);
    assert_eq!(second["policy_revision"], 1);
    let jobs = fleet.get("jobs").unwrap();
    let renewal = jobs["items"].as_array().unwrap().iter().find(|job| job["kind"] == "kur").unwrap();
    assert_eq!(renewal["requested_by"], "controller");

    // Undone on the trustpoint, whatever the policy says (S41).
    let off = json!({ "enabled": false });
    let path = fleet.path("devices/ap-1/trustpoints/default/auto-update");
    fleet.rest.put(&path, &off).unwrap();
    lab.eventually("nothing is planned any more", || {
        let trustpoint = fleet.trustpoint("ap-1").ok()?;
        (trustpoint["next_action_at"].is_null() && trustpoint["request"]["awaiting"] == "nothing").then_some(())
    })
    .await;
    let last = fleet.trustpoint("ap-1").unwrap()["active"]["serial"].clone();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(fleet.trustpoint("ap-1").unwrap()["active"]["serial"], last, "renewed although switched off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s42_switching_automatic_update_on_is_refused_while_conditions_are_missing_and_all_are_named() {
    let lab = Lab::start().await;
    let fleet = soon(&lab, &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let path = fleet.path("devices/ap-1/trustpoints/default/auto-update");
    let refused = fleet.rest.put(&path, &json!({ "enabled": true })).unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains("trustpoint.active"), "{refused}");

    fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    let on = fleet.rest.put(&path, &json!({ "enabled": true })).unwrap();
    assert_eq!(on["auto_update"], true);
    let planned = lab
        .eventually("its renewal is planned", || {
            let trustpoint = fleet.trustpoint("ap-1").ok()?;
            (!trustpoint["next_action_at"].is_null()).then_some(trustpoint)
        })
        .await;
    // Half of the validity at the earliest, four fifths at the latest.
    let at = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let (begin, end) = (at(&planned["active"]["not_before"]), at(&planned["active"]["not_after"]));
    let moment = at(&planned["next_action_at"]);
    assert!(moment >= (begin + end) / 2 && moment <= begin + (end - begin) * 4 / 5 + 1, "{planned}");
}
