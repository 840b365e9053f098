//! What a program without an endpoint pays for traces: nothing. Alone in its process, as a program is: `tracing` asks
//! whether a span is wanted once, for all subscribers there are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use trustfleet_telemetry::{
    Log, LogForm, Service, TracesConfig, continue_from, current_traceparent, in_trace, start, trace_span,
};

#[test]
fn without_an_endpoint_no_span_is_ever_made() {
    let service = Service { name: "test", version: "1", instance: [0; 16], attributes: Vec::new() };
    let log = Log { form: LogForm::Text, filter: "trace".to_owned() };
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let _guard = start(service, log, &TracesConfig::default()).unwrap();
    assert_eq!(threads(), before, "nobody waits for spans to send");
    let span = trace_span!("server", "GET /x", trustfleet.job.id = "j");
    assert!(span.is_disabled());
    continue_from(&span, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    span.in_scope(|| assert!(!in_trace() && current_traceparent().is_none()));
}
