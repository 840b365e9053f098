//! What campaigns do besides renewing at once: staged certificates, another subject, revocation; and who goes on when the
//! controller that worked on them dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/campaigns.rs"]
mod campaigns;
mod support;

use campaigns::{NAMES, becomes, enrolled, serials, states};
use serde_json::json;
use support::{Lab, policy};
use trustfleet_lab::house::TENANT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_stages_certificates_and_another_one_puts_them_into_use_when_the_time_has_come() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let before = serials(&fleet, devices);
    let select = json!({ "trustpoint": "default" });
    fleet
        .post("campaigns", &json!({ "name": "prepare", "action": "renew", "select": select, "stage_only": true }))
        .unwrap();
    let prepared = becomes(&lab, &fleet, "prepare", "completed").await;
    assert_eq!(states(&prepared), [json!({ "verified": 2 })], "staged is all that was wanted: {prepared}");
    assert_eq!(serials(&fleet, devices), before, "what was in use is in use");
    let staged = |device: &str| fleet.trustpoint(device).unwrap()["staged"]["serial"].as_str().unwrap().to_owned();
    let waiting: Vec<_> = devices.iter().map(|device| staged(device)).collect();

    let night = json!({ "name": "night", "action": "activate", "select": select, "accept_unverifiable": true });
    fleet.post("campaigns", &night).unwrap();
    becomes(&lab, &fleet, "night", "completed").await;
    let after = serials(&fleet, devices);
    for (device, serial) in devices.iter().zip(&waiting) {
        assert_eq!(after[*device], *serial, "{device} uses what was staged");
    }
    assert_eq!(lab.issued_by_ca(&fleet).len(), 4, "nothing was asked for twice");

    // Nothing is staged any more: there is nothing to do, and that is no failure.
    fleet.post("campaigns", &json!({ "name": "again", "action": "activate", "select": select })).unwrap();
    let again = becomes(&lab, &fleet, "again", "completed").await;
    assert!(again["state_reason"].as_str().unwrap().contains("no trustpoint"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_revokes_at_the_ca_what_its_devices_use_also_while_everything_else_is_frozen() {
    let lab = Lab::start().await;
    let devices = &NAMES[..3];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let used = serials(&fleet, devices);
    let unsaid = json!({ "name": "stolen", "action": "revoke", "select": { "ca_server": "default" } });
    let refused = fleet.post("campaigns", &unsaid).unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains("say why"), "{refused}");
    // A freeze window holds no revocation.
    let always = json!({ "name": "always", "cron": "* * * * *", "duration_s": 3600, "time_zone": "UTC" });
    fleet.post("freezes", &always).unwrap();
    let frozen = |action: &str| {
        let select = json!({ "ca_server": "default" });
        let reason = if action == "revoke" { json!("superseded") } else { json!(null) };
        let body = json!({ "name": "look", "action": action, "reason": reason, "select": select });
        fleet.post("campaigns?dry_run=true", &body).unwrap()["frozen"].clone()
    };
    assert_eq!((frozen("renew"), frozen("revoke")), (json!(3), json!(0)));
    let words = ["campaign", "start", "stolen", "--action", "revoke", "--of-ca-server", "default", "--waves", "1,100%"];
    let (done, said) = lab.verb(&[&words[..], &["--revocation-reason", "keyCompromise"]].concat());
    assert!(done, "{said}");
    let revoked = becomes(&lab, &fleet, "stolen", "completed").await;
    assert_eq!(states(&revoked), [json!({ "verified": 1 }), json!({ "verified": 2 })], "{revoked}");
    let at_the_ca = lab.issued_by_ca(&fleet);
    for (device, serial) in &used {
        let issued = at_the_ca.iter().find(|issued| issued["serial"] == serial.as_str()).unwrap();
        assert_eq!(issued["revoked"], true, "{device}: {issued}");
        assert_eq!(fleet.trustpoint(device).unwrap()["status"], "revoked", "{device}");
    }
    let refused = fleet.post("campaigns/stolen/roll-back", &json!({})).unwrap_err().to_string();
    assert!(refused.contains("409"), "a revocation cannot be taken back: {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s30_devices_get_another_subject_by_a_campaign_that_renews_for_which_nobody_needs_the_secret_again() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let (_agent, _files) = fleet.start_agent("site").await.unwrap();
    for device in devices {
        fleet.post("devices", &json!({ "name": device, "agent": "site" })).unwrap();
        let mac =
            json!({ "reference": format!("ref-{device}"), "secret": format!("secret-{device}"), "one_time": true });
        let trustpoint =
            json!({ "name": "default", "entity": "default", "ca_server": "default", "policy": "default", "mac": mac });
        fleet.post(&format!("devices/{device}/trustpoints"), &trustpoint).unwrap();
        fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), campaigns::LIMIT).await.unwrap();
    }
    let entity = json!({ "subject": "/C=DE/O=Other Name/CN={device.name}" });
    fleet.rest.put(&fleet.path("entities/default"), &entity).unwrap();
    let by_update = fleet.enroll("ap-1", "kur").unwrap_err().to_string();
    assert!(by_update.contains("422") && by_update.contains("no update changes a subject"), "{by_update}");

    let body = json!({ "name": "merger", "action": "renew", "select": { "trustpoint": "default" }, "accept_unverifiable": true });
    fleet.post("campaigns", &body).unwrap();
    let done = becomes(&lab, &fleet, "merger", "completed").await;
    assert_eq!(states(&done), [json!({ "unverifiable": 2 })], "{done}");
    for device in devices {
        let trustpoint = fleet.trustpoint(device).unwrap();
        assert_eq!(trustpoint["active"]["subject"], format!("CN={device},O=Other Name,C=DE"), "{trustpoint}");
        let jobs = fleet.get(&format!("jobs?device={device}")).unwrap();
        assert!(jobs["items"].as_array().unwrap().iter().any(|job| job["kind"] == "cr"), "{jobs}");
    }
    // What comes is told beside the budget, hour by hour where that is wanted, and spread on command.
    let (done, said) = lab.verb(&["ca-server", "forecast", "default"]);
    assert!(done && said.contains("the budget is 360000 an hour") && said.contains("BUSIEST HOUR"), "{said}");
    let (done, said) = lab.verb(&["ca-server", "forecast", "default", "--hours", "3"]);
    assert!(done && said.contains("HOUR") && said.matches(":00:00Z").count() == 3, "{said}");
    let (done, said) = lab.verb(&["ca-endpoint", "respread"]);
    assert!(done && said.contains("ca-server forecast"), "{said}");
    // From here on updates go again.
    let updated = fleet.job_ended(&fleet.enroll("ap-1", "kur").unwrap(), campaigns::LIMIT).await.unwrap();
    assert_eq!(updated["state"], "succeeded", "{updated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_goes_on_where_the_replica_that_died_left_it_and_nobody_is_asked_twice() {
    let mut lab = Lab::start().await;
    let devices = &NAMES;
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let before = serials(&fleet, devices);
    let replica = lab.house.replica("second", &lab.env).await.unwrap();
    let elsewhere = fleet.rest.at(replica.url.clone());
    let body = json!({
        "name": "renewal", "action": "renew", "select": { "trustpoint": "default" }, "waves": ["1", "2", "100%"],
        "max_in_flight": 1, "accept_unverifiable": true,
    });
    fleet.post("campaigns", &body).unwrap();
    let path = format!("/v1/tenants/{TENANT}/campaigns/renewal");
    lab.eventually("the second wave has begun", || {
        let campaign = elsewhere.get(&path).ok()?;
        (states(&campaign).get(1)? != &json!({ "pending": 2 })).then_some(())
    })
    .await;
    lab.house.controller.kill().await;
    lab.eventually("the other replica has ended it", || {
        (elsewhere.get(&path).ok()?["state"] == "completed").then_some(())
    })
    .await;
    lab.house.start_again().await.unwrap();
    let after = serials(&fleet, devices);
    assert!(devices.iter().all(|device| after[*device] != before[*device]), "{before:?} {after:?}");
    assert_eq!(lab.issued_by_ca(&fleet).len(), 12, "one first certificate and one renewal for each");
}
