//! Logs and traces of the programs: one set-up for both, one exporter, one way to go on with a trace.
//!
//! Why it exists: one enrolment is one trace, from the REST request through the database and the broker to the agent,
//! the CA and back, and a log line in the middle of it names the trace. Without a configured endpoint there are no
//! spans at all, and a trace context is passed through as it came.
//!
//! A span must never carry a secret, and a receiver that is slow, down or wrong must never slow, block or end anything:
//! finished spans wait in a bounded queue, what does not fit or cannot be delivered is counted and said in the log at
//! most once a minute.
//!
//! Spans are made by [`trace_span!`](crate::trace_span) and are `tracing` spans of the target [`TARGET`]: the log does
//! not show them, and the exporter shows nothing else, so that no line of the log and no span of another library ever
//! leaves by this way.

mod config;
mod context;
mod exporter;
mod line;
mod losses;
mod start;

pub use self::{
    config::{TracesConfig, TracesError},
    context::{carried, continue_from, current_traceparent, in_trace, record_error},
    start::{Guard, Log, LogForm, Service, start},
};
#[doc(hidden)]
pub use context::adopted as __adopted;
#[doc(hidden)]
pub use tracing as __tracing;

/// Target of the spans that belong to traces.
pub const TARGET: &str = "trustfleet::trace";

/// A span of a trace: `trace_span!("server", "POST /v1/…", field = value, …)`.
///
/// Kind (`server`, `client`, `producer`, `consumer`, `internal`) and name first, the name of few values; then fields as
/// for [`tracing::info_span!`], whole numbers as `i64`: others would arrive as text. `otel.status_code` and `error.type`
/// are there to be recorded by [`record_error`]. It is a child of the span that is entered here, and ends when it is
/// dropped itself: not later for children that go on. Nothing secret, ever: no credential, no MAC secret, no salt, no body.
#[macro_export]
macro_rules! trace_span {
    ($kind:literal, $name:expr $(, $($fields:tt)*)?) => {
        $crate::__adopted($crate::__tracing::info_span!(
            target: $crate::TARGET,
            parent: None,
            "trace",
            otel.name = $name,
            otel.kind = $kind,
            otel.status_code = $crate::__tracing::field::Empty,
            error.type = $crate::__tracing::field::Empty,
            $($($fields)*)?
        ))
    };
}
