//! Work that is looked for once a second, in batches.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::telemetry::chain;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Work in batches.
pub trait Steady {
    /// What waits when a step fails, for the log.
    const WHAT: &'static str;
    /// Why a step fails.
    type Error: std::error::Error;

    /// One batch; whether there may be more.
    ///
    /// # Errors
    /// Its own; what was done stays so.
    fn step(&self) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// Takes steps until `shutdown`: one a second, and the next at once while the last one says that there may be more.
pub async fn keep<W: Steady>(work: W, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        while !shutdown.is_cancelled() {
            match work.step().await {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "{} waits", W::WHAT);
                    break;
                }
            }
        }
    }
}
