//! `trustfleet-lab fleet`: many real agents on one machine, at a running controller or in a private house.
//!
//! Each agent is the agent's own library with a state folder, keys and a connection of its own: the broker binds what an agent
//! may read and write to the token of its connection, so that agents cannot share one. They run many in a process, and
//! in as many processes as is wanted. Where even that is too much, [`simulated`] agents share connections; only benchmarks
//! use them.
//!
//! ```text
//! fleet -> herd -> part (processes): run_until of the agent
//!            `-> tenant (REST)
//! ```

pub mod gate;
pub mod herd;
mod keys;
mod part;
pub mod simulated;
mod summary;
pub mod tenant;

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use url::Url;

pub use self::part::{PartArgs, run as run_part};
use self::{
    gate::Gate,
    herd::{Herd, HerdError, Plan},
    summary::{Phase, Summary},
    tenant::{Settings, Tenant},
};
use crate::{
    house::{Fleet, House, HouseError, Rest, TENANT},
    stack::{Stack, StackError, StackOptions, random_word},
};

/// Longest wait for the jobs of one round.
const ROUND_LIMIT: Duration = Duration::from_secs(3_600);
/// Reference value of the secret that all devices of a private house share.
const REFERENCE: &str = "fleet";

/// Arguments of `fleet`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every device has its certificate, after every round; 1 not; 2 the arguments do not fit.\n\n\
    Examples:\n  \
    trustfleet-lab fleet --agents 100 --devices-per-agent 20 --renew 1\n  \
    trustfleet-lab fleet --agents 500 --processes 2 --restart-every 30 --fail-exchanges 20 --seed 7 --output json\n  \
    trustfleet-lab fleet --controller https://tf.example --token-file admin.token --tenant lab --mac fleet=S3cret"
)]
pub struct FleetArgs {
    /// How many agents
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,
    /// Devices behind each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    devices_per_agent: u32,
    /// Processes among which the agents are shared out
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// A running controller [default: a private house is started, with its own PostgreSQL, RabbitMQ and CA]
    #[arg(long, value_name = "URL", requires_all = ["token_file", "mac"])]
    controller: Option<Url>,
    /// File with a token of an administrator of the tenant there
    #[arg(long, value_name = "FILE", requires = "controller")]
    token_file: Option<PathBuf>,
    /// The tenant there; it must have an entity, a CA server and a policy called as below
    #[arg(long, default_value = TENANT)]
    tenant: String,
    /// Name of the entity, the CA server and the policy there
    #[arg(long, default_value = "default")]
    settings: String,
    /// MAC reference and secret at the CA there, which all devices share
    #[arg(long, value_name = "REF=SECRET", requires = "controller")]
    mac: Option<String>,
    /// Kind of key in a private house's policy: ecdsa-p256, ecdsa-p384 or rsa-2048
    #[arg(long, default_value = "ecdsa-p256")]
    key_algorithm: String,
    /// Keys of devices that each process makes beforehand and takes in turn; 0: each is made when it is needed. Fewer than there are
    /// certificates to get show up as keys that two trustpoints have
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    ready_keys: usize,
    /// Rounds of renewals after the enrolment
    #[arg(long, default_value_t = 0)]
    renew: u32,
    /// All chances follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each agent starts at some moment within so many seconds
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    start_within: f64,
    /// An agent is cut off and comes back once in about so many seconds; 0: never
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    restart_every: f64,
    /// Addresses of 127.0.0.0/8, from 127.0.0.2 on, from which the agents' connections come in turn, so that their ports do not run
    /// out; 0: the system's choice; in a private house
    #[arg(long, default_value_t = 0, value_name = "COUNT", conflicts_with = "controller", value_parser = clap::value_parser!(u32).range(..=10_000))]
    source_addresses: u32,
    /// Agents that lose the broker come back at some moment within so many seconds
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
    reconnect_within: u32,
    /// So many of a thousand connections to the CA fail; in a private house
    #[arg(long, default_value_t = 0, value_name = "OF-THOUSAND", conflicts_with = "controller")]
    fail_exchanges: u32,
    /// Let PostgreSQL of a private house wait for the disk
    #[arg(long)]
    fsync: bool,
    /// Folder below which everything is made and removed again [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Form of the result on stdout; progress is told on stderr
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Columns for people.
    #[default]
    Table,
    /// One object.
    Json,
}

/// The fleet could not be brought together.
#[derive(Debug, thiserror::Error)]
enum FleetError {
    #[error(transparent)]
    Herd(#[from] HerdError),
    #[error(transparent)]
    House(#[from] HouseError),
    #[error(transparent)]
    Rest(#[from] crate::house::RestError),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("{0}")]
    Wrong(String),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> FleetError {
    let what = what.into();
    move |source| FleetError::Io { what, source }
}

/// Runs a fleet; its exit code.
pub async fn run(args: FleetArgs) -> ExitCode {
    if part::key_type(&args.key_algorithm).is_none() {
        eprintln!("fleet: --key-algorithm is {:?}; it can be ecdsa-p256, ecdsa-p384 or rsa-2048", args.key_algorithm);
        return ExitCode::from(2);
    }
    let summary = match &args.controller {
        Some(controller) => at_controller(&args, controller).await,
        None => at_home(&args).await,
    };
    match summary {
        Ok(summary) => {
            match args.output {
                Form::Json => println!("{}", summary.json()),
                Form::Table => print!("{}", summary.table()),
            }
            if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprint!("fleet: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn at_controller(args: &FleetArgs, controller: &Url) -> Result<Summary, FleetError> {
    let path = args.token_file.clone().unwrap_or_default();
    let token = fs::read_to_string(&path).map_err(failed(format!("reading {}", path.display())))?;
    let (reference, secret) = args
        .mac
        .as_deref()
        .and_then(|mac| mac.split_once('='))
        .ok_or_else(|| FleetError::Wrong("--mac must read REF=SECRET".to_owned()))?;
    let rest = Rest::new(controller.clone(), Some(token.trim().to_owned()));
    let settings = Settings {
        entity: args.settings.clone(),
        ca_server: args.settings.clone(),
        policy: args.settings.clone(),
        mac: (reference.to_owned(), secret.to_owned()),
    };
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("trustfleet-fleet-").tempdir_in(&base);
    let dir = dir.map_err(failed(format!("making a folder below {}", base.display())))?;
    rounds(args, Tenant { rest, name: args.tenant.clone() }, &settings, dir.path().join("agents")).await
}

async fn at_home(args: &FleetArgs) -> Result<Summary, FleetError> {
    eprintln!("fleet: starting a private PostgreSQL and RabbitMQ, a controller and the lab CA");
    let options = StackOptions { base_dir: args.dir.clone(), fsync: args.fsync, ..StackOptions::default() };
    let stack = Stack::start(options).await?;
    let result = in_stack(args, &stack).await;
    stack.stop().await;
    result
}

async fn in_stack(args: &FleetArgs, stack: &Stack) -> Result<Summary, FleetError> {
    let dir = stack.env().dir.join("fleet");
    fs::create_dir_all(&dir).map_err(failed(format!("making {}", dir.display())))?;
    // What is measured here is not to be limited by a CA that has no limits.
    let number = |number: &str| number.to_owned();
    let settings = [
        ("TRUSTFLEET__CA_BUDGET__RATE_PER_S", number("100000.0")),
        ("TRUSTFLEET__CA_BUDGET__BURST", number("100000")),
        ("TRUSTFLEET__CA_BUDGET__CONCURRENCY", number("100000")),
        ("TRUSTFLEET__LOG__FILTER", number("warn")),
    ];
    let house = House::start_with(&dir, stack.env(), &settings).await?;
    let secret = random_word(24)?;
    let policy = json!({ "key": { "algorithm": args.key_algorithm } });
    let credential = format!("{REFERENCE}={secret}");
    let fleet = Fleet::create_at(&house, &[], &policy, &["--secret", &credential]).await?;
    let gate = gate(args, &fleet).await?;
    let settings = Settings {
        entity: "default".to_owned(),
        ca_server: if gate.is_some() { "gated" } else { "default" }.to_owned(),
        policy: "default".to_owned(),
        mac: (REFERENCE.to_owned(), secret),
    };
    let tenant = Tenant { rest: fleet.rest.clone(), name: TENANT.to_owned() };
    rounds(args, tenant, &settings, dir.join("agents")).await
}

/// A door before the CA, where some exchanges are to fail, and a CA server whose address it is.
async fn gate(args: &FleetArgs, fleet: &Fleet) -> Result<Option<Gate>, FleetError> {
    if args.fail_exchanges == 0 {
        return Ok(None);
    }
    let no_address = || FleetError::Wrong(format!("the lab CA is at {}, which is no address", fleet.ca_url));
    let behind = fleet.ca_url.socket_addrs(|| None).ok().and_then(|all| all.into_iter().next());
    let gate = Gate::open(behind.ok_or_else(no_address)?, args.seed).await.map_err(failed("opening a port"))?;
    gate.refuse(args.fail_exchanges);
    let mut url = fleet.ca_url.clone();
    if url.set_port(Some(gate.address().port())).is_err() {
        return Err(no_address());
    }
    fleet.post("ca-servers", &fleet.ca_server("gated", &url)?)?;
    Ok(Some(gate))
}

/// Joins, enrols and renews; what came of it.
async fn rounds(args: &FleetArgs, tenant: Tenant, settings: &Settings, dir: PathBuf) -> Result<Summary, FleetError> {
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let plan = Plan {
        agents: args.agents,
        devices_per_agent: args.devices_per_agent,
        processes: args.processes,
        seed: args.seed,
        start_within_s: args.start_within,
        restart_every_s: args.restart_every,
        ready_keys: args.ready_keys,
        key_algorithm: args.key_algorithm.clone(),
        source_addresses: args.source_addresses,
        more: format!("reconnect_within_s = {}\n", args.reconnect_within),
    };
    let devices = u64::from(args.agents) * u64::from(args.devices_per_agent);
    let mut summary = Summary::new(args.agents, devices, args.processes, args.seed);
    let bar = self::bar(&bars, "agents joined", u64::from(args.agents));
    let begin = Instant::now();
    let mut herd = Herd::start(tenant, &plan, &dir, &bar).await?;
    summary.phases.push(Phase::of("join", u64::from(args.agents), begin.elapsed()));
    bar.finish();
    let bar = self::bar(&bars, "devices registered", devices);
    let begin = Instant::now();
    herd.add_devices(&plan, settings, &bar).await?;
    summary.phases.push(Phase::of("register", devices, begin.elapsed()));
    bar.finish();
    for round in 0..=args.renew {
        let (what, request) =
            if round == 0 { ("certificates enrolled", "ir") } else { ("certificates renewed", "kur") };
        let bar = self::bar(&bars, what, devices);
        let begin = Instant::now();
        let ends = herd.enroll(request, ROUND_LIMIT, &bar).await?;
        summary.phases.push(Phase::of_jobs(request, ends, begin.elapsed()));
        bar.finish();
    }
    summary.memory_bytes = herd.processes().into_iter().filter_map(summary::resident_bytes).sum();
    summary.restarts = herd.stop().await?;
    Ok(summary)
}

fn bar(bars: &MultiProgress, what: &'static str, length: u64) -> ProgressBar {
    let bar = bars.add(ProgressBar::new(length).with_message(what));
    if let Ok(style) = ProgressStyle::with_template("{msg:>22} {bar:40} {pos}/{len} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// As it stands in the summary's JSON.
fn rounded(number: f64) -> Value {
    json!((number * 100.0).round() / 100.0)
}
