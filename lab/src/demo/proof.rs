//! What must be true at the end, told by somebody else: `openssl` reads the files on the devices, the metrics count.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    DemoError,
    fleet::{DEVICES, word},
};
use crate::house::Rest;

/// The gauges are refreshed every few seconds.
const METRICS_LIMIT: Duration = Duration::from_secs(10);

/// The update brought another certificate, and the former one is kept.
pub(super) fn renewed(before: &Value, after: &Value) -> Result<(), DemoError> {
    let old = word(before, "/active/serial")?;
    let new = word(after, "/active/serial")?;
    let kept = word(after, "/previous/serial")?;
    if old == new || kept != old {
        let text = format!("the update went wrong: {old} was in use, now {new} is, and {kept} is kept as the former");
        return Err(DemoError::Unexpected(text));
    }
    Ok(())
}

/// `openssl verify` of every file in use on the devices, that the private key beside it fits and is nobody else's to
/// read, and `openssl x509` of the first.
pub(super) fn certificates(trustpoints: &[Value], ca_dir: &Path) -> Result<(), DemoError> {
    let (root, issuing) = (ca_dir.join("root.pem"), ca_dir.join("issuing.pem"));
    println!();
    for trustpoint in trustpoints {
        let file = PathBuf::from(word(trustpoint, "/active/file")?);
        let mut verify = Command::new("openssl");
        verify.arg("verify").arg("-CAfile").arg(&root).arg("-untrusted").arg(&issuing).arg(&file);
        output(verify)?;
        let key = file.with_file_name("key.pem");
        let mode = fs::metadata(&key).map_err(DemoError::file("looking at", &key))?.permissions().mode() & 0o777;
        let mut of_certificate = Command::new("openssl");
        of_certificate.args(["x509", "-noout", "-pubkey", "-in"]).arg(&file);
        let mut of_key = Command::new("openssl");
        of_key.args(["pkey", "-pubout", "-in"]).arg(&key);
        if output(of_certificate)? != output(of_key)? || mode != 0o600 {
            let text = format!("{} (mode {mode:o}) is not the private key of {}", key.display(), file.display());
            return Err(DemoError::Unexpected(text));
        }
        let (device, name) = (word(trustpoint, "/device")?, word(trustpoint, "/name")?);
        println!("openssl verify: {:14} OK, and the private key beside it (0600) fits", format!("{device}/{name}"));
    }
    let file = word(&trustpoints[0], "/active/file")?;
    let mut show = Command::new("openssl");
    show.args(["x509", "-noout", "-subject", "-issuer", "-serial", "-dates", "-ext", "subjectAltName", "-in"])
        .arg(&file);
    println!("\n$ openssl x509 -noout -subject -issuer -serial -dates -ext subjectAltName -in {file}");
    print!("{}", output(show)?);
    Ok(())
}

/// The controller's metrics say the same: one active certificate for each device, and every exchange counted. Exchanges are
/// counted by the replica that heard of them: where there are several (`alone` is false) only the certificates are held
/// against.
pub(super) async fn metrics(rest: &Rest, alone: bool) -> Result<(), DemoError> {
    let begin = Instant::now();
    loop {
        let text = match rest.get("/metrics")? {
            Value::String(text) => text,
            other => return Err(DemoError::Unexpected(format!("/metrics answers with {other}"))),
        };
        let active = sum(&text, "trustfleet_certificates", &["slot=\"active\""]);
        let initial = sum(&text, "trustfleet_exchanges_total", &["kind=\"ir\"", "result=\"issued\""]);
        let updates = sum(&text, "trustfleet_exchanges_total", &["kind=\"kur\"", "result=\"issued\""]);
        let wanted = u32::try_from(DEVICES.len()).map_or(f64::NAN, f64::from);
        if active == wanted && !alone {
            println!("\nmetrics: {active} certificates active");
            return Ok(());
        }
        if active == wanted && initial == wanted && updates == 1.0 {
            println!(
                "\nmetrics: {active} certificates active, {initial} certificates issued by ir and {updates} by kur"
            );
            return Ok(());
        }
        if begin.elapsed() > METRICS_LIMIT {
            let text = format!(
                "the metrics count {active} active certificates, {initial} exchanges by ir and {updates} by kur, not \
                 {wanted}, {wanted} and 1"
            );
            return Err(DemoError::Unexpected(text));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The API describes itself.
pub(super) fn openapi(rest: &Rest) -> Result<(), DemoError> {
    let document = rest.get("/openapi.json")?;
    let version = word(&document, "/openapi")?;
    let paths = document["paths"].as_object().map_or(0, serde_json::Map::len);
    if !version.starts_with("3.1") || paths == 0 {
        return Err(DemoError::Unexpected(format!("/openapi.json is OpenAPI {version} with {paths} paths")));
    }
    rest.get("/docs/")?;
    Ok(())
}

/// The sum of a metric's samples that carry all the labels, in Prometheus' text format.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

pub(super) fn output(mut command: Command) -> Result<String, DemoError> {
    let output = command.output().map_err(DemoError::file("running", "openssl"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(DemoError::Unexpected(format!("{command:?} says: {}", String::from_utf8_lossy(&said).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels_and_not_by_a_longer_name() {
        let text = "# HELP trustfleet_certificates Certificates.\ntrustfleet_certificates{slot=\"active\"} 4\n\
                    trustfleet_certificates{slot=\"previous\"} 1\ntrustfleet_certificates_total{slot=\"active\"} 9\n";
        assert_eq!(sum(text, "trustfleet_certificates", &["slot=\"active\""]), 4.0);
        assert_eq!(sum(text, "trustfleet_certificates", &[]), 5.0);
    }

    #[test]
    fn an_update_that_changed_nothing_is_noticed() {
        let before = serde_json::json!({"active": {"serial": "01"}});
        let good = serde_json::json!({"active": {"serial": "02"}, "previous": {"serial": "01"}});
        let same = serde_json::json!({"active": {"serial": "01"}, "previous": {"serial": "00"}});
        assert!(renewed(&before, &good).is_ok());
        assert!(renewed(&before, &same).is_err());
    }
}
