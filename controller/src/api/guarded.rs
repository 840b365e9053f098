//! A connection that always has a deadline, whatever its client does or leaves undone.
//!
//! From the first byte of a request to the last byte of its answer counts one span, and silence between requests another.
//! Who sends a byte now and then (in a head, in a body, in a second request on the same connection) or takes an answer by
//! the byte gains nothing: the span is not extended by progress, only by a whole answer and a new request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long things may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From a request's first byte to its answer's last.
    pub(super) request: Duration,
    /// Without a request.
    pub(super) idle: Duration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request's first byte.
    Idle,
    /// The rest of a request, or that the client takes its answer.
    Request,
}

/// A stream within [`Bounds`].
pub(super) struct Guarded<T> {
    io: T,
    bounds: Bounds,
    phase: Phase,
    /// When the request under way, or the last one, must be over.
    request_ends: Instant,
    /// Something was written since the last flush that went through.
    wrote: bool,
    deadline: Pin<Box<Sleep>>,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T, bounds: Bounds) -> Self {
        let request_ends = Instant::now() + bounds.request;
        let deadline = Box::pin(sleep_until(request_ends));
        // Whoever connects is about to ask: the first byte is awaited no longer than a whole request.
        Self { io, bounds, phase: Phase::Request, request_ends, wrote: false, deadline }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(cx).is_ready() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn enter(&mut self, phase: Phase, until: Instant) {
        self.phase = phase;
        self.deadline.as_mut().reset(until);
    }

    /// A byte after an answer begins a request.
    fn was_read(&mut self) {
        if self.phase == Phase::Idle {
            self.request_ends = Instant::now() + self.bounds.request;
            self.enter(Phase::Request, self.request_ends);
        }
    }

    /// More of an answer whose beginning has been taken has no more time than the whole.
    fn is_to_be_written(&mut self) {
        if self.phase == Phase::Idle {
            self.enter(Phase::Request, self.request_ends);
        }
    }

    /// What there was of an answer is on its way.
    fn was_flushed(&mut self) {
        if std::mem::take(&mut self.wrote) {
            self.enter(Phase::Idle, Instant::now() + self.bounds.idle);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.was_read();
            // The deadline is another one now, and must wake this task.
            this.check(cx)?;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.is_to_be_written();
        this.check(cx)?;
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote |= written.is_ready();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = &flushed {
            this.was_flushed();
            this.check(cx)?;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
