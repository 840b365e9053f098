//! Devices that were away until after the end of their certificate, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::house::{Fleet, start_agent_process};
use trustfleet_model::clock::{Clock as _, SystemClock};

const LIMIT: Duration = Duration::from_secs(60);
/// How long certificates are valid here.
const LIFE_S: &str = "30";

/// Arms a one-time MAC credential, which the CA learns of, or not.
fn arm(fleet: &Fleet, device: &str, known_to_ca: bool) {
    let (reference, secret) = (format!("once-{device}"), format!("once-secret-{device}"));
    if known_to_ca {
        let url = fleet.ca_url.join("/lab/secrets").unwrap();
        ureq::post(url.as_str()).send_json(json!({ "reference": reference, "secret": secret })).unwrap();
    }
    let until = (SystemClock.now() + SignedDuration::from_hours(1)).to_string();
    let body = json!({ "by": "mac", "mac": { "reference": reference, "secret": secret }, "until": until });
    let path = fleet.path(&format!("devices/{device}/trustpoints/default/recovery"));
    fleet.rest.put(&path, &body).unwrap();
}

fn has_ended(trustpoint: &Value) -> bool {
    let end: Timestamp = trustpoint["active"]["not_after"].as_str().unwrap().parse().unwrap();
    end < SystemClock.now()
}

fn kinds(fleet: &Fleet, device: &str) -> Vec<(String, String)> {
    let jobs = fleet.get(&format!("jobs?device={device}&limit=50")).unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    jobs["items"].as_array().unwrap().iter().map(|job| (word(&job["kind"]), word(&job["state"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_back_after_the_end_gets_a_certificate_by_what_was_armed_before_or_after_and_never_without()
{
    let lab = Lab::start().await;
    let mut policy = policy();
    policy["auto_update"] = json!({ "enabled": true, "lease_s": 0 });
    let fleet =
        Fleet::create_at(&lab.house, &["ap-1", "ap-2"], &policy, &["--validity-seconds", LIFE_S]).await.unwrap();
    let (first_agent, first_files) = fleet.start_agent("ap-1").await.unwrap();
    let (second_agent, second_files) = fleet.start_agent("ap-2").await.unwrap();
    for device in ["ap-1", "ap-2"] {
        fleet.add_device(device, device).unwrap();
    }
    let mut former = Vec::new();
    for device in ["ap-1", "ap-2"] {
        let enrolled = fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
        former.push(enrolled["active"]["serial"].clone());
    }
    drop((first_agent, second_agent));
    // ap-1 is armed in advance; both have a key update that waits for them when their certificates end.
    arm(&fleet, "ap-1", true);
    for device in ["ap-1", "ap-2"] {
        lab.eventually("its certificate has ended", || has_ended(&fleet.trustpoint(device).ok()?).then_some(())).await;
    }
    let at_risk = fleet.get("devices/at-risk").unwrap();
    let told: Vec<_> = at_risk["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (&item["device"], &item["risk"], &item["recovery_armed"]))
        .collect();
    let expired = json!("expired");
    assert!(told.contains(&(&json!("ap-1"), &expired, &json!(true))), "{at_risk:#}");
    assert!(told.contains(&(&json!("ap-2"), &expired, &json!(false))), "{at_risk:#}");

    let _first = start_agent_process(&first_files).unwrap();
    let recovered = lab
        .eventually("ap-1 has a certificate again", || {
            let trustpoint = fleet.trustpoint("ap-1").ok()?;
            (trustpoint["active"]["serial"] != former[0] && trustpoint["status"] == "active").then_some(trustpoint)
        })
        .await;
    assert_eq!(recovered["recovery"], Value::Null, "it is used up");
    assert!(kinds(&fleet, "ap-1").iter().filter(|(kind, state)| kind == "ir" && state == "succeeded").count() == 2);

    // ap-2 is back as well, has MAC credentials of its own, and gets nothing: nobody has armed anything.
    let _second = start_agent_process(&second_files).unwrap();
    lab.eventually("its key update has failed", || {
        kinds(&fleet, "ap-2").contains(&("kur".to_owned(), "failed".to_owned())).then_some(())
    })
    .await;
    assert_eq!(fleet.trustpoint("ap-2").unwrap()["active"]["serial"], former[1]);
    assert_eq!(kinds(&fleet, "ap-2").iter().filter(|(kind, _)| kind == "ir").count(), 1, "an IR was asked for unasked");
    arm(&fleet, "ap-2", true);
    lab.eventually("ap-2 has a certificate again", || {
        let trustpoint = fleet.trustpoint("ap-2").ok()?;
        (trustpoint["active"]["serial"] != former[1]).then_some(())
    })
    .await;
    let audit = fleet.get("audit?limit=500").unwrap().to_string();
    for action in ["recovery_armed", "recovery_begun"] {
        assert!(audit.contains(action), "{action} is not in the audit log");
    }
    assert!(!audit.contains("once-secret"), "the secret is in the audit log");
}
