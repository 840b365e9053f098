//! Counts spans that are lost, and says so in the log at most once a minute.
//!
//! Two ways to lose a span: the queue to the receiver is full, or the receiver did not take it. Neither may slow down
//! who made the span, so nothing is logged there: the exporter's thread does it, when it comes by.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

/// Shortest time between two lines about lost spans.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What was lost, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    lost: AtomicU64,
    waiting: AtomicUsize,
    said_at: Mutex<Option<Instant>>,
    endpoint: String,
}

impl Losses {
    /// Nothing is lost yet on the way to `endpoint`.
    pub(crate) fn new(endpoint: String) -> Self {
        Self { endpoint, ..Self::default() }
    }

    /// How many spans to speak of now; 0: nothing was lost, or it was spoken of a moment ago.
    fn due(&self, now: Instant) -> u64 {
        let mut said_at = self.said_at.lock().unwrap_or_else(PoisonError::into_inner);
        if said_at.is_some_and(|said| now.duration_since(said) < SAY_EVERY) {
            return 0;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            *said_at = Some(now);
        }
        lost
    }

    fn say(&self, why: &str) {
        let spans = self.due(Instant::now());
        if spans > 0 {
            tracing::warn!(
                spans,
                endpoint = self.endpoint,
                why,
                "spans were lost; whatever else the program does goes on"
            );
        }
    }
}

/// The queue's door: takes spans while fewer than `most` wait.
#[derive(Debug)]
pub(crate) struct Bounded {
    queue: BatchSpanProcessor,
    losses: Arc<Losses>,
    most: usize,
}

impl Bounded {
    pub(crate) const fn new(queue: BatchSpanProcessor, losses: Arc<Losses>, most: usize) -> Self {
        Self { queue, losses, most }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.losses.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.losses.waiting.fetch_sub(1, Ordering::Relaxed);
            self.losses.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// The queue's other end: gives batches to the exporter, counts those that it cannot deliver.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    exporter: E,
    losses: Arc<Losses>,
}

impl<E> Counted<E> {
    pub(crate) const fn new(exporter: E, losses: Arc<Losses>) -> Self {
        Self { exporter, losses }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.losses.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.losses.say("they were made faster than the receiver takes them"),
            Err(error) => {
                self.losses.lost.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
                self.losses.say(&error.to_string());
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_spoken_of_at_once_and_then_once_a_minute_with_their_sum() {
        let losses = Losses::default();
        let now = Instant::now();
        assert_eq!(losses.due(now), 0, "nothing is lost");
        losses.lost.fetch_add(3, Ordering::Relaxed);
        assert_eq!(losses.due(now), 3);
        losses.lost.fetch_add(2, Ordering::Relaxed);
        losses.lost.fetch_add(5, Ordering::Relaxed);
        assert_eq!(losses.due(now + SAY_EVERY / 2), 0, "it was said a moment ago");
        assert_eq!(losses.due(now + SAY_EVERY), 7);
    }
}
