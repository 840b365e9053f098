//! Campaigns through the whole system: waves that begin when the one before was seen in service, and what stops them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/campaigns.rs"]
mod campaigns;
mod support;

use std::{fs, path::Path, time::Duration};

use campaigns::{LIMIT, NAMES, becomes, enrolled, serials, states};
use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{AgentFiles, Fleet, start_agent_process},
    testkit::Child,
};

/// A service that loads its certificate from a copy, unless a file `broken` lies beside it.
fn service(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "\n[services.app]\nreload = [\"/bin/sh\", \"-c\", \"test ! -e {dir}/broken && cp {dir}/copy.pem {dir}/loaded.pem\"]\n\
         probe_timeout_s = 2\n[services.app.probe]\nfile = \"{dir}/loaded.pem\"\n\
         [[services.app.exports]]\npath = \"{dir}/copy.pem\"\ncontent = \"fullchain\"\n"
    )
}

/// Devices, each behind an agent of its own with the service, and each with a certificate in use.
async fn served(lab: &Lab, fleet: &Fleet, devices: &[&str]) -> Vec<(Child, AgentFiles)> {
    let mut agents = Vec::new();
    for device in devices {
        let dir = lab.dir.path().join("served").join(device);
        fs::create_dir_all(&dir).unwrap();
        agents.push(fleet.start_agent_with(device, &service(&dir)).await.unwrap());
        fleet.add_device(device, device).unwrap();
        let path = fleet.path(&format!("devices/{device}/trustpoints/default/services"));
        let answer = fleet.rest.send("PUT", &path, &[], Some(&json!({ "services": ["app"] }))).unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
    }
    agents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s58_one_command_gives_a_fleet_new_keys_wave_by_wave_and_every_device_one_certificate() {
    let lab = Lab::start().await;
    let fixed = json!({ "key": { "algorithm": "ecdsa-p256", "regenerate": false }, "activation": "manual" });
    let fleet = lab.fleet(&NAMES, &fixed).await;
    let (_agent, _files) = fleet.start_agent("site").await.unwrap();
    for device in NAMES {
        fleet.add_device(device, "site").unwrap();
        let job = fleet.enroll(device, "ir").unwrap();
        fleet.job_ended(&job, LIMIT).await.unwrap();
        fleet.post(&format!("devices/{device}/trustpoints/default/activate"), &json!({})).unwrap();
        lab.eventually("in use", || (fleet.trustpoint(device).ok()?["status"] == "active").then_some(())).await;
    }
    let before = serials(&fleet, &NAMES);
    let keys = |fleet: &Fleet| -> Vec<Value> {
        NAMES.iter().map(|device| fleet.trustpoint(device).unwrap()["active"]["public_key_sha256"].clone()).collect()
    };
    let keys_before = keys(&fleet);

    let issuer = fleet.trustpoint("ap-1").unwrap()["active"]["issuer"].as_str().unwrap().to_owned();
    let words = ["campaign", "start", "new-keys", "--action", "rekey", "--issued-by", &issuer, "--waves", "1,50%"];
    let (done, said) = lab.verb(&[&words[..], &["--dry-run"]].concat());
    assert!(done && said.contains("without_service") && said.contains("1, 3, 2"), "{said}");
    let (_, said) = lab.verb(&[&words[..], &["--with-key", "rsa-4096", "--dry-run"]].concat());
    assert!(said.contains("trustpoints      0"), "nobody has such a key: {said}");
    let with_key = ["--with-key", "ecdsa-p256", "--max-in-flight", "2", "--accept-unverifiable"];
    let (done, said) = lab.verb(&[&words[..], &with_key].concat());
    assert!(done && said.contains("campaign watch new-keys"), "{said}");
    let (done, said) = lab.verb(&["campaign", "watch", "new-keys"]);
    assert!(done && said.contains("completed"), "{said}");

    let campaign = becomes(&lab, &fleet, "new-keys", "completed").await;
    let unseen = |members: u64| json!({ "unverifiable": members });
    assert_eq!(states(&campaign), [unseen(1), unseen(3), unseen(2)], "{campaign}");
    let after = serials(&fleet, &NAMES);
    assert!(before.iter().all(|(device, serial)| after[device] != *serial), "{before:?} {after:?}");
    assert!(keys(&fleet).iter().zip(&keys_before).all(|(new, old)| new != old), "a new key whatever the policy says");
    assert_eq!(lab.issued_by_ca(&fleet).len(), 12, "one new certificate for each");
    let members = fleet.get("campaigns/new-keys/members?state=unverifiable").unwrap();
    assert_eq!(members["items"].as_array().unwrap().len(), 6);
    let audit = fleet.get("audit?limit=300").unwrap().to_string();
    for action in
        ["campaign_created", "campaign_started", "campaign_wave_done", "campaign_completed", "campaign:new-keys"]
    {
        assert!(audit.contains(action), "{action} is missing in the audit log");
    }
    lab.metric_becomes("trustfleet_campaigns{state=\"completed\",tenant=\"lab\"}", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_a_service_that_does_not_take_its_certificate_stops_the_campaign_before_the_next_wave() {
    let lab = Lab::start().await;
    let devices = &NAMES[..3];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agents = served(&lab, &fleet, devices).await;
    let before = serials(&fleet, devices);
    for device in devices {
        fs::write(lab.dir.path().join("served").join(device).join("broken"), "").unwrap();
    }
    let body = json!({ "name": "spring", "action": "renew", "select": { "trustpoint": "default" }, "waves": ["1"] });
    fleet.post("campaigns", &body).unwrap();
    let stopped = becomes(&lab, &fleet, "spring", "stopped").await;
    assert_eq!(states(&stopped), [json!({ "failed": 1 }), json!({ "pending": 2 })], "{stopped}");
    let reason = &stopped["progress"][0]["reasons"][0];
    assert!(reason["code"] == "reload_failed" || reason["code"] == "service_failed", "{reason}");
    assert!(stopped["state_reason"].as_str().unwrap().contains("wave 1"), "{stopped}");
    assert_eq!(serials(&fleet, devices), before, "every device has gone back to what it had");

    for device in devices {
        fs::remove_file(lab.dir.path().join("served").join(device).join("broken")).unwrap();
    }
    let (done, said) = lab.verb(&["campaign", "resume", "spring", "--retry", "--reason", "mended"]);
    assert!(done, "{said}");
    let completed = becomes(&lab, &fleet, "spring", "completed").await;
    assert_eq!(states(&completed), [json!({ "verified": 1 }), json!({ "verified": 2 })], "{completed}");
    let renewed = serials(&fleet, devices);
    for device in devices {
        assert_ne!(renewed[*device], before[*device], "{device}");
        let loaded = fs::read_to_string(lab.dir.path().join("served").join(device).join("loaded.pem")).unwrap();
        let loaded = trustfleet_pki::Certificate::pem_bundle(&loaded).unwrap()[0].serial_hex();
        assert_eq!(loaded, renewed[*device], "{device} serves it");
    }

    fleet.post("campaigns/spring/roll-back", &json!({})).unwrap();
    let back = becomes(&lab, &fleet, "spring", "rolled_back").await;
    assert_eq!(states(&back), [json!({ "undone": 1 }), json!({ "undone": 2 })], "{back}");
    let restored = serials(&fleet, devices);
    // What was staged by the failed first attempt was never in use: the way back leads to what was.
    assert_eq!(restored, before, "the certificates that were in use before are in use again");
    for device in devices {
        let loaded = fs::read_to_string(lab.dir.path().join("served").join(device).join("loaded.pem")).unwrap();
        assert_eq!(trustfleet_pki::Certificate::pem_bundle(&loaded).unwrap()[0].serial_hex(), restored[*device]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s58_everything_of_one_ca_server_moves_to_another_by_ir_and_what_got_nothing_there_stays_where_it_was() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let before = serials(&fleet, devices);
    let mut other = fleet.ca_server("other", &fleet.ca_url).unwrap();
    fleet.post("ca-servers", &other).unwrap();
    other["name"] = json!("nowhere");
    other["primary_url"] = json!("http://127.0.0.1:9/pkix/");
    fleet.post("ca-servers", &other).unwrap();
    let mut short = policy();
    short["name"] = json!("short");
    short["message_timeout_s"] = json!(1);
    short["total_timeout_s"] = json!(2);
    fleet.post("policies", &short).unwrap();

    let select = json!({ "ca_server": "default" });
    let by_update =
        json!({ "name": "x", "action": "change", "ca_server": "other", "request": "kur", "select": select });
    let refused = fleet.post("campaigns", &by_update).unwrap_err().to_string();
    assert!(refused.contains("422") && refused.contains("no update leads to another CA"), "{refused}");
    let to_nowhere = json!({
        "name": "nowhere", "action": "change", "ca_server": "nowhere", "policy": "short", "request": "ir", "select": select,
        "failures_allowed": "100%",
    });
    fleet.post("campaigns", &to_nowhere).unwrap();
    let stopped = becomes(&lab, &fleet, "nowhere", "stopped").await;
    assert_eq!(states(&stopped), [json!({ "failed": 2 })], "{stopped}");
    for device in devices {
        let trustpoint = fleet.trustpoint(device).unwrap();
        assert_eq!((&trustpoint["ca_server"], &trustpoint["policy"]), (&json!("default"), &json!("default")));
    }
    assert_eq!(serials(&fleet, devices), before);

    let to_other = json!({ "name": "moved", "action": "change", "ca_server": "other", "request": "ir", "select": select, "accept_unverifiable": true });
    fleet.post("campaigns", &to_other).unwrap();
    becomes(&lab, &fleet, "moved", "completed").await;
    for device in devices {
        let trustpoint = fleet.trustpoint(device).unwrap();
        assert_eq!((&trustpoint["ca_server"], &trustpoint["policy"]), (&json!("other"), &json!("default")));
        assert_ne!(trustpoint["active"]["serial"], json!(before[*device]));
    }
    fleet.post("campaigns/moved/roll-back", &json!({})).unwrap();
    let back = becomes(&lab, &fleet, "moved", "rolled_back").await;
    assert_eq!(states(&back), [json!({ "undone": 2 })], "{back}");
    assert_eq!(serials(&fleet, devices), before);
    assert_eq!(fleet.trustpoint("ap-1").unwrap()["ca_server"], "default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_waits_for_a_second_administrator_and_can_be_paused_and_ended() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    for device in devices {
        fleet.add_device_without_agent(device).unwrap();
    }
    let settings = json!({ "display_name": "lab", "allow_weak_algorithms": false, "four_eyes": true });
    lab.house.platform.put(fleet.path("").trim_end_matches('/'), &settings).unwrap();
    let body = json!({
        "name": "all", "action": "change", "policy": "default", "request": "ir", "select": { "trustpoint": "default" },
        "failures_allowed": "100%", "waves": ["1"], "max_in_flight": 1, "success_percent": 100,
    });
    let change = fleet.post("campaigns", &body).unwrap();
    assert_eq!((&change["state"], &change["operation"]), (&json!("pending"), &json!("campaign_create")), "{change}");
    assert!(fleet.get("campaigns/all").unwrap_err().to_string().contains("404"));
    let path = format!("changes/{}/approve", change["id"].as_str().unwrap());
    lab.house.platform.post(&fleet.path(&path), &json!({})).unwrap();

    // Devices without an agent: each fails at once, and no wave comes to its threshold.
    let stopped = becomes(&lab, &fleet, "all", "stopped").await;
    assert_eq!(states(&stopped), [json!({ "failed": 1 }), json!({ "pending": 1 })], "{stopped}");
    assert_eq!(stopped["progress"][0]["reasons"][0]["code"], "not_ready");
    let refused = fleet.post("campaigns/all/pause", &json!({})).unwrap_err().to_string();
    assert!(refused.contains("409") && refused.contains("only what is at work"), "{refused}");
    let (done, said) = lab.verb(&["campaign", "cancel", "all", "--reason", "wrong tenant"]);
    assert!(done && said.contains("wrong tenant") && said.contains("cancelled"), "{said}");
    let cancelled = fleet.get("campaigns/all").unwrap();
    assert_eq!(states(&cancelled), [json!({ "failed": 1 }), json!({ "cancelled": 1 })], "{cancelled}");
    let (done, said) = lab.verb(&["campaign", "delete", "all"]);
    assert!(done, "{said}");
    assert_eq!(fleet.get("campaigns").unwrap()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_over_a_label_takes_nobody_else_and_asks_for_nothing_while_it_is_paused() {
    let lab = Lab::start().await;
    let devices = &NAMES[..4];
    let fleet = lab.fleet(devices, &policy()).await;
    let (mut agent, files) = fleet.start_agent("site").await.unwrap();
    for (n, device) in devices.iter().enumerate() {
        let site = if n == 0 { "bergen" } else { "oslo" };
        fleet.post("devices", &json!({ "name": device, "agent": "site", "labels": { "site": site } })).unwrap();
        let mac = json!({ "reference": format!("ref-{device}"), "secret": format!("secret-{device}") });
        let trustpoint =
            json!({ "name": "default", "entity": "default", "ca_server": "default", "policy": "default", "mac": mac });
        fleet.post(&format!("devices/{device}/trustpoints"), &trustpoint).unwrap();
        fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
    }
    let before = serials(&fleet, devices);
    // What is asked for now waits for the agent.
    agent.kill().await;
    let body = json!({
        "name": "oslo", "action": "renew", "select": { "labels": { "site": "oslo" } }, "waves": ["1", "100%"],
        "max_in_flight": 1, "accept_unverifiable": true,
    });
    fleet.post("campaigns", &body).unwrap();
    let asked = || {
        let campaign = fleet.get("campaigns/oslo").ok()?;
        (states(&campaign).first()?["in_flight"] == 1).then_some(())
    };
    lab.eventually("the first is asked for", asked).await;
    let paused = fleet.post("campaigns/oslo/pause", &json!({})).unwrap();
    assert_eq!(paused["state"], "paused", "{paused}");

    let again = start_agent_process(&files).unwrap();
    let first = || {
        let campaign = fleet.get("campaigns/oslo").ok()?;
        (states(&campaign) == [json!({ "unverifiable": 1 }), json!({ "pending": 2 })]).then_some(())
    };
    lab.eventually("what was under way has ended", first).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still = fleet.get("campaigns/oslo").unwrap();
    assert_eq!((&still["state"], &states(&still)[1]), (&json!("paused"), &json!({ "pending": 2 })), "{still}");
    assert_eq!(lab.issued_by_ca(&fleet).len(), 5, "four first ones, and the one that was under way");

    fleet.post("campaigns/oslo/resume", &json!({})).unwrap();
    let done = becomes(&lab, &fleet, "oslo", "completed").await;
    assert_eq!(states(&done), [json!({ "unverifiable": 1 }), json!({ "unverifiable": 2 })], "{done}");
    let after = serials(&fleet, devices);
    let renewed: Vec<&str> = devices.iter().copied().filter(|device| after[*device] != before[*device]).collect();
    assert_eq!(renewed, devices[1..], "whoever has another label was left alone");
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s57_a_campaign_gives_devices_the_next_anchors_wave_by_wave_and_until_then_nobody_has_them() {
    let lab = Lab::start().await;
    let devices = &NAMES[..2];
    let fleet = lab.fleet(devices, &policy()).await;
    let _agent = enrolled(&fleet, devices).await;
    let next = fleet.another_ca("next", devices, &["--organization", "/O=Future Lab"]).await.unwrap();
    let next_root = fs::read_to_string(next.dir.join("root.pem")).unwrap();
    let by_campaign = json!({ "next_anchors": [next_root], "by_campaign": true });
    fleet.post("ca-servers/default/rollover", &by_campaign).unwrap();
    let anchors = json!({
        "name": "anchors", "action": "anchors", "select": { "ca_server": "default" }, "waves": ["1"], "soak_s": 3,
    });
    fleet.post("campaigns", &anchors).unwrap();
    let first = lab
        .eventually("the first wave has them", || {
            let rollover = fleet.get("ca-servers/default/rollover").ok()?;
            (rollover["loaded"] == 1).then_some(rollover)
        })
        .await;
    assert_eq!((&first["pending"], &first["may_switch"]), (&json!(1), &json!(false)), "{first}");
    let done = becomes(&lab, &fleet, "anchors", "completed").await;
    assert_eq!(states(&done), [json!({ "verified": 1 }), json!({ "verified": 1 })], "{done}");
    let rollover = fleet.get("ca-servers/default/rollover").unwrap();
    assert_eq!((&rollover["loaded"], &rollover["may_switch"]), (&json!(2), &json!(true)), "{rollover}");
    let refused = fleet.post("campaigns/anchors/roll-back", &json!({})).unwrap_err().to_string();
    assert!(refused.contains("cancelling their roll-over"), "{refused}");
}
