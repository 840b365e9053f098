//! Verbs on agents.

use clap::Subcommand;

use super::{
    args::Page,
    error::CliError,
    output::{Column, ago, text},
    session::Session,
};

/// Verbs on agents.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// List the agents that have joined
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show an agent
    Show {
        /// Its name
        name: String,
    },
}

const AGENTS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("SOFTWARE", |item, _| text(item, "/software")),
    Column::new("JOINED", |item, now| ago(item, "/joined_at", now)),
    Column::new("LAST SEEN", |item, now| ago(item, "/last_seen_at", now)),
    Column::new("ID", |item, _| text(item, "/id")),
];

/// Runs a verb on agents.
pub(super) fn run(session: &Session, verb: AgentVerb) -> Result<(), CliError> {
    match verb {
        AgentVerb::List { page } => {
            let list = session.list(&["agents"], &page, &[])?;
            let next = "trustfleet device create NAME --agent AGENT puts a device behind an agent; a new agent needs \
                        `trustfleet join-token create`";
            session.print_list(&list, AGENTS, next)
        }
        AgentVerb::Show { name } => {
            let agent = session.read(&["agents", &name])?;
            session.print_object(&agent, &["name", "id", "software"], "trustfleet job list")
        }
    }
}
