//! What can go wrong with the private stack, said so that the reader knows what to do next.

use std::{io, path::PathBuf};

/// Why the private stack did not start, or a part of it did not stop or start again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// A program of the distribution is not installed.
    #[error("{program} is not installed: run `make setup`, or install the Debian package {package}")]
    MissingProgram {
        /// The program that was looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error("postgresql cannot run as root and there is no user `postgres` in /etc/passwd: run `make setup`")]
    NoPostgresUser,
    /// As root PostgreSQL runs as the user `postgres`, who cannot reach the stack's folder.
    #[error(
        "the user postgres, as whom postgresql runs here, may not pass through {}: choose another folder (--dir or \
         TMPDIR), or `chmod o+x` this one", folder.display()
    )]
    NotPassable {
        /// The first folder on the way that is closed.
        folder: PathBuf,
    },
    /// The environment does not come from a stack.
    #[error("{name} is not set: run the command inside `trustfleet-lab stack -- COMMAND`")]
    NotInsideStack {
        /// The first variable that is missing.
        name: &'static str,
    },
    /// A file, folder, socket or child process was refused by the operating system.
    #[error("{what} failed")]
    Io {
        /// What was tried, and on which path or program.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A process ended although it should have gone on.
    #[error("{name} ended with {status}; the end of its output ({log}):\n{tail}")]
    Exited {
        /// The process, as it is named in progress lines.
        name: &'static str,
        /// Its exit status in words.
        status: String,
        /// The file with all its output (gone with the stack).
        log: PathBuf,
        /// The last lines of that file.
        tail: String,
    },
    /// A process runs, but did not answer in time.
    #[error("{name} did not answer within {seconds} s; the end of its output ({log}):\n{tail}")]
    NotReady {
        /// The process, as it is named in progress lines.
        name: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// The file with all its output (gone with the stack).
        log: PathBuf,
        /// The last lines of that file.
        tail: String,
    },
    /// PostgreSQL refused a statement of the set-up.
    #[error("postgresql refused to {what}")]
    Sql {
        /// What the statement was for.
        what: &'static str,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
    /// A key could not be made.
    #[error("the {what} could not be made: the cryptographic library refused without a reason")]
    Key {
        /// Which key.
        what: &'static str,
    },
    /// A certificate could not be made.
    #[error("a certificate for the stack's TLS could not be made")]
    Certificate(#[from] rcgen::Error),
    /// No free port was found on the loopback interface.
    #[error("no free port on 127.0.0.1 between {first} and {last}: is something holding thousands of ports?")]
    NoFreePort {
        /// Lowest port tried.
        first: u16,
        /// Highest port tried.
        last: u16,
    },
}

impl StackError {
    /// For `map_err`: an [`StackError::Io`] saying what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
