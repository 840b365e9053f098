//! Tasks that must run as long as the process does.

use std::time::Duration;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::steady::{self, Steady};

/// How long a part may take to end.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the parts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A task that must run as long as the process does, and what to call it in the log.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) task: JoinHandle<()>,
}

impl Part {
    /// Runs a task on `backend`.
    pub(super) fn spawn(name: &'static str, backend: &Handle, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name, task: backend.spawn(task) }
    }

    /// Keeps work in batches up, on `backend`, until `shutdown`.
    pub(super) fn keep<W: Steady + Send + Sync + 'static>(
        name: &'static str,
        backend: &Handle,
        work: W,
        shutdown: &CancellationToken,
    ) -> Self
    where
        W::Error: Send,
    {
        Self::spawn(name, backend, steady::keep(work, shutdown.clone()))
    }

    /// Waits for its end.
    pub(super) async fn end(self) {
        match tokio::time::timeout(STOP_TIMEOUT, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(part = self.name, error = %error, "did not end in order"),
            Err(_) => tracing::error!(part = self.name, "did not end in time"),
        }
    }
}

/// Returns the name of a part that has ended, as soon as one has.
pub(super) async fn first_ended<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> &'static str {
    loop {
        if let Some(part) = parts.clone().find(|part| part.task.is_finished()) {
            return part.name;
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_noticed_and_named() {
        let part = |name, task| Part { name, task };
        let parts = [
            part("the outbox", tokio::spawn(std::future::pending())),
            part("the group commit", tokio::spawn(async { panic!("a bug") })),
        ];
        let noticed = tokio::time::timeout(Duration::from_secs(5), first_ended(parts.iter()));
        assert_eq!(noticed.await.unwrap(), "the group commit");
        let healthy = tokio::time::timeout(Duration::from_millis(50), first_ended(parts[..1].iter()));
        assert!(healthy.await.is_err(), "a part that runs was taken for dead");
    }
}
