//! What can go wrong for a caller, with codes that stay the same for clients and metrics.
//!
//! Sentences here are public: they never carry SQL, keys, tokens or another tenant's names. Internal causes stay in
//! `source()` and are logged once, where the error is handled. The mapping to problem+json is in `api::problem`.

use trustfleet_model::field::Violations;

use crate::{db::DbError, device::Rejection};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The body or a parameter breaks rules; all of them are told at once (422).
    #[error("the request breaks rules: {0}")]
    Invalid(Violations),
    /// The request cannot be read at all: malformed JSON, a bad header (400).
    #[error("{detail}")]
    Malformed {
        /// What cannot be read, and what would be right.
        detail: String,
    },
    /// No token, or one that is unknown, expired or revoked (401).
    #[error("give a valid bearer token in the Authorization header")]
    Unauthenticated,
    /// The token's role is too low (403).
    #[error("this needs the role {needed} or higher; the token has {has}")]
    Forbidden {
        /// Role needed.
        needed: &'static str,
        /// Role of the token.
        has: &'static str,
    },
    /// The token's scopes leave it out (403).
    #[error("this needs the scope {needed}, which the token does not have")]
    MissingScope {
        /// Scope needed.
        needed: String,
    },
    /// Whoever proposed a change wants to approve it (403).
    #[error("another administrator must approve it: two credentials of one person are not four eyes")]
    OwnChange,
    /// More requests, or more wrong credentials, than there may be (429).
    #[error("{detail}")]
    TooMany {
        /// Stable snake_case code.
        code: &'static str,
        /// What is too much, and when to come back.
        detail: String,
        /// When to come back, seconds.
        retry_after_s: u32,
    },
    /// No such object; another tenant's object looks the same (404).
    #[error("there is no such {kind}")]
    NotFound {
        /// Kind of the object: `device`, `trustpoint` and so on.
        kind: &'static str,
    },
    /// The object's state does not allow it (409).
    #[error("{detail}")]
    Conflict {
        /// Stable snake_case code.
        code: &'static str,
        /// What stands in the way, and what to do.
        detail: String,
    },
    /// The device refused the command.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// `If-Match` names another revision than the present one (412).
    #[error("the object has revision {current} by now: read it again, then repeat the change")]
    PreconditionFailed {
        /// The revision there is.
        current: u32,
    },
    /// The device has more commands waiting than its mailbox takes (503).
    #[error("the device is busy: repeat the request in a moment")]
    Busy,
    /// Database or broker away; nothing was changed (503).
    #[error("{what} cannot be reached at the moment; nothing was changed: repeat the request in a moment")]
    Unavailable {
        /// `database` or `broker`.
        what: &'static str,
        /// The cause, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The connection was lost while the change was being committed (503).
    #[error(
        "the connection to the database was lost during the change, which may have been made or not: look at the object, \
         or repeat the request with the same Idempotency-Key"
    )]
    OutcomeUnknown {
        /// The cause, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A fault of ours (500).
    #[error("an internal error; the controller's log has the cause")]
    Internal {
        /// The cause, for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AppError {
    /// An internal error from a sentence, for what cannot happen.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal { source: what.into().into() }
    }

    /// The stable code in `urn:trustfleet:error:CODE` and in metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Malformed { .. } => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden { .. } => "forbidden",
            Self::MissingScope { .. } => "missing_scope",
            Self::OwnChange => "own_change",
            Self::TooMany { code, .. } => code,
            Self::NotFound { .. } => "not_found",
            Self::Conflict { code, .. } => code,
            Self::Rejected(rejection) => rejection.code(),
            Self::PreconditionFailed { .. } => "precondition_failed",
            Self::Busy => "busy",
            Self::Unavailable { .. } => "unavailable",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Internal { .. } => "internal",
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 422,
            Self::Malformed { .. } => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden { .. } | Self::MissingScope { .. } | Self::OwnChange => 403,
            Self::TooMany { .. } => 429,
            Self::NotFound { .. } => 404,
            Self::Rejected(Rejection::NoTrustpoint) => 404,
            Self::Rejected(Rejection::NotReady(_)) => 422,
            Self::Conflict { .. } | Self::Rejected(_) => 409,
            Self::PreconditionFailed { .. } => 412,
            Self::Busy | Self::Unavailable { .. } | Self::OutcomeUnknown { .. } => 503,
            Self::Internal { .. } => 500,
        }
    }

    /// Every broken rule or missing condition, where the error is about such.
    pub const fn violations(&self) -> Option<&Violations> {
        match self {
            Self::Invalid(violations) | Self::Rejected(Rejection::NotReady(violations)) => Some(violations),
            _ => None,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable { .. } | Self::OutcomeUnknown { .. })
    }
}

impl From<Violations> for AppError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<DbError> for AppError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound { kind } => Self::NotFound { kind },
            DbError::Conflict { ref constraint, .. } => {
                let detail = format!("another object stands in the way ({constraint})");
                Self::Conflict { code: "conflict", detail }
            }
            error @ DbError::Unavailable { .. } => {
                Self::Unavailable { what: "the database", source: Some(Box::new(error)) }
            }
            error @ DbError::OutcomeUnknown { .. } => Self::OutcomeUnknown { source: Some(Box::new(error)) },
            error @ (DbError::Inconsistent { .. } | DbError::Query { .. }) => {
                Self::Internal { source: Box::new(error) }
            }
        }
    }
}
