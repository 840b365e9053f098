//! Logs: lowercase sentences without a full stop, ids as fields, units in names; nothing secret ever.

use std::{
    error::Error,
    fmt::Write as _,
    io::{IsTerminal as _, stderr},
};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Sends logs to stderr; stdout belongs to the line that says where the controller listens.
pub fn start(config: &LogConfig) {
    let filter = config.filter.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    // A second start in one process (tests) keeps the first.
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
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
