//! Verbs on trustpoints: the operator's daily work.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Expiry, Page, Selector, duration, given},
    certificate,
    error::CliError,
    follow, job,
    output::{Column, ago, due, expiry, text},
    recovery,
    secret::{MAC_SECRET_VARIABLE, mac_secret},
    session::Session,
    statistics, transfer,
};

const CHECKS: &[Column] = &[
    Column::new("CHECK", |item, _| text(item, "/name")),
    Column::new("RESULT", |item, _| text(item, "/result")),
    Column::new("RULE", |item, _| text(item, "/rule")),
    Column::new("FOUND", |item, _| text(item, "/message")),
];

/// How long an automatic activation may follow its enrolment until the certificate is shown as it stands.
const ACTIVATION_GRACE: Duration = Duration::from_secs(5);

/// Verbs on trustpoints.
#[derive(Debug, Subcommand)]
pub enum TrustpointVerb {
    /// List trustpoints with their certificates
    List {
        /// Only of this device
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// Only in this state: not_enrolled, requesting, staged, active, revoked or failed
        #[arg(long, value_name = "STATE")]
        status: Option<String>,
        /// Only of this CA server
        #[arg(long, value_name = "NAME")]
        ca_server: Option<String>,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        #[command(flatten)]
        selector: Selector,
        #[command(flatten)]
        expiry: Expiry,
        #[command(flatten)]
        page: Page,
    },
    /// Make many trustpoints, from a file of JSON lines as `export` writes them; exit code 1 when a line was refused
    #[command(
        after_help = "A line has device, name, entity, ca_server, policy and if wanted services, all by their names. It is taken \
        as a whole or not at all; the others go on, and the same file once more changes nothing. MAC secrets have an import of \
        their own (trustfleet secret import).\nExample:\n  trustfleet trustpoint import trustpoints.ndjson --dry-run"
    )]
    Import {
        /// The file; '-' is stdin
        file: PathBuf,
        /// Say what would become of each line, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write all trustpoints as JSON lines that an import takes, by names and without secrets
    Export {
        #[command(flatten)]
        selector: Selector,
        /// Write them to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Show a trustpoint: what is under way, what is in use, what failed last
    Show {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
    },
    /// Make a trustpoint on a device
    #[command(after_help = "The MAC secret never stands on the command line. Examples:\n  \
        trustfleet trustpoint create ap-1 radius --entity access-points --ca-server lab --policy p256 \\\n    \
        --mac-reference ap-1 --mac-secret-file ap-1.secret\n  \
        pass show ca/ap-1 | trustfleet trustpoint create ap-1 radius … --mac-reference ap-1 --mac-secret-file -")]
    Create {
        /// The device
        device: String,
        /// Name of the trustpoint, at most 32 characters
        name: String,
        /// Entity: subject and alternative names
        #[arg(long, value_name = "NAME")]
        entity: String,
        /// CA server
        #[arg(long, value_name = "NAME")]
        ca_server: String,
        /// CMP policy
        #[arg(long, value_name = "NAME")]
        policy: String,
        /// Reference value by which the CA finds the secret
        #[arg(long, value_name = "TEXT")]
        mac_reference: Option<String>,
        /// File with the MAC secret, `-` for stdin [env: TRUSTFLEET_MAC_SECRET]
        #[arg(long, value_name = "FILE", requires = "mac_reference")]
        mac_secret_file: Option<PathBuf>,
        /// Delete the secret when an enrolment by it has succeeded
        #[arg(long, requires = "mac_reference")]
        mac_one_time: bool,
        /// Service of the device that uses the certificate, named as in its agent's configuration; may be repeated
        #[arg(long = "service", value_name = "NAME")]
        services: Vec<String>,
    },
    /// Bind a trustpoint to these services of its device and no others; with none, to no service
    #[command(after_help = "The next job takes them along. To give them the certificate that is in use now:\n  \
        trustfleet trustpoint activate DEVICE TRUSTPOINT --wait")]
    SetServices {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// Services, named as in the agent's configuration
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Delete a trustpoint; its certificates stay known
    Delete {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
    },
    /// Ask the CA for a certificate
    Enroll {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// Which request: ir the first, cr a further one, kur an update signed with the certificate in use
        #[arg(long, value_enum, default_value_t)]
        request: Request,
        /// Follow the job until it ends, then show the certificate; exit code 1 when it fails
        #[arg(long)]
        wait: bool,
        /// With --wait: give up watching after this time; the job goes on
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
        timeout: Duration,
        /// The same key gets the same job, even after it ended: for scripts that repeat themselves. A key that only joined
        /// a job already under way does so until the trustpoint's next job
        #[arg(long, value_name = "TEXT")]
        idempotency_key: Option<String>,
        /// Do not wait, whatever has failed before
        #[arg(long)]
        force: bool,
        /// With --force: although the trustpoint has had as many certificates of late as its policy allows
        #[arg(long, requires = "force")]
        confirm_floor: bool,
    },
    /// Try on the device everything that an enrolment needs, and say nothing to the CA; exit code 1 when it would fail
    DryRun {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// For which request
        #[arg(long, value_enum, default_value_t)]
        request: Request,
        /// Give up watching after this time; the job goes on
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
        timeout: Duration,
    },
    /// Arm what a certificate is asked for by, once, when the one in use has ended while the device was away
    #[command(
        after_help = "Example:\n  trustfleet trustpoint arm-recovery ap-1 dot1x --by mac --reference once-4711 --secret-file once.txt --for 60d"
    )]
    ArmRecovery(recovery::ArmRecovery),
    /// Disarm a recovery; its secret is deleted
    DisarmRecovery {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
    },
    /// Renew a trustpoint by itself, or not, over what its policy says
    AutoUpdate {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// on, off, or as the policy says; on is refused while a condition of an update is missing
        #[arg(value_enum)]
        switch: Switch,
    },
    /// List its certificates, newest first: who or what asked, when each took effect, and what took its place
    History {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        #[command(flatten)]
        page: Page,
    },
    /// Show what its CMP session has done so far: requests, responses, polls, successes, failures
    Statistics {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// Set them to nothing
        #[arg(long)]
        reset: bool,
    },
    /// Put the staged certificate into use; where none is staged, give the one in use to its services once more
    Activate {
        /// The device
        device: String,
        /// The trustpoint
        name: String,
        /// Follow the job until it ends; exit code 1 when it fails
        #[arg(long)]
        wait: bool,
        /// With --wait: give up watching after this time; the job goes on
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
        timeout: Duration,
    },
}

/// Whether a trustpoint is renewed by itself.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Switch {
    /// It is
    On,
    /// It is not
    Off,
    /// As its policy says
    Policy,
}

impl Switch {
    const fn enabled(self) -> Option<bool> {
        match self {
            Self::On => Some(true),
            Self::Off => Some(false),
            Self::Policy => None,
        }
    }
}

/// Kind of the CMP request.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Request {
    /// Initialization request: the first certificate, by reference and secret
    #[default]
    Ir,
    /// Certification request: a further certificate
    Cr,
    /// Key update request: signed with the certificate in use
    Kur,
}

impl Request {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ir => "ir",
            Self::Cr => "cr",
            Self::Kur => "kur",
        }
    }
}

const TRUSTPOINTS: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/name")),
    Column::new("STATUS", |item, _| text(item, "/status")),
    Column::new("AWAITING", |item, _| awaiting(item)),
    Column::new("SUBJECT", |item, _| text(item, "/active/subject")),
    Column::new("SERIAL", |item, _| text(item, "/active/serial")),
    Column::new("NOT AFTER", |item, now| expiry(item, "/active/not_after", now)),
    Column::new("SERVICES", |item, _| services(item)),
    Column::new("RENEWAL", |item, now| due(item, "/next_action_at", now)),
    Column::new("LAST FAILURE", |item, _| text(item, "/last_failure/code")),
    Column::new("UPDATED", |item, now| ago(item, "/updated_at", now)),
];

const HISTORY: &[Column] = &[
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("SLOT", |item, _| text(item, "/slot")),
    Column::new("REQUEST", |item, _| text(item, "/request")),
    Column::new("HOW", |item, _| text(item, "/how")),
    Column::new("REQUESTED BY", |item, _| text(item, "/requested_by")),
    Column::new("POLICY REVISION", |item, _| text(item, "/policy_revision")),
    Column::new("ISSUED", |item, now| ago(item, "/issued_at", now)),
    Column::new("IN USE", |item, now| ago(item, "/activated_at", now)),
    Column::new("REPLACED BY", |item, _| text(item, "/replaced/serial")),
    Column::new("BECAUSE", |item, _| text(item, "/replaced/because")),
    Column::new("JOB", |item, _| text(item, "/job_id")),
];

fn awaiting(item: &Value) -> String {
    let word = text(item, "/request/awaiting");
    match item.pointer("/request/last_error") {
        _ if word == "nothing" => "-".to_owned(),
        Some(Value::String(_)) => format!("{word} (no answer)"),
        _ => word,
    }
}

/// Each service with what was last seen of it; `?` where nobody has said anything yet.
fn services(item: &Value) -> String {
    let bound = item["services"].as_array().map_or(&[][..], Vec::as_slice);
    let said = item.pointer("/in_service/services").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let seen = |name: &Value| said.iter().find(|outcome| outcome["service"] == *name);
    let words: Vec<_> = bound
        .iter()
        .map(|name| {
            let result = seen(name).map_or_else(|| "?".to_owned(), |outcome| text(outcome, "/result"));
            format!("{}:{result}", name.as_str().unwrap_or_default())
        })
        .collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

const FIRST: &[&str] = &[
    "device",
    "name",
    "status",
    "request",
    "active",
    "staged",
    "previous",
    "last_failure",
    "services",
    "in_service",
    "entity",
    "ca_server",
];

/// Runs a verb on trustpoints.
pub(super) fn run(session: &Session, verb: TrustpointVerb) -> Result<(), CliError> {
    match verb {
        TrustpointVerb::List { device, status, ca_server, policy, selector, expiry, page } => {
            let [before, after] = expiry.query(session.now());
            let selector = ("selector", selector.query());
            let filters =
                given([("status", status), ("ca_server", ca_server), ("policy", policy), selector, before, after]);
            let list = match &device {
                Some(device) if filters.is_empty() => session.list(&["devices", device, "trustpoints"], &page, &[])?,
                device => {
                    let device = device.iter().map(|name| ("device", name.clone()));
                    let filters: Vec<_> = device.chain(filters).collect();
                    session.list(&["trustpoints"], &page, &filters)?
                }
            };
            session.print_list(&list, TRUSTPOINTS, "trustfleet trustpoint enroll DEVICE TRUSTPOINT --wait")
        }
        TrustpointVerb::Import { file, dry_run } => transfer::import(session, "trustpoints", &file, dry_run),
        TrustpointVerb::Export { selector, write_to } => {
            transfer::export(session, "trustpoints", &given([("selector", selector.query())]), write_to)
        }
        TrustpointVerb::Show { device, name } => {
            let trustpoint = session.read(&["devices", &device, "trustpoints", &name])?;
            let next = next_after(&trustpoint, &device, &name);
            session.print_object(&trustpoint, FIRST, &next)
        }
        TrustpointVerb::Create {
            device,
            name,
            entity,
            ca_server,
            policy,
            mac_reference,
            mac_secret_file,
            mac_one_time,
            services,
        } => {
            let mut body = json!({ "name": name, "entity": entity, "ca_server": ca_server, "policy": policy });
            if !services.is_empty() {
                body["services"] = json!(services);
            }
            if let Some(reference) = mac_reference {
                let secret = mac_secret(mac_secret_file.as_deref())?.ok_or_else(|| {
                    CliError::Usage(format!("no MAC secret: give --mac-secret-file FILE or set {MAC_SECRET_VARIABLE}"))
                })?;
                body["mac"] = json!({ "reference": reference, "secret": secret.expose(), "one_time": mac_one_time });
            }
            let trustpoint = session.call(Method::POST, &["devices", &device, "trustpoints"], Some(&body))?;
            session.warn(&trustpoint);
            let next = format!("trustfleet trustpoint enroll {device} {name} --wait");
            session.print_object(&trustpoint, FIRST, &next)
        }
        TrustpointVerb::SetServices { device, name, services } => {
            let path = ["devices", &device, "trustpoints", &name, "services"];
            let bound = session.call(Method::PUT, &path, Some(&json!({ "services": services })))?;
            let next =
                format!("trustfleet trustpoint activate {device} {name} --wait gives them the certificate in use");
            session.print_object(&bound, &["services"], &next)
        }
        TrustpointVerb::Delete { device, name } => {
            session.call(Method::DELETE, &["devices", &device, "trustpoints", &name], None)?;
            session.print_deleted("trustpoint", &name)
        }
        TrustpointVerb::Enroll { device, name, request, wait, timeout, idempotency_key, force, confirm_floor } => {
            let path = ["devices", &device, "trustpoints", &name, "enroll"];
            let mut body = json!({ "request": request.as_str() });
            if force {
                body["force"] = true.into();
                body["confirm_floor"] = confirm_floor.into();
            }
            let headers: Vec<_> = idempotency_key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
            let job = session.call_with(Method::POST, &path, Some(&body), &[], &headers)?;
            if !wait {
                return session.print_object(&job, job::FIRST, &follow::next_after(&job));
            }
            follow::until_end(session, &text(&job, "/id"), timeout)?;
            let certificate = issued(session, &device, &name, &job, timeout)?;
            let next = match text(&certificate, "/slot").as_str() {
                "staged" => format!("trustfleet trustpoint activate {device} {name} --wait"),
                _ => format!("trustfleet certificate show {} --pem", text(&certificate, "/id")),
            };
            session.print_object(&certificate, certificate::FIRST, &next)
        }
        TrustpointVerb::DryRun { device, name, request, timeout } => {
            let path = ["devices", &device, "trustpoints", &name, "dry-run"];
            let job = session.call(Method::POST, &path, Some(&json!({ "request": request.as_str() })))?;
            let job = follow::until_end(session, &text(&job, "/id"), timeout)?;
            let next = format!("trustfleet trustpoint enroll {device} {name} --request {} --wait", request.as_str());
            session.print_list(&json!({ "items": job["dry_run"]["checks"] }), CHECKS, &next)?;
            if job["dry_run"]["ready"] == true {
                return Ok(());
            }
            let text = format!("{device}/{name} is not ready for {}", request.as_str());
            Err(CliError::JobFailed { text, next: "mend what failed above, then try again".to_owned() })
        }
        TrustpointVerb::ArmRecovery(arm) => recovery::arm(session, arm),
        TrustpointVerb::DisarmRecovery { device, name } => recovery::disarm(session, &device, &name),
        TrustpointVerb::AutoUpdate { device, name, switch } => {
            let path = ["devices", &device, "trustpoints", &name, "auto-update"];
            let body = json!({ "enabled": switch.enabled() });
            let trustpoint = session.call(Method::PUT, &path, Some(&body))?;
            session.print_object(
                &trustpoint,
                FIRST,
                &format!("trustfleet policy show {}", text(&trustpoint, "/policy")),
            )
        }
        TrustpointVerb::History { device, name, page } => {
            let list = session.list(&["devices", &device, "trustpoints", &name, "history"], &page, &[])?;
            session.print_list(&list, HISTORY, "trustfleet job transcript JOB shows what went to and fro")
        }
        TrustpointVerb::Statistics { device, name, reset } => {
            let next = format!("trustfleet job list --device {device} --trustpoint {name}");
            statistics::print(session, &["devices", &device, "trustpoints", &name], reset, &next)
        }
        TrustpointVerb::Activate { device, name, wait, timeout } => {
            let path = ["devices", &device, "trustpoints", &name, "activate"];
            let job = session.call(Method::POST, &path, None)?;
            if !wait {
                return session.print_object(&job, job::FIRST, &follow::next_after(&job));
            }
            follow::until_end(session, &text(&job, "/id"), timeout)?;
            let trustpoint = session.read(&["devices", &device, "trustpoints", &name])?;
            let next = next_after(&trustpoint, &device, &name);
            session.print_object(&trustpoint, FIRST, &next)
        }
    }
}

/// The certificate that a job brought; where the policy activates by itself, the activation is waited for: shortly, or for
/// as long as its services take, at most `limit`. When they fail, that is the end.
fn issued(session: &Session, device: &str, name: &str, job: &Value, limit: Duration) -> Result<Value, CliError> {
    let begin = Instant::now();
    let path = ["devices", device, "trustpoints", name];
    let trustpoint = session.read(&path)?;
    let policy = session.read(&["policies", &text(&trustpoint, "/policy")])?;
    let by_kind = &policy["activation_by_kind"][text(job, "/kind")];
    let automatic = by_kind.as_bool().unwrap_or_else(|| policy["activation"] == "automatic");
    let has_services = services(&trustpoint) != "-";
    let grace = if has_services { limit } else { ACTIVATION_GRACE };
    let whole = Page { limit: 1, after: None, all: true };
    loop {
        let trustpoint = session.read(&path)?;
        if trustpoint["last_failure"].is_object() && automatic {
            return Err(CliError::JobFailed {
                text: format!(
                    "the certificate is issued, and could not be put into use: {}",
                    text(&trustpoint, "/last_failure/message")
                ),
                next: format!("trustfleet trustpoint show {device} {name}, then activate again"),
            });
        }
        let list = session.list(&["certificates"], &whole, &[("device", device.to_owned())])?;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let found = items.iter().find(|item| item["job_id"] == job["id"]);
        let settled = found.is_some_and(|item| !automatic || item["slot"] != "staged");
        if settled || begin.elapsed() > grace {
            return found.cloned().ok_or_else(|| CliError::NotTrustfleet {
                url: format!("certificates of {device}"),
                what: format!("job {} succeeded, but its certificate is not in the list", text(job, "/id")),
            });
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn next_after(trustpoint: &Value, device: &str, name: &str) -> String {
    match text(trustpoint, "/status").as_str() {
        "requesting" => format!("trustfleet job wait {}", text(trustpoint, "/request/job_id")),
        "staged" => format!("trustfleet trustpoint activate {device} {name} --wait"),
        "active" => format!("trustfleet trustpoint enroll {device} {name} --request kur --wait renews it"),
        _ => format!("trustfleet trustpoint enroll {device} {name} --wait"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_fits_what_the_trustpoint_waits_for() {
        for (trustpoint, word) in [
            (json!({"status": "not_enrolled"}), "enroll ap-1 radius --wait"),
            (json!({"status": "requesting", "request": {"awaiting": "ca", "job_id": "j1"}}), "job wait j1"),
            (json!({"status": "staged"}), "activate ap-1 radius"),
            (json!({"status": "active"}), "--request kur"),
        ] {
            assert!(next_after(&trustpoint, "ap-1", "radius").contains(word));
        }
    }
}
