//! A CA server is rolled over to another root while a real nginx relies on the anchors: nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/served.rs"]
mod served;
mod support;

use std::{fs, net::TcpStream, path::PathBuf};

use serde_json::{Value, json};
use served::{LIMIT, bind, done, placeholder, program};
use support::{Lab, policy};
use trustfleet_lab::house::start_agent_process;
use trustfleet_lab::testkit::{Child, eventually, free_port};
use trustfleet_pki::Certificate;

const NGINX: &str = "/usr/sbin/nginx";
const ROLLOVER: &str = "ca-servers/default/rollover";

/// nginx that takes certificates of clients, and tells these whose; ended with the test.
struct Nginx {
    dir: PathBuf,
    port: u16,
    _child: Child,
}

impl Nginx {
    async fn start(dir: PathBuf) -> Self {
        program(NGINX, "nginx-light");
        placeholder(&dir.join("fullchain.pem"), &dir.join("key.pem"));
        fs::copy(dir.join("fullchain.pem"), dir.join("ca.pem")).unwrap();
        let (port, at) = (free_port().unwrap(), dir.display());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let text = format!(
            "pid {at}/nginx.pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}server {{\n\
             listen 127.0.0.1:{port} ssl;\nssl_certificate {at}/fullchain.pem;\nssl_certificate_key {at}/key.pem;\n\
             ssl_client_certificate {at}/ca.pem;\nssl_verify_client optional;\nlocation / {{ return 200; }}\n}}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), text).unwrap();
        let mut command = std::process::Command::new(NGINX);
        command.args(["-p", &format!("{at}/"), "-c", &format!("{at}/nginx.conf"), "-g", "daemon off;"]);
        let child = Child::start("nginx", command).unwrap();
        let listens = async || TcpStream::connect(("127.0.0.1", port)).ok();
        eventually(LIMIT, "nginx listens", listens).await.unwrap_or_else(|error| panic!("{error}: {}", child.log()));
        Self { dir, port, _child: child }
    }

    /// The agent's configuration of the service.
    fn service(&self) -> String {
        let (dir, port) = (self.dir.display(), self.port);
        let reload =
            [NGINX, "-p", &format!("{dir}/"), "-c", &format!("{dir}/nginx.conf"), "-s", "reload"].map(str::to_owned);
        let exports: String = [("fullchain.pem", "fullchain"), ("key.pem", "key"), ("ca.pem", "ca")]
            .map(|(file, content)| {
                format!("[[services.https.exports]]\npath = \"{dir}/{file}\"\ncontent = \"{content}\"\n")
            })
            .concat();
        format!(
            "\n[services.https]\nreload = {reload:?}\n[services.https.probe]\ntls = \"127.0.0.1:{port}\"\nsni = \"ap-1.lab.example\"\n\
             [services.https.anchors_probe]\ntls = \"127.0.0.1:{port}\"\nsni = \"ap-1.lab.example\"\n{exports}"
        )
    }

    /// What a stranger's client is told of the CAs whose certificates it takes.
    fn takes(&self, root: &Certificate) -> bool {
        let address = format!("127.0.0.1:{}", self.port);
        let shown = done(&["sh", "-c", &format!("openssl s_client -connect {address} </dev/null 2>/dev/null")]);
        let names = shown.split("Acceptable client certificate CA names").nth(1).unwrap_or_default();
        let common_name = root.subject().to_string();
        let organization = common_name.split(',').find_map(|part| part.strip_prefix("O=")).unwrap();
        names.split("Requested Signature").next().unwrap().contains(organization)
    }
}

fn root(fleet_dir: &std::path::Path) -> (Certificate, String) {
    let pem = fs::read_to_string(fleet_dir.join("root.pem")).unwrap();
    (Certificate::from_pem(&pem).unwrap(), pem)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s57_services_load_the_next_root_before_a_certificate_comes_under_it_and_the_switch_waits_for_all_of_them() {
    let lab = Lab::start().await;
    let nginx = Nginx::start(lab.dir.path().join("nginx")).await;
    let fleet = lab.fleet(&["ap-1", "ap-2"], &policy()).await;
    let (_first_agent, _) = fleet.start_agent_with("ap-1", &nginx.service()).await.unwrap();
    let (second_agent, second_files) = fleet.start_agent("ap-2").await.unwrap();
    for device in ["ap-1", "ap-2"] {
        fleet.add_device(device, device).unwrap();
    }
    bind(&fleet, "ap-1", &["https"]);
    for device in ["ap-1", "ap-2"] {
        fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
    }
    let before = fleet.trustpoint("ap-1").unwrap()["active"]["serial"].clone();
    drop(second_agent);

    let next = fleet.another_ca("next", &["ap-1", "ap-2"], &["--organization", "/O=Future Lab"]).await.unwrap();
    let ((old_root, _), (next_root, next_pem)) = (root(&fleet.ca_dir), root(&next.dir));
    lab.eventually("nginx takes clients of the old root", || nginx.takes(&old_root).then_some(())).await;
    assert!(!nginx.takes(&next_root));
    let issuing = fs::read_to_string(next.dir.join("issuing.pem")).unwrap();
    let ca_name = Certificate::from_pem(&issuing).unwrap().subject().to_slash();
    let issuer = json!({ "ca_name": ca_name, "primary_url": next.url });
    let begun = fleet.post(ROLLOVER, &json!({ "next_anchors": [next_pem], "issuer": issuer })).unwrap();
    assert_eq!((&begun["phase"], &begun["trustpoints"]), (&json!("distributing"), &json!(2)), "{begun:#}");

    let status = || fleet.get(ROLLOVER).unwrap();
    let first = lab
        .eventually("the service has loaded it, the absent device has not", || {
            Some(status()).filter(|status| status["loaded"] == 1 && status["sent"] == 1)
        })
        .await;
    assert_eq!((&first["may_switch"], &first["percent"]), (&json!(false), &json!(50)));
    // A worker from before the reload may take one more connection.
    let both = || (nginx.takes(&next_root) && nginx.takes(&old_root)).then_some(());
    lab.eventually("both are in service", both).await;
    // And no certificate has come under it: what is in use is what was in use.
    assert_eq!(fleet.trustpoint("ap-1").unwrap()["active"]["serial"], before);
    let jobs = fleet.get("jobs?device=ap-1&limit=10").unwrap();
    let job = jobs["items"].as_array().unwrap().iter().find(|job| job["kind"] == "anchors").unwrap();
    assert_eq!(job["in_service"]["services"], json!([{ "service": "https", "result": "verified" }]), "{job:#}");

    // Refused, with the name of the one that is missing.
    let switch = format!("{ROLLOVER}/switch");
    let refused = fleet.rest.send("POST", &fleet.path(&switch), &[], Some(&json!({}))).unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("anchors_missing")), "{:?}", refused.body);
    let said = refused.body["detail"].as_str().unwrap();
    assert!(said.contains("1 of 2") && said.contains("ap-2/default (sent") && !said.contains("ap-1/"), "{said}");
    let missing = fleet.get(&format!("{ROLLOVER}/missing")).unwrap();
    assert_eq!(missing["items"].as_array().unwrap().len(), 1, "{missing:#}");
    assert_eq!((&missing["items"][0]["device"], &missing["items"][0]["agent"]), (&json!("ap-2"), &json!("ap-2")));
    let (ok, shown) = lab.verb(&["rollover", "missing", "default"]);
    assert!(ok && shown.contains("ap-2") && !shown.contains("ap-1"), "{shown}");
    assert!(!lab.verb(&["rollover", "switch", "default"]).0);
    // Nor behind its back.
    let mut server = fleet.get("ca-servers/default").unwrap();
    for field in ["id", "name", "revision", "created_at", "updated_at"] {
        server.as_object_mut().unwrap().remove(field);
    }
    server["primary_url"] = json!(next.url);
    let put = fleet.rest.send("PUT", &fleet.path("ca-servers/default"), &[], Some(&server)).unwrap();
    assert_eq!((put.status, &put.body["code"]), (409, &json!("rollover_open")), "{:?}", put.body);

    // The device comes back, is told, and then the issuer is switched.
    let _second_agent = start_agent_process(&second_files).unwrap();
    lab.eventually("all have it", || (status()["may_switch"] == true).then_some(())).await;
    let (ok, shown) = lab.verb(&["rollover", "switch", "default"]);
    assert!(ok && shown.contains("switched"), "{shown}");
    let renewed = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    assert!(renewed["active"]["issuer"].as_str().unwrap().contains("Future Lab"), "{renewed:#}");
    assert_eq!(renewed["in_service"]["services"][0]["result"], "verified");
    lab.eventually("still both are in service", both).await;

    // The former root stays while a certificate in use needs it.
    let finish = format!("{ROLLOVER}/finish");
    let refused = fleet.rest.send("POST", &fleet.path(&finish), &[], None).unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("former_anchors_in_use")), "{:?}", refused.body);
    assert!(refused.body["detail"].as_str().unwrap().contains("ap-2/default"), "{:?}", refused.body);
    fleet.enrolled("ap-2", &fleet.enroll("ap-2", "ir").unwrap(), LIMIT).await.unwrap();
    let ended = fleet.post(&finish, &Value::Null).unwrap();
    assert_eq!(ended["phase"], "finished", "{ended:#}");
    assert_eq!(fleet.get("ca-servers/default").unwrap()["trust_anchors"].as_array().unwrap().len(), 1);
    lab.eventually("nginx takes clients of the next root alone", || {
        (nginx.takes(&next_root) && !nginx.takes(&old_root)).then_some(())
    })
    .await;
    let audit = fleet.get("audit?limit=200").unwrap().to_string();
    for action in ["rollover_started", "anchors_distributed", "rollover_switched", "rollover_finished"] {
        assert!(audit.contains(action), "{action} is not in the audit log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s57_a_service_that_does_not_take_the_next_root_keeps_what_it_had_and_the_reason_is_told() {
    let lab = Lab::start().await;
    let dir = lab.dir.path().join("service");
    fs::create_dir_all(&dir).unwrap();
    let (ca, reload) = (dir.join("ca.pem"), dir.join("reload"));
    let reloads = |ok: bool| {
        let script = if ok { "exit 0" } else { "echo refuses >&2; exit 1" };
        fs::write(&reload, script).unwrap();
    };
    reloads(true);
    let service = format!(
        "\n[services.vpn]\nreload = [\"/bin/sh\", {:?}]\n[[services.vpn.exports]]\npath = {:?}\ncontent = \"ca\"\n",
        reload.display().to_string(),
        ca.display().to_string()
    );
    let fleet = lab.fleet(&["gw-1"], &policy()).await;
    let (_agent, _) = fleet.start_agent_with("gw-1", &service).await.unwrap();
    fleet.add_device("gw-1", "gw-1").unwrap();
    bind(&fleet, "gw-1", &["vpn"]);
    fleet.enrolled("gw-1", &fleet.enroll("gw-1", "ir").unwrap(), LIMIT).await.unwrap();
    let before = fs::read_to_string(&ca).unwrap();

    reloads(false);
    let next = fleet.another_ca("next", &[], &["--organization", "/O=Future Lab"]).await.unwrap();
    let (_, next_pem) = root(&next.dir);
    fleet.post(ROLLOVER, &json!({ "next_anchors": [next_pem], "counts": "stored" })).unwrap();
    let status = || fleet.get(ROLLOVER).unwrap();
    lab.eventually("it failed", || (status()["failed"] == 1).then_some(())).await;
    let missing = fleet.get(&format!("{ROLLOVER}/missing?state=failed")).unwrap();
    assert!(missing["items"][0]["reason"].as_str().unwrap().contains("refuses"), "{missing:#}");
    assert_eq!(fs::read_to_string(&ca).unwrap(), before, "the copies are as they were");

    // Told again by itself; nobody can see more than that it was reloaded, which counts here.
    reloads(true);
    lab.eventually("it is told again, and takes it", || (status()["stored"] == 1).then_some(())).await;
    assert_eq!((&status()["may_switch"], &status()["loaded"]), (&json!(true), &json!(0)));
    assert_ne!(fs::read_to_string(&ca).unwrap(), before);
    let cancelled = fleet.post(&format!("{ROLLOVER}/cancel"), &Value::Null).unwrap();
    assert_eq!(cancelled["phase"], "cancelled");
    lab.eventually("it is taken away again", || (fs::read_to_string(&ca).unwrap() == before).then_some(())).await;
}
