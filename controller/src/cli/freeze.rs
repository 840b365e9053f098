//! Verbs on freezes: windows in which devices are not changed.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::{
    args::{Page, duration, pair},
    error::CliError,
    output::{Column, ago, text},
    session::Session,
};

/// Verbs on freezes.
#[derive(Debug, Subcommand)]
pub enum FreezeVerb {
    /// List freezes, with their present and next windows
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a freeze
    Show {
        /// Its name
        name: String,
    },
    /// Hold every change of devices in certain windows, but for what is urgent
    Create {
        /// Its name: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        /// When a window opens: minute, hour, day of the month, month, day of the week, such as '0 18 * * FRI'
        #[arg(long, value_name = "CRON")]
        cron: String,
        /// How long it is open, such as 62h
        #[arg(long, value_name = "TIME", value_parser = duration)]
        duration: Duration,
        /// Time zone of the cron expression, such as Europe/Berlin
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        time_zone: String,
        /// Label of the devices that it holds; may be repeated, then all of them [default: all devices]
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Remove a freeze; what it holds goes on at once
    Delete {
        /// Its name
        name: String,
    },
}

const FREEZES: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("OPENS", |item, _| text(item, "/cron")),
    Column::new("SECONDS", |item, _| text(item, "/duration_s")),
    Column::new("ZONE", |item, _| text(item, "/time_zone")),
    Column::new("HOLDS UNTIL", |item, _| text(item, "/active_until")),
    Column::new("NEXT", |item, _| text(item, "/next_from")),
    Column::new("MADE", |item, now| ago(item, "/created_at", now)),
];

const FIRST: &[&str] = &["name", "cron", "duration_s", "time_zone", "labels", "active_until", "next_from"];

/// Runs a verb on freezes.
pub(super) fn run(session: &Session, verb: FreezeVerb) -> Result<(), CliError> {
    match verb {
        FreezeVerb::List { page } => {
            let list = session.list(&["freezes"], &page, &[])?;
            session.print_list(&list, FREEZES, "trustfleet freeze create NAME --cron '0 18 * * FRI' --duration 62h")
        }
        FreezeVerb::Show { name } => session.print_object(&session.read(&["freezes", &name])?, FIRST, ""),
        FreezeVerb::Create { name, cron, duration, time_zone, labels } => {
            let labels: Map<String, Value> = labels.into_iter().map(|(key, value)| (key, value.into())).collect();
            let body = json!({
                "name": name, "cron": cron, "duration_s": duration.as_secs(), "time_zone": time_zone, "labels": labels,
            });
            let freeze = session.call(Method::POST, &["freezes"], Some(&body))?;
            session.print_object(&freeze, FIRST, "trustfleet freeze delete NAME lets go what it holds")
        }
        FreezeVerb::Delete { name } => {
            session.call(Method::DELETE, &["freezes", &name], None)?;
            session.print_deleted("freeze", &name)
        }
    }
}
