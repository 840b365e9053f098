//! `trustfleet-agent cmp` over https, through a proxy, and from a chosen address.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::cmp_shell::Desk;
use crate::openssl::MockServer;

const ENROL: &str = "--subject /CN=dev1 --newkey dev.key --certout dev.crt";

/// A certificate of the desk's own for localhost, `tls.crt`.
fn server_certificate(desk: &Desk) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", "tls.crt"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key"])
        .current_dir(desk.folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Ends TLS in front of a server of plain HTTP; with `clients`, only for those that the desk's CA certifies.
pub fn tls_in_front_of(desk: &Desk, server: SocketAddr, clients: bool) -> SocketAddr {
    server_certificate(desk);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if clients {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(desk.ca.certificate.as_der().to_vec())).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_slice(desk.read("tls.crt").as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(desk.read("tls.key").as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let inside = rustls::ServerConnection::new(config).unwrap();
                one_request(rustls::StreamOwned::new(inside, stream), server)
            });
        }
    });
    address
}

/// One request and its answer, after which both connections end.
fn one_request(inside: impl Read + Write, server: SocketAddr) -> io::Result<()> {
    let mut inside = BufReader::new(inside);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        inside.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    inside.read_exact(&mut body)?;
    let mut outside = TcpStream::connect(server)?;
    outside.write_all(&[head.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    outside.read_to_end(&mut answer)?;
    let inside = inside.get_mut();
    inside.write_all(&answer)?;
    inside.flush()
}

/// A proxy that knows CONNECT only; says what it was asked for.
fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, log) = (listener.local_addr().unwrap(), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            thread::spawn(move || tunnel(stream, &log));
        }
    });
    (address, asked)
}

fn tunnel(stream: TcpStream, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    log.lock().unwrap().push(first.trim().to_owned());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let target = first.split_whitespace().nth(1).unwrap_or_default();
    let outside = TcpStream::connect(target)?;
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 go on\r\n\r\n")?;
    let (mut there, mut back) = (outside.try_clone()?, outside);
    let copying = thread::spawn(move || {
        let _ = io::copy(&mut reader, &mut there);
        let _ = there.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut back, &mut stream);
    let _ = stream.shutdown(Shutdown::Both);
    let _ = copying.join();
    Ok(())
}

fn own() -> String {
    format!("--ref {} --secret file:secret --allow-sha1 --trusted ca.crt", crate::cmp_shell::REFERENCE)
}

fn plain(server: &MockServer) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.address().port()))
}

#[test]
fn over_https_with_the_roots_that_were_given_and_no_others() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let port = tls_in_front_of(&desk, plain(&server), false).port();
    let words = format!("ir --server localhost:{port} --path /pkix/ --tls-used {} {ENROL}", own());
    desk.cmp(&format!("{words} --tls-trusted tls.crt")).ends(0);
    assert_eq!(desk.certificate("dev.crt"), desk.issued);
    let json = desk.cmp(&format!("{words} --tls-trusted ca.crt --output json")).ends(4).json();
    assert_eq!((&json["error"]["code"], &json["error"]["maybe_issued"]), (&"ca_unreachable".into(), &false.into()));
}

#[test]
fn over_https_with_a_client_certificate_where_the_server_wants_one() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let port = tls_in_front_of(&desk, plain(&server), true).port();
    let words = format!("ir --server https://localhost:{port}/pkix/ --tls-trusted tls.crt {} {ENROL}", own());
    desk.cmp(&format!("{words} --tls-cert factory.crt --tls-key factory.key")).ends(0);
    desk.cmp(&words).ends(4);
}

#[test]
fn through_a_proxy_by_connect_for_http_and_https_except_for_hosts_that_go_without() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let port = tls_in_front_of(&desk, plain(&server), false).port();
    let (proxy, asked) = proxy();
    let enrol = format!("{} {ENROL} --proxy {proxy}", own());
    desk.cmp(&format!("ir --server https://localhost:{port}/pkix/ --tls-trusted tls.crt {enrol}")).ends(0);
    assert!(asked.lock().unwrap()[0].starts_with(&format!("CONNECT localhost:{port} ")), "{asked:?}");
    asked.lock().unwrap().clear();
    desk.cmp(&format!("ir --server http://{}/pkix/ {enrol}", plain(&server))).ends(0);
    assert!(asked.lock().unwrap()[0].starts_with(&format!("CONNECT {} ", plain(&server))), "{asked:?}");
    asked.lock().unwrap().clear();
    desk.cmp(&format!("ir --server http://{}/pkix/ {enrol} --no-proxy 127.0.0.1", plain(&server))).ends(0);
    assert!(asked.lock().unwrap().is_empty(), "{asked:?}");
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let words = enrol.replace(&proxy.to_string(), &dead.to_string());
    let json = desk.cmp(&format!("ir --server http://{}/pkix/ {words} --output json", plain(&server))).ends(4).json();
    assert_eq!(json["error"]["maybe_issued"], false);
}

#[test]
fn s7_connections_come_from_the_address_that_was_chosen() {
    let desk = Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap();
    let server = desk.mac_server(&[]);
    let (back, seen) = (plain(&server), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            log.lock().unwrap().push(stream.peer_addr().unwrap().ip().to_string());
            let _ = one_request(stream, back);
        }
    });
    let words = format!("ir --server http://{front}/pkix/ {} {ENROL}", own());
    desk.cmp(&format!("{words} --source-address 127.0.0.9")).ends(0);
    assert_eq!(*seen.lock().unwrap(), ["127.0.0.9", "127.0.0.9"]);
    desk.cmp(&format!("{words} --interface lo")).ends(0);
    for nowhere in ["--source-address 192.0.2.1", "--source-address ::1", "--interface no-such-one"] {
        let json = desk.cmp(&format!("{words} {nowhere} --output json")).ends(4).json();
        assert_eq!(json["error"]["maybe_issued"], false, "{nowhere}");
    }
}

#[test]
fn s7_over_https_and_through_a_proxy_as_well() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let port = tls_in_front_of(&desk, plain(&server), false).port();
    let (proxy, asked) = proxy();
    let words = format!("ir --server https://localhost:{port}/pkix/ --tls-trusted tls.crt {} {ENROL}", own());
    desk.cmp(&format!("{words} --proxy {proxy} --source-address 127.0.0.9")).ends(0);
    assert_eq!(asked.lock().unwrap().len(), 2);
}
