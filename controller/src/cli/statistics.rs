//! Statistics of CMP sessions as a table (S48).

use serde_json::Value;
use ureq::http::Method;

use super::{error::CliError, output::plain, session::Session};

const FIRST: &[&str] = &[
    "trustpoints",
    "since",
    "successes",
    "failures",
    "timeouts",
    "polls",
    "confirmations",
    "errors",
    "requests",
    "responses",
];

/// Shows the statistics below a path, or sets them to nothing first.
pub(super) fn print(session: &Session, path: &[&str], reset: bool, next: &str) -> Result<(), CliError> {
    let below = [path, &["statistics"]].concat();
    let counts: Value = if reset {
        session.call(Method::POST, &[&below[..], &["reset"]].concat(), None)?
    } else {
        session.read(&below)?
    };
    session.print_object(&counts, FIRST, &plain(next))
}
