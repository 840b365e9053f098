//! Failures of the test's surroundings, told apart from failures of what is tested.

use std::{error::Error, time::Duration};

use crate::stack::StackError;

/// Why a test's surroundings could not be made, or did not come to the awaited state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// The test does not run inside a stack, or a process of it failed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// PostgreSQL refused a statement of the set-up.
    #[error("postgresql refused to {what}")]
    Sql {
        /// What the statement was for.
        what: &'static str,
        /// The driver's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The migrations did not run on an empty database.
    #[error("migrating an empty database failed")]
    Migration(#[source] Box<dyn Error + Send + Sync>),
    /// RabbitMQ's management API refused a request.
    #[error("rabbitmq's management api: {method} {path}: {detail}")]
    Management {
        /// The HTTP method.
        method: &'static str,
        /// The path of the API.
        path: String,
        /// The answer, or why there was none.
        detail: String,
    },
    /// A program of the workspace has not been built.
    #[error("{program} is not in {folder}: run `cargo build --workspace` first (`make test` does)")]
    NotBuilt {
        /// The binary's name.
        program: String,
        /// Where it was looked for.
        folder: String,
    },
    /// Something did not happen in time.
    #[error("within {after:?} it never came true that {what}")]
    NotInTime {
        /// What was awaited, as a statement.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A process ended or kept silent instead of saying what was awaited.
    #[error("{name} {what}; the end of its output:\n{tail}")]
    Process {
        /// The process, as the test named it.
        name: &'static str,
        /// What it did or did not do.
        what: String,
        /// The last lines of its output.
        tail: String,
    },
}
