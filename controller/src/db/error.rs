//! Database errors by what they mean for the caller, and whether it is known that nothing was changed.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

/// Why a statement or transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The row is not there, or belongs to another tenant.
    #[error("there is no such {kind}")]
    NotFound {
        /// Kind of the object.
        kind: &'static str,
    },
    /// A constraint refused the change: a name is taken, or a referenced row is missing or still in use.
    #[error("the constraint {constraint} refused the change")]
    Conflict {
        /// Name of the constraint, as in the migration.
        constraint: String,
        /// Whether it is a foreign key: a referenced row is missing or this one is still referenced.
        foreign_key: bool,
        /// The server's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored row breaks our own rules.
    #[error("the row {id} of {table} has an unreadable {column}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
        /// Why it cannot be read.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The database cannot be reached or gave up (restart, too many retries); nothing was changed.
    #[error("the database is not available")]
    Unavailable {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection was lost while the server was committing.
    #[error("the connection was lost during the commit: the outcome is unknown")]
    OutcomeUnknown {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused a statement of ours: a fault of this program.
    #[error("the database refused a statement")]
    Query {
        /// The server's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DbError {
    /// Whether it is certain that nothing was changed.
    pub const fn outcome_known(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Whether the database was not there, or went away during the commit.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::OutcomeUnknown { .. })
    }

    /// The constraint that refused the change, if one did.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Conflict { constraint, .. } => Some(constraint),
            _ => None,
        }
    }

    /// The word in metrics.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Unavailable { .. } => "unavailable",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Query { .. } => "error",
        }
    }

    /// The same error for one more who waits for the same transaction.
    pub(crate) fn again(&self) -> Self {
        let text = crate::telemetry::chain(self);
        match self {
            Self::Unavailable { .. } => Self::Unavailable { source: text.into() },
            Self::OutcomeUnknown { .. } => Self::OutcomeUnknown { source: text.into() },
            Self::Conflict { constraint, foreign_key, .. } => {
                Self::Conflict { constraint: constraint.clone(), foreign_key: *foreign_key, source: text.into() }
            }
            Self::NotFound { kind } => Self::NotFound { kind },
            Self::Inconsistent { .. } | Self::Query { .. } => Self::Query { source: text.into() },
        }
    }

    /// A row that breaks our rules.
    pub fn inconsistent(
        table: &'static str,
        column: &'static str,
        id: impl ToString,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Inconsistent { table, column, id: id.to_string(), source: Some(source.into()) }
    }

    /// `Ok` when exactly one row was touched, [`DbError::NotFound`] otherwise.
    ///
    /// # Errors
    /// No row, or (never with a key in the condition) several.
    pub const fn one_row(count: u64, kind: &'static str) -> Result<(), Self> {
        if count == 1 { Ok(()) } else { Err(Self::NotFound { kind }) }
    }

    /// Sorts an error of a single statement in its own implicit transaction.
    pub(crate) fn of_lone_statement(error: tokio_postgres::Error) -> Self {
        if connection_lost(&error) { Self::OutcomeUnknown { source: Box::new(error) } } else { error.into() }
    }
}

impl From<tokio_postgres::Error> for DbError {
    /// Sorts an error of a statement inside a transaction that is not committed: nothing was changed.
    fn from(error: tokio_postgres::Error) -> Self {
        if connection_lost(&error) || error.code().is_some_and(out_of_resources) {
            return Self::Unavailable { source: Box::new(error) };
        }
        let constraint = error.as_db_error().and_then(|e| e.constraint()).map(str::to_owned);
        match (error.code(), constraint) {
            (Some(code), Some(constraint))
                if [&SqlState::UNIQUE_VIOLATION, &SqlState::FOREIGN_KEY_VIOLATION].contains(&code) =>
            {
                let foreign_key = code == &SqlState::FOREIGN_KEY_VIOLATION;
                Self::Conflict { constraint, foreign_key, source: Box::new(error) }
            }
            _ => Self::Query { source: Box::new(error) },
        }
    }
}

/// Whether a transaction may simply be run again: it lost a race, and nothing of it was kept.
pub(crate) fn lost_a_race(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
}

/// No answer from the server, or the server's word that it is going away.
pub(crate) fn connection_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()),
        Some(code) => {
            code.code().starts_with("08")
                || [&SqlState::ADMIN_SHUTDOWN, &SqlState::CRASH_SHUTDOWN, &SqlState::CANNOT_CONNECT_NOW].contains(&code)
        }
    }
}

/// The server could not or would not go on, and kept nothing: no memory or connection, a time limit, or this process stood still
/// for so long inside of its transaction.
fn out_of_resources(code: &SqlState) -> bool {
    let limits =
        [&SqlState::QUERY_CANCELED, &SqlState::LOCK_NOT_AVAILABLE, &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT];
    code.code().starts_with("53") || limits.contains(&code)
}
