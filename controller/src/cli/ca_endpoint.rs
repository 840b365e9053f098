//! Verbs on CMP servers and their budgets.

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    args::Page,
    error::CliError,
    output::{Column, text},
    session::Session,
};

/// Verbs on CMP servers that jobs go to.
#[derive(Debug, Subcommand)]
pub enum CaEndpointVerb {
    /// List them: budget, what is under way, what waits, circuit breaker
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Give one a budget of its own, over all tenants and replicas; what no flag names stays
    #[command(
        after_help = "Example:\n  trustfleet ca-endpoint set ca.example:8080 --rate 20 --burst 40 --concurrency 50"
    )]
    Set {
        /// HOST:PORT of the CA servers' primary URL
        endpoint: String,
        /// Exchanges that may begin in a second
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
        /// Exchanges that may begin at once after a pause
        #[arg(long, value_name = "N")]
        burst: Option<u32>,
        /// Exchanges under way at a time
        #[arg(long, value_name = "N")]
        concurrency: Option<u32>,
    },
    /// Move coming renewals inside their safe windows until no hour is beyond a budget; it is done by itself as well
    Respread,
    /// Let one have the configuration's budget again
    Reset {
        /// HOST:PORT of the CA servers' primary URL
        endpoint: String,
    },
}

const ENDPOINTS: &[Column] = &[
    Column::new("ENDPOINT", |item, _| text(item, "/endpoint")),
    Column::new("RATE/S", |item, _| text(item, "/rate_per_s")),
    Column::new("BURST", |item, _| text(item, "/burst")),
    Column::new("CONCURRENCY", |item, _| text(item, "/concurrency")),
    Column::new("OWN", |item, _| text(item, "/own_budget")),
    Column::new("IN USE", |item, _| text(item, "/in_use")),
    Column::new("WAITING", |item, _| text(item, "/waiting")),
    Column::new("EXEMPT", |item, _| text(item, "/exempt")),
    Column::new("FAILOVERS", |item, _| text(item, "/failovers")),
    Column::new("BREAKER", |item, _| text(item, "/breaker")),
    Column::new("FAILURES", |item, _| text(item, "/failures")),
];

const SPREADINGS: &[Column] = &[
    Column::new("ENDPOINT", |item, _| text(item, "/endpoint")),
    Column::new("MOVED", |item, _| text(item, "/moved")),
    Column::new("FIT NOWHERE", |item, _| text(item, "/unfit")),
    Column::new("FOR ONE", |item, _| match item.pointer("/unfit_examples/0") {
        Some(one) => ["/tenant", "/device", "/trustpoint", "/at"].map(|part| text(one, part)).join(" "),
        None => String::new(),
    }),
];

/// Runs a verb on CMP servers.
pub(super) fn run(session: &Session, verb: CaEndpointVerb) -> Result<(), CliError> {
    const NOUN: &str = "ca-endpoints";
    match verb {
        CaEndpointVerb::List { page } => {
            let list = session.list_at(true, &[NOUN], &page, &[])?;
            session.print_list(&list, ENDPOINTS, "trustfleet ca-endpoint set HOST:PORT --rate N")
        }
        CaEndpointVerb::Set { endpoint, rate, burst, concurrency } => {
            let page = Page { limit: 100, after: None, all: true };
            let known = session.list_at(true, &[NOUN], &page, &[])?;
            let known =
                known["items"].as_array().into_iter().flatten().find(|item| item["endpoint"] == endpoint.as_str());
            let kept = |field: &str| known.map_or(Value::Null, |known| known[field].clone());
            let given = |field: &str, value: Option<Value>| value.unwrap_or_else(|| kept(field));
            let body = json!({
                "rate_per_s": given("rate_per_s", rate.map(Value::from)),
                "burst": given("burst", burst.map(Value::from)),
                "concurrency": given("concurrency", concurrency.map(Value::from)),
            });
            let set = session.call_at(true, Method::PUT, &[NOUN, &endpoint], Some(&body))?;
            let first = &["endpoint", "rate_per_s", "burst", "concurrency", "in_use", "waiting", "breaker"];
            session.print_object(&set, first, "trustfleet ca-endpoint list")
        }
        CaEndpointVerb::Respread => {
            let done = session.call_at(true, Method::POST, &[NOUN, "respread"], None)?;
            session.print_list(&done, SPREADINGS, "trustfleet ca-server forecast NAME")
        }
        CaEndpointVerb::Reset { endpoint } => {
            session.call_at(true, Method::DELETE, &[NOUN, &endpoint], None)?;
            session.print_deleted("the budget of", &endpoint)
        }
    }
}
