//! A real FreeRADIUS takes its certificate, and a real supplicant (eapol_test of wpa_supplicant) gets in by EAP-TLS with
//! its own, before and after both are renewed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/served.rs"]
mod served;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use served::{LIMIT, bind, done, placeholder, program, run, told};
use support::{Lab, policy};
use trustfleet_lab::testkit::free_port;
use trustfleet_pki::Certificate;

const SECRET: &str = "testing123";

/// FreeRADIUS in one folder, started by the script that the agent runs to reload it: it reads certificates at its start only.
struct Radius {
    dir: PathBuf,
    port: u16,
}

impl Radius {
    fn new(dir: PathBuf) -> Self {
        program("/usr/sbin/freeradius", "freeradius");
        program("/usr/bin/eapol_test", "eapoltest");
        let radius = Self { dir, port: free_port().unwrap() };
        for folder in ["raddb", "run", "sta"] {
            fs::create_dir_all(radius.dir.join(folder)).unwrap();
        }
        fs::write(radius.dir.join("raddb/radiusd.conf"), radius.configuration()).unwrap();
        let here = radius.dir.display();
        // Ends the running one, if any, and starts another; when that does not start, neither does this end well.
        let restart = format!(
            "#!/bin/sh\nset -e\nif pid=$(cat {here}/run/radius.pid 2>/dev/null); then\n  kill \"$pid\" 2>/dev/null || true\n  \
             while readlink /proc/$pid/exe >/dev/null 2>&1; do sleep 0.05; done\nfi\nrm -f {here}/run/radius.pid\n\
             exec /usr/sbin/freeradius -d {here}/raddb\n"
        );
        fs::write(radius.dir.join("restart"), restart).unwrap();
        // What the agent asks to see which certificate is presented: a handshake that need not end well.
        let probe = format!(
            "#!/bin/sh\nrm -f {here}/run/served.pem\n\
             /usr/bin/eapol_test -c {here}/probe.conf -a 127.0.0.1 -p {port} -s {SECRET} -t 5 -r 0 -o {here}/run/served.pem >/dev/null 2>&1\n\
             openssl crl2pkcs7 -nocrl -certfile {here}/run/served.pem | openssl pkcs7 -print_certs -noout -text | grep -A 1 'Serial Number'\n",
            port = radius.port
        );
        fs::write(radius.dir.join("probe"), probe).unwrap();
        fs::write(
            radius.dir.join("probe.conf"),
            network("probe", &radius.dir.join("placeholder.pem"), &radius.dir.join("placeholder.key")),
        )
        .unwrap();
        placeholder(&radius.dir.join("placeholder.pem"), &radius.dir.join("placeholder.key"));
        radius
    }

    fn configuration(&self) -> String {
        let (here, port) = (self.dir.display(), self.port);
        format!(
            "prefix = /usr\nexec_prefix = /usr\nname = freeradius\nlibdir = /usr/lib/freeradius\nraddbdir = {here}/raddb\n\
             run_dir = {here}/run\nlogdir = {here}/run\ndb_dir = {here}/run\npidfile = {here}/run/radius.pid\n\
             hostname_lookups = no\nproxy_requests = no\n\
             log {{\n destination = files\n file = {here}/run/radius.log\n auth = yes\n}}\n\
             security {{\n max_attributes = 200\n reject_delay = 0\n status_server = no\n}}\n\
             thread pool {{\n start_servers = 1\n max_servers = 2\n min_spare_servers = 1\n max_spare_servers = 1\n}}\n\
             client loopback {{\n ipaddr = 127.0.0.1\n secret = {SECRET}\n}}\n\
             modules {{\n eap {{\n  default_eap_type = tls\n  timer_expire = 60\n  tls-config common {{\n\
             \x20  certificate_file = {here}/tls/server.pem\n   private_key_file = {here}/tls/server.key\n   ca_file = {here}/tls/ca.pem\n\
             \x20  tls_min_version = \"1.2\"\n   tls_max_version = \"1.2\"\n   cipher_list = \"DEFAULT\"\n   ecdh_curve = \"\"\n  }}\n\
             \x20 tls {{\n   tls = common\n  }}\n }}\n}}\n\
             server default {{\n listen {{\n  type = auth\n  ipaddr = 127.0.0.1\n  port = {port}\n }}\n\
             \x20authorize {{\n  eap {{\n   ok = return\n  }}\n }}\n authenticate {{\n  eap\n }}\n}}\n"
        )
    }

    fn services(&self) -> String {
        let here = self.dir.display();
        let export = |service: &str, path: &str, content: &str| {
            format!("[[services.{service}.exports]]\npath = \"{here}/{path}\"\ncontent = \"{content}\"\n")
        };
        [
            format!("\n[services.radius]\nreload = [\"/bin/sh\", \"{here}/restart\"]\nprobe_timeout_s = 60\n"),
            format!("probe = {{ command = [\"/bin/sh\", \"{here}/probe\"] }}\n"),
            export("radius", "tls/server.pem", "fullchain"),
            export("radius", "tls/server.key", "key"),
            export("radius", "tls/ca.pem", "ca"),
            // The supplicant reads its files at each authentication: nothing to reload, and nobody to ask.
            "[services.supplicant]\n".to_owned(),
            export("supplicant", "sta/client.pem", "fullchain"),
            export("supplicant", "sta/client.key", "key"),
            export("supplicant", "sta/ca.pem", "ca"),
        ]
        .concat()
    }

    /// An authentication as the station; which certificates the server presented.
    fn authenticate(&self) -> Vec<String> {
        let (sta, served) = (self.dir.join("sta"), self.dir.join("sta/served.pem"));
        let conf = sta.join("wpa.conf");
        let ca = format!(" ca_cert=\"{}\"\n}}", sta.join("ca.pem").display());
        fs::write(&conf, network("sta-1", &sta.join("client.pem"), &sta.join("client.key")).replace('}', &ca)).unwrap();
        let _ = fs::remove_file(&served);
        let port = self.port.to_string();
        let words = [
            "/usr/bin/eapol_test",
            "-c",
            conf.to_str().unwrap(),
            "-a",
            "127.0.0.1",
            "-p",
            &port,
            "-s",
            SECRET,
            "-t",
            "20",
            "-r",
            "0",
            "-o",
            served.to_str().unwrap(),
        ];
        let output = run(&words);
        let said = String::from_utf8_lossy(&output.stdout);
        let end: Vec<_> = said.lines().rev().take(25).collect();
        assert!(output.status.success() && said.trim_end().ends_with("SUCCESS"), "{end:#?}\n{}", self.log());
        let presented = fs::read_to_string(&served).unwrap();
        Certificate::pem_bundle(&presented).unwrap().iter().map(Certificate::serial_hex).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("run/radius.log")).unwrap_or_default()
    }
}

impl Drop for Radius {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.dir.join("run/radius.pid")) {
            run(&["kill", "-9", pid.trim()]);
        }
    }
}

fn network(identity: &str, certificate: &Path, key: &Path) -> String {
    format!(
        "network={{\n key_mgmt=IEEE8021X\n eap=TLS\n identity=\"{identity}\"\n client_cert=\"{}\"\n private_key=\"{}\"\n}}\n",
        certificate.display(),
        key.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_freeradius_and_a_supplicant_go_on_with_eap_tls_before_and_after_their_certificates_are_renewed() {
    let lab = Lab::start().await;
    let radius = Radius::new(lab.dir.path().join("radius"));
    let fleet = lab.fleet(&["radius-1", "sta-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent_with("gw", &radius.services()).await.unwrap();
    let mut serials = Vec::new();
    for (device, service, result) in [("radius-1", "radius", "verified"), ("sta-1", "supplicant", "unverifiable")] {
        fleet.add_device(device, "gw").unwrap();
        bind(&fleet, device, &[service]);
        let first = fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
        let services = &first["in_service"]["services"];
        assert_eq!(*services, json!([{ "service": service, "result": result }]), "{first:#}\n{}", radius.log());
        serials.push(first["active"]["serial"].clone());
    }
    assert!(radius.authenticate().contains(&serials[0].as_str().unwrap().to_owned()));

    for (device, old) in ["radius-1", "sta-1"].into_iter().zip(&mut serials) {
        let job = fleet.enroll(device, "kur").unwrap();
        assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded");
        let renewed = told(&lab, &fleet, device, old).await;
        assert_eq!(renewed["last_failure"], json!(null), "{renewed:#}\n{}", radius.log());
        *old = renewed["active"]["serial"].clone();
        let presented = radius.authenticate();
        assert!(device != "radius-1" || presented.contains(&old.as_str().unwrap().to_owned()), "{presented:?}");
    }
    // The supplicant's new certificate is what it shows: without it nobody gets in.
    let shown =
        done(&["openssl", "x509", "-noout", "-serial", "-in", radius.dir.join("sta/client.pem").to_str().unwrap()]);
    assert_eq!(shown, format!("serial={}", serials[1].as_str().unwrap()));
    assert_eq!(radius.log().matches("Login OK: [sta-1]").count(), 3, "{}", radius.log());
}
