//! Verbs on changes that need another administrator's approval.

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::Page,
    error::CliError,
    output::{Column, ago, expiry, text},
    session::Session,
};

/// Verbs on changes.
#[derive(Debug, Subcommand)]
pub enum ChangeVerb {
    /// List changes, newest first
    List {
        /// Only in this state: pending, approved, rejected, expired
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a change: what is proposed, exactly
    Show {
        /// Its id
        id: String,
    },
    /// Let a change take effect that somebody else has proposed
    Approve {
        /// Its id
        id: String,
    },
    /// Reject a change, or take an own one back
    Reject {
        /// Its id
        id: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

const FIRST: &[&str] = &["id", "state", "operation", "object_name", "object_revision", "proposed_by", "expires_at"];

const CHANGES: &[Column] = &[
    Column::new("ID", |item, _| text(item, "/id")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("OPERATION", |item, _| text(item, "/operation")),
    Column::new("OBJECT", |item, _| text(item, "/object_name")),
    Column::new("PROPOSED BY", |item, _| text(item, "/proposed_by")),
    Column::new("PROPOSED", |item, now| ago(item, "/proposed_at", now)),
    Column::new("EXPIRES", |item, now| expiry(item, "/expires_at", now)),
];

/// Runs a verb on changes.
pub(super) fn run(session: &Session, verb: ChangeVerb) -> Result<(), CliError> {
    match verb {
        ChangeVerb::List { state, page } => {
            let filters: Vec<_> = state.into_iter().map(|state| ("state", state)).collect();
            let list = session.list(&["changes"], &page, &filters)?;
            session.print_list(&list, CHANGES, "trustfleet change show ID, then approve or reject it")
        }
        ChangeVerb::Show { id } => print(session, &session.read(&["changes", &id])?),
        ChangeVerb::Approve { id } => {
            let change = session.call(Method::POST, &["changes", &id, "approve"], None)?;
            session.print_object(&change, FIRST, "")
        }
        ChangeVerb::Reject { id, reason } => {
            let body = json!({ "reason": reason });
            let change = session.call(Method::POST, &["changes", &id, "reject"], Some(&body))?;
            session.print_object(&change, FIRST, "")
        }
    }
}

/// Whether an answer is a change that waits, instead of what was asked for.
pub(super) fn is_pending(answer: &Value) -> bool {
    answer["state"] == "pending" && answer["operation"].is_string()
}

/// Prints a change with what to do next.
pub(super) fn print(session: &Session, change: &Value) -> Result<(), CliError> {
    let next = if is_pending(change) {
        format!("another administrator: trustfleet change approve {}", text(change, "/id"))
    } else {
        String::new()
    };
    session.print_object(change, FIRST, &next)
}
