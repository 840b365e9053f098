//! Verbs on agents.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, duration},
    certificate,
    error::CliError,
    output::{Column, ago, text},
    secret::NewFile,
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
    /// Put an agent into quarantine: no session, no jobs, no word of it counts, its connection to the broker is closed
    Quarantine {
        /// Its name
        name: String,
        /// Why; appears in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Then have all valid certificates of its devices revoked, for this reason (keyCompromise, say)
        #[arg(long, value_name = "REASON", value_parser = certificate::REASONS)]
        revoke: Option<String>,
    },
    /// Have all valid certificates of an agent's devices revoked: it was stolen
    Revoke {
        /// Its name
        name: String,
        /// Why
        #[arg(long, value_name = "REASON", value_parser = certificate::REASONS)]
        reason: String,
    },
    /// Delete an agent in quarantine that no device has any more
    Delete {
        /// Its name
        name: String,
    },
    /// Let an agent out of quarantine, with the keys that it has
    Release {
        /// Its name
        name: String,
    },
    /// Make a token by which an agent joins again with new keys; its former ones are dead then
    Rejoin {
        /// Its name
        name: String,
        /// The token ends after this time
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1h")]
        valid_for: Duration,
        /// Write the token into a new file with mode 0600 instead of showing it
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
}

const AGENTS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("SOFTWARE", |item, _| text(item, "/software")),
    Column::new("CLOCK", |item, _| clock(item)),
    Column::new("JOINED", |item, now| ago(item, "/joined_at", now)),
    Column::new("LAST SEEN", |item, now| ago(item, "/last_seen_at", now)),
    Column::new("LIVE TWICE", |item, now| ago(item, "/live_twice_at", now)),
    Column::new("LABELS", |item, _| text(item, "/labels")),
    Column::new("ID", |item, _| text(item, "/id")),
];
const FIRST: &[&str] = &["name", "id", "state", "quarantine", "software"];

/// How far the device's clock is off.
fn clock(item: &Value) -> String {
    match item["clock_off_s"].as_i64() {
        None => "-".to_owned(),
        Some(behind @ 0..) => format!("{behind} s behind"),
        Some(ahead) => format!("{} s ahead", ahead.unsigned_abs()),
    }
}

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
            session.print_object(&agent, FIRST, "trustfleet job list")
        }
        AgentVerb::Quarantine { name, reason, revoke } => {
            let body = json!({ "reason": reason });
            let agent = session.call(Method::POST, &["agents", &name, "quarantine"], Some(&body))?;
            let next = format!(
                "`trustfleet agent show {name}` tells when its connections are closed (quarantine.cut_off_at); then \
                 `trustfleet agent rejoin {name}` for new keys, or `trustfleet agent release {name}`"
            );
            session.print_object(&agent, FIRST, &next)?;
            match revoke {
                Some(reason) => certificate::revoke_all(session, &["agents", &name], &reason),
                None => Ok(()),
            }
        }
        AgentVerb::Revoke { name, reason } => certificate::revoke_all(session, &["agents", &name], &reason),
        AgentVerb::Delete { name } => {
            session.call(Method::DELETE, &["agents", &name], None)?;
            session.print_deleted("agent", &name)
        }
        AgentVerb::Release { name } => {
            let agent = session.call(Method::POST, &["agents", &name, "release"], None)?;
            session.print_object(&agent, FIRST, "it comes back by itself within some minutes, and gets its jobs then")
        }
        AgentVerb::Rejoin { name, valid_for, write_to } => {
            let file = write_to.as_deref().map(NewFile::create).transpose()?;
            let body = json!({ "valid_for_s": valid_for.as_secs() });
            let mut token = session.call(Method::POST, &["agents", &name, "rejoin"], Some(&body))?;
            let place = match file {
                Some(file) => file.take_token(&mut token)?,
                None => "the token, which is not shown again,".to_owned(),
            };
            let next = format!(
                "stop the agent, remove agent.json and the folder keys from its state folder, bring {place} to its machine \
                 (join_token or join_token_file), and start it: it makes new keys and joins as {name}"
            );
            session.print_object(&token, &["token", "id", "uses_left"], &next)
        }
    }
}
