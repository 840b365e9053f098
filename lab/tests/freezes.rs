//! Freeze windows: when devices are not to be changed, and what is done all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/campaigns.rs"]
mod campaigns;
mod support;

use campaigns::{LIMIT, NAMES, becomes, enrolled, serials, states};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_model::clock::{Clock as _, SystemClock};

/// The begin of the next minute, or of the one after where that is close.
fn soon(now: Timestamp) -> Timestamp {
    let seconds = now.as_second();
    let next = seconds - seconds.rem_euclid(60) + 60;
    Timestamp::from_second(if next - seconds < 30 { next + 60 } else { next }).unwrap()
}

/// A job waits for a window to end.
async fn held(lab: &Lab, path: &str, get: impl Fn(&str) -> Option<Value>) -> Value {
    lab.eventually("the job says that it is held", || {
        let job = get(path)?;
        job["held_until"].is_string().then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_window_holds_every_change_but_the_urgent_until_it_is_removed() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let before = serials(&fleet, devices);
    let words =
        ["freeze", "create", "always", "--cron", "* * * * *", "--duration", "1h", "--time-zone", "Europe/Berlin"];
    let (done, said) = lab.verb(&words);
    assert!(done && said.contains("active_until"), "{said}");

    // What is asked for by hand waits, and says for what.
    let job = fleet.enroll("ap-1", "ir").unwrap();
    let below = format!("jobs/{}", job["id"].as_str().unwrap());
    let waits = held(&lab, &below, |path| fleet.get(path).ok()).await;
    assert_eq!(waits["state"], "awaiting_publish", "{waits}");
    let calm = json!({ "name": "calm", "action": "renew", "select": { "trustpoint": "default" }, "accept_unverifiable": true });
    fleet.post("campaigns", &calm).unwrap();
    becomes(&lab, &fleet, "calm", "running").await;

    let mut urgent = calm.clone();
    (urgent["name"], urgent["urgent"]) = (json!("now"), json!(true));
    fleet.post("campaigns", &urgent).unwrap();
    lab.eventually("the urgent one has renewed ap-2", || {
        (serials(&fleet, &["ap-2"])["ap-2"] != before["ap-2"]).then_some(())
    })
    .await;
    assert_eq!(serials(&fleet, &["ap-1"])["ap-1"], before["ap-1"], "what is held is under way there");
    let calm = fleet.get("campaigns/calm").unwrap();
    assert_eq!(states(&calm), [json!({ "pending": 2 })], "nothing was asked for in the window: {calm}");

    let (done, said) = lab.verb(&["freeze", "delete", "always"]);
    assert!(done, "{said}");
    becomes(&lab, &fleet, "calm", "completed").await;
    assert_ne!(serials(&fleet, &["ap-1"])["ap-1"], before["ap-1"]);
    assert_eq!(fleet.get(&below).unwrap()["held_until"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_window_of_a_label_opens_and_ends_by_its_time_and_holds_nobody_else() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    for (device, site) in [("ap-1", "oslo"), ("ap-2", "bergen")] {
        let labels = json!({ "agent": "site", "labels": { "site": site } });
        fleet.rest.put(&fleet.path(&format!("devices/{device}")), &labels).unwrap();
    }
    let before = serials(&fleet, devices);
    let opens = soon(SystemClock.now());
    let at = opens.to_zoned(TimeZone::UTC);
    let cron = format!("{} {} {} {} *", at.minute(), at.hour(), at.day(), at.month());
    let words = ["freeze", "create", "short", "--cron", &cron, "--duration", "60s", "--time-zone", "UTC"];
    let (done, said) = lab.verb(&[&words[..], &["--label", "site=oslo"]].concat());
    assert!(done, "{said}");

    let early = fleet.enroll("ap-1", "kur").unwrap();
    fleet.enrolled("ap-1", &early, LIMIT).await.unwrap();
    let between = serials(&fleet, devices);
    assert_ne!(between["ap-1"], before["ap-1"], "the window is not open yet");
    while SystemClock.now() < opens + SignedDuration::from_secs(6) {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let waiting = fleet.enroll("ap-1", "kur").unwrap();
    let below = format!("jobs/{}", waiting["id"].as_str().unwrap());
    let waiting = held(&lab, &below, |path| fleet.get(path).ok()).await;
    let until: Timestamp = waiting["held_until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until, opens + SignedDuration::from_secs(60), "{waiting}");
    let elsewhere = fleet.enroll("ap-2", "kur").unwrap();
    fleet.enrolled("ap-2", &elsewhere, LIMIT).await.unwrap();
    assert_eq!(serials(&fleet, devices)["ap-1"], between["ap-1"]);
    assert_ne!(serials(&fleet, devices)["ap-2"], between["ap-2"], "another label is held by nothing");

    while SystemClock.now() < until - SignedDuration::from_secs(2) {
        assert_eq!(fleet.get(&below).unwrap()["state"], "awaiting_publish", "the window is still open");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let done = fleet.job_ended(&waiting, LIMIT).await.unwrap();
    assert_eq!((&done["state"], &done["held_until"]), (&json!("succeeded"), &Value::Null), "{done}");
    let shown = fleet.get("freezes/short").unwrap();
    assert_eq!(shown["active_until"], Value::Null, "{shown}");
}
