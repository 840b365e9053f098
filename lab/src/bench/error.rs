//! Why something could not be measured.

use std::{error::Error as _, io};

use crate::{
    house::{HouseError, RestError},
    stack::StackError,
    testkit::TestkitError,
};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A program that is measured, or measures, is not installed.
    #[error("{program} is not installed: run `make setup`, or install the Debian package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Its Debian package.
        package: &'static str,
    },
    /// A process did not do what it is measured at.
    #[error("{command} ended with {status}: {output}")]
    Process {
        /// How it was called.
        command: String,
        /// Its exit status in words.
        status: String,
        /// What it said.
        output: String,
    },
    /// A file, folder or process was refused by the operating system.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The private stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A process of the workspace.
    #[error(transparent)]
    Testkit(#[from] TestkitError),
    /// The system under measurement.
    #[error(transparent)]
    House(#[from] HouseError),
    /// The controller refused.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The database under measurement.
    #[error("{what} failed")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// The engine refused or failed.
    #[error(transparent)]
    Cmp(#[from] trustfleet_cmp::CmpError),
    /// Something is not as it must be.
    #[error("{0}")]
    Odd(String),
}

impl BenchError {
    /// For `map_err`: what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: what was asked of the database.
    pub(crate) fn sql(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { what, source }
    }

    /// For `map_err`: what is not as it must be, and why.
    pub(crate) fn odd<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Odd(format!("{what}: {error}"))
    }

    /// The error with its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(below) = cause {
            text = format!("{text}: {below}");
            cause = below.source();
        }
        text
    }
}
