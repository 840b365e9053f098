//! An agent joins and works over HTTPS, and only with a server that it can verify.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use support::{Lab, policy};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use trustfleet_lab::house::{AgentFiles, start_agent_process};
use url::Url;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_joins_over_https_with_the_roots_it_was_given_and_enrols() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let https = tls_in_front_of(lab.dir.path(), lab.house.platform.base()).await;
    let token =
        fleet.post("join-tokens", &json!({ "agent_name": "ap-1" })).unwrap()["token"].as_str().unwrap().to_owned();
    let files = AgentFiles::write(lab.dir.path(), "ap-1", &https, &token).unwrap();
    let mut config = OpenOptions::new().append(true).open(&files.config).unwrap();
    writeln!(config, "tls_ca_file = {:?}", lab.dir.path().join("tls.pem")).unwrap();
    let _agent = start_agent_process(&files).unwrap();
    lab.eventually("the agent joined over https", || fleet.get("agents/ap-1").ok()).await;
    fleet.add_device("ap-1", "ap-1").unwrap();
    fleet.enrolled("ap-1", &fleet.enroll("ap-1", "ir").unwrap(), LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_shows_its_join_token_to_no_server_that_it_cannot_verify() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let https = tls_in_front_of(lab.dir.path(), lab.house.platform.base()).await;
    let token =
        fleet.post("join-tokens", &json!({ "agent_name": "ap-1" })).unwrap()["token"].as_str().unwrap().to_owned();
    let files = AgentFiles::write(lab.dir.path(), "ap-1", &https, &token).unwrap();
    let agent = start_agent_process(&files).unwrap();
    lab.eventually("the agent says why", || agent.log().to_lowercase().contains("certificate").then_some(())).await;
    assert!(fleet.get("agents/ap-1").is_err(), "it joined through a server with an unknown certificate");
}

/// Ends TLS for `controller` with a self-signed certificate for localhost, `tls.pem` in `dir`.
async fn tls_in_front_of(dir: &Path, controller: &Url) -> Url {
    let (certificate, key) = (dir.join("tls.pem"), dir.join("tls.key"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&fs::read(&certificate).unwrap()).unwrap()],
            PrivateKeyDer::from_pem_slice(&fs::read(&key).unwrap()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let target: SocketAddr = format!("127.0.0.1:{}", controller.port().unwrap()).parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate ends here.
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let mut outside = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    url
}
