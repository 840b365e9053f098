//! Trace context in and out, as W3C `traceparent` texts: the only form that travels in messages and lies in records.

use std::collections::HashMap;

use opentelemetry::{Context, propagation::TextMapPropagator as _, trace::TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

/// The trace context of here and now, to be sent along; `None` outside of any trace, always so without an endpoint.
/// The flags say whether the trace is recorded.
pub fn current_traceparent() -> Option<String> {
    let context = Context::current();
    context.span().span_context().is_valid().then(|| {
        let span = context.span();
        let span = span.span_context();
        format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
    })
}

/// Whether there is a trace to which a span made here would belong.
pub fn in_trace() -> bool {
    Context::current().span().span_context().is_valid()
}

/// Work that belongs to the trace of here and now, also when another thread does it. It keeps no span open.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let context = Context::current();
    move || {
        let _here = context.attach();
        work()
    }
}

/// A child of the span that is entered here. `tracing` itself knows nothing of it: there, a parent ends only when all its
/// children have.
#[doc(hidden)]
pub fn adopted(span: Span) -> Span {
    if !span.is_disabled() {
        let here = Context::current();
        if here.span().span_context().is_valid() {
            let _ = span.set_parent(here);
        }
    }
    span
}

/// Makes `span`, which nobody has entered yet, a child of the span that a message or a request names. What is no
/// `traceparent`, or none at all, leaves it as it is.
pub fn continue_from(span: &Span, traceparent: Option<&str>) {
    let Some(text) = traceparent.filter(|_| !span.is_disabled()) else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), text.to_owned())]);
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    if parent.span().span_context().is_valid() {
        // It fails for a span that has begun: then it has a parent already.
        let _ = span.set_parent(parent);
    }
}

/// Notes a stable error code at a span of [`trace_span!`](crate::trace_span); `fault`: the work of the span has failed,
/// which is not so when a caller was told about a mistake of its own.
pub fn record_error(span: &Span, code: &str, fault: bool) {
    span.record("error.type", code);
    if fault {
        span.record("otel.status_code", "ERROR");
    }
}
