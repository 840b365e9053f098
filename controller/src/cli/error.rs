//! What can go wrong with a verb, by culprit, and what to do next.

use std::{io, path::PathBuf};

use super::problem::Problem;

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line, a variable or a file does not make sense.
    #[error("{0}")]
    Usage(String),
    /// A file named on the command line cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The controller refused, with its reasons.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No connection, or none that can be trusted.
    #[error("cannot reach the controller at {url}: {reason}")]
    Unreachable {
        /// The controller's URL.
        url: String,
        /// What the transport says.
        reason: String,
    },
    /// Somebody answered, but not in the API's language.
    #[error("the answer from {url} is not Trustfleet's: {what}")]
    NotTrustfleet {
        /// What was asked.
        url: String,
        /// What is strange about the answer.
        what: String,
    },
    /// A job that was waited for ended without success.
    #[error("{text}")]
    JobFailed {
        /// The failure, explained over several lines.
        text: String,
        /// What to look at.
        next: String,
    },
    /// A job that was waited for takes longer than the operator wanted to wait.
    #[error("job {job} is still {state} after {seconds} s; it goes on without being watched")]
    StillRunning {
        /// The job.
        job: String,
        /// Its state.
        state: String,
        /// The agent it is for.
        agent: String,
        /// How long it was waited for, seconds.
        seconds: u64,
    },
    /// The audit log is not as the controller left it.
    #[error("the audit log is not as the controller left it: {findings} finding(s)")]
    Tampered {
        /// How many.
        findings: u64,
    },
    /// Lines of a file were refused; each was told.
    #[error("{lines} line(s) were refused; the others are taken: mend these and import the file again")]
    Lines {
        /// How many.
        lines: usize,
    },
    /// Standard output does not take what is printed.
    #[error("the answer cannot be printed: {0}")]
    Print(io::Error),
}

impl CliError {
    /// The exit code: see the module above.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Refused(problem) if problem.status == 503 => 3,
            Self::Unreachable { .. } | Self::NotTrustfleet { .. } => 3,
            Self::Refused(_)
            | Self::JobFailed { .. }
            | Self::StillRunning { .. }
            | Self::Tampered { .. }
            | Self::Lines { .. }
            | Self::Print(_) => 1,
        }
    }

    /// The whole message for a person: what went wrong, each broken rule, and what to do next.
    pub(super) fn screen(&self) -> String {
        let mut text = format!("error: {self}");
        if let Some(next) = self.next() {
            text.push_str("\nnext: ");
            text.push_str(&next);
        }
        text
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::Usage(_) | Self::Print(_) | Self::Lines { .. } => None,
            Self::Tampered { .. } => Some(
                "somebody has written to the database past the controller: keep an export and a dump, and find out who could"
                    .to_owned(),
            ),
            Self::File { .. } => Some("check the path, and that you may read it".to_owned()),
            Self::Refused(problem) => problem.next(),
            Self::Unreachable { reason, .. } if reason.contains("peer certificate") => Some(
                "name the CA of the controller's TLS certificate by --ca-file (or TRUSTFLEET_CA_FILE), and check that the \
                 URL has the host's name as the certificate has it"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("check --url (or TRUSTFLEET_URL) and that `trustfleet serve` runs there".to_owned())
            }
            Self::NotTrustfleet { .. } => {
                Some("check --url: is there a proxy in between, or another service on that port?".to_owned())
            }
            Self::JobFailed { next, .. } => Some(next.clone()),
            Self::StillRunning { job, state, agent, .. } if state == "awaiting_agent" => Some(format!(
                "does the agent run? `trustfleet agent show {agent}` says when it was last seen; then trustfleet job \
                 wait {job}"
            )),
            Self::StillRunning { job, .. } => Some(format!("trustfleet job wait {job}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> CliError {
        CliError::Refused(Box::new(Problem {
            status,
            code: code.to_owned(),
            title: "Refused".to_owned(),
            detail: None,
            violations: Vec::new(),
            retry_after: None,
        }))
    }

    #[test]
    fn exit_codes_tell_refused_from_unreachable_from_wrong_usage() {
        let unreachable = CliError::Unreachable { url: "http://x".to_owned(), reason: "refused".to_owned() };
        assert_eq!(unreachable.exit_code(), 3);
        assert_eq!(refused(503, "unavailable").exit_code(), 3);
        assert_eq!(refused(409, "conflict").exit_code(), 1);
        assert_eq!(CliError::Usage("no".to_owned()).exit_code(), 2);
    }

    #[test]
    fn an_error_says_what_to_do_next() {
        let text = refused(401, "unauthorized").screen();
        assert!(text.contains("next: ") && text.contains("TRUSTFLEET_TOKEN"), "{text}");
    }
}
