//! What can go wrong with the demonstration.

use std::{io, path::PathBuf, time::Duration};

use crate::{house::RestError, stack::StackError, testkit::TestkitError};

/// Why the demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// A process of the stack or of the system.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A binary is missing.
    #[error(transparent)]
    Testkit(#[from] TestkitError),
    /// The REST API refused or did not answer.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// A file or folder.
    #[error("{what} {} failed", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A process ended in the middle.
    #[error("{name} ended with {status}")]
    Ended {
        /// The process.
        name: &'static str,
        /// Its exit status in words.
        status: String,
    },
    /// An answer, a certificate or a metric is not what it must be.
    #[error("{0}")]
    Unexpected(String),
    /// A job failed.
    #[error("{what} failed: {failure}")]
    JobFailed {
        /// Device, trustpoint and kind.
        what: String,
        /// The failure as the API told it.
        failure: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s", limit.as_secs())]
    Late {
        /// What was awaited.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl DemoError {
    /// For `map_err`: a [`DemoError::File`].
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
