//! Real services under test, and what the controller says of them.
#![allow(dead_code)] // each test file uses its part

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use trustfleet_lab::house::Fleet;

/// Longest time for a job with its services.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The path of a program from the distribution; `scripts/setup.sh test` installs it.
pub(crate) fn program(path: &str, package: &str) -> String {
    assert!(Path::new(path).exists(), "there is no {path}: scripts/setup.sh test installs Debian's package {package}");
    path.to_owned()
}

/// Runs a program to its end.
pub(crate) fn run(words: &[&str]) -> Output {
    Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn done(words: &[&str]) -> String {
    let output = run(words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{words:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A certificate of nobody, so that a service can start before its first enrolment: what a device has out of its box.
pub(crate) fn placeholder(certificate: &Path, key: &Path) {
    for path in [certificate, key] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    done(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=placeholder",
        "-keyout",
        key,
        "-out",
        certificate,
    ]);
}

/// Binds the trustpoint `default` of a device to services.
pub(crate) fn bind(fleet: &Fleet, device: &str, services: &[&str]) {
    let path = fleet.path(&format!("devices/{device}/trustpoints/default/services"));
    let answer = fleet.rest.send("PUT", &path, &[], Some(&json!({ "services": services }))).unwrap();
    assert_eq!(answer.status, 200, "{:?}", answer.body);
}

/// Waits until the agent has told of services of a certificate other than `than`.
pub(crate) async fn told(lab: &super::support::Lab, fleet: &Fleet, device: &str, than: &Value) -> Value {
    lab.eventually("the agent has told of its services", || {
        let trustpoint = fleet.trustpoint(device).ok()?;
        let serial = &trustpoint["in_service"]["serial"];
        (serial.is_string() && serial != than).then_some(trustpoint)
    })
    .await
}
