//! Verbs on roll-overs of trust anchors (S57).

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::Page,
    change,
    error::CliError,
    output::{Column, ago, text},
    session::Session,
    spec::certificates,
};

/// Verbs on roll-overs.
#[derive(Debug, Subcommand)]
pub enum RolloverVerb {
    /// Begin one: the next anchors become anchors beside the former ones, and go to the devices
    #[command(after_help = "Example:\n  trustfleet rollover start issuing --next-anchor new-root.pem \
        --primary-url http://ca2.example:8080/pkix/")]
    Start {
        /// CA server
        ca_server: String,
        /// PEM file with next anchors; may be repeated, and may hold several certificates
        #[arg(long = "next-anchor", value_name = "FILE", required = true)]
        next_anchors: Vec<PathBuf>,
        /// Share of the trustpoints that must have them before the switch, percent [default of the API: 100]
        #[arg(long, value_name = "1..100")]
        percent: Option<u8>,
        /// What counts as having them [default of the API: loaded]
        #[arg(long, value_enum)]
        counts: Option<Counts>,
        /// Name of the CA after the switch
        #[arg(long, value_name = "DN", conflicts_with = "issuer_of")]
        ca_name: Option<String>,
        /// CMP URL after the switch
        #[arg(long, value_name = "URL", conflicts_with = "issuer_of")]
        primary_url: Option<String>,
        /// Secondary CMP URL after the switch
        #[arg(long, value_name = "URL", conflicts_with = "issuer_of")]
        secondary_url: Option<String>,
        /// Take name, URLs and verification certificates of this CA server over at the switch
        #[arg(long, value_name = "NAME")]
        issuer_of: Option<String>,
        /// Tell nobody before the switch but by a campaign: `campaign start --action anchors`
        #[arg(long)]
        by_campaign: bool,
        /// Why: kept with the revision and in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show how far one is
    Status {
        /// CA server
        ca_server: String,
    },
    /// List trustpoints that do not have the next anchors, with the reasons
    Missing {
        /// CA server
        ca_server: String,
        /// Only in this state: pending, sent, stored, loaded, failed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Switch the issuer; refused while too few have the next anchors
    Switch {
        /// CA server
        ca_server: String,
        /// Below the required share as well: services that lack the next anchors are cut off
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take the former anchors away; refused while certificates in use need them
    Finish {
        /// CA server
        ca_server: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Give it up before the switch: the next anchors are taken away again
    Cancel {
        /// CA server
        ca_server: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// What counts as having the next anchors.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Counts {
    /// Every service that relies on them is seen to have loaded them
    Loaded,
    /// Services were reloaded with them, also where nobody can see more
    Stored,
}

const FIRST: &[&str] = &[
    "ca_server",
    "phase",
    "percent",
    "required_percent",
    "counts",
    "trustpoints",
    "missing",
    "loaded",
    "stored",
    "sent",
    "pending",
    "failed",
    "may_switch",
];

const MISSING: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("SINCE", |item, now| ago(item, "/at", now)),
    Column::new("AGENT", |item, _| text(item, "/agent")),
    Column::new("LAST SEEN", |item, now| ago(item, "/agent_last_seen_at", now)),
    Column::new("REASON", |item, _| text(item, "/reason")),
];

/// Runs a verb on roll-overs.
pub(super) fn run(session: &Session, verb: RolloverVerb) -> Result<(), CliError> {
    match verb {
        RolloverVerb::Start {
            ca_server,
            next_anchors,
            percent,
            counts,
            ca_name,
            primary_url,
            secondary_url,
            issuer_of,
            by_campaign,
            reason,
        } => {
            let mut body = json!({ "next_anchors": certificates(&next_anchors)? });
            let issuer: serde_json::Map<String, Value> =
                [("ca_name", ca_name), ("primary_url", primary_url), ("secondary_url", secondary_url)]
                    .into_iter()
                    .filter_map(|(field, text)| Some((field.to_owned(), Value::from(text?))))
                    .collect();
            if !issuer.is_empty() {
                body["issuer"] = Value::Object(issuer);
            }
            if let Some(name) = issuer_of {
                body["issuer_of"] = name.into();
            }
            if by_campaign {
                body["by_campaign"] = true.into();
            }
            if let Some(percent) = percent {
                body["required_percent"] = percent.into();
            }
            if let Some(counts) = counts {
                body["counts"] = match counts {
                    Counts::Loaded => "loaded".into(),
                    Counts::Stored => "stored".into(),
                };
            }
            let begun = post(session, &ca_server, None, Some(&body), reason)?;
            print(session, &begun, &format!("trustfleet rollover status {ca_server}"))
        }
        RolloverVerb::Status { ca_server } => {
            let rollover = session.read(&["ca-servers", &ca_server, "rollover"])?;
            let next = match (rollover["phase"].as_str(), rollover["may_switch"] == true) {
                (Some("distributing"), true) => format!("trustfleet rollover switch {ca_server}"),
                (Some("distributing"), false) => format!("trustfleet rollover missing {ca_server}"),
                (Some("switched"), _) => format!("trustfleet rollover finish {ca_server}"),
                _ => String::new(),
            };
            session.print_object(&rollover, FIRST, &next)
        }
        RolloverVerb::Missing { ca_server, state, page } => {
            let filters: Vec<_> = state.into_iter().map(|state| ("state", state)).collect();
            let list = session.list(&["ca-servers", &ca_server, "rollover", "missing"], &page, &filters)?;
            session.print_list(&list, MISSING, "trustfleet job list tells what agents said")
        }
        RolloverVerb::Switch { ca_server, force, reason } => {
            let body = if force { json!({ "force": true, "reason": reason }) } else { json!({}) };
            let switched = post(session, &ca_server, Some("switch"), Some(&body), reason)?;
            print(session, &switched, &format!("renew what is in use, then trustfleet rollover finish {ca_server}"))
        }
        RolloverVerb::Finish { ca_server, reason } => {
            let ended = post(session, &ca_server, Some("finish"), None, reason)?;
            print(session, &ended, "")
        }
        RolloverVerb::Cancel { ca_server, reason } => {
            let ended = post(session, &ca_server, Some("cancel"), None, reason)?;
            print(session, &ended, "")
        }
    }
}

fn post(
    session: &Session,
    ca_server: &str,
    step: Option<&str>,
    body: Option<&Value>,
    reason: Option<String>,
) -> Result<Value, CliError> {
    let path: Vec<&str> = ["ca-servers", ca_server, "rollover"].into_iter().chain(step).collect();
    let query: Vec<_> = reason.into_iter().map(|reason| ("reason", reason)).collect();
    session.call_with(Method::POST, &path, body, &query, &[])
}

fn print(session: &Session, answer: &Value, next: &str) -> Result<(), CliError> {
    if change::is_pending(answer) {
        return change::print(session, answer);
    }
    session.print_object(answer, FIRST, next)
}
