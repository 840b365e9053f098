//! Everything over TLS: the main path works, nothing takes plaintext, no client takes a server that it cannot verify, and
//! a renewed certificate is taken without a failed request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::pki_types::ServerName;
use serde_json::json;
use support::{Lab, policy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use trustfleet_lab::{
    house::{AgentFiles, ControllerFiles, Rest, TENANT, start_agent_process},
    testkit::{Child, Stack, StackOptions, TlsAuthority, TlsFiles, binary, command, eventually},
};
use url::Url;

const LIMIT: Duration = Duration::from_secs(60);

/// A stack of its own that takes no plaintext, and a house on it.
async fn encrypted() -> (Stack, Lab, TlsFiles) {
    let stack = Stack::start(StackOptions { tls: true, ..StackOptions::default() }).await.unwrap();
    let lab = Lab::start_on(stack.env().clone()).await;
    let tls = stack.env().tls.clone().unwrap();
    (stack, lab, tls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_path_is_encrypted_from_end_to_end_and_no_server_takes_plaintext() {
    let (stack, lab, tls) = encrypted().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    assert_eq!(lab.house.platform.base().scheme(), "https");
    assert_eq!(fleet.ca_url.scheme(), "https");
    let ready = lab.house.platform.get("/readyz").unwrap();
    assert_eq!(ready, json!({ "status": "ok" }), "nothing is insecure");

    // The operator's verbs over the same door.
    let (code, said) = verb(&lab, lab.house.platform.base(), &tls.ca).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ap-1"), "{said}");

    // Both pools of the controller.
    let admin = trustfleet_lab::testkit::admin(stack.env()).await.unwrap();
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE application_name = 'trustfleet' AND NOT ssl";
    let encrypted = "SELECT count(DISTINCT usename) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'trustfleet' AND ssl AND version = 'TLSv1.3'";
    assert_eq!(admin.query_one(plain, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(admin.query_one(encrypted, &[]).await.unwrap().get::<_, i64>(0), 2);

    let mut url = stack.env().pg_admin_url.clone();
    url.set_query(Some("sslmode=disable"));
    let error = tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.err().unwrap();
    let refused = error.as_db_error().unwrap().message();
    assert!(refused.contains("no encryption"), "{refused}");
    for (url, greeting, answer) in [
        (&stack.env().amqp_url, b"AMQP\x00\x00\x09\x01".as_slice(), b"\x01\x00\x00".as_slice()),
        (lab.house.platform.base(), b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/"),
        (&fleet.ca_url, b"GET /lab/stats HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/"),
    ] {
        let said = plaintext(url, greeting).await;
        assert!(!said.starts_with(answer), "{url} answers in plain text: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_takes_a_certificate_of_another_ca_or_for_another_name() {
    let (stack, lab, tls) = encrypted().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let dir = lab.dir.path();
    let other_ca = dir.join("other-ca.pem");
    fs::write(&other_ca, TlsAuthority::new("Another CA").unwrap().pem()).unwrap();
    let (unknown, another_name) = ("UnknownIssuer", "not valid for name");
    // 127.0.0.2 is no name in any certificate.
    let api = lab.house.platform.base();
    let (far_api, far_db) = (relayed(api).await, relayed(&stack.env().db_api_url).await);
    let far_broker = relayed(&stack.env().amqp_url).await;

    // The operator's verbs.
    for (url, ca_file, why) in [(api, &other_ca, unknown), (&far_api, &tls.ca, another_name)] {
        let (code, said) = verb(&lab, url, ca_file).await;
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(why), "{said}");
    }

    // The controller at PostgreSQL, with the owner's and with its own roles.
    for (verb, key) in [("migrate", "owner_url"), ("serve", "system_url")] {
        for (url, ca_file, why) in [(None, &other_ca, unknown), (Some(&far_db), &tls.ca, another_name)] {
            let config = changed(dir, &stack, |config| {
                config["database"]["tls_ca_file"] = json!(ca_file);
                if let Some(url) = url {
                    let mut far: Url = config["database"][key].as_str().unwrap().parse().unwrap();
                    far.set_host(url.host_str()).unwrap();
                    far.set_port(url.port()).unwrap();
                    config["database"][key] = json!(far);
                }
            });
            let output = Command::new(binary("trustfleet").unwrap()).arg(verb).arg("--config").arg(&config).output();
            let output = timeout(LIMIT, output).await.unwrap().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(why), "{verb}: {said}");
        }
    }

    // The controller at the broker: it serves, and says why it is not ready.
    for (url, ca_file, why) in [(None, &other_ca, unknown), (Some(&far_broker), &tls.ca, another_name)] {
        let config = changed(dir, &stack, |config| {
            config["broker"]["tls_ca_file"] = json!(ca_file);
            if let Some(url) = url {
                config["broker"]["url"] = json!(url);
                // The connection to the broker's log is one of its own, and would succeed.
                config["broker"].as_object_mut().unwrap().remove("log_url");
            }
        });
        let mut serve = command("trustfleet").unwrap();
        serve.arg("serve").arg("--config").arg(&config);
        let mut controller = Child::start("trustfleet serve", serve).unwrap();
        controller.line_with("broker cannot be reached", LIMIT).await.unwrap();
        assert!(controller.log().contains(why), "{}", controller.log());
        assert!(!controller.log().contains("connected to the broker"));
    }

    // The agent at the controller: its join token stays with it.
    let join = |name: &str| fleet.post("join-tokens", &json!({ "agent_name": name })).unwrap()["token"].clone();
    for (name, url, ca_file, why) in [("ap-8", api, &other_ca, unknown), ("ap-9", &far_api, &tls.ca, another_name)] {
        let token = join(name);
        let files = AgentFiles::write_trusting(dir, name, url, token.as_str().unwrap(), Some(ca_file)).unwrap();
        let agent = start_agent_process(&files).unwrap();
        lab.eventually("the agent says why", || agent.log().contains(why).then_some(())).await;
        assert!(fleet.get(&format!("agents/{name}")).is_err(), "{name} joined");
    }

    // The agent at the CA: the first of these is a CA that it can verify.
    let (agent, files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
    fleet.post("ca-servers", &fleet.ca_server("far", &relayed(&fleet.ca_url).await).unwrap()).unwrap();
    let mac = json!({ "reference": "ref-ap-1", "secret": "secret-ap-1" });
    let far = json!({ "name": "far", "entity": "default", "ca_server": "far", "policy": "default", "mac": mac });
    fleet.post("devices/ap-1/trustpoints", &far).unwrap();
    let job = fleet.post("devices/ap-1/trustpoints/far/enroll", &json!({ "request": "ir" })).unwrap();
    let failure = fleet.job_ended(&job, LIMIT).await.unwrap()["failure"].to_string();
    assert!(failure.contains("ca_unreachable") && failure.contains(another_name), "{failure}");

    // The agent at the broker: it knows the controller's root, and the broker has another one.
    drop(agent);
    let own = TlsAuthority::new("CA of the API alone").unwrap();
    let api_tls = own.write(&dir.join("api-tls"), "api", &["localhost", "127.0.0.1"]).unwrap();
    let config = changed(dir, &stack, |config| {
        config["http"]["tls_cert_file"] = json!(api_tls.certificate);
        config["http"]["tls_key_file"] = json!(api_tls.key);
    });
    let mut serve = command("trustfleet").unwrap();
    serve.arg("serve").arg("--config").arg(&config);
    let mut controller = Child::start("trustfleet serve", serve).unwrap();
    let line: serde_json::Value =
        serde_json::from_str(&controller.line_with("\"listening\"", LIMIT).await.unwrap()).unwrap();
    let text = fs::read_to_string(&files.config).unwrap();
    let mut config: toml::Table = text.parse().unwrap();
    config.insert("controller_url".to_owned(), line["listening"].as_str().unwrap().into());
    config.insert("tls_ca_file".to_owned(), api_tls.ca.to_str().unwrap().into());
    fs::write(&files.config, config.to_string()).unwrap();
    let agent = start_agent_process(&files).unwrap();
    let refused =
        || agent.log().lines().any(|line| line.contains("the broker") && line.contains(unknown)).then_some(());
    lab.eventually("the agent refuses the broker", refused).await;
    assert!(!agent.log().contains("connected to the broker"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apis_certificate_is_renewed_under_load_without_a_failed_request() {
    let (_stack, mut lab, tls) = encrypted().await;
    let authority = TlsAuthority::new("Renewing CA").unwrap();
    let secret = MountedSecret::new(lab.dir.path(), &authority, 2040);
    let mut config: toml::Table = fs::read_to_string(&lab.house.files.config).unwrap().parse().unwrap();
    let http = config["http"].as_table_mut().unwrap();
    http.insert("tls_cert_file".to_owned(), secret.path("tls.crt").to_str().unwrap().into());
    http.insert("tls_key_file".to_owned(), secret.path("tls.key").to_str().unwrap().into());
    fs::write(&lab.house.files.config, config.to_string()).unwrap();
    lab.house.controller.terminate(LIMIT).await.unwrap();
    lab.house.start_again().await.unwrap();
    let ca_file = lab.dir.path().join("renewing-ca.pem");
    fs::write(&ca_file, authority.pem()).unwrap();
    let base = lab.house.platform.base().clone();
    lab.house.platform = Rest::trusting(base.clone(), None, &ca_file).unwrap();
    let client = TlsFiles { ca: ca_file.clone(), ..tls };
    assert_eq!(last_year(&client, &base).await, "2040");

    let stop = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (stop, asked, failed) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            let (base, ca_file) = (base.clone(), ca_file.clone());
            std::thread::spawn(move || {
                let mut rest = Rest::trusting(base.clone(), None, &ca_file).unwrap();
                while !stop.load(Relaxed) {
                    if number > 0 {
                        // A new connection for each request; the first client keeps its own over everything.
                        rest = Rest::trusting(base.clone(), None, &ca_file).unwrap();
                    }
                    asked.fetch_add(1, Relaxed);
                    if rest.get("/healthz").is_err() {
                        failed.fetch_add(1, Relaxed);
                    }
                }
            })
        })
        .collect();
    let more_than = async |before: u64| {
        let some =
            eventually(LIMIT, "requests are answered", async || (asked.load(Relaxed) > before + 50).then_some(()));
        some.await.unwrap();
    };
    more_than(0).await;
    for year in [2041, 2042, 2043] {
        secret.swap(&authority, year);
        let end = format!(
            "{}",
            jiff::civil::date(i16::try_from(year).unwrap(), 12, 31)
                .to_zoned(jiff::tz::TimeZone::UTC)
                .unwrap()
                .timestamp()
                .as_second()
        );
        lab.metric_becomes("trustfleet_api_certificate_not_after_timestamp_seconds", end.parse().unwrap()).await;
        assert_eq!(last_year(&client, &base).await, year.to_string());
        more_than(asked.load(Relaxed)).await;
    }

    // Files that cannot be used leave the former certificate in service, and are told.
    secret.spoil();
    lab.house.controller.hang_up();
    lab.metric_becomes("trustfleet_api_certificate_refused", 1.0).await;
    let ready = lab.house.platform.get("/readyz").unwrap();
    assert!(ready["warnings"][0].as_str().unwrap().contains("certificate was refused"), "{ready}");
    assert_eq!(last_year(&client, &base).await, "2043");
    more_than(asked.load(Relaxed)).await;
    secret.swap(&authority, 2044);
    lab.metric_becomes("trustfleet_api_certificate_refused", 0.0).await;
    assert_eq!(lab.house.platform.get("/readyz").unwrap(), json!({ "status": "ok" }));
    stop.store(true, Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(failed.load(Relaxed), 0, "of {}", asked.load(Relaxed));
    assert!(lab.house.controller.log().contains("told to look at the certificate's files again"));
}

/// Certificate and key as Kubernetes mounts a Secret: links through `..data`, which is swapped.
struct MountedSecret {
    dir: PathBuf,
}

impl MountedSecret {
    fn new(dir: &Path, authority: &TlsAuthority, last_year: i32) -> Self {
        let secret = Self { dir: dir.join("secret") };
        fs::create_dir(&secret.dir).unwrap();
        secret.swap(authority, last_year);
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), secret.path(name)).unwrap();
        }
        secret
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn swap(&self, authority: &TlsAuthority, last_year: i32) {
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"], last_year).unwrap();
        let version = format!("..{last_year}");
        fs::create_dir(self.path(&version)).unwrap();
        fs::write(self.path(&version).join("tls.crt"), certificate).unwrap();
        fs::write(self.path(&version).join("tls.key"), key).unwrap();
        symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    /// The key of another certificate.
    fn spoil(&self) {
        let (_, key) = TlsAuthority::new("x").unwrap().issue(&["localhost"], 2049).unwrap();
        fs::write(self.path("tls.key"), key).unwrap();
    }
}

/// The year in which the certificate ends that a new connection is shown.
async fn last_year(client: &TlsFiles, url: &Url) -> String {
    let connector = TlsConnector::from(Arc::new(client.client_config().unwrap()));
    let socket = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let end = trustfleet_pki::certificate::Certificate::from_der(&certificate).unwrap().not_after();
    end.to_zoned(jiff::tz::TimeZone::UTC).year().to_string()
}

/// The controller's configuration on `stack` with something else in it, as a file of its own; it takes a free port.
fn changed(dir: &Path, stack: &Stack, change: impl FnOnce(&mut serde_json::Value)) -> PathBuf {
    let dir = tempfile::Builder::new().tempdir_in(dir).unwrap().keep();
    let files = ControllerFiles::write(&dir, stack.env(), 0).unwrap();
    let mut config: serde_json::Value = toml::from_str(&fs::read_to_string(&files.config).unwrap()).unwrap();
    change(&mut config);
    fs::write(&files.config, toml::to_string(&config).unwrap()).unwrap();
    files.config
}

/// The same server under an address that its certificate does not name.
async fn relayed(url: &Url) -> Url {
    let target: SocketAddr = format!("127.0.0.1:{}", url.port().unwrap()).parse().unwrap();
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let mut far = url.clone();
    far.set_host(Some("127.0.0.2")).unwrap();
    far.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(target).await.unwrap();
                // A client that does not trust the certificate ends here.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    far
}

/// What a server answers to something in plain text, until it closes the connection.
async fn plaintext(url: &Url, greeting: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    stream.write_all(greeting).await.unwrap();
    let mut said = Vec::new();
    // A reset is as good an end as any.
    let _ = timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("the server ends the connection");
    said
}

/// `trustfleet agent list` against `url`, verified by `ca_file`: exit code and output.
async fn verb(lab: &Lab, url: &Url, ca_file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(binary("trustfleet").unwrap());
    command.args(["agent", "list", "--tenant", TENANT, "--url", url.as_str(), "--ca-file"]).arg(ca_file);
    let output = command.env("TRUSTFLEET_TOKEN_FILE", &lab.house.files.first_token).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}
