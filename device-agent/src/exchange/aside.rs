//! Work beside the agent's loop, and in a span of the trace.

use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};
use trustfleet_telemetry::{carried, record_error};

use super::Halt;

/// Runs what blocks (disk, signing, HTTP) beside the loop.
///
/// # Errors
/// The agent is stopping.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Halt> {
    let (done, result) = oneshot::channel();
    beside(Box::new(carried(move || {
        let _ = done.send(work());
    })));
    result.await.map_err(|_| Halt::Stopping)
}

/// One kind of task for all of them: the runtime's code for a task comes once for each kind.
fn beside(work: Box<dyn FnOnce() + Send>) {
    drop(tokio::task::spawn_blocking(work));
}

/// Works in a span of the trace, which gets the stable code when the job fails there.
///
/// # Errors
/// The work's own.
pub async fn spanned<T>(span: Span, work: impl Future<Output = Result<T, Halt>>) -> Result<T, Halt> {
    let done = work.instrument(span.clone()).await;
    if let Err(Halt::Failed(failed)) = &done {
        record_error(&span, &failed.code, true);
    }
    done
}
