//! CA certificates and CRLs that are kept fresh on a device, with nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::house::Fleet;

const LIMIT: Duration = Duration::from_secs(60);

fn fresh() -> Value {
    let mut policy = policy();
    policy["upkeep"] = json!({ "ca_certs": true, "crls": true, "every_s": 10 });
    policy
}

/// A service that takes the CRL and the CA certificates, and counts how often it is told.
fn service(dir: &Path) -> String {
    let (crl, ca, count) = (dir.join("service.crl"), dir.join("service.ca"), dir.join("reloads"));
    format!(
        "[services.vpn]\nreload = [\"/bin/sh\", \"-c\", \"echo x >> {}\"]\n\
         [[services.vpn.exports]]\npath = {:?}\ncontent = \"crl\"\n\
         [[services.vpn.exports]]\npath = {:?}\ncontent = \"ca\"\n",
        count.display(),
        crl.display().to_string(),
        ca.display().to_string()
    )
}

fn openssl(args: &[&str]) -> Option<String> {
    let output = Command::new("openssl").args(args).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn enrol(fleet: &Fleet, device: &str, agent: &str) {
    fleet.add_device(device, agent).unwrap();
    let path = fleet.path(&format!("devices/{device}/trustpoints/default/services"));
    fleet.rest.put(&path, &json!({ "services": ["vpn"] })).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_is_in_the_crl_of_a_service_soon_and_the_service_was_told() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["gw-1", "ap-2"], &fresh()).await;
    let dir = lab.dir.path().to_owned();
    let (_gw, files) = fleet.start_agent_with("gw-1", &service(&dir)).await.unwrap();
    let (_ap, _) = fleet.start_agent("ap-2").await.unwrap();
    enrol(&fleet, "gw-1", "gw-1");
    fleet.add_device("ap-2", "ap-2").unwrap();
    fleet.enrolled("gw-1", &fleet.enroll("gw-1", "ir").unwrap(), LIMIT).await.unwrap();
    let lost = fleet.enrolled("ap-2", &fleet.enroll("ap-2", "ir").unwrap(), LIMIT).await.unwrap();
    let lost = lost["active"]["serial"].as_str().unwrap().to_owned();

    let (crl, ca, count) = (dir.join("service.crl"), dir.join("service.ca"), dir.join("reloads"));
    let shown = || openssl(&["crl", "-in", crl.to_str().unwrap(), "-noout", "-text"]);
    lab.eventually("the service has a CRL", shown).await;
    let issuing = fleet.ca_dir.join("issuing.pem");
    openssl(&["crl", "-in", crl.to_str().unwrap(), "-noout", "-CAfile", issuing.to_str().unwrap()])
        .expect("it verifies");
    assert!(!shown().unwrap().contains(&lost));
    let told_before = fs::read_to_string(&count).unwrap().lines().count();
    // What the service trusts holds the root and the issuing CA.
    let bundle = fs::read_to_string(&ca).unwrap();
    assert!(bundle.matches("BEGIN CERTIFICATE").count() >= 2, "{bundle}");
    assert!(files.state.join("devices/gw-1/default/ca.pem").exists());

    let url = fleet.ca_url.join("/lab/revoke").unwrap();
    ureq::post(url.as_str()).send_json(json!({ "serial": lost })).unwrap();
    lab.eventually("the revoked certificate is in it", || shown().filter(|text| text.contains(&lost))).await;
    let told = fs::read_to_string(&count).unwrap().lines().count();
    assert!(told > told_before, "the service was not told");
}

/// Serves what it is given to whoever asks.
fn distribution_point(content: Arc<Mutex<Vec<u8>>>) -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/ca.crl", listener.local_addr().unwrap().port());
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 2048]);
            *counted.lock().unwrap() += 1;
            let body = content.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crl_comes_from_its_distribution_point_and_by_genm_where_that_gives_rubbish() {
    let lab = Lab::start().await;
    let content = Arc::new(Mutex::new(b"no crl".to_vec()));
    let (url, asked) = distribution_point(Arc::clone(&content));
    let mut policy = fresh();
    policy["upkeep"]["ca_certs"] = json!(false);
    let fleet = Fleet::create_at(&lab.house, &["gw-1"], &policy, &["--crl-url", &url]).await.unwrap();
    let (_gw, files) = fleet.start_agent("gw-1").await.unwrap();
    fleet.add_device("gw-1", "gw-1").unwrap();
    fleet.enrolled("gw-1", &fleet.enroll("gw-1", "ir").unwrap(), LIMIT).await.unwrap();
    let crl = files.state.join("devices/gw-1/default/crl.der");
    lab.eventually("a CRL came by genm", || fs::read(&crl).ok()).await;
    assert!(*asked.lock().unwrap() >= 1, "the distribution point was not asked first");
    assert!(!files.state.join("devices/gw-1/default/ca.pem").exists(), "the policy does not want that");

    // From now on the point has the CA's own; the file follows it to the byte.
    let genuine = fleet.ca_url.join("/lab/crl").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let der = ureq::get(genuine.as_str()).call().unwrap().body_mut().read_to_vec().unwrap();
    *content.lock().unwrap() = der.clone();
    lab.eventually("the distribution point's is taken", || (fs::read(&crl).ok()? == der).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_follows_an_anchor_is_offered_and_is_one_when_two_administrators_want_it() {
    let lab = Lab::start().await;
    let mut policy = policy();
    policy["upkeep"] = json!({ "roots": true, "every_s": 10 });
    let fleet = Fleet::create_at(&lab.house, &["gw-1"], &policy, &["--root-update"]).await.unwrap();
    let (_gw, files) = fleet.start_agent("gw-1").await.unwrap();
    fleet.add_device("gw-1", "gw-1").unwrap();
    fleet.enrolled("gw-1", &fleet.enroll("gw-1", "ir").unwrap(), LIMIT).await.unwrap();
    let offered = || fleet.get("ca-servers/default/offered-roots").unwrap()["items"][0].clone();
    let root = lab.eventually("it is offered", || Some(offered()).filter(|root| root["sha256"].is_string())).await;
    assert_eq!(root["taken"], false, "{root}");
    let anchors = || fleet.get("ca-servers/default").unwrap()["trust_anchors"].as_array().unwrap().clone();
    let before = anchors();
    assert!(!before.contains(&root["certificate"]), "nobody has taken it");

    let settings = json!({ "display_name": "lab", "allow_weak_algorithms": false, "four_eyes": true });
    lab.house.platform.put(fleet.path("").trim_end_matches('/'), &settings).unwrap();
    let take = format!("ca-servers/default/offered-roots/{}/take", root["sha256"].as_str().unwrap());
    let change = fleet.post(&take, &Value::Null).unwrap();
    assert_eq!((&change["state"], &change["operation"]), (&json!("pending"), &json!("ca_server_update")), "{change}");
    assert_eq!(anchors(), before);
    let approve = format!("changes/{}/approve", change["id"].as_str().unwrap());
    lab.house.platform.post(&fleet.path(&approve), &json!({})).unwrap();
    assert_eq!(offered()["taken"], true);
    assert_eq!(anchors().len(), before.len() + 1);

    // With the next order the device trusts it, and has no more to tell.
    fleet.enrolled("gw-1", &fleet.enroll("gw-1", "kur").unwrap(), LIMIT).await.unwrap();
    let trusted = fs::read_to_string(files.state.join("devices/gw-1/default/current/anchors.pem")).unwrap();
    assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), before.len() + 1);
}
