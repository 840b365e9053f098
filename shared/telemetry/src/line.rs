//! Log lines that name the trace they were written in, so that logs and traces join.

use std::fmt;

use opentelemetry::{Context, trace::TraceContextExt as _};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// A form of log lines with `trace_id` and `span_id` added where there is a trace.
#[derive(Debug)]
pub(crate) struct Traced<F> {
    pub(crate) form: F,
    pub(crate) json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let current = Context::current();
        let span = current.span().span_context().clone();
        if !span.is_valid() {
            return self.form.format_event(context, out, event);
        }
        let mut line = String::new();
        self.form.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let (trace, id) = (span.trace_id(), span.span_id());
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(object) => writeln!(out, "{object},\"trace_id\":\"{trace}\",\"span_id\":\"{id}\"}}"),
            None => writeln!(out, "{line} trace_id={trace}"),
        }
    }
}
