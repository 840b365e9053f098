//! Verbs on bindings: trustpoints by label.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, pair},
    change,
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
        /// Service of the devices that uses the certificate; may be repeated
        #[arg(long = "service", value_name = "NAME")]
        services: Vec<String>,
        /// Ask for the first certificate by itself, as soon as a trustpoint has its MAC reference and secret
        #[arg(long)]
        enroll: bool,
    },
    /// Change a binding: what is not named stays; its trustpoints follow
    Update {
        /// Its name
        name: String,
        /// Label that devices must have; may be repeated, in place of all that were named
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Entity: subject and alternative names
        #[arg(long, value_name = "NAME")]
        entity: Option<String>,
        /// CA server
        #[arg(long, value_name = "NAME")]
        ca_server: Option<String>,
        /// CMP policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Service of the devices that uses the certificate; may be repeated, in place of all that were named
        #[arg(long = "service", value_name = "NAME", conflicts_with = "no_services")]
        services: Vec<String>,
        /// No services any more
        #[arg(long)]
        no_services: bool,
        /// Ask for the first certificate by itself, or not
        #[arg(long, value_name = "true|false")]
        enroll: Option<bool>,
        /// Say what it would do, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a binding; what becomes of its trustpoints must be said
    Delete {
        /// Its name
        name: String,
        /// What becomes of the trustpoints that it has brought
        #[arg(long, value_enum, required_unless_present = "dry_run")]
        certificates: Option<Leaving>,
        /// Say what it would touch, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// What becomes of the trustpoints of a binding.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Leaving {
    /// They stay, as if made by hand
    Keep,
    /// They are removed with their secrets; certificates stay known, and on the devices
    Delete,
    /// Their certificates are revoked by their CA; then they stay, as if made by hand
    Revoke,
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
    "service_taken",
    "trustpoints",
    "active",
    "behind",
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
        BindingVerb::Create { name, labels, trustpoint, entity, ca_server, policy, services, enroll } => {
            let selector: serde_json::Map<String, Value> =
                labels.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
            let body = json!({
                "name": name, "selector": selector, "trustpoint": trustpoint, "entity": entity, "ca_server": ca_server,
                "policy": policy, "services": services, "enroll": enroll,
            });
            let binding = session.call(Method::POST, &["bindings"], Some(&body))?;
            session.print_object(&binding, FIRST, &format!("trustfleet binding show {name}"))
        }
        BindingVerb::Update { name, labels, entity, ca_server, policy, services, no_services, enroll, dry_run } => {
            let present = session.read(&["bindings", &name])?;
            let kept = ["selector", "entity", "ca_server", "policy", "services", "enroll"];
            let mut body: serde_json::Map<String, Value> =
                kept.into_iter().map(|field| (field.to_owned(), present[field].clone())).collect();
            let texts = [("entity", entity), ("ca_server", ca_server), ("policy", policy)];
            body.extend(texts.into_iter().filter_map(|(field, text)| Some((field.to_owned(), Value::from(text?)))));
            if !labels.is_empty() {
                let pairs = labels.into_iter().map(|(key, value)| (key, Value::from(value)));
                body.insert("selector".to_owned(), Value::Object(pairs.collect()));
            }
            if no_services || !services.is_empty() {
                body.insert("services".to_owned(), Value::from(services));
            }
            body.extend(enroll.map(|enroll| ("enroll".to_owned(), Value::from(enroll))));
            let if_match = [("if-match", format!("\"{}\"", present["revision"]))];
            let body = Some(Value::Object(body));
            if dry_run {
                let path = ["bindings", &name, "dry-run"];
                let preview = session.call_with(Method::POST, &path, body.as_ref(), &[], &if_match)?;
                let first = ["name", "before", "after", "devices", "gain", "follow", "left_behind", "to_enroll_anew"];
                return session.print_object(&preview, &first, "the same without --dry-run changes it");
            }
            let changed = session.call_with(Method::PUT, &["bindings", &name], body.as_ref(), &[], &if_match)?;
            session.print_object(&changed, FIRST, &format!("trustfleet binding show {name} tells how many are behind"))
        }
        BindingVerb::Delete { name, certificates, dry_run } => {
            if dry_run {
                let touched = session.read(&["bindings", &name, "removal"])?;
                let next = format!("trustfleet binding delete {name} --certificates keep, delete or revoke");
                return session.print_object(&touched, &["trustpoints", "under_way", "in_use", "to_revoke"], &next);
            }
            let word = match certificates {
                Some(Leaving::Keep) => "keep",
                Some(Leaving::Delete) => "delete",
                Some(Leaving::Revoke) => "revoke",
                None => "",
            };
            let query = [("certificates", word.to_owned())];
            let binding = session.call_with(Method::DELETE, &["bindings", &name], None, &query, &[])?;
            if change::is_pending(&binding) {
                return change::print(session, &binding);
            }
            session.print_object(&binding, FIRST, "it is gone when all of its trustpoints are dealt with")
        }
    }
}
