//! Verbs on messages of agents that could not be processed.

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::Page,
    error::CliError,
    output::{Column, ago, text},
    session::Session,
};

/// Verbs on dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetterVerb {
    /// List them, newest first
    List {
        /// Only for this reason
        #[arg(long, value_name = "WORD")]
        reason: Option<String>,
        /// Only of agents of this tenant
        #[arg(long, value_name = "NAME")]
        of_tenant: Option<String>,
        /// Only of the agent of this name or id
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one, without what could be a secret
    Show {
        /// Id of the letter
        id: String,
    },
    /// Put one, or all of a reason, back into their queues
    #[command(
        after_help = "Examples:\n  trustfleet dead-letter retry 0197…\n  trustfleet dead-letter retry --reason failed"
    )]
    Retry {
        /// Id of the letter
        #[arg(required_unless_present = "reason", conflicts_with = "reason")]
        id: Option<String>,
        /// All with this reason that are there now
        #[arg(long, value_name = "WORD")]
        reason: Option<String>,
    },
    /// Drop one, or all of a reason
    Drop {
        /// Id of the letter
        #[arg(required_unless_present = "reason", conflicts_with = "reason")]
        id: Option<String>,
        /// All with this reason
        #[arg(long, value_name = "WORD")]
        reason: Option<String>,
    },
}

const LETTERS: &[Column] = &[
    Column::new("REASON", |item, _| text(item, "/reason")),
    Column::new("TENANT", |item, _| text(item, "/tenant")),
    Column::new("AGENT", |item, _| text(item, "/agent")),
    Column::new("BYTES", |item, _| text(item, "/size")),
    Column::new("TIMES", |item, _| text(item, "/times")),
    Column::new("LAST", |item, now| ago(item, "/last_at", now)),
    Column::new("DETAIL", |item, _| text(item, "/detail")),
    Column::new("ID", |item, _| text(item, "/id")),
];

const NOUN: &str = "dead-letters";

/// Runs a verb on dead letters.
pub(super) fn run(session: &Session, verb: DeadLetterVerb) -> Result<(), CliError> {
    match verb {
        DeadLetterVerb::List { reason, of_tenant, agent, page } => {
            let named = [("reason", reason), ("tenant", of_tenant), ("agent", agent)];
            let filters: Vec<_> = named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let list = session.list_at(true, &[NOUN], &page, &filters)?;
            session.print_list(&list, LETTERS, "trustfleet dead-letter show ID")
        }
        DeadLetterVerb::Show { id } => {
            let letter = session.call_at(true, Method::GET, &[NOUN, &id], None)?;
            let first = &["reason", "detail", "tenant", "agent", "agent_id", "routing_key", "size", "times", "last_at"];
            session.print_object(&letter, first, "trustfleet dead-letter retry ID, or drop ID")
        }
        DeadLetterVerb::Retry { id, reason } => {
            let ids = match (id, reason) {
                (Some(id), _) => vec![id],
                (None, reason) => of_reason(session, reason)?,
            };
            for id in &ids {
                session.call_at(true, Method::POST, &[NOUN, id, "retry"], None)?;
            }
            let done = json!({ "retried": ids.len() });
            session.print_object(&done, &["retried"], "trustfleet dead-letter list: what fails again is there again")
        }
        DeadLetterVerb::Drop { id: Some(id), .. } => {
            session.call_at(true, Method::DELETE, &[NOUN, &id], None)?;
            session.print_deleted("dead letter", &id)
        }
        DeadLetterVerb::Drop { id: None, reason } => {
            let query = [("reason", reason.unwrap_or_default())];
            let done = session.platform_with(Method::DELETE, &[NOUN], &query)?;
            session.print_object(&done, &["dropped"], "")
        }
    }
}

/// Those of a reason that can be retried at all.
fn of_reason(session: &Session, reason: Option<String>) -> Result<Vec<String>, CliError> {
    let page = Page { limit: 1000, after: None, all: true };
    let filters: Vec<_> = reason.into_iter().map(|reason| ("reason", reason)).collect();
    let list = session.list_at(true, &[NOUN], &page, &filters)?;
    let known = |item: &&Value| item["routing_key"].as_str().is_some_and(|key| !key.is_empty());
    let items = list["items"].as_array().into_iter().flatten().filter(known);
    Ok(items.filter_map(|item| item["id"].as_str()).map(str::to_owned).collect())
}
