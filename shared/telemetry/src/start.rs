//! Sets up logs and, with an endpoint, traces: once in the life of a process.

use std::{
    io::{IsTerminal as _, stderr},
    sync::Arc,
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt as _, Targets, filter_fn},
    fmt::{self, MakeWriter, format},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{
    TARGET,
    config::{TracesConfig, TracesError},
    exporter::exporter,
    line::Traced,
    losses::{Bounded, Counted, Losses},
};

/// Finished spans that may wait for the receiver; more are lost and counted.
const QUEUE_MAX: usize = 4096;
/// Most spans in one request.
const BATCH_MAX: usize = 512;
/// How long a finished span waits for others to go with.
const SEND_EVERY: Duration = Duration::from_secs(2);
/// How long the end of the process may be held up by spans that are still to be sent.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Which program this is, for those who read its traces.
#[derive(Clone, Debug)]
pub struct Service {
    /// `service.name`.
    pub name: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// Random bytes for `service.instance.id`, new at each start.
    pub instance: [u8; 16],
    /// Further attributes of everything that it sends.
    pub attributes: Vec<(&'static str, String)>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object per line; `flat`: an event's fields stand beside its level, not in an object of their own.
    Json {
        /// Whether fields stand at the top.
        flat: bool,
    },
}

/// What is logged, and how; always to stderr.
#[derive(Debug)]
pub struct Log {
    /// Form of the lines.
    pub form: LogForm,
    /// Which lines, such as `info` or `trustfleet_controller=debug,info`; one that cannot be read counts as `info`, which
    /// a line says.
    pub filter: String,
}

/// Keeps traces flowing; when it is dropped, what waits is sent, for at most three seconds.
#[derive(Debug, Default)]
#[must_use = "dropping it ends the traces"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && provider.shutdown_with_timeout(STOP_MAX).is_err()
        {
            tracing::debug!("not all spans were sent");
        }
    }
}

/// Sends logs to stderr, and spans to the receiver, if one is configured. A second start in one process (tests) keeps
/// the first one's.
///
/// # Errors
/// A traces configuration that cannot work: a wrong value, or a file that cannot be read. Whether anybody listens at the
/// endpoint is no matter.
pub fn start(service: Service, log: Log, traces: &TracesConfig) -> Result<Guard, TracesError> {
    traces.check()?;
    let unreadable = (targets(&log.filter).is_none() && !log.filter.trim().is_empty()).then(|| log.filter.clone());
    let provider = traces.endpoint.as_ref().map(|endpoint| provider(service, traces, endpoint)).transpose()?;
    let lines = Registry::default().with(lines(log, stderr, stderr().is_terminal()));
    let guard = match provider {
        None => {
            let _ = lines.try_init();
            Guard::default()
        }
        Some(provider) => {
            let _ = lines.with(spans(&provider)).try_init();
            Guard(Some(provider))
        }
    };
    if let Some(filter) = unreadable {
        tracing::warn!(
            filter,
            "the log's filter cannot be read: write LEVEL or TARGET=LEVEL, with commas between; info counts"
        );
    }
    Ok(guard)
}

/// What a filter lets through: `LEVEL`, `TARGET=LEVEL` or `TARGET`, with commas between. Fields and patterns would need
/// regular expressions, a tenth of the agent. `None`: it cannot be read, or says nothing.
fn targets(filter: &str) -> Option<Targets> {
    let parts: Vec<_> = filter.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { None } else { parts.join(",").parse().ok() }
}

/// Log lines. Spans of traces are not for them: their fields would lengthen every line.
fn lines<S, W>(log: Log, to: W, ansi: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = match log.form {
        LogForm::Text => {
            let form = Traced { form: format().with_ansi(ansi), json: false };
            fmt::layer().with_writer(to).with_ansi(ansi).event_format(form).boxed()
        }
        LogForm::Json { flat } => {
            let form = Traced { form: format().json().flatten_event(flat), json: true };
            fmt::layer().with_writer(to).with_ansi(ansi).json().event_format(form).boxed()
        }
    };
    let no_traces = filter_fn(|metadata| !metadata.is_span() || metadata.target() != TARGET);
    let filter = targets(&log.filter).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let no_bodies = filter_fn(may_be_logged).with_max_level_hint(LevelFilter::TRACE);
    layer.with_filter(filter.and(no_traces.with_max_level_hint(LevelFilter::TRACE)).and(no_bodies))
}

/// Below `info` libraries print what passes through them: requests with their tokens, statements with their parameters,
/// messages with their bodies. No filter opens that; our own lines hold nothing secret at any level.
fn may_be_logged(metadata: &tracing::Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::INFO || metadata.target().starts_with("trustfleet")
}

/// Spans of traces, and nothing else.
fn spans<S: Subscriber + for<'a> LookupSpan<'a>>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S> {
    let only_traces = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("trustfleet"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(only_traces.with_max_level_hint(LevelFilter::INFO))
}

fn provider(service: Service, traces: &TracesConfig, endpoint: &url::Url) -> Result<SdkTracerProvider, TracesError> {
    let losses = Arc::new(Losses::new(TracesConfig::traces_url(endpoint)));
    let exporter = Counted::new(exporter(traces, endpoint)?, Arc::clone(&losses));
    // The queue's own bound is never reached: the door before it counts what it turns away.
    let queue = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX * 2)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    let queue = BatchSpanProcessor::builder(exporter).with_batch_config(queue).build();
    let instance = uuid::Builder::from_random_bytes(service.instance).into_uuid();
    // OTEL_RESOURCE_ATTRIBUTES may add attributes; who and which this is stands here.
    let resource = Resource::builder()
        .with_service_name(service.name)
        .with_attribute(KeyValue::new("service.version", service.version))
        .with_attribute(KeyValue::new("service.instance.id", instance.to_string()))
        .with_attributes(service.attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.sample_ratio))))
        .with_resource(resource)
        .with_span_processor(Bounded::new(queue, losses, QUEUE_MAX))
        .build())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use opentelemetry_sdk::trace::InMemorySpanExporter;

    use super::*;
    use crate::{carried, continue_from, current_traceparent, in_trace, record_error, trace_span};

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Runs `work` with logs of `form` and, if wanted, traces; gives what was logged and the finished spans.
    fn run(
        form: LogForm,
        ratio: Option<f64>,
        work: impl FnOnce(),
    ) -> (String, Vec<opentelemetry_sdk::trace::SpanData>) {
        let (out, exporter) = (Lines::default(), InMemorySpanExporter::default());
        let writer = out.clone();
        let log = Log { form, filter: "info".to_owned() };
        let registry = Registry::default().with(lines(log, move || writer.clone(), false));
        match ratio {
            None => {
                tracing::subscriber::with_default(registry, work);
                (out.text(), Vec::new())
            }
            Some(ratio) => {
                let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
                let provider =
                    SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(exporter.clone()).build();
                tracing::subscriber::with_default(registry.with(spans(&provider)), work);
                // Before the provider goes: it clears the exporter.
                (out.text(), exporter.get_finished_spans().unwrap())
            }
        }
    }

    #[test]
    fn a_log_line_inside_a_span_names_the_trace_and_its_fields_stay_as_they_are() {
        for form in [LogForm::Json { flat: true }, LogForm::Text] {
            let (log, _) = run(form, Some(1.0), || {
                let span = trace_span!("server", "GET /x", trustfleet.job.id = "j");
                continue_from(&span, Some(CALLER));
                span.in_scope(|| tracing::info!(job.id = "j", "inside"));
                tracing::info!("outside");
            });
            let (inside, outside) = log.trim_end().split_once('\n').unwrap();
            assert!(inside.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{inside}");
            assert!(!inside.contains("GET /x") && !outside.contains("trace_id"), "{log}");
            if form != LogForm::Text {
                let line: serde_json::Value = serde_json::from_str(inside).unwrap();
                assert_eq!((&line["message"], &line["job.id"]), (&"inside".into(), &"j".into()));
                assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
            }
        }
    }

    #[test]
    fn what_libraries_say_below_info_is_in_no_log_whatever_the_filter_says() {
        let out = Lines::default();
        let writer = out.clone();
        let log = Log { form: LogForm::Text, filter: "trace,lapin=trace".to_owned() };
        let registry = Registry::default().with(lines(log, move || writer.clone(), false));
        tracing::subscriber::with_default(registry, || {
            tracing::trace!(target: "lapin::frames", "a body");
            tracing::debug!(target: "tokio_postgres::query", "a parameter");
            tracing::info!(target: "lapin", "connected");
            tracing::trace!(target: "trustfleet_controller::outbox", "our own");
        });
        let said = out.text();
        assert!(!said.contains("body") && !said.contains("parameter"), "{said}");
        assert!(said.contains("connected") && said.contains("our own"), "{said}");
    }

    #[test]
    fn a_span_goes_on_with_the_callers_trace_and_hands_its_own_context_on() {
        let mut told = None;
        let (_, spans) = run(LogForm::Text, Some(0.0), || {
            let outer = trace_span!("server", "POST /x", http.response.status_code = tracing::field::Empty);
            continue_from(&outer, Some(CALLER));
            outer.in_scope(|| {
                let inner = trace_span!("client", "device_load");
                inner.in_scope(|| told = current_traceparent());
                record_error(&inner, "unavailable", true);
            });
            outer.record("http.response.status_code", 503);
        });
        let [inner, outer] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((inner.name.as_ref(), outer.name.as_ref()), ("device_load", "POST /x"));
        assert_eq!(outer.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(inner.parent_span_id, outer.span_context.span_id());
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", inner.span_context.span_id());
        assert_eq!(told.unwrap(), expected);
        assert!(matches!(inner.status, opentelemetry::trace::Status::Error { .. }));
        assert!(inner.attributes.contains(&KeyValue::new("error.type", "unavailable")));
        assert!(outer.attributes.contains(&KeyValue::new("http.response.status_code", 503)));
    }

    #[test]
    fn a_span_ends_with_its_own_work_and_not_with_what_hangs_in_another_thread() {
        let (_, spans) = run(LogForm::Text, Some(1.0), || {
            let outer = trace_span!("consumer", "job");
            let inside = outer.in_scope(|| carried(|| trace_span!("client", "POST ir")));
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let hangs = std::thread::scope(|scope| {
                scope.spawn(|| tracing::dispatcher::with_default(&dispatch, inside)).join().unwrap()
            });
            drop(outer);
            std::mem::forget(hangs);
        });
        let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["job"]);
    }

    #[test]
    fn a_trace_that_the_caller_does_not_record_is_not_recorded_here_and_its_flags_go_on() {
        let mut told = None;
        let (_, spans) = run(LogForm::Text, Some(1.0), || {
            let span = trace_span!("server", "POST /x");
            continue_from(&span, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
            span.in_scope(|| told = current_traceparent());
        });
        assert!(spans.is_empty(), "{spans:?}");
        assert!(told.unwrap().ends_with("-00"));
    }

    #[test]
    fn without_an_endpoint_there_is_no_trace_and_no_line_speaks_of_one() {
        let (log, _) = run(LogForm::Text, None, || {
            let span = trace_span!("server", "POST /x");
            continue_from(&span, Some(CALLER));
            span.in_scope(|| assert!(!in_trace() && current_traceparent().is_none()));
            tracing::info!("inside");
        });
        assert!(!log.contains("trace_id"), "{log}");
    }

    #[test]
    fn a_filter_names_levels_and_targets_and_one_that_cannot_be_read_counts_as_info() {
        let shown = |filter: &str| {
            let out = Lines::default();
            let (writer, log) = (out.clone(), Log { form: LogForm::Text, filter: filter.to_owned() });
            tracing::subscriber::with_default(
                Registry::default().with(lines(log, move || writer.clone(), false)),
                || {
                    tracing::debug!(target: "trustfleet_agent::driver", "one");
                    tracing::debug!(target: "lapin", "two");
                    tracing::info!(target: "lapin", "three");
                },
            );
            ["one", "two", "three"].map(|line| out.text().contains(line))
        };
        assert_eq!(shown("trustfleet_agent=debug, info"), [true, false, true]);
        assert_eq!(shown("lapin=off,trace"), [true, false, false]);
        assert_eq!(shown("warn"), [false; 3]);
        for info in ["info", "", " , ", "lapin=loud", "a=b=c"] {
            assert_eq!(shown(info), [false, false, true], "{info:?}");
        }
    }

    #[test]
    fn what_is_no_trace_context_is_as_good_as_none() {
        let (_, spans) = run(LogForm::Text, Some(1.0), || {
            for text in [None, Some(""), Some("rubbish"), Some("00-0-0-01")] {
                let span = trace_span!("consumer", "job");
                continue_from(&span, text);
                span.in_scope(|| {});
            }
        });
        assert_eq!(spans.len(), 4);
        assert!(spans.iter().all(|span| span.parent_span_id == opentelemetry::trace::SpanId::INVALID));
    }
}
