//! Verbs on devices.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;
use ureq::http::Method;

use super::{
    args::{Page, Selector, given, pair},
    certificate,
    error::CliError,
    output::{Column, ago, due, expiry, text},
    session::Session,
    spec::Draft,
    statistics, transfer,
};

/// Verbs on devices.
#[derive(Debug, Subcommand)]
pub enum DeviceVerb {
    /// List the registered devices
    List {
        /// Only behind this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        #[command(flatten)]
        selector: Selector,
        #[command(flatten)]
        page: Page,
    },
    /// List devices that will miss a renewal, or have: the certificate that ends first leads
    AtRisk {
        /// Only for this reason: expired, no_agent, quarantined, absent, seldom, queue
        #[arg(long, value_name = "REASON")]
        risk: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a device
    Show {
        /// Its name
        name: String,
    },
    /// Register a device
    Create {
        /// Its name: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        #[command(flatten)]
        flags: DeviceFlags,
    },
    /// Change what is registered about a device; what no flag names stays
    Update {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DeviceFlags,
    },
    /// Make a device the active node of its pair; the others stand by
    SwitchOver {
        /// Its name
        name: String,
    },
    /// Show what the CMP sessions of a device have done so far
    Statistics {
        /// Its name
        name: String,
        /// Set those of all its trustpoints to nothing
        #[arg(long)]
        reset: bool,
    },
    /// Have all valid certificates of a device revoked: it was lost or stolen
    Revoke {
        /// Its name
        name: String,
        /// Why
        #[arg(long, value_name = "REASON", value_parser = certificate::REASONS)]
        reason: String,
    },
    /// Register and change many devices, from a file of JSON lines as `export` writes them; exit code 1 when a line was refused
    #[command(
        after_help = "A line is the whole of a device. It is taken as a whole or not at all; the others go on, and the same \
        file once more changes nothing.\nExample:\n  trustfleet device import devices.ndjson --dry-run"
    )]
    Import {
        /// The file; '-' is stdin
        file: PathBuf,
        /// Say what would become of each line, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write all devices as JSON lines that an import takes, without secrets
    Export {
        /// Only behind this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        #[command(flatten)]
        selector: Selector,
        /// Write them to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        write_to: Option<PathBuf>,
    },
    /// Delete a device with everything that is its own
    #[command(after_help = "Example:\n  trustfleet device delete ap-1 --certificates revoke")]
    Delete {
        /// Its name
        name: String,
        /// What becomes of its certificates: keep them valid, and forget them here; or have them revoked, and delete the device
        /// when they are. Left out: it is deleted only if it has no trustpoint and no history
        #[arg(long, value_name = "keep|revoke", value_parser = ["keep", "revoke"])]
        certificates: Option<String>,
    },
}

/// What is registered about a device.
#[derive(Debug, Args)]
pub struct DeviceFlags {
    /// The agent in front of it; one agent can serve many devices
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Serial number, for {device.serial} in names
    #[arg(long, value_name = "WORD")]
    serial: Option<String>,
    /// MAC address, for {device.mac} in names
    #[arg(long, value_name = "WORD")]
    mac: Option<String>,
    /// Label, may be repeated, for {label.KEY} in names; with `update` the labels given replace all
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Hot-standby pair that it belongs to; '' takes it back
    #[arg(long, value_name = "NAME")]
    pair: Option<String>,
    /// In a pair: it stands by, and never applies for a certificate
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    standby: Option<bool>,
}

impl DeviceFlags {
    fn lay_over(self, draft: &mut Draft) {
        draft.set("agent", self.agent);
        draft.set("serial", self.serial);
        draft.set("mac", self.mac);
        draft.set("pair", self.pair.map(|name| if name.is_empty() { Value::Null } else { name.into() }));
        draft.set("standby", self.standby);
        if !self.labels.is_empty() {
            let labels = self.labels.into_iter().map(|(key, value)| (key, Value::from(value)));
            draft.set("labels", Some(Value::Object(labels.collect())));
        }
    }
}

const DEVICES: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("AGENT", |item, _| text(item, "/agent")),
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("MAC", |item, _| text(item, "/mac")),
    Column::new("LABELS", |item, _| text(item, "/labels")),
    Column::new("PAIR", |item, _| pair_of(item)),
    Column::new("TRUSTPOINTS", |item, _| text(item, "/trustpoints")),
    Column::new("UPDATED", |item, now| ago(item, "/updated_at", now)),
];
const AT_RISK: &[Column] = &[
    Column::new("DEVICE", |item, _| text(item, "/device")),
    Column::new("TRUSTPOINT", |item, _| text(item, "/trustpoint")),
    Column::new("ENDS", |item, now| expiry(item, "/not_after", now)),
    Column::new("RISK", |item, _| text(item, "/risk")),
    Column::new("EXPECTED", |item, now| due(item, "/renewed_at", now)),
    Column::new("AGENT", |item, _| text(item, "/agent")),
    Column::new("LAST SEEN", |item, now| ago(item, "/last_seen_at", now)),
    Column::new("LEASE", |item, now| expiry(item, "/leased_until", now)),
    Column::new("RECOVERY", |item, _| text(item, "/recovery_armed")),
];
const FIRST: &[&str] =
    &["name", "id", "agent", "serial", "mac", "labels", "pair", "standby", "node_active", "node_since", "leaving_at"];

fn pair_of(item: &Value) -> String {
    let seen = match (item["standby"].as_bool(), item["node_active"].as_bool()) {
        (Some(true), Some(true)) => ", seen as active",
        (Some(false), Some(false)) => ", seen as standby",
        _ => "",
    };
    match item["pair"].as_str() {
        Some(pair) if item["standby"] == true => format!("{pair} (standby{seen})"),
        Some(pair) => format!("{pair} (active{seen})"),
        None => "-".to_owned(),
    }
}

/// Runs a verb on devices.
pub(super) fn run(session: &Session, verb: DeviceVerb) -> Result<(), CliError> {
    match verb {
        DeviceVerb::List { agent, selector, page } => {
            let filters = given([("agent", agent), ("selector", selector.query())]);
            let list = session.list(&["devices"], &page, &filters)?;
            session.print_list(&list, DEVICES, "trustfleet trustpoint list [--device NAME] shows their certificates")
        }
        DeviceVerb::AtRisk { risk, page } => {
            let filters: Vec<_> = risk.into_iter().map(|risk| ("risk", risk)).collect();
            let list = session.list(&["devices", "at-risk"], &page, &filters)?;
            session.print_list(
                &list,
                AT_RISK,
                "trustfleet trustpoint arm-recovery DEVICE TRUSTPOINT, for when they come back too late",
            )
        }
        DeviceVerb::Show { name } => {
            let device = session.read(&["devices", &name])?;
            session.print_object(&device, FIRST, &format!("trustfleet trustpoint list --device {name}"))
        }
        DeviceVerb::Create { name, flags } => {
            let mut draft = Draft::default();
            flags.lay_over(&mut draft);
            let device = session.call(Method::POST, &["devices"], Some(&draft.body_named(&name)))?;
            let next = format!("trustfleet trustpoint create {name} TRUSTPOINT --entity E --ca-server C --policy P");
            session.print_object(&device, FIRST, &next)
        }
        DeviceVerb::Update { name, flags } => {
            let present = session.read(&["devices", &name])?;
            let mut draft = Draft::default();
            for field in ["agent", "serial", "mac", "labels", "pair", "standby"] {
                draft.set(field, present.get(field).filter(|value| !value.is_null()).cloned());
            }
            flags.lay_over(&mut draft);
            let device = session.call(Method::PUT, &["devices", &name], Some(&draft.body()))?;
            session.print_object(&device, FIRST, "new names take effect with the next enrolment")
        }
        DeviceVerb::SwitchOver { name } => {
            let device = session.call(Method::POST, &["devices", &name, "switch-over"], None)?;
            session.print_object(&device, FIRST, &format!("trustfleet trustpoint list --device {name}"))
        }
        DeviceVerb::Statistics { name, reset } => {
            let next = format!("trustfleet trustpoint list --device {name}");
            statistics::print(session, &["devices", &name], reset, &next)
        }
        DeviceVerb::Revoke { name, reason } => certificate::revoke_all(session, &["devices", &name], &reason),
        DeviceVerb::Import { file, dry_run } => transfer::import(session, "devices", &file, dry_run),
        DeviceVerb::Export { agent, selector, write_to } => {
            let filters = given([("agent", agent), ("selector", selector.query())]);
            transfer::export(session, "devices", &filters, write_to)
        }
        DeviceVerb::Delete { name, certificates } => {
            let query: Vec<_> = certificates.map(|word| ("certificates", word)).into_iter().collect();
            let left = session.call_with(Method::DELETE, &["devices", &name], None, &query, &[])?;
            if left.is_null() {
                return session.print_deleted("device", &name);
            }
            let next = format!("trustfleet certificate list --device {name}: the device goes when they are revoked");
            session.print_object(&left, FIRST, &next)
        }
    }
}
