//! A real nginx takes certificates: renewed under load without a failed handshake, and left alone when it does not take one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/served.rs"]
mod served;
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer,
    pki_types::pem::PemObject as _,
};
use serde_json::{Value, json};
use served::{LIMIT, bind, done, placeholder, program, told};
use support::{Lab, policy};
use trustfleet_lab::testkit::{Child, free_port};
use trustfleet_pki::Certificate;

const NGINX: &str = "/usr/sbin/nginx";

/// nginx on a private port with everything in one folder; ended with the test.
struct Nginx {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Nginx {
    /// With a placeholder's certificate.
    async fn start(dir: PathBuf) -> Self {
        program(NGINX, "nginx-light");
        placeholder(&dir.join("tls/fullchain.pem"), &dir.join("tls/key.pem"));
        let port = free_port().unwrap();
        configure(&dir, port, "tls", "");
        let mut command = std::process::Command::new(NGINX);
        command.args(arguments(&dir)).args(["-g", "daemon off;"]);
        let child = Child::start("nginx", command).unwrap();
        let nginx = Self { dir, port, child };
        trustfleet_lab::testkit::eventually(LIMIT, "nginx listens", async || {
            TcpStream::connect(("127.0.0.1", nginx.port)).ok()
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", nginx.log()));
        nginx
    }

    fn log(&self) -> String {
        self.child.log() + &fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }

    /// The agent's configuration of the service.
    fn service(&self, name: &str, probe_timeout_s: u32) -> String {
        let reload: Vec<String> = std::iter::once(NGINX.to_owned())
            .chain(arguments(&self.dir))
            .chain(["-s".into(), "reload".into()])
            .collect();
        let (dir, port) = (self.dir.display(), self.port);
        format!(
            "\n[services.{name}]\nreload = {reload:?}\nprobe_timeout_s = {probe_timeout_s}\n\
             [services.{name}.probe]\ntls = \"127.0.0.1:{port}\"\nsni = \"ap-1.lab.example\"\n\
             [[services.{name}.exports]]\npath = \"{dir}/tls/fullchain.pem\"\ncontent = \"fullchain\"\n\
             [[services.{name}.exports]]\npath = \"{dir}/tls/key.pem\"\ncontent = \"key\"\n"
        )
    }

    /// Serial number of the certificate that is served, the chain not looked at.
    fn serial(&self) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let shown = done(&[
            "sh",
            "-c",
            &format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial"),
        ]);
        shown.trim_start_matches("serial=").to_owned()
    }

    fn exported(&self) -> String {
        let text = fs::read_to_string(self.dir.join("tls/fullchain.pem")).unwrap();
        Certificate::pem_bundle(&text).unwrap()[0].serial_hex()
    }
}

fn arguments(dir: &Path) -> [String; 4] {
    let dir = dir.display();
    ["-p".to_owned(), format!("{dir}/"), "-c".to_owned(), format!("{dir}/nginx.conf")]
}

/// `folder`: where it looks for its certificate; `more`: something of the main section.
fn configure(dir: &Path, port: u16, folder: &str, more: &str) {
    let dir_text = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir_text}/{kind};\n"))
        .concat();
    let text = format!(
        "pid {dir_text}/nginx.pid;\nerror_log {dir_text}/error.log;\nworker_processes 2;\n{more}\nevents {{ worker_connections 256; }}\n\
         http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port} ssl;\n\
         ssl_certificate {dir_text}/{folder}/fullchain.pem;\nssl_certificate_key {dir_text}/{folder}/key.pem;\n\
         location / {{ return 200 \"served\\n\"; }}\n}}\n}}\n"
    );
    fs::write(dir.join("nginx.conf"), text).unwrap();
}

/// One whole request over a new connection, the server's certificate verified to the lab CA's root: the serial number.
fn ask(config: &Arc<ClientConfig>, port: u16) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let socket = TcpStream::connect(("127.0.0.1", port)).map_err(|error| text(&error))?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| text(&error))?;
    let name = "ap-1.lab.example".try_into().map_err(|error| text(&error))?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(|error| text(&error))?;
    let mut tls = StreamOwned::new(connection, socket);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: ap-1\r\nConnection: close\r\n\r\n").map_err(|error| text(&error))?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).map_err(|error| text(&error))?;
    if !answer.starts_with("HTTP/1.1 200 ") || !answer.ends_with("served\n") {
        return Err(format!("answered with {answer:?}"));
    }
    let shown = tls.conn.peer_certificates().and_then(|shown| shown.first()).ok_or("no certificate")?;
    Ok(Certificate::from_der(shown).map_err(|error| text(&error))?.serial_hex())
}

/// How many requests a client made, and the serial numbers it saw, in order.
type Seen = (usize, Vec<String>);

/// Clients that ask without a pause until they are told to stop; each gives the serial numbers it saw, in order.
struct Load {
    stop: Arc<AtomicBool>,
    /// What each has seen last.
    last: Vec<Arc<Mutex<String>>>,
    clients: Vec<JoinHandle<Result<Seen, String>>>,
}

impl Load {
    fn start(root: &Path, port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled(); // every request is a whole handshake
        let (config, stop) = (Arc::new(config), Arc::new(AtomicBool::new(false)));
        let last: Vec<Arc<Mutex<String>>> = (0..3).map(|_| Arc::default()).collect();
        let client = |last: &Arc<Mutex<String>>| {
            let (config, stop, last) = (Arc::clone(&config), Arc::clone(&stop), Arc::clone(last));
            thread::spawn(move || {
                let (mut count, mut seen) = (0, Vec::<String>::new());
                while !stop.load(Ordering::Relaxed) {
                    let serial = ask(&config, port).map_err(|error| format!("request {count}: {error}"))?;
                    count += 1;
                    last.lock().unwrap().clone_from(&serial);
                    if seen.last() != Some(&serial) {
                        seen.push(serial);
                    }
                }
                Ok((count, seen))
            })
        };
        Self { clients: last.iter().map(client).collect(), stop, last }
    }

    /// Whether all have seen this last, or have nothing to see any more.
    fn have_seen(&self, serial: &str) -> bool {
        let seen = |(client, last): (&JoinHandle<_>, &Arc<Mutex<String>>)| {
            client.is_finished() || *last.lock().unwrap() == serial
        };
        self.clients.iter().zip(&self.last).all(seen)
    }

    fn end(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .map(|client| client.join().unwrap().unwrap_or_else(|error| panic!("{error}")))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_nginx_is_renewed_under_load_without_a_failed_handshake_and_serves_the_new_serial_number() {
    let lab = Lab::start().await;
    let nginx = Nginx::start(lab.dir.path().join("nginx")).await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent_with("ap-1", &nginx.service("https", 30)).await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    bind(&fleet, "ap-1", &["https"]);
    // S40: the service has its trustpoint; a second one is refused, and told who has it.
    let second = json!({ "name": "second", "entity": "default", "ca_server": "default", "policy": "default", "services": ["https"] });
    let refused = fleet.rest.send("POST", &fleet.path("devices/ap-1/trustpoints"), &[], Some(&second)).unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("service_taken")), "{:?}", refused.body);
    assert!(refused.body["detail"].as_str().unwrap().contains("default"), "{:?}", refused.body);

    let job = fleet.enroll("ap-1", "ir").unwrap();
    let first = fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();
    assert_eq!(first["in_service"]["services"], json!([{ "service": "https", "result": "verified" }]), "{first:#}");
    let old = first["active"]["serial"].as_str().unwrap().to_owned();
    assert_eq!(nginx.serial(), old);

    let load = Load::start(&fleet.ca_dir.join("root.pem"), nginx.port);
    lab.eventually("all clients are served", || load.have_seen(&old).then_some(())).await;
    let job = fleet.enroll("ap-1", "kur").unwrap();
    assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded");
    let renewed = told(&lab, &fleet, "ap-1", &json!(old)).await;
    let new = renewed["active"]["serial"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert_eq!(renewed["in_service"]["services"][0]["result"], "verified", "{renewed:#}");
    // It has been seen with it by the agent; now by everybody.
    lab.eventually("all clients see the new certificate", || load.have_seen(&new).then_some(())).await;
    for (count, seen) in load.end() {
        assert!(count > 3, "only {count} requests");
        assert_eq!((seen.first(), seen.contains(&new)), (Some(&old), true), "{seen:?}");
        assert!(seen.iter().all(|serial| *serial == old || *serial == new), "{seen:?}");
    }
    // A worker from before the reload may take one more connection.
    lab.eventually("nginx serves it", || (nginx.serial() == new).then_some(())).await;

    // The job tells it as well, with its steps, and so does the audit log.
    let shown = fleet.get(&format!("jobs/{}", job["id"].as_str().unwrap())).unwrap();
    let steps: Vec<_> = shown["in_service"]["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["export", "reload", "probe"], "{shown:#}");
    lab.metric_becomes("trustfleet_service_activations_total{result=\"verified\"}", 2.0).await;
    let audit = fleet.get("audit?limit=100").unwrap().to_string();
    assert!(audit.contains("trustpoint_services_set") && audit.contains("verified"), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_goes_on_with_the_old_certificate_when_it_does_not_reload_or_is_not_seen_with_the_new_one() {
    let lab = Lab::start().await;
    let nginx = Nginx::start(lab.dir.path().join("nginx")).await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent_with("ap-1", &nginx.service("https", 2)).await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    bind(&fleet, "ap-1", &["https"]);
    let first = fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    let old = first["active"]["serial"].as_str().unwrap().to_owned();
    let as_before = |told: &Value, code: &str| {
        assert_eq!(told["last_failure"]["code"], code, "{told:#}");
        assert_eq!(told["last_failure"]["culprit"], "device");
        assert_eq!((&told["active"]["serial"], &told["status"]), (&json!(old), &json!("staged")));
        assert_eq!(told["in_service"]["services"][0]["result"], "failed");
        assert_eq!((nginx.serial(), nginx.exported()), (old.clone(), old.clone()));
    };

    // A configuration that nginx does not take.
    configure(&nginx.dir, nginx.port, "tls", "no_such_directive;");
    let job = fleet.enroll("ap-1", "kur").unwrap();
    assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded", "the CA has issued it");
    let failed = told(&lab, &fleet, "ap-1", &json!(old)).await;
    as_before(&failed, "reload_failed");
    let said = failed["last_failure"]["message"].as_str().unwrap();
    assert!(said.contains("no_such_directive") && said.contains("stays staged"), "{said}");
    let staged = failed["staged"]["serial"].clone();

    // It looks for its certificate somewhere else: reloaded, and never seen.
    fs::create_dir(nginx.dir.join("elsewhere")).unwrap();
    for file in ["fullchain.pem", "key.pem"] {
        fs::copy(nginx.dir.join("tls").join(file), nginx.dir.join("elsewhere").join(file)).unwrap();
    }
    configure(&nginx.dir, nginx.port, "elsewhere", "");
    let job = fleet.post("devices/ap-1/trustpoints/default/activate", &json!({})).unwrap();
    let ended = fleet.job_ended(&job, LIMIT).await.unwrap();
    assert_eq!((&ended["state"], &ended["failure"]["code"]), (&json!("failed"), &json!("probe_failed")), "{ended:#}");
    let said = ended["failure"]["message"].as_str().unwrap();
    assert!(said.contains(&old) && said.contains(staged.as_str().unwrap()), "{said}");
    as_before(&fleet.trustpoint("ap-1").unwrap(), "probe_failed");

    // Mended, the staged certificate is activated after all.
    configure(&nginx.dir, nginx.port, "tls", "");
    let job = fleet.post("devices/ap-1/trustpoints/default/activate", &json!({})).unwrap();
    let ended = fleet.job_ended(&job, LIMIT).await.unwrap();
    assert_eq!(
        (&ended["state"], &ended["in_service"]["services"][0]["result"]),
        (&json!("succeeded"), &json!("verified"))
    );
    let mended = fleet.trustpoint("ap-1").unwrap();
    assert_eq!((&mended["active"]["serial"], &mended["last_failure"]), (&staged, &Value::Null));
    // A worker from before the reload may take one more connection.
    lab.eventually("nginx serves it", || (json!(nginx.serial()) == staged).then_some(())).await;
}
