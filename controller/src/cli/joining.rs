//! Verbs on how agents come in without a token: factory CAs, expected serial numbers, applicants.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::{Page, pair},
    error::CliError,
    output::{Column, ago, text},
    session::Session,
    spec::certificates,
};

/// Verbs on factory CAs.
#[derive(Debug, Subcommand)]
pub enum FactoryCaVerb {
    /// List the factory CAs
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a factory CA
    Show {
        /// Its name
        name: String,
    },
    /// Register a CA whose factory identities (IDevID) let agents in
    Create {
        /// Its name: 1 to 63 letters, digits, '.', '_', '-'
        name: String,
        /// PEM file with its CA certificates; may be repeated
        #[arg(long = "anchor", value_name = "FILE", required = true)]
        anchors: Vec<PathBuf>,
        /// Where its certificates hold the serial number
        #[arg(long, value_enum)]
        serial_from: SerialFrom,
        /// Let in every serial number that it vouches for [default: only those that are expected]
        #[arg(long)]
        any_serial: bool,
        /// Label that its agents get, may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Forget a factory CA; agents that came in by it stay
    Delete {
        /// Its name
        name: String,
    },
}

/// Where certificates hold the serial number.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SerialFrom {
    /// The attribute serialNumber of the subject
    Subject,
    /// The hardwareModuleName among the alternative names
    HardwareModuleName,
}

impl SerialFrom {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject_serial_number",
            Self::HardwareModuleName => "hardware_module_name",
        }
    }
}

/// Verbs on serial numbers whose agents may announce themselves.
#[derive(Debug, Subcommand)]
pub enum ExpectedAgentVerb {
    /// List the expected serial numbers
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Let the agent of a serial number announce itself
    Create {
        /// The serial number
        serial: String,
        /// Name that the agent gets [default: the one that it asks for]
        #[arg(long, value_name = "NAME")]
        agent_name: Option<String>,
        /// Label that the agent gets, may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Expect a serial number no more; who announced it is forgotten
    Delete {
        /// The serial number
        serial: String,
    },
}

/// Verbs on agents that wait for an operator.
#[derive(Debug, Subcommand)]
pub enum ApplicantVerb {
    /// List the agents that wait, with the ids of their keys
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Let an agent in: it joins when it asks again
    Approve {
        /// Its id, from the list; compare the id of its key with the agent's log before
        id: String,
    },
    /// Refuse an agent's keys
    Reject {
        /// Its id, from the list
        id: String,
    },
}

const FACTORY_CAS: &[Column] = &[
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("SERIAL FROM", |item, _| text(item, "/serial_from")),
    Column::new("EXPECTED ONLY", |item, _| text(item, "/expected_only")),
    Column::new("LABELS", |item, _| text(item, "/labels")),
    Column::new("CREATED", |item, now| ago(item, "/created_at", now)),
];
const EXPECTED: &[Column] = &[
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("AGENT NAME", |item, _| text(item, "/agent_name")),
    Column::new("LABELS", |item, _| text(item, "/labels")),
    Column::new("CREATED", |item, now| ago(item, "/created_at", now)),
];
const APPLICANTS: &[Column] = &[
    Column::new("SERIAL", |item, _| text(item, "/serial")),
    Column::new("NAME", |item, _| text(item, "/name")),
    Column::new("KEY", |item, _| text(item, "/key_id")),
    Column::new("STATE", |item, _| text(item, "/state")),
    Column::new("FROM", |item, _| text(item, "/address")),
    Column::new("LAST SEEN", |item, now| ago(item, "/last_seen_at", now)),
    Column::new("ID", |item, _| text(item, "/id")),
];

fn object(labels: Vec<(String, String)>) -> Value {
    labels.into_iter().map(|(key, value)| (key, Value::from(value))).collect()
}

/// Runs a verb on factory CAs.
pub(super) fn run_factory_ca(session: &Session, verb: FactoryCaVerb) -> Result<(), CliError> {
    const FIRST: &[&str] = &["name", "id", "serial_from", "expected_only"];
    const NEXT: &str = "agents name the tenant, the id of the controller's key and their certificate in the section `announce` \
                        of their configuration; `trustfleet expected-agent create SERIAL` for each serial number";
    match verb {
        FactoryCaVerb::List { page } => {
            session.print_list(&session.list(&["factory-cas"], &page, &[])?, FACTORY_CAS, NEXT)
        }
        FactoryCaVerb::Show { name } => session.print_object(&session.read(&["factory-cas", &name])?, FIRST, NEXT),
        FactoryCaVerb::Create { name, anchors, serial_from, any_serial, labels } => {
            let body = json!({
                "name": name, "anchors": certificates(&anchors)?, "serial_from": serial_from.as_str(),
                "expected_only": !any_serial, "labels": object(labels)
            });
            session.print_object(&session.call(Method::POST, &["factory-cas"], Some(&body))?, FIRST, NEXT)
        }
        FactoryCaVerb::Delete { name } => {
            session.call(Method::DELETE, &["factory-cas", &name], None)?;
            session.print_deleted("factory CA", &name)
        }
    }
}

/// Runs a verb on expected serial numbers.
pub(super) fn run_expected(session: &Session, verb: ExpectedAgentVerb) -> Result<(), CliError> {
    const NEXT: &str = "`trustfleet applicant list` shows who has announced itself";
    match verb {
        ExpectedAgentVerb::List { page } => {
            session.print_list(&session.list(&["expected-agents"], &page, &[])?, EXPECTED, NEXT)
        }
        ExpectedAgentVerb::Create { serial, agent_name, labels } => {
            let mut body = json!({ "serial": serial, "labels": object(labels) });
            if let Some(name) = agent_name {
                body["agent_name"] = Value::from(name);
            }
            let made = session.call(Method::POST, &["expected-agents"], Some(&body))?;
            session.print_object(&made, &["serial", "agent_name", "labels"], NEXT)
        }
        ExpectedAgentVerb::Delete { serial } => {
            session.call(Method::DELETE, &["expected-agents", &serial], None)?;
            session.print_deleted("expected serial number", &serial)
        }
    }
}

/// Runs a verb on applicants.
pub(super) fn run_applicant(session: &Session, verb: ApplicantVerb) -> Result<(), CliError> {
    const FIRST: &[&str] = &["serial", "name", "key_id", "state", "id"];
    match verb {
        ApplicantVerb::List { page } => {
            let next = "compare KEY with the line `waits to be approved` in the agent's own log, then \
                        `trustfleet applicant approve ID`";
            session.print_list(&session.list(&["applicants"], &page, &[])?, APPLICANTS, next)
        }
        ApplicantVerb::Approve { id } => {
            let decided = session.call(Method::POST, &["applicants", &id, "approve"], None)?;
            session.print_object(&decided, FIRST, "it joins when it asks again, within some minutes")
        }
        ApplicantVerb::Reject { id } => {
            let decided = session.call(Method::POST, &["applicants", &id, "reject"], None)?;
            session.print_object(&decided, FIRST, "trustfleet applicant list")
        }
    }
}
