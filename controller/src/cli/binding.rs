//! Verbs on bindings: trustpoints by label.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, pair},
    error::CliError,
    output::{Column, ago, text},
    session::Session,
};

/// Verbs on bindings.
#[derive(Debug, Subcommand)]
pub enum BindingVerb {
    /// List bindings
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a binding: what it says, and how many devices it reaches
    Show {
        /// Its name
        name: String,
    },
    /// Give a trustpoint to all devices with certain labels, also to those that come later
    Create {
        /// Its name: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        /// Label that devices must have; may be repeated, then all of them
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair, required = true)]
        labels: Vec<(String, String)>,
        /// Name of the trustpoint that they get, at most 32 characters
        #[arg(long, value_name = "NAME")]
        trustpoint: String,
        /// Entity: subject and alternative names
        #[arg(long, value_name = "NAME")]
        entity: String,
        /// CA server
        #[arg(long, value_name = "NAME")]
        ca_server: String,
        /// CMP policy
        #[arg(long, value_name = "NAME")]
        policy: String,
        /// Ask for the first certificate by itself, as soon as a trustpoint has its MAC reference and secret
        #[arg(long)]
        enroll: bool,
    },
    /// Remove a binding; what becomes of its trustpoints must be said
    Delete {
        /// Its name
        name: String,
        /// What becomes of the trustpoints that it has brought
        #[arg(long, value_enum)]
        certificates: Leaving,
    },
}

/// What becomes of the trustpoints of a binding.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Leaving {
    /// They stay, as if made by hand
    Keep,
    /// They are removed with their secrets; certificates stay known, and on the devices
    Delete,
}

const BINDINGS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("DEVICES WITH", |item, _| selector(item)),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("POLICY", |item, _| text(item, "/policy")),
    Column::new("TRUSTPOINTS", |item, _| text(item, "/trustpoints")),
    Column::new("ACTIVE", |item, _| text(item, "/active")),
    Column::new("LEAVING", |item, _| text(item, "/leaving")),
    Column::new("MADE", |item, now| ago(item, "/created_at", now)),
];

const FIRST: &[&str] = &[
    "name",
    "selector",
    "trustpoint",
    "entity",
    "ca_server",
    "policy",
    "devices",
    "name_taken",
    "trustpoints",
    "active",
];

fn selector(item: &Value) -> String {
    let pairs = item["selector"].as_object().into_iter().flatten();
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(", ")
}

/// Runs a verb on bindings.
pub(super) fn run(session: &Session, verb: BindingVerb) -> Result<(), CliError> {
    match verb {
        BindingVerb::List { page } => {
            let list = session.list(&["bindings"], &page, &[])?;
            session.print_list(&list, BINDINGS, "trustfleet binding show NAME tells how many devices it reaches")
        }
        BindingVerb::Show { name } => {
            let binding = session.read(&["bindings", &name])?;
            session.print_object(&binding, FIRST, "trustfleet trustpoint list shows what came by it")
        }
        BindingVerb::Create { name, labels, trustpoint, entity, ca_server, policy, enroll } => {
            let selector: serde_json::Map<String, Value> =
                labels.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
            let body = json!({
                "name": name, "selector": selector, "trustpoint": trustpoint, "entity": entity, "ca_server": ca_server,
                "policy": policy, "enroll": enroll,
            });
            let binding = session.call(Method::POST, &["bindings"], Some(&body))?;
            session.print_object(&binding, FIRST, &format!("trustfleet binding show {name}"))
        }
        BindingVerb::Delete { name, certificates } => {
            let word = match certificates {
                Leaving::Keep => "keep",
                Leaving::Delete => "delete",
            };
            let query = [("certificates", word.to_owned())];
            let binding = session.call_with(Method::DELETE, &["bindings", &name], None, &query, &[])?;
            session.print_object(&binding, FIRST, "it is gone when all of its trustpoints are dealt with")
        }
    }
}
