//! Verbs on jobs.

use std::time::Duration;

use clap::Subcommand;

use super::{
    args::{Page, duration},
    error::CliError,
    follow,
    output::{Column, ago, text},
    session::Session,
    transcript,
};

/// Verbs on jobs.
#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// List jobs
    List {
        /// Only of this device
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// Only of trustpoints with this name
        #[arg(long, value_name = "NAME")]
        trustpoint: Option<String>,
        /// Only in this state: awaiting_publish, awaiting_agent, awaiting_ca, awaiting_poll, succeeded, failed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a job, and why it failed
    Show {
        /// Its id
        id: String,
    },
    /// Show what went to and fro between the device and the CA, decoded and without secrets
    Transcript {
        /// Its id
        id: String,
    },
    /// Follow a job until it ends; exit code 1 when it fails
    Wait {
        /// Its id
        id: String,
        /// Give up watching after this time; the job goes on
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
        timeout: Duration,
    },
}

/// The fields of a job that are shown first.
pub(super) const FIRST: &[&str] = &["id", "device", "trustpoint", "kind", "state", "agent", "requested_by", "failure"];

const JOBS: &[Column] = &[
    Column::new("ID", |item, _| text(item, "/id")),
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("KIND", |item, _| text(item, "/kind")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("FAILURE", |item, _| text(item, "/failure/code")),
    Column::new("CREATED", |item, now| ago(item, "/created_at", now)),
    Column::new("FINISHED", |item, now| ago(item, "/finished_at", now)),
];

/// Runs a verb on jobs.
pub(super) fn run(session: &Session, verb: JobVerb) -> Result<(), CliError> {
    match verb {
        JobVerb::List { device, trustpoint, state, page } => {
            let filters: Vec<_> = [("device", device), ("trustpoint", trustpoint), ("state", state)]
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value)))
                .collect();
            let list = session.list(&["jobs"], &page, &filters)?;
            session.print_list(&list, JOBS, "trustfleet job show ID says why one failed; job wait ID follows one")
        }
        JobVerb::Show { id } => {
            let job = session.read(&["jobs", &id])?;
            session.print_object(&job, FIRST, &follow::next_after(&job))
        }
        JobVerb::Transcript { id } => transcript::print(session, &id),
        JobVerb::Wait { id, timeout } => {
            let job = follow::until_end(session, &id, timeout)?;
            session.print_object(&job, FIRST, &follow::next_after(&job))
        }
    }
}
