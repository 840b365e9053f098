//! Logs and traces of the controller: lowercase sentences without a full stop, ids as fields, units in names; nothing
//! secret ever.

use std::{error::Error, fmt::Write as _};

use trustfleet_telemetry::{Guard, Log, LogForm, Service, TracesConfig, TracesError};

use crate::config::{LogConfig, LogFormat};

/// Sends logs to stderr, because stdout belongs to the line that says where the controller listens, and spans to the
/// configured receiver. `instance`: random, for telling replicas apart.
///
/// # Errors
/// The section `traces` of the configuration cannot work.
pub fn start(log: &LogConfig, traces: &TracesConfig, instance: [u8; 16]) -> Result<Guard, TracesError> {
    let service =
        Service { name: "trustfleet-controller", version: env!("CARGO_PKG_VERSION"), instance, attributes: Vec::new() };
    let form = match log.format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json { flat: true },
    };
    // actix calls a request that cannot be read an error: whoever sends many of them would fill the log.
    let filter = format!("actix_http::h1=off,{}", log.filter.as_deref().unwrap_or("info"));
    trustfleet_telemetry::start(service, Log { form, filter }, traces)
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
