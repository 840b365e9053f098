//! Verbs on the recovery of trustpoints whose certificate has ended.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use serde_json::json;
use ureq::http::Method;

use super::{
    args::duration,
    error::CliError,
    secret::{MAC_SECRET_VARIABLE, mac_secret},
    session::Session,
};

/// What arms a recovery.
#[derive(Debug, Args)]
pub struct ArmRecovery {
    /// The device
    device: String,
    /// The trustpoint
    name: String,
    /// By what a certificate is asked for
    #[arg(long, value_enum)]
    by: By,
    /// With --by mac: reference value that the CA knows for this
    #[arg(long, value_name = "TEXT", required_if_eq("by", "mac"))]
    reference: Option<String>,
    /// With --by mac: file with the secret, `-` for stdin [default: the environment's TRUSTFLEET_MAC_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// For how long it is armed, such as 30d; then it is disarmed, and its secret deleted
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "30d")]
    armed_for: Duration,
}

/// By what a certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// A MAC reference and secret, deleted after use
    Mac,
    /// The device's factory identity
    FactoryIdentity,
}

const FIRST: &[&str] = &["device", "name", "status", "recovery"];

/// Arms a recovery.
pub(super) fn arm(session: &Session, arm: ArmRecovery) -> Result<(), CliError> {
    let until = SignedDuration::try_from(arm.armed_for).ok().and_then(|time| session.now().checked_add(time).ok());
    let until = until.ok_or_else(|| CliError::Usage("--for is too long".to_owned()))?;
    let mut body = json!({ "until": until, "by": if arm.by == By::Mac { "mac" } else { "factory_identity" } });
    if arm.by == By::Mac {
        let secret = mac_secret(arm.secret_file.as_deref())?.ok_or_else(|| {
            CliError::Usage(format!("no MAC secret: give --secret-file FILE or set {MAC_SECRET_VARIABLE}"))
        })?;
        body["mac"] = json!({ "reference": arm.reference, "secret": secret.expose(), "one_time": true });
    }
    let path = ["devices", &arm.device, "trustpoints", &arm.name, "recovery"];
    let trustpoint = session.call(Method::PUT, &path, Some(&body))?;
    session.warn(&trustpoint);
    session.print_object(
        &trustpoint,
        FIRST,
        "it is used by itself when the certificate has ended and the agent is back",
    )
}

/// Disarms a recovery.
pub(super) fn disarm(session: &Session, device: &str, name: &str) -> Result<(), CliError> {
    session.call(Method::DELETE, &["devices", device, "trustpoints", name, "recovery"], None)?;
    session.print_deleted("recovery of trustpoint", &format!("{device}/{name}"))
}
